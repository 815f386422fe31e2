"""A wiring divided by receiver: each device holds the synapses onto its own neurons.

    device k of D:    synapses onto neurons k n_post / D up to (k + 1) n_post / D

Spikes are gathered, currents never move. A gather takes a bit a neuron: of each device its own
neurons, 32 to a word. On an event list each receiver hears its senders in the same order as on one
device, so that currents and weights are the same to the last bit.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped, UInt32

from neurojax.wiring import _library
from neurojax.wiring.layouts import Edges
from neurojax.wiring.visits import Visits

__all__ = [
    "AXIS", "Shards", "divided", "heard", "heard_as", "packed", "put", "spread", "unpacked",
    "whole",
]  # fmt: skip

AXIS = "neuron"  # of a mesh, along which neurons are divided
_WORD = 32
_ALL, _OWN = PartitionSpec(), PartitionSpec(AXIS)


def __dir__() -> list[str]:
    return __all__


class Shards(eqx.Module):
    """`FanOut`, `FanIn` or `Dense`, divided by receiver along the axis "neuron" of a mesh.

    `parts` are the wirings of the devices, [devices, ...], and `w` has a first axis of devices as
    well, shape [devices, ...]. Event lists are made as long as the longest of them by synapses of
    senders that never fire. Products take and give what those of the whole wiring do. With
    `spikes`, senders send 0 or 1, each a bit; with `local` each device hears none but its own
    neurons, as one to one. Made by `divided`.
    """

    parts: Any
    n_pre: int = eqx.field(static=True)
    n_post: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    n_synapses: int = eqx.field(static=True)
    mesh: Mesh = eqx.field(static=True)
    spikes: bool = eqx.field(static=True)
    local: bool = eqx.field(static=True)

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        size = f"{self.n_pre:,} -> {self.n_post:,}, {self.n_synapses:,} synapses"
        devices = f"{self.shape[0]} device{'s' * (self.shape[0] > 1)}"
        return wadler_lindig.TextDoc(f"Shards({size}, {devices})")

    @property
    def listed(self) -> bool:
        """Whether the parts are event lists."""
        return hasattr(self.parts, "visited")

    @property
    def columns(self) -> Any:
        """Those of event lists, or None where they have none."""
        return self.parts.columns if self.listed else ()

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron."""
        return self.apply(jnp.ones(self.shape), jnp.ones(self.n_pre))

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        return self.apply_t(jnp.ones(self.shape), jnp.ones(self.n_post))

    def at_post(self, x: Shaped[Array, " post"]) -> Shaped[Array, "devices ..."]:
        """x of the receiver, as it broadcasts to the synapses."""
        return self._each(lambda c, x: c.at_post(_longer(x, c.n_post))[None], _OWN)(self.parts, x)

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, "devices ..."]:
        """x of the sender, as it broadcasts to the synapses."""
        own = lambda c, x: c.at_pre(_longer(x, c.n_pre))[None]  # noqa: E731
        return self._each(own, self._heard)(self.parts, x)

    def apply(
        self, w: Shaped[Array, "devices ..."], s: Shaped[Array, " pre"]
    ) -> Float[Array, " post"]:
        """Current into each neuron, nA."""

        def own(c: Any, w: Array, s: Array) -> Array:
            return c.apply(w[0], _longer(s, c.n_pre))[: self._own]

        return self._each(own, _OWN, self._heard)(self.parts, w, s)

    def apply_t(
        self, w: Shaped[Array, "devices ..."], e: Shaped[Array, " post"]
    ) -> Float[Array, " pre"]:
        """Transposed product; sums of the devices are added up."""

        def own(c: Any, w: Array, e: Array) -> Array:
            back = c.apply_t(w[0], _longer(e, c.n_post))
            return back if self.local else jax.lax.psum(back[: self.n_pre], AXIS)

        return self._each(own, _OWN, _OWN, out=self._heard)(self.parts, w, e)

    def outer(
        self, post: Shaped[Array, "*lead post"], pre: Shaped[Array, "*lead pre"]
    ) -> Float[Array, "devices ..."]:
        """Summed outer product on the synapses that exist."""

        def own(c: Any, post: Array, pre: Array) -> Array:
            return c.outer(_longer(post, c.n_post), _longer(pre, c.n_pre))[None]

        along = PartitionSpec(*(None,) * (post.ndim - 1), AXIS)
        return self._each(own, along, along if self.local else _ALL)(self.parts, post, pre)

    def visited(
        self, w: Shaped[Array, "devices edges"], visits: Visits, low: Array | None,
        high: Array | None, after: Array | None = None, key: Array | None = None,
    ) -> Shaped[Array, "devices edges"]:  # fmt: skip
        """Weights after what one step changes at the neurons that fired (`Visit`), bounded."""

        scales = tuple(None if v is None else v.scale for v in visits)
        numbers, rest = eqx.partition(scales, eqx.is_array)

        key = key if w.dtype == jnp.bfloat16 else None  # rounded by chance, on each device its own

        def own(
            c: Any, w: Array, ends: Any, sides: Any, numbers: Any, after: Any, key: Any
        ) -> Array:
            sizes, scales = ((c.n_pre, c.n_post), (c.n_post, c.n_pre)), eqx.combine(numbers, rest)
            made = tuple(
                None if v is None else v._replace(
                    event=_longer(side[0], n), trace=_longer(side[1], m), scale=scale
                )
                for v, side, scale, (n, m) in zip(visits, sides, scales, sizes, strict=True)
            )  # fmt: skip
            ends = (_bound(x, c.n_pre, self.n_pre) for x in ends)
            own_key = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(AXIS))
            return c.visited(w[0], made, *ends, after, own_key)[None]

        sides = tuple(None if v is None else (v.event, v.trace) for v in visits)
        at = (
            (None if visits[0] is None else (_ALL, _OWN)),
            (None if visits[1] is None else (_OWN, _ALL)),
        )
        ends = tuple(_OWN if x is not None and x.ndim == 2 else _ALL for x in (low, high))
        run = self._each(own, _OWN, ends, at, _ALL, _OWN, _ALL)
        return run(self.parts, w, (low, high), sides, numbers, after, key)

    def scheduled(
        self, w: Shaped[Array, "devices edges"], s: Shaped[Array, " pre"],
        delays: Int[Array, "devices edges"], ring: Float[Array, "longest post"],
        head: Int[Array, ""],
    ) -> tuple[Float[Array, " post"], Float[Array, "longest post"]]:  # fmt: skip
        """Currents due now, nA, and the ring of those to come, with that of spikes `s`."""

        def own(c: Any, w: Array, s: Array, delays: Array, ring: Array, head: Array) -> Any:
            return c.scheduled(w[0], _longer(s, c.n_pre), delays[0], ring, head)

        ring_at = PartitionSpec(None, AXIS)
        run = self._each(own, _OWN, _ALL, _OWN, ring_at, _ALL, out=(_OWN, ring_at))
        return run(self.parts, w, s, delays, ring, head)

    def edges(self) -> Edges:
        """Who sends to whom, device after device; of what fills a list up the number is 0."""
        pre, post, number = jax.vmap(lambda c: c.edges(), axis_size=self.shape[0])(self.parts)
        k, near = jnp.arange(self.shape[0])[:, None], self.n_pre // self.shape[0]
        real = (pre < self.n_pre) & (post < self._own)
        pre, post = pre + k * near if self.local else pre, post + k * self._own
        ends = (jnp.where(real, x, 0).reshape(-1) for x in (pre, post, number))
        return Edges(*ends)

    def matrix(self, w: Shaped[Array, "devices ..."]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        pre, post, number = self.edges()
        held = w.reshape(-1) * number.astype(w.dtype)
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[post, pre].add(held)

    @property
    def _heard(self) -> PartitionSpec:
        """Where spikes must be."""
        return _OWN if self.local else _ALL

    @property
    def _own(self) -> int:
        """Neurons of one device."""
        return self.n_post // self.shape[0]

    def _each(self, run: Callable, *given: Any, out: Any = _OWN) -> Callable:
        """`run` on each device, with its own part and with what else is `given` so."""
        alone = lambda parts, *x: run(jax.tree.map(lambda leaf: leaf[0], parts), *x)  # noqa: E731
        return jax.shard_map(
            alone, mesh=self.mesh, in_specs=(_OWN, *given), out_specs=out, check_vma=False
        )


def _longer(x: Array, n: int) -> Array:
    """With zeros of neurons that never fire behind it, along the last axis."""
    more = n - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]) if more else x


def _bound(x: Array | None, n_pre: int, n: int) -> Array | None:
    """A bound as a list takes it: of each synapse its own, of each sender one, or one."""
    if x is None or not x.ndim:
        return x
    return x[0] if x.ndim == 2 else _longer(x, n_pre) if x.shape == (n,) else x


# --- dividing, and the way back ---


def put(x: Any, sharding: NamedSharding) -> Array:
    """An array laid out over devices, of this process and of others; all have it, or their part."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return jax.jit(lambda x: x, out_shardings=sharding)(x)
    if sharding.is_fully_addressable and isinstance(x, jax.Array):
        return jax.device_put(x, sharding)
    held = np.asarray(x)
    return jax.make_array_from_callback(held.shape, sharding, lambda at: held[at])


def divided(wiring: Any, mesh: Mesh, *, spikes: bool, inside: bool) -> Shards:
    """A `FanOut`, `FanIn` or `Dense` as `Shards`, of receivers that "neuron" of the mesh divides.

    `spikes`: senders send 0 or 1, else numbers; `inside`: they are neurons of the network.
    """
    n, at = mesh.shape[AXIS], NamedSharding(mesh, _OWN)
    if hasattr(wiring, "visited"):
        parts = _lists(wiring, n)
        n_synapses, local = wiring.shape[0], False
    else:
        n_synapses = int(np.asarray(wiring.fan_in, float).sum())
        local = inside and _within_blocks(wiring, n)
        parts = _rows(wiring, n, local)
    shape = (n, *parts[0].shape)
    parts = jax.tree.map(lambda *x: put(np.stack([np.asarray(a) for a in x]), at), *parts)
    return Shards(
        parts, wiring.n_pre, wiring.n_post, shape, n_synapses, mesh, spikes and not local, local
    )


def _lists(wiring: Any, n: int) -> list[Any]:
    """An event list for each of `n` devices, all equally long."""
    pre, post, size = _ends(wiring)
    own, parts = wiring.n_post // n, _positions(wiring, n)
    edges = max(len(at) for at in parts)
    longest = max(1, *(int(np.bincount(pre[at]).max(initial=0)) for at in parts))
    silent = -(-(edges - min(len(at) for at in parts)) // longest)  # senders, of what fills up
    unheard = 0 if wiring.columns is None else silent  # and its receivers, where it matters
    made = []
    for k, at in enumerate(parts):
        pad = np.arange(edges - len(at)) // longest
        index = np.concatenate([post[at] - k * own, own + pad if unheard else 0 * pad])
        n_out = np.bincount(np.concatenate([pre[at], size + pad]), minlength=size + silent)
        one = replace(
            wiring, index=index.astype(np.int32), n_post=own + unheard, longest=longest,
            start=np.concatenate([[0], np.cumsum(n_out)]).astype(np.int32), columns=None,
        )  # fmt: skip
        made.append(one if wiring.columns is None else one.with_columns())
    if wiring.columns is None:
        return made
    most = max(c.columns.longest for c in made)
    return [replace(c, columns=replace(c.columns, longest=most)) for c in made]


def _rows(wiring: Any, n: int, local: bool) -> list[Any]:
    """Receivers of each of `n` devices; where they are `local`, so are the numbers of senders."""
    own = wiring.n_post // n
    if not hasattr(wiring, "index"):
        count = [None] * n if wiring.count is None else np.split(np.asarray(wiring.count), n)
        return [replace(wiring, n_post=own, count=x) for x in count]
    index, near = np.asarray(wiring.index).reshape(n, own, -1), wiring.n_pre // n
    first = near * np.arange(n)[:, None, None] if local else 0
    n_pre = near if local else wiring.n_pre
    return [replace(wiring, index=x, n_pre=n_pre) for x in index - first]


def _within_blocks(wiring: Any, n: int) -> bool:
    """Whether each device would hear none but its own neurons."""
    if not hasattr(wiring, "index") or wiring.n_pre % n:
        return False
    own = np.arange(wiring.n_post)[:, None] // (wiring.n_post // n)
    return bool((np.asarray(wiring.index) // (wiring.n_pre // n) == own).all())


def _ends(wiring: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Sender and receiver of each synapse, and how many senders there are."""
    n_out = np.diff(np.asarray(wiring.start, np.int64))
    return np.repeat(np.arange(len(n_out)), n_out), np.asarray(wiring.edges().post), len(n_out)


def _positions(wiring: Any, n: int) -> list[np.ndarray]:
    """Which synapses of the list each of `n` devices holds, in their order."""
    owner = np.asarray(wiring.edges().post) // (wiring.n_post // n)
    return [np.flatnonzero(owner == k) for k in range(n)]


def spread(x: Any, wiring: Any, shards: Shards) -> Array:
    """One number a synapse of `wiring` as `shards` have them; 0 where a list is filled up."""
    held, at = np.asarray(x), NamedSharding(shards.mesh, _OWN)
    if not shards.listed:
        return put(held.reshape(shards.shape), at)
    out = np.zeros(shards.shape, held.dtype)
    for row, place in zip(out, _positions(wiring, len(out)), strict=True):
        row[: len(place)] = held[place]
    return put(out, at)


def whole(x: Any, wiring: Any) -> Array:
    """The way back: of each device's synapses of `wiring`, on the host, one number each."""
    held, out = np.asarray(x), np.zeros(wiring.shape, x.dtype)
    if not hasattr(wiring, "visited"):
        return jnp.asarray(held.reshape(wiring.shape))
    for row, place in zip(held, _positions(wiring, len(held)), strict=True):
        out[place] = row[: len(place)]
    return jnp.asarray(out)


# --- gathering ---


def packed(mesh: Mesh, z: Shaped[Array, "*T n"]) -> UInt32[Array, "*T devices words"]:
    """Spikes, 0 or 1, of all devices on each of them, 32 neurons to a word."""

    def own(z: Array) -> Array:
        return jax.lax.all_gather(_to_words(z), AXIS, axis=z.ndim - 1)

    at = PartitionSpec(*(None,) * (z.ndim - 1), AXIS)
    return jax.shard_map(own, mesh=mesh, in_specs=at, out_specs=_ALL, check_vma=False)(z)


def unpacked(
    mesh: Mesh, words: UInt32[Array, "devices words"], own: int, n: int, dtype: Any
) -> Float[Array, " n"]:
    """The spikes of what was `packed`, `own` of each device; with zeros behind them `n` in all."""
    run = lambda words: _to_spikes(words, own, n, dtype)  # noqa: E731
    return jax.shard_map(run, mesh=mesh, in_specs=_ALL, out_specs=_ALL, check_vma=False)(words)


def heard(wiring: Any, z: Shaped[Array, "*T pre"]) -> Shaped[Array, "*T more"]:
    """Spikes as a wiring is to have them: on each device, where it is divided and they are bits.

    On an event list those of the senders that never fire stand behind them.
    """
    n = heard_as(wiring)
    return z if n is None else _everywhere(wiring.mesh, n, z)


def heard_as(wiring: Any) -> int | None:
    """How many senders, silent ones behind them, it hears on each device; None: as they are."""
    return wiring.parts.n_pre if isinstance(wiring, Shards) and wiring.spikes else None


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _everywhere(mesh: Mesh, n: int, z: Array) -> Array:
    """The same numbers, 0 or 1; derivatives pass."""
    own, dtype = z.shape[-1] // mesh.shape[AXIS], z.dtype
    words = packed(mesh, z)
    run = lambda words: unpacked(mesh, words, own, n, dtype)  # noqa: E731
    return jax.lax.map(run, words) if z.ndim > 1 else run(words)


@_everywhere.defjvp
def _everywhere_jvp(mesh, n, primals, tangents):
    return _everywhere(mesh, n, *primals), _longer(tangents[0], n)


def _places(ndim: int) -> Array:
    """Of the bits of a word, along the last axis."""
    return jnp.arange(_WORD, dtype=jnp.uint32).reshape(*(1,) * (ndim - 1), _WORD)


def _to_words(z: Array) -> Array:
    shape = (*z.shape[:-1], -(-z.shape[-1] // _WORD))

    def native(z: Array) -> Array:
        words = jax.ShapeDtypeStruct(shape, jnp.uint32)
        return jax.ffi.ffi_call("neurojax_packed", words, vmap_method="sequential")(z)

    def pure(z: Array) -> Array:
        fired = jnp.pad(z != 0, [(0, 0)] * (z.ndim - 1) + [(0, -z.shape[-1] % _WORD)])
        bits = fired.reshape(*shape, _WORD).astype(jnp.uint32)
        return (bits << _places(bits.ndim)).sum(-1, dtype=jnp.uint32)

    if z.dtype not in (jnp.float32, jnp.float64) or not _compiled():
        return pure(z)
    return jax.lax.platform_dependent(z, cpu=native, default=pure)


def _to_spikes(words: Array, own: int, n: int, dtype: Any) -> Array:
    def native(words: Array) -> Array:
        z = jax.ShapeDtypeStruct((n,), dtype)
        call = jax.ffi.ffi_call("neurojax_unpacked", z, vmap_method="sequential")
        return call(words, own=np.int64(own))

    def pure(words: Array) -> Array:
        bits = words[..., None] >> _places(3) & jnp.uint32(1)
        z = bits.reshape(len(words), -1)[:, :own].reshape(-1).astype(dtype)
        return _longer(z, n)

    if dtype not in (jnp.float32, jnp.float64) or not _compiled():
        return pure(words)
    return jax.lax.platform_dependent(words, cpu=native, default=pure)


@functools.cache
def _compiled() -> bool:
    """Whether both run in a kernel; where it cannot be had, the products of events say why."""
    try:
        library = _library.load(Path(__file__).with_name("bits.cc"), ("packed", "unpacked"))
    except _library.Unusable:
        return False
    for name in ("packed", "unpacked") if library else ():
        target = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"neurojax_{name}", target, platform="cpu")
    return library is not None
