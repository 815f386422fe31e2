"""Fixed random feedback: one low-dimensional error, broadcast to every neuron."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from neurojax._check import cast, working


class Broadcast(eqx.Module):
    """Learning signal l = B e, with B = `spread` `channels` through K channels, never learned.

    Source: direct feedback alignment, Nøkland (2016), eq. 6; broadcast alignment, Samadi et
    al. (2017), sec. 2.
    """

    spread: Float[Array, "n k"]
    channels: Float[Array, "k c"]

    def __call__(self, error: Float[Array, " c"]) -> Float[Array, " n"]:
        """Learning signal of each neuron."""
        channels, spread = cast((self.channels, self.spread), error.dtype)
        return (error @ channels.T) @ spread.T


def broadcast(
    key: Key[Array, ""],
    n: int,
    n_classes: int,
    bandwidth: int | None = None,
    dtype: DTypeLike = float,
) -> Broadcast:
    """Gaussian feedback of root mean square 1 to `n` neurons, over `bandwidth` channels.

    Errors sum to zero over classes, so n_classes - 1 channels (None) carry all there is: the
    channels are orthonormal directions of that subspace, drawn at random.
    Raises `ValueError` for a bandwidth outside [1, n_classes - 1].
    """
    most = n_classes - 1
    bandwidth = most if bandwidth is None else bandwidth
    if not 1 <= bandwidth <= most:
        raise ValueError(
            f"bandwidth must be in [1, {most}] for {n_classes} classes; got {bandwidth}"
        )
    which, how = jax.random.split(key)
    draw = jax.random.normal(which, (n_classes, bandwidth), working(dtype))
    basis, _ = jnp.linalg.qr(draw - draw.mean(0, keepdims=True))
    rms = (bandwidth / n_classes) ** 0.5
    spread = jax.random.normal(how, (n, bandwidth), dtype) / rms
    return Broadcast(spread, basis.T.astype(dtype))
