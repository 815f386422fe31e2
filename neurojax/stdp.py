"""Spike-timing-dependent plasticity of pairs, step by step and factorised, on any layout."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from neurojax import traces
from neurojax._check import cast, function, nonnegative, positive, working
from neurojax._repr import described
from neurojax.plasticity import Neuron, Post, Window, post_spike
from neurojax.weights import Connectivity

__all__ = ["STDP", "STDPState"]


class STDPState(NamedTuple):
    """Traces of both sides; each neuron has one, however many synapses it has."""

    x_pre: Float[Array, " pre"]
    x_post: Float[Array, " post"]


@described
class STDP(eqx.Module):
    """Each pair of a spike before the synapse and one behind it, lag = t_post - t_pre:

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
    """

    a_plus: Float[Array, ""] = eqx.field(default=0.01, converter=nonnegative("a_plus", ""))
    a_minus: Float[Array, ""] = eqx.field(default=0.005, converter=nonnegative("a_minus", ""))
    tau_plus: Float[Array, ""] = eqx.field(default=16.8, converter=positive("tau_plus", "ms"))
    tau_minus: Float[Array, ""] = eqx.field(default=33.7, converter=positive("tau_minus", "ms"))
    window: Window = function("window", default=post_spike)

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> STDPState:
        """No spike seen yet."""
        n_pre, n_post = connectivity.n_pre, connectivity.n_post
        return STDPState(jnp.zeros(n_pre, dtype), jnp.zeros(n_post, dtype))

    def step(
        self,
        state: STDPState,
        connectivity: Connectivity,
        pre: Float[Array, " pre"],
        post: Float[Array, " post"],
        *,
        dt: float,
    ) -> tuple[STDPState, Array]:
        """Traces after one step, and the change of every weight: one number a synapse and step."""
        dtype = pre.dtype
        p, s, pre, post = cast((self, state, pre, post), working(dtype))
        x_pre = jnp.exp(-dt / p.tau_plus) * s.x_pre + pre
        faded = jnp.exp(-dt / p.tau_minus) * s.x_post
        at_pre, at_post = connectivity.at_pre, connectivity.at_post
        dw = at_post(p.a_plus * post) * at_pre(x_pre) - at_post(p.a_minus * faded) * at_pre(pre)
        return cast(STDPState(x_pre, faded + post), dtype), dw.astype(dtype)

    def change(
        self,
        connectivity: Connectivity,
        pre: Float[Array, "T pre"],
        post: Float[Array, "T post"],
        *,
        dt: float,
    ) -> Array:
        """Sum over all steps of what `step` gives, from rest, for weights that wait that long."""
        return connectivity.outer(self._sides(post, dt), pre)

    def factor(
        self, neuron: Neuron, post: Post, q: Float[Array, "t n"], *, dt: float
    ) -> Float[Array, "t n"]:
        """D [T, n], as a layer's rule; it does not listen to the third factor `q`."""
        return self._sides(post.z, dt)

    def _sides(self, post: Array, dt: float) -> Array:
        """D_t: what a sender's spike of step t finds, of spikes to come and of those before."""
        dtype = post.dtype
        p, post = cast((self, post), working(dtype))
        to_come = traces.low_pass_reversed(post, jnp.exp(-dt / p.tau_plus))
        before = traces.low_pass(post, jnp.exp(-dt / p.tau_minus)) - post
        return (p.a_plus * to_come - p.a_minus * before).astype(dtype)


def __dir__() -> list[str]:
    return __all__
