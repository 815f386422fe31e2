"""Gap junctions against closed forms of passive cells, on every layout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracles import connectivity as wiring

from neurojax.neurons.leaky import LeakyIntegrator
from neurojax.synapses.gap import GapJunctions
from neurojax.wiring.layouts import Dense
from neurojax.wiring.sparse import by_sender

TAU, R = 20.0, 100.0  # ms, MOhm: a leak of .01 uS and .2 nF
PAIR = GapJunctions(Dense(2, 2), 2.0**-7)


@jax.jit
def passive(gap, v, dt, steps):
    """Cells that leak towards 0 mV, after so many steps."""
    cell = LeakyIntegrator(TAU, R)

    def step(_, state):
        return cell.step(state, gap.current(state.v), dt=dt)[0]

    start = cell.init(v.shape, v.dtype)._replace(v=v)
    return jax.lax.fori_loop(0, steps, step, start).v


@pytest.mark.usefixtures("x64")
def test_of_two_cells_the_mean_leaks_and_the_difference_faster():
    """The mean with tau, the difference with tau / (1 + 2 g / g_leak): first order in dt."""
    start, off = jnp.array([10.0, 4.0]), []
    for n in (40, 80, 160):
        v = np.asarray(passive(PAIR, start, 10.0 / n, n))
        np.testing.assert_allclose(v.mean(), 7.0 * math.exp(-10 / TAU), rtol=1e-12)
        decay = math.exp(-10 / n / TAU)
        by_steps = (decay - (1 - decay) * 2 * R / 128) ** n
        np.testing.assert_allclose(v[0] - v[1], 6.0 * by_steps, rtol=1e-12)
        off.append(v[0] - v[1] - 6.0 * math.exp(-10 / TAU * (1 + 2 * R / 128)))
    np.testing.assert_allclose(np.log2(np.abs(off[:-1]) / np.abs(off[1:])), 1, atol=0.05)


@pytest.mark.usefixtures("x64")
def test_in_two_parts_it_is_stable_at_any_step_and_right_at_small_ones():
    """C dv/dt = -v / R + I - g v, exactly for what is held, as a neuron with a conductance does."""
    c, strong = TAU / R, GapJunctions(Dense(2, 2), 1.0)

    @jax.jit
    def run(gap, dt, steps):
        def step(_, v):
            current, g = gap.heard(v)
            aim = current / (1 / R + g)
            return aim + (v - aim) * jnp.exp(-dt * (1 / R + g) / c)

        return jax.lax.fori_loop(0, steps, step, jnp.array([10.0, 4.0]))

    assert np.abs(run(strong, 5.0, 40)).max() < 10  # dt sum g / C is 50
    mean, half = 7.0 * math.exp(-10 / TAU), 3.0 * math.exp(-10 / TAU * (1 + 2 * R / 128))
    exact = [mean + half, mean - half]
    off = [np.abs(run(PAIR, 10 / n, n) - np.array(exact)).max() for n in (40, 80, 160)]
    np.testing.assert_allclose(np.log2(np.array(off[:-1]) / off[1:]), 1, atol=0.05)


@pytest.mark.parametrize("kind", ["counted", "events"])
def test_every_layout_gives_the_sum_over_its_synapses(kind):
    c, rng = wiring.example(kind), np.random.default_rng(0)
    g = rng.uniform(0, 0.1, c.shape)
    one, other = rng.normal(-60, 5, (2, c.n_pre))
    full = wiring.matrix(c, np.where(wiring.synapses(c)[2] > 0, g, 0))
    expected = (full * (one - other[:, None])).sum(1)
    gap = GapJunctions(c, jnp.asarray(g, float))
    found = jax.jit(lambda v, u: gap.current(v, u))(*(jnp.asarray(x, float) for x in (one, other)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gap.total, full.sum(1), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_ring_of_passive_cells_follows_its_matrix():
    n, at = 6, np.arange(6)
    both = np.concatenate([at, at]), np.concatenate([(at + 1) % n, (at - 1) % n])
    gap = GapJunctions(by_sender(*both, n, n, native=False), 0.003)
    v = np.random.default_rng(0).normal(size=n)
    laplace = np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0) - 2 * np.eye(n)
    rates = (-np.eye(n) + R * 0.003 * laplace) / TAU
    exact = scipy.linalg.expm(10 * rates) @ v
    off = [np.abs(passive(gap, jnp.asarray(v), 10 / k, k) - exact).max() for k in (100, 200)]
    np.testing.assert_allclose(off[0] / off[1], 2, atol=0.05)
    assert off[1] < 1e-3
    np.testing.assert_allclose(gap.current(jnp.asarray(v)).sum(), 0, atol=1e-15)  # charge stays


def test_equal_potentials_pass_no_current_and_small_differences_all():
    gap = GapJunctions(Dense(3, 3), jnp.full((3, 3), 0.1))
    assert not gap.current(jnp.full(3, -64.7)).any()
    v = jnp.array([-65.0, -65.0, -65.0 + 2.0**-10], jnp.float32)
    np.testing.assert_allclose(gap.current(v)[0], 0.1 * 2.0**-10, rtol=1e-6)
    assert gap.current(v.astype("bfloat16")).dtype == "bfloat16"


def test_refuses_what_would_overshoot():
    gap = GapJunctions(Dense(2, 2), 0.05)  # .1 uS onto each
    gap.check(dt=0.1, c=0.2)
    with pytest.raises(
        ValueError, match=r"dt sum g / c of .* <= 1; got 2 at neuron 1: pass dt=0.5"
    ):
        gap.check(dt=1.0, c=jnp.array([0.2, 0.05]))
    with pytest.raises(ValueError, match="g must be finite and >= 0 uS; got -0.1"):
        GapJunctions(Dense(2, 2), -0.1)
    with pytest.raises(ValueError, match=r"g must be one number or one a synapse, .*\(2, 2\)"):
        GapJunctions(Dense(2, 2), jnp.ones(3))
    with pytest.raises(TypeError, match="connectivity must have apply, at_post; got int 3"):
        GapJunctions(3, 0.1)
    with pytest.raises(ValueError, match=r"v_pre must have shape \(2,\).*; got \(3,\)"):
        gap.current(jnp.ones(3), jnp.ones(2))
