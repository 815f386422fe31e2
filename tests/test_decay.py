"""Long runs and small steps: float32 and bfloat16 states against closed forms."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity.dopamine import DopamineSTDP
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.traces import low_pass, low_pass_reversed
from neurojax.synapses.receptors import Alpha, DoubleExponential, Exponential
from neurojax.wiring.layouts import Dense

TAUS = np.array([1e4, 1e5, 1e6])  # ms
EPS = 2.0**-24


def alif(dtype):
    model = ALIF(tau_adapt=TAUS, v_th=9.0)
    start = model.init((3,), dtype)._replace(a=jnp.ones(3, dtype))
    return start, lambda s: model.step(s, jnp.zeros(3), dt=0.1)[0], lambda s: s.a + s.a_low


def membrane(kind, dtype):
    model = kind(tau_mem=TAUS)
    start = model.init((3,), dtype)._replace(v=jnp.full(3, 0.75, dtype))
    return start, lambda s: model.step(s, jnp.zeros(3), dt=0.1)[0], lambda s: (s.v + s.v_low) / 0.75


def synapse(kind, name, dtype):
    model = kind(TAUS)
    start = model.init((3,), dtype)._replace(**{name: jnp.ones(3, dtype)})
    step = lambda s: model.step(s, jnp.zeros(3), dt=0.1, tau_mem=20.0)[0]  # noqa: E731
    return start, step, lambda s: getattr(s, name) + getattr(s, f"{name}_low")


def stdp(side, dtype):
    model, c, none = STDP(tau_plus=1e5, tau_minus=1e5), Dense(3, 3), jnp.zeros(3)
    start = model.init(c, dtype)
    start = start._replace(**{side: getattr(start, side)._replace(x=jnp.ones(3, dtype))})
    step = lambda s: model.visit(s, none, none, dt=0.1)[0]  # noqa: E731
    return start, step, lambda s: sum(getattr(s, side))


def eligibility(dtype):
    model, c, none = DopamineSTDP(tau_c=1e5), Dense(3, 1), jnp.zeros(3)
    start = model.init(c, dtype)._replace(c=jnp.ones((1, 3), dtype))
    step = lambda s: model.step(s, c, none, none[:1], dt=0.1)[0]  # noqa: E731
    return start, step, lambda s: (s.c + s.c_low)[0]


DECAYS = {
    "ALIF": alif,
    "LIF": functools.partial(membrane, LIF),
    "LeakyIntegrator": functools.partial(membrane, LeakyIntegrator),
    "Exponential": functools.partial(synapse, Exponential, "i"),
    "Alpha": functools.partial(synapse, Alpha, "rise"),
    "STDP, pre": functools.partial(stdp, "pre"),
    "STDP, post": functools.partial(stdp, "post"),
    "DopamineSTDP": eligibility,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_decays_is_exact_after_a_hundred_thousand_steps(dtype):
    """exp(-dt / tau) in float32 is off by 6e-8 a step: .6% after 10 s, at any tau."""
    rows = {name: make(dtype) for name, make in DECAYS.items()}

    @jax.jit
    def run(states):
        step = lambda _, states: {n: rows[n][1](s) for n, s in states.items()}  # noqa: E731
        return jax.lax.fori_loop(0, 100_000, step, states)

    ends = run({n: row[0] for n, row in rows.items()})
    expected = np.exp(-1e4 / TAUS)
    for name, end in ends.items():
        left = rows[name][2](jax.tree.map(lambda x: x.astype("float32"), end))
        exact = expected[1] if "STDP" in name else expected  # whose two times are numbers
        # dt, dt / tau and expm1 are rounded once each: 3 EPS of the exponent, at most 1
        np.testing.assert_allclose(left, exact, rtol=6 * EPS)


def test_a_trace_is_exact_after_ten_thousand_steps():
    x = jnp.zeros((10_001, 1)).at[0].set(1)
    left = math.exp(-1e4 * 1e-7)
    decay = math.exp(-1e-7)  # a float64, which float32 would round to 1
    np.testing.assert_allclose(low_pass(x, decay)[-1], left, rtol=4 * EPS)
    np.testing.assert_allclose(low_pass_reversed(x[::-1], decay)[0], left, rtol=4 * EPS)


@functools.partial(jax.jit, static_argnames="over_inputs")
def near_rheobase(lif, drive, over_inputs):
    """Spikes [T, n] over 170 ms of `drive` [n]."""
    step = lambda s, i: lif.step(s, drive if i is None else i, dt=0.01)  # noqa: E731
    xs = jnp.broadcast_to(drive, (17_000, *drive.shape)) if over_inputs else None
    return jax.lax.scan(step, lif.init(drive.shape), xs, length=17_000)[1]


@pytest.mark.parametrize("over_inputs", [True, False])
def test_first_spikes_near_rheobase_are_those_of_the_closed_form(over_inputs):
    above = np.array([0.05, 0.005])  # mV; a step near the threshold moves by 2.5e-6 mV at -50
    lif = LIF(tau_mem=20.0, v_rest=-65.0, v_reset=-65.0, v_th=-50.0)
    z = near_rheobase(lif, jnp.asarray(15 + above, jnp.float32), over_inputs)
    first = 0.01 * (1 + np.argmax(np.asarray(z) > 0, axis=0))
    exact = 20 * np.log((15 + above) / above)
    # up to the grid; v and 15.005 are rounded by 2e-6 of .005 mV: 20 * 4e-4 ms = .05 per mille
    np.testing.assert_allclose(first, exact + 0.005, atol=0.005 + 0.008)


def test_first_spikes_under_a_conductance_near_rheobase_are_those_of_the_closed_form():
    above, g, r = np.array([0.05, 0.005]), 0.02, 50.0  # mV, uS, MOhm: twice the leak
    lif = LIF(tau_mem=20.0, r_mem=r, v_rest=-65.0, v_reset=-65.0, v_th=-50.0)
    current = jnp.asarray((-65 + (1 + r * g) * (15 + above)) / r + 65 / r - 65 * g, "float32")
    held = jnp.full(2, g)
    step = lambda s, _: lif.step(s, current, dt=0.01, conductance=held)  # noqa: E731
    z = jax.lax.scan(step, lif.init((2,)), length=9_000)[1]
    first = 0.01 * (1 + np.argmax(np.asarray(z) > 0, axis=0))
    exact = 10 * np.log((15 + above) / above)
    # r I, near 15 and -65 mV in the sum, and v are rounded by 8e-6 of .005 mV: 10 * 1.6e-3 ms
    np.testing.assert_allclose(first, exact + 0.005, atol=0.005 + 0.016)


@pytest.mark.parametrize(
    ("kept", "neuron", "dtype"),
    [
        (False, LIF(tau_mem=160.0), "float32"),
        (True, LIF(tau_mem=np.array([20.0, 170.0])), "float32"),
        (True, LIF(tau_mem=20.0), "bfloat16"),
        (True, LIF(v_rest=-65.0, v_reset=-65.0, v_th=-50.0), "float32"),
        (False, ALIF(tau_mem=20.0), "float32"),
        (False, LeakyIntegrator(tau_mem=160.0), "float32"),
        (True, LeakyIntegrator(tau_mem=170.0), "float32"),
        (True, LIF(tau_mem=170.0), float),  # as init takes it by default
        (True, LeakyIntegrator(tau_mem=170.0), float),
        (False, LIF(tau_mem=160.0), float),
    ],
)
def test_rounding_is_kept_only_where_it_is_felt(kept, neuron, dtype):
    assert (neuron.init((2,), dtype).v_low is not None) == kept


LOWS = {
    "Exponential": lambda tau, dtype: Exponential(tau).init((2,), dtype)[1:],
    "Alpha": lambda tau, dtype: Alpha(tau).init((2,), dtype)[2:],
    "DoubleExponential": lambda tau, dtype: DoubleExponential(tau, tau).init((2,), dtype)[2:],
    "STDP": lambda tau, dtype: [
        side.x_low for side in STDP(tau_plus=tau, tau_minus=tau).init(Dense(2, 2), dtype)
    ],
}


@pytest.mark.parametrize("model", LOWS)
def test_of_currents_and_traces_too(model):
    for kept, tau, dtype in (
        (False, 160.0, "float32"),
        (True, 170.0, "float32"),
        (True, 5.0, "bfloat16"),
    ):
        assert {low is not None for low in LOWS[model](tau, dtype)} == {kept}


def test_where_rounding_is_not_kept_currents_and_traces_are_right_to_a_thousandth():
    tau, rule, c, none = 160.0, STDP(tau_plus=160.0), Dense(2, 2), jnp.zeros(2)
    synapse, traces = Exponential(tau), rule.init(c)
    start = (
        synapse.init((2,))._replace(i=jnp.ones(2)),
        traces._replace(pre=traces.pre._replace(x=jnp.ones(2))),
    )

    @jax.jit
    def run(start):
        step = lambda _, s: (  # noqa: E731
            synapse.step(s[0], none, dt=0.01)[0], rule.visit(s[1], none, none, dt=0.01)[0],
        )  # fmt: skip
        return jax.lax.fori_loop(0, 16_000, step, start)

    current, traces = run(start)
    np.testing.assert_allclose(current.i, math.exp(-1), rtol=1e-3)
    np.testing.assert_allclose(traces.pre.x, math.exp(-1), rtol=1e-3)


def test_where_rounding_is_not_kept_first_spikes_are_right_to_a_thousandth():
    drive = jnp.array([15.05, 15.005])
    lif = LIF(tau_mem=20.0, v_th=15.0)  # at rest at 0 mV
    step = lambda s, _: lif.step(s, drive, dt=0.01)  # noqa: E731
    state, z = jax.lax.scan(step, lif.init((2,)), length=17_000)
    assert state.v_low is None
    first = 0.01 * (1 + np.argmax(np.asarray(z) > 0, axis=0))
    np.testing.assert_allclose(first, 20 * np.log(np.asarray(drive) / (drive - 15)), rtol=1e-3)


@eqx.filter_jit
def spikes(model, current, dtype):
    step = lambda s, i: model.step(s, i, dt=1.0)  # noqa: E731
    return jax.lax.scan(step, model.init(current.shape[1:], dtype), current)


@pytest.mark.parametrize(
    "model",
    [
        LIF(tau_mem=200.0),
        LIF(tau_mem=200.0, v_rest=-65.3, v_reset=-66.1, v_th=-64.3, t_ref=3.0),
        LIF(tau_mem=150.0, reset="subtract"),
        ALIF(tau_mem=200.0, tau_adapt=3000.0, beta_adapt=0.01),
    ],
)
def test_a_bfloat16_state_spikes_as_a_float32_one(model):
    current = np.linspace(1.2, 4.0, 3)[None] + 0.1 * np.sin(np.arange(3000))[:, None]
    one, other = (
        spikes(model, jnp.asarray(current, "float32"), d) for d in ("bfloat16", "float32")
    )
    assert one[1].dtype == one[0].v.dtype == "bfloat16"
    np.testing.assert_array_equal(one[1].astype("float32"), other[1])
    assert np.all(np.asarray(other[1]).sum(0) >= 5)
    np.testing.assert_allclose(one[0].v.astype("float32"), other[0].v, rtol=2.0**-8, atol=2.0**-9)


def test_adaptation_in_bfloat16_counts_on_beyond_256():
    alif = ALIF(tau_mem=1e-3, tau_adapt=1e5, beta_adapt=0.0)
    state, z = spikes(alif, jnp.full((2001, 1), 5.0), "bfloat16")
    assert np.all(z == 1)
    q = math.exp(-1e-5)
    exact = (1 - q**2000) / (1 - q)
    np.testing.assert_allclose(state.a.astype("float32"), exact, rtol=2.0**-8)
    np.testing.assert_allclose(state.a.astype("float32") + state.a_low, exact, rtol=1e-6)
    assert alif.threshold(state).dtype == "bfloat16"
