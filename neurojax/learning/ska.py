"""Structured knowledge accumulation: each layer descends an entropy of its own, without labels.

A network of sigmoids sees one batch K times. z_k is what a layer hears in pass k ("knowledge"),
d_k = sigma(z_k) what it says ("decision"), d^0 = x, and Dd_k = d_k - d_(k-1):

    entropy   h_k = -(1 / ln 2) sum z_k o Dd_k                            over batch and units
    slope     g_k = -(1 / ln 2) (z_k o d_k o (1 - d_k) + Dd_k)            d_(k-1) held
    change    dW^l = -(eta / n) g_k^lT [d_(k-1)^(l-1), 1]                 k >= 1, n samples

Labels are never used and nothing is sent back, and it is no classifier: h depends on the path of z
through its ends alone, so that each layer drives all inputs the same way. As eta -> 0

    sum_k h_k = sum hb(d_K) - hb(d_0),    hb the binary entropy in bits

which any curve from z_0 to z_K gives.
Source: Mahi (2025), arXiv 2503.13942 and 2504.03214, with the slope that the author's code has.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from neurojax._check import count, nonnegative, positive, prng_key
from neurojax._repr import described
from neurojax.learning.learner import Info, forward
from neurojax.learning.perceptron import flat, layer_sizes, with_one
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal
from neurojax.wiring.layouts import Dense

__all__ = ["SKA", "SKAState", "SKATrace", "entropy", "entropy_slope", "lagrangian"]

_BITS = 1 / math.log(2)


def entropy(z: Float[Array, "*n"], before: Float[Array, "*n"]) -> Float[Array, ""]:
    """h of one pass, in bits: knowledge `z` and the decisions `before` it, of one shape.

    >>> from neurojax.learning.ska import entropy
    >>> z = jnp.array([0.0, 2.0])
    >>> entropy(z, jax.nn.sigmoid(z)).item()  # nothing has changed
    -0.0
    """
    return -_BITS * (z * (jax.nn.sigmoid(z) - before)).sum()


def entropy_slope(z: Float[Array, "*n"], before: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """dh / dz of each unit, in bits, with what was decided `before` held; all of one shape."""
    d = jax.nn.sigmoid(z)
    return -_BITS * (z * d * (1 - d) + d - before)


def lagrangian(z: Float[Array, "*n"], velocity: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """L = -z sigma'(z) dz/dt, elementwise, which the second paper calls a principle of action.

    It is the rate of a function of z alone, so its Euler-Lagrange equation is 0 = 0: every curve
    z(t) obeys it, and that one does is evidence of nothing.
    """
    d = jax.nn.sigmoid(z)
    return -z * d * (1 - d) * velocity


class SKAState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL", [n_out, n_in + 1], biases in the last column
    """

    weights: dict[str, Weights]


class SKATrace(NamedTuple):
    """What the passes of one batch were like; pass 0 has no pass before it and is left out.

    Fields:
        entropy: float [K - 1, L]; h of each pass and layer, bits
        cosine: float [K - 1, L]; of the angle between z and Dd; 0 where nothing changed
        norm: float [K - 1, L]; length of z, over batch and units
        flow: float [K - 1, L]; length of z_k - z_(k-1) over eta
        net: float [K - 1, L]; d_k + (1 / ln 2) z_k o d_k o (1 - d_k) along z_k - z_(k-1), the
            step of the "tensor net" with the sign of the paper
    """

    entropy: Float[Array, "k l"]
    cosine: Float[Array, "k l"]
    norm: Float[Array, "k l"]
    flow: Float[Array, "k l"]
    net: Float[Array, "k l"]


@described
class SKA(eqx.Module):
    """Sigmoid layers of `sizes`, (n_in, ..., n_out), that each follow their own entropy.

    A `Learner` in form alone: `step` takes labels and never looks at them, `predict` gives what
    the last layer says, [batch, n_out] in (0, 1), and its argmax is one and the same for all
    inputs once it has run. `n_passes` is K, `eta` the step size, `std` the standard deviation of
    first weights; biases start at 0. Everything is without unit but the entropy, in bits.
    Raises `ValueError` for sizes that are no two or more whole numbers >= 1, fewer than two
    passes, a negative eta or a std that is not positive.

    >>> learner = nj.learning.SKA((64, 16, 10), eta=0.01, n_passes=5)
    >>> state = learner.init(jax.random.key(0))
    >>> x = jnp.ones((3, 64))
    >>> state, trace = learner.run(state, x, key=jax.random.key(1))
    >>> trace.entropy.shape, learner.predict(state, x).shape
    ((4, 2), (3, 10))

    Source: Mahi (2025), arXiv 2503.13942.
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    eta: float | Array = eqx.field(default=0.01, converter=nonnegative("eta", ""))
    n_passes: int = eqx.field(static=True, default=50, converter=count("n_passes", 2))
    std: float | Array = eqx.field(default=0.01, converter=positive("std", ""))

    @property
    def n_classes(self) -> int:
        """How many units the last layer has."""
        return self.sizes[-1]

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> SKAState:
        """Fresh weights, Gaussian, and biases of 0."""
        key, weights = prng_key(key), {}
        for i, (n_in, n_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False), 1):
            at = fold(key, f"w{i}")
            w = jax.random.normal(fold(at, "first"), (n_out, n_in))
            w = jnp.concatenate([jnp.asarray(self.std, w.dtype) * w, jnp.zeros((n_out, 1))], 1)
            weights[f"w{i}"] = make_weights(w, Dense(n_in + 1, n_out), fold(at, "make"))
        return SKAState(weights)

    def step(
        self, state: SKAState, x: Float[Array, "b ..."], y: Any = None, *, key: Key[Array, ""]
    ) -> tuple[SKAState, Info]:
        """All passes over one batch; `y` is ignored. Shows the `entropy` of all of them, bits."""
        state, trace = self.run(state, x, key=key)
        return state, {"entropy": trace.entropy.sum()}

    def predict(
        self, state: SKAState, x: Float[Array, "b ..."], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """What the last layer says, [batch, n_out]; it is no classifier's score."""
        return self.decisions(state, x, key=key)[-1]

    def decisions(
        self, state: SKAState, x: Float[Array, "b ..."], *, key: Key[Array, ""] | None = None
    ) -> list[Float[Array, "b _"]]:
        """What each layer says, d^1 to d^L [batch, n_l]."""
        return [jax.nn.sigmoid(z) for z in self._knowledge(state.weights, x, key)]

    def run(
        self, state: SKAState, x: Float[Array, "b ..."], *, key: Key[Array, ""]
    ) -> tuple[SKAState, SKATrace]:
        """Pass after pass over one batch: the state afterwards, and what happened."""
        x = flat(x, self.sizes[0])

        def one(carry, k):
            weights, before = carry
            now = jax.random.fold_in(key, k)
            z = self._knowledge(weights, x, fold(now, "read"))
            d = [x, *map(jax.nn.sigmoid, before)]
            weights = {
                name: self._learned(name, held, z_l, said, d_l, now)
                for (name, held), z_l, said, d_l in zip(
                    weights.items(), z, d[1:], d[:-1], strict=True
                )
            }
            return (weights, z), self._seen(z, before)

        first = self._knowledge(state.weights, x, fold(key, "first"))
        carry, seen = jax.lax.scan(one, (state.weights, first), jnp.arange(1, self.n_passes))
        return SKAState(carry[0]), SKATrace(*seen)

    def _learned(
        self, name: str, weights: Weights, z: Array, before: Array, below: Array, key: Array
    ) -> Weights:
        """One layer's array after a pass: from its own knowledge, decisions and inputs."""
        dw = weights.outer(entropy_slope(z, before), with_one(below))
        return weights.program(-jnp.asarray(self.eta, z.dtype) / len(z) * dw, key=fold(key, name))

    def _seen(self, z: list[Array], before: list[Array]) -> list[Float[Array, " l"]]:
        """The fields of a trace, layer by layer."""
        rows = [self._layer(*of) for of in zip(z, before, strict=True)]
        return [jnp.stack(field) for field in zip(*rows, strict=True)]

    def _layer(self, z: Float[Array, "b n"], z_before: Float[Array, "b n"]) -> list[Array]:
        said, d = jax.nn.sigmoid(z_before), jax.nn.sigmoid(z)
        along, size = (z * (d - said)).sum(), _norm(z) * _norm(d - said)
        cosine = jnp.where(size > 0, along / jnp.where(size > 0, size, 1), 0)
        net = ((d + _BITS * z * d * (1 - d)) * (z - z_before)).sum()
        flow = _norm(z - z_before) / jnp.asarray(self.eta, z.dtype)
        return [entropy(z, said), cosine, _norm(z), flow, net]

    def _knowledge(
        self, weights: dict[str, Weights], x: Array, key: Array | None
    ) -> list[Float[Array, "b _"]]:
        """z^1 to z^L."""
        z, d = [], flat(x, self.sizes[0])
        for name, w in weights.items():
            z.append(forward(w, with_one(d), fold(key, name)))
            d = jax.nn.sigmoid(z[-1])
        return z


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.square(x).sum())


def __dir__() -> list[str]:
    return __all__
