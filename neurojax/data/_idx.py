"""Reader of IDX files, the format MNIST comes in, raw or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

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

    Source: LeCun, Cortes & Burges, The MNIST database, "File formats".
    """
    content = _content(path)
    magic = int.from_bytes(content[:4], "big")
    if magic - _UBYTE not in axes:
        allowed = " or ".join(f"{_UBYTE + n:#010x}" for n in axes)
        raise ValueError(f"{path}: magic number must be {allowed}; got {magic:#010x}")
    start = 4 + 4 * (magic - _UBYTE)
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path}: the header promises {start + math.prod(shape)} bytes for shape {shape}; "
            f"got {len(content)}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"data_dir must hold {name} or {name}.gz; {str(folder)!r} does not")


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: must be a whole gzip file; got {error}") from None
