"""Receptors: what an arrival does to the membrane, as a current or a conductance.

The order within a step is NEST's: the membrane integrates the current that flowed before
this step's arrivals, the current decays, then the arrivals are added, to act from the next
step on. `step` returns the constant current which, held over `dt`, moves a membrane of time
constant `tau_mem` exactly as the decaying one does, so that every neuron can take it.
Source: Rotter and Diesmann (1999), Exact digital simulation of time-invariant linear systems.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    brief,
    cast,
    finite,
    fits,
    in_range,
    instance,
    nonnegative,
    one_each,
    positive,
    real,
    time_step,
    working,
)
from neurojax._decay import fade, leak, left_out, moved, whole
from neurojax._repr import described
from neurojax.synapses import _propagators as propagators

__all__ = [
    "Alpha",
    "AlphaState",
    "Conductance",
    "DoubleExponential",
    "DoubleExponentialState",
    "Exponential",
    "ExponentialState",
    "MagnesiumBlock",
]


def __dir__() -> list[str]:
    return __all__


def _optional(name: str, *methods: str) -> Callable[[Any], Any]:
    return lambda x: None if x is None else instance(name, x, *methods)


class ExponentialState(NamedTuple):
    """State of one population of `Exponential`.

    Fields:
        i: float [n], nA; current
        i_low: float [n] or None, nA; what i leaves out by rounding; None: nothing felt
    """

    i: Float[Array, "*n"]
    i_low: Float[Array, "*n"] | None


class AlphaState(NamedTuple):
    """State of one population of `Alpha`.

    Fields:
        i: float [n], nA; current
        rise: float [n], nA; what still feeds the current
        i_low: float [n] or None, nA; what i leaves out by rounding; None: nothing felt
        rise_low: float [n] or None, nA; likewise of rise
    """

    i: Float[Array, "*n"]
    rise: Float[Array, "*n"]
    i_low: Float[Array, "*n"] | None
    rise_low: Float[Array, "*n"] | None


class DoubleExponentialState(NamedTuple):
    """State of one population of `DoubleExponential`.

    Fields:
        i: float [n], nA; current
        rise: float [n], nA; what still feeds the current
        i_low: float [n] or None, nA; what i leaves out by rounding; None: nothing felt
        rise_low: float [n] or None, nA; likewise of rise
    """

    i: Float[Array, "*n"]
    rise: Float[Array, "*n"]
    i_low: Float[Array, "*n"] | None
    rise_low: Float[Array, "*n"] | None


@described
class Exponential(eqx.Module):
    """Current that jumps by each arrival and decays.

        tau_syn di/dt = -i,    i = i + arrivals at the end of a step

    Exact for arrivals on the grid, at any ratio of `tau_syn` to `tau_mem`, equal ones too.
    Raises `ValueError` for a `tau_syn` that is not finite and positive, and at `init` for
    one that does not fit the population.

    >>> synapse = nj.Exponential(tau_syn=5.0)  # ms
    >>> state, _ = synapse.step(synapse.init((1,)), jnp.ones(1), dt=1.0)  # 1 nA arrives
    >>> state, _ = synapse.step(state, jnp.zeros(1), dt=5.0)
    >>> f"{float(state.i[0]):.3f} nA"  # exp(-1)
    '0.368 nA'
    """

    tau_syn: Float[Array, "*#n"] = eqx.field(converter=positive("tau_syn", "ms"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> ExponentialState:
        """No current."""
        fits(self, shape)
        return ExponentialState(jnp.zeros(shape, dtype), left_out(self.tau_syn, shape, dtype))

    def step(
        self,
        state: ExponentialState,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[ExponentialState, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (nA), and the current that drove the membrane."""
        dtype = _stored(state)
        p, s, arrivals, dt, tau_mem = _ready_to_step(self, state, arrivals, dt, tau_mem)
        held, _ = propagators.held(dt, tau_mem, p.tau_syn)
        i, i_low = fade(s.i, s.i_low, leak(dt, p.tau_syn), dtype)
        i, i_low = moved(i, arrivals, i_low, dtype)
        current = held * whole(s.i, s.i_low, dtype)
        return ExponentialState(i.astype(dtype), i_low), current.astype(dtype)


@described
class Alpha(eqx.Module):
    """Current that rises and falls after each arrival, as an alpha function.

        i(t) = (t / tau_syn) exp(1 - t / tau_syn)    for one arrival of 1 nA at t = 0

    It peaks at 1 nA after `tau_syn`. Exact and safe as `Exponential` is, with its errors.

    >>> synapse = nj.Alpha(tau_syn=5.0)  # ms
    >>> state, _ = synapse.step(synapse.init((1,)), jnp.ones(1), dt=1.0)  # 1 nA arrives
    >>> state, _ = synapse.step(state, jnp.zeros(1), dt=5.0)
    >>> f"{float(state.i[0]):.3f} nA"
    '1.000 nA'
    """

    tau_syn: Float[Array, "*#n"] = eqx.field(converter=positive("tau_syn", "ms"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> AlphaState:
        """No current, none to come."""
        fits(self, shape)
        zero, low = jnp.zeros(shape, dtype), left_out(self.tau_syn, shape, dtype)
        return AlphaState(zero, zero, low, low)

    def step(
        self,
        state: AlphaState,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[AlphaState, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (nA), and the current that drove the membrane."""
        dtype = _stored(state)
        p, s, arrivals, dt, tau_mem = _ready_to_step(self, state, arrivals, dt, tau_mem)
        held, held_rise = propagators.held(dt, tau_mem, p.tau_syn)
        lost, flow = leak(dt, p.tau_syn), dt / p.tau_syn * whole(s.rise, s.rise_low, dtype)
        i, i_low = fade(s.i, s.i_low, lost, dtype)
        i, i_low = moved(i, (1 + lost) * flow, i_low, dtype)
        rise, rise_low = fade(s.rise, s.rise_low, lost, dtype)
        rise, rise_low = moved(rise, math.e * arrivals, rise_low, dtype)
        current = held * whole(s.i, s.i_low, dtype) + held_rise * whole(s.rise, s.rise_low, dtype)
        new = AlphaState(i.astype(dtype), rise.astype(dtype), i_low, rise_low)
        return new, current.astype(dtype)


@described
class DoubleExponential(eqx.Module):
    """Current that rises with one time constant after each arrival, and decays with another.

        i(t) = f (exp(-t / tau_decay) - exp(-t / tau_rise))    for one arrival of 1 nA at t = 0
        peaks at 1 nA, at t = ln(tau_decay / tau_rise) / (1 / tau_rise - 1 / tau_decay)

    Calculated as what rises and feeds what decays, in which nothing cancels where the two are
    close, nor in gradients: with equal ones it is `Alpha`. Which of them is called which does
    not matter. Exact and safe as `Exponential` is, with its errors.
    Source: Rotter and Diesmann (1999), Exact digital simulation of time-invariant linear systems.

    >>> synapse = nj.DoubleExponential(tau_rise=2.0, tau_decay=10.0)  # ms
    >>> state, _ = synapse.step(synapse.init((1,)), jnp.ones(1), dt=1.0)  # 1 nA arrives
    >>> state, _ = synapse.step(state, jnp.zeros(1), dt=4.024)  # and peaks
    >>> f"{float(state.i[0]):.3f} nA"
    '1.000 nA'
    """

    tau_rise: Float[Array, "*#n"] = eqx.field(converter=positive("tau_rise", "ms"))
    tau_decay: Float[Array, "*#n"] = eqx.field(converter=positive("tau_decay", "ms"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> DoubleExponentialState:
        """No current, none to come."""
        fits(self, shape)
        zero = jnp.zeros(shape, dtype)
        lows = (left_out(tau, shape, dtype) for tau in (self.tau_decay, self.tau_rise))
        return DoubleExponentialState(zero, zero, *lows)

    def step(
        self,
        state: DoubleExponentialState,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[DoubleExponentialState, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (nA), and the current that drove the membrane."""
        dtype = _stored(state)
        p, s, arrivals, dt, tau_mem = _ready_to_step(self, state, arrivals, dt, tau_mem)
        held, held_rise = propagators.held_of_two(dt, tau_mem, p.tau_decay, p.tau_rise)
        a, b = dt / p.tau_decay, dt / p.tau_rise
        flow = b * propagators.moments(a, b)[0] * whole(s.rise, s.rise_low, dtype)
        i, i_low = fade(s.i, s.i_low, leak(dt, p.tau_decay), dtype)
        i, i_low = moved(i, flow, i_low, dtype)
        rise, rise_low = fade(s.rise, s.rise_low, leak(dt, p.tau_rise), dtype)
        jump = jnp.exp(propagators.time_to_peak(p.tau_rise, p.tau_decay))
        rise, rise_low = moved(rise, jump * arrivals, rise_low, dtype)
        current = held * whole(s.i, s.i_low, dtype) + held_rise * whole(s.rise, s.rise_low, dtype)
        new = DoubleExponentialState(i.astype(dtype), rise.astype(dtype), i_low, rise_low)
        return new, current.astype(dtype)


@described
class Conductance(eqx.Module):
    """A receptor whose arrivals open a conductance g (uS) towards a reversal potential.

        I = gate(v) g (e_rev - v)

    `kinetics` says how g follows its arrivals (uS): any receptor for currents, such as
    `Exponential`, read in uS in place of nA; None: the arrivals are the conductance of this
    step. `gate` maps the potential v (mV) of the receiver to the open part, in [0, 1]:
    `MagnesiumBlock` for NMDA; None is open. `step` gives the mean of g over the step, times the
    gate at its start: a membrane that holds it has an error of second order in dt.
    Raises `ValueError` for an `e_rev` that is not finite, and for a gate without `v`; `TypeError`
    for kinetics or a gate that are none.
    Source: Brette et al. (2007), Simulation of networks of spiking neurons, benchmark 1.

    >>> inhibition = nj.Conductance(nj.Exponential(10.0), e_rev=-80.0)  # ms, mV
    >>> state, g = inhibition.step(inhibition.init((1,)), jnp.array([0.067]), dt=0.1)  # uS
    >>> state, g = inhibition.step(state, jnp.zeros(1), dt=0.1)
    >>> f"{float(g[0]):.4f} uS"  # it has decayed for half a step, on the mean
    '0.0667 uS'
    """

    kinetics: Any = eqx.field(converter=_optional("kinetics", "init", "step"))
    e_rev: Float[Array, "*#n"] = eqx.field(converter=finite("e_rev", "mV"))
    gate: Any = eqx.field(default=None, converter=_optional("gate", "__call__"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> Any:
        """State of the kinetics: no conductance; () without kinetics."""
        fits(self, shape)
        return () if self.kinetics is None else self.kinetics.init(shape, dtype)

    def step(
        self,
        state: Any,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        v: Float[Array, "*n"] | None = None,
    ) -> tuple[Any, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (uS), and the mean conductance g [n], uS, meanwhile.

        `v` [n] is the potential at the start of the step, mV, for a receptor with a gate.
        """
        in_range(self)
        if self.kinetics is None:
            g = real(arrivals)
        else:
            state, g = self.kinetics.step(state, arrivals, dt=dt)
        if self.gate is None:
            return state, g
        if v is None:
            raise ValueError(
                "v must be given, as this receptor is gated by it: pass the potential"
                " of the receivers, mV"
            )
        return state, g * self.gate(one_each("v", v, g.shape)).astype(g.dtype)


@described
class MagnesiumBlock(eqx.Module):
    """What magnesium leaves open of an NMDA receptor, at the potential v (mV).

        1 / (1 + mg / 3.57 exp(-0.062 v))

    `mg` in mM; 0 is no block. As `gate` of a `Conductance`.
    Raises `ValueError` for an `mg` that is not finite and >= 0.
    Source: Jahr and Stevens (1990), Voltage dependence of NMDA-activated macroscopic
    conductances predicted by single-channel kinetics.

    >>> nj.MagnesiumBlock()(jnp.array([-70.0, -20.0, 30.0])).round(2)
    Array([0.04, 0.51, 0.96], dtype=float32)
    """

    mg: Float[Array, "*#n"] = eqx.field(default=1.0, converter=nonnegative("mg", "mM"))

    def __call__(self, v: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The open part [n], in [0, 1], at `v` [n], mV."""
        v = real(v, "v")
        fits(self, v.shape)
        p, x = cast((self, -0.062 * v), working(v.dtype))
        closed = p.mg / 3.57 * jnp.exp(jnp.minimum(x, 80.0))  # below -1,290 mV it may overflow
        return (1 / (1 + closed)).astype(v.dtype)


def _stored(state: Any) -> DTypeLike:
    """The dtype of a state, refused where it is none."""
    if not hasattr(getattr(state, "i", None), "dtype"):
        raise TypeError(f"state must be what init gives; got {brief(state)}")
    return state.i.dtype


def _ready_to_step(model, state, arrivals, dt, tau_mem):
    """All in the dtype to calculate in, checked where values are known."""
    dtype = working(state.i.dtype)
    in_range(model)
    arrivals = one_each("arrivals", arrivals, state.i.shape)
    tau_mem = None if tau_mem is None else jnp.asarray(tau_mem, dtype)
    return *cast((model, state, arrivals), dtype), time_step(dt, dtype), tau_mem
