"""Checks that only hardware needs."""

import numpy as np
from jaxtyping import Array

from neurojax._check import ordered


def window(G_min: Array, G_max: Array) -> None:
    """Refuse unless G_min < G_max, device by device; traced values are taken on trust."""
    ordered("G_min", G_min, "G_max", G_max, "S")


def rising(name: str, x: Array, unit: str) -> None:
    """Refuse unless `x` holds two or more finite numbers, each above the one before."""
    values = np.asarray(x, float)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all():
        raise ValueError(f"{name} must be two or more rising numbers, {unit}; got {values}")


def ordered_thresholds(lower: Array, upper: Array) -> None:
    """Refuse unless lower < upper; traced values are taken on trust."""
    ordered("lower", lower, "upper", upper, "of the range")
