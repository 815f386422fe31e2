"""Neuromodulators: what moves them, and the gate they make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from neurojax.plasticity.modulation import modulators

KEY = jax.random.key(0)
LAYERS = {"h1": 300, "h2": 70}

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def made(n):
    return quick(lambda key: modulators(key, n, LAYERS))(KEY)


@quick
def run(model, scores, target):
    def step(state, s):
        return model.step(state, s, target)

    return jax.lax.scan(step, model.init(scores.shape[1], scores.dtype), scores)[1]


def test_shares_are_random_on_the_simplex():
    shares = np.asarray(made(4).a["h1"])
    assert shares.shape == (300, 4)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    # uniform on the simplex: each share is Beta(1, 3)
    for share in shares.T:
        assert scipy.stats.kstest(share, scipy.stats.beta(1, 3).cdf).pvalue > 1e-3


def test_the_gate_is_one_at_rest_and_never_leaves_zero_to_two():
    model = made(3)
    rest = model.init(5).m
    np.testing.assert_allclose(model.gate("h1", rest), np.ones(300), rtol=1e-6)
    m = run(model, 100 * jax.random.normal(KEY, (200, 5)), 2)
    assert m.min() >= 0
    assert m.max() <= 1
    for name, n in LAYERS.items():
        gate = np.asarray(quick(jax.vmap(lambda m, name=name: model.gate(name, m)))(m))
        assert gate.shape == (200, n)
        assert gate.min() >= 0
        assert gate.max() <= 2 * (1 + 1e-6)
        assert gate.std() > 0.01


def test_modulators_follow_surprise_uncertainty_and_novelty():
    model = made(3)
    scores = np.random.default_rng(0).normal(size=(30, 4)) * 0.1
    m, slow, expected = np.full(3, 0.5), np.zeros(4), []
    for s in scores:
        belief = scipy.special.softmax(30 * s)
        novelty = np.linalg.norm(s - slow) / (np.linalg.norm(slow) + 1)
        u = [1 - belief[2], scipy.stats.entropy(belief) / np.log(4), novelty]
        m = 0.8 * m + 0.2 * scipy.special.expit(np.asarray(model.k) @ u)
        slow = 0.95 * slow + 0.05 * s
        expected.append(m)
    found = run(model, jnp.asarray(scores, float), 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_a_new_score_modulators_settle_at_what_drives_them():
    model = made(3)
    m = run(model, jnp.zeros((200, 4)), 0)[-1]
    u = np.array([0.75, 1.0, 0.0])  # no preference: surprise 1 - 1/4, all uncertain, nothing new
    np.testing.assert_allclose(m, scipy.special.expit(np.asarray(model.k) @ u), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_modulators_keep_the_dtype_of_the_scores(dtype):
    with jax.enable_x64(True):
        for made in ("float32", dtype):

            def gated(made=made):
                model = modulators(KEY, 2, {"h": 5}, made)
                _, m = model.step(model.init(3, dtype), jnp.zeros(3, dtype), jnp.zeros((), int))
                return model.gate("h", m)

            assert jax.eval_shape(gated).dtype == jnp.dtype(dtype)


def test_refuses_a_population_of_none():
    with pytest.raises(ValueError, match="n must be a whole number >= 1; got 0"):
        modulators(KEY, 0, LAYERS)
