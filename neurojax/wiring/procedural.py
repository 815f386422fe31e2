"""Wiring that is computed from its key at each spike, and kept nowhere.

    receiver of synapse t of sender j = hash(key, j, t) mod n_post,    t = 0, ..., k - 1

So what a network holds does not grow with its synapses. Each receiver is drawn alone and all are
equally likely, to 2^-32 n_post of it: a pair may have several synapses, and a neuron may reach
itself unless there are no autapses. `stored` makes a list of the very same synapses.
Source: Knight and Nowotny (2021), Larger GPU-accelerated brain simulations with procedural
connectivity; the hash is that of SplitMix (Steele et al., 2014), in words of 32 bits.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig
from jaxtyping import Array, Float, Int, Key, Shaped, UInt32

from neurojax._check import brief, count, flag, prng_key, working
from neurojax._memory import affordable
from neurojax.wiring import narrow
from neurojax.wiring._events_gpu import chunks
from neurojax.wiring.events import either, singly
from neurojax.wiring.layouts import Edges, alike, shaped, sized

if TYPE_CHECKING:
    from neurojax.wiring.sparse import FanOut

__all__ = ["Procedural", "procedural"]

_FACTORS = 1024  # weights of a spread are one of so many, equally likely
_LARGEST = 2**31 - 1


class Procedural(eqx.Module):
    """`k` synapses from each sender, each onto a receiver drawn anew, alike, at every spike.

    Weights `w` [n_pre], nA a spike, are one a sender, that of all its synapses; with `factors`
    [1024] each synapse has w times one of them, drawn from the key as well. `apply` visits only
    senders that are not silent. Nothing learns here: `stored` gives a `FanOut` of the same
    synapses that can. Made by `procedural`. Raises `ValueError` for a seed or factors of another
    shape or dtype, and for a `k` of more synapses than there are neurons to reach.

    >>> wiring = nj.procedural(jax.random.key(0), 400, 300, density=0.1)
    >>> wiring
    Procedural(400 -> 300, fan-out 30)
    >>> w, s = jnp.full(400, 0.5), jnp.zeros(400).at[7].set(1.0)
    >>> stored, each = wiring.stored(w)
    >>> bool((wiring.apply(w, s) == stored.apply(each, s)).all())
    True
    """

    seed: UInt32[Array, " 2"]
    factors: Float[Array, " levels"] | None
    n_pre: int = eqx.field(static=True, converter=count("n_pre"))
    n_post: int = eqx.field(static=True, converter=count("n_post"))
    k: int = eqx.field(static=True, converter=count("k"))
    autapses: bool = eqx.field(static=True, default=True, converter=flag("autapses"))
    native: bool = eqx.field(static=True, default=True, converter=flag("native"))

    def __check_init__(self):
        if getattr(self.seed, "dtype", None) != jnp.uint32 or self.seed.shape[-1:] != (2,):
            raise ValueError(
                f"seed must be uint32 of shape (2,); got {brief(self.seed)}: pass a key to"
                " nj.procedural"
            )
        kept = jnp.float32, jnp.float64
        if self.factors is not None and not (
            isinstance(self.factors, jax.Array)
            and self.factors.dtype in kept
            and self.factors.shape[-1:] == (_FACTORS,)
        ):
            raise ValueError(
                f"factors must be {_FACTORS} floats of 32 or 64 bits, or None; got"
                f" {brief(self.factors)}"
            )

        partners = others(self.n_post, self.n_pre, self.autapses)
        if self.k > partners:
            raise ValueError(f"k must be <= {partners}, the neurons to reach; got {self.k}")
        vectors = 2 * self.n_pre + self.n_post  # weights, spikes, currents
        affordable(f"a step of {self.n_pre} -> {self.n_post} neurons", 4 * vectors)

    def __pdoc__(self, **_: Any) -> wadler_lindig.AbstractDoc:
        return sized(self, f"fan-out {self.k}")

    @property
    def shape(self) -> tuple[int]:
        """Shape of the weights, [n_pre]: one a sender."""
        return (self.n_pre,)

    @property
    def n_synapses(self) -> int:
        """Synapses in all."""
        return self.n_pre * self.k

    @property
    def fan_in(self) -> Float[Array, " post"]:
        """Synapses onto each neuron; counted anew, in as many steps as there are synapses."""
        alike = eqx.tree_at(lambda c: c.factors, self, None, is_leaf=lambda x: x is None)
        return alike.apply(jnp.ones(self.n_pre), jnp.ones(self.n_pre))

    @property
    def fan_out(self) -> Float[Array, " pre"]:
        """Synapses that a spike of each sender reaches."""
        return jnp.full(self.n_pre, float(self.k))

    def edges(self) -> Edges:
        """Who sends to whom, all of it at once."""
        pre = jnp.repeat(jnp.arange(self.n_pre, dtype=jnp.int32), self.k)
        post = self._rows(jnp.arange(self.n_pre, dtype=jnp.int32))[0].reshape(-1)
        return Edges(pre, post, jnp.ones_like(pre))

    def at_pre(self, x: Shaped[Array, " pre"]) -> Shaped[Array, " pre"]:
        """x of the sender, as it stands beside its weight."""
        shaped(x=(x, (self.n_pre,)))
        return x

    def at_post(self, x: Array) -> Array:
        """Refused: no synapse has a place of its own."""
        raise _unstored("have something of each receiver's", "w=, one weight a sender")

    def outer(self, post: Array, pre: Array) -> Array:
        """Refused: no synapse is there to be changed."""
        raise _unstored("learn", "plastic=False")

    def matrix(self, w: Float[Array, " pre"]) -> Float[Array, "post pre"]:
        """The same weights as a dense matrix."""
        shaped(w=(w, self.shape))
        pre, post, _ = self.edges()
        each = jnp.repeat(w, self.k) * self._each(w.dtype)
        return jnp.zeros((self.n_post, self.n_pre), w.dtype).at[post, pre].add(each)

    def apply(self, w: Float[Array, " pre"], s: Shaped[Array, " pre"]) -> Float[Array, " post"]:
        """Current into each neuron, nA."""
        w, s = alike(w, s)
        shaped(w=(w, self.shape), s=(s, (self.n_pre,)))
        return _current(self, w.astype(working(w.dtype)), s.astype(working(w.dtype))).astype(
            w.dtype
        )

    def apply_t(self, w: Float[Array, " pre"], e: Shaped[Array, " post"]) -> Float[Array, " pre"]:
        """Transposed product, over all synapses."""
        w, e = alike(w, e)
        shaped(w=(w, self.shape), e=(e, (self.n_post,)))
        return w * self._heard(e.astype(working(e.dtype))).astype(w.dtype)

    @overload
    def stored(self, w: None = None) -> "FanOut": ...
    @overload
    def stored(self, w: Float[Array, " pre"]) -> tuple["FanOut", Float[Array, " edges"]]: ...
    def stored(self, w: Float[Array, " pre"] | None = None) -> Any:
        """A list of the same synapses, in the order of sender; beside it, of `w`, that of each.

        Not for use under `jit`.
        """
        from neurojax.wiring.sparse import FanOut  # which knows this layout itself

        affordable(f"a list of {self.n_synapses:,} synapses", 12 * self.n_synapses)
        if self.n_synapses > _LARGEST:
            raise ValueError(f"a list holds {_LARGEST} synapses at most; got {self.n_synapses}")
        dtype, more = narrow.kind(self.n_post)
        index = narrow.blank((self.n_pre, self.k, *more), dtype)
        each = None if w is None else narrow.blank((self.n_pre, self.k), w.dtype)
        for at in narrow.pieces(self.n_synapses, self.k):
            post, factor = self._rows(jnp.arange(at.start, at.stop, dtype=jnp.int32))
            narrow.into(index, np.asarray(post), at)
            if each is not None and w is not None:
                each[at] = w[at, None] * (1 if factor is None else factor.astype(w.dtype))
        start = self.k * np.arange(self.n_pre + 1)
        index = index.reshape(-1, *more)
        wiring = FanOut(narrow.kept(index), start, self.n_post, self.k, self.native)
        return (
            wiring if each is None else (wiring, jnp.array(each.reshape(-1)))
        )  # a copy: JAX can change it in place

    def _each(self, dtype: Any) -> Array:
        """What the weight of its sender is multiplied with at each synapse."""
        factor = self._rows(jnp.arange(self.n_pre, dtype=jnp.int32))[1]
        return jnp.ones((), dtype) if factor is None else factor.reshape(-1).astype(dtype)

    def _heard(self, e: Float[Array, " post"]) -> Float[Array, " pre"]:
        def one(j):
            post, factor = self._rows(j[None])
            heard = e[post[0]]
            return (heard if factor is None else heard * factor[0].astype(e.dtype)).sum()

        return jax.lax.map(one, jnp.arange(self.n_pre, dtype=jnp.int32))

    def _rows(self, j: Int[Array, " n"]) -> tuple[Array, Array | None]:
        return _rows(self.seed, self.factors, j, sizes=self._sizes)

    @property
    def _sizes(self) -> tuple[int, int, bool]:
        return self.n_post, self.k, self.autapses


def _unstored(what: str, cure: str) -> ValueError:
    return ValueError(
        f"procedural wiring keeps no synapses, and cannot {what}: pass {cure}, or"
        " connectivity.stored()"
    )


def procedural(
    key: Key[Array, ""],
    n_pre: int,
    n_post: int,
    density: float,
    *,
    spread: float = 0.0,
    autapses: bool = True,
    native: bool = True,
) -> Procedural:
    """Each neuron sends round(density n_post) synapses, at least one, drawn at every spike anew.

    Receivers are drawn alone: a pair may have several synapses. Without `autapses` none is onto
    the neuron itself. Weights have shape [n_pre], nA a spike, one a sender; with `spread` the
    weight of each synapse is that times a Gaussian number of mean 1 and standard deviation
    `spread`, without unit (one of 1,024 quantiles, so within 3.3 standard deviations).

    >>> nj.procedural(jax.random.key(0), 10**6, 10**6, density=0.001).n_synapses
    1000000000

    Raises `ValueError` for a density outside (0, 1], for populations without neurons, a spread
    outside [0, 1e6], and for two populations without `autapses`; `TypeError` for what
    is no key.
    """
    key = prng_key(key)
    n_pre, n_post = count("n_pre")(n_pre), count("n_post")(n_post)
    k = part(density, others(n_post, n_pre, autapses))
    seed = jax.random.bits(key, (2,), jnp.uint32)
    return Procedural(seed, _factors(spread), n_pre, n_post, k, autapses, native)


def part(density: Any, n: int) -> int:
    """How many of `n` are that part of them; one at least."""
    given = np.asarray(density)
    if given.ndim or given.dtype.kind not in "fiu" or not 0 < given <= 1:
        raise ValueError(f"density must be in (0, 1]; got {brief(density)}")
    return max(1, round(float(density) * n))


def others(n: int, n_other: int, autapses: bool) -> int:
    """Partners that a neuron may have among n."""
    if flag("autapses")(autapses):
        return n
    if n != n_other or n < 2:
        raise ValueError(
            "autapses=False is for one population of two neurons or more; got"
            f" {n} and {n_other} neurons"
        )
    return n - 1


def _factors(spread: float) -> Array | None:
    """Quantiles of a Gaussian of mean 1, whose mean and standard deviation are exact."""
    number = isinstance(spread, int | float | np.number) and not isinstance(spread, bool)
    if not (number and 0 <= spread <= 1e6):
        raise ValueError(f"spread must be one number in [0, 1e6]; got {brief(spread)}")
    if spread == 0:
        return None
    from scipy.special import ndtri  # slow to import

    g = ndtri((np.arange(_FACTORS) + 0.5) / _FACTORS)
    return jnp.asarray(1 + spread * g / g.std())


# --- who, and what each weighs: the same in the kernel ---


def _mixed(x: Array, other: Array | int = 0) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B) ^ other
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


@functools.partial(jax.jit, static_argnames="sizes")
def _rows(
    seed: Array, factors: Array | None, j: Int[Array, " n"], sizes: tuple[int, int, bool]
) -> tuple[Int[Array, "n k"], Array | None]:
    """Receivers of the senders `j`, and what their weights are multiplied with."""
    n_post, k, autapses = sizes
    at = j.astype(jnp.uint32)[:, None]
    a = _mixed(at * jnp.uint32(0x9E3779B9) + seed[0])
    b = _mixed(at * jnp.uint32(0x7FEB352D) + seed[1])
    t = jnp.arange(k, dtype=jnp.uint32)[None]
    drawn = _mixed(t * jnp.uint32(0x9E3779B9) + a, b)
    post = _scaled(drawn, n_post - (not autapses)).astype(jnp.int32)
    post = post if autapses else post + (post >= j[:, None]).astype(jnp.int32)
    if factors is None:
        return post, None
    return post, factors[(_mixed(drawn + b) >> 22).astype(jnp.int32)]


def _scaled(x: Array, n: int) -> Array:
    """floor(x n / 2^32), of which 32 bits are enough at each step."""
    high, low, n_high, n_low = x >> 16, x & 0xFFFF, jnp.uint32(n >> 16), jnp.uint32(n & 0xFFFF)
    middle, other = high * n_low, low * n_high
    carry = ((low * n_low) >> 16) + (middle & 0xFFFF) + (other & 0xFFFF)
    return high * n_high + (middle >> 16) + (other >> 16) + (carry >> 16)


@jax.custom_vjp
def _current(wiring: Procedural, w: Array, s: Array) -> Array:
    sizes = wiring._sizes
    factors = jnp.zeros(0, s.dtype) if wiring.factors is None else wiring.factors.astype(s.dtype)
    one_by_one, many = (_pure(sizes, by) for by in (singly, chunks))
    run = either(_native(sizes), one_by_one, many, wiring.native)
    return run(wiring.seed, factors, w, s)


def _forward(wiring, w, s):
    return _current(wiring, w, s), (wiring, w, s)


def _backward(saved, e):
    wiring, w, s = saved
    heard = wiring._heard(e)
    return None, s * heard, w * heard


_current.defvjp(_forward, _backward)


def _pure(sizes: tuple[int, int, bool], by: Callable) -> Callable:
    def run(seed, factors, w, s):
        def look(j, _):
            post, factor = _rows(seed, factors if factors.size else None, j[None], sizes=sizes)
            each = w[j] if factor is None else w[j] * factor[0]
            # Chosen before it is added, the product is rounded, as in the kernel.
            sent = jnp.where(j < s.shape[0], each * s[j], 0)
            return post[0], jnp.broadcast_to(sent, post[0].shape)

        def put(found, current):
            to, sent = found
            return current.at[to].add(sent)

        return by(sizes[1])(s, look, put, jnp.zeros(sizes[0], s.dtype))

    return run


def _native(sizes: tuple[int, int, bool]) -> Callable:
    n_post, k, autapses = sizes
    options = {"k": np.int64(k), "autapses": np.bool_(autapses)}

    def run(seed, factors, w, s):
        out = jax.ShapeDtypeStruct((n_post,), s.dtype)
        return jax.ffi.ffi_call("neurojax_recomputed", out)(seed, factors, w, s, **options)

    return run


def __dir__() -> list[str]:
    return __all__
