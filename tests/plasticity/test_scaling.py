"""Homeostasis of weights: ratios stay, rates return, sums are what they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from oracles import connectivity as wiring

from neurojax.plasticity.scaling import SynapticScaling, normalizing
from neurojax.wiring.layouts import Dense


@pytest.mark.parametrize("kind", ["few links", "events"])
def test_synapses_of_a_neuron_scale_by_one_factor(kind):
    c, rng = wiring.example(kind), np.random.default_rng(0)
    rows, _, count = wiring.synapses(c)
    w, r = rng.normal(size=c.shape), rng.uniform(0, 20, c.n_post)
    scaling = SynapticScaling(target=5.0, tau=1e4)
    change = jax.jit(lambda w, r: (scaling.change(w, c, r, interval=3e3), normalizing(w, c, 3.0)))
    dw, to_sum = map(np.asarray, change(jnp.asarray(w, float), jnp.asarray(r, float)))
    factor = np.exp(0.3 * (1 - r / 5.0))[rows]
    exists = count > 0
    np.testing.assert_allclose((w + dw)[exists], (w * factor)[exists], rtol=1e-5)
    total = wiring.matrix(c, np.abs(w + to_sum)).sum(1)
    np.testing.assert_allclose(total[total > 0], 3.0, rtol=1e-5)


def test_scaling_follows_its_equation_while_rates_are_held():
    slope = lambda _, w: w * (4.0 - 7.0) / 4.0 / 2e3  # noqa: E731
    w = scipy.integrate.solve_ivp(slope, (0, 5e3), [0.8], rtol=1e-10, atol=1e-12).y[0, -1]
    scaling = SynapticScaling(target=4.0, tau=2e3)
    one, steps = jnp.array([[0.8]]), jnp.array([[0.8]])
    one = one + scaling.change(one, Dense(1, 1), jnp.array([7.0]), interval=5e3)
    for _ in range(10):
        steps = steps + scaling.change(steps, Dense(1, 1), jnp.array([7.0]), interval=500.0)
    np.testing.assert_allclose([one[0, 0], steps[0, 0]], w, rtol=2e-6)


def test_rates_return_to_the_target_after_the_drive_has_changed():
    c, scaling = Dense(3, 2), SynapticScaling(target=jnp.array([5.0, 8.0]), tau=1e4)
    start = jnp.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]])

    @jax.jit
    def settle(w, drive):
        rate = lambda w: 10 * w @ drive  # noqa: E731
        step = lambda _, w: w + scaling.change(w, c, rate(w), interval=1e3)  # noqa: E731
        w = jax.lax.fori_loop(0, 300, step, w)
        return w, rate(w)

    w = start
    for drive in (jnp.ones(3), jnp.array([9.0, 3.0, 3.0])):
        w, r = settle(w, drive)
        np.testing.assert_allclose(r, [5.0, 8.0], rtol=1e-3)
    np.testing.assert_allclose(w / w[:, :1], start / start[:, :1], rtol=1e-4)


def test_refuses_what_it_cannot_scale_by():
    w, c = jnp.ones((1, 2)), Dense(2, 1)
    with pytest.raises(ValueError, match="target must be finite and > 0 Hz; got 0.0"):
        SynapticScaling(target=0.0)
    with pytest.raises(ValueError, match="tau must be finite and > 0 ms; got -1.0"):
        SynapticScaling(tau=-1.0)
    with pytest.raises(ValueError, match=r"r must have shape \(1,\).*; got \(2,\)"):
        SynapticScaling().change(w, c, jnp.ones(2), interval=1.0)
    with pytest.raises(ValueError, match="interval must be finite and > 0 ms; got 0.0"):
        SynapticScaling().change(w, c, jnp.ones(1), interval=0.0)
    with pytest.raises(ValueError, match="total must be finite and >= 0; got -1.0"):
        normalizing(w, c, -1.0)
    with pytest.raises(ValueError, match=r"total must be one number or one a neuron, .*\(2,\)"):
        normalizing(w, c, jnp.ones(2))
    np.testing.assert_array_equal(normalizing(0 * w, c, 1.0), 0.0)
