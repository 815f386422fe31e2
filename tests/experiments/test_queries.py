"""Accuracy over the queries that it took."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import queries
from neurojax.data.sets import Split


def test_pictures_become_means_of_blocks():
    images = np.random.default_rng(0).random((3, 28, 28))
    x, y = queries._pixels(Split(images.astype(np.float32), np.array([2, 0, 1])), 14)
    assert x.shape == (3, 196)
    np.testing.assert_allclose(x[1, 14 * 3 + 5], images[1, 6:8, 10:12].mean(), rtol=1e-5)
    np.testing.assert_array_equal(y, [2, 0, 1])
    small, _ = queries._pixels(Split(images[:, :8, :8].astype(np.float32), np.zeros(3, int)), 14)
    assert small.shape == (3, 64)  # as it is


def test_as_many_of_each_class():
    y = jnp.array([0, 1, 1, 0, 0, 1])
    x, labels = queries._some_of_each((jnp.arange(6.0)[:, None], y), 2, 2)
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(x[:, 0], [0, 3, 1, 2])


def test_every_way_is_made_once_and_counted(tmp_path, monkeypatch):
    made = []

    def learnt(config, sizes, train, val, test, way, key):
        made.append(way)
        if len(made) == 2:
            raise KeyboardInterrupt
        steps = range(0, 11)
        return dict(
            queries_a_step=7, queries=[7 * i for i in steps], val_accuracy=[0.1] * 11,
            test_accuracy=0.2,
        )  # fmt: skip

    monkeypatch.setattr(queries, "learnt", learnt)
    config = queries.Config(dataset="digits", seeds=2, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        queries.run(config)
    rows = queries.run(replace(config, resume=True))
    assert made[2:] == [*queries.WAYS[1:], *queries.WAYS]  # the first was there
    assert [r["seed"] for r in rows] == [0, 0, 0, 1, 1, 1]
    assert json.loads((tmp_path / "metrics.json").read_text())["runs"] == rows
    assert (tmp_path / "queries.png").exists()


def test_the_curve_is_of_validation_pictures_and_the_test_is_of_the_end():
    rng = np.random.default_rng(1)
    y = jnp.arange(60) % 3
    x = jnp.asarray(rng.normal(size=(3, 9))[y] + 0.1 * rng.normal(size=(60, 9)), jnp.float32)
    config = queries.Config(steps=50, batch_size=20)
    found = queries.learnt(
        config, (9, 3), (x, y), (x, y), (x, (y + 1) % 3), queries.WAYS[0], jax.random.key(0)
    )
    assert found["queries"] == [4 * 5 * i for i in range(11)]
    assert found["val_accuracy"][-1] > 0.8  # learnt, while all labels of the test are others
    assert found["test_accuracy"] <= 1 - found["val_accuracy"][-1]


@pytest.mark.slow
def test_shifted_neurons_learn_by_fewer_queries_than_weights():
    rng = np.random.default_rng(1)
    y = jnp.arange(60) % 3
    x = jnp.asarray(rng.normal(size=(3, 9))[y] + 0.1 * rng.normal(size=(60, 9)), jnp.float32)
    config = queries.Config(steps=50, batch_size=20, active=0.2)
    found = {
        way: queries.learnt(config, (9, 6, 3), (x, y), (x, y), (x, y), way, jax.random.key(0))
        for way in queries.WAYS
    }
    n = [found[way]["queries_a_step"] for way in queries.WAYS]
    assert n[0] == 1 + 6 + 3
    assert n[1] == n[2] == 1 + round(0.2 * 60) + round(0.2 * 21) == 17
    assert found[queries.WAYS[0]]["queries"] == [10 * 5 * i for i in range(11)]
    for way in queries.WAYS:
        assert found[way]["val_accuracy"][-1] > 0.8
