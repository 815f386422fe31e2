"""`scattered` as one Triton kernel: one launch a step, in which blocks without a spike end at once.

Each program takes a block of senders, and goes through those of them that are not silent; its
lanes go through the synapses of one, and add to the currents by atomic additions, whose order is
not told. On an H200 it takes a third to a ninth of the time of chunks. No product uses it before
its sums are compared with a CPU's on such a device: `benchmarks.gpu` does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

__all__ = ["summed"]

_SENDERS, _LANES = 64, 128


def summed(n_post: int, *, interpret: bool = False) -> Callable:
    """What `run(index, start, w, s)` sums up [n_post], nA, and how many receivers are none.

    `interpret` runs it on any device, and is right where no sender has two synapses onto one
    neuron; without it only a GPU does.
    """

    def run(index: Array, start: Array, w: Array, s: Array) -> tuple[Array, Array]:
        n = s.shape[0]
        # Beside the neurons one place for receivers that are none, and one for each idle lane.
        zeros = jnp.zeros(n_post + 1 + _LANES, w.dtype)
        call = pl.pallas_call(
            _kernel(n, index.shape[0], n_post),
            jax.ShapeDtypeStruct(zeros.shape, zeros.dtype),
            grid=(-(-n // _SENDERS),),
            input_output_aliases={4: 0},
            compiler_params=triton.CompilerParams(num_warps=_LANES // 32),
            interpret=interpret,
        )
        current = call(jnp.pad(s, (0, -n % _SENDERS)), start, index, w, zeros)
        return current[:n_post], current[n_post]

    return run


def _kernel(n: int, edges: int, n_post: int) -> Callable:
    def kernel(s, start, index, w, _, current):
        lane = jnp.arange(_LANES, dtype=jnp.int32)
        js = pl.program_id(0) * _SENDERS + jnp.arange(_SENDERS, dtype=jnp.int32)

        def spike(left):
            j = left.min()
            x, first, end = s[j], start[j], start[j + 1]

            def part(k, done):
                e = first + k * _LANES + lane
                own = (e >= 0) & (e < end) & (e < edges)
                e = jnp.where(own, e, 0)
                to = _named(index, e)
                none = (to < 0) | (to >= n_post)
                place = jnp.where(none, n_post, to)
                amount = jnp.where(none, 1, w[e].astype(x.dtype) * x).astype(x.dtype)
                place = jnp.where(own, place, n_post + 1 + lane)
                triton.atomic_add(current, (place,), jnp.where(own, amount, 0))
                return done

            jax.lax.fori_loop(0, (end - first + _LANES - 1) // _LANES, part, jnp.int32(0))
            return jnp.where(left == j, n, left)

        left = jnp.where(s[js] != 0, js, n)
        jax.lax.while_loop(lambda left: left.min() < n, spike, left)

    return kernel


def _named(index, e: Array) -> Array:
    """Receivers of synapses `e`, from a list of whole numbers or of three bytes each."""
    if index.ndim == 1:
        return index[e].astype(jnp.int32)
    low, middle, high = (index[e, jnp.full_like(e, i)].astype(jnp.int32) for i in range(3))
    return low | (middle << 8) | (high << 16)


def __dir__() -> list[str]:
    return __all__
