"""Recordings over time, of several lengths, as one array whose tail counts for nothing."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from neurojax._check import brief

__all__ = ["Rasters"]

_AT_ONCE = 1 << 20  # numbers looked at together, of what may lie on disk


class Rasters(eqx.Module):
    """`x` [N, T, n], what each of n inputs sends in each step, and how many steps are a sample's.

    `lengths` [N] are whole, in [1, T]. What comes after is padding, and counts for nothing in a
    learner that takes samples over time: no score, no change of a weight, no rate. So padding more
    changes nothing. Numbers may be of any kind, `uint8` counts too, and become floats in the learner,
    a batch at a time; `x` may be an `np.memmap`, of which no more is read than a few batches.
    An index, a slice or an array of indices picks samples.
    Raises `TypeError` for what are no numbers or no whole lengths, and `ValueError` for other shapes
    and lengths out of range.

    >>> x = np.zeros((3, 10, 4), np.uint8)
    >>> some = nj.data.Rasters(x, np.array([10, 7, 2]))
    >>> some.shape, some[1:].mask.sum(1)
    ((3, 10, 4), array([7, 2]))
    """  # noqa: E501  (its errors)

    x: Any
    lengths: Int[Array | np.ndarray, " N"]

    def __init__(self, x: Any, lengths: Any = None):
        x = x if hasattr(x, "dtype") else np.asarray(x)
        if x.ndim != 3 or 0 in x.shape:
            raise ValueError(f"x must have shape [N, T, n] without a 0; got {x.shape}")
        if x.dtype.kind not in "biuf" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"x must be numbers; got {x.dtype}")
        n, steps = x.shape[:2]
        given = np.full(n, steps) if lengths is None else np.asarray(lengths)
        if given.shape != (n,):
            raise ValueError(f"lengths must be one a sample, [{n}]; got shape {given.shape}")
        if given.dtype.kind not in "iu":
            raise TypeError(f"lengths must be whole numbers; got {given.dtype}")
        bad = (given < 1) | (given > steps)
        if bad.any():
            got = f"{given[bad][0]} ({bad.sum()} of {n})"
            raise ValueError(f"lengths must be in [1, {steps}], as x has {steps} steps; got {got}")
        self.x, self.lengths = x, given.astype(np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, T, n]."""
        return self.x.shape

    @property
    def ndim(self) -> int:
        """Three, or two of one sample."""
        return self.x.ndim

    @property
    def dtype(self) -> Any:
        """What the numbers are kept in."""
        return self.x.dtype

    @property
    def mask(self) -> Bool[Array | np.ndarray, "N T"]:
        """Which steps are a sample's own, [N, T]."""
        room = np if isinstance(self.lengths, np.ndarray) else jnp
        return room.arange(self.x.shape[-2]) < self.lengths[..., None]

    @property
    def on_disk(self) -> bool:
        """Whether `x` is a file that is read where it is needed."""
        return isinstance(self.x, np.memmap)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, samples: Any) -> "Rasters":
        return self._with(self.x[samples], self.lengths[samples])

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"{brief(self)} is no array: pass its x, or a learner that honours lengths")

    def __repr__(self) -> str:
        return f"Rasters({self.dtype} {list(self.shape)})"

    def loaded(self, *samples: Any) -> "Rasters":
        """These samples, or all, in memory."""
        picked = samples[0] if samples else slice(None)
        return self._with(np.array(self.x[picked]), self.lengths[picked])

    def _with(self, x: Any, lengths: Any) -> "Rasters":
        """What has been checked needs no second look, and may be traced."""
        new = object.__new__(Rasters)
        object.__setattr__(new, "x", x)
        object.__setattr__(new, "lengths", lengths)
        return new


def lasting(x: Any) -> tuple[Any, Any]:
    """Numbers of a batch, and the lengths of its samples; None where all are of one length."""
    return (x.x, x.lengths) if isinstance(x, Rasters) else (x, None)


def on_disk(x: Any) -> bool:
    """Whether `x`, or the numbers it holds, are a file."""
    return isinstance(lasting(x)[0], np.memmap)


def loaded(x: Any, samples: Any) -> Any:
    """Some samples of what may lie on disk, in memory."""
    return x.loaded(samples) if isinstance(x, Rasters) else np.array(x[samples])


def arrays(x: Any) -> Any:
    """Numbers, and lengths where they are told, as JAX holds them."""
    return jax.tree.map(jnp.asarray, x.loaded() if on_disk(x) and isinstance(x, Rasters) else x)


def all_finite(x: Any) -> bool:
    """Whether all numbers are finite; looked at in parts."""
    x = lasting(x)[0]
    if x.dtype.kind in "biu":
        return True
    rows = max(1, _AT_ONCE // max(1, x[:1].size))
    return all(np.isfinite(np.asarray(x[i : i + rows])).all() for i in range(0, len(x), rows))


def __dir__() -> list[str]:
    return __all__
