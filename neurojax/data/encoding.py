"""Encoders: pixels [n] in [0, 1] to drive (nA) or spikes (0 or 1), [T, n]; signals to spikes.

What comes out has the dtype of the pixels; booleans and whole numbers are read as floats, but
for uint8, which is refused: say `x / 255`. `decoding` has the inverses.
"""

import functools
from collections.abc import Callable
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

__all__ = [
    "burst", "delta", "direct_current", "latency", "log_latency", "phase", "poisson", "population",
    "rank_order", "rows", "sigma_delta",
]  # fmt: skip


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


def log_latency(
    x: Shaped[ArrayLike, "*n"],
    n_steps: int,
    *,
    dt: ArrayLike,
    tau: ArrayLike = 20.0,
    threshold: ArrayLike = 0.2,
) -> Float[Array, "T *n"]:
    """One spike per pixel, when a leaky membrane driven by `x` gets to `threshold`.

        t = tau ln(x / (x - threshold)),    never for x <= threshold

    `x` [n] to spikes [T, n] in steps of `dt` ms, that of t in the step (t_0, t_0 + dt] that holds
    it: the first spike of `LIF(tau_mem=tau, v_th=threshold)` under the current x (nA). What comes
    later than `n_steps` is not there. `dt`, `tau` (ms) and `threshold` are one number each.
    Raises `ValueError` for an `x` outside [0, 1] or uint8, `n_steps` < 1, or a `dt`, `tau` or
    `threshold` that is not positive.
    Source: Gerstner et al. (2014), Neuronal Dynamics, eq. 1.8, solved for the first spike.

    >>> z = nj.encoding.log_latency(jnp.array([1.0, 0.4, 0.1]), 20, dt=1.0)  # 4.5 ms, 13.9, never
    >>> z.argmax(0), z.sum(0)
    (Array([ 4, 13,  0], dtype=int32), Array([1., 1., 0.], dtype=float32))
    """
    x = between("x", 0.0, 1.0)(_pixels("x", x))
    dtype, n_steps = working(x.dtype), _steps(n_steps, x)
    tau, low = positive("tau", "ms")(tau), positive("threshold", "")(threshold)
    tau, low, wide = tau.astype(dtype), low.astype(dtype), x.astype(dtype)
    fires = wide > low
    t = -tau * jnp.log1p(-low / jnp.where(fires, wide, 2 * low))
    when = jnp.ceil(t / time_step(dt, dtype)).astype(jnp.int32) - 1
    return jax.nn.one_hot(jnp.where(fires, when, n_steps), n_steps, dtype=x.dtype, axis=0)


def rank_order(x: Shaped[ArrayLike, " n"]) -> Float[Array, "n n"]:
    """One spike per pixel and one per step, the brightest first: `x` [n] to spikes [n, n].

    Of equals the one of lower number comes first, and 0 never does.
    Raises `ValueError` for an `x` outside [0, 1], of other than one axis, or uint8.
    Source: Thorpe and Gautrais (1998), Rank order coding.

    >>> nj.encoding.rank_order(jnp.array([0.2, 0.9, 0.0])).argmax(0)[:2]  # at steps 1 and 0
    Array([1, 0], dtype=int32)
    """
    x = between("x", 0.0, 1.0)(_pixels("x", x))
    if x.ndim != 1:
        raise ValueError(f"x must have shape [n]; got shape {x.shape}: jax.vmap over a batch")
    rank = jnp.argsort(jnp.argsort(-x, stable=True), stable=True)
    return jax.nn.one_hot(jnp.where(x > 0, rank, x.size), x.size, dtype=x.dtype, axis=0)


def burst(
    x: Shaped[ArrayLike, "*n"], n_steps: int, *, n_max: int = 5, gaps: tuple[int, int] = (1, 4)
) -> Float[Array, "T *n"]:
    """A burst per pixel, the brighter the longer and the denser.

    `x` [n] to spikes [T, n]: ceil(n_max x) of them from the first step on, apart by ceil(longest -
    (longest - shortest) x) steps of `gaps` = (shortest, longest).
    Raises `ValueError` for an `x` outside [0, 1] or uint8, an `n_max` or gap < 1, gaps that shrink, or
    fewer steps than the longest burst, (n_max - 1) longest + 1.
    Source: Guo et al. (2021), Neural coding in spiking neural networks, eqs. 6 and 7.

    >>> nj.encoding.burst(jnp.array([1.0, 0.3]), 17).astype(int)[:6]
    Array([[1, 1],
           [1, 0],
           [1, 0],
           [1, 0],
           [1, 1],
           [0, 0]], dtype=int32)
    """  # noqa: E501  (its errors)
    x, n_max = between("x", 0.0, 1.0)(_pixels("x", x)), count("n_max")(n_max)
    n_steps, (short, long) = _steps(n_steps, x), (count("gaps")(g) for g in gaps)
    if short > long or n_steps < (n_max - 1) * long + 1:
        raise ValueError(
            f"n_steps must be >= (n_max - 1) longest + 1 and gaps (shortest, longest); got"
            f" {n_steps}, n_max={n_max} and gaps={gaps}"
        )
    wide = x.astype(working(x.dtype))
    n = jnp.ceil(n_max * wide).astype(jnp.int32)
    gap = jnp.ceil(long - (long - short) * wide).astype(jnp.int32)
    t = jnp.arange(n_steps).reshape(-1, *[1] * x.ndim)
    return ((t % gap[None] == 0) & (t < n[None] * gap[None])).astype(x.dtype)


def phase(x: Shaped[ArrayLike, "*n"], n_bits: int = 8, n_periods: int = 1) -> Float[Array, "T *n"]:
    """The bits of each pixel, the highest first, again in each period.

    `x` [n] to spikes [n_periods n_bits, n]; a spike at step k of a period counts 2^-(k + 1), and x
    is rounded down to a multiple of 2^-n_bits (1 to the greatest there is).
    Raises `ValueError` for an `x` outside [0, 1] or uint8, `n_bits` not in [1, 24], and
    `n_periods` < 1.
    Source: Kim et al. (2018), Deep neural networks with weighted spikes.

    >>> nj.encoding.phase(jnp.array([0.75, 0.5, 0.3]), n_bits=3)  # .11, .1, .01
    Array([[1., 1., 0.],
           [1., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    x, n_bits = between("x", 0.0, 1.0)(_pixels("x", x)), count("n_bits")(n_bits)
    n_periods = count("n_periods")(n_periods)
    if n_bits > 24:
        raise ValueError(f"n_bits must be a whole number in [1, 24]; got {n_bits}")
    whole = jnp.floor(x.astype(working(x.dtype)) * 2**n_bits).astype(jnp.int32)
    whole = jnp.minimum(whole, 2**n_bits - 1)
    place = jnp.arange(n_bits)[::-1].reshape(-1, *[1] * x.ndim)
    bits = ((whole[None] >> place) & 1).astype(x.dtype)
    return jnp.tile(bits, (n_periods, *[1] * x.ndim))


def population(
    x: Shaped[ArrayLike, "*n"],
    m: int,
    low: float = 0.0,
    high: float = 1.0,
    *,
    beta: float = 1.5,
) -> Float[Array, "*n m"]:
    """`m` neurons a value, of overlapping Gaussian fields between `low` and `high`.

    `x` [n] to activities [n, m] in [0, 1], for another encoder to make spikes of: neuron i = 1 .. m
    is centred at low + (2 i - 3) / 2 d, with d = (high - low) / (m - 2), and d / beta wide.
    Raises `ValueError` for an `x` that is not finite or is uint8, m < 3, high <= low, beta <= 0.
    Source: Bohte, Kok and La Poutre (2002), Error-backpropagation in temporally encoded networks.

    >>> nj.encoding.population(jnp.array([0.5]), 5).argmax()  # the middle one
    Array(2, dtype=int32)
    """
    x, m = finite("x", "")(_pixels("x", x)), count("m", 3)(m)
    affordable(f"{m} fields of {x.size} values", 24 * m + 4 * m * x.size)
    if not low < high:
        raise ValueError(f"high must be above low; got {high} and {low}")
    sharpness = positive("beta", "")(beta)
    apart = (high - low) / (m - 2)
    centres = low + (2 * np.arange(1, m + 1) - 3) / 2 * apart
    wide = x.astype(working(x.dtype))[..., None]
    gap = (wide - jnp.asarray(centres, wide.dtype).reshape(*[1] * x.ndim, m)) * (
        sharpness.astype(wide.dtype) / apart
    )
    return jnp.exp(-(gap**2) / 2).astype(x.dtype)


def delta(x: Shaped[ArrayLike, "T *n"], threshold: ArrayLike) -> Float[Array, "T *n"]:
    """Spikes of both signs where a signal has moved by `threshold` from what they say of it.

    `x` [T, n] to -1, 0 or 1, [T, n]: r starts at x[0], and where |x - r| >= threshold it moves by
    one threshold towards x, which is sent (step-forward, or send-on-delta). What is sent thus adds
    up to x, to within a threshold as long as x moves by no more than that in a step. `threshold` is
    one number or one a neuron, in the unit of x.
    Raises `ValueError` for an `x` that is not finite, a threshold that is not positive or of
    another shape.
    Source: Kasabov et al. (2016), Evolving spatio-temporal data machines, sec. 2.2, step-forward.

    >>> nj.encoding.delta(jnp.array([[0.0], [0.3], [0.6], [0.2]]), 0.25)[:, 0]
    Array([ 0.,  1.,  1., -1.], dtype=float32)
    """
    return _sent(x, threshold, lambda gap: jnp.sign(gap) * (jnp.abs(gap) >= 1).astype(gap.dtype))


def sigma_delta(x: Shaped[ArrayLike, "T *n"], threshold: ArrayLike) -> Float[Array, "T *n"]:
    """Whole numbers of thresholds by which a signal has moved from what they say of it.

    As `delta`, but as many at once as there are to send: s = round((x - r) / threshold), so that
    what is sent adds up to x to within half a threshold, always. `x` [T, n] to graded spikes
    [T, n]. Errors are those of `delta`.
    Source: O'Connor and Welling (2017), Sigma delta quantized networks.

    >>> nj.encoding.sigma_delta(jnp.array([[0.0], [0.9], [0.2]]), 0.25)[:, 0]
    Array([ 0.,  4., -3.], dtype=float32)
    """
    return _sent(x, threshold, jnp.round)


def _sent(x: Any, threshold: Any, move: Callable[[Array], Array]) -> Array:
    """What moves r, of whole numbers of thresholds from x[0] on, in each step."""
    x, threshold = finite("x", "")(_pixels("x", x)), positive("threshold", "")(threshold)
    if not x.ndim or not len(x) or threshold.shape not in ((), x.shape[1:]):
        raise ValueError(
            "x must have shape [T, *n] with T >= 1, and threshold be one number or [*n]; got"
            f" {x.shape} and {threshold.shape}"
        )
    wide = x.astype(working(x.dtype))
    steps = (wide - wide[:1]) / jnp.broadcast_to(threshold, x.shape[1:]).astype(wide.dtype)[None]

    def step(r, x):
        s = move(x - r)
        return r + s, s

    return jax.lax.scan(step, jnp.zeros_like(steps[0]), steps)[1].astype(x.dtype)


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
