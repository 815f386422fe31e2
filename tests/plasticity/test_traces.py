import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from neurojax.plasticity.traces import low_pass, low_pass_reversed

EPS = 2.0**-24  # rounding of float32


def raster(seed, steps=30, n=4):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, n)), jnp.float32)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 1.0])
def test_low_pass_is_the_scipy_filter(decay):
    x = raster(0)
    init = x[0] + 1
    expected, _ = scipy.signal.lfilter([1], [1, -decay], x, axis=0, zi=decay * init[None])
    # two roundings a step, of numbers below 30 * 4, at most all added up
    np.testing.assert_allclose(low_pass(x, decay, init), expected, atol=2 * 30 * 120 * EPS)
    backwards = scipy.signal.lfilter([1], [1, -decay], x[::-1], axis=0)[::-1]
    np.testing.assert_allclose(low_pass_reversed(x, decay), backwards, atol=2 * 30 * 120 * EPS)


@given(st.integers(0, 10**6), st.floats(0, 1, width=32), st.booleans())
def test_reversed_trace_is_the_adjoint(seed, decay, each):
    x, y = raster(seed), raster(seed + 1)
    if each:
        decay = decay * jnp.linspace(0.0, 1.0, 4)
    forward = jnp.vdot(low_pass(x, decay), y)
    backward = jnp.vdot(x, low_pass_reversed(y, decay))
    # 30 * 30 * 4 products of size 1, each rounded a few times, signs at random
    np.testing.assert_allclose(forward, backward, atol=10 * 3600 * EPS)


def test_reversed_trace_is_the_adjoint_for_a_decay_per_step_one_step_on():
    x, y = raster(0), raster(1)
    decay = jax.nn.sigmoid(raster(2))
    forward = jnp.vdot(low_pass(x, jnp.roll(decay, 1, axis=0)), y)
    np.testing.assert_allclose(forward, jnp.vdot(x, low_pass_reversed(y, decay)), rtol=1e-4)


def test_decay_at_a_step_gates_what_comes_from_the_neighbour():
    x, decay = np.asarray(raster(0)), np.asarray(jax.nn.sigmoid(raster(1)))
    forward, backward = np.zeros_like(x), np.zeros_like(x)
    y = np.zeros(4, np.float32)
    for t in range(30):
        y = forward[t] = decay[t] * y + x[t]
    y = np.zeros(4, np.float32)
    for t in reversed(range(30)):
        y = backward[t] = x[t] + decay[t] * y
    np.testing.assert_allclose(low_pass(jnp.asarray(x), jnp.asarray(decay)), forward, atol=1e-5)
    np.testing.assert_allclose(
        low_pass_reversed(jnp.asarray(x), jnp.asarray(decay)), backward, atol=1e-5
    )


def test_two_chunks_equal_one_run():
    x = raster(0)
    first = low_pass(x[:10], 0.9)
    again = low_pass(x[10:], 0.9, first[-1])
    # but for what the rounded init has lost, of numbers below 16
    np.testing.assert_allclose(low_pass(x, 0.9)[10:], again, atol=16 * EPS)


def test_bfloat16_trace_is_summed_in_float32():
    # a trace of ones tends to 1 / (1 - 0.999) = 1000; summed in bfloat16 it sticks at 256
    y = low_pass(jnp.ones((5000, 1), jnp.bfloat16), 0.999)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(y[-1, 0]), 1000 * (1 - 0.999**5000), rtol=2**-8)


def test_what_decays_slowly_is_forgotten_at_its_own_rate():
    """By 1e-6 a step, of which the last digit of 1 is a twentieth."""
    x = jnp.zeros((2000, 1)).at[0].set(1)
    y = low_pass(x, 1 - 1e-6)
    np.testing.assert_allclose(y[-1, 0], (1 - 1e-6) ** 1999, rtol=EPS)
    each = jnp.array([0.5, 1.0], "float64" if jax.config.jax_enable_x64 else "float32")
    np.testing.assert_array_equal(jax.jit(low_pass)(jnp.ones((2, 2)), each)[1], [1.5, 2.0])


@pytest.mark.parametrize("trace", [low_pass, low_pass_reversed])
def test_a_trace_keeps_the_type_of_what_it_is_of(trace):
    with jax.enable_x64(True):
        for dtype in ("bfloat16", "float32", "float64"):
            for decay in (0.5, np.full(4, 0.5)):
                run = lambda x, decay=decay: trace(x, decay)  # noqa: E731
                assert jax.eval_shape(run, raster(0).astype(dtype)).dtype == dtype
        start = functools.partial(low_pass, decay=0.5, init=jnp.ones(4))
        assert jax.eval_shape(start, raster(0)).dtype == "float32"


@pytest.mark.parametrize("trace", [low_pass, low_pass_reversed])
@pytest.mark.parametrize("shape", [(1,), (30,), (30, 1), (29, 4)])
def test_refuses_a_decay_of_another_shape(trace, shape):
    said = r"decay must have shape \(\) or \(4,\) or \(30, 4\) for x of \(30, 4\); got \("
    with pytest.raises(ValueError, match=said):
        trace(raster(0), jnp.ones(shape))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("trace", [low_pass, low_pass_reversed])
def test_refuses_what_is_no_raster_and_no_decay(trace):
    with pytest.raises(ValueError, match=r"x must have shape \[T, \*n\], steps first; got one"):
        trace(jnp.ones(()), 0.5)
    with pytest.raises(ValueError, match="x must be finite; got NaN"):
        trace(raster(0) * jnp.nan, 0.5)
    for decay in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=rf"decay must lie in \[0, 1\]; got {decay}"):
            trace(raster(0), decay)
    with pytest.raises(TypeError, match="init must be real numbers; got Array.*j"):
        low_pass(raster(0), 0.5, raster(0)[0].astype("complex64"))


def test_refuses_a_start_of_another_shape():
    with pytest.raises(ValueError, match=r"init must have shape \(4,\) for x of .* got \(1,\)"):
        low_pass(raster(0), 0.5, jnp.ones(1))


@pytest.mark.parametrize("trace", [low_pass, low_pass_reversed])
def test_spikes_may_be_truths(trace):
    x = raster(0) > 0
    for kind in (bool, "uint8", int):
        y = trace(x.astype(kind), 0.9)
        assert y.dtype == jnp.float32
        np.testing.assert_array_equal(y, trace(x.astype(float), 0.9))
