"""One array read both ways, beside two."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import equilibrium_devices as devices
from neurojax import data
from neurojax.wiring.layouts import Dense


def test_each_setting_is_there_once_for_one_array_and_for_two():
    seen = [
        (j.tied, j.bits, j.n_points, beta, noise) for j in devices.jobs() for beta, noise in j.cases
    ]
    assert len(seen) == len(set(seen))
    one, two = ([s[1:] for s in seen if s[0] is tied] for tied in (True, False))
    assert one == two
    assert {s[:2] for s in one} == {(4, 2), (6, 2), (8, 2), (8, 1), (8, 4)}
    assert {beta for *_, beta, noise in one if noise == devices.NOISE} == set(devices.BETAS)
    assert {noise for *_, beta, noise in one if beta == devices.BETA} == set(devices.NOISES)


@pytest.mark.slow
def test_arrays_have_the_bits_and_the_noise_of_their_setting():
    w, wiring = 0.1 * jax.random.normal(jax.random.key(0), (4, 3)), Dense(3, 4)

    def made(bits, noise):
        make = devices.arrays(bits, jnp.asarray(noise))
        array = make(w, wiring, jax.random.key(1))
        array = array.program(jnp.full((4, 3), 0.05), key=jax.random.key(2))
        return array.w, array.apply(jnp.ones(3))

    (held, read), (same, finer), (noisy, _) = made(4, 0.0), made(12, 0.0), made(4, 0.1)
    np.testing.assert_array_equal(held, same)  # converters change what is read alone
    off = np.abs(finer - held.sum(1)).max()
    assert off < 2 * devices.COLUMN / 2**11
    assert off < np.abs(read - held.sum(1)).max() < 2 * devices.COLUMN / 2**3
    assert np.abs(noisy - held).max() > 1e-3


def test_a_job_that_is_done_is_not_made_again(tmp_path, monkeypatch):
    made = []

    def learnt(config, sets, job):
        made.append(job.name)
        if len(made) == 3:
            raise KeyboardInterrupt
        common = {"tied": job.tied, "bits": job.bits, "n_points": job.n_points, "seed": 0}
        return [
            common | {"beta": b, "noise": n, "accuracy": 0.5, "residual": 0.0} for b, n in job.cases
        ]

    monkeypatch.setattr(devices, "learnt", learnt)
    config = devices.Config(seeds=1, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        devices.run(config)
    rows = devices.run(replace(config, resume=True))
    assert sorted(made) == sorted([j.name for j in devices.jobs()] + [made[2]])
    assert json.loads((tmp_path / "metrics.json").read_text())["runs"] == rows
    assert (tmp_path / "equilibrium.png").exists()


@pytest.mark.slow
def test_one_array_learns_the_digits():
    job = devices.Job(True, 8, 2, ((0.5, 0.0),))
    config = devices.Config(seeds=1, epochs=4, hidden=16)
    (row,) = devices.learnt(config, data.load("digits"), job)
    assert row["accuracy"] > 0.4  # chance is .1
