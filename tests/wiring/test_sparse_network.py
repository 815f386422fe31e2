"""A recurrent network of sparse synapses, spike by spike and in its statistics, as in Brian2."""

import json

import jax
import numpy as np
import pytest
from oracles import brian2_network as oracle

from benchmarks import sparse_network

RECORDED = json.loads(oracle.HERE.with_suffix(".json").read_text())


@pytest.fixture(scope="module", autouse=True)
def _compiled_in_full():
    """These tests compute more than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parametrize("native", [True, False])
def test_every_spike_is_that_of_brian2(x64, native):
    n, seconds = oracle.SMALL
    z = next(sparse_network.neurojax(n, seconds, 0, n, [0], native))[1]
    assert len(RECORDED["t"]) > 1000
    np.testing.assert_array_equal(np.nonzero(z), (RECORDED["t"], RECORDED["i"]))


@pytest.mark.slow
def test_statistics_are_those_of_brian2_where_chaos_has_parted_the_spikes():
    n, seconds = oracle.LARGE
    runs = sparse_network.neurojax(n, seconds, 0, n, range(oracle.STARTS), True)
    ours = [sparse_network.statistics(z) for _, z in runs]
    for name in ("rate", "cv", "correlation"):
        a, b = (np.array([run[name] for run in runs]) for runs in (ours, RECORDED["statistics"]))
        # the same starts, but 1 s of chaos later: means of as many runs, 4 standard errors apart
        error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / oracle.STARTS)
        assert a.mean() == pytest.approx(b.mean(), abs=4 * error), name
        assert error < 0.2 * abs(b.mean()), name  # so that it says something
