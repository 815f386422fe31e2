"""Rules that learn while a network runs: each against sums over all its spikes, in NumPy."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.visits import visit_dense

from neurojax.plasticity.dependence import WeightDependence
from neurojax.plasticity.inhibitory import InhibitorySTDP
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.triplet import (
    TripletSTDP,
    triplet_hippocampus,
    triplet_visual_cortex,
)
from neurojax.wiring.layouts import Dense

T, N, DT = 40, 4, 2.0
WIRING = Dense(N, N)
PAIRING = pytest.mark.parametrize("pairing", ["all", "nearest"])


@eqx.filter_jit
def visits_of(rule, pre, post, dt):
    """(event, trace) [T, n] at the senders, and at the receivers."""

    def step(state, z):
        state, visits = rule.visit(state, *z, dt=dt)
        return state, [(v.event, v.trace) for v in visits]

    wiring = Dense(pre.shape[1], post.shape[1])
    return jax.lax.scan(step, rule.init(wiring, pre.dtype), (pre, post))[1]


def total(rule, pre, post, dt=DT):
    """[n_post, n_pre]: what all visits of additive changes sum to."""
    pre, post = (jnp.asarray(z, float) for z in (pre, post))
    (sent, before), (fired, after) = visits_of(rule, pre, post, jnp.asarray(dt))
    return np.asarray(before).T @ np.asarray(sent) + np.asarray(fired).T @ np.asarray(after)


def at_spikes(own, other, tau, own_tau, amplitude, triplet, pairing, same_step):
    """Sum over the spikes of `own` of the spikes of the other side and of its own before it."""
    result, last = 0.0, slice(None) if pairing == "all" else slice(-1, None)
    for t in np.flatnonzero(own):
        others = np.flatnonzero(other[: t + 1 if same_step else t])[last]
        earlier = np.flatnonzero(own[:t])[last]
        near = sum(math.exp(-(t - s) * DT / tau) for s in others)
        own_near = sum(math.exp(-(t - s) * DT / own_tau) for s in earlier)
        result += near * (amplitude + triplet * own_near)
    return result


def by_hand(rule, pre, post):
    """The same, of every spike and all before it, for pairs and triplets."""
    p = {n: float(getattr(rule, n)) for n in ("tau_plus", "tau_minus")}
    own = {n: float(getattr(rule, n, 1.0)) for n in ("tau_x", "tau_y")}
    up, down = (
        [float(getattr(rule, f"{n}_{side}", 0.0)) for n in ("a2", "a3")]
        for side in ("plus", "minus")
    )
    if isinstance(rule, STDP):
        up, down = [float(rule.a_plus), 0.0], [float(rule.a_minus), 0.0]
    dw = np.zeros((post.shape[1], pre.shape[1]))
    for i, j in np.ndindex(dw.shape):
        a, b = pre[:, j], post[:, i]
        dw[i, j] = at_spikes(b, a, p["tau_plus"], own["tau_y"], *up, rule.pairing, True)
        dw[i, j] -= at_spikes(a, b, p["tau_minus"], own["tau_x"], *down, rule.pairing, False)
    return dw


rasters = st.lists(st.integers(0, 2 ** (2 * N) - 1), min_size=T, max_size=T).map(
    lambda rows: np.array([[row >> k & 1 for k in range(2 * N)] for row in rows])
)
RULES = {
    "pairs": functools.partial(STDP, 0.03, 0.02, 7.0, 11.0),
    "triplets": functools.partial(TripletSTDP, 0.01, 0.03, 0.02, 0.04, 23.0, 31.0, 7.0, 11.0),
}


@pytest.mark.usefixtures("x64")
@PAIRING
@pytest.mark.parametrize("kind", RULES)
@given(z=rasters, shared=st.booleans())
def test_visits_sum_over_all_spikes(kind, pairing, z, shared):
    rule = RULES[kind](pairing=pairing)
    pre, post = z[:, :N], z[:, :N] if shared else z[:, N:]  # shared: many spikes coincide
    np.testing.assert_allclose(
        total(rule, pre, post), by_hand(rule, pre, post), rtol=1e-11, atol=1e-14
    )


def pairs(every, lag, n, dt):
    """[T, 1] rasters of n pairs, `every` ms, the receiver `lag` ms later."""
    pre, post = np.zeros((2, round(((n - 1) * every + 2 * abs(lag)) / dt) + 1, 1))
    at = np.round((abs(lag) + every * np.arange(n)) / dt).astype(int)
    pre[at], post[at + round(lag / dt)] = 1, 1
    return pre, post


# 60 pairs, 50 at .1 Hz, where each is alone: first the sender by 10 ms, then the receiver
PAPER = {
    0.1: (0.0, -0.260),
    10: (0.132, -0.334),
    20: (0.247, -0.352),
    40: (0.534, 0.155),
    50: (0.741, 0.727),
}


def test_depression_turns_to_potentiation_at_forty_hertz():
    """Pfister and Gerstner (2006), fig. 4, after Sjöström, Turrigiano and Nelson (2001)."""
    for hertz, expected in PAPER.items():
        n, times = (1, 50) if hertz < 1 else (60, 1)
        for lag, one in zip((10, -10), expected, strict=True):
            z = [np.pad(x, ((0, 1300 - len(x)), (0, 0))) for x in pairs(1e3 / hertz, lag, n, 5)]
            found = times * total(triplet_visual_cortex(), *z, dt=5.0)[0, 0]
            np.testing.assert_allclose(found, one, atol=6e-4)  # the digits given


# Pfister and Gerstner (2006), tables 3 and 4, amplitudes in 1e-3:
# A2+ A3+ A2- A3- tau_x tau_y, full and minimal, all to all and then nearest spike
PRINTED = {
    triplet_visual_cortex: """
        5e-7 6.2 7 0.23 101 125    0 6.5 7.1 0 - 114
        8.8e-8 53 6.6 3.1 714 40   0 50 8 0 - 40""",
    triplet_hippocampus: """
        6.1 6.7 1.6 1.4 946 27        5.3 8.0 3.5 0 - 40
        4.6 9.1 3.0 7.5e-6 575 47     4.6 9.1 3.0 0 - 48""",
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", PRINTED)
def test_published_amplitudes_are_those_of_their_pairing(make):
    printed = np.array(PRINTED[make].split()).reshape(2, 2, 6)
    for rows, pairing in zip(printed, ("all", "nearest"), strict=True):
        for row, minimal in zip(rows, (False, True), strict=True):
            rule = make(pairing, minimal=minimal)
            assert rule.pairing == pairing
            names = ("a2_plus", "a3_plus", "a2_minus", "a3_minus", "tau_x", "tau_y")
            for name, n, unit in zip(names, row, [1e-3] * 4 + [1.0] * 2, strict=True):
                expected = rows[0][4] if n == "-" else n  # it has no part in the minimal one
                np.testing.assert_allclose(getattr(rule, name), float(expected) * unit, rtol=1e-6)
    assert make() == make("all", minimal=False)
    with pytest.raises(TypeError, match="minimal must be True or False; got 1"):
        make(minimal=1)


@pytest.mark.usefixtures("untyped")
def test_refuses_a_pairing_that_is_none():
    for make in (triplet_visual_cortex, triplet_hippocampus, STDP, TripletSTDP):
        with pytest.raises(ValueError, match="pairing must be 'all' or 'nearest'; got 'some'"):
            make(pairing="some")


def test_spikes_of_one_step_are_a_pair_of_lag_zero_the_senders_first():
    z = np.ones((1, 1))
    np.testing.assert_allclose(total(STDP(0.03, 0.02), z, z), 0.03)
    np.testing.assert_allclose(total(TripletSTDP(0.03, 0.5, 0.02, 0.5), z, z), 0.03)
    alpha = 2 * 3.0 * 0.02
    np.testing.assert_allclose(total(InhibitorySTDP(1.0), z, z), 1 - alpha, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@given(z=rasters)
def test_inhibitory_visits_sum_over_all_spikes(z):
    rule = InhibitorySTDP(eta=0.01, rho_0=5.0, tau=15.0)
    pre, post = z[:, :N], z[:, N:]
    t = DT * np.arange(T)
    window = np.exp(-np.abs(t[:, None] - t) / 15.0)  # symmetric, once where both spike
    expected = 0.01 * (post.T @ window @ pre - 2 * 5e-3 * 15.0 * pre.sum(0))
    np.testing.assert_allclose(total(rule, pre, post), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.slow
def test_inhibition_brings_every_receiver_to_its_target_rate():
    """Vogels et al. (2011): rho_0 whatever the drive; from both sides."""
    rule, n, n_pre = InhibitorySTDP(eta=0.02, rho_0=5.0), 32, 16
    drive = jnp.repeat(jnp.array([8.0, 20.0, 50.0, 100.0]), n // 4)  # Hz

    def step(carry, key):
        state, w = carry
        one, other = jax.random.split(key)
        pre = jax.random.bernoulli(one, 0.02, (n_pre,)).astype(float)  # 20 Hz
        rate = jnp.maximum(drive - w.sum(1), 0)
        post = jax.random.bernoulli(other, 1e-3 * rate, (n,)).astype(float)
        state, (at_pre, at_post) = rule.visit(state, pre, post, dt=1.0)
        dw = jnp.outer(at_pre.trace, at_pre.event) + jnp.outer(at_post.event, at_post.trace)
        return (state, jnp.maximum(w + dw, 0)), post

    start = rule.init(Dense(n_pre, n)), jnp.zeros((n, n_pre))
    keys = jax.random.split(jax.random.key(0), 60_000)
    _, post = jax.lax.scan(step, start, keys)
    rates = 1e3 * np.asarray(post)[20_000:].reshape(40_000, 4, -1).mean((0, 2))
    # 8 receivers for 40 s at 5 Hz are 1600 spikes: 2.5%, 4 of which are 10%
    np.testing.assert_allclose(rates, 5.0, rtol=0.1)
    assert np.asarray(post)[:1000].mean() > 0.02


SOFT = WeightDependence(mu_plus=0.5, mu_minus=0.75, w_max=2.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "make", [STDP, lambda up, down, *tau, **k: TripletSTDP(up, 0, down, 0, 50, 60, *tau, **k)]
)
def test_weight_dependent_changes_are_those_of_the_formula(make):
    """As NEST writes it, of weights in units of w_max."""
    rule, w = make(0.25, 0.125, 16.0, 32.0, dependence=SOFT), np.array([[0.0, 0.5, 1.9, 2.0]])
    state = rule.init(Dense(4, 1), float)
    one, none = jnp.ones, jnp.zeros
    state, first = rule.visit(state, one(4), none(1), dt=1.0)
    state, second = rule.visit(state, none(4), one(1), dt=1.0)
    _, third = rule.visit(state, one(4), none(1), dt=1.0)
    assert not (visit_dense(w, Dense(4, 1), first) - w).any()
    up = w / 2 + 0.125 * (1 - w / 2) ** 0.5 * math.exp(-1 / 16)
    found = visit_dense(w, Dense(4, 1), second)
    np.testing.assert_allclose(found, 2 * up, rtol=1e-12)
    down = w / 2 - 0.0625 * (w / 2) ** 0.75 * math.exp(-1 / 32)
    np.testing.assert_allclose(visit_dense(w, Dense(4, 1), third), 2 * down, rtol=1e-12)
    held = visit_dense(w, Dense(4, 1), second, (0.0, 0.7))
    np.testing.assert_allclose(held, [[2 * up[0, 0], 0.7, 0.7, 2.0]])  # what is asked for, held


def test_both_exponents_zero_are_additive_and_one_multiplicative():
    w = jnp.array([-0.5, 0.0, 0.5, 1.0, 1.5])
    additive, multiplicative = WeightDependence(0.0, 0.0), WeightDependence(1.0, 1.0)
    np.testing.assert_array_equal(additive.plus(w), 1.0)
    np.testing.assert_array_equal(additive.minus(w), 1.0)
    np.testing.assert_allclose(multiplicative.plus(w), [1.5, 1.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(multiplicative.minus(w), [0.0, 0.0, 0.5, 1.0, 1.5])
    for mu in (0.0, 0.02, 1.0):
        slope = jax.grad(lambda w, mu=mu: WeightDependence(mu, mu).plus(w).sum())(w)
        assert np.isfinite(slope).all()
    for factor in (WeightDependence().plus, WeightDependence().minus):
        rough = factor(w.astype("bfloat16"))  # of numbers that it holds
        np.testing.assert_array_equal(rough, factor(w).astype("bfloat16"))


LONG = {
    "pairs": STDP(1.0, 0.5, 300.0, 500.0),
    "nearest pairs": STDP(1.0, 0.5, 300.0, 500.0, pairing="nearest"),
    "triplets": TripletSTDP(1.0, 0.1, 0.5, 0.1, 3000.0, 2000.0, 300.0, 500.0),
    "inhibition": InhibitorySTDP(1.0, tau=400.0),
}


@pytest.mark.parametrize("kind", LONG)
def test_traces_are_right_in_long_runs_in_every_type(kind):
    z = np.random.default_rng(0).random((2, 4000, 2)) < 0.3
    rough, fine = (
        visits_of(LONG[kind], *(jnp.asarray(x, dtype) for x in z), jnp.asarray(0.1))
        for dtype in ("bfloat16", "float32")
    )
    with jax.enable_x64(True):
        exact = visits_of(LONG[kind], *(jnp.asarray(x, "float64") for x in z), jnp.asarray(0.1))
        exact = jax.tree.map(np.asarray, exact)
    for a, b, c in zip(*map(jax.tree.leaves, (rough, fine, exact)), strict=True):
        np.testing.assert_allclose(b, c, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-5)


TRACES = {
    STDP: {"tau_plus": lambda s: s.pre, "tau_minus": lambda s: s.post},
    TripletSTDP: {
        "tau_plus": lambda s: s.pre.fast, "tau_x": lambda s: s.pre.slow,
        "tau_minus": lambda s: s.post.fast, "tau_y": lambda s: s.post.slow,
    },
    InhibitorySTDP: {"tau": lambda s: s.pre},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", TRACES)
def test_a_spike_is_forgotten_at_its_own_rate_however_slowly(kind, dtype):
    """By 1e-6 and less a step, of which the last digit of 1 is a twentieth."""
    taus = {name: 1e5 * (k + 1) for k, name in enumerate(TRACES[kind])}
    rule, n = kind(**taus), 2000
    z = jnp.zeros((n, 1), dtype).at[0].set(1)
    step = lambda s, z: (rule.visit(s, z, z, dt=0.1)[0], None)  # noqa: E731
    end, _ = jax.jit(lambda: jax.lax.scan(step, rule.init(Dense(1, 1), dtype), z))()
    for name, of in TRACES[kind].items():
        x, low = (np.asarray(part).astype(float) for part in of(end))
        np.testing.assert_allclose(x + low, math.exp(-0.1 * (n - 1) / taus[name]), rtol=1e-8)


@pytest.mark.parametrize("kind", TRACES)
def test_what_rounding_leaves_out_is_kept_where_it_is_felt(kind):
    for slow in TRACES[kind]:
        rule = kind(**{name: 1e5 if name == slow else 10.0 for name in TRACES[kind]})
        start = rule.init(Dense(3, 2))
        kept = {name for name, of in TRACES[kind].items() if of(start).x_low is not None}
        assert kept == {slow}


@pytest.mark.parametrize("rule", [STDP(), TripletSTDP(), InhibitorySTDP()])
def test_refuses_spikes_that_do_not_fit_the_traces(rule):
    state = rule.init(Dense(3, 2))
    with pytest.raises(ValueError, match=r"pre must have shape \(3,\).*; got \(2,\)"):
        rule.visit(state, jnp.ones(2), jnp.ones(2), dt=1.0)
    with pytest.raises(ValueError, match=r"post must have shape \(2,\).*; got \(3,\)"):
        rule.visit(state, jnp.ones(3), jnp.ones(3), dt=1.0)
    with pytest.raises(ValueError, match="dt must be finite and > 0 ms; got 0"):
        rule.visit(state, jnp.ones(3), jnp.ones(2), dt=0.0)
