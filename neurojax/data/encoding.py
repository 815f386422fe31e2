"""Encoders: pixels [n] in [0, 1] to drive (nA) or spikes (0 or 1), [T, n].

What comes out has the dtype of the pixels; booleans and whole numbers are read as floats, but
for uint8, which is refused: say `x / 255`.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Shaped

from neurojax._check import between, count, finite, positive, prng_key, real, time_step, working
from neurojax._draw import happens
from neurojax._memory import affordable

__all__ = ["direct_current", "latency", "poisson", "rows"]


def __dir__() -> list[str]:
    return __all__


def direct_current(x: Shaped[ArrayLike, "*n"], n_steps: int) -> Float[Array, "T *n"]:
    """`x` [n] as a current (nA) that is the same at all `n_steps` steps, [T, n].

    Raises `ValueError` for an `x` that is not finite or is uint8, or `n_steps` < 1.

    >>> drive = nj.encoding.direct_current(jnp.linspace(0.0, 1.0, 5), n_steps=20)  # [20, 5]
    """
    x = finite("x", "nA")(_pixels("x", x))
    return jnp.broadcast_to(x, (_steps(n_steps, x), *x.shape))


def poisson(
    key: Key[Array, ""] | Any,  # what is none is refused in our words
    x: Shaped[ArrayLike, "*n"],
    n_steps: int,
    *,
    dt: ArrayLike,
    max_rate: ArrayLike,
) -> Float[Array, "T *n"]:
    """Spikes [T, n] at `x` [n] times `max_rate` (Hz): in each step of `dt` ms, one or none.

    A spike has probability x max_rate dt / 1000, independently; that is a Poisson process
    but for the second spike that could fall into the same step. Step t draws from
    fold_in(key, t): a longer run begins with the shorter one. `dt` is one number, `max_rate`
    one or one per pixel, and both vmap.
    Raises `ValueError` for an `x` outside [0, 1] or uint8, `n_steps` < 1, a `dt` or `max_rate`
    that is not positive, or a probability above 1; `TypeError` for what is no key.

    >>> x = jnp.linspace(0.0, 1.0, 5)
    >>> z = nj.encoding.poisson(jax.random.key(0), x, 200, dt=0.5, max_rate=80.0)  # [200, 5]
    """
    x = between("x", 0.0, 1.0)(_pixels("x", x))
    n_steps = _steps(n_steps, x)
    dtype = working(x.dtype)
    p = _probability(max_rate, dt, x.shape, dtype) * x.astype(dtype)
    return _bernoulli(prng_key(key), p, n_steps).astype(x.dtype)


def latency(x: Shaped[ArrayLike, "*n"], n_steps: int) -> Float[Array, "T *n"]:
    """One spike per pixel, the brighter the earlier: at step round((1 - x) (n_steps - 1)).

    `x` [n] to spikes [T, n]: x = 1 fires at the first step and x just above 0 at the last;
    x = 0 never fires.
    Raises `ValueError` for an `x` outside [0, 1] or uint8, or `n_steps` < 1.
    Source: Thorpe et al. (2001), Spike-based strategies for rapid processing; the linear,
    normalised form is that of `snntorch.spikegen.latency`.

    >>> z = nj.encoding.latency(jnp.array([1.0, 0.5, 0.0]), 5)  # at steps 0, 2 and never
    """
    x = between("x", 0.0, 1.0)(_pixels("x", x))
    n_steps = _steps(n_steps, x)
    when = jnp.round((1 - x.astype(working(x.dtype))) * (n_steps - 1)).astype(jnp.int32)
    when = jnp.where(x > 0, when, n_steps)
    return jax.nn.one_hot(when, n_steps, dtype=x.dtype, axis=0)


def rows(image: Shaped[ArrayLike, "..."]) -> Float[Array, "T n"]:
    """A picture [height, width] as a drive [T, n], one row of pixels per step, from the top.

    Raises `ValueError` for anything but two axes, a pixel outside [0, 1], or uint8.

    >>> drive = nj.encoding.rows(jnp.ones((28, 20)))  # 28 steps of 20 pixels
    """
    image = between("image", 0.0, 1.0)(_pixels("image", image))
    if image.ndim != 2:
        raise ValueError(f"image must have shape [height, width]; got shape {image.shape}")
    return image


def _steps(n_steps: Any, x: Array) -> int:
    """How many, refused where so many of all pixels would not fit."""
    n_steps = count("n_steps")(n_steps)
    affordable(f"{n_steps} steps of {x.size} pixels", n_steps * x.size * x.dtype.itemsize)
    return n_steps


def _pixels(name: str, x: Any) -> Array:
    if getattr(x, "dtype", None) == np.uint8:  # is 1 of 255, or of 1?
        raise ValueError(f"{name} must be floats from 0 to 1; got uint8: pass {name} / 255")
    return real(x, name)


@functools.partial(jax.jit, static_argnames="n_steps")
def _bernoulli(key, p, n_steps):
    def at(t):
        return happens(jax.random.fold_in(key, t), p, p.shape)

    return jax.vmap(at)(jnp.arange(n_steps))


def _probability(max_rate, dt, shape, dtype):
    """Of a spike where x = 1; both arguments may be traced."""
    max_rate = positive("max_rate", "Hz")(max_rate)
    if max_rate.shape not in ((), shape):
        raise ValueError(
            f"max_rate must be one number or one per pixel, {shape}; got shape {max_rate.shape}"
        )
    dt = time_step(dt, dtype) if not isinstance(dt, Tracer) else positive("dt", "ms")(dt)
    p = max_rate.astype(dtype) * dt.astype(dtype) / 1000
    allowed = "max_rate * dt / 1000 must be <= 1, the spikes in a step"
    too_often = p > 1 + 1e-6  # blind to rounding
    if isinstance(p, Tracer):
        return eqx.error_if(p, too_often, allowed)
    if too_often.any():
        raise ValueError(f"{allowed}; got {p.max():g}: pass max_rate <= {1000 / dt:g} Hz")
    return p
