"""Functions that compile themselves, but not once more within what is being compiled."""

import functools
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
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
