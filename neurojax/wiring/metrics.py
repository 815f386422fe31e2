"""What shape a graph of synapses has: degrees, clustering, path length, small-world measures.

On the host, with SciPy; any wiring will do. Clustering and paths are those of the simple
graph of one population: parallel synapses count once, self-loops never. They follow the
direction of the synapses unless `directed` is False. That suits wiring of exact fan-in k: when
rewired at random it keeps k directed edges a neuron, but has nearly 2 k neighbours where the
lattice has k, so that undirected measures would compare graphs of different density.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key
from scipy import sparse
from scipy.sparse import csgraph

from neurojax._check import count as whole_number
from neurojax._check import flag, instance, prng_key
from neurojax.wiring.generators import watts_strogatz
from neurojax.wiring.sparse import Connectivity

__all__ = [
    "Degrees", "Paths", "SmallWorld", "clustering", "degrees", "path_length", "small_world",
]  # fmt: skip

# Entries of a product or of a table of distances to hold at once.
_BLOCK = 1 << 24


class Degrees(NamedTuple):
    """Synapses onto each neuron [n_post], and from each [n_pre]: whole numbers.

    Fields:
        fan_in: int [n_post]
        fan_out: int [n_pre]
    """

    fan_in: Int[np.ndarray, " post"]
    fan_out: Int[np.ndarray, " pre"]


class Paths(NamedTuple):
    """Mean number of synapses on the shortest path, over the pairs that have one: two numbers.

    Fields:
        length: float; in synapses
        reached: float; share of ordered pairs that have one, in [0, 1]
    """

    length: float
    reached: float


class SmallWorld(NamedTuple):
    """A graph beside the random and the lattice graph of its size and fan-in.

    Fields:
        C: float; clustering
        L: float; mean shortest path, in synapses
        sigma: float; above 1 in a small world
        omega: float; 0 in a small world, towards -1 in a lattice and 1 in a random graph
        reached: float; share of pairs that L is a mean of
    """

    C: float
    L: float
    sigma: float
    omega: float
    reached: float


def degrees(wiring: Connectivity) -> Degrees:
    """Number of synapses onto [n_post] and from [n_pre] each neuron, parallel ones counted each.

    >>> nj.metrics.degrees(nj.by_sender([0, 0, 2], [1, 1, 0], n_pre=3, n_post=2))
    Degrees(fan_in=array([1, 2]), fan_out=array([2, 0, 1]))
    """
    instance("wiring", wiring, "edges")
    pre, post, count = (np.asarray(x) for x in wiring.edges())
    onto = np.bincount(post, count, wiring.n_post).astype(int)
    return Degrees(onto, np.bincount(pre, count, wiring.n_pre).astype(int))


def clustering(
    wiring: Connectivity,
    *,
    key: Key[Array, ""] | None = None,
    n_sources: int | None = None,
    directed: bool = True,
) -> float:
    """Mean over neurons of the share of pairs of neighbours that are linked themselves.

        C_i = t_i / (2 [d (d - 1) - 2 d_both])      t = diagonal of (A + A^T)^3

    with d links to or from a neuron and d_both neighbours linked both ways; undirected,
    t / (d (d - 1)) with A + A^T cut to ones. 0 where a neuron has no two neighbours. Work
    grows with the sum of squared degrees; `n_sources` neurons drawn with `key` estimate the
    mean.
    Source: Fagiolo (2007), Physical Review E 76, 026107; undirected, Watts and
    Strogatz (1998), Nature 393, p. 440.

    >>> ring = nj.watts_strogatz(None, 400, 400, k=10, p_rewire=0.0)
    >>> round(nj.metrics.clustering(ring), 3)  # 3 (k - 2) / 4 (k - 1)
    0.667

    Raises `ValueError` for `n_sources` outside [1, n] or without a key, and unless senders
    and receivers are one population.
    """
    a, rows = _adjacency(wiring), _sources(wiring, key, n_sources)
    links = sparse.csr_array(a + a.T if flag("directed")(directed) else a.maximum(a.T))
    d = links.sum(1)
    pairs = d * (d - 1)
    if directed:
        pairs = 2 * (pairs - 2 * a.multiply(a.T).sum(1))
    closed = _closed(links, rows)
    return float(np.mean(closed / np.maximum(pairs[rows], 1)))  # no pairs: none are closed


def path_length(
    wiring: Connectivity,
    *,
    key: Key[Array, ""] | None = None,
    n_sources: int | None = None,
    directed: bool = True,
) -> Paths:
    """Mean shortest path from each neuron, or from `n_sources` drawn with `key`, to all others.

    Pairs without a path are left out of the mean and reported: `reached` is 1 where there
    are none. Takes n_sources times as long as a walk over all synapses.

    >>> ring = nj.watts_strogatz(None, 400, 400, k=10, p_rewire=0.0)
    >>> length, reached = nj.metrics.path_length(ring)
    >>> round(length, 2), reached
    (20.45, 1.0)

    Raises `ValueError` where no pair has a path, for `n_sources` outside [1, n] or without a
    key, and unless senders and receivers are one population.
    """
    a, sources = _adjacency(wiring), _sources(wiring, key, n_sources)
    n, total, found, directed = wiring.n_post, 0.0, 0, flag("directed")(directed)
    for some in np.array_split(sources, -(-sources.size * n // _BLOCK)):
        d = csgraph.dijkstra(a, directed=directed, unweighted=True, indices=some)
        d = d[np.isfinite(d)]
        total, found = total + d.sum(), found + np.count_nonzero(d)  # to oneself it is 0
    if not found:
        raise ValueError("no neuron reaches another: path length is not defined")
    return Paths(float(total / found), float(found / (sources.size * (n - 1))))


def small_world(
    key: Key[Array, ""], wiring: Connectivity, *, n_sources: int | None = None, n_random: int = 4
) -> SmallWorld:
    """Clustering and path length against those of random and lattice graphs.

        sigma = (C / C_rand) / (L / L_rand)         omega = L_rand / L - C / C_latt

    The reference graphs have as many neurons and the same fan-in, the mean one rounded to an
    even number: `watts_strogatz` with `p_rewire` 1 (the mean over `n_random` draws) and 0.
    Not finite where these have no clustering at all, as the lattice of fan-in 2.
    Source: Humphries and Gurney (2008), PLoS ONE 3, e0002051 (sigma); Telesford et al. (2011),
    Brain Connectivity 1, 367 (omega).
    Raises `ValueError` as `path_length` does, and where the fan-in is too large for a lattice.
    """
    n_random = whole_number("n_random", 1, 1000)(n_random)
    instance("wiring", wiring, "edges")
    n, (draws, sources) = wiring.n_post, jax.random.split(prng_key(key))
    k = 2 * max(1, round(_adjacency(wiring).nnz / n / 2))

    def measured(graph: Connectivity) -> tuple[float, Paths]:
        sample = {"key": sources, "n_sources": n_sources}
        return clustering(graph, **sample), path_length(graph, **sample)

    c, (length, reached) = measured(wiring)
    drawn = jax.random.split(draws, n_random)
    random = [measured(watts_strogatz(draw, n, n, k, 1.0)) for draw in drawn]
    c_rand = np.mean([c for c, _ in random])
    shorter = np.mean([paths.length for _, paths in random]) / length
    lattice = clustering(watts_strogatz(draws, n, n, k, 0.0), key=sources, n_sources=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma, omega = np.divide(c, c_rand) * shorter, shorter - np.divide(c, lattice)
    return SmallWorld(c, length, float(sigma), float(omega), reached)


def _adjacency(wiring: Connectivity) -> sparse.csr_array:
    """1 at [pre, post] where there is a synapse, without self-loops."""
    instance("wiring", wiring, "edges")
    n = wiring.n_post
    if wiring.n_pre != n:
        raise ValueError(
            f"wiring must connect one population to itself; got {wiring.n_pre} senders and"
            f" {n} receivers"
        )
    pre, post, count = (np.asarray(x) for x in wiring.edges())
    kept = (count > 0) & (pre != post)
    a = sparse.csr_array((np.ones(kept.sum(), int), (pre[kept], post[kept])), shape=(n, n))
    a.data[:] = 1  # parallel synapses were added up
    return a


def _closed(links: sparse.csr_array, rows: np.ndarray) -> np.ndarray:
    """Diagonal of the cube of a symmetric matrix at `rows`, a block of them at a time."""
    entries = np.cumsum((links @ np.diff(links.indptr))[rows])
    blocks = np.split(rows, np.searchsorted(entries, np.arange(_BLOCK, entries[-1], _BLOCK)))
    return np.concatenate([(links[r] @ links).multiply(links[r]).sum(1) for r in blocks])


def _sources(wiring: Connectivity, key: Array | None, n_sources: int | None) -> np.ndarray:
    """All neurons, or some."""
    n = wiring.n_post
    if n_sources is None:
        return np.arange(n)
    n_sources = whole_number("n_sources", 0)(n_sources)
    if not 1 <= n_sources <= n or (key is None and n_sources < n):
        raise ValueError(f"n_sources must be in [1, {n}] and come with a key; got {n_sources}")
    if n_sources == n:
        return np.arange(n)
    return np.asarray(jax.random.choice(prng_key(key), n, (n_sources,), replace=False))


def __dir__() -> list[str]:
    return __all__
