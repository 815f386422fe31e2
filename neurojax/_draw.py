"""Draws that are right for rare events too."""

from typing import overload
from zlib import crc32

import jax
import jax.numpy as jnp
from jaxtyping import Array

from neurojax._check import brief, prng_key


def happens(key: Array, p: Array, shape: tuple[int, ...]) -> Array:
    """Whether events of probability `p` happen, [shape] of bools; always where p is 1.

    Of 32 bits: `jax.random.uniform` has 23, which would round the p of a rare event by 1e-7.
    """
    u = jax.random.bits(key, shape, jnp.uint32).astype(p.dtype) * 2.0**-32  # may round up to 1
    return (u < p) | (p >= 1)


@overload
def fold(key: Array, name: str) -> Array: ...
@overload
def fold(key: None, name: str) -> None: ...
def fold(key: Array | None, name: str) -> Array | None:
    """A key of its own for each name: adding a component changes no other's draws.

    No key stays no key. Source: `jax.random.fold_in` of the name's CRC-32.

    >>> key = jax.random.key(0)
    >>> bool((nj.fold(key, "a") == nj.fold(key, "b")).all())
    False
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string; got {brief(name)}")
    return None if key is None else jax.random.fold_in(prng_key(key), crc32(name.encode()))
