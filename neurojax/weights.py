"""The seam between learning and hardware: whatever holds weights answers to four methods."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key, Shaped

from neurojax._check import brief, cast, flag, instance, known_finite, numbers, prng_key, real
from neurojax._draw import fold
from neurojax._memory import affordable
from neurojax.wiring.convolution import Conv1D, Conv2D, Local1D, Local2D
from neurojax.wiring.layouts import Band, Dense, concrete
from neurojax.wiring.narrow import blank, kept, pieces, wide
from neurojax.wiring.shards import Shards
from neurojax.wiring.sparse import Connectivity, FanOut, listed, products
from neurojax.wiring.visits import Visit, Visits, counts, rounded

__all__ = [
    "Held", "Ideal", "MakeWeights", "Weights", "applied", "ideal", "normal", "taught", "visited",
]  # fmt: skip


@runtime_checkable
class Weights(Protocol):
    """All that is plastic in one projection: a pytree, unbatched, counters included.

    A learning rule never knows whether it has numbers or devices behind these. Weights that
    read differently each time may also have `hold(s) -> Held | None`: all of `apply(s)` that
    stays while an input `s` is held, or None where a second reading gives what the first gave.
    Without it, a held input is read once a presentation. Those whose synapses can move (`rewired`)
    have `renewed(connectivity, new) -> Weights`: on other wiring of the same shape, synapses where
    `new` as if just made.
    """

    @property
    def w(self) -> Array:
        """What each synapse holds now, in weight units."""
        ...

    def apply(self, s: Array, *, key: Array | None = None) -> Array:
        """Spikes or drive [n_pre] to current [n_post]."""
        ...

    def apply_t(self, e: Array, *, key: Array | None = None) -> Array:
        """The same synapses read the other way: [n_post] to [n_pre]."""
        ...

    def outer(self, post: Array, pre: Array) -> Array:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        ...

    def program(self, dw: Array, *, key: Array | None = None) -> "Weights":
        """The weights after a change by `dw`, in weight units."""
        ...


@runtime_checkable
class Held(Protocol):
    """An input that is held over time, but for the noise of reading it: a pytree; see `Weights`."""

    def read(self, *, key: Array) -> Array:
        """Current [n_post], nA, of one step: what `apply` of the input gives with the same key."""
        ...


class Ideal(eqx.Module):
    """Weights that are plain numbers: `program` adds, exactly, and stops at the bounds.

        w <- min(max(w + dw, low), high)

    `low` and `high`, in weight units, are one number or one a synapse, like `w`; on a `FanOut` one
    a sender, [n_pre], is as good; None is no bound. Made by `ideal`, which checks them.

    Weights in bfloat16 keep 8 bits, right to 2^-8 of each. What they learn is rounded by chance to
    one of both neighbours, drawn from the `key`, so that changes far below their resolution add
    up; without a key a change that would be lost is refused. Raises `TypeError` for `w` that are
    no floats: whole numbers need a scale (`levels`).

    >>> weights = nj.Ideal(jnp.ones((3, 2)), nj.Dense(2, 3))
    >>> weights.apply(jnp.ones(2)).tolist()
    [2.0, 2.0, 2.0]
    """

    w: Float[Array, "..."]
    connectivity: Connectivity
    low: Float[Array, "..."] | None = None
    high: Float[Array, "..."] | None = None

    def __check_init__(self):
        instance("connectivity", self.connectivity, "apply", "apply_t", "outer")
        shape = self.connectivity.shape
        if not hasattr(self.w, "dtype") or self.w.shape[-len(shape) :] != shape:
            raise ValueError(f"w must be an array of shape {shape}; got {brief(self.w)}")
        if self.w.dtype in (jnp.int8, jnp.uint8):
            raise TypeError(
                f"w must be floats; got {self.w.dtype}, of which nobody knows what a level weighs:"
                " pass make_weights=nj.levels(scale)"
            )

    def apply(self, s: Float[Array, " pre"], *, key=None) -> Float[Array, " post"]:
        """Spikes or drive [n_pre] to current [n_post]."""
        return self.connectivity.apply(self.w, s)

    def apply_t(self, e: Float[Array, " post"], *, key=None) -> Float[Array, " pre"]:
        """The same synapses read the other way."""
        return self.connectivity.apply_t(self.w, e)

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        return self.connectivity.outer(post, pre)

    def program(self, dw: Float[Array, "..."], *, key=None) -> "Ideal":
        """w + dw, held by the bounds. Raises `ValueError` for a `dw` of another shape."""
        if dw.shape != self.w.shape:
            raise ValueError(f"dw must have shape {self.w.shape}; got {dw.shape}")
        low, high = (_of_each(x, self.connectivity) for x in (self.low, self.high))
        if self.w.dtype != jnp.bfloat16:
            return replace(self, w=_within(self.w + dw, low, high))
        w, dw, low, high = cast((self.w, dw, low, high), jnp.float32)
        new = _within(w + dw, low, high)
        return replace(self, w=_short(new, w, self.w.dtype, key))

    def renewed(self, connectivity: Connectivity, new: Bool[Array, "..."]) -> "Ideal":
        """On other wiring, with 0 where synapses are `new`, or the bound that is next to it."""
        low, high = (_of_each(x, self.connectivity) for x in (self.low, self.high))
        fresh = _within(jnp.zeros_like(self.w), low, high)
        return replace(self, w=jnp.where(new, fresh, self.w), connectivity=connectivity)

    def visit(
        self, visits: Visits, after: Array | None = None, key: Array | None = None
    ) -> "Ideal":
        """Changed where senders or receivers fire, event by event; on `FanOut` alone."""
        w = self.connectivity.visited(  # pyright: ignore[reportAttributeAccessIssue]
            self.w, visits, self.low, self.high, after, key
        )
        return replace(self, w=w)


def _short(new: Array, old: Array, dtype: DTypeLike, key: Array | None) -> Array:
    """`new` in a type of few bits, by chance; or to the nearest, unless that loses a change."""
    if key is not None:
        return rounded(new, dtype, jax.random.bits(key, new.shape, jnp.uint32))
    kept = new.astype(dtype)
    lost = ((kept.astype(new.dtype) == old) & (new != old)).any()
    told = (
        f"key must be given where weights of {jnp.dtype(dtype)} learn in steps below their"
        " resolution, as these would be lost: pass key=, or keep them in float32"
    )
    if isinstance(lost, Tracer):
        return eqx.error_if(kept, lost, told)
    if lost:
        raise ValueError(told)
    return kept


def applied(
    weights: dict[str, Weights], spikes: dict[str, Array], *, key: Array | None = None
) -> dict[str, Array]:
    """Current [n_post], nA, of each projection for the `spikes` [n_pre] that reach it.

    Event lists of numbers which hear the very same array are read in one pass over it; all else
    by its own `apply`, with a key of its own name.
    """
    together, currents = dict[Any, dict[str, Ideal]](), dict[str, Array]()
    for name, x in weights.items():
        if isinstance(x, Ideal) and isinstance(x.connectivity, FanOut):
            kind = id(spikes[name]), x.w.dtype, x.connectivity.native
            together.setdefault(kind, {})[name] = x
        else:
            currents[name] = x.apply(spikes[name], key=fold(key, name))
    for lists in together.values():
        wirings, ws = zip(*((x.connectivity, x.w) for x in lists.values()), strict=True)
        found = products(wirings, ws, spikes[next(iter(lists))])
        currents |= dict(zip(lists, found, strict=True))
    return currents


def visited(
    weights: Weights, visits: Visits, *, key: Array | None = None, after: Array | None = None
) -> Weights:
    """Weights after the visits of one step: at the senders that fired, then at the receivers.

    On event lists of numbers no other synapse is touched; elsewhere each visit is an outer
    product to `program`. The bounds of the weights hold after each. `after` is what they
    delivered in the step, if anything, which is read before they change.
    """
    if by_events(weights):
        return weights.visit(visits, after, key)  # pyright: ignore[reportAttributeAccessIssue]
    for side, visit in zip(("pre", "post"), visits, strict=True):
        if visit is None:
            continue
        post, pre = (visit.trace, visit.event) if side == "pre" else (visit.event, visit.trace)
        dw = weights.outer(post, pre)
        dw = dw if visit.scale is None else dw * visit.scale(weights.w)
        drawn = None if key is None else jax.random.fold_in(key, side == "post")
        weights = weights.program(dw, key=drawn)
    return weights


def by_events(weights: Weights) -> bool:
    """Whether they change event by event: numbers on an event list."""
    return hasattr(weights, "visit") and listed(getattr(weights, "connectivity", None))


def taught(
    weights: Weights, post: Float[Array, "T post"], pre: Shaped[Array, "T pre"],
    *, key: Array | None = None,
) -> Weights:  # fmt: skip
    """Weights after a presentation of T steps that asks for dw = sum_t post_t pre_t^T.

    `post` [T, n_post], in weight units, is what a rule makes of it (`ThreeFactor.factor`), and
    `pre` [T, n_pre] the spikes that arrived. On event lists of numbers each step changes the
    synapses of the senders that fired, in place, and the bounds hold after each: it costs what the
    spikes cost, and no array of changes is made. Elsewhere all is one `outer` to `program`.

    >>> wiring = nj.by_sender([0, 1], [0, 0], 2, 1)
    >>> weights = nj.Ideal(jnp.zeros(2), wiring)
    >>> post, pre = jnp.array([[0.5], [0.25]]), jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> nj.taught(weights, post, pre).w.tolist()
    [0.75, 0.25]
    """
    held: Any = instance("weights", weights, "outer", "program")
    if not by_events(held):
        return held.program(held.outer(post, pre), key=key)
    if len(post) != len(pre):
        raise ValueError(f"post and pre must have as many steps; got {len(post)} and {len(pre)}")
    changing, rest = eqx.partition(weights, changes(weights))

    def step(changing, now):
        t, d, s = now
        held = eqx.combine(changing, rest)
        chance = None if key is None else jax.random.fold_in(key, t)
        held = visited(held, (Visit(real(s, "pre"), d), None), key=chance)
        return eqx.filter(held, changes(held)), None

    now = jnp.arange(len(pre)), post, numbers("pre", pre)  # spikes may be a byte each
    return eqx.combine(jax.lax.scan(step, changing, now)[0], rest)


def added(
    weights: Weights, dw: Float[Array, "..."], post: Float[Array, "*lead post"],
    pre: Shaped[Array, "*lead pre"],
) -> Float[Array, "..."]:  # fmt: skip
    """dw and the change that post x pre ask of `weights`, in the dtype of `dw`.

    On event lists it is added where it lies, at the synapses of the senders that fired.
    """
    if not by_events(weights):
        return dw + weights.outer(post, pre).astype(dw.dtype)
    one_by_one = (x.reshape(-1, x.shape[-1]) for x in (post, pre))
    total = Ideal(dw, weights.connectivity)  # pyright: ignore[reportAttributeAccessIssue]
    return taught(total, *one_by_one).w  # pyright: ignore[reportAttributeAccessIssue]


def changes(weights: Weights) -> Any:
    """Which leaf is what learns: the numbers of `Ideal` and `Levels`; all arrays of others."""
    if not hasattr(weights, "visit"):
        return jax.tree.map(eqx.is_array, weights)
    none = jax.tree.map(lambda _: False, weights)
    return eqx.tree_at(lambda x: x.level if hasattr(x, "level") else x.w, none, True)


def ideal(*, bounds: Any = None, keep_sign: bool = False) -> "MakeWeights":
    """What makes `Ideal` weights of initial ones, as `make_weights` of a network.

    `bounds` (low, high), in weight units, hold what is learned: each is one number, one a
    synapse, or None for no bound; bare `ideal()` has none. With `keep_sign` no weight crosses
    0, so an excitatory synapse stays one and an inhibitory one too; a weight that starts at 0
    may go either way. Nothing is drawn from the key.
    Raises `ValueError` for bounds that are no pair, NaN or not low < high, and when weights are
    made for initial weights beyond them.

    >>> make = nj.ideal(bounds=(0.0, 1.0))
    >>> make(jnp.full((1, 2), 0.9), nj.Dense(2, 1)).program(jnp.full((1, 2), 0.5)).w.tolist()
    [[1.0, 1.0]]
    """
    low, high = _bounds(bounds)
    return _MakeIdeal(low, high, keep_sign)


class _MakeIdeal(eqx.Module):
    """`ideal`, whose bounds are leaves: they vmap, and another value compiles nothing anew."""

    low: Float[Array, "..."] | None
    high: Float[Array, "..."] | None
    keep_sign: bool = eqx.field(static=True, converter=flag("keep_sign"))

    def __call__(
        self, w: Float[Array, "..."], connectivity: Connectivity, key: Array | None = None
    ) -> Ideal:
        low, high = _fitting(self.low, w), _fitting(self.high, w)
        w = _checked(w, low, high, connectivity)
        if self.keep_sign:
            sign = w if _each(low, high) else _signs(w, connectivity)
            low, high = _on_its_side(sign, low, high)
        low, high = (_of_senders(x, connectivity) for x in (low, high))
        return Ideal(w, connectivity, low, high)


def _each(*bounds: Array | None) -> bool:
    """Whether there is a bound for each synapse."""
    return any(b is not None and b.ndim for b in bounds)


def _signs(w: Array, wiring: Connectivity) -> Array:
    """What has the sign of each sender's synapses where all of them share it, else `w`."""
    if not isinstance(wiring, FanOut) or wiring.n_pre >= w.size:
        return w
    start, each = concrete(wiring.start), concrete(w)
    if start is None or each is None:
        return w
    sign = lambda x: (x > 0).astype(np.int8) - (x < 0)  # noqa: E731
    first = sign(each[np.minimum(start[:-1], each.size - 1)])
    for at in pieces(each.size):
        sender = np.searchsorted(start, np.arange(at.start, at.stop), side="right") - 1
        if (sign(each[at]) != first[sender]).any():
            return w
    return jnp.asarray(first, w.dtype)


def _bounds(bounds: Any) -> tuple[Array | None, Array | None]:
    """Both as arrays, refused unless low < high."""
    if bounds is None:
        return None, None
    allowed = "bounds must be (low, high), low < high, None for no bound"
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"{allowed}; got {brief(bounds)}")
    low, high = (None if x is None else real(x, "bounds") for x in bounds)
    inner = -jnp.inf if low is None else low, jnp.inf if high is None else high
    refused = ~(inner[0] < inner[1])  # so is NaN
    if isinstance(refused, Tracer):
        low = None if low is None else eqx.error_if(low, refused, allowed)
        return low, None if high is None else eqx.error_if(high, refused, allowed)
    if np.any(refused):
        raise ValueError(f"{allowed}; got ({bounds[0]}, {bounds[1]})")
    return low, high


def _fitting(bound: Array | None, w: Array) -> Array | None:
    """The bound in the dtype of `w`, refused unless it is one number or one a synapse."""
    if bound is not None and bound.shape not in ((), w.shape):
        raise ValueError(
            f"bounds must be one number or one a synapse, of shape {w.shape}; got {bound.shape}"
        )
    return None if bound is None else bound.astype(w.dtype)


def _on_its_side(w: Array, low: Array | None, high: Array | None) -> tuple[Array, Array]:
    """Bounds of each synapse that leave it the sign of `w`."""
    low = jnp.full_like(w, -jnp.inf) if low is None else jnp.broadcast_to(low, w.shape)
    high = jnp.full_like(w, jnp.inf) if high is None else jnp.broadcast_to(high, w.shape)
    return jnp.where(w > 0, jnp.maximum(low, 0), low), jnp.where(w < 0, jnp.minimum(high, 0), high)


def _of_senders(bound: Array | None, wiring: Connectivity) -> Array | None:
    """The bound as one number a sender, where all synapses of each on an event list share it.

    So they do where neurons excite or inhibit, and what is read by chance then stays small.
    """
    if not isinstance(wiring, FanOut) or bound is None or wiring.n_pre >= bound.size:
        return bound
    start, each = concrete(wiring.start), concrete(bound)
    if start is None or each is None:
        return bound
    first = each[np.minimum(start[:-1], each.size - 1)]
    shared = (np.repeat(first, np.diff(start)) == each).all()
    return jnp.asarray(first) if shared else bound


def _of_each(bound: Array | None, wiring: Connectivity) -> Array | None:
    """The bound as what can be compared with weights."""
    if not listed(wiring) or bound is None or bound.shape == wiring.shape:
        return bound
    return wiring.at_pre(bound) if bound.shape == (wiring.n_pre,) else bound


def _checked(w: Array, low: Array | None, high: Array | None, wiring: Connectivity) -> Array:
    """`w`, refused where a synapse that is there is beyond its bounds."""
    if low is None and high is None:
        return w
    beyond = _beyond(w, low, high)
    if isinstance(wiring, _MASKED):
        beyond &= connectivity_mask(wiring, jnp.ones_like(w)) != 0
    allowed = "initial weights must lie within bounds"
    if isinstance(beyond, Tracer):
        return eqx.error_if(w, beyond, allowed)
    if beyond.any():
        ends = [x if x is None or not x.ndim else "one a synapse" for x in (low, high)]
        raise ValueError(
            f"{allowed}, ({ends[0]}, {ends[1]}); got {np.asarray(w)[np.asarray(beyond)][0]}"
            f" ({beyond.sum()} of {w.size}): pass w= to the projection, or wider bounds"
        )
    return w


@jax.jit
def _beyond(w: Array, low: Array | None, high: Array | None) -> Array:
    return w != _within(w, low, high)


def _within(w: Array, low: Array | None, high: Array | None) -> Array:
    w = w if low is None else jnp.maximum(w, low)
    return w if high is None else jnp.minimum(w, high)


# What holds initial weights: (w, connectivity, key) -> Weights; chance, if any, from the key.
MakeWeights = Callable[[Array, Connectivity, Array], Weights]


_MANY = 1 << 25  # weights from which on they are drawn a part at a time
_DRAWN = 1 << 20  # of such a part, which has a key of its own
_MASKED = Band | Local1D | Local2D | Dense  # layouts that may have places without a synapse


def normal(
    key: Key[Array, ""], connectivity: Connectivity, gain: float | Array, dtype: DTypeLike = float
) -> Float[Array, "..."]:
    """Gaussian weights (nA) of standard deviation gain / sqrt(fan-in), in the layout's shape.

    The current that they give has variance gain^2 for independent inputs of mean square one.

    >>> nj.normal(jax.random.key(0), nj.Dense(3, 2), 1.0).shape
    (2, 3)
    """
    key, connectivity = prng_key(key), instance("connectivity", connectivity, "apply", "at_post")
    if isinstance(connectivity, Shards):
        raise ValueError("weights must be made before the network is placed: pass them to place")
    n = math.prod(connectivity.shape)
    size = jax.dtypes.canonicalize_dtype(dtype).itemsize
    affordable(f"weights of {brief(connectivity)}", n * size)
    gain = known_finite("gain", real(gain, "gain"))
    if isinstance(connectivity, FanOut) and n > _MANY and not isinstance(key, Tracer):
        return _many(key, connectivity, gain, dtype)
    w = jax.random.normal(key, connectivity.shape, dtype)
    if isinstance(connectivity, Conv1D | Conv2D):  # all alike, by a window that sees no padding
        return w * (gain * connectivity.scale).astype(dtype)
    scale = gain / jnp.sqrt(jnp.maximum(connectivity.fan_in, 1.0))
    w = w * connectivity.at_post(scale.astype(dtype))
    return connectivity_mask(connectivity, w)


def _many(key: Array, wiring: FanOut, gain: Any, dtype: DTypeLike) -> Array:
    """The same of a long list, whose parts have keys of their own: little is needed beside it."""
    scale = np.asarray(
        gain / np.sqrt(np.maximum(counts(np.asarray(wiring.index), wiring.n_post), 1))
    )
    index, w = np.asarray(wiring.index), blank(wiring.shape, jnp.dtype(dtype))
    for i, at in enumerate(pieces(w.size, size=_DRAWN)):
        drawn = jax.random.normal(jax.random.fold_in(key, i), (at.stop - at.start,), dtype)
        w[at] = np.asarray(drawn) * scale[wide(index[at])].astype(w.dtype)
    return kept(w)


def connectivity_mask(connectivity: Connectivity, w: Array) -> Array:
    """`w` [shape of the layout] with zeros where there is no synapse."""
    if isinstance(connectivity, Band | Local1D | Local2D):
        return jnp.where(connectivity.mask, w, 0)
    if isinstance(connectivity, Dense) and connectivity.count is not None:
        return jnp.where(connectivity.count.astype(bool), w, 0)
    return w


def __dir__() -> list[str]:
    return __all__
