"""Image classification sets of tensorflow-datasets, prepared and read without TensorFlow."""

import contextlib
import glob
import importlib.util
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from neurojax._memory import affordable
from neurojax._quiet import quiet

# tensorflow_datasets and PIL are imported where they are needed: they are slow to import.

_SPLITS = {"train": "train", "validation": "val", "test": "test"}  # theirs: ours


class UnknownDatasetError(ValueError):
    """No such set; `known` lists those there are."""

    def __init__(self, known: list[str]):
        super().__init__("unknown data set")
        self.known = known


def is_there(name: str, folder: Path) -> bool:
    """Whether `folder` is a prepared set, or has a place for the one of this name."""
    return (folder / name).is_dir() or _is_version(folder)


def _is_version(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file()


def read(name: str, folder: Path | None) -> tuple[dict[str, tuple], int]:
    """Pictures [N, H, W] or [N, H, W, C] and labels of each split, and the number of classes.

    Read from `folder` (tfds' own if None), which is one prepared version or holds the sets by
    name; prepared there first if need be. Raises `UnknownDatasetError`; `ValueError` for a
    set that is not pictures of one size with one label each, or that needs TensorFlow;
    `FileNotFoundError` if it has to be downloaded and cannot be.
    """
    try:
        with quiet(), contextlib.redirect_stdout(None):  # tfds prints a banner about TensorFlow
            builder = _builder(name, folder)
            picture, label = _keys(name, builder)
        _prepare(name, builder)
        with quiet():
            return _splits(name, builder, picture, label), builder.info.features[label].num_classes
    except ModuleNotFoundError as error:
        raise ValueError(
            f"data set {name!r} cannot be prepared without {error.name or 'TensorFlow'}: prepare "
            "it where that is installed, with file_format='array_record', and pass its data_dir"
        ) from error


def _builder(name: str, folder: Path | None) -> Any:
    import tensorflow_datasets as tfds

    if folder and _is_version(folder):
        with _whole(name, folder):
            return tfds.builder_from_directory(folder)
    known = tfds.list_builders(with_community_datasets=False)
    if not re.fullmatch(r"\w+(/[^\s:]+)?(:[\d.*]+)?", name):  # others are looked for on the web
        raise UnknownDatasetError(known)
    _refuse_damaged_json(folder / name.partition(":")[0] if folder else None)
    try:
        builder = tfds.builder(name, data_dir=folder)
        if not builder.is_prepared():
            builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise UnknownDatasetError(known) from None
    except ValueError as error:
        raise ValueError(f"data set {name!r}: {_first_line(error)}") from error
    return builder


def _keys(name: str, builder: Any) -> tuple[str, str]:
    """Under which names an example has its picture and its label."""
    from tensorflow_datasets.core.features import ClassLabel, Image

    with _whole(name, Path(builder.data_dir)):
        features, keys = dict(builder.info.features.items()), builder.info.supervised_keys
    kinds = [type(features.get(key)) for key in keys or ()]
    if kinds != [Image, ClassLabel]:
        raise ValueError(
            f"data set {name!r} must be pictures with one class label each; it has {list(features)}"
        )
    return keys


def _prepare(name: str, builder: Any) -> None:
    """Download and write a set that is not there yet, with tfds' progress bars."""
    import tensorflow_datasets as tfds

    if builder.is_prepared():
        return
    # prepared sets in tfds' public bucket are in another format, and need TensorFlow to fetch
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with _without_tensorflow(builder.info.features):
            builder.download_and_prepare(download_config=config)
    except OSError as error:
        raise FileNotFoundError(
            f"data set {name!r} is not in {str(builder.data_dir)!r} and could not be downloaded: "
            f"{_first_line(error)}"
        ) from error


def _splits(name: str, builder: Any, picture: str, label: str) -> dict[str, tuple]:
    there = {split: part for split, part in _SPLITS.items() if split in builder.info.splits}
    if "train" not in there:
        raise ValueError(f"data set {name!r} must have a split 'train'; it has {[*there]}")
    try:
        with _whole(name, Path(builder.data_dir)):
            sources = {part: builder.as_data_source(split=split) for split, part in there.items()}
    except NotImplementedError:
        found = builder.info.file_format.value
        raise ValueError(
            f"data set {name!r} must be prepared with file_format='array_record'; got {found!r}"
        ) from None
    splits = {part: builder.info.splits[split] for split, part in there.items()}
    return {
        part: _arrays(name, splits[part], source, picture, label)
        for part, source in sources.items()
    }


def _arrays(name: str, split: Any, source: Sequence, picture: str, label: str) -> tuple:
    """All pictures and labels of a split; one channel is no axis."""
    n = len(source)
    if not n:
        return np.empty((0, 0, 0), np.uint8), np.empty(0, np.int64)
    first, _ = _example(name, split, source, 0), _example(name, split, source, n - 1)
    shape, dtype = first[picture].shape, first[picture].dtype
    n_bytes = (dtype.itemsize + 4) * n * math.prod(shape)
    affordable(f"data set {name!r}: {n} pictures of shape {shape}", n_bytes)
    images, labels = np.empty((n, *shape), dtype), np.empty(n, np.int64)
    for i in range(n):
        example = _example(name, split, source, i)
        if example[picture].shape != shape:
            raise ValueError(
                f"data set {name!r} must have pictures of one size; "
                f"got {shape} and {example[picture].shape}"
            )
        images[i], labels[i] = example[picture], example[label]
    return images[..., 0] if shape[-1] == 1 else images, labels


def _example(name: str, split: Any, source: Sequence, i: int) -> Any:
    """One example, refused by the file that should hold it if it cannot be read."""
    try:
        return source[i]
    except Exception as error:  # noqa: BLE001 - what a damaged file makes its readers raise
        shard = int(np.searchsorted(np.cumsum(split.shard_lengths), i, side="right"))
        file = split.filepaths[min(shard, len(split.filepaths) - 1)]
        said = f"example {i} of {len(source)} cannot be read: {_first_line(error)}"
        raise ValueError(f"data set {name!r}: {file}: {said}") from None


@contextlib.contextmanager
def _whole(name: str, folder: Path) -> Iterator[None]:
    """Refuse what is no description of a set, by its file."""
    _refuse_damaged_json(folder)
    try:
        yield
    except (ModuleNotFoundError, NotImplementedError):
        raise
    except Exception as error:  # noqa: BLE001 - what a damaged file makes its readers raise
        said = f"{folder} does not describe a set of pictures: {_first_line(error)}"
        raise ValueError(f"data set {name!r}: {said}") from None


def _refuse_damaged_json(folder: Path | None) -> None:
    """Refuse descriptions that are no JSON object, in `folder` and its versions."""
    for file in sorted(folder.rglob("*.json")) if folder and folder.is_dir() else ():
        try:
            found = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: must be JSON; got {_first_line(error)}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{file}: must be a JSON object; got {type(found).__name__}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


# --- preparing a set without TensorFlow ---


@contextlib.contextmanager
def _without_tensorflow(features: Any) -> Iterator[None]:
    """Let a builder prepare its files where TensorFlow is not installed.

    Builders that make their pictures themselves (MNIST, CIFAR and their kind) want two things
    of TensorFlow: its file functions, for which Python's stand in here, and its PNG encoder,
    for which PIL does. Whatever else a builder asks for is a `ModuleNotFoundError`.
    """
    if importlib.util.find_spec("tensorflow"):
        yield
        return
    for feature in features.values():
        if hasattr(feature, "encoding_format"):
            feature.encode_example = _encoder(feature.encode_example)
    sys.modules["tensorflow"] = _file_functions()
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


def _encoder(encode: Any) -> Any:
    """`encode`, given PNG bytes in place of an array of uint8 [H, W, C]."""
    from PIL import Image

    def encode_example(picture: Any) -> bytes:
        if isinstance(picture, np.ndarray):
            png = io.BytesIO()
            Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(png, "png")
            picture = png.getvalue()
        return encode(picture)

    return encode_example


def _file_functions() -> ModuleType:
    def missing(attribute: str):
        raise ModuleNotFoundError(f"No module named 'tensorflow' ({attribute})", name="tensorflow")

    local = SimpleNamespace(
        GFile=open,
        exists=os.path.exists,
        isdir=os.path.isdir,
        listdir=os.listdir,
        glob=glob.glob,
        walk=os.walk,
    )
    module = ModuleType("tensorflow")
    module.__dict__.update(
        __version__="2.1.0",  # the oldest that tfds accepts
        __getattr__=missing,
        Tensor=type("Tensor", (), {}),  # what no example is
        io=SimpleNamespace(gfile=local),
        compat=SimpleNamespace(as_text=os.fsdecode, as_bytes=os.fsencode),
    )
    return module
