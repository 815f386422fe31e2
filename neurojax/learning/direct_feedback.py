"""Direct feedback alignment: the output error reaches each layer through fixed random weights.

    delta^l = B^l (p - y) o phi'(z^l),   delta^L = p - y,   dW^l = -delta^l a^(l-1)T

Source: Nøkland (2016), arXiv 1609.01596, eq. 6.
"""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from neurojax.learning.learner import error
from neurojax.learning.perceptron import Perceptron, asked
from neurojax.network import fold
from neurojax.weights import Weights

__all__ = ["DFA"]


class DFA(eqx.Module):
    """No weight is read backwards, and no layer waits for one above it."""

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> list[Array]:
        """B^l [n_l, n_classes], Gaussian of variance 1 / n_classes."""
        return [
            jax.random.normal(fold(key, f"B{i}"), (n, sizes[-1])) / sizes[-1] ** 0.5
            for i, n in enumerate(sizes[1:-1], 1)
        ]

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores."""
        seen = net.passed(weights, x, key=key)
        e = error(seen.scores, y)
        hidden = [
            e @ b.T * net.activation.slope(z) for b, z in zip(fixed, seen.z[:-1], strict=True)
        ]
        return asked(weights, [*hidden, e], seen.inputs), seen.scores


def __dir__() -> list[str]:
    return __all__
