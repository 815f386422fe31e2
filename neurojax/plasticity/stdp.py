"""Spike-timing-dependent plasticity of pairs, step by step and factorised, on any layout."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    cast,
    choice,
    function,
    in_range,
    nonnegative,
    positive,
    real,
    time_step,
    working,
)
from neurojax._decay import leak
from neurojax._repr import described
from neurojax.plasticity._trace import Pairing, Trace, ready, scales, seen, silent
from neurojax.plasticity.dependence import optional_dependence
from neurojax.plasticity.three_factor import Neuron, Post, Window, post_spike
from neurojax.plasticity.traces import _leaky
from neurojax.wiring.sparse import Connectivity
from neurojax.wiring.visits import Visit, Visits

__all__ = ["STDP", "STDPState"]


class STDPState(NamedTuple):
    """Traces of both sides; each neuron has one, however many synapses it has.

    Fields:
        pre: Trace [n_pre]; decayed count of spikes `x`, without unit, and its rounding `x_low`
        post: Trace [n_post]; likewise
    """

    pre: Trace
    post: Trace


@described
class STDP(eqx.Module):
    """Pair-based STDP: a weight changes by each pair of spikes, lag = t_post - t_pre (ms):

        dw = a_plus exp(-lag / tau_plus)       for lag >= 0
        dw = -a_minus exp(lag / tau_minus)     for lag < 0

    Spikes of one step count as lag 0: what arrives in a step acts before the receiver fires.
    Exponential windows need one trace a neuron,

        x_pre <- exp(-dt / tau_plus) x_pre + z_pre
        x_post <- exp(-dt / tau_minus) x_post + z_post
        dw = a_plus z_post x_pre - a_minus z_pre exp(-dt / tau_minus) x_post

    `visit` gives that step by step, for a network that learns while it runs; `change` and, as a
    layer's rule, `factor` sum it over a presentation, for weights that wait that long: summing
    over the sender's spikes first leaves D_t [n_post], dw = sum_t D_t z_pre_t^T, as for
    `ThreeFactor`. On a `FanOut` each costs what the spikes cost. With a delay, `pre` are spikes
    as they arrive. `a_plus` and `a_minus` are in weight units; by default both sides of the
    curve have the same area. By default `pairing` "all" all pairs add up; with "nearest" each
    spike of one side pairs with the last one of the other alone. `dependence` makes changes
    depend on the weight. Weights are not bounded here.
    Raises `ValueError` for a time constant that is not positive, a negative amplitude, and what
    cannot be summed ahead: `factor` of the nearest pairs, and either with a `dependence`.
    Source: Song, Miller and Abbott (2000), eq. 1, for the curve of Bi and Poo (1998), fig. 7;
    time constants: Pfister and Gerstner (2006), after Bi and Poo (2001). Nearest pairs: Morrison,
    Diesmann and Gerstner (2008), Phenomenological models of synaptic plasticity, fig. 7A.

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
    pairing: Pairing = eqx.field(
        static=True, default="all", converter=choice("pairing", "all", "nearest")
    )
    dependence: Any = eqx.field(default=None, converter=optional_dependence)

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> STDPState:
        """No spike seen yet."""
        in_range(self)
        pre = silent(connectivity.n_pre, self.tau_plus, dtype)
        return STDPState(pre, silent(connectivity.n_post, self.tau_minus, dtype))

    def visit(
        self,
        state: STDPState,
        pre: Shaped[Array, " pre"],
        post: Shaped[Array, " post"],
        *,
        dt: ArrayLike,
        signal: Any = None,
    ) -> tuple[STDPState, Visits]:
        """Traces after one step, and what changes where senders fired, then where receivers did.

        `pre` [n_pre] and `post` [n_post] are the spikes of this step; no `signal` is heard.
        """
        p, s, pre, post, dt, dtype = ready(self, state, pre, post, dt)
        one = seen(s.pre, pre, p.tau_plus, dt, dtype, p.pairing)
        other = seen(s.post, post, p.tau_minus, dt, dtype, p.pairing)
        plus, minus = scales(self.dependence)
        at_pre = Visit(pre, -p.a_minus * other.before, minus)
        at_post = Visit(post, p.a_plus * one.after, plus)
        return STDPState(one.kept, other.kept), (at_pre, at_post)

    def change(
        self,
        connectivity: Connectivity,
        pre: Shaped[Array, "T pre"],
        post: Shaped[Array, "T post"],
        *,
        dt: ArrayLike,
    ) -> Array:
        """Sum over all steps of what `visit` asks for, from rest, for weights that wait."""
        self._refuse_dependence("change")
        if self.pairing == "all":
            d = self._sides(post, dt)
            return connectivity.outer(d, real(pre, "pre").astype(d.dtype))

        def step(state, z):
            state, visits = self.visit(state, *z, dt=dt)
            return state, [(visit.event, visit.trace) for visit in visits if visit is not None]

        post = real(post, "post")
        dtype = post.dtype
        pre = real(pre, "pre").astype(dtype)
        _, sides = jax.lax.scan(step, self.init(connectivity, dtype), (pre, post))
        (sent, before), (fired, after) = jax.tree.map(lambda x: x.astype(dtype), sides)
        return connectivity.outer(fired, after) + connectivity.outer(before, sent)

    def factor(
        self, neuron: Neuron, post: Post, q: Float[Array, "t n"], *, dt: ArrayLike
    ) -> Float[Array, "t n"]:
        """D [T, n], as a layer's rule; it does not listen to the third factor `q`."""
        self._refuse_dependence("factor")
        if self.pairing != "all":
            raise ValueError(
                'pairing must be "all" for factor, as a receiver cannot tell which spikes of'
                ' a sender are its nearest; got "nearest": pass learn=True to simulate'
            )
        return self._sides(post.z, dt)

    def _refuse_dependence(self, what: str) -> None:
        if self.dependence is not None:
            raise ValueError(
                f"dependence must be None for {what}, as weights stay as they are until it ends;"
                f" got {type(self.dependence).__name__}: pass learn=True to simulate"
            )

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
