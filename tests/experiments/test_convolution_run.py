"""The convolutional experiment: it learns, goes on where it stopped, and refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.convolution import Config, flat, moved, run

SMALL = dict(dataset="digits", features=(8, 8), batch_size=50, n_steps=5, augment="none")


def test_pictures_of_channels_come_map_by_map():
    x = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    np.testing.assert_array_equal(
        flat(jax.random.key(0), jnp.asarray(x))[1, 12:], x[1, ..., 1].ravel()
    )


def test_training_pictures_move_by_two_pixels_at_most_and_lose_nothing():
    """A dot in the middle stays in; each of 25 places is taken, with .96^500 to miss one."""
    dot = jnp.zeros((500, 9, 9)).at[:, 4, 4].set(1.0)
    seen = np.asarray(moved(Config(), jax.random.key(0), dot)).sum(0)
    assert seen.sum() == 500
    assert (seen[2:7, 2:7] > 0).all()
    flipped = moved(Config(augment="none", flip=True), jax.random.key(0), dot.at[:, 4, 0].set(1.0))
    assert set(np.asarray(flipped[:, 4, 8])) == {0.0, 1.0}


def test_refuses_scores_that_never_count():
    with pytest.raises(ValueError, match="--start must be below --n-steps, 2; got 2"):
        Config(n_steps=2, start=2)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["surrogate", "local"])
def test_it_learns_and_goes_on_to_more_epochs(tmp_path, rule):
    named = dict(**SMALL, rule=rule, lr=1e-2, out=tmp_path)
    first = run(Config(**named, epochs=2))
    both = run(Config(**named, epochs=4, resume=True))
    assert both["val_accuracy"][:2] == first["val_accuracy"]
    assert both["val_accuracy"][-1] > 0.4  # chance is .1, its standard error .02
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["n_weights"] == 8 * 9 + 8 * 8 * 9 + 10 * 8 * 2 * 2
    assert written["val_accuracy"] == both["val_accuracy"]
