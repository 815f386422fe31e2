"""Streams: what comes when, what it is called, and what has come before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.data import streams

KEY = jax.random.key(0)
LABELS = jnp.asarray(np.random.default_rng(0).integers(0, 6, 600))


def test_labels_turn_by_one_class_a_period():
    s = streams.rotating(KEY, LABELS, 8, 200, n_classes=6)
    for p in range(8):
        np.testing.assert_array_equal(s.labels[p], (LABELS[s.order[p]] + p) % 6)
        assert len(np.unique(s.order[p])) == 200  # none twice
    np.testing.assert_array_equal(s.turn, np.arange(8) % 6)


def test_epochs_show_all_and_change_nothing():
    s = streams.epochs(KEY, LABELS, 2, n_classes=6)
    assert (np.sort(s.order, 1) == np.arange(600)).all()
    assert (s.order[0] != s.order[1]).any()
    assert (s.labels == LABELS[s.order]).all()
    assert not s.turn.any()


def test_classes_come_once_and_are_seen_from_then_on():
    s = streams.class_by_class(KEY, LABELS, 3, 400, n_classes=6)
    came: set[int] = set()
    for p in range(3):
        now = set(np.unique(s.labels[p]).tolist())
        assert len(now) == 2
        assert not now & came
        came |= now
        assert set(np.flatnonzero(s.seen[p]).tolist()) == came
        share = np.mean(np.asarray(s.labels[p]) == min(now))
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(400)  # four standard errors
    assert (s.labels == LABELS[s.order]).all()


def test_wrong_labels_are_as_many_as_asked_for_and_never_right():
    wrong = np.asarray(streams.mislabelled(KEY, jnp.tile(LABELS, 10), 0.3, 6))
    off = (wrong - np.tile(LABELS, 10)) % 6
    assert abs((off > 0).mean() - 0.3) < 4 * np.sqrt(0.21 / 6000)  # four standard errors
    counts = np.bincount(off[off > 0], minlength=6)[1:]
    assert np.abs(counts - counts.mean()).max() < 4 * np.sqrt(counts.mean())


def test_pictures_roll_as_on_a_ring():
    images = jax.random.normal(KEY, (2, 3, 4))
    np.testing.assert_array_equal(streams.rolled(images, 5), np.roll(images, 5, 2))
    assert streams.shifting(KEY, LABELS, 3, 5, 6, columns=3).shift.tolist() == [0, 3, 6]


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="every must be at most 600 samples; got 601"):
        streams.rotating(KEY, LABELS, 2, 601, 6)
    with pytest.raises(ValueError, match="n_periods must divide 6 classes; got 4"):
        streams.class_by_class(KEY, LABELS, 4, 10, 6)
    with pytest.raises(ValueError, match="labels must hold a sample of each class; got none of 3"):
        streams.class_by_class(KEY, jnp.array([0, 1, 2, 4, 5]), 2, 10, 6)


@pytest.mark.parametrize("make", [
    lambda labels: streams.rotating(KEY, labels, 2, 2, 6),
    lambda labels: streams.class_by_class(KEY, labels, 2, 2, 6),
    lambda labels: streams.mislabelled(KEY, labels, 0.5, 6),
])  # fmt: skip
def test_labels_of_no_class_are_refused(make):
    for labels in ([0, 1, 6], [0, 1, -1]):
        told = rf"labels must be in \[0, 6\); got {labels[-1]} \(1 of 3\)"
        with pytest.raises(ValueError, match=told):
            make(jnp.array(labels))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("n_classes", [200, 256, 300])
def test_labels_of_few_bits_may_be_of_more_classes_than_these_count(dtype, n_classes, untyped):
    labels = jnp.array([0, 50, 2], dtype)
    stream = streams.rotating(jax.random.key(0), labels, 2, 3, n_classes)
    np.testing.assert_array_equal(np.sort(stream.labels[1]), [1, 3, 51])


def test_seen_are_the_classes_that_have_come():
    stream = streams.shifting(jax.random.key(0), jnp.arange(10), 3, 2, n_classes=10)
    came = [set(np.asarray(stream.labels[: p + 1]).ravel().tolist()) for p in range(3)]
    assert [set(np.flatnonzero(row)) for row in np.asarray(stream.seen)] == came


def test_an_absent_class_is_refused_under_jit_too():
    made = jax.jit(lambda labels: streams.class_by_class(jax.random.key(0), labels, 3, 6, 3).order)
    assert made(jnp.array([0, 1, 2, 2])).shape == (3, 6)
    with pytest.raises(Exception, match="labels must hold a sample of each class"):
        made(jnp.array([0, 0, 2, 2])).block_until_ready()


@pytest.mark.parametrize("columns", [jnp.array([1, 2]), 1.5])
def test_pictures_are_rolled_by_one_whole_number(columns, untyped):
    with pytest.raises(ValueError, match="columns must be one whole number; got"):
        streams.rolled(jnp.zeros((2, 3, 3)), columns)


def test_a_part_is_one_number_or_one_a_label(untyped):
    with pytest.raises(ValueError, match=r"part must be one number, or one a label; got shape"):
        streams.mislabelled(jax.random.key(0), jnp.array([0, 1, 2]), jnp.ones((2, 1)), 3)
