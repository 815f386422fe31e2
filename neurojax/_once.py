"""How XLA is told that a current is to be computed once, and how it is to lie in memory.

Both are the identity. Derivatives pass as if they were not there, so that XLA may arrange the
backward pass as it likes.
"""

import jax
from jaxtyping import Array, Shaped


@jax.custom_jvp
def once(x: Shaped[Array, "*n"]) -> Shaped[Array, "*n"]:
    """`x`, which XLA would else compute again for each later use, gathers and all."""
    return jax.lax.optimization_barrier(x)


@jax.custom_jvp
def batch_last(x: Shaped[Array, "*n"]) -> Shaped[Array, "*n"]:
    """`x` once; a vector that is vmapped is computed with the batch as its last axis.

    A product w s [n] then becomes w S [n, batch], in which w is the wide side and is read as it
    lies; as S w^T [batch, n] it would be packed anew in every step.
    """
    return _turned(x)


@jax.custom_batching.custom_vmap
def _turned(x: Array) -> Array:
    return jax.lax.optimization_barrier(x)


@_turned.def_vmap
def _turned_batch(size: int, batched: list[bool], x: Array) -> tuple[Array, bool]:
    return jax.lax.optimization_barrier(x.T).T, True


@once.defjvp
def _once_jvp(primals, tangents):
    return once(*primals), tangents[0]


@batch_last.defjvp
def _batch_last_jvp(primals, tangents):
    return batch_last(*primals), tangents[0]
