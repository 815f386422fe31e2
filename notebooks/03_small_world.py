# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A small world on a mesh of cores
#
# Wiring that is mostly local is cheap to route, and a few synapses that go far make all paths
# short. Here is that trade in numbers: the graph, a network that spikes on it, the mesh of cores
# that it would sit on, and what each of its spikes would cost there.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import hardware as hw
import neurojax as nj

# %% [markdown]
# ## The small-world curve
#
# 400 neurons on a ring hear their 10 nearest; each synapse is rewired to anywhere with probability
# $p$ (Watts and Strogatz 1998). Every neuron keeps its ten inputs, as a chip has fan-in slots.
# Clustering $C$ is the part of a neuron's partners that are partners themselves, $L$ the mean
# number of synapses from one neuron to another.

# %%
n, k = 400, 10
p = np.array([0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
graphs = [nj.watts_strogatz(jax.random.key(0), n, n, k, x) for x in p]
C = np.array([nj.metrics.clustering(g) for g in graphs])
L = np.array([nj.metrics.path_length(g).length for g in graphs])

figure = Figure(figsize=(4.6, 3.0), dpi=140, layout="constrained")
ax = figure.subplots()
ax.plot(p, C / C[0], "o-", color="#009E73", markersize=4, label="clustering $C/C_0$")
ax.plot(p, L / L[0], "o-", color="#0072B2", markersize=4, label="path length $L/L_0$")
ax.set_xscale("symlog", linthresh=0.003, linscale=0.5)
ax.set_xticks(p, [f"{x:g}" for x in p])
ax.set_xlim(0, 1.1)
ax.set_ylim(bottom=0)
ax.set_xlabel("Rewired part $p$")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
figure

# %% [markdown]
# At $p$ = 0.1 paths are nearly as short as in a random graph, and clustering is mostly there yet.
# Two numbers say so: $\sigma$ is well above 1, $\omega$ is near 0.

# %%
small = nj.metrics.small_world(jax.random.key(1), graphs[4])
print(f"sigma {small.sigma:.1f}, omega {small.omega:+.2f}")
assert small.sigma > 3

# %% [markdown]
# ## It spikes
#
# The same graph as a recurrent network. `by_sender` lists the synapses by who sends, and a step
# then costs what its spikes cost: the layout for large sparse networks. `FanIn` and `Dense` give
# the same currents.


# %%
def simulated(graph, gain=1.0, seed=2, steps=400):
    """Spikes [steps, n] of leaky neurons that a noisy start sets going."""
    edges = graph.edges()
    wiring = nj.by_sender(edges.pre, edges.post, n, n)
    cells = nj.Layer(n, nj.LIF(tau_mem=20.0, v_rest=1.1, t_ref=2.0), nj.Exponential(5.0))
    loop = nj.Projection("cells", "cells", wiring, delay=2, gain=gain)
    net = nj.Network({"cells": cells}, {"loop": loop})
    weights = net.init_weights(jax.random.key(seed))
    state = net.init()
    v = jax.random.uniform(jax.random.key(seed + 1), (n,))
    state.neurons["cells"] = state.neurons["cells"]._replace(v=v)
    run = jax.jit(
        lambda weights, state: nj.simulate(
            net, weights, state, {}, n_steps=steps, dt=1.0, probe=lambda r: r["cells"].z
        )[1]
    )
    return run(weights, state)


z = simulated(graphs[4])
print(f"{1000 * z.mean():.1f} spikes a second and neuron")
assert 1 < 1000 * z.mean() < 100

figure = Figure(figsize=(7.0, 2.6), dpi=140, layout="constrained")
ax = figure.subplots()
t, who = np.nonzero(np.asarray(z))
ax.plot(t, who, ",", color="#222222")
ax.set_xlabel("Time (ms)")
ax.set_ylabel("Neuron")
ax.spines[["top", "right"]].set_visible(False)
figure

# %% [markdown]
# ## On a mesh
#
# A chip of 10 × 10 cores, four neurons each. Neurons go on it in order, in a snake, so that
# neighbours on the ring are neighbours on the mesh. A packet runs along its row first, then along
# its column. What the spikes above would load on the links if each of three graphs had to carry
# them:

# %%
mesh = hw.Mesh(10, 10, neurons_per_core=4)
snake = hw.topology.linear(n, mesh, snake=True)
spikes = z.sum(0)


def carried(graph, placement=snake):
    """Traffic of all those spikes, as multicast trees."""
    return hw.routing.multicast(graph.edges(), placement, mesh, spikes)


shown = {"lattice": 0, "p = 0.1": 4, "random": 6}
figure = Figure(figsize=(7.0, 2.5), dpi=140, layout="constrained")
axes = figure.subplots(1, 3)
loads = {name: np.asarray(carried(graphs[i]).load).sum(0) for name, i in shown.items()}
top = max(load.max() for load in loads.values())
for ax, (name, load) in zip(axes, loads.items(), strict=True):
    image = ax.imshow(load, cmap="viridis", vmin=0, vmax=top)
    ax.set_title(name, loc="left", fontsize="medium")
    ax.set_xticks([])
    ax.set_yticks([])
figure.colorbar(image, ax=list(axes), label="Spikes out of a core")
figure

# %% [markdown]
# The hottest link decides how fast a tick can be: all of its spikes have to pass one by one.

# %%
for name, i in shown.items():
    link = carried(graphs[i]).hottest
    x, y, direction = int(link.x), int(link.y), hw.routing.DIRECTIONS[int(link.direction)]
    print(f"{name:8} {link.load:5.0f} spikes over the link {direction} out of core ({x}, {y})")

# %% [markdown]
# If neurons come in no order, a placement can be found from the wiring alone: network and mesh are
# cut in halves together, along the network's weakest cut.

# %%
order = jax.random.permutation(jax.random.key(3), n)
edges = graphs[4].edges()
mixed = edges._replace(pre=order[edges.pre], post=order[edges.post])
for name, placement in {
    "in order": hw.topology.linear(n, mesh),
    "bisected": hw.topology.bisected(mixed, n, mesh),
}.items():
    print(f"{name}: {hw.topology.mean_hops(mixed, placement, mesh):.2f} hops a synapse")

# %% [markdown]
# ## The price of a spike
#
# Sent alone to each core that has a receiver (unicast), or once, branching on the way (multicast):
# all graphs at once, by `vmap`. Energies are those that were published for Loihi.

# %%
stacked = jax.tree.map(lambda *x: jnp.stack(x), *[g.edges() for g in graphs])


chip = hw.energy.LOIHI


def picojoule(route):
    """What the links take for a spike, mean, in every graph."""

    def one(edges):
        sent = route(edges, snake, mesh, spikes)
        east_west, north_south = sent.total(sent.hops_ew), sent.total(sent.hops_ns)
        return (east_west * chip.hop_ew.value + north_south * chip.hop_ns.value) / spikes.sum()

    return 1e12 * np.asarray(jax.vmap(one)(stacked))


unicast, multicast = picojoule(hw.routing.unicast), picojoule(hw.routing.multicast)
assert (multicast <= unicast).all()

figure = Figure(figsize=(4.6, 3.0), dpi=140, layout="constrained")
ax = figure.subplots()
for name, values, colour in (
    ("unicast", unicast, "#D55E00"),
    ("multicast", multicast, "#0072B2"),
):
    ax.plot(p, values, "o-", color=colour, markersize=4, label=f"links, {name}")
ax.axhline(1e12 * k * chip.synaptic.value, color="#222222", linestyle="--", label="ten synapses")
ax.set_xscale("symlog", linthresh=0.003, linscale=0.5)
ax.set_xticks(p, [f"{x:g}" for x in p])
ax.set_xlim(0, 1.1)
ax.set_ylim(bottom=0)
ax.set_xlabel("Rewired part $p$")
ax.set_ylabel("Energy of a spike (pJ)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
figure

# %% [markdown]
# Synapses still cost more than wires here; at ten inputs a neuron a random graph brings them
# within reach of one another. `python -m experiments.routing_cost` asks what the far synapses are
# worth: it trains such networks for each $p$ and sets accuracy beside hops, the hottest link and
# energy.
