"""Decoders: spikes [T, n] back to numbers; the inverses of `encoding`, and readouts.

Spikes may be booleans or floats; what comes out is in their float type, float32 for booleans.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from neurojax._check import count, nonnegative, positive, real, time_step
from neurojax.plasticity.traces import low_pass

__all__ = [
    "Ridge", "burst", "delta", "filtered_rate", "first_spike", "phase", "population_vector", "rank",
    "ridge",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


def filtered_rate(
    z: Shaped[ArrayLike, "T *n"], *, dt: ArrayLike, tau: ArrayLike = 50.0
) -> Float[Array, "T *n"]:
    """Rates [T, n] (Hz) of spikes [T, n]: each counts exp(-t / tau) / tau from its step on.

    The trace of van Rossum, in units of a rate: a steady train comes to its own in the mean. `dt`
    and `tau` in ms.
    Raises `ValueError` for a `dt` or `tau` that is not positive.
    Source: van Rossum (2001), A novel spike distance.

    >>> rate = nj.decoding.filtered_rate(jnp.ones((2000, 1)), dt=1.0)[-1, 0]  # a spike a ms
    >>> f"{float(rate):.0f} Hz"  # at the end of a step, so 1 / (tau (1 - exp(-dt / tau)))
    '1010 Hz'
    """
    z = real(z)
    tau = positive("tau", "ms")(tau).astype(z.dtype)
    return low_pass(z, jnp.exp(-time_step(dt, z.dtype) / tau)) * (1000 / tau)


def first_spike(z: Shaped[ArrayLike, "T *n"], *, dt: ArrayLike) -> Float[Array, "*n"]:
    """When each neuron first fired, ms [n]: the end of that step of spikes [T, n]; inf for never.

    Raises `ValueError` for a `dt` (ms) that is not positive.

    >>> nj.decoding.first_spike(jnp.array([[0, 0], [1, 0]]), dt=0.5)
    Array([ 1., inf], dtype=float32)
    """
    z = real(z)
    when = (jnp.argmax(z > 0, axis=0) + 1).astype(z.dtype) * time_step(dt, z.dtype)
    return jnp.where((z > 0).any(0), when, jnp.inf)


def rank(z: Shaped[ArrayLike, "T n"]) -> Int[Array, " n"]:
    """In which place each neuron first fired, of spikes [T, n]: 0 for the first; n for never.

    Of those that fire in one step the one of lower number comes first.

    >>> nj.decoding.rank(nj.encoding.rank_order(jnp.array([0.2, 0.9, 0.0])))
    Array([1, 0, 3], dtype=int32)
    """
    when = first_spike(z, dt=1.0)
    place = jnp.argsort(jnp.argsort(when, stable=True), stable=True).astype(jnp.int32)
    return jnp.where(jnp.isfinite(when), place, when.size)


def burst(z: Shaped[ArrayLike, "T *n"], *, n_max: int = 5) -> Float[Array, "*n"]:
    """Pixels [n] of bursts [T, n], by their counts over `n_max`: to 1 / n_max, from above.

    Raises `ValueError` for an `n_max` < 1.

    >>> nj.decoding.burst(nj.encoding.burst(jnp.array([0.31, 1.0]), 17))
    Array([0.4, 1. ], dtype=float32)
    """
    return real(z).sum(0) / count("n_max")(n_max)


def phase(z: Shaped[ArrayLike, "T *n"], n_bits: int = 8) -> Float[Array, "*n"]:
    """Pixels [n] of their bits [T, n], meant over periods: multiples of 2^-n_bits.

    Raises `ValueError` for an `n_bits` < 1, or a T that is no whole number of periods.

    >>> nj.decoding.phase(nj.encoding.phase(jnp.array([0.3]), n_bits=3), n_bits=3)
    Array([0.25], dtype=float32)
    """
    z, n_bits = real(z), count("n_bits")(n_bits)
    if z.shape[0] % n_bits or not z.shape[0]:
        raise ValueError(f"z must have whole periods of {n_bits} steps; got {z.shape[0]} steps")
    worth = 2.0 ** -(1 + jnp.arange(z.shape[0]) % n_bits).astype(z.dtype)
    return jnp.tensordot(worth, z, axes=1) * (n_bits / z.shape[0])


def delta(
    z: Shaped[ArrayLike, "T *n"], threshold: ArrayLike, start: ArrayLike = 0.0
) -> Float[Array, "T *n"]:
    """The signal [T, n] of signed spikes [T, n], of `encoding.delta` or `sigma_delta`.

        r_t = start + threshold (z_0 + ... + z_t)

    `start` is x[0] of the signal, one number or [n]; so is `threshold`, in its unit.
    Raises `ValueError` for a threshold that is not positive.

    >>> x = jnp.array([[0.0], [0.3], [0.6], [0.2]])
    >>> nj.decoding.delta(nj.encoding.delta(x, 0.25), 0.25)[:, 0]
    Array([0.  , 0.25, 0.5 , 0.25], dtype=float32)
    """
    z = real(z)
    height = jnp.broadcast_to(positive("threshold", "")(threshold), z.shape[1:]).astype(z.dtype)
    first = jnp.broadcast_to(real(start), z.shape[1:]).astype(z.dtype)
    return first[None] + height[None] * jnp.cumsum(z, axis=0)


def population_vector(
    activity: Shaped[ArrayLike, "*n m"], low: float = 0.0, high: float = 1.0
) -> Float[Array, "*n"]:
    """Values [n] of `m` neurons each, [n, m]: the mean of their centres by their activity.

    Centres are those of `encoding.population` between `low` and `high`; activities are its own, or
    counts or rates of spikes. NaN where none is active.
    Raises `ValueError` for m < 3.
    Source: Georgopoulos, Schwartz and Kettner (1986), Neuronal population coding.

    >>> x = jnp.array([0.25, 0.6])
    >>> nj.decoding.population_vector(nj.encoding.population(x, 12)).round(3)
    Array([0.25, 0.6 ], dtype=float32)
    """
    activity = real(activity)
    m = count("m", 3)(activity.shape[-1])
    place = (2 * jnp.arange(1, m + 1) - 3).astype(activity.dtype) / (2 * (m - 2))
    return activity @ (low + (high - low) * place) / activity.sum(-1)


class Ridge(NamedTuple):
    """A linear readout: y = x w + b.

    Fields:
        w: float [d, k]; weights
        b: float [k]; offsets

    >>> nj.decoding.Ridge(jnp.ones((2, 1)), jnp.zeros(1))(jnp.array([1.0, 2.0]))
    Array([3.], dtype=float32)
    """

    w: Float[Array, "d k"]
    b: Float[Array, " k"]

    def __call__(self, x: Float[Array, "*samples d"]) -> Float[Array, "*samples k"]:
        """Readout [samples, k] of features [samples, d]."""
        return x @ self.w + self.b.reshape(*[1] * (x.ndim - 1), -1)


def ridge(
    x: Shaped[ArrayLike, "samples d"], y: Shaped[ArrayLike, "samples k"], penalty: ArrayLike = 1.0
) -> Ridge:
    """The linear readout of `x` [samples, d] that is closest to `y` [samples, k].

    It minimises |y - x w - b|^2 + penalty |w|^2, b not penalised: features may be rates, states of
    a reservoir, counts.
    Raises `ValueError` for a penalty < 0, and for samples that are not as many.
    Source: Hoerl and Kennard (1970), Ridge regression.

    >>> x = jax.random.normal(jax.random.key(0), (50, 3))
    >>> readout = nj.decoding.ridge(x, x @ jnp.array([[1.0], [2.0], [0.0]]) + 5, penalty=1e-3)
    >>> readout.b.round(3)
    Array([5.], dtype=float32)
    """
    x, y = real(x), real(y)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"x must have shape [samples, d] and y [samples, k]; got {x.shape} and {y.shape}"
        )
    penalty = nonnegative("penalty", "")(penalty).astype(x.dtype)
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean[None]
    gram = centred.T @ centred + penalty * jnp.eye(x.shape[1], dtype=x.dtype)
    w = jnp.linalg.solve(gram, centred.T @ (y - y_mean[None]))
    return Ridge(w, y_mean - x_mean @ w)
