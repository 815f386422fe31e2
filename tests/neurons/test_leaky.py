import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.signal
from hypothesis import assume, given
from hypothesis import strategies as st

from neurojax.neurons import surrogate
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator

BOTH = pytest.mark.parametrize("model", [LIF, ALIF])


@eqx.filter_jit
def simulate(model, current, dt, dtype=float):
    """`model.step` scanned from rest over a current [T, n]: all states, all outputs."""

    def step(state, i):
        state, y = model.step(state, i, dt=dt)
        return state, (state, y)

    state = model.init(current.shape[1:], dtype)
    return jax.lax.scan(step, state, current.astype(state.v.dtype))[1]


def spikes(model, current, dt):
    return np.asarray(simulate(model, current, dt)[1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dt", "steps"), [(0.1, 3000), (1.0, 300), (3.0, 100)])
@given(drive=st.floats(15.5, 200.0), t_ref=st.sampled_from([None, 0.0, 2.0, 4.7]))
def test_lif_fires_at_the_intervals_of_the_closed_form(dt, steps, drive, t_ref):
    # eq. 1.5 solved for v = v_th, from v_rest first and from v_reset afterwards
    first = 10.0 * math.log(drive / (drive - 15.0)) / dt
    again = 10.0 * math.log((drive + 5.0) / (drive - 15.0)) / dt
    assume(all(abs(x - round(x)) > 1e-9 for x in (first, again)))
    held = 0 if t_ref is None else math.ceil(t_ref / dt)
    expected = np.arange(math.ceil(first), steps + 1, held + math.ceil(again))
    lif = LIF(tau_mem=10.0, r_mem=2.0, v_th=-50.0, v_rest=-65.0, v_reset=-70.0, t_ref=t_ref)
    z = spikes(lif, jnp.full((steps, 1), drive / 2), dt)
    np.testing.assert_array_equal(1 + np.flatnonzero(z), expected)


@pytest.mark.usefixtures("x64")
@BOTH
def test_potential_below_threshold_is_exact_for_a_current_held_over_dt(model):
    current = np.random.default_rng(0).normal(size=(200, 3))
    tau = np.array([5.0, 20.0, 300.0])
    neuron = model(tau_mem=tau, r_mem=3.0, v_rest=-65.0, v_th=0.0, v_reset=-70.0)
    v = simulate(neuron, jnp.asarray(current), 0.5)[0].v
    for n in range(3):
        alpha = math.exp(-0.5 / tau[n])
        expected = scipy.signal.lfilter([3 * (1 - alpha)], [1, -alpha], current[:, n]) - 65
        np.testing.assert_allclose(v[:, n], expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("model", [LIF(v_th=9.0), ALIF(v_th=9.0), LeakyIntegrator()])
def test_error_for_a_changing_current_is_of_second_order(model):
    def error(steps):
        middle = (np.arange(steps) + 0.5) * 40.0 / steps
        v = simulate(model, jnp.sin(0.3 * jnp.asarray(middle))[:, None], 40.0 / steps)[0].v[-1, 0]
        w = 0.3 * 20.0  # 20 dv/dt = -v + sin(0.3 t) from v = 0, at t = 40
        exact = math.sin(12.0) - w * math.cos(12.0) + w * math.exp(-2.0)
        return abs(float(v) - exact / (1 + w * w))

    assert math.log2(error(200) / error(400)) == pytest.approx(2.0, abs=0.01)


def alif_loop(current, dt, *, tau_mem, tau_adapt, beta_adapt, v_rest, v_reset, held, hard):
    """Written from the equations, one neuron and one step at a time."""
    z_all, v_all, theta_all = (np.zeros_like(current) for _ in range(3))
    for n in range(current.shape[1]):
        v, z, a, left = v_rest, 0, 0.0, 0
        for t in range(current.shape[0]):
            a = math.exp(-dt / tau_adapt) * a + z
            left = held if z else max(left - 1, 0)
            if z:
                v = v_reset if hard else v - (1.0 - v_reset)
            if not left:
                alpha = math.exp(-dt / tau_mem)
                v = v_rest + alpha * (v - v_rest) + (1 - alpha) * current[t, n]
            theta = 1.0 + beta_adapt * a
            z = int(v >= theta and not left)
            z_all[t, n], v_all[t, n], theta_all[t, n] = z, v, theta
    return z_all, v_all, theta_all


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reset", ["hard", "subtract"])
@pytest.mark.parametrize("t_ref", [None, 2.5])
@pytest.mark.parametrize("beta_adapt", [0.0, 0.7])
def test_equals_a_loop_over_neurons_and_steps(reset, t_ref, beta_adapt):
    current = np.random.default_rng(1).uniform(0, 6, (300, 4))
    p = {"tau_mem": 12.0, "v_rest": -0.2, "v_reset": -0.3}
    alif = ALIF(**p, tau_adapt=40.0, beta_adapt=beta_adapt, t_ref=t_ref, reset=reset)
    held = 0 if t_ref is None else 3
    adapt = {"tau_adapt": 40.0, "beta_adapt": beta_adapt}
    z, v, theta = alif_loop(current, 1.0, **p, **adapt, held=held, hard=reset == "hard")
    state, y = simulate(alif, jnp.asarray(current), 1.0)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_allclose(state.v, v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(jax.vmap(alif.threshold)(state), theta, rtol=1e-12)
    assert z.sum(0).min() >= 10
    if beta_adapt == 0.0:  # without adaptation it is the plain neuron
        np.testing.assert_array_equal(spikes(LIF(**p, t_ref=t_ref, reset=reset), current, 1.0), z)


def test_adaptation_lengthens_the_intervals_to_a_steady_one():
    z = spikes(ALIF(tau_adapt=100.0, beta_adapt=0.2), jnp.full((2000, 1), 3.0), 1.0)
    intervals = np.diff(np.flatnonzero(z))
    assert np.all(np.diff(intervals[:4]) > 0)
    assert np.ptp(intervals[-5:]) <= 1


@BOTH
@pytest.mark.parametrize(
    ("t_ref", "dt", "held"),
    [(0.0, 1.0, 0), (0.3, 0.1, 3), (0.15, 0.01, 15), (0.25, 0.1, 3), (2.0, 1.0, 2), (5, 2.0, 3)],
)
def test_refractory_time_is_whole_steps_rounded_up(model, t_ref, dt, held):
    state, z = simulate(model(t_ref=t_ref, v_reset=-0.5), jnp.full((50, 1), 1e6), dt)
    np.testing.assert_array_equal(np.flatnonzero(z), np.arange(0, 50, held + 1))
    silent = np.asarray(z) == 0
    np.testing.assert_array_equal(np.asarray(state.v)[silent], -0.5)
    np.testing.assert_array_equal(np.asarray(state.refractory)[silent] > 0, True)


E = np.array([0.0, -80.0])  # mV, reversal potentials of excitation and inhibition


@eqx.filter_jit
def driven(model, g, dt, dtype=float):
    """Potentials and spikes [T, n] under conductances g [T, 2, n] (uS) that reverse at `E`."""

    def step(state, g):
        state, z = model.step(state, jnp.asarray(E, g.dtype) @ g, dt=dt, conductance=g.sum(0))
        return state, (state.v, z)

    return jax.lax.scan(step, model.init(g.shape[2:], dtype), jnp.asarray(g, dtype))[1]


@pytest.mark.usefixtures("x64")
@BOTH
def test_conductances_held_over_a_step_are_those_of_the_closed_form(model):
    g = np.random.default_rng(0).uniform(0.0, 0.05, (50, 2, 3))
    tau, r = np.array([5.0, 20.0, 300.0]), 100.0
    v = driven(model(tau_mem=tau, r_mem=r, v_rest=-65.0, v_th=10.0, v_reset=-70.0), g, 0.5)[0]
    expected, u = np.empty((50, 3)), np.full(3, -65.0)
    for t in range(50):  # C dv/dt = -g_total (v - v_inf), with C = tau / r
        g_total = 1 / r + g[t].sum(0)
        v_inf = (-65.0 / r + E @ g[t]) / g_total
        u = v_inf + (u - v_inf) * np.exp(-0.5 * g_total * r / tau)
        expected[t] = u
    np.testing.assert_allclose(v, expected, rtol=1e-12)
    assert np.ptp(expected) > 30


@pytest.mark.usefixtures("x64")
def test_conductances_that_decay_are_of_second_order_where_taken_at_mid_step():
    neuron = LIF(r_mem=100.0, v_rest=-60.0, v_th=10.0, v_reset=-70.0)
    g = lambda t: np.array([0.03 * np.exp(-t / 5), 0.04 * np.exp(-t / 10)])  # noqa: E731
    slope = lambda t, v: (-(v + 60) + 100 * ((E - v) @ g(t))) / 20  # noqa: E731
    exact = scipy.integrate.solve_ivp(slope, (0, 10), [-60.0], rtol=1e-11, atol=1e-11).y[0, -1]

    def error(steps):
        middle = (np.arange(steps) + 0.5) * 10 / steps
        return float(driven(neuron, g(middle).T[:, :, None], 10 / steps)[0][-1, 0]) - exact

    assert math.log2(error(20) / error(40)) == pytest.approx(2.0, abs=0.02)


@BOTH
def test_no_conductance_is_none_and_another_neurons_is_not_felt(model):
    neuron = model(v_rest=-65.0, v_th=-50.0, v_reset=-60.0, t_ref=2.0, r_mem=10.0)
    current = jnp.asarray(np.random.default_rng(0).uniform(1, 5, (100, 3)), jnp.float32)

    @jax.jit
    def run(g):
        step = lambda s, i: neuron.step(s, i, dt=0.5, conductance=g)  # noqa: E731
        return jax.lax.scan(step, neuron.init((3,)), current)

    plain, zero, one = run(None), run(jnp.zeros(3)), run(jnp.array([0.0, 0.1, 0.0]))
    for a, b, c in zip(*map(jax.tree.leaves, (plain, zero, one)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[..., ::2], c[..., ::2])
    assert np.all(plain[1].sum(0) >= 2)
    assert plain[0].v[1] != one[0].v[1]


@pytest.mark.usefixtures("untyped")
@BOTH
def test_refuses_a_conductance_that_is_not_one_number_a_neuron(model):
    neuron = model()
    with pytest.raises(ValueError, match=r"conductance must have shape \(3,\).*got \(1,\)"):
        neuron.step(neuron.init((3,)), jnp.zeros(3), dt=1.0, conductance=jnp.ones(1))


@BOTH
@pytest.mark.parametrize("reset", ["hard", "subtract"])
def test_potential_is_what_the_next_step_starts_from(model, reset):
    neuron = model(v_th=1.0, v_reset=-0.5, reset=reset, t_ref=1.0)
    state, z = neuron.step(neuron.init((2,)), jnp.array([4.0, 40.0]), dt=1.0)
    held, _ = neuron.step(state, jnp.zeros(2), dt=1.0)  # v of the one that is refractory stays
    np.testing.assert_array_equal(z, [0, 1])
    np.testing.assert_array_equal(neuron.potential(state)[0], state.v[0])
    np.testing.assert_array_equal(neuron.potential(state)[1], held.v[1])


@BOTH
def test_without_refractory_time_there_is_no_refractory_state(model):
    assert model().init((3,)).refractory is None


@BOTH
def test_reset_by_subtraction_keeps_what_went_over_the_threshold(model):
    neuron = model(v_th=1.0, v_reset=-0.5, reset="subtract", r_mem=1.0)
    current = jnp.zeros((2, 1)).at[0].set(30.0)
    v = np.asarray(simulate(neuron, current, 1.0)[0].v)[:, 0]
    assert v[0] > 1.0
    np.testing.assert_allclose(v[1], math.exp(-1 / 20) * (v[0] - 1.5), rtol=1e-6)


@BOTH
def test_threshold_is_reached_at_equality(model):
    neuron = model(v_th=0.5, v_rest=0.5)  # at rest on its threshold
    assert spikes(neuron, jnp.zeros((1, 2)), 1.0).sum() == 2


@BOTH
def test_threshold_tells_who_spikes(model):
    neuron = model(v_th=jnp.linspace(0.5, 2.0, 5))
    state, z = simulate(neuron, jnp.full((200, 5), 3.0), 1.0)
    theta = jax.vmap(neuron.threshold)(state)
    assert theta.shape == state.v.shape
    np.testing.assert_array_equal(z, state.v >= theta)


@pytest.mark.parametrize("model", [LIF, ALIF, LeakyIntegrator])
def test_decay_is_what_is_left_of_a_potential(model):
    tau = jnp.array([5.0, 20.0])
    np.testing.assert_allclose(model(tau_mem=tau).decay(0.5), np.exp(-0.5 / np.asarray(tau)))


@BOTH
def test_batch_over_parameters_equals_each_alone(model):
    current = jnp.full((300, 3), 2.0)
    taus = jnp.array([5.0, 10.0, 20.0])
    state, z = eqx.filter_vmap(lambda tau: simulate(model(tau_mem=tau), current, 1.0))(taus)
    for k, tau in enumerate(taus):
        np.testing.assert_array_equal(z[k], spikes(model(tau_mem=tau), current, 1.0))
    assert len({float(v[0, 0]) for v in state.v}) == 3
    assert np.all(z.sum((1, 2)) > 0)


@pytest.mark.parametrize("model", [LIF(v_th=50.0), ALIF(v_th=50.0), LeakyIntegrator()])
def test_bfloat16_state_stays_within_its_rounding(model):
    current = jnp.asarray(np.random.default_rng(0).uniform(0, 2, (300, 8)), jnp.bfloat16)
    rough, fine = (
        simulate(model, current, 1.0, jnp.bfloat16)[0].v,
        simulate(model, current, 1.0)[0].v,
    )
    # v < 2 is rounded by 2^-8 at most in each step, and such errors decay by alpha a step
    bound = 2.0**-8 / (1 - math.exp(-1 / 20))
    assert np.abs(np.asarray(rough, np.float32) - np.asarray(fine)).max() <= bound


@pytest.mark.usefixtures("x64")
@BOTH
def test_parameters_follow_the_state_under_x64(model):
    neuron = model(tau_mem=np.linspace(5.0, 20.0, 4))
    assert neuron.tau_mem.dtype == jnp.float64
    current = jnp.asarray(np.random.default_rng(0).uniform(0, 4, (50, 4)))
    for dtype in (jnp.float32, jnp.float64):
        state, z = simulate(neuron, current, 1.0, dtype)
        assert state.v.dtype == z.dtype == neuron.threshold(neuron.init((4,), dtype)).dtype == dtype


@pytest.mark.parametrize("model", [LIF, functools.partial(ALIF, beta_adapt=0.1)])
def test_gradient_by_a_surrogate_finds_a_rate_through_resets(model):
    neuron = model(r_mem=3.0, spike=surrogate.fast_sigmoid(1.0))

    def loss(r_mem):
        set_to = eqx.tree_at(lambda m: m.r_mem, neuron, r_mem)
        return jnp.square(simulate(set_to, jnp.full((50, 1), 2.0), 1.0)[1].sum() - 5.0)

    r = jnp.float32(3.0)
    descend = jax.jit(lambda r: r - 0.01 * jnp.clip(jax.grad(loss)(r), -5.0, 5.0))
    for _ in range(60):
        r = descend(r)
    assert loss(jnp.float32(3.0)) > 4.0
    assert loss(r) <= 1.0  # within one spike of the five asked for


@pytest.mark.usefixtures("x64")
def test_gradient_below_threshold_is_that_of_the_solution():
    lif = LIF(v_th=9.0, spike=surrogate.boxcar(0.1))

    def v_end(tau):
        neuron = eqx.tree_at(lambda m: m.tau_mem, lif, tau)
        return simulate(neuron, jnp.ones((40, 1)), 0.5)[0].v[-1, 0]

    v, slope = jax.value_and_grad(v_end)(jnp.float64(13.0))
    np.testing.assert_allclose(v, 1 - math.exp(-20 / 13), rtol=1e-12)
    np.testing.assert_allclose(slope, -math.exp(-20 / 13) * 20 / 13**2, rtol=1e-12)


@BOTH
def test_default_neuron_refuses_a_gradient(model):
    with pytest.raises(TypeError, match="pass spike=surrogate.fast_sigmoid"):
        jax.grad(lambda i: simulate(model(), i, 1.0)[1].sum())(jnp.ones((5, 2)))


POSITIVE = {"tau_mem": "ms", "r_mem": "MOhm"}


@BOTH
@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("bad", [0.0, -5.0, math.nan, math.inf])
def test_refuses_what_is_not_finite_and_positive(model, name, bad):
    match = rf"{name} must be finite and > 0 {POSITIVE[name]}; got {bad} \(1 of 2\)"
    with pytest.raises(ValueError, match=match):
        model(**{name: jnp.array([20.0, bad])})


@pytest.mark.parametrize("name", ["v_th", "v_rest", "v_reset"])
def test_refuses_a_potential_that_is_not_finite(name):
    with pytest.raises(ValueError, match=rf"{name} must be finite, in mV; got nan"):
        LIF(**{name: math.nan})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"t_ref": -1.0}, r"t_ref must be finite and >= 0 ms; got -1.0"),
        ({"tau_adapt": 0.0}, r"tau_adapt must be finite and > 0 ms; got 0.0"),
        ({"beta_adapt": -0.1}, r"beta_adapt must be finite and >= 0 mV; got -0.1"),
        ({"tau_mem": "fast"}, r"tau_mem must be finite and > 0 ms; got 'fast'"),
        ({"v_reset": 1.0}, r"v_th must be above v_reset; got 1 and 1 mV"),
        ({"v_th": np.ones(2), "v_reset": np.zeros(3)}, r"v_th has shape \(2,\) and v_reset \(3,\)"),
        ({"reset": "soft"}, r"reset must be 'hard' or 'subtract'; got 'soft'"),
    ],
)
def test_refuses_what_makes_no_neuron(arguments, match):
    with pytest.raises(Exception, match=match) as refusal:
        ALIF(**arguments)
    assert isinstance(refusal.value, ValueError)


def test_refuses_a_traced_parameter_when_it_runs():
    build = eqx.filter_jit(lambda tau: LIF(tau_mem=tau).tau_mem)
    assert build(jnp.float32(3.0)) == 3.0
    with pytest.raises(Exception, match="tau_mem must be finite and > 0 ms"):
        build(jnp.float32(-3.0))


@pytest.mark.parametrize("model", [LIF, ALIF, LeakyIntegrator])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_refuses_a_parameter_that_does_not_fit_the_population(model, n):
    match = rf"r_mem of .* must be one number or one per neuron, of shape \(3,\); got .*\({n},\)"
    with pytest.raises(ValueError, match=match):
        model(r_mem=jnp.ones(n)).init((3,))


def test_takes_whole_numbers_and_lists():
    lif = LIF(tau_mem=20, r_mem=[1, 2])
    assert lif.tau_mem.dtype == lif.r_mem.dtype == jnp.float32
    assert not lif.tau_mem.weak_type
