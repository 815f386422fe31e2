"""A spiking network whose every projection is sparse and small-world, and where it sits on a mesh.

All populations lie along one ring, and what a neuron hears is the nearest part of the sending
population, each synapse rewired at random with probability p. The readout neurons of a class
are spread evenly along the ring, so that without rewiring each still sees its own part alone.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from hardware import routing, topology
from hardware.energy import LOIHI, Energy, activity, energy
from neurojax.learning import wta_broadcast as wb
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons.leaky import LeakyIntegrator
from neurojax.plasticity.three_factor import ThreeFactor, always
from neurojax.wiring.generators import watts_strogatz
from neurojax.wiring.layouts import FanIn

READOUT = "readout"


class Plan(NamedTuple):
    """Sizes and gains of the network; synapses are counted by fan-in."""

    n_in: int
    hidden: tuple[int, ...]
    n_classes: int
    population: int  # readout neurons a class
    k_in: int
    k: int  # within and between hidden layers
    k_out: int
    gain_in: float
    gain_forward: float
    gain_recurrent: float


def network(
    plan: Plan, layer: Layer, out: LeakyIntegrator, key: Key[Array, ""], p: float | Array
) -> Network:
    """Input -> h1 -> h2 ... -> readout, which hears every hidden layer; all rewired with `p`."""
    layers: dict[str, Layer] = {}
    projections: dict[str, Projection] = {}

    def add(pre: str, post: str, n_pre: int, n_post: int, k: int, gain: float, delay: int = 0):
        name = f"{pre}->{post}"
        fan = watts_strogatz(fold(key, name), n_pre, n_post, k, p)
        fan = _interleaved(fan, plan.population) if post == READOUT else fan
        projections[name] = Projection(pre, post, fan, delay=delay, gain=gain)

    pre, n_pre, k, gain = "input", plan.n_in, plan.k_in, plan.gain_in
    n_out = plan.n_classes * plan.population
    for i, n in enumerate(plan.hidden):
        name = f"h{i + 1}"
        layers[name] = Layer(n, layer.neuron, layer.synapse, layer.rule)
        add(pre, name, n_pre, n, k, gain)
        add(name, name, n, n, plan.k, plan.gain_recurrent, delay=1)
        add(name, READOUT, n, n_out, plan.k_out, 0.0)
        pre, n_pre, k, gain = name, n, plan.k, plan.gain_forward
    heard = plan.k_out / plan.hidden[0]
    out = eqx.tree_at(lambda x: x.r_mem, out, out.r_mem / heard)
    delta = ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)
    return Network(layers | {READOUT: Layer(n_out, out, rule=delta)}, projections)


def _interleaved(fan: FanIn, population: int) -> FanIn:
    """Places along the ring in turn to each class, where the readout is numbered class by class."""
    k = fan.shape[1]
    return FanIn(fan.index.reshape(population, -1, k).swapaxes(0, 1).reshape(-1, k), fan.n_pre)


def columns(plan: Plan, mesh: topology.Mesh) -> Int[Array, " n"]:
    """Neurons in the order of their place along the ring, on a snake of cores.

    Numbered as by `topology.wiring`: hidden layers, all of one size, then the readout.
    """
    n_out = plan.n_classes * plan.population
    turn = np.arange(n_out).reshape(plan.population, -1).T.reshape(-1)  # as `_interleaved`
    place = [np.arange(n) / n for n in plan.hidden] + [turn / n_out]
    order = np.argsort(np.concatenate(place), kind="stable")
    snake = np.asarray(topology.linear(len(order), mesh, snake=True))
    core = np.empty_like(snake)
    core[order] = snake
    return topology.given(core, mesh)


class Price(NamedTuple):
    """What one inference takes on the mesh; spikes are sent as multicast trees."""

    hops_per_edge: Array
    hops_per_spike_unicast: Array
    hops_per_spike: Array
    hottest_link: Array  # spikes over it
    latency: Array  # s, mean over synapses
    burst: Array  # s, least time in which the spikes of one mean tick leave the mesh
    energy: Energy  # J on Loihi


def price(
    system: wb.System, rates: dict[str, Float[Array, " n"]], placement: Int[Array, " n"],
    mesh: topology.Mesh,
) -> Price:  # fmt: skip
    """Of mean spikes per step `rates` of the hidden layers, in real time; can be vmapped."""
    net, n_steps = system.network, system.n_steps
    counts = {name: r * n_steps for name, r in rates.items()}
    nothing = {net.projections[name].pre: _silence(net, name) for name in net.external()}
    options = {"dt": system.dt, "n_steps": n_steps, "inputs": nothing}
    edges, spikes = topology.wiring(net)[0], _all(net, counts)
    one = routing.unicast(edges, placement, mesh, spikes)
    tree = routing.multicast(edges, placement, mesh, spikes)

    def routed(edges, placement, mesh, spikes):
        return tree

    did = activity(net, dict(counts), placement, mesh, **options, route=routed)
    per_second = tree._replace(load=tree.load * 1000 / (n_steps * system.dt))
    delay = routing.loihi_delay()
    late = routing.latency(edges, placement, mesh, per_second, delay, 1 / delay.hop_ns)
    sent = jnp.maximum(spikes.sum(), 1)
    return Price(
        topology.mean_hops(edges, placement, mesh), one.spike_hops / sent,
        tree.spike_hops / sent, tree.hottest.load, late.latency.mean(),
        routing.burst(tree, delay.hop_ns) / n_steps, energy(did, LOIHI),
    )  # fmt: skip


def _silence(net: Network, name: str) -> Array:
    """Pictures come as currents: no spike enters from outside."""
    return jnp.zeros(net.projections[name].connectivity.n_pre)


def _all(net: Network, counts: dict[str, Array]) -> Array:
    """Spikes of every neuron in the order of `topology.wiring`."""
    layers = sorted(net.layers.items())
    return jnp.concatenate([counts.get(n, jnp.zeros(x.n)) for n, x in layers])
