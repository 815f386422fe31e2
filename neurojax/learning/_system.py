"""What the broadcast learning system is made of, and what of it fits together."""

import math
from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Integer, Key

from neurojax._check import (
    brief,
    classes,
    count,
    instance,
    kind,
    numbers,
    prng_key,
    real,
    step_size,
    working,
)
from neurojax._repr import described
from neurojax.data.ragged import Rasters
from neurojax.learning._spiking import lengths
from neurojax.network import Network, fold
from neurojax.neurons.leaky import LeakyIntegrator
from neurojax.plasticity.feedback import Broadcast, broadcast
from neurojax.plasticity.gating import Gate
from neurojax.plasticity.modulation import Modulators, modulators
from neurojax.plasticity.teaching import SoftWTA
from neurojax.plasticity.three_factor import Homeostasis, HomeostasisState, Rule
from neurojax.weights import Weights

INPUT = "input"  # what the pictures are called among the network's inputs

Tone = dict[str, HomeostasisState]
AllWeights = dict[str, Weights]
Teacher = Callable[[Array, Array], Array]  # (scores [n_classes], target) -> error [n_classes]


def _part(name: str, *methods: str) -> Callable[[Any], Any]:
    return lambda x: instance(name, x, *methods)


def _gate(x: Any) -> Gate | None:
    """Field converter: a gate, or none."""
    return None if x is None else instance("gate", x, "init", "step")


def _by_layer(x: Any) -> dict[str, Broadcast]:
    """Field converter: what carries the error to each layer."""
    if not isinstance(x, dict):
        raise TypeError(f"feedback must be a dict by layer; got {brief(x)}")
    return {name: kind(f"feedback {name!r}", b, Broadcast) for name, b in x.items()}


@described
class System(eqx.Module):
    """The network and all that teaches it; nothing here changes while it learns.

    Hidden layers are those with `feedback`, [n, n_classes] each, which also says how many
    classes there are. The error counts from step `start` on, and so do the scores that decide.
    A presentation has `n_steps` steps of `dt` ms. `gate`, where there is one, says how much each
    sample of a batch teaches, by its scores; `modulators` act within a presentation.
    `population`: readout neurons a class; None takes one of leaky integrators, as their copies
    would learn the same, and of others what the classes leave.
    `system` makes one of a network.
    Raises `ValueError` where the parts do not fit one another, or a plastic projection links
    anything but the input, hidden layers and the readout; `TypeError` for a class in place of
    its instance.
    Source: Tang and Xie (2026), arXiv 2605.00402.
    """

    network: Network = eqx.field(converter=lambda x: kind("network", x, Network))
    feedback: dict[str, Broadcast] = eqx.field(converter=_by_layer)
    teacher: Teacher = eqx.field(default_factory=SoftWTA, converter=_part("teacher", "__call__"))
    homeostasis: Homeostasis = eqx.field(
        default_factory=Homeostasis, converter=_part("homeostasis", "init", "step", "term")
    )
    modulators: Modulators | None = None
    gate: Gate | None = eqx.field(default=None, converter=_gate)
    n_steps: int = eqx.field(static=True, default=20, converter=count("n_steps"))
    start: int = eqx.field(static=True, default=5, converter=count("start", 0))
    dt: float | Array = eqx.field(default=1.0, converter=step_size)
    readout: str = eqx.field(static=True, default="readout")
    population: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not self.start < self.n_steps:
            raise ValueError(f"start must be in [0, {self.n_steps}); got {self.start}")
        for name in (*self.feedback, self.readout):
            rule(self, name)
        _check_feedback(self)
        _check_readout(self)
        _check_modulators(self)
        _check_plastic(self)

    @property
    def n_classes(self) -> int:
        """How many classes the feedback tells apart."""
        return next(iter(self.feedback.values())).channels.shape[-1]

    @property
    def n_in(self) -> int:
        """How many numbers a picture has."""
        links = self.network.projections.values()
        return next(p.connectivity.n_pre for p in links if p.pre == INPUT)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of the layers that the error is broadcast to."""
        return tuple(sorted(self.feedback))

    @property
    def taught(self) -> tuple[str, ...]:
        """Names of the layers that learn: the hidden ones and the readout."""
        return (*self.hidden, self.readout)

    def rest(self, dtype: DTypeLike = float) -> Tone:
        """Excitability of the hidden layers before any homeostasis, in float32 at the least."""
        layers, dtype = self.network.layers, working(dtype)
        return {
            n: self.homeostasis.init(jnp.full(layers[n].n, layers[n].neuron.v_th, dtype))
            for n in self.hidden
        }

    def tuned(self, tone: Tone) -> Network:
        """The network with the thresholds that homeostasis has reached."""
        return eqx.tree_at(
            lambda net: [net.layers[n].neuron.v_th for n in self.hidden],
            self.network,
            [tone[n].v_th for n in self.hidden],
        )


def system(
    key: Key[Array, ""],
    network: Network,
    *,
    population: int | None = None,
    bandwidth: int | None = None,
    n_modulators: int = 0,
    readout: str = "readout",
    **parts: Any,
) -> System:
    """All that teaches `network`: feedback to every layer with a rule, drawn from `key`.

    There are as many classes as the readout has neurons, or populations of `population`
    neurons, which a spiking readout must be told. `bandwidth` as in `broadcast`; with
    `n_modulators` as many gate what hidden neurons learn. `parts` are those of `System` (teacher,
    homeostasis, gate, n_steps, start, dt in ms), whose defaults hold.
    Raises `ValueError` and `TypeError` as `System` does.

    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> nj.wta_broadcast.system(jax.random.key(1), net).n_classes
    10
    """
    layers, key = kind("network", network, Network).layers, prng_key(key)
    n_classes = _populations(network, readout, population)
    sizes = {n: x.n for n, x in layers.items() if x.rule is not None and n != readout}
    told = {
        n: broadcast(fold(key, f"{n} feedback"), size, n_classes, bandwidth)
        for n, size in sizes.items()
    }
    gates = None
    if count("n_modulators", 0)(n_modulators):
        gates = modulators(fold(key, "modulators"), n_modulators, sizes)
    return System(network, told, modulators=gates, readout=readout, population=population, **parts)


def _populations(network: Network, readout: str, population: int | None) -> int:
    """How many classes the readout has."""
    if readout not in network.layers:
        raise ValueError(f"{readout!r} is no layer of the network: {sorted(network.layers)}")
    layer = network.layers[readout]
    if population is None and not isinstance(layer.neuron, LeakyIntegrator):
        raise ValueError(
            f"readout {readout!r} has {layer.n} spiking neurons: pass population, how many of"
            " them a class has"
        )
    size = 1 if population is None else count("population")(population)
    if layer.n % size:
        raise ValueError(f"population must divide {layer.n} readout neurons; got {size}")
    return layer.n // size


def rule(system: System, layer: str) -> Rule:
    """How `layer` learns. Raises `ValueError` for a layer that has no rule, or is none."""
    if layer not in kind("system", system, System).network.layers:
        raise ValueError(f"{layer!r} is no layer of the network: {sorted(system.network.layers)}")
    found = system.network.layers[layer].rule
    if found is None:
        raise ValueError(f"layer {layer!r} must have a rule to learn by; got None")
    return found


def _check_feedback(system: System) -> None:
    if not system.feedback:
        raise ValueError("feedback must reach a hidden layer; got none: see nj.broadcast")
    layers, n_classes = system.network.layers, system.n_classes
    for name, b in system.feedback.items():
        allowed, got = (layers[name].n, n_classes), (b.spread.shape[-2], b.channels.shape[-1])
        if got != allowed:
            raise ValueError(f"feedback {name!r} must be [neurons, classes] = {allowed}; got {got}")
        neuron = layers[name].neuron
        if not hasattr(neuron, "v_th"):
            raise ValueError(
                f"neurons of hidden layer {name!r} must have a threshold v_th; got"
                f" {type(neuron).__name__}"
            )


def _check_readout(system: System) -> None:
    layer, n_classes = system.network.layers[system.readout], system.n_classes
    size = system.population
    if size is None:
        size = 1 if isinstance(layer.neuron, LeakyIntegrator) else max(layer.n // n_classes, 1)
    if layer.n != count("population")(size) * n_classes:
        raise ValueError(
            f"readout {system.readout!r} must have population x n_classes neurons, of the"
            f" feedback's {n_classes} classes, {size} x {n_classes}; got {layer.n}"
        )


def _check_modulators(system: System) -> None:
    if system.modulators is None:
        return
    gated = sorted(instance("modulators", system.modulators, "init", "step", "gate").a)
    if not set(system.hidden) <= set(gated):
        raise ValueError(f"modulators must reach {sorted(system.hidden)}; got {gated}")


def _check_plastic(system: System) -> None:
    known = {*system.taught, INPUT}
    projections = system.network.projections
    if all(p.pre != INPUT for p in projections.values()):
        raise ValueError(f"a projection must start from {INPUT!r}; got {sorted(projections)}")
    for name in system.network.plastic():
        p = projections[name]
        if not {p.pre, p.post} <= known:
            raise ValueError(
                f"plastic projection {name!r} must link two of {sorted(known)};"
                f" got {p.pre!r} and {p.post!r}"
            )
        if p.delay >= system.n_steps:
            raise ValueError(
                f"delay of plastic projection {name!r} must be below n_steps,"
                f" {system.n_steps}; got {p.delay}"
            )


def samples(system: System, x: Any) -> Any:
    """A batch as floats, refused unless it holds samples and, outside jit, is finite.

    `Rasters` stay what they are, and are refused where one ends before `start`.
    """
    if isinstance(x, Rasters):
        ends, counts = lengths(x, system.start), samples(system, _counts(x.x))
        return eqx.tree_at(lambda r: (r.x, r.lengths), x, (counts, ends))
    x, allowed = floats(x), one_sample(kind("system", system, System))
    if x.shape[1:] not in allowed:
        cure = ""
        if x.shape in allowed:
            cure = ": pass x[None] for a batch of one"
        elif math.prod(x.shape[1:]) == system.n_in:
            cure = ": pass x.reshape(len(x), -1)"
        raise ValueError(f"x must be {_listed('batch', allowed)}; got {list(x.shape)}{cure}")
    if not len(x):
        raise ValueError("x must hold one sample at least; got none")
    return x


def _counts(x: Any) -> Any:
    """Bytes of a raster are counts, not grey levels."""
    return real(jnp.asarray(x)) if x.dtype == np.uint8 else x


def sample(system: System, x: ArrayLike) -> Float[Array, "*t i"]:
    """One sample as floats, refused unless that and, outside jit, finite."""
    x, allowed = floats(x), one_sample(kind("system", system, System))
    if x.shape not in allowed:
        cure = ": jax.vmap over a batch" if x.shape[1:] in allowed else ": pass x.reshape(-1)"
        cure = cure if x.size % system.n_in == 0 else ""
        raise ValueError(f"x must be {_listed('', allowed)}; got {list(x.shape)}{cure}")
    return x


def _listed(lead: str, shapes: tuple[tuple[int, ...], ...]) -> str:
    return " or ".join(f"[{', '.join(filter(None, (lead, *map(str, s))))}]" for s in shapes)


def one_sample(system: System) -> tuple[tuple[int, ...], ...]:
    """The shapes that one sample may have: held, or over time."""
    return (system.n_in,), (system.n_steps, system.n_in)


def floats(x: ArrayLike) -> Array:
    """Pictures or spikes as floats; bytes are refused, and outside jit what is not finite."""
    if isinstance(x, Rasters):
        raise TypeError(f"x must be one sample as an array; got {x}: pass its x, cut at its length")
    if getattr(x, "dtype", None) == np.uint8:
        raise TypeError("x must be floats; got uint8: pass x / 255, or spikes as x.astype(float)")
    if not isinstance(x, Tracer):
        bad = np.count_nonzero(~np.isfinite(x))
        if bad:
            raise ValueError(f"x must be finite; {bad} of {np.size(x)} numbers are NaN or infinite")
    return real(x)


def labels(system: System, target: ArrayLike, n: int) -> Integer[Array, " b"]:
    """`n` labels, refused unless whole and, outside jit, in [0, n_classes)."""
    target = numbers("target", target)
    if target.shape != (n,):
        cure = ": pass target.argmax(1)" if target.shape == (n, system.n_classes) else ""
        raise ValueError(f"target must be [batch] = [{n}] labels; got {list(target.shape)}{cure}")
    return classes("target", target, system.n_classes)


def check_given(system: System, weights: Any, tone: Any) -> None:
    """Refuse what is no weights or thresholds of this network, in little time, outside jit too."""
    kind("system", system, System)
    _check_names("weights", weights, system.network.projections)
    for name, held in weights.items():
        instance(f"weights {name!r}", held, "apply", "outer", "program")
    check_tone(system, tone)


def check_tone(system: System, tone: Any) -> None:
    """Refuse thresholds and rates that are not those of the hidden layers."""
    kind("system", system, System)
    _check_names("tone, the homeostasis of a state,", tone, system.feedback)
    for name, state in tone.items():
        check_excitability(system, name, state)


def check_excitability(system: System, layer: str, state: Any) -> None:
    """Refuse a layer that hears no error, and thresholds and rates that are not its own."""
    if layer not in system.feedback:
        raise ValueError(f"layer must be one of {list(system.hidden)}; got {brief(layer)}")
    name, allowed = f"homeostasis of layer {layer!r}", (system.network.layers[layer].n,)
    for x in kind(name, state, HomeostasisState):
        if (got := numbers(name, x).shape) != allowed:
            raise ValueError(f"{name} must be {allowed}; got {got}")


def _check_names(what: str, given: Any, needed: Collection[str]) -> None:
    if not isinstance(given, dict) or set(given) != set(needed):
        got = sorted(map(str, given)) if isinstance(given, dict) else brief(given)
        raise ValueError(f"{what} must be those of {sorted(needed)}; got {got}")


def check_state(system: System, weights: dict[str, Any], tone: Tone) -> None:
    """Refuse weights and thresholds that belong to another network; costs nothing in jit."""
    check_given(system, weights, tone)
    for name, p in system.network.projections.items():
        shape = jax.eval_shape(lambda w: w.w, weights[name]).shape
        if shape != p.connectivity.shape:
            raise ValueError(f"weights {name!r} must be {p.connectivity.shape}; got {shape}")
