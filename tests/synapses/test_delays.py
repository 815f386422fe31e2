"""Delays against a raster that is shifted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.synapses.delays import Delay, Delays


@pytest.mark.parametrize(("steps", "length"), [(1, 9), (2, 9), (7, 40), (9, 9), (12, 9)])
def test_delay_shifts_the_raster(steps, length):
    z = np.random.default_rng(0).integers(0, 2, (length, 3)).astype(np.float32)
    delay = Delay(steps)

    def step(state, z):
        return delay.write(state, z), delay.read(state)

    _, out = jax.lax.scan(step, delay.init((3,)), jnp.asarray(z))
    np.testing.assert_array_equal(out, np.concatenate([np.zeros((steps, 3)), z])[:length])


@pytest.mark.parametrize("steps", [10, 10_000])
def test_delay_never_copies_its_ring(steps):
    delay = Delay(steps)

    def run(state, zs):
        return jax.lax.scan(lambda s, z: (delay.write(s, z), delay.read(s)), state, zs)

    state = delay.init((64,))
    compiled = jax.jit(run, donate_argnums=0).lower(state, jnp.zeros((50, 64))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4096  # a row has 256


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2", None])
def test_refuses_a_delay_that_is_no_whole_step(bad):
    with pytest.raises(ValueError, match=rf"steps must be a whole number >= 1; got {bad!r}"):
        Delay(bad)


def test_delays_show_themselves_within_a_compiled_function_too():
    delays, shown = Delays(np.array([1, 4])), []
    jax.jit(lambda x: (shown.append(repr(delays)), x)[1])(1.0)
    assert shown == [repr(delays)] == ["Delays(2 delays, 1 to 4 of at most 4 steps)"]
