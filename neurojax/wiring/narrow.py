"""Numbers of neurons in as few bytes as can name all of them.

    uint16 [n]       where there are 65,536 neurons at most
    uint8 [n, 3]     where there are 2^24 at most: three bytes, the least significant first
    int32 [n]        above

What a list of synapses costs is mostly such numbers. The type of the array says which it is, so
whoever reads one calls `wide`, and the event-driven products read each kind as it is.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

__all__ = [
    "axes", "blank", "into", "kept", "kind", "names_all", "narrow", "pieces", "small", "stored",
    "wide", "window",
]  # fmt: skip

# Numbers widened at once where an array is gone through; of more, memory would stay taken.
_PIECE = 1 << 18
_LINE = 64  # bytes; JAX takes memory as it is where it begins at a multiple of these


def kind(n: int) -> tuple[Any, tuple[int, ...]]:
    """Type of the array, and the axes of one number, of what names one of `n`."""
    if n <= 1 << 16:
        return np.uint16, ()
    return (np.uint8, (3,)) if n <= 1 << 24 else (np.int32, ())


def narrow(x: Any, n: int) -> Any:
    """Numbers below `n` [...] as they are kept."""
    dtype, more = kind(n)
    if not more:
        return x.astype(dtype)
    if isinstance(x, np.ndarray):
        out = np.empty((*x.shape, 3), np.uint8)
        into(out, x)
        return out
    return jnp.stack([(x >> (8 * k)).astype(jnp.uint8) for k in range(3)], axis=-1)


def into(out: np.ndarray, x: np.ndarray, at: Any = slice(None)) -> None:
    """out[at] = x, of numbers kept in the way of `out`."""
    if out.ndim == x.ndim:
        out[at] = x
        return
    for k in range(3):
        out[at, ..., k] = (x >> (8 * k)) & 255


def stored(x: np.ndarray, n: int) -> Array:
    """Numbers below `n` as an array of JAX that keeps them so, made a piece at a time."""
    dtype, more = kind(n)
    if x.dtype == dtype and x.shape == (*axes(x), *more):
        return kept(x)
    out = blank((*axes(x), *more), dtype)
    for at in pieces(len(x)):
        into(out, wide(x[at]), at)
    return kept(out)


def small(longest: int) -> Any:
    """The type of numbers below `longest` which may also have one byte."""
    return np.uint8 if longest <= 1 << 8 else np.uint16 if longest <= 1 << 16 else np.int32


def wide(x: Any) -> Any:
    """Numbers as int32, however they are kept; arrays of NumPy stay such."""
    if not _in_bytes(x):
        return x.astype(np.int32, copy=False) if isinstance(x, np.ndarray) else x.astype(np.int32)
    x = x.astype(np.int32)
    return x[..., 0] | x[..., 1] << 8 | x[..., 2] << 16


def _in_bytes(x: Any) -> bool:
    return x.dtype == np.uint8 and x.ndim > 1 and x.shape[-1] == 3


def axes(x: Any) -> tuple[int, ...]:
    """Shape of the numbers that `x` keeps."""
    return x.shape[:-1] if _in_bytes(x) else x.shape


def names_all(name: str, x: Any, n: int) -> None:
    """Refuse an array whose type cannot name each of `n` neurons: it may have lost the rest."""
    most = (1 << 24) - 1 if _in_bytes(x) else np.iinfo(x.dtype).max
    if n - 1 > most:
        raise ValueError(
            f"{name} must be of a type that can name all {n} neurons; got {x.dtype}, which ends at"
            f" {most}: pass int32"
        )


def window(x: Shaped[Array, "n ..."], first: Array, size: int) -> Int[Array, " size"]:
    """`size` numbers from `first` on, as int32."""
    return wide(jax.lax.dynamic_slice_in_dim(x, first, size))


def pieces(n: int, width: int = 1, size: int = _PIECE) -> Iterator[slice]:
    """All of `n` numbers in rows of `width`, as stretches of rows of some `size` numbers each."""
    rows, size = n // width, max(size // width, 1)
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def blank(shape: Any, dtype: Any) -> np.ndarray:
    """Memory to be filled, such that JAX can take it as it is (`kept`)."""
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(n + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + n].view(dtype).reshape(shape)


def kept(x: np.ndarray) -> Array:
    """A `blank` that was filled, without a copy; nobody may write to it from now on."""
    with jax.ensure_compile_time_eval():  # it is kept beyond the program that asks for it first
        return jax.device_put(x, may_alias=True)


def __dir__() -> list[str]:
    return __all__
