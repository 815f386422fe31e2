"""Codes and their inverses, exact to the quantum; readouts against closed forms, scikit-learn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import neurojax as nj
from neurojax.data import decoding, encoding

pixels = hnp.arrays(np.float32, 6, elements=st.floats(0, 1, width=32, allow_subnormal=False))


def test_log_latency_is_the_first_spike_of_the_leaky_neuron():
    x = np.linspace(0.0, 1.0, 101, dtype="float32")
    z = np.asarray(encoding.log_latency(x, 80, dt=0.5, tau=10.0, threshold=0.215))
    lif = nj.LIF(tau_mem=10.0, v_th=0.215)
    step = lambda s, _: lif.step(s, jnp.asarray(x), dt=0.5)  # noqa: E731
    fired = np.asarray(jax.lax.scan(step, lif.init((101,)), length=80)[1])
    first = np.where(fired.any(0), fired.argmax(0), -1)
    np.testing.assert_array_equal(np.where(z.any(0), z.argmax(0), -1), first)
    np.testing.assert_array_equal(z.sum(0), x > 0.215)
    t = decoding.first_spike(z, dt=0.5)
    exact = -10 * np.log1p(-0.215 / x[x > 0.215])
    assert np.all((t[x > 0.215] - exact >= -1e-4) & (t[x > 0.215] - exact < 0.5 + 1e-4))
    assert np.all(np.isinf(t[x <= 0.215]))
    late = encoding.log_latency(np.array([0.2151]), 4, dt=0.5, tau=10.0, threshold=0.215)
    assert late.sum() == 0


@settings(max_examples=10)
@given(pixels)
def test_rank_order_is_the_order_and_its_inverse(x):
    z = np.asarray(encoding.rank_order(jnp.asarray(x)))
    lit = np.flatnonzero(x > 0)
    np.testing.assert_array_equal(z.sum(0), x > 0)
    assert z.sum(1).max(initial=0) <= 1
    rank = np.asarray(decoding.rank(z))
    np.testing.assert_array_equal(np.argsort(rank[lit], kind="stable"),
                                  np.argsort(-x[lit], kind="stable"))  # fmt: skip
    np.testing.assert_array_equal(rank[x == 0], len(x))


@settings(max_examples=10)
@given(pixels, st.sampled_from([1, 5]))
def test_bursts_are_counts_and_gaps_and_their_inverse_is_exact_to_the_quantum(x, n_max):
    gaps = (2, 5)
    z = np.asarray(encoding.burst(jnp.asarray(x), (n_max - 1) * 5 + 1, n_max=n_max, gaps=gaps))
    found = decoding.burst(z, n_max=n_max)
    assert np.all(found >= x - 1e-6)
    assert np.all(found < x + 1 / n_max + 1e-6)
    for k in range(len(x)):
        times = np.flatnonzero(z[:, k])
        assert set(np.diff(times)) <= {math.ceil(5 - 3 * float(x[k]) - 1e-6)}
        assert not len(times) or times[0] == 0


@settings(max_examples=10)
@given(pixels, st.sampled_from([1, 8, 20]), st.sampled_from([1, 2]))
def test_phases_are_bits_and_their_inverse_is_exact_to_the_quantum(x, n_bits, n_periods):
    z = encoding.phase(jnp.asarray(x), n_bits, n_periods)
    found = np.asarray(decoding.phase(z, n_bits), float)
    whole = np.minimum(np.floor(x.astype(float) * 2**n_bits), 2**n_bits - 1)
    np.testing.assert_allclose(found, whole / 2**n_bits, rtol=1e-6)
    if n_periods == 1:  # and what is such a number comes back as it was
        again = encoding.phase(jnp.asarray(whole / 2**n_bits, "float32"), n_bits)
        np.testing.assert_array_equal(again, z)


def test_fields_of_a_population_are_where_the_source_has_them():
    m, beta = 8, 1.5
    i = np.arange(1, m + 1)
    centres, width = (2 * i - 3) / (2 * (m - 2)), 1 / (beta * (m - 2))
    x = np.linspace(0, 1, 5, dtype="float32")
    expected = np.exp(-((x[:, None] - centres) ** 2) / (2 * width**2))
    np.testing.assert_allclose(encoding.population(x, m), expected, rtol=1e-5)
    shifted = encoding.population(-65 + 20 * x, m, -65.0, -45.0)
    np.testing.assert_allclose(shifted, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_a_population_vector_is_unbiased_within_the_range():
    x = jnp.linspace(0.2, 0.8, 61)
    decoded = decoding.population_vector(encoding.population(x, 14), 0.0, 1.0)
    # a sum over a grid of fields, its period 1.5 of their widths: off by 4 pi exp(-2 pi^2 / 2.25)
    # of a width, 1.2e-4 here; the ends cut the rest below that
    np.testing.assert_allclose(decoded, x, atol=3e-4)
    noisy = jax.random.poisson(jax.random.key(0), 50 * encoding.population(x, 14), (100, 61, 14))
    means = decoding.population_vector(noisy).mean(0)
    errors = decoding.population_vector(noisy).std(0) / 10
    assert np.all(np.abs(means - x) < 4.5 * errors + 3e-4)


signals = hnp.arrays(np.float32, (25, 2), elements=st.floats(-1, 1, width=32))


@settings(max_examples=10)
@given(signals, st.sampled_from([0.1, 0.7]))
def test_what_delta_and_sigma_delta_send_adds_up_to_the_signal(moves, threshold):
    slow = np.cumsum(moves * np.float32(threshold), axis=0)  # by a threshold a step at most
    z = encoding.delta(jnp.asarray(slow), threshold)
    assert set(np.unique(z)) <= {-1, 0, 1}
    error = decoding.delta(z, threshold, slow[0]) - slow
    assert np.abs(error).max() <= threshold * (1 + 1e-4)
    fast = np.cumsum(moves, axis=0) * 10
    z = encoding.sigma_delta(jnp.asarray(fast), threshold)
    np.testing.assert_array_equal(z, np.round(z))
    error = decoding.delta(z, threshold, fast[0]) - fast
    assert np.abs(error).max() <= threshold / 2 + 1e-4 * np.abs(fast).max()


def test_sigma_delta_does_not_drift_in_a_long_run():
    x = np.sin(np.arange(20_000) / 7)[:, None].astype("float32")
    z = encoding.sigma_delta(x, np.array([0.01]))
    error = x[0] + 0.01 * np.cumsum(np.asarray(z, float), axis=0) - x
    assert np.abs(error).max() < 0.005 + 1e-5
    assert np.abs(error[-100:]).max() < 0.005 + 1e-5


def test_a_filtered_rate_is_that_of_a_steady_train_and_of_one_spike():
    z = np.zeros((400, 2))
    z[::10, 0], z[100, 1] = 1, 1
    rate = np.asarray(decoding.filtered_rate(z, dt=0.5, tau=20.0))
    assert rate[-40:, 0].mean() == pytest.approx(200.0, rel=0.02)  # one in 5 ms
    expected = 50 * np.exp(-np.arange(300) * 0.5 / 20)
    np.testing.assert_allclose(rate[100:, 1], expected, rtol=1e-5)


def test_first_spikes_are_the_ends_of_their_steps():
    z = np.array([[0, 1, 0], [1, 1, 0]], bool)
    np.testing.assert_array_equal(decoding.first_spike(z, dt=2.0), [4, 2, np.inf])
    np.testing.assert_array_equal(decoding.rank(z), [1, 0, 3])


@pytest.mark.usefixtures("x64")
def test_ridge_is_that_of_scikit_learn():
    r = np.random.default_rng(0)
    x, y = r.normal(2, 1, (60, 7)), r.normal(-1, 3, (60, 2))
    for penalty in (0.0, 0.5, 30.0):
        theirs = sklearn.linear_model.Ridge(alpha=penalty).fit(x, y)
        ours = decoding.ridge(jnp.asarray(x), jnp.asarray(y), penalty)
        np.testing.assert_allclose(ours.w.T, theirs.coef_, rtol=1e-8)
        np.testing.assert_allclose(ours.b, theirs.intercept_, rtol=1e-8)
        np.testing.assert_allclose(ours(jnp.asarray(x)), theirs.predict(x), rtol=1e-8)


def test_codes_vmap_and_keep_the_dtype_of_pixels():
    def codes(x):
        return (
            encoding.log_latency(x, 30, dt=1.0),
            encoding.rank_order(x),
            encoding.burst(x, 20),
            encoding.phase(x),
            encoding.population(x, 5),
            encoding.delta(x, 0.2),
            encoding.sigma_delta(x, 0.2),
        )

    xs, one = jax.random.uniform(jax.random.key(0), (3, 5)), jax.jit(codes)
    for code, *alone in zip(jax.jit(jax.vmap(codes))(xs), *map(one, xs), strict=True):
        np.testing.assert_allclose(code, jnp.stack(alone), rtol=1e-6)
    rough = jax.eval_shape(codes, xs[0].astype("bfloat16"))
    assert {x.dtype for x in rough} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: encoding.log_latency(jnp.array([1.5]), 4, dt=1.0), r"x must lie in \[0, 1\]; got"),
        (lambda: encoding.log_latency(jnp.ones(1), 0, dt=1.0), "n_steps must be a whole number"),
        (lambda: encoding.log_latency(jnp.ones(1), 4, dt=0.0), "dt must be finite and > 0 ms"),
        (
            lambda: encoding.log_latency(jnp.ones(1), 4, dt=1.0, tau=0.0),
            "tau must be finite and > 0",
        ),
        (lambda: encoding.log_latency(jnp.ones(1), 4, dt=1.0, threshold=0.0), "threshold must be"),
        (lambda: encoding.rank_order(jnp.ones((2, 2))), r"x must have shape \[n\]; got"),
        (lambda: encoding.burst(jnp.ones(1), 3), r"n_steps must be >= .* got 3, n_max=5"),
        (lambda: encoding.burst(jnp.ones(1), 30, gaps=(4, 2)), r"gaps=\(4, 2\)"),
        (lambda: encoding.burst(jnp.ones(1), 30, n_max=0), "n_max must be a whole number >= 1"),
        (lambda: encoding.phase(jnp.ones(1), 25), r"n_bits must be a whole number in \[1, 24\]"),
        (lambda: encoding.phase(-jnp.ones(1)), r"x must lie in \[0, 1\]; got -1"),
        (lambda: encoding.population(jnp.ones(1), 2), "m must be a whole number >= 3; got 2"),
        (lambda: encoding.population(jnp.ones(1), 5, 1.0, 1.0), "high must be above low; got 1.0"),
        (lambda: encoding.population(jnp.ones(1), 5, beta=0.0), "beta must be finite and > 0"),
        (
            lambda: encoding.delta(jnp.array([[jnp.nan]]), 0.1),
            "x must be finite; got nan|x must be",
        ),
        (lambda: encoding.delta(jnp.ones((0, 2)), 0.1), r"T >= 1, .* got \(0, 2\) and \(\)"),
        (
            lambda: encoding.delta(jnp.ones((3, 2)), 0.0),
            "threshold must be finite and > 0; got 0.0",
        ),
        (
            lambda: encoding.sigma_delta(jnp.ones((3, 2)), jnp.ones(3)),
            r"x must have shape \[T, \*n\]",
        ),
        (
            lambda: decoding.phase(jnp.ones((7, 2)), 4),
            "z must have whole periods of 4 steps; got 7",
        ),
        (lambda: decoding.filtered_rate(jnp.ones((3, 1)), dt=1.0, tau=-1.0), "tau must be finite"),
        (lambda: decoding.first_spike(jnp.ones((3, 1)), dt=-1.0), "dt must be finite and > 0 ms"),
        (lambda: decoding.population_vector(jnp.ones((4, 2))), "must be a whole number >= 3"),
        (
            lambda: decoding.ridge(jnp.ones((4, 2)), jnp.ones((3, 1))),
            r"x must have shape \[samples",
        ),
        (
            lambda: decoding.ridge(jnp.ones((4, 2)), jnp.ones((4, 1)), -1.0),
            "penalty must be finite",
        ),
        (lambda: encoding.burst(np.ones(2, np.uint8), 30), "got uint8: pass x / 255"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_cannot_be_coded(call, match):
    with pytest.raises(ValueError, match=match):
        call()
