"""Random changes to a picture that leave its class as it was; batches are vmapped."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key


def warp(
    image: Float[Array, "H W"], matrix: Float[Array, "2 2"], offset: Float[Array, "2"]
) -> Float[Array, "H W"]:
    """The picture seen through an affine map about its centre c = ((H - 1)/2, (W - 1)/2).

        out[p] = image[c + matrix (p - c) + offset],    p = (row, column), pixels

    Bilinear between pixels, zero outside; computed in float32 or wider, returned in the
    picture's dtype. The identity map returns the picture bit for bit.
    """
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
    Raises `ValueError` for a magnitude that is negative or not finite, and for a scale >= 1.
    """
    limits = {"rotation": rotation, "scale": scale, "shift": shift, "shear": shear}
    for name, limit in limits.items():
        bound = 1.0 if name == "scale" else math.inf
        if not 0 <= limit < bound:
            raise ValueError(f"{name} must be in [0, {bound}); got {limit}")
    dtype = np.promote_types(image.dtype, np.float32)
    a, s, h, *d = jax.random.uniform(key, (5,), dtype, -1, 1) * jnp.array(
        [rotation, scale, shear, shift, shift], dtype
    )
    cos, sin = jnp.cos(a), jnp.sin(a)
    matrix = jnp.array([[cos - sin * h, -sin], [sin + cos * h, cos]]) / (1 + s)
    return warp(image, matrix, jnp.stack(d))
