"""What is completed, how it is counted, and which rate is kept."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import completion


class Half:
    """A machine that completes every pixel with bin 1 and names every picture 0."""

    n_bins = 2

    def complete(self, state, x, seen):
        return jnp.broadcast_to(jnp.array([0.0, 1.0]), (*x.shape, 2)), jnp.eye(3)[
            jnp.zeros(len(x), int)
        ]


def test_hidden_pixels_alone_are_counted(monkeypatch):
    monkeypatch.setattr(completion, "evaluate", lambda *args: 0.5)
    x, key = jax.random.uniform(jax.random.key(0), (20, 30)), jax.random.key(1)
    found = completion.completed(Half(), None, (x, jnp.arange(20) % 4), "val", key)
    hidden = ~np.asarray(jax.random.bernoulli(key, 0.4, x.shape))
    assert found["val_pixels"] == pytest.approx((np.asarray(x) >= 0.5)[hidden].mean())
    assert (float(found["val_label"]), float(found["val_label_all_seen"])) == (0.25, 0.5)


def test_bins_and_the_commonest_of_each_pixel():
    x = jnp.array([[0.0, 0.24], [0.25, 0.1], [0.3, 1.0]])
    np.testing.assert_array_equal(completion.binned(x, 4), [[0, 0], [1, 0], [1, 3]])
    test = (jnp.array([[0.4, 0.9], [0.9, 0.1]]), None)
    assert completion.commonest((x, None), test, 4) == 0.5


def test_the_rate_is_chosen_by_validation_and_a_part_is_made_once(tmp_path, monkeypatch, capsys):
    made = []

    def learnt(config, n_classes, n_bins, shown, way):
        made.append((way, n_classes, n_bins, shown[2][0].shape))
        val = {0.1: 0.7, 0.2: 0.9}  # the test would have it the other way round
        return [
            dict(way=way, lr=lr, seed=s, val_pixels=v, val_label=v, test_pixels=1 - v,
                 test_label=0.5, test_label_all_seen=0.25)
            for lr, v in val.items() for s in (0, 1)
        ]  # fmt: skip

    monkeypatch.setattr(completion, "learnt", learnt)
    config = completion.Config(dataset="digits", out=tmp_path)
    rows = completion.run(config)
    said = " ".join(capsys.readouterr().out.split())
    assert "restricted, rate 0.2: hidden pixels 10.0 ± 0.0%, label 50.0 ± 0.0%" in said
    assert made[0][1:] == (10, 4, (360, 64))
    assert completion.run(replace(config, resume=True)) == rows
    assert [m[0] for m in made] == [*completion.WAYS]
    assert json.loads((tmp_path / "metrics.json").read_text())["runs"] == rows
