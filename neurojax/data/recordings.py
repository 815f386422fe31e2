"""Events of cameras and cochleas: who, when and of which sign; and what networks take of them.

Times are whole microseconds, as sensors give them, and never run back; steps are in ms, as
everywhere. `read_events` reads recordings, `bin_events` and `rasters` make counts a step of them,
`time_surface` how long ago each pixel spoke. NumPy, on the host.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from neurojax._check import brief, count, flag, kind, number, positive
from neurojax._files import located, naming, plain
from neurojax._memory import affordable
from neurojax.data import _formats
from neurojax.data.ragged import Rasters

__all__ = ["Events", "bin_events", "events", "rasters", "read_events", "time_surface"]

_LATEST = 2**53  # us; 285 years, to which a double is exact
_ENTRY = 32  # bytes of an event in memory, and of what decoding it takes


class Events(NamedTuple):
    """What a sensor of `shape` sent, event by event, in order.

    >>> some = nj.data.events([0, 40, 900], [1, 1, 3], [0, 0, 1], [1, 0, 1], shape=(2, 4, 2))
    >>> some.units, len(some.after(30).t)
    (array([ 3,  2, 15]), 2)

    Fields:
        t: int64 [events], us; when, never earlier than the one before
        x: int32 [events]; column, from 0 at the left
        y: int32 [events]; row, from 0 at the top
        p: int32 [events]; 1 brighter, 0 darker; 0 where a sensor knows no sign
        shape: (height, width, signs)
    """

    t: Integer[np.ndarray, " events"]
    x: Integer[np.ndarray, " events"]
    y: Integer[np.ndarray, " events"]
    p: Integer[np.ndarray, " events"]
    shape: tuple[int, int, int]

    @property
    def units(self) -> Integer[np.ndarray, " events"]:
        """Which of the height x width x signs inputs each event is of, [events]."""
        _, width, signs = self.shape
        return (self.y.astype(np.int64) * width + self.x) * signs + self.p

    def after(self, start: int | None = None) -> "Events":
        """What came from `start` us on, with times from there; without, from the first event on."""
        start = (int(self.t[0]) if len(self.t) else 0) if start is None else start
        kept = slice(int(np.searchsorted(self.t, start)), None)
        return Events(self.t[kept] - start, self.x[kept], self.y[kept], self.p[kept], self.shape)

    def pooled(self, k: int) -> "Events":
        """The same from k x k pixels as one; what they sent is added up where it is counted."""
        k = count("k")(k)
        height, width, signs = self.shape
        shape = math.ceil(height / k), math.ceil(width / k), signs
        return self._replace(x=self.x // k, y=self.y // k, shape=shape)


def events(
    t: Any, x: Any, y: Any = 0, p: Any = 0, *, shape: Any, sort: bool = False,
    where: str = "",
) -> Events:  # fmt: skip
    """Arrays [events] as `Events`, refused unless they can be a recording of a sensor of `shape`.

    `t` are whole microseconds, `x`, `y`, `p` whole numbers below width, height and signs of
    `shape` = (height, width, signs); `y` and `p` may be one number. `sort` puts events into the
    order of their times, which else may not run back. A `ValueError` or `TypeError` opens with
    `where`.

    >>> nj.data.events([5, 9], [0, 699], shape=(1, 700, 1)).t  # a cochlea of 700 channels
    array([5, 9])
    """
    shape = _sensor(shape)
    t = _whole(f"{where}t", t).astype(np.int64)
    if t.ndim != 1:
        raise ValueError(f"{where}t must have shape [events]; got {t.shape}")
    columns = []
    for name, given, size in (("x", x, shape[1]), ("y", y, shape[0]), ("p", p, shape[2])):
        column = _whole(f"{where}{name}", given)
        if column.shape not in ((), t.shape):
            got = f"{list(column.shape)} and {list(t.shape)}"
            raise ValueError(f"{where}{name} and t must be equally many; got {got}")
        column = np.broadcast_to(column, t.shape)
        _refuse(column, (column < 0) | (column >= size), f"{where}{name}", f"in [0, {size})")
        columns.append(column.astype(np.int32))
    _refuse(t, (t < 0) | (t > _LATEST), f"{where}t", f"in [0, {_LATEST}] us")
    back = np.flatnonzero(np.diff(t) < 0)
    if not flag(f"{where}sort")(sort) and back.size:
        i = int(back[0])
        raise ValueError(
            f"{where}times must not run back; event {i + 1} is at {t[i + 1]} us, after {t[i]}"
            f" ({back.size} times): pass sort=True"
        )
    if back.size:
        order = np.argsort(t, kind="stable")
        t, columns = t[order], [column[order] for column in columns]
    return Events(t, *columns, shape)


def read_events(path: str | os.PathLike[str], *, shape: Any = None, sort: bool = False) -> Events:
    """A recording of an event camera, as one file.

    By what the file begins with: AEDAT 2.0 (DVS128 and DAVIS), 3.1 and 4 (compressed
    packets of which need the extra `neurojax[events]`), Prophesee RAW (EVT 2.0 and 3.0). By its
    name: `.bin`, 40 bits an event (N-MNIST, N-Caltech101), and `.npy`, a structured array with
    fields t (us), x, y and p. `shape` (height, width, signs) is needed where the file does not
    tell it (N-MNIST: 34 x 34 x 2 unless told), and goes before what it tells. Frames, triggers and
    inertial data are passed over. `sort` as in `events`.
    Raises `FileNotFoundError`, and `ValueError` naming the file: for another format, one that
    is cut short or says sizes that it does not have, codes that there are not, addresses outside
    the sensor, times that run back.

    >>> path = os.path.join(tempfile.mkdtemp(), "made.bin")
    >>> with open(path, "wb") as file:  # x, y, and a sign with 23 bits of us
    ...     _ = file.write(bytes([3, 4, 0x80, 0, 7]))
    >>> nj.data.read_events(path)[:4]
    (array([7]), array([3], dtype=int32), array([4], dtype=int32), array([1], dtype=int32))
    """
    path = plain(located("path", path))
    with naming(path):
        size = path.stat().st_size
    affordable(f"{path}: what it holds", _ENTRY * size // 2)
    try:
        found = _formats.read(path, None if shape is None else _sensor(shape))
    except _formats.DamagedError as error:
        raise ValueError(f"{path}: {error}") from None
    return events(*found.columns, shape=found.shape, sort=sort, where=f"{path}: ")


def bin_events(
    recording: Events, dt: float, n_steps: int | None = None, *, binary: bool = False,
    dtype: Any = "uint8",
) -> Integer[np.ndarray, "T n"]:  # fmt: skip
    """How many events of each unit fall into each step, [T, n], n = height x width x signs.

    Step k holds the times from k dt to just before (k + 1) dt, `dt` in ms, of whole microseconds.
    There are `n_steps`, and what comes later is left out; without, as many as there are events
    for, one at the least. `binary`: whether there were any, 0 or 1.
    Raises `ValueError` for a dt that is not positive whole microseconds, for counts that `dtype`
    does not hold, and for a raster larger than memory.

    >>> some = nj.data.events([0, 40, 2100], [1, 1, 0], shape=(1, 2, 1))
    >>> nj.data.bin_events(some, dt=1.0)
    array([[0, 2],
           [0, 0],
           [1, 0]], dtype=uint8)
    """
    recording = kind("recording", recording, Events)
    width = _microseconds(dt)
    steps = _steps(recording, width) if n_steps is None else count("n_steps")(n_steps)
    n = math.prod(recording.shape)
    cure = "pass a larger dt, n_steps, or recording.after() where times begin late"
    affordable(f"{steps} steps of {n} units", 9 * steps * n, cure)
    kept = recording.t < steps * width
    at = (recording.t[kept] // width) * n + recording.units[kept]
    counts = np.bincount(at, minlength=steps * n).reshape(steps, n)
    dtype = _held_as(dtype)
    if flag("binary")(binary):
        counts = np.minimum(counts, 1)
    most = np.iinfo(dtype).max if dtype.kind in "iu" else math.inf
    if counts.max(initial=0) > most:
        wider = "pass dtype=np.uint16, a smaller dt or binary=True"
        raise ValueError(f"counts must be <= {most} in {dtype}; got {counts.max()}: {wider}")
    return counts.astype(dtype)


def rasters(
    recordings: Sequence[Events], dt: float, n_steps: int | None = None, *, binary: bool = False,
    dtype: Any = "uint8", folder: str | os.PathLike[str] | None = None,
) -> Rasters:  # fmt: skip
    """`bin_events` of each recording, [N, T, n], with the length of each.

    T is `n_steps`, or that of the longest. `recordings` is any sequence, one that reads its
    files when it is indexed too. With a `folder` the array is written there, one recording after
    another, as `x.npy` and `lengths.npy`, and stays on disk: `opened(folder)` finds it again.
    Raises `ValueError` as `bin_events` does, for none, and for sensors of several shapes.

    >>> some = nj.data.events([0, 40, 2100], [1, 1, 0], shape=(1, 2, 1))
    >>> nj.data.rasters([some, some.after(2000)], dt=1.0).lengths
    array([3, 1], dtype=int32)
    """
    if isinstance(recordings, Mapping) or not hasattr(recordings, "__getitem__"):
        raise TypeError(f"recordings must be a sequence of Events; got {brief(recordings)}")
    dtype = _held_as(dtype)
    if not len(recordings):
        raise ValueError("recordings must be one or more; got none")
    width = _microseconds(dt)
    n = math.prod(kind("recordings", recordings[0], Events).shape)
    if n_steps is None:
        n_steps = max(_steps(recordings[i], width) for i in range(len(recordings)))
    shape = len(recordings), count("n_steps")(n_steps), n
    if folder is None:
        cure = "pass folder=..., where it stays on disk"
        affordable(f"rasters of shape {shape}", math.prod(shape) * dtype.itemsize, cure)
        x, lengths = np.zeros(shape, dtype), np.zeros(len(recordings), np.int32)
        _fill(x, lengths, recordings, dt, binary)
        return Rasters(x, lengths)
    place = located("folder", folder)
    place.mkdir(parents=True, exist_ok=True)
    part, lengths = place / ".x.npy.part", np.zeros(len(recordings), np.int32)
    x = np.lib.format.open_memmap(part, "w+", dtype, shape)
    _fill(x, lengths, recordings, dt, binary)
    x.flush()
    del x
    np.save(place / "lengths.npy", lengths)
    part.replace(place / "x.npy")
    return opened(place)


def opened(folder: str | os.PathLike[str]) -> Rasters:
    """What `rasters` has written into `folder`; of x [N, T, n] no more is read than is asked for.

    Raises `FileNotFoundError`, and `ValueError` naming a file that is not what was written.
    """
    place = located("folder", folder)
    found = []
    for name in ("x.npy", "lengths.npy"):
        try:
            found.append(_formats.mapped(plain(place / name)))
        except _formats.DamagedError as error:
            raise ValueError(f"{place / name}: {error}") from None
    return Rasters(found[0], np.array(found[1]))


def time_surface(
    recording: Events, at: Any, tau: float
) -> Float[np.ndarray, "K height width signs"]:
    """How fresh each pixel's last event is at each of the times `at` (us), [K, *shape].

        s = exp(-(at - t_last) / tau),    and 0 where there was none

    `tau` in ms. Raises `ValueError` for a tau that is not positive, and times that are not whole.
    Source: Lagorce et al. (2017), HOTS: A hierarchy of event-based time-surfaces, eq. 3.

    >>> some = nj.data.events([0, 1000], [0, 1], shape=(1, 2, 1))
    >>> nj.data.time_surface(some, [1000], tau=1.0).round(3).ravel()
    array([0.368, 1.   ], dtype=float32)
    """
    recording = kind("recording", recording, Events)
    times, tau = np.atleast_1d(_whole("at", at)), float(positive("tau", "ms")(tau))
    n = math.prod(recording.shape)
    affordable(f"time surfaces at {len(times)} times", 12 * len(times) * n)
    out, units = np.zeros((len(times), n), np.float32), recording.units
    for k, now in enumerate(times):
        last = np.full(n, -1)
        seen = int(np.searchsorted(recording.t, now, side="right"))
        last[units[:seen]] = recording.t[:seen]  # of equals the last one stays
        out[k] = np.where(last >= 0, np.exp((last - now) / (1000 * tau)), 0)
    return out.reshape(len(times), *recording.shape)


def _fill(x: Any, lengths: Any, recordings: Sequence[Events], dt: float, binary: bool) -> None:
    width = _microseconds(dt)
    for i in range(len(recordings)):
        one = recordings[i]
        if math.prod(kind("recordings", one, Events).shape) != x.shape[2]:
            raise ValueError(
                f"recordings must be of one shape; recording {i} is of {one.shape}, {x.shape[2]}"
                " units before"
            )
        x[i] = bin_events(one, dt, x.shape[1], binary=binary, dtype=x.dtype)
        lengths[i] = min(_steps(one, width), x.shape[1])


def _steps(recording: Events, width: int) -> int:
    return int(recording.t[-1]) // width + 1 if len(recording.t) else 1


def _microseconds(dt: Any) -> int:
    """A step as whole microseconds, which count times without rounding."""
    plain = isinstance(dt, float | int) and 0 < dt < _LATEST  # what is checked for each recording
    us = 1000 * (float(dt) if plain else number(positive("dt", "ms"), dt))
    if not 0.5 < us < _LATEST or abs(us - round(us)) > 1e-4 * us:
        allowed = f"dt must be whole microseconds, 0.001 to {_LATEST / 1000:.0f} ms"
        raise ValueError(f"{allowed}; got {brief(dt)}")
    return round(us)


def _held_as(dtype: Any) -> np.dtype:
    array = hasattr(dtype, "__array__") and not isinstance(dtype, type)
    try:
        found = np.dtype(object if array else dtype)
    except (TypeError, ValueError):
        found = np.dtype(object)
    if found.kind not in "biuf":
        raise TypeError(f"dtype must be one of numbers, such as np.uint8; got {brief(dtype)}")
    return found


def _sensor(shape: Any) -> tuple[int, int, int]:
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(f"shape must be (height, width, signs); got {brief(shape)}")
    height, width, signs = (count("shape", 1, 2**16)(n) for n in shape)
    return height, width, signs


def _whole(name: str, x: Any) -> np.ndarray:
    found = np.asarray(x)
    if found.size == 0:
        return found.astype(np.int64)
    if found.dtype.kind not in "biu":
        cure = ": pass them in us, as .round().astype(int)" if found.dtype.kind == "f" else ""
        raise TypeError(f"{name} must be whole numbers; got {found.dtype}{cure}")
    if found.dtype == np.uint64 and found.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be below 2^63; got {found.max()}")
    return found.astype(np.int64)


def _refuse(x: np.ndarray, bad: np.ndarray, what: str, allowed: str) -> None:
    if bad.any():
        raise ValueError(f"{what} must be {allowed}; got {x[bad][0]} ({bad.sum()} of {bad.size})")


def __dir__() -> list[str]:
    return __all__
