"""Synapses listed by sender: the layout of large sparse networks, in which spikes are events."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from neurojax import events
from neurojax._check import count, working
from neurojax.layouts import Edges, flat


class FanOut(eqx.Module):
    """A list of synapses sorted by sender: products cost what the spikes cost, no more.

    `index` [edges] names each synapse's receiver; those of sender j lie at start[j] up to
    start[j + 1]. `w` has shape [edges]. `apply` and `outer` visit only senders that are not
    silent, exactly, however many they are (`events`); a batch goes sample by sample, on one
    device. `longest` is at least the largest fan-out. With `native` False nothing is compiled
    by a C++ compiler. The gradient of `apply` by `w` holds one [edges] for each sample of a
    batch; there is no forward mode. Made by `by_sender`, or drawn by `connectivity`.
    Raises `ValueError` for arrays that are not int32 or do not fit one another.
    """

    index: Int[Array, " edges"]
    start: Int[Array, " pre_and_end"]
    n_post: int = eqx.field(static=True)
    longest: int = eqx.field(static=True)
    native: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        for name, x in (("index", self.index), ("start", self.start)):
            if x.dtype != jnp.int32:
                raise ValueError(f"{name} must be int32; got {x.dtype}")
        try:
            index, start = np.asarray(self.index), np.asarray(self.start)
        except jax.errors.TracerArrayConversionError:
            return
        n_out = np.diff(start)
        if start[0] != 0 or start[-1] != index.size or n_out.min(initial=0) < 0:
            raise ValueError(f"start must rise from 0 to {index.size}, the synapses; got {start}")
        if n_out.max(initial=0) > self.longest:
            raise ValueError(f"longest must be >= {n_out.max()}, a fan-out; got {self.longest}")
        _within("index", index, self.n_post)

    @property
    def n_pre(self) -> int:
        """Sending neurons."""
        return self.start.shape[-1] - 1

    @property
    def shape(self) -> tuple[int]:
        """Shape of the weights, [edges]."""
        return (self.index.shape[-1],)

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron."""
        return jnp.bincount(self.index, length=self.n_post).astype(float)

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        return jnp.diff(self.start).astype(float)

    def edges(self) -> Edges:
        """Who sends to whom."""
        pre = self.at_pre(jnp.arange(self.n_pre, dtype=self.index.dtype))
        return Edges(pre, self.index, jnp.ones_like(self.index))

    def at_post(self, x: Shaped[Array, " post"]) -> Shaped[Array, " edges"]:
        """x of the receiver, at each synapse."""
        return x[self.index]

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, " edges"]:
        """x of the sender, at each synapse."""
        return jnp.repeat(x, jnp.diff(self.start), total_repeat_length=self.shape[0])

    def matrix(self, w: Float[Array, " edges"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        pre, post, _ = self.edges()
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[post, pre].add(w)

    def apply(self, w: Float[Array, " edges"], s: Float[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron."""
        (w, s), dtype = _alike(w, s)
        _shaped(w=(w, self.shape), s=(s, (self.n_pre,)))
        return _scattered(self, w, s).astype(dtype)

    def apply_t(self, w: Float[Array, " edges"], e: Float[Array, " post"]) -> Float[Array, " pre"]:
        """Transposed product, over all synapses."""
        (w, e), dtype = _alike(w, e)
        _shaped(w=(w, self.shape), e=(e, (self.n_post,)))
        pre, heard = self.edges().pre, w * e[self.index]
        return jax.ops.segment_sum(heard, pre, self.n_pre, indices_are_sorted=True).astype(dtype)

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, " edges"]:
        """Summed outer product on the synapses that exist."""
        (post, pre), dtype = _alike(*flat(post, pre))
        _shaped(post=(post, (len(post), self.n_post)), pre=(pre, (len(pre), self.n_pre)))
        return events.gathered(self.rows, post, pre, self.native).astype(dtype)

    @property
    def rows(self) -> events.Rows:
        """As the event-driven products take it."""
        return events.Rows(self.index, self.start, self.longest)


def _alike(a: Array, b: Array) -> tuple[tuple[Array, Array], Any]:
    """Both in the dtype to add up in, and that of the result."""
    dtype = jnp.result_type(a, b)
    return (a.astype(working(dtype)), b.astype(working(dtype))), dtype


def _shaped(**arrays: tuple[Array, tuple[int, ...]]) -> None:
    """Refuse other shapes: the kernel would read past the end."""
    for name, (x, shape) in arrays.items():
        if x.shape != shape:
            raise ValueError(f"{name} must have shape {shape}; got {x.shape}")


@jax.custom_vjp
def _scattered(c: FanOut, w: Array, s: Array) -> Array:
    """A loop over spikes has no derivative of its own; the product is linear in w and in s."""
    return events.scattered(c.rows, w, s, c.n_post, c.native)


def _scattered_fwd(c, w, s):
    return _scattered(c, w, s), (c, w, s)


def _scattered_bwd(saved, e):
    c, w, s = saved
    return None, c.outer(e, s), c.apply_t(w, e)


_scattered.defvjp(_scattered_fwd, _scattered_bwd)


def by_sender(
    pre: ArrayLike | Sequence[int],
    post: ArrayLike | Sequence[int],
    n_pre: int,
    n_post: int,
    *,
    native: bool = True,
) -> FanOut:
    """The synapses pre [edges] -> post [edges] as a `FanOut`; a pair may stand there twice.

    They are put in the order of sender, then receiver, and so must be their weights:
    `w[np.lexsort((post, pre))]` of weights in the order of the lists. Not for use under `jit`:
    the largest fan-out becomes part of the structure.
    Raises `ValueError` for ends that are not whole numbers, not of equal length, or name no
    neuron, and for populations without neurons.
    """
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    pre, post = _ends("pre", pre, n_pre), _ends("post", post, n_post)
    if pre.shape != post.shape:
        shapes = f"{pre.shape}, {post.shape}"
        raise ValueError(f"pre and post must be lists of equal length; got {shapes}")
    index = jnp.asarray(post[np.lexsort((post, pre))], jnp.int32)
    n_out = np.bincount(pre, minlength=n_pre)
    start = jnp.asarray(np.concatenate([[0], np.cumsum(n_out)]), jnp.int32)
    return FanOut(index, start, n_post, int(n_out.max()), native)


def _ends(name: str, ends: ArrayLike | Sequence[int], n: int) -> np.ndarray:
    """One end of every synapse, checked."""
    ends = np.asarray(ends)
    ends = ends if ends.size else ends.astype(int)
    if ends.ndim != 1 or not np.issubdtype(ends.dtype, np.integer):
        raise ValueError(f"{name} must be a list of whole numbers; got {ends.dtype}, {ends.shape}")
    _within(name, ends, n)
    return ends


def _within(name: str, ends: np.ndarray, n: int) -> None:
    wrong = (ends < 0) | (ends >= n)
    if wrong.any():
        raise ValueError(
            f"{name} must name one of {n} neurons, 0 to {n - 1}; got {ends[wrong][0]}"
            f" ({wrong.sum()} of {wrong.size})"
        )
