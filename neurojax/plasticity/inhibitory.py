"""Plasticity of inhibitory synapses, which keeps their receivers at a rate."""

from typing import Any

import equinox as eqx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import in_range, nonnegative, positive
from neurojax._repr import described
from neurojax.plasticity._trace import ready, seen, silent
from neurojax.plasticity.stdp import STDPState
from neurojax.wiring.sparse import Connectivity
from neurojax.wiring.visits import Visit, Visits

__all__ = ["InhibitorySTDP"]


def __dir__() -> list[str]:
    return __all__


@described
class InhibitorySTDP(eqx.Module):
    """Each pair of spikes strengthens, each spike of the sender weakens.

        at a spike of the sender:    dw = eta (x_post - alpha),    alpha = 2 rho_0 tau
        at a spike of the receiver:  dw = eta x_pre

    with traces that decay with `tau`. Where inhibition works, receivers settle at `rho_0` (Hz),
    whatever else drives them. Spikes of one step are one pair of lag 0. Weights count as how
    strong inhibition is, not negative, as on a `Conductance` with a low e_rev; hold them by
    `nj.ideal(bounds=(0, w_max))`, as weights are not bounded here. `eta` is in weight units.
    Raises `ValueError` for a `tau` that is not positive and a negative `eta` or `rho_0`.
    Source: Vogels, Sprekeler, Zenke, Clopath and Gerstner (2011), Inhibitory plasticity balances
    excitation and inhibition in sensory pathways and memory networks.

    >>> rule = nj.InhibitorySTDP(eta=1e-3, rho_0=3.0)
    >>> state, (at_pre, _) = rule.visit(rule.init(nj.Dense(1, 1)), jnp.ones(1), jnp.ones(1), dt=0.1)
    >>> f"{float(at_pre.trace[0]):.2e}"  # -eta alpha, in weight units
    '-1.20e-04'
    """

    eta: Float[Array, ""] = eqx.field(default=1e-3, converter=nonnegative("eta", ""))
    rho_0: Float[Array, ""] = eqx.field(default=3.0, converter=nonnegative("rho_0", "Hz"))
    tau: Float[Array, ""] = eqx.field(default=20.0, converter=positive("tau", "ms"))

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> STDPState:
        """No spike seen yet."""
        in_range(self)
        pre = silent(connectivity.n_pre, self.tau, dtype)
        return STDPState(pre, silent(connectivity.n_post, self.tau, dtype))

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
        one = seen(s.pre, pre, p.tau, dt, dtype, "all")
        other = seen(s.post, post, p.tau, dt, dtype, "all")
        alpha = 2e-3 * p.rho_0 * p.tau  # Hz times ms
        at_pre = Visit(pre, p.eta * (other.before - alpha))
        at_post = Visit(post, p.eta * one.after)
        return STDPState(one.kept, other.kept), (at_pre, at_post)
