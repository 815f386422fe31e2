"""Encoders: pixels [n] to drive or spikes [T, n], in the dtype of the pixels."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from neurojax._check import between, count, finite, positive, working

_intensity = between("x", 0.0, 1.0)


def direct_current(x: Float[Array, "*n"], n_steps: int) -> Float[Array, "T *n"]:
    """`x` as a current that is the same at all `n_steps` steps.

    Raises `ValueError` for an `x` that is not finite or `n_steps` < 1.
    """
    x = finite("x", "nA")(x)
    return jnp.broadcast_to(x, (count("n_steps")(n_steps), *x.shape))


def poisson(
    key: Key[Array, ""], x: Float[Array, "*n"], n_steps: int, *, dt: float, max_rate: float
) -> Float[Array, "T *n"]:
    """Spikes at `x` times `max_rate` Hz: in each step of `dt` ms, one or none.

    A spike has probability x max_rate dt / 1000, independently; that is a Poisson process
    but for the second spike that could fall into the same step. Step t draws from
    fold_in(key, t): a longer run begins with the shorter one.
    Raises `ValueError` for an `x` outside [0, 1], `n_steps` < 1, a `dt` or `max_rate` that
    is not positive, or a probability above 1.
    """
    x, n_steps = _intensity(x), count("n_steps")(n_steps)
    p = _probability(max_rate, dt) * x.astype(working(x.dtype))
    return _bernoulli(key, p, n_steps).astype(x.dtype)


def latency(x: Float[Array, "*n"], n_steps: int) -> Float[Array, "T *n"]:
    """One spike per pixel, the brighter the earlier: at step round((1 - x) (n_steps - 1)).

    x = 1 fires at the first step and x just above 0 at the last; x = 0 never fires.
    Raises `ValueError` for an `x` outside [0, 1] or `n_steps` < 1.
    Source: Thorpe et al. (2001), Spike-based strategies for rapid processing; the linear,
    normalised form is that of `snntorch.spikegen.latency`.
    """
    x, n_steps = _intensity(x), count("n_steps")(n_steps)
    when = jnp.round((1 - x.astype(working(x.dtype))) * (n_steps - 1)).astype(jnp.int32)
    when = jnp.where(x > 0, when, n_steps)
    return jax.nn.one_hot(when, n_steps, dtype=x.dtype, axis=0)


def rows(image: Float[Array, "..."]) -> Float[Array, "T n"]:
    """A picture [height, width] as a drive, one row of pixels per step, from the top.

    Raises `ValueError` for anything but two axes, or a pixel outside [0, 1].
    """
    image = between("image", 0.0, 1.0)(image)
    if image.ndim != 2:
        raise ValueError(f"image must have shape [height, width]; got shape {image.shape}")
    return image


@functools.partial(jax.jit, static_argnames="n_steps")
def _bernoulli(key, p, n_steps):
    def at(t):
        return jax.random.uniform(jax.random.fold_in(key, t), p.shape, p.dtype) < p

    return jax.vmap(at)(jnp.arange(n_steps))


def _probability(max_rate, dt):
    positive("max_rate", "Hz")(max_rate)
    positive("dt", "ms")(dt)
    p = max_rate * dt / 1000
    if p > 1:
        raise ValueError(
            f"max_rate * dt / 1000 must be <= 1, the spikes in a step; got {p:g}: pass"
            f" max_rate <= {1000 / dt:g} Hz"
        )
    return p
