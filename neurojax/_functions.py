"""Functions as the compiler should see them: the same code over the same values is the same.

A function written on the spot is a new object each time, so whatever is compiled for it is
compiled at every call. `known` looks into one instead: code, defaults, what it closes over,
and the globals that it reads, functions among them likewise. Arrays of floats become inputs of
the compiled program, everything else is compared by value; so neither a new object of the same
meaning compiles again, nor does a changed value find a program made for the old one.
"""

import dis
import enum
import functools
import sys
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

# What these packages define does not change under a running program: the object itself will do.
_SETTLED = sys.stdlib_module_names | {"equinox", "hardware", "jax", "jaxlib", "neurojax", "numpy"}
_PLAIN = type(None) | bool | int | float | complex | str | bytes | range | np.dtype


class UnknownError(Exception):
    """There is something in it that could change without our noticing."""


class Known:
    """A function that equals another of the same meaning; it is forgotten after use.

    What the cache of a compiler holds must not keep alive all that a function closes over.
    """

    def __init__(self, key: Hashable, remake: Callable[[Sequence[Array]], Any]):
        self.key, self.remake = key, remake

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def forget(self) -> None:
        """Let go of the function; equality stays."""
        del self.remake


def known(function: Callable, *models: Any) -> tuple[Known, list[Array]]:
    """`function` by its meaning, and the arrays in it that are inputs.

    Beside it count the classes and functions of the user's own in `models`, which are pytrees.
    Raises `UnknownError` where an object is read that may change behind our back.
    """
    walk, fixed = _Walk(), _Walk(inputs=False)
    part = walk.part(function)
    own = tuple(fixed.part(f).key for f in _own_functions(models))
    return Known((part.key, *walk.functions, own, *fixed.functions), part.remake), walk.arrays


class _Part(NamedTuple):
    """One value: what it is compared by, how it comes back, and whether other arrays are in it."""

    key: Hashable
    remake: Callable[[Sequence[Array]], Any]
    moves: bool = False


class _Same:
    """Equal to itself alone, and alive as long as it is compared with."""

    def __init__(self, x: Any):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.x is other.x

    def __hash__(self) -> int:
        return id(self.x)


class _Walk:
    """Through all that a function can see; each function is entered once and has a number."""

    def __init__(self, inputs: bool = True):
        self.inputs = inputs
        self.arrays: list[Array] = []
        self.functions: list[Hashable] = []
        self.entered: dict[int, _Part | None] = {}

    def part(self, x: Any) -> _Part:
        if isinstance(x, jax.Array | np.ndarray | np.generic):
            return self.array(x)
        if isinstance(x, _PLAIN):
            value = repr(x) if isinstance(x, float | complex) else x
            return _itself(x, (type(x), value))
        if isinstance(x, types.FunctionType) and not _settled(x):
            return self.function(x)
        if isinstance(x, types.MethodType):
            return self.whole(x, "method", (x.__func__, x.__self__), types.MethodType)
        if isinstance(x, functools.partial):
            return self.whole(x, "partial", (x.func, x.args, x.keywords), _partial)
        if isinstance(x, enum.Enum | types.ModuleType | type):
            return _itself(x, _Same(x))
        return self.tree(x)

    def array(self, x: Any) -> _Part:
        """Floats are inputs; what may be a shape, an index or a mask is compared by content."""
        floats = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)
        if self.inputs and (isinstance(x, Tracer) or floats):
            self.arrays.append(x)
            place = len(self.arrays) - 1
            return _Part("an input", lambda arrays: arrays[place], moves=True)
        if isinstance(x, Tracer) or not isinstance(x.dtype, np.dtype) or x.dtype.hasobject:
            raise UnknownError("it reads an array without a content")
        content = np.asarray(x)
        return _itself(x, (type(x), content.dtype, content.shape, content.tobytes()))

    def function(self, f: types.FunctionType) -> _Part:
        """By number, so that what many call is looked at once."""
        if id(f) not in self.entered:
            self.entered[id(f)] = None
            found = self.whole(
                f, _text(f.__code__), _seen_by(f), functools.partial(_function_like, f)
            )
            self.functions.append(found.key)
            self.entered[id(f)] = found._replace(key=("function", len(self.functions)))
        part = self.entered[id(f)]
        if part is None:
            raise UnknownError("it calls itself")
        return part

    def tree(self, x: Any) -> _Part:
        """Lists, dictionaries, models: whatever JAX knows the parts of."""
        try:
            leaves, structure = jax.tree.flatten(x)
            hash(structure)
        except (TypeError, ValueError):
            raise UnknownError(f"it reads a {type(x).__name__}") from None
        if leaves and leaves[0] is x:
            return self.object(x)
        return self.whole(x, structure, leaves, lambda *new: jax.tree.unflatten(structure, new))

    def object(self, x: Any) -> _Part:
        """What has no parts: settled functions, and wrapped ones by what they wrap too."""
        if not callable(x) or not (_settled(x) or _settled(type(x))):
            raise UnknownError(f"it reads a {type(x).__name__}")
        if _settled(x):
            return _itself(x, _Same(x))
        wrapped = self.part(getattr(x, "__wrapped__", None))
        if wrapped.moves:
            raise UnknownError(f"it calls a {type(x).__name__} that closes over arrays")
        return _itself(x, (_Same(x), wrapped.key))

    def whole(self, x: Any, kind: Hashable, parts: Sequence, remake: Callable) -> _Part:
        """Of its parts: `x` itself where no input is within it."""
        found = [self.part(part) for part in parts]
        moves = any(part.moves for part in found)

        def again(arrays: Sequence[Array]) -> Any:
            return remake(*(part.remake(arrays) for part in found)) if moves else x

        return _Part((kind, *(part.key for part in found)), again, moves)


def _itself(x: Any, key: Hashable) -> _Part:
    return _Part(key, lambda _: x)


def _partial(function: Callable, arguments: tuple, keywords: dict) -> functools.partial:
    return functools.partial(function, *arguments, **keywords)


def _seen_by(f: types.FunctionType) -> tuple[list, Any, Any, dict, dict]:
    """What it closes over, defaults, globals, and members of those that can be set anew."""
    names, attributes = _read_by(f.__code__)
    outside = {n: f.__globals__[n] for n in names if n in f.__globals__}
    members = {
        f"{n}.{a}": getattr(x, a)
        for n, x in outside.items()
        if isinstance(x, types.ModuleType | type) and not _settled(x)
        for a in attributes
        if hasattr(x, a)
    }
    try:
        cells = [c.cell_contents for c in f.__closure__ or ()]
    except ValueError:
        raise UnknownError("it closes over a name without a value") from None
    return cells, f.__defaults__, f.__kwdefaults__, outside, members


def _function_like(f: types.FunctionType, cells, defaults, keywords, outside, _) -> Callable:
    """The code of `f` over other values."""
    closure = tuple(types.CellType(x) for x in cells)
    seen = f.__globals__ | outside
    made = types.FunctionType(f.__code__, seen, f.__name__, defaults, closure)
    made.__kwdefaults__ = keywords
    return made


@functools.lru_cache(4096)
def _text(code: types.CodeType) -> Hashable:
    """All of the code but where it stands."""
    constants = (_text(x) if isinstance(x, types.CodeType) else repr(x) for x in code.co_consts)
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return code.co_code, code.co_exceptiontable, *constants, *names, *counts


@functools.lru_cache(4096)
def _read_by(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of globals, and of attributes, that it and the functions within it read."""
    names, attributes = set[str](), set[str]()
    for i in dis.get_instructions(code):
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(i.argval)
        elif i.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(i.argval)
        elif isinstance(i.argval, types.CodeType):
            inner = _read_by(i.argval)
            names.update(inner[0])
            attributes.update(inner[1])
    return tuple(sorted(names)), tuple(sorted(attributes))


def _own_functions(models: Any) -> list[Callable]:
    """Methods of the classes in a pytree, and functions in its fields, that are the user's own."""
    found: dict[int, Callable] = {}

    def visit(x: Any) -> bool:
        own = [vars(c) for c in type(x).__mro__ if not _settled(c)]
        own += [vars(x)] if isinstance(x, eqx.Module) else []
        for f in (f for names in own for n, f in names.items() if _called(n)):
            f = getattr(f, "__func__", getattr(f, "fget", f))  # of class methods, properties
            if isinstance(f, types.FunctionType) and not _settled(f):
                found[id(f)] = f
        return False

    jax.tree.leaves(models, is_leaf=visit)
    return list(found.values())


def _called(name: str) -> bool:
    return name == "__call__" or not name.startswith("__")


def _settled(x: Any) -> bool:
    """Whether it is defined by a package that stays as it is."""
    name = x.__name__ if isinstance(x, types.ModuleType) else getattr(x, "__module__", None)
    return isinstance(name, str) and name.partition(".")[0] in _SETTLED
