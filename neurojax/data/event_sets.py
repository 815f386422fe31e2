"""Named sets of events: those made here, and those that lie in a folder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neurojax import _memory
from neurojax._check import positive
from neurojax.data import recordings as ev
from neurojax.data.moving import LASTS, moved
from neurojax.data.ragged import Rasters
from neurojax.data.spoken import read_spoken

__all__ = ["MADE", "NAMES"]

_Pair = tuple[Any, Any]  # recordings or rasters, and labels
_KEPT = "neurojax-rasters"  # folder of what is too large for memory


class _Set(NamedTuple):
    n_classes: int
    bin_ms: float  # ms in a step, unless told
    lasts: float  # ms; what comes later is left out
    read: Callable[[Path], dict[str, _Pair]]


class _Picked(Sequence):
    """Some of a sequence, read when they are asked for."""

    def __init__(self, whole: Any, which: np.ndarray):
        self.whole, self.which = whole, which

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, int | np.integer):
            return self.whole[int(self.which[i])]
        return _Picked(self.whole, self.which[i])


class _Files(Sequence):
    """Recordings of a file each."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        return ev.read_events(self.paths[i])


def _nmnist(folder: Path) -> dict[str, _Pair]:
    parts = {}
    for part, name in (("train", "Train"), ("test", "Test")):
        found = [(p, d) for d in range(10) for p in sorted((folder / name / str(d)).glob("*.bin"))]
        if not found:
            raise FileNotFoundError(
                "data_dir must hold N-MNIST: folders Train and Test, in each of them 0 to 9 with"
                f" .bin files; {str(folder)!r} has none in {name}"
            )
        parts[part] = _Files([p for p, _ in found]), np.array([d for _, d in found], np.int32)
    return parts


def _spoken(stem: str, **files: str) -> Callable[[Path], dict[str, _Pair]]:
    def read(folder: Path) -> dict[str, _Pair]:
        parts = {}
        for part, name in files.items():
            path = folder / f"{stem}_{name}.h5"
            if not path.is_file():
                packed = " (unpack the .gz beside it)" * path.with_suffix(".h5.gz").is_file()
                raise FileNotFoundError(
                    f"data_dir must hold {path.name}; {str(folder)!r} does not{packed}"
                )
            found = read_spoken(path)
            parts[part] = found, found.labels
        return parts

    return read


_SETS = {
    "nmnist": _Set(10, 10.0, 340.0, _nmnist),
    "shd": _Set(20, 10.0, 1400.0, _spoken("shd", train="train", test="test")),
    "ssc": _Set(35, 10.0, 1000.0, _spoken("ssc", train="train", val="valid", test="test")),
}
MADE = "moving-digits"
NAMES = (MADE, *_SETS)
_MADE_BIN = 1.0  # ms


def moving(pictures: dict[str, _Pair], bin_ms: float | None) -> tuple[dict[str, _Pair], int]:
    """`moving_digits` of each part, [28, 144] in steps of 1 ms; signs are added up.

    Classes are digit + 10 turn, of 40.
    """
    width = float(positive("bin_ms", "ms")(_MADE_BIN if bin_ms is None else bin_ms))
    steps, parts = max(1, round(LASTS / width)), {}
    for seed, (part, (images, labels)) in enumerate(pictures.items()):
        x, digits, turns = moved(images, labels, steps, width, seed)
        parts[part] = Rasters(x), digits + 10 * turns
    return parts, 40


def read(
    name: str, folder: Path | None, split: Callable[[dict[str, _Pair]], dict[str, _Pair]],
    told: str, bin_ms: float | None,
) -> tuple[dict[str, _Pair], int]:  # fmt: skip
    """Rasters and labels of each part that `split` makes, and the number of classes.

    What would take more than a quarter of memory is written beside the set, once for each `told`,
    and stays on disk.
    """
    if folder is None:
        raise ValueError(
            f"data_dir must name the folder of {name} (or set NEUROJAX_DATA); got None"
        )
    known = _SETS[name]
    width = float(positive("bin_ms", "ms")(known.bin_ms if bin_ms is None else bin_ms))
    steps, parts = int(np.ceil(known.lasts / width)), known.read(folder)
    for part, (_, labels) in parts.items():
        bad = (labels < 0) | (labels >= known.n_classes)
        if bad.any():
            got = f"{labels[bad][0]} ({bad.sum()} of {bad.size})"
            raise ValueError(f"{name} {part} labels must be in [0, {known.n_classes}); got {got}")
    found = {k: (_Picked(r, np.arange(len(y))), y) for k, (r, y) in parts.items()}
    found = split(found)
    n = np.prod(found["train"][0][0].shape)
    total = sum(len(y) for _, y in found.values()) * steps * int(n)
    kept = folder / _KEPT if total > _memory.memory() // 4 else None
    out = {}
    for part, (recordings, labels) in found.items():
        place = kept and kept / f"{name}-{told}-{width:g}ms-{part}-{len(labels)}"
        out[part] = _rasters(recordings, width, steps, place), labels
    return out, known.n_classes


def _rasters(recordings: Any, width: float, steps: int, place: Path | None) -> Rasters:
    if place is None:
        return ev.rasters(recordings, width, steps)
    if (place / "x.npy").is_file():
        return ev.opened(place)
    return ev.rasters(recordings, width, steps, folder=os.fspath(place))


def __dir__() -> list[str]:
    return __all__
