"""Exponential decay that holds in long runs, whatever type it is kept in.

exp(-dt / tau) rounded and applied n times is off by n 6e-8, and a step below the last digit of
a value is lost. So what leaves is added, x + expm1(-dt / tau) x, and what the type of x cannot
hold of the sum stays beside it as `low`: the value is x + low. Where that would never be felt,
`low` is None, and nothing is kept.
Source: Dekker (1971), A floating-point technique for extending the available precision.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array

from neurojax._check import working


def leak(dt: Array, tau: Array) -> Array:
    """The change in a step of `dt` of what is 1 and decays with `tau`: expm1(-dt / tau)."""
    return jnp.expm1(-dt / tau)


def felt(tau: Array, dtype: DTypeLike, around: Array | float = 0.0) -> bool:
    """Whether rounding in `dtype` moves a decay by `tau` (ms) towards `around` by 1e-3 or more.

    In steps of .01 ms and longer, that is: each loses half a digit of what leaves in it. So in
    float32 up to 167 ms around 0; what is traced may be anything.
    """
    if isinstance(tau, Tracer) or isinstance(around, Tracer):
        return True
    half = float(jnp.finfo(jax.dtypes.canonicalize_dtype(dtype)).eps) / 2  # of float: as it is kept
    return bool(np.any(np.asarray(around) != 0) or np.any(np.asarray(tau) > 1e-3 * 0.01 / half))


def add(x: Array, by: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    """x + by, as what `dtype` holds of it, and the rest; both in the type of `x`.

    No gradient is lost: that of the sum is all in the first.
    """
    total = _held(x + by, dtype)
    return total, jax.lax.stop_gradient(by - (total - x))


def left_out(tau: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array | None:
    """What `dtype` cannot hold of a decay by `tau` to 0, before its first step."""
    return jnp.zeros(shape, working(dtype)) if felt(tau, dtype) else None


def moved(x: Array, by: Array, low: Array | None, dtype: DTypeLike) -> tuple[Array, Any]:
    """x + low + by, and what `dtype` cannot hold of it where that is kept: None where it is not."""
    return (x + by, None) if low is None else add(x, by + low, dtype)


def fade(x: Array, low: Array | None, leak: Array, dtype: DTypeLike) -> tuple[Array, Any]:
    """What is left of x + low after a step."""
    return moved(x, leak * whole(x, low, dtype), low, dtype)


def whole(x: Array, low: Array | None, dtype: DTypeLike) -> Array:
    """x + low to the digits that are calculated with: x itself, unless `dtype` holds fewer."""
    return x if low is None or jnp.dtype(dtype) == x.dtype else x + low


def _held(x: Array, dtype: DTypeLike) -> Array:
    if jnp.dtype(dtype) == x.dtype:
        return x
    kind = jnp.finfo(dtype)  # a cast to and fro may be skipped by the compiler
    return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)
