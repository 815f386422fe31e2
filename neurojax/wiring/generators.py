"""Who connects to whom: generators that draw wiring from a key, as one of the `layouts`.

None makes an array of all pairs: time and memory grow with the synapses that are drawn.
An autapse is a synapse of a neuron onto itself; `autapses` says whether there may be some.
`key` may be None where nothing is left to chance, as at density 1 or `p_rewire` 0.
"""

import functools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from neurojax._check import MOST, between, brief, count, flag, positive, prng_key
from neurojax._memory import affordable
from neurojax.wiring.convolution import Local1D, Local2D
from neurojax.wiring.layouts import Band, Dense, FanIn, check_radius
from neurojax.wiring.narrow import blank, kept
from neurojax.wiring.procedural import others, part
from neurojax.wiring.sparse import FanOut

__all__ = [
    "bernoulli", "blocks", "distance_dependent", "exponential_profile", "fan_in", "fan_out",
    "gaussian_profile", "locally_dense", "long_range", "merged", "one_to_one", "watts_strogatz",
    "watts_strogatz_grid",
]  # fmt: skip

# Up to as many pairs, partners are drawn as they were for recorded results.
_RECORDED = 1 << 22
# Rows filled side by side: their data stay in the cache, and few wait for the slowest.
_ROWS = 256
# Synapses drawn at once where there are many: what drawing needs beside them stays small.
_PART = 1 << 22
# Weights of partners are rounded to whole parts of this sum.
_MASS = 2**31 - 1

# Distances to partners, in spacings of the grid -> weights, in any unit; both [partners].
Profile = Callable[[np.ndarray], ArrayLike]


def one_to_one(n: int) -> FanIn:
    """Neuron i hears neuron i alone: weights [n, 1], nA a spike.

    >>> nj.one_to_one(3).apply(jnp.full((3, 1), 0.5), jnp.array([1.0, 0.0, 1.0]))
    Array([0.5, 0. , 0.5], dtype=float32)

    Raises `ValueError` for a population without neurons.
    """
    n = count("n")(n)
    _affordable("a synapse a neuron", n)
    return FanIn(np.arange(n)[:, None], n)


def fan_in(
    key: Key[Array, ""] | None, n_pre: int, n_post: int, density: float, *, autapses: bool = True
) -> FanIn:
    """Fixed fan-in: each neuron draws round(density n_pre) different partners, at least one.

    Weights have shape [n_post, fan-in], nA a spike. Without `autapses` the partners are the
    n_pre - 1 others of one population, and their number is round(density (n_pre - 1)).

    >>> nj.fan_in(jax.random.key(0), 512, 100, density=0.05)
    FanIn(512 -> 100, fan-in 26)

    Raises `ValueError` for a density outside (0, 1], for populations without neurons, and for
    two populations without `autapses`; `TypeError` for what is no key.
    """
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    m = others(n_pre, n_post, autapses)
    k = part(density, m)
    _affordable(f"{k} synapses onto each of {n_post} neurons", n_post * k)
    key = _needed(key, k < m)
    index = _all_of(n_post, m) if key is None else _subsets(key, n_post, m, k)
    return FanIn(index if autapses else _past_oneself(index), n_pre)


def fan_out(
    key: Key[Array, ""] | None,
    n_pre: int,
    n_post: int,
    density: float,
    *,
    autapses: bool = True,
    native: bool = True,
) -> FanOut:
    """Fixed fan-out: each neuron reaches round(density n_post) different ones, at least one.

    Weights have shape [n_pre fan-out], nA a spike. Without `autapses` they are of the
    n_post - 1 others of one population, and their number is round(density (n_post - 1)).

    >>> nj.fan_out(jax.random.key(0), 1000, 800, density=0.05)
    FanOut(1000 -> 800, 40,000 synapses)

    Raises `ValueError` for a density outside (0, 1], for populations without neurons, and for
    two populations without `autapses`; `TypeError` for what is no key.
    """
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    m = others(n_post, n_pre, autapses)
    k = part(density, m)
    _affordable(f"{k} synapses from each of {n_pre} neurons", n_pre * k)
    key = _needed(key, k < m)
    index = _all_of(n_pre, m) if key is None else _drawn(key, n_pre, m, k)
    index = index if autapses else _past_oneself(index)
    start = k * jnp.arange(n_pre + 1, dtype=jnp.int32)
    return FanOut(index.reshape(-1), start, n_post, k, native)


def bernoulli(
    key: Key[Array, ""] | None,
    n_pre: int,
    n_post: int,
    p: float,
    *,
    autapses: bool = True,
    native: bool = True,
) -> FanOut:
    """Each pair is connected with probability `p`, alone: `blocks` of one block.

    Weights have shape [edges], nA a spike.

    >>> nj.bernoulli(None, 400, 300, p=0.0)  # 0.1 would draw 12,000, give or take 104
    FanOut(400 -> 300, 0 synapses)
    """
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    between("p", 0.0, 1.0)(p)
    if np.ndim(p):
        raise ValueError(f"p must be one number; got shape {np.shape(p)}: see blocks")
    chance = np.full((1, 1), p)
    return blocks(key, [n_pre], [n_post], chance, autapses=autapses, native=native)


def blocks(
    key: Key[Array, ""] | None,
    sizes_pre: Sequence[int],
    sizes_post: Sequence[int],
    p: Float[np.ndarray, "post pre"] | Sequence[Sequence[float]],
    *,
    autapses: bool = True,
    native: bool = True,
) -> FanOut:
    """Stochastic block model: a pair from block b to block a is connected with p[a, b], alone.

    Neurons are numbered block by block, and may reach themselves where there are `autapses`.
    How many a sender reaches in a block is a binomial number (its distribution exact to
    2^-32), who they are a uniform subset. Weights have shape [edges], nA a spike. Not for use
    under `jit`: the number of synapses is random.

    Source: Holland, Laskey and Leinhardt (1983), Social Networks 5, 109.
    Raises `ValueError` for sizes below 1, for `p` outside [0, 1] or of another shape, and for
    two populations without `autapses`; `TypeError` for what is no key.
    """
    between("p", 0.0, 1.0)(p)
    chance = np.asarray(p, float)
    if chance.shape != (len(sizes_post), len(sizes_pre)):
        expected = (len(sizes_post), len(sizes_pre))
        raise ValueError(f"p must have shape {expected}, post by pre; got {chance.shape}")
    n_pre, n_post = ([count("sizes")(n) for n in sizes] for sizes in (sizes_pre, sizes_post))
    if not flag("autapses")(autapses) and n_pre != n_post:
        raise ValueError(f"autapses=False is for one population; got blocks {n_pre}, {n_post}")
    mean = math.ceil(np.asarray(n_post, float) @ chance @ np.asarray(n_pre, float))
    _affordable(f"{mean:,} synapses", mean + max(n_post) + max(n_pre))
    key = _needed(key, not np.isin(chance, (0.0, 1.0)).all())
    key = jax.random.key(0) if key is None else key  # draws nothing but all or none
    rows = [_receivers(key, b, n, n_post, chance[:, b], autapses) for b, n in enumerate(n_pre)]
    n_out = np.concatenate([(row >= 0).sum(1) for row in rows])
    start = jnp.asarray(np.append(0, np.cumsum(n_out)), jnp.int32)
    index = jnp.asarray(np.concatenate([row[row >= 0] for row in rows]))
    return FanOut(index, start, sum(n_post), int(n_out.max()), native)


def _receivers(key, b: int, n: int, n_post: list[int], p: np.ndarray, autapses: bool) -> np.ndarray:
    """Whom each of n senders of block b reaches, in order; -1 is none."""
    first, drawn = 0, []
    for a, m in enumerate(n_post):
        itself = a == b and not autapses
        k = jax.random.fold_in(jax.random.fold_in(key, a), b)
        row = _binomial_subsets(k, n, m - itself, p[a])
        seen = np.asarray(_past_oneself(row)) if itself else row
        drawn.append(np.where(row < m - itself, seen + first, -1))
        first += m
    return np.concatenate(drawn, axis=1)


def _binomial_subsets(key, rows: int, m: int, p: float) -> np.ndarray:
    """Rows that take each of 0 .. m - 1 with `p`, in order; what is m or more is none."""
    from scipy.special import bdtr  # slow to import

    if m == 0 or p == 0:  # a block without synapses compiles nothing
        return np.zeros((rows, 0), np.int32)
    how_many, which = jax.random.split(key)
    u = (np.asarray(jax.random.bits(how_many, (rows,), "uint32")) + 0.5) / 2**32
    k = np.searchsorted(bdtr(np.arange(m), m, p), u)
    # Six standard errors wide, in eights: another key or block compiles nothing, mostly.
    usual = 8 * math.ceil((m * p + 6 * math.sqrt(m * p * (1 - p)) + 4) / 8)
    slot = np.arange(max(k.max(), min(m, usual)), dtype=np.int32)
    missing = slot < k[:, None]
    return np.asarray(_filled(which, np.where(missing, 0, m + slot), missing, m))


def watts_strogatz(
    key: Key[Array, ""] | None,
    n_pre: int,
    n_post: int,
    k: int,
    p_rewire: float | Float[Array, ""],
    *,
    autapses: bool = False,
) -> FanIn:
    """Small-world fan-in: the k nearest of a ring, each rewired at random with `p_rewire`.

    Receivers sit evenly on the senders' ring. Rewired synapses go to partners drawn from all
    that the neuron does not have, near or far, so fan-in is k exactly and no pair is
    connected twice. `p_rewire` 0 is a local patch, 1 a random graph. With n_pre = n_post
    these are k / 2 neighbours on each side, and none is rewired to oneself unless there may be
    `autapses`. Weights have shape [n_post, k], nA a spike.

    >>> nj.watts_strogatz(None, 100, 100, k=10, p_rewire=0.0)  # the ring itself: nothing drawn
    FanIn(100 -> 100, fan-in 10)

    Source: Watts and Strogatz (1998), Nature 393, p. 440.
    Raises `ValueError` for k outside [1, n_pre], with n_pre = n_post for k odd or outside
    [2, n_pre - 1], or `p_rewire` outside [0, 1]; `TypeError` for what is no key.
    """
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    p, k = between("p_rewire", 0.0, 1.0)(p_rewire), count("k", 0)(k)
    autapses = flag("autapses")(autapses)
    _affordable(f"{k} synapses onto each of {n_post} neurons", n_post * k)
    key = _needed(key, _may_rewire(p_rewire))
    if n_pre == n_post:
        if k % 2 or not 2 <= k < n_pre:
            raise ValueError(f"k must be even and in [2, {n_pre - 1}], half on each side; got {k}")
        side = np.arange(1, k // 2 + 1)
        near = np.concatenate([side, n_pre - side[::-1]])
        return _rewired_torus(key, (1, n_pre), near, p, autapses)
    if not 1 <= k <= n_pre:
        raise ValueError(f"k must be in [1, {n_pre}]; got {k}")
    # The first of k in a row whose middle is the receiver's place i n_pre / n_post.
    first = (2 * np.arange(n_post) * n_pre - k * n_post) // (2 * n_post) + 1
    near = jnp.asarray(first, jnp.int32)[:, None] + jnp.arange(k, dtype=jnp.int32)[None]
    return FanIn(_rewired(key, jnp.sort(near % n_pre, axis=1), p, n_pre), n_pre)


def watts_strogatz_grid(
    key: Key[Array, ""] | None,
    shape: tuple[int, int],
    k: int,
    p_rewire: float | Float[Array, ""],
    *,
    autapses: bool = False,
) -> FanIn:
    """As `watts_strogatz`, with the k nearest on a torus of (ny, nx) neurons, row by row.

    Nearest is by Euclidean distance; k must take in all or none that are equally far. Weights
    have shape [ny nx, k], nA a spike.

    >>> nj.watts_strogatz_grid(None, (20, 30), k=8, p_rewire=0.0)  # all eight around each
    FanIn(600 -> 600, fan-in 8)

    Raises `ValueError` for another k, or `p_rewire` outside [0, 1]; `TypeError` for what is no
    key.
    """
    p, k = between("p_rewire", 0.0, 1.0)(p_rewire), count("k", 0)(k)
    autapses = flag("autapses")(autapses)
    key = _needed(key, _may_rewire(p_rewire))
    shape = _torus(shape, 2)
    squared = _squared_distances(shape)
    order = np.argsort(squared, kind="stable")
    whole = np.flatnonzero(np.diff(squared[order]))[1:]  # neighbours out to each distance
    whole = np.append(whole, squared.size - 1)
    if k not in whole:
        at = max(0, np.searchsorted(whole, k) - 3)
        listed = ", ".join(map(str, whole[at : at + 6]))
        raise ValueError(f"k must take in all that are equally far, as {listed} do; got {k}")
    return _rewired_torus(key, shape, np.sort(order[1 : k + 1]), p, autapses)


def distance_dependent(
    key: Key[Array, ""] | None,
    shape: tuple[int, ...],
    k: int,
    profile: Profile,
    *,
    autapses: bool = False,
) -> FanIn:
    """Fan-in of k, each partner drawn in proportion to `profile` of its distance.

    On a ring (n,) or a torus (ny, nx), numbered row by row; distance is Euclidean, in
    spacings of the grid. The k are drawn one after another, each from those that are left.
    The weights of the profile are rounded to 2^-31 of their sum; those of the synapses have
    shape [n, k]. No neuron hears itself unless there may be `autapses`.

    Raises `ValueError` for another shape, weights that are negative or not finite, and k
    below 1 or above the number of partners whose rounded weight is not 0; `TypeError` for what
    is no key.
    """
    k, torus = count("k", 0)(k), _torus(shape, 1, 2)
    autapses = flag("autapses")(autapses)
    base = 0 if autapses else 1  # offset 0 is the neuron itself
    distance = np.sqrt(_squared_distances(torus))[base:]
    ends = _cumulated(np.asarray(profile(distance), float), distance.shape)
    most = int(np.count_nonzero(np.diff(ends, prepend=0)))
    if not 1 <= k <= most:
        raise ValueError(f"k must be in [1, {most}], the partners of weight > 2^-32; got {k}")
    key, n = _needed(key, k < most), math.prod(torus)
    if key is None:  # all whose weight is not 0
        offset = _all_of(n, ends.size)[:, np.flatnonzero(np.diff(ends, prepend=0))] + base
    else:
        offset = _drawn(key, n, ends.size, k, ends) + base
    return FanIn(_seen_from_each(offset, torus), n)


class _Falling(eqx.Module):
    """Weight exp(-(d / scale)^power / power) at distance d."""

    scale: float = eqx.field(static=True)
    power: int = eqx.field(static=True)

    def __call__(self, d: np.ndarray) -> np.ndarray:
        return np.exp(-((d / self.scale) ** self.power) / self.power)


def exponential_profile(scale: float) -> Profile:
    """Weight exp(-d / scale) at distance d, both in spacings, for `distance_dependent`.

    >>> nj.exponential_profile(scale=2.0)(np.array([0.0, 2.0])).round(3)
    array([1.   , 0.368])

    Raises `ValueError` for a scale that is not finite and positive.
    """
    positive("scale", "spacings")(scale)
    return _Falling(float(scale), 1)


def gaussian_profile(scale: float) -> Profile:
    """Weight exp(-d^2 / (2 scale^2)) at distance d, both in spacings, for `distance_dependent`.

    >>> nj.gaussian_profile(scale=2.0)(np.array([0.0, 2.0])).round(3)
    array([1.   , 0.607])

    Raises `ValueError` for a scale that is not finite and positive.
    """
    positive("scale", "spacings")(scale)
    return _Falling(float(scale), 2)


def locally_dense(
    key: Key[Array, ""] | None, n: int, radius: int, p_rewire: float
) -> tuple[Band, FanIn | None]:
    """A ring in which all neurons within `radius` are connected, partly rewired.

    Of each neuron's 2 radius synapses, m = round(2 radius p_rewire), drawn at random, leave
    the band for a partner outside it: (band, long-range), the second None where m = 0. In-
    degree and the number of long-range slots are exact, as on hardware, where Watts and
    Strogatz (1998) draw each edge's fate alone; no autapses, no pair twice. Weights have shapes
    [n, 2 radius + 1] and [n, m].

    >>> near, far = nj.locally_dense(None, 100, radius=10, p_rewire=0.0)
    >>> near, far
    (Band(100 -> 100, radius 10, 2,000 synapses), None)

    Raises `ValueError` for a radius outside [1, (n - 1) / 2] or `p_rewire` outside [0, 1], and
    where fewer than m others are outside the band; `TypeError` for what is no key.
    """
    n = count("n")(n)
    check_radius(radius, n)
    _affordable(
        f"a band of {2 * radius + 1} synapses onto each of {n} neurons", n * (2 * radius + 1)
    )
    between("p_rewire", 0.0, 1.0)(p_rewire)
    lost, spare = round(2 * radius * float(p_rewire)), n - 1 - 2 * radius
    if lost > spare:
        raise ValueError(
            f"p_rewire must be at most {spare / (2 * radius):.3g}, as {n} neurons of radius"
            f" {radius} have {spare} others outside the band; got {p_rewire}"
        )
    key = _needed(key, lost > 0)
    if key is None:
        return Band(jnp.ones((n, 2 * radius + 1), bool).at[:, radius].set(False), radius), None
    which, where = jax.random.split(key)
    band = Band(_thinned(which, n, radius, lost), radius)
    if lost == 0:
        return band, None
    index = _subsets(where, n, spare, lost) + radius + 1 + jnp.arange(n, dtype=jnp.int32)[:, None]
    return band, FanIn(index % n, n)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _thinned(key, n: int, radius: int, lost: int) -> Bool[Array, "n width"]:
    """Mask of a band: each row without `lost` of its places, at random, and the neuron itself."""
    order = jax.random.uniform(key, (n, 2 * radius)).argsort(1).argsort(1)
    return jnp.insert(order >= lost, radius, False, axis=1)


def long_range(key: Key[Array, ""], windows: Local1D | Local2D, fan_in: int) -> FanIn:
    """Far partners beside windows: each neuron draws `fan_in` senders that its window leaves out.

    With the windows they make a small world of exact fan-in: dense nearby, and so many synapses
    from anywhere else, each subset equally likely. Weights have shape [n_post, fan_in], nA a spike.

    >>> near = nj.Local2D((2, 14, 14), 4, kernel=5, padding="same")
    >>> nj.long_range(jax.random.key(0), near, fan_in=14)  # beside 50 that are near
    FanIn(392 -> 784, fan-in 14)

    Source: Watts and Strogatz (1998), Nature 393, p. 440, for local wiring with a few long ways.
    Raises `ValueError` for a fan-in below 1 or above what the largest window leaves out,
    `TypeError` for windows that are no `Local1D` or `Local2D` and for what is no key.
    """
    if not isinstance(windows, Local1D | Local2D):
        raise TypeError(f"windows must be a Local1D or Local2D; got {brief(windows)}")
    k, key, n = count("fan_in", 0)(fan_in), prng_key(key), windows.n_pre
    _affordable("windows and what is drawn beside them", windows.n_post * (windows.window + k))
    seen, rows = windows.seen(), windows.features // windows.groups
    most = n - int((seen < n).sum(-1).max())
    if not 1 <= k <= most:
        raise ValueError(f"fan_in must be in [1, {most}], the senders outside a window; got {k}")
    slot = np.arange(windows.window)
    held = np.sort(np.where(seen < n, seen, n + slot), -1)[:, None].repeat(rows, 1)
    held = jnp.asarray(held.reshape(windows.n_post, -1), jnp.int32)
    return FanIn(_beside(key, held, k, n), n)


@functools.partial(jax.jit, static_argnums=2)
def _beside(key, held: Int[Array, "n w"], k: int, m, ends=None) -> Int[Array, "n k"]:
    """Rows of k of 0 .. m - 1 that sorted rows do not hold, in order; weights as of `_distinct`."""
    new = jnp.zeros((len(held), k), held.dtype)
    missing = jnp.concatenate([jnp.ones_like(new, bool), jnp.zeros_like(held, bool)], axis=1)
    drawn = _filled(key, jnp.concatenate([new, held], axis=1), missing, m, ends)
    at = jax.vmap(jnp.searchsorted)(held, drawn)
    known = jnp.take_along_axis(held, jnp.minimum(at, held.shape[1] - 1), axis=1) == drawn
    order = jnp.argsort(known, axis=1, stable=True)
    return jnp.take_along_axis(drawn, order[:, :k], axis=1)


def merged(fan: FanIn, population: int) -> Dense:
    """Collapse each run of `population` receivers that are copies of one another into one.

    Exact where they start equal and see the same error, as leaky-integrator readouts do.
    Weights have shape [n_post / population, n_pre], nA a spike.

    >>> nj.merged(nj.fan_in(jax.random.key(0), 512, 100, density=0.05), population=10)
    Dense(512 -> 10, 2,600 synapses)

    Raises `ValueError` unless `population` divides the receivers, `TypeError` for what is no
    `FanIn`.
    """
    if not isinstance(fan, FanIn):
        raise TypeError(f"fan must be a FanIn; got {brief(fan)}")
    if count("population", 0)(population) < 1 or fan.n_post % population:
        raise ValueError(f"population must divide {fan.n_post} receivers; got {population}")
    return Dense(fan.n_pre, fan.n_post // population, _counted(fan, population))


@functools.partial(jax.jit, static_argnums=1)
def _counted(fan: FanIn, population: int) -> Int[Array, "post pre"]:
    """Synapses of each run of `population` receivers."""
    linked = fan.matrix(jnp.ones(fan.shape)).reshape(-1, population, fan.n_pre)
    return linked.sum(1).astype(jnp.int32)


def _affordable(what: str, synapses: int) -> None:
    """Refused where the drawing of so many synapses would not fit: indices, and room to sort."""
    affordable(what, 16 * synapses)


def _needed(key: Array | None, drawn: bool) -> Array | None:
    """`key`, which may be None where nothing is drawn."""
    return None if key is None and not drawn else prng_key(key)


def _may_rewire(p: ArrayLike) -> bool:
    """Whether the chance is not known to be 0."""
    return isinstance(p, Tracer) or bool(np.any(np.asarray(p) > 0))


def _past_oneself(index):
    """Row i numbers all neurons but i; their own numbers."""
    here = np.arange(index.shape[0], dtype=np.int32)[:, None]
    return index + (index >= here).astype(np.int32)


def _all_of(rows: int, m: int) -> Int[Array, "rows m"]:
    return jnp.broadcast_to(jnp.arange(m, dtype=jnp.int32), (rows, m))


def _torus(shape: tuple[int, ...], *axes: int) -> tuple[int, int]:
    """A grid of neurons as (ny, nx)."""
    if not isinstance(shape, tuple | list) or len(shape) not in axes:
        allowed = "(n,) or (ny, nx)" if 1 in axes else "(ny, nx)"
        raise ValueError(f"shape must be {allowed}; got {brief(shape)}")
    *ny, nx = map(count("shape"), shape)
    n = nx * math.prod(ny)
    if n > MOST:
        raise ValueError(f"shape must hold at most {MOST} neurons; got {n}")
    _affordable(f"distances among {n} neurons", n)
    return (ny[0] if ny else 1, nx)


def _squared_distances(shape: tuple[int, int]) -> np.ndarray:
    """From neuron 0 of a torus to each, flat."""
    y, x = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    return (y[:, None] ** 2 + x**2).reshape(-1)


def _cumulated(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if weight.shape != shape:
        raise ValueError(f"profile must give one weight a distance, {shape}; got {weight.shape}")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise ValueError("profile must give finite weights >= 0, not all of them 0")
    upto = np.cumsum(weight)
    return np.round(upto / upto[-1] * _MASS).astype(np.int32)


def _rewired_torus(key, shape: tuple[int, int], near: np.ndarray, p, autapses: bool) -> FanIn:
    """All neurons of a torus with the same flat offsets `near`, rewired."""
    n, base = math.prod(shape), 0 if autapses else 1  # offset 0 is the neuron itself
    offset = jnp.broadcast_to(jnp.asarray(near - base, jnp.int32), (n, near.size))
    offset = _rewired(key, offset, p, n - base) + base
    return FanIn(_seen_from_each(offset, shape), n)


@functools.partial(jax.jit, static_argnames="shape")
def _seen_from_each(offset: Int[Array, "n k"], shape: tuple[int, int]) -> Int[Array, "n k"]:
    """Who lies at each neuron's flat offsets, which are those from neuron 0."""
    (ny, nx), here = shape, jnp.arange(offset.shape[0], dtype=jnp.int32)[:, None]
    return (here // nx + offset // nx) % ny * nx + (here + offset) % nx


def _rewired(key, near: Int[Array, "n k"], p, m) -> Int[Array, "n k"]:
    """Rows of which each entry is with `p` drawn anew, from all of m that were not kept."""
    return near if key is None else _redrawn(key, near, p, m)


@jax.jit
def _redrawn(key, near: Int[Array, "n k"], p, m) -> Int[Array, "n k"]:
    coin, fill = jax.random.split(key)
    return _filled(fill, near, jax.random.uniform(coin, near.shape, p.dtype) < p, m)


def _subsets(key, rows: int, m: int, k: int) -> Int[Array, "rows k"]:
    """Each row k different of 0 .. m - 1."""
    return (_drawn if rows * m > _RECORDED else _chosen)(key, rows, m, k)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _chosen(key, rows: int, m: int, k: int) -> Int[Array, "rows k"]:
    """The same in random order, with m numbers a row."""
    draw = jax.vmap(lambda row: jax.random.choice(row, m, (k,), replace=False))
    return draw(jax.random.split(key, rows)).astype(jnp.int32)


def _drawn(key, rows: int, m: int, k: int, ends=None) -> Int[Array, "rows k"]:
    """The same in order, with weights; see `_distinct`. Many rows are drawn a part at a time."""
    part = max(_PART // k // _ROWS, 1) * _ROWS
    none = lambda n: (jnp.zeros((n, k), jnp.int32), jnp.ones((n, k), bool))  # noqa: E731
    if rows <= part or isinstance(key, Tracer):
        return _filled(key, *none(rows), m, ends)
    keys, out = jax.random.split(key, rows), blank((rows, k), np.int32)
    for first in range(0, rows, part):
        own = keys[first : first + part]
        out[first : first + part] = _filled_rows(own, *none(len(own)), m, ends)
    return kept(out)


@jax.jit
def _filled(key, index, missing, m, ends=None) -> Int[Array, "rows k"]:
    return _filled_rows(jax.random.split(key, index.shape[0]), index, missing, m, ends)


@jax.jit
def _filled_rows(keys, index, missing, m, ends=None) -> Int[Array, "rows k"]:
    """Rows with a key each."""
    fill = lambda row: _distinct(row[0], row[1], row[2], m, ends)  # noqa: E731
    return jax.lax.map(fill, (keys, index, missing), batch_size=_ROWS)


def _distinct(
    key, index: Int[Array, " k"], missing: Bool[Array, " k"], m: Int[Array, ""], ends: Array | None
) -> Int[Array, " k"]:
    """A sorted row with its missing entries drawn from those of 0 .. m - 1 it does not have.

    Each round draws as many as are missing, from all that are not in the row yet, in
    proportion to their weights; `ends` [m] cumulates these in whole numbers (None: all 1).
    What was drawn twice is missing again. A round never draws too many, so the row ends as
    the first distinct values of an i.i.d. sequence that skips what it held at first: equal
    weights make all subsets equally likely, as renaming the partners changes no probability,
    and others give successive sampling without replacement. A round adds one at least, and
    mostly all but a few. Entries that are not missing may be m or more: they stand for none.
    """
    total = m if ends is None else ends[-1]

    def draw(state):
        key, index, missing = state
        key, now = jax.random.split(key)
        end = index + 1 if ends is None else ends[index]
        begin = index if ends is None else jnp.where(index > 0, ends[index - 1], 0)
        held = jnp.cumsum(jnp.where(missing | (index >= m), 0, end - begin), dtype=jnp.int32)
        # A place in the weight that is free becomes one in all weight: past what lies before.
        u = jax.random.randint(now, index.shape, 0, total - held[-1], jnp.int32)
        before = jnp.searchsorted(end - held, u, side="right")
        u = u + jnp.where(before > 0, held[before - 1], 0)
        fresh = u if ends is None else jnp.searchsorted(ends, u, side="right").astype(jnp.int32)
        index = jnp.sort(jnp.where(missing, fresh, index))
        return key, index, jnp.append(False, index[1:] == index[:-1])

    return jax.lax.while_loop(lambda s: s[2].any(), draw, (key, index, missing))[1]


def __dir__() -> list[str]:
    return __all__
