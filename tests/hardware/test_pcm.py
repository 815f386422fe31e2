"""Phase-change memory against the formulas of its fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware.crossbar import crossbar
from hardware.pcm import PCM
from hardware.programming import Single, Unidirectional
from neurojax.layouts import Dense

N = 40_000
TOP = 25e-6


def pulsed(n_up=0.0, n_down=0.0, G=1e-6, key=None, n=N):
    device, full = PCM(), jnp.ones(n)
    cells = device.init(jnp.full(n, G))
    return device, device.pulse(cells, n_up * full, n_down * full, key=key, t=5.0)


@pytest.mark.parametrize("n", [0.0, 4.0, 12.0])
def test_programming_noise_is_that_of_the_fit(n):
    _, cells = pulsed(n + 1, key=jax.random.key(0))
    target = 1e-6 + (n + 1) / 20 * TOP
    g = target / TOP
    sigma = (0.26348 + 1.965 * g - 1.1731 * g**2) * 1e-6
    # At the low end the noise is cut off at no conductance; here it never gets there.
    assert np.mean(cells.G) == pytest.approx(target, abs=4 * sigma / np.sqrt(N))
    assert np.std(cells.G) == pytest.approx(sigma, rel=4 / np.sqrt(2 * N))


def test_drift_has_slope_minus_nu_and_nu_its_moments():
    device, cells = pulsed(10.0, key=jax.random.key(1))
    # g is about .54, spread by 4%: mu and s are at their lower ends, .049 and .008.
    assert np.mean(cells.nu) == pytest.approx(0.049, abs=1e-3)
    assert np.std(cells.nu) == pytest.approx(0.008, rel=0.05)
    early, late = (device.read(cells, t=5.0 + t) for t in (2e3, 2e7))
    slope = np.log(late / early) / np.log((1 + 2e7 / 20) / (1 + 2e3 / 20))
    np.testing.assert_allclose(slope, -cells.nu, rtol=1e-3)
    np.testing.assert_allclose(device.read(cells, t=5.0), cells.G, rtol=1e-6)


def test_one_over_f_noise_grows_with_the_root_of_the_logarithm():
    device, cells = pulsed(10.0)
    G = 1e-6 + TOP / 2
    for t in (0.0, 1e4):
        seen = device.read(cells, key=jax.random.key(2), t=5.0 + t)
        part = 0.0088 / (G / TOP) ** 0.65 * np.sqrt(np.log((t + 20 + 250e-9) / 500e-9))
        mean = float(device.read(cells, t=5.0 + t)[0])
        assert np.std(seen) / mean == pytest.approx(part, rel=4 / np.sqrt(2 * N) + 1e-3)


def test_pulses_up_add_and_a_pulse_down_resets():
    device, cells = pulsed(5.0, n=3)
    np.testing.assert_allclose(cells.G, 1e-6 + TOP / 4, rtol=1e-5)
    np.testing.assert_array_equal(device.pulses_to(jnp.array([0.0, TOP / 4, TOP])), [0, 5, 20])
    _, reset = pulsed(5.0, 1.0, n=3)
    np.testing.assert_array_equal(reset.G, 0.0)
    assert reset.n_pulses.tolist() == [6, 6, 6]


def test_it_holds_weights():
    make = crossbar(PCM(), Unidirectional(Single(20)), 1.0)
    held = make(jnp.full((4, 5), 0.5), Dense(5, 4), jax.random.key(0))
    assert held.noisy
    # Programming noise is about 1 uS of 25 there, on one side; .3 uS on the other.
    np.testing.assert_allclose(held.w, 0.5, atol=5 * 1.1 / 25)
    assert np.any(held.apply(jnp.ones(5), key=jax.random.key(1)) != held.apply(jnp.ones(5)))
    later = held.waited(1e6)
    assert (jnp.abs(later.w) < jnp.abs(held.w)).all()
    changed = held.program(jnp.full((4, 5), -0.02), key=jax.random.key(2))
    assert (changed.pair.cells_plus.n_pulses == held.pair.cells_plus.n_pulses).all()
    assert (changed.pair.cells_minus.n_pulses > held.pair.cells_minus.n_pulses).any()


def test_a_window_that_is_none_is_refused():
    with pytest.raises(ValueError, match="G_max must be above G_min"):
        PCM(G_min=30e-6)
