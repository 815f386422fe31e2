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


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: as `eqx.filter_jit`, of a function that returns arrays alone."""

    def call(arrays, rest):
        leaves, tree = rest
        args, kwargs = eqx.combine(arrays, jax.tree.unflatten(tree, leaves))
        return function(*args, **kwargs)

    program = jax.jit(call, static_argnums=1)

    def run(*args, **kwargs):
        arrays, rest = eqx.partition((args, kwargs), eqx.is_array)
        leaves, tree = jax.tree.flatten(rest)
        return program(arrays, (tuple(leaves), tree))

    return run


class Made:
    """What makes a pytree of a key, once; lowered at once, so that what cannot be is refused.

    Lightly optimised, the same numbers are compiled in half the time.
    """

    rest: Any

    def __init__(self, make: Callable[[Key[Array, ""]], Any], key: Key[Array, ""]):
        def arrays(key):
            made, self.rest = eqx.partition(make(key), eqx.is_array)
            return made

        quick: Any = {"xla_backend_optimization_level": 1}
        self.key, self.traced = key, jax.jit(arrays, compiler_options=quick).lower(key)

    def __call__(self) -> Any:
        """Compile, and make it."""
        return eqx.combine(self.traced.compile()(self.key), self.rest)
