"""Spyx: `run` for one layer after another, so that products see all steps at once.

`run` of its `Sequential` would take every layer into the time loop, which is slower here.
"""

import jax
import jax.numpy as jnp
import optax
import spyx.nn as snn
from flax import nnx
from spyx.axn import superspike
from spyx.fn import integral_crossentropy

from benchmarks import workloads as w
from benchmarks.systems._jax import descent, epoch, picture
from benchmarks.workloads import Case

PACKAGES = ("spyx", "flax", "jax")
SAME = "spikes one step late in every layer; reset does not leak"


def dense(n_in: int, n: int, gain: float) -> nnx.Linear:
    """The shared weights, without bias."""
    layer = nnx.Linear(n_in, n, use_bias=False, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(w.weights(n_in, n, gain)).T
    return layer


def lif(n: int) -> snn.LIF:
    """Reset by subtraction."""
    return snn.LIF((n,), w.BETA, w.V_TH, superspike(w.SLOPE), rngs=nnx.Rngs(0))


def recurrent(n: int) -> snn.RLIF:
    """Neurons that hear each other's last step."""
    layer = snn.RLIF((n,), w.BETA, w.V_TH, superspike(w.SLOPE), rngs=nnx.Rngs(0))
    layer.recurrent_w[...] = jnp.asarray(w.weights(n, n, w.W_REC)).T
    return layer


def feedforward() -> snn.Sequential:
    """784-512-10."""
    return snn.Sequential(
        dense(w.N_IN, w.N_HIDDEN, w.W_IN), lif(w.N_HIDDEN),
        dense(w.N_HIDDEN, w.N_OUT, w.W_OUT), lif(w.N_OUT),
    )  # fmt: skip


def through(layers, x):
    """All steps of one layer, then of the next."""
    for layer in layers:
        x = snn.run(layer, x)[0] if isinstance(layer, snn.StatefulLayer) else layer(x)
    return x


def rates(layers, x, *ends: int) -> dict[str, list[float]]:
    """Mean spikes a step behind as many layers as each of `ends`."""
    return {"rates": [float(through(layers[:end], x).mean()) for end in ends]}


def split(model: snn.Sequential):
    """How to build the model, its matrices, and what stays: the leak, as other systems have it."""
    return nnx.split(model, lambda path, _: path[-1] in ("kernel", "recurrent_w"), ...)


def forward(model: snn.Sequential, *ends: int) -> Case:
    """Spikes of the last layer."""
    x, (plan, learnt, fixed) = jnp.asarray(w.spikes()), split(model)
    run = jax.jit(lambda learnt, x: through(nnx.merge(plan, learnt, fixed).layers, x))
    facts = lambda: rates(model.layers, x, *ends)  # noqa: E731
    return Case(lambda: run(learnt, x).block_until_ready(), facts, SAME)


def learning(tx: optax.GradientTransformation, loss, model: snn.Sequential):
    """The first state, and a step."""
    plan, learnt, fixed = split(model)
    return descent(tx, lambda learnt: loss(nnx.merge(plan, learnt, fixed).layers), learnt)


def w1() -> Case:
    """Both products over all steps at once."""
    return forward(feedforward(), 2, 4)


def w2() -> Case:
    """The same by gradient, its `superspike` the fast sigmoid of the other systems."""
    model, x, target = feedforward(), jnp.asarray(w.spikes()), jnp.asarray(w.classes())
    wrong = integral_crossentropy(smoothing=0.0, time_axis=0)
    state, step = learning(optax.sgd(w.LR), lambda layers: wrong(through(layers, x), target), model)
    run = lambda: jax.block_until_ready(step(*state))  # noqa: E731
    return Case(run, lambda: rates(model.layers, x, 2, 4), SAME)


def w3() -> Case:
    """Only the recurrent product stays in the loop."""
    layers = dense(w.N_IN, w.N_RECURRENT, w.W_IN), recurrent(w.N_RECURRENT)
    return forward(snn.Sequential(*layers), 2)


def w8() -> Case:
    """Dense in place of local recurrence; the first product once, as its input is held."""
    n = w.N_HIDDEN
    model = snn.Sequential(
        dense(w.N_IN, n, w.W_IN), recurrent(n), dense(n, n, w.W_IN), recurrent(n),
        dense(n, w.N_OUT, w.W_OUT), snn.LI((w.N_OUT,), w.BETA, rngs=nnx.Rngs(0)),
    )  # fmt: skip
    x, target = jnp.asarray(picture()), jnp.asarray(w.classes(64))
    held = lambda layers: jnp.broadcast_to(layers[0](x), (20, 64, n))  # noqa: E731

    def loss(layers):
        v = through(layers[1:], held(layers))[5:].mean(0)
        return optax.softmax_cross_entropy_with_integer_labels(v, target).mean()

    begun, step = learning(optax.adam(1e-3), loss, model)

    facts = lambda: rates(model.layers[1:], held(model.layers), 1, 3)  # noqa: E731
    return Case(epoch(begun, step), facts, f"{SAME}; dense recurrence, no ring", calls=1)


CASES = {"W1": w1, "W2": w2, "W3": w3, "W8": w8}
