"""Random changes to a picture that leave its class as it was; batches are vmapped."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key

from neurojax._check import brief, finite, prng_key, real

__all__ = ["affine", "mirrored", "warp"]


def warp(
    image: Float[Array, "H W"], matrix: Float[Array, "2 2"], offset: Float[Array, "2"]
) -> Float[Array, "H W"]:
    """The picture seen through an affine map about its centre c = ((H - 1)/2, (W - 1)/2).

        out[p] = image[c + matrix (p - c) + offset],    p = (row, column), pixels

    Bilinear between pixels, zero outside; computed in float32 or wider, returned in the
    picture's dtype. The identity map returns the picture bit for bit.

    >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> nj.augment.warp(image, matrix=jnp.eye(2), offset=jnp.array([0.0, 1.0])).tolist()
    [[2.0, 0.0], [4.0, 0.0]]

    Raises `TypeError` for pixels that are no floats, `ValueError` for another shape and, outside
    `jit`, for what is not finite.
    """
    image = _picture(image)
    matrix, offset = finite("matrix", "pixels")(matrix), finite("offset", "pixels")(offset)
    if matrix.shape != (2, 2) or offset.shape != (2,):
        shapes = f"{matrix.shape}, {offset.shape}"
        raise ValueError(f"matrix and offset must have shapes (2, 2), (2,); got {shapes}")
    return _warped(image, matrix, offset)


def _picture(image: Any) -> Array:
    """One picture [H, W] of floats, refused if it is anything else."""
    image = image if isinstance(image, jax.Array) else _pixels(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        cure = "pass image / 255, or data.check(images, labels, n_classes).images"
        raise TypeError(f"image must be floats; got {image.dtype}: {cure}")
    if image.ndim != 2:
        cure = {3: ": jax.vmap over the batch or the channels"}.get(image.ndim, "")
        raise ValueError(f"image must have shape [H, W]; got {image.shape}{cure}")
    if not isinstance(image, Tracer) and not np.isfinite(np.asarray(image, float)).all():
        raise ValueError("image must be finite; it holds NaN or infinite pixels")
    return image


def _pixels(image: Any) -> Array:
    """As an array of its own type."""
    given = np.asarray(None) if isinstance(image, jax.Array) else np.asarray(image)
    kept = real(given, "image")
    return kept if given.dtype.kind == "f" else jnp.asarray(given)


def _warped(image: Array, matrix: Array, offset: Array) -> Array:
    dtype = np.promote_types(image.dtype, np.float32)
    matrix, offset = matrix.astype(dtype), offset.astype(dtype)
    cy, cx = ((n - 1) / 2 for n in image.shape)
    y = jnp.arange(image.shape[0], dtype=dtype)[:, None] - cy
    x = jnp.arange(image.shape[1], dtype=dtype)[None, :] - cx
    # written out, as a matrix product may be rounded to bfloat16 on an accelerator
    rows = matrix[0, 0] * y + matrix[0, 1] * x + offset[0] + cy
    columns = matrix[1, 0] * y + matrix[1, 1] * x + offset[1] + cx
    return map_coordinates(image.astype(dtype), [rows, columns], order=1).astype(image.dtype)


def affine(
    key: Key[Array, ""],
    image: Float[Array, "H W"],
    *,
    rotation: float = 0.2,
    scale: float = 0.1,
    shift: float = 1.0,
    shear: float = 0.15,
) -> Float[Array, "H W"]:
    """A randomly rotated, scaled, sheared and shifted copy of a picture.

        matrix = R(a) [[1, 0], [h, 1]] / (1 + s),    then `warp` with offset d

    a, h, s and both parts of d are uniform within ± `rotation` (rad), `shear`, `scale`
    and `shift` (pixels); all zero is the identity. s > 0 enlarges what the picture shows.

    >>> images = jnp.zeros((5, 28, 28))  # a batch: one key a picture
    >>> batch = jax.jit(jax.vmap(nj.augment.affine))
    >>> batch(jax.random.split(jax.random.key(0), 5), images).shape
    (5, 28, 28)

    Raises `ValueError` for a magnitude that is negative or not finite, and for a scale >= 1;
    for the picture as `warp`, `TypeError` for what is no key.
    """
    key, image = prng_key(key), _picture(image)
    limits = {"rotation": rotation, "scale": scale, "shift": shift, "shear": shear}
    for name, limit in limits.items():
        bound = 1.0 if name == "scale" else math.inf
        kept = real(limit, name)
        if kept.ndim or not (isinstance(kept, Tracer) or 0 <= float(kept) < bound):
            raise ValueError(f"{name} must be in [0, {bound}); got {brief(limit)}")
    dtype = np.promote_types(image.dtype, np.float32)
    a, s, h, *d = jax.random.uniform(key, (5,), dtype, -1, 1) * jnp.array(
        [rotation, scale, shear, shift, shift], dtype
    )
    cos, sin = jnp.cos(a), jnp.sin(a)
    matrix = jnp.array([[cos - sin * h, -sin], [sin + cos * h, cos]]) / (1 + s)
    return _warped(image, matrix, jnp.stack(d))


def mirrored(key: Key[Array, ""], image: Float[Array, "H W"]) -> Float[Array, "H W"]:
    """The picture or, as often, its mirror image, left for right.

    For classes that have no side, as clothes: a mirrored 2 is none.

    >>> image = jnp.array([[0.0, 1.0]])
    >>> keys = jax.random.split(jax.random.key(0), 4)
    >>> jax.vmap(nj.augment.mirrored, (0, None))(keys, image)[:, 0].tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]

    Raises for the picture as `warp`, `TypeError` for what is no key.
    """
    key, image = prng_key(key), _picture(image)
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def __dir__() -> list[str]:
    return __all__
