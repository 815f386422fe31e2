"""Low-pass traces of a raster, forward and backward in time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import between, known_finite, real, working
from neurojax._decay import add, fade

__all__ = ["low_pass", "low_pass_reversed"]


def __dir__() -> list[str]:
    return __all__


def low_pass(
    x: Shaped[Array, "T *n"],
    decay: ArrayLike,
    init: Float[Array, "..."] | None = None,
) -> Float[Array, "T *n"]:
    """y_t = decay_t y_{t-1} + x_t, with y_{-1} = `init` [*n] (default 0), in units of `x`.

    `decay`, without unit, is one number, one per neuron [*n], or one per neuron and step
    [T, *n]; then decay_t is the factor by which y_{t-1} enters y_t; a number near 1 is best a
    Python one, which is read in double precision. Rounding does not build up over time, and y
    comes in the dtype of `x` (float32 for spikes that are booleans or whole numbers).
    Raises `ValueError` for a `decay` or `init` of another shape.

    >>> trace = nj.traces.low_pass(jnp.ones((50, 3)), decay=0.9)  # [50, 3], towards 10
    """
    return _leaky(x, _leak(decay), init)


def low_pass_reversed(x: Shaped[Array, "T *n"], decay: ArrayLike) -> Float[Array, "T *n"]:
    """y_t = x_t + decay_t y_{t+1}, with y_T = 0: the trace that runs back from the end.

    `x` and y are [T, *n], y in units of `x`; `decay` as in `low_pass`; a decay_t per step gates
    what flows back from t + 1 to t.
    For a decay constant in time this is the adjoint of `low_pass`: <low_pass(x), y> =
    <x, low_pass_reversed(y)>. For one per step it is the adjoint of `low_pass` with the
    decays one step later, decay_{t-1} in place of decay_t.

    >>> nj.traces.low_pass_reversed(jnp.array([0.0, 0.0, 1.0]), decay=0.5)  # [T]
    Array([0.25, 0.5 , 1.  ], dtype=float32)
    """
    return _leaky(x, _leak(decay), reverse=True)


def _leaky(x: Array, leak: ArrayLike, init: Array | None = None, *, reverse: bool = False) -> Array:
    """`low_pass` by what leaves in a step, leak = decay - 1, which a decay near 1 cannot tell."""
    x = known_finite("x", real(x))
    if not x.ndim:
        raise ValueError("x must have shape [T, *n], steps first; got one number")
    return _filter(x, leak, init if init is None else real(init, "init"), reverse=reverse)


def _leak(decay: ArrayLike) -> ArrayLike:
    between("decay", 0.0, 1.0)(decay)
    return decay - 1 if isinstance(decay, jax.Array) else np.asarray(decay, float) - 1


@functools.partial(jax.jit, static_argnames="reverse")  # a bare scan compiles at each call
def _filter(x, leak, init, *, reverse):
    dtype = working(x.dtype)
    leak = jnp.asarray(leak, dtype)
    per_step = leak.ndim == x.ndim
    _refuse_shape("decay", leak.shape, x.shape, allowed=((), x.shape[1:], x.shape))
    start = jnp.zeros(x.shape[1:], dtype) if init is None else jnp.asarray(init, dtype)
    _refuse_shape("init", start.shape, x.shape, allowed=(x.shape[1:],))

    def step(carry, inputs):
        x_t, leak_t = inputs if per_step else (inputs, leak)
        y, low = fade(carry[0], carry[1], leak_t, dtype)
        y, low = add(y, x_t.astype(dtype) + low, dtype)
        return (y, low), y.astype(x.dtype)

    start = start, jnp.zeros_like(start)
    return jax.lax.scan(step, start, (x, leak) if per_step else x, reverse=reverse)[1]


def _refuse_shape(name, shape, x_shape, *, allowed):
    if shape not in allowed:
        shapes = " or ".join(map(str, allowed))
        raise ValueError(f"{name} must have shape {shapes} for x of {x_shape}; got {shape}")
