"""Sums of digits: each pair is two pictures of its own split, and its label their sum."""

import numpy as np
import pytest

import neurojax as nj

DIGITS = nj.data.load("digits")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_halves_are_pictures_of_the_split_each_once_and_labels_their_sum(part):
    own, pairs = getattr(DIGITS, part), getattr(nj.data.sums(DIGITS), part)
    n = len(own.labels) // 2
    assert pairs.images.shape == (n, 8, 16)
    key = lambda x: x.tobytes()  # noqa: E731
    label = dict(zip(map(key, own.images), own.labels.tolist(), strict=True))
    halves = [[key(np.ascontiguousarray(x[:, part])) for x in pairs.images]
              for part in (slice(8), slice(8, 16))]  # fmt: skip
    for left, right, total in zip(*halves, pairs.labels, strict=True):
        assert label[left] + label[right] == total
    times = {x: [*map(key, own.images)].count(x) for x in {*halves[0], *halves[1]}}
    assert all((halves[0] + halves[1]).count(x) <= k for x, k in times.items())
    assert pairs.labels.dtype == own.labels.dtype
    assert pairs.images.dtype == own.images.dtype


def test_pairs_go_by_the_seed_and_of_an_odd_number_one_is_left_over():
    a, b, c = (nj.data.sums(DIGITS, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.train.images, b.train.images)
    assert not np.array_equal(a.train.labels, c.train.labels)
    assert (a.name, a.n_classes) == ("sums of digits", 19)
    assert len(DIGITS.val.labels) % 2 == 1
    few = DIGITS._replace(val=nj.data.Split(DIGITS.val.images[:3], DIGITS.val.labels[:3]))
    assert len(nj.data.sums(few).val.labels) == 1


def test_channels_stay_last():
    colour = lambda s: nj.data.Split(np.stack([s.images] * 3, -1), s.labels)  # noqa: E731
    sets = DIGITS._replace(**{n: colour(getattr(DIGITS, n)) for n in ("train", "val", "test")})
    assert nj.data.sums(sets).test.images.shape == (180, 8, 16, 3)


def test_what_is_no_set_of_pictures_is_refused():
    with pytest.raises(TypeError, match="sets"):
        nj.data.sums(DIGITS.train)
    with pytest.raises(TypeError, match="sets must be of pictures; got recordings in train"):
        nj.data.sums(nj.data.load("moving-digits"))
    with pytest.raises(ValueError, match="val must have two pictures or more; got 1"):
        nj.data.sums(
            DIGITS._replace(val=nj.data.Split(DIGITS.val.images[:1], DIGITS.val.labels[:1]))
        )
    with pytest.raises(ValueError, match="seed must be"):
        nj.data.sums(DIGITS, seed=-1)
