"""Receptors: what an arrival does to the membrane, as a current or a conductance.

The order within a step is NEST's: the membrane integrates the current that flowed before
this step's arrivals, the current decays, then the arrivals are added, to act from the next
step on. `step` returns the constant current which, held over `dt`, moves a membrane of time
constant `tau_mem` exactly as the decaying one does, so that every neuron can take it.
Source: Rotter and Diesmann (1999), Exact digital simulation of time-invariant linear systems.
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import cast, fits, in_range, one_each, positive, time_step, working
from neurojax._decay import add, fade, leak, whole
from neurojax._repr import described

__all__ = [
    "Alpha",
    "AlphaState",
    "Exponential",
    "ExponentialState",
]


def __dir__() -> list[str]:
    return __all__


class ExponentialState(NamedTuple):
    """State of one population of `Exponential`.

    Fields:
        i: float [n], nA; current
        i_low: float [n], nA; what i leaves out of it by rounding
    """

    i: Float[Array, "*n"]
    i_low: Float[Array, "*n"]


class AlphaState(NamedTuple):
    """State of one population of `Alpha`.

    Fields:
        i: float [n], nA; current
        rise: float [n], nA; what still feeds the current
        i_low: float [n], nA; what i leaves out by rounding
        rise_low: float [n], nA; likewise of rise
    """

    i: Float[Array, "*n"]
    rise: Float[Array, "*n"]
    i_low: Float[Array, "*n"]
    rise_low: Float[Array, "*n"]


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
        return ExponentialState(jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype)))

    def step(
        self,
        state: ExponentialState,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[ExponentialState, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (nA), and the current that drove the membrane."""
        dtype = state.i.dtype
        p, s, arrivals, dt, tau_mem = _ready_to_step(self, state, arrivals, dt, tau_mem)
        held, _ = _held(dt, tau_mem, p.tau_syn)
        i, i_low = fade(s.i, s.i_low, leak(dt, p.tau_syn), dtype)
        i, i_low = add(i, arrivals + i_low, dtype)
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
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return AlphaState(zero, zero, none, none)

    def step(
        self,
        state: AlphaState,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[AlphaState, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (nA), and the current that drove the membrane."""
        dtype = state.i.dtype
        p, s, arrivals, dt, tau_mem = _ready_to_step(self, state, arrivals, dt, tau_mem)
        held, held_rise = _held(dt, tau_mem, p.tau_syn)
        lost, flow = leak(dt, p.tau_syn), dt / p.tau_syn * whole(s.rise, s.rise_low, dtype)
        i, i_low = fade(s.i, s.i_low, lost, dtype)
        i, i_low = add(i, (1 + lost) * flow + i_low, dtype)
        rise, rise_low = fade(s.rise, s.rise_low, lost, dtype)
        rise, rise_low = add(rise, math.e * arrivals + rise_low, dtype)
        current = held * whole(s.i, s.i_low, dtype) + held_rise * whole(s.rise, s.rise_low, dtype)
        new = AlphaState(i.astype(dtype), rise.astype(dtype), i_low, rise_low)
        return new, current.astype(dtype)


def _ready_to_step(model, state, arrivals, dt, tau_mem):
    """All in the dtype to calculate in, checked where values are known."""
    dtype = working(state.i.dtype)
    in_range(model)
    arrivals = one_each("arrivals", arrivals, state.i.shape)
    tau_mem = None if tau_mem is None else jnp.asarray(tau_mem, dtype)
    return *cast((model, state, arrivals), dtype), time_step(dt, dtype), tau_mem


def _held(dt, tau_mem, tau_syn):
    """Constant currents that act on the membrane as i and `rise`, 1 nA each, do over `dt`.

    With a = dt / tau_mem, b = dt / tau_syn and x = a - b they are, up to the charge
    1 - exp(-a) of a constant current, the means over the step u in [0, 1] of the membrane's
    memory exp(-a (1 - u)) times what flows, exp(-b u) and b u exp(-b u):

        a exp(-a) M_0(x),    a b exp(-a) M_1(x),    M_k(x) = integral of u^k exp(x u) du

    Without a membrane's memory, a = 0, they are the plain means.
    """
    b = dt / tau_syn
    if tau_mem is None:
        m_0, m_1 = _moments(jnp.zeros_like(b), b)
        return m_0, b * m_1
    a = dt / tau_mem
    m_0, m_1 = _moments(a, b)
    charge = -jnp.expm1(-a)
    return a * m_0 / charge, a * b * m_1 / charge


def _moments(a, b):
    """exp(-a) M_0(a - b) and exp(-a) M_1(a - b), tied by M_0 = exp(x) - x M_1 (by parts).

    The closed forms cancel where a and b are close, and so do their derivatives: there
    M_1 is a series. Beyond |x| = 1 they lose no digits, and never overflow.
    """
    x, memory, flow = a - b, jnp.exp(-a), jnp.exp(-b)
    near = jnp.abs(x) < 1
    inside, outside = jnp.where(near, x, 0), jnp.where(near, 1, x)
    m_1 = memory * _series(inside)
    far_0 = (flow - memory) / outside
    far_1 = (flow - far_0) / outside
    return jnp.where(near, flow - inside * m_1, far_0), jnp.where(near, m_1, far_1)


def _series(x):
    """M_1(x) = sum over j of x^j / (j! (j + 2)); 18 terms are exact to float64 for |x| <= 1."""
    terms = [1 / (math.factorial(j) * (j + 2)) for j in range(18)]
    return functools.reduce(lambda total, term: total * x + term, reversed(terms))
