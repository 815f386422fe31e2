"""Spike functions: `heaviside`, which has no derivative, and surrogates, which pretend one.

Each maps x = v - v_th to 1 where x >= 0 and to 0 elsewhere, in the dtype of x. They differ
in the derivative alone. Two calls of a factory with equal arguments return the same
function, so that it can be a static field and does not compile twice.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

Spike = Callable[[ArrayLike], Array]


@jax.custom_jvp
def heaviside(x: ArrayLike) -> Array:
    """1 where x >= 0, else 0. Raises `TypeError` where it is differentiated."""
    return _unit_step(x)


@heaviside.defjvp
def _heaviside_jvp(primals, tangents):
    raise TypeError(
        "heaviside has no derivative: pass spike=surrogate.fast_sigmoid() to train by gradient"
    )


def fast_sigmoid(slope: float = 25.0) -> Spike:
    """Derivative 1 / (1 + slope |x|)^2. Source: Zenke and Ganguli (2018), SuperSpike."""
    return _with_derivative(_fast_sigmoid, _positive("slope", slope))


def sigmoid(slope: float = 25.0) -> Spike:
    """Derivative slope s (1 - s), s = 1 / (1 + exp(-slope x)): the logistic function's own.

    Source: Neftci, Mostafa and Zenke (2019), Surrogate gradient learning, box 3.
    """
    return _with_derivative(_sigmoid, _positive("slope", slope))


def arctan(alpha: float = 2.0) -> Spike:
    """Derivative (alpha / 2) / (1 + (pi alpha x / 2)^2).

    Source: Fang et al. (2021), Incorporating learnable membrane time constant.
    """
    return _with_derivative(_arctan, _positive("alpha", alpha))


def triangle(width: float = 1.0) -> Spike:
    """Derivative max(0, 1 - |x| / width). Source: Esser et al. (2016); Bellec et al. (2018)."""
    return _with_derivative(_triangle, _positive("width", width))


def boxcar(width: float = 0.5) -> Spike:
    """Derivative 1 where |x| <= width, else 0: a straight-through window.

    Source: Bengio et al. (2013), Estimating or propagating gradients, on hard thresholds.
    """
    return _with_derivative(_boxcar, _positive("width", width))


@functools.cache
def _with_derivative(derivative: Callable, parameter: float) -> Spike:
    @jax.custom_jvp
    def spike(x: ArrayLike) -> Array:
        return _unit_step(x)

    @spike.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return spike(x), derivative(x, parameter) * dx

    return spike


def _unit_step(x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    return (x >= 0).astype(x.dtype)


def _positive(name: str, x: float) -> float:
    if not (math.isfinite(x) and x > 0):
        raise ValueError(f"{name} must be finite and > 0; got {x}")
    return float(x)


def _fast_sigmoid(x, slope):
    return 1 / jnp.square(1 + slope * jnp.abs(x))


def _sigmoid(x, slope):
    s = jax.nn.sigmoid(slope * x)
    return slope * s * (1 - s)


def _arctan(x, alpha):
    return alpha / 2 / (1 + jnp.square(math.pi / 2 * alpha * x))


def _triangle(x, width):
    return jnp.maximum(1 - jnp.abs(x) / width, 0)


def _boxcar(x, width):
    return (jnp.abs(x) <= width).astype(x.dtype)
