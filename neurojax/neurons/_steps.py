"""What the steps of several neurons share."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from neurojax._check import brief, cast, in_range, one_each, time_step, working
from neurojax._decay import add, leak, moved, whole


def stored(state: Any) -> DTypeLike:
    """The dtype of a state, refused where it is none."""
    if not hasattr(getattr(state, "v", None), "dtype"):
        raise TypeError(f"state must be what init gives; got {brief(state)}")
    return state.v.dtype


def checked(model, state, current: Any, dt: Any, conductance: Any = None):
    """All in the dtype to calculate in, checked where values are known."""
    v = state.v
    dtype = working(v.dtype)
    in_range(model)
    if getattr(model, "t_ref", None) is not None and state.refractory is None:
        raise ValueError(
            f"state must have refractory, as t_ref of {type(model).__name__} is given; got None:"
            " pass what its init gives"
        )
    current = one_each("current", current, v.shape)
    g = None if conductance is None else one_each("conductance", conductance, v.shape)
    return *cast((model, state, current), dtype), time_step(dt, dtype), cast(g, dtype)


def at(x: Array, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    """A population of `shape` at `x`, and what `dtype` cannot hold of it."""
    x = jnp.broadcast_to(x.astype(working(dtype)), shape)
    held, low = add(jnp.zeros_like(x), x, dtype)
    return held.astype(dtype), low


def whole_steps(t: Array, dt: Array) -> Array:
    """ceil(t / dt), blind to the rounding of the quotient: 0.15 ms are 15 steps of 0.01 ms."""
    return jnp.ceil(t / dt * (1 - 1e-6)).astype(jnp.int32)


def mean_growth(x: Array) -> Array:
    """(exp(x) - 1) / x, and 1 at 0; its derivative holds there too."""
    small = jnp.abs(x) < 1e-3
    far = jnp.where(small, 1, x)
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5)))
    return jnp.where(small, series, jnp.expm1(far) / far)


def capped(v: Array, peak: Array, gentle: Array) -> Array:
    """The smaller of v and `peak`; where it is cut, the derivative is that of `gentle`.

    An upswing that ran to infinity in the step has no derivative that one could use.
    """
    cut = peak + (gentle - jax.lax.stop_gradient(gentle))
    return jnp.where(v < peak, v, cut)


def membrane(p, s, current, g, dt, dtype, flow) -> tuple[Array, Array | None, Array | None]:
    """Potential before reset, what `dtype` cannot hold of it, and refractory steps left.

    `flow` says how far it moves where it is not held.
    """
    start, low = after_reset(p, s)
    by = flow(p, whole(start, low, dtype), current, g, dt)
    if p.t_ref is None:
        return *moved(start, by, low, dtype), None
    refractory = jnp.where(s.z > 0, whole_steps(p.t_ref, dt), jnp.maximum(s.refractory - 1, 0))
    return *moved(start, jnp.where(refractory > 0, 0, by), low, dtype), refractory


def towards_rest(p, v, current, g, dt) -> Array:
    """How far v moves in `dt` towards where current and conductance take it, mV."""
    if g is None:
        return leak(dt, p.tau_mem) * (v - p.v_rest - p.r_mem * current)
    total = 1 + p.r_mem * g  # conductances in units of the leak's
    gap = v - p.v_rest - p.r_mem * (current - g * v)
    half = jnp.tanh(dt / p.tau_mem / 2 * total)  # 1 - exp(-2 x) without expm1, which takes longer
    return -2 * half / ((1 + half) * total) * gap


def after_reset(p, s) -> tuple[Array, Array | None]:
    """What v and v_low are once the spikes of the last step have reset them."""
    low = s.v_low
    if p.reset == "subtract":
        return s.v - (p.v_th - p.v_reset) * s.z, low
    return s.v * (1 - s.z) + p.v_reset * s.z, None if low is None else low * (1 - s.z)


def fired(p, excess: Array, dtype: DTypeLike, refractory: Array | None = None) -> Array:
    """Spikes, none of those that are refractory."""
    z = p.spike(excess)
    if getattr(z, "shape", None) != excess.shape:
        raise TypeError(f"spike must map an array to one of its shape; got {brief(z)}")
    z = z if refractory is None else jnp.where(refractory > 0, jnp.zeros_like(z), z)
    return z.astype(dtype)
