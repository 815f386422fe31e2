"""QIF, EIF, AdEx: closed forms, SciPy's solvers, published firing patterns."""

import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from neurojax.neurons import surrogate
from neurojax.neurons.nonlinear import EIF, QIF, AdEx

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "neurons.json").read_text())
NORMAL = {"tau_mem": 10.0, "a_0": 1.0, "v_rest": 0.0, "v_th": 0.0, "v_reset": -10.0}
ALL = pytest.mark.parametrize("model", [QIF, EIF, AdEx])


@eqx.filter_jit
def simulate(model, current, dt, dtype="float64", g=None, steps=None):
    """States and spikes from rest over a current [T, n], or one held for `steps`."""
    held = steps is not None

    def step(state, i):
        state, z = model.step(state, current if held else i, dt=dt, conductance=g)
        return state, (state, z)

    state = model.init(current.shape[-1:], dtype)
    current = jnp.asarray(current, dtype)
    return jax.lax.scan(step, state, None if held else current, length=steps)[1]


def spike_times(model, current, dt, steps, dtype="float64"):
    z = np.asarray(simulate(model, jnp.asarray(current), dt, dtype, steps=steps)[1])
    return [dt * (1 + np.flatnonzero(z[:, k])) for k in range(z.shape[1])]


@pytest.mark.usefixtures("x64")
def test_qif_is_exact_for_currents_of_both_signs_and_a_conductance_held_over_dt():
    qif = QIF(tau_mem=10.0, a_0=0.2, v_rest=-60.0, v_th=-50.0, r_mem=20.0, v_peak=1e3)
    drive = np.array([[-3.0, -0.2, 0.25, 0.25, 0.6], [2.0, 0.1, -4.0, 0.25, 0.2]])
    g = np.array([0.0, 0.1, 0.02, 0.0, 0.05])  # (0.25 nA, 0): the two fixed points are one
    drive = drive - 55 * g
    exact, v = [], np.full(5, -60.0)
    for i in drive:
        slope = lambda _, v, i=i: (0.2 * (v + 60) * (v + 50) + 20 * (i - g * v)) / 10  # noqa: E731
        v = scipy.integrate.solve_ivp(slope, (0, 3.0), v, "DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
        exact.append(v)
    v = simulate(qif, jnp.asarray(drive), 3.0, g=jnp.asarray(g))[0].v
    np.testing.assert_allclose(v, exact, rtol=1e-11)
    fine = simulate(qif, jnp.asarray(np.repeat(drive, 30, 0)), 0.1, g=jnp.asarray(g))[0].v
    np.testing.assert_allclose(fine[29::30], v, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("drive", [4.0, 0.01, 100.0])
def test_qif_fires_at_the_period_of_the_closed_form(drive):
    s, dt = math.sqrt(drive), 0.05
    period = 10 / s * (math.atan(30 / s) - math.atan(-10 / s))
    first = 10 / s * math.atan(30 / s)
    if drive == 4.0:
        assert period == pytest.approx(14.39, abs=0.01)
    steps = int(3.5 * period / dt)
    (times,) = spike_times(QIF(**NORMAL, v_peak=30.0), [drive], dt, steps)
    expected = np.cumsum([math.ceil(first / dt), *[math.ceil(period / dt)] * 3]) * dt
    np.testing.assert_allclose(times, expected[: len(times)], rtol=1e-12)
    assert len(times) >= 3


@pytest.mark.usefixtures("x64")
def test_qif_fires_once_a_step_however_long_the_step():
    drive = jnp.array([4.0, 1e6, -1.0, -1.0])  # sqrt(I) dt / tau: up to 100 half-turns
    state = QIF(**NORMAL, v_peak=30.0).init((4,), "float64")
    state = state._replace(v=jnp.array([0.0, 0.0, 1.5, 0.5]))  # above and below v = 1, unstable
    state, z = eqx.filter_jit(QIF(**NORMAL, v_peak=30.0).step)(state, drive, dt=20.0)
    np.testing.assert_array_equal(z, [1, 1, 1, 0])
    np.testing.assert_array_equal(state.v[:3], 30.0)


@pytest.mark.usefixtures("x64")
def test_qif_has_a_derivative_where_its_two_solutions_meet():
    qif = QIF(**NORMAL, v_peak=30.0, spike=surrogate.boxcar())
    v = jax.jit(lambda i: qif.step(start, i[None], dt=1.0)[0].v[0])
    start = qif.init((1,), "float64")._replace(v=jnp.ones(1))
    # y = 1 / (1 - .1) at I = 0; dy/dI = (h - h^2 + h^3 / 3) / (1 - h)^2 at h = .1, by series
    np.testing.assert_allclose(v(jnp.float64(0.0)), 1 / 0.9, rtol=1e-14)
    h, e = 0.1, 1e-4
    q = lambda e: math.sqrt(abs(e))  # noqa: E731
    above = q(e) * math.tan(math.atan(1 / q(e)) + q(e) * h)
    below = (1 - q(e) * math.tanh(h * q(e))) / (1 - math.tanh(h * q(e)) / q(e))
    slope = jax.grad(v)(jnp.float64(0.0))
    np.testing.assert_allclose(slope, (above - below) / (2 * e), rtol=1e-6)


def naud(**options):
    """The regimes of Naud et al. (2008) as one population, and their currents (nA)."""
    c, g_l, e_l, a, tau_w, b, v_r, i = np.array([row[:8] for row in ORACLE["AdEx"]], float).T
    cell = {"tau_mem": c / g_l, "r_mem": 1e3 / g_l, "v_rest": e_l, "a": a / 1e3, "b": b / 1e3}
    cell |= {"v_th": -50.0, "delta_T": 2.0, "v_peak": 0.0, "v_reset": v_r, "tau_w": tau_w}
    return AdEx(**cell, **options), i / 1e3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dt", "substeps", "worst"), [(0.2, 1, 0.03), (0.1, 1, 0.02), (0.1, 4, 0.01)]
)
def test_adex_has_the_published_firing_patterns(dt, substeps, worst):
    """Spikes are rounded up to the grid; `late` tells by how much."""
    neuron, i = naud(substeps=substeps)
    state, z = simulate(neuron, jnp.asarray(i), dt, steps=int(600 / dt))
    for k, (*_, n, first) in enumerate(ORACLE["AdEx"]):
        steps = np.flatnonzero(z[:, k])
        times = dt * (1 + steps)
        assert len(times) == n
        np.testing.assert_allclose(times[:5] - state.late[steps[:5], k], first, atol=worst)
        assert np.all(times[:5] - first > -worst)
        assert np.all(times[:5] - first < dt + worst)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("substeps", [3, 20])
def test_substeps_are_as_so_many_steps_where_nothing_fires(substeps):
    drive = jnp.array([0.3, 0.6])
    parts, _ = simulate(AdEx(a=0.02), drive, 2.0 / substeps, steps=5 * substeps)
    whole, _ = simulate(AdEx(a=0.02, substeps=substeps), drive, 2.0, steps=5)
    np.testing.assert_allclose(whole.v, parts.v[substeps - 1 :: substeps], rtol=1e-13)
    np.testing.assert_allclose(whole.w, parts.w[substeps - 1 :: substeps], rtol=1e-11)


@pytest.mark.usefixtures("x64")
def test_adex_is_of_second_order_below_threshold():
    neuron = AdEx(a=0.02)
    g, i = 0.004, 0.6

    def slope(_, y):
        v, w = y
        upswing = 2 * math.exp((v + 50.4) / 2)
        lost = -(v + 70.6) + upswing + 1000 / 30 * (i + g * -75 - g * v - w)
        return [lost / (281 / 30), (0.02 * (v + 70.6) - w) / 144]

    exact = scipy.integrate.solve_ivp(slope, (0, 24), [-70.6, 0], rtol=1e-11, atol=1e-11).y[:, -1]

    def error(steps):
        current = jnp.full((1,), i + g * -75)
        state = simulate(neuron, current, 24 / steps, g=jnp.full(1, g), steps=steps)[0]
        return float(state.v[-1, 0]) - exact[0]

    assert math.log2(error(200) / error(400)) == pytest.approx(2.0, abs=0.05)
    assert abs(error(400)) < 1e-3


@pytest.mark.usefixtures("x64")
def test_adex_without_adaptation_is_eif_and_none_is_no_conductance():
    shared = {"tau_mem": 10.0, "v_rest": -65.0, "v_th": -59.9, "delta_T": 3.48, "v_reset": -68.0}
    shared |= {"t_ref": 1.7, "r_mem": 1.0}
    i = jnp.array([12.0, 20.0, 60.0])
    plain = simulate(EIF(**shared), i, 0.1, steps=1000)
    adapted = simulate(AdEx(**shared, a=0.0, b=0.0), i, 0.1, steps=1000)
    none = simulate(EIF(**shared), i, 0.1, g=jnp.zeros(3), steps=1000)
    for x, y, z in zip(plain[0].v, adapted[0].v, none[0].v, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)
    assert np.all(plain[1].sum(0) >= 4)


@pytest.mark.usefixtures("x64")
def test_eif_fires_at_the_period_of_its_integral():
    eif, i = EIF(substeps=2), np.array([6.0, 10.0, 30.0])
    slope = lambda v, i: (-(v + 65) + 3.48 * np.exp((v + 59.9) / 3.48) + i) / 10  # noqa: E731
    period = [1.7 + scipy.integrate.quad(lambda v, i=i: 1 / slope(v, i), -68, 0)[0] for i in i]
    for times, expected in zip(spike_times(eif, i, 0.1, 4000), period, strict=True):
        # the time left of a step is made up for: of the grid only the ends remain
        assert np.ptp(times) / (len(times) - 1) == pytest.approx(
            expected, abs=0.1 / len(times) + 4e-3
        )


def test_float32_near_rheobase_fires_as_float64():
    """The current stands 0.05 mV above what it takes, at -60 mV: the passage takes 370 ms."""
    eif = EIF(t_ref=None)
    i = np.array([1.67, 1.72])  # rheobase is v_th - v_rest - delta_T = 1.62 mV
    single = spike_times(eif, i.astype("float32"), 0.05, 9_000, "float32")
    with jax.enable_x64(True):
        double = spike_times(eif, i, 0.05, 9_000)
    for one, two in zip(single, double, strict=True):
        assert len(one) == len(two) >= 1
        # I - rheobase, of terms near 60 mV, is rounded by 4e-6 of .05 mV: 4e-5 of T, and a step
        np.testing.assert_allclose(one, two, rtol=4e-5, atol=0.05)


@pytest.mark.parametrize("model", [QIF(), AdEx(substeps=2, t_ref=1.0)])
def test_a_bfloat16_state_spikes_as_a_float32_one(model):
    drive = jnp.asarray([20.0, 60.0, 120.0]) / model.r_mem * (1.2 if model.r_mem > 1 else 0.7)
    drive = drive.astype("bfloat16").astype(float)
    rough, fine = (simulate(model, drive, 0.1, d, steps=2000) for d in ("bfloat16", "float32"))
    assert rough[0].v.dtype == "bfloat16"
    np.testing.assert_array_equal(rough[1].astype("float32"), fine[1])
    assert np.all(fine[1].sum(0) >= 3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("substeps", [1, 4])
def test_a_neuron_is_held_for_its_refractory_time_exactly(substeps):
    """Under a drive that fires at once, that is the period, whatever the grid."""
    eif = EIF(t_ref=1.73, substeps=substeps)
    (times,) = spike_times(eif, [1e9], 0.1, 1000)
    np.testing.assert_allclose(times, 0.1 * np.ceil((1e-6 + np.arange(58) * 1.73) / 0.1))
    state, _ = simulate(eif, jnp.array([1e9]), 0.1, steps=10)
    np.testing.assert_array_equal(state.v[1:10], -68.0)


@ALL
def test_potential_is_what_the_next_step_starts_from(model):
    neuron = model()
    state = neuron.init((2,))._replace(z=jnp.array([0.0, 1.0]), v=jnp.full(2, -55.0))
    np.testing.assert_array_equal(neuron.potential(state), [-55, neuron.v_reset])
    np.testing.assert_array_equal(neuron.threshold(state), neuron.v_th)


@ALL
def test_a_gradient_by_a_surrogate_is_finite_and_felt_in_the_spike_itself(model):
    neuron = model(spike=surrogate.fast_sigmoid(), r_mem=30.0)

    @jax.jit
    @jax.grad
    def slopes(i):
        step = lambda s, _: neuron.step(s, i, dt=0.5)  # noqa: E731
        return jax.lax.scan(step, neuron.init((5,)), length=60)[1].sum()

    slope = slopes(jnp.array([-1e3, 0.7, 2.0, 10.0, 1e3]))
    assert np.isfinite(slope).all()
    assert np.all(slope[2:4] > 0)
    assert slope[4] != 0


@ALL
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"tau_mem": 0.0}, "tau_mem must be finite and > 0 ms; got 0.0"),
        ({"r_mem": -1.0}, "r_mem must be finite and > 0 MOhm; got -1.0"),
        ({"v_peak": -80.0}, "v_peak must be above v_reset; got -80 and"),
        ({"v_rest": math.nan}, "v_rest must be finite, in mV; got nan"),
        ({"v_th": math.inf}, "v_th must be finite, in mV; got inf"),
    ],
)
def test_refuses_what_makes_no_neuron(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        model(**arguments)


@pytest.mark.parametrize(
    ("model", "arguments", "match"),
    [
        (QIF, {"a_0": 0.0}, "a_0 must be finite and > 0 1/mV; got 0.0"),
        (EIF, {"delta_T": 0.0}, "delta_T must be finite and > 0 mV; got 0.0"),
        (AdEx, {"delta_T": -2.0}, "delta_T must be finite and > 0 mV; got -2.0"),
        (AdEx, {"tau_w": 0.0}, "tau_w must be finite and > 0 ms; got 0.0"),
        (AdEx, {"a": math.nan}, "a must be finite, in uS; got nan"),
        (AdEx, {"b": math.inf}, "b must be finite, in nA; got inf"),
        (EIF, {"t_ref": -1.0}, "t_ref must be finite and >= 0 ms; got -1.0"),
        (AdEx, {"substeps": 0}, "substeps must be a whole number >= 1; got 0"),
        (EIF, {"substeps": 2.0}, "substeps must be a whole number >= 1; got 2.0"),
    ],
)
def test_refuses_parameters_of_its_own(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        model(**arguments)


@ALL
def test_refuses_a_parameter_that_does_not_fit_the_population(model):
    with pytest.raises(ValueError, match=r"v_peak of \w+ must be one number or one per neuron"):
        model(v_peak=jnp.ones(2)).init((3,))
