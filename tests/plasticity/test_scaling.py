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
    with pytest.raises(ValueError, match=r"r must have shape \(1,\).*; got \(2,\)"):
        SynapticScaling().change(w, c, jnp.ones(2), interval=1.0)
    with pytest.raises(ValueError, match="interval must be finite and > 0 ms; got 0.0"):
        SynapticScaling().change(w, c, jnp.ones(1), interval=0.0)
    with pytest.raises(ValueError, match="total must be finite and >= 0; got -1.0"):
        normalizing(w, c, -1.0)
    with pytest.raises(ValueError, match=r"total must be one number or one a neuron, .*\(2,\)"):
        normalizing(w, c, jnp.ones(2))
    with pytest.raises(ValueError, match=r"interval must be one number; got shape \(2,\)"):
        SynapticScaling().change(w, c, jnp.ones(1), interval=jnp.ones(2))
    each = SynapticScaling(target=jnp.ones(3))
    with pytest.raises(ValueError, match=r"target of SynapticScaling must be .* got shape \(3,\)"):
        each.change(w, c, jnp.ones(1), interval=1.0)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "change",
    [
        lambda w, c: SynapticScaling().change(w, c, jnp.ones(3), interval=1e3),
        lambda w, c: normalizing(w, c, jnp.ones(3)),
    ],
)
def test_weights_are_numbers_in_the_shape_of_their_layout(change):
    c, w = Dense(2, 3), jnp.array([[1, 2], [-3, 4], [0, 5]])
    with pytest.raises(ValueError, match=r"w must have shape \(3, 2\); got \(2, 3\)"):
        change(w.T, c)
    with pytest.raises(TypeError, match="connectivity must be an instance; got the class"):
        change(w, Dense)
    expected = change(w.astype(float), c)
    np.testing.assert_array_equal(change(w, c), expected)
    np.testing.assert_array_equal(change(w.tolist(), c), expected)
    rough = change(w.astype("bfloat16"), c)
    np.testing.assert_array_equal(rough, expected.astype("bfloat16"))  # rounded once
    with jax.enable_x64(True):
        assert jax.eval_shape(lambda: change(w.astype("float32"), c)).dtype == "float32"


def test_an_interval_is_at_most_ten_time_constants_of_the_fastest():
    w, c = jnp.ones((2, 1)), Dense(1, 2)
    scaling = SynapticScaling(tau=jnp.array([2e3, 1e3]))
    change = lambda s, t: s.change(w, c, jnp.full(2, 5.0), interval=t)  # noqa: E731
    np.testing.assert_array_equal(change(scaling, 1e4), 0.0)
    with pytest.raises(ValueError, match="interval must be at most 10 tau, 10000 ms; got 10001"):
        change(scaling, 10001.0)
    # what is traced is taken on trust
    np.testing.assert_array_equal(jax.jit(change)(scaling, 2e4), 0.0)
    np.testing.assert_array_equal(jax.jit(lambda t: change(scaling, t))(2e4), 0.0)
    np.testing.assert_array_equal(jax.jit(lambda s: change(s, 2e4))(scaling), 0.0)


def test_small_sums_are_made_what_they_should_be_and_none_stays_so():
    w, c = jnp.array([[0.01, -0.03], [0.0, 0.0]]), Dense(2, 2)
    total = jnp.array([2.0, 3.0])  # one a receiver
    np.testing.assert_allclose(w + normalizing(w, c, total), [[0.5, -1.5], [0, 0]], rtol=1e-6)
    slope = jax.grad(lambda w: normalizing(w, c, total).sum())(w)
    assert np.isfinite(slope).all()
