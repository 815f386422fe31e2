"""Difference target propagation: each layer is told what it should have been, by learned inverses.

    t^(L-1) = a^(L-1) - step_size W^LT (p - y),   t^(l-1) = a^(l-1) + G^l(t^l) - G^l(a^l)
    G^l(a) = phi(V^l [a, 1]),   local loss |a^l - t^l|^2 / (2 step_size)
    dW^l = -(a^l - t^l) / step_size o phi'(z^l) [a^(l-1), 1]^T,   dW^L = -(p - y) [a^(L-1), 1]^T
    inverse  a~ = a^(l-1) + sigma xi,   b = phi(W^l [a~, 1]),   loss |G^l(b) - a~|^2 / 2

The difference takes out what an inverse gets wrong, so that a layer that is right stays so. The
inverses learn from noisy copies, to be right about the targets too, which lie off the data. Over
`step_size`, the changes of the last hidden layer are those of backpropagation, but for rounding: in
float32 to .3% at a step of 1e-5, and to no digit at 1e-8.
Source: Lee, Zhang, Fischer and Bengio (2015), ECML, arXiv 1412.7525, eq. 14 to 17 and algorithm 1;
the loss of the inverses after github.com/donghyunlee/dtp.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    classes,
    instance,
    known_finite,
    nonnegative,
    one_number,
    positive,
    prng_key,
    real,
)
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, backward, error, forward, programmed
from neurojax.learning.perceptron import (
    Activation,
    Pass,
    asked,
    drawn,
    flat,
    layer_sizes,
    passed,
    tanh,
    with_one,
)
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal

__all__ = ["DifferenceTarget", "DifferenceTargetState"]


class DifferenceTargetState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL", [n_l, n_(l-1) + 1], and the inverses "v2" to
            "v(L-1)", [n_(l-1), n_l + 1]
        opt_state: any; that of the optax transformation
    """

    weights: dict[str, Weights]
    opt_state: Any


@described
class DifferenceTarget(eqx.Module):
    """Layers of `sizes`, (n_in, hidden ..., n_classes), and inverses between the hidden ones.

    `step_size` is how far the first target goes down the loss, `sigma` the noise that the inverses
    learn from, both in units of activity. `tx` is an optax transformation, to which the changes
    go in negated; `optax.multi_transform` gives the inverses a rate of their own, by name. First
    weights are Gaussian of standard deviation gain / sqrt(fan-in), biases 0.
    Raises `ValueError` for `sizes` without a hidden layer, for a `step_size` that is not finite and
    > 0, and for a `sigma` that is not finite and >= 0.

    >>> import optax
    >>> net = nj.learning.DifferenceTarget((64, 32, 16, 10), optax.sgd(0.1))
    >>> list(net.init(jax.random.key(0)).weights)
    ['w1', 'w2', 'w3', 'v2']
    """

    sizes: tuple = eqx.field(static=True, converter=lambda x: layer_sizes(x, hidden=1))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    activation: Activation = eqx.field(static=True, default=tanh)
    step_size: Float[Array, ""] = eqx.field(default=0.1, converter=positive("step_size", ""))
    sigma: Float[Array, ""] = eqx.field(default=0.1, converter=nonnegative("sigma", ""))
    gain: float | Array = eqx.field(
        default=1.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )

    def __check_init__(self):
        one_number(self, "step_size", "sigma")

    def init(
        self, key: Key[Array, ""], make_weights: MakeWeights = ideal()
    ) -> DifferenceTargetState:
        """Fresh weights both ways, and the optimiser's state."""
        weights = drawn(prng_key(key), self.sizes, make_weights, self.gain)
        for i, pair in enumerate(zip(self.sizes[2:-1], self.sizes[1:-2], strict=True), 2):
            weights[f"v{i}"] = drawn(fold(key, f"v{i}"), pair, make_weights, self.gain)["w1"]
        return DifferenceTargetState(weights, self.tx.init({n: w.w for n, w in weights.items()}))

    def step(
        self, state: DifferenceTargetState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[DifferenceTargetState, Info]:  # fmt: skip
        """Learn from one batch, forward weights and inverses alike."""
        y = classes("y", y, self.sizes[-1], len(x))
        weights = state.weights
        seen = self._passed(weights, flat(x, self.sizes[0]), fold(key, "up"))
        targets = self.targets(weights, seen, y, key=fold(key, "down"))
        named = self.forward_changes(weights, seen, targets, y)
        named |= self.inverse_changes(weights, seen, key=fold(key, "inverse"))
        weights, opt_state = programmed(self.tx, weights, state.opt_state, named, key)
        return DifferenceTargetState(weights, opt_state), {"accuracy": accuracy(seen.scores, y)}

    def predict(
        self, state: DifferenceTargetState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Scores [batch, n_classes]."""
        return self._passed(state.weights, flat(x, self.sizes[0]), key).scores

    def targets(
        self, weights: dict[str, Weights], seen: Pass, y: Int[Array, " b"], *, key: Key[Array, ""]
    ) -> list[Float[Array, "b _"]]:
        """t of each hidden layer."""
        a = [self.activation.value(z) for z in seen.z[:-1]]
        top = weights[f"w{len(seen.z)}"]
        down = backward(top, error(seen.scores, y), fold(key, "top"))[:, :-1]
        t = [a[-1] - self.step_size.astype(down.dtype) * down]
        for i in range(len(a), 1, -1):
            v, to, of = weights[f"v{i}"], *jax.random.split(fold(key, f"v{i}"))
            shift = self.inverse(v, t[0], to)[0] - self.inverse(v, a[i - 1], of)[0]
            t.insert(0, a[i - 2] + shift)
        return t

    def inverse(
        self, v: Weights, a: Float[Array, "b n"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "b m"], Float[Array, "b m"]]:
        """G of a layer's activity, and the slope of phi there."""
        z = forward(v, with_one(a), key)
        return self.activation.value(z), self.activation.slope(z)

    def forward_changes(
        self, weights: dict[str, Weights], seen: Pass, targets: list[Float[Array, "b _"]],
        y: Int[Array, " b"],
    ) -> dict[str, Array]:  # fmt: skip
        """Ascending changes of "w1" to "wL"."""
        phi, slope = self.activation
        delta = [
            (phi(z) - t) / self.step_size.astype(z.dtype) * slope(z)
            for z, t in zip(seen.z[:-1], targets, strict=True)
        ]
        names = [f"w{i}" for i in range(1, len(seen.z) + 1)]
        delta = [*delta, error(seen.scores, y)]
        dw = asked([weights[n] for n in names], delta, seen.inputs)
        return dict(zip(names, dw, strict=True))

    def inverse_changes(
        self, weights: dict[str, Weights], seen: Pass, *, key: Key[Array, ""]
    ) -> dict[str, Array]:
        """Ascending changes of "v2" to "v(L-1)"."""
        dw = {}
        for i in range(2, len(seen.z)):
            noise, up, down = jax.random.split(fold(key, f"v{i}"), 3)
            a = self.activation.value(seen.z[i - 2])
            a = a + self.sigma.astype(a.dtype) * jax.random.normal(noise, a.shape, a.dtype)
            above = with_one(self.activation.value(forward(weights[f"w{i}"], with_one(a), up)))
            z = forward(weights[f"v{i}"], above, down)
            delta = (self.activation.value(z) - a) * self.activation.slope(z)
            dw[f"v{i}"] = asked([weights[f"v{i}"]], [delta], (above,))[0]
        return dw

    def _passed(self, weights: dict[str, Weights], x: Array, key: Array | None) -> Pass:
        up = [weights[f"w{i}"] for i in range(1, len(self.sizes))]
        return passed(up, x, self.activation, key=key)


def __dir__() -> list[str]:
    return __all__
