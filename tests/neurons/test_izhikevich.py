"""Izhikevich's neuron: published patterns, published spike times, programs written anew, SciPy."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from neurojax.neurons import surrogate
from neurojax.neurons.izhikevich import Izhikevich


def on(*spans):
    """1 within the spans of time, 0 elsewhere."""
    return lambda t: sum(((t > a) & (t < b)).astype(float) for a, b in spans)


# Figure 1 of Izhikevich (2004), by its program: a, b, c, d, v at start, dt (ms), end (ms), current.
PATTERNS = {
    "A": (0.02, 0.2, -65, 6, -70, 0.25, 100, lambda t: 14.0 * (t > 10)),
    "B": (0.02, 0.25, -65, 6, -64, 0.25, 200, lambda t: 0.5 * (t > 20)),
    "C": (0.02, 0.2, -50, 2, -70, 0.25, 220, lambda t: 15.0 * (t > 22)),
    "D": (0.02, 0.25, -55, 0.05, -64, 0.2, 200, lambda t: 0.6 * (t > 20)),
    "E": (0.02, 0.2, -55, 4, -70, 0.25, 160, lambda t: 10.0 * (t > 16)),
    "F": (0.01, 0.2, -65, 8, -70, 0.25, 85, lambda t: 30.0 * (t > 8.5)),
    "G": (0.02, -0.1, -55, 6, -60, 0.25, 300, lambda t: 0.075 * (t - 30) * (t > 30)),
    "H": (0.2, 0.26, -65, 0, -64, 0.25, 300, lambda t: -0.5 + 0.015 * (t - 30) * (t > 30)),
    "I": (0.02, 0.2, -65, 6, -70, 0.2, 100, lambda t: 7.04 * on((10, 13))(t)),
    "J": (0.05, 0.26, -60, 0, -62, 0.25, 200, lambda t: 2 * on((20, 25))(t)),
    "K": (0.1, 0.26, -60, -1, -62, 0.25, 400,
          lambda t: 0.65 * on((40, 44), (60, 64), (280, 284), (320, 324))(t)),
    "L": (0.02, -0.1, -55, 6, -60, 0.25, 100,
          lambda t: 9 * on((9.09, 11.09), (14.09, 16.09), (70, 72), (80, 82))(t)),
    "M": (0.03, 0.25, -60, 4, -64, 0.2, 200, lambda t: -15 * on((20, 25))(t)),
    "N": (0.03, 0.25, -52, 0, -64, 0.2, 200, lambda t: -15 * on((20, 25))(t)),
    "O": (0.03, 0.25, -60, 4, -64, 0.25, 100,
          lambda t: on((10, 15), (80, 85))(t) - 6 * on((70, 75))(t)),
    "P": (0.1, 0.26, -60, 0, -61, 0.25, 300, lambda t: 0.24 + on((37.5, 42.5), (216, 221))(t)),
    "Q": (1, 0.2, -60, -21, -70, 0.1, 50, lambda t: 20.0 * (np.abs(t - 10) < 1)),
    "S": (-0.02, -1, -60, 8, -63.8, 0.5, 350, lambda t: 80 - 5 * on((50, 250))(t)),
    "T": (-0.026, -1, -45, -2, -63.8, 0.5, 350, lambda t: 80 - 5 * on((50, 250))(t)),
}  # fmt: skip
SPIKES = {
    "A": 5, "B": 1, "C": 28, "D": 6, "E": 6, "F": 6, "G": 10, "H": 14, "I": 1, "J": 1, "K": 1,
    "L": 1, "M": 1, "N": 7, "O": 1, "P": 5, "Q": 1, "S": 3, "T": 12,
}  # fmt: skip


def neurons(names, **options):
    """Those of the patterns as one population."""
    a, b, c, d, v = np.array([PATTERNS[k][:5] for k in names], float).T
    other = np.array([k in "GL" for k in names])
    form = {"linear": np.where(other, 4.1, 5.0), "constant": np.where(other, 108.0, 140.0)}
    return Izhikevich(a=a, b=b, c=c, d=d, v_init=v, **form, **options)


@eqx.filter_jit
def simulate(model, current, dt, state=None, g=None):
    state = model.init(current.shape[1:], current.dtype) if state is None else state
    step = lambda s, i: (lambda s, z: (s, (s, z)))(*model.step(s, i, dt=dt, conductance=g))  # noqa: E731
    return jax.lax.scan(step, state, current)[1]


def spike_times(names, dt, **options):
    """By pattern: times of the steps that fire, ms."""
    t = np.arange(0, max(PATTERNS[k][6] for k in names) + dt / 2, dt)
    current = np.stack([PATTERNS[k][7](t) for k in names], 1)
    z = np.asarray(simulate(neurons(names, **options), jnp.asarray(current), dt)[1])
    return {k: t[(z[:, i] > 0) & (t <= PATTERNS[k][6] + dt / 2)] for i, k in enumerate(names)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dt", [0.1, 0.2, 0.25, 0.5])
def test_patterns_are_those_of_the_figure(dt):
    names = [k for k in PATTERNS if PATTERNS[k][5] == dt]
    times = spike_times(names, dt)
    assert {k: len(times[k]) for k in names} == {k: SPIKES[k] for k in names}
    if "A" in names:  # as published beside the figure, to the step
        np.testing.assert_allclose(times["A"], [13, 17, 31.25, 59, 86.75], atol=0.25)
    if "I" in names:
        np.testing.assert_allclose(times["I"], [26.6])
    if "K" in names:  # a resonator answers to the second pair alone, an integrator to the first
        assert times["K"][0] > 320
        assert times["L"][0] < 70


@pytest.mark.usefixtures("x64")
def test_accommodation_is_that_of_the_figure():
    """Whose u has no decay: du/dt = a b (v + 65), the limit of a small a."""
    t, s = np.arange(0, 400.25, 0.5), 65 * 2e4
    current = np.where(t < 200, t / 25, np.where((t >= 300) & (t < 312.5), (t - 300) / 12.5 * 4, 0))
    neuron = Izhikevich(a=1e-6, b=2e4, c=-55.0, d=4.0, v_init=-65.0)
    start = neuron.init((1,), "float64")._replace(u=jnp.array([-16.0 - s]))
    z = simulate(neuron, jnp.asarray(current - s)[:, None], 0.5, start)[1]
    assert z.sum() == 1
    assert t[np.argmax(z)] > 300  # the steep ramp, though it is the lower one


@pytest.mark.usefixtures("x64")
def test_solved_accurately_some_patterns_are_others():
    times = spike_times("DHNPQI", 0.01, scheme="rk4")
    assert {k: len(t) for k, t in times.items()} == {
        "D": 8,
        "H": 17,
        "N": 14,
        "P": 7,
        "Q": 7,
        "I": 1,
    }
    np.testing.assert_allclose(times["I"], [16.7], atol=0.1)


@pytest.mark.usefixtures("x64")
def test_2003_is_the_program_of_its_network_for_each_neuron():
    """Neurons of its table 1 under noise, one step of its program after another.

    Of 150, in which rounding grows from 1e-14 to 1e-7 mV: later all is chaos.
    """
    a, b = np.array([0.02, 0.02, 0.1, 0.02, 0.02]), np.array([0.2, 0.2, 0.2, 0.25, 0.2])
    c, d = np.array([-65.0, -50.0, -65.0, -65.0, -55.0]), np.array([8.0, 2.0, 2.0, 0.05, 4.0])
    current = 5 + 5 * np.random.default_rng(0).normal(size=(150, 5))
    v, u, fired = np.full(5, -65.0), b * -65.0, np.zeros((151, 5), bool)
    for t, i in enumerate(current):
        fired[t] = v >= 30
        v, u = np.where(fired[t], c, v), np.where(fired[t], u + d, u)
        v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + i)
        v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + i)
        u = u + a * (b * v - u)
    z = simulate(Izhikevich(a, b, c, d, scheme="2003"), jnp.asarray(current), 1.0)[1]
    np.testing.assert_array_equal(z[:-1], fired[1:150])
    assert np.all(fired.sum(0) >= 2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("scheme", "order"), [("2003", 1), ("2004", 1), ("rk4", 4)])
def test_schemes_are_of_their_order_below_the_peak(scheme, order):
    neuron = Izhikevich(scheme=scheme, v_init=-60.0)
    slope = lambda _, y: [  # noqa: E731
        0.04 * y[0] ** 2 + 5 * y[0] + 140 - y[1] + 2.0 + 0.1 * (-70 - y[0]),
        0.02 * (0.2 * y[0] - y[1]),
    ]
    exact = scipy.integrate.solve_ivp(slope, (0, 8), [-60, -12], rtol=1e-12, atol=1e-12).y[0, -1]

    def error(steps):
        current = jnp.full((steps, 1), 2.0 - 7.0)
        return float(simulate(neuron, current, 8 / steps, g=jnp.full(1, 0.1))[0].v[-1, 0]) - exact

    assert math.log2(error(80) / error(160)) == pytest.approx(order, abs=0.15)


def test_a_strong_conductance_holds_at_its_reversal_potential():
    v = simulate(Izhikevich(), jnp.full((50, 1), -70e3), 0.5, g=jnp.full(1, 1e3))[0].v
    np.testing.assert_allclose(v[10:], -70, atol=0.1)


@pytest.mark.parametrize("scheme", ["2003", "2004", "rk4"])
def test_states_stay_finite_whatever_the_drive_and_gradients_where_neurons_fire(scheme):
    neuron = Izhikevich(a=[0.02, 0.02, 1.0, 0.02], scheme=scheme, spike=surrogate.fast_sigmoid())

    @jax.jit
    def run(i):
        step = lambda s, _: (lambda s, z: (s, (s.v, s.u, z)))(*neuron.step(s, i, dt=0.5))  # noqa: E731
        return jax.lax.scan(step, neuron.init((4,)), length=100)[1]

    v, u, z = run(jnp.array([1e3, -1e3, -1e3, 10.0]))
    assert np.isfinite(v).all()
    assert np.isfinite(u).all()
    assert z[:, 0].sum() > 10
    if scheme != "2003":
        slope = jax.jit(jax.grad(lambda i: run(i)[2].sum()))(jnp.array([30.0, 10.0, 5.0, 0.0]))
        assert np.isfinite(slope).all()
        assert np.any(slope != 0)


def test_potential_is_what_the_next_step_starts_from():
    state = Izhikevich().init((2,))._replace(z=jnp.array([0.0, 1.0]), v=jnp.full(2, 30.0))
    np.testing.assert_array_equal(Izhikevich().potential(state), [30, -65])
    np.testing.assert_array_equal(Izhikevich().threshold(state), 30)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"a": math.nan}, "a must be finite, in 1/ms; got nan"),
        ({"b": math.inf}, "b must be finite, in nA/mV; got inf"),
        ({"c": 30.0}, "v_peak must be above c; got 30 and 30 mV"),
        ({"d": math.nan}, "d must be finite, in nA; got nan"),
        ({"linear": 0.0}, "linear must be finite and > 0 1/ms; got 0.0"),
        ({"constant": math.nan}, "constant must be finite, in mV/ms; got nan"),
        ({"v_init": math.nan}, "v_init must be finite, in mV; got nan"),
        ({"scheme": "euler"}, "scheme must be '2003' or '2004' or 'rk4'; got 'euler'"),
    ],
)
def test_refuses_what_makes_no_neuron(arguments, match):
    with pytest.raises(ValueError, match=match):
        Izhikevich(**arguments)
