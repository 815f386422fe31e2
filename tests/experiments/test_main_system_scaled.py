"""The main system at growing size: lists of a fixed fan-in, and what memory goes with steps."""

import jax
import jax.numpy as jnp
import pytest

from experiments import scaling


def test_exponents_are_slopes_over_synapses():
    rows = [
        {"synapses": n, "seconds": 3e-6 * n**1.2, "bytes": 40 * n, "joules": n**1.5, "hops_spike": 7}
        for n in (1e4, 1e5, 1e6)
    ]
    slopes = {"seconds": 1.2, "bytes": 1.0, "joules": 1.5, "hops_spike": 0.0}
    assert scaling.exponents(rows) == pytest.approx(slopes)
    assert scaling.exponents(rows[:1]) == {}


@pytest.mark.slow
def test_synapses_grow_with_neurons_and_memory_of_bptt_faster_with_steps():
    c = scaling.Config(durations=(10, 80), fan_in=8)
    key, x = jax.random.key(0), jnp.ones((4, 64))
    made = scaling.system(c, 200, 64, 10, 10, key)
    assert [made.network.projections[n].connectivity.shape for n in ("in", "loop")] == [(1600,)] * 2
    few, many = scaling.held(c, 200, 64, 10, x, jnp.zeros(4, int), key)
    assert many["bptt"] > 4 * few["bptt"]
    assert many["three_factors_one"] < 1.1 * few["three_factors_one"]
    assert many["bptt_one"] > 2 * few["bptt_one"]
