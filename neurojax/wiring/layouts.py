"""How the synapses of a projection are laid out in memory, and their products.

A layout knows structure alone; weights come in as an argument, so ideal numbers and devices
share the same products. Each kind offers

    apply(w, s)        I_i = sum_j w_ij s_j               [n_pre] -> [n_post]
    apply_t(w, e)      the same synapses read backwards   [n_post] -> [n_pre]
    outer(post, pre)   G_ij = sum over leading axes of post_i pre_j, where a synapse is

and `shape`, that of `w`; `edges()` lists the pairs that are connected. `apply` takes one
sample (batch is vmapped); `outer` takes any leading axes, since one weight array per sample
must never exist. Spikes may be floats, booleans or whole numbers: the current has the dtype of
the weights. Arrays of another shape are refused with a `ValueError`.
"""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig
from jaxtyping import Array, Bool, Float, Int, Shaped

from neurojax._check import brief, numbers, working
from neurojax._check import count as whole_number
from neurojax.wiring.narrow import pieces

__all__ = ["Band", "Dense", "Edges", "FanIn"]

# A gather a slot beats the dense product up to about this fan-in (512 neurons, batch 64, CPU).
_MAX_GATHERED = 8
# With more, it does where the matrix would be this many times as large as the list: 20,000 neurons
# of fan-in 100, batch 16, take 28 ms of a CPU by gathers, and a matrix of 1.6 GB.
_TOO_SPARSE = 64
# Rows of one tile of the band in a product with spikes, and in one summed over time and batch:
# wide enough for a matrix product, little waste.
_TILE, _TILE_OUTER = 32, 64
_LARGEST = 2**31 - 1


def indices(name: str):
    """Field converter: whole numbers as int32, refused where they are of another kind."""

    def convert(x: Any) -> Array:
        x = array(name, x)
        x = x if x.size else x.astype(np.int32)
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{name} must be whole numbers; got {x.dtype}")
        if isinstance(x, np.ndarray) and x.size and x.max() > _LARGEST:
            raise ValueError(f"{name} must be at most {_LARGEST}; got {x.max()}")
        return jnp.asarray(x, jnp.int32)

    return convert


def array(name: str, x: Any) -> Array | np.ndarray:
    """`x` as an array, refused unless it has a shape and a type."""
    if isinstance(x, jax.Array) and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    try:
        x = np.asarray(x)
    except (TypeError, ValueError):  # keys, lists of several lengths
        x = np.asarray(None)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be an array of numbers, its rows of one length")
    return x


def concrete(x: Any) -> np.ndarray | None:
    """The numbers of `x`, or None under `jit`, where they are checked at run time."""
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return None


def within(name: str, ends: np.ndarray, n: int) -> None:
    """Refuse what names none of `n` neurons."""
    wrong = (ends < 0) | (ends >= n)
    if wrong.any():
        raise ValueError(
            f"{name} must name one of {n} neurons, 0 to {n - 1}; got {ends[wrong][0]}"
            f" ({wrong.sum()} of {wrong.size})"
        )


def checked_later(wiring: eqx.Module, field: str, wrong: Array, message: str) -> None:
    """Refuse a traced field at run time: whoever reads it from now on waits for that."""
    checked = eqx.error_if(getattr(wiring, field), wrong, message)
    object.__setattr__(wiring, field, checked)


class Edges(NamedTuple):
    """Every place of a synapse in `w`, in the order of `w` made flat: three arrays [edges].

    Fields:
        pre: int [edges]; sender of each
        post: int [edges]; receiver of each
        number: int [edges]; how many synapses it stands for; 0 where there is none
    """

    pre: Int[Array, " e"]
    post: Int[Array, " e"]
    number: Int[Array, " e"]


def _counts(x: Any) -> Array | None:
    """Field converter: whole numbers or booleans, as they came."""
    if x is None:
        return None
    x = array("count", x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"count must be whole numbers or booleans; got {x.dtype}")
    return jnp.asarray(x)


class Dense(eqx.Module):
    """All to all; with `count`, as many parallel synapses a pair as it says (0: none).

    `count` [n_post, n_pre] merges synapses that share their weight exactly, such as those
    onto redundant copies of one readout neuron: I_i = sum_j count_ij w_ij s_j, while each
    synapse still learns as one. `w` has shape [n_post, n_pre], nA a spike. Booleans leave pairs
    out: all to all of one population without autapses is `Dense(n, n, ~jnp.eye(n, dtype=bool))`.

    >>> wiring = nj.Dense(3, 2)
    >>> wiring
    Dense(3 -> 2)
    >>> wiring.apply(jnp.ones((2, 3)), jnp.array([1.0, 0.0, 1.0]))
    Array([2., 2.], dtype=float32)

    Raises `ValueError` for populations without neurons, and for counts that are negative, no
    whole numbers or of another shape; at run time where they are traced.
    """

    n_pre: int = eqx.field(static=True, converter=whole_number("n_pre"))
    n_post: int = eqx.field(static=True, converter=whole_number("n_post"))
    count: Shaped[Array, "post pre"] | None = eqx.field(default=None, converter=_counts)

    def __check_init__(self):
        if self.count is None:
            return
        if self.count.shape != self.shape:
            raise ValueError(f"count must have shape {self.shape}; got {self.count.shape}")
        if self.count.dtype == bool:
            return
        counted = concrete(self.count)
        if counted is None:
            few = (self.count < jnp.zeros((), self.count.dtype)).any()
            return checked_later(self, "count", few, "count must be >= 0 synapses a pair")
        if (counted < 0).any():
            raise ValueError(f"count must be >= 0 synapses a pair; got {counted.min()}")

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        return sized(self, None if self.count is None else synapses(self.count))

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
        shaped(w=(w, self.shape))
        return w if self.count is None else w * self.count.astype(w.dtype)

    def apply(self, w: Float[Array, "post pre"], s: Shaped[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron, nA."""
        w, s = alike(w, s)
        shaped(s=(s, (self.n_pre,)))
        return _product(s, self.matrix(w), 1)

    def apply_t(
        self, w: Float[Array, "post pre"], e: Shaped[Array, " post"]
    ) -> Float[Array, " pre"]:
        """Transposed product."""
        w, e = alike(w, e)
        shaped(e=(e, (self.n_post,)))
        return _product(e, self.matrix(w), 0)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "post pre"]:
        """Summed outer product on the synapses that exist."""
        full = _summed(*sides(self, post, pre))
        return full if self.count is None else jnp.where(self.count.astype(bool), full, 0)


class FanIn(eqx.Module):
    """Each neuron listens to the `k` neurons that its row of `index` names, once each.

    `index` and `w`, nA a spike, have shape [n_post, k]. Storage is sparse; above a small fan-in
    the products go through a dense matrix filled once, which on a CPU beats gathers several
    times, unless it would be 64 times as large as the list, or more.

    >>> wiring = nj.FanIn([[0, 2], [1, 3], [2, 0]], n_pre=4)
    >>> wiring
    FanIn(4 -> 3, fan-in 2)
    >>> wiring.apply(jnp.ones((3, 2)), jnp.array([1.0, 0.0, 1.0, 0.0]))
    Array([2., 0., 2.], dtype=float32)

    Raises `ValueError` for indices that are no whole numbers, name no neuron, or name one twice
    in a row (`FanOut` takes parallel synapses); at run time where they are traced.
    """

    index: Int[Array, "post k"] = eqx.field(converter=indices("index"))
    n_pre: int = eqx.field(static=True, converter=whole_number("n_pre"))

    def __check_init__(self):
        if self.index.ndim != 2 or 0 in self.index.shape:
            got = self.index.shape
            raise ValueError(f"index must have shape [n_post, k], without a 0; got {got}")
        index = concrete(self.index)
        if index is None:
            return self._check_later()
        for at in pieces(index.size, index.shape[1]):
            within("index", index[at], self.n_pre)
            _refuse_twice(index[at], at.start)

    def _check_later(self) -> None:
        ordered = jnp.sort(self.index, axis=1)
        none = (ordered[:, 0] < 0) | (ordered[:, -1] >= self.n_pre)
        allowed = f"index must name one of {self.n_pre} neurons, 0 to {self.n_pre - 1}"
        checked_later(self, "index", none.any(), allowed)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any()
        checked_later(self, "index", twice, "index must name a pair once in a row")

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        return sized(self, f"fan-in {self.shape[1]}")

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
        shaped(x=(x, (self.n_pre,)))
        return x[self.index]

    def matrix(self, w: Float[Array, "post k"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        shaped(w=(w, self.shape))
        rows = jnp.arange(self.n_post)[:, None]
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[rows, self.index].set(w)

    def apply(self, w: Float[Array, "post k"], s: Shaped[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron, nA."""
        w, s = alike(w, s)
        shaped(w=(w, self.shape), s=(s, (self.n_pre,)))
        if by_matrix(self):
            return _product(s, self.matrix(w), 1)
        dtype = working(w.dtype)
        wide, s = w.astype(dtype), s.astype(dtype)
        slots = [wide[:, k] * s[self.index[:, k]] for k in range(self.shape[1])]
        return functools.reduce(jnp.add, slots).astype(w.dtype)

    def apply_t(self, w: Float[Array, "post k"], e: Shaped[Array, " post"]) -> Float[Array, " pre"]:
        """Transposed product."""
        w, e = alike(w, e)
        shaped(w=(w, self.shape), e=(e, (self.n_post,)))
        if by_matrix(self):
            return _product(e, self.matrix(w), 0)
        dtype = working(w.dtype)
        heard = w.astype(dtype) * e.astype(dtype)[:, None]
        return jnp.zeros(self.n_pre, dtype).at[self.index].add(heard).astype(w.dtype)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "post k"]:
        """Summed outer product, picked at the synapses that exist."""
        post, pre = sides(self, post, pre)
        if by_matrix(self):
            return jnp.take_along_axis(_summed(post, pre), self.index, axis=1)
        post, pre = post.T, pre.T
        return jax.lax.map(lambda at: (post * pre[at]).sum(1), self.index.T).T


def _refuse_twice(index: np.ndarray, first: int = 0) -> None:
    """Refuse a row with the same neuron twice; the rows begin at neuron `first`."""
    if (np.diff(index, axis=1) > 0).all():
        return
    order = np.argsort(index, axis=1, kind="stable")
    ordered = np.take_along_axis(index, order, axis=1)
    post, slot = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
    if post.size:
        raise ValueError(
            f"index must name a pair once; neuron {first + post[0]} hears"
            f" {ordered[post[0], slot[0]]}"
            " twice: add up the weights, or list the synapses with by_sender"
        )


def _booleans(x: Any) -> Array:
    """Field converter: booleans as they came."""
    x = array("mask", x)
    if x.dtype != bool:
        raise ValueError(f"mask must be booleans; got {x.dtype}: pass mask.astype(bool)")
    return jnp.asarray(x)


class Band(eqx.Module):
    """Neurons on a ring, each listening to those within `radius` where `mask` is true.

    Column c of `w` [n, 2 radius + 1] holds the synapse from neuron i + c - radius (mod n).
    The products run over tiles of the band: 2 n (tile + 2 radius) flops, not 2 n^2.

    >>> nj.Band(jnp.ones((9, 5), bool), radius=2)
    Band(9 -> 9, radius 2, 45 synapses)

    Raises `ValueError` for a mask that is not boolean or of another shape, and for a radius
    outside [1, (n - 1) / 2].
    """

    mask: Bool[Array, "n width"] = eqx.field(converter=_booleans)
    radius: int = eqx.field(static=True)

    def __check_init__(self):
        if self.mask.ndim != 2:
            raise ValueError(f"mask must have shape [n, 2 radius + 1]; got {self.mask.shape}")
        check_radius(self.radius, self.n_pre)
        if self.mask.shape != self.shape:
            raise ValueError(f"mask must have shape {self.shape}; got {self.mask.shape}")

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        return sized(self, f"radius {self.radius}", synapses(self.mask))

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
        shaped(x=(x, (self.n_pre,)))
        return x[self.edges().pre.reshape(self.shape)]

    def matrix(self, w: Float[Array, "n width"]) -> Float[Array, "n n"]:
        """The same weights as a dense matrix."""
        shaped(w=(w, self.shape))
        pre, post, _ = self.edges()
        w = jnp.where(self.mask, w, 0).reshape(-1)
        return jnp.zeros((self.n_pre, self.n_pre), w.dtype).at[post, pre].set(w)

    def apply(self, w: Float[Array, "n width"], s: Shaped[Array, " n"]) -> Float[Array, " n"]:
        """Current into each neuron, nA."""
        w, s = alike(w, s)
        shaped(w=(w, self.shape), s=(s, (self.n_pre,)))
        # Masked last: XLA takes a selection out of a loop over time, a slice it would leave there.
        tiles = jnp.where(_skew(_pad_rows(self.mask)), _skew(_pad_rows(w)), 0)
        current = jax.lax.dot_general(self._windows(s), tiles, (((1,), (2,)), ((0,), (0,))))
        return current.reshape(-1)[: self.n_pre]

    def apply_t(self, w: Float[Array, "n width"], e: Shaped[Array, " n"]) -> Float[Array, " n"]:
        """Transposed product."""
        w, e = alike(w, e)
        shaped(e=(e, (self.n_post,)))
        return _product(e, self.matrix(w), 0)

    def outer(
        self, post: Shaped[Array, "*lead n"], pre: Shaped[Array, "*lead n"]
    ) -> Float[Array, "n width"]:
        """Summed outer product on the band."""
        post, pre = sides(self, post, pre)
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
    if not isinstance(wiring, FanIn):
        return isinstance(wiring, Dense)
    k = wiring.shape[1]
    return _MAX_GATHERED < k and wiring.n_pre <= _TOO_SPARSE * k


def _product(s: Array, matrix: Array, axis: int) -> Array:
    """`s` against one axis of `matrix`; a batch of `s` stays in front, as scans want an input."""
    return jax.lax.dot_general(s, matrix, (((0,), (axis,)), ((), ())))


def _summed(post: Array, pre: Array) -> Array:
    """Outer product summed over the first axis."""
    return jax.lax.dot_general(post, pre, (((0,), (0,)), ((), ())))


def sides(wiring: Any, post: Array, pre: Array) -> tuple[Array, Array]:
    """Both sides of `outer` in one dtype, with all leading axes in one."""
    post, pre = alike(post, pre)
    if not (post.ndim and pre.ndim and post.shape[:-1] == pre.shape[:-1]):
        raise ValueError(f"post and pre must share leading axes; got {post.shape}, {pre.shape}")
    lead = math.prod(post.shape[:-1])
    post, pre = (x.reshape(lead, x.shape[-1]) for x in (post, pre))
    shaped(post=(post, (len(post), wiring.n_post)), pre=(pre, (len(pre), wiring.n_pre)))
    return post, pre


def alike(a: Array, b: Array) -> tuple[Array, Array]:
    """Both in one float dtype; booleans and whole numbers take that of the other side."""
    a, b = (numbers("each side of a product", x) for x in (a, b))
    floats = [x.dtype for x in (a, b) if jnp.issubdtype(x.dtype, jnp.inexact)]
    dtype = jnp.result_type(*floats) if floats else jnp.zeros(0).dtype
    return a.astype(dtype), b.astype(dtype)


def shaped(**arrays: tuple[Array, tuple[int, ...]]) -> None:
    """Refuse other shapes: products would read past the end, or another neuron."""
    for name, (x, shape) in arrays.items():
        if jnp.shape(x) != shape:
            more = jnp.ndim(x) == len(shape) + 1 and jnp.shape(x)[1:] == shape
            cure = ": jax.vmap over the batch" if more else ""
            raise ValueError(f"{name} must have shape {shape}; got {jnp.shape(x)}{cure}")


def synapses(number: Any) -> str | None:
    """How many there are, or None where their number is traced."""
    found = concrete(number) if isinstance(number, jax.Array) else None
    return None if found is None else f"{found.sum():,} synapses"


def sized(wiring: Any, *parts: str | None) -> wadler_lindig.AbstractDoc:
    """What `repr` shows of a layout: its sizes, not its arrays."""
    ends = f"{wiring.n_pre} -> {wiring.n_post}"
    text = ", ".join([ends, *(part for part in parts if part)])
    return wadler_lindig.TextDoc(f"{type(wiring).__name__}({text})")


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
    whole = isinstance(radius, int | np.integer) and not isinstance(radius, bool)
    if not (whole and 1 <= radius <= (n - 1) // 2):
        raise ValueError(
            f"radius must be in [1, {(n - 1) // 2}] for {n} neurons; got {brief(radius)}"
        )


def __dir__() -> list[str]:
    return __all__
