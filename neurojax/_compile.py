"""Functions that compile themselves, but not once more within what is being compiled."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

_Function = TypeVar("_Function", bound=Callable)


def compiling() -> bool:
    """Whether this runs within a function that is compiled, where even a constant is traced."""
    return isinstance(jnp.zeros(()), Tracer)


def compiled(function: _Function) -> _Function:
    """Decorator: `eqx.filter_jit`, which within another compiled function would only be in the
    way: XLA keeps what enters and leaves an inner one."""
    alone = eqx.filter_jit(function)

    @functools.wraps(function)
    def run(*args, **kwargs):
        return function(*args, **kwargs) if compiling() else alone(*args, **kwargs)

    return run  # pyright: ignore[reportReturnType]


class Parts(eqx.Module):
    """Any pytree as one of arrays; what else is in it belongs to the structure."""

    arrays: Any
    rest: tuple = eqx.field(static=True)

    @classmethod
    def of(cls, x: Any) -> "Parts":
        arrays, rest = eqx.partition(x, eqx.is_array)
        leaves, tree = jax.tree.flatten(rest)
        return cls(arrays, (tuple(leaves), tree))

    def whole(self) -> Any:
        leaves, tree = self.rest
        return eqx.combine(self.arrays, jax.tree.unflatten(tree, leaves))


def released(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `eqx.filter_jit`, less what that says of errors at run time, and it takes its programs
    with it when it goes.

    What `eqx.filter_jit` compiles of a closure stays until the process ends, hundreds of memory
    maps a training, of which Linux grants a process 65,530: some forty trainings one after
    another, as in a notebook, and it is aborted.
    """

    @jax.jit
    def program(given: Parts) -> Parts:
        args, kwargs = given.whole()
        return Parts.of(function(*args, **kwargs))

    return lambda *args, **kwargs: program(Parts.of((args, kwargs))).whole()
