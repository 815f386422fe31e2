"""Products that cost what spikes cost: only the synapses of senders that are not silent.

For synapses sorted by sender, those of sender j at start[j] up to start[j + 1]:

    scattered    I_i = sum over e with index_e = i of w_e s_pre(e)      [n_pre] -> [n_post]
    gathered     g_e = sum over t of post_{t, index_e} pre_{t, pre(e)}  [T, n] -> [edges]

Exact for any number of spikes: none is ever dropped, and senders are always visited in order.
On a CPU where a C++ compiler is found, both run in a small kernel (`events.cc`), compiled at
first use and kept; elsewhere as loops in XLA, which give the same numbers, and on a GPU in chunks
of many senders at once (`_events_gpu`), which agrees with them to rounding.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from neurojax._check import working
from neurojax.wiring import _library
from neurojax.wiring._events_gpu import chunks
from neurojax.wiring.narrow import wide, window

__all__ = ["Rows", "compiled", "gathered", "scattered"]

_SOURCE = Path(__file__).with_name("events.cc")
_KINDS = (jnp.float32, jnp.float64, jnp.bfloat16, jnp.int8)
_PRODUCTS = ("scattered", "gathered", "visited", "scheduled", "recomputed")


class Rows(NamedTuple):
    """Synapses by sender.

    Fields:
        post: int [edges], or bytes [edges, 3]; receiver of each synapse, see `narrow`
        start: int [pre_and_end]; where those of each sender begin, and the end
        longest: int; the largest fan-out
    """

    post: Integer[Array, " edges"] | Integer[Array, "edges 3"]
    start: Int[Array, " pre_and_end"]
    longest: int


def calculated(dtype: Any) -> Any:
    """The type to calculate in with weights that are kept in `dtype`."""
    return jnp.float32 if dtype == jnp.int8 else working(dtype)


def held(w: Array, with_: Any) -> Array:
    """Weights as the products take them: bfloat16 and int8 beside float32, else as `with_`."""
    short = w.dtype in (jnp.bfloat16, jnp.int8) and with_ == jnp.float32
    return w if short else w.astype(with_)


def scattered(
    lists: Sequence[tuple[Rows, Shaped[Array, "_"], int]], s: Float[Array, " pre"], native: bool
) -> tuple[Float[Array, "_"], ...]:
    """Current [n_post], nA, of each receiver, where only senders with s != 0 are visited.

    Each of the `lists` from the same senders is (rows, w [edges], n_post); all `w` and `s` [n_pre]
    have one dtype, or with float32 `w` may be bfloat16 or int8, each of which is widened as it is
    read. The spikes are gone through once, however many lists there are.
    """
    sizes = tuple((rows.longest, n_post) for rows, _, n_post in lists)
    one_by_one, many = (_scattered(sizes, by) for by in (singly, chunks))
    run = either(_native_scattered(sizes), one_by_one, many, native)
    return run(tuple((rows.post, rows.start, w) for rows, w, _ in lists), s)


def gathered(
    rows: Rows, post: Float[Array, "t post"], pre: Float[Array, "t pre"], native: bool
) -> Float[Array, " edges"]:
    """Change [edges] of each synapse, where only (step, sender) with pre != 0 are visited.

    `post` [T, n_post] and `pre` [T, n_pre] have one dtype; the change has the unit of `post`.
    """
    one_by_one, many = (_gathered(rows.longest, by) for by in (singly, chunks))
    run = either(_native_gathered(rows.longest), one_by_one, many, native)
    return run(rows.post, rows.start, post, pre)


def nowhere(index: Int[Array, " *n"], n_post: int) -> Bool[Array, " *n"]:
    """Where `index` names none of `n_post` neurons."""
    return (index < 0) | (index >= n_post)


def refused(x: Array, none: Bool[Array, ""], rows: Rows, n_post: int) -> Array:
    """x, or an error at run time where a receiver is `none`, or the rows are not what they say."""
    edges, n_out = rows.post.shape[0], jnp.diff(rows.start)
    rises = (rows.start[0] == 0) & (rows.start[-1] == edges) & (n_out >= 0).all()
    wrong = jnp.stack([none, ~rises, (n_out > rows.longest).any()])
    messages = (
        f"index must name one of {n_post} neurons, 0 to {n_post - 1}",
        f"start must rise from 0 to {edges}, the synapses",
        f"longest must be at least the largest fan-out; got {rows.longest}",
    )
    return eqx.branched_error_if(x, wrong.any(), wrong.argmax(), messages)


def either(kernel: Callable, one_by_one: Callable, many: Callable, native: bool) -> Callable:
    """The form for the platform that the program is compiled for.

    A batch goes sample by sample where spikes do: in step, each sample would wait for the
    busiest. On a GPU it goes as one.
    """

    @jax.custom_batching.custom_vmap
    def run(*arguments):
        supported = arguments[-1].dtype in _KINDS
        cpu = kernel if native and supported and compiled() else one_by_one
        return jax.lax.platform_dependent(
            *arguments, cpu=cpu, cuda=many, rocm=many, default=one_by_one
        )

    @run.def_vmap
    def batch(size: int, batched: list, *arguments):
        axes = tuple(jax.tree.map(lambda b: 0 if b else None, batched))
        in_turn = jax.vmap(jax.custom_batching.sequential_vmap(run), axes, axis_size=size)
        as_one = jax.vmap(many, axes, axis_size=size)
        out = jax.lax.platform_dependent(*arguments, cuda=as_one, rocm=as_one, default=in_turn)
        return out, jax.tree.map(lambda _: True, out)

    return run


# --- pure XLA ---


def over_events(s: Array, look: Callable, put: Callable, carry: Any) -> Any:
    """carry = put(what look(j, carry) finds, carry) for every j with s_j != 0, in order.

    A flag for each block of about sqrt(n) neurons says where to look: the search costs
    little beside one pass over s, and a step without spikes costs that pass alone.
    """
    n = s.shape[0]
    width = math.isqrt(n) + 1
    blocks = jnp.pad(s != 0, (0, -n % width)).reshape(-1, width)

    def block(state):
        flags, carry = state
        b = flags.argmax()

        def spike(state):
            left, carry = state
            j = left.argmax()
            return left.at[j].set(False), put(look(b * width + j, carry), carry)

        carry = jax.lax.while_loop(lambda state: state[0].any(), spike, (blocks[b], carry))[1]
        return flags.at[b].set(False), carry

    return jax.lax.while_loop(lambda state: state[0].any(), block, (blocks.any(1), carry))[1]


def singly(longest: int) -> Callable:
    """`over_events`, as `chunks` makes the other way."""
    return over_events


def row_of(start: Array, j: Array, edges: int, longest: int) -> tuple[Array, Array]:
    """Where a window of `longest` places begins that holds those of sender j, and which they are.

    At the end of the list the window stays inside and begins early.
    """
    first = jnp.minimum(start[j], edges - longest)
    place = first + jnp.arange(longest, dtype=start.dtype)
    return first, (place >= start[j]) & (place < start[j + 1])


def _scattered(sizes: Sequence[tuple[int, int]], by: Callable) -> Callable:
    def run(lists, s):
        pairs = zip(lists, sizes, strict=True)
        return tuple(_summed(index, start, w, s, *size, by) for (index, start, w), size in pairs)

    return run


def _summed(index, start, w, s, longest: int, n_post: int, by: Callable) -> Array:
    def look(j, _):
        first, own = row_of(start, j, index.shape[0], longest)
        to = window(index, first, longest)
        sent = jax.lax.dynamic_slice(w, (first,), (longest,)).astype(s.dtype) * s[j]
        none = own & nowhere(to, n_post)
        return jnp.where(none, n_post, to), jnp.where(none, 1, jnp.where(own, sent, 0))

    def put(found, current):
        to, amount = found
        return current.at[to].add(amount, mode="drop")

    # One place more than there are neurons counts the receivers that are none.
    current = by(longest)(s, look, put, jnp.zeros(n_post + 1, s.dtype))
    return refused(current[:-1], current[-1] != 0, Rows(index, start, longest), n_post)


def _gathered(longest: int, by: Callable) -> Callable:
    def run(index, start, post, pre):
        n_pre, n_post = pre.shape[1], post.shape[1]

        def look(i, _):
            t, j = i // n_pre, jnp.where(i < pre.size, i % n_pre, n_pre)
            first, own = row_of(start, j, index.shape[0], longest)
            at = window(index, first, longest)
            place = jnp.where(own, first + jnp.arange(longest, dtype=first.dtype), len(index))
            return place, post[t, at] * pre[t, j]

        def put(found, change):
            place, heard = found
            return change.at[place].add(heard, mode="drop")

        zeros = jnp.zeros(len(index), post.dtype)
        change = by(longest)(pre.reshape(-1), look, put, zeros)
        none = nowhere(wide(index), n_post).any()
        return refused(change, none, Rows(index, start, longest), n_post)

    return run


# --- the kernel ---


def _native_scattered(sizes: Sequence[tuple[int, int]]) -> Callable:
    longest = np.array([longest for longest, _ in sizes], np.int64)

    def run(lists, s):
        currents = tuple(jax.ShapeDtypeStruct((n_post,), s.dtype) for _, n_post in sizes)
        call = jax.ffi.ffi_call("neurojax_scattered", currents)
        return tuple(call(s, *itertools.chain.from_iterable(lists), longest=longest))

    return run


def _native_gathered(longest: int) -> Callable:
    def run(index, start, post, pre):
        call = jax.ffi.ffi_call(
            "neurojax_gathered", jax.ShapeDtypeStruct(index.shape[:1], post.dtype)
        )
        return call(index, start, post, pre, longest=np.int64(longest))

    return run


@functools.cache
def compiled() -> bool:
    """Whether the kernel is there; where a compiler is found, it is compiled the first time.

    Where it cannot be had, one warning says why and what helps, and the loops run; without a
    compiler, or a home to keep it in, they run without a word.
    """
    try:
        library = _library.load(_SOURCE, _PRODUCTS)
    except _library.Unusable as why:
        message = f"products of events run as loops in XLA: {why}; or pass native=False"
        warnings.warn(message, stacklevel=2)
        return False
    for name in _PRODUCTS if library else ():
        target = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"neurojax_{name}", target, platform="cpu")
    return library is not None


def __dir__() -> list[str]:
    return __all__
