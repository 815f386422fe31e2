"""Spoken digits and commands as spikes of a cochlea: the HDF5 files of SHD and SSC."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurojax._check import count
from neurojax._files import located, naming, plain
from neurojax._memory import affordable
from neurojax.data.recordings import events

__all__ = ["Spoken", "read_spoken"]

_DENSEST = 1032  # bytes that one byte of a compressed file may stand for


class Spoken(Sequence):
    """Recordings of one file, each read when it is asked for, and what was said.

    `len(x)`, `x[i]` -> `Events` of shape (1, n_units, 1); `labels` [N], int32.
    """

    def __init__(self, path: Path, labels: np.ndarray, n_units: int):
        self.path, self.labels, self.n_units = path, labels, n_units
        self._file: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(f"recording must be in [0, {len(self)}); got {i}")
        if self._file is None:
            self._file = _opened(self.path)
        where = f"{self.path}: recording {i}: "
        seconds, units = (_row(self._file, f"spikes/{n}", i, where) for n in ("times", "units"))
        if not np.isfinite(seconds).all() or (abs(seconds) > 1e6).any():
            raise ValueError(f"{where}times must be finite, in s; got {seconds.max()}")
        t = np.round(seconds * 1e6).astype(np.int64)
        return events(t, units, shape=(1, self.n_units, 1), sort=True, where=where)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}


def read_spoken(path: str | os.PathLike[str], *, n_units: int = 700) -> Spoken:
    """A file of SHD or SSC: `spikes/times` (s) and `spikes/units` of each recording, `labels`.

    Times become whole microseconds (the sets store 16 bits of them, and are exact to 0.5 ms) in
    order; `n_units` channels, 700 in both sets. Needs the extra `neurojax[events]`.
    Raises `FileNotFoundError`; `ValueError` naming the file, and the recording when it is read,
    for what is no such file, links to others, sizes that the file cannot hold, a unit out of range.
    Source: Cramer et al. (2022), The Heidelberg spiking data sets, sec. III.

    >>> import h5py, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "one.h5")
    >>> with h5py.File(path, "w") as file:
    ...     file["labels"] = [7]
    ...     for name, row in ("times", [0.001, 0.25]), ("units", [3, 699]):
    ...         kind = h5py.vlen_dtype(float if name == "times" else int)
    ...         file.create_dataset(f"spikes/{name}", (1,), kind)[0] = row
    >>> recordings = nj.data.read_spoken(path)
    >>> recordings.labels, recordings[0].t
    (array([7], dtype=int32), array([  1000, 250000]))
    """
    path, n_units = plain(located("path", path)), count("n_units", 1, 2**16)(n_units)
    with naming(path), _opened(path) as file:
        labels = _labels(file, path)
        for name in ("spikes/times", "spikes/units"):
            rows = _dataset(file, path, name)
            if rows.shape != labels.shape:
                got = f"{list(rows.shape)} and {list(labels.shape)}"
                raise ValueError(f"{path}: {name} and labels must be equally many; got {got}")
    return Spoken(path, labels, n_units)


def _opened(path: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError(f"{path}: HDF5 needs h5py: pip install neurojax[events]") from None
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: it must be a whole HDF5 file; got {_line(error)}") from None


def _dataset(file: Any, path: Path, name: str) -> Any:
    """A data set that lies in the file itself, and has the room for what it says."""
    import h5py

    at: Any = file
    for part in name.split("/"):
        link: Any = at.get(part, getlink=True) if isinstance(at, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            what = "nothing" if link is None else "a link"
            raise ValueError(f"{path}: it must hold {name}; it holds {what} there")
        at = at[part]
    if not isinstance(at, h5py.Dataset) or at.external or at.is_virtual:
        raise ValueError(f"{path}: {name} must be a data set of its own")
    size = path.stat().st_size
    if at.size and (at.id.get_storage_size() == 0 or at.nbytes > _DENSEST * size):
        said = f"{list(at.shape)} of {at.dtype}, in a file of {size} bytes"
        raise ValueError(f"{path}: {name} says more than the file can hold; got {said}")
    return at


def _labels(file: Any, path: Path) -> np.ndarray:
    found = _dataset(file, path, "labels")
    if found.ndim != 1 or found.dtype.kind not in "iu" or not found.size:
        got = f"{found.dtype} of shape {found.shape}"
        raise ValueError(
            f"{path}: labels must be whole numbers of shape [N], one or more; got {got}"
        )
    affordable(f"{path}: {found.size} labels", 12 * found.size)
    try:
        labels = np.asarray(found[:], np.int64)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: labels cannot be read: {_line(error)}") from None
    if (labels < 0).any() or (labels >= 2**31).any():
        raise ValueError(f"{path}: labels must be in [0, 2^31); got {labels.min()}, {labels.max()}")
    return labels.astype(np.int32)


def _row(file: Any, name: str, i: int, where: str) -> np.ndarray:
    try:
        found = np.asarray(file[name][i])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{where}{name} cannot be read: {_line(error)}") from None
    if found.dtype.kind not in ("f" if name.endswith("times") else "iu") or found.ndim != 1:
        raise ValueError(f"{where}{name} must be numbers [spikes]; got {found.dtype}")
    return found.astype(np.float64) if found.dtype.kind == "f" else found


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def __dir__() -> list[str]:
    return __all__
