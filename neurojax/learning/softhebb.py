"""SoftHebb: soft winner-take-all layers that learn without labels, and a readout that has them.

    u = W a,   y = softmax(u / tau),   dW_ij = mean y_i (a_j - u_i W_ij)
    W <- W + rate | |w_i| - 1 |^power dW / max |dW|,   w_i the synapses of neuron i
    a = s / |s|,   s = x, and above it softmax(u / tau_out);   readout  dV = -mean (p - y) [a, 1]^T

A neuron's length changes by 2 y_i u_i (1 - |w_i|^2), so that it tends to 1, where learning ends:
the rate anneals itself, neuron by neuron. As every input has length 1, u is a cosine then, and
`tau` means the same for all data and layers. Without biases, as in the authors' runs on MNIST.
Source: Moraitis et al. (2022), Neuromorphic Computing and Engineering 2:044017, eq. 9; the rate
after Journé et al. (2023), ICLR, arXiv 2209.11883, and github.com/NeuromorphicComputing/SoftHebb,
whose step is over the largest change that is asked of any synapse of the layer.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import classes, instance, nonnegative, one_number, positive, prng_key
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, error, forward, programmed
from neurojax.learning.perceptron import asked, drawn, flat, layer_sizes, with_one
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal
from neurojax.wiring.layouts import Dense

__all__ = ["SoftHebb", "SoftHebbState"]


class SoftHebbState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL" of the hidden layers, [n, n_below], and
            "readout" [n_classes, n_L + 1]
        opt_state: any; that of the optax transformation of the readout
    """

    weights: dict[str, Weights]
    opt_state: Any


@described
class SoftHebb(eqx.Module):
    """Hidden layers of `sizes`, (n_in, hidden ..., n_classes), and a linear readout of the last.

    `tx` is an optax transformation for the readout alone. First weights of the layers are uniform
    from 0 to a bound that makes the expected length of a neuron's `radius`; the readout starts
    at 0. Inputs should not be negative on the whole, as u must not be.
    Raises `ValueError` for `sizes` without a hidden layer; for a `rate`, `tau`, `tau_out` or
    `radius` that is not finite and > 0, and a `power` that is not finite and >= 0.

    >>> import optax
    >>> net = nj.learning.SoftHebb((64, 32, 10), optax.adam(0.01))
    >>> net.predict(net.init(jax.random.key(0)), jnp.ones((2, 64))).shape
    (2, 10)
    """

    sizes: tuple = eqx.field(static=True, converter=lambda x: layer_sizes(x, hidden=1))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    rate: Float[Array, ""] = eqx.field(default=0.045, converter=positive("rate", ""))
    power: Float[Array, ""] = eqx.field(default=0.2, converter=nonnegative("power", ""))
    tau: Float[Array, ""] = eqx.field(default=0.01, converter=positive("tau", ""))
    tau_out: Float[Array, ""] = eqx.field(default=0.1, converter=positive("tau_out", ""))
    radius: Float[Array, ""] = eqx.field(default=35.0, converter=positive("radius", ""))

    def __check_init__(self):
        one_number(self, "rate", "power", "tau", "tau_out", "radius")

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> SoftHebbState:
        """Fresh weights, and the state of the readout's optimiser."""
        weights, key = {}, prng_key(key)
        for i, (n, m) in enumerate(zip(self.sizes[:-2], self.sizes[1:-1], strict=True), 1):
            at = fold(key, f"w{i}")
            w = jax.random.uniform(fold(at, "first"), (m, n)) * (3 / n) ** 0.5
            w = self.radius.astype(w.dtype) * w
            weights[f"w{i}"] = make_weights(w, Dense(n, m), fold(at, "make"))
        readout = drawn(fold(key, "readout"), self.sizes[-2:], make_weights, 0.0)["w1"]
        opt_state = self.tx.init({"readout": readout.w})
        return SoftHebbState(weights | {"readout": readout}, opt_state)

    def step(
        self, state: SoftHebbState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[SoftHebbState, Info]:  # fmt: skip
        """Learn from one batch: the layers from `x` alone, the readout from the labels too."""
        y = classes("y", y, self.sizes[-1], len(x))
        weights = state.weights
        inputs, u = self.climbed(weights, flat(x, self.sizes[0]), key=fold(key, "read"))
        seen, readout = with_one(inputs[-1]), weights["readout"]
        scores = forward(readout, seen, fold(key, "scores"))
        dv = asked([readout], [error(scores, y)], (seen,))[0]
        new, opt_state = programmed(self.tx, weights, state.opt_state, {"readout": dv}, key)
        for i, (a, each) in enumerate(zip(inputs[:-1], u, strict=True), 1):
            w = weights[f"w{i}"]
            new[f"w{i}"] = w.program(self.change(w, a, each), key=fold(key, f"w{i}"))
        return SoftHebbState(new, opt_state), {"accuracy": accuracy(scores, y)}

    def predict(
        self, state: SoftHebbState, x: Float[Array, "b ..."], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores [batch, n_classes]."""
        inputs, _ = self.climbed(state.weights, flat(x, self.sizes[0]), key=key)
        at = None if key is None else fold(key, "scores")
        return forward(state.weights["readout"], with_one(inputs[-1]), at)

    def climbed(
        self, weights: dict[str, Weights], x: Float[Array, "b i"], *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[list[Float[Array, "b _"]], list[Float[Array, "b _"]]]:  # fmt: skip
        """What each layer and the readout hear, and the weighted sums u of the layers."""
        inputs, u = [of_length_1(x)], []
        for i in range(1, len(self.sizes) - 1):
            at = None if key is None else jax.random.fold_in(key, i)
            u.append(forward(weights[f"w{i}"], inputs[-1], at))
            inputs.append(of_length_1(jax.nn.softmax(u[-1] / self.tau_out.astype(x.dtype))))
        return inputs, u

    def change(
        self, weights: Weights, a: Float[Array, "b n"], u: Float[Array, "b m"]
    ) -> Float[Array, "m n"]:
        """What a layer's synapses are asked to change by, once a batch."""
        dw = self.hebbian(weights, a, u)
        apart = jnp.abs(jnp.linalg.norm(weights.w, axis=1, keepdims=True) - 1)
        rate = self.rate.astype(dw.dtype) * apart ** self.power.astype(dw.dtype)
        return rate * dw / jnp.maximum(jnp.abs(dw).max(), jnp.finfo(dw.dtype).tiny)

    def hebbian(
        self, weights: Weights, a: Float[Array, "b n"], u: Float[Array, "b m"]
    ) -> Float[Array, "m n"]:
        """mean y (a - u W), of a batch."""
        y = jax.nn.softmax(u / self.tau.astype(u.dtype))
        return (weights.outer(y, a) - (y * u).sum(0)[:, None] * weights.w) / len(a)


def of_length_1(s: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """Each sample over its length; what is silent stays so."""
    return s / jnp.maximum(jnp.linalg.norm(s, axis=1, keepdims=True), 1e-8)


def __dir__() -> list[str]:
    return __all__
