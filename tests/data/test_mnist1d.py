"""MNIST-1D: to rounding what the package of its authors makes, and as a set by name."""

import json
from pathlib import Path

import numpy as np

from neurojax import data
from neurojax.data import mnist1d

RECORDED = json.loads((Path(__file__).parents[1] / "oracles" / "mnist1d.json").read_text())


def test_it_is_what_its_authors_package_makes():
    """Recorded to nine digits, sums of 40 to seven; global chance is left alone."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that nobody touched it
    x, labels = mnist1d.made()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_allclose(x[RECORDED["which"]], RECORDED["x"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(x[::50].sum(1), RECORDED["row_sums"], rtol=0, atol=1e-7)
    assert "".join(map(str, labels)) == RECORDED["labels"]
    assert np.bincount(labels).tolist() == [500] * 10


def test_by_name_it_is_pictures_of_two_columns():
    found = data.load("mnist1d")
    assert [len(part.labels) for part in found[1:4]] == [3200, 800, 1000]
    assert found.n_classes == 10
    assert found.train.images.shape[1:] == (40, 2)
    x, labels = mnist1d.made()
    above, below = np.moveaxis(found.test.images, -1, 0)
    assert not (above * below).any()  # a point is above 0 or below
    np.testing.assert_allclose(above - below, x[4000:] / np.abs(x).max(), atol=1e-7)
    np.testing.assert_array_equal(found.test.labels, labels[4000:])
    largest = max(float(part.images.max()) for part in found[1:4])
    assert largest == 1


def test_other_seeds_make_other_lines():
    x, labels = mnist1d.made(seed=7)
    assert x.shape == (5000, 40)
    assert abs(x.mean()) < 1e-12
    assert abs(x.std() - 1) < 1e-12
    assert "".join(map(str, labels)) != RECORDED["labels"]
