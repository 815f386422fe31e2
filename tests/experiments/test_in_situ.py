"""Faults within the loss, beside weights that are brought to them."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import in_situ
from neurojax.data.sets import Dataset, Split
from neurojax.wiring.layouts import Dense

WAYS = dict(numbers=0.9, imported=0.8, waited=0.7, tuned=0.85, in_situ=0.88)


def blobs(n_classes=3, n=60):
    """Three classes, each of pictures about one of its own."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    x = rng.normal(size=(n_classes, 8))[y] + 0.1 * rng.normal(size=(n, 8))
    split = Split(x.astype(np.float32), y.astype(np.int32))
    return Dataset("blobs", split, split, split, n_classes)


@pytest.mark.slow
def test_faults_are_made_up_for_where_they_lie_within_the_loss():
    learning = in_situ.Learning(hidden=(12,), epochs=20, tuned=20, batch_size=20, mu=0.1)
    (row,) = in_situ._one(learning, in_situ.Devices(stuck=(0.4,)), blobs(), 1)
    assert row["numbers"] > 0.95
    assert row["imported"] < row["numbers"]
    assert row["tuned"] > row["waited"]
    assert row["queries"] == 1 + 2 * 15


def test_stuck_parts_and_drift_are_those_asked_for():
    devices = in_situ.Devices(n_states=16, sigma_d2d=0.0)
    wiring, key = Dense(40, 50), jax.random.key(0)
    array = in_situ._arrays(devices, 0.4, 1.0)(jnp.zeros((50, 40)), wiring, key)
    stuck = np.asarray(array.pair.plus.stuck)
    assert (stuck == -1).mean() == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / stuck.size) ** 0.5)
    assert (stuck == 1).mean() == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / stuck.size) ** 0.5)
    np.testing.assert_allclose(array.pair.plus.nu, devices.nu, rtol=1e-6)


def test_a_network_that_is_done_is_not_made_again(tmp_path, monkeypatch):
    made = []

    def one(learning, devices, sets, seed):
        made.append(seed)
        if made == [3, 4]:
            raise KeyboardInterrupt
        for part in devices.stuck:
            yield {"seed": seed, "stuck": part} | WAYS

    monkeypatch.setattr(in_situ, "_one", one)
    config = in_situ.Config(seed=3, seeds=2, stuck=(0.0, 0.2), out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        in_situ.run(config)
    assert not (tmp_path / "metrics.json").exists()
    metrics = in_situ.run(replace(config, resume=True))
    assert made == [3, 4, 4]
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert [row["stuck"] for row in metrics["table"]] == [0.0, 0.2]
    assert metrics["table"][0]["tuned"] == pytest.approx(0.85)
    assert (tmp_path / "in_situ.png").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (dict(stuck=(0.1, 0.1)), "--stuck must name one or more, each once; got 0.1 0.1"),
        (dict(stuck=(1.5,)), r"--stuck must be in \[0, 1\]; got 1.5"),
        (dict(mu=0.0), r"--mu must be in \(0, inf\); got 0"),
        (dict(lr=-1.0), r"--lr must be in \(0, inf\); got -1"),
        (dict(wait=-1.0), r"--wait must be in \[0, inf\); got -1"),
        (dict(n_states=1), "--n-states must be a whole number >= 2; got 1"),
        (dict(hidden=(0,)), "--hidden must be a whole number >= 1; got 0"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        in_situ.Config(**options)
