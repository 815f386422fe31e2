"""Low-pass traces of a raster, forward and backward in time."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neurojax._check import working


def low_pass(
    x: Float[Array, "T *n"],
    decay: float | Float[Array, "..."],
    init: Float[Array, "..."] | None = None,
) -> Float[Array, "T *n"]:
    """y_t = decay_t y_{t-1} + x_t, with y_{-1} = `init` [*n] (default 0).

    `decay` is one number, one per neuron [*n], or one per neuron and step [T, *n]; then
    decay_t is the factor by which y_{t-1} enters y_t. The sum is kept in float32 at the
    least and returned in the dtype of `x`.
    Raises `ValueError` for a `decay` or `init` of another shape.
    """
    return _filter(x, decay, init, reverse=False)


def low_pass_reversed(
    x: Float[Array, "T *n"], decay: float | Float[Array, "..."]
) -> Float[Array, "T *n"]:
    """y_t = x_t + decay_t y_{t+1}, with y_T = 0: the trace that runs back from the end.

    `decay` as in `low_pass`; a decay_t per step gates what flows back from t + 1 to t.
    For a decay constant in time this is the adjoint of `low_pass`: <low_pass(x), y> =
    <x, low_pass_reversed(y)>. For one per step it is the adjoint of `low_pass` with the
    decays one step later, decay_{t-1} in place of decay_t.
    """
    return _filter(x, decay, None, reverse=True)


@functools.partial(jax.jit, static_argnames="reverse")  # a bare scan compiles at each call
def _filter(x, decay, init, *, reverse):
    dtype = working(x.dtype)
    decay = jnp.asarray(decay, dtype)
    per_step = decay.ndim == x.ndim
    _refuse_shape("decay", decay.shape, x.shape, allowed=((), x.shape[1:], x.shape))
    start = jnp.zeros(x.shape[1:], dtype) if init is None else jnp.asarray(init, dtype)
    _refuse_shape("init", start.shape, x.shape, allowed=(x.shape[1:],))

    def step(y, inputs):
        x_t, decay_t = inputs if per_step else (inputs, decay)
        y = decay_t * y + x_t.astype(dtype)
        return y, y.astype(x.dtype)

    return jax.lax.scan(step, start, (x, decay) if per_step else x, reverse=reverse)[1]


def _refuse_shape(name, shape, x_shape, *, allowed):
    if shape not in allowed:
        shapes = " or ".join(map(str, allowed))
        raise ValueError(f"{name} must have shape {shapes} for x of {x_shape}; got {shape}")
