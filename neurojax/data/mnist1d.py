"""MNIST-1D: ten shapes of a line, moved, bent and noisy, made when asked for."""

from functools import cache

import numpy as np
from jaxtyping import Float, Int

__all__ = ["NAME", "made", "pictures"]

NAME = "mnist1d"
_SAMPLES, _TRAIN = 5000, 4000
_PADDING, _LENGTH, _STEPS = (36, 60), 72, 40
_SCALE, _SHEAR, _SHIFT = 0.4, 0.75, 48
_CORRELATED, _INDEPENDENT, _WIDTH = 0.25, 0.02, 2.0
_SHAPES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


def made(seed: int = 42) -> tuple[Float[np.ndarray, "N 40"], Int[np.ndarray, " N"]]:
    """5,000 lines [N, 40] of mean 0 and variance 1 over all, no unit, and their classes [N].

    Each is one of ten shapes of 12 points, followed by 36 to 60 zeros, stretched to 72 points,
    scaled by 0.8 to 1.2, turned about by 0 to 47 points, with smooth noise where it was zero,
    independent noise everywhere and a slope, at 40 points. From seed 42 they are those that the
    package `mnist1d` 0.0.2 makes, to rounding; the last 1,000 are for the test.
    Source: Greydanus and Kobak (2024), Scaling down deep learning with MNIST-1D, arXiv
    2011.14439, sec. 2 and appendix A.
    """
    rng = np.random.RandomState(seed)  # as the set was published
    lines = np.stack([_line(rng, shape) for shape in _shapes() for _ in range(_SAMPLES // 10)])
    labels = np.repeat(np.arange(10), _SAMPLES // 10)
    order = rng.permutation(_SAMPLES)
    lines = lines[order]
    return (lines - lines.mean()) / lines.std(), labels[order]


def _shapes() -> Float[np.ndarray, "10 12"]:
    """Each begins at 0, has standard deviation 1/6, and ends near where it began."""
    x = np.asarray(_SHAPES)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    return (x - x[:, :1]) / 6


def _line(rng: np.random.RandomState, shape: Float[np.ndarray, " 12"]) -> np.ndarray:
    from scipy.ndimage import gaussian_filter  # slow to import

    low, high = _PADDING
    zeros = np.zeros(low + int(rng.rand() * (high - low + 1)))
    x = _stretched(np.concatenate([shape + 1e-8, zeros]), _LENGTH)
    x = np.roll(x * (1 + _SCALE * (rng.rand() - 0.5)), rng.choice(_SHIFT))
    smooth = gaussian_filter(_CORRELATED * rng.randn(_LENGTH), _WIDTH)
    x = np.where(x != 0, x, smooth) + _INDEPENDENT * rng.randn(_LENGTH)
    slope = _SHEAR * (rng.rand() - 0.5)
    return _stretched(x - slope * np.linspace(-0.5, 0.5, _LENGTH), _STEPS)


def _stretched(x: np.ndarray, n: int) -> np.ndarray:
    """At n points, straight in between."""
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(x)), x)


@cache
def pictures() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both parts as pictures [N, 40, 2] in [0, 1]: how far a point is above 0, how far below.

    Divided by the largest there is. Read row by row it takes 40 steps of two inputs.
    """
    lines, labels = made()
    both = np.maximum(np.stack([lines, -lines], -1), 0) / np.abs(lines).max()
    return {"train": (both[:_TRAIN], labels[:_TRAIN]), "test": (both[_TRAIN:], labels[_TRAIN:])}


def __dir__() -> list[str]:
    return __all__
