"""The forward-forward algorithm: each layer tells right labels from wrong ones by its own activity.

    s^0 = norm([x, label]),   h^l = max(W^l [s^(l-1), 1], 0),   s^l = norm(h^l)
    norm(h) = h / rms(h)
    goodness g^l = sum_j (h_j^l)^2 - theta n_l,   p(label is right) = sigma(g^l)
    L^l = mean softplus(-+ g^l), - for the label of a sample, + for a wrong one of its own
    delta^l = -+ 2 h^l sigma(-+ g^l),   dW^l = -mean delta^l [s^(l-1), 1]^T

Norms take each layer's goodness out of what the next one reads, and no error crosses a layer.
As in the paper's supervised runs, a softmax reads the normed activity of all hidden layers but the
first where the label is neutral, 1 / n_classes each; wrong labels are drawn from what it says
(hard negatives); and the decision is the label with which those layers' goodness adds up to most.
There the label overwrites the first pixels, which are black in MNIST; here it stands beside them.
Source: Hinton (2022), arXiv 2212.13345, section 3.3.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import classes, instance, known_finite, one_number, positive, prng_key, real
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, error, forward, programmed
from neurojax.learning.perceptron import asked, drawn, flat, layer_sizes, with_one
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal

__all__ = ["ForwardForward", "ForwardForwardState"]


class ForwardForwardState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL" of the hidden layers, [n, n_below + 1], and
            "readout" [n_classes, n_read + 1]; "w1" reads n_in + n_classes numbers and a 1
        opt_state: any; that of the optax transformation
    """

    weights: dict[str, Weights]
    opt_state: Any


@described
class ForwardForward(eqx.Module):
    """Hidden layers of `sizes`, (n_in, hidden ..., n_classes), taught two labels a sample.

    `theta` is the mean square activity at which a label is as likely right as wrong; `tx` an optax
    transformation, to which the changes go in negated. First weights are Gaussian of standard
    deviation gain / sqrt(fan-in), biases and readout 0.
    Raises `ValueError` for `sizes` without a hidden layer, and for a `theta` that is not finite
    and > 0.

    >>> import optax
    >>> net = nj.learning.ForwardForward((64, 32, 32, 10), optax.sgd(0.1))
    >>> state = net.init(jax.random.key(0))
    >>> net.predict(state, jnp.ones((2, 64))).shape
    (2, 10)
    """

    sizes: tuple = eqx.field(static=True, converter=lambda x: layer_sizes(x, hidden=1))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    theta: Float[Array, ""] = eqx.field(default=1.0, converter=positive("theta", ""))
    gain: float | Array = eqx.field(
        default=1.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )

    def __check_init__(self):
        one_number(self, "theta")
        if self.sizes[-1] < 2:
            raise ValueError(f"sizes must end with two classes at least; got {self.sizes}")

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> ForwardForwardState:
        """Fresh weights and the optimiser's state."""
        key, n_in, hidden, n_classes = prng_key(key), self.sizes[0], *self._ends()
        weights = drawn(key, (n_in + n_classes, *hidden), make_weights, self.gain)
        read = (sum(self.read(hidden)), n_classes)
        weights["readout"] = drawn(fold(key, "readout"), read, make_weights, 0.0)["w1"]
        return ForwardForwardState(weights, self.tx.init({n: w.w for n, w in weights.items()}))

    def step(
        self, state: ForwardForwardState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[ForwardForwardState, Info]:  # fmt: skip
        """Learn from one batch, shown with neutral, right and wrong labels."""
        y = classes("y", y, self.sizes[-1], len(x))
        x, read = flat(x, self.sizes[0]), fold(key, "read")
        seen, scores = self.neutral(state.weights, x, key=fold(read, "neutral"))
        wrong = self.wrong(scores, y, key=fold(key, "wrong"))
        named = self.changes(state.weights, x, y, wrong, key=fold(read, "labelled"))
        readout = state.weights["readout"]
        named["readout"] = asked([readout], [error(scores, y)], (seen,))[0]
        weights, opt_state = programmed(self.tx, state.weights, state.opt_state, named, key)
        return ForwardForwardState(weights, opt_state), {"accuracy": accuracy(scores, y)}

    def predict(
        self, state: ForwardForwardState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Goodness of each label [batch, n_classes], of all hidden layers but the first."""
        x, n_classes = flat(x, self.sizes[0]), self.sizes[-1]

        def goodness(label: Array) -> Array:
            told = jnp.broadcast_to(
                jax.nn.one_hot(label, n_classes, dtype=x.dtype), (len(x), n_classes)
            )
            at = None if key is None else jax.random.fold_in(key, label)
            _, h = self.climbed(state.weights, x, told, key=at)
            return jnp.stack([self.goodness(each) for each in self.read(h)]).sum(0)

        return jax.lax.map(goodness, jnp.arange(n_classes)).T

    def climbed(
        self, weights: dict[str, Weights], x: Float[Array, "b i"], label: Float[Array, "b c"], *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[list[Float[Array, "b _"]], list[Float[Array, "b _"]]]:  # fmt: skip
        """What each hidden array reads, a 1 last, and the activity that it gives."""
        inputs, h, s = [], [], normed(jnp.concatenate([x, label], 1))
        for i in range(1, len(self.sizes) - 1):
            inputs.append(with_one(s))
            at = None if key is None else jax.random.fold_in(key, i)
            h.append(jnp.maximum(forward(weights[f"w{i}"], inputs[-1], at), 0))
            s = normed(h[-1])
        return inputs, h

    def neutral(
        self, weights: dict[str, Weights], x: Float[Array, "b i"], *, key: Key[Array, ""]
    ) -> tuple[Float[Array, "b r"], Float[Array, "b c"]]:
        """What the readout reads of samples without a label, and its scores."""
        n_classes = self.sizes[-1]
        label = jnp.full((len(x), n_classes), 1 / n_classes, x.dtype)
        _, h = self.climbed(weights, x, label, key=key)
        seen = with_one(jnp.concatenate([normed(each) for each in self.read(h)], 1))
        return seen, forward(weights["readout"], seen, fold(key, "readout"))

    def wrong(
        self, scores: Float[Array, "b c"], y: Int[Array, " b"], *, key: Key[Array, ""]
    ) -> Int[Array, " b"]:
        """A wrong label a sample, the likelier the more the readout takes it for right."""
        right = jax.nn.one_hot(y, scores.shape[-1], dtype=bool)
        return jax.random.categorical(key, jnp.where(right, -jnp.inf, scores))

    def changes(
        self, weights: dict[str, Weights], x: Float[Array, "b i"], y: Int[Array, " b"],
        wrong: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> dict[str, Array]:  # fmt: skip
        """Ascending changes of each hidden array."""
        label = jax.nn.one_hot(jnp.concatenate([y, wrong]), self.sizes[-1], dtype=x.dtype)
        inputs, h = self.climbed(weights, jnp.concatenate([x, x]), label, key=key)
        side = jnp.repeat(jnp.array([1, -1], x.dtype), len(x))
        delta = [self.delta(each, side) for each in h]
        names = [f"w{i}" for i in range(1, len(h) + 1)]
        dw = asked([weights[n] for n in names], delta, tuple(inputs))
        return dict(zip(names, dw, strict=True))

    def delta(self, h: Float[Array, "b n"], side: Float[Array, " b"]) -> Float[Array, "b n"]:
        """Derivative by z of softplus(-side g), where `side` is 1 with a right label, else -1."""
        unlike = jax.nn.sigmoid(-side * self.goodness(h))
        return -2 * h * (side * unlike)[:, None]

    def goodness(self, h: Float[Array, "b n"]) -> Float[Array, " b"]:
        """g of a layer, whose sigmoid is the chance that the label is right."""
        return jnp.square(h).sum(-1) - self.theta.astype(h.dtype) * h.shape[-1]

    def read(self, layers: Any) -> Any:
        """Those of the hidden layers that decide: all but the first, or the only one."""
        return layers[1:] or layers

    def _ends(self) -> tuple[tuple[int, ...], int]:
        return self.sizes[1:-1], self.sizes[-1]


def normed(h: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """Each sample over its root mean square; what is silent stays so."""
    return h / (jnp.sqrt(jnp.square(h).mean(-1, keepdims=True)) + 1e-8)


def __dir__() -> list[str]:
    return __all__
