"""Node perturbation: what a loss rises by, when noise goes into every neuron, tells each its part.

    z~^l = W^l [a~^(l-1), 1] + sigma xi^l,   xi ~ N(0, 1),   CE~ the loss then
    delta^l = mean over draws of (CE~ - CE) / sigma xi^l,   dW^l = -delta^l a^(l-1)T

The mean of delta^l over draws is the derivative of the loss by z^l, to second order in `sigma`;
of a draw its variance is d + 1 times the square of the derivative, d the neurons of the net.
Source: Werfel, Xie and Seung (2005), Neural Computation 17:2699, eq. 8.
"""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from neurojax._check import count, one_number, positive
from neurojax._repr import described
from neurojax.learning.learner import cross_entropy, forward
from neurojax.learning.perceptron import Perceptron, asked, with_one
from neurojax.network import fold
from neurojax.weights import Weights

__all__ = ["NodePerturbation"]


@described
class NodePerturbation(eqx.Module):
    """One number, the loss, is all that any neuron is told; nothing is read backwards.

    `n_draws` perturbations a sample run side by side; `sigma` is in units of z. The first array
    reads a held input, so it is read once for all of them.
    Raises `ValueError` for `n_draws` that is no whole number >= 1, and for a `sigma` that is not
    finite and > 0.
    """

    n_draws: int = eqx.field(static=True, default=1, converter=count("n_draws"))
    sigma: Float[Array, ""] = eqx.field(default=0.01, converter=positive("sigma", ""))

    def __check_init__(self):
        one_number(self, "sigma")

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> None:
        """Nothing is fixed."""

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores without noise."""
        seen = net.passed(weights, x, key=fold(key, "clean"))
        clean = cross_entropy(seen.scores, y)

        def draw(key: Array) -> list[Array]:
            xi = [
                jax.random.normal(jax.random.fold_in(key, i), z.shape, z.dtype)
                for i, z in enumerate(seen.z)
            ]
            scores = self.perturbed(net, weights, seen.z[0], xi, fold(key, "read"))
            rise = (cross_entropy(scores, y) - clean) / self.sigma.astype(clean.dtype)
            return [rise[:, None] * each for each in xi]

        draws = jax.vmap(draw)(jax.random.split(fold(key, "draws"), self.n_draws))
        return asked(weights, [each.mean(0) for each in draws], seen.inputs), seen.scores

    def perturbed(
        self, net: Perceptron, weights: list[Weights], held: Float[Array, "b n"],
        xi: list[Float[Array, "b _"]], key: Key[Array, ""],
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Scores with sigma xi in each neuron, where `held` is what the first array gives."""
        sigma = self.sigma.astype(held.dtype)
        z = held + sigma * xi[0]
        for i, (w, noise) in enumerate(zip(weights[1:], xi[1:], strict=True)):
            a = with_one(net.activation.value(z))
            z = forward(w, a, jax.random.fold_in(key, i)) + sigma * noise
        return z


def __dir__() -> list[str]:
    return __all__
