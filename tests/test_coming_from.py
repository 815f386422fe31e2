"""What the README says to those who come from elsewhere, against loops of their equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj

DT, BETA, V_TH = 1.0, 0.9, 1.0


def leaky(current, reset):
    """snnTorch's `Leaky`: the spike is strict, and resets in the step that follows it."""
    v, z, potentials, spikes = np.zeros(current.shape[1]), np.zeros(current.shape[1]), [], []
    for i in current:
        if reset == "zero":
            v = BETA * v * (1 - z) + i
        else:
            v = BETA * v + i - z * V_TH
        z = (v > V_TH).astype(float)
        potentials.append(v)
        spikes.append(z)
    return np.stack(potentials), np.stack(spikes)


def ours(neuron, current):
    def step(state, i):
        state, z = neuron.step(state, i, dt=DT)
        return state, (state.v, z)

    return jax.lax.scan(step, neuron.init(current.shape[1:]), jnp.asarray(current))[1]


@pytest.mark.parametrize(
    ("reset", "theirs", "v_reset"),
    [("hard", "zero", 0.0), ("subtract", "subtract", V_TH * (1 - 1 / BETA))],
)
def test_leaky_of_snntorch_is_a_lif(x64, reset, theirs, v_reset):
    current = np.random.default_rng(0).uniform(0, 0.4, (300, 20))
    neuron = nj.LIF(
        tau_mem=-DT / math.log(BETA), r_mem=1 / (1 - BETA), v_th=V_TH, v_reset=v_reset, reset=reset
    )
    v, z = leaky(current, theirs)
    assert 200 < z.sum() < z.size / 2
    np.testing.assert_array_equal(ours(neuron, current)[1], z)
    # v is below 2 and forgets within some ten steps: a few dozen roundings
    np.testing.assert_allclose(ours(neuron, current)[0], v, atol=1e-13)


def test_a_reset_to_zero_by_subtraction_is_another_neuron(x64):
    current = np.random.default_rng(0).uniform(0, 0.4, (300, 20))
    neuron = nj.LIF(tau_mem=-DT / math.log(BETA), r_mem=1 / (1 - BETA), reset="subtract")
    assert (ours(neuron, current)[1] != leaky(current, "subtract")[1]).any()


@pytest.mark.parametrize(
    ("spike", "derivative"),
    [
        (nj.surrogate.fast_sigmoid(25.0), lambda x: 1 / (1 + 25 * abs(x)) ** 2),
        (nj.surrogate.arctan(2.0), lambda x: 1 / (1 + (math.pi * x) ** 2)),
    ],
)
def test_surrogates_of_snntorch_have_the_same_slope(spike, derivative):
    x = jnp.linspace(-1, 1, 21)
    np.testing.assert_allclose(jax.vmap(jax.grad(spike))(x), derivative(np.asarray(x)), rtol=1e-5)


def test_a_membrane_of_nest_has_a_resistance_of_tau_over_capacity():
    tau_m, c_m, pulse = 10.0, 250.0, 100.0  # ms, pF, pA: iaf_psc_delta's names
    neuron = nj.LIF(tau_mem=tau_m, r_mem=1e3 * tau_m / c_m, v_th=1e3)
    v = ours(neuron, np.full((50, 1), 1e-3 * pulse))[0][:, 0]
    t = DT * np.arange(1, 51)
    np.testing.assert_allclose(v, tau_m / c_m * pulse * -np.expm1(-t / tau_m), rtol=1e-5)
