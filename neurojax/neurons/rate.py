"""Rate units: populations by their activity, after Wilson and Cowan."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    brief,
    cast,
    finite,
    fits,
    function,
    in_range,
    one_each,
    optional,
    positive,
    time_step,
    working,
)
from neurojax._decay import add, leak, whole
from neurojax._repr import described

__all__ = ["Logistic", "Rate", "RateState"]


def __dir__() -> list[str]:
    return __all__


class RateState(NamedTuple):
    """State of one population of `Rate`.

    Fields:
        r: float [n]; activity, in the unit of what `phi` gives
        r_low: float [n]; what r leaves out by rounding
    """

    r: Float[Array, "*n"]
    r_low: Float[Array, "*n"]


@described
class Logistic(eqx.Module):
    """Gain 1 / (1 + exp(-slope (I - theta))), less what it is at I = 0.

    `slope` in 1/nA and `theta` in nA: one number, or one a neuron.
    Raises `ValueError` for a slope that is not positive.
    Source: Wilson and Cowan (1972), eq. 15.

    >>> float(nj.Logistic(slope=1.3, theta=4.0)(jnp.array(0.0)))
    0.0
    """

    slope: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("slope", "1/nA"))
    theta: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("theta", "nA"))

    def __call__(self, current: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Gain under `current` [n], nA."""
        offset = jax.nn.sigmoid(-self.slope * self.theta)
        return jax.nn.sigmoid(self.slope * (current - self.theta)) - offset


@described
class Rate(eqx.Module):
    """Rate unit: activity r that follows a gain of the current.

        tau dr/dt = -r + phi(I),    or with `ceiling` k:    tau dr/dt = -r + (k - r) phi(I)

    The second is the equation of Wilson and Cowan, in which those that are active cannot be
    activated. Both are exact for a current held over dt. What it sends is r, which projections
    weigh as they do spikes. It takes no conductance.
    Raises `ValueError` for a `tau` or `ceiling` that is not finite and positive, and at `init` for
    a parameter that does not fit the population; `TypeError` for a `phi` that is no function.
    Source: Wilson and Cowan (1972), eqs. 11 and 12, for excitatory and inhibitory populations.

    >>> unit = nj.Rate(tau=10.0, phi=jnp.tanh)  # ms
    >>> state, r = unit.step(unit.init((1,)), jnp.array([0.5]), dt=1.0)  # nA, ms
    >>> f"{float(r[0]):.4f}"  # tanh(.5) (1 - exp(-.1))
    '0.0440'
    """

    tau: Float[Array, "*#n"] = eqx.field(default=10.0, converter=positive("tau", "ms"))
    phi: Callable[[Array], Array] = function("phi", default_factory=Logistic)
    ceiling: Float[Array, "*#n"] | None = eqx.field(
        default=None, converter=optional(positive("ceiling", ""))
    )

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> RateState:
        """A population of `shape`, inactive."""
        fits(self, shape)
        return RateState(jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype)))

    def step(
        self, state: RateState, current: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[RateState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` [n] (nA), and its activity [n]."""
        if not hasattr(getattr(state, "r", None), "dtype"):
            raise TypeError(f"state must be what init gives; got {brief(state)}")
        dtype = state.r.dtype
        in_range(self)
        current = one_each("current", current, state.r.shape)
        p, s, current = cast((self, state, current), working(dtype))
        dt, gain, r = time_step(dt, s.r.dtype), p.phi(current), whole(s.r, s.r_low, dtype)
        if p.ceiling is None:
            by = leak(dt, p.tau) * (r - gain)
        else:
            by = leak(dt * (1 + gain), p.tau) * (r - p.ceiling * gain / (1 + gain))
        new, r_low = add(s.r, by + s.r_low, dtype)
        new = new.astype(dtype)
        return RateState(new, r_low), new
