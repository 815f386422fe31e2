"""Delays: when a spike that was sent arrives."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from neurojax._check import count, one_each
from neurojax._repr import described

__all__ = ["Delay", "DelayState"]


def __dir__() -> list[str]:
    return __all__


class DelayState(NamedTuple):
    """The last spikes of one population, in a ring.

    Fields:
        ring: float [steps, n]; spikes under way
        head: int []; the oldest row, next to be overwritten
        due: float [n]; that row: XLA copies a ring that is read before it is written
    """

    ring: Float[Array, "steps *n"]
    head: Int[Array, ""]
    due: Float[Array, "*n"]


@described
class Delay(eqx.Module):
    """Spikes come out whole `steps` after they went in, and zeros before.

    Within a step first `read`, then `write`: what is written at step t is read at
    t + steps. A step touches one row of the ring, however long it is. The head is one
    number: under `vmap` keep its axis out (`in_axes`), or each row becomes a gather.
    Raises `ValueError` for `steps` that are not a whole number >= 1.

    >>> line = nj.Delay(2)  # in steps
    >>> state = line.write(line.init((1,)), jnp.ones(1))  # step 0: a spike goes in
    >>> state = line.write(state, jnp.zeros(1))  # step 1
    >>> line.read(state)  # step 2: it comes out
    Array([1.], dtype=float32)
    """

    steps: int = eqx.field(static=True, converter=count("steps"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> DelayState:
        """No spike under way."""
        ring = jnp.zeros((self.steps, *shape), dtype)
        return DelayState(ring, jnp.zeros((), jnp.int32), ring[0])

    def read(self, state: DelayState) -> Float[Array, "*n"]:
        """The spikes of `steps` steps ago."""
        return state.due

    def write(self, state: DelayState, z: Shaped[Array, "*n"]) -> DelayState:
        """The state of the next step, with this step's spikes in place of those just read."""
        z = one_each("z", z, state.due.shape).astype(state.ring.dtype)
        ring = jax.lax.dynamic_update_index_in_dim(state.ring, z, state.head, axis=0)
        head = (state.head + 1) % self.steps
        due = jax.lax.dynamic_index_in_dim(ring, head, keepdims=False)
        return DelayState(ring, head, due)
