"""Population winner-take-all: which population should win, and how strongly to say so.

A teacher is `(scores, target) -> error`, both [n_classes], one step of one sample; vmap it
over time and batch. Errors of each kind sum to zero over classes, so that a feedback matrix
needs at most n_classes - 1 channels.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from neurojax._check import (
    classes,
    count,
    in_working,
    known_finite,
    nonnegative,
    one_number,
    positive,
    real,
)
from neurojax._repr import described

__all__ = ["HardWTA", "SoftWTA", "class_scores", "k_winners"]


@described
class SoftWTA(eqx.Module):
    """Populations compete through a softmax: e = onehot(target) - softmax(gain s).

    Silent where no error exceeds `margin`, so that what is known stays as it is. `gain`, per
    unit of score, and `margin`, in units of the error, are numbers.
    Raises `ValueError` for a parameter out of range.
    Source: the delta rule on a softmax readout, Bellec et al. (2020), eq. 5.

    >>> nj.SoftWTA(gain=1.0)(jnp.zeros(4), 2)
    Array([-0.25, -0.25,  0.75, -0.25], dtype=float32)
    """

    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))
    margin: Float[Array, ""] = eqx.field(default=0.1, converter=nonnegative("margin", ""))

    def __call__(
        self, scores: Float[Array, " c"], target: Integer[ArrayLike, ""]
    ) -> Float[Array, " c"]:
        """Error of each class in this step, [n_classes], in float32 at the least inside."""
        one_number(self)
        scores, target = _one(scores, target)
        s, p = in_working(scores, self)
        belief = jax.nn.softmax(p.gain * s)
        error = jax.nn.one_hot(target, s.size, dtype=s.dtype) - belief
        # that of the target is the largest: all others add up to it
        # a NaN is neither above nor below, and is to be seen
        return jnp.where(error.max() <= p.margin, 0, error).astype(scores.dtype)


@described
class HardWTA(eqx.Module):
    """The target population gets +1 and its strongest rival -1, until it leads by `margin`.

    It has to lead by more, so that with a margin of 0 a tie still teaches. `margin` is a
    number, in units of the scores.
    Raises `ValueError` for a margin out of range.
    Source: the perceptron rule for several classes, Crammer and Singer (2003), JMLR 3,
    sec. 3, with a margin.

    >>> nj.HardWTA()(jnp.array([0.1, 0.3, 0.2, 0.0]), 2)
    Array([ 0., -1.,  1.,  0.], dtype=float32)
    """

    margin: Float[Array, ""] = eqx.field(default=0.1, converter=nonnegative("margin", ""))

    def __call__(
        self, scores: Float[Array, " c"], target: Integer[ArrayLike, ""]
    ) -> Float[Array, " c"]:
        """Error of each class in this step, [n_classes]."""
        one_number(self)
        scores, target = _one(scores, target)
        is_target = jnp.arange(scores.size) == target
        rivals = jnp.where(is_target, -jnp.inf, scores)
        error = is_target.astype(scores.dtype) - jax.nn.one_hot(
            rivals.argmax(), scores.size, dtype=scores.dtype
        )
        lead = scores[target] - rivals.max()
        return jnp.where(lead > self.margin.astype(scores.dtype), 0, error)


def _one(scores: Any, target: Any) -> tuple[Array, Array]:
    """Scores and label of one sample, refused unless that is one of the classes."""
    scores = real(scores, "scores")
    allowed = "scores must be [n_classes] and target one label"
    if jnp.ndim(scores) != 1 or jnp.ndim(target):
        raise ValueError(
            f"{allowed}; got {jnp.shape(scores)} and {jnp.shape(target)}: jax.vmap over time and"
            " batch"
        )
    return known_finite("scores", scores), classes("target", target, scores.size)


def _vector(name: str, x: Any) -> Array:
    """`x` [n] as floats, refused if it has another number of axes or none of numbers."""
    x = real(x, name)
    if x.ndim != 1:
        raise ValueError(f"{name} must have one axis; got {x.shape}: jax.vmap over others")
    return known_finite(name, x)


def class_scores(y: Float[Array, " cp"], n_classes: int) -> Float[Array, " c"]:
    """Score of a class: mean over its population [n_classes p] -> [n_classes], in units of `y`.

    Neurons stand in runs of a class.
    Raises `ValueError` where `n_classes` doesn't divide the readout, or there is none.

    >>> nj.class_scores(jnp.array([1.0, 3.0, 0.0, -2.0]), 2)
    Array([ 2., -1.], dtype=float32)
    """
    n_classes, y = count("n_classes")(n_classes), _vector("y", y)
    if y.size % n_classes or not y.size:
        raise ValueError(f"n_classes must divide {y.size} readout neurons; got {n_classes}")
    return y.reshape(n_classes, -1).mean(-1)


def k_winners(v: Float[Array, " n"], k: int) -> Float[Array, " n"]:
    """1 for the k neurons of highest potential, 0 for all others; [n] mV -> [n].

    Of equal ones the lower index wins. Raises `ValueError` for a `k` outside [1, n].
    Source: Maass (2000), Neural Computation 12, p. 2519 (k-WTA gates).

    >>> nj.k_winners(jnp.array([0.2, 0.9, 0.5]), 2)
    Array([0., 1., 1.], dtype=float32)
    """
    v = _vector("v", v)
    if not 1 <= count("k", 0)(k) <= v.size:
        raise ValueError(f"k must be in [1, {v.size}]; got {k}")
    v = jnp.where(v == 0, 0, v)  # top_k would put -0 below 0
    return jnp.zeros_like(v).at[jax.lax.top_k(v, k)[1]].set(1)


def __dir__() -> list[str]:
    return __all__
