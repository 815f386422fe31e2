"""Spikes on a mesh: which links they cross, what each link carries, how late they come.

A packet goes along the row of its source first, then along the column of its destination (XY).
East is towards larger x, south towards larger y; the core at (x, y) is number y nx + x. All
counting is by difference arrays and running sums: memory O(E + n nx + cores) for E edges.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from hardware._check import single, whole
from hardware.topology import Mesh, existing, inside
from neurojax._check import count, kind, nonnegative, positive, working
from neurojax._memory import affordable
from neurojax._repr import described
from neurojax.wiring.layouts import Edges

__all__ = [
    "DIRECTIONS", "Delay", "Latency", "Link", "Tables", "Traffic", "burst", "fullest", "latency",
    "loihi_delay", "multicast", "tables", "unicast",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


DIRECTIONS = ("east", "west", "south", "north")


_CORES = "the cores of the mesh"


class Link(NamedTuple):
    """One link, out of the core at (x, y), and what it carries: spikes, or spikes a second.

    Fields:
        direction: int [lead]; which of `DIRECTIONS`
        x: int [lead]; column of the core
        y: int [lead]; row of the core
        load: float [lead]; spikes, or spikes a second
    """

    direction: Int[Array, "*lead"]
    x: Int[Array, "*lead"]
    y: Int[Array, "*lead"]
    load: Float[Array, "*lead"]


class Traffic(NamedTuple):
    """What spikes cost on the mesh; under `vmap` all have leading axes.

    Counts of spikes give spikes over each link, rates in spikes a second those of a second.

    Fields:
        spikes: float [lead, n]; of each neuron: counts, or rates
        hops_ew: int [lead, n]; links that one spike of each neuron crosses, east-west
        hops_ns: int [lead, n]; the same, north-south
        packets: int [lead, n]; that one spike sends out of its core
        cores: int [lead, n]; that one spike is delivered to, its own core among them
        load: float [lead, 4, ny, nx]; spikes over each link out of core (x, y), `DIRECTIONS`
    """

    spikes: Float[Array, "*lead n"]
    hops_ew: Int[Array, "*lead n"]
    hops_ns: Int[Array, "*lead n"]
    packets: Int[Array, "*lead n"]
    cores: Int[Array, "*lead n"]
    load: Float[Array, "*lead 4 ny nx"]

    @property
    def spike_hops(self) -> Float[Array, "*lead"]:
        """Links crossed by all spikes together."""
        return self.total(self.hops_ew) + self.total(self.hops_ns)

    @property
    def hottest(self) -> Link:
        """The link that carries most; of several the first, in the order of `DIRECTIONS`."""
        *lead, _, _, nx = self.load.shape
        flat = self.load.reshape(*lead, -1)
        row, x = jnp.divmod(flat.argmax(-1), nx)
        direction, y = jnp.divmod(row, self.load.shape[-2])
        return Link(direction, x, y, flat.max(-1))

    def total(self, each: Int[Array, "*lead n"]) -> Float[Array, "*lead"]:
        """Sum over all spikes of what one spike of each neuron costs."""
        return (self.spikes * each.astype(self.spikes.dtype)).sum(-1)


def unicast(edges: Edges, placement: Int[Array, " n"], mesh: Mesh, spikes: ArrayLike) -> Traffic:
    """Each spike goes as one packet to each core that holds a receiver, its own core aside.

    `edges` [E] are those of `topology.wiring`, `placement` [n] is the core of each neuron,
    `spikes` [n] are counts or rates of each neuron. Loads are exact for whole numbers below
    2^24 (float32), else right to some 1e-7 of what the row or column carries.
    Raises `ValueError` for an edge or a core that does not exist, and for spikes that are
    negative, not finite, or not one number a neuron; at run time where they are traced.

    >>> edges = Edges(*(jnp.array(x) for x in ([0, 0], [1, 2], [1, 1])))  # 0 to 1, 0 to 2
    >>> row = Mesh(3, 1, 1)  # each neuron on its own core
    >>> traffic = unicast(edges, jnp.arange(3), row, jnp.array([5.0, 0.0, 0.0]))
    >>> traffic.load[0].tolist()  # east: over the first link each spike goes twice
    [[10.0, 5.0, 0.0]]
    >>> float(traffic.spike_hops)
    15.0
    """
    return _unicast(*_checked(edges, placement, mesh, spikes))


def multicast(edges: Edges, placement: Int[Array, " n"], mesh: Mesh, spikes: ArrayLike) -> Traffic:
    """Each spike goes as one packet that branches into a tree of XY paths.

    A trunk follows the row of its core, and from it one branch up and one down each column
    that has receivers. A core on the way receives the packet without a further hop, so a tree
    never crosses more links than unicast does. Arguments and errors are those of `unicast`.

    >>> edges = Edges(*(jnp.array(x) for x in ([0, 0], [1, 2], [1, 1])))  # 0 to 1, 0 to 2
    >>> traffic = multicast(edges, jnp.arange(3), Mesh(3, 1, 1), jnp.array([5.0, 0.0, 0.0]))
    >>> traffic.load[0].tolist()  # east: once over each link
    [[5.0, 5.0, 0.0]]
    """
    return _multicast(*_checked(edges, placement, mesh, spikes))


def _checked(edges, placement, mesh, spikes):
    placement = inside("placement", placement, kind("mesh", mesh, Mesh).n_cores, _CORES)
    n = len(placement)
    affordable(f"traffic of {n} neurons on {mesh.n_cores} cores", 32 * (mesh.n_cores + n * mesh.nx))
    spikes = nonnegative("spikes", "a neuron")(spikes)
    if spikes.shape != (n,):
        raise ValueError(f"spikes must have shape [{n}], one a neuron placed; got {spikes.shape}")
    edges = Edges(*(x.astype(jnp.int32) for x in existing(edges, n)))
    return edges, placement.astype(jnp.int32), mesh, spikes.astype(working(spikes.dtype))


@eqx.filter_jit
def _unicast(edges, placement, mesh, spikes) -> Traffic:
    n, to = len(placement), _destinations(edges, placement, mesh)
    sent = jnp.where(to.first, spikes[to.pre], 0)
    x, y, dx, dy = to.x, to.y, to.dx, to.dy
    east, west = _spans(y, x, dx, sent, (mesh.ny, mesh.nx))
    south, north = _spans(dx, y, dy, sent, (mesh.nx, mesh.ny))
    one = lambda each: jax.ops.segment_sum(jnp.where(to.first, each, 0), to.pre, n)  # noqa: E731
    ew, ns = jnp.abs(dx - x), jnp.abs(dy - y)
    return Traffic(
        spikes, one(ew), one(ns), one((ew + ns > 0).astype(jnp.int32)), one(jnp.ones_like(ew)),
        jnp.stack([east, west, south.T, north.T]),
    )  # fmt: skip


@eqx.filter_jit
def _multicast(edges, placement, mesh, spikes) -> Traffic:
    n, to = len(placement), _destinations(edges, placement, mesh)
    x, y = placement % mesh.nx, placement // mesh.nx
    right = jnp.maximum(jax.ops.segment_max(to.dx, to.pre, n), x)
    left = jnp.minimum(jax.ops.segment_min(to.dx, to.pre, n), x)
    # Lowest and highest receiver of each neuron in each column of the mesh.
    branch, size = to.pre * mesh.nx + to.dx, n * mesh.nx
    row, column = jnp.repeat(y, mesh.nx), jnp.tile(jnp.arange(mesh.nx), n)
    down = jnp.maximum(jax.ops.segment_max(to.dy, branch, size), row)
    up = jnp.minimum(jax.ops.segment_min(to.dy, branch, size), row)
    shape, each = (mesh.nx, mesh.ny), jnp.repeat(spikes, mesh.nx)
    east, _ = _spans(y, x, right, spikes, shape[::-1])
    _, west = _spans(y, x, left, spikes, shape[::-1])
    south, _ = _spans(column, row, down, each, shape)
    _, north = _spans(column, row, up, each, shape)
    ew, ns = right - left, (down - up).reshape(n, mesh.nx).sum(1, dtype=jnp.int32)
    cores = jax.ops.segment_sum(to.first.astype(jnp.int32), to.pre, n)
    return Traffic(
        spikes, ew, ns, (ew + ns > 0).astype(jnp.int32), cores,
        jnp.stack([east, west, south.T, north.T]),
    )  # fmt: skip


class _Destinations(NamedTuple):
    """Edges sorted by sender, then core of the receiver."""

    pre: Int[Array, " e"]  # n where there is no synapse, so that sums leave it out
    first: Bool[Array, " e"]  # of those edges of a sender that end on this core
    x: Int[Array, " e"]  # of the sender
    y: Int[Array, " e"]
    dx: Int[Array, " e"]  # of the receiver
    dy: Int[Array, " e"]


def _destinations(edges: Edges, placement: Array, mesh: Mesh) -> _Destinations:
    n, core = len(placement), placement[edges.post]
    pre = jnp.where(edges.number > 0, edges.pre, n)
    if (n + 1) * mesh.n_cores <= jnp.iinfo(jnp.int32).max:  # one key sorts several times faster
        pre, core = jnp.divmod(jnp.sort(pre * mesh.n_cores + core), mesh.n_cores)
    else:
        pre, core = jax.lax.sort((pre, core), num_keys=2)
    again = (pre[1:] == pre[:-1]) & (core[1:] == core[:-1])
    first = (pre < n).at[1:].min(~again)  # also where there is no edge at all
    source = placement[pre]  # past the end for no synapse: any core will do
    nx = mesh.nx
    return _Destinations(pre, first, source % nx, source // nx, core % nx, core // nx)


def _spans(line, start, stop, amount, shape) -> tuple[Array, Array]:
    """What goes forward and backward over each link of each line, from `start` to `stop`.

    `shape` is (lines, cores of a line); a link belongs to the core that it leaves.
    """
    forward = _covered(line, start, jnp.maximum(start, stop), amount, shape)
    backward = _covered(line, jnp.minimum(start, stop) + 1, start + 1, amount, shape)
    return forward, backward


def _covered(line, start, stop, amount, shape) -> Float[Array, "lines size"]:
    """Sum of `amount` over the places [start, stop) of each line."""
    lines, size = shape
    steps = jnp.zeros((lines, size + 1), amount.dtype)
    steps = steps.at[line, start].add(amount).at[line, stop].add(-amount)
    # Rounding must not leave less than nothing on a link.
    return jnp.maximum(jnp.cumsum(steps, axis=1)[:, :-1], 0)


# --- time ---


@described
class Delay(eqx.Module):
    """Time, s, of a spike over one link, and within the tile that it is delivered to.

    Raises `ValueError` for what is not one number, finite and >= 0.
    """

    hop_ew: Float[Array, ""] = eqx.field(converter=nonnegative("hop_ew", "s"))
    hop_ns: Float[Array, ""] = eqx.field(converter=nonnegative("hop_ns", "s"))
    tile: Float[Array, ""] = eqx.field(default=0.0, converter=nonnegative("tile", "s"))

    def __check_init__(self):
        for name, time in vars(self).items():
            single(name, time)


def loihi_delay() -> Delay:
    """Hops of 4.1 ns and 6.5 ns, 2.1 ns within a tile; 14 nm, 0.75 V, pre-silicon simulation.

    Source: Davies et al. (2018), IEEE Micro 38(1), 82, table 2.

    >>> f"{loihi_delay().hop_ns:.2g} s"
    '6.5e-09 s'
    """
    return Delay(4.1e-9, 6.5e-9, 2.1e-9)


class Latency(NamedTuple):
    """How late spikes come, s.

    Fields:
        latency: float [e], s; of a spike over each edge, also where its `number` is 0
        wait: float [4, ny, nx], s; at each link, mean
        utilisation: float [4, ny, nx]; rho of each link, without unit
    """

    latency: Float[Array, " e"]
    wait: Float[Array, "4 ny nx"]
    utilisation: Float[Array, "4 ny nx"]


def latency(
    edges: Edges, placement: Int[Array, " n"], mesh: Mesh,
    traffic: Traffic, delay: Delay, service_rate: ArrayLike,
) -> Latency:  # fmt: skip
    """Mean time, in s, from a spike to its delivery over each edge [E], under steady traffic.

        tile + sum over the links of the path of (hop + rho / (2 mu (1 - rho))),
        rho = load / mu

    `placement` [n] is the core of each neuron; mu is `service_rate`, the packets that a link
    passes in a second; `traffic` is that of rates in spikes a second, unicast or multicast,
    whose paths are the same. Each link is taken for an M/D/1 queue of its own: Poisson
    arrivals, constant service, unbounded buffers, so spikes that all come at a tick wait longer
    (`burst`). The hop includes the service itself.
    Raises `ValueError` where a link is to carry its rate or more, naming it; at run time,
    unnamed, where the traffic is traced. Also for the traffic of another mesh or of another
    number of neurons.
    Source: Kleinrock (1975), Queueing Systems 1, ch. 5 (Pollaczek and Khinchine).
    """
    mu = single("service_rate", positive("service_rate", "packets a second")(service_rate))
    kind("delay", delay, Delay)
    placement = inside("placement", placement, kind("mesh", mesh, Mesh).n_cores, _CORES)
    _of(traffic, len(placement), mesh)
    rho = _unsaturated(traffic.load / mu.astype(traffic.load.dtype))
    edges = existing(edges, len(placement))
    return _latency(edges, placement, mesh, rho, delay, mu)


def _of(traffic: Traffic, n: int, mesh: Mesh) -> None:
    """Refuse traffic of other neurons, or of another mesh."""
    kind("traffic", traffic, Traffic)
    got, need = (traffic.spikes.shape, traffic.load.shape), ((n,), (4, mesh.ny, mesh.nx))
    if got != need:
        raise ValueError(
            f"traffic must be that of this placement on this mesh, spikes and load of shapes"
            f" {need[0]} and {need[1]}; got {got[0]} and {got[1]}"
        )


def _unsaturated(rho: Float[Array, "4 ny nx"]) -> Float[Array, "4 ny nx"]:
    """`rho`, refused where it is 1 or more."""
    allowed = "load of every link must be below service_rate"
    try:
        values = np.asarray(rho)
    except jax.errors.TracerArrayConversionError:
        return eqx.error_if(rho, rho >= 1, allowed)
    if values.max() >= 1:
        direction, y, x = np.unravel_index(values.argmax(), values.shape)
        raise ValueError(
            f"{allowed}; the link {DIRECTIONS[direction]} out of core {y * values.shape[2] + x}"
            f" (x {x}, y {y}) is asked for {values.max():.3g} times its rate"
            f" ({(values >= 1).sum()} of {values.size} links): spread the neurons, or slow down"
        )
    return rho


@eqx.filter_jit
def _latency(edges, placement, mesh, rho, delay, mu) -> Latency:
    wait = rho / (2 * mu.astype(rho.dtype) * (1 - rho))
    x, y = placement[edges.pre] % mesh.nx, placement[edges.pre] // mesh.nx
    dx, dy = placement[edges.post] % mesh.nx, placement[edges.post] // mesh.nx
    waited = _path(wait[0], wait[1], y, x, dx) + _path(wait[2].T, wait[3].T, dx, y, dy)
    far = lambda n, hop: n.astype(rho.dtype) * hop.astype(rho.dtype)  # noqa: E731
    moved = far(jnp.abs(dx - x), delay.hop_ew) + far(jnp.abs(dy - y), delay.hop_ns)
    return Latency(delay.tile.astype(rho.dtype) + moved + waited, wait, rho)


def _path(forward, backward, line, start, stop) -> Float[Array, " e"]:
    """Sum over the links from `start` to `stop` of a line, as a difference of running sums."""
    ahead, back = (jnp.pad(jnp.cumsum(w, axis=1), ((0, 0), (1, 0))) for w in (forward, backward))
    east = ahead[line, jnp.maximum(start, stop)] - ahead[line, start]
    west = back[line, start + 1] - back[line, jnp.minimum(start, stop) + 1]
    return east + west


def burst(traffic: Traffic, service_time: ArrayLike) -> Float[Array, "*lead"]:
    """Least time, s, in which the spikes of one tick, all sent at once, can leave the mesh.

        spikes over the hottest link x service_time (s a packet)

    `traffic` is that of the spikes of one tick. Raises `ValueError` for a `service_time` that
    is not one number, finite and >= 0.

    >>> edges = Edges(*(jnp.array(x) for x in ([0, 0], [1, 2], [1, 1])))  # 0 to 1, 0 to 2
    >>> traffic = unicast(edges, jnp.arange(3), Mesh(3, 1, 1), jnp.array([1.0, 0.0, 0.0]))
    >>> f"{float(burst(traffic, 5e-9)):.1e} s"  # both packets over the first link
    '1.0e-08 s'
    """
    kind("traffic", traffic, Traffic)
    seconds = single("service_time", nonnegative("service_time", "s")(service_time))
    return traffic.hottest.load * seconds.astype(traffic.load.dtype)


# --- memory ---


class Tables(NamedTuple):
    """Memory of each core, bits.

    Fields:
        source_lists: int [cores], bits; for unicast
        tree_entries: int [cores], bits; for multicast
        synapses: int [cores], bits; for either
    """

    source_lists: Int[Array, " cores"]
    tree_entries: Int[Array, " cores"]
    synapses: Int[Array, " cores"]


def tables(edges: Edges, placement: Int[Array, " n"], mesh: Mesh, *, weight_bits: int) -> Tables:
    """Memory in bits that routing and synapses take in each core, [cores].

    Unicast: with each neuron a list of the cores that its spikes go to, one address each,
    ceil(log2 cores) bits. Multicast: in each core that the tree of a neuron passes, begins or
    ends in, one entry, the number of the neuron (ceil(log2 n) bits) and 5 bits for where to
    send the packet on, four links and the core itself; no entry where all receivers share the
    sender's core. Synapses: in the core of the receiver, `weight_bits` and the number of the
    receiver there, ceil(log2 neurons_per_core) bits; parallel synapses of one weight take one.
    Errors are those of `unicast`.
    """
    bits = count("weight_bits", 1, 64)(weight_bits)
    ones = jnp.ones(len(placement))
    edges, placement, mesh, ones = _checked(edges, placement, mesh, ones)
    lists = _unicast(edges, placement, mesh, ones).packets
    tree = _multicast(edges, placement, mesh, ones)
    each = lambda number, core: jax.ops.segment_sum(number, core, mesh.n_cores)  # noqa: E731
    # A tree comes into each core over one link, but into the one that it begins in.
    entries = each(tree.packets, placement) + _arriving(tree.load).astype(jnp.int32)
    synapses = each((edges.number > 0).astype(jnp.int32), placement[edges.post])
    address, key = _bits(mesh.n_cores), _bits(len(placement))
    local = _bits(mesh.neurons_per_core)
    return Tables(address * each(lists, placement), (key + 5) * entries, (bits + local) * synapses)


def fullest(memory: Int[Array, " cores"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The core that needs most, and its bits; of several the first.

    >>> [int(x) for x in fullest(jnp.array([8, 24, 16]))]
    [1, 24]
    """
    memory = jnp.asarray(whole("memory", memory))
    if not len(memory):
        raise ValueError("memory must be that of one core at least; got none")
    return memory.argmax(), memory.max()


def _arriving(load: Float[Array, "4 ny nx"]) -> Float[Array, " cores"]:
    """What comes into each core over its links."""
    east, west, south, north = load
    into = jnp.roll(east, 1, 1) + jnp.roll(west, -1, 1)
    return (into + jnp.roll(south, 1, 0) + jnp.roll(north, -1, 0)).reshape(-1)


def _bits(n: int) -> int:
    """Bits that tell `n` things apart."""
    return (n - 1).bit_length()
