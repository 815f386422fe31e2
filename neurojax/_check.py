"""Checks at the boundary, and the precision that models calculate in."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array


@dataclass(frozen=True)
class Converter:
    """Field converter: the argument as an array, refused unless finite and in its range."""

    allowed: str  # as a refusal says it
    unit: str
    low: float = -math.inf
    high: float = math.inf
    closed: bool = True  # the ends belong to the range
    above: str | None = None  # the field of the same model that it must exceed

    def __call__(self, x: Any) -> Array:  # Any: what is no number is refused in our words
        try:
            value = np.asarray(x, float)
        except jax.errors.TracerArrayConversionError:  # under jit or vmap: checked at run time
            traced = _strong(x)
            return eqx.error_if(traced, ~(self.valid(traced) & jnp.isfinite(traced)), self.allowed)
        except (TypeError, ValueError):  # not a number, such as "20"
            raise ValueError(f"{self.allowed}; got {x!r}") from None
        bad = ~(self.valid(value) & np.isfinite(value))
        if bad.any():
            raise ValueError(f"{self.allowed}; got {value[bad][0]} ({bad.sum()} of {bad.size})")
        return _strong(x)

    def valid(self, x: Any) -> Any:
        """Where `x` lies in the range."""
        if self.closed:
            return (x >= self.low) & (x <= self.high)
        return (x > self.low) & (x < self.high)


@dataclass(frozen=True)
class optional:
    """The converter, for a field that may also be None."""

    of: Converter

    def __call__(self, x: Any) -> Array | None:
        return None if x is None else self.of(x)


def positive(name: str, unit: str) -> Converter:
    """Field converter: the argument as an array, refused unless finite and > 0."""
    return Converter(f"{name} must be finite and > 0 {unit}".rstrip(), unit, low=0.0, closed=False)


def nonnegative(name: str, unit: str) -> Converter:
    """Field converter: the argument as an array, refused unless finite and >= 0."""
    return Converter(f"{name} must be finite and >= 0 {unit}".rstrip(), unit, low=0.0)


def finite(name: str, unit: str, above: str | None = None) -> Converter:
    """Field converter: the argument as an array, refused unless finite."""
    return Converter(f"{name} must be finite, in {unit}", unit, above=above)


def between(name: str, low: float, high: float, unit: str = "") -> Converter:
    """Field converter: the argument as an array, refused unless low <= x <= high."""
    allowed = f"{name} must lie in [{low:g}, {high:g}]{unit and ' '}{unit}"
    return Converter(allowed, unit, low, high)


def choice(name: str, *allowed: str) -> Callable[[Any], Any]:
    """Field converter: the argument, refused unless it is one of `allowed`."""

    def convert(x: Any) -> Any:
        if x not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}; got {x!r}")
        return x

    return convert


def count(name: str, low: int = 1) -> Callable[[Any], int]:
    """Field converter: the argument as a Python integer, refused unless whole and >= low."""

    def convert(x: Any) -> int:
        try:
            value = operator.index(x)
        except TypeError:
            value = low - 1
        if value < low or isinstance(x, bool):
            raise ValueError(f"{name} must be a whole number >= {low}; got {x!r}")
        return value

    return convert


class Plain(eqx.Module):
    """A function as structure, so that the model that holds it has arrays alone for leaves."""

    f: Callable = eqx.field(static=True)

    def __call__(self, *args: Any) -> Any:
        return self.f(*args)

    def __deepcopy__(self, _: dict) -> "Plain":
        return self  # functions that are jitted would be copied to ones that are not equal

    def __repr__(self) -> str:
        return getattr(self.f, "__qualname__", repr(self.f))


def function(name: str, **default: Any) -> Any:
    """Field of a model that holds a function: one's own, or a pytree such as a surrogate."""

    def convert(f: Any) -> Any:
        instance(name, f, "__call__")
        return Plain(f) if jax.tree_util.all_leaves([f]) else f

    return eqx.field(converter=convert, **default)


def _strong(x: Any) -> Array:
    """`x` as an array of its own float dtype, never a weak one: weak types retrace."""
    if isinstance(x, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype))
    return jnp.asarray(x, float)


def ordered(low_name: str, low: Array, high_name: str, high: Array, unit: str) -> None:
    """Refuse unless low < high, neuron by neuron; traced values are taken on trust."""
    if low.ndim and high.ndim and low.shape != high.shape:
        raise ValueError(
            f"{high_name} has shape {high.shape} and {low_name} {low.shape}: pass one number"
            " or one per neuron"
        )
    try:
        below, above = np.asarray(low, float), np.asarray(high, float)
    except jax.errors.TracerArrayConversionError:
        return
    bad = ~(below < above)
    if bad.any():
        first = np.broadcast_to(above, bad.shape)[bad][0], np.broadcast_to(below, bad.shape)[bad][0]
        raise ValueError(
            f"{high_name} must be above {low_name}; got {first[0]:g} and {first[1]:g} {unit}"
        )


def in_range(model: Any) -> None:
    """Refuse parameters that have left their range since they were handed over.

    An optimiser's step may do that. Traced values are taken on trust.
    """
    for field in fields(model):
        value = getattr(model, field.name)
        if isinstance(value, eqx.Module):
            in_range(value)
        elif isinstance(field.metadata.get("converter"), Converter | optional):
            if not isinstance(value, Tracer):
                field.metadata["converter"](value)
    getattr(model, "__check_init__", lambda: None)()


def fits(model: eqx.Module, shape: tuple[int, ...]) -> None:
    """Refuse a parameter out of range, or neither one number nor one per neuron of `shape`."""
    in_range(model)
    for path, value in jax.tree_util.tree_leaves_with_path(model):
        if eqx.is_array(value) and value.shape not in ((), tuple(shape)):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"{name} of {type(model).__name__} must be one number or one per neuron, of"
                f" shape {tuple(shape)}; got shape {value.shape}"
            )


def cast(tree: Any, dtype: DTypeLike) -> Any:
    """`tree` with its float leaves in `dtype`; integers and typed keys stay as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def working(dtype: DTypeLike) -> DTypeLike:
    """The dtype to calculate in for a state kept in `dtype`: float32 at the least.

    Parameters follow the state: they neither widen a float32 state under
    `jax_enable_x64` nor lose their digits to a bfloat16 one before the result is rounded.
    """
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def step_size(dt: Any) -> Any:
    """`dt` as it came, refused unless finite and > 0 ms; traced values are checked at run time."""
    checked = positive("dt", "ms")(dt)
    return checked if isinstance(dt, Tracer) else dt


def time_step(dt: Any, dtype: DTypeLike) -> Array:
    """`dt` to calculate with; refused unless one number, and > 0 ms where its value is known."""
    if jnp.shape(dt):
        raise ValueError(f"dt must be one number; got shape {jnp.shape(dt)}: jax.vmap over it")
    return jnp.asarray(dt if isinstance(dt, Tracer) else step_size(dt), dtype)


def one_each(name: str, x: Any, shape: tuple[int, ...]) -> Array:
    """`x` as floats, refused unless one number a neuron of `shape`."""
    x = real(x)
    if x.shape != shape:
        raise ValueError(
            f"{name} must have shape {shape}, one number a neuron; got {x.shape}: jax.vmap over"
            " a batch"
        )
    return x


def prng_key(key: Any, name: str = "key") -> Any:
    """`key` as it came, refused unless it is one JAX key."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
    if not typed and not raw:
        cure = f"jax.random.key({key})" if isinstance(key, int) else "jax.random.key(0)"
        raise TypeError(f"{name} must be a JAX key; got {key!r}: pass {cure}")
    if key.shape != (() if typed else (2,)):
        raise ValueError(f"{name} must be one key; got shape {key.shape}: jax.vmap over keys")
    return key


def instance(name: str, x: Any, *methods: str) -> Any:
    """`x` as it came, refused where it is a class, or lacks one of `methods`."""
    if isinstance(x, type):
        raise TypeError(f"{name} must be an instance; got the class: pass {x.__name__}()")
    lacking = [m for m in methods if not callable(getattr(x, m, None))]
    if lacking:
        raise TypeError(f"{name} must have {', '.join(lacking)}; got {type(x).__name__} {x!r:.80}")
    return x


def real(x: Any) -> Array:
    """Booleans and whole numbers as floats; floats as they came."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)


def classes(name: str, target: Any, n: int) -> Array:
    """Labels as an array, refused unless whole and in [0, n); traced values are taken on trust."""
    given, target = target, jnp.asarray(target)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"{name} must be whole; got {target.dtype}: pass {name}.astype(int)")
    if not isinstance(given, Tracer):
        value = np.asarray(given)
        bad = (value < 0) | (value >= n)
        if bad.any():
            raise ValueError(
                f"{name} must be in [0, {n}), as there are {n} classes; got {value[bad][0]}"
                f" ({bad.sum()} of {bad.size})"
            )
    return target


def in_working(x: Any, *parts: Any) -> tuple[Any, ...]:
    """`x` and `parts` in the dtype to calculate in for an `x` stored as it is."""
    return cast((x, *parts), working(x.dtype))
