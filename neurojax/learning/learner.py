"""What every learning system answers to, so that data, devices and tables are written once."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._draw import fold
from neurojax.data.ragged import Rasters
from neurojax.weights import MakeWeights, Weights, ideal

__all__ = ["Info", "Learner"]

Samples = Float[Array, "b ..."] | Rasters  # the second: over time, each as long as it lasts
Info = dict[str, Array]  # what a batch showed, a number each; `accuracy` where it was seen


@runtime_checkable
class Learner(Protocol):
    """A learning system: a frozen pytree with three pure functions.

    `init` draws a state, in which whatever is plastic is held by what `make_weights` makes:
    numbers (`nj.ideal()`) or devices. `step` learns from a batch, `x` [batch, ...] and labels
    `y` [batch], and gives back the same structure; where a learner takes samples over time, `x`
    may be `data.Rasters` of several lengths. `predict` gives scores [batch, n_classes], whose
    argmax is the decision.
    One that must see inputs before it learns has `settle(state, x, *, key) -> state` too, for
    one batch of them.
    """

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> Any:
        """A fresh state, drawn from `key`."""
        ...

    def step(
        self, state: Any, x: Float[Array, "b ..."], y: Int[Array, " b"], *, key: Key[Array, ""]
    ) -> tuple[Any, Info]:
        """The state after a batch, and what it showed."""
        ...

    def predict(
        self, state: Any, x: Float[Array, "b ..."], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores of a batch; with devices that read noisily, drawn from `key`."""
        ...


def forward(
    weights: Weights, s: Float[Array, "b pre"], key: Key[Array, ""] | None = None
) -> Float[Array, "b post"]:
    """What a batch [b, n_pre] gives, [b, n_post], each sample read with a key of its own."""
    return _each(weights.apply, s, key)


def backward(
    weights: Weights, e: Float[Array, "b post"], key: Key[Array, ""] | None = None
) -> Float[Array, "b pre"]:
    """The same synapses read the other way: [b, n_post] to [b, n_pre]."""
    return _each(weights.apply_t, e, key)


def _each(read: Any, x: Array, key: Array | None) -> Array:
    keys = None if key is None else jax.random.split(key, len(x))
    return jax.vmap(lambda x, key: read(x, key=key))(x, keys)


def programmed(
    tx: Any, weights: dict[str, Weights], opt_state: Any, dw: dict[str, Array], key: Key[Array, ""]
) -> tuple[dict[str, Weights], Any]:
    """Weights after the ascending changes `dw`, which `tx` of optax makes steps of.

    Both are by name; weights that no change names stay as they are. `opt_state` is that of
    `tx.init` of the numbers that those named hold.
    """
    plain = {name: weights[name].w for name in dw}
    with jax.numpy_dtype_promotion("standard"):  # optax promotes, whatever the user has set
        updates, opt_state = tx.update(jax.tree.map(jnp.negative, dw), opt_state, plain)
    new = {n: weights[n].program(u, key=fold(key, n)) for n, u in updates.items()}
    return weights | new, opt_state


def error(scores: Float[Array, "b c"], y: Int[Array, " b"]) -> Float[Array, "b c"]:
    """softmax(scores) - one-hot(y): the derivative of the cross-entropy, in closed form."""
    return jax.nn.softmax(scores) - jax.nn.one_hot(y, scores.shape[-1], dtype=scores.dtype)


def cross_entropy(scores: Float[Array, "b c"], y: Int[Array, " b"]) -> Float[Array, " b"]:
    """-log softmax(scores) at the label of each sample, nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], 1)[:, 0]


def accuracy(scores: Float[Array, "b c"], y: Int[Array, " b"]) -> Float[Array, ""]:
    """Part of a batch whose largest score is that of its label."""
    return (scores.argmax(-1) == y).mean()


def __dir__() -> list[str]:
    return __all__
