"""Streams: the order in which samples come, and what about them changes on the way.

A stream says which sample comes when, what it is called then, and where it stands in the picture;
samples themselves stay where they are. A learner is tested on each batch before it learns from it
(`Learner.step` tells its accuracy with the weights that it had before), so none needs to change.
Source: Gama, Sebastião and Rodrigues (2013), sec. 3 (test, then train).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from neurojax._check import between, brief, count, numbers, prng_key
from neurojax._draw import fold

__all__ = ["Stream", "class_by_class", "epochs", "mislabelled", "rolled", "rotating", "shifting"]


class Stream(NamedTuple):
    """Samples in P periods of n; what changes does so between periods.

    Fields:
        order: int [P, n]; which sample comes
        labels: int [P, n]; what it is called then
        turn: int [P]; a sample of class c is called (c + turn) mod n_classes
        shift: int [P]; columns by which pictures are `rolled`
        seen: bool [P, n_classes]; classes that have come by the end of the period
    """

    order: Int[Array, "p n"]
    labels: Int[Array, "p n"]
    turn: Int[Array, " p"]
    shift: Int[Array, " p"]
    seen: Bool[Array, "p c"]


def epochs(key: Key[Array, ""], labels: Int[Array, " N"], n_periods: int, n_classes: int) -> Stream:
    """Nothing changes: each period shows all `labels` [N] once, in an order of its own.

    >>> epochs(jax.random.key(0), jnp.array([0, 1, 1]), 2, 2).order.shape
    (2, 3)
    """
    return _shown(key, labels, n_periods, len(labels), n_classes)


def rotating(
    key: Key[Array, ""], labels: Int[Array, " N"], n_periods: int, every: int, n_classes: int
) -> Stream:
    """After `every` samples each class is called as the next one was.

    Raises `ValueError` for more samples a period than there are.

    >>> stream = rotating(jax.random.key(0), jnp.array([0, 1, 2]), 2, 3, n_classes=3)
    >>> jnp.sort(stream.labels[1] - stream.order[1]).tolist()  # 0 is called 1, 1 is 2, 2 is 0
    [-2, 1, 1]
    """
    return _shown(key, labels, n_periods, every, n_classes, turn=1)


def shifting(
    key: Key[Array, ""], labels: Int[Array, " N"], n_periods: int, every: int, n_classes: int,
    columns: int = 2,
) -> Stream:  # fmt: skip
    """After `every` samples pictures stand `columns` further to the right; what leaves comes back.

    Raises `ValueError` for more samples a period than there are.

    >>> shifting(jax.random.key(0), jnp.array([0, 1, 2]), 3, 2, n_classes=3).shift.tolist()
    [0, 2, 4]
    """
    return _shown(key, labels, n_periods, every, n_classes, shift=count("columns", 0)(columns))


def class_by_class(
    key: Key[Array, ""], labels: Int[Array, " N"], n_periods: int, every: int, n_classes: int
) -> Stream:
    """Each period shows n_classes / n_periods classes that have not come before, and no others.

    `every` samples of a period are drawn with replacement, all classes of it alike; which come
    when is drawn too. Raises `ValueError` unless n_periods divides n_classes, and for a class
    without a sample among `labels`.

    >>> stream = class_by_class(jax.random.key(0), jnp.array([0, 1, 2, 3]), 2, 5, n_classes=4)
    >>> stream.seen.sum(1).tolist()
    [2, 4]
    """
    n_classes, every = count("n_classes")(n_classes), count("every")(every)
    if n_classes % count("n_periods")(n_periods):
        raise ValueError(f"n_periods must divide {n_classes} classes; got {n_periods}")
    labels = _labels(labels, n_classes)
    labels = _with_all(labels, n_classes)
    groups = jax.random.permutation(fold(prng_key(key), "classes"), n_classes)
    groups = groups.reshape(n_periods, -1)
    which = jax.random.randint(fold(key, "group"), (n_periods, every), 0, groups.shape[1])
    c = jnp.take_along_axis(groups, which, 1)
    by_class, first = jnp.argsort(labels), jnp.searchsorted(jnp.sort(labels), jnp.arange(n_classes))
    of = jnp.bincount(labels, length=n_classes)[c]
    u = jax.random.uniform(fold(key, "sample"), c.shape)
    order = by_class[
        jnp.minimum(first[c] + jnp.floor(u * of.astype(u.dtype)).astype(int), len(labels) - 1)
    ]
    came = jax.nn.one_hot(groups, n_classes, dtype=int).sum(1).cumsum(0) > 0
    none = jnp.zeros(n_periods, int)
    return Stream(order, labels[order], none, none, came)


def mislabelled(
    key: Key[Array, ""], labels: Int[Array, " N"], part: float | Array, n_classes: int
) -> Int[Array, " N"]:
    """Labels of which `part`, in [0, 1], is wrong, each other class alike: never the right one.

    Source: Natarajan et al. (2013), sec. 2 (symmetric noise, for many classes).

    >>> mislabelled(jax.random.key(0), jnp.array([0, 0, 1]), 1.0, n_classes=2).tolist()
    [1, 1, 0]
    """
    n_classes = count("n_classes", 2)(n_classes)
    labels, part = _labels(labels, n_classes), between("part", 0.0, 1.0)(part)
    if part.shape not in ((), labels.shape):
        raise ValueError(f"part must be one number, or one a label; got shape {part.shape}")
    wrong = jax.random.uniform(fold(prng_key(key), "whose"), labels.shape) < part
    by = jax.random.randint(fold(key, "by"), labels.shape, 1, n_classes)
    return jnp.where(wrong, (labels + by) % n_classes, labels)


def rolled(images: Float[Array, "b h w"], columns: int | Array) -> Float[Array, "b h w"]:
    """Pictures moved to the right by `columns`, one whole number, as on a ring.

    Raises `ValueError` for several numbers, or one that is not whole.

    >>> rolled(jnp.array([[[1.0, 2.0, 3.0]]]), 1).tolist()
    [[[3.0, 1.0, 2.0]]]
    """
    by = numbers("columns", columns)
    if by.ndim or not jnp.issubdtype(by.dtype, jnp.integer):
        raise ValueError(f"columns must be one whole number; got {brief(columns)}")
    return jnp.roll(images, by, -1)


def _shown(
    key: Array, labels: Array, n_periods: int, every: int, n_classes: int, turn: int = 0,
    shift: int = 0,
) -> Stream:  # fmt: skip
    """Each period some of all samples, none of them twice."""
    every, n_periods = count("every")(every), count("n_periods")(n_periods)
    n_classes = count("n_classes")(n_classes)
    labels, period = _labels(labels, n_classes), jnp.arange(n_periods)
    if every > len(labels):
        raise ValueError(f"every must be at most {len(labels)} samples; got {every}")
    keys = jax.random.split(prng_key(key), n_periods)
    order = jax.vmap(lambda key: jax.random.permutation(key, len(labels))[:every])(keys)
    called = (labels[order] + turn * period[:, None]) % n_classes
    seen = jax.nn.one_hot(called, n_classes, dtype=int).sum(1).cumsum(0) > 0
    return Stream(order, called, turn * period % n_classes, shift * period, seen)


def _labels(labels: Array, n_classes: int) -> Array:
    labels = numbers("labels", labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer) or not len(labels):
        raise ValueError(f"labels must be whole numbers [N]; got {labels.dtype} {labels.shape}")
    allowed = f"labels must be in [0, {n_classes})"
    if isinstance(labels, Tracer):
        labels = labels.astype(int)  # of few bits, n_classes may be none of them
        return eqx.error_if(labels, (labels < 0) | (labels >= n_classes), allowed)
    known = np.asarray(labels).astype(np.int64)
    bad = (known < 0) | (known >= n_classes)
    if bad.any():
        raise ValueError(f"{allowed}; got {known[bad][0]} ({bad.sum()} of {len(known)})")
    return jnp.asarray(known, int)


def _with_all(labels: Array, n_classes: int) -> Array:
    """`labels`, refused where a class is not among them."""
    allowed = "labels must hold a sample of each class"
    if isinstance(labels, Tracer):
        return eqx.error_if(labels, jnp.bincount(labels, length=n_classes) == 0, allowed)
    absent = np.setdiff1d(np.arange(n_classes), labels)
    if absent.size:
        raise ValueError(f"{allowed}; got none of {absent[0]}")
    return labels


def __dir__() -> list[str]:
    return __all__
