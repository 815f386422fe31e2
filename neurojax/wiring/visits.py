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

from neurojax.wiring.events import Rows, _own, _visited

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
    low: Array | None, high: Array | None,
) -> Float[Array, " edges"]:  # fmt: skip
    """Weights after the visits of one step, held by the bounds after each."""
    at_pre, at_post = visits
    if at_pre is not None:
        w = _along(rows.start, rows.longest, rows.post, None, w, at_pre, (low, high))
    if at_post is not None:
        assert columns is not None  # noqa: S101
        c = columns
        w = _along(c.start, c.longest, c.pre, c.place, w, at_post, (low, high))
    return w


def _along(start, longest, other, place, w, visit: Visit, bounds) -> Array:
    """One visit: to the synapses from `start` on, which lie at `place`, or one after another."""
    edges, trace, event = w.shape[0], visit.trace.astype(w.dtype), visit.event.astype(w.dtype)

    def one(j, w):
        first, own = _own(start, j, edges, longest)
        window = lambda x: jax.lax.dynamic_slice(x, (first,), (longest,))  # noqa: E731
        at = None if place is None else window(place)
        here = lambda x: window(x) if at is None else x[at]  # noqa: E731
        old = here(w)
        change = event[j] * trace[window(other)]
        change = change if visit.scale is None else change * visit.scale(old)
        low, high = (x if x is None or x.ndim == 0 else here(x) for x in bounds)
        new = jnp.where(own, _between(old + change, low, high), old)
        if at is None:
            return jax.lax.dynamic_update_slice(w, new, (first,))
        return w.at[jnp.where(own, at, edges)].set(new, mode="drop")

    return w if longest == 0 else _visited(event, one, w)


def _between(w: Array, low: Array | None, high: Array | None) -> Array:
    w = w if low is None else jnp.maximum(w, low.astype(w.dtype))
    return w if high is None else jnp.minimum(w, high.astype(w.dtype))


def scheduled(
    rows: Rows, w: Float[Array, " edges"], s: Shaped[Array, " pre"], delays: Int[Array, "*edges"],
    ring: Float[Array, "longest post"], head: Int[Array, ""],
) -> Float[Array, "longest post"]:  # fmt: skip
    """The ring with the current of each spike in the row in which it is due."""
    size, edges = ring.shape[0], w.shape[0]

    def one(j, ring):
        first, own = _own(rows.start, j, edges, rows.longest)
        window = lambda x: jax.lax.dynamic_slice(x, (first,), (rows.longest,))  # noqa: E731
        row = (head + window(delays) - 1) % size
        sent = jnp.where(own, window(w) * s[j], 0).astype(ring.dtype)
        return ring.at[row, window(rows.post)].add(sent)

    return ring if rows.longest == 0 else _visited(s, one, ring)
