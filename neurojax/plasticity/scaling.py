"""Homeostasis of weights: all synapses of a neuron by one factor, which keeps their ratios."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neurojax._check import fits, in_working, instance, nonnegative, one_each, positive, real
from neurojax._repr import described
from neurojax.wiring.sparse import Connectivity

__all__ = ["SynapticScaling", "normalizing"]


def __dir__() -> list[str]:
    return __all__


@described
class SynapticScaling(eqx.Module):
    """All synapses of a neuron grow while it fires too little, and shrink while too much.

        tau dw/dt = w (target - r) / target,    r and target in Hz

    Exact for rates held over the time since the last call: a factor
    exp(interval (1 - r / target) / tau), so ratios of weights and their signs stay. `tau` is the
    time, ms, in which weights of a silent neuron grow e-fold. Called once a while, not a step;
    what it returns is for `program`.
    Raises `ValueError` for a `target` or `tau` that is not positive, an `interval` that is not or
    is longer than 10 tau, and rates that are not one a neuron.
    Source: van Rossum, Bi and Turrigiano (2000), Stable Hebbian learning from spike timing-
    dependent plasticity, without the integral term; for Turrigiano et al. (1998).

    >>> scaling, wiring = nj.SynapticScaling(target=5.0, tau=1e5), nj.Dense(2, 1)
    >>> w = jnp.array([[0.2, 0.4]])
    >>> dw = scaling.change(w, wiring, jnp.array([10.0]), interval=1e4)  # Hz, ms
    >>> f"{float((1 + dw / w)[0, 0]):.4f}"  # exp(-0.1)
    '0.9048'
    """

    target: Float[Array, "*#n"] = eqx.field(default=5.0, converter=positive("target", "Hz"))
    tau: Float[Array, "*#n"] = eqx.field(default=1e5, converter=positive("tau", "ms"))

    def change(
        self,
        w: Float[Array, "..."],
        connectivity: Connectivity,
        r: Float[Array, " post"],
        *,
        interval: ArrayLike,
    ) -> Float[Array, "..."]:
        """Change of weights `w` after neurons fired at `r` [n_post], Hz, for `interval` ms."""
        w = _stored(w, connectivity)
        r = one_each("r", r, (connectivity.n_post,))
        fits(self, r.shape)
        x, p, r = in_working(w, self, r)
        held = positive("interval", "ms")(interval).astype(x.dtype)
        self._refuse(held)
        grown = jnp.expm1(held / p.tau * (1 - r / p.target))
        return (x * connectivity.at_post(grown)).astype(w.dtype)

    def _refuse(self, interval: Array) -> None:
        """Unless one number, and not so long that rates cannot have stayed."""
        if interval.ndim:
            raise ValueError(f"interval must be one number; got shape {interval.shape}")
        if not isinstance(interval, Tracer) and not isinstance(self.tau, Tracer):
            longest = 10 * np.asarray(self.tau).min()
            if np.asarray(interval) > longest:
                raise ValueError(
                    f"interval must be at most 10 tau, {longest:g} ms; got {interval:g}:"
                    " scale more often"
                )


def normalizing(
    w: Float[Array, "..."], connectivity: Connectivity, total: ArrayLike
) -> Float[Array, "..."]:
    """Change that makes the weights onto each neuron sum to `total`, in absolute values.

    `total`, in weight units, is one number or [n_post]. A neuron without weights stays so. What
    it returns is for `program`. Raises `ValueError` for a negative `total` and another shape.
    Source: Diehl and Cook (2015), Unsupervised learning of digit recognition using spike-timing-
    dependent plasticity.

    >>> w = jnp.array([[1.0, 3.0]])
    >>> w + nj.normalizing(w, nj.Dense(2, 1), 1.0)
    Array([[0.25, 0.75]], dtype=float32)
    """
    w, sums = _stored(w, connectivity), nonnegative("total", "")(total)
    if sums.shape not in ((), (connectivity.n_post,)):
        raise ValueError(
            f"total must be one number or one a neuron, of shape {(connectivity.n_post,)};"
            f" got {sums.shape}"
        )
    x, sums = in_working(w, sums)
    summed = connectivity.apply(jnp.abs(x), jnp.ones(connectivity.n_pre, x.dtype))
    some = summed > 0
    grown = jnp.where(some, sums / jnp.where(some, summed, 1) - 1, 0)
    return (x * connectivity.at_post(grown)).astype(w.dtype)


def _stored(w: Any, connectivity: Connectivity) -> Array:
    """Weights as floats, refused unless of the layout's shape."""
    instance("connectivity", connectivity, "apply", "at_post")
    w = real(w, "w")
    if w.shape != connectivity.shape:
        raise ValueError(f"w must have shape {connectivity.shape}; got {w.shape}")
    return w
