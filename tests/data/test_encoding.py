import math

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurojax._draw import happens
from neurojax.data import encoding

key = jax.random.key(0)


def poisson(x, n_steps, key=key, *, dt=1.0, max_rate=500.0):
    return encoding.poisson(key, x, n_steps, dt=dt, max_rate=max_rate)


def test_direct_current_is_the_same_at_every_step():
    x = jnp.array([-1.5, 0.0, 2.0])
    np.testing.assert_array_equal(encoding.direct_current(x, 7), np.tile(x, (7, 1)))


def test_poisson_fires_at_the_rate_independently():
    x = jnp.linspace(0.0, 1.0, 11)
    z = np.asarray(poisson(x, 20_000, dt=0.5, max_rate=800.0))
    p = 0.4 * np.asarray(x)
    error = np.sqrt(p * (1 - p) / 20_000)  # binomial; 4 standard errors
    assert np.all(np.abs(z.mean(0) - p) <= 4 * error)
    pairs = (z[1:] * z[:-1]).mean(0)  # of successive steps, then of neighbours
    assert np.all(np.abs(pairs - p**2) <= 4 * (np.sqrt(p**2 / 20_000) + 2 * p * error))
    pairs, q = (z[:, 1:] * z[:, :-1]).mean(0), p[1:] * p[:-1]
    assert np.all(np.abs(pairs - q) <= 4 * (np.sqrt(q / 20_000) + 2 * error[1:]))
    assert set(np.unique(z)) == {0.0, 1.0}


def test_poisson_ends_of_the_range_are_certain():
    z = poisson(jnp.array([0.0, 1.0]), 2000, max_rate=1000.0)
    np.testing.assert_array_equal(z, np.tile([0.0, 1.0], (2000, 1)))


def test_poisson_run_begins_with_the_shorter_one_and_depends_on_the_key():
    x = jnp.full(20, 0.5)
    np.testing.assert_array_equal(poisson(x, 30)[:10], poisson(x, 10))
    assert np.any(poisson(x, 30) != poisson(x, 30, jax.random.key(1)))


# XLA takes subnormal numbers for 0.
pixels = hnp.arrays(np.float32, 5, elements=st.floats(0, 1, width=32, allow_subnormal=False))


@given(pixels, st.integers(1, 30))
def test_latency_is_one_spike_the_brighter_the_earlier(x, n_steps):
    z = np.asarray(encoding.latency(jnp.asarray(x), n_steps))
    np.testing.assert_array_equal(z.sum(0), x > 0)
    when = z.argmax(0)
    lit = np.flatnonzero(x > 0)
    assert np.all(np.abs(when[lit] - (1 - x[lit]) * (n_steps - 1)) <= 0.5 + 1e-5)
    order = lit[np.argsort(-x[lit])]
    assert np.all(np.diff(when[order]) >= 0)


def test_latency_uses_the_whole_window():
    z = encoding.latency(jnp.array([1.0, 0.5, 1e-6, 0.0]), 5)
    np.testing.assert_array_equal(np.argmax(z, 0), [0, 2, 4, 0])


def test_rows_come_from_the_top():
    image = jnp.arange(6.0).reshape(3, 2) / 6
    for t, row in enumerate(encoding.rows(image)):
        np.testing.assert_array_equal(row, image[t])


@pytest.mark.parametrize("encode", [encoding.direct_current, poisson, encoding.latency])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_output_has_the_dtype_of_the_pixels(encode, dtype):
    x = jnp.linspace(0.0, 1.0, 6).reshape(2, 3).astype(dtype)
    y = encode(x, 4)
    assert (y.shape, y.dtype) == ((4, 2, 3), dtype)


@pytest.mark.parametrize("encode", [encoding.direct_current, poisson, encoding.latency])
def test_batch_equals_its_samples(encode):
    xs = jax.random.uniform(key, (3, 5))
    batch = jax.jit(jax.vmap(lambda x: encode(x, 6)))(xs)
    chex.assert_trees_all_equal(batch, jnp.stack([encode(x, 6) for x in xs]))


@pytest.mark.parametrize("encode", [poisson, encoding.latency])
@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.5, math.inf])
def test_refuses_pixels_outside_zero_to_one(encode, bad):
    x = jnp.array([0.5, bad])
    with pytest.raises(ValueError, match=rf"x must lie in \[0, 1\]; got {bad:.1f}.* \(1 of 2\)"):
        encode(x, 4)
    with pytest.raises(Exception, match=r"x must lie in \[0, 1\]"):
        eqx.filter_jit(encode)(x, 4)


def test_direct_current_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="x must be finite, in nA; got nan"):
        encoding.direct_current(jnp.array([math.nan]), 4)


@pytest.mark.parametrize("image", [jnp.zeros(4), jnp.zeros((2, 2, 1)), jnp.full((2, 2), 255.0)])
def test_rows_refuses_what_is_no_picture(image):
    with pytest.raises(ValueError, match=r"image must (have shape|lie in \[0, 1\])"):
        encoding.rows(image)


@pytest.mark.parametrize("encode", [encoding.direct_current, poisson, encoding.latency])
@pytest.mark.parametrize("bad", [0, -3])
def test_refuses_a_number_of_steps_that_is_not_positive(encode, bad):
    with pytest.raises(ValueError, match=rf"n_steps must be a whole number >= 1; got {bad}"):
        encode(jnp.zeros(3), bad)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"max_rate": 1001.0}, r"max_rate \* dt / 1000 must be <= 1.*pass max_rate <= 1000 Hz"),
        ({"dt": 5.0}, r"got 2.5: pass max_rate <= 200 Hz"),
        ({"dt": 0.0}, "dt must be finite and > 0 ms; got 0.0"),
        ({"max_rate": -1.0}, "max_rate must be finite and > 0 Hz; got -1.0"),
    ],
)
def test_poisson_refuses_rates_that_do_not_fit_the_step(arguments, match):
    with pytest.raises(ValueError, match=match):
        poisson(jnp.zeros(3), 4, **arguments)


@pytest.mark.parametrize(
    "encode", [encoding.direct_current, poisson, encoding.latency, lambda x, n: encoding.rows(x)]
)
def test_bytes_are_refused_and_truths_are_numbers(encode):
    x = np.array([[0, 1, 1]], np.uint8)
    with pytest.raises(ValueError, match=r"must be floats from 0 to 1; got uint8: pass \w+ / 255"):
        encode(x, 4)
    expected = encode(jnp.asarray(x, float), 4)
    for kind in (bool, np.int32):
        y = encode(x.astype(kind), 4)
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y, expected)


def test_rate_and_step_vmap():
    x, rates, steps = jnp.linspace(0.0, 1.0, 3), jnp.array([100.0, 900.0]), jnp.array([0.5, 1.0])
    batch = jax.jit(jax.vmap(lambda r, dt: poisson(x, 40, dt=dt, max_rate=r)))(rates, steps)
    for z, rate, dt in zip(batch, rates, steps, strict=True):
        np.testing.assert_array_equal(z, poisson(x, 40, dt=float(dt), max_rate=float(rate)))
    each = poisson(x, 40, max_rate=jnp.array([0.1, 500.0, 1000.0]))
    np.testing.assert_array_equal(each[:, 2], 1.0)
    with pytest.raises(Exception, match=r"max_rate \* dt / 1000 must be <= 1"):
        jax.block_until_ready(eqx.filter_jit(lambda r: poisson(x, 4, max_rate=r))(jnp.float32(2e3)))


def test_poisson_refuses_what_is_no_key_and_rates_of_another_shape():
    with pytest.raises(TypeError, match="key must be a JAX key; got 3: pass jax.random.key"):
        encoding.poisson(3, jnp.ones(2), 4, dt=1.0, max_rate=10.0)
    with pytest.raises(ValueError, match=r"one per pixel, \(3,\); got shape \(2,\)"):
        poisson(jnp.zeros(3), 4, max_rate=jnp.ones(2))


@pytest.mark.slow
def test_rare_spikes_are_as_rare_as_asked_and_certain_ones_certain():
    p = jnp.full(2**20, 2.0**-23 / 8)  # a draw of 23 bits would fire eight times as often
    keys = jax.random.split(jax.random.key(0), 96)
    # a hundred million draws: here it pays to optimise them
    options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    spikes = lambda keys: jax.lax.map(lambda key: happens(key, p, p.shape).sum(), keys).sum()  # noqa: E731
    n = jax.jit(spikes, compiler_options=options)(keys)
    assert n <= 6  # 1.5 expected, and 12 of 23 bits: 4 standard errors
    assert happens(keys[0], jnp.ones(2**20), (2**20,)).all()
