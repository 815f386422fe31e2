"""Synapses listed by sender: the layout of large sparse networks, in which spikes are events."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, PyTree, Shaped

from neurojax._check import brief, count, flag, numbers, working
from neurojax._memory import affordable
from neurojax.wiring import events, narrow
from neurojax.wiring.convolution import Conv1D, Conv2D, Local1D, Local2D
from neurojax.wiring.layouts import (
    Band,
    Dense,
    Edges,
    FanIn,
    alike,
    array,
    concrete,
    indices,
    shaped,
    sides,
    sized,
    within,
)
from neurojax.wiring.procedural import Procedural
from neurojax.wiring.shards import Shards
from neurojax.wiring.visits import Columns, Visits, by_receiver, counts, placed, scheduled, visited

__all__ = ["Connectivity", "FanOut", "as_fan_out", "by_sender", "products"]

Carried = TypeVar("Carried")

_SORTED = 1 << 23  # synapses sorted at once


def _listed(x: Any) -> Array | np.ndarray:
    """Field converter: whole numbers in the type they have, of 32 bits at most."""
    x = array("index", x)
    small = x.size and jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize <= 2
    return x if small else indices("index")(x)


class FanOut(eqx.Module):
    """A list of synapses sorted by sender: products cost what the spikes cost, no more.

    `index` [edges] names each synapse's receiver; those of sender j lie at start[j] up to
    start[j + 1]. It is kept in two bytes each where there are 65,536 receivers at most, uint16, in
    three up to 2^24, uint8 [edges, 3], and as int32 above; `edges().post` has it as int32 always.
    `w` has shape [edges], and is read as it is kept where it is bfloat16. `apply` and `outer` visit
    only senders that are not silent, exactly, however many they are (`events`); a batch goes sample
    by sample, on one device. `longest` is at least the largest fan-out. With `native` False nothing
    is compiled by a C++ compiler. The gradient of `apply` by `w` holds one [edges] for each sample
    of a batch; there is no forward mode. Made by `by_sender`, or drawn by `connectivity`. A pair
    may stand there twice: the two synapses add up, each with its weight.

    >>> wiring = nj.FanOut(index=[1, 2, 0], start=[0, 2, 3], n_post=3, longest=2)
    >>> wiring
    FanOut(2 -> 3, 3 synapses)
    >>> wiring.apply(jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 0.0]))
    Array([0. , 0.1, 0.2], dtype=float32)

    Raises `ValueError` for arrays that are no whole numbers or do not fit one another, of a type
    that cannot name every receiver, and for a receiver that is none of `n_post`; at run time where
    they are traced, and again where the products come upon one that was put in later.
    """

    index: Integer[Array | np.ndarray, " edges"] | Integer[Array | np.ndarray, "edges 3"] = (
        eqx.field(converter=_listed)
    )
    start: Int[Array, " pre_and_end"] = eqx.field(converter=indices("start"))
    n_post: int = eqx.field(static=True, converter=count("n_post"))
    longest: int = eqx.field(static=True, converter=count("longest", 0))
    native: bool = eqx.field(static=True, default=True, converter=flag("native"))
    columns: Columns | None = None

    def __check_init__(self):
        if len(narrow.axes(self.index)) != 1 or self.start.ndim != 1 or self.start.size < 2:
            shapes = f"{self.index.shape}, {self.start.shape}"
            raise ValueError(f"index and start must have shapes [edges], [n_pre + 1]; got {shapes}")
        narrow.names_all("index", self.index, self.n_post)
        index, start = concrete(self.index), concrete(self.start)
        if index is None or start is None:
            index = narrow.wide(jnp.asarray(self.index))
            none = events.nowhere(index, self.n_post).any()
            index = events.refused(index, none, self.rows, self.n_post)
            return object.__setattr__(self, "index", narrow.narrow(index, self.n_post))
        n_out = np.diff(start)
        if start[0] != 0 or start[-1] != len(index) or n_out.min() < 0:
            raise ValueError(f"start must rise from 0 to {len(index)}, the synapses; got {start}")
        if n_out.max() > self.longest:
            raise ValueError(f"longest must be >= {n_out.max()}, a fan-out; got {self.longest}")
        for at in narrow.pieces(len(index)):
            within("index", narrow.wide(index[at]), self.n_post)
        object.__setattr__(self, "index", narrow.stored(index, self.n_post))

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        return sized(self, f"{self.shape[0]:,} synapses")

    @property
    def n_pre(self) -> int:
        """Sending neurons."""
        return self.start.shape[-1] - 1

    @property
    def shape(self) -> tuple[int]:
        """Shape of the weights, [edges]."""
        return (narrow.axes(self.index)[-1],)

    @property
    def n_synapses(self) -> int:
        """Synapses in all."""
        return self.shape[0]

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron."""
        return jnp.bincount(self._post, length=self.n_post).astype(float)

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        return jnp.diff(self.start).astype(float)

    def edges(self) -> Edges:
        """Who sends to whom."""
        pre = self.at_pre(jnp.arange(self.n_pre, dtype=jnp.int32))
        return Edges(pre, self._post, jnp.ones_like(pre))

    def at_post(self, x: Shaped[Array, " post"]) -> Shaped[Array, " edges"]:
        """x of the receiver, at each synapse."""
        shaped(x=(x, (self.n_post,)))
        return x[self._post]

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, " edges"]:
        """x of the sender, at each synapse."""
        shaped(x=(x, (self.n_pre,)))
        return jnp.repeat(x, jnp.diff(self.start), total_repeat_length=self.shape[0])

    def matrix(self, w: Float[Array, " edges"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        shaped(w=(w, self.shape))
        pre, post, _ = self.edges()
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[post, pre].add(w)

    def apply(self, w: Shaped[Array, " edges"], s: Shaped[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron, nA; of `w` in int8, in units of a level."""
        return products([self], [w], s)[0]

    def apply_t(self, w: Float[Array, " edges"], e: Shaped[Array, " post"]) -> Float[Array, " pre"]:
        """Transposed product, over all synapses."""
        (w, e), dtype = _summable(*alike(w, e))
        shaped(w=(w, self.shape), e=(e, (self.n_post,)))
        pre, heard = self.edges().pre, w * e[self._post]
        sums = jax.ops.segment_sum(heard, pre, self.n_pre, indices_are_sorted=True)
        none = events.nowhere(self._post, self.n_post).any()
        return events.refused(sums, none, self.rows, self.n_post).astype(dtype)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, " edges"]:
        """Summed outer product on the synapses that exist."""
        (post, pre), dtype = _summable(*sides(self, post, pre))
        return events.gathered(self.rows, post, pre, self.native).astype(dtype)

    def with_columns(self) -> "FanOut":
        """The same list, which can also be gone through by receiver: 3 to 8 bytes a synapse more.

        What learns where receivers fire needs it, as STDP does: of each synapse its sender, and
        which of the sender's it is: 4 bytes at most where 32 bits are enough for both. Raises
        `ValueError` under `jit`.
        """
        index, start = concrete(self.index), concrete(self.start)
        if index is None or start is None:
            raise ValueError("with_columns must be called on concrete wiring, not under jit")
        return replace(self, columns=by_receiver(index, start, self.n_post, self.longest))

    def visited(
        self, w: Shaped[Array, " edges"], visits: Visits, low: Array | None, high: Array | None,
        after: Array | None = None, key: Array | None = None,
    ) -> Shaped[Array, " edges"]:  # fmt: skip
        """Weights after what one step changes at the neurons that fired (`Visit`), bounded.

        Those in bfloat16 or int8 are rounded by chance, from the `key`.
        """
        if visits[1] is not None and self.columns is None:
            raise ValueError(
                "connectivity must have columns where synapses change as receivers fire:"
                " pass connectivity.with_columns()"
            )
        return visited(self.rows, self.columns, w, visits, low, high, self.native, after, key)

    def scheduled(
        self, w: Shaped[Array, " edges"], s: Shaped[Array, " pre"],
        delays: Integer[Array, " edges"], ring: Float[Array, "longest post"], head: Int[Array, ""],
    ) -> tuple[Float[Array, " post"], Float[Array, "longest post"]]:  # fmt: skip
        """Currents due now, nA, and the ring of those to come, with that of spikes `s`."""
        return scheduled(self.rows, w, s, delays, ring, head, self.native)

    @property
    def _post(self) -> Int[Array, " edges"]:
        """Receiver of each synapse, however it is kept."""
        return narrow.wide(jnp.asarray(self.index))

    @property
    def rows(self) -> events.Rows:
        """As the event-driven products take it."""
        return events.Rows(jnp.asarray(self.index), self.start, min(self.longest, self.shape[0]))


def _summable(a: Array, b: Array) -> tuple[tuple[Array, Array], Any]:
    """Both in the dtype to add up in, and that of the result."""
    return (a.astype(working(a.dtype)), b.astype(working(b.dtype))), a.dtype


Connectivity = (
    Dense | FanIn | FanOut | Procedural | Band | Conv1D | Conv2D | Local1D | Local2D | Shards
)


def listed(wiring: Any) -> bool:
    """Whether its products visit spikes one by one, on one device or on several."""
    return isinstance(wiring, FanOut) or (isinstance(wiring, Shards) and wiring.listed)


def products(
    wirings: Sequence[FanOut], ws: Sequence[Shaped[Array, "_"]], s: Shaped[Array, " pre"]
) -> tuple[Float[Array, "_"], ...]:
    """Currents [n_post], nA, that lists from the same senders bring, in one pass over the spikes.

    All `ws` [edges] are of one dtype, int8 too, and `native` is the same of all.
    """
    for c, w in zip(wirings, ws, strict=True):
        shaped(w=(w, c.shape), s=(s, (c.n_pre,)))
    dtype = _common(ws[0], s)
    s, ws = s.astype(working(dtype)), [events.held(w, working(dtype)) for w in ws]
    currents = _scattered(tuple(wirings), tuple(ws), s)
    return tuple(x.astype(dtype) for x in currents)


def _common(w: Array, s: Array) -> Any:
    """The type of a product of both; weights of few bits take that of the other side."""
    if w.dtype in (jnp.bfloat16, jnp.int8) and eqx.is_inexact_array(s):
        return s.dtype
    return alike(w[:0], s[:0])[0].dtype


@jax.custom_vjp
def _scattered(cs: tuple[FanOut, ...], ws: tuple[Array, ...], s: Array) -> tuple[Array, ...]:
    """A loop over spikes has no derivative of its own; the product is linear in w and in s."""
    lists = [(c.rows, w, c.n_post) for c, w in zip(cs, ws, strict=True)]
    return events.scattered(lists, s, cs[0].native)


def _scattered_fwd(cs, ws, s):
    return _scattered(cs, ws, s), (cs, ws, s)


def _scattered_bwd(saved, es):
    cs, ws, s = saved
    to_ws = tuple(_like(c.outer(e, s), w) for c, w, e in zip(cs, ws, es, strict=True))
    to_s = (c.apply_t(w, e) for c, w, e in zip(cs, ws, es, strict=True))
    return None, to_ws, functools.reduce(jnp.add, to_s)


def _like(change: Array, w: Array) -> Array | None:
    """In the type of the weights; whole numbers have no derivative."""
    return change.astype(w.dtype) if eqx.is_inexact_array(w) else None


_scattered.defvjp(_scattered_fwd, _scattered_bwd)


@overload
def by_sender(
    pre: ArrayLike | Sequence[int],
    post: ArrayLike | Sequence[int],
    n_pre: int,
    n_post: int,
    w: None = None,
    *,
    native: bool = True,
) -> FanOut: ...
@overload
def by_sender(
    pre: ArrayLike | Sequence[int],
    post: ArrayLike | Sequence[int],
    n_pre: int,
    n_post: int,
    w: Carried,
    *,
    native: bool = True,
) -> tuple[FanOut, Carried]: ...
def by_sender(
    pre: ArrayLike | Sequence[int],
    post: ArrayLike | Sequence[int],
    n_pre: int,
    n_post: int,
    w: PyTree | None = None,
    *,
    native: bool = True,
) -> Any:
    """The synapses pre [edges] -> post [edges] as a `FanOut`; a pair may stand there twice.

    They are put in the order of sender, then receiver. What belongs to each synapse is put in
    the same order, and returned beside the wiring, when it is handed over as `w`: weights
    [edges], nA, or a tuple or dict of such arrays. Not for use under `jit`: the largest fan-out
    becomes part of the structure.

    >>> wiring, w = nj.by_sender([2, 0], [1, 1], n_pre=3, n_post=2, w=jnp.array([0.2, 0.7]))
    >>> wiring, w
    (FanOut(3 -> 2, 2 synapses), Array([0.7, 0.2], dtype=float32))

    Raises `ValueError` for ends that are not whole numbers, not of equal length, or name no
    neuron, for populations without neurons, and for `w` of another length.
    """
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    pre, post = _ends("pre", pre, n_pre), _ends("post", post, n_post)
    affordable(f"a list of synapses of {n_pre} senders", 32 * (n_pre + pre.size))
    if pre.shape != post.shape:
        shapes = f"{pre.shape}, {post.shape}"
        raise ValueError(f"pre and post must be lists of equal length; got {shapes}")
    n_out = counts(pre, n_pre)
    start, longest = np.append(0, np.cumsum(n_out)), int(n_out.max())
    dtype, more = narrow.kind(n_post)
    index = narrow.blank((pre.size, *more), dtype)
    order = None if w is None else narrow.blank(pre.size, np.int32)
    for at, which in _in_order(pre, post, start):
        narrow.into(index, post[which], at)
        if order is not None:
            order[at] = which
    wiring = FanOut(index, start, n_post, longest, native)
    if order is None:
        return wiring
    return wiring, jax.tree.map(lambda x: _sorted(x, order), w, is_leaf=_is_list)


def _in_order(
    pre: np.ndarray, post: np.ndarray, start: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Which synapses come in the order of sender, then receiver: those of a few senders at once.

    So little memory is needed beside the result, and each turn goes through all senders' names.
    """
    first = 0
    while first < len(start) - 1:
        upto = np.searchsorted(start, start[first] + _SORTED, side="right") - 1
        upto = max(int(upto), first + 1)
        if first == 0 and upto == len(start) - 1:
            which = np.lexsort((post, pre))
        else:
            which = np.flatnonzero((pre >= first) & (pre < upto))
            which = which[np.lexsort((post[which], pre[which]))]
        yield slice(int(start[first]), int(start[upto])), which
        first = upto


@overload
def as_fan_out(fan: FanIn, w: None = None, *, native: bool = True) -> FanOut: ...
@overload
def as_fan_out(fan: FanIn, w: Array, *, native: bool = True) -> tuple[FanOut, Array]: ...
def as_fan_out(fan: FanIn, w: Any = None, *, native: bool = True) -> Any:
    """The synapses of a `FanIn` as a `FanOut`, in the order of sender, then receiver.

    What `by_sender` makes of its edges, in little more memory than the result takes. Weights `w`
    [n_post, k], nA, are put in the same order, and returned beside the wiring as [edges]. Not for
    use under `jit`: the largest fan-out becomes part of the structure.

    >>> nj.as_fan_out(nj.fan_in(jax.random.key(0), 400, 300, density=0.1))
    FanOut(400 -> 300, 12,000 synapses)

    Raises `TypeError` for what is no `FanIn`, and `ValueError` for `w` of another shape.
    """
    if not isinstance(fan, FanIn):
        raise TypeError(f"fan must be a FanIn; got {brief(fan)}: see by_sender for other synapses")
    pre, k = np.asarray(fan.index).reshape(-1), fan.shape[1]
    if w is not None:
        shaped(w=(numbers("w", w), fan.shape))
        w = np.asarray(w)
    n_out = counts(pre, fan.n_pre)
    dtype, more = narrow.kind(fan.n_post)
    index = narrow.blank((pre.size, *more), dtype)
    sent = None if w is None else narrow.blank(pre.size, w.dtype)
    for order, at, to in placed(pre, n_out):
        narrow.into(index, (at.start + order) // k, to)
        if w is not None and sent is not None:
            sent[to] = w.reshape(-1)[at][order]
    start = np.append(0, np.cumsum(n_out))
    wiring = FanOut(index, start, fan.n_post, int(n_out.max()), native)
    return (
        wiring if sent is None else (wiring, jnp.array(sent))
    )  # a copy: JAX can change it in place


def _is_list(x: Any) -> bool:
    """A list of numbers is one array, not a tree of them."""
    return isinstance(x, list)


def _sorted(w: Any, order: np.ndarray) -> Array:
    w = numbers("w", w)
    if w.shape[:1] != order.shape:
        raise ValueError(f"w must have one entry for each of {order.size} synapses; got {w.shape}")
    return w[order]


def _ends(name: str, ends: ArrayLike | Sequence[int], n: int) -> np.ndarray:
    """One end of every synapse, checked."""
    ends = np.asarray(array(name, ends))
    ends = ends if ends.size else ends.astype(int)
    if ends.ndim != 1 or not np.issubdtype(ends.dtype, np.integer):
        raise ValueError(f"{name} must be a list of whole numbers; got {ends.dtype}, {ends.shape}")
    narrow.names_all(name, ends, n)
    for at in narrow.pieces(len(ends)):
        within(name, ends[at], n)
    return ends


def __dir__() -> list[str]:
    return __all__
