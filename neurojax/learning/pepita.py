"""PEPITA: a second pass forward, of an input that the error has been added to.

    e = p - y,   x~ = x + F e,   a~ the activity of the second pass
    dW^l = -(a^l - a~^l) a~^(l-1)T,   dW^L = -(p~ - y) a~^(L-1)T

The last layer goes by the error of the second pass, as in the authors' code.
Source: Dellaferrera and Kreiman (2022), ICML, arXiv 2201.11665, algorithm 1; signs and last layer
after github.com/GiorgiaD/PEPITA.
"""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from neurojax._check import nonnegative, one_number
from neurojax._repr import described
from neurojax.learning.learner import error
from neurojax.learning.perceptron import Perceptron, asked
from neurojax.network import fold
from neurojax.weights import Weights

__all__ = ["PEPITA"]


@described
class PEPITA(eqx.Module):
    """No weight is read backwards, and no slope is needed: two passes are compared.

    `scale` is how strong the error is in the input: F [n_in, n_classes] is uniform within
    +-scale sqrt(6 / n_in). Raises `ValueError` for a `scale` that is not finite and >= 0.

    >>> nj.learning.PEPITA().init(jax.random.key(0), (64, 32, 10)).shape
    (64, 10)
    """

    scale: Float[Array, ""] = eqx.field(default=0.05, converter=nonnegative("scale", ""))

    def __check_init__(self):
        one_number(self, "scale")

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> Float[Array, "i c"]:
        """F [n_in, n_classes]."""
        f = jax.random.uniform(fold(key, "F"), (sizes[0], sizes[-1]), minval=-1.0)
        return self.scale.astype(f.dtype) * (6 / sizes[0]) ** 0.5 * f

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores of the first pass."""
        first = net.passed(weights, x, key=fold(key, "first"))
        told = x + error(first.scores, y) @ fixed.T
        second = net.passed(weights, told, key=fold(key, "second"))
        phi = net.activation.value
        apart = [phi(a) - phi(b) for a, b in zip(first.z[:-1], second.z[:-1], strict=True)]
        delta = [*apart, error(second.scores, y)]
        return asked(weights, delta, second.inputs), first.scores


def __dir__() -> list[str]:
    return __all__
