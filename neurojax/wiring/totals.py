"""Wiring of which only the number of synapses is given, so that a pair may have several."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from neurojax._check import MOST, brief, count, prng_key
from neurojax._memory import affordable
from neurojax.wiring.sparse import FanOut

__all__ = ["fixed_total"]

_PIECE = 1 << 18  # synapses


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
    blocks, edges = len(n_post), int(total.sum())
    of_whom, to_whom = jax.random.split(key)
    cell = np.zeros(n * blocks, np.int64)  # synapses of each sender into each block
    for a, part in enumerate(np.split(_bits(of_whom, edges), np.cumsum(total)[:-1])):
        for piece in _pieces(part):
            cell[a::blocks] += np.bincount(_scaled(piece, n), minlength=n)
    index, bits = np.empty(edges, np.int32), _bits(to_whom, edges)
    to_block = np.repeat(np.tile(np.arange(blocks, dtype=np.min_scalar_type(blocks)), n), cell)
    first = np.cumsum([0, *n_post[:-1]])
    for out, u, a in zip(*map(_pieces, (index, bits, to_block)), strict=True):
        out[:] = first[a] + _scaled(u, np.asarray(n_post)[a])
    return index, cell.reshape(n, blocks).sum(1)


def _bits(key: Array, n: int) -> np.ndarray:
    return np.asarray(jax.random.bits(key, (n,), jnp.uint32))


def _scaled(bits: np.ndarray, n: Any) -> np.ndarray:
    """Whole numbers in [0, n), as likely as 32 bits allow."""
    return ((bits.astype(np.uint64) * np.asarray(n, np.uint64)) >> np.uint64(32)).astype(np.int64)


def _pieces(x: np.ndarray) -> list[np.ndarray]:
    """What is worked on at once stays in the cache, and small beside the whole."""
    return [x[i : i + _PIECE] for i in range(0, x.size, _PIECE)]
