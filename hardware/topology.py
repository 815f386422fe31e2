"""A mesh of cores, and which core each neuron of a network sits on.

A placement is an array of integers [n]: the core of each neuron. Core c stands at column
x = c % nx and row y = c // nx. A core is a node of the mesh with one router, such as a tile
on chips whose cores share one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from scipy import linalg, sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg

from hardware._check import whole
from neurojax._check import MOST, count, kind
from neurojax._memory import affordable
from neurojax._repr import described
from neurojax.network import Network
from neurojax.wiring.layouts import Edges

__all__ = [
    "Mesh", "bisected", "by_layer", "check_fan", "given", "hops", "linear", "mean_hops", "offsets",
    "wiring",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


# Up to this many neurons a dense eigenvector costs less than Lanczos iterations.
_DENSE = 100
# Rounds of moving neurons towards their partners, after which next to nothing is gained.
_ROUNDS = 60


def _limit(name: str):
    return lambda x: None if x is None else count(name)(x)


@described
class Mesh(eqx.Module):
    """nx by ny cores of `neurons_per_core` each, linked to their neighbours; no wrap-around.

    `max_fan_in` and `max_fan_out`, where given, bound the synapses onto and from one neuron.
    All are counts, without a unit, and structure: another mesh is another program.
    Raises `ValueError` for what is no whole number >= 1.

    >>> mesh = Mesh(4, 3, 32)
    >>> mesh.n_cores, mesh.capacity
    (12, 384)
    """

    nx: int = eqx.field(static=True, converter=count("nx"))
    ny: int = eqx.field(static=True, converter=count("ny"))
    neurons_per_core: int = eqx.field(static=True, converter=count("neurons_per_core"))
    max_fan_in: int | None = eqx.field(static=True, default=None, converter=_limit("max_fan_in"))
    max_fan_out: int | None = eqx.field(static=True, default=None, converter=_limit("max_fan_out"))

    def __check_init__(self):
        if self.capacity > MOST:
            raise ValueError(
                f"nx x ny x neurons_per_core must be at most {MOST}, as neurons are numbered in 32"
                f" bits; got {self.nx} x {self.ny} x {self.neurons_per_core}"
            )

    @property
    def n_cores(self) -> int:
        """Cores of the mesh."""
        return self.nx * self.ny

    @property
    def capacity(self) -> int:
        """Neurons that the mesh holds."""
        return self.n_cores * self.neurons_per_core


# --- edges ---


def wiring(net: Network) -> tuple[Edges, int]:
    """Synapses between the layers of a network, and how many neurons there are.

    Neurons are numbered layer after layer, layers by name, as JAX orders what a dict holds.
    Projections from outside have no sender on the mesh and are left out. `pre`, `post` and
    `number` of the edges are int32 [E], E those of all projections between layers.

    >>> layers = {"a": nj.Layer(2, nj.LIF()), "b": nj.Layer(2, nj.LIF())}
    >>> net = nj.Network(layers, {"ab": nj.Projection("a", "b", nj.one_to_one(2))})
    >>> edges, n = wiring(net)
    >>> edges.pre.tolist(), edges.post.tolist(), n
    ([0, 1], [2, 3], 4)
    """
    kind("net", net, Network)
    start, none = offsets(net), jnp.zeros(0, jnp.int32)
    parts = [Edges(none, none, none)]
    for p in (net.projections[name] for name in net.internal()):
        pre, post, number = (x.astype(jnp.int32) for x in p.connectivity.edges())
        parts.append(Edges(pre + start[p.pre], post + start[p.post], number))
    edges = Edges(*(jnp.concatenate(ends) for ends in zip(*parts, strict=True)))
    return edges, sum(layer.n for layer in net.layers.values())


def offsets(net: Network) -> dict[str, int]:
    """Number of the first neuron of each layer, where neurons are numbered as by `wiring`.

    >>> net = nj.Network({"a": nj.Layer(3, nj.LIF()), "b": nj.Layer(2, nj.LIF())}, {})
    >>> offsets(net)
    {'a': 0, 'b': 3}
    """
    names = sorted(kind("net", net, Network).layers)
    first = np.cumsum([0, *(net.layers[name].n for name in names)])
    return dict(zip(names, first.tolist(), strict=False))


def inside(name: str, x: ArrayLike | Sequence[int], high: int, what: str) -> Int[Array, " e"]:
    """`x` as an array [e], refused unless all are in [0, high); at run time where traced."""
    allowed, places = f"{name} must lie in [0, {high - 1}], {what}", whole(name, x)
    try:
        values = np.asarray(places)
    except jax.errors.TracerArrayConversionError:
        return eqx.error_if(places, (places < 0) | (places >= high), allowed)
    bad = (values < 0) | (values >= high)
    if bad.any():
        raise ValueError(f"{allowed}; got {values[bad][0]} ({bad.sum()} of {bad.size})")
    return jnp.asarray(places)


def existing(edges: Edges, n: int) -> Edges:
    """The edges, refused if one names a neuron that does not exist, or counts less than none."""
    kind("edges", edges, Edges)
    if not edges.pre.shape == edges.post.shape == edges.number.shape:
        shapes = edges.pre.shape, edges.post.shape, edges.number.shape
        raise ValueError(f"pre, post and number of edges must have one shape [E]; got {shapes}")
    what = f"the {n} neurons placed"
    pre, post = (inside(f"{end} of edges", getattr(edges, end), n, what) for end in ("pre", "post"))
    return Edges(pre, post, _counted(edges.number))


def _counted(number: Array) -> Array:
    """Synapses that edges stand for, refused where less than none; at run time where traced."""
    allowed = "number of edges must be >= 0, the synapses that each stands for"
    try:
        least = np.asarray(number).min(initial=0)
    except jax.errors.TracerArrayConversionError:
        return eqx.error_if(number, number < 0, allowed)
    if least < 0:
        raise ValueError(f"{allowed}; got {least}")
    return number


def check_fan(edges: Edges, n: int, mesh: Mesh) -> None:
    """Refuse a neuron with more synapses than `mesh` allows, naming it (`ValueError`).

    Parallel synapses count one by one. `edges` [E] join `n` neurons.
    """
    kind("mesh", mesh, Mesh)
    pre, post, number = (np.asarray(x) for x in existing(edges, count("n", 0)(n)))
    for name, limit, ends in (("in", mesh.max_fan_in, post), ("out", mesh.max_fan_out, pre)):
        fan = np.bincount(ends, number, minlength=n).astype(int)
        if limit is not None and n and fan.max() > limit:
            raise ValueError(
                f"fan-{name} must be at most {limit}, max_fan_{name} of the mesh; neuron"
                f" {fan.argmax()} has {fan.max()} ({(fan > limit).sum()} of {n} have more)"
            )


# --- placements ---


def given(core: ArrayLike | Sequence[int], mesh: Mesh) -> Int[Array, " n"]:
    """A placement of one's own, checked: the core of each neuron, int32 [n].

    Raises `ValueError` for what is no array [n] of whole numbers, for a core that the mesh
    does not have, and for one with more neurons than it holds.

    >>> given([3, 0, 3], Mesh(2, 2, 2)).tolist()
    [3, 0, 3]
    """
    kind("mesh", mesh, Mesh)
    placed = inside("core", core, mesh.n_cores, "those of the mesh").astype(jnp.int32)
    cores, held = np.unique(placed, return_counts=True)
    if held.max(initial=0) > mesh.neurons_per_core:
        raise ValueError(
            f"core {cores[held.argmax()]} must hold at most {mesh.neurons_per_core} neurons,"
            f" neurons_per_core of the mesh; got {held.max()}"
        )
    return placed


def linear(n: int, mesh: Mesh, *, snake: bool = False) -> Int[Array, " n"]:
    """In order, core by core and row after row; with `snake` every other row runs backwards.

    A snake keeps neighbours in order neighbours on the mesh, also where a row ends. The core of
    each of `n` neurons, int32 [n]. Raises `ValueError` for more neurons than the mesh holds.

    >>> linear(8, Mesh(2, 2, 2)).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3]
    >>> linear(8, Mesh(2, 2, 2), snake=True).tolist()
    [0, 0, 1, 1, 3, 3, 2, 2]
    """
    _held(n, mesh)
    affordable(f"a placement of {n} neurons", 16 * n)
    return _path(np.arange(n) // mesh.neurons_per_core, mesh, snake)


def by_layer(sizes: Sequence[int], mesh: Mesh, *, snake: bool = False) -> Int[Array, " n"]:
    """In order as `linear`, but each layer starts on a fresh core.

    `sizes` are the neurons of each layer, in the order of `wiring`; returns int32 [n], n their
    sum. Raises `ValueError` where that takes more cores than there are.

    >>> by_layer([3, 2], Mesh(2, 2, 2)).tolist()
    [0, 0, 1, 2, 2]
    """
    kind("mesh", mesh, Mesh)
    sizes = [count("sizes", 0)(n) for n in sizes]
    cores = [-(-n // mesh.neurons_per_core) for n in sizes]
    if sum(cores) > mesh.n_cores:
        raise ValueError(
            f"sizes must fit {mesh.n_cores} cores of {mesh.neurons_per_core} neurons, each"
            f" layer on its own; {list(sizes)} need {sum(cores)}"
        )
    affordable(f"a placement of {sum(sizes)} neurons", 16 * sum(sizes))
    first = np.cumsum([0, *cores])
    slots = [np.arange(n) // mesh.neurons_per_core + c for n, c in zip(sizes, first, strict=False)]
    return _path(np.concatenate([np.zeros(0, int), *slots]), mesh, snake)


def _held(n: int, mesh: Mesh) -> None:
    kind("mesh", mesh, Mesh)
    if count("n", 0)(n) > mesh.capacity:
        raise ValueError(
            f"n must be at most {mesh.capacity}, what {mesh.n_cores} cores of"
            f" {mesh.neurons_per_core} neurons hold; got {n}"
        )


def _path(turn: np.ndarray, mesh: Mesh, snake: bool) -> Int[Array, " n"]:
    """Cores by their turn to be filled."""
    y, x = np.divmod(turn, mesh.nx)
    if snake:
        x = np.where(y % 2, mesh.nx - 1 - x, x)
    return jnp.asarray(y * mesh.nx + x, jnp.int32)


# --- distance ---


def hops(edges: Edges, placement: Int[Array, " n"], mesh: Mesh) -> Int[Array, " e"]:
    """Links between the cores of sender and receiver, |dx| + |dy|, of each edge: integers [E].

    `placement` [n] is the core of each neuron.
    Raises `ValueError` for an edge or a core that does not exist; at run time where traced.

    >>> one = Edges(*(jnp.array([i]) for i in (0, 1, 1)))  # from neuron 0 to neuron 1
    >>> hops(one, jnp.array([0, 5]), Mesh(3, 2, 1)).tolist()  # two columns on, one row on
    [3]
    """
    kind("mesh", mesh, Mesh)
    placed = whole("placement", placement)
    edges = existing(edges, len(placed))
    placement = inside("placement", placed, mesh.n_cores, "the cores of the mesh")
    a, b = placement[edges.pre], placement[edges.post]
    return jnp.abs(a % mesh.nx - b % mesh.nx) + jnp.abs(a // mesh.nx - b // mesh.nx)


def mean_hops(edges: Edges, placement: Int[Array, " n"], mesh: Mesh) -> Float[Array, ""]:
    """Mean links a synapse, one number; 0 without synapses. Parallel synapses count each.

    Uniform traffic, self-pairs included: (nx^2 - 1) / (3 nx) + (ny^2 - 1) / (3 ny).
    """
    number = kind("edges", edges, Edges).number.astype(float)
    total = (number * hops(edges, placement, mesh).astype(float)).sum()
    return total / jnp.maximum(number.sum(), 1)


# --- a placement that follows the wiring ---


class _Block(NamedTuple):
    """A rectangle of cores."""

    x: int
    y: int
    nx: int
    ny: int

    def halves(self) -> tuple["_Block", "_Block"]:
        x, y, nx, ny = self
        if nx >= ny:
            return _Block(x, y, nx // 2, ny), _Block(x + nx // 2, y, nx - nx // 2, ny)
        return _Block(x, y, nx, ny // 2), _Block(x, y + ny // 2, nx, ny - ny // 2)


Order = Callable[[np.ndarray, _Block], np.ndarray]  # how neurons line up along a block


def bisected(edges: Edges, n: int, mesh: Mesh) -> Int[Array, " n"]:
    """Neurons and mesh cut in halves together, then each neuron drawn to its partners.

    Each cut puts neurons in the order of the Fiedler vector of what connects them (of the
    Laplacian of the undirected graph, the eigenvector after the constant one) and fills both
    halves of the longer side of a near-square block. Then all neurons move, again and again,
    half of the way to the mean position of their partners and are cut anew by position. Best
    of what was found, `linear` and its snake, by `mean_hops`. The core of each of `n` neurons,
    int32 [n]. 10^4 neurons of fan-in 20 take seconds, not traced.
    Raises `ValueError` for more neurons than the mesh holds, for an edge to a neuron that
    does not exist and for a neuron of more synapses than the mesh allows.
    Source: Fiedler (1973), Czechoslovak Math. J. 23, 298 (vector); Simon (1991), Computing
    Systems in Engineering 2, 135 (recursive spectral bisection).
    """
    _held(n, mesh)
    check_fan(edges, n, mesh)
    simple = [np.asarray(linear(n, mesh, snake=snake)) for snake in (False, True)]
    graph = _graph(edges, n)
    if not graph.nnz:
        return jnp.asarray(simple[0])
    block, everyone = _square(n, mesh), np.arange(n)
    spectral: Order = lambda ids, _: _spectral_order(graph[ids][:, ids])  # noqa: E731
    found = _cut(everyone, block, mesh, spectral, np.zeros(n, np.int32))
    found = _drawn(graph, found, block, mesh)
    return jnp.asarray(min([*simple, found], key=lambda core: _cost(graph, core, mesh)))


def _graph(edges: Edges, n: int) -> sparse.csr_array:
    """Synapses between each two neurons, either way."""
    pre, post, number = (np.asarray(x) for x in edges)
    real = (pre != post) & (number > 0)
    one_way = sparse.csr_array((number[real] * 1.0, (pre[real], post[real])), shape=(n, n))
    return sparse.csr_array(one_way + one_way.T)


def _cost(graph: sparse.csr_array, core: np.ndarray, mesh: Mesh) -> float:
    """Links of all synapses together."""
    pairs = graph.tocoo()
    a, b = core[pairs.row], core[pairs.col]
    links = abs(a % mesh.nx - b % mesh.nx) + abs(a // mesh.nx - b // mesh.nx)
    return float((pairs.data * links).sum())


def _square(n: int, mesh: Mesh) -> _Block:
    """The block of cores that holds `n` >= 1 neurons at the least mean distance."""
    wide = np.arange(1, min(mesh.nx, n) + 1)
    tall = -(-n // (wide * mesh.neurons_per_core))
    fits = tall <= mesh.ny
    distance = np.where(fits, wide - 1 / wide + tall - 1 / tall, np.inf)
    best = distance.argmin()
    return _Block(0, 0, int(wide[best]), int(tall[best]))


def _cut(ids: np.ndarray, block: _Block, mesh: Mesh, order: Order, core: np.ndarray) -> np.ndarray:
    """`core` with the neurons `ids` on the cores of `block`, in equal shares."""
    if block.nx * block.ny == 1:
        core[ids] = block.y * mesh.nx + block.x
        return core
    low, high = block.halves()
    room = [half.nx * half.ny * mesh.neurons_per_core for half in (low, high)]
    share = round(len(ids) * room[0] / sum(room))
    ids = ids[order(ids, block)]
    return _cut(ids[share:], high, mesh, order, _cut(ids[:share], low, mesh, order, core))


def _spectral_order(graph: sparse.csr_array) -> np.ndarray:
    """Neurons in the order of the Fiedler vector, each connected part by itself."""
    _, part = csgraph.connected_components(graph, directed=False)
    largest_first = np.argsort(-np.bincount(part), kind="stable")
    members = [np.flatnonzero(part == i) for i in largest_first]
    return np.concatenate([m[_fiedler(graph[m][:, m]).argsort(kind="stable")] for m in members])


def _fiedler(graph: sparse.csr_array) -> np.ndarray:
    """Second eigenvector of the Laplacian of a connected graph, or nearly."""
    degree = graph.sum(0)
    n = len(degree)
    if n < 3:
        return np.arange(n)
    if n <= _DENSE:
        laplacian = np.diag(degree) - graph.toarray()
        return linalg.eigh(laplacian, subset_by_index=[1, 1])[1][:, 0]
    # The normalised graph: its top two are found by products alone, without factorising.
    scale = sparse.diags_array(1 / np.sqrt(degree))
    top: dict = {"k": 2, "which": "LA", "tol": 0.01, "maxiter": 500}
    try:  # from a start of our own, as its own would be random
        _, vectors = sparse_linalg.eigsh(scale @ graph @ scale, **top, v0=np.arange(1.0, n + 1))
    except sparse_linalg.ArpackNoConvergence:
        return np.arange(n)  # the order they have is no worse than another
    return scale @ vectors[:, 0]


def _drawn(graph: sparse.csr_array, core: np.ndarray, block: _Block, mesh: Mesh) -> np.ndarray:
    """The best of the placements that neurons go through as they move to their partners."""
    seen, everyone = [core], np.arange(len(core))
    weight = np.maximum(graph.sum(0), 1)
    for _ in range(_ROUNDS):
        at = np.stack([seen[-1] % mesh.nx, seen[-1] // mesh.nx], axis=1)
        to = (at + (graph @ at) / weight[:, None]) / 2
        along: Order = lambda ids, b, to=to: to[ids, int(b.nx < b.ny)].argsort(kind="stable")  # noqa: E731
        seen.append(_cut(everyone, block, mesh, along, np.zeros_like(core)))
        if (seen[-1] == seen[-2]).all():
            break
    return min(seen, key=lambda core: _cost(graph, core, mesh))
