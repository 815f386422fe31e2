"""Pairs that wait for a reward, against sums over every pair and every reward."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import connectivity as wiring

from neurojax.plasticity.dependence import WeightDependence
from neurojax.plasticity.dopamine import DopamineSTDP
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.three_factor import Homeostasis
from neurojax.plasticity.triplet import TripletSTDP
from neurojax.wiring.layouts import Dense

UP, DOWN = 2.0**-5, 2.0**-6  # the same in every type
RULE = DopamineSTDP(STDP(UP, DOWN, 7.0, 11.0), tau_c=100.0, tau_d=30.0)
TAU = 1 / (1 / 100 + 1 / 30)


@jax.jit
def learned(pre, post, signal, dt):
    """Change of every weight after all steps [n_post, n_pre]."""
    c = Dense(pre.shape[1], post.shape[1])

    def step(carry, now):
        state, w = carry
        *z, signal = now
        state, dw = RULE.step(state, c, *z, dt=dt, signal=signal)
        return (state, w + dw), None

    start = RULE.init(c, pre.dtype), jnp.zeros(c.shape, pre.dtype)
    return jax.lax.scan(step, start, (pre, post, signal))[0][1]


def linked(made, made_at, reward, given_at, end):
    """What an eligibility made then and a reward given then have done to a weight by the end."""
    together = max(made_at, given_at)
    left = math.exp(-(together - made_at) / 100) * math.exp(-(together - given_at) / 30)
    return made * reward * left * TAU * -math.expm1(-max(end - together, 0) / TAU)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dt", [0.5, 2.0])
@pytest.mark.parametrize("delay", [40.0, -20.0])
def test_one_pair_and_one_reward_have_their_closed_form(delay, dt):
    n = round(2000 / dt)
    pre, post, signal = np.zeros((3, n, 1))
    pre[round(96 / dt)], post[round(100 / dt)], signal[round((100 + delay) / dt)] = 1, 1, 0.5
    found = learned(*map(jnp.asarray, (pre, post, signal)), jnp.asarray(dt))
    made = UP * math.exp(-4 / 7)
    expected = made * 0.5 * TAU * math.exp(-delay / 100 if delay > 0 else delay / 30)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-8)  # exp(-1,900 / 100) is yet to come


@pytest.mark.usefixtures("x64")
def test_all_pairs_and_all_rewards_add_up():
    dt, steps = 2.0, 60
    rng = np.random.default_rng(0)
    pre, post = (rng.random((2, steps, 3)) < 0.1).astype(float)
    signal = np.where(rng.random((steps, 3)) < 0.1, rng.normal(size=(steps, 3)), 0)
    found = learned(*map(jnp.asarray, (pre, post, signal)), jnp.asarray(dt))
    for i, j in np.ndindex(3, 3):
        expected, end = 0.0, dt * (steps - 1)  # what is made in a step acts from its end on
        spikes = itertools.product(np.flatnonzero(pre[:, j]), np.flatnonzero(post[:, i]))
        for (s, t), g in itertools.product(spikes, np.flatnonzero(signal[:, i])):
            lag = dt * (t - s)
            made = UP * math.exp(-lag / 7) if lag >= 0 else -DOWN * math.exp(lag / 11)
            expected += linked(made, dt * max(s, t), signal[g, i], dt * g, end)
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-11)


@pytest.mark.parametrize("kind", ["few links", "events", "band"])
def test_every_layout_learns_as_its_matrix(kind):
    c, rng = wiring.example(kind), np.random.default_rng(1)
    rows, columns, count = wiring.synapses(c)
    rule = DopamineSTDP(TripletSTDP(0.1, 0.1, 0.1, 0.1))
    full = Dense(c.n_pre, c.n_post)
    states = rule.init(c), rule.init(full)
    step = jax.jit(lambda s, c, *z: rule.step(s, c, *z, dt=1.0, signal=0.1))
    for _ in range(6):
        z = [jnp.asarray(rng.random(n) < 0.4, float) for n in (c.n_pre, c.n_post)]
        one, dw = step(states[0], c, *z)
        other, expected = step(states[1], full, *z)
        states = one, other
    exists = count > 0
    assert np.abs(dw).max() > 0.01
    expected = np.asarray(expected)[rows, columns][exists]
    np.testing.assert_allclose(np.asarray(dw)[exists], expected, rtol=1e-5, atol=1e-7)


def test_without_dopamine_nothing_changes_and_a_signal_is_one_number_a_receiver():
    c = Dense(2, 3)
    step = jax.jit(lambda s, d: RULE.step(s, c, jnp.ones(2), jnp.ones(3), dt=1.0, signal=d))
    state, dw = step(RULE.init(c), None)
    for _ in range(2):
        state, dw = step(state, None)
        assert not dw.any()
    state, dw = step(state, jnp.array([0, 1, 0]))
    assert not dw.any()
    _, dw = step(state, None)
    np.testing.assert_array_equal(np.asarray(dw).any(1), [False, True, False])
    with pytest.raises(ValueError, match=r"signal must be .* of shape \(3,\); got \(2,\)"):
        RULE.step(state, c, jnp.ones(2), jnp.ones(3), dt=1.0, signal=jnp.ones(2))


def test_what_decays_slowly_is_held_in_long_runs_in_every_type():
    """By 1e-6 and less a step, of which the last digit of 1 is a twentieth."""
    rule, n = DopamineSTDP(STDP(UP, DOWN), tau_c=1e5, tau_d=2e5), 2000
    first = jnp.zeros(n).at[0].set(1)

    @functools.partial(jax.jit, static_argnums=0)
    def run(dtype):
        def step(state, z):
            pair = z[None].astype(dtype)
            return rule.step(state, Dense(1, 1), pair, pair, dt=0.1, signal=z)

        return jax.lax.scan(step, rule.init(Dense(1, 1), dtype), first)

    for dtype in ("float32", "bfloat16"):
        end, dw = run(dtype)
        held = {k: np.asarray(x).astype(float) for k, x in end._asdict().items() if k != "pairs"}
        t = 0.1 * (n - 1)
        np.testing.assert_allclose(held["c"] + held["c_low"], UP * math.exp(-t / 1e5), rtol=1e-8)
        np.testing.assert_allclose(held["d"] + held["d_low"], math.exp(-t / 2e5), rtol=1e-8)
    fine = run("float32")[1].astype(dtype)
    assert np.mean(np.asarray(dw == fine)) > 0.99  # but where rounding is a near thing


def test_refuses_what_is_no_rule_of_pairs():
    with pytest.raises(TypeError, match="pairs must be an instance; got the class: pass STDP()"):
        DopamineSTDP(STDP)
    with pytest.raises(TypeError, match="pairs must have visit; got Homeostasis"):
        DopamineSTDP(Homeostasis())
    with pytest.raises(ValueError, match="dependence of pairs must be None"):
        DopamineSTDP(STDP(dependence=WeightDependence()))
