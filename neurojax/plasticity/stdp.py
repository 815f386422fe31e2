"""Spike-timing-dependent plasticity of pairs, step by step and factorised, on any layout."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    cast,
    function,
    in_range,
    nonnegative,
    one_each,
    one_number,
    positive,
    real,
    time_step,
    working,
)
from neurojax._decay import add, fade, leak, whole
from neurojax._repr import described
from neurojax.plasticity.three_factor import Neuron, Post, Window, post_spike
from neurojax.plasticity.traces import _leaky
from neurojax.wiring.sparse import Connectivity

__all__ = ["STDP", "STDPState"]


class STDPState(NamedTuple):
    """Traces of both sides; each neuron has one, however many synapses it has.

    Fields:
        x_pre: float [n_pre]; decayed count of spikes, without unit
        x_post: float [n_post]; likewise
        x_pre_low: float [n_pre]; what x_pre leaves out by rounding
        x_post_low: float [n_post]; likewise of x_post
    """

    x_pre: Float[Array, " pre"]
    x_post: Float[Array, " post"]
    x_pre_low: Float[Array, " pre"]
    x_post_low: Float[Array, " post"]


@described
class STDP(eqx.Module):
    """Pair-based STDP: a weight changes by each pair of spikes, lag = t_post - t_pre (ms):

        dw = a_plus exp(-lag / tau_plus)       for lag >= 0
        dw = -a_minus exp(lag / tau_minus)     for lag < 0

    All pairs add up. Spikes of one step count as lag 0: what arrives in a step acts before
    the receiver fires. Exponential windows need one trace a neuron,

        x_pre <- exp(-dt / tau_plus) x_pre + z_pre
        x_post <- exp(-dt / tau_minus) x_post + z_post
        dw = a_plus z_post x_pre - a_minus z_pre exp(-dt / tau_minus) x_post

    and summing over the sender's spikes first leaves D_t [n_post], dw = sum_t D_t z_pre_t^T,
    as for `ThreeFactor`; on a `FanOut` that costs what the senders' spikes cost. With a delay,
    `pre` are spikes as they arrive. `a_plus` and `a_minus` are in weight units; by default both
    sides of the curve have the same area. Weights are not bounded here.
    Raises `ValueError` for a time constant that is not positive and a negative amplitude.
    Source: Song, Miller and Abbott (2000), eq. 1, for the curve of Bi and Poo (1998), fig. 7;
    time constants: Pfister and Gerstner (2006), after Bi and Poo (2001).

    >>> rule = nj.STDP(a_plus=0.01, tau_plus=20.0)
    >>> pre = jnp.zeros((20, 1)).at[0].set(1)  # [T, n_pre]: a spike in the first step
    >>> post = jnp.zeros((20, 1)).at[10].set(1)  # and one 10 steps later
    >>> dw = rule.change(nj.Dense(1, 1), pre, post, dt=1.0)
    >>> f"{float(dw[0, 0]):.5f}"  # 0.01 exp(-10 / 20), in weight units
    '0.00607'
    """

    a_plus: Float[Array, ""] = eqx.field(default=0.01, converter=nonnegative("a_plus", ""))
    a_minus: Float[Array, ""] = eqx.field(default=0.005, converter=nonnegative("a_minus", ""))
    tau_plus: Float[Array, ""] = eqx.field(default=16.8, converter=positive("tau_plus", "ms"))
    tau_minus: Float[Array, ""] = eqx.field(default=33.7, converter=positive("tau_minus", "ms"))
    window: Window = function("window", default=post_spike)

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> STDPState:
        """No spike seen yet."""
        n = connectivity.n_pre, connectivity.n_post
        return STDPState(*(jnp.zeros(m, kept) for kept in (dtype, working(dtype)) for m in n))

    def step(
        self,
        state: STDPState,
        connectivity: Connectivity,
        pre: Shaped[Array, " pre"],
        post: Shaped[Array, " post"],
        *,
        dt: ArrayLike,
    ) -> tuple[STDPState, Array]:
        """Traces after one step, and the change of every weight: one number a synapse and step."""
        dtype = state.x_pre.dtype
        in_range(self)
        one_number(self)
        pre = one_each("pre", pre, state.x_pre.shape)
        post = one_each("post", post, state.x_post.shape)
        p, s, pre, post = cast((self, state, pre, post), working(dtype))
        dt = time_step(dt, pre.dtype)
        x_pre, pre_low = fade(s.x_pre, s.x_pre_low, leak(dt, p.tau_plus), dtype)
        x_pre, pre_low = add(x_pre, pre + pre_low, dtype)
        faded, low = fade(s.x_post, s.x_post_low, leak(dt, p.tau_minus), dtype)
        x_post, post_low = add(faded, post + low, dtype)
        at_pre, at_post = connectivity.at_pre, connectivity.at_post
        dw = at_post(p.a_plus * post) * at_pre(whole(x_pre, pre_low, dtype))
        dw = dw - at_post(p.a_minus * whole(faded, low, dtype)) * at_pre(pre)
        new = STDPState(x_pre.astype(dtype), x_post.astype(dtype), pre_low, post_low)
        return new, dw.astype(dtype)

    def change(
        self,
        connectivity: Connectivity,
        pre: Shaped[Array, "T pre"],
        post: Shaped[Array, "T post"],
        *,
        dt: ArrayLike,
    ) -> Array:
        """Sum over all steps of what `step` gives, from rest, for weights that wait that long."""
        d = self._sides(post, dt)
        return connectivity.outer(d, real(pre, "pre").astype(d.dtype))

    def factor(
        self, neuron: Neuron, post: Post, q: Float[Array, "t n"], *, dt: ArrayLike
    ) -> Float[Array, "t n"]:
        """D [T, n], as a layer's rule; it does not listen to the third factor `q`."""
        return self._sides(post.z, dt)

    def _sides(self, post: Array, dt: ArrayLike) -> Array:
        """D_t: what a sender's spike of step t finds, of spikes to come and of those before."""
        in_range(self)
        post = real(post, "post")
        dtype = post.dtype
        p, post = cast((self, post), working(dtype))
        dt = time_step(dt, post.dtype)
        to_come = _leaky(post, leak(dt, p.tau_plus), reverse=True)
        before = _leaky(post, leak(dt, p.tau_minus)) - post
        return (p.a_plus * to_come - p.a_minus * before).astype(dtype)


def __dir__() -> list[str]:
    return __all__
