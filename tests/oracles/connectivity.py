"""Small examples of every connectivity, and what their synapses are, one at a time."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from oracles import windows

from neurojax.wiring.convolution import Conv1D, Conv2D, Local2D
from neurojax.wiring.layouts import Band, Dense, FanIn
from neurojax.wiring.sparse import FanOut, by_sender


def dense(rng, n_post, n_pre):
    return Dense(n_pre, n_post)


def counted(rng, n_post, n_pre):
    return Dense(n_pre, n_post, jnp.asarray(rng.integers(0, 3, (n_post, n_pre))))


def linked(rng, n_post, n_pre, k=5):
    rows = [rng.permutation(n_pre)[:k] for _ in range(n_post)]
    return FanIn(jnp.asarray(rows, jnp.int32), n_pre)


def banded(rng, n, radius):
    return Band(jnp.asarray(rng.random((n, 2 * radius + 1)) < 0.7), radius)


def listed(rng, n_post, n_pre, native):
    """Synapses in no order, some twice: all from the first sender, none from the last.

    How many there are, and the largest fan-out, do not depend on the seed: one program.
    """
    between = (n_pre - 2) * n_post
    pairs = rng.choice(between, round(0.3 * between), replace=False)
    pairs = rng.permutation(np.tile(pairs, 2))[: pairs.size]
    pre = np.concatenate([np.zeros(2 * n_post, int), 1 + pairs // n_post])
    post = np.concatenate([np.tile(np.arange(n_post), 2), pairs % n_post])
    order = rng.permutation(pre.size)
    return by_sender(pre[order], post[order], n_pre, n_post, native=native)


def slid(rng, kind, *arguments):
    *arguments, more = arguments
    return kind(*arguments, **more)


class Kind(NamedTuple):
    make: Callable
    sizes: list  # what `make` takes; a seed decides the rest


KINDS = {
    "dense": Kind(dense, [(45, 45), (3, 7)]),
    "counted": Kind(counted, [(45, 45), (3, 7)]),
    "few links": Kind(linked, [(45, 45), (3, 7), (33, 5)]),  # products are gathers
    "many links": Kind(functools.partial(linked, k=9), [(45, 45), (3, 40)]),  # one product
    "events": Kind(functools.partial(listed, native=False), [(45, 45), (3, 7)]),
    "events in C++": Kind(functools.partial(listed, native=True), [(45, 45), (3, 100)]),
    # a tile has 32 rows: fewer, one tile, a row more, and a window longer than the ring
    "band": Kind(banded, [(45, 4), (3, 1), (32, 3), (33, 16), (70, 20)]),
}


# Windows are no row of `KINDS`, as a shared weight has many synapses, which few rules allow.
ALL = dict(stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2, pool=(1, 2))
WINDOWS = {
    "shared windows": Kind(
        slid,
        [
            (Conv1D, (3, 15), 9, 3, dict(pool=2)),
            (Conv2D, (12, 5, 8), 4, (3, 2), ALL),  # so large that points of it are products
            (Conv2D, (2, 5, 4), 3, 2, dict(pool=2)),  # one place: dense
        ],
    ),
    "own windows": Kind(
        slid,
        [
            (Local2D, (5, 3, 3), 5, 3, dict(padding="same")),
        ],
    ),
}
ALL_KINDS = KINDS | WINDOWS


def example(kind, seed=1, size=0):
    """A connectivity of that kind; size 0 has 45 neurons on either side."""
    row = ALL_KINDS[kind]
    return row.make(np.random.default_rng(seed), *row.sizes[size])


def synapses(c):
    """Row and column of every stored weight, and how many synapses it stands for.

    Of windows those of every pair.
    """
    if isinstance(c, windows.SHARED + windows.OWN):
        _, rows, columns = windows.pairs(c)
        return rows, columns, np.ones(rows.shape, int)
    if isinstance(c, FanOut):
        columns = np.repeat(np.arange(c.n_pre), np.diff(c.start))
        return np.asarray(c.index), columns, np.ones(c.shape, int)
    rows, columns = np.indices(c.shape)
    if isinstance(c, Dense):
        return rows, columns, np.ones(c.shape, int) if c.count is None else np.asarray(c.count)
    if isinstance(c, FanIn):
        return rows, np.asarray(c.index), np.ones(c.shape, int)
    return rows, (rows + columns - c.radius) % c.n_post, np.asarray(c.mask).astype(int)


def matrix(c, w):
    """The effective weights as a matrix, filled one stored weight at a time."""
    if isinstance(c, windows.SHARED + windows.OWN):
        return windows.matrix(c, w)
    full = np.zeros((c.n_post, c.n_pre))
    for i, j, count, weight in zip(*map(np.ravel, (*synapses(c), w)), strict=True):
        full[i, j] += count * weight
    return full


def stored(c, full):
    """The entries of a matrix at the weights that `c` stores; 0 where no synapse is."""
    if isinstance(c, windows.SHARED + windows.OWN):
        return windows.stored(c, full)
    rows, columns, count = synapses(c)
    return np.where(count > 0, full[rows, columns], 0)
