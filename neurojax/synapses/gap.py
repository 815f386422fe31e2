"""Gap junctions, electrical synapses: currents between membranes that touch, without spikes."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neurojax._check import (
    cast,
    in_range,
    instance,
    name_of,
    nonnegative,
    one_each,
    positive,
    working,
)
from neurojax._repr import described, value
from neurojax.wiring.sparse import Connectivity

__all__ = ["GapJunctions"]


def __dir__() -> list[str]:
    return __all__


def _wiring(x: Any) -> Any:
    return instance("connectivity", x, "apply", "at_post")


@described
class GapJunctions(eqx.Module):
    """Conductances g (uS) between the membranes of layers `pre` and `post`, or of one with itself.

        I_i = sum over j of g_ij (v_j - v_i)

    In a network (`Network(layers, projections, gaps)`) receivers hear sum_j g_ij v_j as a current
    and sum_j g_ij as a conductance (`heard`), of potentials of the step before: of first order in
    dt, stable at any dt. A junction passes current both ways where g_ij and g_ji are both there:
    between two layers that takes two of these. `current` is that of given potentials; used
    explicitly, it is stable for dt sum_j g_ij / C <= 1, which `check` sees to. Potentials count
    from one of them there, so that nothing cancels. Every synapse is read in every step, on event
    lists too.
    `summed` is `total`, where that is calculated once and kept (`with_total`).
    Raises `ValueError` for a g that is negative, or neither one number nor one a synapse.
    Source: Hahne et al. (2015), A unified framework for spiking and gap-junction interactions in
    distributed neuronal network simulations.

    >>> pair = nj.GapJunctions("cells", "cells", nj.Dense(2, 2), g=0.01)  # uS
    >>> pair.current(jnp.array([-65.0, -55.0])).round(3)  # nA
    Array([ 0.1, -0.1], dtype=float32)
    """

    pre: str = eqx.field(static=True, converter=name_of("pre", "a layer"))
    post: str = eqx.field(static=True, converter=name_of("post", "a layer"))
    connectivity: Connectivity = eqx.field(converter=_wiring)
    g: Float[Array, "..."] = eqx.field(converter=nonnegative("g", "uS"))
    summed: Float[Array, " post"] | None = None

    def __check_init__(self):
        if self.g.ndim and self.g.shape[-len(self.connectivity.shape) :] != self.connectivity.shape:
            raise ValueError(
                f"g must be one number or one a synapse, of shape {self.connectivity.shape}; got"
                f" {self.g.shape}"
            )

    def current(
        self, v_pre: Float[Array, " pre"], v_post: Float[Array, " post"] | None = None
    ) -> Float[Array, " post"]:
        """Current [n_post], nA, at potentials [n_pre] and [n_post], mV; None: they are the same."""
        v_post = v_pre if v_post is None else v_post
        own = one_each("v_post", v_post, (self.connectivity.n_post,))
        other = one_each("v_pre", v_pre, (self.connectivity.n_pre,))
        dtype, zero = own.dtype, own[0]
        p, own, other = self._ready(own - zero, other - zero.astype(other.dtype))
        return (p._arriving(other) - own * p._arriving(jnp.ones_like(other))).astype(dtype)

    def heard(self, v_pre: Float[Array, " pre"]) -> tuple[Array, Array]:
        """Current sum_j g_ij v_j, nA, and conductance sum_j g_ij, uS, [n_post] each."""
        other = one_each("v_pre", v_pre, (self.connectivity.n_pre,))
        p, x = self._ready(other)
        return p._arriving(x).astype(other.dtype), p.total.astype(other.dtype)

    def with_total(self, v_pre: Float[Array, " pre"]) -> "GapJunctions":
        """The same, of which `heard` of potentials like `v_pre` need not add up conductances.

        What a run over many steps calculates before the first of them.
        """
        return replace(self, summed=self._ready(v_pre)[0].total)

    @property
    def total(self) -> Float[Array, " post"]:
        """Sum of all conductances onto each neuron, uS [n_post]."""
        if self.summed is not None:
            return self.summed
        return self._arriving(jnp.ones(self.connectivity.n_pre, self.g.dtype))

    def check(self, *, dt: ArrayLike, c: ArrayLike) -> None:
        """Refuse a step in which `current` would overshoot: dt sum_j g_ij / C > 1.

        `dt` in ms, `c`, the receivers' capacitance, in nF: one number or [n_post]; tau_mem / r_mem
        of a `LIF`. Traced values are taken on trust.
        """
        dt, c = positive("dt", "ms")(dt), positive("c", "nF")(c)
        total = self.total
        if any(isinstance(x, Tracer) for x in (dt, c, total)):
            return
        part = np.asarray(dt) * np.asarray(total) / np.asarray(c)
        if part.max() > 1:
            raise ValueError(
                f"dt sum g / c of gap junctions must be <= 1; got {part.max():.3g} at neuron"
                f" {part.argmax()}: pass dt={float(dt / part.max()):.2g} or less"
            )

    def __repr__(self) -> str:
        c = self.connectivity
        size = f"{type(c).__name__} {c.n_pre:,} x {c.n_post:,}"
        return f"GapJunctions: {self.pre} -> {self.post}, {size}, g={value(self.g, 'uS')}"

    def _ready(self, *x: Array) -> tuple[Any, ...]:
        in_range(self)
        return cast((self, *x), working(x[0].dtype))

    def _arriving(self, x: Array) -> Array:
        g = jnp.broadcast_to(self.g, self.connectivity.shape)
        return self.connectivity.apply(g, x)
