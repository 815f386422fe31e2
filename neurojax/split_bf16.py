"""Weights held as sums of bfloat16 numbers: fast products with spikes, at a stated precision.

    w = w_1 + ... + w_k + e,    w_p = bfloat16(w - w_1 - ... - w_{p-1}),    |e| <= 2^(-8 k) |w|

for weights of 1e-30 to 3e38. Spikes are 0 or 1, exact in bfloat16, so that each part's product
is exact but for the sums, which are float32: three parts are as accurate as float32 itself.
Processors that multiply bfloat16 matrices (AMX, tensor cores) gain by it; others lose.
Source: Henry, Tang and Heinecke (2019), arXiv 1904.06376, sec. 2 (splitting float32 into bfloat16).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, BFloat16, Float, Shaped

from neurojax._check import brief, real
from neurojax.weights import MakeWeights
from neurojax.wiring.layouts import Dense, FanIn, shaped
from neurojax.wiring.sparse import Connectivity

__all__ = ["SplitBF16", "split_bf16"]


class SplitBF16(eqx.Module):
    """Weights as `parts` [k, ...], each shaped as the weights of `connectivity`.

    What is not a spike is rounded to 8 bits on the way in: leave analogue inputs to `Ideal`.
    One part is storage in bfloat16, in which changes below 2^-9 of a weight are lost. Changes go
    through `program`, in float32 at the most: not by descent on `parts`, whose gradients have
    8 bits and count each part as a weight of its own. Made by `split_bf16`.

    >>> held = nj.split_bf16(2)(jnp.full((1, 2), 0.1), nj.Dense(2, 1))
    >>> held.parts.shape, round(float(held.apply(jnp.ones(2))[0]), 5)
    ((2, 1, 2), 0.2)
    """

    parts: BFloat16[Array, "k *w"]
    connectivity: Dense | FanIn

    @property
    def w(self) -> Float[Array, "*w"]:
        """What each synapse holds, float32."""
        over = -1 - len(self.connectivity.shape)  # of many networks at once too
        return self.parts.astype(jnp.float32).sum(over)

    def apply(self, s: Shaped[Array, " pre"], *, key=None) -> Float[Array, " post"]:
        """Spikes [n_pre] to current [n_post]."""
        return self._product(s, 1)

    def apply_t(self, e: Shaped[Array, " post"], *, key=None) -> Float[Array, " pre"]:
        """The same synapses read the other way."""
        return self._product(e, 0)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        return self.connectivity.outer(post, pre)

    def program(self, dw: Float[Array, "..."], *, key=None) -> "SplitBF16":
        """w + dw, split anew."""
        if dw.shape != self.w.shape:
            raise ValueError(f"dw must have shape {self.w.shape}; got {dw.shape}")
        w = self.w + dw.astype(jnp.float32)
        return SplitBF16(_split(w, len(self.parts)), self.connectivity)

    def _product(self, s: Array, axis: int) -> Array:
        s, wiring = real(s), self.connectivity
        shaped(s=(s, (wiring.n_post if axis == 0 else wiring.n_pre,)))
        sums = jax.lax.dot_general(
            s.astype(jnp.bfloat16), self._matrices(), (((0,), (1 + axis,)), ((), ())),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        return sums.sum(0).astype(s.dtype)

    def _matrices(self) -> BFloat16[Array, "k post pre"]:
        wiring = self.connectivity
        if isinstance(wiring, Dense) and wiring.count is not None:
            # Three times a bfloat16 is none: what stands for several synapses is split as one.
            return _split(wiring.matrix(self.w), len(self.parts))
        return jax.vmap(wiring.matrix)(self.parts)


def split_bf16(parts: int = 3) -> MakeWeights:
    """Holds initial weights as `parts` bfloat16 numbers each: pass it as `make_weights`.

    >>> make = nj.split_bf16(1)  # for weights [n_post, n_pre], or [n_post, fan-in]
    >>> make(jnp.full((3, 2), 0.1), nj.Dense(2, 3)).w[0, 0]
    Array(0.10009766, dtype=float32)

    Raises `ValueError` unless `parts` is 1, 2 or 3, and for weights that are not laid out as
    `Dense` or `FanIn`, or of another shape.
    """
    if not isinstance(parts, int | np.integer) or isinstance(parts, bool) or parts not in (1, 2, 3):
        raise ValueError(f"parts must be 1, 2 or 3; got {brief(parts)}")
    return _Split(int(parts))


class _Split(eqx.Module):
    parts: int = eqx.field(static=True)

    def __call__(self, w: Float[Array, "..."], connectivity: Connectivity, key=None) -> SplitBF16:
        if not isinstance(connectivity, Dense | FanIn):
            kind = type(connectivity).__name__
            raise ValueError(f"connectivity must be Dense or FanIn to be split; got {kind}")
        shaped(w=(w, connectivity.shape))
        return SplitBF16(_split(w, self.parts), connectivity)


def _split(w: Float[Array, "*w"], k: int) -> BFloat16[Array, "k *w"]:
    """The k parts of w, greatest first."""
    rest, parts = w.astype(jnp.float32), []
    for _ in range(k):
        parts.append(rest.astype(jnp.bfloat16))
        rest = rest - parts[-1].astype(jnp.float32)
    return jnp.stack(parts)


def __dir__() -> list[str]:
    return __all__
