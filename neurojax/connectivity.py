"""Who connects to whom: three kinds of connectivity, and the generators that draw them.

A connectivity knows structure alone; weights come in as an argument, so ideal numbers and
devices share the same products. Each kind offers

    apply(w, s)        I_i = sum_j w_ij s_j               [n_pre] -> [n_post]
    apply_t(w, e)      the same synapses read backwards   [n_post] -> [n_pre]
    outer(post, pre)   G_ij = sum over leading axes of post_i pre_j, where a synapse is

and `shape`, that of `w`. `apply` takes one sample (batch is vmapped); `outer` takes any
leading axes, since one weight array per sample must never exist.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from neurojax._check import between

# A gather a slot beats the dense product up to about this fan-in (512 neurons, batch 64, CPU).
_MAX_GATHERED = 8
# Rows of one tile of the banded product: wide enough for a matrix product, little waste.
_TILE = 32


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

    def matrix(self, w: Float[Array, "post k"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        rows = jnp.arange(self.n_post)[:, None]
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[rows, self.index].set(w)

    def apply(self, w: Float[Array, "post k"], s: Float[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron."""
        if self.shape[1] > _MAX_GATHERED:
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
    The products run over tiles of the band: 2 n (_TILE + 2 radius) flops, not 2 n^2.
    """

    mask: Bool[Array, "n width"]
    radius: int = eqx.field(static=True)

    def __check_init__(self):
        _check_radius(self.radius, self.n_pre)
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

    def matrix(self, w: Float[Array, "n width"]) -> Float[Array, "n n"]:
        """The same weights as a dense matrix."""
        n, rows = self.n_pre, jnp.arange(self.n_pre)[:, None]
        columns = (rows + jnp.arange(-self.radius, self.radius + 1)[None]) % n
        return jnp.zeros((n, n), w.dtype).at[rows, columns].set(jnp.where(self.mask, w, 0))

    def apply(self, w: Float[Array, "n width"], s: Float[Array, " n"]) -> Float[Array, " n"]:
        """Current into each neuron."""
        tiles = _skew(_pad_rows(jnp.where(self.mask, w, 0)))
        current = jax.lax.dot_general(self._windows(s), tiles, (((1,), (2,)), ((0,), (0,))))
        return current.reshape(-1)[: self.n_pre]

    def apply_t(self, w: Float[Array, "n width"], e: Float[Array, " n"]) -> Float[Array, " n"]:
        """Transposed product."""
        return _product(e, self.matrix(w), 0)

    def outer(
        self, post: Float[Array, "*lead n"], pre: Float[Array, "*lead n"]
    ) -> Float[Array, "n width"]:
        """Summed outer product on the band."""
        post, pre = _flat(post, pre)
        ring, width = self._ring(pre), _TILE + 2 * self.radius
        post = jnp.pad(post, ((0, 0), (0, -self.n_pre % _TILE)))
        rows = lambda g: jax.lax.dynamic_slice_in_dim(post, g, _TILE, 1)  # noqa: E731
        heard = lambda g: jax.lax.dynamic_slice_in_dim(ring, g, width, 1)  # noqa: E731
        # One tile after another: slices of all at once would not stay in the cache.
        starts = jnp.arange(0, self.n_pre, _TILE)
        tiles = jax.lax.map(lambda g: _summed(rows(g), heard(g)), starts)
        return jnp.where(self.mask, _unskew(tiles)[: self.n_pre], 0)

    def _ring(self, s: Float[Array, "*lead n"]) -> Float[Array, "*lead _"]:
        """The ring cut open, with both ends repeated, up to whole tiles."""
        r, spare = self.radius, -self.n_pre % _TILE
        zeros = jnp.zeros((*s.shape[:-1], spare), s.dtype)
        return jnp.concatenate([s[..., self.n_pre - r :], s, s[..., :r], zeros], axis=-1)

    def _windows(self, s: Float[Array, " n"]) -> Float[Array, "tiles window"]:
        """What each tile of rows can hear: [n / _TILE, _TILE + 2 radius]."""
        ring, width = self._ring(s), _TILE + 2 * self.radius
        return jnp.stack([ring[g : g + width] for g in range(0, self.n_pre, _TILE)])


def _product(s: Array, matrix: Array, axis: int) -> Array:
    """`s` against one axis of `matrix`; a batch of `s` stays in front, without transposes."""
    return jax.lax.dot_general(s, matrix, (((0,), (axis,)), ((), ())))


def _outer(post: Array, pre: Array) -> Array:
    """Outer product summed over all leading axes in one matrix product."""
    return _summed(*_flat(post, pre))


def _summed(post: Array, pre: Array) -> Array:
    return jax.lax.dot_general(post, pre, (((0,), (0,)), ((), ())))


def _flat(post: Array, pre: Array) -> tuple[Array, Array]:
    """Both with all leading axes in one."""
    if post.shape[:-1] != pre.shape[:-1]:
        raise ValueError(f"post and pre must share leading axes; got {post.shape}, {pre.shape}")
    return post.reshape(-1, post.shape[-1]), pre.reshape(-1, pre.shape[-1])


def _pad_rows(w: Array) -> Array:
    """Rows up to a whole number of tiles: [n, width] -> [tiles, _TILE, width]."""
    return jnp.pad(w, ((0, -w.shape[0] % _TILE), (0, 0))).reshape(-1, _TILE, w.shape[1])


def _skew(w: Array) -> Array:
    """Shift row i of each tile right by i: [tiles, _TILE, width] -> [.., _TILE + width - 1]."""
    tiles, rows, width = w.shape
    flat = jnp.pad(w, ((0, 0), (0, 0), (0, rows))).reshape(tiles, -1)
    return flat[:, : rows * (rows + width - 1)].reshape(tiles, rows, rows + width - 1)


def _unskew(tiles: Array) -> Array:
    """The inverse of `_skew`, with tiles joined: -> [tiles * _TILE, width]."""
    n, rows, window = tiles.shape
    flat = jnp.pad(tiles.reshape(n, -1), ((0, 0), (0, rows)))
    return flat.reshape(n, rows, window + 1)[:, :, : window + 1 - rows].reshape(n * rows, -1)


def fan_in(key: Key[Array, ""], n_pre: int, n_post: int, density: float) -> FanIn:
    """Fixed fan-in: each neuron draws round(density n_pre) different partners, at least one.

    Raises `ValueError` for a density outside (0, 1].
    """
    k = max(1, round(_density(density) * n_pre))
    draws = jax.vmap(lambda row: jax.random.choice(row, n_pre, (k,), replace=False))
    return FanIn(draws(jax.random.split(key, n_post)).astype(jnp.int32), n_pre)


def watts_strogatz(
    key: Key[Array, ""], n_pre: int, n_post: int, k: int, p_rewire: float | Float[Array, ""]
) -> FanIn:
    """Small-world fan-in: the k nearest of a ring, each rewired at random with `p_rewire`.

    Receivers sit evenly on the senders' ring. Rewired synapses go to partners drawn from all
    that the neuron does not have, near or far, so fan-in is k exactly and no pair is
    connected twice. `p_rewire` 0 is a local patch, 1 a random graph. With n_pre = n_post the
    nearest neuron is oneself, and is left out.
    Source: Watts and Strogatz (1998), Nature 393, p. 440.
    Raises `ValueError` for k outside [1, n_pre] or `p_rewire` outside [0, 1].
    """
    p = between("p_rewire", 0.0, 1.0)(p_rewire)
    recurrent = n_pre == n_post
    if not 1 <= k <= n_pre - recurrent:
        raise ValueError(f"k must be in [1, {n_pre - recurrent}]; got {k}")
    centre = np.arange(n_post) * n_pre / n_post
    offset = (np.arange(n_pre)[None] - centre[:, None] + n_pre / 2) % n_pre - n_pre / 2
    distance = np.abs(offset) + np.where(offset > 0, 0.0, 1e-6)  # ties go to the right
    if recurrent:
        distance[np.arange(n_post), np.arange(n_post)] = np.inf
    rank = jnp.asarray(distance.argsort(1).argsort(1))
    return FanIn(_rewired(key, rank, k, p, recurrent), n_pre)


def _rewired(key, rank, k: int, p, recurrent: bool) -> Int[Array, "post k"]:
    """Keep each of the k nearest with 1 - p; fill up with any others.

    Sorting by one score does both: kept neighbours score below 0, then come all others in
    random order, oneself last.
    """
    coin, order = jax.random.split(key)
    kept = (rank < k) & (jax.random.uniform(coin, rank.shape, p.dtype) >= p)
    score = jnp.where(kept, -1.0, jax.random.uniform(order, rank.shape))
    if recurrent:
        score = jnp.where(rank == rank.shape[1] - 1, jnp.inf, score)
    return jnp.argsort(score, axis=1)[:, :k].astype(jnp.int32)


def locally_dense(
    key: Key[Array, ""], n: int, radius: int, p_rewire: float
) -> tuple[Band, FanIn | None]:
    """A ring in which all neurons within `radius` are connected, partly rewired.

    Of each neuron's 2 radius synapses, m = round(2 radius p_rewire), drawn at random, leave
    the band for a partner outside it: (band, long-range), the second None where m = 0. In-
    degree and the number of long-range slots are exact, as on hardware, where Watts and
    Strogatz (1998) draw each edge's fate alone; no self-loops, no pair twice.
    Raises `ValueError` for a radius outside [1, (n - 1) / 2] or `p_rewire` outside [0, 1].
    """
    _check_radius(radius, n)
    between("p_rewire", 0.0, 1.0)(p_rewire)
    lost, spare = round(2 * radius * float(p_rewire)), n - 1 - 2 * radius
    if lost > spare:
        raise ValueError(
            f"p_rewire must be at most {spare / (2 * radius):.3g}, as {n} neurons of radius"
            f" {radius} have {spare} others outside the band; got {p_rewire}"
        )
    which, where = jax.random.split(key)
    order = jax.random.uniform(which, (n, 2 * radius)).argsort(1).argsort(1)
    mask = jnp.insert(order >= lost, radius, False, axis=1)
    if lost == 0:
        return Band(mask, radius), None
    far = jax.vmap(lambda k: jax.random.choice(k, spare, (lost,), replace=False))
    index = far(jax.random.split(where, n)) + radius + 1 + jnp.arange(n)[:, None]
    return Band(mask, radius), FanIn((index % n).astype(jnp.int32), n)


def merged(fan: FanIn, population: int) -> Dense:
    """Collapse each run of `population` receivers that are copies of one another into one.

    Exact where they start equal and see the same error, as leaky-integrator readouts do.
    """
    if population < 1 or fan.n_post % population:
        raise ValueError(f"population must divide {fan.n_post} receivers; got {population}")
    count = fan.matrix(jnp.ones(fan.shape)).reshape(-1, population, fan.n_pre).sum(1)
    return Dense(fan.n_pre, fan.n_post // population, count.astype(jnp.int32))


def _check_radius(radius: int, n: int) -> None:
    if not 1 <= radius <= (n - 1) // 2:
        raise ValueError(f"radius must be in [1, {(n - 1) // 2}] for {n} neurons; got {radius}")


def _density(density: float) -> float:
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1]; got {density}")
    return float(density)
