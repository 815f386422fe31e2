"""A multi-layer perceptron whose rule of learning is an argument.

    a^0 = x,   z^l = W^l [a^(l-1), 1],   a^l = phi(z^l),   scores = z^L

The bias is the last column of each array, so all that is learned lies in `Weights`, and runs on
devices as it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import brief, classes, count, instance, known_finite, prng_key, real
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, forward, programmed
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal, normal
from neurojax.wiring.layouts import Dense

__all__ = [
    "Activation", "Pass", "Perceptron", "PerceptronState", "Rule", "elu", "relu", "sigmoid",
    "tanh",
]  # fmt: skip


class Activation(NamedTuple):
    """A function of z, and its derivative written out: a local rule takes none.

    Fields:
        value: callable, z -> a
        slope: callable, z -> da/dz
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _logistic_slope(z: Array) -> Array:
    a = jax.nn.sigmoid(z)
    return a * (1 - a)


relu = Activation(lambda z: jnp.maximum(z, 0), lambda z: (z > 0).astype(z.dtype))
elu = Activation(
    lambda z: jnp.where(z > 0, z, jnp.expm1(jnp.minimum(z, 0))),
    lambda z: jnp.exp(jnp.minimum(z, 0)),
)
tanh = Activation(jnp.tanh, lambda z: 1 - jnp.square(jnp.tanh(z)))
sigmoid = Activation(jax.nn.sigmoid, _logistic_slope)


class Pass(NamedTuple):
    """What a batch did on its way up.

    Fields:
        inputs: tuple of float [batch, n + 1]; what each array reads, a 1 for its bias last
        z: tuple of float [batch, n]; what each array gives; the last are the scores
    """

    inputs: tuple[Float[Array, "b _"], ...]
    z: tuple[Float[Array, "b _"], ...]

    @property
    def scores(self) -> Float[Array, "b c"]:
        """z of the last layer."""
        return self.z[-1]


class Rule(Protocol):
    """What asks for changes of weights.

    `init(key, sizes)` draws whatever is fixed and random, a pytree; None or () if nothing is.
    """

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> Any:
        """Fixed random feedback, of layers of `sizes`."""
        ...

    def __call__(
        self, net: "Perceptron", weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Ascending changes of each array, means over the batch, and the scores."""
        ...


class PerceptronState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL", [n_out, n_in + 1]
        fixed: any; the random feedback of the rule
        opt_state: any; that of the optax transformation
    """

    weights: dict[str, Weights]
    fixed: Any
    opt_state: Any


def layer_sizes(x: Any, hidden: int = 0) -> tuple[int, ...]:
    """Whole numbers >= 1, from input to classes, with at least `hidden` layers between them."""
    sizes = tuple(count("sizes")(n) for n in x) if isinstance(x, tuple | list) else ()
    if len(sizes) < 2 + hidden:
        few, said = ("two", "") if not hidden else ("three", ", with a hidden layer")
        raise ValueError(
            f"sizes must be (n_in, ..., n_classes), {few} or more{said}; got {brief(x)}"
        )
    return sizes


@described
class Perceptron(eqx.Module):
    """Layers of `sizes`, (n_in, hidden ..., n_classes), that learn by `rule`; a `Learner`.

    A sample may have any shape of n_in numbers. `tx` is an optax transformation, to which the
    changes go in negated, as it descends. First weights are Gaussian of standard deviation
    gain / sqrt(fan-in), biases 0.
    Raises `ValueError` for sizes that are no two or more whole numbers >= 1; `TypeError` for a
    class in place of its instance.

    >>> import optax
    >>> net = nj.learning.Perceptron((64, 32, 10), nj.learning.DFA(), optax.sgd(0.1))
    >>> state = net.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = net.step(state, x, y, key=jax.random.key(1))
    >>> net.predict(state, x).shape
    (2, 10)
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    rule: Rule = eqx.field(converter=lambda x: instance("rule", x, "init", "__call__"))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    activation: Activation = eqx.field(static=True, default=relu)
    gain: float | Array = eqx.field(
        default=1.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> PerceptronState:
        """Fresh weights, the rule's feedback and the optimiser's state."""
        weights = drawn(prng_key(key), self.sizes, make_weights, self.gain)
        opt_state = self.tx.init({n: w.w for n, w in weights.items()})
        return PerceptronState(weights, self.rule.init(fold(key, "fixed"), self.sizes), opt_state)

    def step(
        self, state: PerceptronState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[PerceptronState, Info]:  # fmt: skip
        """Learn from one batch what the rule asks for."""
        arrays, y = list(state.weights.values()), classes("y", y, self.sizes[-1], len(x))
        dw, scores = self.rule(
            self, arrays, state.fixed, flat(x, self.sizes[0]), y, key=fold(key, "rule")
        )
        named = dict(zip(state.weights, dw, strict=True))
        weights, opt_state = programmed(self.tx, state.weights, state.opt_state, named, key)
        return PerceptronState(weights, state.fixed, opt_state), {"accuracy": accuracy(scores, y)}

    def predict(
        self, state: PerceptronState, x: Float[Array, "b ..."], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores [batch, n_classes]."""
        arrays = list(state.weights.values())
        return self.passed(arrays, flat(x, self.sizes[0]), key=key).scores

    def passed(
        self, weights: list[Weights], x: Float[Array, "b i"], *, key: Key[Array, ""] | None = None
    ) -> Pass:
        """A batch on its way up."""
        return passed(weights, x, self.activation, key=key)


def passed(
    weights: list[Weights], x: Float[Array, "b i"], activation: Activation, *,
    key: Key[Array, ""] | None = None,
) -> Pass:  # fmt: skip
    """A batch on its way up through arrays that read a 1 for their biases."""
    inputs, z, a = [], [], x
    for i, w in enumerate(weights):
        inputs.append(with_one(a))
        z.append(forward(w, inputs[-1], None if key is None else jax.random.fold_in(key, i)))
        a = activation.value(z[-1])
    return Pass(tuple(inputs), tuple(z))


def drawn(
    key: Key[Array, ""], sizes: tuple[int, ...], make_weights: MakeWeights,
    gain: float | Array = 1.0,
) -> dict[str, Weights]:  # fmt: skip
    """Arrays "w1" to "wL" of a perceptron of `sizes`, biases 0 in their last column."""
    weights = {}
    for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False), 1):
        at = fold(key, f"w{i}")
        w = normal(fold(at, "first"), Dense(n_in, n_out), gain)
        w = jnp.concatenate([w, jnp.zeros((n_out, 1), w.dtype)], 1)
        weights[f"w{i}"] = make_weights(w, Dense(n_in + 1, n_out), fold(at, "make"))
    return weights


def flat(x: Float[Array, "b ..."], n_in: int) -> Float[Array, "b i"]:
    """Samples as rows of `n_in` numbers, refused unless as many, and finite where known."""
    x = known_finite("x", real(x, "x"))
    if x.ndim < 2 or x[:1].size != n_in:
        raise ValueError(f"x must be [batch, ...] of {n_in} numbers a sample; got {list(x.shape)}")
    return x.reshape(len(x), n_in)


def with_one(a: Float[Array, "b n"]) -> Float[Array, "b n1"]:
    """A 1 behind each sample, which the bias is read by."""
    return jnp.concatenate([a, jnp.ones((len(a), 1), a.dtype)], 1)


def asked(
    weights: list[Weights],
    delta: list[Float[Array, "b _"]],
    inputs: tuple[Float[Array, "b _"], ...],
) -> list[Array]:  # fmt: skip
    """- mean over the batch of delta^l [a^(l-1), 1]^T: ascending, from the errors of z."""
    return [-w.outer(d, s) / len(s) for w, d, s in zip(weights, delta, inputs, strict=True)]


def __dir__() -> list[str]:
    return __all__
