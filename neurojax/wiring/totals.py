"""Wiring of which only the number of synapses is given, so that a pair may have several."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from neurojax._check import MOST, brief, count, prng_key
from neurojax._memory import affordable
from neurojax.wiring.sparse import FanOut

__all__ = ["fixed_total"]

_PIECE = 1 << 17  # synapses drawn at once


def __dir__() -> list[str]:
    return __all__


def fixed_total(
    key: Key[Array, ""],
    sizes_pre: Sequence[int],
    sizes_post: Sequence[int],
    number: Any,
    *,
    native: bool = True,
) -> FanOut:
    """Exactly number[a, b] synapses from block b to block a, both ends of each drawn alone.

    So a pair may have several, and a neuron may reach itself; degrees are binomial. `number` is
    of whole numbers, [post, pre]. Neurons are numbered block by block, synapses listed by sender,
    then block of receivers. Weights have shape [edges], nA a spike. Not for use under `jit`: the
    largest fan-out becomes structure.

    Source: the rule fixed_total_number of NEST, as in Potjans and Diesmann (2014).
    Raises `ValueError` for sizes below 1, for a `number` that is no whole number >= 0 or of
    another shape; `TypeError` for what is no key.

    >>> nj.fixed_total(jax.random.key(0), [80, 20], [80, 20], [[300, 100], [50, 25]])
    FanOut(100 -> 100, 475 synapses)
    """
    key = prng_key(key)
    n_pre, n_post = ([count("sizes")(n) for n in sizes] for sizes in (sizes_pre, sizes_post))
    total = _whole(number, (len(n_post), len(n_pre)))
    edges = int(total.sum())
    affordable(f"{edges:,} synapses", 16 * (edges + sum(n_pre) + sum(n_post)))
    drawn = [_from(jax.random.fold_in(key, b), n, n_post, total[:, b]) for b, n in enumerate(n_pre)]
    index, n_out = (np.concatenate(x) for x in zip(*drawn, strict=True))
    start = np.concatenate([[0], np.cumsum(n_out)])
    return FanOut(index, start, sum(n_post), int(n_out.max()), native)


def _whole(number: Any, shape: tuple[int, int]) -> np.ndarray:
    try:
        found = np.asarray(number)
    except ValueError:  # rows of several lengths
        found = np.asarray(None)
    if found.dtype.kind not in "iu" or found.min(initial=0) < 0:
        raise ValueError(f"number must be whole numbers >= 0; got {brief(number)}")
    if found.shape != shape:
        raise ValueError(f"number must have shape {shape}, post by pre; got {found.shape}")
    if found.sum(dtype=float) > MOST:
        raise ValueError(f"number must add up to at most {MOST}; got {found.sum(dtype=float):g}")
    return found


def _from(key, n: int, n_post: list[int], total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Receivers of the synapses of one block of n senders, sender after sender, and fan-outs."""
    (of_whom, to_whom), edges = jax.random.split(key), int(total.sum())
    blocks = np.arange(len(n_post), dtype=np.min_scalar_type(len(n_post)))
    each, to_block = np.zeros(n * blocks.size, np.int64), np.repeat(blocks, total)
    for at, bits in _pieces(of_whom, edges):
        cell = _scaled(bits, n) * blocks.size + to_block[at]
        each += np.bincount(cell, minlength=each.size)
    index, to_block = np.empty(edges, np.int32), np.repeat(np.tile(blocks, n), each)
    size, first = np.asarray(n_post), np.cumsum([0, *n_post[:-1]])
    for at, bits in _pieces(to_whom, edges):
        index[at] = first[to_block[at]] + _scaled(bits, size[to_block[at]])
    return index, each.reshape(n, blocks.size).sum(1)


def _pieces(key: Array, n: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Which of n synapses, and 32 random bits for each: few at once, compiled once for any n."""
    for i, at in enumerate(range(0, n, _PIECE)):
        bits = np.asarray(jax.random.bits(jax.random.fold_in(key, i), (_PIECE,), jnp.uint32))
        yield slice(at, at + _PIECE), bits[: n - at]


def _scaled(bits: np.ndarray, n: Any) -> np.ndarray:
    """Whole numbers in [0, n), as likely as 32 bits allow."""
    return ((bits.astype(np.uint64) * np.asarray(n, np.uint64)) >> np.uint64(32)).astype(np.int64)
