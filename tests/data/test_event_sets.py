"""Named sets of events: what the camera sees, what lies in a folder, and what is refused."""

import numpy as np
import pytest

from experiments import learn, wta_broadcast
from neurojax import data
from neurojax.data import camera, event_sets, moving_digits, read_spoken
from neurojax.data.moving import moved

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)


# --- the camera ---


def test_a_ramp_sends_an_event_each_time_it_crosses_a_threshold():
    """Log-intensity that rises linearly in frames: closed form, to the last microsecond."""
    theta, dark, rise = 0.25, 0.1, 3.1
    frames = dark * np.exp(np.linspace(0, rise, 32))[:, None, None] - dark
    found = camera(frames, dt=2.0, threshold=theta, dark=dark)
    k = np.arange(1, int(rise / theta) + 1)
    np.testing.assert_array_equal(found.t, np.floor(62_000 * k * theta / rise + 1e-6))
    assert found.p.tolist() == [1] * len(k)
    back = camera(frames[::-1], dt=2.0, threshold=theta, dark=dark)
    assert back.p.tolist() == [0] * len(k)


def test_what_was_sent_adds_up_to_what_is_seen():
    """To within a threshold, at each pixel, of any film."""
    frames = RNG.uniform(0, 1, (30, 5, 4))
    found = camera(frames, dt=1.0, threshold=0.3)
    sent = np.zeros((5, 4))
    np.add.at(sent, (found.y, found.x), 0.3 * (2 * found.p - 1))
    gap = np.log(0.1 + frames[-1]) - np.log(0.1 + frames[0]) - sent
    assert np.abs(gap).max() < 0.3 + 1e-6
    assert len(found.t) > 500


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((1, 2, 2)), r"frames must be \[two or more, height, width\]; got \[1, 2, 2\]"),
        (np.full((2, 2, 2), -1.0), "frames must be finite and >= 0"),
        (np.ones((2, 2, 2), complex), r"frames must be \[.*\], real numbers; got"),
        (10**400, "frames must be .*real numbers; got 1000"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_is_no_film_is_refused(frames, said):
    with pytest.raises(ValueError, match=said):
        camera(frames, dt=1.0)


def h5(path, n=12, n_units=700, labels=None, **tables):
    """A file as SHD has it: times of 16 bits, in s."""
    rng = np.random.default_rng(1)
    kind = h5py.vlen_dtype(np.float16), h5py.vlen_dtype(np.uint16)
    times = [np.sort(rng.uniform(0, 0.9, 40)).astype(np.float16) for _ in range(n)]
    units = [rng.integers(0, n_units, 40).astype(np.uint16) for _ in range(n)]
    with h5py.File(path, "w") as file:
        for name, rows, dtype in (("times", times, kind[0]), ("units", units, kind[1])):
            table = file.create_dataset(f"spikes/{name}", (n,), dtype)
            for i, row in enumerate(tables.get(name, rows)):
                table[i] = row
        file["labels"] = np.arange(n, dtype=np.uint16) % 20 if labels is None else labels
    return times, units


def test_spoken_digits_are_read_one_by_one(tmp_path):
    times, units = h5(tmp_path / "shd_test.h5")
    found = read_spoken(tmp_path / "shd_test.h5")
    assert len(found) == 12
    for e, t, x in zip(found, times, units, strict=True):
        order = np.argsort(np.round(t.astype(float) * 1e6), kind="stable")
        np.testing.assert_array_equal(e.t, np.round(t[order].astype(float) * 1e6))
        np.testing.assert_array_equal(e.x, x[order])
        assert e.shape == (1, 700, 1)


def damaged(path, name):
    """A file with one thing wrong, and what is said of it."""
    n = 12
    if name == "cut short":
        h5(path)
        path.write_bytes(path.read_bytes()[:900])
        return "it must be a whole HDF5 file"
    if name == "unit":
        h5(path, units=[np.array([700], np.uint16)] * n, times=[np.array([0.1], np.float16)] * n)
        return r"recording 0: x must be in \[0, 700\); got 700"
    if name == "unequal":
        h5(path, units=[np.array([7], np.uint16)] * n)
        return r"recording 0: x and t must be equally many; got \[1\] and \[40\]"
    if name == "NaN":
        h5(path, times=[np.full(40, np.nan, np.float16)] * n)
        return "recording 0: times must be finite, in s"
    if name == "labels":
        h5(path, labels=np.arange(5))
        return r"spikes/times and labels must be equally many; got \[12\] and \[5\]"
    h5(path)
    with h5py.File(path, "a") as file:
        del file["labels"]
        if name == "link":
            file["labels"] = h5py.ExternalLink("/etc/passwd", "/labels")
            return "it must hold labels; it holds a link there"
        if name == "huge":
            file.create_dataset("labels", (10**13,), np.uint16, chunks=(1000,))
            return "labels says more than the file can hold; got .* in a file of"
    return "it must hold labels; it holds nothing there"


@pytest.mark.parametrize(
    "name", ["cut short", "unit", "unequal", "NaN", "labels", "link", "huge", "none"]
)
def test_a_damaged_file_of_spoken_digits_is_refused(tmp_path, name):
    said = damaged(path := tmp_path / "shd_train.h5", name)
    with pytest.raises(ValueError, match=said) as error:
        read_spoken(path)[0]
    assert str(error.value).startswith(f"{path}: ")


# --- digits that move ---


def test_a_digit_comes_rests_and_leaves():
    """Where events are, as their mean: from its side to the middle, and out by its turn."""
    disc = np.exp(-((np.arange(8) - 3.5) ** 2) / 4)
    images = np.repeat((disc * disc[:, None])[None], 8, 0)
    seen = moving_digits(images, np.arange(8), seed=3)
    assert len(seen.recordings) == 32
    assert np.bincount(seen.turns).tolist() == [8] * 4
    heading = lambda e: np.array([e.x.mean() - 5.5, e.y.mean() - 5.5])  # noqa: E731
    for e, turn in zip(seen.recordings, seen.turns, strict=True):
        t, x, y, p, shape = e
        assert not ((t >= 8500) & (t < 20_000)).any()
        assert t[-1] < 28_000
        come, go = t < 4500, t > 23_000  # before it is in the middle, and after
        parts = [data.Events(t[k], x[k], y[k], p[k], shape) for k in (come, go)]
        came, went = -heading(parts[0]), heading(parts[1])  # it comes from where it is seen first
        turned = np.degrees(np.arctan2(came[0] * went[1] - came[1] * went[0], came @ went))
        assert abs((turned - 90 * turn + 180) % 360 - 180) < 45


def test_the_set_is_those_recordings_counted():
    images, labels = RNG.uniform(0, 1, (5, 8, 8)), np.arange(5)
    x, digits, turns = moved(images, labels, 28, 1.0, seed=2)
    seen = moving_digits(images, labels, seed=2)
    np.testing.assert_array_equal(digits, seen.digits)
    np.testing.assert_array_equal(turns, seen.turns)
    for counts, e in zip(x, seen.recordings, strict=True):
        want = data.bin_events(e, 1.0, 28).reshape(28, 144, 2).sum(-1)
        np.testing.assert_array_equal(counts, want)


# --- by name ---


def nmnist(folder, n=4):
    for part in ("Train", "Test"):
        for digit in range(10):
            (folder / part / str(digit)).mkdir(parents=True)
            for i in range(n):
                t = np.sort(RNG.integers(0, 300_000, 9))
                word = [(int(RNG.integers(34)) << 32) | (digit << 24) | int(a) for a in t]
                raw = b"".join(w.to_bytes(5, "big") for w in word)
                (folder / part / str(digit) / f"{i:05}.bin").write_bytes(raw)


def test_nmnist_is_read_from_its_folder(tmp_path):
    """The row of all events of a file made here is its digit; splits as those of pictures."""
    nmnist(tmp_path)
    found = data.load("nmnist", tmp_path)
    assert [len(s.labels) for s in found[1:4]] == [32, 8, 40]
    assert found.train.images.shape == (32, 34, 34 * 34 * 2)
    for split in found[1:4]:
        rows = np.asarray(split.images.x).sum(1).reshape(-1, 34, 34, 2).sum((2, 3)).argmax(1)
        np.testing.assert_array_equal(rows, split.labels)
        assert split.images.x.sum() == 9 * len(split.labels)
        assert set(np.bincount(split.labels, minlength=10)) <= {0, 1, 3, 4}
    short = data.load("nmnist", tmp_path, bin_ms=100.0)
    assert short.train.images.shape[1] == 4


def test_what_is_larger_than_memory_allows_stays_on_disk(tmp_path, monkeypatch):
    nmnist(tmp_path, 2)
    here = data.load("nmnist", tmp_path, val_size=10)
    monkeypatch.setattr(event_sets._memory, "memory", lambda: 10**6)
    monkeypatch.setattr("neurojax.data.recordings.affordable", lambda *_: None)
    for _ in range(2):  # the second time it is there
        there = data.load("nmnist", tmp_path, val_size=10)
        assert there.train.images.on_disk
        np.testing.assert_array_equal(there.train.images.x, here.train.images.x)
        np.testing.assert_array_equal(there.train.images.lengths, here.train.images.lengths)


def test_sets_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir must hold N-MNIST: folders Train and Te"):
        data.load("nmnist", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data_dir must hold shd_train\.h5; .* does not"):
        data.load("shd", tmp_path)
    with pytest.raises(ValueError, match="data_dir must name the folder of ssc"):
        data.load("ssc")
    (tmp_path / "shd_train.h5.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"unpack the \.gz beside it"):
        data.load("shd", tmp_path)
    h5(tmp_path / "shd_train.h5", labels=np.full(12, 20))
    h5(tmp_path / "shd_test.h5")
    with pytest.raises(ValueError, match=r"shd train labels must be in \[0, 20\); got 20"):
        data.load("shd", tmp_path)
    with pytest.raises(ValueError, match="bin_ms must be None for a set of pictures"):
        data.load("digits", bin_ms=1.0)
    with pytest.raises(ValueError, match="got 'n_mnist', close to .*nmnist"):
        data.load("n_mnist")


def test_shd_is_read_from_its_files(tmp_path):
    for part in ("train", "test"):
        h5(tmp_path / f"shd_{part}.h5")
    found = data.load("shd", tmp_path, val_size=4)
    assert [len(s.labels) for s in found[1:4]] == [8, 4, 12]
    assert found.test.images.shape == (12, 140, 700)
    assert found.test.images.x.sum() == 12 * 40
    e = read_spoken(tmp_path / "shd_test.h5")[3]
    assert found.test.images.lengths[3] == e.t[-1] // 10_000 + 1


@pytest.mark.parametrize("module", [learn, wta_broadcast])
def test_options_of_pictures_are_refused_for_events(module):
    """And what suits events is taken without a word."""
    config = module.Config(dataset="moving-digits")
    refuse_idle, resolved = module.refuse_idle, module.resolved
    refuse_idle(config, resolved(config, 4600))
    config = module.Config(dataset="moving-digits", augment="weak")
    with pytest.raises(
        ValueError, match="--augment weak needs a --dataset of pictures; got --data"
    ):
        refuse_idle(config, resolved(config, 4600))
    with pytest.raises(ValueError, match="--bin-ms 2 needs --dataset moving-digits or nmnist"):
        refuse_idle(c := module.Config(bin_ms=2.0), resolved(c, 1000))


def test_learners_of_pictures_are_refused_for_events():
    learn.refuse_idle(c := learn.Config(dataset="shd", learner="eprop"), learn.resolved(c, 8000))
    with pytest.raises(ValueError, match="--learner must be wta_broadcast, .*; got dfa"):
        learn.Config(dataset="shd", learner="dfa")
