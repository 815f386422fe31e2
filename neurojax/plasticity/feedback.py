"""Fixed random feedback: one low-dimensional error, broadcast to every neuron."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from neurojax._check import count, in_working, known_finite, prng_key, real, working
from neurojax._memory import affordable
from neurojax._repr import described

__all__ = ["Broadcast", "broadcast"]


def _numbers(name: str) -> Callable[[Any], Array]:
    return lambda x: known_finite(name, real(x, name))


@described
class Broadcast(eqx.Module):
    """Learning signal l = B e, with B = `spread` `channels` through K channels, never learned.

    `spread` [n, K] and `channels` [K, n_classes] are without unit: l has that of the error.
    Raises `ValueError` where the two differ in K.

    >>> feedback = nj.Broadcast(spread=jnp.eye(3, 2), channels=jnp.eye(2))
    >>> feedback(jnp.array([0.5, -0.5]))
    Array([ 0.5, -0.5,  0. ], dtype=float32)

    Source: direct feedback alignment, Nøkland (2016), eq. 6; broadcast alignment, Samadi et
    al. (2017), sec. 2.
    """

    spread: Float[Array, "n k"] = eqx.field(converter=_numbers("spread"))
    channels: Float[Array, "k c"] = eqx.field(converter=_numbers("channels"))

    def __check_init__(self):
        one, other = self.spread.shape, self.channels.shape
        if len(one) != 2 or len(other) != 2 or one[1] != other[0]:
            raise ValueError(
                f"spread must be [n, K] and channels [K, n_classes]; got {one} and {other}"
            )

    def __call__(self, error: Float[Array, " c"]) -> Float[Array, " n"]:
        """Learning signal of each neuron, [n_classes] -> [n]; in float32 at the least inside."""
        e, spread, channels = in_working(error, self.spread, self.channels)
        return ((e @ channels.T) @ spread.T).astype(error.dtype)


def broadcast(
    key: Key[Array, ""],
    n: int,
    n_classes: int,
    bandwidth: int | None = None,
    dtype: DTypeLike = float,
) -> Broadcast:
    """Gaussian feedback of root mean square 1 to `n` neurons, over `bandwidth` channels.

    `spread` [n, bandwidth] and `channels` [bandwidth, n_classes] are without unit.

    Errors sum to zero over classes, so n_classes - 1 channels (None) carry all there is: the
    channels are orthonormal directions of that subspace, drawn at random.
    Raises `ValueError` for a bandwidth outside [1, n_classes - 1], `TypeError` for what is no
    key.

    >>> feedback = nj.broadcast(jax.random.key(0), n=100, n_classes=10)
    >>> feedback.spread.shape, feedback.channels.shape
    ((100, 9), (9, 10))
    """
    n, most = count("n")(n), count("n_classes", 2)(n_classes) - 1
    bandwidth = most if bandwidth is None else count("bandwidth", 0)(bandwidth)
    if not 1 <= bandwidth <= most:
        raise ValueError(
            f"bandwidth must be in [1, {most}] for {n_classes} classes; got {bandwidth}"
        )
    affordable(f"feedback of {bandwidth} channels to {n} neurons", 8 * bandwidth * (n + n_classes))
    which, how = jax.random.split(prng_key(key))
    draw = jax.random.normal(which, (n_classes, bandwidth), working(dtype))
    basis, _ = jnp.linalg.qr(draw - draw.mean(0, keepdims=True))
    rms = (bandwidth / n_classes) ** 0.5
    spread = jax.random.normal(how, (n, bandwidth), dtype) / rms
    return Broadcast(spread, basis.T.astype(dtype))


def __dir__() -> list[str]:
    return __all__
