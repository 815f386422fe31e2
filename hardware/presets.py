"""Published devices, each as a fit that its source gives, with the caller's `window` in S.

The fits are of the shape of the response and of its noise, in parts of the range; where the
source leaves the conductances open, the window is the caller's, by default that of `Device`.
How much devices differ (`sigma_d2d` of `varied` and `crossbar`) stands in each docstring.
"""

from typing import Any

from jax.typing import ArrayLike

from hardware.devices import Affine, Device, exp_step, linear
from hardware.pcm import PCM

__all__ = [
    "capacitor", "ecram", "ecram_metal_oxide", "gated_schottky", "pcm", "reram",
    "reram_soft_bounds", "resistive_processing_unit",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


def reram(**window: Any) -> Device:
    """Hafnium-oxide ReRAM, asymmetric and noisy; steps differ by 20%, windows by 30%.

    `window` are fields of `Device`, such as `G_min` and `G_max` (S), one number or one a device.

    >>> device = hardware.presets.reram(G_max=2e-5)
    >>> f"{float(device.sigma_c2c):.2%} of the range a pulse, from cycle to cycle"
    '0.34% of the range a pulse, from cycle to cycle'

    Source: Gong et al. (2018), Nature Communications 9, 2102, as fitted by exponential steps
    in aihwkit's ReRamESPreset.
    """
    dw_min, slower = 0.00135, 1 - 0.259359  # pulses down move less
    up = exp_step(2 / dw_min, -1.18445, 5.0, -0.5, -0.5)
    down = exp_step(2 / (dw_min * slower), -0.081404, 5.0, -0.5, 0.5)
    return Device(up, down, sigma_c2c=5.0 * dw_min / 2, **window)


def reram_soft_bounds(**window: Any) -> Device:
    """The same ReRAM about its symmetry point, as soft bounds; steps differ by 30%.

    `window` as in `reram`, of any shape.
    Source: Gong et al. (2018), Nature Communications 9, 2102, as loosely fitted in aihwkit's
    ReRamSBPreset.
    """
    dw_min = 0.002
    up, down = Affine(dw_min / 1.25, 1.0), Affine(dw_min / 0.75, 1.0)
    return Device(up, down, sigma_c2c=3.75 * dw_min / 2, **window)


def ecram(**window: Any) -> Device:
    """Lithium electrochemical RAM, nearly linear; steps differ by 10%, windows by 5%.

    `window` as in `reram`, of any shape.

    >>> round(float(hardware.presets.ecram().up.pulses_to(jnp.array(1.0))))  # from end to end
    1021

    Source: Tang et al. (2018), IEDM, 13.1, as fitted in aihwkit's EcRamPreset.
    """
    return _linear_step(0.002, -0.8276, 1.1724, 0.1153, 0.5085, 0.3, window)


def ecram_metal_oxide(**window: Any) -> Device:
    """Metal-oxide electrochemical RAM, 7,000 fine steps; they differ by 10%, windows by 5%.

    `window` as in `reram`, of any shape.
    Source: Kim et al. (2019), IEDM, 35.7, as fitted in aihwkit's EcRamMOPreset.
    """
    return _linear_step(2.8214e-4, -0.8286, 1.1714, 0.4152, 0.7342, 2.0, window)


def capacitor(**window: Any) -> Device:
    """Capacitor in CMOS, linear, without its leak; steps differ by 10%, windows by 7%.

    `window` as in `reram`, of any shape.

    >>> round(float(hardware.presets.capacitor().up.pulses_to(jnp.array(1.0))))  # from end to end
    400

    Source: Li et al. (2018), VLSI Technology, 25, as fitted in aihwkit's CapacitorPreset.
    """
    return _linear_step(0.005, -1.0, 1.0, 0.05, 0.05, 0.3, window)


def resistive_processing_unit(**window: Any) -> Device:
    """What training needs of a device, by design; steps and windows differ by 30%.

    `window` as in `reram`, of any shape.
    Source: Gokmen and Vlasov (2016), Front. Neurosci. 10, 333, table 1: 1,200 steps.
    """
    return Device(linear(1200), sigma_c2c=0.3 / 1200, **window)


def gated_schottky(n_pulses: ArrayLike, **window: Any) -> Device:
    """Gated Schottky diode: identical pulses raise its current almost linearly.

    How many, the abstract does not say, so the number is the caller's; `window` (S) as in
    `reram`, of any shape.

    >>> hardware.presets.gated_schottky(64).up
    Affine(step=0.015625)

    Source: Lim et al. (2018), ISCAS, doi 10.1109/ISCAS.2018.8351152.
    """
    return Device(linear(n_pulses), **window)


def pcm() -> PCM:
    """Mushroom-cell phase-change memory, 25 uS, 20 pulses to crystallise.

    >>> f"{float(hardware.presets.pcm().G_max) * 1e6:.0f} uS"
    '25 uS'

    Source: Nandakumar et al. (2019), ICECS (noise and drift); the number of pulses: Nandakumar
    et al. (2018), J. Appl. Phys. 124, 152135.
    """
    return PCM()


def _linear_step(
    dw_min: float, w_min: float, w_max: float, gamma_up: float, gamma_down: float,
    noise: float, window: dict[str, Any],
) -> Device:  # fmt: skip
    """dw = dw_min (1 - gamma_up w / w_max) up, dw_min (1 - gamma_down w / w_min) down, in u.

    With w = w_min + R u and R = w_max - w_min the step up is that of `Affine`, and with
    w = w_max - R u' the step down.
    """
    span = w_max - w_min
    up, down = 1 - gamma_up * w_min / w_max, 1 - gamma_down * w_max / w_min
    return Device(
        Affine(dw_min / span * up, gamma_up * span / w_max / up),
        Affine(dw_min / span * down, gamma_down * span / -w_min / down),
        sigma_c2c=noise * dw_min / span, **window,
    )  # fmt: skip
