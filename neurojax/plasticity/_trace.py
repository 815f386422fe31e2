"""Traces of spikes, one a neuron, as rules of spike pairs keep them from step to step."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from neurojax._check import brief, cast, in_range, one_each, one_number, time_step, working
from neurojax._decay import fade, leak, left_out, moved, whole

Pairing = Literal["all", "nearest"]


class Trace(NamedTuple):
    """Spikes of one population, each forgotten exponentially.

    Fields:
        x: float [n]; decayed count of spikes, without unit
        x_low: float [n] or None; what x leaves out by rounding; None: nothing felt
    """

    x: Float[Array, " n"]
    x_low: Float[Array, " n"] | None


class Seen(NamedTuple):
    """A trace in one step: decayed, with this step's spikes, and as it is kept."""

    before: Array
    after: Array
    kept: Trace


def silent(n: int, tau: Array, dtype: DTypeLike) -> Trace:
    """No spike seen yet, of a trace that decays with `tau` (ms)."""
    return Trace(jnp.zeros(n, dtype), left_out(tau, (n,), dtype))


def seen(trace: Trace, z: Any, tau: Any, dt: Any, dtype: DTypeLike, pairing: str) -> Seen:
    """A step of a trace that is calculated in the type of `z` and kept in `dtype`.

    Where pairing is "all" a spike adds 1, where it is "nearest" it leaves 1, whatever was there.
    """
    x, low = fade(trace.x, trace.x_low, leak(dt, tau), dtype)
    before = whole(x, low, dtype)
    if pairing == "nearest":
        x, low = x * (1 - z), None if low is None else low * (1 - z)
    x, low = moved(x, z, low, dtype)
    return Seen(before, whole(x, low, dtype), Trace(x.astype(dtype), low))


def ready(rule: Any, state: Any, pre: Array, post: Array, dt: ArrayLike) -> tuple[Any, ...]:
    """All in the dtype to calculate in, checked where values are known, and that of the state."""
    in_range(rule)
    one_number(rule)
    if not (hasattr(state, "pre") and hasattr(state, "post")):
        raise TypeError(f"state must be what init gives; got {brief(state)}")
    one, other = state.pre, state.post
    pre, post = one_each("pre", pre, _shape(one)), one_each("post", post, _shape(other))
    kept = jax.tree.leaves(one)[0].dtype
    dtype = working(kept)
    rule, state, pre, post = cast((rule, state, pre, post), dtype)
    return rule, state, pre, post, time_step(dt, dtype), kept


def _shape(side: Any) -> tuple[int, ...]:
    return jax.tree.leaves(side)[0].shape


def scales(dependence: Any) -> tuple[Any, Any]:
    """Factors of increases and of decreases, as visits take them."""
    return (None, None) if dependence is None else (dependence.plus, dependence.minus)
