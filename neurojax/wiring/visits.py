"""Changes and arrivals at the synapses of neurons that fire, and at no others.

For synapses in rows by sender, and in columns by receiver through one permutation:

    visited     w_e <- bounded(w_e + event_j trace_post(e) scale(w_e))    senders j that fired,
                w_e <- bounded(w_e + event_i trace_pre(e) scale(w_e))     then receivers i
    scheduled   ring[(head + d_e - 1) mod L, post(e)] += w_e s_j          senders j that fired

A step costs the fan-out of the senders that fired and the fan-in of the receivers that did.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from neurojax.wiring.events import Rows, either, over_events, row_of

__all__ = ["Columns", "Visit", "Visits", "by_receiver", "scheduled", "visited"]


def __dir__() -> list[str]:
    return __all__


class Columns(eqx.Module):
    """The same synapses by receiver, for what happens where a receiver fires.

    `place` [edges] says where each stands in the list by sender, `pre` [edges] who sends it;
    those of receiver i lie at start[i] up to start[i + 1]. `longest` is the largest fan-in.
    """

    place: Int[Array, " edges"]
    pre: Int[Array, " edges"]
    start: Int[Array, " post_and_end"]
    longest: int = eqx.field(static=True)


class Visit(NamedTuple):
    """A change of all synapses of the neurons that fired, and of no others.

        at the senders that fired:    dw_ij = event_j trace_i scale(w_ij)
        at the receivers that fired:  dw_ij = event_i trace_j scale(w_ij)

    Fields:
        event: float [n]; 0 where a neuron did not fire
        trace: float [m], in weight units; of the neurons on the other side
        scale: callable, w -> factor of the same shape, such as a frozen module; None: 1
    """

    event: Float[Array, " n"]
    trace: Float[Array, " m"]
    scale: Callable[[Array], Array] | None = None


Visits = tuple[Visit | None, Visit | None]  # at the senders that fired, at the receivers


def by_receiver(index: np.ndarray, start: np.ndarray, n_post: int) -> Columns:
    """Columns of synapses in rows: receivers `index` [edges] of the rows that begin at `start`."""
    place = np.argsort(index, kind="stable")
    n_in = np.bincount(index, minlength=n_post)
    pre = np.repeat(np.arange(len(start) - 1), np.diff(start))[place]
    ends = np.concatenate([[0], np.cumsum(n_in)])
    place, pre, ends = (jnp.asarray(x, jnp.int32) for x in (place, pre, ends))
    return Columns(place, pre, ends, int(n_in.max(initial=0)))


def visited(
    rows: Rows, columns: Columns | None, w: Float[Array, " edges"], visits: Visits,
    low: Array | None, high: Array | None, native: bool = True,
) -> Float[Array, " edges"]:  # fmt: skip
    """Weights after the visits of one step, held by the bounds after each."""
    at_pre, at_post = visits
    ends = _end(low, w), _end(high, w)
    if at_pre is not None:
        nowhere = jnp.zeros(0, rows.post.dtype)
        run = _along(rows.longest, at_pre.scale, native)
        w = run(rows.post, rows.start, nowhere, *ends, *_sides(at_pre, w), w)
    if at_post is not None:
        assert columns is not None  # noqa: S101
        run = _along(columns.longest, at_post.scale, native)
        w = run(columns.pre, columns.start, columns.place, *ends, *_sides(at_post, w), w)
    return w


def _end(bound: Array | None, w: Array) -> Array:
    """A bound as an array of none, one number, or one a synapse."""
    return jnp.zeros(0, w.dtype) if bound is None else jnp.atleast_1d(bound).astype(w.dtype)


def _sides(visit: Visit, w: Array) -> tuple[Array, Array]:
    return visit.event.astype(w.dtype), visit.trace.astype(w.dtype)


def _along(longest: int, scale: Callable[[Array], Array] | None, native: bool) -> Callable:
    """One visit: to the synapses from `start` on, which lie at `place`, or one after another."""
    if longest == 0:
        return lambda *arguments: arguments[-1]
    leaves, tree = jax.tree.flatten(scale)
    arrays, rest = eqx.partition(leaves, eqx.is_array)
    pure = lambda *given: _one_by_one(  # noqa: E731
        longest, None if scale is None else tree.unflatten(eqx.combine(list(given[:-8]), rest)),
        *given[-8:],
    )  # fmt: skip
    if scale is None:
        return either(_native_visit(longest), pure, native)
    run = either(pure, pure, native=False)
    return lambda *given: run(*arrays, *given)


def _one_by_one(longest, scale, other, start, place, low, high, event, trace, w) -> Array:
    edges = w.shape[0]

    def one(j, w):
        first, own = row_of(start, j, edges, longest)
        window = lambda x: jax.lax.dynamic_slice(x, (first,), (longest,))  # noqa: E731
        at = window(place) if place.size else None
        here = lambda x: window(x) if at is None else x[at]  # noqa: E731
        old = here(w)
        # Chosen before it is added, the product is rounded, as in the kernel.
        change = jnp.where(own, event[j] * trace[window(other)], 0)
        change = change if scale is None else change * scale(old)
        ends = (x if x.size <= 1 else here(x) for x in (low, high))
        new = jnp.where(own, _between(old + change, *ends), old)
        if at is None:
            return jax.lax.dynamic_update_slice(w, new, (first,))
        return w.at[jnp.where(own, at, edges)].set(new, mode="drop")

    return over_events(event, one, w)


def _between(w: Array, low: Array, high: Array) -> Array:
    w = jnp.maximum(w, low) if low.size else w
    return jnp.minimum(w, high) if high.size else w


def _native_visit(longest: int) -> Callable:
    def run(other, start, place, low, high, event, trace, w):
        shape = jax.ShapeDtypeStruct(w.shape, w.dtype)
        call = jax.ffi.ffi_call("neurojax_visited", shape, input_output_aliases={3: 0})
        return call(other, start, place, w, event, trace, low, high, longest=np.int64(longest))

    return run


def scheduled(
    rows: Rows, w: Float[Array, " edges"], s: Shaped[Array, " pre"], delays: Int[Array, "*edges"],
    ring: Float[Array, "longest post"], head: Int[Array, ""], native: bool = True,
) -> Float[Array, "longest post"]:  # fmt: skip
    """The ring with the current of each spike in the row in which it is due."""
    if rows.longest == 0:
        return ring
    w, s = w.astype(ring.dtype), s.astype(ring.dtype)
    kernel, pure = _native_schedule(rows.longest), _pure_schedule(rows.longest)
    return either(kernel, pure, native)(rows.post, rows.start, delays, head, w, s, ring)


def _pure_schedule(longest: int) -> Callable:
    def run(index, start, delays, head, w, s, ring):
        def one(j, ring):
            first, own = row_of(start, j, w.shape[0], longest)
            window = lambda x: jax.lax.dynamic_slice(x, (first,), (longest,))  # noqa: E731
            row = (head + window(delays) - 1) % ring.shape[0]
            return ring.at[row, window(index)].add(jnp.where(own, window(w) * s[j], 0))

        return over_events(s, one, ring)

    return run


def _native_schedule(longest: int) -> Callable:
    def run(index, start, delays, head, w, s, ring):
        shape = jax.ShapeDtypeStruct(ring.shape, ring.dtype)
        call = jax.ffi.ffi_call("neurojax_scheduled", shape, input_output_aliases={6: 0})
        return call(index, start, delays, head, w, s, ring, longest=np.int64(longest))

    return run
