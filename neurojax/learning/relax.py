"""Settling: a step is repeated until nothing moves any more, or steps run out.

s <- s + (1 - damping) (step(s) - s)        residual = max |step(s) - s|
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from neurojax._check import MOST, Converter, brief, count, instance, nonnegative, prng_key

__all__ = ["Relaxed", "relax"]


damped = Converter("damping must be finite and in [0, 1)", "", 0.0, math.nextafter(1.0, 0.0))


class Relaxed(NamedTuple):
    """Where a state has come to rest, or was left.

    Fields:
        state: any; a pytree of the shapes and dtypes that it started with
        residual: float, one number; how far the last step asked a number to move, in its unit
        steps: int, one number; how many steps were taken
    """

    state: Any
    residual: Float[Array, ""]
    steps: Int[Array, ""]


def relax(
    step: Callable[..., Any], state: Any, tol: ArrayLike, max_steps: int, *,
    damping: ArrayLike = 0.0, key: Key[Array, ""] | None = None,
) -> Relaxed:  # fmt: skip
    """Repeat `step(state) -> state` until no number is asked to move by more than `tol`.

    Numbers may be of any shape, real or complex (whose absolute value counts), in units of their
    own; `tol` is in the same, and with 0 all `max_steps` are taken unless nothing moves at all.
    `damping` in [0, 1) is the part of the old state that stays, against orbits of period two.
    With a `key` the step is called as `step(state, key=...)`, with another key each time.
    Under `vmap` each sample rests at its own step, and all take as long as the last one. A
    number that is not finite ends it, and is the residual. No derivative goes through it.
    Raises `ValueError` for a number out of range and for a step that gives back another
    structure; `TypeError` for a state that is not floats or complex numbers.

    >>> found = nj.learning.relax(jnp.cos, jnp.ones(()), 1e-6, 100)
    >>> f"{float(found.state):.4f}", bool(found.residual < 1e-6)
    ('0.7391', True)
    """
    max_steps = count("max_steps", 0, MOST)(max_steps)
    tol, damping = nonnegative("tol", "")(tol), damped(damping)
    for name, x in (("tol", tol), ("damping", damping)):
        if x.ndim:
            raise ValueError(
                f"{name} must be one number; got shape {x.shape}: jax.vmap over several"
            )
    state = jax.tree.map(_inexact, state)
    asked = instance("step", step, "__call__")
    if key is not None:
        key = prng_key(key)

    def at(s: Any, i: Any) -> Any:
        return asked(s) if key is None else asked(s, key=jax.random.fold_in(key, i))

    _refuse_another(jax.eval_shape(at, state, 0), state)
    return settled(at, state, tol, max_steps, damping)


def settled(
    step: Callable[[Any, Any], Any], state: Any, tol: Array, max_steps: int, damping: Array
) -> Relaxed:
    """`relax` of a `step(state, i)`, of numbers that have been looked at before."""
    leaves = [jnp.finfo(x.dtype).dtype for x in jax.tree.leaves(state)]
    dtype = jnp.result_type(*leaves) if len({*leaves}) < 2 else jnp.dtype(float)

    def again(found: Relaxed) -> Array:
        r = found.residual
        going = (r > tol.astype(dtype)) & ((r < jnp.inf) | (found.steps == 0))
        return (found.steps < max_steps) & going

    def once(found: Relaxed) -> Relaxed:
        new = step(found.state, found.steps)
        move = jax.tree.map(jnp.subtract, new, found.state)
        far = [jnp.abs(m).max(initial=0).astype(dtype) for m in jax.tree.leaves(move)]
        moved = jax.tree.map(lambda s, m: s + (1 - damping).astype(m.dtype) * m, found.state, move)
        return Relaxed(moved, jnp.max(jnp.stack(far)), found.steps + 1)

    start = Relaxed(state, jnp.full((), jnp.inf, dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(again, once, start)


def _inexact(x: Any) -> Array:
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"state must be arrays of floats or complex numbers; got {brief(x)}")
    return jnp.asarray(x)


def _refuse_another(new: Any, state: Any) -> None:
    kinds = [
        (jax.tree.structure(s), [(x.shape, jnp.dtype(x.dtype)) for x in jax.tree.leaves(s)])
        for s in (new, state)
    ]
    if kinds[0] != kinds[1]:
        got, allowed = (
            ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(s)) for s in (new, state)
        )
        raise ValueError(f"step must give back what it is given, {allowed}; got {got}")


def __dir__() -> list[str]:
    return __all__
