"""Neuromodulator populations: a few neurons that see how learning goes and gate it."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Integer, Key

from neurojax._check import (
    between,
    brief,
    cast,
    classes,
    count,
    in_working,
    known_finite,
    nonnegative,
    one_number,
    positive,
    prng_key,
    real,
    working,
)
from neurojax._memory import affordable
from neurojax._repr import described

__all__ = ["ModulatorState", "Modulators", "modulators"]


class ModulatorState(NamedTuple):
    """Activity of M modulators, without unit, and what scores they are used to.

    Fields:
        m: float [M]; in [0, 1]
        s_slow: float [n_classes]; running mean of the scores
    """

    m: Float[Array, " m"]
    s_slow: Float[Array, " c"]


def _by_layer(a: Any) -> dict[str, Array]:
    """Field converter: arrays of numbers by name."""
    if not isinstance(a, dict):
        raise TypeError(f"a must be a dict by layer; got {brief(a)}")
    return {
        n: nonnegative(f"a of layer {n!r}", "")(real(x, f"a of layer {n!r}")) for n, x in a.items()
    }


@described
class Modulators(eqx.Module):
    """M rate neurons driven by surprise, uncertainty and novelty, gating each neuron:

        u_t = (1 - pi_target, H(pi) / log C, |s_t - s_slow,t-1| / (|s_slow,t-1| + 1))
        m_t = rho_m m_{t-1} + (1 - rho_m) sigmoid(K u_t)       gate_t = 2 A m_t, in [0, 2]
        s_slow,t = rho_s s_slow,t-1 + (1 - rho_s) s_t

    pi = softmax(gain s_t) is the readout's belief over C classes, H its entropy, |.| the
    Euclidean norm. m starts from 0.5, a gate of one, and s_slow from 0. `k` = K [M, 3] is
    random, `a` = A [n, M] by layer is random, non-negative, with rows that sum to one; both
    are fixed. `gain`, `rho_m` and `rho_s` are numbers; all is without unit but `gain`, which
    is per unit of score.
    Raises `ValueError` for a parameter out of range.
    Source: Frémaux and Gerstner (2016), sec. 3 (gating third factors); equations our own.

    >>> gates = nj.Modulators(k=jnp.zeros((1, 3)), a={"h": jnp.ones((2, 1))})
    >>> state, m = gates.step(gates.init(n_classes=3), jnp.array([0.1, 0.0, 0.0]), 0)
    >>> gates.gate("h", m)  # with K = 0 nothing moves them: a gate of one
    Array([1., 1.], dtype=float32)
    """

    k: Float[Array, "m 3"] = eqx.field(converter=lambda k: known_finite("k", real(k, "k")))
    a: dict[str, Float[Array, "_ m"]] = eqx.field(converter=_by_layer)
    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))
    rho_m: Float[Array, ""] = eqx.field(default=0.8, converter=between("rho_m", 0.0, 1.0))
    rho_s: Float[Array, ""] = eqx.field(default=0.95, converter=between("rho_s", 0.0, 1.0))

    def __check_init__(self):
        k, a = self.k.shape, {name: x.shape for name, x in self.a.items()}
        if k[1:] != (3,) or any(len(x) != 2 or x[1] != k[0] for x in a.values()):
            raise ValueError(f"k must be [M, 3] and a of each layer [n, M]; got {k} and {a}")

    def init(self, n_classes: int, dtype: DTypeLike = float) -> ModulatorState:
        """Half-active modulators (a gate of one), no expectation yet."""
        n_classes = count("n_classes", 2)(n_classes)  # of one no belief can be uncertain
        return ModulatorState(jnp.full(len(self.k), 0.5, dtype), jnp.zeros(n_classes, dtype))

    def step(
        self, state: ModulatorState, scores: Float[Array, " c"], target: Integer[ArrayLike, ""]
    ) -> tuple[ModulatorState, Float[Array, " m"]]:
        """Modulators after one step of scores [n_classes], and their activity [M]."""
        one_number(self, "gain", "rho_m", "rho_s")
        if scores.shape != state.s_slow.shape:
            raise ValueError(
                f"scores must be [n_classes] = {list(state.s_slow.shape)}, as init was told; got"
                f" {list(scores.shape)}"
            )
        target = classes("target", target, scores.size)
        s, state, p = in_working(scores, state, self)
        belief = jax.nn.softmax(p.gain * s)
        novelty = jnp.linalg.norm(s - state.s_slow) / (jnp.linalg.norm(state.s_slow) + 1)
        entropy = jax.scipy.special.entr(belief).sum() / math.log(belief.size)
        u = jnp.stack([1 - belief[target], entropy, novelty])
        m = p.rho_m * state.m + (1 - p.rho_m) * jax.nn.sigmoid(p.k @ u)
        new = ModulatorState(m, p.rho_s * state.s_slow + (1 - p.rho_s) * s)
        new = cast(new, scores.dtype)
        return new, new.m

    def gate(self, layer: str, m: Float[Array, " m"]) -> Float[Array, " n"]:
        """How much each neuron of `layer` learns now, [n] in [0, 2]."""
        if layer not in self.a:
            raise ValueError(f"no modulators reach layer {layer!r}: they reach {sorted(self.a)}")
        return 2 * (self.a[layer].astype(m.dtype) @ m)


def modulators(
    key: Key[Array, ""], n: int, layers: dict[str, int], dtype: DTypeLike = float
) -> Modulators:
    """`n` modulators with random fixed projections to `layers` (name: neurons).

    What they are moved by, `k` [n, 3], and whom they gate, `a` [neurons, n], is without unit.
    Raises `ValueError` for less than one modulator, `TypeError` for what is no key.

    >>> gates = nj.modulators(jax.random.key(0), 4, {"h1": 100})
    >>> gates.k.shape, gates.a["h1"].shape
    ((4, 3), (100, 4))
    """
    n = count("n")(n)
    if not isinstance(layers, dict):
        raise TypeError(f"layers must be a dict of neurons by name; got {brief(layers)}")
    layers = {name: count(f"layer {name!r}")(neurons) for name, neurons in layers.items()}
    affordable(f"{n} modulators", 8 * n * (3 + sum(layers.values())))
    to, fro = jax.random.split(prng_key(key))
    draws = jax.random.split(fro, len(layers))
    shares = {
        name: _simplex(draw, (layers[name], n), dtype)
        for name, draw in zip(sorted(layers), draws, strict=True)
    }
    return Modulators(jax.random.normal(to, (n, 3), dtype), shares)


def _simplex(key: Array, shape: tuple[int, int], dtype: DTypeLike) -> Array:
    """Rows uniform on the simplex, as Dirichlet(1, ..., 1) draws them, but quick to compile."""
    e = jax.random.exponential(key, shape, working(dtype))
    return (e / e.sum(1, keepdims=True)).astype(dtype)


def __dir__() -> list[str]:
    return __all__
