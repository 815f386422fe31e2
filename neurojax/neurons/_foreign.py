"""Parameters of other simulators' neurons as time constants: equal where run at the same dt."""

from typing import Any

import numpy as np

from neurojax._check import choice, doubles, step_size

_AT_ONCE = 1000.0  # exp(-1000) is 0 in every float type


def time_constant(decay: Any, dt: float) -> Any:
    """ms; what is left of a potential after `dt` is `decay`, in [0, 1); nothing for 0."""
    lasting = np.asarray(decay) > 0
    shown = np.where(lasting, decay, 0.5)
    return np.where(lasting, -dt / np.log(shown), dt / _AT_ONCE)


def lasting(beta: Any, threshold: Any, reset: str, dt: Any) -> dict[str, Any]:
    """Fields of a `LIF` that keeps `beta` of its potential and hears currents whole."""
    choice("reset", "subtract", "zero")(reset)
    dt = float(step_size(dt))
    beta = numbers("beta", beta, "in [0, 1): a neuron with beta = 1 is nj.IF", 0.0, 1.0)
    threshold = numbers("threshold", threshold, "> 0", np.nextafter(0, 1), np.inf)
    if reset == "subtract" and not beta.all():
        raise ValueError('beta must be > 0 beside reset="subtract"; got 0.0: pass reset="zero"')
    fields = {"tau_mem": time_constant(beta, dt), "r_mem": 1 / (1 - beta), "v_th": threshold}
    if reset == "zero":
        return fields | {"reset": "hard"}
    return fields | {"v_reset": threshold * (1 - 1 / beta), "reset": "subtract"}


def eulers(tau_inv: Any, dt: Any) -> Any:
    """ms; of a membrane that a step of Euler's method moves by dt tau_inv, which is in 1/s."""
    dt = float(step_size(dt))
    part = numbers("tau_mem_inv", tau_inv, "finite, in 1/s", -np.inf, np.inf) * dt / 1000
    if not ((part > 0) & (part <= 1 + 1e-12)).all():
        bad = part[~((part > 0) & (part <= 1))][0]
        raise ValueError(
            f"tau_mem_inv must be in (0, {1000 / dt:g}] 1/s, so that a step of {dt:g} ms does not"
            f" overshoot; got {1000 * bad / dt:g}: pass a smaller dt"
        )
    return time_constant(np.maximum(1 - part, 0), dt)


def numbers(name: str, x: Any, allowed: str, low: float, high: float) -> Any:
    """Doubles in [low, high), refused by the name of the argument."""
    value = doubles(f"{name} must be {allowed}", x)
    bad = ~((value >= low) & (value < high)) | ~np.isfinite(value)
    if bad.any():
        got = f"{np.atleast_1d(value)[np.atleast_1d(bad)][0]} ({bad.sum()} of {value.size})"
        raise ValueError(f"{name} must be {allowed}; got {got}")
    return value
