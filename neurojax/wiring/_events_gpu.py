"""How a GPU goes through the senders that are not silent: many at once, in chunks.

A GPU is told of every turn of a loop by its host, so that visiting spikes one by one takes a turn
each. Here they are listed by one sum over the neurons and looked at chunk by chunk, until none is
left: however many there are, none is dropped. Within a chunk terms that meet at one place are
added by atomic additions, whose order is not told: sums agree to rounding with those of a CPU,
and from run to run.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["chunks", "in_chunks"]

# Of the places that a chunk looks at, what a GPU has lanes for; and of the senders, the part that
# speaks in a busy step. A chunk that is too long looks at places of none.
_LANES, _PART, _LEAST = 2**18, 64, 32


def chunks(longest: int, size: int | None = None) -> Callable:
    """`in_chunks` for rows of up to `longest` synapses; `size` senders in a chunk, if given."""
    return partial(in_chunks, longest=longest, size=size)


def in_chunks(
    s: Array, look: Callable, put: Callable, carry: Any, *, longest: int, size: int | None = None
) -> Any:
    """carry = put(what look(j, carry) finds, carry) for every j with s_j != 0; many j at once.

    `put` gets what was found with a leading axis, and adds up what meets at one place. Places
    of a chunk that no sender takes hold j = n, which has no synapses.
    """
    n = s.shape[0]
    size = min(n, size or max(_LEAST, min(n // _PART, _LANES // max(longest, 1))))
    fires = s != 0
    rank = jnp.cumsum(fires, dtype=jnp.int32)
    place = jnp.where(fires, rank - 1, n + size)
    who = jnp.full(n + size, n, jnp.int32)
    who = who.at[place].set(jnp.arange(n, dtype=jnp.int32), mode="drop", unique_indices=True)

    def chunk(state):
        at, carry = state
        js = jax.lax.dynamic_slice(who, (at,), (size,))
        return at + size, put(jax.vmap(look, (0, None))(js, carry), carry)

    return jax.lax.while_loop(lambda state: state[0] < rank[-1], chunk, (0, carry))[1]


def __dir__() -> list[str]:
    return __all__
