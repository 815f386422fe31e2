"""Compiled functions that take their programs with them when they go.

What `eqx.filter_jit` compiles of a closure stays until the process ends, hundreds of memory maps a
run, of which Linux grants a process 65,530: some forty trainings one after another, as in a
notebook, and it is aborted.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key


class _Parts(eqx.Module):
    """Any pytree as one of arrays; what else is in it belongs to the structure."""

    arrays: Any
    rest: tuple[tuple[Any, ...], Any] = eqx.field(static=True)

    @classmethod
    def of(cls, x: Any) -> "_Parts":
        arrays, rest = eqx.partition(x, eqx.is_array)
        leaves, tree = jax.tree.flatten(rest)
        return cls(arrays, (tuple(leaves), tree))

    def whole(self) -> Any:
        leaves, tree = self.rest
        return eqx.combine(self.arrays, jax.tree.unflatten(tree, leaves))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: as `eqx.filter_jit`, less what that says of errors at run time."""

    @jax.jit
    def program(given: _Parts) -> _Parts:
        args, kwargs = given.whole()
        return _Parts.of(function(*args, **kwargs))

    return lambda *args, **kwargs: program(_Parts.of((args, kwargs))).whole()


class Made:
    """What makes a pytree of a key, once; lowered at once, so that what cannot be is refused.

    Lightly optimised, the same numbers are compiled in half the time.
    """

    def __init__(self, make: Callable[[Key[Array, ""]], Any], key: Key[Array, ""]):
        quick: Any = {"xla_backend_optimization_level": 1}
        program = jax.jit(lambda key: _Parts.of(make(key)), compiler_options=quick)
        self.key, self.lowered = key, program.lower(key)

    def __call__(self) -> Any:
        """Compile, and make it."""
        return self.lowered.compile()(self.key).whole()
