"""Weights of one byte: whole levels of one scale, which learn by chance.

    w = scale level,    level in -127, ..., 127

Right to half a level, so a current is to scale / 2 of what arrives. What a rule asks for is rounded
to one of both neighbours, drawn so that its mean is what was asked: steps of a hundredth of a level
add up to one in a hundred events. So a quarter of the bytes of float32 is what learning needs too.
Source: Gupta et al. (2015), Deep Learning with Limited Numerical Precision, sec. 3 (stochastic
rounding).
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int8, Shaped

from neurojax._check import brief, instance, one_number, positive, real, working
from neurojax.weights import Ideal, MakeWeights, _of_each, _within, ideal
from neurojax.wiring.layouts import concrete
from neurojax.wiring.sparse import Connectivity, FanOut
from neurojax.wiring.visits import Visit, Visits, rounded

__all__ = ["Levels", "levels"]

_MOST = 127


class Levels(eqx.Module):
    """Weights w = scale level, of int8 levels from -127 to 127; changes are rounded by chance.

    `scale`, one number in weight units, is what a level weighs; `low` and `high`, in weight units,
    as in `Ideal`. On an event list levels are read and changed as they are, one byte each; on
    other layouts each product widens them first. Whatever learns needs a `key`. Made by `levels`.

    >>> weights = nj.levels(0.01)(jnp.full((1, 2), 0.5), nj.Dense(2, 1))
    >>> weights.level.tolist(), weights.apply(jnp.ones(2)).round(6).tolist()
    ([[50, 50]], [1.0])
    """

    level: Int8[Array, "..."]
    scale: Float[Array, ""]
    connectivity: Connectivity
    low: Float[Array, "..."] | None = None
    high: Float[Array, "..."] | None = None

    def __check_init__(self):
        instance("connectivity", self.connectivity, "apply", "apply_t", "outer")
        shape = self.connectivity.shape
        if (
            getattr(self.level, "dtype", None) != jnp.int8
            or self.level.shape[-len(shape) :] != shape
        ):
            raise ValueError(
                f"level must be an int8 array of shape {shape}; got {brief(self.level)}: pass"
                " nj.levels(scale) as make_weights"
            )
        dtype = self.scale.dtype if isinstance(self.scale, jax.Array) else None
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"scale must be an array of one float; got {brief(self.scale)}")
        if (known := concrete(self.scale)) is not None and not (
            (known > 0) & np.isfinite(known)
        ).all():
            raise ValueError(f"scale must be finite and > 0 weight units; got {brief(self.scale)}")

    @property
    def w(self) -> Float[Array, "..."]:
        """What each synapse holds, in weight units; four bytes each."""
        return self.level.astype(self.scale.dtype) * self.scale

    def apply(self, s: Shaped[Array, " pre"], *, key=None) -> Float[Array, " post"]:
        """Spikes or drive [n_pre] to current [n_post]."""
        s = real(s)
        return self.connectivity.apply(self._read(s), s) * self.scale.astype(s.dtype)

    def apply_t(self, e: Shaped[Array, " post"], *, key=None) -> Float[Array, " pre"]:
        """The same synapses read the other way."""
        e = real(e)
        return self.connectivity.apply_t(self.level.astype(e.dtype), e) * self.scale.astype(e.dtype)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        return self.connectivity.outer(post, pre)

    def program(self, dw: Float[Array, "..."], *, key: Array | None = None) -> "Levels":
        """w + dw, held by the bounds, rounded by chance to whole levels.

        Raises `ValueError` for a `dw` of another shape, and without a key.
        """
        if dw.shape != self.level.shape:
            raise ValueError(f"dw must have shape {self.level.shape}; got {dw.shape}")
        if key is None:
            raise ValueError(
                "key must be given where int8 levels learn, as they are rounded by chance, lest"
                " small changes be lost: pass key=jax.random.key(0), or keep them in float32"
            )
        dtype = working(dw.dtype)
        low, high = (_of_each(x, self.connectivity) for x in self._ends(dtype))
        new = self.level.astype(dtype) + dw.astype(dtype) / self.scale.astype(dtype)
        bits = jax.random.bits(key, new.shape, jnp.uint32)
        return replace(self, level=rounded(_within(new, low, high), jnp.int8, bits))

    def visit(
        self, visits: Visits, after: Array | None = None, key: Array | None = None
    ) -> "Levels":
        """Changed where senders or receivers fire, event by event; on `FanOut` alone."""
        one, other = (None if v is None else self._in_levels(v) for v in visits)
        level = self.connectivity.visited(  # pyright: ignore[reportAttributeAccessIssue]
            self.level, (one, other), *self._ends(jnp.float32), after, key
        )
        return replace(self, level=level)

    def _read(self, s: Array) -> Array:
        return self.level if isinstance(self.connectivity, FanOut) else self.level.astype(s.dtype)

    def _ends(self, dtype: Any) -> tuple[Array | None, Array | None]:
        """Bounds in levels."""
        low, high = (
            None if x is None else x.astype(dtype) / self.scale.astype(dtype)
            for x in (self.low, self.high)
        )
        return low, high

    def _in_levels(self, visit: Visit) -> Visit:
        trace = visit.trace / self.scale.astype(visit.trace.dtype)
        return Visit(visit.event, trace, visit.scale and _Weighed(visit.scale, self.scale))


class _Weighed(eqx.Module):
    """A factor of weights as one of levels."""

    factor: Any
    scale: Array

    def __call__(self, level: Array) -> Array:
        return self.factor(level * self.scale.astype(level.dtype))


def levels(scale: Any, *, bounds: Any = None, keep_sign: bool = False) -> MakeWeights:
    """Holds initial weights as int8 levels of `scale` weight units: pass it as `make_weights`.

    They are rounded to the nearest level; `bounds` and `keep_sign` as in `ideal`.
    Raises `ValueError` for a scale that is not finite and positive, bounds that are none, and for
    weights beyond 127 levels.

    >>> nj.levels(0.01)(jnp.array([[0.514, -1.27]]), nj.Dense(2, 1)).level.tolist()
    [[51, -127]]
    """
    return _MakeLevels(scale, ideal(bounds=bounds, keep_sign=keep_sign))


class _MakeLevels(eqx.Module):
    scale: Float[Array, ""] = eqx.field(converter=positive("scale", "weight units"))
    make: Any

    def __check_init__(self):
        one_number(self, "scale")

    def __call__(self, w: Float[Array, "..."], connectivity: Connectivity, key=None) -> Levels:
        held: Ideal = self.make(w, connectivity, key)
        most = jnp.abs(w).max(initial=0).astype(self.scale.dtype)
        allowed = f"scale must be at least the largest weight / {_MOST}"
        beyond = most > (_MOST + 0.5) * self.scale
        if isinstance(beyond, Tracer):
            w = eqx.error_if(w, beyond, allowed)
        elif beyond:
            raise ValueError(f"{allowed}, {float(most) / _MOST:.3g}; got {float(self.scale):.3g}")
        return Levels(_nearest(w, self.scale), self.scale, connectivity, held.low, held.high)


@jax.jit
def _nearest(w: Array, scale: Array) -> Array:
    dtype = np.promote_types(working(w.dtype), np.float32)
    level = jnp.round(w.astype(dtype) / scale.astype(dtype))
    return jnp.clip(level, -_MOST, _MOST).astype(jnp.int8)


def __dir__() -> list[str]:
    return __all__
