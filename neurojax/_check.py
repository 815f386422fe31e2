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

from neurojax._memory import affordable

_REAL = (jnp.floating, jnp.integer)
MOST = 2**31 - 1  # what is counted is numbered in 32 bits


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
            self.refuse(x)
        except jax.errors.TracerArrayConversionError:  # under jit or vmap: checked at run time
            traced = _strong(x)
            return eqx.error_if(traced, ~(self.valid(traced) & jnp.isfinite(traced)), self.allowed)
        with jax.ensure_compile_time_eval():  # what is known stays so under jit, as that noise is 0
            return _strong(x)

    def refuse(self, x: Any) -> None:
        """Raise for what is not in range; no array is made, so that no backend starts for it."""
        value = doubles(self.allowed, x)
        bad = ~(self.valid(value) & np.isfinite(value))
        if bad.any():
            raise ValueError(f"{self.allowed}; got {value[bad][0]} ({bad.sum()} of {bad.size})")
        self._refuse_unheld(value, _dtype(x))

    def _refuse_unheld(self, value: np.ndarray, dtype: np.dtype) -> None:
        """What is in range as it came, and is not as it is kept, or is lost there."""
        with np.errstate(over="ignore", under="ignore"):
            held = value.astype(dtype).astype(np.float64)
        lost = (value != 0) & (np.abs(held) < float(jnp.finfo(dtype).tiny))
        bad = ~(self.valid(held) & np.isfinite(held)) | (lost & (held != value))
        if bad.any():
            raise ValueError(
                f"{self.allowed}; got {value[bad][0]}, which is {held[bad][0]:.3g} in {dtype}"
                f" ({bad.sum()} of {bad.size})"
            )

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


def number(checked: Converter, x: Any) -> float:
    """One number as it came, to all its digits, refused where `checked` does."""
    checked.refuse(x)
    if np.ndim(x):
        raise ValueError(f"{checked.allowed}, one number; got shape {np.shape(x)}")
    return float(x)


def between(name: str, low: float, high: float, unit: str = "") -> Converter:
    """Field converter: the argument as an array, refused unless low <= x <= high."""
    allowed = f"{name} must lie in [{low:g}, {high:g}]{unit and ' '}{unit}"
    return Converter(allowed, unit, low, high)


def choice(name: str, *allowed: str) -> Callable[[Any], Any]:
    """Field converter: the argument, refused unless it is one of `allowed`."""

    def convert(x: Any) -> Any:
        if not isinstance(x, str) or x not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}; got {brief(x)}")
        return x

    return convert


def count(name: str, low: int = 1, high: int = MOST) -> Callable[[Any], int]:
    """Field converter: the argument as a Python integer, refused unless whole and in range."""

    def convert(x: Any) -> int:
        try:
            value = operator.index(x)
        except TypeError:
            value = low - 1
        if value < low or isinstance(x, bool):
            raise ValueError(f"{name} must be a whole number >= {low}; got {brief(x)}")
        if value > high:
            raise ValueError(f"{name} must be a whole number <= {high}; got {brief(x)}")
        return value

    return convert


def flag(name: str) -> Callable[[Any], bool]:
    """Field converter: the argument, refused unless True or False."""

    def convert(x: Any) -> bool:
        if not isinstance(x, bool | np.bool_):
            raise TypeError(f"{name} must be True or False; got {brief(x)}")
        return bool(x)

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
    if isinstance(x, bool | int | float | np.ndarray | np.generic):
        x = np.asarray(x, _dtype(x))  # so that nothing is compiled for it, least of all at import
    return jnp.asarray(x, _dtype(x))


def _dtype(x: Any) -> np.dtype:
    """The float dtype that `x` is kept in: its own, where it has one."""
    if isinstance(x, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(x.dtype, jnp.floating):
        return jax.dtypes.canonicalize_dtype(x.dtype)
    return jax.dtypes.canonicalize_dtype(float)


def doubles(allowed: str, x: Any) -> np.ndarray:
    """`x` as doubles, refused in our words where it is no real number, such as "20"."""
    try:
        given = np.asarray(x)
        if given.dtype.kind in "OV":  # whole numbers beyond 64 bits, and bfloat16
            given = given.astype(float)
        if given.dtype.kind in "biuf" and x is not None:
            return given.astype(float)
    except jax.errors.TracerArrayConversionError:
        raise
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{allowed}; got {brief(x)}") from None


def name_of(end: str, what: str) -> Callable[[Any], str]:
    """Field converter: a string, refused where it cannot name `what`."""

    def convert(x: Any) -> str:
        if not isinstance(x, str):
            raise TypeError(f"{end} must be the name of {what}; got {brief(x)}")
        return x

    return convert


def brief(x: Any) -> str:
    """`x` on one line, and a short one."""
    if isinstance(x, jax.Array | np.ndarray) and x.size > 4:
        return f"{x.dtype} of shape {x.shape}"
    try:
        said = " ".join(repr(x).split())
    except ValueError:  # whole numbers of over 4300 digits have no repr
        said = f"{type(x).__name__} of too many digits to show"
    return said if len(said) <= 60 else f"{said[:57]}..."


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
    for n in shape:
        count("shape", 0)(n)
    affordable(f"{type(model).__name__} of shape {tuple(shape)}", 8 * math.prod(shape))
    for path, value in jax.tree_util.tree_leaves_with_path(model):
        if eqx.is_array(value) and value.shape not in ((), tuple(shape)):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"{name} of {type(model).__name__} must be one number or one per neuron, of"
                f" shape {tuple(shape)}; got shape {value.shape}"
            )


def one_number(model: Any, *names: str) -> None:
    """Refuse parameters that are several numbers, all of them or those of `names`."""
    for name in names or [field.name for field in fields(model)]:
        value = getattr(model, name)
        if eqx.is_array(value) and value.ndim:
            kind = type(model).__name__
            whose = "" if kind.startswith("_") else f" of {kind}"
            raise ValueError(
                f"{name}{whose} must be one number; got shape {value.shape}: jax.vmap over several"
            )


def cast(tree: Any, dtype: DTypeLike) -> Any:
    """`tree` with its float leaves in `dtype`; integers and typed keys stay as they are."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def working(dtype: DTypeLike) -> DTypeLike:
    """The dtype to calculate in for a state kept in `dtype`: float32 at the least.

    Parameters follow the state: they neither widen a float32 state under
    `jax_enable_x64` nor lose their digits to a bfloat16 one before the result is rounded.
    """
    try:
        bits = jnp.finfo(dtype).bits
    except (TypeError, ValueError):
        said = f"dtype must be a float type, such as jnp.float32; got {brief(dtype)}"
        raise TypeError(said) from None
    return dtype if bits >= 32 else jnp.float32


def step_size(dt: Any) -> Any:
    """`dt` as it came, refused unless finite and > 0 ms; traced values are checked at run time."""
    checked = positive("dt", "ms")(dt)
    return checked if isinstance(dt, Tracer) else dt


def time_step(dt: Any, dtype: DTypeLike) -> Array:
    """`dt` to calculate with; refused unless one number, and > 0 ms where its value is known."""
    if not isinstance(dt, Tracer):
        dt = step_size(dt)
    if jnp.shape(dt):
        raise ValueError(f"dt must be one number; got shape {jnp.shape(dt)}: jax.vmap over it")
    return jnp.asarray(dt, dtype)


def one_each(name: str, x: Any, shape: tuple[int, ...]) -> Array:
    """`x` as floats, refused unless one number a neuron of `shape`."""
    x = real(x, name)
    if x.shape != shape:
        raise ValueError(
            f"{name} must have shape {shape}, one number a neuron; got {x.shape}: jax.vmap over"
            " a batch"
        )
    return known_finite(name, x)


def prng_key(key: Any, name: str = "key") -> Any:
    """`key` as it came, refused unless it is one JAX key."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
    if not typed and not raw:
        cure = (
            f"jax.random.key({key})"
            if type(key) is int and 0 <= key < 2**32
            else "jax.random.key(0)"
        )
        raise TypeError(f"{name} must be a JAX key; got {brief(key)}: pass {cure}")
    if key.shape != (() if typed else (2,)):
        raise ValueError(f"{name} must be one key; got shape {key.shape}: jax.vmap over keys")
    return key


def instance(name: str, x: Any, *methods: str) -> Any:
    """`x` as it came, refused where it is a class, or lacks one of `methods`."""
    if isinstance(x, type):
        raise TypeError(f"{name} must be an instance; got the class: pass {x.__name__}()")
    lacking = [m for m in methods if not callable(getattr(x, m, None))]
    if lacking:
        raise TypeError(f"{name} must have {', '.join(lacking)}; got {type(x).__name__} {brief(x)}")
    return x


def real(x: Any, name: str = "x") -> Array:
    """Booleans and whole numbers as floats, floats as they came; what is no number is refused.

    So is what is finite as it came and is not in the precision that it is kept in.
    """
    x = numbers(name, x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def numbers(name: str, x: Any) -> Array:
    """`x` as an array of real numbers of its own kind, in the precision that there is."""
    if isinstance(x, jax.Array):
        if x.dtype != bool and not any(jnp.issubdtype(x.dtype, k) for k in _REAL):
            raise TypeError(f"{name} must be real numbers; got {brief(x)}")
        return x
    try:
        given = np.asarray(x)
    except jax.errors.TracerArrayConversionError:  # a list of traced numbers
        return jnp.asarray(x)
    except (TypeError, ValueError, OverflowError):  # keys, lists of several lengths
        given = np.asarray(None)
    if given.dtype.kind not in "biuf" and not jnp.issubdtype(given.dtype, jnp.floating):
        raise TypeError(f"{name} must be real numbers; got {brief(x)}")
    if given.dtype != np.float64:
        return jnp.asarray(given)
    with np.errstate(over="ignore"):
        kept = given.astype(jax.dtypes.canonicalize_dtype(float))
    if (np.isfinite(given) & ~np.isfinite(kept)).any():
        raise ValueError(f"{name} must be finite in {kept.dtype}; got {np.abs(given).max()}")
    return jnp.asarray(kept)


def known_finite(name: str, x: Array, unit: str = "") -> Array:
    """`x`, refused where it is known not to be finite."""
    if not isinstance(x, Tracer) and not np.isfinite(np.asarray(x)).all():
        said = f", in {unit}" if unit else ""
        raise ValueError(f"{name} must be finite{said}; got NaN or infinity")
    return x


def kind(name: str, x: Any, cls: type) -> Any:
    """`x` as it came, refused unless it is a `cls`."""
    if not isinstance(instance(name, x), cls):
        got = f"{type(x).__name__} {brief(x)}"
        raise TypeError(f"{name} must be an instance of {cls.__name__}; got {got}")
    return x


def classes(name: str, target: Any, n: int, batch: int | None = None) -> Array:
    """Labels as an array, refused unless whole and in [0, n); traced values are taken on trust.

    With a `batch` they are of as many samples.
    """
    given = target
    try:
        with np.errstate(over="ignore"):  # what is no whole number is refused below
            target = jnp.asarray(target)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be whole numbers; got {brief(given)}") from None
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"{name} must be whole; got {target.dtype}: pass {name}.astype(int)")
    if batch is not None and target.shape != (batch,):
        raise ValueError(f"{name} must be [batch] = [{batch}] labels; got {list(target.shape)}")
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
