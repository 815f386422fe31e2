"""Neuromodulator populations: a few neurons that see how learning goes and gate it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from neurojax._check import between, positive, working


class ModulatorState(NamedTuple):
    """Activity of the modulators and what scores they are used to."""

    m: Float[Array, " m"]
    s_slow: Float[Array, " c"]


class Modulators(eqx.Module):
    """M rate neurons driven by surprise, uncertainty and novelty, gating each neuron:

        u = (1 - pi_target, H(pi) / log C, |s - s_slow| / (|s_slow| + 1))
        m_t = rho_m m_{t-1} + (1 - rho_m) sigmoid(K u_t)       gate = 2 A m, in [0, 2]

    pi = softmax(gain s) is the readout's belief, `s_slow` a low-pass of the scores with decay
    `rho_s`. K [M, 3] is random, A [n, M] is random, non-negative, with rows that sum to one;
    both are fixed.
    Source: Frémaux and Gerstner (2016), sec. 3 (gating third factors); equations our own.
    """

    k: Float[Array, "m 3"]
    a: dict[str, Float[Array, "_ m"]]
    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))
    rho_m: Float[Array, ""] = eqx.field(default=0.8, converter=between("rho_m", 0.0, 1.0))
    rho_s: Float[Array, ""] = eqx.field(default=0.95, converter=between("rho_s", 0.0, 1.0))

    def init(self, n_classes: int, dtype: DTypeLike = float) -> ModulatorState:
        """Half-active modulators (a gate of one), no expectation yet."""
        return ModulatorState(jnp.full(self.k.shape[0], 0.5, dtype), jnp.zeros(n_classes, dtype))

    def step(
        self, state: ModulatorState, scores: Float[Array, " c"], target: Int[Array, ""]
    ) -> tuple[ModulatorState, Float[Array, " m"]]:
        """Modulators after one step of scores."""
        s_slow = state.s_slow
        belief = jax.nn.softmax(self.gain.astype(scores.dtype) * scores)
        novelty = jnp.linalg.norm(scores - s_slow) / (jnp.linalg.norm(s_slow) + 1)
        entropy = jax.scipy.special.entr(belief).sum() / jnp.log(float(belief.shape[0]))
        u = jnp.stack([1 - belief[target], entropy.astype(scores.dtype), novelty])
        rho_m, rho_s = self.rho_m.astype(u.dtype), self.rho_s.astype(u.dtype)
        m = rho_m * state.m + (1 - rho_m) * jax.nn.sigmoid(self.k.astype(u.dtype) @ u)
        return ModulatorState(m, rho_s * s_slow + (1 - rho_s) * scores), m

    def gate(self, layer: str, m: Float[Array, " m"]) -> Float[Array, " n"]:
        """How much each neuron of `layer` learns now."""
        return 2 * (self.a[layer].astype(m.dtype) @ m)


def modulators(
    key: Key[Array, ""], n: int, layers: dict[str, int], dtype: DTypeLike = float
) -> Modulators:
    """`n` modulators with random fixed projections to `layers` (name: neurons)."""
    if n < 1:
        raise ValueError(f"modulators must be at least 1; got {n}")
    to, fro = jax.random.split(key)
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
