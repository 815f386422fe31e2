"""Spike-timing-dependent plasticity against its curve, against sums over pairs, and on lists."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import connectivity as wiring

from neurojax.neurons.leaky import LIF
from neurojax.plasticity.dependence import WeightDependence
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.three_factor import Post, ThreeFactor
from neurojax.wiring.layouts import Dense
from neurojax.wiring.sparse import by_sender

T, N, DT = 40, 45, 0.5
RULE = STDP(a_plus=0.03, a_minus=0.02, tau_plus=3.0, tau_minus=5.0)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def rasters(seed):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.random((T, N)) < 0.15, float) for _ in range(2)]


@quick
def stepped(rule, c, pre, post):
    """Sum of what the visits of every step ask for."""

    def step(carry, z):
        state, w = carry
        state, (at_pre, at_post) = rule.visit(state, *z, dt=DT)
        dw = c.outer(at_pre.trace, at_pre.event) + c.outer(at_post.event, at_post.trace)
        return (state, w + dw), None

    return jax.lax.scan(step, (rule.init(c), jnp.zeros(c.shape)), (pre, post))[0][1]


@quick
def at_once(rule, c, pre, post):
    return rule.change(c, pre, post, dt=DT)


def over_pairs(pre, post):
    """[n_post, n_pre]: the sum over every pair of spikes of its own change."""
    lag = DT * (np.arange(T)[:, None] - np.arange(T))  # [post, pre]
    change = np.where(lag >= 0, 0.03 * np.exp(-lag / 3.0), -0.02 * np.exp(lag / 5.0))
    return np.einsum("ti,ts,sj->ij", post, change, pre, optimize=True)


def test_one_pair_gives_the_curve_of_bi_and_poo():
    """Bi and Poo (1998), fig. 7: 60 pairs, one a second; the others of each are long gone."""
    rule, lags = STDP(), np.arange(-100, 101)
    pre, post = np.zeros((300, 1)), np.zeros((300, lags.size))
    pre[150], post[150 + lags, np.arange(lags.size)] = 1, 1
    pre, post = (jnp.asarray(x, float) for x in (pre, post))
    dw = 60 * np.asarray(rule.change(Dense(1, lags.size), pre, post, dt=1.0))[:, 0]
    potentiation, depression = 0.6 * np.exp(-lags / 16.8), -0.3 * np.exp(lags / 33.7)
    # traces decay step by step: a rounding each, of at most 100
    np.testing.assert_allclose(dw, np.where(lags >= 0, potentiation, depression), rtol=1e-5)


@pytest.mark.parametrize("kind", wiring.KINDS)
@pytest.mark.parametrize("form", [stepped, at_once])
def test_all_pairs_of_every_synapse_add_up(kind, form):
    c, (pre, post) = wiring.example(kind), rasters(0)
    rows, columns, count = wiring.synapses(c)
    expected = over_pairs(np.asarray(pre), np.asarray(post))[rows, columns]
    dw = np.asarray(form(RULE, c, pre, post))
    exists = count > 0
    np.testing.assert_allclose(dw[exists], expected[exists], atol=1e-5 * np.abs(expected).max())


def three_factor(c, pre, post):
    q, h = jnp.sin(jnp.arange(1.0 * T * N)).reshape(T, N), jnp.cos(jnp.arange(1.0 * T))[:, None]
    window = Post(jnp.broadcast_to(jnp.maximum(0, h), (T, N)), post)
    return c.outer(ThreeFactor(0.9).factor(LIF(), window, q, dt=DT), pre)


@pytest.mark.parametrize("rule", [functools.partial(at_once, RULE), quick(three_factor)])
@pytest.mark.parametrize("native", [True, False])
def test_a_list_of_synapses_learns_as_the_masked_matrix(rule, native):
    pre, post = rasters(1)
    j, i = np.nonzero(np.random.default_rng(2).random((N, N)) < 0.2)
    listed = np.asarray(rule(by_sender(j, i, N, N, native=native), pre, post))
    full = np.asarray(rule(Dense(N, N), pre, post))
    assert np.abs(full[i, j]).max() > 0.01
    np.testing.assert_allclose(listed, full[i, j], atol=1e-5 * np.abs(full).max())


def test_as_the_rule_of_a_layer_it_gives_its_own_change():
    c, (pre, post) = Dense(N, N), rasters(3)
    d = RULE.factor(LIF(), Post(post, post), jnp.full((T, N), jnp.nan), dt=DT)
    np.testing.assert_array_equal(c.outer(d, pre), RULE.change(c, pre, post, dt=DT))


@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_spikes_may_be_truths_and_have_one_number_a_neuron(pairing):
    c, rule, (pre, post) = Dense(N, N), STDP(pairing=pairing), rasters(4)
    dw = rule.change(c, pre, post, dt=DT)
    for truths in ((pre > 0, post.astype(int)), (pre, post > 0)):
        np.testing.assert_array_equal(rule.change(c, *truths, dt=DT), dw)
    one = rule.visit(rule.init(c), pre[0] > 0, post[0].astype("uint8"), dt=DT)
    chex.assert_trees_all_equal(one, rule.visit(rule.init(c), pre[0], post[0], dt=DT))
    with pytest.raises(ValueError, match="dt must be finite and > 0 ms; got 0.0"):
        rule.change(c, pre, post, dt=0.0)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_refuses_spikes_that_are_no_real_numbers(pairing):
    c, rule, (pre, post) = Dense(N, N), STDP(pairing=pairing), rasters(4)
    for name, z in {
        "pre": (pre.astype("complex64"), post),
        "post": (pre, post.astype("complex64")),
    }.items():
        with pytest.raises(TypeError, match=f"{name} must be real numbers; got complex64"):
            rule.change(c, *z, dt=DT)


@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_a_change_comes_in_the_type_of_the_receivers_spikes(pairing):
    c, rule, (pre, post) = Dense(N, N), STDP(pairing=pairing), rasters(4)
    with jax.enable_x64(True):
        for dtype in ("bfloat16", "float32", "float64"):
            for sent in (pre > 0, pre.astype("bfloat16"), pre.astype("float64")):
                change = lambda a, b: rule.change(c, a, b, dt=DT)  # noqa: E731
                assert jax.eval_shape(change, sent, post.astype(dtype)).dtype == dtype


def test_half_precision_is_calculated_in_float32_and_rounded_once():
    post = rasters(6)[1]
    rough, fine = (
        RULE.factor(LIF(), Post(z, z), z, dt=DT) for z in (post.astype("bfloat16"), post)
    )
    np.testing.assert_array_equal(rough, fine.astype("bfloat16"))


@pytest.mark.parametrize("kind", ["dense", "events"])
def test_nearest_pairs_sum_over_a_presentation_as_step_by_step(kind):
    rule, c = STDP(0.03, 0.02, 3.0, 5.0, pairing="nearest"), wiring.example(kind)
    dw = at_once(rule, c, *rasters(5))
    exists = wiring.synapses(c)[2] > 0
    expected = np.asarray(stepped(rule, c, *rasters(5)))[exists]
    assert np.abs(expected - np.asarray(at_once(RULE, c, *rasters(5)))[exists]).max() > 0.01
    np.testing.assert_allclose(np.asarray(dw)[exists], expected, atol=1e-6)


def test_refuses_to_sum_ahead_what_it_cannot_know():
    z = jnp.zeros((3, 2))
    soft, near = STDP(dependence=WeightDependence()), STDP(pairing="nearest")
    with pytest.raises(ValueError, match="dependence must be None for change.*learn=True"):
        soft.change(Dense(2, 2), z, z, dt=1.0)
    with pytest.raises(ValueError, match="dependence must be None for factor.*learn=True"):
        soft.factor(LIF(), Post(z, z), z, dt=1.0)
    with pytest.raises(ValueError, match='pairing must be "all" for factor.*learn=True'):
        near.factor(LIF(), Post(z, z), z, dt=1.0)
