"""Learning while a network runs: against a loop over synapses, and one layout against another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware as hw
import neurojax as nj
from neurojax.wiring.visits import Visit

N_PRE, N_POST, T, DT = 6, 4, 50, 0.5
A_PLUS, A_MINUS, TAU_PLUS, TAU_MINUS = 0.04, 0.05, 5.0, 8.0
RNG = np.random.default_rng(1)
X = (RNG.random((T, N_PRE)) < 0.25).astype(np.float32)
Y = (RNG.random((T, N_POST)) < 0.25).astype(np.float32)
PRE, POST = np.nonzero(RNG.random((N_PRE, N_POST)) < 0.7)
W = RNG.uniform(0.0, 0.1, len(PRE)).astype(np.float32)


class Soft(eqx.Module):
    """Room that is left below w = 0.12."""

    def __call__(self, w):
        return 0.12 - w


class Pairs(eqx.Module):
    """STDP of pairs, as anyone would write it."""

    scale: Soft | None = None

    def init(self, connectivity, dtype=float):
        return jnp.zeros(connectivity.n_pre, dtype), jnp.zeros(connectivity.n_post, dtype)

    def visit(self, state, pre, post, *, dt):
        x = state[0] * jnp.exp(-dt / TAU_PLUS) + pre
        y = state[1] * jnp.exp(-dt / TAU_MINUS)
        return (x, y + post), (Visit(pre, -A_MINUS * y), Visit(post, A_PLUS * x, self.scale))


def loop(low=-np.inf, high=np.inf, soft=False, x=X):
    """Every synapse on its own, in double precision."""
    w, out = W.astype(float), []
    tx, ty = np.zeros(N_PRE), np.zeros(N_POST)
    for now, fired in zip(x, Y, strict=True):
        tx, ty = tx * np.exp(-DT / TAU_PLUS) + now, ty * np.exp(-DT / TAU_MINUS)
        w = np.clip(w - A_MINUS * now[PRE] * ty[POST], low, high)
        up = A_PLUS * fired[POST] * tx[PRE] * (0.12 - w if soft else 1)
        w = np.clip(w + up, low, high)
        ty = ty + fired
        out.append(w)
    return out[-1]


def wirings():
    """The same synapses in three layouts, and what picks them out of its weights."""
    events, w = nj.by_sender(PRE, POST, N_PRE, N_POST, W)
    matrix = np.zeros((N_POST, N_PRE), np.float32)
    matrix[POST, PRE] = W
    picked = lambda w: np.asarray(w)[POST, PRE]  # noqa: E731
    rows = nj.FanIn(np.tile(np.arange(N_PRE), (N_POST, 1)), N_PRE)
    return {
        "events": (events.with_columns(), w, np.asarray),
        "rows": (rows, matrix, picked),
        "matrix": (nj.Dense(N_PRE, N_POST), matrix, picked),
    }


def taught(wiring, w, rule, pre="x", **options):
    """Neurons that fire where a teacher says so, and plastic synapses too weak to matter."""
    layers = {"post": nj.Layer(N_POST, nj.LIF(0.01, v_th=10.0))}
    eye = 50 * jnp.eye(N_POST)
    wires = {
        "t": nj.Projection("t", "post", nj.Dense(N_POST, N_POST), w=eye, plastic=False),
        "xy": nj.Projection(pre, "post", wiring, w=w, rule=rule, **options),
    }
    if pre != "x":
        layers[pre] = nj.Layer(N_PRE, nj.LIF(0.01, v_th=10.0))
        wires["x"] = nj.Projection(
            "x", pre, nj.Dense(N_PRE, N_PRE), w=50 * jnp.eye(N_PRE), plastic=False
        )
    return nj.Network(layers, wires)


def plastic(make):
    """`make` for what learns; teachers, which are square, stay numbers."""

    def made(w, connectivity, key):
        square = w.ndim == 2 and w.shape[0] == w.shape[1]
        return (nj.ideal() if square else make)(w, connectivity, key)

    return made


def learned(net, make_weights=nj.ideal(), x=X, y=Y, weights=None, state=None, **options):
    weights = net.init_weights(jax.random.key(0), make_weights) if weights is None else weights
    state = net.init() if state is None else state
    return nj.simulate(
        net, weights, state, {"x": x, "t": y}, n_steps=len(x), dt=DT,
        probe=lambda records: records["post"].z, **{"learn": True, **options},
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["events", "rows", "matrix"])
@pytest.mark.parametrize("bounds", [None, (0.0, 0.1)])
@pytest.mark.parametrize("soft", [False, True])
def test_each_synapse_changes_as_a_loop_over_pairs_says(layout, bounds, soft):
    wiring, w, picked = wirings()[layout]
    net = taught(wiring, w, Pairs(Soft() if soft else None))
    weights, _, z = learned(net, plastic(nj.ideal(bounds=bounds)))
    np.testing.assert_array_equal(z, Y)
    expected = loop(*(bounds or ()), soft=soft)
    assert np.abs(expected - W).max() > 0.02
    np.testing.assert_allclose(picked(weights["xy"].w), expected, atol=1e-6)
    np.testing.assert_array_equal(weights["t"].w, 50 * np.eye(N_POST))


@pytest.mark.parametrize("layout", ["events", "matrix"])
@pytest.mark.parametrize("delay", [{"delay": 1}, {"delay": 4}, {"delays": nj.Delays(4, 9)}])
def test_spikes_count_when_they_arrive(layout, delay):
    wiring, w, picked = wirings()[layout]
    weights, _, _ = learned(taught(wiring, w, Pairs(), pre="a", **delay))
    late = delay.get("delay", 4)
    arriving = np.concatenate([np.zeros((late, N_PRE)), X])[:T]
    np.testing.assert_allclose(picked(weights["xy"].w), loop(x=arriving), atol=1e-6)


@pytest.mark.parametrize("release", [nj.Quantal(U=0.0), nj.NMDAGate()])  # nothing, and always
@pytest.mark.parametrize("delay", [{"delay": 4}, {"delays": nj.Delays(4, 9)}])
def test_rules_see_late_spikes_whatever_these_set_free(release, delay):
    wiring, w, picked = wirings()["events"]
    net = taught(wiring, w, Pairs(), pre="a", release=release, **delay)
    weights, _, _ = learned(net, key=jax.random.key(0))
    arriving = np.concatenate([np.zeros((4, N_PRE)), X])[:T]
    np.testing.assert_allclose(picked(weights["xy"].w), loop(x=arriving), atol=1e-6)


@pytest.mark.parametrize("layout", ["events", "matrix"])
@pytest.mark.parametrize("pre", ["x", "a"])
def test_a_run_in_two_pieces_is_the_run_in_one(layout, pre):
    wiring, w, _ = wirings()[layout]
    net = taught(wiring, w, Pairs(), pre=pre)
    weights, state, _ = learned(net, plastic(nj.ideal(bounds=(0.0, 0.1))), X[:19], Y[:19])
    again, end, _ = learned(net, x=X[19:], y=Y[19:], weights=weights, state=state)
    whole = learned(net, plastic(nj.ideal(bounds=(0.0, 0.1))))
    for a, b in zip(jax.tree.leaves((again, end)), jax.tree.leaves(whole[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_seen_every_third_step_is_what_is_seen_in_each():
    wiring, w, _ = wirings()["events"]
    net = taught(wiring, w, Pairs())
    weights, _, z = learned(net, x=X[:48], y=Y[:48], every=3)
    whole, _, _ = learned(net, x=X[:48], y=Y[:48])
    np.testing.assert_array_equal(z, Y[2:48:3])
    np.testing.assert_array_equal(weights["xy"].w, whole["xy"].w)


def test_learning_off_leaves_all_as_it_was():
    wiring, w, _ = wirings()["matrix"]
    net = taught(wiring, w, Pairs())
    weights = net.init_weights(jax.random.key(0))
    state, z = nj.simulate(
        net, weights, net.init(), {"x": X, "t": Y}, n_steps=T, dt=DT, learn=False,
        probe=lambda records: records["post"].z,
    )  # fmt: skip
    np.testing.assert_array_equal(z, Y)
    assert state.rules == {}


def test_the_rule_of_the_layer_serves_where_the_projection_has_none():
    wiring, w, picked = wirings()["matrix"]
    net = taught(wiring, w, None)
    layer = nj.Layer(N_POST, nj.LIF(0.01, v_th=10.0), rule=Layerwise())
    net = nj.Network({"post": layer}, net.projections)
    weights, _, _ = learned(net)
    np.testing.assert_allclose(picked(weights["xy"].w), loop(), atol=1e-6)


class Layerwise(Pairs):
    """As a layer's rule it also has what presentations ask for."""

    def factor(self, neuron, post, q, *, dt):
        raise AssertionError


def test_seeds_and_amplitudes_are_a_vmap():
    wiring, w, picked = wirings()["events"]
    bounds = jnp.array([0.08, 0.1])

    @jax.vmap
    def run(high):
        held = {n: nj.Ideal(p.w, p.connectivity) for n, p in net.projections.items()}
        held["xy"] = nj.Ideal(w, wiring, jnp.zeros(()), high)
        return learned(net, weights=held)[0]["xy"].w

    net = taught(wiring, w, Pairs())
    swept = run(bounds)
    for w_n, high in zip(swept, bounds, strict=True):
        np.testing.assert_allclose(picked(w_n), loop(0.0, float(high)), atol=1e-6)


@pytest.mark.slow
def test_on_a_crossbar_the_same_rule_pulses_devices():
    wiring, w, picked = wirings()["matrix"]
    policy = hw.Unidirectional(hw.Train(4096, longest=4096))
    fine = hw.crossbar(hw.Device(hw.linear(4096)), policy, w_max=2.0)
    net = taught(wiring, w, Pairs())
    start = net.init_weights(jax.random.key(0), plastic(fine))
    weights, _, _ = learned(net, weights=start, key=jax.random.key(1))
    np.testing.assert_allclose(picked(weights["xy"].w), loop(), atol=0.02)
    assert np.abs(picked(weights["xy"].w) - picked(start["xy"].w)).max() > 0.02


def test_by_hand_a_step_learns_too():
    wiring, w, picked = wirings()["events"]
    net = taught(wiring, w, Pairs())
    weights, state = net.init_weights(jax.random.key(0)), net.init(learn=True)

    @eqx.filter_jit
    def step(weights, state, x, y):
        drive = {"post": 50 * y}
        return net.step(weights, state, drive, dt=DT, inputs={"x": x}, learn=True)

    for x, y in zip(X, Y, strict=True):
        weights, state, _ = step(weights, state, x, y)
    np.testing.assert_allclose(picked(weights["xy"].w), loop(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"rule": nj.LIF()},
            TypeError,
            "rule must have visit, or a step with a signal, .*; got LIF",
        ),
        ({"rule": Pairs}, TypeError, r"rule must be an instance; got the class: pass Pairs\(\)"),
        ({"rule": Pairs(), "plastic": False}, ValueError, "plastic must be True beside a rule"),
    ],
)
def test_refuses_a_rule_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        nj.Projection("x", "h", nj.Dense(1, 1), **options)


def test_refuses_to_learn_where_nothing_can():
    wiring, w, _ = wirings()["matrix"]
    with pytest.raises(ValueError, match="learn must be False, as no plastic projection has a r"):
        learned(taught(wiring, w, None))
    with pytest.raises(ValueError, match="learn must be said, as projection 'xy' has a rule: pass"):
        learned(taught(wiring, w, Pairs()), learn=None)
    late = nj.Delays(np.ones((N_POST, N_PRE), int), 3)
    with pytest.raises(ValueError, match="delays of projection 'xy' must be one number, as it le"):
        learned(taught(wiring, w, Pairs(), pre="a", delays=late))
    events, w = nj.by_sender(PRE, POST, N_PRE, N_POST, W)
    with pytest.raises(ValueError, match=r"projection 'xy'.*pass connectivity.with_columns\(\)"):
        learned(taught(events, w, Pairs()))


# --- a third factor ---


@pytest.mark.parametrize("layout", ["events", "rows", "matrix"])
@pytest.mark.parametrize("shape", [(), (T,), (T, N_POST)])
def test_a_signal_of_a_layer_reaches_the_rules_that_hear_it(layout, shape):
    wiring, w, picked = wirings()[layout]
    rule = nj.DopamineSTDP(nj.STDP(A_PLUS, A_MINUS, TAU_PLUS, TAU_MINUS))
    signal = np.asarray(RNG.uniform(0, 0.1, shape), np.float32)
    weights, _, _ = learned(taught(wiring, w, rule), signals={"post": signal})
    each, state = (
        np.broadcast_to(signal.reshape(-1, 1) if signal.ndim == 1 else signal, (T, N_POST)),
        None,
    )
    dense, w_now = nj.Dense(N_PRE, N_POST), np.zeros((N_POST, N_PRE))
    state = rule.init(dense)
    for x, y, d in zip(X, Y, each, strict=True):
        state, dw = rule.step(
            state, dense, jnp.asarray(x), jnp.asarray(y), dt=DT, signal=jnp.asarray(d)
        )
        w_now = w_now + np.asarray(dw)
    np.testing.assert_allclose(picked(weights["xy"].w), W + w_now[POST, PRE], rtol=1e-5)
    assert np.abs(w_now).max() > 1e-3


@pytest.mark.parametrize(
    ("signals", "error", "message"),
    [
        ([1.0], TypeError, "signals must be a dict by layer"),
        (
            {"pst": 1.0},
            ValueError,
            r"signals of 'pst' are heard by no rule; .* \['post'\]: did you",
        ),
        ({"post": np.ones(3)}, ValueError, r"must be one number, \[50\] or \[50, 4\]; got \(3,\)"),
        ({"post": np.nan}, ValueError, "signals of 'post' must be finite"),
    ],
)
def test_refuses_signals_that_nobody_hears(signals, error, message):
    wiring, w, _ = wirings()["matrix"]
    with pytest.raises(error, match=message):
        learned(taught(wiring, w, nj.DopamineSTDP()), signals=signals)
