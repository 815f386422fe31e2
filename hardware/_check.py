"""Checks that only hardware needs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neurojax._check import instance, ordered


def kind(name: str, x: Any, cls: type) -> Any:
    """`x` as it came, refused unless it is a `cls`."""
    if not isinstance(instance(name, x), cls):
        got = f"{type(x).__name__} {x!r:.80}"
        raise TypeError(f"{name} must be an instance of {cls.__name__}; got {got}")
    return x


def single(name: str, x: Array) -> Array:
    """`x`, refused unless it is one number."""
    if x.shape != ():
        raise ValueError(f"{name} must be one number; got shape {x.shape}: jax.vmap over several")
    return x


def whole(name: str, x: Any) -> Array | np.ndarray:
    """`x` as an array [n], refused unless of whole numbers."""
    values = x if isinstance(x, jax.Array) else np.asarray(x)
    if values.ndim != 1 or not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be whole numbers of shape [n]; got shape {values.shape}, {values.dtype}"
        )
    return values


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
