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

from neurojax.wiring._events_gpu import chunks
from neurojax.wiring.events import Rows, either, nowhere, refused, row_of, singly

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
    low: Array | None, high: Array | None, native: bool = True, after: Array | None = None,
) -> Float[Array, " edges"]:  # fmt: skip
    """Weights after the visits of one step, held by the bounds after each.

    A bound is one number, one a synapse or, where there are not as many synapses, one a sender.
    `after` is what was read from `w` in the step, if anything: it is read first then, and `w` can
    change in place.
    """
    at_pre, at_post = (v if v is None or v.event.size else None for v in visits)
    if rows.longest == 0 or (at_pre is None and at_post is None):
        return w
    scales = tuple(None if v is None else v.scale for v in (at_pre, at_post))
    lists = rows.post, rows.start, *_columns(columns, w)
    largest = 1 if columns is None else columns.longest
    ends = _end(low, w), _end(high, w), jnp.zeros(0, w.dtype) if after is None else after
    given = *lists, *ends, *_sides(at_pre, w), *_sides(at_post, w), w
    one_by_one, many = (_visit(rows.longest, largest, scales, by) for by in (singly, chunks))
    if scales == (None, None):
        return either(_native_visit(rows.longest, largest), one_by_one, many, native)(*given)
    arrays = eqx.filter(scales, eqx.is_array)
    ways = ((lambda arrays, *given, way=way: way(*given, arrays)) for way in (one_by_one, many))
    scaled, scaled_many = ways
    return either(scaled, scaled, scaled_many, native=False)(arrays, *given)


def _columns(c: Columns | None, w: Array) -> tuple[Array, Array, Array]:
    if c is None:
        none = jnp.zeros(0, jnp.int32)
        return none, jnp.zeros(1, jnp.int32), none
    return c.pre, c.start, c.place


def _end(bound: Array | None, w: Array) -> Array:
    """A bound as an array of none, one number, one a synapse, or one a sender."""
    return jnp.zeros(0, w.dtype) if bound is None else jnp.atleast_1d(bound).astype(w.dtype)


def _sides(visit: Visit | None, w: Array) -> tuple[Array, Array]:
    if visit is None:
        return jnp.zeros(0, w.dtype), jnp.zeros(0, w.dtype)
    return visit.event.astype(w.dtype), visit.trace.astype(w.dtype)


def _visit(longest: int, largest: int, scales: tuple, by: Callable) -> Callable:
    rest = eqx.filter(scales, eqx.is_array, inverse=True)

    def run(post, start, pre, begin, place, low, high, after, s, y, z, x, w, arrays=(None, None)):
        of_pre, of_post = eqx.combine(arrays, rest)
        w = _changed(longest, of_pre, post, start, None, low, high, s, y, w, by)
        return _changed(largest, of_post, pre, begin, place, low, high, z, x, w, by)

    return run


def _changed(longest, scale, other, start, place, low, high, event, trace, w, by) -> Array:
    """One visit: to the synapses from `start` on, which lie at `place`, or one after another."""
    edges, n_other = w.shape[0], trace.shape[0]
    if event.size == 0:
        return w

    def look(j, carry):
        w = carry[0]
        first, own = row_of(start, j, other.shape[0], longest)
        window = lambda x: jax.lax.dynamic_slice(x, (first,), (longest,))  # noqa: E731
        at, far = None if place is None else window(place), window(other)
        here = lambda x: window(x) if at is None else x[at]  # noqa: E731
        old = here(w)
        # Chosen before it is added, the product is rounded, as in the kernel.
        change = jnp.where(own, event[j] * trace[far], 0)
        change = change if scale is None else change * scale(old)
        sender = j if at is None else far
        ends = (_at(x, here, sender, edges) for x in (low, high))
        new = jnp.where(own, _between(old + change, *ends), old)
        none = (own & nowhere(far, n_other)).any()
        if at is None:
            at = first + jnp.arange(longest, dtype=first.dtype)
        astray = (own & nowhere(at, edges)).any()
        return jnp.where(own, at, edges), new, none, astray

    def put(found, carry):
        (at, new, *wrong), (w, *before) = found, carry
        w = w.at[at].set(new, mode="drop", unique_indices=True)
        return w, *(old | x.any() for old, x in zip(before, wrong, strict=True))

    no = jnp.zeros((), bool)
    w, none, astray = by(longest)(event, look, put, (w, no, no))
    # Refused by one number of them, so that the others stay where they are.
    held = refused(w[0], none, Rows(other, start, longest), n_other)
    held = eqx.error_if(held, astray, "place must name one of the synapses")
    return w.at[0].set(held)


def _at(bound: Array, here: Callable, sender: Array, edges: int) -> Array:
    if bound.size <= 1:
        return bound
    return here(bound) if bound.size == edges else bound[sender]


def _between(w: Array, low: Array, high: Array) -> Array:
    w = jnp.maximum(w, low) if low.size else w
    return jnp.minimum(w, high) if high.size else w


def _native_visit(longest: int, largest: int) -> Callable:
    sizes = {"longest": np.int64(longest), "largest": np.int64(largest)}

    def run(post, start, pre, begin, place, low, high, after, s, y, z, x, w):
        shape = jax.ShapeDtypeStruct(w.shape, w.dtype)
        call = jax.ffi.ffi_call("neurojax_visited", shape, input_output_aliases={5: 0})
        z, begin = (z, begin) if z.size else (z, jnp.zeros(1, jnp.int32))
        s, start = (s, start) if s.size else (s, jnp.zeros(1, jnp.int32))
        return call(post, start, pre, begin, place, w, s, y, z, x, low, high, after, **sizes)

    return run


def scheduled(
    rows: Rows, w: Float[Array, " edges"], s: Shaped[Array, " pre"], delays: Int[Array, "*edges"],
    ring: Float[Array, "longest post"], head: Int[Array, ""], native: bool = True,
) -> tuple[Float[Array, " post"], Float[Array, "longest post"]]:  # fmt: skip
    """What is due in this step, and the ring without it and with the currents of the spikes `s`.

    The current of each spike goes to the row in which it is due; a delay of one step is now.
    """
    w, s = w.astype(ring.dtype), s.astype(ring.dtype)
    longest = rows.longest
    one_by_one, many = (_schedule(longest, by) for by in (singly, chunks))
    run = either(_native_schedule(longest), one_by_one, many, native and longest > 0)
    return run(rows.post, rows.start, delays, head, w, s, ring)


def _schedule(longest: int, by: Callable) -> Callable:
    def run(index, start, delays, head, w, s, ring):
        size, n_post = ring.shape

        def look(j, _):
            first, own = row_of(start, j, w.shape[0], longest)
            window = lambda x: jax.lax.dynamic_slice(x, (first,), (longest,))  # noqa: E731
            d, to = window(delays), window(index)
            none = (own & nowhere(to, n_post)).any()
            astray = (own & nowhere(d - 1, size)).any()
            return (head + d - 1) % size, to, jnp.where(own, window(w) * s[j], 0), none, astray

        def put(found, carry):
            (row, to, sent, *wrong), (ring, *before) = found, carry
            ring = ring.at[row, to].add(sent)
            return ring, *(old | x.any() for old, x in zip(before, wrong, strict=True))

        no = jnp.zeros((), bool)
        start_with = ring, no, no
        ring, none, astray = by(longest)(s, look, put, start_with) if longest else start_with
        due = jax.lax.dynamic_index_in_dim(ring, head, keepdims=False)
        due = refused(due, none, Rows(index, start, longest), n_post)
        due = eqx.error_if(due, astray, f"delays must be in [1, {size}] steps")
        due = eqx.error_if(due, nowhere(head, size), "head must be a row of the ring")
        return due, jax.lax.dynamic_update_index_in_dim(ring, jnp.zeros_like(due), head, 0)

    return run


def _native_schedule(longest: int) -> Callable:
    def run(index, start, delays, head, w, s, ring):
        due = jax.ShapeDtypeStruct(ring.shape[1:], ring.dtype)
        later = jax.ShapeDtypeStruct(ring.shape, ring.dtype)
        call = jax.ffi.ffi_call("neurojax_scheduled", (due, later), input_output_aliases={6: 1})
        return tuple(call(index, start, delays, head, w, s, ring, longest=np.int64(longest)))

    return run
