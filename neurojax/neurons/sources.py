"""Sources: layers that hear nothing and send what they draw within the scan."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from neurojax._check import cast, fits, nonnegative, working
from neurojax._draw import happens
from neurojax._repr import described

__all__ = ["Poisson", "PoissonState"]


def __dir__() -> list[str]:
    return __all__


class PoissonState(NamedTuple):
    """State of one population of `Poisson`.

    Fields:
        z: float [n]; spikes of this step, 0 or 1
    """

    z: Float[Array, "*n"]


@described
class Poisson(eqx.Module):
    """Neurons that fire at random at `rate` Hz, one number or one a neuron, each on its own.

    In a step of `dt` ms a spike has probability rate dt / 1000, as in `encoding.poisson`: a
    Poisson process but for the second spike that could fall into the same step. As a layer it
    draws step t from fold_in(key, t), so nothing [T, n] is held, and a longer run begins with
    the shorter one. It hears nothing: currents into it are refused.
    Raises `ValueError` for a rate that is not finite and >= 0, at `init` for rates that do not
    fit the population, and an equinox error when it steps for a rate above 1000 / dt.

    >>> noise = nj.Layer(100, nj.Poisson(20.0))
    """

    hears: ClassVar[bool] = False

    rate: Float[Array, "*#n"] = eqx.field(converter=nonnegative("rate", "Hz"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> PoissonState:
        """No spike yet."""
        fits(self, shape)
        return PoissonState(jnp.zeros(shape, dtype))

    def step(
        self, state: PoissonState, current: Any, *, dt: Any, key: Array
    ) -> tuple[PoissonState, Float[Array, "*n"]]:
        """Spikes of the next `dt` ms, drawn from `key`; `current` is not heard."""
        dtype = working(state.z.dtype)
        p = cast(self.rate, dtype) * dt / 1000
        p = eqx.error_if(p, (p > 1).any(), "rate must be <= 1000 / dt Hz, one spike a step")
        z = happens(key, p, state.z.shape).astype(state.z.dtype)
        return PoissonState(z), z
