"""Named data sets: what arrives is what the files hold, and what is unfit is refused."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from neurojax import data
from neurojax.data import sets

RNG = np.random.default_rng(0)
IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
# Read before any test changes the environment.
_BESIDE = Path(__file__).parents[3] / "shared/data/mnist"
MNIST = Path(os.environ.get("NEUROJAX_DATA", _BESIDE))


@pytest.fixture(autouse=True)
def _no_default_folder(monkeypatch):
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)


def rows(split):
    """Pictures with their labels as sorted rows: equal for equal sets of examples."""
    rows = np.column_stack([split.images.reshape(len(split.images), -1), split.labels])
    return rows[np.lexsort(rows.T)]


def together(*splits):
    return data.Split(*(np.concatenate(arrays) for arrays in zip(*splits, strict=True)))


# --- digits ---


def test_digits_are_scikit_learns_in_three_parts():
    digits, source = data.load("digits"), load_digits()
    assert [len(split.labels) for split in digits[1:4]] == [1150, 287, 360]
    assert digits.train.images.shape[1:] == (8, 8)
    assert digits.n_classes == 10
    whole = data.Split(np.float32(source.images / 16), source.target)
    np.testing.assert_array_equal(rows(together(*digits[1:4])), rows(whole))


def test_digits_keep_their_classes_in_proportion():
    digits = data.load("digits")
    share = np.bincount(load_digits().target) / 1797
    for split in digits[1:4]:
        n = len(split.labels)  # two cuts, each within one picture a class
        assert np.abs(np.bincount(split.labels) - n * share).max() < 2


def test_a_seed_chooses_the_validation_split_and_never_the_test_split():
    a, b, c = data.load("digits"), data.load("digits", seed=1), data.load("digits", seed=1)
    np.testing.assert_array_equal(a.test.images, b.test.images)
    assert not np.array_equal(a.val.images, b.val.images)
    np.testing.assert_array_equal(b.val.images, c.val.images)


def test_a_test_split_that_is_carved_does_not_depend_on_the_seed():
    pictures, labels = np.arange(60.0)[:, None, None], np.arange(60) % 3
    a, b = (sets._with_every_split({"train": (pictures, labels)}, None, seed) for seed in (0, 1))
    np.testing.assert_array_equal(a["test"][0], b["test"][0])
    assert not np.array_equal(a["val"][0], b["val"][0])
    everyone = np.sort(np.concatenate([a[part][0] for part in ("train", "val", "test")]), axis=0)
    np.testing.assert_array_equal(everyone, pictures)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(1, 59), st.integers(0, 9))
def test_carving_takes_each_picture_once_and_each_class_in_proportion(labels, size, seed):
    labels, size = np.array(labels), min(size, len(labels) - 1)
    rest, taken = sets._carve((np.arange(len(labels)), labels), size, seed)
    assert len(taken[0]) == size
    np.testing.assert_array_equal(np.sort(np.concatenate([rest[0], taken[0]])), range(len(labels)))
    for pictures, classes in (rest, taken):
        np.testing.assert_array_equal(labels[pictures], classes)
    share = np.bincount(labels, minlength=4) * size / len(labels)
    assert np.abs(np.bincount(taken[1], minlength=4) - share).max() < 1


@pytest.mark.usefixtures("untyped")
def test_what_is_no_number_of_classes_pictures_or_seeds_is_refused():
    for n_classes in (1, -2, 2.5):
        with pytest.raises(ValueError, match="n_classes must be a whole number >= 2; got"):
            data.check(HALF, np.array([0, 1]), n_classes)
    with pytest.raises(ValueError, match="val_size must be a whole number; got 0.1"):
        data.load("digits", val_size=0.1)
    with pytest.raises(ValueError, match="seed must be a whole number >= 0; got -1"):
        data.load("digits", seed=-1)


@pytest.mark.parametrize("val_size", [0, 1437, -3])
def test_a_validation_split_of_nothing_or_everything_is_refused(val_size):
    with pytest.raises(ValueError, match=f"val_size must be at least 1 .* 1437.*; got {val_size}"):
        data.load("digits", val_size=val_size)


# --- IDX files ---


def idx(array, magic=None):
    """The bytes of an IDX file."""
    magic = 0x0800 + array.ndim if magic is None else magic
    header = b"".join(int(n).to_bytes(4, "big") for n in (magic, *array.shape))
    return header + array.astype(np.uint8).tobytes()


def pictures(n, shape=(4, 5), n_classes=3):
    return RNG.integers(0, 256, (n, *shape)), np.arange(n) % n_classes


def write_idx(folder, train, test, suffix=""):
    pack = gzip.compress if suffix else bytes
    for stem, (images, labels) in (("train", train), ("t10k", test)):
        (folder / f"{stem}{IMAGES}{suffix}").write_bytes(pack(idx(images)))
        (folder / f"{stem}{LABELS}{suffix}").write_bytes(pack(idx(labels)))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(4, 5), (28, 28), (3, 4, 3)])
def test_idx_files_of_any_shape_arrive_whole(tmp_path, shape, suffix):
    train, test = pictures(30, shape), pictures(9, shape)
    write_idx(tmp_path, train, test, suffix)
    got = data.load("idx", tmp_path, val_size=7)
    assert got.n_classes == 3
    assert got.train.images.shape == (23, *shape)
    assert got.val.images.shape == (7, *shape)
    for split, (images, labels) in ((together(got.train, got.val), train), (got.test, test)):
        assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int32)
        whole = data.Split(np.float32(images) / np.float32(255), labels)
        np.testing.assert_array_equal(rows(split), rows(whole))


def test_every_picture_keeps_its_own_label(tmp_path):
    train, test = (np.arange(n) * 7 % 251 for n in (2503, 1201))
    write_idx(tmp_path, *((x[:, None, None] + np.zeros((1, 2, 2)), x) for x in (train, test)))
    got = data.load("idx", tmp_path, val_size=601)
    for split, n in zip(got[1:4], (1902, 601, 1201), strict=True):
        assert len(split.labels) == n
        np.testing.assert_array_equal(np.round(split.images[:, 0, 0] * 255), split.labels)


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    write_idx(tmp_path, pictures(30), pictures(9))
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path))
    assert data.load("mnist").train.images.shape == (24, 4, 5)
    assert data.load("mnist").n_classes == 10
    with pytest.raises(FileNotFoundError, match="data_dir must be an existing folder; got 'gone'"):
        data.load("mnist", "gone")
    with pytest.raises(ValueError, match="data_dir must be a path of names of at most 255 bytes"):
        data.load("mnist", tmp_path / ("a" * 300))
    monkeypatch.setenv("NEUROJAX_DATA", "b" * 300)
    with pytest.raises(ValueError, match="NEUROJAX_DATA must be a path of names of at most 255"):
        data.load("mnist")


@pytest.mark.skipif(
    not list(MNIST.glob(f"train{IMAGES}*")),
    reason=f"no MNIST files in {MNIST}: set NEUROJAX_DATA to their folder",
)
def test_mnist_itself():
    mnist = data.load("mnist", MNIST)
    assert [len(split.labels) for split in mnist[1:4]] == [55_000, 5_000, 10_000]
    # published counts of the test set, and its first labels
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(mnist.test.labels), counts)
    np.testing.assert_array_equal(mnist.test.labels[:8], [7, 2, 1, 0, 4, 1, 4, 9])
    # the published mean of the 60,000 training pictures
    mean = np.concatenate([mnist.train.images, mnist.val.images]).mean(dtype=np.float64)
    assert mean == pytest.approx(0.1307, abs=5e-5)


def truncate_gzip(folder):
    path = folder / f"train{IMAGES}"
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()


def rewrite(name, change):
    def corrupt(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return corrupt


def labels_file(labels):
    return lambda _: idx(np.array(labels))


@pytest.mark.parametrize(
    ("corrupt", "error", "message"),
    [
        (lambda f: (f / f"t10k{LABELS}").unlink(), FileNotFoundError, rf"t10k{LABELS} or .*\.gz"),
        (truncate_gzip, ValueError, rf"train{IMAGES}\.gz: must be a whole gzip file; got"),
        (
            lambda f: (f / f"train{IMAGES}").rename(f / f"train{IMAGES}.gz"),
            ValueError,
            "must be a whole gzip file; got Not a gzipped file",
        ),
        (
            rewrite(f"train{IMAGES}", lambda b: b"\0\0\x0d\3" + b[4:]),
            ValueError,
            "magic number must be 0x00000803 or 0x00000804; got 0x00000d03",
        ),
        (
            rewrite(f"t10k{LABELS}", lambda b: idx(np.zeros((3, 2)))),
            ValueError,
            f"t10k{LABELS}: magic number must be 0x00000801; got 0x00000802",
        ),
        (rewrite(f"t10k{LABELS}", lambda b: b""), ValueError, "magic number .*; got 0x00000000"),
        (
            rewrite(f"train{IMAGES}", lambda b: b[:-1]),
            ValueError,
            r"promises 616 bytes for shape \(30, 4, 5\); got 615",
        ),
        (rewrite(f"train{IMAGES}", lambda b: b + b"x"), ValueError, "616 bytes.*; got 617"),
        (rewrite(f"train{IMAGES}", lambda b: b[:10]), ValueError, "promises .*; got 10"),
        (
            rewrite(f"train{LABELS}", labels_file([0, 1, 2])),
            ValueError,
            "train images and labels must be equally many; got 30 images and 3 labels",
        ),
        (
            rewrite(f"t10k{LABELS}", labels_file([0, 1, 2, 3, 0, 1, 2, 3, 0])),
            ValueError,
            r"test labels must be in \[0, 3\); got 3 \(2 of 9\)",
        ),
        (
            rewrite(f"t10k{IMAGES}", lambda b: idx(np.zeros((0, 4, 5)))),
            ValueError,
            r"test images must have shape .* without a 0; got \(0, 4, 5\)",
        ),
    ],
)
def test_a_corrupt_idx_folder_is_refused_by_the_file_at_fault(tmp_path, corrupt, error, message):
    write_idx(tmp_path, pictures(30), pictures(9))
    corrupt(tmp_path)
    with pytest.raises(error, match=message) as refusal:
        data.load("idx", tmp_path)
    assert "\n" not in str(refusal.value)


def test_idx_without_a_folder_is_refused():
    with pytest.raises(ValueError, match=r"data_dir must name .*NEUROJAX_DATA\); got None"):
        data.load("idx")


# --- arrays given directly ---


def test_check_scales_bytes_and_keeps_floats():
    images = np.array([[[0, 51], [102, 255]]])
    labels = np.array([1], np.uint8)
    expected = np.array([[[0, 0.2], [0.4, 1]]], np.float32)
    for given_images in (
        images.astype(np.uint8),
        (images * 257).astype(np.uint16),
        images.astype(np.float64) / 255,
    ):
        split = data.check(given_images, labels, 2)
        np.testing.assert_array_equal(split.images, expected)
        np.testing.assert_array_equal(split.labels, np.array([1], np.int32))


HALF = np.full((2, 3, 3), 0.5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.where(np.eye(3), np.nan, HALF), [0, 1], r"finite and in \[0, 1\]; got nan \(6 of 18"),
        (HALF * np.inf, [0, 1], r"images must be finite .*; got inf \(18 of 18\)"),
        (HALF * 510, [0, 1], r"\[0, 1\]; got 255.0"),
        (HALF.astype(np.int64), [0, 1], r"uint16 or floats in \[0, 1\]; got int64: pass .*astype"),
        (HALF.reshape(2, 9), [0, 1], r"images must have shape .*; got \(2, 9\)"),
        (HALF[:0], [], r"images must have shape .*; got \(0, 3, 3\)"),
        (HALF, [0, 1, 1], "equally many; got 2 images and 3 labels"),
        (HALF, [0, 2], r"labels must be in \[0, 2\); got 2 \(1 of 2\)"),
        (HALF, [-1, 0], r"labels must be in \[0, 2\); got -1"),
        (HALF, [0.0, 1.0], r"labels must be integers of shape \[N\]; got float64"),
        (HALF, np.eye(2), r"got float64 of shape \(2, 2\): pass labels.argmax\(-1\)"),
        (HALF * 510, [0, 1], "got 255.0 .*: divide them by the largest they can be"),
        (HALF.reshape(2, 9), [0, 1], r"got \(2, 9\): pass images\[:, None\]"),
        (HALF, [[0], [1]], r"labels must be integers of shape \[N\]; got int64 of shape \(2, 1\)"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_check_refuses_what_cannot_be_learned(images, labels, message):
    with pytest.raises(ValueError, match=f"mine .*{message}"):
        data.check(images, np.array(labels), 2, where="mine")


# --- tensorflow-datasets ---


def builder_class(name, examples, shape=(4, 5, 1), features=None):
    """A set of the given examples, a list by split, as a user would define one."""

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            ours = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features or ours),
                supervised_keys=None if features else ("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in examples}

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(zip(*examples[split], strict=True)):
                yield i, {"image": image, "label": label}

    Tiny.name = name
    return Tiny


def arrays(n, shape=(4, 5, 1)):
    images, labels = pictures(n, shape)
    return images.astype(np.uint8), labels


def prepared(folder, name, examples, **kwargs):
    """A prepared set in `folder`, made without TensorFlow, as `load` makes one."""
    builder = builder_class(name, examples, **kwargs)(data_dir=folder, file_format="array_record")
    data._tfds._prepare(name, builder)
    return folder / name / "1.0.0"


@pytest.mark.parametrize("shape", [(4, 5, 1), (4, 5, 3)])
def test_a_prepared_tfds_folder_arrives_whole_without_tensorflow(tmp_path, shape):
    assert "tensorflow" not in sys.modules
    examples = {"train": arrays(30, shape), "test": arrays(9, shape)}
    version = prepared(tmp_path, "tiny_pictures", examples, shape=shape)
    for folder in (tmp_path, version):
        got = data.load("tiny_pictures", folder)
        assert got.n_classes == 3
        assert len(got.val.labels) == 6
        for split, part in (("train", together(got.train, got.val)), ("test", got.test)):
            images, labels = examples[split]
            whole = data.Split(np.float32(images.squeeze()) / np.float32(255), labels)
            assert part.images.shape == whole.images.shape
            np.testing.assert_array_equal(rows(part), rows(whole))
    assert "tensorflow" not in sys.modules


class DownloadedPictures(tfds.core.GeneratorBasedBuilder):
    """Reads its file as tfds' own MNIST does: with TensorFlow's file functions."""

    VERSION = tfds.core.Version("1.0.0")
    source: Path

    def _info(self):
        image, label = tfds.features.Image(shape=(4, 5, 1)), tfds.features.ClassLabel(num_classes=3)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

        with tf.io.gfile.GFile(self.source, "rb") as file:
            images = np.frombuffer(file.read(), np.uint8).reshape(-1, 4, 5, 1)
        for i, image in enumerate(images):
            yield i, {"image": image, "label": i % 3}


def test_a_set_that_is_not_there_is_prepared_first(tmp_path):
    images, labels = arrays(36)
    DownloadedPictures.source = tmp_path / "pictures"
    DownloadedPictures.source.write_bytes(images.tobytes())
    got = data.load("downloaded_pictures", tmp_path)
    assert (tmp_path / "downloaded_pictures/1.0.0/dataset_info.json").is_file()
    # no split but train: a sixth for the test, then a fifth for validation
    assert [len(split.labels) for split in got[1:4]] == [24, 6, 6]
    whole = data.Split(np.float32(images.squeeze()) / np.float32(255), labels)
    np.testing.assert_array_equal(rows(together(*got[1:4])), rows(whole))
    assert "tensorflow" not in sys.modules


def test_a_validation_split_of_its_own_is_used_or_stands_in_for_the_test(tmp_path):
    train, val, test = arrays(20), arrays(5), arrays(7)
    prepared(tmp_path, "three_parts", {"train": train, "validation": val, "test": test})
    got = data.load("three_parts", tmp_path)
    assert [len(split.labels) for split in got[1:4]] == [20, 5, 7]
    prepared(tmp_path, "two_parts", {"train": train, "validation": val})
    got = data.load("two_parts", tmp_path)
    assert [len(split.labels) for split in got[1:4]] == [16, 4, 5]
    np.testing.assert_array_equal(np.sort(got.test.labels), np.sort(val[1]))


def test_unfit_tfds_sets_are_refused(tmp_path):
    sizes = ([*arrays(1, (4, 5, 1))[0], *arrays(1, (3, 5, 1))[0]], [0, 1])
    prepared(tmp_path, "two_sizes", {"train": sizes}, shape=(None, None, 1))
    with pytest.raises(ValueError, match=r"'two_sizes' must have pictures of one size; got \("):
        data.load("two_sizes", tmp_path)

    features = {"image": tfds.features.Image(shape=(4, 5, 1)), "label": tfds.features.Text()}
    prepared(tmp_path, "captions", {"train": (arrays(1)[0], ["a"])}, features=features)
    with pytest.raises(ValueError, match="'captions' must be pictures with one class label each"):
        data.load("captions", tmp_path)

    version = prepared(tmp_path, "no_train", {"test": arrays(3)})
    with pytest.raises(ValueError, match=r"'no_train' must have a split 'train'; it has \['test'"):
        data.load("no_train", tmp_path)

    info = json.loads((version / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    info["splits"][0]["name"] = "train"
    (version / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="file_format='array_record'; got 'tfrecord'"):
        data.load("no_train", tmp_path)


@pytest.mark.parametrize("name", ["mnits", "huggingface:mnist", "two words", "", "../x"])
def test_an_unknown_name_is_refused_and_what_is_close_is_told(tmp_path, name):
    with pytest.raises(
        ValueError, match=f"dataset must be digits, mnist, idx, .*; got '{name}'"
    ) as refusal:
        data.load(name, tmp_path)
    assert ("close to mnist, " in str(refusal.value)) == (name == "mnits")


def test_importing_the_module_imports_neither_tfds_nor_scikit_learn():
    slow = "{'tensorflow_datasets', 'sklearn', 'tensorflow'}"
    program = f"import sys, neurojax.data; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
