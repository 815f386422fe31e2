"""Population winner-take-all: which population should win, and how strongly to say so.

A teacher is `(scores, target) -> error`, both [n_classes], one step of one sample; vmap it
over time and batch. Errors of each kind sum to zero over classes, so that a feedback matrix
needs at most n_classes - 1 channels.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from neurojax._check import cast, nonnegative, positive


class SoftWTA(eqx.Module):
    """Populations compete through a softmax: e = onehot(target) - softmax(gain s).

    Silent where no error exceeds `margin`, so that what is known stays as it is.
    Source: the delta rule on a softmax readout, Bellec et al. (2020), eq. 5.
    """

    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))
    margin: Float[Array, ""] = eqx.field(default=0.1, converter=nonnegative("margin", ""))

    def __call__(self, scores: Float[Array, " c"], target: Int[Array, ""]) -> Float[Array, " c"]:
        """Error of each class in this step."""
        p = cast(self, scores.dtype)
        belief = jax.nn.softmax(p.gain * scores)
        error = jax.nn.one_hot(target, scores.shape[0], dtype=scores.dtype) - belief
        return jnp.where(jnp.abs(error).max() > p.margin, error, 0)


class HardWTA(eqx.Module):
    """The target population gets +1 and its strongest rival -1, until it leads by `margin`.

    It has to lead by more, so that with a margin of 0 a tie still teaches.
    Source: the perceptron rule for several classes, Crammer and Singer (2003), JMLR 3,
    sec. 3, with a margin.
    """

    margin: Float[Array, ""] = eqx.field(default=0.1, converter=nonnegative("margin", ""))

    def __call__(self, scores: Float[Array, " c"], target: Int[Array, ""]) -> Float[Array, " c"]:
        """Error of each class in this step."""
        is_target = jnp.arange(scores.shape[0]) == target
        rivals = jnp.where(is_target, -jnp.inf, scores)
        error = is_target.astype(scores.dtype) - jax.nn.one_hot(
            rivals.argmax(), scores.shape[0], dtype=scores.dtype
        )
        lead = scores[target] - rivals.max()
        return jnp.where(lead > self.margin.astype(scores.dtype), 0, error)


def class_scores(y: Float[Array, " cp"], n_classes: int) -> Float[Array, " c"]:
    """Score of a class: mean over its population, neurons in runs of a class."""
    if y.shape[-1] % n_classes:
        raise ValueError(f"n_classes must divide {y.shape[-1]} readout neurons; got {n_classes}")
    return y.reshape(n_classes, -1).mean(-1)


def k_winners(v: Float[Array, " n"], k: int) -> Float[Array, " n"]:
    """1 for the k neurons of highest potential, 0 for all others (ties: the lower index).

    Source: Maass (2000), Neural Computation 12, p. 2519 (k-WTA gates).
    """
    if not 1 <= k <= v.shape[-1]:
        raise ValueError(f"k must be in [1, {v.shape[-1]}]; got {k}")
    v = jnp.where(v == 0, 0, v)  # top_k would put -0 below 0
    return jnp.zeros_like(v).at[jax.lax.top_k(v, k)[1]].set(1)
