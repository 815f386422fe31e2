"""Spike functions: `heaviside`, which has no derivative, and surrogates, which pretend one.

Each maps x = v - v_th (mV) to 1 where x >= 0 and to 0 elsewhere, in the dtype of x; `above`
alone is 0 at x = 0, as other simulators have it. They differ in the derivative alone. Slopes and
widths are leaves: they vmap, and models that differ in them share one compiled program.
"""

import abc
import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neurojax._check import cast, positive, real
from neurojax._repr import described

__all__ = [
    "Surrogate", "above", "arctan", "boxcar", "fast_sigmoid", "heaviside", "sigmoid", "triangle",
]  # fmt: skip

Spike = Callable[[ArrayLike], Array]


def __dir__() -> list[str]:
    return __all__


class Surrogate(eqx.Module):
    """Spikes of `heaviside`, with `derivative` in place of its own; what fills it is a model.

    >>> class Straight(nj.surrogate.Surrogate):
    ...     def derivative(self, x):
    ...         return jnp.ones_like(x)
    >>> neuron = nj.LIF(spike=Straight())
    """

    strict: ClassVar[bool] = False  # whether it takes more than the threshold to fire

    @abc.abstractmethod
    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """What stands for the derivative of the step at x = v - v_th (mV), in 1/mV."""

    def __call__(self, x: ArrayLike) -> Array:
        """1 where x >= 0, else 0 (`above`: where x > 0); in the shape and dtype of x."""
        return _fire(self, jnp.asarray(real(x)))


@jax.custom_jvp
def _fire(surrogate: Surrogate, x: Array) -> Array:
    return jnp.asarray(x > 0 if surrogate.strict else x >= 0).astype(x.dtype)


@_fire.defjvp
def _fire_jvp(primals, tangents):
    (surrogate, x), (_, dx) = primals, tangents
    return _fire(surrogate, x), cast(surrogate, x.dtype).derivative(x) * dx


class _Heaviside(Surrogate):
    """1 where x = v - v_th (mV) >= 0, else 0. Raises `TypeError` where it is differentiated.

    >>> nj.surrogate.heaviside(jnp.array([-0.1, 0.0, 0.1]))
    Array([0., 1., 1.], dtype=float32)
    """

    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """None: it raises."""
        raise TypeError(
            f"{self!r} has no derivative: pass spike=surrogate.fast_sigmoid() to train by gradient"
        )

    def __repr__(self) -> str:
        return "heaviside"


heaviside = _Heaviside()


class _Above(_Heaviside):
    """1 where x = v - v_th (mV) > 0, else 0: the step of snnTorch, Norse, Spyx and NIR.

    It differs from `heaviside` where the potential meets the threshold to the last digit, as it
    does with weights in whole numbers. Raises `TypeError` where it is differentiated.

    >>> nj.surrogate.above(jnp.array([-0.1, 0.0, 0.1]))
    Array([0., 0., 1.], dtype=float32)
    """

    strict: ClassVar[bool] = True

    def __repr__(self) -> str:
        return "above"


above = _Above()


@described
class fast_sigmoid(Surrogate):
    """Derivative 1 / (1 + slope |x|)^2, slope in 1/mV: one number, or one a neuron.

    >>> neuron = nj.LIF(spike=nj.surrogate.fast_sigmoid(25.0))

    Raises `ValueError` for a slope that is not finite and positive.
    Source: Zenke and Ganguli (2018), SuperSpike.
    """

    slope: Float[Array, "*#n"] = eqx.field(default=25.0, converter=positive("slope", "1/mV"))

    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """At x = v - v_th (mV), in 1/mV."""
        return 1 / jnp.square(1 + self.slope * jnp.abs(x))


@described
class sigmoid(Surrogate):
    """Derivative slope s (1 - s), s = 1 / (1 + exp(-slope x)): the logistic function's own.

    `slope` in 1/mV: one number, or one a neuron. Raises `ValueError` as `fast_sigmoid` does.
    Source: Neftci, Mostafa and Zenke (2019), Surrogate gradient learning, box 3.

    >>> float(jax.grad(nj.surrogate.sigmoid(4.0))(0.0))  # slope / 4, in 1/mV
    1.0
    """

    slope: Float[Array, "*#n"] = eqx.field(default=25.0, converter=positive("slope", "1/mV"))

    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """At x = v - v_th (mV), in 1/mV."""
        s = jax.nn.sigmoid(self.slope * x)
        return self.slope * s * (1 - s)


@described
class arctan(Surrogate):
    """Derivative (alpha / 2) / (1 + (pi alpha x / 2)^2), alpha in 1/mV.

    `alpha`: one number, or one a neuron. Raises `ValueError` as `fast_sigmoid` does.
    Source: Fang et al. (2021), Incorporating learnable membrane time constant.

    >>> float(jax.grad(nj.surrogate.arctan(2.0))(0.0))  # alpha / 2, in 1/mV
    1.0
    """

    alpha: Float[Array, "*#n"] = eqx.field(default=2.0, converter=positive("alpha", "1/mV"))

    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """At x = v - v_th (mV), in 1/mV."""
        return self.alpha / 2 / (1 + jnp.square(math.pi / 2 * self.alpha * x))


@described
class triangle(Surrogate):
    """Derivative max(0, 1 - |x| / width), width in mV: one number, or one a neuron.

    Raises `ValueError` for a width that is not finite and positive.
    Source: Esser et al. (2016); Bellec et al. (2018).

    >>> float(jax.grad(nj.surrogate.triangle(1.0))(0.25))
    0.75
    """

    width: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("width", "mV"))

    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """At x = v - v_th (mV), in 1/mV."""
        return jnp.maximum(1 - jnp.abs(x) / self.width, 0)


@described
class boxcar(Surrogate):
    """Derivative 1 where |x| <= width, else 0: a straight-through window.

    `width` in mV: one number, or one a neuron. Raises `ValueError` as `triangle` does.
    Source: Bengio et al. (2013), Estimating or propagating gradients, on hard thresholds.

    >>> boxcar = nj.surrogate.boxcar(0.5)
    >>> float(jax.grad(boxcar)(0.25)), float(jax.grad(boxcar)(0.75))
    (1.0, 0.0)
    """

    width: Float[Array, "*#n"] = eqx.field(default=0.5, converter=positive("width", "mV"))

    def derivative(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """At x = v - v_th (mV), in 1/mV."""
        return (jnp.abs(x) <= self.width).astype(x.dtype)
