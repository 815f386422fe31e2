"""Plasticity of spike pairs that waits for a reward."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import cast, in_range, instance, one_number, positive, real, time_step, working
from neurojax._decay import fade, leak, moved, whole
from neurojax._repr import described
from neurojax.plasticity.stdp import STDP
from neurojax.wiring.sparse import Connectivity
from neurojax.wiring.visits import Visits

__all__ = ["DopamineSTDP", "DopamineSTDPState"]


def __dir__() -> list[str]:
    return __all__


class DopamineSTDPState(NamedTuple):
    """What synapses remember, and how much dopamine their receivers have.

    Fields:
        pairs: any; traces of the rule of spike pairs, such as STDPState
        c: float [shape of the layout], weight units; eligibility
        d: float [n_post], 1/ms; dopamine
        c_low: float [shape of the layout]; what c leaves out by rounding
        d_low: float [n_post]; likewise of d
    """

    pairs: Any
    c: Float[Array, "..."]
    d: Float[Array, " post"]
    c_low: Float[Array, "..."]
    d_low: Float[Array, " post"]


def _pairs(x: Any) -> Any:
    instance("pairs", x, "init", "visit")
    if getattr(x, "dependence", None) is not None:
        raise ValueError(
            "dependence of pairs must be None, as they change an eligibility and no weight; got"
            f" {type(x.dependence).__name__}"
        )
    return x


@described
class DopamineSTDP(eqx.Module):
    """Reward-modulated STDP: spike pairs make a synapse eligible, dopamine then changes it.

        tau_c dc/dt = -c,    c <- c + the change that `pairs` asks for
        tau_d dd/dt = -d,    d <- d + signal of the step
        dw/dt = c d          (time in ms)

    `step` is exact: over `dt` both decay, which changes w by c d tau (1 - exp(-dt / tau)), with
    1 / tau = 1 / tau_c + 1 / tau_d; pairs and signal of a step act from its end on. `pairs` is
    any rule with `visit`, by default `STDP`. c is a number a synapse, so a step costs synapses,
    where that of `pairs` costs spikes.
    Raises `ValueError` for time constants that are not positive, `pairs` that depend on weights,
    and a signal that is neither one number nor one a receiver.
    Source: Izhikevich (2007), Solving the distal reward problem through linkage of STDP and
    dopamine signaling.

    >>> rule, wiring = nj.DopamineSTDP(), nj.Dense(1, 1)
    >>> pre, post = jnp.ones(1), jnp.zeros(1)
    >>> state, dw = rule.step(rule.init(wiring), wiring, pre, post, dt=1.0)
    >>> state, dw = rule.step(state, wiring, post, pre, dt=1.0, signal=0.5)  # post, and reward
    >>> state, dw = rule.step(state, wiring, post, post, dt=1.0)
    >>> f"{float(dw[0, 0]):.5f}"  # 0.01 exp(-1 / 16.8) 0.5, nearly
    '0.00470'
    """

    pairs: Any = eqx.field(default_factory=STDP, converter=_pairs)
    tau_c: Float[Array, ""] = eqx.field(default=1000.0, converter=positive("tau_c", "ms"))
    tau_d: Float[Array, ""] = eqx.field(default=200.0, converter=positive("tau_d", "ms"))

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> DopamineSTDPState:
        """No spike seen yet, no dopamine."""
        in_range(self)
        shapes = connectivity.shape, (connectivity.n_post,)
        c, d = (jnp.zeros(s, dtype) for s in shapes)
        c_low, d_low = (jnp.zeros(s, working(dtype)) for s in shapes)
        return DopamineSTDPState(self.pairs.init(connectivity, dtype), c, d, c_low, d_low)

    def step(
        self,
        state: DopamineSTDPState,
        connectivity: Connectivity,
        pre: Shaped[Array, " pre"],
        post: Shaped[Array, " post"],
        *,
        dt: ArrayLike,
        signal: ArrayLike | None = None,
    ) -> tuple[DopamineSTDPState, Float[Array, "..."]]:
        """State after one step, and the change of every weight, [shape of the layout].

        `pre` [n_pre] and `post` [n_post] are the spikes of this step, `signal` the dopamine that
        is released in it, 1/ms: one number or [n_post]; None: none.
        """
        in_range(self)
        one_number(self)
        dtype = state.c.dtype
        p, s = cast((self, state._replace(pairs=None)), working(dtype))
        dt = time_step(dt, working(dtype))
        tau = 1 / (1 / p.tau_c + 1 / p.tau_d)
        held = whole(s.d, s.d_low, dtype) * -leak(dt, tau) * tau
        dw = whole(s.c, s.c_low, dtype) * connectivity.at_post(held)
        pairs, visits = self.pairs.visit(state.pairs, pre, post, dt=dt)
        c, c_low = fade(s.c, s.c_low, leak(dt, p.tau_c), dtype)
        c, c_low = moved(c, asked(connectivity, visits).astype(c.dtype), c_low, dtype)
        d, d_low = fade(s.d, s.d_low, leak(dt, p.tau_d), dtype)
        d, d_low = moved(d, _released(signal, d), d_low, dtype)
        new = DopamineSTDPState(pairs, c.astype(dtype), d.astype(dtype), c_low, d_low)
        return new, dw.astype(dtype)


def asked(connectivity: Connectivity, visits: Visits) -> Float[Array, "..."]:
    """What the visits of one step ask of every synapse, in the shape of the layout."""
    at_pre, at_post = connectivity.at_pre, connectivity.at_post
    (sent, before, _), (fired, after, _) = visits  # pyright: ignore[reportGeneralTypeIssues]
    return at_pre(sent) * at_post(before) + at_post(fired) * at_pre(after)


def _released(signal: ArrayLike | None, d: Array) -> Array:
    """Dopamine of this step, one number or one a receiver."""
    if signal is None:
        return jnp.zeros_like(d)
    given = real(signal)
    if given.shape not in ((), d.shape):
        raise ValueError(
            f"signal must be one number or one a receiver, of shape {d.shape}; got {given.shape}"
        )
    return given.astype(d.dtype)
