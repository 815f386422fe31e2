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
# # Synapses that are devices
#
# A memristive synapse is a conductance $G$ between $G_{min}$ and $G_{max}$ that moves by
# programming pulses. How far a pulse moves it depends on where it is, on the device, and on
# chance. Here is how each model responds, how an array of devices is brought to the weights
# that a learning rule asks for, and what variation from device to device does to it.
#
# Units are SI. All of it is pure functions of arrays: a parameter may be one number or one a
# device, and `vmap` sweeps anything that is a number.

# %%
# %matplotlib inline
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import hardware as hw
import neurojax as nj

# %% [markdown]
# ## How a conductance responds to pulses
#
# Sixty-four pulses up, then sixty-four down, without noise. $u = (G - G_{min})/(G_{max} -
# G_{min})$. Linear, exponential and Querlioz devices cross the whole range in that number of
# pulses; soft bounds and the power law approach their bound; phase-change memory (PCM) knows
# only one pulse down, a reset.

# %%
n = 64
measured = 1e-6 + 9e-6 * jnp.linspace(0.0, 1.0, n + 1) ** 0.5  # a table of conductances, S
models = {
    "linear": hw.Device(hw.linear(n)),
    "exponential": hw.Device(hw.exponential(n, n / 3)),
    "soft bounds": hw.Device(hw.soft_bounds(n / 3)),
    "Querlioz": hw.Device(hw.querlioz(n, 3.0)),
    "power": hw.Device(hw.power(n / 3, 2.0)),
    "exp step (ReRAM)": hw.Device(hw.exp_step(n / 2)),
    "piecewise": hw.Device(hw.piecewise(n / 2, jnp.array([0.2, 1.0, 1.0, 0.2]))),
    "table": hw.table(measured),
    "PCM": hw.PCM(),
}


def response(device):
    """u after each of n pulses up and n down."""

    def pulse(cells, up):
        cells = device.pulse(cells, up, 1 - up)
        return cells, (cells.G - device.G_min) / (device.G_max - device.G_min)

    start = device.init(jnp.full(1, device.G_min))
    up = jnp.repeat(jnp.array([1.0, 0.0]), n)[:, None]
    return jax.lax.scan(pulse, start, up)[1][:, 0]


figure = Figure(figsize=(7.2, 4.6), dpi=140, layout="constrained")
axes = figure.subplots(3, 3, sharex=True, sharey=True).ravel()
for ax, (name, device) in zip(axes, models.items(), strict=True):
    ax.plot(np.arange(1, 2 * n + 1), response(device), color="#0072B2")
    ax.set_title(name, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
axes[3].set_ylabel("$u$")
axes[7].set_xlabel("Pulses, up and then down")
figure

# %% [markdown]
# Many pulses at once are a closed form where there is one, and a loop elsewhere. Both agree:

# %%
device = models["exponential"]
start = device.init(jnp.full(1, device.G_min))
at_once = device.pulse(start, jnp.full(1, 20.0), jnp.zeros(1))
one_by_one = response(device)[19]
np.testing.assert_allclose((at_once.G - device.G_min) / 9e-6, one_by_one, rtol=1e-5)

# %% [markdown]
# ## Devices differ, and so do pulses
#
# `varied` draws devices whose every parameter differs by 30%, window and steps alike;
# `sigma_c2c` adds noise to each pulse, here 1% of the range. A few stay at one end.

# %%
noisy = hw.Device(hw.querlioz(n, 3.0), sigma_c2c=0.01)
devices = hw.varied(jax.random.key(0), noisy, (24,), 0.3, stuck_low=0.04)


def with_noise(cells, key_up):
    """Conductance after one more pulse up or down, S."""
    key, up = key_up
    cells = devices.pulse(cells, jnp.full(24, up), jnp.full(24, 1 - up), key=key)
    return cells, cells.G


keys = jax.random.split(jax.random.key(1), 2 * n)
ups = jnp.repeat(jnp.array([1.0, 0.0]), n)
_, G = jax.lax.scan(with_noise, devices.init(devices.G_min), (keys, ups))
figure = Figure(figsize=(4.8, 2.8), dpi=140, layout="constrained")
ax = figure.add_subplot()
ax.plot(1e6 * G, color="#0072B2", linewidth=0.8, alpha=0.6)
ax.set(xlabel="Pulses, up and then down", ylabel="Conductance (µS)")
ax.spines[["top", "right"]].set_visible(False)
figure

# %% [markdown]
# ## A pair that only goes up
#
# A weight is the difference of two devices, $w = (G^+ - G^-)\, w_{max} / R$. A *unidirectional*
# update raises $G^+$ to raise the weight and raises $G^-$ to lower it. Both wear out; a pair of
# which one is above 75% of the range and the other above 25% is *refreshed*: both are reset,
# and the difference is written back.

# %%
policy = hw.Unidirectional(hw.Single(n), upper=0.75, lower=0.25)
make_weights = hw.crossbar(hw.Device(hw.linear(n)), policy, w_max=1.0)
pair = make_weights(jnp.full((1, 1), 0.2), nj.Dense(1, 1), jax.random.key(2))


def update(array, key):
    """The pair after a random change, and where its two devices are."""
    asked = 0.03 * jax.random.normal(key, (1, 1))
    array = array.program(asked, key=jax.random.fold_in(key, 1))
    held = array.pair
    return array, (held.cells_plus.G[0, 0], held.cells_minus.G[0, 0], array.w[0, 0])


walk = eqx.filter_jit(lambda array, keys: jax.lax.scan(update, array, keys))
worn, (plus, minus, weight) = walk(pair, jax.random.split(jax.random.key(3), 400))
figure = Figure(figsize=(4.8, 3.6), dpi=140, layout="constrained")
top, below = figure.subplots(2, sharex=True)
top.plot(1e6 * plus, color="#D55E00", label="$G^+$")
top.plot(1e6 * minus, color="#0072B2", label="$G^-$")
top.set_ylabel("Conductance (µS)")
top.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, ncols=2)
below.plot(weight, color="#222222")
below.set(xlabel="Updates", ylabel="Weight")
for ax in (top, below):
    ax.spines[["top", "right"]].set_visible(False)
print(f"{int(worn.pair.spent.n_refresh[0, 0])} refreshes, {int(worn.n_pulses[0, 0])} pulses")
assert worn.pair.spent.n_refresh[0, 0] > 0
figure

# %% [markdown]
# ## One array, programmed under each policy
#
# An array of 20 × 20 synapses is asked, 200 times, for a tenth of what is missing to a random
# matrix. *Bidirectional* moves both devices of a pair, *one side* moves one against a fixed
# column, *write–verify* repeats what it does until the reading is right, and *mixed precision*
# collects small changes in digital memory. Querlioz devices make the step depend on where the
# device is, by $\beta$: 3 is strongly nonlinear, .01 next to linear. A number, so `vmap` maps
# over it, and one compiled program a policy serves both.

# %%
coder = hw.Single(n)
policies = {
    "bidirectional": (hw.Bidirectional(coder), {"start": "middle"}),
    "unidirectional": (hw.Unidirectional(coder), {"start": "low"}),
    "one side": (hw.OneSide(coder), {"kind": "reference"}),
    "write–verify": (hw.WriteVerify(hw.OneSide(coder), rounds=3), {"kind": "reference"}),
    "mixed precision": (hw.MixedPrecision(hw.OneSide(hw.Train(n)), n), {"kind": "reference"}),
}
target = 0.3 * jax.random.normal(jax.random.key(4), (20, 20))


def programmed(policy, layout, beta, sigma_d2d, key):
    """The root mean square error after each of 200 updates, and the array at the end."""
    device = hw.Device(hw.querlioz(n, beta))
    make = hw.crossbar(device, policy, 1.0, sigma_d2d=sigma_d2d, **layout)

    def closer(array, key):
        array = array.program(0.1 * (target - array.w), key=key)
        return array, jnp.sqrt(jnp.mean((target - array.w) ** 2))

    array = make(jnp.zeros((20, 20)), nj.Dense(20, 20), key)
    return jax.lax.scan(closer, array, jax.random.split(key, 200))


betas = {"next to linear": 0.01, "strongly nonlinear": 3.0}
figure = Figure(figsize=(7.2, 2.8), dpi=140, layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
for name, (policy, layout) in policies.items():
    run = partial(programmed, policy, layout, sigma_d2d=0.0, key=jax.random.key(5))
    array, errors = eqx.filter_jit(jax.vmap(run))(jnp.array(list(betas.values())))
    for i, (ax, title) in enumerate(zip(axes, betas, strict=True)):
        ax.plot(errors[i], label=name)
        pulses, energy = array.n_pulses[i].mean(), 1e12 * float(array.pair.spent.energy[i])
        print(
            f"{title:18} {name:15} error {errors[i, -1]:.3f}, {pulses:5.1f} pulses a synapse,"
            f" {energy:7.1f} pJ, {1e6 * float(array.pair.spent.time[i]):5.0f} µs"
        )
for ax, title in zip(axes, betas, strict=True):
    ax.set_title(title, loc="left", fontsize="medium")
    ax.set(xlabel="Updates", yscale="log")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("Error of the weights")
handles = axes[0].get_legend_handles_labels()
figure.legend(*handles, loc="outside upper center", ncols=5, frameon=False, fontsize="small")
figure

# %% [markdown]
# ## What variation does
#
# The same with devices that differ, more and more. The policy and the key are fixed; `vmap`
# maps over the spread alone. Feedback through the update makes up for much of it: what a
# device does wrong is asked for again, as long as its range allows.

# %%
spread = jnp.linspace(0.0, 0.5, 6)
figure = Figure(figsize=(4.8, 3.0), dpi=140, layout="constrained")
ax = figure.add_subplot()
for name in ("bidirectional", "one side"):
    run = partial(programmed, *policies[name], 3.0)
    error = eqx.filter_jit(jax.vmap(lambda s, run=run: run(s, jax.random.key(6))[1][-1]))(spread)
    ax.plot(100 * spread, error, marker="o", label=name)
    assert error[0] < 0.03 < error[-1]  # of weights with a standard deviation of .3
ax.set(xlabel="Variation from device to device (%)", ylabel="Error of the weights", ylim=0)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
figure

# %% [markdown]
# An array answers to the same four methods as plain weights (`apply`, `apply_t`, `outer`,
# `program`), so a network moves to devices by what makes its weights, and by nothing else:
# `net.init_weights(key, make_weights)`. From a command line,
# `python -m experiments.wta_broadcast --synapse exponential --update unidirectional` trains the
# spiking network on devices, and `python -m experiments.electronic_synapse` is a study of
# responses, levels, variation and updates on a perceptron.
