"""What `repr` and `help` show of a model: values, units and sizes, read off its fields."""

import dataclasses
import inspect
import types
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

_Class = TypeVar("_Class", bound=type)
_ALIASES = ((ArrayLike, "array"), (jax.Array, "array"), (DTypeLike, "dtype"), (..., "..."))
_SPREAD = {"bool", "number", "complex"}
_EMPTY = inspect.Parameter.empty


def described(cls: _Class) -> _Class:
    """Class decorator: help names each field's unit; `describe` is the repr of what has none."""
    fields = [f for f in dataclasses.fields(cls) if f.init]
    if "__repr__" not in vars(cls):
        cls.__repr__ = describe  # pyright: ignore[reportAttributeAccessIssue]
    if fields:
        lines = "\n".join(f"    {_line(f)}" for f in fields)
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nFields:\n{lines}"
    own = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    _show(cls.__init__, inspect.Signature(own + [_parameter(f) for f in fields]))
    for name, method in vars(cls).items():
        if inspect.isfunction(method) and (name == "__call__" or name[0] != "_"):
            _show(method, _shortened(method))
    return cls


def short_types(public: dict[str, Any]) -> None:
    """Have help show the types of these functions, and of these modules' own, in a word or two."""
    for x in public.values():
        if inspect.isfunction(x):
            _show(x, _shortened(x))
        elif inspect.ismodule(x):
            own = {name: getattr(x, name) for name in getattr(x, "__all__", ())}
            short_types({n: f for n, f in own.items() if inspect.isfunction(f)})


def _show(method: Any, signature: inspect.Signature) -> None:
    method.__signature__ = signature


def describe(model: Any) -> str:
    """`LIF(tau_mem=20 ms, ...)`: the fields of a dataclass, less those that are None."""
    fields = ((f, getattr(model, f.name, None)) for f in dataclasses.fields(model))
    shown = (f"{f.name}={value(x, unit(f))}" for f, x in fields if x is not None)
    return f"{type(model).__name__}({', '.join(shown)})"


def value(x: Any, unit: str = "") -> str:
    """A number with its unit; an array by its shape, range and unit."""
    if isinstance(x, dict):
        return "{" + ", ".join(f"{name}: {value(each, unit)}" for name, each in x.items()) + "}"
    if isinstance(x, bool) or not isinstance(x, jax.Array | np.ndarray | np.generic | float | int):
        return repr(x)
    return f"{_numbers(x)} {unit}".rstrip()


def unit(field: dataclasses.Field) -> str:
    """The unit that a field's converter carries."""
    converter = field.metadata.get("converter")
    return getattr(getattr(converter, "of", converter), "unit", "")


def _numbers(x: Any) -> str:
    size = f"[{', '.join(map(str, np.shape(x)))}]"
    if isinstance(x, Tracer) or jnp.issubdtype(getattr(x, "dtype", float), jax.dtypes.prng_key):
        return f"{x.dtype}{size}"
    if isinstance(x, jax.Array) and x.is_deleted():
        return f"deleted {x.dtype}{size}"
    array = np.asarray(x)
    if array.ndim == 0:
        return _number(array[()])
    if array.size == 0:
        return size
    low, high = _number(array.min()), _number(array.max())
    return f"{size} {low}" if low == high else f"{size} {low} to {high}"


def _number(x: Any) -> str:
    return f"{float(x):.6g}" if jnp.issubdtype(np.asarray(x).dtype, jnp.floating) else str(x)


def _line(f: dataclasses.Field) -> str:
    """`tau_mem: float [] or [n], ms; default 20`."""
    parts = [_short(f.type), *filter(None, [unit(f)])]
    return f"{f.name}: {', '.join(parts)}" + ("" if _default(f) is _EMPTY else _told(_default(f)))


def _told(default: Any) -> str:
    return "" if default is None else f"; default {value(default)}"


def _default(f: dataclasses.Field) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    made = f.default_factory
    return _EMPTY if made is dataclasses.MISSING else _named(f"{_short(made)}()")


def _parameter(f: dataclasses.Field) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY if f.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
    annotation = _named(unit(f) or _short(f.type))
    return inspect.Parameter(f.name, kind, default=_default(f), annotation=annotation)


def _shortened(method: Any) -> inspect.Signature:
    signature = inspect.signature(method)
    parameters = [p.replace(annotation=_text(p.annotation)) for p in signature.parameters.values()]
    answer = _text(signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=answer)


def _text(annotation: Any) -> Any:
    return annotation if annotation is _EMPTY else _named(_short(annotation))


def _named(text: str) -> type:
    return _Anything(text, (), {"__module__": "builtins"})  # or its module would stand before it


class _Anything(type):
    """A type that everything is of, for a signature to show by its name."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return True

    def __repr__(cls) -> str:
        return cls.__name__


def _short(kind: Any) -> str:
    """A type in a word or two: an array by its kind and shape, a class by its name."""
    for alias, name in _ALIASES:
        if kind == alias:
            return name
    if hasattr(kind, "dim_str"):
        if kind.__name__.startswith("Key"):
            return "key"
        name = kind.__name__.partition("[")[0].lower()
        return f"{'array' if name == 'shaped' else name} {_shape(kind.dim_str)}"
    if get_origin(kind) in (Union, types.UnionType):
        names = list(dict.fromkeys(map(_short, get_args(kind))))
        spread = _SPREAD <= {*names}  # an ArrayLike among others, or with a shape
        return " or ".join(
            x for x in names if not (spread and x in _SPREAD | {"ndarray", "int", "float"})
        )
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) in (Callable, None):
        return "None" if kind in (None, type(None)) else getattr(kind, "__name__", str(kind))
    if get_origin(kind) is dict:  # not dict[...], which a checker of types would take for a hint
        return f"{{{': '.join(map(_short, get_args(kind)))}}}"
    inner = ", ".join(map(_short, get_args(kind)))
    return f"{getattr(get_origin(kind), '__name__', kind)}[{inner}]"


def _shape(dims: str) -> str:
    """`T *n` as [T, n]; what may also be one number, `*#n`, as [] or [n]."""
    shape = f"[{', '.join(d.strip('*#') for d in dims.split())}]"
    return f"[] or {shape}" if "#" in dims else shape
