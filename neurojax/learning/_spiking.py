"""What the spiking learners share: pictures over time, currents, and what drives what."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from neurojax._check import known_finite, real
from neurojax.data.ragged import lasting
from neurojax.learning.learner import forward
from neurojax.neurons.leaky import ALIF, LIF
from neurojax.plasticity.three_factor import Post
from neurojax.weights import Weights


def shown(x: Any, n_in: int, start: int) -> Float[Array, "..."]:
    """Samples held, [b, n_in], or over time with time first, [T, b, n_in]; refused if neither."""
    x = known_finite("x", real(lasting(x)[0], "x"))
    size = lambda axis: x[(slice(0, 1),) * axis].size if x.ndim > axis else 0  # noqa: E731
    if size(2) == n_in and len(x):
        if x.shape[1] <= start:
            raise ValueError(f"x must have more than {start} steps, as start is; got {x.shape[1]}")
        return x.reshape(*x.shape[:2], n_in).swapaxes(0, 1)
    if x.ndim < 2 or size(1) != n_in:
        raise ValueError(
            f"x must be [batch, {n_in}], or [batch, steps, {n_in}] over time; got {list(x.shape)}"
        )
    return x.reshape(len(x), n_in)


def lengths(x: Any, start: int) -> Int[Array, " b"] | None:
    """How many steps each sample has, where they differ; refused where one ends before `start`."""
    ends = lasting(x)[1]
    if ends is None:
        return None
    short = f"lengths must be above {start}, the step from which scores count (start)"
    if isinstance(ends, Tracer):
        return eqx.error_if(ends, ends <= start, short)
    if (bad := np.asarray(ends) <= start).any():
        got = f"{np.asarray(ends)[bad].min()} ({bad.sum()} of {bad.size})"
        raise ValueError(f"{short}; got {got}: pass a smaller start, or leave such samples out")
    return jnp.asarray(ends)


def late(
    e: Float[Array, "t b c"], start: int, ends: Int[Array, " b"] | None = None
) -> Float[Array, "t b c"]:
    """What counts of each step, from `start` to each sample's end, over how many of them count."""
    t = jnp.arange(len(e))[:, None]
    last = jnp.full(e.shape[1], len(e)) if ends is None else ends
    counts = (t >= start) & (t < last[None])
    return jnp.where(counts[..., None], e, 0) / (last - start).astype(e.dtype)[None, :, None]


def decided(
    y: Float[Array, "t b c"], start: int, ends: Int[Array, " b"] | None = None
) -> Float[Array, "b c"]:
    """Mean over the steps that count."""
    return y[start:].mean(0) if ends is None else late(y, start, ends).sum(0)


def spikes_a_step(
    z: Float[Array, "t b n"], ends: Int[Array, " b"] | None = None
) -> Float[Array, ""]:
    """Mean rate of a layer over the steps that the samples have."""
    if ends is None:
        return z.mean()
    own = jnp.arange(len(z))[:, None] < ends[None]
    return jnp.where(own[..., None], z, 0).sum() / (ends.sum() * z.shape[-1]).astype(z.dtype)


def biased(s: Float[Array, "*lead n"]) -> Float[Array, "*lead n1"]:
    """A 1 behind each sample, which the bias is read by."""
    return jnp.concatenate([s, jnp.ones((*s.shape[:-1], 1), s.dtype)], -1)


def arriving(
    weights: Weights, s: Float[Array, "*t b pre"], n_steps: int, key: Array | None
) -> Float[Array, "t b post"]:
    """Currents of all steps, [T, b, n_post]; what is held is read once a presentation."""
    if s.ndim == 2:
        current = forward(weights, s, key)
        return jnp.broadcast_to(current, (n_steps, *current.shape))
    return forward(weights, s.reshape(-1, s.shape[-1]), key).reshape(*s.shape[:2], -1)


def resting(neuron: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A batch of `shape` [b, n] of neurons at rest, which may each have parameters of their own."""
    return jax.vmap(lambda _: neuron.init(shape[1:], dtype))(jnp.arange(shape[0]))


def stepped(
    neuron: Any, window: Any, state: Any, current: Float[Array, "b n"], dt: float | Array
) -> tuple[Any, Post]:
    """The batch after a step, and what its synapses may know of it: windows and spikes [b, n]."""
    state, z = jax.vmap(lambda s, i: neuron.step(s, i, dt=dt))(state, current)
    return state, Post(window(state.v, jax.vmap(neuron.threshold)(state), z), z)


def outer(
    weights: Weights, d: Float[Array, "t b post"], s: Float[Array, "*t b pre"]
) -> Float[Array, "..."]:
    """sum_t D_t s_t^T, over the batch too, where s may be held."""
    return weights.outer(d.sum(0) if s.ndim == 2 else d, s)


def unheld(neuron: Any) -> Any:
    """Field converter: an `LIF` or `ALIF` that is never refractory."""
    if not isinstance(neuron, LIF | ALIF):
        raise TypeError(f"neuron must be an LIF or ALIF; got {type(neuron).__name__}")
    if neuron.t_ref is not None:
        raise ValueError("neuron must have t_ref=None, as traces do not halt; got one")
    return neuron


def worth(neuron: LIF | ALIF, dt: float | Array) -> Array:
    """mV that a membrane moves in the step in which 1 nA flows: (1 - alpha) r_mem."""
    return (1 - neuron.decay(dt)) * neuron.r_mem


def at(key: Array | None, i: Any) -> Array | None:
    """The key of the i-th of several draws."""
    return None if key is None else jax.random.fold_in(key, i)
