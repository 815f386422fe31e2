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
# # Learners, side by side
#
# A learner has `init`, `step` and `predict`, and `nj.fit` brings it data. Here are five of them on
# scikit-learn's digits, one of which knows the gradient, first on numbers and then on devices:
# between the two only `make_weights` changes.

# %%
# %matplotlib inline
from functools import partial

import jax
import matplotlib.pyplot as plt
import optax

import hardware as hw
import neurojax as nj

digits, key = nj.data.load("digits"), jax.random.key(0)

# %% [markdown]
# ## Five ways to know what to change
#
# - **Backpropagation**, written out: the error goes back through the weights that brought it.
# - **Direct feedback alignment**: it reaches each layer through fixed random weights.
# - **Counter-current learning**: a second net runs from the label down; each level of one learns to
#   match the other, and no error is sent at all.
# - **e-prop**: spiking neurons with eligibility traces, and a random broadcast of the error.
# - **The broadcast system**: a structured spiking network with winner-take-all teaching,
#   three-factor learning and homeostasis.
#
# The first three are perceptrons of rectified or exponential units, the last two spike for twenty
# steps of 1 ms.

# %%
sizes = (64, 128, 10)
sgd, adam = partial(optax.sgd, momentum=0.9), optax.adam
clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
hidden = nj.Layer(128, nj.LIF(tau_mem=9.5, r_mem=2.0), rule=nj.ThreeFactor(window=nj.triangle(0.5)))
net = nj.structured(key, 64, [hidden], n_classes=10, density=1.0, gain_in=2.0)
system = nj.wta_broadcast.system(key, net, population=1, teacher=nj.SoftWTA(gain=12.0, margin=0.02))
learners = {
    "backprop": nj.learning.Perceptron(sizes, nj.learning.Backprop(), sgd(0.05)),
    "direct feedback": nj.learning.Perceptron(sizes, nj.learning.DFA(), sgd(0.05)),
    "counter-current": nj.learning.CounterCurrent((64, 128, 128, 10), clipped),
    "e-prop": nj.learning.EProp(sizes, adam(3e-3)),
    "broadcast": nj.learning.WTABroadcast(system, adam(4e-3)),
}
learners["backprop"]

# %% [markdown]
# ## On numbers

# %%
train = partial(nj.fit, data=digits, key=key, epochs=15, batch_size=32, progress=False)
on_numbers = {name: train(learner) for name, learner in learners.items()}

fig, ax = plt.subplots(figsize=(6, 3.5))
for name, fitted in on_numbers.items():
    ax.plot(range(1, 16), 100 * fitted.history["val_accuracy"], label=name)
ax.set(xlabel="epoch", ylabel="validation accuracy, %", ylim=(60, 100))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## On devices
#
# Each weight is one linear device of 64 levels against a fixed column, its parameters 10% apart
# from device to device; each pulse is 1% noisy, and the first weights are written open loop. A
# change smaller than a level is kept beside the array until it is worth a pulse (mixed precision).

# %%
devices = hw.crossbar(
    hw.Device(hw.linear(64), sigma_c2c=0.01),
    hw.MixedPrecision(hw.OneSide(hw.Train(64)), 64),
    w_max=1.0,
    kind="reference",
    sigma_d2d=0.1,
    write="open-loop",
)
on_devices = {name: train(learner, make_weights=devices) for name, learner in learners.items()}


# %% [markdown]
# The test pictures are looked at once, at the end.


# %%
def accuracy(fitted):
    return [100 * nj.evaluate(learners[n], f.state, digits.test) for n, f in fitted.items()]


found = {"numbers": accuracy(on_numbers), "devices": accuracy(on_devices)}
fig, ax = plt.subplots(figsize=(6, 3))
for i, (held_by, percent) in enumerate(found.items()):
    bars = ax.barh([x + 0.4 * i for x in range(len(learners))], percent, 0.38, label=held_by)
    ax.bar_label(bars, fmt="%.1f", padding=2)
ax.set(xlabel="test accuracy, %", xlim=(80, 102))
ax.set_yticks([x + 0.2 for x in range(len(learners))], list(learners))
ax.invert_yaxis()
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# One seed of a small set: whether one learner is better than another is a question for
# `python -m experiments.yardstick`, which gives all of them one network, one budget and one search
# of the learning rate.
