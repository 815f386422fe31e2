"""Fixed random feedback: one low-dimensional error, broadcast to every neuron."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class Broadcast(eqx.Module):
    """Learning signal l = B e, with B = `spread` `channels` through K channels, never learned.

    Source: direct feedback alignment, Nøkland (2016), eq. 6; broadcast alignment, Samadi et
    al. (2017), sec. 2.
    """

    spread: Float[Array, "n k"]
    channels: Float[Array, "k c"]

    def __call__(self, error: Float[Array, " c"]) -> Float[Array, " n"]:
        """Learning signal of each neuron."""
        return (error @ self.channels.T) @ self.spread.T


def broadcast(
    key: Key[Array, ""], n: int, n_classes: int, bandwidth: int | None = None, dtype=float
) -> Broadcast:
    """Gaussian feedback of root mean square 1 to `n` neurons, over `bandwidth` channels.

    Errors sum to zero over classes, so n_classes - 1 channels (None) carry all there is: the
    channels are orthonormal directions of that subspace, drawn at random.
    Raises `ValueError` for a bandwidth outside [1, n_classes - 1].
    """
    most = n_classes - 1
    bandwidth = most if bandwidth is None else bandwidth
    if not 1 <= bandwidth <= most:
        raise ValueError(f"bandwidth must be in [1, {most}] for {n_classes} classes; got {bandwidth}")
    which, how = jax.random.split(key)
    draw = jax.random.normal(which, (n_classes, bandwidth), dtype)
    basis, _ = jnp.linalg.qr(draw - draw.mean(0))
    rms = jnp.sqrt(jnp.asarray(bandwidth / n_classes, dtype))
    return Broadcast(jax.random.normal(how, (n, bandwidth), dtype) / rms, basis.T)
