"""Predictive coding: value nodes settle between what is predicted of them and what they predict.

    E = 1/2 sum_(l<L) |eps^l|^2 + precision CE(softmax(mu^L), y)
    eps^l = v^l - mu^l,   mu^l = W^l [phi(v^(l-1)), 1],   mu^1 = W^1 [x, 1]
    eps^L = precision (y - softmax(mu^L))
    settle    v^l <- v^l + rate (-eps^l + phi'(v^l) o W^(l+1)T eps^(l+1)),   from v = mu
    learn     dW^l = eps^l [phi(v^(l-1)), 1]^T / precision

Settling goes down E, each step by what a node and its neighbours hold. At the fixed point
-eps^l / precision is the error of backpropagation, to first order in `precision`, which is the
inverse of the variance of the output.
Source: Whittington and Bogacz (2017), Neural Computation 29:1229, eq. 2.12 to 2.19, with a softmax
at the output where they have a Gaussian.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import count, one_number, positive
from neurojax._repr import described
from neurojax.learning.learner import backward, cross_entropy, error, forward
from neurojax.learning.perceptron import Perceptron, asked, with_one
from neurojax.network import fold
from neurojax.weights import Weights

__all__ = ["PredictiveCoding"]


@described
class PredictiveCoding(eqx.Module):
    """Errors are found by settling: `n_steps` of size `rate`, each array read both ways in each.

    The first array reads a held input, so it is read once. Settling is stable for
    rate < 2 / (1 + |W|)^2, |W| the largest singular value of an array above the first, at a
    `precision` of at most 1. Errors are differences of what lies about `precision` away: in
    float32, one of 1e-4 leaves the changes two digits, one of 1e-6 none.
    Raises `ValueError` for `n_steps` that is no whole number >= 1, and for a `rate` or a
    `precision` that is not finite and > 0.
    """

    n_steps: int = eqx.field(static=True, default=20, converter=count("n_steps"))
    rate: Float[Array, ""] = eqx.field(default=0.1, converter=positive("rate", ""))
    precision: Float[Array, ""] = eqx.field(default=1.0, converter=positive("precision", ""))

    def __check_init__(self):
        one_number(self, "rate", "precision")

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> None:
        """Nothing is fixed."""

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores before settling."""
        seen = net.passed(weights, x, key=fold(key, "first"))
        held, v = seen.z[0], seen.z[:-1]
        v = self.settled(net, weights, held, v, y, key=fold(key, "settle"))
        mu = self.predicted(net, weights, held, v, key=fold(key, "last"))
        inputs = (seen.inputs[0], *(with_one(net.activation.value(each)) for each in v))
        delta = [-each / self.precision.astype(each.dtype) for each in self.errors(mu, v, y)]
        return asked(weights, delta, inputs), seen.scores

    def predicted(
        self, net: Perceptron, weights: list[Weights], held: Float[Array, "b n"],
        v: tuple[Float[Array, "b _"], ...], *, key: Key[Array, ""] | None = None,
    ) -> list[Float[Array, "b _"]]:  # fmt: skip
        """mu of every layer, where `held` is what the first array predicts and `v` the nodes."""
        mu = [held]
        for i, (w, each) in enumerate(zip(weights[1:], v, strict=True)):
            drawn = None if key is None else jax.random.fold_in(key, i)
            mu.append(forward(w, with_one(net.activation.value(each)), drawn))
        return mu

    def errors(
        self, mu: list[Float[Array, "b _"]], v: tuple[Float[Array, "b _"], ...], y: Int[Array, " b"]
    ) -> list[Float[Array, "b _"]]:
        """eps of every layer."""
        hidden = [each - m for each, m in zip(v, mu[:-1], strict=True)]
        return [*hidden, -self.precision.astype(mu[-1].dtype) * error(mu[-1], y)]

    def settled(
        self, net: Perceptron, weights: list[Weights], held: Float[Array, "b n"],
        v: tuple[Float[Array, "b _"], ...], y: Int[Array, " b"], *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "b _"], ...]:  # fmt: skip
        """Values of the hidden nodes after `n_steps` from `v`; `held` as in `predicted`."""
        rate = self.rate.astype(held.dtype)

        def step(t: Array, v: tuple) -> tuple:
            now = None if key is None else jax.random.fold_in(key, t)
            up, down = (None, None) if now is None else jax.random.split(now)
            eps = self.errors(self.predicted(net, weights, held, v, key=up), v, y)
            new = []
            for i, each in enumerate(v):
                drawn = None if down is None else jax.random.fold_in(down, i)
                back = backward(weights[i + 1], eps[i + 1], drawn)[:, :-1]
                pull = net.activation.slope(each) * back - eps[i]
                new.append(each + rate * pull)
            return tuple(new)

        return jax.lax.fori_loop(0, self.n_steps, step, v)

    def energy(
        self, mu: list[Float[Array, "b _"]], v: tuple[Float[Array, "b _"], ...], y: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        """E of each sample."""
        hidden = self.errors(mu, v, y)[:-1]
        squares = sum(jnp.square(each).sum(-1) for each in hidden)
        return 0.5 * squares + self.precision.astype(mu[-1].dtype) * cross_entropy(mu[-1], y)


def __dir__() -> list[str]:
    return __all__
