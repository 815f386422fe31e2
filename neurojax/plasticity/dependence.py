"""How changes depend on the weight that they change."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neurojax._check import in_working, instance, nonnegative, one_number, positive
from neurojax._repr import described

__all__ = ["WeightDependence"]


def __dir__() -> list[str]:
    return __all__


@described
class WeightDependence(eqx.Module):
    """Changes that get smaller towards the bounds 0 and `w_max`.

        increases:  times (1 - w / w_max)^mu_plus,    decreases:  times (w / w_max)^mu_minus

    With both mu 0 changes are additive, with both 1 multiplicative; between them STDP keeps on
    competing, and yet weights do not gather at the bounds. `w_max` in weight units. Beyond a
    bound what leads further is 0. A step that is large beside w_max may cross a bound: hold it
    with `nj.ideal(bounds=(0, w_max))`.
    Raises `ValueError` for a negative mu and a `w_max` that is not positive.
    Source: Gütig, Aharonov, Rotter and Sompolinsky (2003), Learning input correlations through
    nonlinear temporally asymmetric Hebbian plasticity.

    >>> soft = nj.WeightDependence(mu_plus=1.0, mu_minus=1.0)
    >>> soft.plus(jnp.array([0.0, 0.25, 1.0])).tolist()
    [1.0, 0.75, 0.0]
    >>> rule = nj.STDP(a_plus=0.005, a_minus=0.00525, dependence=soft)
    """

    mu_plus: Float[Array, ""] = eqx.field(default=0.02, converter=nonnegative("mu_plus", ""))
    mu_minus: Float[Array, ""] = eqx.field(default=0.02, converter=nonnegative("mu_minus", ""))
    w_max: Float[Array, ""] = eqx.field(default=1.0, converter=positive("w_max", ""))

    def plus(self, w: Float[Array, "*w"]) -> Float[Array, "*w"]:
        """Factor of increases at weights `w`."""
        one_number(self)
        x, p = in_working(w, self)
        return _power(1 - x / p.w_max, p.mu_plus).astype(w.dtype)

    def minus(self, w: Float[Array, "*w"]) -> Float[Array, "*w"]:
        """Factor of decreases at weights `w`."""
        one_number(self)
        x, p = in_working(w, self)
        return _power(x / p.w_max, p.mu_minus).astype(w.dtype)


def optional_dependence(x: Any) -> Any:
    """Field converter: None, or what has the factors of increases and decreases."""
    return None if x is None else instance("dependence", x, "plus", "minus")


def _power(room: Array, mu: Array) -> Array:
    """room^mu; where there is no room 0, or 1 where mu is 0; no derivative there."""
    return jnp.where(room > 0, jnp.where(room > 0, room, 1) ** mu, (mu == 0).astype(room.dtype))
