"""The broadcast error: what gets through its channels, and how loud."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.plasticity.feedback import Broadcast, broadcast

KEY = jax.random.key(0)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
drawn = quick(broadcast, static_argnums=(1, 2, 3))

N, CLASSES = 400, 6


@pytest.mark.parametrize("k", [1, 2, 5])
def test_feedback_has_the_rank_of_its_bandwidth_and_root_mean_square_one(k):
    b = drawn(KEY, N, CLASSES, k)
    matrix = np.asarray(b.spread) @ np.asarray(b.channels)
    assert np.linalg.matrix_rank(matrix, tol=1e-3) == k
    # what all classes share cannot be heard: errors sum to zero over them
    np.testing.assert_allclose(matrix.sum(1), 0, atol=1e-5)
    np.testing.assert_allclose(b.channels @ b.channels.T, np.eye(k), atol=1e-6)
    # the mean of N k squares of Gaussian numbers: 4 standard errors
    assert np.mean(matrix**2) == pytest.approx(1, abs=4 * np.sqrt(2 / (N * k)))
    error = jnp.asarray(np.random.default_rng(0).normal(size=CLASSES), float)
    np.testing.assert_allclose(b(error), matrix @ error, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bandwidth", [None, CLASSES - 1])
def test_all_channels_lose_nothing_of_an_error_that_sums_to_zero(bandwidth):
    b = drawn(KEY, N, CLASSES, bandwidth)
    error = np.random.default_rng(0).normal(size=CLASSES)
    error -= error.mean()
    channels = np.asarray(b.channels)
    np.testing.assert_allclose(channels.T @ channels @ error, error, atol=1e-5)
    # so the error can be read off the neurons again
    heard = np.asarray(b(jnp.asarray(error, float)))
    matrix = np.asarray(b.spread) @ channels
    np.testing.assert_allclose(np.linalg.pinv(matrix, rcond=1e-4) @ heard, error, atol=1e-4)


def test_directions_of_a_narrow_channel_are_drawn_at_random():
    draw = quick(jax.vmap(lambda key: broadcast(key, 1, 3, 1).channels[0]))
    draws = draw(jax.random.split(KEY, 500))
    # orthogonal to (1, 1, 1) and otherwise isotropic: the projector on that plane, halved
    moments = np.asarray(draws).T @ np.asarray(draws) / 500
    np.testing.assert_allclose(moments, (np.eye(3) - 1 / 3) / 2, atol=4 * 0.35 / np.sqrt(500))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_learning_signal_keeps_the_dtype_of_the_error(dtype):
    with jax.enable_x64(True):
        for made in ("float32", dtype):
            heard = lambda made=made: broadcast(KEY, 5, 3, dtype=made)(jnp.zeros(3, dtype))  # noqa: E731
            assert jax.eval_shape(heard).dtype == jnp.dtype(dtype)


def test_feedback_of_half_precision_is_drawn_in_float32_and_rounded_once():
    made, fine = (quick(lambda t=t: broadcast(KEY, 5, 3, dtype=t))() for t in ("bfloat16", float))
    assert (made.spread.dtype, made.channels.dtype) == ("bfloat16", "bfloat16")
    np.testing.assert_array_equal(made.channels, fine.channels.astype("bfloat16"))


@pytest.mark.usefixtures("untyped")
def test_refuses_matrices_that_are_none_or_do_not_fit():
    one, other = np.ones((5, 2)), np.ones((2, 3))
    assert Broadcast(one.tolist(), other)(jnp.ones(3)).shape == (5,)
    for pair in ((one[:, 0], other), (one, other[0]), (one, np.ones((3, 3))), (one[None], other)):
        with pytest.raises(
            ValueError, match=r"spread must be \[n, K\] and channels \[K, n_classes\]"
        ):
            Broadcast(*pair)
    for pair in ((one * np.nan, other), (one, other * np.nan)):
        with pytest.raises(ValueError, match="(spread|channels) must be finite; got NaN"):
            Broadcast(*pair)
    with pytest.raises(TypeError, match="spread must be real numbers; got 'much'"):
        Broadcast("much", other)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((0, 6), "n must be a whole number >= 1; got 0"),
        ((2.5, 6), "n must be a whole number >= 1; got 2.5"),
        ((5, 1), "n_classes must be a whole number >= 2; got 1"),
        ((5, 6.0), "n_classes must be a whole number >= 2; got 6.0"),
        ((5, 6, 2.0), "bandwidth must be a whole number >= 0; got 2.0"),
        ((5, 6, -1), "bandwidth must be a whole number >= 0; got -1"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_sizes_that_are_none(sizes, told):
    with pytest.raises(ValueError, match=told):
        broadcast(KEY, *sizes)
    assert broadcast(KEY, 1, 2).channels.shape == (1, 2)


@pytest.mark.parametrize("k", [0, 6])
def test_refuses_more_channels_than_there_are_differences_between_classes(k):
    with pytest.raises(ValueError, match=rf"bandwidth must be in \[1, 5\] for 6 classes; got {k}"):
        broadcast(KEY, N, CLASSES, k)
