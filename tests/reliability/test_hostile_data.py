"""Data that are damaged or lie are refused in one line that names the file; nothing is trusted."""

import gzip
import json
import os
import resource
import shutil
import tracemalloc

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurojax import _memory, data
from neurojax.data import _idx, _tfds

RNG = np.random.default_rng(0)
IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def idx(array):
    """The bytes of an IDX file."""
    header = b"".join(int(n).to_bytes(4, "big") for n in (0x0800 + array.ndim, *array.shape))
    return header + array.astype(np.uint8).tobytes()


def pictures(n, shape=(4, 5, 1)):
    return RNG.integers(0, 256, (n, *shape)).astype(np.uint8), np.arange(n) % 3


def write_idx(folder, train, test):
    for stem, (images, labels) in (("train", train), ("t10k", test)):
        (folder / f"{stem}{IMAGES}").write_bytes(idx(images))
        (folder / f"{stem}{LABELS}").write_bytes(idx(labels))


class Hostile(tfds.core.GeneratorBasedBuilder):
    """A set of twelve pictures, and five for the test."""

    name, VERSION = "hostile", tfds.core.Version("1.0.0")

    def _info(self):
        image, label = tfds.features.Image(shape=(4, 5, 1)), tfds.features.ClassLabel(num_classes=3)
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
        )  # fmt: skip

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(n) for name, n in (("train", 12), ("test", 5))}

    def _generate_examples(self, n):
        for i, (image, label) in enumerate(zip(*pictures(n), strict=True)):
            yield i, {"image": image, "label": label}


def refused(load):
    """The one line in which it is refused, or None where it is accepted."""
    try:
        load()
    except (ValueError, FileNotFoundError) as error:
        line = str(error)
    else:
        return None
    assert len(line.splitlines()) == 1
    return line


# --- IDX ---


def read(path):
    return _idx.read(path, (3, 4))


@given(st.binary(max_size=80), st.booleans(), st.booleans())
@one_folder
def test_any_bytes_are_an_idx_file_or_refused_by_name(tmp_path, content, headed, packed):
    content = b"\0\0\x08\x03" + content if headed else content
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(content) if packed else content)
    line = refused(lambda: read(path))
    assert line is None or str(path) in line
    whole = content[:3] == b"\0\0\x08" and content[3:4] in (b"\3", b"\4")
    if line is None:
        assert whole
        got = read(path)
        assert idx(got) == content


@given(st.integers(0, 500), st.integers(0, 7), st.booleans())
@one_folder
def test_a_flipped_bit_of_a_packed_file_never_passes_for_other_pictures(tmp_path, at, bit, cut):
    images = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    content = bytearray(gzip.compress(idx(images)))
    at %= len(content)
    content[at] ^= 1 << bit
    path = tmp_path / "x.gz"
    path.write_bytes(bytes(content[:at] if cut else content))
    line = refused(lambda: read(path))
    if line is None:  # in what gzip keeps beside the content, such as its time
        np.testing.assert_array_equal(read(path), images)
    else:
        assert str(path) in line


def test_a_file_that_inflates_beyond_its_header_is_not_unpacked(tmp_path):
    path = tmp_path / "x.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(idx(np.zeros((1, 2, 3))))
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    line = refused(lambda: read(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line
    assert "the header promises 22 bytes for shape (1, 2, 3); got 23 and more" in line
    assert most < 4 << 20  # 64 MB lie behind it


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_promises_more_than_fits_is_refused_by_what_it_would_take(tmp_path, packed):
    header = b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 3
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(header) if packed else header)
    line = refused(lambda: read(path))
    assert line
    assert str(path) in line
    assert "would take over EB; this machine has" in line


def test_what_is_no_file_is_refused(tmp_path):
    write_idx(tmp_path, pictures(30, (4, 5)), pictures(9, (4, 5)))
    path = tmp_path / f"train{IMAGES}"
    path.unlink()
    os.mkfifo(path)
    assert "must hold train-images" in (refused(lambda: data.load("idx", tmp_path)) or "")
    path.unlink()
    path.mkdir()
    assert "must hold train-images" in (refused(lambda: data.load("idx", tmp_path)) or "")
    assert "must be an existing folder" in (refused(lambda: data.load("idx", tmp_path / "x")) or "")


def test_test_pictures_of_another_size_are_refused_at_once(tmp_path):
    write_idx(tmp_path, pictures(30, (4, 5)), pictures(9, (5, 4)))
    line = refused(lambda: data.load("idx", tmp_path))
    assert line == "idx test images must be (4, 5), as those to train on; got (5, 4)"


@pytest.mark.parametrize("kind", range(0x08, 0x0F))
def test_other_types_of_idx_files_are_refused(tmp_path, kind):
    path = tmp_path / "x"
    path.write_bytes(bytes([0, 0, kind, 3]) + idx(np.ones((1, 2, 3)))[4:])
    line = refused(lambda: read(path))
    assert (line is None) == (kind == 0x08)


# --- prepared sets of tensorflow-datasets ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    _tfds._prepare("hostile", Hostile(data_dir=folder, file_format="array_record"))
    return folder / "hostile" / "1.0.0"


@pytest.fixture
def version(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "hostile" / "1.0.0")


def loaded(version):
    return refused(lambda: data.load("hostile", version))


def test_a_prepared_set_that_is_whole_is_read(version):
    assert loaded(version) is None


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "3", '"x"', "{", "\0", "[" * 10_000])
def test_a_description_of_each_json_type_is_refused_by_its_file(version, name, content):
    (version / name).write_text(content)
    line = loaded(version)
    assert line
    assert name in line or str(version) in line


@pytest.mark.parametrize(
    "lengths", [["1000000000000"], ["13"], ["-3"], [], ["x"], [None], "12", {}]
)
def test_lengths_that_lie_take_no_memory(version, lengths):
    path = version / "dataset_info.json"
    info = json.loads(path.read_text())
    (split,) = (split for split in info["splits"] if split["name"] == "train")
    split["shardLengths"] = lengths
    path.write_text(json.dumps(info))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = loaded(version)
    assert line
    assert str(version) in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "gone", "flipped", "text"])
def test_a_damaged_file_of_records_is_refused_by_name(version, damage):
    (path,) = version.glob("*train*array_record*")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({
        "cut": bytes(content[: len(content) // 2]), "empty": b"", "zeros": bytes(len(content)),
        "gone": b"", "flipped": bytes(content), "text": b"x" * len(content),
    }[damage])  # fmt: skip
    if damage == "gone":
        path.unlink()
    line = loaded(version)
    assert line
    assert str(version) in line


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 255), st.sampled_from(["train", "json"]))
def test_a_flipped_byte_of_a_prepared_set_is_refused_or_harmless(whole, tmp_path, at, by, where):
    version = shutil.copytree(whole, tmp_path / "hostile" / "1.0.0", dirs_exist_ok=True)
    paths = sorted(version.glob("*.json" if where == "json" else "*train*array_record*"))
    path = paths[at % len(paths)]
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= by
    path.write_bytes(bytes(content))
    line = loaded(version)
    if line is None and where == "train":
        true, found = (data.load("hostile", folder).train for folder in (whole, version))
        np.testing.assert_array_equal(found.images, true.images)
        np.testing.assert_array_equal(found.labels, true.labels)


# --- arrays ---


@pytest.mark.usefixtures("untyped")
@given(
    st.sampled_from(["f2", "f4", "f8", "i1", "u1", "u2", "i8", "?", "c8", "O", "S2", "M8[s]"]),
    st.lists(st.integers(0, 3), max_size=5),
    st.sampled_from(["i1", "u8", "f4", "?", "O", "U1"]),
    st.sampled_from([0, 1, -1, 2, 10**9, True, None, 2.0, "2"]),
)
def test_any_arrays_are_a_split_or_refused(kind, shape, label_kind, n_classes):
    images, labels = np.ones(shape, kind), np.zeros(shape[:1], label_kind)
    made = []
    if refused(lambda: made.append(data.check(images, labels, n_classes))) is None:
        assert made[0].images.dtype == np.float32
        assert np.isfinite(made[0].images).all()


def test_pictures_larger_than_memory_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(_memory, "memory", lambda: 10**6)
    path = tmp_path / "x"
    path.write_bytes(b"\0\0\x08\x03" + b"\0\x10\0\0" + b"\0\0\0\1" * 2)
    line = refused(lambda: read(path))
    assert line
    assert "would take 5.24 MB; this machine has 1 MB" in line
    assert LABELS not in line
