"""Linear maps of pools and windows, written so that XLA has a fast way forth and back.

Numbers are those of the plain form. A derivative goes another way than the value: of a mean, what
comes back is copied, not padded; of a convolution on CPUs, the change of the weights is a sum of
products, one for each point of the kernel, which takes half the time of a convolution there.
"""

import functools
import math
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_MANY = 32  # points of a kernel from which on a product for each is not worth while


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def mean_of_pools(pool: tuple[int, ...], x: Float[Array, "channels *n"]) -> Array:
    """Mean of pools side by side along all axes but the first; less what is left over."""
    for axis, p in enumerate(pool, 1):
        parts = _split(x, axis, p)
        each = (jax.lax.index_in_dim(parts, i, axis + 1, keepdims=False) for i in range(p))
        x = functools.reduce(jnp.add, each)  # in a quarter of the time of a sum over an axis
    return x / jnp.asarray(math.prod(pool), x.dtype)


@mean_of_pools.defjvp
def _mean_jvp(pool, primals, tangents):
    (x,), (dx,) = primals, tangents
    return mean_of_pools(pool, x), mean_plain(pool, dx)


def mean_plain(pool: tuple[int, ...], x: Array) -> Array:
    """`mean_of_pools`, as its transpose is fast."""
    for axis, p in enumerate(pool, 1):
        x = _split(x, axis, p).sum(axis + 1) / jnp.asarray(p, x.dtype)
    return x


def _split(x: Array, axis: int, p: int) -> Array:
    """[..., n, ...] as [..., n // p, p, ...]."""
    n = x.shape[axis] // p
    kept = jax.lax.slice_in_dim(x, 0, n * p, axis=axis)
    return kept.reshape(*x.shape[:axis], n, p, *x.shape[axis + 1 :])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def slid(wiring: Any, w: Float[Array, "..."], x: Float[Array, "channels *n"]) -> Array:
    """What windows `w` [features, channels / groups, *kernel] give over maps x: [features, *m]."""
    return slid_plain(wiring, w, x)


@slid.defjvp
def _slid_jvp(wiring, primals, tangents):
    (w, x), (dw, dx) = primals, tangents
    return slid(wiring, w, x), slid_by_w(wiring, dw, x) + slid_plain(wiring, w, dx)


def slid_plain(wiring: Any, w: Array, x: Array) -> Array:
    """`slid`, which can be transposed."""
    axes = "HW"[: wiring.axes]
    maps = x.reshape(-1, *wiring.pooled_size)
    y = jax.lax.conv_general_dilated(
        maps, w, wiring.stride, [(p, p) for p in wiring.padding], rhs_dilation=wiring.dilation,
        dimension_numbers=(f"NC{axes}", f"OI{axes}", f"NC{axes}"),
        feature_group_count=wiring.groups,
    )  # fmt: skip
    return y.reshape(*x.shape[: -1 - wiring.axes], *y.shape[1:])


def slid_by_w(wiring: Any, w: Array, x: Array) -> Array:
    """The same, as its transpose by `w` is fast."""
    plain, by_point = (functools.partial(f, wiring) for f in (slid_plain, _by_point))
    few = math.prod(wiring.kernel) < _MANY
    return jax.lax.platform_dependent(w, x, cpu=by_point if few else plain, default=plain)


def _by_point(wiring: Any, w: Array, x: Array) -> Array:
    """The same as a sum over the points of the kernel."""
    around = [(0, 0), *((p, p) for p in wiring.padding)]
    padded, groups, total = jnp.pad(x, around), wiring.groups, None
    w = w.reshape(groups, -1, *w.shape[1:])
    for k in product(*map(range, wiring.kernel)):
        first = [a * d for a, d in zip(k, wiring.dilation, strict=True)]
        along = zip(first, wiring.size_post[1:], wiring.stride, strict=True)
        ends = [(m - 1) * s + f + 1 for f, m, s in along]
        seen = jax.lax.slice(padded, (0, *first), (len(x), *ends), (1, *wiring.stride))
        at = jnp.einsum("goc,gcp->gop", w[..., *k], seen.reshape(groups, w.shape[2], -1))
        total = at if total is None else total + at
    return total.reshape(wiring.size_post)  # pyright: ignore[reportOptionalMemberAccess]
