"""Changes and arrivals at the synapses of neurons that fire, and at no others.

For synapses in rows by sender, and in columns by receiver through one permutation:

    visited     w_e <- bounded(w_e + event_j trace_post(e) scale(w_e))    senders j that fired,
                w_e <- bounded(w_e + event_i trace_pre(e) scale(w_e))     then receivers i
    scheduled   ring[(head + d_e - 1) mod L, post(e)] += w_e s_j          senders j that fired

A step costs the fan-out of the senders that fired and the fan-in of the receivers that did.

Weights in bfloat16 or int8 are rounded by chance to one of their two neighbours, so that the mean
is what was asked for: changes far below their resolution add up as they should.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Shaped

from neurojax.wiring._events_gpu import chunks
from neurojax.wiring.events import (
    Rows,
    calculated,
    either,
    held,
    nowhere,
    refused,
    row_of,
    singly,
)
from neurojax.wiring.narrow import blank, into, kept, kind, pieces, small, wide, window

__all__ = [
    "Columns",
    "Visit",
    "Visits",
    "by_receiver",
    "counts",
    "placed",
    "rounded",
    "scheduled",
    "sent_by",
    "visited",
]


def __dir__() -> list[str]:
    return __all__


class Columns(eqx.Module):
    """The same synapses by receiver, for what happens where a receiver fires.

    `pre` [edges] says who sends each, kept as `narrow` has it, and `slot` [edges], in one byte, two
    or four, how far from the first of that sender it stands in the list by sender. Where one word
    of 32 bits takes less and is enough for both, `pre` is of such, uint32, the sender in the upper
    bits and the slot in the rest, and `slot` None. Those of receiver i lie at start[i] up to
    start[i + 1]; `longest` is the largest fan-in.
    """

    pre: Integer[Array, " edges"] | Integer[Array, "edges 3"]
    slot: Integer[Array, " edges"] | None
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


def by_receiver(index: np.ndarray, start: np.ndarray, n_post: int, longest: int) -> Columns:
    """Columns of synapses in rows: receivers `index` [edges] of the rows that begin at `start`.

    No fan-out is larger than `longest`, which says how both ends are kept. Synapses are gone
    through a few at a time, so that little is needed beside the result.
    """
    n_pre, edges = len(start) - 1, len(index)
    n_in = counts(index, n_post)
    dtype, more = kind(n_pre)
    together = _one_word(n_pre, longest)
    pre = blank(edges, np.uint32) if together else blank((edges, *more), dtype)
    slot = None if together else blank(edges, small(longest))
    for order, at, to in placed(index, n_in):
        place = at.start + order
        sender = np.searchsorted(start, place, side="right") - 1
        if slot is None:
            pre[to] = sender << _low_bits(n_pre) | (place - start[sender])
        else:
            into(pre, sender, to)
            slot[to] = place - start[sender]
    begin = jnp.asarray(np.append(0, np.cumsum(n_in)), jnp.int32)
    slot = None if slot is None else kept(slot)
    return Columns(kept(pre), slot, begin, int(n_in.max(initial=0)))


def _one_word(n_pre: int, longest: int) -> bool:
    """Whether a sender and a slot are kept in one word: it is enough for both, and takes less."""
    dtype, more = kind(n_pre)
    apart = np.dtype(dtype).itemsize * math.prod(more) + np.dtype(small(longest)).itemsize
    return longest <= 1 << _low_bits(n_pre) and apart > 4


def _low_bits(n_pre: int) -> int:
    """Bits of a word that are left beside those which name one of `n_pre` senders."""
    return 32 - max((n_pre - 1).bit_length(), 1)


def sent_by(
    pre: Array, slot: Array | None, n_pre: int, first: Array, size: int
) -> tuple[Array, Array]:
    """Sender and slot, int32 [size] each, of the places of columns from `first` on."""
    if slot is not None and pre.dtype != jnp.uint32:
        return window(pre, first, size), window(slot, first, size)
    word = jax.lax.dynamic_slice_in_dim(pre, first, size)
    bits = jnp.uint32(_low_bits(n_pre))
    low = word & ((jnp.uint32(1) << bits) - jnp.uint32(1))
    return (word >> bits).astype(jnp.int32), low.astype(jnp.int32)


def counts(index: np.ndarray, n: int) -> np.ndarray:
    """How often each of 0 .. n - 1 is named."""
    found = np.zeros(n, np.int64)
    for at in pieces(len(index)):
        found += np.bincount(wide(index[at]), minlength=n)
    return found


def placed(index: np.ndarray, n: np.ndarray):
    """Where each entry of `index` comes in the order of what it names, a piece at a time.

    `n` says how often each is named; entries that name the same stay in their order. Yields the
    order of each piece, the piece, and the places of what it has in that order.
    """
    free = np.cumsum(n) - n
    for at in pieces(len(index)):
        key = wide(index[at]).astype(np.uint64) << 32 | np.arange(
            at.stop - at.start, dtype=np.uint64
        )
        key.sort()  # at once by name and place, which is what NumPy is fast at
        order, named = (key & 0xFFFFFFFF).astype(np.int64), (key >> 32).astype(np.int64)
        first = np.flatnonzero(np.diff(named, prepend=-1))
        times = np.diff(np.append(first, len(named)))
        which = np.arange(len(named)) - np.repeat(first, times)
        yield order, at, free[named] + which
        free[named[first]] += times


def visited(
    rows: Rows, columns: Columns | None, w: Shaped[Array, " edges"], visits: Visits,
    low: Array | None, high: Array | None, native: bool = True, after: Array | None = None,
    key: Array | None = None,
) -> Shaped[Array, " edges"]:  # fmt: skip
    """Weights after the visits of one step, held by the bounds after each.

    A bound is one number, one a synapse or, where there are not as many synapses, one a sender.
    `after` is what was read from `w` in the step, if anything: it is read first then, and `w` can
    change in place. Weights in bfloat16 or int8 are rounded by chance, from the `key`.
    """
    at_pre, at_post = (v if v is None or v.event.size else None for v in visits)
    if rows.longest == 0 or (at_pre is None and at_post is None):
        return w
    dtype = calculated(w.dtype)
    scales = tuple(None if v is None else v.scale for v in (at_pre, at_post))
    lists = rows.post, rows.start, *_columns(columns)
    largest = 1 if columns is None else columns.longest
    ends = _end(low, dtype), _end(high, dtype), jnp.zeros(0) if after is None else after
    given = *lists, *ends, seeds(w.dtype, key), *_sides(at_pre, dtype), *_sides(at_post, dtype), w
    one_by_one, many = (_visit(rows.longest, largest, scales, by) for by in (singly, chunks))
    if scales == (None, None):
        return either(_native_visit(rows.longest, largest), one_by_one, many, native)(*given)
    arrays = eqx.filter(scales, eqx.is_array)
    ways = ((lambda arrays, *given, way=way: way(*given, arrays)) for way in (one_by_one, many))
    scaled, scaled_many = ways
    return either(scaled, scaled, scaled_many, native=False)(arrays, *given)


def seeds(dtype: Any, key: Array | None) -> Array:
    """Of the chance in one step, one for each side; none where weights are kept as calculated."""
    if dtype not in (jnp.bfloat16, jnp.int8, jnp.float16):
        return jnp.zeros(0, jnp.uint32)
    if dtype == jnp.float16:
        raise ValueError(
            "weights that learn on an event list must be float32, float64, bfloat16 or int8 levels;"
            " got float16"
        )
    if key is None:
        raise ValueError(
            f"key must be given where weights of {jnp.dtype(dtype)} learn, as they are rounded by"
            " chance, lest small changes be lost: pass key=jax.random.key(0), or keep them in"
            " float32"
        )
    return jax.random.bits(key, (2,), jnp.uint32)


def rounded(x: Float[Array, " *n"], dtype: Any, bits: Shaped[Array, " *n"]) -> Array:
    """`x` as bfloat16, or as int8 from -127 to 127: one of its two neighbours, whose mean is `x`.

    `bits` are 32 of chance for each. Of another `dtype` nothing is rounded by chance.
    """
    if dtype == jnp.int8:
        x = jnp.clip(x, -127, 127)
        low, u = jnp.floor(x), (bits >> 8).astype(x.dtype) * 2.0**-24
        return (low + (x - low > u).astype(x.dtype)).astype(jnp.int8)
    if dtype != jnp.bfloat16:
        return x.astype(dtype)
    word = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    finite = (word & 0x7F800000) != 0x7F800000
    word = jnp.where(finite, word + (bits & 0xFFFF), word) >> 16
    return jax.lax.bitcast_convert_type(word.astype(jnp.uint16), jnp.bfloat16)


def _chance(e: Array, seed: Array) -> Array:
    """32 bits for each synapse `e` in one step. Source: Steele et al. (2014), SplitMix; the mixing
    of the bits is that of MurmurHash3."""
    x = e.astype(jnp.uint32) * jnp.uint32(0x9E3779B9) + seed
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _columns(c: Columns | None) -> tuple[Array, Array, Array]:
    if c is None:
        return jnp.zeros(0, jnp.uint16), jnp.zeros(1, jnp.int32), jnp.zeros(0, jnp.uint8)
    return c.pre, c.start, jnp.zeros(0, jnp.uint8) if c.slot is None else c.slot


def _end(bound: Array | None, dtype: Any) -> Array:
    """A bound as an array of none, one number, one a synapse, or one a sender."""
    return jnp.zeros(0, dtype) if bound is None else jnp.atleast_1d(bound).astype(dtype)


def _sides(visit: Visit | None, dtype: Any) -> tuple[Array, Array]:
    if visit is None:
        return jnp.zeros(0, dtype), jnp.zeros(0, dtype)
    return visit.event.astype(dtype), visit.trace.astype(dtype)


def _visit(longest: int, largest: int, scales: tuple, by: Callable) -> Callable:
    rest = eqx.filter(scales, eqx.is_array, inverse=True)

    def run(
        post, start, pre, begin, slot, low, high, after, seed, s, y, z, x, w, arrays=(None, None)
    ):
        of_pre, of_post = eqx.combine(arrays, rest)
        one, other = (seed[0], seed[1]) if seed.size else (None, None)
        w = _changed(longest, of_pre, post, start, None, None, low, high, one, s, y, w, by)
        return _changed(largest, of_post, pre, begin, slot, start, low, high, other, z, x, w, by)

    return run


def _changed(
    longest, scale, other, start, slot, by_sender, low, high, seed, event, trace, w, by
) -> Array:
    """One visit: to the synapses from `start` on, or to the `slot`-th of each sender `other`."""
    edges, n_other = w.shape[0], trace.shape[0]
    if event.size == 0:
        return w

    def look(j, carry):
        w = carry[0]
        first, own = row_of(start, j, other.shape[0], longest)
        at, beyond = None, jnp.zeros(longest, bool)
        if slot is None:
            far = window(other, first, longest)
        else:
            far, beside = sent_by(other, slot, n_other, first, longest)
            at = by_sender[far] + beside
            beyond = (at < by_sender[far]) | (at >= by_sender[far + 1])
        own_slice = lambda x: jax.lax.dynamic_slice(x, (first,), (longest,))  # noqa: E731
        here = lambda x: own_slice(x) if at is None else x[at]  # noqa: E731
        kept, sender = here(w), j if at is None else far
        old = kept.astype(trace.dtype)
        # Chosen before it is added, the product is rounded, as in the kernel.
        change = jnp.where(own, event[j] * trace[far], 0)
        change = change if scale is None else change * scale(old)
        ends = (_at(x, here, sender, edges) for x in (low, high))
        new = _between(old + change, *ends)
        if seed is not None:
            e = first + jnp.arange(longest, dtype=jnp.int32) if at is None else at
            new = rounded(new, w.dtype, _chance(e, seed))
        new = jnp.where(own, new, kept)
        none = (own & nowhere(far, n_other)).any()
        if at is None:
            at = first + jnp.arange(longest, dtype=first.dtype)
        astray = (own & beyond).any()
        return jnp.where(own, at, edges), new, none, astray

    def put(found, carry):
        (at, new, *wrong), (w, *before) = found, carry
        w = w.at[at].set(new, mode="drop", unique_indices=True)
        return w, *(old | x.any() for old, x in zip(before, wrong, strict=True))

    no = jnp.zeros((), bool)
    w, none, astray = by(longest)(event, look, put, (w, no, no))
    # Refused by one number of them, so that the others stay where they are.
    held = refused(w[0], none, Rows(other, start, longest), n_other)
    held = eqx.error_if(held, astray, "slot must name one of a sender's synapses")
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

    def run(post, start, pre, begin, slot, low, high, after, seed, s, y, z, x, w):
        shape = jax.ShapeDtypeStruct(w.shape, w.dtype)
        call = jax.ffi.ffi_call("neurojax_visited", shape, input_output_aliases={5: 0})
        begin = begin if z.size else jnp.zeros(1, jnp.int32)
        lists = post, start, pre, begin, slot
        return call(*lists, w, s, y, z, x, low, high, seed, after, **sizes)

    return run


def scheduled(
    rows: Rows, w: Shaped[Array, " edges"], s: Shaped[Array, " pre"],
    delays: Integer[Array, "*edges"], ring: Float[Array, "longest post"], head: Int[Array, ""],
    native: bool = True,
) -> tuple[Float[Array, " post"], Float[Array, "longest post"]]:  # fmt: skip
    """What is due in this step, and the ring without it and with the currents of the spikes `s`.

    The current of each spike goes to the row in which it is due; a delay of one step is now.
    """
    w, s = held(w, ring.dtype), s.astype(ring.dtype)
    longest = rows.longest
    one_by_one, many = (_schedule(longest, by) for by in (singly, chunks))
    run = either(_native_schedule(longest), one_by_one, many, native and longest > 0)
    return run(rows.post, rows.start, delays, head, w, s, ring)


def _schedule(longest: int, by: Callable) -> Callable:
    def run(index, start, delays, head, w, s, ring):
        size, n_post = ring.shape

        def look(j, _):
            first, own = row_of(start, j, w.shape[0], longest)
            d, to = window(delays, first, longest), window(index, first, longest)
            own_w = jax.lax.dynamic_slice(w, (first,), (longest,)).astype(ring.dtype)
            none = (own & nowhere(to, n_post)).any()
            astray = (own & nowhere(d - 1, size)).any()
            return (head + d - 1) % size, to, jnp.where(own, own_w * s[j], 0), none, astray

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
