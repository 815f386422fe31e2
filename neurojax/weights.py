"""The seam between learning and hardware: whatever holds weights answers to four methods."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from neurojax.layouts import Band, Dense, FanIn
from neurojax.sparse import FanOut

Connectivity = Dense | FanIn | FanOut | Band


@runtime_checkable
class Weights(Protocol):
    """All that is plastic in one projection: a pytree, unbatched, counters included.

    A learning rule never knows whether it has numbers or devices behind these.
    """

    @property
    def w(self) -> Array:
        """What each synapse holds now, in weight units."""
        ...

    def apply(self, s: Array, *, key: Array | None = None) -> Array:
        """Spikes or drive [n_pre] to current [n_post]."""
        ...

    def apply_t(self, e: Array, *, key: Array | None = None) -> Array:
        """The same synapses read the other way: [n_post] to [n_pre]."""
        ...

    def outer(self, post: Array, pre: Array) -> Array:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        ...

    def program(self, dw: Array, *, key: Array | None = None) -> "Weights":
        """The weights after a change by `dw`, in weight units."""
        ...


class Ideal(eqx.Module):
    """Weights that are plain numbers: `program` adds, exactly."""

    w: Float[Array, "..."]
    connectivity: Connectivity

    def apply(self, s: Float[Array, " pre"], *, key=None) -> Float[Array, " post"]:
        """Spikes or drive [n_pre] to current [n_post]."""
        return self.connectivity.apply(self.w, s)

    def apply_t(self, e: Float[Array, " post"], *, key=None) -> Float[Array, " pre"]:
        """The same synapses read the other way."""
        return self.connectivity.apply_t(self.w, e)

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        return self.connectivity.outer(post, pre)

    def program(self, dw: Float[Array, "..."], *, key=None) -> "Ideal":
        """w + dw."""
        if dw.shape != self.w.shape:
            raise ValueError(f"dw must have shape {self.w.shape}; got {dw.shape}")
        return Ideal(self.w + dw, self.connectivity)


def ideal(
    w: Float[Array, "..."], connectivity: Connectivity, key: Key[Array, ""] | None = None
) -> Ideal:
    """`Ideal` weights that start from `w`. Nothing about them is drawn from `key`."""
    return Ideal(w, connectivity)


# What holds initial weights: (w, connectivity, key) -> Weights; chance, if any, from the key.
MakeWeights = Callable[[Array, Connectivity, Array], Weights]


def normal(
    key: Key[Array, ""], connectivity: Connectivity, gain: float, dtype: DTypeLike = float
) -> Float[Array, "..."]:
    """Gaussian weights of standard deviation gain / sqrt(fan-in): current variance gain^2
    for independent inputs of mean square one."""
    scale = gain / jnp.sqrt(jnp.maximum(connectivity.fan_in, 1.0))
    w = jax.random.normal(key, connectivity.shape, dtype)
    w = w * connectivity.at_post(scale.astype(dtype))
    return connectivity_mask(connectivity, w)


def connectivity_mask(connectivity: Connectivity, w: Array) -> Array:
    """Zero where there is no synapse."""
    if isinstance(connectivity, Band):
        return jnp.where(connectivity.mask, w, 0)
    if isinstance(connectivity, Dense) and connectivity.count is not None:
        return jnp.where(connectivity.count.astype(bool), w, 0)
    return w
