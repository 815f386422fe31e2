"""Draws that are right for rare events too."""

from typing import overload
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
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


def permutation(key: Array, n: int) -> Array:
    """`jax.random.permutation(key, n)`, to the bit; outside jit in an eighth of its time.

    It sorts by random numbers of 32 bits, equal ones staying in order, in as many rounds as leave
    none equal throughout. XLA's sort is slow on a CPU; NumPy's is not where the position is in the
    lower half of what is sorted.
    """
    if isinstance(key, Tracer):
        return jax.random.permutation(key, n)
    order, place = np.arange(n), np.arange(n, dtype=np.uint64)
    for _ in range(int(np.ceil(3 * np.log(max(1, n)) / np.log(2**32 - 1)))):
        key, now = jax.random.split(key)
        drawn = np.asarray(jax.random.bits(now, (n,), jnp.uint32)).astype(np.uint64) << 32
        order = order[np.sort(drawn | place).astype(np.uint32)]
    return jnp.asarray(order, jnp.arange(0).dtype)


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
