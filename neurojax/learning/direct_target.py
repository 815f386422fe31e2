"""Direct random target projection: each hidden layer is told the label alone, and no error.

    delta^l = -B^l y o phi'(z^l),   delta^L = p - y,   dW^l = -delta^l a^(l-1)T

The target stands in for the error, whose sign it has: y - p is positive for the class of the
label and for no other. As B is drawn from both signs alike, the sign here is a convention.
Source: Frenkel, Lefebvre and Bol (2021), Frontiers in Neuroscience 15:629892, table 1.
"""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from neurojax.learning.direct_feedback import DFA
from neurojax.learning.learner import error
from neurojax.learning.perceptron import Perceptron, asked
from neurojax.weights import Weights

__all__ = ["DRTP"]


class DRTP(eqx.Module):
    """A layer may learn before the layers above it have been read at all.

    >>> rule = nj.learning.DRTP()
    >>> [b.shape for b in rule.init(jax.random.key(0), (64, 32, 16, 10))]
    [(32, 10), (16, 10)]
    """

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> list[Array]:
        """B^l [n_l, n_classes] of each hidden layer, Gaussian of variance 1 / n_classes."""
        return DFA().init(key, sizes)

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores."""
        seen = net.passed(weights, x, key=key)
        target = jax.nn.one_hot(y, seen.scores.shape[-1], dtype=x.dtype)
        hidden = [
            -(target @ b.T) * net.activation.slope(z)
            for b, z in zip(fixed, seen.z[:-1], strict=True)
        ]
        return asked(weights, [*hidden, error(seen.scores, y)], seen.inputs), seen.scores


def __dir__() -> list[str]:
    return __all__
