"""Spike-timing-dependent plasticity of triplets of spikes."""

from typing import Any, NamedTuple

import equinox as eqx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import choice, flag, in_range, nonnegative, positive
from neurojax._repr import described
from neurojax.plasticity._trace import Pairing, Trace, ready, scales, seen, silent
from neurojax.plasticity.dependence import optional_dependence
from neurojax.wiring.sparse import Connectivity
from neurojax.wiring.visits import Visit, Visits

__all__ = [
    "TripletSTDP",
    "TripletSTDPState",
    "TripletTraces",
    "triplet_hippocampus",
    "triplet_visual_cortex",
]


def __dir__() -> list[str]:
    return __all__


class TripletTraces(NamedTuple):
    """What one side remembers of its own spikes.

    Fields:
        fast: Trace [n]; decayed count of spikes `x`, without unit, and its rounding `x_low`
        slow: Trace [n]; likewise, for longer
    """

    fast: Trace
    slow: Trace


class TripletSTDPState(NamedTuple):
    """Traces of both sides, two a neuron.

    Fields:
        pre: TripletTraces [n_pre]; r1 and r2 of the paper
        post: TripletTraces [n_post]; o1 and o2
    """

    pre: TripletTraces
    post: TripletTraces


@described
class TripletSTDP(eqx.Module):
    """Triplet STDP: pairs count for more where the same neuron has fired shortly before.

        at a spike of the sender:    dw = -o1 (a2_minus + a3_minus r2)
        at a spike of the receiver:  dw = r1 (a2_plus + a3_plus o2)

    r1, r2 are traces of the sender's spikes (tau_plus, tau_x), o1, o2 of the receiver's
    (tau_minus, tau_y): with `pairing` "all" each spike adds 1, with "nearest" it leaves 1. r2
    and o2 are those before the spike itself. Spikes of one step are a pair of lag 0, the sender's
    first, as for `STDP`: r1 counts it, o1 does not. The amplitudes belong to their pairing:
    `triplet_visual_cortex` and `triplet_hippocampus` give the published sets. They are in weight
    units; weights are not bounded here.
    Raises `ValueError` for a time constant that is not positive and a negative amplitude.
    Source: Pfister and Gerstner (2006), Triplets of spikes in a model of spike timing-dependent
    plasticity, eqs. 3-4. Defaults: visual cortex, all-to-all, full (Table 3).

    >>> rule = nj.TripletSTDP(a2_plus=0.0, a3_plus=6.5e-3)
    >>> state = rule.init(nj.Dense(1, 1))
    >>> state, (at_pre, at_post) = rule.visit(state, jnp.ones(1), jnp.zeros(1), dt=1.0)
    >>> float(at_pre.event[0]), float(at_post.event[0])
    (0.007000000216066837, 0.0)
    """

    a2_plus: Float[Array, ""] = eqx.field(default=5e-10, converter=nonnegative("a2_plus", ""))
    a3_plus: Float[Array, ""] = eqx.field(default=6.2e-3, converter=nonnegative("a3_plus", ""))
    a2_minus: Float[Array, ""] = eqx.field(default=7e-3, converter=nonnegative("a2_minus", ""))
    a3_minus: Float[Array, ""] = eqx.field(default=2.3e-4, converter=nonnegative("a3_minus", ""))
    tau_x: Float[Array, ""] = eqx.field(default=101.0, converter=positive("tau_x", "ms"))
    tau_y: Float[Array, ""] = eqx.field(default=125.0, converter=positive("tau_y", "ms"))
    tau_plus: Float[Array, ""] = eqx.field(default=16.8, converter=positive("tau_plus", "ms"))
    tau_minus: Float[Array, ""] = eqx.field(default=33.7, converter=positive("tau_minus", "ms"))
    pairing: Pairing = eqx.field(
        static=True, default="all", converter=choice("pairing", "all", "nearest")
    )
    dependence: Any = eqx.field(default=None, converter=optional_dependence)

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> TripletSTDPState:
        """No spike seen yet."""
        in_range(self)
        side = lambda n, *taus: TripletTraces(*(silent(n, tau, dtype) for tau in taus))  # noqa: E731
        pre = side(connectivity.n_pre, self.tau_plus, self.tau_x)
        return TripletSTDPState(pre, side(connectivity.n_post, self.tau_minus, self.tau_y))

    def visit(
        self,
        state: TripletSTDPState,
        pre: Shaped[Array, " pre"],
        post: Shaped[Array, " post"],
        *,
        dt: ArrayLike,
        signal: Any = None,
    ) -> tuple[TripletSTDPState, Visits]:
        """Traces after one step, and what changes where senders fired, then where receivers did.

        `pre` [n_pre] and `post` [n_post] are the spikes of this step; no `signal` is heard.
        """
        p, s, pre, post, dt, dtype = ready(self, state, pre, post, dt)
        r1 = seen(s.pre.fast, pre, p.tau_plus, dt, dtype, p.pairing)
        r2 = seen(s.pre.slow, pre, p.tau_x, dt, dtype, p.pairing)
        o1 = seen(s.post.fast, post, p.tau_minus, dt, dtype, p.pairing)
        o2 = seen(s.post.slow, post, p.tau_y, dt, dtype, p.pairing)
        plus, minus = scales(self.dependence)
        at_pre = Visit(pre * (p.a2_minus + p.a3_minus * r2.before), -o1.before, minus)
        at_post = Visit(post * (p.a2_plus + p.a3_plus * o2.before), r1.after, plus)
        new = TripletTraces(r1.kept, r2.kept), TripletTraces(o1.kept, o2.kept)
        return TripletSTDPState(*new), (at_pre, at_post)


# Pfister and Gerstner (2006): a2_plus, a3_plus, a2_minus, a3_minus, tau_x, tau_y. Without
# a3_minus tau_x has no part in it: it is that of the full model.
_TABLE_3 = {
    ("all", False): (5e-10, 6.2e-3, 7e-3, 2.3e-4, 101.0, 125.0),
    ("all", True): (0.0, 6.5e-3, 7.1e-3, 0.0, 101.0, 114.0),
    ("nearest", False): (8.8e-11, 5.3e-2, 6.6e-3, 3.1e-3, 714.0, 40.0),
    ("nearest", True): (0.0, 5e-2, 8e-3, 0.0, 714.0, 40.0),
}
_TABLE_4 = {
    ("all", False): (6.1e-3, 6.7e-3, 1.6e-3, 1.4e-3, 946.0, 27.0),
    ("all", True): (5.3e-3, 8e-3, 3.5e-3, 0.0, 946.0, 40.0),
    ("nearest", False): (4.6e-3, 9.1e-3, 3e-3, 7.5e-9, 575.0, 47.0),
    ("nearest", True): (4.6e-3, 9.1e-3, 3e-3, 0.0, 575.0, 48.0),
}


def triplet_visual_cortex(pairing: Pairing = "all", minimal: bool = False) -> TripletSTDP:
    """`TripletSTDP` as fitted to visual cortex; with `minimal` the fewest terms that fit.

    Weights count from 1. Source: Pfister and Gerstner (2006), Table 3, for the data of Sjöström,
    Turrigiano and Nelson (2001).

    >>> nj.triplet_visual_cortex(minimal=True).tau_y
    Array(114., dtype=float32)
    """
    return _published(_TABLE_3, pairing, minimal)


def triplet_hippocampus(pairing: Pairing = "all", minimal: bool = False) -> TripletSTDP:
    """`TripletSTDP` as fitted to hippocampal cultures; with `minimal` the fewest terms that fit.

    Weights count from 1. Source: Pfister and Gerstner (2006), Table 4, for the data of Wang,
    Gerkin, Nauen and Bi (2005).

    >>> nj.triplet_hippocampus(pairing="nearest").tau_x
    Array(575., dtype=float32)
    """
    return _published(_TABLE_4, pairing, minimal)


def _published(table: dict, pairing: Pairing, minimal: bool) -> TripletSTDP:
    row = table[choice("pairing", "all", "nearest")(pairing), flag("minimal")(minimal)]
    return TripletSTDP(*row, pairing=pairing)
