"""Sums that neither stall nor round in long runs: a float, and what it has rounded away.

A float32 of 3e7 s (a year) moves in steps of 2 s. As s + rest it carries twice the digits, so
that a clock goes on in steps of a microsecond, and differences of times are right.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from neurojax._check import working


class Sum(NamedTuple):
    """s + rest, of which `s` alone is the value rounded.

    Fields:
        s: float [d]; the value, rounded
        rest: float [d]; what that leaves out, in the same unit
    """

    s: Float[Array, "*d"]
    rest: Float[Array, "*d"]


def exact(x: ArrayLike | Sum, dtype: DTypeLike) -> Sum:
    """`x` as a sum of two floats of `dtype`, float32 at the least: Python's floats keep more."""
    dtype = jax.dtypes.canonicalize_dtype(working(dtype))
    if isinstance(x, Sum):
        return Sum(*(part.astype(dtype) for part in x))
    if isinstance(x, jax.Array):
        s = x.astype(dtype)
        return Sum(s, jnp.zeros_like(s))
    s = np.asarray(x).astype(dtype)
    rest = np.asarray(x, np.float64) - s
    return Sum(jnp.asarray(s), jnp.asarray(rest.astype(dtype)))


def added(a: Sum, b: Sum) -> Sum:
    """a + b. Source: Knuth (1997), The Art of Computer Programming 2, 4.2.2, theorem B."""
    s = a.s + b.s
    of_b = s - a.s
    lost = (a.s - (s - of_b)) + (b.s - of_b) + (a.rest + b.rest)
    total = s + lost
    return Sum(total, lost - (total - s))


def since(now: Sum, then: Sum) -> Float[Array, "*d"]:
    """now - then, and 0 before `then`: nothing has happened yet."""
    return jnp.maximum((now.s - then.s) + (now.rest - then.rest), 0)
