"""Gates between samples: what opens them, what they remember, and what a shut one leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware as hw
import neurojax as nj
from neurojax import wta_broadcast as wb
from neurojax.learning import bptt
from neurojax.plasticity.gating import opened, surprise

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SCORES = jnp.asarray(RNG.normal(0, 0.05, (40, 3)), jnp.float32)
TARGET = jnp.asarray(RNG.integers(0, 3, 40))


def expected(scores, target, gain=30.0):
    p = np.exp(gain * np.asarray(scores, np.float64))
    return 1 - (p / p.sum(1, keepdims=True))[np.arange(len(p)), np.asarray(target)]


def test_surprise_is_what_the_belief_in_the_label_leaves():
    np.testing.assert_allclose(surprise(SCORES, TARGET), expected(SCORES, TARGET), atol=1e-6)


def test_a_surprise_gate_judges_by_what_was_usual_before_the_batch():
    gate, s = nj.SurpriseGate(ratio=0.5, low=0.1, high=0.9, rho=0.75), expected(SCORES, TARGET)
    state, usual = gate.init(), 0.0
    for _ in range(3):
        state, g = gate.step(state, SCORES, TARGET)
        np.testing.assert_array_equal(g[:, 0], (s > 0.1 + 0.5 * usual) & (s <= 0.9))
        usual = 0.75 * usual + 0.25 * s.mean()
        np.testing.assert_allclose(state.mean, usual, rtol=1e-5)


def test_a_budget_gate_opens_for_its_budget_and_for_the_most_surprising():
    gate, s = nj.BudgetGate(budget=0.25, rate=0.05), expected(SCORES, TARGET)

    def step(state, _):
        state, g = gate.step(state, SCORES, TARGET)
        return state, g[:, 0]

    g = np.asarray(jax.lax.scan(step, gate.init(), None, 300)[1])[100:]
    # theta moves by rate x 3/4 a batch at the most, so the mean is off by 1 / (200 x .05) at most
    assert abs(g.mean() - 0.25) <= 0.1
    for one in g:
        assert one.all() or not one.any() or s[one > 0].min() > s[one == 0].max()


@pytest.mark.parametrize(("budget", "target", "theta"), [(0.5, 0, 0.0), (0.0, 1, 1.0)])
def test_the_threshold_of_a_budget_stays_where_surprise_can_be(budget, target, theta):
    """What is all known or all misjudged drives it to an end, from which one batch leads back."""
    gate = nj.BudgetGate(budget=budget, rate=1.0)
    state = gate.init()._replace(theta=jnp.asarray(abs(theta - 0.1)))
    state, _ = gate.step(state, jnp.array([[9.0, 0.0]]), jnp.array([target]))
    assert float(state.theta) == theta


def test_a_change_gate_is_the_ratio_of_two_means_within_its_ends():
    gate = nj.ChangeGate(power=2.0, least=0.3, most=1.05, rho_fast=0.5, rho_slow=0.9)
    state, fast, slow, seen = gate.init(), 1.0, 1.0, []
    for scale in (1.0, 20.0, 20.0, 20.0, -20.0, -20.0):  # known, then misjudged
        scores = scale * 0.05 * jax.nn.one_hot(TARGET, 3)
        state, g = gate.step(state, scores, TARGET)
        s = expected(scores, TARGET).mean()
        fast, slow = 0.5 * fast + 0.5 * s, 0.9 * slow + 0.1 * s
        seen.append(float(g[0, 0]))
        np.testing.assert_allclose(seen[-1], np.clip((fast / slow) ** 2, 0.3, 1.05), rtol=1e-4)
        assert (g == g[0, 0]).all()
    assert min(seen) == pytest.approx(0.3)
    assert max(seen) == pytest.approx(1.05)


def test_a_shuffled_gate_opens_as_often_and_for_others():
    gate = nj.SurpriseGate(low=0.7)
    own = gate.step(gate.init(), SCORES, TARGET)[1]
    dealt = nj.ShuffledGate(gate).step(gate.init(), SCORES, TARGET, key=KEY)[1]
    assert 0 < own.sum() == dealt.sum() < len(own)
    assert (own != dealt).any()


def test_gates_draw_apart_and_samples_are_dealt_out_whole():
    """Two gates of one kind have chance of their own; all that a sample has moves together."""
    one = nj.ShuffledGate(nj.SurpriseGate(low=0.7))
    both = nj.GatePopulation((one, one), {})
    m = both.step(both.init(), SCORES, TARGET, key=KEY)[1]
    assert (m[:, 0] != m[:, 1]).any()
    steps = nj.GatePopulation((nj.SurpriseGate(low=0.9), nj.SurpriseGate(low=0.5)), {})
    own = steps.step(steps.init(), SCORES, TARGET)[1]
    dealt = nj.ShuffledGate(steps).step(steps.init(), SCORES, TARGET, key=KEY)[1]
    assert 0 < float(own[:, 0].sum()) < float(own[:, 1].sum())
    np.testing.assert_array_equal(sorted(own.tolist()), sorted(dealt.tolist()))
    assert (own != dealt).any()


def test_neurons_hear_their_own_mixture_and_other_layers_the_mean():
    gates = (nj.SurpriseGate(low=0.7), nj.ChangeGate())
    population = nj.gate_population(KEY, gates, {"h1": 5})
    m = population.step(population.init(), SCORES, TARGET)[1]
    alone = [g.step(g.init(), SCORES, TARGET)[1][:, 0] for g in gates]
    np.testing.assert_array_equal(m, jnp.stack(alone, 1))
    np.testing.assert_allclose(population.a["h1"].sum(1), 1, rtol=1e-6)
    mixed = opened(population, "h1", m)
    np.testing.assert_allclose(mixed, np.asarray(m) @ np.asarray(population.a["h1"]).T, rtol=1e-5)
    np.testing.assert_allclose(opened(population, "readout", m)[:, 0], m.mean(1), rtol=1e-6)


def parts(gate, make=None):
    layer = nj.Layer(6, nj.LIF(9.5, 2.0), rule=nj.ThreeFactor())
    net = nj.structured(KEY, 5, [layer], 3, recurrence=nj.Recurrence("none"), population=1)
    system, tx = wb.system(KEY, net, gate=gate, n_steps=6, start=1), optax.sgd(0.5)
    state = wb.init(system, tx, KEY, make or nj.ideal())
    return system, tx, state


X, Y = jnp.asarray(RNG.uniform(0, 3, (8, 5)), jnp.float32), jnp.arange(8) % 3


class First:
    """Only the first three samples teach."""

    def init(self, dtype=float):
        return jnp.zeros(())

    def step(self, state, scores, target, *, key=None):
        return state + 1, (jnp.arange(len(scores)) < 3).astype(scores.dtype)[:, None]


@pytest.mark.slow
def test_gated_changes_are_those_of_the_samples_that_teach():
    system, tx, state = parts(First())
    gated = wb.Gated(system.gate, state.gate)
    dw, outcome = wb.deltas(system, state.weights, state.homeostasis, X, Y, gate=gated)
    few, _ = wb.deltas(system, state.weights, state.homeostasis, X[:3], Y[:3])
    for name, x in few.items():
        np.testing.assert_allclose(8 * dw[name], 3 * x, atol=2e-5)
        assert jnp.abs(x).max() > 1e-3
    assert outcome.gate.tolist() == [1.0] * 3 + [0.0] * 5
    new, _ = wb.update(system, tx, state, X, Y)
    assert float(new.gate) == 1.0  # it remembers


@pytest.mark.slow
def test_a_shut_gate_sends_no_pulse():
    device = hw.Device(hw.linear(63))
    make = hw.crossbar(device, hw.Bidirectional(hw.Single(63)), 0.6, start="middle")
    shut, tx, state = parts(nj.SurpriseGate(low=1.0), make)
    new, _ = wb.update(shut, tx, state, X, Y)
    open_, _, begun = parts(nj.SurpriseGate(), make)
    taught, _ = wb.update(open_, tx, begun, X, Y)
    pulses = lambda s: sum(int(w.n_pulses.sum()) for w in s.weights.values())  # noqa: E731
    assert pulses(new) == pulses(state)
    assert pulses(taught) > pulses(begun)


@pytest.mark.parametrize(("make", "told"), [
    (lambda: nj.SurpriseGate(low=2.0), "low must lie in"),
    (lambda: nj.BudgetGate(budget=-0.1), "budget must lie in"),
    (lambda: nj.BudgetGate(budget=jnp.ones(2)), "budget of BudgetGate must be one number"),
    (lambda: nj.SurpriseGate(rho=jnp.ones(2)), "rho of SurpriseGate must be one number"),
    (lambda: nj.ChangeGate(gain=jnp.ones(2)), "gain of ChangeGate must be one number"),
    (lambda: nj.ChangeGate(most=0.5), r"most must lie in \[1, 1e\+06\]"),
    (lambda: nj.ChangeGate(rho_fast=0.99), "rho_slow must be above rho_fast; got 0.99 and 0.99"),
    (lambda: nj.GatePopulation((), {}), "gates must hold one"),
    (lambda: nj.GatePopulation((nj.SurpriseGate(),), {"h": jnp.ones((3, 2))}), r"must be \[n, 1\]"),
    (lambda: nj.ShuffledGate(nj.SurpriseGate()).step(None, SCORES, TARGET), "key must be given"),
])  # fmt: skip
def test_what_no_gate_can_do_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_a_surrogate_gradient_takes_no_gate():
    system, tx, _ = parts(First())
    with pytest.raises(ValueError, match="system must have no gate .* got First: leave it out"):
        bptt.learner(system, tx)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "gate", [nj.SurpriseGate(), nj.BudgetGate(), nj.ChangeGate()], ids=lambda g: type(g).__name__
)
@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (jnp.zeros((2, 3)), jnp.array([5, 0]), r"target must be in \[0, 3\), .*; got 5"),
        (jnp.zeros((2, 3)), jnp.array([-1, 0]), r"target must be in \[0, 3\), .*; got -1"),
        (jnp.zeros((2, 3)), jnp.array([1]), r"target must be \[batch\] = \[2\] labels; got \[1\]"),
        (jnp.zeros(3), jnp.array([1]), r"scores must be \[batch, n_classes\]; got \[3\]"),
    ],
)
def test_a_gate_refuses_what_is_no_label_of_its_scores(gate, scores, target, message):
    with pytest.raises(ValueError, match=message):
        gate.step(gate.init(), scores, target)


@pytest.mark.usefixtures("untyped")
def test_shares_are_not_negative_and_scores_those_that_are_expected():
    with pytest.raises(ValueError, match="a of layer 'h' must be finite and >= 0; got -0.5"):
        nj.Modulators(k=jnp.ones((1, 3)), a={"h": jnp.full((2, 1), -0.5)})
    with pytest.raises(ValueError, match="a of layer 'h' must be finite and >= 0; got -3"):
        nj.GatePopulation((nj.SurpriseGate(),), {"h": jnp.full((2, 1), -3.0)})
    m = nj.Modulators(k=jnp.ones((1, 3)), a={"h": jnp.ones((2, 1))})
    with pytest.raises(ValueError, match=r"scores must be \[n_classes\] = \[3\], .*; got \[1\]"):
        m.step(m.init(3), jnp.zeros(1), 0)
