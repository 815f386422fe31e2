"""Perfect integrator, escape noise, resonate-and-fire and rate units, against closed forms."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from neurojax.neurons import surrogate
from neurojax.neurons.integrators import IF, EscapeLIF
from neurojax.neurons.rate import Logistic, Rate
from neurojax.neurons.resonator import ResonateAndFire


@eqx.filter_jit
def simulate(model, current, dt, g=None, dtype="float64", key=None):
    """States and outputs under a current [T, n]."""

    def step(state, x):
        i, t = x
        options = {} if key is None else {"key": jax.random.fold_in(key, t)}
        options |= {} if g is None else {"conductance": g}
        state, z = model.step(state, i, dt=dt, **options)
        return state, (state, z)

    state = model.init(current.shape[1:], dtype)
    return jax.lax.scan(step, state, (current, jnp.arange(len(current))))[1]


def test_a_perfect_integrator_loses_no_charge_in_a_hundred_thousand_steps():
    """In float32, of .001 of the threshold a step and less: rounded sums would be off by 1e-3."""
    drive = jnp.array([0.0123, 0.1, 0.00317])
    neuron = IF(c_mem=0.5, v_th=-50.0, v_reset=-60.0, reset="subtract")
    step = lambda s, _: neuron.step(s, drive, dt=0.1)  # noqa: E731
    z = jax.jit(lambda s: jax.lax.scan(step, s, length=100_000)[1].sum(0))(neuron.init((3,)))
    exact = np.asarray(drive, float) * 1e4 / (0.5 * 10)
    assert np.all(np.abs(z - np.floor(exact)) <= (exact % 1 < 1e-3) + 0)


@pytest.mark.usefixtures("x64")
def test_a_perfect_integrator_is_exact_under_a_conductance_and_held_while_refractory():
    neuron = IF(c_mem=0.5, v_th=1.0, v_reset=-0.2, t_ref=2.0)
    i, g = np.array([[0.3, -0.2, 40.0]] * 6), np.array([0.0, 0.2, 0.0])
    state, z = simulate(neuron, jnp.asarray(i), 1.0, jnp.asarray(g))
    t = np.arange(1, 7)
    np.testing.assert_allclose(state.v[:2, 0], -0.2 + 0.6 * t[:2], rtol=1e-12)  # at 1.0: rounding
    np.testing.assert_allclose(state.v[:, 1], -1 + 0.8 * np.exp(-0.4 * t), rtol=1e-12)
    np.testing.assert_array_equal(z[:, 2], [1, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(state.v[1:3, 2], -0.2)


def test_escape_noise_has_the_hazard_of_its_potential():
    """Held at rest, at three distances from v_th: intervals are geometric, at both dt."""
    v = np.array([0.0, -0.3, 0.4])
    neuron = EscapeLIF(v_rest=v, v_reset=v, v_th=0.0, delta_v=0.2, rate=50.0)
    for dt in (1.0, 0.25):
        z = simulate(neuron, jnp.zeros((8000, 3)), dt, dtype="float32", key=jax.random.key(0))[1]
        p = -np.expm1(-0.05 * np.exp(v / 0.2) * dt)
        np.testing.assert_array_less(np.abs(z.mean(0) - p), 4 * np.sqrt(p * (1 - p) / 8000))
        gaps = np.diff(np.flatnonzero(z[:, 0]))
        # chances of a gap below the median and beyond the ninth tenth
        for share in (0.5, 0.9):
            q = math.ceil(math.log(1 - share) / math.log(1 - p[0]))
            beyond = (1 - p[0]) ** q
            error = 4 * math.sqrt(beyond * (1 - beyond) / len(gaps))
            assert abs((gaps > q).mean() - beyond) < error


def test_escape_noise_rises_to_a_survivor_function_of_closed_form():
    """From reset under a step of current: S(t) = exp(-sum rho dt), at the ends of steps."""
    neuron = EscapeLIF(tau_mem=10.0, delta_v=0.3, rate=200.0)
    z = simulate(neuron, jnp.full((40, 4000), 1.0), 1.0, dtype="float32", key=jax.random.key(1))[1]
    first = np.where(z.any(0), np.argmax(z, 0), 40)
    rho = 0.2 * np.exp(-np.exp(-np.arange(1, 41) / 10) / 0.3)
    survive = np.exp(-np.cumsum(rho))
    found = np.array([(first > t).mean() for t in range(40)])
    assert np.abs(found - survive).max() < 1.95 / math.sqrt(4000)  # Kolmogorov, at 1e-3


def test_rare_escapes_are_as_rare_as_they_are(monkeypatch):
    """p = 3e-9, far below the 1.2e-7 that a float of 23 random bits can tell from 0."""
    bits = lambda key, shape, dtype: jnp.array([0, 11, 14, 2**31, 2**32 - 1], dtype)  # noqa: E731
    monkeypatch.setattr(jax.random, "bits", bits)
    neuron = EscapeLIF(v_th=0.0, rate=3e-6)
    z = neuron.step(neuron.init((5,)), jnp.zeros(5), dt=1.0, key=jax.random.key(0))[1]
    np.testing.assert_array_equal(z, [1, 1, 0, 0, 0])  # 3e-9 of 2^32 numbers are 12.9


def test_sharp_escape_is_the_leaky_neuron_and_a_surrogate_passes_gradients():
    neuron = EscapeLIF(delta_v=1e-4, rate=1e3, v_th=1.0, spike=surrogate.fast_sigmoid(), t_ref=2.0)
    i = jnp.array([0.9, 3.0])
    z = simulate(
        neuron, jnp.broadcast_to(i, (100, 2)), 1.0, dtype="float32", key=jax.random.key(0)
    )[1]
    period = math.ceil(-20 * math.log(1 - 1 / 3)) + 2
    assert z[:, 0].sum() == 0
    assert z[:, 1].sum() == 100 // period
    fires = lambda i: neuron.step(  # noqa: E731
        neuron.init((2,)), i, dt=1.0, key=jax.random.key(0)
    )[1].sum()
    assert jax.jit(jax.grad(fires))(i)[1] > 0


@pytest.mark.usefixtures("x64")
def test_a_resonator_is_exact_for_a_current_held_over_dt():
    b, w = np.array([-0.05, -0.2, -1e-6]), np.array([0.25, 0.0, 1e-6])
    neuron = ResonateAndFire(b=b, omega=w, c_mem=0.5, v_th=1e9)
    current = np.random.default_rng(0).normal(size=(60, 3))
    state = simulate(neuron, jnp.asarray(current), 1.5)[0]
    rate, u, expected = b + 1j * w, np.zeros(3, complex), []
    for i in current:
        u = np.exp(rate * 1.5) * u + i / 0.5 * np.expm1(rate * 1.5) / rate
        expected.append(u)
    expected = np.array(expected)
    np.testing.assert_allclose(state.x, expected.real, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state.v, expected.imag, rtol=1e-9, atol=1e-12)


def test_a_resonator_answers_to_pulses_a_period_apart_alone_and_restarts_at_i():
    neuron = ResonateAndFire(b=-0.02, omega=2 * math.pi / 20, v_th=1.0)
    current = np.zeros((800, 4))
    for k, gap in enumerate((0, 10, 20, 15)):  # ms: one pulse, half a period, one, three quarters
        current[10, k] += 8.0
        current[10 + 10 * gap, k] += 8.0 * (gap > 0)
    state, z = simulate(neuron, jnp.asarray(current), 0.1, dtype="float32")
    np.testing.assert_array_equal(z.sum(0) > 0, [False, False, True, False])
    t = int(np.argmax(z[:, 2]))
    rate = (-0.02 + 2j * math.pi / 20) * 0.1
    after = 1j * np.exp(rate * np.arange(1, 30))
    np.testing.assert_allclose(state.v[t + 1 : t + 30, 2], after.imag, atol=1e-5)
    at_spike = jax.tree.map(lambda x: x[t], state)
    np.testing.assert_allclose(neuron.potential(at_spike)[2], 1.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ceiling", [None, 0.8])
def test_a_rate_unit_is_exact_for_a_current_held_over_dt(ceiling):
    phi = Logistic(slope=1.3, theta=4.0)
    unit, current = Rate(tau=np.array([5.0, 20.0]), phi=phi, ceiling=ceiling), np.array([3.0, 8.0])
    r = simulate(unit, jnp.broadcast_to(jnp.asarray(current), (3, 2)), 4.0)[1]
    gain = 1 / (1 + np.exp(-1.3 * (current - 4))) - 1 / (1 + math.exp(1.3 * 4))
    k = np.inf if ceiling is None else ceiling
    slope = lambda _, r: (-r + gain * (1 if ceiling is None else k - r)) / np.array([5.0, 20.0])  # noqa: E731
    exact = scipy.integrate.solve_ivp(
        slope, (0, 12), [0, 0], t_eval=[4, 8, 12], rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(r, exact.y.T, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_two_populations_have_the_limit_cycle_of_wilson_and_cowan():
    """Their figure 11: by SciPy at 1e-10 its period is 49.959 ms, E from .10256 to .26966.

    Each hears the other's activity of the step before: .14 ms of period at dt .005, of first order.
    """
    s_e, s_i = Logistic(slope=1.3, theta=4.0), Logistic(slope=2.0, theta=3.7)
    top = [1 / (1 + math.exp(-1.3 * 4)), 1 / (1 + math.exp(-2 * 3.7))]
    e, i = Rate(tau=10.0, phi=s_e, ceiling=top[0]), Rate(tau=10.0, phi=s_i, ceiling=top[1])

    def step(state, _):
        (a, r_e), (b, r_i) = state
        to_e, to_i = 16 * r_e - 12 * r_i + 1.25, 15 * r_e - 3 * r_i
        return (e.step(a, to_e, dt=0.005), i.step(b, to_i, dt=0.005)), r_e

    zero = jnp.zeros(1)
    start = (e.init((1,)), zero), (i.init((1,)), zero)
    r = np.asarray(jax.jit(lambda s: jax.lax.scan(step, s, length=120_000)[1])(start))[60_000:, 0]
    middle = (r.max() + r.min()) / 2
    ups = np.flatnonzero((r[:-1] < middle) & (r[1:] >= middle))
    assert np.diff(ups)[-1] * 0.005 == pytest.approx(49.959, abs=0.17)
    np.testing.assert_allclose([r.min(), r.max()], [0.10256, 0.26966], atol=6e-4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: IF(c_mem=0.0), "c_mem must be finite and > 0 nF; got 0.0"),
        (lambda: IF(v_reset=2.0), "v_th must be above v_reset; got 1 and 2 mV"),
        (lambda: IF(reset="soft"), "reset must be 'hard' or 'subtract'; got 'soft'"),
        (lambda: IF(t_ref=-1.0), "t_ref must be finite and >= 0 ms; got -1.0"),
        (lambda: EscapeLIF(delta_v=0.0), "delta_v must be finite and > 0 mV; got 0.0"),
        (lambda: EscapeLIF(rate=-1.0), "rate must be finite and > 0 Hz; got -1.0"),
        (lambda: EscapeLIF(tau_mem=0.0), "tau_mem must be finite and > 0 ms; got 0.0"),
        (lambda: ResonateAndFire(b=0.0), "b must be finite and < 0 1/ms; got 0.0"),
        (lambda: ResonateAndFire(omega=-1.0), "omega must be finite and >= 0 rad/ms; got -1.0"),
        (lambda: ResonateAndFire(v_th=0.0), "v_th must be finite and > 0 mV; got 0.0"),
        (lambda: Rate(tau=0.0), "tau must be finite and > 0 ms; got 0.0"),
        (lambda: Rate(ceiling=-1.0), "ceiling must be finite and > 0; got -1.0"),
        (lambda: Logistic(slope=0.0), "slope must be finite and > 0 1/nA; got 0.0"),
        (lambda: Rate(tau=jnp.ones(2)).init((3,)), "tau of Rate must be one number or one per"),
        (lambda: IF(c_mem=jnp.ones(2)).init((3,)), "c_mem of IF must be one number or one per"),
    ],
)
def test_refuses_what_makes_no_neuron(make, match):
    with pytest.raises(ValueError, match=match):
        make()
    with pytest.raises(TypeError, match="phi must"):
        Rate(phi=3.0)
