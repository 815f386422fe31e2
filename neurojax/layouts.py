"""How the synapses of a projection are laid out in memory, and their products.

A layout knows structure alone; weights come in as an argument, so ideal numbers and devices
share the same products. Each kind offers

    apply(w, s)        I_i = sum_j w_ij s_j               [n_pre] -> [n_post]
    apply_t(w, e)      the same synapses read backwards   [n_post] -> [n_pre]
    outer(post, pre)   G_ij = sum over leading axes of post_i pre_j, where a synapse is

and `shape`, that of `w`; `edges()` lists the pairs that are connected. `apply` takes one
sample (batch is vmapped); `outer` takes any leading axes, since one weight array per sample
must never exist.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

# A gather a slot beats the dense product up to about this fan-in (512 neurons, batch 64, CPU).
_MAX_GATHERED = 8
# Rows of one tile of the band in a product with spikes, and in one summed over time and batch:
# wide enough for a matrix product, little waste.
_TILE, _TILE_OUTER = 32, 64


class Edges(NamedTuple):
    """Every place of a synapse in `w`, in the order of `w` made flat."""

    pre: Int[Array, " e"]
    post: Int[Array, " e"]
    number: Int[Array, " e"]  # how many synapses it stands for; 0 where there is none


class Dense(eqx.Module):
    """All to all; with `count`, as many parallel synapses a pair as it says (0: none).

    `count` [n_post, n_pre] merges synapses that share their weight exactly, such as those
    onto redundant copies of one readout neuron: I_i = sum_j count_ij w_ij s_j, while each
    synapse still learns as one. `w` has shape [n_post, n_pre].
    """

    n_pre: int = eqx.field(static=True)
    n_post: int = eqx.field(static=True)
    count: Shaped[Array, "post pre"] | None = None

    def __check_init__(self):
        if self.count is not None and self.count.shape[-2:] != self.shape:
            raise ValueError(f"count must have shape {self.shape}; got {self.count.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights, [n_post, n_pre]."""
        return (self.n_post, self.n_pre)

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron."""
        if self.count is None:
            return jnp.full(self.n_post, float(self.n_pre))
        return self.count.sum(-1, dtype=float)

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        if self.count is None:
            return jnp.full(self.n_pre, float(self.n_post))
        return self.count.sum(-2, dtype=float)

    def edges(self) -> Edges:
        """Who sends to whom."""
        post, pre = jnp.indices(self.shape)
        count = jnp.ones_like(pre) if self.count is None else self.count.astype(jnp.int32)
        return Edges(pre.reshape(-1), post.reshape(-1), count.reshape(-1))

    def at_post(self, x: Shaped[Array, " post"]) -> Shaped[Array, "post 1"]:
        """x of the receiver, as it broadcasts to the synapses."""
        return x[:, None]

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, "1 pre"]:
        """x of the sender, as it broadcasts to the synapses."""
        return x[None]

    def matrix(self, w: Float[Array, "post pre"]) -> Float[Array, "post pre"]:
        """Effective weight between each pair."""
        return w if self.count is None else w * self.count.astype(w.dtype)

    def apply(self, w: Float[Array, "post pre"], s: Float[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron."""
        return _product(s, self.matrix(w), 1)

    def apply_t(
        self, w: Float[Array, "post pre"], e: Float[Array, " post"]
    ) -> Float[Array, " pre"]:
        """Transposed product."""
        return _product(e, self.matrix(w), 0)

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, "post pre"]:
        """Summed outer product on the synapses that exist."""
        full = _outer(post, pre)
        return full if self.count is None else jnp.where(self.count.astype(bool), full, 0)


class FanIn(eqx.Module):
    """Each neuron listens to the `k` neurons that its row of `index` names, once each.

    `w` has shape [n_post, k]. Storage is sparse; above a small fan-in the products go
    through a dense matrix filled once, which on a CPU beats gathers several times.
    """

    index: Int[Array, "post k"]
    n_pre: int = eqx.field(static=True)

    @property
    def n_post(self) -> int:
        """Receiving neurons."""
        return self.index.shape[-2]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights, [n_post, k]."""
        return (self.n_post, self.index.shape[-1])

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron."""
        return jnp.full(self.n_post, float(self.shape[1]))

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        return jnp.bincount(self.index.reshape(-1), length=self.n_pre).astype(float)

    def edges(self) -> Edges:
        """Who sends to whom."""
        post = jnp.repeat(jnp.arange(self.n_post), self.shape[1])
        pre = self.index.reshape(-1).astype(post.dtype)
        return Edges(pre, post, jnp.ones_like(pre))

    def at_post(self, x: Shaped[Array, " post"]) -> Shaped[Array, "post 1"]:
        """x of the receiver, as it broadcasts to the synapses."""
        return x[:, None]

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, "post k"]:
        """x of the sender, at each synapse."""
        return x[self.index]

    def matrix(self, w: Float[Array, "post k"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        rows = jnp.arange(self.n_post)[:, None]
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[rows, self.index].set(w)

    def apply(self, w: Float[Array, "post k"], s: Float[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron."""
        if by_matrix(self):
            return _product(s, self.matrix(w), 1)
        slots = [w[:, k] * s[self.index[:, k]] for k in range(self.shape[1])]
        return functools.reduce(jnp.add, slots)

    def apply_t(self, w: Float[Array, "post k"], e: Float[Array, " post"]) -> Float[Array, " pre"]:
        """Transposed product."""
        return _product(e, self.matrix(w), 0)

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, "post k"]:
        """Summed outer product, picked at the synapses that exist."""
        return jnp.take_along_axis(_outer(post, pre), self.index, axis=1)


class Band(eqx.Module):
    """Neurons on a ring, each listening to those within `radius` where `mask` is true.

    Column c of `w` [n, 2 radius + 1] holds the synapse from neuron i + c - radius (mod n).
    The products run over tiles of the band: 2 n (tile + 2 radius) flops, not 2 n^2.
    """

    mask: Bool[Array, "n width"]
    radius: int = eqx.field(static=True)

    def __check_init__(self):
        check_radius(self.radius, self.n_pre)
        if self.mask.shape[-2:] != self.shape:
            raise ValueError(f"mask must have shape {self.shape}; got {self.mask.shape}")

    @property
    def n_pre(self) -> int:
        """Sending neurons."""
        return self.mask.shape[-2]

    n_post = n_pre

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weights, [n, 2 radius + 1]."""
        return (self.n_pre, 2 * self.radius + 1)

    @property
    def fan_in(self) -> Float[Array, " n"]:
        """Synapses onto each neuron."""
        return self.mask.sum(-1, dtype=float)

    @property
    def fan_out(self) -> Float[Array, " n"]:
        """Synapses that a spike of each sender reaches."""
        return self.matrix(jnp.ones(self.shape)).sum(0)

    def edges(self) -> Edges:
        """Who sends to whom."""
        post, column = jnp.indices(self.shape)
        pre = (post + column - self.radius) % self.n_pre
        return Edges(pre.reshape(-1), post.reshape(-1), self.mask.astype(jnp.int32).reshape(-1))

    def at_post(self, x: Shaped[Array, " n"]) -> Shaped[Array, "n 1"]:
        """x of the receiver, as it broadcasts to the synapses."""
        return x[:, None]

    def at_pre(self, x: Shaped[Array, " n"]) -> Shaped[Array, "n width"]:
        """x of the sender, at each place of a synapse."""
        return x[self.edges().pre.reshape(self.shape)]

    def matrix(self, w: Float[Array, "n width"]) -> Float[Array, "n n"]:
        """The same weights as a dense matrix."""
        pre, post, _ = self.edges()
        w = jnp.where(self.mask, w, 0).reshape(-1)
        return jnp.zeros((self.n_pre, self.n_pre), w.dtype).at[post, pre].set(w)

    def apply(self, w: Float[Array, "n width"], s: Float[Array, " n"]) -> Float[Array, " n"]:
        """Current into each neuron."""
        # Masked last: XLA takes a selection out of a loop over time, a slice it would leave there.
        tiles = jnp.where(_skew(_pad_rows(self.mask)), _skew(_pad_rows(w)), 0)
        current = jax.lax.dot_general(self._windows(s), tiles, (((1,), (2,)), ((0,), (0,))))
        return current.reshape(-1)[: self.n_pre]

    def apply_t(self, w: Float[Array, "n width"], e: Float[Array, " n"]) -> Float[Array, " n"]:
        """Transposed product."""
        return _product(e, self.matrix(w), 0)

    def outer(
        self, post: Float[Array, "*lead n"], pre: Float[Array, "*lead n"]
    ) -> Float[Array, "n width"]:
        """Summed outer product on the band."""
        post, pre = flat(post, pre)
        ring, width = self._ring(pre, _TILE_OUTER), _TILE_OUTER + 2 * self.radius
        post = jnp.pad(post, ((0, 0), (0, -self.n_pre % _TILE_OUTER)))
        rows = lambda g: jax.lax.dynamic_slice_in_dim(post, g, _TILE_OUTER, 1)  # noqa: E731
        heard = lambda g: jax.lax.dynamic_slice_in_dim(ring, g, width, 1)  # noqa: E731
        # One tile after another: slices of all at once would not stay in the cache.
        starts = jnp.arange(0, self.n_pre, _TILE_OUTER)
        tiles = jax.lax.map(lambda g: _summed(rows(g), heard(g)), starts)
        return jnp.where(self.mask, _unskew(tiles)[: self.n_pre], 0)

    def _ring(self, s: Float[Array, "*lead n"], tile: int) -> Float[Array, "*lead _"]:
        """The ring cut open, with both ends repeated, up to whole tiles."""
        r, spare = self.radius, -self.n_pre % tile
        zeros = jnp.zeros((*s.shape[:-1], spare), s.dtype)
        return jnp.concatenate([s[..., self.n_pre - r :], s, s[..., :r], zeros], axis=-1)

    def _windows(self, s: Float[Array, " n"]) -> Float[Array, "tiles window"]:
        """What each tile of rows can hear: [n / _TILE, _TILE + 2 radius]."""
        width = _TILE + 2 * self.radius
        ring = jnp.pad(self._ring(s, _TILE), (0, -2 * self.radius % _TILE)).reshape(-1, _TILE)
        ahead = -(-width // _TILE) - 1  # whole tiles that a window reaches into beyond its own
        parts = [ring[k : len(ring) - ahead + k] for k in range(ahead + 1)]
        return jnp.concatenate(parts, 1)[:, :width]


def by_matrix(wiring: object) -> bool:
    """Whether `apply` is the product of a dense matrix."""
    gathered = isinstance(wiring, FanIn) and wiring.shape[1] <= _MAX_GATHERED
    return isinstance(wiring, Dense | FanIn) and not gathered


def _product(s: Array, matrix: Array, axis: int) -> Array:
    """`s` against one axis of `matrix`; a batch of `s` stays in front, as scans want an input."""
    return jax.lax.dot_general(s, matrix, (((0,), (axis,)), ((), ())))


def _outer(post: Array, pre: Array) -> Array:
    """Outer product summed over all leading axes in one matrix product."""
    return _summed(*flat(post, pre))


def _summed(post: Array, pre: Array) -> Array:
    return jax.lax.dot_general(post, pre, (((0,), (0,)), ((), ())))


def flat(post: Array, pre: Array) -> tuple[Array, Array]:
    """Both with all leading axes in one."""
    if post.shape[:-1] != pre.shape[:-1]:
        raise ValueError(f"post and pre must share leading axes; got {post.shape}, {pre.shape}")
    return post.reshape(-1, post.shape[-1]), pre.reshape(-1, pre.shape[-1])


def _pad_rows(w: Array) -> Array:
    """Rows up to a whole number of tiles: [n, width] -> [tiles, _TILE, width]."""
    return jnp.pad(w, ((0, -w.shape[0] % _TILE), (0, 0))).reshape(-1, _TILE, w.shape[1])


def _skew(w: Array) -> Array:
    """Shift row i of each tile right by i: [tiles, rows, width] -> [.., rows + width - 1]."""
    tiles, rows, width = w.shape
    flat = jnp.pad(w, ((0, 0), (0, 0), (0, rows))).reshape(tiles, -1)
    return flat[:, : rows * (rows + width - 1)].reshape(tiles, rows, rows + width - 1)


def _unskew(tiles: Array) -> Array:
    """The inverse of `_skew`, with tiles joined: -> [tiles * rows, width]."""
    n, rows, window = tiles.shape
    flat = jnp.pad(tiles.reshape(n, -1), ((0, 0), (0, rows)))
    return flat.reshape(n, rows, window + 1)[:, :, : window + 1 - rows].reshape(n * rows, -1)


def check_radius(radius: int, n: int) -> None:
    """Refuse a band that is no band, or goes round the ring and meets itself."""
    if not 1 <= radius <= (n - 1) // 2:
        raise ValueError(f"radius must be in [1, {(n - 1) // 2}] for {n} neurons; got {radius}")
