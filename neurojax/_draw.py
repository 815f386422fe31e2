"""Draws that are right for rare events too."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def happens(key: Array, p: Array, shape: tuple[int, ...]) -> Array:
    """Whether events of probability `p` happen, [shape] of bools; always where p is 1.

    Of 32 bits: `jax.random.uniform` has 23, which would round the p of a rare event by 1e-7.
    """
    u = jax.random.bits(key, shape, jnp.uint32).astype(p.dtype) * 2.0**-32  # may round up to 1
    return (u < p) | (p >= 1)
