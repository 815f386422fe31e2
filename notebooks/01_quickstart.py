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
# # From one neuron to a network that learns the digits
#
# Three ideas carry this library. Parameters live in a frozen pytree; what changes is state that
# you pass in and get back; time is `jax.lax.scan`. Batches, seeds and parameter sweeps are
# `jax.vmap`, so each model is written for one neuron population and one sample.
#
# We go from the voltage of one neuron to a recurrent spiking network that learns handwritten
# digits without backpropagation. All of it runs in about a minute on two CPU cores.

# %%
# %matplotlib inline
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import neurojax as nj

# %% [markdown]
# ## One neuron
#
# A leaky integrate-and-fire neuron follows $\tau_m \dot v = -v + R I$, fires where
# $v \ge v_{th}$ and starts again from 0 (Gerstner et al. 2014, *Neuronal Dynamics*, sec. 1.3).
# `init` makes its state, `step` advances it by `dt`, exactly for a current that is held.

# %%
neuron = nj.LIF(tau_mem=20.0, r_mem=1.0, v_th=1.0)  # ms, MOhm, mV


def run(current, dt):
    """Potential (mV) and spikes of one neuron under `current` [T] in nA."""

    def step(state, now):
        state, z = neuron.step(state, now, dt=dt)
        return state, (state.v, z)

    return jax.lax.scan(step, neuron.init(()), current)[1]


dt = 0.1
v, z = run(jnp.where(jnp.arange(1500) < 200, 0.0, 1.5), dt)  # the current sets in at 20 ms
nj.plotting.voltage(v, z, neuron.v_th, dt=dt)

# %% [markdown]
# Solved for $v = v_{th}$, the equation gives the time between two spikes,
# $\tau_m \ln \frac{RI}{RI - v_{th}}$. Spike times are rounded up to the grid, nothing else is.

# %%
interval = neuron.tau_mem * jnp.log(1.5 / 0.5)
steps = jnp.diff(jnp.flatnonzero(z))
print(f"{float(interval):.2f} ms in theory, {float(steps[0]) * dt:.1f} ms here")
assert (steps == jnp.ceil(interval / dt)).all()

# %% [markdown]
# ## Many currents at once: `vmap`
#
# The same function, mapped over 60 currents, gives the f-I curve. The line is the closed form.

# %%
currents = jnp.linspace(0.5, 4.0, 60)
seconds = 1.0


@jax.jit
@jax.vmap
def count_spikes(current):
    """Spikes of one neuron in a second of constant current."""
    return run(jnp.full(round(1000 * seconds / dt), current), dt)[1].sum()


def closed_form(current):
    """Firing rate in Hz under a constant current in nA, 0 where it does not reach threshold."""
    drive = np.asarray(neuron.r_mem * current, float)
    ratio = np.divide(drive, drive - 1, where=drive > 1, out=np.full_like(drive, np.inf))
    return 1000 / (float(neuron.tau_mem) * np.log(ratio))


rates, theory = np.asarray(count_spikes(currents)) / seconds, closed_form(currents)

figure = Figure(figsize=(4.8, 2.8), dpi=160, layout="constrained")
ax = figure.add_subplot(xlabel="Current (nA)", ylabel="Rate (Hz)")
ax.plot(currents, theory, color="#D55E00", label="closed form")
ax.plot(currents, rates, ".", color="#0072B2", label="counted spikes")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
# A count misses less than one interval; rounding lengthens each interval by less than dt.
assert (np.abs(rates - theory) <= 1 / seconds + theory**2 * dt / 1000).all()
figure

# %% [markdown]
# ## A population
#
# A `Network` is layers and projections; a `probe` says what to keep of each step. Here 60 Poisson
# trains of 50 Hz drive 100 neurons whose time constants run from 5 to 40 ms: a parameter may be
# one number or one per neuron. Each neuron's weights sum to zero, so its drive has no mean: it is
# fluctuations that make it fire, and a slow membrane smooths those away.

# %%
draw, trains = jax.random.split(jax.random.key(0))
tau_mem = jnp.linspace(5.0, 40.0, 100)
w = 2.5 * jax.random.normal(draw, (100, 60))
balanced = w - w.mean(1, keepdims=True)
population = nj.Network(
    {"LIF": nj.Layer(100, nj.LIF(tau_mem=tau_mem))},
    {"input": nj.Projection("trains", "LIF", nj.Dense(60, 100), w=balanced)},
)
trains = nj.encoding.poisson(trains, jnp.ones(60), 400, dt=1.0, max_rate=50.0)
_, z = nj.simulate(
    population,
    population.init_weights(draw),
    population.init(),
    {"trains": trains},
    n_steps=400,
    dt=1.0,
    probe=lambda records: records["LIF"].z,
)
fast, slow = z[:, :50].mean(), z[:, 50:].mean()
print(f"faster half {1000 * fast:.1f} Hz, slower half {1000 * slow:.1f} Hz")
assert fast > slow > 0
nj.plotting.raster({"Poisson trains": trains, "neurons, from fast to slow": z})

# %% [markdown]
# ## Three factors at one synapse
#
# A synapse sees its own presynaptic trace and its neuron's potential. Where they meet, it becomes
# *eligible*, and forgets slowly. The weight moves only when a third factor arrives: a learning
# signal, here a reward 40 ms later (Gerstner et al. 2018, eq. 4; Bellec et al. 2020, eq. 2).
#
# $$\bar x_t = \lambda \bar x_{t-1} + z^{pre}_t, \qquad
#   e_t = \kappa_e e_{t-1} + h_t \bar x_t, \qquad \Delta w = \sum_t \ell_t e_t$$
#
# The window $h_t$ is a triangle around the threshold, a property of the neuron's own potential.

# %%
synapse, rule = nj.Dense(1, 1), nj.ThreeFactor(kappa_e=0.97, window=nj.triangle(1.0))
pre = jnp.zeros((120, 1)).at[jnp.array([20, 26, 32])].set(1.0)
reward = jnp.zeros((120, 1)).at[75:80].set(0.01)


@jax.jit
def trial(pre, reward):
    """One synapse for 120 ms: the neuron's record, the eligibility, the weight's change."""

    def step(carry, now):
        state, memory = carry
        arriving, signal = now
        state, z = neuron.step(state, 8.0 * arriving, dt=1.0)
        post = nj.Post(rule.window(state.v, neuron.threshold(state), z), z)
        memory, dw = rule.step(memory, synapse, neuron, arriving, post, signal, dt=1.0)
        return (state, memory), (post, memory.e[:, 0], dw[:, 0])

    return jax.lax.scan(step, (neuron.init((1,)), rule.init(synapse)), (pre, reward))[1]


post, eligibility, dw = trial(pre, reward)

figure = Figure(figsize=(4.8, 4.2), dpi=160, layout="constrained")
rows = {"Input": pre, "Eligibility": eligibility, "Reward": reward, "Weight": dw.cumsum(0)}
for ax, (name, row) in zip(figure.subplots(4, sharex=True), rows.items(), strict=True):
    ax.plot(np.arange(1, 121), row[:, 0], color="#0072B2", drawstyle="steps-mid")
    ax.set_ylabel(name)
    ax.spines[["top", "right"]].set_visible(False)
ax.set_xlabel("Time (ms)")
figure.align_ylabels()
figure

# %% [markdown]
# An eligibility per synapse and step is what a chip would hold; in a simulation it is costly.
# Exchanging the two sums leaves one backward scan over a vector per *neuron* and one matrix
# product, with the same result. No derivative is taken: a spike has none here, and says so.

# %%
factorised = synapse.outer(rule.factor(neuron, post, reward, dt=1.0), pre)
np.testing.assert_allclose(factorised[0, 0], dw.sum(), rtol=1e-5)

try:
    jax.grad(lambda current: run(current, dt)[1].sum())(jnp.ones(10))
except TypeError as error:
    print(error)

# %% [markdown]
# ## A network that learns
#
# scikit-learn's digits have 8 x 8 pixels. The network holds two layers of 128 neurons, each a
# ring on which neighbours within 16 connect and a tenth of these synapses go far away instead
# (after Watts and Strogatz 1998). Ten readout neurons a class each hear 5% of both layers.
#
# - The readout populations compete through a softmax, and their error obeys the delta rule.
# - The same error is broadcast to all hidden neurons through fixed random weights
#   (Nøkland 2016; Samadi et al. 2017): there it is the third factor.
# - Each hidden neuron moves its own threshold until it fires in 5% of the steps.
#
# Tang and Xie (2026, arXiv 2605.00402) describe such a system.

# %%
digits = nj.data.load("digits")
n_hidden, n_classes = 128, digits.n_classes

rule = nj.ThreeFactor(kappa_e=0.95, window=nj.triangle(1.0))
hidden = [nj.Layer(n_hidden, nj.LIF(tau_mem=9.5, r_mem=2.0), rule=rule) for _ in range(2)]
wiring, to_h1, to_h2 = jax.random.split(jax.random.key(1), 3)
system = nj.wta_broadcast.System(
    nj.structured(
        wiring,
        n_in=64,
        hidden=hidden,
        n_classes=n_classes,
        density=0.05,
        population=10,
        recurrence=nj.Recurrence("local", radius=16, p_rewire=0.1, gain=0.3),
    ),
    feedback={
        "h1": nj.broadcast(to_h1, n_hidden, n_classes),
        "h2": nj.broadcast(to_h2, n_hidden, n_classes),
    },
    teacher=nj.SoftWTA(gain=30.0, margin=0.02),
    homeostasis=nj.Homeostasis(target=0.05),
    n_steps=15,
)
for name, p in system.network.projections.items():
    n_synapses = int(p.connectivity.fan_in.sum())
    print(f"{name:14} {n_synapses:6} synapses {'learn' if p.plastic else 'fixed'}")

# %% [markdown]
# `train_step` returns a new state; an epoch is one `scan` over batches, training one `scan` over
# epochs. In a first epoch the thresholds alone settle. `optax` turns the local changes into
# updates. A pixel is left out with probability 0.15, against overfitting; a running average of
# the weights is what we evaluate.

# %%
epochs, batch = 7, 64
train, val, test = (
    (jnp.asarray(split.images).reshape(-1, 64), jnp.asarray(split.labels))
    for split in (digits.train, digits.val, digits.test)
)
n_batches = len(train[1]) // batch
cosine = optax.cosine_decay_schedule(1.0, epochs * n_batches)


def optimiser(lr_hidden):
    """Adam on the local changes, one learning rate for the readout and one for all else."""
    rates = {
        "readout": optax.adam(lambda step: 1.2e-2 * cosine(step)),
        "hidden": optax.adam(lambda step: lr_hidden * cosine(step)),
    }
    label = {True: "readout", False: "hidden"}
    return optax.multi_transform(rates, lambda w: {n: label["->readout" in n] for n in w})


def accuracy(average, split):
    """Percent of a split that the averaged weights and thresholds get right."""
    scores = nj.wta_broadcast.predict(system, *average, split[0]).scores
    return 100 * (scores.argmax(1) == split[1]).mean()


def learn(key, lr_hidden):
    """A network before and after training, and its accuracy by epoch and on the test."""
    tx = optimiser(lr_hidden)
    images, labels = train
    shown = images[: n_batches * batch].reshape(n_batches, batch, -1)
    state = nj.wta_broadcast.init(system, tx, key)
    before, _ = jax.lax.scan(
        lambda state, x: (nj.wta_broadcast.settle(system, state, x), None), state, shown
    )

    def one_batch(state, picked):
        chance = jax.random.fold_in(key, state.step)
        x = images[picked] * jax.random.bernoulli(chance, 0.85, (batch, 64)) / 0.85
        state, _ = nj.wta_broadcast.train_step(
            system, tx, state, x, labels[picked], average_decay=0.98
        )
        return state, None

    def one_epoch(state, key):
        order = jax.random.permutation(key, len(labels))[: n_batches * batch]
        state, _ = jax.lax.scan(one_batch, state, order.reshape(n_batches, batch))
        return state, accuracy(state.average, val)

    after, curve = jax.lax.scan(one_epoch, before, jax.random.split(key, epochs))
    return before.average, after.average, curve, accuracy(after.average, test)


# %% [markdown]
# Is it the hidden layers that learn, or the readout alone? We train six networks in one compiled
# call: three seeds, each with hidden layers that learn and with hidden layers that do not.
# `vmap` maps over the seed and over the learning rate alike. (With 400 digits in the test, one
# standard error of an accuracy is about one point.)

# %%
seeds = jax.random.split(jax.random.key(2), 3)
lr_hidden = jnp.array([8e-3, 0.0])
networks = jax.vmap(jax.vmap(learn, (0, None)), (None, 0))
before, after, curve, tested = eqx.filter_jit(networks)(seeds, lr_hidden)

for name, row in zip(("learned hidden layers", "frozen hidden layers"), tested, strict=True):
    print(f"{name}: test accuracy {row.mean():.1f}% (s.d. {row.std(ddof=1):.1f}, 3 seeds)")
assert tested[0].mean() > 93
assert tested[0].mean() > tested[1].mean() + 1.5
nj.plotting.learning_curve(curve[0].mean(0).tolist(), None, float(tested[0].mean()))

# %% [markdown]
# ## What it has learned
#
# One digit of the test set, before and after training. Before, the thresholds have settled, but
# the readout, whose weights start from zero, has nothing to say.

# %%
first = lambda tree: jax.tree.map(lambda x: x[0, 0], tree)  # noqa: E731  (learned, first seed)
show = eqx.filter_jit(lambda average, x: nj.wta_broadcast.present(system, *average, x))
x, target = test[0][0], int(test[1][0])


def picture(average):
    """Raster of both hidden layers and the scores of the readout, for one digit."""
    record = show(first(average), x)
    spikes = {name: record[name].z for name in system.hidden}
    return nj.plotting.raster(spikes, scores=record["readout"].z, target=target)


picture(before)

# %%
picture(after)

# %% [markdown]
# The ring is a band, and the readout is sparse: 5% of a layer for each of ten neurons a class.

# %%
weights, _ = first(after)
nj.plotting.weights(
    {
        name: weights[name].connectivity.matrix(weights[name].w)
        for name in ("input->h1", "h1->h1", "h1->readout")
    }
)

# %% [markdown]
# From here, `python -m experiments.wta_broadcast --help` lists every switch of the full
# experiment: other data sets, recurrence, readouts, teachers, modulators and controls.
