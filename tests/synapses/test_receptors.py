import functools
import math

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize

from neurojax.layers import Layer
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.synapses.receptors import (
    Alpha,
    Conductance,
    DoubleExponential,
    Exponential,
    MagnesiumBlock,
)

BOTH = pytest.mark.parametrize("synapse", [Exponential, Alpha])
TAU_MEM = 20.0


def drive(synapse, arrivals, dt, tau_mem=TAU_MEM, dtype=float):
    """A synapse on a membrane without threshold: all potentials, all currents [T, n]."""
    neuron = LeakyIntegrator(tau_mem=tau_mem, r_mem=3.0)
    return _drive(synapse, neuron, arrivals, jnp.asarray(dt, float), dtype)


@eqx.filter_jit
def _drive(synapse, neuron, arrivals, dt, dtype):
    def step(states, x):
        syn, neu = states
        syn, current = synapse.step(syn, x, dt=dt, tau_mem=neuron.tau_mem)
        neu, _ = neuron.step(neu, current, dt=dt)
        return (syn, neu), (neu.v, syn.i)

    start = synapse.init(arrivals.shape[1:], dtype), neuron.init(arrivals.shape[1:], dtype)
    return jax.lax.scan(step, start, arrivals.astype(start[0].i.dtype))[1]


def matrix(synapse, tau_syn, tau_mem):
    """d/dt of (v, i) or (v, i, rise), and what an arrival of 1 nA adds."""
    a, b = 1 / tau_mem, 1 / tau_syn
    if synapse is Exponential:
        return np.array([[-a, 3 * a], [0, -b]]), np.array([0, 1.0])
    return np.array([[-a, 3 * a, 0], [0, -b, b], [0, 0, -b]]), np.array([0, 0, math.e])


def exact(synapse, tau_syn, tau_mem, arrivals, dt):
    """The linear system by its matrix exponential, arrivals added at the end of a step.

    In a rotated basis: for a triangular matrix SciPy itself takes the difference that cancels.
    """
    return by_expm(*matrix(synapse, tau_syn, tau_mem), arrivals, dt)


def by_expm(rates, jump, arrivals, dt):
    q = scipy.linalg.qr(np.random.default_rng(0).normal(size=rates.shape))[0]
    propagator, y, out = q.T @ scipy.linalg.expm(q @ rates @ q.T * dt) @ q, 0.0 * jump, []
    for x in arrivals:
        y = propagator @ y + jump * x
        out.append(y[:2])
    return np.transpose(out)


# equal to TAU_MEM, near it, across the ends of the series, and far away
TAUS = TAU_MEM * np.array([1, 1 + 1e-12, 1 + 1e-6, 1 - 1e-3, 0.9, 2.0, 0.1, 0.05, 0.02, 50.0])


@pytest.mark.usefixtures("x64")
@BOTH
@pytest.mark.parametrize("dt", [0.1, 1.0, 15.0, 21.0, 200.0])
def test_membrane_moves_as_by_the_matrix_exponential(synapse, dt):
    arrivals = np.random.default_rng(0).poisson(0.3, (60, len(TAUS))).astype(float)
    v, i = drive(synapse(TAUS), jnp.asarray(arrivals), dt)
    for n, tau in enumerate(TAUS):
        v_exact, i_exact = exact(synapse, tau, TAU_MEM, arrivals[:, n], dt)
        np.testing.assert_allclose(v[:, n], v_exact, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(i[:, n], i_exact, rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.parametrize("ratio", [1.0, 1 + 2e-7, 1 + 1e-6, 1 - 1e-5, 1 + 1e-4, 0.999])
def test_nearly_equal_time_constants_lose_nothing_in_float32(synapse, ratio):
    tau = np.float32(TAU_MEM * ratio)
    arrivals = np.random.default_rng(0).poisson(0.3, (60, 1)).astype(np.float32)
    v, _ = drive(synapse(tau), jnp.asarray(arrivals), 0.1)
    v_exact, _ = exact(synapse, float(tau), TAU_MEM, arrivals[:, 0], 0.1)
    # 60 steps of a few roundings of 6e-8 each, all positive terms: 60 * 10 * 6e-8 at worst
    np.testing.assert_allclose(v[:, 0], v_exact, rtol=4e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@BOTH
@pytest.mark.parametrize("of", [0, 1])
def test_gradient_is_right_where_time_constants_meet(synapse, of):
    taus = TAU_MEM * np.array([1, 1 + 1e-9, 1 - 1e-4, 0.9, 0.5, 0.05]), np.full(6, TAU_MEM)
    arrivals = np.zeros((6, 6))
    arrivals[0] = 1.0

    def v_end(*taus):  # of each neuron; neurons are independent, so the sum has their gradients
        model = eqx.tree_at(lambda m: m.tau_syn, synapse(1.0), taus[0])
        return drive(model, jnp.asarray(arrivals), 4.0, taus[1])[0][-1].sum()

    slopes = jax.grad(v_end, argnums=of)(*map(jnp.asarray, taus))
    for n, slope in enumerate(slopes):
        at = np.array([taus[0][n], taus[1][n]])
        h = 1e-4 * at[of] * np.eye(2)[of]  # central difference: 1e-8 off, in relative terms
        up, down = (exact(synapse, *x, arrivals[:, n], 4.0)[0][-1] for x in (at + h, at - h))
        np.testing.assert_allclose(slope, (up - down) / (2 * h[of]), rtol=1e-6, atol=1e-9)


def of_two(tau_rise, tau_decay, tau_mem):
    """As `matrix`, of a double exponential; its peak is found by search."""
    a, c, b = 1 / tau_mem, 1 / tau_decay, 1 / tau_rise
    rates = np.array([[-a, 3 * a, 0], [0, -c, b], [0, 0, -b]])
    current = lambda t: scipy.linalg.expm(rates[1:, 1:] * t)[0, 1]  # noqa: E731
    longest = 5 * max(tau_rise, tau_decay)
    peak = scipy.optimize.minimize_scalar(
        lambda t: -current(t), bounds=(0, longest), method="bounded", options={"xatol": 1e-9}
    )
    return rates, np.array([0, 0, 1 / current(peak.x)])


DOUBLE = DoubleExponential(2.0, 10.0)

# Any two of the three equal or near, all of them, none; slow and fast ones
THREE = TAU_MEM * np.array(
    [
        (1, 1), (1, 1 + 1e-12), (1 + 1e-6, 1 - 1e-6), (0.999, 1.0005), (0.9, 0.8), (0.05, 1),
        (1, 0.05), (0.1, 0.1), (0.1, 0.1001), (0.2, 0.5), (50, 2), (2, 1.9), (0.02, 0.021),
        (0.1, 9),
    ]
).T  # fmt: skip


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dt", [0.1, 15.0, 200.0])
def test_a_double_exponential_moves_the_membrane_as_the_matrix_exponential(dt):
    arrivals = np.random.default_rng(0).poisson(0.3, (60, THREE.shape[1])).astype(float)
    v, i = drive(DoubleExponential(*THREE), jnp.asarray(arrivals), dt)
    for n, taus in enumerate(THREE.T):
        v_exact, i_exact = by_expm(*of_two(*taus, TAU_MEM), arrivals[:, n], dt)
        # the search finds a flat peak to 1e-12 of its height
        np.testing.assert_allclose(v[:, n], v_exact, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(i[:, n], i_exact, rtol=1e-11, atol=1e-12)


def test_a_double_exponential_loses_nothing_in_float32():
    taus = THREE.astype(np.float32)
    arrivals = np.random.default_rng(0).poisson(0.3, (60, taus.shape[1])).astype(np.float32)
    v, _ = drive(DoubleExponential(*taus), jnp.asarray(arrivals), 0.1)
    for n, two in enumerate(taus.astype(float).T):
        v_exact, _ = by_expm(*of_two(*two, TAU_MEM), arrivals[:, n], 0.1)
        np.testing.assert_allclose(v[:, n], v_exact, rtol=4e-5)  # as of one time constant


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_rise_and_decay_meet_in_the_alpha_function_and_so_do_gradients():
    rise = TAU_MEM * np.array([1, 1, 1, 1, 1, 0.2, 0.2, 0.9])
    decay = rise * np.array([1, 1 + 1e-9, 1 - 1e-4, 1.1, 3.0, 1, 1.2, 1])
    arrivals = np.zeros((6, len(rise)))
    arrivals[0] = 1

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def end(rise, decay):
        model = eqx.tree_at(lambda m: (m.tau_rise, m.tau_decay), DOUBLE, (rise, decay))
        v = drive(model, jnp.asarray(arrivals), 4.0)[0][-1]
        return v.sum(), v

    slopes, v = end(jnp.asarray(rise), jnp.asarray(decay))
    by_hand = lambda r, d: by_expm(*of_two(r, d, TAU_MEM), arrivals[:, 0], 4.0)[0][-1]  # noqa: E731
    for n, (r, d) in enumerate(zip(rise, decay, strict=True)):
        h = 1e-4 * r  # central difference: 1e-8 off, and the search 1e-12 / 1e-4
        of_r, of_d = by_hand(r + h, d) - by_hand(r - h, d), by_hand(r, d + h) - by_hand(r, d - h)
        expected = np.array([of_r, of_d]) / (2 * h)
        np.testing.assert_allclose([s[n] for s in slopes], expected, rtol=1e-5, atol=1e-7)
    alpha, same = drive(Alpha(rise), jnp.asarray(arrivals), 4.0)[0][-1], rise == decay
    np.testing.assert_allclose(v[same], alpha[same], rtol=1e-13)


@pytest.mark.parametrize("taus", [(2.0, 10.0), (10.0, 2.0)])
def test_a_double_exponential_peaks_at_one(taus):
    model = DoubleExponential(*taus)
    state, _ = model.step(model.init((1,)), jnp.ones(1), dt=1.0)
    ahead = lambda dt: float(model.step(state, jnp.zeros(1), dt=dt)[0].i[0])  # noqa: E731
    at = 2 * 10 / (10 - 2) * math.log(10 / 2)  # 4.0236 ms
    np.testing.assert_allclose(ahead(at), 1.0, rtol=1e-6)
    assert ahead(at - 0.1) < ahead(at) > ahead(at + 0.1)
    f = 1.86919  # of the difference of exponentials, for these two
    expected = f * (math.exp(-1) - math.exp(-5))
    np.testing.assert_allclose(ahead(10.0), expected, rtol=1e-5)  # the digits of f


@pytest.mark.parametrize("name", ["tau_rise", "tau_decay"])
def test_a_double_exponential_refuses_what_is_not_positive(name):
    with pytest.raises(ValueError, match=rf"{name} must be finite and > 0 ms; got -1.0"):
        DoubleExponential(**{"tau_rise": 1.0, "tau_decay": 2.0, name: -1.0})


C, G_LEAK, E_LEAK = 0.2, 0.01, -60.0  # nF, uS, mV: a membrane of 20 ms


@eqx.filter_jit
def leaky(receptor, w, dt, steps, v):
    """A membrane under one arrival of w uS; g is held over a step, and the step exact for it."""

    def step(_, carry):
        state, v = carry
        state, g = receptor.step(state, jnp.zeros(1), dt=dt, v=v)
        total = G_LEAK + g
        aim = (G_LEAK * E_LEAK + g * receptor.e_rev) / total
        return state, aim + (v - aim) * jnp.exp(-dt * total / C)

    start, _ = receptor.step(receptor.init((1,)), w, dt=dt, v=v)
    return jax.lax.fori_loop(0, steps, step, (start, v))[1][0]


def errors(receptor, g, gate=lambda v: 1.0, v=E_LEAK):
    """Of the potential after 10 ms, at steps of 1, .5, .25 and .125 ms; g(t) in uS."""
    slope = lambda t, v: (G_LEAK * (E_LEAK - v) + gate(v) * g(t) * (float(receptor.e_rev) - v)) / C  # noqa: E731
    answer = scipy.integrate.solve_ivp(
        slope, (0, 10.0), [v], method="DOP853", rtol=1e-12, atol=1e-12
    )
    steps, w, v = (10, 20, 40, 80), jnp.array([0.03]), jnp.array([v])
    ends = [leaky(receptor, w, jnp.array(10.0 / n), n, v) for n in steps]
    return np.abs(np.array(ends) - answer.y[0, -1])


ORDERS = {
    "exponential": (Exponential(5.0), lambda t: 0.03 * np.exp(-t / 5)),
    "alpha": (Alpha(2.0), lambda t: 0.03 * t / 2 * np.exp(1 - t / 2)),
    "double exponential": (
        DOUBLE,
        lambda t: 0.03 * 1.8691859765265433 * (np.exp(-t / 10) - np.exp(-t / 2)),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("e_rev", [0.0, -80.0])
def test_a_conductance_is_second_order(kind, e_rev):
    kinetics, g = ORDERS[kind]
    off = errors(Conductance(kinetics, e_rev), g)
    np.testing.assert_allclose(np.log2(off[1:-1] / off[2:]), 2, atol=0.02)
    assert off[-1] < 3e-4  # mV, of an excursion of 30 mV at dt .125 ms


@pytest.mark.usefixtures("x64")
def test_a_gate_follows_the_potential_to_first_order():
    block = lambda v: 1 / (1 + np.exp(-0.062 * v) / 3.57)  # noqa: E731
    receptor = Conductance(Exponential(50.0), 0.0, MagnesiumBlock())
    off = errors(receptor, lambda t: 0.03 * np.exp(-t / 50), block)
    np.testing.assert_allclose(np.log2(off[1:-1] / off[2:]), 1, atol=0.05)
    assert off[-1] < 0.1


@pytest.mark.parametrize("v", [-90.0, -80.0, -50.0])
def test_the_driving_force_changes_sign_at_the_reversal_potential(v):
    receptor = Conductance(Exponential(5.0), -80.0)
    strong = leaky(receptor, jnp.array([1e3]), jnp.array(0.1), 10, jnp.array([v]))
    np.testing.assert_allclose(strong, -80.0, atol=1e-3)  # 1e5 times the leak


def test_without_kinetics_arrivals_are_the_conductance_of_the_step():
    receptor = Conductance(None, 0.0, MagnesiumBlock(mg=0.0))
    state, g = receptor.step(receptor.init((2,)), jnp.array([0.1, 0.2]), dt=0.1, v=jnp.zeros(2))
    np.testing.assert_array_equal(g, jnp.array([0.1, 0.2]))  # and without magnesium, open
    assert receptor.init((2,)) == state == ()


def test_the_block_is_that_of_jahr_and_stevens():
    v = np.array([-1e5, -100.0, -60.0, -20.53, 0.0, 40.0, 1e5])
    open_part = MagnesiumBlock(mg=1.0)(jnp.asarray(v))
    expected = 1 / (1 + np.exp(np.clip(-0.062 * v, None, 700)) / 3.57)
    np.testing.assert_allclose(open_part, expected, rtol=1e-5, atol=1e-30)
    assert abs(float(MagnesiumBlock()(jnp.array([-20.53]))[0]) - 0.5) < 1e-4  # ln(1 / 3.57) / .062
    slope = jax.grad(lambda v: MagnesiumBlock(0.0)(v).sum() + MagnesiumBlock()(v).sum())
    assert np.isfinite(slope(jnp.asarray(v))).all()


def test_refuses_what_is_no_conductance():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"e_rev must be finite, in mV; got {bad}"):
            Conductance(Exponential(5.0), bad)
    with pytest.raises(TypeError, match="kinetics must be an instance; got the class"):
        Conductance(Exponential, 0.0)
    with pytest.raises(TypeError, match="gate must have __call__; got float 1.0"):
        Conductance(Exponential(5.0), 0.0, 1.0)
    with pytest.raises(ValueError, match=r"mg must be finite and >= 0 mM; got -1.0"):
        MagnesiumBlock(-1.0)
    receptor = Conductance(Exponential(jnp.array([5.0, 6.0])), 0.0, MagnesiumBlock())
    with pytest.raises(ValueError, match=r"kinetics.tau_syn of Conductance .* got shape \(2,\)"):
        receptor.init((3,))
    with pytest.raises(ValueError, match="v must be given, as this receptor is gated"):
        receptor.step(receptor.init((2,)), jnp.zeros(2), dt=0.1)


@pytest.mark.usefixtures("untyped")
def test_refuses_a_potential_that_is_not_one_a_neuron():
    receptor = Conductance(None, 0.0, MagnesiumBlock())
    with pytest.raises(ValueError, match=r"v must have shape \(2,\).*; got \(\): jax.vmap"):
        receptor.step((), jnp.zeros(2), dt=0.1, v=jnp.zeros(()))


@BOTH
def test_arrivals_act_from_the_next_step_on(synapse):
    model = synapse(5.0)
    state, current = model.step(model.init((2,)), jnp.ones(2), dt=1.0, tau_mem=TAU_MEM)
    np.testing.assert_array_equal(current, 0.0)
    _, current = model.step(state, jnp.zeros(2), dt=1.0, tau_mem=TAU_MEM)
    assert np.all(current > 0)


def test_alpha_peaks_at_one_after_tau_syn():
    arrivals = jnp.zeros((30, 1)).at[0].set(1.0)
    i = np.asarray(drive(Alpha(5.0), arrivals, 1.0)[1])[:, 0]
    assert np.argmax(i) == 5
    t = np.arange(30)
    np.testing.assert_allclose(i, t / 5 * np.exp(1 - t / 5), atol=1e-6)


def test_exponential_jumps_by_the_arrival_and_decays():
    arrivals = jnp.zeros((30, 1)).at[0].set(1.0)
    i = drive(Exponential(5.0), arrivals, 1.0)[1][:, 0]
    np.testing.assert_allclose(i, np.exp(-np.arange(30) / 5), rtol=1e-5)


@BOTH
def test_a_very_fast_membrane_follows_the_current(synapse):
    # dt = 1000 tau_mem: nothing overflows, v is 3 MOhm times the current of the end of the step
    arrivals = jnp.zeros((10, 1)).at[0].set(1.0)
    v, i = drive(synapse(5.0), arrivals, 1.0, 1e-3)
    np.testing.assert_allclose(v[1:], 3 * i[1:], rtol=1e-3)


@BOTH
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_refuses_a_time_constant_that_is_not_positive(synapse, bad):
    with pytest.raises(ValueError, match=rf"tau_syn must be finite and > 0 ms; got {bad}"):
        synapse(bad)


@BOTH
def test_refuses_a_time_constant_that_does_not_fit_the_population(synapse):
    with pytest.raises(ValueError, match=r"tau_syn of .* of shape \(3,\); got shape \(2,\)"):
        synapse(jnp.ones(2)).init((3,))


@BOTH
@pytest.mark.parametrize("dt", [0.1, 2.0])
def test_a_neuron_without_a_membrane_time_hears_the_mean_of_a_step(synapse, dt):
    state, _ = synapse(5.0).step(synapse(5.0).init((1,)), jnp.ones(1), dt=dt)  # and then none
    u = (np.arange(100_000) + 0.5) / 100_000
    for t in range(3):
        state, current = synapse(5.0).step(state, jnp.zeros(1), dt=dt)
        x = (t + u) * dt / 5.0  # midpoints of a step: 1e-10 off
        mean = np.mean(np.exp(-x) if synapse is Exponential else x * np.exp(1 - x))
        np.testing.assert_allclose(current, mean, rtol=2e-6)  # a few roundings


@BOTH
def test_a_very_slow_membrane_hears_nearly_the_mean(synapse):
    state, _ = synapse(5.0).step(synapse(5.0).init((1,)), jnp.ones(1), dt=2.0)
    slow, mean = (
        synapse(5.0).step(state, jnp.zeros(1), dt=2.0, tau_mem=tau)[1] for tau in (1e6, None)
    )
    np.testing.assert_allclose(slow, mean, rtol=4e-6)  # dt / tau_mem, and as above


class Own:
    """A neuron that has no time constant: its output is what it hears."""

    def init(self, shape, dtype=float):
        return jnp.zeros(shape, dtype)

    def step(self, state, current, *, dt):
        return current, current


@BOTH
def test_a_layer_of_such_neurons_takes_a_synapse(synapse):
    layer, model = Layer(1, Own(), synapse(5.0)), synapse(5.0)
    state, _ = model.step(model.init((1,)), jnp.ones(1), dt=0.5)
    z = layer.step(jnp.zeros(1), state, jnp.zeros(1), dt=0.5).z
    np.testing.assert_array_equal(z, model.step(state, jnp.zeros(1), dt=0.5)[1])


ANY = [Exponential(5.0), Alpha(5.0), LIF(r_mem=30.0), ALIF(r_mem=30.0), LeakyIntegrator()]


@pytest.mark.parametrize("model", ANY)
def test_what_comes_in_is_one_number_a_neuron_at_a_step_above_zero(model):
    state, name = model.init((3,)), "arrivals" if hasattr(model, "tau_syn") else "current"
    for bad in (jnp.ones((3, 1)), jnp.ones(()), jnp.ones(1)):
        match = rf"{name} must have shape \(3,\).*; got \({str(bad.shape)[1:-1]}\): jax.vmap"
        with pytest.raises(ValueError, match=match):
            model.step(state, bad, dt=1.0)
    for dt in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"dt must be finite and > 0 ms; got {dt}"):
            model.step(state, jnp.ones(3), dt=dt)
    with pytest.raises(ValueError, match=r"dt must be one number; got shape \(2,\): jax.vmap"):
        model.step(state, jnp.ones(3), dt=jnp.ones(2))


@pytest.mark.parametrize("model", ANY)
def test_whole_numbers_and_truths_count_as_floats_and_steps_vmap(model):
    z = np.array([0, 1, 1])
    steps = jnp.array([0.5, 2.0])
    run = lambda z, dt: model.step(model.step(model.init((3,)), z, dt=dt)[0], z, dt=dt)  # noqa: E731
    batch = jax.jit(jax.vmap(run, (None, 0)))(jnp.asarray(z, float), steps)
    for k, dt in enumerate((0.5, 2.0)):
        alone = run(jnp.asarray(z, float), dt)
        chex.assert_trees_all_close(jax.tree.map(lambda x, k=k: x[k], batch), alone, rtol=1e-6)
    for kind in (bool, np.uint8, int):
        chex.assert_trees_all_equal(run(jnp.asarray(z.astype(kind)), 2.0), alone)
