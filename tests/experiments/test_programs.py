"""Programs are those of `eqx.filter_jit`, and go with the function that they are of."""

import gc
import weakref
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from experiments import _programs, wta_broadcast
from neurojax._compile import released


def closure(factor):
    return lambda model, x, *, more: {"v": factor * model.tau_mem * x + more}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jitted", "kept"), [(released, False), (eqx.filter_jit, True)]
)  # the second shows that the first can fail
def test_a_compiled_closure_goes_with_all_that_it_holds(jitted, kept):
    function = closure(jnp.ones(3))
    gone, program = weakref.ref(function), jitted(function)
    found = program(nj.LIF(tau_mem=20.0), jnp.arange(3.0), more=1.0)["v"]
    np.testing.assert_array_equal(found, [1, 21, 41])
    del function, program
    gc.collect()
    assert (gone() is not None) == kept


def test_is_compiled_once_for_each_structure():
    traces = []

    @released
    def run(model, x, scale):
        traces.append(1)
        return scale * x * model.tau_mem

    for tau in (10.0, 20.0):
        run(nj.LIF(tau_mem=tau), jnp.ones(2), 2.0)
    assert len(traces) == 1
    assert float(run(nj.LIF(tau_mem=10.0), jnp.ones(2), 3.0)[0]) == 30  # a constant of another
    assert len(traces) == 2


def test_what_is_made_is_that_of_its_function_and_refused_before_it_is_compiled():
    key = jax.random.key(0)
    make = lambda key: (nj.LIF(reset="subtract"), jax.random.normal(key, (3,)))  # noqa: E731
    neuron, x = _programs.Made(make, key)()
    assert neuron.reset == "subtract"
    np.testing.assert_array_equal(x, jax.random.normal(key, (3,)))
    with pytest.raises(ValueError, match="n_pre"):
        _programs.Made(lambda key: nj.fan_in(key, 0, 3, 0.5), key)


@pytest.mark.slow
def test_runs_one_after_another_use_up_no_memory_maps(tmp_path):
    def run(seed):
        wta_broadcast.run(
            wta_broadcast.Config(
                dataset="digits", train_size=128, epochs=1, hidden=(16,), batch_size=32,
                recurrence="none", out=tmp_path / str(seed), seed=seed,
            )
        )  # fmt: skip
        gc.collect()
        return len(Path("/proc/self/maps").read_text().splitlines())

    _, before, *_, after = [run(seed) for seed in range(4)]
    assert after - before < 60  # with programs that stay, 700 a run
