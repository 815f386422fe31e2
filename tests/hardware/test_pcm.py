"""Phase-change memory against the formulas of its fit."""

from statistics import NormalDist

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware.crossbar import crossbar
from hardware.devices import Device, linear, power
from hardware.pcm import PCM
from hardware.programming import Single, Unidirectional
from neurojax.wiring.layouts import Dense

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
    # there neither depends on G, and each is drawn on its own
    assert abs(np.corrcoef(cells.G, cells.nu)[0, 1]) < 4 / np.sqrt(N)
    early, late = (device.read(cells, t=5.0 + t) for t in (2e3, 2e7))
    slope = np.log(late / early) / np.log((1 + 2e7 / 20) / (1 + 2e3 / 20))
    np.testing.assert_allclose(slope, -cells.nu, rtol=1e-3)
    np.testing.assert_allclose(device.read(cells, t=5.0), cells.G, rtol=1e-6)


@pytest.mark.parametrize("g", [0.001, 0.05, 0.2, 0.9])
def test_the_exponent_follows_the_conductance_between_its_bounds(g):
    device = PCM()
    cells = device.init(jnp.full(N, g * TOP))
    mu = np.clip(0.0244 - 0.0155 * np.log(g), 0.049, 0.1)
    s = np.clip(-0.0125 * np.log(g) - 0.0059, 0.008, 0.045)
    np.testing.assert_allclose(cells.nu, mu, rtol=1e-5)  # without a key: its mean
    drawn = np.asarray(device._drift(cells.G, jax.random.key(0)), float)
    assert drawn.mean() == pytest.approx(mu, abs=4 * s / np.sqrt(N) + 0.01 * s)  # |.|: 2.2 s off
    assert drawn.std() == pytest.approx(s, rel=4 / np.sqrt(2 * N) + 0.03)
    assert drawn.min() >= 0


def test_programming_noise_leaves_no_conductance_below_zero():
    _, cells = pulsed(0.0, 1.0, key=jax.random.key(3))  # a reset: noise of .26 uS about 0
    G = np.asarray(cells.G, float)
    assert G.min() == 0
    assert (G == 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(N))
    assert G[G > 0].mean() == pytest.approx(0.798 * 0.26348e-6, rel=4 * 0.76 / np.sqrt(N / 2))


def test_nothing_has_drifted_before_the_last_pulse():
    device, full = PCM(), jnp.ones(4)
    cells = device.init(jnp.linspace(1e-6, 2e-5, 4))
    cells = device.pulse(cells, full, 0 * full, t=100.0)
    np.testing.assert_array_equal(device.read(cells), cells.G)  # at the default time, 0
    np.testing.assert_array_equal(device.read_sigma(cells), device.read_sigma(cells, t=100.0))
    assert np.isfinite(device.read(cells, key=jax.random.key(0))).all()
    later = np.asarray(device.read(cells, t=120.0))
    np.testing.assert_allclose(later, cells.G * 2**-cells.nu, rtol=1e-6)
    # what is read sooner than a read lasts has no noise, rather than none that is a number
    swift = PCM(t_0=1e-7)
    assert (swift.read_sigma(swift.init(jnp.full(4, 5e-6))) == 0).all()


@pytest.mark.parametrize("device", [PCM(), Device(linear(20), nu=0.05, sigma_c2c=0.1)])
def test_the_type_of_the_conductances_is_kept_and_time_begins_at_0(device):
    G, n = jnp.full(4, 5e-6, jnp.bfloat16), jnp.ones(4)
    fresh = device.init(G)
    cells = device.pulse(fresh, n, 0 * n, key=jax.random.key(0))
    for x in (fresh.G, cells.G, device.read(cells, key=jax.random.key(1))):
        assert x.dtype == jnp.bfloat16
    for last in (fresh.since, cells.since):
        np.testing.assert_array_equal(last.s + last.rest, jnp.zeros(4))


def test_only_a_pulse_restarts_the_drift_and_draws_its_exponent_anew():
    device, G = PCM(), jnp.full(4, 5e-6)
    n = jnp.array([0.0, 1.0, 0.0, 2.0])
    cells = device.pulse(device.init(G), n, 0 * n, key=jax.random.key(0), t=100.0)
    np.testing.assert_array_equal(cells.since.s, [0, 100, 0, 100])
    np.testing.assert_array_equal(cells.nu == device.init(G).nu, n == 0)
    np.testing.assert_array_equal(cells.G == G, n == 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_drift_goes_by_seconds_also_after_a_year(dtype):
    with jax.enable_x64(dtype == "float64"):
        year, device, full = 3.2e7, PCM(), jnp.ones(4, dtype)
        cells = device.init(jnp.full(4, 5e-6, dtype))
        cells = device.pulse(cells, full, 0 * full, t=year + 1)
        seen = device.read(cells, t=year + 21.5) / cells.G  # float32 has neither time
        np.testing.assert_allclose(seen, (1 + 20.5 / 20) ** -cells.nu, rtol=1e-6)


def test_noise_of_reading_is_cut_off_where_conductance_is_low():
    device = PCM()
    cells = device.init(jnp.array([1e-8, 1e-6]))  # .0088 / g^.65 would be 1.4 and .071
    log = np.sqrt(np.log((20 + 250e-9) / 500e-9))
    part = np.asarray(device.read_sigma(cells) / cells.G)
    np.testing.assert_allclose(part, [0.2 * log, 0.0088 / 0.04**0.65 * log], rtol=1e-4)
    seen = np.asarray(device.read(device.init(jnp.full(N, 1e-8)), key=jax.random.key(4)))
    assert seen.min() == 0  # where the noise, .84 of G, would lead below: .117 of them
    below = NormalDist().cdf(-1 / (0.2 * log))
    assert (seen == 0).mean() == pytest.approx(below, abs=4 * np.sqrt(below / N))


def test_one_over_f_noise_grows_with_the_root_of_the_logarithm():
    device, cells = pulsed(10.0)
    G = 1e-6 + TOP / 2
    for t in (0.0, 1e4):
        seen = device.read(cells, key=jax.random.key(2), t=5.0 + t)
        part = 0.0088 / (G / TOP) ** 0.65 * np.sqrt(np.log((t + 20 + 250e-9) / 500e-9))
        mean = float(device.read(cells, t=5.0 + t)[0])
        assert np.std(seen) / mean == pytest.approx(part, rel=4 / np.sqrt(2 * N) + 1e-3)


def test_pulses_up_add_and_a_pulse_down_resets():
    device, cells = pulsed(5.0, n=4)
    np.testing.assert_allclose(cells.G, 1e-6 + TOP / 4, rtol=1e-5)
    goals = jnp.array([-TOP, 0.0, TOP / 4, TOP])
    np.testing.assert_array_equal(device.pulses_to(goals), [0, 0, 5, 20])
    _, reset = pulsed(5.0, 1.0, n=4)
    np.testing.assert_array_equal(reset.G, 0.0)
    assert reset.n_pulses.tolist() == [6, 6, 6, 6]


def test_noise_beyond_the_window_is_taken_back_by_the_next_pulse():
    for up in (linear(20), power(20, 0.5)):
        device = PCM(up, G_min=5e-6)
        cells = device.init(jnp.full(2, 1e-5))._replace(G=jnp.array([1e-6, 30e-6]))
        after = device.pulse(cells, jnp.ones(2), jnp.zeros(2)).G
        np.testing.assert_allclose(after, [5e-6 + 1e-6, 25e-6], rtol=1e-5)
    device = PCM(G_min=5e-6)
    np.testing.assert_array_equal(device.pulses_to(jnp.array([5e-6, 15e-6, 25e-6])), [0, 10, 20])


@pytest.mark.slow
def test_it_holds_weights():
    make = crossbar(PCM(), Unidirectional(Single(20)), 1.0)
    fresh = eqx.filter_jit(lambda w: make(w, Dense(5, 4), jax.random.key(0)))
    held = fresh(jnp.full((4, 5), 0.5))
    assert held.noisy
    # Programming noise is about 1 uS of 25 there, on one side; .3 uS on the other.
    np.testing.assert_allclose(held.w, 0.5, atol=5 * 1.1 / 25)
    assert np.any(held.apply(jnp.ones(5), key=jax.random.key(1)) != held.apply(jnp.ones(5)))
    later = held.waited(1e6)
    assert (jnp.abs(later.w) < jnp.abs(held.w)).all()
    program = eqx.filter_jit(lambda held, dw, key: held.program(dw, key=key))
    changed = program(held, jnp.full((4, 5), -0.02), jax.random.key(2))
    assert (changed.pair.cells_plus.n_pulses == held.pair.cells_plus.n_pulses).all()
    assert (changed.pair.cells_minus.n_pulses > held.pair.cells_minus.n_pulses).any()


def test_a_window_that_is_none_is_refused():
    with pytest.raises(ValueError, match="G_max must be above G_min"):
        PCM(G_min=30e-6)
