"""Feedback alignment: backpropagation through fixed random weights in place of the transposes.

    delta^L = p - y,   delta^l = B^l delta^(l+1) o phi'(z^l),   dW^l = -delta^l a^(l-1)T

Source: Lillicrap et al. (2016), Nature Communications 7:13276, eq. 3.
"""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from neurojax.learning.learner import error
from neurojax.learning.perceptron import Perceptron, asked
from neurojax.network import fold
from neurojax.weights import Weights

__all__ = ["FeedbackAlignment"]


class FeedbackAlignment(eqx.Module):
    """No weight is read backwards; the error still goes down layer by layer.

    >>> rule = nj.learning.FeedbackAlignment()
    >>> [b.shape for b in rule.init(jax.random.key(0), (64, 32, 16, 10))]
    [(32, 16), (16, 10)]
    """

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> list[Array]:
        """B^l [n_l, n_(l+1)] of each hidden layer, Gaussian of variance 1 / n_(l+1)."""
        pairs = enumerate(zip(sizes[1:-1], sizes[2:], strict=True), 1)
        return [jax.random.normal(fold(key, f"B{i}"), (n, m)) / m**0.5 for i, (n, m) in pairs]

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores."""
        seen = net.passed(weights, x, key=key)
        delta = [error(seen.scores, y)]
        for b, z in zip(fixed[::-1], seen.z[-2::-1], strict=True):
            delta.insert(0, delta[0] @ b.T * net.activation.slope(z))
        return asked(weights, delta, seen.inputs), seen.scores


def __dir__() -> list[str]:
    return __all__
