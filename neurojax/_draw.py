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


def arrivals(key: Array, mean: Array, shape: tuple[int, ...]) -> Array:
    """Counts [shape] with Poisson's distribution, for means up to 20; `mean` one or of `shape`.

    A count is how many of the chances of j events or more, j = 1, 2 and so on, one number of 32
    bits lies below. They are added up from the rarest, for which there is then no rounding; beyond
    64 events there is less than 2^-32 to come.
    """
    u = jax.random.bits(key, shape, jnp.uint32).astype(mean.dtype) * 2.0**-32
    chances = [jnp.exp(-mean)]
    for j in range(1, 65):
        chances.append(chances[-1] * mean / j)
    count, beyond = jnp.zeros(shape, jnp.int32), jnp.zeros_like(mean)
    for chance in reversed(chances[2:]):
        beyond = beyond + chance
        count = count + (u < beyond).astype(jnp.int32)
    some = -jnp.expm1(-mean)  # one or more: right to its last digit, where the sum is so to its
    return (count + (u < some).astype(jnp.int32)).astype(mean.dtype)
