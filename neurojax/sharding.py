"""One network over many devices, by JAX's own runtime: a mesh, and what lies where on it.

    axis "data"      samples of a batch: `nj.fit(..., mesh=mesh)`
    axis "neuron"    neurons of one network: `place`, then `nj.simulate` as ever

Each device holds its neurons and the synapses onto them (`FanOut` by receiver), and gathers the
spikes of all: a bit a neuron, once a step, or once in as many steps as the smallest delay.
What is drawn is drawn as on one device.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from neurojax import _given
from neurojax._batches import DATA
from neurojax._check import brief, count, kind
from neurojax.layers import Layer, Projection
from neurojax.network import Network, State
from neurojax.neurons.sources import Poisson
from neurojax.synapses.delays import Delays
from neurojax.weights import Ideal, Weights
from neurojax.wiring.layouts import Dense, FanIn
from neurojax.wiring.shards import AXIS, Shards, divided, put, spread, whole
from neurojax.wiring.sparse import FanOut, by_sender

__all__ = ["collect", "mesh", "place", "replicated"]


def __dir__() -> list[str]:
    return __all__


def mesh(data: int = 1, neuron: int = 1) -> Mesh:
    """A mesh of `data` x `neuron` devices with these two axes, of all processes together.

    >>> dict(nj.sharding.mesh(neuron=1).shape)
    {'data': 1, 'neuron': 1}

    Raises `ValueError` for more devices than there are.
    """
    shape = count("data")(data), count("neuron")(neuron)
    there, asked = jax.device_count(), shape[0] * shape[1]
    if asked > there:
        kind = jax.devices()[0].platform
        cure = ": set JAX_NUM_CPU_DEVICES before JAX starts for more of them" * (kind == "cpu")
        raise ValueError(
            f"data x neuron must be at most {there}, the {kind} devices that are there; got"
            f" {asked}{cure}"
        )
    return jax.make_mesh(shape, (DATA, AXIS), (AxisType.Auto,) * 2, devices=jax.devices()[:asked])


def replicated(mesh: Mesh, tree: Any) -> Any:
    """The same pytree with all of each array on every device of the mesh."""
    at = NamedSharding(_known(mesh), PartitionSpec())
    keep = lambda x: put(x, at) if isinstance(x, jax.Array | np.ndarray) else x  # noqa: E731
    return jax.tree.map(keep, tree)


def place(
    mesh: Mesh, net: Network, weights: dict[str, Weights], state: State
) -> tuple[Network, dict[str, Weights], State]:
    """Network, weights and state with neurons divided over the axis "neuron" of the mesh.

    What has a number for each neuron is divided along it, whatever has one a synapse by receiver,
    the rest is whole on each device. `nj.simulate` then takes the three as any others; `collect`
    is the way back. Spikes go from device to device as bits where the sender's neurons have a
    `spike` or are `Poisson`, through `FanOut`, `FanIn` and `Dense` of numbers, and not at all
    where each device hears none but its own neurons, as one to one; what else is sent goes as
    numbers: graded outputs, what a `release` sets free, through other layouts and onto devices of
    `hardware`. Event lists give what they give on one device to the last bit, with all that they
    learn, matrix products to their rounding.

    >>> cells = nj.Layer(4, nj.LIF())
    >>> wiring = nj.by_sender([0, 1, 2, 3], [1, 2, 3, 0], 4, 4)
    >>> loop = nj.Projection("cells", "cells", wiring, delay=1, w=jnp.ones(4))
    >>> net = nj.Network({"cells": cells}, {"loop": loop})
    >>> mesh = nj.sharding.mesh(neuron=1)
    >>> weights = net.init_weights(jax.random.key(0))
    >>> there = nj.sharding.place(mesh, net, weights, net.init())
    >>> there[0].projections["loop"].connectivity
    Shards(4 -> 4, 4 synapses, 1 device)

    Raises `ValueError` for a layer that the mesh does not divide, for weights or a state of
    another network, and for weights of an event list that are no numbers.
    """
    mesh = _known(mesh)
    _given.weights(kind("net", net, Network), weights)
    _given.state(net, state)
    _refuse_placed(net)
    _refuse_uneven(mesh, net)
    made = {n: _wiring(mesh, net, n, weights[n]) for n in net.projections}
    layers = {n: _along(mesh, x, x.n) for n, x in net.layers.items()}
    projections = {n: _projection(mesh, net, n, made[n]) for n in net.projections}
    gaps = {n: _rows(mesh, x, x.connectivity.n_post) for n, x in net.gaps.items()}
    placed = replace(net, layers=layers, projections=projections, gaps=gaps)
    held = {n: _weights(mesh, net, n, weights[n], made[n]) for n in net.projections}
    return placed, held, _state(mesh, net, made, state)


def collect(
    net: Network, weights: dict[str, Weights], state: State
) -> tuple[dict[str, Weights], State]:
    """Weights and state that were placed, as they would be on one device: `net` is not placed.

    A checkpoint of these two knows no mesh: it may be placed on another, or on none.
    Raises `ValueError` for a network that is placed itself.
    """
    _refuse_placed(kind("net", net, Network))
    _refuse_others(net, weights)
    _given.state(net, state)
    lists = {n: p.connectivity for n, p in net.projections.items()}
    held = {n: _collected(w, lists[n]) for n, w in weights.items()}
    return held, _host(state)._replace(
        rules={n: _whole_traces(net, n, x) for n, x in state.rules.items()}
    )


def _refuse_others(net: Network, weights: Any) -> None:
    if kind("weights", weights, dict).keys() != net.projections.keys():
        raise ValueError(
            f"weights must have the projections {sorted(net.projections)}; got {brief([*weights])}"
        )


def _known(mesh: Any) -> Mesh:
    if not isinstance(mesh, Mesh) or AXIS not in mesh.shape:
        raise TypeError(
            f'mesh must be a Mesh with an axis "{AXIS}"; got {brief(mesh)}: pass'
            " nj.sharding.mesh(neuron=2)"
        )
    return mesh


def _refuse_placed(net: Network) -> None:
    for name, p in net.projections.items():
        if isinstance(p.connectivity, Shards):
            raise ValueError(
                f"net must not be placed; projection {name!r} has {p.connectivity}: pass the"
                " network that place was given"
            )


def _refuse_uneven(mesh: Mesh, net: Network) -> None:
    n = mesh.shape[AXIS]
    for name, layer in net.layers.items():
        if layer.n % n:
            fit = [k for k in range(1, n + 1) if all(x.n % k == 0 for x in net.layers.values())]
            more = layer.n + -layer.n % n
            raise ValueError(
                f"layer {name!r} must have a multiple of {n} neurons, the devices along"
                f' "{AXIS}"; got {layer.n}: make it {more}, or pass a mesh of'
                f" {' or '.join(map(str, fit))} devices along it"
            )


# --- what lies where ---


def _at(mesh: Mesh, *names: str | None) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*names))


def _along(mesh: Mesh, tree: Any, n: int) -> Any:
    """Arrays whose last axis is that of `n` neurons divided along it, others whole everywhere."""
    n_devices = mesh.shape[AXIS]

    def one(x: Any) -> Any:
        if not eqx.is_array(x):
            return x
        of_neurons = x.ndim and x.shape[-1] == n and n % n_devices == 0
        return put(x, _at(mesh, *(None,) * (x.ndim - 1), AXIS) if of_neurons else _at(mesh))

    return jax.tree.map(one, tree)


def _rows(mesh: Mesh, tree: Any, n_post: int) -> Any:
    """Arrays of a row a receiver divided by rows, others whole everywhere."""

    def one(x: Any) -> Any:
        if not eqx.is_array(x):
            return x
        rows = x.ndim > 1 and x.shape[0] == n_post and n_post % mesh.shape[AXIS] == 0
        return put(x, _at(mesh, AXIS) if rows else _at(mesh))

    return jax.tree.map(one, tree)


def _wiring(mesh: Mesh, net: Network, name: str, held: Any) -> Shards | None:
    """The wiring of a projection, divided; None where XLA is to divide it."""
    p, sender = net.projections[name], net.layers.get(net.projections[name].pre)
    if isinstance(p.connectivity, FanOut) and not isinstance(held, Ideal):
        raise ValueError(
            f"weights of projection {name!r} must be numbers (nj.Ideal) to be divided with its"
            f" event list; got {type(held).__name__}"
        )
    if not isinstance(p.connectivity, FanOut | FanIn | Dense) or not isinstance(held, Ideal):
        return None
    spikes = sender is not None and _in_bits(sender, p)
    return divided(p.connectivity, mesh, spikes=spikes, inside=sender is not None)


def _in_bits(sender: Layer, p: Projection) -> bool:
    """Whether what it sends is 0 or 1."""
    fires = hasattr(sender.neuron, "spike") or isinstance(sender.neuron, Poisson)
    return fires and p.release is None


def _projection(mesh: Mesh, net: Network, name: str, shards: Shards | None) -> Projection:
    p = net.projections[name]
    release = _along(mesh, p.release, _senders(net, p))
    if shards is None:
        rest = _rows(mesh, _swapped(p, release=None), p.connectivity.n_post)
        return _swapped(rest, release=release)
    w = None if p.w is None else spread(p.w, p.connectivity, shards)
    delays = _delays(mesh, p, shards)
    return _swapped(p, connectivity=shards, w=w, delays=delays, release=release)


def _swapped(p: Projection, **fields: Any) -> Projection:
    """With other fields, which are not looked into: they may lie on several machines."""
    where = lambda p: [getattr(p, name) for name in fields]  # noqa: E731
    return eqx.tree_at(where, p, [*fields.values()], is_leaf=lambda x: x is None)


def _senders(net: Network, p: Projection) -> int:
    """How many neurons of a layer send; none where the sender is an input from outside."""
    return p.connectivity.n_pre if p.pre in net.layers else 0


def _one_a_synapse(p: Projection) -> bool:
    return p.delays is not None and p.delays.steps.ndim > 0


def _by_arrival(p: Projection) -> bool:
    """Whether what is under way waits at the receiver."""
    return _one_a_synapse(p) and isinstance(p.connectivity, FanOut)


def _delays(mesh: Mesh, p: Projection, shards: Shards) -> Delays | None:
    if p.delays is None or not _one_a_synapse(p):
        return replicated(mesh, p.delays)
    # A check at run time (`eqx.error_if`) takes what it checks through a conditional that XLA puts
    # on one device: it warns of an "involuntary full rematerialization" of these, and gathers them.
    late = np.asarray(p.delays.steps) - 1  # places that are filled up have a delay as well
    return eqx.tree_at(lambda d: d.steps, p.delays, spread(late, p.connectivity, shards) + 1)


def _weights(mesh: Mesh, net: Network, name: str, held: Any, shards: Shards | None) -> Any:
    wiring = net.projections[name].connectivity
    if shards is None:
        return _rows(mesh, held, wiring.n_post)

    def one(x: Any) -> Any:
        if x is None or x.shape != wiring.shape:
            return replicated(mesh, x)
        return spread(x, wiring, shards)

    return Ideal(one(held.w), shards, one(held.low), one(held.high))


def _state(mesh: Mesh, net: Network, made: dict[str, Shards | None], state: State) -> State:
    """Of a layer by neuron, of what is under way and released by sender, or by receiver."""
    layers, wires = net.layers, net.projections
    senders = {p.pre: _senders(net, p) for p in wires.values()}
    lines = {
        n: p.connectivity.n_post if _by_arrival(p) else _senders(net, p) for n, p in wires.items()
    }
    of_layers = {n: x.n for n, x in layers.items()}
    along = lambda part, sizes: {n: _along(mesh, x, sizes[n]) for n, x in part.items()}  # noqa: E731
    released = {n: _senders(net, p) for n, p in wires.items()}
    return State(
        along(state.neurons, of_layers), along(state.synapses, of_layers),
        along(state.sent, senders), along(state.delays, lines), along(state.ports, of_layers),
        along(state.release, released),
        {n: _traces(mesh, net, n, x, made[n]) for n, x in state.rules.items()},
    )  # fmt: skip


def _traces(mesh: Mesh, net: Network, name: str, traces: Any, shards: Shards | None) -> Any:
    """Traces of senders whole on each device, of receivers divided, of synapses by receiver."""
    wiring = net.projections[name].connectivity

    def one(x: Any, kind: str) -> Any:
        if kind == "synapse" and shards is not None:
            return spread(x, wiring, shards)
        if kind == "synapse":
            return _rows(mesh, x, wiring.n_post)
        near = kind == "receiver" or (kind == "sender" and shards is not None and shards.local)
        return _along(mesh, x, x.shape[-1]) if near else replicated(mesh, x)

    return jax.tree.map(one, traces, _kinds(net.rule(name)))


def _whole_traces(net: Network, name: str, traces: Any) -> Any:
    wiring = net.projections[name].connectivity
    one = lambda x, kind: whole(x, wiring) if kind == "synapse" else x  # noqa: E731
    return jax.tree.map(one, _host(traces), _kinds(net.rule(name)))


def _kinds(rule: Any) -> Any:
    """Of each trace, whose it is: asked with a wiring in which all numbers differ."""
    wiring = by_sender([0], [0], n_pre=2, n_post=3)
    of = {(1,): "synapse", (2,): "sender", (3,): "receiver"}
    made = jax.eval_shape(lambda: rule.init(wiring))
    return jax.tree.map(lambda x: of.get(x.shape, "other"), made)


def _collected(held: Any, wiring: Any) -> Any:
    """Weights on the host, those of an event list in its order."""
    if not isinstance(getattr(held, "connectivity", None), Shards):
        return _host(held)
    shape = held.connectivity.shape

    def one(x: Any) -> Any:
        return whole(_everywhere(x), wiring) if x is not None and x.shape == shape else _host(x)

    return Ideal(one(held.w), wiring, one(held.low), one(held.high))


def _host(tree: Any) -> Any:
    """Arrays of one device, of all that are divided."""

    def one(x: Any) -> Any:
        if not eqx.is_array(x):
            return x
        x = _everywhere(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                jnp.asarray(np.asarray(jax.random.key_data(x))), impl=jax.random.key_impl(x)
            )
        return jnp.asarray(np.asarray(x))

    return jax.tree.map(one, tree)


def _everywhere(x: Any) -> Any:
    """An array of which each process can read all."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return x
    at = NamedSharding(x.sharding.mesh, PartitionSpec())  # pyright: ignore[reportAttributeAccessIssue]
    return put(x, at)
