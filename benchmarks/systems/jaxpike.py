"""jaxpike: `unroll`, which takes what has no state out of its time loop.

One step an iteration of that loop: its default of eight, chosen on a GPU, is slower here.
W7 is missing, as its e-prop refuses a recurrent network.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxpike as jp
import numpy as np
import optax

from benchmarks import workloads as w
from benchmarks.systems._jax import descent, epoch, picture
from benchmarks.workloads import Case

PACKAGES = ("jaxpike", "jax")
SAME = "fires above, not at, the threshold; weights / (1 - BETA)"


def dense(n_in: int, n: int, gain: float) -> jp.Dense:
    """The shared weights, larger by what its neurons make of a current: 1 - BETA."""
    layer = jp.Dense(n_in, n, key=jax.random.key(0), use_bias=False)
    weight = jnp.asarray(w.weights(n_in, n, gain)) / (1 - w.BETA)
    return eqx.tree_at(lambda layer: layer.weight, layer, weight)


def lif() -> jp.LIF:
    """Reset by subtraction, which is its default."""
    return jp.LIF(-1 / np.log(w.BETA), threshold=w.V_TH, surrogate=jp.FastSigmoid(w.SLOPE))


def feedforward() -> jp.Sequential:
    """784-512-10."""
    return jp.Sequential(
        dense(w.N_IN, w.N_HIDDEN, w.W_IN), lif(), dense(w.N_HIDDEN, w.N_OUT, w.W_OUT), lif()
    )


def recurrent(n: int) -> jp.Graph:
    """Neurons that hear each other's last step; `unroll` reads what feeds them in one product."""
    edges = ("input", "cells"), ("cells", "loop"), ("loop", "cells")
    return jp.Graph({"cells": lif(), "loop": dense(n, n, w.W_REC)}, edges, output="cells")


def rates(net: jp.Sequential, x, *ends: int) -> dict[str, list[float]]:
    """Mean spikes a step behind as many layers as each of `ends`."""
    parts = [jp.Sequential(*net.layers[:end]) for end in ends]
    return {"rates": [float(jp.unroll(part, x)[0].mean()) for part in parts]}


def forward(net: jp.Sequential, *ends: int) -> Case:
    """Spikes of the last layer."""
    x = jnp.asarray(w.spikes())
    run = eqx.filter_jit(lambda net, x: jp.unroll(net, x, scan_unroll=1)[0])
    return Case(lambda: run(net, x).block_until_ready(), lambda: rates(net, x, *ends), SAME)


def learning(tx: optax.GradientTransformation, loss, net: jp.Sequential):
    """The first state, and a step; what is not a matrix stays, as the other systems have it."""
    learnt, fixed = eqx.partition(net, lambda leaf: eqx.is_array(leaf) and leaf.ndim == 2)
    return descent(tx, lambda learnt: loss(eqx.combine(learnt, fixed)), learnt)


def w1() -> Case:
    """Both products over all steps at once."""
    return forward(feedforward(), 2, 4)


def w2() -> Case:
    """Steps computed again on the way back, its `remat_step`: less memory to move."""
    net, x, target = feedforward(), jnp.asarray(w.spikes()), jnp.asarray(w.classes())

    def loss(net):
        spikes = jp.unroll(net, x, scan_unroll=1, remat_step=True)[0]
        return jp.cross_entropy(jp.count_logits(spikes), target)

    state, step = learning(optax.sgd(w.LR), loss, net)
    run = lambda: jax.block_until_ready(step(*state))  # noqa: E731
    return Case(run, lambda: rates(net, x, 2, 4), f"{SAME}; remat_step")


def w3() -> Case:
    """Only the recurrent product stays in the loop."""
    return forward(jp.Sequential(dense(w.N_IN, w.N_RECURRENT, w.W_IN), recurrent(w.N_RECURRENT)), 2)


def w8() -> Case:
    """Dense in place of local recurrence; the first product once, as its input is held."""
    first, n = dense(w.N_IN, w.N_HIDDEN, w.W_IN), w.N_HIDDEN
    rest = jp.Sequential(
        recurrent(n), dense(n, n, w.W_IN), recurrent(n), dense(n, w.N_OUT, w.W_OUT),
        jp.LeakyIntegrator(-1 / np.log(w.BETA)),
    )  # fmt: skip
    x, target = jnp.asarray(picture()), jnp.asarray(w.classes(64))
    held = lambda first: jnp.broadcast_to(first(None, x)[1], (20, 64, n))  # noqa: E731

    def loss(net):
        v = jp.unroll(net.layers[1], held(net.layers[0]), scan_unroll=1, remat_step=True)[0]
        return jp.cross_entropy(v[5:].mean(0), target)

    begun, step = learning(optax.adam(1e-3), loss, jp.Sequential(first, rest))

    facts = lambda: rates(rest, held(first), 1, 3)  # noqa: E731
    return Case(
        epoch(begun, step), facts, f"{SAME}; remat_step; dense recurrence, no ring", calls=1
    )


CASES = {"W1": w1, "W2": w2, "W3": w3, "W8": w8}
