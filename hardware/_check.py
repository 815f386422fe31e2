"""Checks that only hardware needs."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array

from neurojax._check import (
    MOST,
    Plain,
    brief,
    count,
    instance,
    known_finite,
    ordered,
    prng_key,
    real,
)


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
    """Refuse unless `x` holds two or more finite numbers, each above the one before.

    Traced values are taken on trust, but not their shape.
    """
    allowed = f"{name} must be two or more rising numbers, {unit}"
    if np.ndim(x) != 1 or len(x) < 2:
        raise ValueError(f"{allowed}; got shape {np.shape(x)}")
    try:
        values = np.asarray(x, float)
    except jax.errors.TracerArrayConversionError:
        return
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise ValueError(f"{allowed}; got {brief(values.tolist())}")


def ordered_thresholds(lower: Array, upper: Array) -> None:
    """Refuse unless lower < upper; traced values are taken on trust."""
    ordered("lower", lower, "upper", upper, "of the range")


def one_a_device(model: eqx.Module, shape: tuple[int, ...]) -> None:
    """Refuse a parameter that is neither one number nor one a device of `shape`."""
    for name, value in vars(model).items():
        if eqx.is_array(value) and value.shape not in ((), shape):
            raise ValueError(
                f"{name} of {type(model).__name__} must be one number or one a device, of shape"
                f" {shape}; got shape {value.shape}"
            )


def bits(x: Any) -> int:
    """Field converter: whole bits that a float32 can tell apart."""
    n = count("bits")(x)
    if n > 24:
        raise ValueError(f"bits must be at most 24, those of a float32; got {n}")
    return n


def called(name: str, cure: str, *, of: str = "", optional: bool = False) -> Callable[[Any], Any]:
    """Field converter: `x`, refused unless it can be called as it stands, or None if `optional`.

    A class is refused, and so is a function of the module `of`, which makes what is meant. One's
    own function becomes structure, so that a device has arrays alone for leaves.
    """

    def convert(x: Any) -> Any:
        if x is None and optional:
            return None
        if isinstance(x, FunctionType) and x.__module__ == of:
            raise TypeError(
                f"{name} must be what {x.__name__} returns; got the function: pass {cure}"
            )
        instance(name, x)
        if not callable(x):
            raise TypeError(f"{name} must be callable; got {brief(x)}: pass {cure}")
        return Plain(x) if jax.tree_util.all_leaves([x]) else x

    return convert


def trains(n_up: Any, n_down: Any, dtype: DTypeLike) -> tuple[Array, Array]:
    """Pulses up and down as floats; negative ones are refused where they are known."""
    return _pulses("n_up", n_up).astype(dtype), _pulses("n_down", n_down).astype(dtype)


def _pulses(name: str, n: Any) -> Array:
    n = real(n, name)
    if not isinstance(n, Tracer):
        values = np.asarray(n, float)
        bad = ~((values >= 0) & (values <= MOST))
        if bad.any():
            raise ValueError(f"{name} must be >= 0 pulses, at most {MOST}; got {values[bad][0]:g}")
    return n


def conductance(G: Any) -> Array:
    """`G` as floats, S; what is no number is refused where it is known."""
    return known_finite("G", real(G, "G"), "S")


def normal(key: Any, like: Array) -> Array:
    """Standard normal numbers of the shape and type of `like`, from a key that is checked."""
    return jax.random.normal(prng_key(key), like.shape, like.dtype)


def coder(x: Any) -> Any:
    """Field converter: a coder, refused where it is a number, a class or a policy."""
    x = called("coder", "hardware.Train(n_pulses)")(x)
    if hasattr(x, "init"):
        raise TypeError(
            f"coder must say how many pulses; got the policy {type(x).__name__}: pass"
            " hardware.Train(n_pulses)"
        )
    return x


def policy(x: Any, name: str = "policy") -> Any:
    """Field converter: a policy, refused where it is a number, a class or a coder."""
    called(name, "hardware.Bidirectional(hardware.Train(n_pulses))")(x)
    if not hasattr(x, "init"):
        raise TypeError(
            f"{name} must say which devices move; got the coder {type(x).__name__}: pass"
            f" hardware.Bidirectional({type(x).__name__}(...))"
        )
    return x
