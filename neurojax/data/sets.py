"""Named sets of pictures and of events behind one function: `load`. Needs no TensorFlow."""

import difflib
import operator
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from neurojax._check import brief, count
from neurojax._files import located
from neurojax.data import _idx, _tfds, event_sets, mnist1d
from neurojax.data.ragged import Rasters

__all__ = ["Dataset", "Split", "check", "load"]

_Pair = tuple[Any, Any]  # images, or what stands for them, and labels
_Parts = dict[str, _Pair]  # by the name of their split


class Split(NamedTuple):
    """Pictures [N, H, W] or [N, H, W, C], or events [N, T, n], and their classes [N], on the host.

    Fields:
        images: float32 [N, H, W] or [N, H, W, C]; in [0, 1], a channel axis if there are several.
            Of a set of events they are `Rasters`, counts a step
        labels: int32 [N]; class of each picture, 0 to n_classes - 1
    """

    images: Float32[np.ndarray, "N H W *C"] | Rasters
    labels: Int32[np.ndarray, "N"]


class Dataset(NamedTuple):
    """What is trained on, what is tuned on, and what is read once at the end.

    >>> part = nj.data.Split(np.zeros((9, 8, 8), np.float32), np.zeros(9, np.int32))
    >>> mine = nj.data.Dataset("mine", train=part, val=part, test=part, n_classes=2)

    Fields:
        name: str
        train: Split; pictures [N, H, W] in [0, 1] and labels [N], like the other two
        val: Split; what settings are chosen by
        test: Split
        n_classes: int
    """

    name: str
    train: Split
    val: Split
    test: Split
    n_classes: int


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    val_size: int | None = None,
    seed: int = 0,
    bin_ms: float | None = None,
) -> Dataset:
    """A data set by name, with a validation split always.

    `digits`: scikit-learn's 1,797 pictures of 8 x 8, embedded. The 360 for the test are those
    of its `train_test_split(test_size=0.2, random_state=0, stratify=labels)`.
    `mnist1d`: 5,000 lines of ten shapes, made when asked for, 1,000 of them for the test, as
    pictures of 40 x 2: how far each point is above 0, and how far below.
    `idx`: four IDX files with MNIST's names, raw or .gz, in `data_dir`; any number of pictures,
    picture shape and number of classes (the largest training label and 1).
    `mnist`: the same files, or without a `data_dir` what tensorflow-datasets has.
    Any other name is an image classification set of tensorflow-datasets, looked for in
    `data_dir` (a folder of such sets, or one version of one) and downloaded there if need be.
    `data_dir` defaults to the environment variable NEUROJAX_DATA.

    Sets of events have `Rasters` for images, `bin_ms` of a recording in a step.
    `moving-digits`: those of `digits`, split as they are, that come, rest and leave before a
    simulated camera (`moving_digits`), four of each: 28 steps of 1 ms of 144 pixels, whatever the
    sign, so that no single moment tells a direction. The class is digit + 10 turn (on, right,
    back, left), of 40.
    `nmnist`, `shd`, `ssc`: the files of these sets in `data_dir`, unpacked, in steps of 10 ms.

    A set that has no validation pictures gives up `val_size` of its training pictures (a fifth,
    at most 5,000, unless told), chosen by `seed` with classes in proportion. The pictures of
    the test do not depend on `seed`: a set without them gives up its validation pictures, or a
    sixth of the others, for it.

    >>> digits = nj.data.load("digits")
    >>> digits.train.images.shape, digits.n_classes
    ((1150, 8, 8), 10)

    Raises `ValueError` for an unknown name and for data that is corrupt or unfit, and
    `FileNotFoundError` for data that is not there.
    """
    seed = count("seed", 0)(seed)
    val_size = None if val_size is None else _whole("val_size", val_size)
    if name in event_sets.NAMES:
        parts, n_classes = _of_events(name, _folder(name, data_dir), val_size, seed, bin_ms)
        train, val, test = (Split(*parts[part]) for part in ("train", "val", "test"))
        return Dataset(name, train, val, test, n_classes)
    if bin_ms is not None:
        raise ValueError(f"bin_ms must be None for a set of pictures; got {bin_ms} for {name!r}")
    parts, n_classes = _read(name, _folder(name, data_dir))
    for part, pair in parts.items():
        _refuse_unfit(*pair, n_classes, f"{name} {part} ")
        _refuse_another_size(pair[0].shape[1:], parts["train"][0].shape[1:], f"{name} {part} ")
    parts = _with_every_split(parts, val_size, seed)
    train, val, test = (_converted(*parts[part]) for part in ("train", "val", "test"))
    return Dataset(name, train, val, test, n_classes)


def check(images: np.ndarray, labels: np.ndarray, n_classes: int, *, where: str = "") -> Split:
    """Pictures and labels as a `Split`, refused unless a network can learn from them.

    Images are [N, H, W] or [N, H, W, C]: uint8 or uint16, divided by the largest they can be,
    or floats in [0, 1]. Labels are N integers in [0, n_classes). Data that are no pictures are
    [N, 1, n_features]. The `ValueError` opens with `where`.

    >>> split = nj.data.check(np.full((2, 1, 3), 255, np.uint8), np.arange(2), n_classes=2)
    >>> split.images.shape, split.images.max(), split.labels.dtype
    ((2, 1, 3), np.float32(1.0), dtype('int32'))
    """
    images, labels = np.asarray(images), np.asarray(labels)
    _refuse_unfit(images, labels, n_classes, f"{where} ".lstrip())
    return _converted(images, labels)


def _refuse_unfit(images: np.ndarray, labels: np.ndarray, n_classes: int, where: str) -> None:
    if images.ndim not in (3, 4) or 0 in images.shape:
        allowed = "[N, H, W] or [N, H, W, C] without a 0"
        cure = ": pass images[:, None]" if images.ndim == 2 else ""
        raise ValueError(f"{where}images must have shape {allowed}; got {images.shape}{cure}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} of shape {labels.shape}"
        cure = {1: ": pass labels.astype(int)", 2: ": pass labels.argmax(-1)"}.get(labels.ndim, "")
        raise ValueError(f"{where}labels must be integers of shape [N]; got {got}{cure}")
    if len(images) != len(labels):
        got = f"{len(images)} images and {len(labels)} labels"
        raise ValueError(f"{where}images and labels must be equally many; got {got}")
    count(f"{where}n_classes", 2)(n_classes)
    _refuse(labels, (labels < 0) | (labels >= n_classes), f"{where}labels", f"in [0, {n_classes})")
    if images.dtype.kind == "f":
        bad = ~((images >= 0) & (images <= 1))
        cure = ": divide them by the largest they can be" if images.max() > 1 else ""
        _refuse(images, bad, f"{where}images", "finite and in [0, 1]", cure)
    elif images.dtype not in (np.uint8, np.uint16):
        allowed = "uint8, uint16 or floats in [0, 1]"
        cure = "pass images.astype('uint8') of grey levels up to 255"
        raise ValueError(f"{where}images must be {allowed}; got {images.dtype}: {cure}")


def _refuse_another_size(got: tuple, allowed: tuple, where: str) -> None:
    """Refuse pictures of another size than those that are learnt from."""
    if got != allowed:
        raise ValueError(f"{where}images must be {allowed}, as those to train on; got {got}")


def _refuse(x: np.ndarray, bad: np.ndarray, what: str, allowed: str, cure: str = "") -> None:
    if bad.any():
        got = f"{x[bad][0]} ({bad.sum()} of {bad.size}){cure}"
        raise ValueError(f"{what} must be {allowed}; got {got}")


def _whole(name: str, x: Any) -> int:
    """`x` as a Python integer of any sign."""
    try:
        return operator.index(x)
    except TypeError:
        raise ValueError(f"{name} must be a whole number; got {brief(x)}") from None


def _converted(images: np.ndarray, labels: np.ndarray) -> Split:
    """float32 and int32, in one pass each."""
    white = 1 if images.dtype.kind == "f" else np.iinfo(images.dtype).max
    return Split(np.divide(images, white, dtype=np.float32), labels.astype(np.int32))


# --- where a data set comes from: its splits as (images, labels), its number of classes ---


def _folder(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    asked = "data_dir" if data_dir else "NEUROJAX_DATA"
    where = data_dir or os.environ.get(asked)
    if name in ("digits", mnist1d.NAME, event_sets.MADE) or not where:
        return None
    if not located(asked, where).is_dir():
        raise FileNotFoundError(f"{asked} must be an existing folder; got {os.fspath(where)!r}")
    return Path(where)


def _read(name: str, folder: Path | None) -> tuple[_Parts, int]:
    if name == "digits":
        return _digits()
    if name == mnist1d.NAME:
        return mnist1d.pictures(), 10
    if name == "idx":
        return _of_idx(folder)
    if name == "mnist" and folder and not _tfds.is_there(name, folder):
        return _of_idx(folder)[0], 10
    return _of_tfds(name, folder)


def _digits() -> tuple[_Parts, int]:
    from sklearn.datasets import load_digits  # slow to import
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = np.reshape(pixels, (-1, 8, 8)) / 16  # grey levels 0 to 16
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return {"train": (images[rest], labels[rest]), "test": (images[test], labels[test])}, 10


def _of_events(
    name: str, folder: Path | None, val_size: int | None, seed: int, bin_ms: float | None
) -> tuple[_Parts, int]:
    split = lambda parts: _with_every_split(parts, val_size, seed)  # noqa: E731
    if name == event_sets.MADE:
        return event_sets.moving(split(_digits()[0]), bin_ms)
    return event_sets.read(name, folder, split, f"{val_size}-{seed}", bin_ms)


def _of_idx(folder: Path | None) -> tuple[_Parts, int]:
    if folder is None:
        allowed = "data_dir must name the folder of the IDX files (or set NEUROJAX_DATA)"
        raise ValueError(f"{allowed}; got None")
    parts = _idx.read_folder(folder)
    return parts, int(parts["train"][1].max(initial=0)) + 1


def _of_tfds(name: str, folder: Path | None) -> tuple[_Parts, int]:
    try:
        return _tfds.read(str(name), folder)
    except _tfds.UnknownDatasetError as error:
        close = difflib.get_close_matches(
            str(name), ["digits", "idx", mnist1d.NAME, *event_sets.NAMES, *error.known]
        )
        raise ValueError(
            f"dataset must be digits, mnist, idx, mnist1d, {', '.join(event_sets.NAMES)} or an"
            f" image classification set of tensorflow-datasets; got {brief(name)}"
            + (f", close to {', '.join(close)}" * bool(close))
        ) from None


# --- splits ---


def _with_every_split(parts: _Parts, val_size: int | None, seed: int) -> _Parts:
    """Train, val and test: those that are missing are carved off train."""
    parts = dict(parts)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    elif "test" not in parts:
        parts["train"], parts["test"] = _carve(parts["train"], len(parts["train"][1]) // 6, seed=0)
    if "val" not in parts:
        size = min(5000, len(parts["train"][1]) // 5) if val_size is None else val_size
        parts["train"], parts["val"] = _carve(parts["train"], size, seed)
    return parts


def _carve(pair: _Pair, size: int, seed: int) -> tuple[_Pair, _Pair]:
    """All but `size` pictures, and those: each class in proportion, within one picture."""
    images, labels = pair
    n = len(labels)
    if not 1 <= size < n:
        raise ValueError(f"val_size must be at least 1 and less than {n} pictures; got {size}")
    shuffled = np.random.default_rng(seed).permutation(n)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    taken = np.zeros(n, bool)
    taken[by_class[(np.arange(size) * n + n // 2) // size]] = True  # every (n / size)-th
    return (images[~taken], labels[~taken]), (images[taken], labels[taken])


def __dir__() -> list[str]:
    return __all__
