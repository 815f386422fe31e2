"""The structured recurrent network: locally dense layers, sparse projections to a readout."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key

from neurojax._check import (
    Converter,
    between,
    brief,
    choice,
    count,
    finite,
    flag,
    instance,
    nonnegative,
    positive,
    prng_key,
)
from neurojax._repr import described
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.plasticity.three_factor import ThreeFactor, always
from neurojax.wiring.generators import (
    fan_in,
    locally_dense,
    merged,
    watts_strogatz_grid,
)
from neurojax.wiring.layouts import Band, Dense, FanIn

__all__ = ["READOUT", "Recurrence", "structured"]

READOUT = "readout"
_RADIUS, _FAN_IN = 16, 48


def _number(check: Converter) -> Callable[[Any], float]:
    """Field converter: a Python number that passes `check`, not an array of it."""

    def convert(x: Any) -> float:
        check.refuse(x)
        return float(x)

    return convert


def _delays(x: Any) -> tuple[int, ...]:
    """Field converter: different whole numbers of steps."""
    given = tuple(map(count("delays"), x if isinstance(x, tuple | list) else (x,)))
    if len(set(given)) < len(given) or not given:
        raise ValueError(f"delays must be one or more different numbers of steps; got {brief(x)}")
    return given


@described
class Recurrence(eqx.Module):
    """How each hidden layer connects to itself.

    "local": a ring on which all neurons within `radius` connect, a part `p_rewire` of the
    synapses sent far away instead (`locally_dense`); the far ones stay fixed. `radius` None is
    16 neurons, or the largest that fits a small layer. "grid": a torus, as square as the number of
    neurons allows, on which each hears the `fan_in` nearest, each with `p_rewire` sent anywhere
    instead (`watts_strogatz_grid`), and all learn; `fan_in` must take in all that are equally far
    (4, 8, 12, 20, 24, 28, 36, 44, 48, 56, 60). "dense": all to all, oneself too unless `autapses`
    is False. "none". `gain` (nA) scales the initial weights. Synapses are one step late; those of
    "grid" are dealt out to `delays`, in steps, so that a neuron hears its neighbours as they are
    and as they were.

    >>> loop = nj.Recurrence("dense", autapses=False)
    >>> loop.projections(None, "h", 40)["h->h"].connectivity
    Dense(40 -> 40, 1,560 synapses)
    >>> loop = nj.Recurrence("grid", fan_in=60, p_rewire=0.1, delays=(1, 2, 4))
    >>> made = loop.projections(jax.random.key(0), "h", 512)
    >>> {n: p.connectivity for n, p in made.items() if p.delay == 4}
    {'h->h after 4': FanIn(512 -> 512, fan-in 20)}

    Raises `ValueError` for an unknown kind, a radius or fan-in below 1, `p_rewire` outside
    [0, 1], a gain that is not finite, delays that are no different whole numbers >= 1, and a
    radius, fan-in or delays that the kind does not read.
    """

    kind: Literal["local", "grid", "dense", "none"] = eqx.field(
        static=True,
        default="local",
        converter=choice("recurrence", "local", "grid", "dense", "none"),
    )
    radius: int | None = eqx.field(
        static=True, default=None, converter=lambda r: None if r is None else count("radius")(r)
    )
    p_rewire: float = eqx.field(
        static=True, default=0.1, converter=_number(between("p_rewire", 0.0, 1.0))
    )
    gain: float = eqx.field(static=True, default=1.0, converter=_number(finite("gain", "nA")))
    plastic: bool = eqx.field(static=True, default=True, converter=flag("plastic"))
    autapses: bool = eqx.field(static=True, default=True, converter=flag("autapses"))
    fan_in: int = eqx.field(static=True, default=_FAN_IN, converter=count("fan_in"))
    delays: Sequence[int] = eqx.field(static=True, default=(1,), converter=_delays)

    def __check_init__(self):
        """Nothing that is given is left unread."""
        for name, kind, unless in (
            ("radius", "local", None), ("fan_in", "grid", _FAN_IN), ("delays", "grid", (1,)),
        ):  # fmt: skip
            given = getattr(self, name)
            if given != unless and self.kind != kind:
                raise ValueError(
                    f"{name} needs recurrence {kind!r}; got {given} with {self.kind!r}: leave it"
                    " out"
                )

    def projections(self, key: Key[Array, ""] | None, name: str, n: int) -> dict[str, Projection]:
        """Synapses of layer `name`, of n neurons, onto itself, one step late.

        Raises `ValueError` where the ring does not fit the layer.
        """
        if self.kind == "none":
            return {}
        if self.kind == "dense":
            others = None if self.autapses else ~jnp.eye(n, dtype=bool)
            wiring = Dense(n, n, others)
            return {f"{name}->{name}": self._loop(name, wiring, self.plastic, self.gain)}
        if self.kind == "grid":
            return self._dealt(name, self._grid(key, name, n))
        near, far = self._ring(key, name, n)
        share = 0.0 if far is None else far.shape[1] / (2 * near.radius)
        made = {}
        if share < 1:
            gain = self.gain * (1 - share) ** 0.5
            made[f"{name}->{name}"] = self._loop(name, near, self.plastic, gain)
        if far is not None:
            gain = self.gain * share**0.5
            made[f"{name}->{name} far"] = self._loop(name, far, False, gain)
        return made

    def _ring(self, key, name: str, n: int) -> tuple[Band, FanIn | None]:
        # The largest radius up to the usual that leaves n neurons room to rewire.
        fits = (r for r in range(_RADIUS, 0, -1) if 2 * r + round(2 * r * self.p_rewire) < n)
        radius = self.radius or next(fits, None)
        try:
            if radius is None:
                raise ValueError(f"{n} neurons are too few for a ring")
            return locally_dense(key, n, radius, self.p_rewire)
        except ValueError as error:
            cure = "pass another radius or p_rewire, or Recurrence('dense') or Recurrence('none')"
            raise ValueError(f"recurrence of layer {name!r}: {error}; {cure}") from None

    def _grid(self, key, name: str, n: int) -> FanIn:
        ny = next(m for m in range(math.isqrt(n), 0, -1) if n % m == 0)
        try:
            return watts_strogatz_grid(key, (ny, n // ny), self.fan_in, self.p_rewire)
        except ValueError as error:
            told = str(error).replace("k must", "fan_in must")
            raise ValueError(
                f"recurrence of layer {name!r}, {ny} x {n // ny} neurons: {told}"
            ) from None

    def _dealt(self, name: str, fan: FanIn) -> dict[str, Projection]:
        """Synapses of each neuron by delay, near ones and far ones to each."""
        n, made = len(self.delays), {}
        if n > self.fan_in:
            raise ValueError(f"delays must be at most fan_in, {self.fan_in}; got {n} of them")
        for i, steps in enumerate(self.delays):
            some = FanIn(fan.index[:, i::n], fan.n_pre)
            gain = self.gain * (some.shape[1] / self.fan_in) ** 0.5
            which = f"{name}->{name}" + (f" after {steps}" if steps > 1 else "")
            made[which] = self._loop(name, some, self.plastic, gain, steps)
        return made

    def _loop(self, name, connectivity, plastic, gain, delay=1) -> Projection:
        return Projection(name, name, connectivity, delay=delay, plastic=plastic, gain=gain)


class Readout(NamedTuple):
    """The readout layer, as networks of this room wire it.

    Fields:
        n_classes: int
        population: int; neurons a class
        neuron: any; leaky integrators, whose copies are merged, or neurons that spike
        plastic: bool
    """

    n_classes: int
    population: int
    neuron: Any
    plastic: bool = True

    @classmethod
    def of(cls, n_classes: int, population: int, neuron: Any, plastic: bool = True) -> "Readout":
        """One checked; None as neuron is a leaky integrator of decay 0.9."""
        neuron = LeakyIntegrator(tau_mem=-1 / jnp.log(0.9)) if neuron is None else neuron
        instance("readout", neuron, "init", "step")
        return cls(
            count("n_classes", 2)(n_classes),
            count("population")(population),
            neuron,
            flag("plastic_readout")(plastic),
        )

    @property
    def spiking(self) -> bool:
        """Whether copies are not merged, as they are no copies."""
        return not isinstance(self.neuron, LeakyIntegrator)

    def hears(self, key: Key[Array, ""] | None, pre: str, n: int, density: float) -> Projection:
        """Its synapses from layer `pre` of n neurons."""
        fan = fan_in(key, n, self.n_classes * self.population, density)
        return Projection(
            pre, READOUT, fan if self.spiking else merged(fan, self.population),
            plastic=self.plastic, gain=float(self.spiking or not self.plastic),
        )  # fmt: skip

    def layer(self, density: float) -> Layer:
        """Its neurons, whose current is divided by what they hear; they learn by the delta rule."""
        n, heard = (self.population, density) if self.spiking else (1, density * self.population)
        r_mem = positive("r_mem / density", "MOhm")(self.neuron.r_mem / heard)
        neuron = eqx.tree_at(lambda r: r.r_mem, self.neuron, r_mem)
        rule = ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)
        return Layer(self.n_classes * n, neuron, rule=rule)

    def lateral(self, inhibition: float) -> Projection:
        """Each neuron inhibits those of all other classes; the weights sum to -inhibition."""
        n = self.n_classes * self.population
        owner = jnp.arange(n) // self.population
        rivals = owner[:, None] != owner[None]
        w = jnp.where(rivals, -inhibition / (n - self.population), 0.0)
        return Projection(READOUT, READOUT, Dense(n, n, rivals), delay=1, plastic=False, w=w)


def structured(
    key: Key[Array, ""] | None,
    n_in: int,
    hidden: Sequence[Layer],
    n_classes: int,
    *,
    density: float = 1.0,
    population: int = 10,
    readout: LeakyIntegrator | LIF | None = None,
    inhibition: float = 1.0,
    recurrence: Recurrence = Recurrence(),  # noqa: B008 - frozen
    gain_in: float = 2.0,
    gain_forward: float = 4.0,
    plastic_hidden: bool = True,
    plastic_readout: bool = True,
) -> Network:
    """Input "input" -> layers "h1", "h2", ... -> "readout", which hears every hidden layer.

    The readout has `population` neurons a class; each hears a random part `density` of each
    layer, and its current is divided by what it hears. Leaky integrators (the default, with
    decay 0.9) that share a class are copies of one another and are merged into one,
    exactly; LIF neurons stay a population each, and the classes inhibit one another with
    weight `inhibition` (nA), one step late. `gain_in` and `gain_forward` scale the initial weights
    of the first hidden layer and of the others (`normal`); those of a leaky readout that learns
    start at 0. The input is [n_in], nA or spikes. `key` may be None where no wiring is drawn:
    at density 1 without rewiring.

    >>> layers = [nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor()) for _ in range(2)]
    >>> loop = nj.Recurrence("dense")
    >>> net = nj.structured(jax.random.key(0), 784, layers, 10, density=0.25, recurrence=loop)
    >>> net.projections["h1->readout"].connectivity  # [n_classes, 64] weights
    Dense(64 -> 10, 1,600 synapses)

    Raises `ValueError` for sizes below 1, fewer than two classes, a density outside (0, 1], a
    gain that is not finite and >= 0, and a ring that does not fit its layer; `TypeError` for
    what is no layer, readout, recurrence or key.
    """
    n_in, out = count("n_in")(n_in), Readout.of(n_classes, population, readout, plastic_readout)
    _refuse_negative(gain_in=gain_in, gain_forward=gain_forward, inhibition=inhibition)
    instance("recurrence", recurrence, "projections")
    key = None if key is None else prng_key(key)
    layers, projections = {f"h{i}": x for i, x in enumerate(_layers(hidden), 1)}, {}
    pre, n_pre = "input", n_in
    for i, (name, layer) in enumerate(layers.items()):
        wiring = Dense(n_pre, layer.n)
        gain = gain_forward if i else gain_in
        made = Projection(
            pre, name, wiring, plastic=flag("plastic_hidden")(plastic_hidden), gain=gain
        )
        projections[f"{pre}->{name}"] = made
        projections |= recurrence.projections(fold(key, name), name, layer.n)
        heard = fold(key, f"{name}->readout")
        projections[f"{name}->readout"] = out.hears(heard, name, layer.n, density)
        pre, n_pre = name, layer.n
    if out.spiking:
        projections["readout->readout"] = out.lateral(inhibition * density)
    return Network(layers | {READOUT: out.layer(density)}, projections)


def _refuse_negative(**strengths: float) -> None:
    for name, x in strengths.items():
        nonnegative(name, "nA")(x)


def _layers(hidden: Any) -> list[Layer]:
    """The hidden layers, checked."""
    if isinstance(hidden, Layer):
        raise TypeError("hidden must be a list of layers; got a Layer: pass [layer]")
    hidden = list(hidden)
    for i, layer in enumerate(hidden):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"hidden[{i}] must be a Layer; got {brief(layer)}: pass Layer(n, LIF())"
            )
    if not hidden:
        raise ValueError("hidden must hold at least one layer; got []")
    return hidden


def __dir__() -> list[str]:
    return __all__
