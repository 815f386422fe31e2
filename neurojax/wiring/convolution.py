"""Windows that slide over maps of neurons: shared weights (convolution), or one a place (local).

A layer stays a flat vector: neuron (c, y, x) of maps (channels, height, width) has the number
(c height + y) width + x. A window is a cross-correlation, as everywhere in deep learning, and
weights lie as those of `torch.nn.Conv2d`. For receiver i = (o, y, x) of `Conv2D`

    I_i = sum_{c, a, b} w_{o, c, a, b} s_{c, y stride + a dilation - padding, ...}

`apply`, `apply_t`, `outer` and `matrix` are those of every layout; a shared weight is asked to
change by the sum over all places that it is read at.
"""

import math
from functools import partial
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig
from jaxtyping import Array, Bool, Float, Shaped

from neurojax._check import brief, count, working
from neurojax._memory import affordable
from neurojax.wiring._windows import mean_of_pools, mean_plain, slid, slid_by_w, slid_plain
from neurojax.wiring.layouts import Edges, alike, shaped, sides

__all__ = ["Conv1D", "Conv2D", "Local1D", "Local2D"]

Sizes = int | tuple[int, ...]  # one for all axes, or one an axis


def __dir__() -> list[str]:
    return __all__


def _sizes(x: Sizes) -> tuple[int, ...]:
    """Field converter: a tuple, of one for all axes or of one an axis; checked in `_Windows`."""
    return tuple(x) if isinstance(x, tuple | list) else (x,)


def _around(x: Sizes | Literal["same"]) -> tuple[int, ...]:
    """Field converter of a padding; () is "same" until the windows are known."""
    if isinstance(x, str) and x != "same":
        raise ValueError(f'padding must be whole numbers, or "same"; got {brief(x)}')
    return () if isinstance(x, str) else _sizes(x)


class _Windows(eqx.Module):
    """Which senders each receiver sees: geometry alone, the same for all kinds of weights."""

    size: tuple[int, ...] = eqx.field(static=True, converter=_sizes)
    features: int = eqx.field(static=True, converter=count("features"))
    kernel: tuple[int, ...] = eqx.field(static=True, converter=_sizes)
    stride: tuple[int, ...] = eqx.field(static=True, default=(1,), converter=_sizes, kw_only=True)
    padding: tuple[int, ...] = eqx.field(static=True, default=(0,), converter=_around, kw_only=True)
    dilation: tuple[int, ...] = eqx.field(static=True, default=(1,), converter=_sizes, kw_only=True)
    groups: int = eqx.field(static=True, default=1, converter=count("groups"), kw_only=True)
    axes: ClassVar[int]

    def __check_init__(self):
        fixed = partial(object.__setattr__, self)  # what is checked is one number an axis
        fixed("size", self._size(self.size))
        for name in ("kernel", "stride", "dilation"):
            fixed(name, self._each(name, getattr(self, name)))
        if hasattr(self, "pool"):
            fixed("pool", self._each("pool", self.pools))
        fixed("padding", self._padding(self.padding))
        self._refuse_unfit()

    def _refuse_unfit(self) -> None:
        for name, n in (("channels of size", self.size[0]), ("features", self.features)):
            if n % self.groups:
                raise ValueError(f"groups must divide the {name}, {n}; got {self.groups}")
        if min(self.pooled_size) < 1:
            raise ValueError(f"pool must fit the maps, {self.size[1:]}; got {self.pools}")
        if min(self.size_post) < 1:
            sides = zip(self.pooled_size[1:], self.padding, strict=True)
            raise ValueError(
                f"kernel must fit the maps, {tuple(n + 2 * p for n, p in sides)} with padding;"
                f" got {self._reach()}, dilated: pass padding="
            )
        for name, n in (("size", self.n_pre), ("features", self.n_post)):
            count(f"{name}, as neurons of all maps,")(n)
        padded = (n + 2 * p for n, p in zip(self.pooled_size[1:], self.padding, strict=True))
        maps, weights = self.size[0] * math.prod(padded), self.features * self.window
        affordable(f"a step of {self}", 4 * (maps + self.n_pre + self.n_post + weights))

    def _size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        if len(size) != 1 + self.axes:
            named = "(channels, length)" if self.axes == 1 else "(channels, height, width)"
            raise ValueError(f"size must be {named} of the senders; got {brief(size)}")
        return tuple(count("size")(n) for n in size)

    def _each(self, name: str, x: tuple[int, ...], least: int = 1) -> tuple[int, ...]:
        """One number an axis."""
        x = x * self.axes if len(x) == 1 else x
        if len(x) != self.axes:
            raise ValueError(f"{name} must be one number or {self.axes}; got {brief(x)}")
        return tuple(count(name, least)(n) for n in x)

    def _padding(self, x: tuple[int, ...]) -> tuple[int, ...]:
        if x:
            return self._each("padding", x, 0)
        reach = self._reach()
        if any(n % 2 == 0 for n in reach) or set(self.stride) != {1}:
            raise ValueError(
                'padding="same" needs stride 1 and a kernel of odd reach; got stride'
                f" {self.stride} and reach {reach}: pass whole numbers"
            )
        return tuple(n // 2 for n in reach)

    def _reach(self) -> tuple[int, ...]:
        """From the first to the last that a window sees, along each axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        by = lambda sizes: "x".join(map(str, sizes))  # noqa: E731
        parts = [f"{by(self.size)} -> {by(self.size_post)}", f"kernel {by(self.kernel)}"]
        usual = dict(stride=1, padding=0, dilation=1, pools=1)
        unusual = {n: getattr(self, n) for n, x in usual.items() if {*getattr(self, n)} != {x}}
        parts += [f"{n.removesuffix('s')} {by(x)}" for n, x in unusual.items()]
        parts += [f"groups {self.groups}"] if self.groups > 1 else []
        return wadler_lindig.TextDoc(f"{type(self).__name__}({', '.join(parts)})")

    @property
    def pools(self) -> tuple[int, ...]:
        """Senders side by side that are read as one, along each axis."""
        return getattr(self, "pool", (1,) * self.axes)

    @property
    def pooled_size(self) -> tuple[int, ...]:
        """Maps that the windows slide over: those of the senders, or of their pools."""
        return (self.size[0], *(n // p for n, p in zip(self.size[1:], self.pools, strict=True)))

    @property
    def size_post(self) -> tuple[int, ...]:
        """Maps of the receivers: (features, length) or (features, height, width)."""
        along = zip(self.pooled_size[1:], self.padding, self._reach(), self.stride, strict=True)
        return (self.features, *((n + 2 * p - r) // s + 1 for n, p, r, s in along))

    @property
    def n_pre(self) -> int:
        """Sending neurons."""
        return math.prod(self.size)

    @property
    def n_post(self) -> int:
        """Receiving neurons."""
        return math.prod(self.size_post)

    @property
    def window(self) -> int:
        """Places that one receiver sees, those in the padding too."""
        return self.size[0] // self.groups * math.prod(self.kernel)

    def seen(self) -> np.ndarray:
        """Pool that each receiver sees at each place of its window, [groups, places, window].

        Receivers of one group and place see the same. In the padding it is one past the last.
        """
        ways = [
            np.arange(m)[:, None] * s + np.arange(k) * d - p
            for m, k, s, d, p in zip(
                self.size_post[1:],
                self.kernel,
                self.stride,
                self.dilation,
                self.padding,
                strict=True,
            )
        ]
        maps, at, there = self.pooled_size, np.zeros((1, 1), int), np.ones((1, 1), bool)
        for n, way in zip(maps[1:], ways, strict=True):  # (y, a) and (x, b) -> (y x, a b)
            at = (at[:, None, :, None] * n + way[None, :, None, :]).reshape(len(at) * len(way), -1)
            inside = (way >= 0) & (way < n)
            there = (there[:, None, :, None] & inside[None, :, None, :]).reshape(at.shape)
        area, per_group = math.prod(maps[1:]), maps[0] // self.groups
        channel = np.arange(maps[0]).reshape(self.groups, 1, per_group, 1)
        places = np.where(there[None, :, None], channel * area + at[None, :, None], math.prod(maps))
        return places.reshape(self.groups, len(at), -1)


class _Convolution(_Windows):
    """Products of shared weights [features, channels / groups, *kernel]."""

    pool: tuple[int, ...] = eqx.field(static=True, default=(1,), converter=_sizes, kw_only=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights, [features, channels / groups, *kernel]."""
        return (self.features, self.size[0] // self.groups, *self.kernel)

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron, if every place had its own; fewer where padding is seen."""
        return self.apply(jnp.ones(self.shape), jnp.ones(self.n_pre)) * math.prod(self.pool)

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches, if every place had its own."""
        return self.apply_t(jnp.ones(self.shape), jnp.ones(self.n_post)) * math.prod(self.pool)

    @property
    def scale(self) -> float:
        """1 / sqrt(window), for means over pools of n inputs, of 1 / n of their variance, sqrt(n)
        times that."""
        return math.sqrt(math.prod(self.pool) / self.window)

    def edges(self) -> Edges:
        """Who sends to whom: one for each pair, not one a weight, as weights are shared.

        Places in the padding have number 0.
        """
        n_in = self.window * math.prod(self.pool)
        affordable(f"the pairs of neurons of {self}", 28 * self.n_post * n_in)
        seen = self.seen()
        pools = self._by_pool(np.arange(self.n_pre)).reshape(math.prod(self.pool), -1)
        heard = np.pad(pools.T, ((0, 1), (0, 0)), constant_values=-1)[seen]
        per_group = self.features // self.groups
        wide = (self.groups, per_group, *heard.shape[1:])
        pre = np.broadcast_to(heard[:, None], wide).reshape(self.n_post, -1)
        post = np.broadcast_to(np.arange(self.n_post)[:, None], pre.shape)
        ends = (np.maximum(pre, 0), post, pre >= 0)
        return Edges(*(jnp.asarray(x.reshape(-1), jnp.int32) for x in ends))

    def at_post(self, x: Shaped[Array, " post"]) -> Array:
        """Refused, `ValueError`: a weight has many receivers."""
        raise ValueError(_shared(self))

    def at_pre(self, x: Shaped[Array, " pre"]) -> Array:
        """Refused, `ValueError`: a weight has many senders."""
        raise ValueError(_shared(self))

    def matrix(self, w: Float[Array, "..."]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix, each at all its places."""
        return jax.vmap(partial(self.apply, w))(jnp.eye(self.n_pre, dtype=w.dtype)).T

    def apply(self, w: Float[Array, "..."], s: Shaped[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron, nA."""
        w, s = alike(w, s)
        shaped(w=(w, self.shape), s=(s, (self.n_pre,)))
        return self.over_pools(w, self.pooled(s))

    def apply_t(self, w: Float[Array, "..."], e: Shaped[Array, " post"]) -> Float[Array, " pre"]:
        """Transposed product."""
        w, e = alike(w, e)
        shaped(w=(w, self.shape), e=(e, (self.n_post,)))
        return self.unpooled(self.over_pools_t(w, e))

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Summed outer product, over all places that a weight is read at too."""
        post, pre = sides(self, post, pre)
        dtype, (post, pre) = post.dtype, (x.astype(working(x.dtype)) for x in (post, pre))
        pools = jax.vmap(self.pooled)(pre)
        maps = pools.reshape(-1, *self.pooled_size)
        read = lambda w: jax.vmap(partial(slid_by_w, self, w))(maps)  # noqa: E731
        return _transposed(read, self.shape, post.reshape(-1, *self.size_post)).astype(dtype)

    def pooled(self, s: Float[Array, " pre"]) -> Float[Array, " pools"]:
        """Mean of each pool of senders; what is left over at the far ends is not seen."""
        if set(self.pool) == {1}:
            return s
        return mean_of_pools(self.pool, s.reshape(self.size)).reshape(-1)

    def unpooled(self, x: Float[Array, " pools"]) -> Float[Array, " pre"]:
        """The transpose of `pooled`: each sender has an equal part of its pool."""
        if set(self.pool) == {1}:
            return x
        mean = partial(mean_plain, self.pool)
        return _transposed(mean, self.size, x.reshape(self.pooled_size)).reshape(-1)

    def _by_pool(self, s: Any) -> Any:
        """Numbers of all senders by where they are in their pool: [in a pool, channels, *maps]."""
        x = s.reshape(self.size)
        for axis, (n, p) in enumerate(zip(self.pooled_size[1:], self.pool, strict=True)):
            before, along = x.shape[: 1 + 2 * axis], x.shape[2 + 2 * axis :]
            kept = x[(slice(None),) * len(before) + (slice(n * p),)]
            x = kept.reshape(*before, n, p, *along)
        order = (*range(2, x.ndim, 2), 0, *range(1, x.ndim, 2))
        return x.transpose(order).reshape(-1, *self.pooled_size)

    def over_pools(
        self, w: Float[Array, "..."], x: Float[Array, " pools"]
    ) -> Float[Array, " post"]:
        """The windows alone, over what the pools give."""
        maps = x.reshape(self.pooled_size)
        if self.kernel == maps.shape[1:] and self.groups == 1 and set(self.padding) == {0}:
            return w.reshape(self.features, -1) @ x  # one place, all of the maps: dense
        return slid(self, w, x)

    def over_pools_t(
        self, w: Float[Array, "..."], e: Float[Array, " post"]
    ) -> Float[Array, " pools"]:
        """The transpose of `over_pools`."""
        plain = partial(slid_plain, self, w)
        return _transposed(plain, self.pooled_size, e.reshape(self.size_post)).reshape(-1)


def _transposed(linear: Any, shape: tuple[int, ...], y: Array) -> Array:
    """The transpose of a linear function of an array of `shape`, at `y`."""
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, y.dtype))(y)[0]


def _shared(wiring: _Windows) -> str:
    kind = type(wiring).__name__
    return (
        f"{kind} shares each weight among many synapses, so nothing can be kept for each of them:"
        f" pass {kind.replace('Conv', 'Local')}, the same windows with weights of their own"
    )


class Conv1D(_Convolution):
    """Shared weights in windows that slide along maps of neurons: a convolution over one axis.

    As `Conv2D`, with (channels, length) as `size` and weights [features, channels / groups,
    kernel], nA a spike.

    >>> wiring = nj.Conv1D((2, 100), 8, kernel=5, stride=2)
    >>> wiring, wiring.shape
    (Conv1D(2x100 -> 8x48, kernel 5, stride 2), (8, 2, 5))
    """

    axes: ClassVar[int] = 1


class Conv2D(_Convolution):
    """Shared weights in windows that slide over maps of neurons: a convolution.

        I_{o y x} = sum_{c a b} w_{o c a b} m_{c, y stride + a dilation - padding, ...}

    `size` is (channels, height, width) of the senders, `features` the number of maps of
    receivers, whose sizes are `size_post`; senders beyond the edge are silent. `kernel`, `stride`,
    `padding` ("same": as many out as in), `dilation` and `pool` are one number or two. With
    `groups`, feature maps see channels of their own group alone. m are the senders or, with
    `pool`, means over pools of them side by side, so pooling needs no neurons of its own; a
    `kernel` as large as the map is a dense layer. Weights have shape [features, channels /
    groups, kernel height, kernel width], nA a spike, as those of `torch.nn.Conv2d`. Products take
    one sample, flat; batch is vmapped.

    A weight learns by the sum over all places that it is read at. What keeps something a synapse
    (eligibility traces, a delay each) is refused, `ValueError`: `Local2D` has a weight for each.
    `edges`, `fan_in` and `fan_out` count as if every place had a synapse of its own.
    Raises `ValueError` for numbers that do not fit one another.

    >>> first = nj.Conv2D((1, 28, 28), 32, kernel=3, padding=1)
    >>> first
    Conv2D(1x28x28 -> 32x28x28, kernel 3x3, padding 1x1)
    >>> nj.Conv2D(first.size_post, 64, kernel=3, padding=1, pool=2).size_post
    (64, 14, 14)
    """

    axes: ClassVar[int] = 2


class _Local(_Windows):
    """Products of weights [n_post, window], one a synapse."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights, [n_post, channels / groups x kernel]."""
        return (self.n_post, self.window)

    @property
    def mask(self) -> Bool[Array, "post window"]:
        """Where there is a synapse: not in the padding."""
        return self._wide(jnp.asarray(self.seen() < self.n_pre))

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron."""
        return self.mask.sum(-1, dtype=float)

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        return self.apply_t(jnp.ones(self.shape), jnp.ones(self.n_post))

    def edges(self) -> Edges:
        """Who sends to whom; places in the padding have number 0."""
        pre, mask = self._wide(jnp.asarray(self.seen())), self.mask
        post = jnp.broadcast_to(jnp.arange(self.n_post)[:, None], self.shape)
        ends = (jnp.where(mask, pre, 0), post, mask)
        return Edges(*(x.astype(jnp.int32).reshape(-1) for x in ends))

    def at_post(self, x: Shaped[Array, " post"]) -> Shaped[Array, "post 1"]:
        """x of the receiver, as it broadcasts to the synapses."""
        return x[:, None]

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, "post window"]:
        """x of the sender, at each place of a synapse; 0 in the padding."""
        shaped(x=(x, (self.n_pre,)))
        return self._wide(self._patches(x))

    def matrix(self, w: Float[Array, "post window"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        return jax.vmap(partial(self.apply, w))(jnp.eye(self.n_pre, dtype=w.dtype)).T

    def apply(
        self, w: Float[Array, "post window"], s: Shaped[Array, " pre"]
    ) -> Float[Array, " post"]:
        """Current into each neuron, nA."""
        w, s = alike(w, s)
        shaped(w=(w, self.shape), s=(s, (self.n_pre,)))
        return jnp.einsum("gopk,gpk->gop", self._by_group(w), self._patches(s)).reshape(-1)

    def apply_t(
        self, w: Float[Array, "post window"], e: Shaped[Array, " post"]
    ) -> Float[Array, " pre"]:
        """Transposed product."""
        w, e = alike(w, e)
        shaped(w=(w, self.shape), e=(e, (self.n_post,)))
        dtype = working(w.dtype)
        wide = partial(self.apply, w.astype(dtype))
        return _transposed(wide, (self.n_pre,), e.astype(dtype)).astype(w.dtype)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "post window"]:
        """Summed outer product on the synapses that exist."""
        post, pre = sides(self, post, pre)
        patches, post = jax.vmap(self._patches)(pre), jax.vmap(self._by_group)(post[..., None])
        return jnp.einsum("bgop,bgpk->gopk", post[..., 0], patches).reshape(self.shape)

    def _patches(self, s: Shaped[Array, " pre"]) -> Shaped[Array, "groups places window"]:
        """What is seen from each place, with silence beyond the edge."""
        return jnp.concatenate([s, jnp.zeros(1, s.dtype)])[self.seen()]

    def _by_group(self, x: Shaped[Array, "post *k"]) -> Shaped[Array, "groups o places *k"]:
        places = math.prod(self.size_post[1:])
        return x.reshape(self.groups, -1, places, *x.shape[1:])

    def _wide(self, x: Shaped[Array, "groups places window"]) -> Shaped[Array, "post window"]:
        """The same for all feature maps of a group."""
        shape = (self.groups, self.features // self.groups, *x.shape[1:])
        return jnp.broadcast_to(x[:, None], shape).reshape(self.shape)


class Local1D(_Local):
    """The windows of `Conv1D` with weights of their own at each place.

    Weights have shape [n_post, channels / groups x kernel], nA a spike.

    >>> nj.Local1D((2, 100), 8, kernel=5, stride=2).shape
    (384, 10)
    """

    axes: ClassVar[int] = 1


class Local2D(_Local):
    """The windows of `Conv2D` with weights of their own at each place: locally connected.

    Weights have shape [n_post, window], nA a spike: what neuron i sees, channel by channel, then
    row by row, in the padding too, where no weight is read. All rules work on it.
    Raises `ValueError` as `Conv2D` does.

    >>> wiring = nj.Local2D((1, 28, 28), 2, kernel=5, stride=2)
    >>> wiring, wiring.shape
    (Local2D(1x28x28 -> 2x12x12, kernel 5x5, stride 2x2), (288, 25))
    """

    axes: ClassVar[int] = 2
