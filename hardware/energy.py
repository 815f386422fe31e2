"""What a simulation would cost on a published chip: activity in counts, times J per operation.

Sources mean different things by the energy of a synaptic event. A `Constant` says which, by
its `scope`, and a `Chip` refuses constants that would count something twice.
"""

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from hardware._check import single
from hardware.routing import Traffic, unicast
from hardware.topology import Mesh, wiring
from neurojax._check import between, choice, count, instance, kind, nonnegative, positive
from neurojax._repr import described, value
from neurojax.network import Network
from neurojax.wiring.layouts import Edges

__all__ = [
    "CHIPS", "LOIHI", "ODIN", "RECKON", "SENECA", "SPINNAKER", "SPINNAKER2", "TIANJIC", "TRUENORTH",
    "TRUENORTH_AVERAGE", "TRUENORTH_HOPS", "Activity", "Basis", "Chip", "Constant", "Energy",
    "Route", "Scope", "activity", "energy",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


Scope = Literal["marginal", "active", "average", "unstated"]
Basis = Literal["measured", "simulated", "unstated"]


class Constant(eqx.Module):
    """One published figure, J or W. `value` is a leaf of the pytree, the rest says what it is.

    `scope`: "marginal", what one such operation adds and nothing else; "active", what one more
    adds together with all that it brings along, its share of neurons and routing; "average",
    power of the whole chip over the rate of events, static power included; "unstated", where
    the source does not say. All but the first stand for several parts at once.
    Raises `ValueError` unless `value` is finite and >= 0.

    >>> Constant(2e-12, "measured here").value
    2e-12
    """

    value: ArrayLike  # in `unit`; an array is a sweep
    source: str = eqx.field(static=True)
    scope: Scope = eqx.field(
        static=True, default="marginal",
        converter=choice("scope", "marginal", "active", "average", "unstated"),
    )  # fmt: skip
    basis: Basis = eqx.field(
        static=True, default="measured",
        converter=choice("basis", "measured", "simulated", "unstated"),
    )  # fmt: skip
    voltage: float | None = eqx.field(static=True, default=None)  # V, None where not stated
    node: int | None = eqx.field(static=True, default=None)  # nm
    unit: str = eqx.field(static=True, default="J", converter=choice("unit", "J", "W"))

    def __check_init__(self):
        # Not through an array: presets are made on import, which must not start a backend.
        plain = isinstance(self.value, float | int) and 0 <= self.value < float("inf")
        if not plain and not isinstance(self.value, Tracer):  # that is checked where it is used
            nonnegative("value", self.unit)(self.value)

    def __repr__(self) -> str:
        said = [value(self.value, self.unit), repr(self.source), self.scope, self.basis]
        said += [f"{x} {unit}" for x, unit in ((self.voltage, "V"), (self.node, "nm")) if x]
        return f"Constant({', '.join(said)})"


_SPIKING = frozenset({"neuron_active", "neuron_idle", "hop_ew", "hop_ns", "tile"})
# What a synaptic event of each scope has in it, or may have.
_WITHIN: dict[Scope, frozenset[str]] = {
    "marginal": frozenset(),
    "active": _SPIKING,
    "average": _SPIKING | {"static"},
    "unstated": _SPIKING | {"static"},
}


@described
class Chip(eqx.Module):
    """Energies of a chip, J an operation, and static power, W; None where not published.

    A synaptic event that is not marginal has neurons and routing in it already, and unless it
    is "active" static power too. Raises `ValueError` for constants of these beside it, and for
    one in the wrong unit; `TypeError` for what is no `Constant`.

    >>> mine = Chip("mine", synaptic=Constant(20e-12, "measured here"))
    >>> mine.missing
    ('neuron_active', 'neuron_idle', 'hop_ew', 'hop_ns', 'tile', 'learning', 'static')
    """

    name: str = eqx.field(static=True)
    synaptic: Constant | None = None  # one spike at one synapse
    neuron_active: Constant | None = None  # update of a neuron that fires
    neuron_idle: Constant | None = None  # update of one that does not
    hop_ew: Constant | None = None  # one spike over one link
    hop_ns: Constant | None = None
    tile: Constant | None = None  # one spike within the tile that it is delivered to
    learning: Constant | None = None  # one synapse visited by a weight change
    static: Constant | None = None  # W

    def __check_init__(self):
        given = {n: c for n, c in vars(self).items() if n != "name" and c is not None}
        for name, c in given.items():
            kind(f"{name} of {self.name}", c, Constant)
            unit = "W" if name == "static" else "J"
            if c.unit != unit:
                raise ValueError(f"{name} of {self.name} must be in {unit}; got {c.unit}")
        if twice := sorted(given.keys() & _WITHIN[self.scope]):
            raise ValueError(
                f"the synaptic event of {self.name} is of scope {self.scope!r}: {twice} beside it"
                " would be counted twice; leave them None, or pass a marginal synaptic event"
            )

    @property
    def scope(self) -> Scope:
        """That of the synaptic event."""
        return "marginal" if self.synaptic is None else self.synaptic.scope

    @property
    def missing(self) -> tuple[str, ...]:
        """Constants that are neither published nor within that of the synaptic event."""
        return tuple(n for n, c in vars(self).items() if c is None and n not in _WITHIN[self.scope])


# --- what published chips need ---

_LOIHI = {
    "source": "Davies et al. (2018), IEEE Micro 38(1), 82, table 2",
    "basis": "simulated", "voltage": 0.75, "node": 14,
}  # fmt: skip
# Before silicon; the synaptic event is the least one, learning is pairwise STDP.
LOIHI = Chip(
    "Loihi",
    synaptic=Constant(23.6e-12, **_LOIHI),
    neuron_active=Constant(81e-12, **_LOIHI),
    neuron_idle=Constant(52e-12, **_LOIHI),
    hop_ew=Constant(3.0e-12, **_LOIHI),
    hop_ns=Constant(4.0e-12, **_LOIHI),
    tile=Constant(1.7e-12, **_LOIHI),
    learning=Constant(120e-12, **_LOIHI),
)

# What one more event adds to the power of the chip, spikes underway and all.
TRUENORTH = Chip(
    "TrueNorth",
    synaptic=Constant(
        2.3e-12, "Akopyan et al. (2015), IEEE TCAD 34, 1537, fig. 17: slope of power over rate",
        scope="active", voltage=0.8, node=28,
    ),
)  # fmt: skip
TRUENORTH_AVERAGE = Chip(
    "TrueNorth, average",
    synaptic=Constant(
        26e-12, "Merolla et al. (2014), Science 345, 668: 72 mW at 20 Hz, 128 synapses a neuron",
        scope="average", voltage=0.775, node=28,
    ),
)  # fmt: skip
_TRUENORTH_HOP = Constant(
    2.3e-12, "Merolla et al. (2014), Science 345, 668, fig. S4", voltage=0.775, node=28
)
TRUENORTH_HOPS = Chip("TrueNorth, links alone", hop_ew=_TRUENORTH_HOP, hop_ns=_TRUENORTH_HOP)

_HOEPPNER = "Höppner et al. (2019), IEEE TCAS-I 66, 2973"
_SPINNAKER_NEURON = Constant(26e-9, _HOEPPNER, basis="unstated", node=130)
SPINNAKER = Chip(
    "SpiNNaker",
    synaptic=Constant(13.3e-9, _HOEPPNER, basis="unstated", node=130),
    neuron_active=_SPINNAKER_NEURON,
    neuron_idle=_SPINNAKER_NEURON,  # software, that updates every neuron at every tick
)
# A test chip whose cores run at 0.7 V to 1 V, as their load asks.
_SPINNAKER2_NEURON = Constant(2.19e-9, _HOEPPNER, node=28)
SPINNAKER2 = Chip(
    "SpiNNaker 2",
    synaptic=Constant(450e-12, _HOEPPNER, node=28),
    neuron_active=_SPINNAKER2_NEURON,
    neuron_idle=_SPINNAKER2_NEURON,
)

_SENECA = "Tang et al. (2023), Front. Neurosci. 17, 1187252, table 3"
ODIN = Chip(
    "ODIN",
    Constant(
        12.7e-12, "Frenkel et al. (2019), IEEE TBCAS 13, 145: at the highest rate of events",
        scope="average", voltage=0.55, node=28,
    ),
)  # fmt: skip
RECKON = Chip(
    "ReckOn",
    Constant(
        5.3e-12, "Frenkel and Indiveri (2022), ISSCC, 468", scope="unstated", voltage=0.5, node=28
    ),
)
TIANJIC = Chip("Tianjic", Constant(1.54e-12, _SENECA, scope="unstated", basis="unstated", node=28))
SENECA = Chip("SENECA", Constant(2.8e-12, _SENECA, scope="unstated", basis="simulated", node=22))

CHIPS = (
    LOIHI, TRUENORTH, TRUENORTH_AVERAGE, TRUENORTH_HOPS, SPINNAKER, SPINNAKER2, ODIN, RECKON,
    TIANJIC, SENECA,
)  # fmt: skip


# --- what a simulation did ---


class Activity(NamedTuple):
    """Counts of what costs energy, and seconds; all may carry the same leading axes.

    Fields:
        synaptic_events: float [lead]; spikes times synapses that they reach
        updates_active: float [lead]; steps of neurons in which they fire
        updates_idle: float [lead]; the others
        spikes: float [lead]; of all layers
        hops_ew: float [lead]; links crossed by all spikes, east-west
        hops_ns: float [lead]; the same, north-south
        deliveries: float [lead]; spikes times cores that they are delivered to
        learning_events: float [lead]; synapses visited by a change of weights
        steps: float [lead]; of the run
        time: float [lead], s; that the run stands for
    """

    synaptic_events: Float[Array, "*lead"]
    updates_active: Float[Array, "*lead"]
    updates_idle: Float[Array, "*lead"]
    spikes: Float[Array, "*lead"]
    hops_ew: Float[Array, "*lead"]
    hops_ns: Float[Array, "*lead"]
    deliveries: Float[Array, "*lead"]
    learning_events: Float[Array, "*lead"]
    steps: Float[Array, "*lead"]
    time: Float[Array, "*lead"]


@runtime_checkable
class Route(Protocol):
    """`routing.unicast`, `routing.multicast` or the like."""

    def __call__(
        self, edges: Edges, placement: Int[Array, " n"], mesh: Mesh, spikes: ArrayLike
    ) -> Traffic:
        """Traffic of `spikes`."""
        ...


def activity(
    net: Network,
    rasters: Mapping[str, ArrayLike],
    placement: Int[Array, " n"],
    mesh: Mesh,
    *,
    dt: ArrayLike,
    n_steps: int | None = None,
    inputs: Mapping[str, ArrayLike] | None = None,
    n_changes: ArrayLike = 0.0,
    route: Route = unicast,
) -> Activity:
    """What a run of `net` did, from the spikes of its layers; one sample, batch is `vmap`.

    `rasters` maps layers to spikes [T, n], or to counts [n], perhaps means, in `n_steps` steps
    of `dt` ms; a layer left out fires no spike, such as a readout that is a potential.
    `inputs` does the same for what comes from outside: its spikes are events at their synapses
    but are not routed, as their source has no place on the mesh. Every projection between
    layers sends through the mesh, with neurons numbered as in `topology.wiring`. `n_changes`
    is how often all plastic weights were changed. A neuron counts as active in the steps in
    which it fires; sources seldom say what they mean by it. `placement` [n] is the core of
    each neuron, as of `topology.linear`.
    Raises `ValueError` for a layer that sends, or an input, without its spikes, for names that
    the network does not have, wrong shapes, spikes that are negative, not finite or more than
    one a step, and what `route` refuses.
    """
    kind("net", net, Network)
    kind("mesh", mesh, Mesh)
    inputs = {} if inputs is None else inputs
    for name, spikes in (("rasters", rasters), ("inputs", inputs)):
        if not isinstance(spikes, Mapping):
            raise TypeError(
                f"{name} must map names to spikes; got {type(spikes).__name__}: pass"
                ' {"name": spikes}'
            )
    _named(net, rasters, inputs)
    steps = _steps(rasters, inputs, n_steps)
    fired = _fired(net, rasters, steps)
    sent = fired | _came(net, inputs, steps)
    spikes = jnp.concatenate(list(fired.values()))
    traffic = instance("route", route, "__call__")(wiring(net)[0], placement, mesh, spikes)
    reached = [(sent[p.pre] * p.connectivity.fan_out.astype(float)).sum()
               for p in net.projections.values()]  # fmt: skip
    visited = sum((net.projections[p].connectivity.edges().number > 0).sum() for p in net.plastic())
    total = spikes.sum()
    changes = single("n_changes", nonnegative("n_changes", "changes")(n_changes))
    return Activity(
        synaptic_events=jnp.asarray(sum(reached), float),
        updates_active=total,
        updates_idle=len(spikes) * float(steps) - total,
        spikes=total,
        hops_ew=traffic.total(traffic.hops_ew),
        hops_ns=traffic.total(traffic.hops_ns),
        deliveries=traffic.total(traffic.cores),
        learning_events=changes.astype(float) * jnp.asarray(visited, float),
        steps=jnp.asarray(steps, float),
        time=steps * 1e-3 * single("dt", positive("dt", "ms")(dt)).astype(float),
    )


def _fired(net: Network, rasters: Mapping[str, ArrayLike], steps: int) -> dict[str, Array]:
    """Spikes of each neuron, layer by layer, in the order of their numbers on the mesh."""
    return {
        name: _count(f"raster {name!r}", rasters[name], layer.n, steps, once=True)
        if name in rasters
        else jnp.zeros(layer.n)
        for name, layer in sorted(net.layers.items())
    }


def _came(net: Network, inputs: Mapping[str, ArrayLike], steps: int) -> dict[str, Array]:
    """Spikes of each input from outside."""
    return {
        p.pre: _count(f"input {p.pre!r}", inputs[p.pre], p.connectivity.n_pre, steps)
        for p in (net.projections[name] for name in net.external())
    }


def _named(net: Network, rasters: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Refuse names that are missing or unknown."""
    outside = {net.projections[name].pre for name in net.external()}
    senders = {net.projections[name].pre for name in net.internal()}
    for what, got, need, known in (
        ("rasters", rasters, senders, net.layers),
        ("inputs", inputs, outside, outside),
    ):
        if missing := sorted(need - got.keys()):
            raise ValueError(
                f"{what} must have the spikes of {missing}, which send; got {sorted(got)}:"
                " pass zeros for what is no spike, such as a constant current"
            )
        if unknown := sorted(got.keys() - set(known)):
            raise ValueError(f"{what} must be among {sorted(known)}; got {unknown}")


def _steps(rasters: Mapping[str, Any], inputs: Mapping[str, Any], n_steps: int | None) -> int:
    """Steps of the run, the same by all that say so."""
    said = {
        f"{name!r}": jnp.shape(x)[0]
        for name, x in {**rasters, **inputs}.items()
        if jnp.ndim(x) == 2
    }
    if n_steps is not None:
        said["n_steps"] = count("n_steps")(n_steps)
    if not said:
        raise ValueError("n_steps must be given, as all spikes are counts [n]; got None")
    if len(set(said.values())) > 1:
        raise ValueError(f"all spikes must span the same steps; got {said}")
    return next(iter(said.values()))


def _count(name: str, x: ArrayLike, n: int, steps: int, once: bool = False) -> Array:
    """Spikes of each neuron, [n], of a raster [T, n] or of counts; at most `once` a step."""
    shape = jnp.shape(x)
    if shape not in ((n,), (steps, n)):
        raise ValueError(f"{name} must have shape [{n}] or [{steps}, {n}]; got {shape}")
    most = 1.0 if len(shape) == 2 else float(steps)
    valid = between(name, 0.0, most) if once else nonnegative(name, "spikes")
    x = valid(x).astype(float)
    return x if x.ndim == 1 else x.sum(0)


# --- what that costs ---


class Energy(NamedTuple):
    """J of each part, None where the chip publishes no constant for it.

    Fields:
        synaptic: float [lead] or None, J
        neuron: float [lead] or None, J; active and idle
        routing: float [lead] or None, J; on links
        delivery: float [lead] or None, J; within the tile of arrival
        learning: float [lead] or None, J
        static: float [lead] or None, J
        lumped: float [lead] or None, J; of a synaptic event with neurons and routing in it
    """

    synaptic: Float[Array, "*lead"] | None
    neuron: Float[Array, "*lead"] | None
    routing: Float[Array, "*lead"] | None
    delivery: Float[Array, "*lead"] | None
    learning: Float[Array, "*lead"] | None
    static: Float[Array, "*lead"] | None
    lumped: Float[Array, "*lead"] | None

    @property
    def covers(self) -> tuple[str, ...]:
        """Parts that `total` is the sum of."""
        return tuple(name for name, part in self._asdict().items() if part is not None)

    @property
    def total(self) -> Float[Array, "*lead"]:
        """J of all parts in `covers`; what the chip leaves out stands in `Chip.missing`."""
        parts = [part for part in self if part is not None]
        return functools.reduce(jnp.add, parts) if parts else jnp.zeros(())


def energy(activity: Activity, chip: Chip) -> Energy:
    """Energy, J, of `activity` on `chip`, part by part: counts times constants.

    A part of several constants is None unless all of them are published. Nothing is scaled
    from one voltage or node to another.
    All parts have the shape of the counts. Raises `ValueError` for counts that are negative or
    not finite; at run time where traced.

    >>> did = Activity(*[0.0] * 10)._replace(synaptic_events=1e6, time=0.1)
    >>> f"{energy(did, LOIHI).total:.3g} J"
    '2.36e-05 J'
    """
    kind("activity", activity, Activity)
    kind("chip", chip, Chip)
    did = Activity(*(nonnegative(n, "")(x) for n, x in activity._asdict().items()))
    event, alone = _priced((did.synaptic_events, chip.synaptic)), chip.scope == "marginal"
    return Energy(
        synaptic=event if alone else None,
        neuron=_priced(
            (did.updates_active, chip.neuron_active), (did.updates_idle, chip.neuron_idle)
        ),
        routing=_priced((did.hops_ew, chip.hop_ew), (did.hops_ns, chip.hop_ns)),
        delivery=_priced((did.deliveries, chip.tile)),
        learning=_priced((did.learning_events, chip.learning)),
        static=_priced((did.time, chip.static)),
        lumped=None if alone else event,
    )


def _priced(*terms: tuple[Array, Constant | None]) -> Array | None:
    """Sum of number times constant, or None where one is not published."""
    priced = [
        number * nonnegative("value", constant.unit)(constant.value).astype(number.dtype)
        for number, constant in terms
        if constant is not None
    ]
    return functools.reduce(jnp.add, priced) if len(priced) == len(terms) else None
