"""Running one network from one seed, in pieces, so that no raster of the whole is ever held."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

import neurojax as nj
from neurojax import sharding
from neurojax.network import Network, State


class Ready(NamedTuple):
    """A network that has only to be run."""

    net: Network
    state: State


# Bytes of a raster held at once.
_PIECE = 100_000_000


class Went(NamedTuple):
    """Weights and state at the end of a run, and the spikes that were watched."""

    weights: dict[str, Any]
    state: State
    spikes: nj.spikes.Trains


def watched(
    made: Ready, layer: str, *, seconds: float, dt: float, key: jax.Array, mesh: Mesh | None = None
) -> nj.spikes.Trains:
    """Spikes of one layer over `seconds` of biology in steps of `dt` ms, weights as they are."""
    weights = made.net.init_weights(nj.fold(key, "weights"))
    options: Any = dict(seconds=seconds, dt=dt, key=key, mesh=mesh)
    return run(made, weights, layer, learn=False, **options).spikes


def run(
    made: Ready, weights: dict[str, Any], layer: str, *, seconds: float, dt: float, key: jax.Array,
    learn: bool, mesh: Mesh | None = None,
) -> Went:  # fmt: skip
    """The same from given weights; with `learn` they change.

    The neurons are divided over the axis "neuron" of a `mesh`, if there is one.
    """
    sizes = _parts(round(seconds * 1000 / dt), _PIECE // made.net.layers[layer].n)
    net, state, pieces = made.net, made.state, []
    if learn and not state.rules:
        state = state._replace(rules=net.init_rules())
    if mesh is not None:
        _refuse_uneven(mesh, net)
        net, weights, state = sharding.place(mesh, net, weights, state)
    everywhere = lambda x: x if mesh is None else sharding.replicated(mesh, x)  # noqa: E731
    for i, size in enumerate(sizes):
        found = nj.simulate(
            net, weights, state, {}, n_steps=size, dt=dt, probe=nj.recording.spikes(layer),
            key=everywhere(jax.random.fold_in(nj.fold(key, "run"), i)), learn=learn,
        )  # fmt: skip
        weights, state, z = found if learn else (weights, *found)
        pieces.append(nj.spikes.trains(np.asarray(everywhere(z)), dt=dt))
    if mesh is not None:
        weights, state = sharding.collect(made.net, weights, state)
    return Went(weights, state, nj.spikes.joined(*pieces))


def _refuse_uneven(mesh: Mesh, net: Network) -> None:
    devices = mesh.shape["neuron"]
    for name, layer in net.layers.items():
        if layer.n % devices:
            raise ValueError(
                f"--num-processes must divide the {layer.n} neurons of layer {name!r}; got"
                f" {devices} devices in all: pass another, or another --scale"
            )


def _parts(n: int, most: int) -> list[int]:
    """Numbers near one another, each at most `most`, that are n together.

    Of one size, so that one program runs them all, unless that takes twice as many of them.
    """
    few = -(-n // max(most, 1))
    k = next((k for k in range(few, 2 * few) if n % k == 0), few)
    return [(i + 1) * n // k - i * n // k for i in range(k)]


def begun(net: Network, layer: str, *, v: Any, **ports: Any) -> State:
    """The state at rest, but for potentials `v` (mV) and what flows already at named ports."""
    state, x = net.init(), net.init()
    neuron = x.neurons[layer]._replace(v=np.asarray(v, np.float32))
    held = x.ports[layer] | {
        port: x.ports[layer][port]._replace(i=np.asarray(i, np.float32))
        for port, i in ports.items()
    }
    return state._replace(
        neurons=state.neurons | {layer: jax.tree.map(jax.numpy.asarray, neuron)},
        ports=state.ports | {layer: jax.tree.map(jax.numpy.asarray, held)},
    )
