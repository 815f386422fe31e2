"""Windows over maps by their equation: one place, one point and one sender after another."""

import itertools
import math

import numpy as np

from neurojax.wiring.convolution import Conv1D, Conv2D, Local1D, Local2D

SHARED, OWN = (Conv1D, Conv2D), (Local1D, Local2D)


def pairs(c):
    """Number of the weight, receiver and sender of everything that is heard."""
    pool = getattr(c, "pool", (1,) * c.axes)
    maps = [n // p for n, p in zip(c.size[1:], pool, strict=True)]
    per_in, per_out, found = c.size[0] // c.groups, c.features // c.groups, []
    points = list(itertools.product(range(per_in), *map(range, c.kernel)))
    for i, (o, *at) in enumerate(itertools.product(*map(range, c.size_post))):
        first = (o if isinstance(c, SHARED) else i) * len(points)
        for k, (channel, *point) in enumerate(points):
            seen = [
                y * s + a * d - p
                for y, a, s, d, p in zip(at, point, c.stride, c.dilation, c.padding, strict=True)
            ]
            if any(not 0 <= y < n for y, n in zip(seen, maps, strict=True)):
                continue
            for inner in itertools.product(*map(range, pool)):
                pre = [y * p + j for y, p, j in zip(seen, pool, inner, strict=True)]
                sender = np.ravel_multi_index((o // per_out * per_in + channel, *pre), c.size)
                found.append((first + k, i, sender))
    return np.array(found, int).reshape(-1, 3).T


def share(c):
    """Of a pool one sender has an equal part."""
    return 1 / math.prod(getattr(c, "pool", (1,)))


def matrix(c, w):
    weight, post, pre = pairs(c)
    full = np.zeros((c.n_post, c.n_pre))
    np.add.at(full, (post, pre), share(c) * np.asarray(w, float).reshape(-1)[weight])
    return full


def stored(c, full):
    """What a change of every pair asks of each weight: the sum over all that read it."""
    weight, post, pre = pairs(c)
    each = share(c) * full[post, pre]
    sums = np.bincount(weight, each, math.prod(c.shape))
    return sums.astype(float).reshape(c.shape)  # of no pair at all they are whole numbers
