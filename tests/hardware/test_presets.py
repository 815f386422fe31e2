"""Presets: the published step in weights, pulse by pulse."""

import jax.numpy as jnp
import numpy as np
import pytest

from hardware import presets

# w_min, w_max, then the step up and down at w, as the sources write them.
ECRAM = (-0.8276, 1.1724, lambda w: 0.002 * (1 - 0.1153 * w / 1.1724),
         lambda w: 0.002 * (1 + 0.5085 * w / 0.8276))  # fmt: skip
METAL_OXIDE = (-0.8286, 1.1714, lambda w: 2.8214e-4 * (1 - 0.4152 * w / 1.1714),
               lambda w: 2.8214e-4 * (1 + 0.7342 * w / 0.8286))  # fmt: skip
CAPACITOR = (-1.0, 1.0, lambda w: 0.005 * (1 - 0.05 * w), lambda w: 0.005 * (1 + 0.05 * w))
SOFT = (-0.75, 1.25, lambda w: 0.002 * (1 - w / 1.25), lambda w: 0.002 * (1 + w / 0.75))
RERAM = (-1.0, 1.0, lambda w: 0.00135 * (1 + 1.18445 * np.exp(5 * (-0.5 * w - 0.5))),
         lambda w: 0.00135 * (1 - 0.259359) * (1 + 0.081404 * np.exp(-5 * (-0.5 * w - 0.5)))
         )  # fmt: skip
FITS = {"ecram": ECRAM, "ecram_metal_oxide": METAL_OXIDE, "capacitor": CAPACITOR,
        "reram_soft_bounds": SOFT, "reram": RERAM}  # fmt: skip
# Noise from cycle to cycle, in steps dw_min, as the sources give it; in parts of the range then.
NOISE = {"ecram": 0.3 * 0.002 / 2, "ecram_metal_oxide": 2.0 * 2.8214e-4 / 2,
         "capacitor": 0.3 * 0.005 / 2, "reram_soft_bounds": 3.75 * 0.002 / 2,
         "reram": 5.0 * 0.00135 / 2, "resistive_processing_unit": 0.3 / 1200}  # fmt: skip


@pytest.mark.parametrize("name", NOISE)
def test_noise_of_a_pulse_is_that_of_the_fit_and_windows_are_the_callers(name):
    device = getattr(presets, name)(G_max=3e-5)
    np.testing.assert_allclose(device.sigma_c2c, NOISE[name], rtol=1e-6)
    assert device.G_max == np.float32(3e-5)
    schottky = presets.gated_schottky(32, G_max=3e-5, sigma_c2c=0.25)
    assert (schottky.G_max, schottky.sigma_c2c) == (np.float32(3e-5), 0.25)
    assert presets.resistive_processing_unit().up.step == np.float32(1 / 1200)


@pytest.mark.parametrize("name", FITS)
def test_steps_are_those_of_the_fit(name):
    low, high, up, down = FITS[name]
    device = getattr(presets, name)(G_min=0.0, G_max=1.0)
    w = np.linspace(low, high, 9)[1:-1]
    cells = device.init(jnp.asarray((w - low) / (high - low)))
    one, none = jnp.ones(7), jnp.zeros(7)
    moved = [
        (device.pulse(cells, *n).G - cells.G) * (high - low) for n in ((one, none), (none, one))
    ]
    # Steps are differences of numbers near 1: a rounding of 6e-8 each.
    np.testing.assert_allclose(moved[0], up(w), atol=5e-7)
    np.testing.assert_allclose(moved[1], -down(w), atol=5e-7)


def test_others_span_their_range():
    for device, n in (
        (presets.resistive_processing_unit(), 1200),
        (presets.gated_schottky(32), 32),
    ):
        cells = device.init(jnp.array([1e-6]))
        np.testing.assert_allclose(device.pulse(cells, jnp.array([1.0 * n]), jnp.zeros(1)).G, 1e-5)
    assert presets.pcm().pulses_to(jnp.array([25e-6])).item() == 20


@pytest.mark.parametrize("name", [n for n in dir(presets) if not n.startswith("_") and n.islower()])
def test_each_names_its_source(name):
    made = getattr(presets, name)
    if callable(made) and made.__module__ == presets.__name__:
        assert "Source: " in made.__doc__
