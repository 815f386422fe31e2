"""Release: what a spike sets free at its sender, before delay and weights.

State is one a sender, so that it costs neurons and not synapses, and whatever holds the weights
knows nothing of it. What is sent stands in the place of the spike: `sent` [n_pre].
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Key, Shaped

from neurojax._check import (
    between,
    cast,
    count,
    fits,
    in_range,
    nonnegative,
    one_each,
    optional,
    positive,
    prng_key,
    time_step,
    working,
)
from neurojax._decay import add, fade, leak, whole
from neurojax._draw import happens
from neurojax._memory import affordable
from neurojax._repr import described
from neurojax.synapses._propagators import moments

__all__ = [
    "NMDAGate",
    "NMDAGateState",
    "Quantal",
    "QuantalState",
    "TsodyksMarkram",
    "TsodyksMarkramState",
]


def __dir__() -> list[str]:
    return __all__


class TsodyksMarkramState(NamedTuple):
    """State of the senders of `TsodyksMarkram`; `x` is what is left to release.

    Fields:
        u: float [n]; use as the last spike left it, decayed
        z: float [n]; part of the resources that recovers
        y: float [n] or None; part that is active; None without tau_psc
        u_low: float [n]; what u leaves out by rounding
        z_low: float [n]; likewise of z
        y_low: float [n] or None; likewise of y
    """

    u: Float[Array, "*n"]
    z: Float[Array, "*n"]
    y: Float[Array, "*n"] | None
    u_low: Float[Array, "*n"]
    z_low: Float[Array, "*n"]
    y_low: Float[Array, "*n"] | None

    @property
    def x(self) -> Float[Array, "*n"]:
        """Part of the resources that can be released, [n]."""
        return 1 - self.z - (0 if self.y is None else self.y)


class QuantalState(NamedTuple):
    """State of the senders of `Quantal`.

    Fields:
        u: float [n]; chance of release as the last spike left it, decayed
        empty: int [n]; sites that had nothing to release after the last spike
        still: float [n]; chance that such a site is empty yet
        u_low: float [n]; what u leaves out by rounding
        still_low: float [n]; likewise of still
    """

    u: Float[Array, "*n"]
    empty: Int[Array, "*n"]
    still: Float[Array, "*n"]
    u_low: Float[Array, "*n"]
    still_low: Float[Array, "*n"]


class NMDAGateState(NamedTuple):
    """State of the senders of `NMDAGate`.

    Fields:
        s: float [n]; open part of the channels
        x: float [n]; what opens them
        s_low: float [n]; what s leaves out by rounding
        x_low: float [n]; likewise of x
    """

    s: Float[Array, "*n"]
    x: Float[Array, "*n"]
    s_low: Float[Array, "*n"]
    x_low: Float[Array, "*n"]


@described
class TsodyksMarkram(eqx.Module):
    """Short-term plasticity: spikes use up resources, which recover, and raise their use.

        at a spike:  u <- u + U (1 - u),  then u x is sent and leaves x
        between:     tau_fac du/dt = -u,  tau_rec dx/dt = 1 - x

    From rest (u = 0, x = 1) the first spike sends U. `tau_fac` 0 is depression alone: each spike
    uses U. With `tau_psc` what was sent is active first, and then recovers: x + y + z = 1,

        tau_psc dy/dt = -y,   dz/dt = y / tau_psc - z / tau_rec,   dx/dt = z / tau_rec

    which goes with an `Exponential` receptor of the same time constant. Both are exact over a
    step, in silence of any length, also where time constants meet.
    Raises `ValueError` for `U` outside [0, 1], a negative time constant, and parameters that
    are neither one number nor one a sender.
    Source: Maass and Markram (2002), Synapses as dynamic memory buffers, eqs. 4-5, as in NEST's
    tsodyks2_synapse; with tau_psc Tsodyks, Uziel and Markram (2000), Synchrony generation in
    recurrent networks with frequency-dependent synapses, eqs. 3-4.

    >>> release = nj.TsodyksMarkram(U=0.5, tau_rec=800.0)  # ms
    >>> state, first = release.step(release.init((1,)), jnp.ones(1), dt=50.0)
    >>> state, second = release.step(state, jnp.ones(1), dt=50.0)  # 50 ms later
    >>> f"{float(first[0]):.3f}, {float(second[0]):.3f}"
    '0.500, 0.265'
    """

    U: Float[Array, "*#n"] = eqx.field(default=0.5, converter=between("U", 0.0, 1.0))
    tau_rec: Float[Array, "*#n"] = eqx.field(default=800.0, converter=nonnegative("tau_rec", "ms"))
    tau_fac: Float[Array, "*#n"] = eqx.field(default=0.0, converter=nonnegative("tau_fac", "ms"))
    tau_psc: Float[Array, "*#n"] | None = eqx.field(
        default=None, converter=optional(positive("tau_psc", "ms"))
    )

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> TsodyksMarkramState:
        """Senders that have been silent for long."""
        fits(self, shape)
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        if self.tau_psc is None:
            return TsodyksMarkramState(zero, zero, None, none, none, None)
        return TsodyksMarkramState(zero, zero, zero, none, none, none)

    def step(
        self, state: TsodyksMarkramState, z: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[TsodyksMarkramState, Float[Array, "*n"]]:
        """State after `dt` ms and the spikes `z` (0 or 1), and what these send, u x."""
        dtype = state.u.dtype
        p, s, z, dt = _ready_to_step(self, state, state.u, _one_at_most(z), dt)
        u, u_low = _used(p, s, z, dt, dtype)
        spent, low = fade(s.z, s.z_low, _leak(dt, p.tau_rec), dtype)
        if p.tau_psc is None:
            sent = z * whole(u, u_low, dtype) * (1 - whole(spent, low, dtype))
            spent, low = add(spent, sent + low, dtype)
            new = TsodyksMarkramState(u, spent, None, u_low, low, None)
        else:
            flow = _flow(dt, p.tau_psc, p.tau_rec) * whole(s.y, s.y_low, dtype)
            spent, low = add(spent, flow + low, dtype)
            y, y_low = fade(s.y, s.y_low, leak(dt, p.tau_psc), dtype)
            left = 1 - whole(spent, low, dtype) - whole(y, y_low, dtype)
            sent = z * whole(u, u_low, dtype) * left
            y, y_low = add(y, sent + y_low, dtype)
            new = TsodyksMarkramState(u, spent, y, u_low, low, y_low)
        return _stored(new, dtype), sent.astype(dtype)


@described
class Quantal(eqx.Module):
    """Short-term plasticity by chance: each of `n_sites` has one vesicle, or none.

    At a spike each site that has one releases it with chance u, and what is sent is the part of
    all sites that did; u follows the spikes as in `TsodyksMarkram`. An empty site is filled again
    after a time that is exponential with mean `tau_rec`. So the mean of what is sent is what
    `TsodyksMarkram` sends, at any number of sites. One draw serves all synapses of a sender.
    Raises `ValueError` for parameters out of range, `TypeError` for what is no key.
    Source: Fuhrmann, Segev, Markram and Tsodyks (2002), Coding of temporal information by
    activity-dependent synapses; as in NEST's quantal_stp_synapse.

    >>> release = nj.Quantal(n_sites=5, U=1.0)
    >>> _, sent = release.step(release.init((2,)), jnp.ones(2), dt=0.1, key=jax.random.key(0))
    >>> sent
    Array([1., 1.], dtype=float32)
    """

    n_sites: int = eqx.field(static=True, default=1, converter=count("n_sites"))
    U: Float[Array, "*#n"] = eqx.field(default=0.5, converter=between("U", 0.0, 1.0))
    tau_rec: Float[Array, "*#n"] = eqx.field(default=800.0, converter=nonnegative("tau_rec", "ms"))
    tau_fac: Float[Array, "*#n"] = eqx.field(default=0.0, converter=nonnegative("tau_fac", "ms"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> QuantalState:
        """Senders that have been silent for long."""
        fits(self, shape)
        affordable(
            f"{self.n_sites} sites of shape {tuple(shape)}", 16 * self.n_sites * math.prod(shape)
        )
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return QuantalState(zero, jnp.zeros(shape, jnp.int32), zero, none, none)

    def step(
        self, state: QuantalState, z: Shaped[Array, "*n"], *, dt: ArrayLike, key: Key[Array, ""]
    ) -> tuple[QuantalState, Float[Array, "*n"]]:
        """State after `dt` ms and the spikes `z` (0 or 1), and what these send, in [0, 1]."""
        dtype, key = state.u.dtype, prng_key(key)
        p, s, z, dt = _ready_to_step(self, state, state.u, _one_at_most(z), dt)
        u, u_low = _used(p, s, z, dt, dtype)
        still, low = fade(s.still, s.still_low, _leak(dt, p.tau_rec), dtype)
        chances = whole(still, low, dtype), whole(u, u_low, dtype)
        fired = z != 0
        empty, freed = _drawn(fired, s.empty, *chances, key, self.n_sites)
        still, low = jnp.where(fired, 1, still), jnp.where(fired, 0, low)
        sent = freed.astype(z.dtype) / self.n_sites
        return _stored(QuantalState(u, empty, still, u_low, low), dtype), sent.astype(dtype)


@described
class NMDAGate(eqx.Module):
    """Channels that stay open for long and saturate, one gate a sender.

        tau_rise dx/dt = -x,    x <- x + 1 at a spike
        ds/dt = alpha x (1 - s) - s / tau_decay

    Sends the mean of s over the step, so it has something to send in every step: onto a
    `Conductance` without kinetics, gated by `MagnesiumBlock`. A spike acts from the next step on,
    as on other receptors. x is exact, s of second order in dt.
    Raises `ValueError` for parameters that are not finite and positive.
    Source: Wang (2002), Probabilistic decision making by slow reverberation in cortical circuits,
    Experimental Procedures, "Synapses".

    >>> gate = nj.NMDAGate()
    >>> state, _ = gate.step(gate.init((1,)), jnp.ones(1), dt=0.5)  # a spike
    >>> for _ in range(20):
    ...     state, sent = gate.step(state, jnp.zeros(1), dt=0.5)
    >>> f"{float(sent[0]):.3f}"  # the mean over the tenth millisecond's second half
    '0.585'
    """

    tau_rise: Float[Array, "*#n"] = eqx.field(default=2.0, converter=positive("tau_rise", "ms"))
    tau_decay: Float[Array, "*#n"] = eqx.field(default=100.0, converter=positive("tau_decay", "ms"))
    alpha: Float[Array, "*#n"] = eqx.field(default=0.5, converter=positive("alpha", "1/ms"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> NMDAGateState:
        """All channels shut."""
        fits(self, shape)
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return NMDAGateState(zero, zero, none, none)

    def step(
        self, state: NMDAGateState, z: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[NMDAGateState, Float[Array, "*n"]]:
        """State after `dt` ms and the spikes `z` (0 or 1), and the mean of s meanwhile."""
        dtype = state.s.dtype
        p, s, z, dt = _ready_to_step(self, state, state.s, z, dt)
        lost = leak(dt, p.tau_rise)
        opening = p.alpha * whole(s.x, s.x_low, dtype) * -lost * p.tau_rise / dt  # mean, 1/ms
        rate = 1 / p.tau_decay + opening
        ahead, gone = opening / rate - whole(s.s, s.s_low, dtype), -jnp.expm1(-rate * dt)
        sent = whole(s.s, s.s_low, dtype) + ahead * (1 - gone / (rate * dt))
        new_s, s_low = add(s.s, gone * ahead + s.s_low, dtype)
        x, x_low = fade(s.x, s.x_low, lost, dtype)
        x, x_low = add(x, z + x_low, dtype)
        return _stored(NMDAGateState(new_s, x, s_low, x_low), dtype), sent.astype(dtype)


@functools.partial(jax.jit, static_argnames="n_sites")  # a bare cond compiles at each call
def _drawn(fired, empty, still, u, key, n_sites):
    """Sites that are empty after this step, and sites that released in it, [n] each."""

    def draw():
        rank = jax.lax.broadcasted_iota(empty.dtype, (n_sites, *empty.shape), 0)
        filling, freeing = jax.random.split(key)
        left = (rank < empty[None]) & happens(filling, still[None], rank.shape)
        left = left.sum(0, dtype=empty.dtype)
        freed = fired[None] & (rank >= left[None]) & happens(freeing, u[None], rank.shape)
        freed = freed.sum(0, dtype=empty.dtype)
        return jnp.where(fired, left + freed, empty), freed

    return jax.lax.cond(fired.any(), draw, lambda: (empty, jnp.zeros_like(empty)))


def _ready_to_step(model, state, like, z, dt):
    """All in the dtype to calculate in, checked where values are known."""
    dtype = working(like.dtype)
    in_range(model)
    z = one_each("z", z, like.shape)
    return *cast((model, state, z), dtype), time_step(dt, dtype)


def _one_at_most(z):
    """A second spike finds less than the first, and counts say nothing of what each uses."""
    if not jnp.issubdtype(jnp.asarray(z).dtype, jnp.number):
        return z
    told = (
        "z must be 0 or 1, one spike a step where a release uses up: pass Poisson, or a smaller dt"
    )
    return eqx.error_if(z, (z > 1).any(), told)


def _used(p, s, z, dt, dtype):
    """u after the step and its spike, u + U (1 - u), in two parts."""
    u, low = fade(s.u, s.u_low, _leak(dt, p.tau_fac), dtype)
    return add(u, p.U * (1 - whole(u, low, dtype)) * z + low, dtype)


def _flow(dt, tau_psc, tau_rec):
    """Part of y that is in z a step later; none where that recovers at once."""
    none = tau_rec == 0
    a, b = dt / jnp.where(none, 1.0, tau_rec), dt / tau_psc
    return jnp.where(none, 0.0, b * moments(a, b)[0])


def _leak(dt, tau):
    """As `leak`, and all is gone at once where tau is 0."""
    none = tau == 0
    return jnp.where(none, -1.0, leak(dt, jnp.where(none, 1.0, tau)))


def _stored(state, dtype):
    """A state as it is kept: what is compensated in `dtype`, its rest as it was calculated."""
    kept = {n: x for n, x in state._asdict().items() if not n.endswith("_low")}
    return state._replace(**cast(kept, dtype))
