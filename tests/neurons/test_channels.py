"""Neurons with channels, against LSODA on equations written anew."""

import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.neurons import surrogate
from neurojax.neurons.channels import HodgkinHuxley, TraubMiles, WangBuzsaki

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "neurons.json").read_text())
ALL = pytest.mark.parametrize("model", [HodgkinHuxley, TraubMiles, WangBuzsaki])


@eqx.filter_jit
def simulate(model, current, dt, steps, dtype="float64", g=None):
    """States and spikes under a current [n] held for `steps`."""
    step = lambda s, _: (lambda s, z: (s, (s, z)))(  # noqa: E731
        *model.step(s, current, dt=dt, conductance=g)
    )
    return jax.lax.scan(step, model.init(current.shape, dtype), length=steps)[1]


def drift(model, dt, dtype="float64"):
    """By current: how many spikes there are more than LSODA's, and the greatest error, ms."""
    rows = ORACLE[model.__name__]
    unit = 1e3 if model is TraubMiles else 1.0  # pA
    current = jnp.asarray(np.array([row[0] for row in rows]) / unit, dtype)
    z = np.asarray(simulate(model(), current, dt, int(200 / dt), dtype)[1])
    found = [dt * (0.5 + np.flatnonzero(z[:, k])) for k in range(len(rows))]
    assert [len(t) for t in found] == [n for _, n, _ in rows]
    return [np.abs(t - np.array(exact)).max() for t, (*_, exact) in zip(found, rows, strict=True)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("model", "coarse"), [(HodgkinHuxley, 0.31), (TraubMiles, 0.7), (WangBuzsaki, 0.4)]
)
def test_spikes_come_when_an_accurate_solver_has_them(model, coarse):
    """At .05 ms, and at .025 for the interneuron, whose gates are five times as fast."""
    dt = 0.025 if model is WangBuzsaki else 0.05
    assert max(drift(model, dt)) < coarse
    assert max(drift(model, dt / 2)) < 0.38 * coarse  # of second order, beside the grid


def test_squid_axon_in_float32_spikes_as_in_float64():
    assert max(drift(HodgkinHuxley, 0.025, "float32")) < 0.1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("model", "current"), [(HodgkinHuxley, 2.0), (WangBuzsaki, 0.1)])
def test_is_of_second_order_below_threshold(model, current):
    """Where it converges to is what spike times show."""
    g = jnp.full(1, 0.05)

    def ends(steps):
        return float(simulate(model(), current - 70 * g, 5 / steps, steps, g=g)[0].v[-1, 0])

    coarse, middle, fine = ends(100), ends(200), ends(400)
    assert math.log2((coarse - middle) / (middle - fine)) == pytest.approx(2.0, abs=0.1)


@pytest.mark.usefixtures("x64")
@ALL
def test_rates_and_their_derivatives_are_numbers_where_quotients_are_none(model):
    """Where a ramp's numerator and denominator vanish together; and far out of range."""
    neuron = model()
    zeros = jnp.array([-40.0, -55.0, -35.0, -34.0, -50.0, -23.0, -48.0])

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def total(v):
        return sum(a + b for a, b in neuron.rates(v).values())

    (values, slopes), (below, _), (above, _) = (total(zeros + x) for x in (0.0, -1e-4, 1e-4))
    np.testing.assert_allclose(values, (below + above) / 2, rtol=1e-8)
    np.testing.assert_allclose(slopes, (above - below) / 2e-4, rtol=1e-6)
    far, slope = total(jnp.linspace(-5e3, 5e3, 7))
    assert np.isfinite(far).all()
    assert np.isfinite(slope).all()


@ALL
@pytest.mark.parametrize("v", [-1e30, 1e8, 1e30])
def test_a_step_from_far_out_of_range_is_a_number(model, v):
    """Where v, of one conductance or of two, decays: gates are shut, or open, to every digit."""
    neuron = model(v_init=v)
    start = neuron.init((1,))
    state, _ = neuron.step(start, jnp.zeros(1), dt=0.01)
    rates = neuron.rates(start.v)
    opens = {k: (a / (a + b)).item() for k, (a, b) in rates.items()}
    g = neuron.g_l + neuron.g_na * opens["m"] ** 3 * opens["h"] + neuron.g_k * opens["n"] ** 4
    left = math.exp(-0.01 * float(g / neuron.c_mem))
    np.testing.assert_allclose(state.v, v * left, rtol=1e-5)


@ALL
def test_gates_are_at_rest_at_first_and_a_spike_is_one_crossing(model):
    neuron = model()
    state, z = simulate(neuron, jnp.array([0.0, 10.0 * float(neuron.c_mem)]), 0.025, 800, "float32")
    start = neuron.init((2,))
    for name, (alpha, beta) in neuron.rates(start.v).items():
        np.testing.assert_allclose(getattr(start, name), alpha / (alpha + beta), rtol=1e-6)
        np.testing.assert_allclose(getattr(state, name)[0], getattr(start, name), rtol=1e-5)
    assert int(z[:, 0].sum()) == (model is TraubMiles)  # which fires without any, at 14 Hz
    above = np.asarray(state.v[:, 1]) >= float(neuron.v_th)
    starts = np.flatnonzero(~above[:-1] & above[1:]) + 1
    np.testing.assert_array_equal(np.flatnonzero(z[:, 1]), starts)
    assert len(starts) >= 1


@pytest.mark.slow
@ALL
def test_a_strong_conductance_holds_it_and_gradients_are_finite_whatever_the_drive(model):
    neuron = model(spike=surrogate.fast_sigmoid())

    g = jnp.array([0.0, 0.0, 0.0, 1e3])

    def run(i):
        def step(s, _):
            s, z = neuron.step(s, i, dt=0.1, conductance=g)
            return s, (s.v, z)

        v, z = jax.lax.scan(step, neuron.init((4,)), length=40)[1]
        return z.sum(), v

    drive = jnp.array([1e3, -1e3, 10.0 * float(neuron.c_mem), -70e3])
    slope, v = jax.jit(jax.grad(run, has_aux=True))(drive)
    assert np.isfinite(v).all()
    np.testing.assert_allclose(v[5:, 3], -70, atol=1.5)
    assert np.isfinite(slope).all()
    assert slope[2] != 0


def test_a_bfloat16_state_spikes_as_a_float32_one():
    drive = jnp.array([7.0, 10.0, 20.0])
    rough, fine = (simulate(HodgkinHuxley(), drive, 0.1, 600, d) for d in ("bfloat16", "float32"))
    assert rough[0].v.dtype == "bfloat16"
    np.testing.assert_array_equal(rough[1].astype("float32"), fine[1])
    assert np.all(fine[1].sum(0) >= 3)


POSITIVE, NOT_NEGATIVE, FINITE = (
    {"c_mem": "nF", "g_l": "uS"},
    {"g_na", "g_k"},
    {"e_na", "e_k", "e_l"},
)


@ALL
def test_refuses_what_makes_no_neuron(model):
    for name, unit in POSITIVE.items():
        with pytest.raises(ValueError, match=f"{name} must be finite and > 0 {unit}; got 0.0"):
            model(**{name: 0.0})
    for name in NOT_NEGATIVE:
        with pytest.raises(ValueError, match=f"{name} must be finite and >= 0 uS; got -1.0"):
            model(**{name: -1.0})
    for name in FINITE | {"v_th", "v_init"} | ({"v_t"} if model is TraubMiles else set()):
        with pytest.raises(ValueError, match=f"{name} must be finite, in mV; got nan"):
            model(**{name: math.nan})
    with pytest.raises(ValueError, match=r"g_k of \w+ must be one number or one per neuron"):
        model(g_k=jnp.ones(2)).init((3,))
