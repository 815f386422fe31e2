"""The structured recurrent network: locally dense layers, sparse projections to a readout."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key

from neurojax._check import between, brief, choice, count, finite, instance, nonnegative, prng_key
from neurojax._repr import described
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.plasticity.three_factor import ThreeFactor, always
from neurojax.wiring.generators import fan_in, locally_dense, merged
from neurojax.wiring.layouts import Band, Dense, FanIn

__all__ = ["READOUT", "Recurrence", "structured"]

READOUT = "readout"
_RADIUS = 16


def _number(check: Callable[[Any], Array]) -> Callable[[Any], float]:
    """Field converter: a Python number that passes `check`, not an array of it."""

    def convert(x: Any) -> float:
        check(x)
        return float(x)

    return convert


@described
class Recurrence(eqx.Module):
    """How each hidden layer connects to itself.

    "local": a ring on which all neurons within `radius` connect, a part `p_rewire` of the
    synapses sent far away instead (`locally_dense`); the far ones stay fixed. `radius` None is
    16 neurons, or the largest that fits a small layer. "dense": all to all, oneself too unless
    `autapses` is False. "none". `gain` (nA) scales the initial weights. Each projection has a delay
    of one step.

    >>> loop = nj.Recurrence("dense", autapses=False)
    >>> loop.projections(None, "h", 40)["h->h"].connectivity
    Dense(40 -> 40, 1,560 synapses)

    Raises `ValueError` for an unknown kind, a radius below 1, `p_rewire` outside [0, 1] and a
    gain that is not finite.
    """

    kind: Literal["local", "dense", "none"] = eqx.field(
        static=True, default="local", converter=choice("recurrence", "local", "dense", "none")
    )
    radius: int | None = eqx.field(
        static=True, default=None, converter=lambda r: None if r is None else count("radius")(r)
    )
    p_rewire: float = eqx.field(
        static=True, default=0.1, converter=_number(between("p_rewire", 0.0, 1.0))
    )
    gain: float = eqx.field(static=True, default=1.0, converter=_number(finite("gain", "nA")))
    plastic: bool = eqx.field(static=True, default=True)
    autapses: bool = eqx.field(static=True, default=True)

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

    def _loop(self, name, connectivity, plastic, gain) -> Projection:
        return Projection(name, name, connectivity, delay=1, plastic=plastic, gain=gain)


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
    n_in, n_classes = count("n_in")(n_in), count("n_classes", 2)(n_classes)
    population = count("population")(population)
    _refuse_negative(gain_in=gain_in, gain_forward=gain_forward, inhibition=inhibition)
    instance("recurrence", recurrence, "projections")
    key = None if key is None else prng_key(key)
    layers, projections = {f"h{i}": x for i, x in enumerate(_layers(hidden), 1)}, {}
    readout = LeakyIntegrator(tau_mem=-1 / jnp.log(0.9)) if readout is None else readout
    instance("readout", readout, "init", "step")
    spiking = not isinstance(readout, LeakyIntegrator)
    pre, n_pre = "input", n_in
    for i, (name, layer) in enumerate(layers.items()):
        wiring = Dense(n_pre, layer.n)
        gain = gain_forward if i else gain_in
        made = Projection(pre, name, wiring, plastic=plastic_hidden, gain=gain)
        projections[f"{pre}->{name}"] = made
        projections |= recurrence.projections(fold(key, name), name, layer.n)
        fan = fan_in(fold(key, f"{name}->readout"), layer.n, n_classes * population, density)
        projections[f"{name}->readout"] = Projection(
            name, READOUT, fan if spiking else merged(fan, population),
            plastic=plastic_readout, gain=float(spiking or not plastic_readout),
        )  # fmt: skip
        pre, n_pre = name, layer.n
    if spiking:
        projections["readout->readout"] = _lateral(n_classes, population, inhibition * density)
    n, heard = (population, density) if spiking else (1, density * population)
    neuron = eqx.tree_at(lambda r: r.r_mem, readout, readout.r_mem / heard)
    rule = ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)  # the delta rule
    layers[READOUT] = Layer(n_classes * n, neuron, rule=rule)
    return Network(layers, projections)


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


def _lateral(n_classes: int, population: int, inhibition: float) -> Projection:
    """Every readout neuron inhibits those of all other classes; the weights sum to -inhibition."""
    n = n_classes * population
    owner = jnp.arange(n) // population
    rivals = owner[:, None] != owner[None]
    w = jnp.where(rivals, -inhibition / (n - population), 0.0)
    return Projection(READOUT, READOUT, Dense(n, n, rivals), delay=1, plastic=False, w=w)


def __dir__() -> list[str]:
    return __all__
