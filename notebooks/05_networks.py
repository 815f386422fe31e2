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
# # Networks
#
# 2,000 neurons that excite and inhibit one another through conductances fire together, until their
# inhibitory synapses have learnt, while the network runs, to balance excitation.

# %%
# %matplotlib inline
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import neurojax as nj

# %% [markdown]
# ## Ports and conductances
#
# A layer has receptors by name, its ports. A conductance is any kinetics with a reversal potential.

# %%
n_exc, n_inh, key = 1600, 400, jax.random.key(0)
n = n_exc + n_inh
ports = {
    "exc": nj.Conductance(nj.Exponential(5.0), e_rev=0.0),
    "inh": nj.Conductance(nj.Exponential(10.0), e_rev=-80.0),
}
neuron = nj.LIF(
    tau_mem=20.0, r_mem=100.0, v_rest=-40.0, v_th=-50.0, v_reset=-60.0, t_ref=5.0
)  # a current of 0.2 nA alone makes it fire
sizes, p = [n_exc, n_inh], 0.1
to_all = nj.blocks(nj.fold(key, "exc"), sizes, sizes, [[p, 0], [p, 0]])
to_inh = nj.blocks(nj.fold(key, "inh"), sizes, sizes, [[0, 0], [0, p]])
learns = nj.blocks(nj.fold(key, "learns"), sizes, sizes, [[0, p], [0, 0]]).with_columns()


# %% [markdown]
# ## A rule that runs with the network
#
# Inhibition onto each neuron grows where it fires too often, and falls where it is silent (Vogels
# et al. 2011). The rule belongs to the projection, bounds to the weights.


# %%
def wire(wiring, port, w, **options):
    w = jnp.full(wiring.shape, w)
    return nj.Projection("cells", "cells", wiring, port=port, delay=1, w=w, **options)


net = nj.Network(
    {"cells": nj.Layer(n, neuron, ports=ports)},
    {
        "exc": wire(to_all, "exc", 0.0003, plastic=False),
        "inh": wire(to_inh, "inh", 0.003, plastic=False),
        "learns": wire(learns, "inh", 0.0, rule=nj.InhibitorySTDP(eta=1e-3, rho_0=3.0)),
    },
)
weights = net.init_weights(key, nj.ideal(bounds=(0.0, 0.1)))
v = jax.random.uniform(key, (n,), minval=-60.0, maxval=-50.0)
state = eqx.tree_at(lambda s: s.neurons["cells"].v, net.init(learn=True), v)
net

# %%
run = dict(dt=0.1, probe=nj.recording.spikes("cells"))
_, z = nj.simulate(net, weights, state, {}, n_steps=3000, learn=False, **run)
before = nj.spikes.trains(z, dt=0.1).after(100.0)
weights, state, _ = nj.simulate(net, weights, state, {}, n_steps=20_000, learn=True, **run)
_, z = nj.simulate(net, weights, state, {}, n_steps=3000, learn=False, **run)
after = nj.spikes.trains(z, dt=0.1)

# %% [markdown]
# Before, all fire together and as fast as they can; after two seconds, seldom and each on its own:

# %%
figure = Figure(figsize=(9, 3.5), layout="constrained")
for ax, (name, seen) in zip(
    figure.subplots(1, 2), {"before": before, "after": after}.items(), strict=True
):
    ax.plot(seen.times, seen.neurons, ".", markersize=0.8)
    rate, chi = nj.spikes.rates(seen).mean(), nj.spikes.synchrony(seen, 5.0)
    ax.set(
        title=f"{name}: {rate:.1f} Hz, synchrony {chi:.2f}",
        xlabel="Time (ms)",
        ylabel="Neuron, from 1,600 on inhibitory",
    )
figure

# %%
assert nj.spikes.rates(before).mean() > 20 * nj.spikes.rates(after).mean()
assert nj.spikes.synchrony(before, 5.0) > 3 * nj.spikes.synchrony(after, 5.0)

# %% [markdown]
# What inhibition has learnt, synapse by synapse:

# %%
w = np.asarray(weights["learns"].w) * 1000
figure = Figure(figsize=(4, 3), layout="constrained")
ax = figure.subplots()
ax.hist(w, bins=60)
ax.set(xlabel="Inhibitory weight (nS)", ylabel="Synapses")
figure
