"""The structured recurrent network: locally dense layers, sparse projections to a readout."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Key

from neurojax._check import choice
from neurojax.connectivity import fan_in, locally_dense, merged
from neurojax.layouts import Dense
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons import LIF, LeakyIntegrator
from neurojax.plasticity import ThreeFactor, always

READOUT = "readout"


class Recurrence(eqx.Module):
    """How each hidden layer connects to itself.

    "local": a ring on which all neurons within `radius` connect, a part `p_rewire` of the
    synapses sent far away instead (`locally_dense`); the far ones stay fixed. "dense": all
    to all. "none". `gain` scales the initial weights.
    """

    kind: Literal["local", "dense", "none"] = eqx.field(
        static=True, default="local", converter=choice("recurrence", "local", "dense", "none")
    )
    radius: int = eqx.field(static=True, default=16)
    p_rewire: float = eqx.field(static=True, default=0.1)
    gain: float = eqx.field(static=True, default=1.0)
    plastic: bool = eqx.field(static=True, default=True)

    def projections(self, key: Key[Array, ""], name: str, n: int) -> dict[str, Projection]:
        """Synapses of layer `name` onto itself, one step late."""
        if self.kind == "none":
            return {}
        if self.kind == "dense":
            return {f"{name}->{name}": self._loop(name, Dense(n, n), self.plastic, self.gain)}
        near, far = locally_dense(key, n, self.radius, self.p_rewire)
        share = 0.0 if far is None else far.shape[1] / (2 * self.radius)
        made = {}
        if share < 1:
            gain = self.gain * (1 - share) ** 0.5
            made[f"{name}->{name}"] = self._loop(name, near, self.plastic, gain)
        if far is not None:
            gain = self.gain * share**0.5
            made[f"{name}->{name} far"] = self._loop(name, far, False, gain)
        return made

    def _loop(self, name, connectivity, plastic, gain) -> Projection:
        return Projection(name, name, connectivity, delay=1, plastic=plastic, gain=gain)


def structured(
    key: Key[Array, ""],
    n_in: int,
    hidden: list[Layer],
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
    weight `inhibition`, one step late.
    """
    names = [f"h{i + 1}" for i in range(len(hidden))]
    layers, projections = dict(zip(names, hidden, strict=True)), {}
    readout = LeakyIntegrator(tau_mem=-1 / jnp.log(0.9)) if readout is None else readout
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


def _lateral(n_classes: int, population: int, inhibition: float) -> Projection:
    """Every readout neuron inhibits those of all other classes; the weights sum to -inhibition."""
    n = n_classes * population
    owner = jnp.arange(n) // population
    rivals = owner[:, None] != owner[None]
    w = jnp.where(rivals, -inhibition / (n - population), 0.0)
    return Projection(READOUT, READOUT, Dense(n, n, rivals), delay=1, plastic=False, w=w)
