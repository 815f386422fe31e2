"""Delays that are data, in networks: against a plain loop, static delays and one another.

Senders send counts, as `PoissonInput` does: two spikes in a step are worth two.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj

N_PRE, N_POST, T, LONGEST = 7, 5, 60, 12
RNG = np.random.default_rng(0)
SPIKES = ((RNG.random((T, N_PRE)) < 0.2) * RNG.integers(1, 4, (T, N_PRE))).astype(np.float32)
PRE, POST = np.nonzero(RNG.random((N_PRE, N_POST)) < 0.6)
W = RNG.normal(size=len(PRE)).astype(np.float32)
STEPS = RNG.integers(1, LONGEST + 1, len(PRE))


class Relay(eqx.Module):
    """What it hears is what it sends, in the same step."""

    def init(self, shape, dtype=float):
        return jnp.zeros(shape, dtype)

    def step(self, state, current, *, dt):
        return current, current


def network(wiring, w, from_outside=False, **delay):
    layers = {"b": nj.Layer(N_POST, Relay())}
    pre = "x" if from_outside else "a"
    wires = {"ab": nj.Projection(pre, "b", wiring, w=w, plastic=False, **delay)}
    if not from_outside:
        layers["a"] = nj.Layer(N_PRE, Relay())
        wires["x"] = nj.Projection("x", "a", nj.Dense(N_PRE, N_PRE), w=jnp.eye(N_PRE))
    return nj.Network(layers, wires)


def heard(net, spikes=SPIKES, state=None, n_steps=T):
    weights = net.init_weights(jax.random.key(0))
    state = net.init() if state is None else state
    probe = lambda records: records["b"].z  # noqa: E731
    return nj.simulate(
        net, weights, state, {"x": spikes}, n_steps=n_steps, dt=1.0, probe=probe, learn=False
    )


def expected(steps):
    """A loop over synapses: each hears its sender `steps` ago."""
    y = np.zeros((T, N_POST))
    for j, i, w, d in zip(PRE, POST, W, np.broadcast_to(steps, W.shape), strict=True):
        y[d:, i] += w * SPIKES[: T - d, j]
    return y


def layouts(steps):
    """The same synapses and delays as an event list, rows and a matrix."""
    wiring, (w, d) = nj.by_sender(PRE, POST, N_PRE, N_POST, (W, steps))
    rows = nj.FanIn(np.tile(np.arange(N_PRE), (N_POST, 1)), N_PRE)
    matrix, late = np.zeros((N_POST, N_PRE), np.float32), np.ones((N_POST, N_PRE), int)
    matrix[POST, PRE], late[POST, PRE] = W, steps
    return {
        "events": (wiring, w, d),
        "rows": (rows, matrix, late),
        "matrix": (nj.Dense(N_PRE, N_POST), matrix, late),
    }


@pytest.mark.parametrize("from_outside", [False, True])
@pytest.mark.parametrize("layout", ["events", "rows", "matrix"])
def test_each_synapse_hears_its_sender_its_own_delay_ago(layout, from_outside):
    wiring, w, d = layouts(STEPS)[layout]
    net = network(wiring, w, from_outside, delays=nj.Delays(d, LONGEST))
    np.testing.assert_allclose(heard(net)[1], expected(STEPS), atol=1e-6)


@pytest.mark.parametrize("layout", ["events", "matrix"])
@pytest.mark.parametrize("steps", [1, LONGEST])
def test_one_delay_as_data_is_the_delay_as_structure(layout, steps):
    wiring, w, _ = layouts(STEPS)[layout]
    as_data = heard(network(wiring, w, delays=nj.Delays(steps, LONGEST)))[1]
    np.testing.assert_array_equal(as_data, heard(network(wiring, w, delay=steps))[1])
    np.testing.assert_allclose(as_data, expected(steps), atol=1e-6)
    outside = heard(network(wiring, w, from_outside=True, delay=steps))[1]
    np.testing.assert_array_equal(as_data, outside)


@pytest.mark.parametrize("layout", ["events", "rows"])
def test_a_run_in_two_pieces_is_the_run_in_one(layout):
    wiring, w, d = layouts(STEPS)[layout]
    net = network(wiring, w, from_outside=True, delays=nj.Delays(d, LONGEST))
    state, first = heard(net, SPIKES[:23], n_steps=23)
    _, second = heard(net, SPIKES[23:], state, n_steps=T - 23)
    np.testing.assert_array_equal(np.concatenate([first, second]), heard(net)[1])


def test_a_sweep_over_delays_is_a_vmap_that_compiles_once():
    wiring, w, _ = layouts(STEPS)["matrix"]
    counted = []

    @jax.jit
    @jax.vmap
    def run(steps):
        counted.append(steps)
        return heard(network(wiring, w, delays=nj.Delays(steps, LONGEST)))[1]

    swept = run(jnp.array([1, 5, 12]))
    for y, steps in zip(swept, (1, 5, 12), strict=True):
        np.testing.assert_allclose(y, expected(steps), atol=1e-6)
    run(jnp.array([2, 3, 4]))
    assert len(counted) == 1


def test_a_traced_delay_beyond_the_longest_is_an_error_not_another_delay():
    wiring, w, _ = layouts(STEPS)["matrix"]
    run = eqx.filter_jit(
        lambda steps: heard(network(wiring, w, delays=nj.Delays(steps, LONGEST)))[1]
    )
    for steps in (0, LONGEST + 1):
        with pytest.raises(Exception, match=f"delays must be in \\[1, {LONGEST}\\]"):
            run(jnp.asarray(steps)).block_until_ready()


@pytest.mark.slow
def test_counts_move_membranes_as_campbells_theorem_says():
    n, rate, w, tau, r, tau_syn, dt = 1000, 1.28, 0.4, 2.0, 10.0, 0.5, 0.1  # 1/ms, nA, ms, MOhm
    rows, listed = nj.one_to_one(n), nj.by_sender(np.arange(n), np.arange(n), n, n)
    each = nj.Delays(jnp.arange(n) % 5 + 1)
    ways = {  # to a port of its own
        "now": (rows, {}), "exc": (rows, {"delay": 3}), "late": (rows, {"delays": nj.Delays(2)}),
        "each": (rows, {"delays": nj.Delays(each.steps[:, None])}), "listed": (listed, {}),
        "arrives": (listed, {"delays": each}),
    }  # fmt: skip
    layers, wires = {"in": nj.Layer(n, nj.PoissonInput(160, 8.0))}, {}
    for name, (wiring, delay) in ways.items():
        neuron, receptor = nj.LIF(tau, r_mem=r, v_th=1e6), nj.Exponential(tau_syn)
        ports = {"exc": receptor} if name == "exc" else {}
        layers[name] = nj.Layer(n, neuron, synapse=None if ports else receptor, ports=ports)
        wires[name] = nj.Projection(
            "in", name, wiring, port="exc" if ports else None, w=jnp.full(wiring.shape, w), **delay
        )
    net, key = nj.Network(layers, wires), jax.random.key(0)
    end, _ = nj.simulate(
        net, net.init_weights(key), net.init(), {}, n_steps=250, dt=dt, key=key, probe=lambda _: ()
    )
    charge = w * r * tau_syn  # mV ms, of one arrival
    mean, var = rate * charge, rate * charge**2 / (2 * (tau + tau_syn))
    for name in ways:
        v = np.asarray(end.neurons[name].v)
        # four standard errors; 1% for exp(-25 / 2) to come, and (dt / tau_syn)^2 / 12 of the grid
        assert abs(v.mean() - mean) < 4 * math.sqrt(var / n), name
        assert abs(v.var() - var) < (4 * math.sqrt(2 / n) + 0.01) * var, name


def test_milliseconds_become_whole_steps():
    assert nj.steps(1.5, dt=0.1) == 15
    np.testing.assert_array_equal(nj.steps([0.1, 2.3, 1000.0], dt=0.1), [1, 23, 10000])
    np.testing.assert_array_equal(nj.steps([0.14, 0.16], dt=0.1, nearest=True), [1, 2])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nj.steps(1.55, dt=0.1), ValueError, "whole steps of 0.1 ms; got 1.55: pass near"),
        (lambda: nj.steps(-1.0, dt=0.1), ValueError, r"ms must be finite and >= 0; got -1.0"),
        (lambda: nj.steps(float("nan"), dt=0.1), ValueError, "ms must be finite"),
        (lambda: nj.steps(1e308, dt=0.1), ValueError, r"at most 2147483647 steps; got 1e\+308 ms"),
        (lambda: nj.steps([1j], dt=0.1), TypeError, r"ms must be numbers; got \[1j\]"),
        (lambda: nj.steps(1.0, dt=0.0), ValueError, "dt must be"),
        (lambda: nj.Delays(1.5), ValueError, r"whole numbers of steps; got 1.5: pass nj.steps\("),
        (lambda: nj.Delays("2 ms"), ValueError, "whole numbers of steps; got '2 ms'"),
        (lambda: nj.Delays([3, 0]), ValueError, "delays must be >= 1 step; got 0"),
        (lambda: nj.Delays([]), ValueError, "delays must be >= 1 step; got none"),
        (lambda: nj.Delays(9, longest=8), ValueError, "<= longest, 8 steps; got 9: pass longest=9"),
        (lambda: nj.Delays(9, longest=8.5), ValueError, "longest must be a whole number"),
        (
            lambda: nj.Projection("a", "b", nj.Dense(2, 2), delays=3),
            TypeError,
            r"delays must be nj.Delays\(steps\); got int 3",
        ),
        (
            lambda: nj.Projection("a", "b", nj.Dense(2, 2), delay=1, delays=nj.Delays(3)),
            ValueError,
            "delay must be 0 beside delays",
        ),
        (
            lambda: nj.Projection("a", "b", nj.Dense(2, 2), delays=nj.Delays([3, 3, 3])),
            ValueError,
            r"one a synapse of shape \(2, 2\); got \(3,\)",
        ),
        (
            lambda: nj.Projection("a", "b", nj.Dense(2, 2), delay=np.ones((2, 2), int)),
            ValueError,
            r"(?s)one whole number of steps.*nj.Delays\(steps\)",
        ),
    ],
)
def test_refuses_delays_that_are_none(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_delays_print_with_their_range():
    assert repr(nj.Delays([3, 15, 4], 20)) == "Delays(3 delays, 3 to 15 of at most 20 steps)"
    p = nj.Projection("a", "b", nj.Dense(2, 2), delays=nj.Delays(3))
    assert "Delays(1 delay, 3 of at most 3 steps)" in repr(p)
