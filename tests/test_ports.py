"""Ports: receptors with kinetics of their own, currents and conductances, heard as two sums."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import neurojax as nj

TAU, R = 20.0, 100.0  # ms, MOhm
E_EXC, E_INH, REST = 0.0, -80.0, -60.0  # mV
SPIKES = {"exc": np.array([2.0, 5.0, 5.0, 11.0]), "inh": np.array([4.0, 9.0])}  # ms
WEIGHT = {"exc": 0.006, "inh": 0.067}  # uS


def trains(port, dt, duration):
    """Arrivals [T, 1] of one input, in the steps that end at the times of its spikes."""
    x = np.zeros((round(duration / dt), 1))
    np.add.at(x[:, 0], np.rint(SPIKES[port] / dt).astype(int) - 1, 1.0)
    return x


def one_cell(ports, neuron, weights, dt, duration=20.0, **kinds):
    """Potential of one neuron, mV, after each step; an input to each of its ports."""
    net = nj.Network(
        {"cell": nj.Layer(1, neuron, ports=ports)},
        {
            n: nj.Projection(n, "cell", nj.Dense(1, 1), port=n, w=jnp.full((1, 1), weights[n]))
            for n in ports
        },
    )
    inputs = {n: trains(n, dt, duration) for n in ports}
    n_steps, probe = round(duration / dt), nj.recording.potential("cell", 0)
    held = net.init_weights(jax.random.key(0))
    run = dict(n_steps=n_steps, dt=dt, probe=probe)
    return np.asarray(nj.simulate(net, held, net.init(), inputs, **run)[1])


def test_two_time_constants_add_up_as_two_membranes_that_hear_one_each():
    passive = nj.LeakyIntegrator(TAU)
    slow, fast = nj.Exponential(10.0), nj.Alpha(3.0)
    both = one_cell({"exc": slow, "inh": fast}, passive, {"exc": 1.0, "inh": -2.0}, 0.5)
    alone = [one_cell({n: x}, passive, {n: w}, 0.5)
             for n, x, w in (("exc", slow, 1.0), ("inh", fast, -2.0))]  # fmt: skip
    np.testing.assert_allclose(both, sum(alone), atol=1e-6)
    t = 0.5 * np.arange(1, 41)
    a = 1 / (TAU / 10.0 - 1)  # of the current exp(-t / 10) through the membrane
    psp = sum(
        np.where(t >= s, a * (np.exp(-(t - s) / TAU) - np.exp(-(t - s) / 10.0)), 0)
        for s in SPIKES["exc"]
    )
    np.testing.assert_allclose(alone[0], psp, atol=1e-6)


def conductance_cell():
    """Potential by SciPy: tau v' = E_L - v + R (g_e (E_e - v) + g_i (E_i - v)), jumps at spikes."""
    cuts = np.unique(np.concatenate([[0.0, 20.0], *SPIKES.values()]))
    y, found = np.array([REST, 0.0, 0.0]), {}

    def slope(_, y):
        v, g_e, g_i = y
        heard = R * (g_e * (E_EXC - v) + g_i * (E_INH - v))
        return [(REST - v + heard) / TAU, -g_e / 5.0, -g_i / 10.0]

    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        y[1] += WEIGHT["exc"] * (SPIKES["exc"] == begin).sum()
        y[2] += WEIGHT["inh"] * (SPIKES["inh"] == begin).sum()
        solved = solve_ivp(slope, (begin, end), y, rtol=1e-10, atol=1e-12)
        y = solved.y[:, -1].copy()
        found[end] = y[0]
    return found


def test_conductances_move_the_potential_as_the_equations_do_to_second_order():
    exact, errors = conductance_cell(), []
    with jax.enable_x64(True):
        ports = {
            "exc": nj.Conductance(nj.Exponential(5.0), E_EXC),
            "inh": nj.Conductance(nj.Exponential(10.0), E_INH),
        }
        neuron = nj.LIF(TAU, R, v_th=1e3, v_rest=REST, v_reset=REST)
        for dt in (0.5, 0.25, 0.125):
            v = one_cell(ports, neuron, WEIGHT, dt)
            errors.append(max(abs(v[round(t / dt) - 1] - exact[t]) for t in exact if t))
    assert errors[0] < 0.02  # mV
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.15)


def test_a_record_shows_each_port():
    ports = {"exc": nj.Conductance(nj.Exponential(5.0), E_EXC), "slow": nj.Exponential(50.0)}
    layer = nj.Layer(2, nj.LIF(TAU, R), ports=ports)
    wires = {
        n: nj.Projection(n, "cells", nj.Dense(1, 2), port=n, w=[[w], [2 * w]])
        for n, w in (("exc", 0.25), ("slow", 1.0))
    }
    net = nj.Network({"cells": layer}, wires)
    _, seen = nj.simulate(
        net, net.init_weights(jax.random.key(0)), net.init(),
        {"exc": jnp.ones(1), "slow": jnp.ones((3, 1))}, n_steps=3, dt=1.0,
        probe=lambda records: records["cells"],
    )  # fmt: skip
    exc, slow = seen.ports["exc"], seen.ports["slow"]
    np.testing.assert_array_equal(exc.arrivals, [[0.25, 0.5]] * 3)
    np.testing.assert_array_equal(slow.arrivals, [[1.0, 2.0]] * 3)
    mean = 5.0 * -np.expm1(-1 / 5.0)  # of a decay over the step
    np.testing.assert_allclose(seen.conductance[1], exc.arrivals[0] * mean, rtol=1e-6)
    np.testing.assert_array_equal(exc.value, seen.conductance)
    np.testing.assert_allclose(seen.current, slow.value + E_EXC * exc.value, rtol=1e-6)
    assert slow.state.i.shape == (3, 2)


def test_a_port_beside_the_synapse_hears_nothing_of_it():
    layer = nj.Layer(1, nj.LIF(TAU), synapse=nj.Exponential(5.0), ports={"b": nj.Alpha(2.0)})
    wires = {
        "a": nj.Projection("x", "h", nj.Dense(1, 1), w=[[3.0]]),
        "b": nj.Projection("x", "h", nj.Dense(1, 1), w=[[5.0]], port="b"),
    }
    net = nj.Network({"h": layer}, wires)
    weights = net.init_weights(jax.random.key(0))
    drive = net.drive(weights, {"x": jnp.ones(1)})
    assert {n: float(x[0]) for n, x in drive.items()} == {"h": 3.0, "h.b": 5.0}
    _, records = net.step(weights, net.init(), drive, dt=1.0)
    assert float(records["h"].synapse.i[0]) == 3.0
    assert float(records["h"].ports["b"].arrivals[0]) == 5.0


class Bare(eqx.Module):
    """A neuron in fifteen lines, without tau_mem: it sums."""

    def init(self, shape, dtype=float):
        return jnp.zeros(shape, dtype)

    def step(self, state, current, *, dt):
        state = state + dt * current
        return state, state


def test_a_neuron_without_tau_mem_hears_the_mean_over_the_step():
    net = nj.Network(
        {"sum": nj.Layer(1, Bare(), ports={"p": nj.Exponential(4.0)})},
        {"x": nj.Projection("x", "sum", nj.Dense(1, 1), w=[[1.0]], port="p")},
    )
    x = jnp.zeros((400, 1)).at[0].set(1.0)
    weights, probe = net.init_weights(jax.random.key(0)), nj.recording.outputs
    _, y = nj.simulate(net, weights, net.init(), {"x": x}, n_steps=400, dt=0.5, probe=probe)
    np.testing.assert_allclose(y["sum"][-1], 4.0, rtol=1e-5)  # all the charge, 1 nA x 4 ms


class Half(eqx.Module):
    """Release that halves with each spike: what is left, [n_pre]."""

    def init(self, shape, dtype=float):
        return jnp.ones(shape, dtype)

    def step(self, state, z, *, dt):
        return jnp.where(z != 0, state / 2, state), state * z


@pytest.mark.parametrize("kind", ["inside", "outside"])
@pytest.mark.parametrize("delay", [{}, {"delay": 1}, {"delay": 3}, {"delays": nj.Delays(3)}])
def test_a_release_scales_what_each_spike_sends_however_late_it_comes(kind, delay):
    pre = {"inside": "a", "outside": "x"}[kind]
    layers = {"b": nj.Layer(1, Bare())}
    wires = {
        "ab": nj.Projection(pre, "b", nj.Dense(2, 1), w=[[1.0, 10.0]], release=Half(), **delay)
    }
    if kind == "inside":
        layers["a"] = nj.Layer(2, nj.LIF(0.01))  # fires where it hears more than 1
        wires["x"] = nj.Projection("x", "a", nj.Dense(2, 2), w=2 * jnp.eye(2))
    x = np.array([[1, 0], [1, 1], [0, 0], [1, 1], [0, 0], [0, 0], [0, 0]], np.float32)
    net = nj.Network(layers, wires)
    weights, probe = net.init_weights(jax.random.key(0)), lambda records: records["b"].arrivals[0]
    run = lambda x, state: nj.simulate(  # noqa: E731
        net, weights, state, {"x": x}, n_steps=len(x), dt=1.0, probe=probe
    )
    state, first = run(x[:3], net.init())
    sent = np.array([1, 0.5 + 10, 0, 0.25 + 5, 0, 0, 0])
    late = delay.get("delay", 3 if delay else 0)
    expected = np.concatenate([np.zeros(late), sent])[: len(x)]
    np.testing.assert_array_equal(np.concatenate([first, run(x[3:], state)[1]]), expected)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: nj.Network(
                {"h": nj.Layer(1, nj.LIF(), ports={"exc": nj.Exponential(5.0)})},
                {"x": nj.Projection("x", "h", nj.Dense(1, 1), port="ex")},
            ),
            ValueError,
            r"projection 'x' ends at port 'ex', which layer 'h' lacks, whose ports are \['exc'\]: "
            r"did you mean 'exc'\?",
        ),
        (
            lambda: nj.Layer(1, Bare(), ports={"exc": nj.Conductance(nj.Exponential(5.0), 0.0)}),
            ValueError,
            "port 'exc' must be a current, as Bare.step takes no conductance",
        ),
        (
            lambda: nj.Layer(1, Bare(), synapse=nj.Conductance(nj.Exponential(5.0), 0.0)),
            ValueError,
            "synapse must be a current, as Bare.step takes no conductance",
        ),
        (lambda: nj.Layer(1, Bare(), ports=[nj.Alpha(1.0)]), TypeError, "ports must be a dict"),
        (lambda: nj.Layer(1, Bare(), ports={1: nj.Alpha(1.0)}), TypeError, "ports must have names"),
        (
            lambda: nj.Layer(1, Bare(), ports={"a": nj.Alpha}),
            TypeError,
            r"port 'a' must be an instance; got the class: pass Alpha\(\)",
        ),
        (
            lambda: nj.Projection("x", "h", nj.Dense(1, 1), port=3),
            TypeError,
            "port must be the name of a port, or None; got 3",
        ),
        (
            lambda: nj.Projection("x", "h", nj.Dense(1, 1), release=0.5),
            TypeError,
            "release must have init, step; got float 0.5",
        ),
        (
            lambda: nj.Network(
                {"a": nj.Layer(1, Bare(), ports={"b": nj.Alpha(1.0)}), "a.b": nj.Layer(1, Bare())},
                {},
            ),
            ValueError,
            "layer 'a.b' must have another name, as port 'b' of layer 'a' goes by it",
        ),
    ],
)
def test_refuses_ports_that_do_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_step_by_hand_wants_the_inputs_that_it_reads_itself():
    net = nj.Network(
        {"h": nj.Layer(1, Bare())}, {"x": nj.Projection("x", "h", nj.Dense(1, 1), delay=2)}
    )
    weights = net.init_weights(jax.random.key(0))
    with pytest.raises(ValueError, match="inputs must have 'x', which projection 'x' reads in eac"):
        net.step(weights, net.init(), {}, dt=1.0)
