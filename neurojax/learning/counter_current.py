"""Counter-current learning: a second net runs from label to input, and each level meets its own.

    up       a^0 = x,    z^l = U^l a^(l-1),   a^l = phi(z^l),         scores = z^L
    down     b^L = I,    y^l = V^(l+1) b^(l+1),   b^l = phi(y^l),     b^0 = y^0
    level l  E^l = a^l b^lT - Y,    L_l = (kappa / d_l) mean(E^l o E^l),    l = 0 .. L - 1
             dU^l = -(2 kappa / (d_l B C)) (E^l b^l o phi'(z^l))^T a^(l-1)        (l > 0)
             dV^(l+1) = -(2 kappa / (d_l B C)) (E^lT a^l o phi'(y^l))^T b^(l+1)
    readout  dU^L = -(p - Y)^T a^(L-1) / B

with a batch of B samples as rows, C classes, Y their labels one-hot. The net below runs on the C
labels alone: row c of b^l is the prototype of class c at level l, of which each level is a linear
readout. No level hears of another's error, and no array is read backwards.
Source: Kao and Hariharan (2024), arXiv 2409.19841, eq. 2; what each level descends is that of
their code for perceptrons (kappa = 128), which does not normalise rows as the text does.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import choice, classes, flag, instance, known_finite, positive, prng_key, real
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, error, forward, programmed
from neurojax.learning.perceptron import Activation, elu, flat, layer_sizes
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal
from neurojax.wiring.layouts import Dense

__all__ = ["CounterCurrent", "CounterCurrentState"]

_KAPPA = 128.0  # 256 / 2 in the authors' code


class CounterCurrentState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "u1" to "uL" [n_l, n_(l-1)] upwards, in weight units, and
            "v1" to "vL" [n_(l-1), n_l] downwards
        opt_state: dict; that of the optax transformation, "u" of one net and "v" of the other
    """

    weights: dict[str, Weights]
    opt_state: dict[str, Any]


class _Way(NamedTuple):
    """What one net did, by level."""

    z: list[Float[Array, "b _"]]
    a: list[Float[Array, "b _"]]


@described
class CounterCurrent(eqx.Module):
    """Two nets of `sizes`, (n_in, hidden ..., n_classes), one up and one down; a `Learner`.

    A sample may have any shape of n_in numbers and enters as (x - mean) / std. There are no
    biases. `tx`, an optax transformation, moves each net by its own changes: a clip by global
    norm in it is one over that whole net; `tx_feedback` is another for the net down, unless None.
    `normalised` meets the levels with rows of length one, L_l = mean(E^l o E^l), as the paper's
    text has it. `frozen` leaves the "feedback" net or the "hidden" layers as they were drawn: the
    controls. First weights are uniform within 1 / sqrt(fan-in). Weights have no unit.
    Raises `ValueError` for sizes that are no two or more whole numbers >= 1, a std that is not
    positive and an unknown `frozen`; `TypeError` for a class in place of its instance.

    >>> import optax
    >>> tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    >>> learner = nj.learning.CounterCurrent((64, 32, 32, 10), tx)
    >>> state = learner.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = learner.step(state, x, y, key=jax.random.key(1))
    >>> learner.predict(state, x).shape, learner.prototypes(state)[1].shape
    ((2, 10), (10, 32))

    Source: Kao and Hariharan (2024), arXiv 2409.19841.
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    tx_feedback: Any = eqx.field(
        static=True, default=None,
        converter=lambda x: x and instance("tx_feedback", x, "init", "update"),
    )  # fmt: skip
    activation: Activation = eqx.field(static=True, default=elu)
    mean: float | Array = eqx.field(
        default=0.0, converter=lambda x: known_finite("mean", real(x, "mean"))
    )
    std: float | Array = eqx.field(default=1.0, converter=positive("std", ""))
    normalised: bool = eqx.field(static=True, default=False, converter=flag("normalised"))
    frozen: Literal["nothing", "feedback", "hidden"] = eqx.field(
        static=True, default="nothing", converter=choice("frozen", "nothing", "feedback", "hidden")
    )

    @property
    def n_classes(self) -> int:
        """How many classes it tells apart."""
        return self.sizes[-1]

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> CounterCurrentState:
        """Fresh weights of both nets, and the optimiser's state of each."""
        key, weights = prng_key(key), {}
        for i, (below, above) in enumerate(zip(self.sizes, self.sizes[1:], strict=False), 1):
            weights[f"u{i}"] = _drawn(fold(key, f"u{i}"), below, above, make_weights)
            weights[f"v{i}"] = _drawn(fold(key, f"v{i}"), above, below, make_weights)
        held = {net: {n: weights[n].w for n in self._plastic(net)} for net in "uv"}
        return CounterCurrentState(weights, {net: self._tx(net).init(held[net]) for net in "uv"})

    def step(
        self, state: CounterCurrentState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[CounterCurrentState, Info]:  # fmt: skip
        """Learn from one batch, each level what it alone asks for."""
        y = classes("y", y, self.n_classes, len(x))
        dw, scores = self.deltas(state, x, y, key=fold(key, "read"))
        weights, opt_state = state.weights, {}
        for net, held in state.opt_state.items():
            asked = {name: dw[name] for name in self._plastic(net)}
            weights, opt_state[net] = programmed(
                self._tx(net), weights, held, asked, fold(key, net)
            )
        return CounterCurrentState(weights, opt_state), {"accuracy": accuracy(scores, y)}

    def predict(
        self, state: CounterCurrentState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Scores [batch, n_classes] of the net upwards."""
        return self._up(state.weights, x, key).z[-1]

    def prototypes(
        self, state: CounterCurrentState, *, key: Key[Array, ""] | None = None
    ) -> list[Float[Array, "c _"]]:
        """What each class should look like at level 0, 1, ..., L - 1: b^l [n_classes, n_l]."""
        return self._down(state.weights, key).a

    def alignment(self, state: CounterCurrentState) -> Float[Array, " l"]:
        """Cosine of U^l and V^lT, [L]: how far the nets have come to be each other's mirror."""
        pairs = [(state.weights[f"u{i}"].w, state.weights[f"v{i}"].w.T) for i in self._levels]
        return jnp.stack([(u * v).sum() / _norm(u) / _norm(v) for u, v in pairs])

    def deltas(
        self, state: CounterCurrentState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[dict[str, Array], Float[Array, "b c"]]:  # fmt: skip
        """Ascending change of each array, by name and shaped as it, and scores [batch, n_classes].

        Raises `ValueError` for labels that are none of the classes, outside jit, or not one a
        sample.
        """
        y = classes("y", y, self.n_classes, len(x))
        up = self._up(state.weights, x, fold(key, "up"))
        down, top = self._down(state.weights, fold(key, "down")), len(self._levels)
        told = jnp.eye(self.n_classes, dtype=up.z[-1].dtype)
        dw = {f"u{top}": _mean(state.weights[f"u{top}"], error(up.z[-1], y), up.a[-1])}
        above = [*down.a[1:], told]  # what the array onto each level of the net downwards reads
        for level in range(top):
            to_a, to_b = self._meet(up.a[level], down.a[level], told[y])
            to_b = to_b if level == 0 else to_b * self.activation.slope(down.z[level])
            v = state.weights[f"v{level + 1}"]
            dw[f"v{level + 1}"] = -v.outer(to_b, above[level])
            if level:
                to_a = to_a * self.activation.slope(up.z[level - 1])
                dw[f"u{level}"] = -state.weights[f"u{level}"].outer(to_a, up.a[level - 1])
        return dw, up.z[-1]

    def _meet(
        self, a: Float[Array, "b d"], b: Float[Array, "c d"], y: Float[Array, "b c"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "c d"]]:
        """What the loss of one level asks of both activities: its derivatives by them."""
        if self.normalised:
            (a, size_a), (b, size_b) = _unit(a), _unit(b)
            e = 2 / y.size * (a @ b.T - y)
            return _along(e @ b, a) / size_a, _along(e.T @ a, b) / size_b
        e = 2 * _KAPPA / a.shape[1] / y.size * (a @ b.T - y)
        return e @ b, e.T @ a

    def _up(self, weights: dict[str, Weights], x: Array, key: Array | None) -> _Way:
        """a^0 to a^(L-1), and z^1 to z^L."""
        x = flat(x, self.sizes[0])
        a, z = [(x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)], []
        for i in self._levels:
            z.append(forward(weights[f"u{i}"], a[-1], fold(key, f"u{i}")))
            a.append(self.activation.value(z[-1]))
        return _Way(z, a[:-1])

    def _down(self, weights: dict[str, Weights], key: Array | None) -> _Way:
        """b^0 to b^(L-1) of each class, the first of them linear, and what they come from."""
        b, z = [jnp.eye(self.n_classes, dtype=weights["v1"].w.dtype)], []
        for i in reversed(self._levels):
            z.insert(0, forward(weights[f"v{i}"], b[0], fold(key, f"v{i}")))
            b.insert(0, self.activation.value(z[0]) if i > 1 else z[0])
        return _Way(z, b[:-1])

    def _tx(self, net: str) -> Any:
        return self.tx_feedback if net == "v" and self.tx_feedback is not None else self.tx

    @property
    def _levels(self) -> range:
        return range(1, len(self.sizes))

    def _plastic(self, net: str) -> list[str]:
        """Names of the arrays of one net that learn."""
        if net == "v":
            return [] if self.frozen == "feedback" else [f"v{i}" for i in self._levels]
        return [f"u{i}" for i in self._levels if self.frozen != "hidden" or i == len(self._levels)]


def _drawn(key: Array, n_pre: int, n_post: int, make_weights: MakeWeights) -> Weights:
    end = n_pre**-0.5
    w = jax.random.uniform(fold(key, "first"), (n_post, n_pre), minval=-end, maxval=end)
    return make_weights(w, Dense(n_pre, n_post), fold(key, "make"))


def _mean(weights: Weights, post: Float[Array, "b n"], pre: Float[Array, "b m"]) -> Array:
    return -weights.outer(post, pre) / len(pre)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.square(x).sum())


def _unit(x: Float[Array, "r d"]) -> tuple[Float[Array, "r d"], Float[Array, "r 1"]]:
    """Rows of length one, and how long they were; a row of zeros stays one."""
    size = jnp.sqrt(jnp.square(x).sum(1, keepdims=True))
    size = jnp.maximum(size, jnp.finfo(x.dtype).tiny)
    return x / size, size


def _along(g: Float[Array, "r d"], unit: Float[Array, "r d"]) -> Float[Array, "r d"]:
    """The part of each row of `g` that turns the row of `unit`: it can't get longer."""
    return g - (g * unit).sum(1, keepdims=True) * unit


def __dir__() -> list[str]:
    return __all__
