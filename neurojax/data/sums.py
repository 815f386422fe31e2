"""Sums of digits: two pictures side by side, whose class needs both."""

import numpy as np

from neurojax._check import count, kind
from neurojax.data.ragged import Rasters
from neurojax.data.sets import Dataset, Split

__all__ = ["sums"]


def sums(sets: Dataset, *, seed: int = 0) -> Dataset:
    """Pairs of pictures, [N // 2, H, 2 W (, C)], labelled by the sum of their two labels.

    Pictures are paired at random within their split, each once; of an odd number one is left over.
    There are 2 n_classes - 1 classes, and neither half tells which.

    >>> pairs = nj.data.sums(nj.data.load("digits"))
    >>> pairs.train.images.shape, pairs.n_classes
    ((575, 8, 16), 19)

    Raises `TypeError` for what is no `Dataset` of pictures, `ValueError` for a seed below 0 and a
    split of fewer than two.
    Source: Manhaeve et al. (2018), DeepProbLog, NeurIPS 31, sec. 6, task T1.
    """
    sets, seed = kind("sets", sets, Dataset), count("seed", 0)(seed)
    splits = {name: getattr(sets, name) for name in ("train", "val", "test")}
    for name, split in splits.items():
        if isinstance(split.images, Rasters):
            raise TypeError(f"sets must be of pictures; got recordings in {name}")
        if len(split.labels) < 2:
            raise ValueError(f"{name} must have two pictures or more; got {len(split.labels)}")
    rng = np.random.default_rng(seed)
    paired = {name: _paired(rng, split) for name, split in splits.items()}
    return sets._replace(name=f"sums of {sets.name}", n_classes=2 * sets.n_classes - 1, **paired)


def _paired(rng: np.random.Generator, split: Split) -> Split:
    n = len(split.labels) // 2
    left, right = rng.permutation(len(split.labels))[: 2 * n].reshape(2, n)
    images = np.concatenate([split.images[left], split.images[right]], axis=2)
    return Split(images, split.labels[left] + split.labels[right])


def __dir__() -> list[str]:
    return __all__
