"""Our own cases, through the public API alone."""

import itertools
import time
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import neurojax as nj
from benchmarks import balanced, device_perceptron, sparse_network
from benchmarks import workloads as w
from benchmarks.workloads import Case
from experiments import _run, _training, wta_broadcast
from experiments._config import Config, Data, Learning, Network, resolved
from experiments._options import part
from neurojax.learning import WTABroadcast
from neurojax.learning import wta_broadcast as wb
from neurojax.weights import MakeWeights

PACKAGES = ("jax", "jaxlib")


def lif(spike=nj.surrogate.heaviside) -> nj.LIF:
    """v <- BETA v + current, reset by subtraction."""
    return nj.LIF(
        tau_mem=-1 / np.log(w.BETA), r_mem=1 / (1 - w.BETA), v_th=w.V_TH, reset="subtract",
        spike=spike,
    )  # fmt: skip


def linked(pre: str, post: str, n_pre: int, n_post: int, gain: float, delay: int = 0):
    """A dense projection with the weights that all systems share."""
    values = jnp.asarray(w.weights(n_pre, n_post, gain))
    return nj.Projection(pre, post, nj.Dense(n_pre, n_post), delay=delay, w=values)


def feedforward(spike=nj.surrogate.heaviside) -> nj.Network:
    """784-512-10."""
    return nj.Network(
        {"hidden": nj.Layer(w.N_HIDDEN, lif(spike)), "out": nj.Layer(w.N_OUT, lif(spike))},
        {
            "in": linked("input", "hidden", w.N_IN, w.N_HIDDEN, w.W_IN),
            "out": linked("hidden", "out", w.N_HIDDEN, w.N_OUT, w.W_OUT),
        },
    )


def spiking(net: nj.Network, weights, x, layer: str, dtype=float):
    """Spikes [T, batch, n] of one layer, from input spikes [T, batch, n_in]."""

    def one(x):
        return nj.simulate(
            net, weights, net.init(), {"input": x},
            n_steps=x.shape[0], dt=1.0, probe=lambda records: records[layer].z.astype(dtype),
        )[1]  # fmt: skip

    return jax.vmap(one, in_axes=1, out_axes=1)(x)


def rates(net: nj.Network, weights, x) -> dict[str, list[float]]:
    """Mean spikes a step of every layer."""
    run = jax.jit(spiking, static_argnums=3)
    return {"rates": [float(run(net, weights, x, layer).mean()) for layer in net.order()]}


def compiled(jitted, *args) -> dict[str, float]:
    """What a program takes to lower and compile, and its memory beside arguments and results."""
    begin = time.perf_counter()
    made = jitted.lower(*args).compile()
    took = 1e3 * (time.perf_counter() - begin)
    made = getattr(made, "compiled", made)  # where equinox has wrapped it
    return {"compile_ms": took, "temp_mb": made.memory_analysis().temp_size_in_bytes / 1e6}


def forward(net: nj.Network, layer: str, make_weights: MakeWeights) -> Case:
    """All spikes of `layer`."""
    weights, x = net.init_weights(jax.random.key(0), make_weights), jnp.asarray(w.spikes())
    run = jax.jit(lambda weights, x: spiking(net, weights, x, layer, bool).astype(float))
    return Case(
        lambda: run(weights, x).block_until_ready(), lambda: rates(net, weights, x),
    )  # fmt: skip


def w1(make_weights: MakeWeights = nj.ideal()) -> Case:
    return forward(feedforward(), "out", make_weights)


def descent(net: nj.Network, x, target):
    """A step of plain gradient descent on the cross-entropy of spike counts."""

    def loss(weights):
        count = spiking(net, weights, x, "out").sum(0)
        return optax.softmax_cross_entropy_with_integer_labels(count, target).mean()

    @jax.jit
    def step(weights):
        return jax.tree.map(lambda value, g: value - w.LR * g, weights, jax.grad(loss)(weights))

    return step


def w2() -> Case:
    net = feedforward(nj.surrogate.fast_sigmoid(w.SLOPE))
    weights = net.init_weights(jax.random.key(0))
    x = jnp.asarray(w.spikes())
    step = descent(net, x, jnp.asarray(w.classes()))
    return Case(lambda: jax.block_until_ready(step(weights)), lambda: rates(net, weights, x))


def convolutional(spike) -> nj.Network:
    """32C3-P2-64C3-P2-10, its layers of neurons all alike."""
    first, second = w.MAPS
    one = nj.Conv2D((1, w.SIDE, w.SIDE), first, 3, padding=1)
    two = nj.Conv2D(one.size_post, second, 3, padding=1, pool=2)
    out = nj.Conv2D(two.size_post, w.N_OUT, w.SIDE // 4, pool=2)
    layers, links, pre = {}, {}, "input"
    for name, c, gain in zip(("one", "two", "out"), (one, two, out), w.W_CONV, strict=True):
        values = jnp.asarray(w.kernels(c.shape, gain))
        layers[name] = nj.Layer(c.n_post, lif(spike))
        links[name] = nj.Projection(pre, name, c, w=values)
        pre = name
    return nj.Network(layers, links)


def w14() -> Case:
    net = convolutional(nj.surrogate.heaviside)
    weights, x = net.init_weights(jax.random.key(0)), jnp.asarray(w.spikes(w.T_CONV))
    run = jax.jit(lambda weights, x: spiking(net, weights, x, "out", bool).astype(float))
    timed = w.in_processor_time(lambda: run(weights, x).block_until_ready())
    return Case(timed, lambda: rates(net, weights, x))


def w14_learn() -> Case:
    net = convolutional(nj.surrogate.fast_sigmoid(w.SLOPE))
    weights, x = net.init_weights(jax.random.key(0)), jnp.asarray(w.spikes(w.T_CONV))
    step = descent(net, x, jnp.asarray(w.classes()))
    timed = w.in_processor_time(lambda: jax.block_until_ready(step(weights)))
    return Case(timed, lambda: rates(net, weights, x))


def w3(make_weights: MakeWeights = nj.ideal()) -> Case:
    net = nj.Network(
        {"cells": nj.Layer(w.N_RECURRENT, lif())},
        {
            "in": linked("input", "cells", w.N_IN, w.N_RECURRENT, w.W_IN),
            "loop": linked("cells", "cells", w.N_RECURRENT, w.N_RECURRENT, w.W_REC, delay=1),
        },
    )
    return forward(net, "cells", make_weights)


def w4(native: bool = True, kind: str = "W4") -> Case:
    runs = sparse_network.neurojax(*w.SPARSE, 1000, itertools.count(), native, kind)
    return Case(
        lambda: next(runs)[0], lambda: {"rates": [sparse_network.per_step(next(runs)[1])]}, calls=1
    )


def one_core(name: str) -> Case:
    runs = balanced.neurojax(name)
    return Case(lambda: next(runs)[0], lambda: {"rates": [next(runs)[1]]}, calls=1)


def w5() -> Case:
    return device_perceptron.case(device_perceptron.neurojax(1.0))


def local_system() -> wb.System:
    """784 -> 512 with dense recurrence -> 10, taught in every step."""
    wiring, sent = jax.random.split(jax.random.key(0))
    net = nj.structured(
        wiring, w.N_IN, [nj.Layer(w.N_HIDDEN, lif(), rule=nj.ThreeFactor())], w.N_OUT,
        density=1.0, population=1, recurrence=nj.Recurrence("dense", gain=w.W_REC), gain_in=w.W_IN,
    )  # fmt: skip
    feedback = {"h1": nj.broadcast(sent, w.N_HIDDEN, w.N_OUT)}
    return wb.System(net, feedback, nj.SoftWTA(), nj.Homeostasis(), n_steps=w.T_LOCAL, start=0)


def w7(changes=wb.deltas) -> Case:
    system = local_system()
    weights, tone = system.network.init_weights(jax.random.key(1)), system.rest()
    x = jnp.asarray(w.spikes(w.T_LOCAL, w.BATCH_LOCAL).swapaxes(0, 1).copy())
    target = jnp.asarray(w.classes(w.BATCH_LOCAL))
    run = jax.jit(lambda weights, x, target: changes(system, weights, tone, x, target))
    made = compiled(run, weights, x, target)

    def facts() -> dict[str, Any]:
        spikes = run(weights, x, target)[1].rates["h1"]
        return {"rates": [float(spikes.mean())], **made}

    return Case(lambda: jax.block_until_ready(run(weights, x, target)), facts)


def w8(changes=wb.deltas) -> Case:
    """The experiment's own step, in its own loop; a stretch of the epoch, which is as long."""
    _run.keep_freed_memory()  # as the experiment does
    c = resolved(Config(dataset="mnist", data_dir=w.mnist()))
    split = nj.data.load(c.dataset, c.data_dir).train
    net, rule, shown = part(c, Network), part(c, Learning), part(c, Data)
    task, key = _training.task(shown, split.images.shape, w.N_OUT), jax.random.key(0)
    taught = partial(WTABroadcast, changes=changes)
    make = partial(wta_broadcast.fresh, net, rule, task, w.BATCHES, make=taught)
    learner, state = eqx.filter_jit(make)(key)
    learn = _training.trainer(shown, learner).learn
    order = jax.random.permutation(key, w.BATCHES * c.batch_size).reshape(w.BATCHES, -1)
    data = order, jnp.asarray(split.images), jnp.asarray(split.labels), key

    args = state, *data, jnp.array([0, w.STRETCH])
    made = compiled(learn, *args)

    def seconds() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(learn(*args))
        return (time.perf_counter() - begin) * w.BATCHES / w.STRETCH

    def facts() -> dict[str, Any]:
        spikes = learn(*args)[1].rate / w.STRETCH
        return {"rates": [float(spikes)], **made}

    return Case(seconds, facts, calls=1)


CASES = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W7": w7, "W8": w8}
CASES |= {name: partial(w4, kind=name) for name in ("W10", "W13")}
CASES |= {name: partial(one_core, net) for name, net in w.BALANCED.items()}
CASES |= {"W14": w14, "W14-learn": w14_learn}
