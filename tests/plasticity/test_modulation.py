"""Neuromodulators: what moves them, and the gate they make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from neurojax.plasticity.modulation import Modulators, modulators

KEY = jax.random.key(0)
LAYERS = {"h1": 300, "h2": 70}
K, A = np.ones((2, 3)), np.ones((4, 2))

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


def test_shares_in_half_precision_are_rounded_once():
    rough, fine = (
        quick(lambda t=t: modulators(KEY, 2, {"h": 50}, t))() for t in ("bfloat16", float)
    )
    np.testing.assert_array_equal(rough.a["h"], fine.a["h"].astype("bfloat16"))
    assert (rough.k.dtype, rough.a["h"].dtype) == ("bfloat16", "bfloat16")


def test_layers_may_come_in_any_order():
    one, other = (
        modulators(KEY, 1, dict(sizes)) for sizes in ([("a", 3), ("b", 2)], [("b", 2), ("a", 3)])
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_population_of_two_has_a_gate_of_its_own():
    model = Modulators(jnp.zeros((2, 3)), {"h": jnp.array([[1.0, 0.0], [0.25, 0.75], [0.0, 0.5]])})
    assert model.init(4).m.shape == (2,)
    np.testing.assert_array_equal(model.gate("h", jnp.array([0.5, 1.0])), [1.0, 1.75, 1.0])


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: modulators(KEY, 0, LAYERS), ValueError, "n must be a whole number >= 1; got 0"),
        (lambda: modulators(KEY, 2, 300), TypeError, "layers must be a dict .*; got 300"),
        (lambda: modulators(KEY, 2, {"h": 0}), ValueError, "layer 'h' must be a whole number >= 1"),
        (lambda: Modulators(K, [A]), TypeError, "a must be a dict by layer; got "),
        (lambda: Modulators(K, {"h": A * np.nan}), ValueError, "a of layer 'h' must be finite"),
        (lambda: Modulators(K, {"h": "much"}), TypeError, "a of layer 'h' must be real numbers"),
        (lambda: Modulators(K * np.nan, {"h": A}), ValueError, "k must be finite; got NaN"),
        (lambda: Modulators("much", {"h": A}), TypeError, "k must be real numbers; got 'much'"),
        (lambda: Modulators(K[:, :2], {"h": A}), ValueError, r"k must be \[M, 3\] and a of each"),
        (lambda: Modulators(K, {"g": A, "h": A.T}), ValueError, r"a of each layer \[n, M\]; got"),
        (lambda: Modulators(K, {"h": A[0]}), ValueError, r"a of each layer \[n, M\]; got"),
        (lambda: Modulators(K, {"h": A[None]}), ValueError, r"a of each layer \[n, M\]; got"),
        (lambda: made(3).gate("h3", jnp.ones(3)), ValueError, r"no .* 'h3': .* \['h1', 'h2'\]"),
        (lambda: made(3).init(1), ValueError, "n_classes must be a whole number >= 2; got 1"),
        (
            lambda: made(3).step(made(3).init(4), jnp.ones(4), 4),
            ValueError,
            r"target must be in \[0, 4\), as there are 4 classes; got 4",
        ),
    ],
)
def test_refuses_what_is_no_population(make, error, told):
    with pytest.raises(error, match=told):
        make()
