"""Backpropagation by hand: the yardstick's end that the local rules are measured against.

    delta^L = p - y,   delta^l = W^(l+1)T delta^(l+1) o phi'(z^l),   dW^l = -delta^l a^(l-1)T

Source: Rumelhart, Hinton and Williams (1986).
"""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, Key

from neurojax._draw import fold
from neurojax.learning.learner import backward, error
from neurojax.learning.perceptron import Perceptron, asked
from neurojax.weights import Weights

__all__ = ["Backprop"]


class Backprop(eqx.Module):
    """The exact gradient; each array is read both ways, which is weight transport by physics."""

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> None:
        """Nothing is fixed."""

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores."""
        seen = net.passed(weights, x, key=key)
        delta = [error(seen.scores, y)]
        for i, (w, z) in enumerate(zip(weights[:0:-1], seen.z[-2::-1], strict=True)):
            back = backward(w, delta[0], fold(key, f"back {i}"))[:, :-1]
            delta.insert(0, back * net.activation.slope(z))
        return asked(weights, delta, seen.inputs), seen.scores


def __dir__() -> list[str]:
    return __all__
