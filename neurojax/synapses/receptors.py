"""Receptors: what an arrival does to the membrane, as a current or a conductance.

The order within a step is NEST's: the membrane integrates the current that flowed before
this step's arrivals, the current decays, then the arrivals are added, to act from the next
step on. `step` returns the constant current which, held over `dt`, moves a membrane of time
constant `tau_mem` exactly as the decaying one does, so that every neuron can take it.
Source: Rotter and Diesmann (1999), Exact digital simulation of time-invariant linear systems.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
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
from neurojax._decay import add, fade, leak, whole
from neurojax._repr import described

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


class DoubleExponentialState(NamedTuple):
    """State of one population of `DoubleExponential`.

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
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return DoubleExponentialState(zero, zero, none, none)

    def step(
        self,
        state: DoubleExponentialState,
        arrivals: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[DoubleExponentialState, Float[Array, "*n"]]:
        """State after `dt` ms and `arrivals` (nA), and the current that drove the membrane."""
        dtype = state.i.dtype
        p, s, arrivals, dt, tau_mem = _ready_to_step(self, state, arrivals, dt, tau_mem)
        held, held_rise = _held_of_two(dt, tau_mem, p.tau_decay, p.tau_rise)
        a, b = dt / p.tau_decay, dt / p.tau_rise
        flow = b * _moments(a, b)[0] * whole(s.rise, s.rise_low, dtype)
        i, i_low = fade(s.i, s.i_low, leak(dt, p.tau_decay), dtype)
        i, i_low = add(i, flow + i_low, dtype)
        rise, rise_low = fade(s.rise, s.rise_low, leak(dt, p.tau_rise), dtype)
        jump = jnp.exp(_time_to_peak(p.tau_rise, p.tau_decay))
        rise, rise_low = add(rise, jump * arrivals + rise_low, dtype)
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
        v = real(v)
        p, x = cast((self, -0.062 * v), working(v.dtype))
        closed = p.mg / 3.57 * jnp.exp(jnp.minimum(x, 80.0))  # below -1,290 mV it may overflow
        return (1 / (1 + closed)).astype(v.dtype)


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


def _held_of_two(dt, tau_mem, tau_decay, tau_rise):
    """As `_held`, of a current that decays by itself and of a `rise` that feeds it.

    Of the latter 1 - exp(-a) is divided out of a b [-a, -c, -b], where c = dt / tau_decay,
    b = dt / tau_rise and [x, y, z] is the divided difference of exp: its convolution, over the
    step, with what decays and what the membrane remembers.
    """
    held, _ = _held(dt, tau_mem, tau_decay)
    b, c = dt / tau_rise, dt / tau_decay
    if tau_mem is None:
        return held, b * _divided(jnp.zeros_like(b), -c, -b)
    a = dt / tau_mem
    return held, a * b * _divided(-a, -c, -b) / -jnp.expm1(-a)


def _divided(*nodes):
    """Second divided difference of exp at three nodes, to all digits, wherever they lie.

    It is symmetric. Within 1 of each other, exp(mean) times the sum over k of h_k / (k + 2)!,
    with h_k the complete homogeneous symmetric polynomials of what they differ by from the mean;
    farther apart, by the definition.
    """
    low, mid, high = jnp.sort(jnp.stack(jnp.broadcast_arrays(*nodes)), axis=0)
    near = high - low < 1
    mean = (low + mid + high) / 3
    far = (_first(mid, high) - _first(low, mid)) / jnp.where(near, 1, high - low)
    y = [jnp.where(near, x - mean, 0) for x in (low, mid, high)]
    return jnp.where(near, jnp.exp(mean) * _symmetric(*y), far)


def _first(x, y):
    """First divided difference of exp, for x <= y."""
    return _moments(-x, -y)[0]


def _symmetric(x, y, z):
    """Sum over k of h_k / (k + 2)! for x + y + z = 0; 17 terms are exact to float64 within 1."""
    two, three = x * y + y * z + z * x, x * y * z
    h = [jnp.ones_like(x), jnp.zeros_like(x), -two]
    while len(h) < 17:
        h.append(three * h[-3] - two * h[-2])
    return sum(each * (1 / math.factorial(k + 2)) for k, each in reversed(list(enumerate(h))))


def _time_to_peak(tau_rise, tau_decay):
    """In units of tau_decay: ln(r) / (r - 1) with r = tau_decay / tau_rise, 1 where r is 1.

    With y = (r - 1) / (r + 1) that is (1 - y) artanh(y) / y, a series where y is small.
    """
    y = (tau_decay - tau_rise) / (tau_decay + tau_rise)
    near = jnp.abs(y) < 0.3
    square, ratio = jnp.where(near, y, 0) ** 2, jnp.where(near, 2.0, tau_decay / tau_rise)
    terms = [1 / (2 * j + 1) for j in range(16)]
    series = functools.reduce(lambda total, term: total * square + term, reversed(terms))
    return jnp.where(near, (1 - y) * series, jnp.log(ratio) / (ratio - 1))
