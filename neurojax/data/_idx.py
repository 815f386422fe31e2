"""Reader of IDX files, the format MNIST comes in, raw or gzipped."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from neurojax._memory import affordable

# magic number of the format: two zero bytes, 8 for unsigned bytes, the number of axes
_UBYTE = 0x0800
_STEMS = {"train": "train", "test": "t10k"}


def read_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Train and test pictures [N, H, W] or [N, H, W, C] and labels [N], uint8.

    Raises `FileNotFoundError` naming the missing file, `ValueError` naming the corrupt one.
    """
    paths = {
        split: (
            _find(folder, f"{stem}-images-idx3-ubyte"),
            _find(folder, f"{stem}-labels-idx1-ubyte"),
        )
        for split, stem in _STEMS.items()
    }
    return {
        split: (read(images, axes=(3, 4)), read(labels, axes=(1,)))
        for split, (images, labels) in paths.items()
    }


def read(path: Path, axes: tuple[int, ...]) -> np.ndarray:
    """The unsigned bytes of one IDX file that has as many axes as allowed.

    The header comes first: no more is read, or unpacked, than what it promises and one byte.
    Source: LeCun, Cortes & Burges, The MNIST database, "File formats".
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            return _read(path, file, axes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: must be a whole gzip file; got {error}") from None


def _read(path: Path, file: Any, axes: tuple[int, ...]) -> np.ndarray:
    magic = int.from_bytes(file.read(4), "big")
    if magic - _UBYTE not in axes:
        allowed = " or ".join(f"{_UBYTE + n:#010x}" for n in axes)
        raise ValueError(f"{path}: magic number must be {allowed}; got {magic:#010x}")
    sizes = file.read(4 * (magic - _UBYTE))
    shape = tuple(
        int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * (magic - _UBYTE), 4)
    )
    start, promised = 4 + 4 * len(shape), math.prod(shape)
    affordable(f"{path}: shape {shape}, of which pixels become 4 bytes each,", 5 * promised)
    content = file.read(promised + 1)
    got = 4 + len(sizes) + len(content)
    if got != start + promised:
        more = " and more" if got > start + promised + 1 or file.read(1) else ""
        promise = f"the header promises {start + promised} bytes for shape {shape}"
        raise ValueError(f"{path}: {promise}; got {got}{more}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"data_dir must hold {name} or {name}.gz; {str(folder)!r} does not")
