"""Linear maps of pools and windows, written so that XLA has a fast way forth and back.

Numbers are those of the plain form. A derivative goes another way than the value: of a mean, what
comes back is copied, not padded; of a convolution on CPUs, the change of the weights is a sum of
products, one for each point of the kernel, which takes half the time of a convolution there.
"""

import functools
import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FEW = 32  # places of a window up to which all that is seen is one product
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
def slid(wiring: Any, w: Float[Array, "..."], x: Float[Array, " pools"]) -> Float[Array, " post"]:
    """What windows `w` [features, channels / groups, *kernel] give over maps x; both flat."""
    return _over_samples(wiring, 0)(w, x)


def _over_samples(wiring: Any, n: int) -> Callable[[Array, Array], Array]:
    """`slid` of x [*samples, pools] with `n` axes of samples.

    An axis that is vmapped is put last among them, so that [T, batch] of spikes stays in that
    order, as a scan over T wrote it and reads what comes out.
    """
    plain, patch = (functools.partial(f, wiring) for f in (slid_plain, _by_patch))
    on_cpu = jax.vmap(patch, (None, 0)) if wiring.window < _FEW else plain

    def over(w: Array, x: Array) -> Array:
        maps = x.reshape(-1, *wiring.pooled_size)
        y = jax.lax.platform_dependent(w, maps, cpu=on_cpu, default=plain)
        return y.reshape(*x.shape[:n], -1)

    made = jax.custom_batching.custom_vmap(over)

    @made.def_vmap
    def _(size: int, batched: list[bool], w: Array, x: Array) -> tuple[Array, bool]:
        if batched[0]:
            return jax.vmap(over, [0 if b else None for b in batched])(w, x), True
        return jnp.moveaxis(_over_samples(wiring, n + 1)(w, jnp.moveaxis(x, 0, n)), n, 0), True

    return made


@slid.defjvp
def _slid_jvp(wiring, primals, tangents):
    (w, x), (dw, dx) = primals, tangents
    maps, by = x.reshape(wiring.pooled_size), dx.reshape(wiring.pooled_size)
    change = slid_by_w(wiring, dw, maps) + slid_plain(wiring, w, by)
    return slid(wiring, w, x), change.reshape(-1)


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
    plain, point, patch = (functools.partial(f, wiring) for f in (slid_plain, _by_point, _by_patch))
    on_cpu = plain if math.prod(wiring.kernel) >= _MANY else point
    on_cpu = patch if wiring.window < _FEW else on_cpu
    return jax.lax.platform_dependent(w, x, cpu=on_cpu, default=plain)


def _by_patch(wiring: Any, w: Array, x: Array) -> Array:
    """The same as one product with all that is seen: small where windows are."""
    groups = wiring.groups
    seen = jnp.stack([s.reshape(groups, -1, s[0].size) for s in _seen(wiring, x)], 2)
    patches = seen.reshape(groups, -1, seen.shape[-1])
    w = _for_each(w, x).reshape(groups, -1, patches.shape[1])
    return jnp.einsum("gok,gkp->gop", w, patches).reshape(wiring.size_post)


def _by_point(wiring: Any, w: Array, x: Array) -> Array:
    """The same as a sum over the points of the kernel."""
    groups = wiring.groups
    w = w.reshape(groups, -1, w.shape[1], math.prod(wiring.kernel))
    seen = (s.reshape(groups, w.shape[2], -1) for s in _seen(wiring, x))
    each = (jnp.einsum("goc,gcp->gop", w[..., k], s) for k, s in enumerate(seen))
    return functools.reduce(jnp.add, each).reshape(wiring.size_post)


def _seen(wiring: Any, x: Array) -> Iterator[Array]:
    """For each point of the kernel what it sees from all places, [channels, *m]."""
    padded = jnp.pad(x, [(0, 0), *((p, p) for p in wiring.padding)])
    for k in product(*map(range, wiring.kernel)):
        first = [a * d for a, d in zip(k, wiring.dilation, strict=True)]
        along = zip(first, wiring.size_post[1:], wiring.stride, strict=True)
        ends = [(m - 1) * s + f + 1 for f, m, s in along]
        yield jax.lax.slice(padded, (0, *first), (len(x), *ends), (1, *wiring.stride))


def _for_each(w: Array, x: Array) -> Array:
    """`w`, which counts as another for each sample that x is vmapped over.

    The product then is one for each, and so is what comes back to w, and only that is summed: a
    single product over all samples would have all of them turned, to lie side by side.
    """
    return jnp.where(x.reshape(-1)[0] > 0, w, w)
