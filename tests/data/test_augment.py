"""Random affine maps: against SciPy, the identity, what they must not do, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from neurojax.data.augment import affine, mirrored, warp

STILL = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "shear": 0.0}


def copies(image, n, **magnitudes):
    """`n` affine copies of `image` [H, W], with every other magnitude zero."""
    keys = jax.random.split(jax.random.key(1), n)
    draw = jax.jit(jax.vmap(lambda key: affine(key, image, **{**STILL, **magnitudes})))
    return np.asarray(draw(keys))


def picture(shape=(28, 28), dtype=jnp.float32):
    return jax.random.uniform(jax.random.key(0), shape, dtype)


@pytest.mark.parametrize("shape", [(28, 28), (9, 14)])
def test_warp_is_scipys_affine_transform_about_the_centre(shape):
    matrix, offset = np.array([[0.9, -0.3], [0.2, 1.1]]), np.array([1.3, -2.6])
    image = picture(shape)
    centre = (np.array(shape) - 1) / 2
    expected = scipy.ndimage.affine_transform(
        np.asarray(image, np.float64),
        matrix,
        centre + offset - matrix @ centre,  # pyright: ignore[reportArgumentType] one an axis
        order=1,
        mode="grid-constant",
    )
    got = warp(image, jnp.asarray(matrix, jnp.float32), jnp.asarray(offset, jnp.float32))
    # coordinates near 30 are rounded to 2e-6 each, on slopes of at most 1 a pixel and axis
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_zero_magnitudes_return_the_picture_bit_for_bit(dtype, x64):
    image = picture(dtype=dtype)
    still = jax.jit(lambda key, image: affine(key, image, **STILL))(jax.random.key(1), image)
    assert still.dtype == dtype
    np.testing.assert_array_equal(still, image)


def centre_of_mass(image):
    return np.array(scipy.ndimage.center_of_mass(image))


def test_shift_moves_the_picture_by_at_most_its_magnitude():
    spot = jnp.zeros((21, 21)).at[10, 10].set(1.0)
    moved = copies(spot, 200, shift=3.0)
    by = np.array([centre_of_mass(image) for image in moved]) - 10
    assert np.abs(by).max() <= 3 + 1e-5
    # 200 uniform draws: the largest of an axis is below 2.8 with probability (2.8/3)^200 = 1e-6
    assert (np.abs(by).max(axis=0) > 2.8).all()
    assert np.abs(by.mean(axis=0)).max() < 4 * 3 / np.sqrt(3 * 200)  # 4 standard errors


@pytest.mark.parametrize("turn", ["rotation", "scale", "shear"])
def test_the_centre_stays_where_it_is_without_a_shift(turn):
    spot = jnp.zeros((21, 21)).at[10, 10].set(1.0)
    (moved,) = copies(spot, 1, **{turn: 0.3})
    np.testing.assert_allclose(centre_of_mass(moved), 10, atol=1e-5)
    assert moved[10, 10] == pytest.approx(1.0, abs=1e-5)


def test_a_drawn_rotation_turns_a_bar_by_that_angle():
    bar = jnp.zeros((41, 41)).at[20, 8:33].set(1.0)
    m = copies(bar, 50, rotation=0.4)
    y, x = np.mgrid[-20:21, -20:21]
    angles = 0.5 * np.arctan2(2 * (m * x * y).sum((1, 2)), (m * (x * x - y * y)).sum((1, 2)))
    assert np.abs(angles).max() < 0.41
    assert angles.min() < -0.3 < 0.3 < angles.max()


def test_positive_scale_enlarges_and_mass_follows_its_square():
    blob = jnp.exp(-((jnp.linspace(-5, 5, 61)) ** 2))
    blob = blob[:, None] * blob[None, :]
    growth = np.sqrt(copies(blob, 100, scale=0.2).sum((1, 2)) / np.asarray(blob).sum())
    # uniform in .8 to 1.2; bilinear sampling of this blob loses well under 1%
    assert 0.79 < growth.min() < 0.83
    assert 1.17 < growth.max() < 1.21


def test_vmap_equals_a_loop_and_a_key_gives_one_picture():
    keys = jax.random.split(jax.random.key(6), 4)
    images = jnp.stack([picture()] * 4)
    batch = jax.jit(jax.vmap(affine))(keys, images)
    alone = jnp.stack([affine(key, image) for key, image in zip(keys, images, strict=True)])
    np.testing.assert_allclose(batch, alone, atol=2e-5)  # fused differently: coordinates to 2e-6
    assert len(np.unique(np.asarray(batch).reshape(4, -1), axis=0)) == 4
    np.testing.assert_array_equal(batch, jax.jit(jax.vmap(affine))(keys, images))


def test_half_of_the_pictures_are_mirrored_left_for_right_and_none_is_lost():
    image, keys = picture((5, 7)), jax.random.split(jax.random.key(3), 400)
    seen = np.asarray(jax.jit(jax.vmap(mirrored, (0, None)))(keys, image))
    turned = (seen != image[None]).any((1, 2))
    np.testing.assert_array_equal(seen[turned], np.fliplr(image)[None].repeat(turned.sum(), 0))
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / 400**0.5


EYE, NO_SHIFT = jnp.eye(2), jnp.zeros(2)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda key: affine(key, jnp.ones((4, 4), "uint8")),
            r"floats; got uint8: pass image / 255",
        ),
        (lambda key: affine(key, jnp.ones((4, 4), bool)), "image must be floats; got bool"),
        (lambda key: affine(key, jnp.ones((3, 4, 4))), r"\[H, W\]; got \(3, 4, 4\): jax.vmap over"),
        (lambda key: affine(key, jnp.full((4, 4), jnp.nan)), "image must be finite; it holds NaN"),
        (
            lambda key: affine(3, picture()),
            r"key must be a JAX key; got 3: pass jax.random.key\(3\)",
        ),
        (lambda key: mirrored(key, jnp.ones((3, 4, 4))), r"\[H, W\]; got \(3, 4, 4\): jax.vmap"),
        (lambda key: mirrored(3, picture()), "key must be a JAX key; got 3"),
        (lambda key: warp(jnp.ones((4, 4), int), EYE, NO_SHIFT), "image must be floats; got int"),
        (lambda key: warp(picture(), EYE * jnp.nan, NO_SHIFT), "matrix must be finite.*got nan"),
        (lambda key: warp(picture(), NO_SHIFT, NO_SHIFT), r"shapes \(2, 2\), \(2,\); got \(2,\), "),
    ],
)
def test_what_is_no_picture_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(jax.random.key(7))


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotation", -0.1), ("scale", 1.0), ("shift", float("inf")), ("shear", float("nan"))],
)
def test_affine_refuses_a_magnitude_without_meaning(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, .*\); got {value}"):
        affine(jax.random.key(7), picture(), **{name: value})
