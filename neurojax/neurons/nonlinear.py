"""Neurons whose upswing is part of the equation: quadratic, exponential, adaptive exponential.

They fire where the upswing passes `v_peak`, at which the potential is cut: `v` of a step with a
spike is v_peak, and the next step starts from the reset. Below that QIF is exact for current and
conductance held over dt, EIF and AdEx are of second order. Each parameter is one number or one a
neuron; states are kept as those of `LIF` are. Gradients pass through spikes, not through resets,
whose jump of tens of mV would let them explode.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    cast,
    count,
    finite,
    fits,
    function,
    nonnegative,
    optional,
    ordered,
    positive,
    working,
)
from neurojax._decay import add, leak, whole
from neurojax._repr import described
from neurojax.neurons._steps import at, capped, checked, fired, mean_growth, stored
from neurojax.neurons.surrogate import Spike, heaviside

__all__ = ["EIF", "QIF", "AdEx", "AdExState", "EIFState", "QIFState"]

_STEEPEST = 20.0  # exponents of the upswing: beyond, it takes less than any dt
_FASTEST = 60.0  # likewise for what grows in one step


def __dir__() -> list[str]:
    return __all__


class QIFState(NamedTuple):
    """State of one population of `QIF`.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        v_low: float [n], mV; what v leaves out by rounding
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    v_low: Float[Array, "*n"]


class EIFState(NamedTuple):
    """State of one population of `EIF`.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        refractory: float [n] or None, ms; time left for which v is held
        late: float [n], ms; from this step's spike to its end, made up for in the next one
        v_low: float [n], mV; what v leaves out by rounding
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    refractory: Float[Array, "*n"] | None
    late: Float[Array, "*n"]
    v_low: Float[Array, "*n"]


class AdExState(NamedTuple):
    """State of one population of `AdEx`.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        w: float [n], nA; adaptation before the jump by this step's spike
        refractory: float [n] or None, ms; time left for which v is held
        late: float [n], ms; from this step's spike to its end, made up for in the next one
        v_low: float [n], mV; what v leaves out by rounding
        w_low: float [n], nA; likewise of w
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    w: Float[Array, "*n"]
    refractory: Float[Array, "*n"] | None
    late: Float[Array, "*n"]
    v_low: Float[Array, "*n"]
    w_low: Float[Array, "*n"]


@described
class QIF(eqx.Module):
    """Quadratic integrate-and-fire neuron, exact for current and conductance held over dt.

        tau_mem dv/dt = a_0 (v - v_rest) (v - v_th) + r_mem (I - g v),    v >= v_peak: v = v_reset

    Above v_th it fires without current; v_rest = v_th = 0 and a_0 = 1 is the normal form of the
    saddle-node bifurcation, tau_mem dv/dt = v^2 + I. Only spike times are rounded up to the grid.
    `conductance` is that of `LIF`.
    Raises `ValueError` for a parameter out of range, v_peak <= v_reset, and at `init` for one
    that does not fit the population.
    Source: Ermentrout and Kopell (1986); Gerstner et al. (2014), Neuronal Dynamics, eq. 5.16.

    >>> neuron = nj.QIF(tau_mem=10.0, v_rest=0.0, v_th=0.0, a_0=1.0, v_peak=30.0, v_reset=-10.0)
    >>> state, z = neuron.step(neuron.init((1,)), jnp.array([4.0]), dt=1.0)  # nA, ms
    >>> f"{float(state.v[0]):.4f} mV"  # 2 tan(0.2)
    '0.4054 mV'
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    a_0: Float[Array, "*#n"] = eqx.field(default=0.1, converter=positive("a_0", "1/mV"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("v_rest", "mV"))
    v_th: Float[Array, "*#n"] = eqx.field(default=-50.0, converter=finite("v_th", "mV"))
    v_peak: Float[Array, "*#n"] = eqx.field(
        default=30.0, converter=finite("v_peak", "mV", above="v_reset")
    )
    v_reset: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("v_reset", "mV"))
    spike: Spike = function("spike", default=heaviside)

    def __check_init__(self):
        ordered("v_reset", self.v_reset, "v_peak", self.v_peak, "mV")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> QIFState:
        """A population of `shape` at rest."""
        fits(self, shape)
        v, v_low = at(self.v_rest, shape, dtype)
        return QIFState(v, jnp.zeros(shape, dtype), v_low)

    def step(
        self,
        state: QIFState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[QIFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        g = jnp.zeros_like(current) if g is None else g
        start, low = _reset(p, s)
        v = whole(start, low, dtype)
        slope = p.a_0 * (v - p.v_rest) * (v - p.v_th) + p.r_mem * (current - g * v)
        share, ends = _of_parabola(p, v, current, g, dt)
        by = share * slope
        new, v_low = add(start, by + low, dtype)
        fires = ends | (whole(new, v_low, dtype) >= p.v_peak)
        peak, peak_low = _cut(p, v + dt / p.tau_mem * slope, dtype)
        new, v_low = jnp.where(fires, peak, new), jnp.where(fires, peak_low, v_low)
        z = fired(p, whole(new, v_low, dtype) - p.v_peak, dtype)
        return QIFState(new.astype(dtype), z, v_low), z

    def potential(self, state: QIFState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        return _potential(self, state)

    def threshold(self, state: QIFState) -> Float[Array, "*n"]:
        """The potential above which it fires without current, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


@described
class EIF(eqx.Module):
    """Exponential integrate-and-fire neuron.

        tau_mem dv/dt = -(v - v_rest) + delta_T exp((v - v_th) / delta_T) + r_mem (I - g v)
        v >= v_peak: spike, v = v_reset, held for t_ref

    Integrated as `AdEx` is, with its `substeps` and errors; the defaults are those of the source,
    fitted to the Wang-Buzsáki neuron.
    Source: Fourcaud-Trocmé, Hansel, van Vreeswijk and Brunel (2003), eq. 17 and table 1.

    >>> neuron = nj.EIF(v_peak=-30.0)  # mV
    >>> state, z = neuron.step(neuron.init((2,)), jnp.array([0.0, 900.0]), dt=1.0)  # nA, ms
    >>> z
    Array([0., 1.], dtype=float32)
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=10.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("v_rest", "mV"))
    v_th: Float[Array, "*#n"] = eqx.field(default=-59.9, converter=finite("v_th", "mV"))
    delta_T: Float[Array, "*#n"] = eqx.field(default=3.48, converter=positive("delta_T", "mV"))
    v_peak: Float[Array, "*#n"] = eqx.field(
        default=0.0, converter=finite("v_peak", "mV", above="v_reset")
    )
    v_reset: Float[Array, "*#n"] = eqx.field(default=-68.0, converter=finite("v_reset", "mV"))
    t_ref: Float[Array, "*#n"] | None = eqx.field(
        default=1.7, converter=optional(nonnegative("t_ref", "ms"))
    )
    spike: Spike = function("spike", default=heaviside)
    substeps: int = eqx.field(static=True, default=1, converter=count("substeps", 1, 10_000))

    def __check_init__(self):
        ordered("v_reset", self.v_reset, "v_peak", self.v_peak, "mV")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> EIFState:
        """A population of `shape` at v_rest."""
        fits(self, shape)
        v, v_low = at(self.v_rest, shape, dtype)
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return EIFState(v, zero, None if self.t_ref is None else none, none, v_low)

    def step(
        self,
        state: EIFState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[EIFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        moving, _, refractory = _spans(p, s, dt)
        cell = _reset(p, s), None
        cell, late = _swung(p, cell, current, g, moving, moving, dtype)
        (v, v_low), _ = cell
        z = fired(p, whole(v, v_low, dtype) - p.v_peak, dtype)
        return EIFState(v.astype(dtype), z, refractory, late, v_low), z

    def potential(self, state: EIFState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        return _potential(self, state)

    def threshold(self, state: EIFState) -> Float[Array, "*n"]:
        """The potential at which the upswing sets in, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


@described
class AdEx(eqx.Module):
    """Adaptive exponential integrate-and-fire neuron.

        tau_mem dv/dt = -(v - v_rest) + delta_T exp((v - v_th) / delta_T) + r_mem (I - w - g v)
        tau_w dw/dt = a (v - v_rest) - w
        v >= v_peak: spike, v = v_reset, w = w + b; v held for t_ref

    With the source's C and g_L: tau_mem = C / g_L, r_mem = 1 / g_L; 1 nS is .001 uS. In a step v
    moves with the local slope of its equation (Rosenbrock), which the upswing has for
    exp(-v / delta_T), between two halves of w's: of second order for I and g held over dt, in
    `substeps` parts of it. Spikes are rounded up to the grid, but not what follows: what a spike
    leaves of its step, and of `t_ref`, is made up for in the next. At dt .1 ms spikes of the
    regimes of the second source are right to .02 ms before they are rounded.
    `conductance` is that of `LIF`.
    Raises `ValueError` for a parameter out of range, v_peak <= v_reset, `substeps` < 1, and at
    `init` for a parameter that does not fit the population.
    Source: Brette and Gerstner (2005), eqs. 1-3; Naud et al. (2008), table 1.

    >>> neuron = nj.AdEx(substeps=4)
    >>> step = lambda s, _: neuron.step(s, jnp.array([1.0]), dt=0.1)  # nA, ms
    >>> int(jax.lax.scan(step, neuron.init((1,)), length=2000)[1].sum())  # spikes in 200 ms
    8
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=281 / 30, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1000 / 30, converter=positive("r_mem", "MOhm"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=-70.6, converter=finite("v_rest", "mV"))
    v_th: Float[Array, "*#n"] = eqx.field(default=-50.4, converter=finite("v_th", "mV"))
    delta_T: Float[Array, "*#n"] = eqx.field(default=2.0, converter=positive("delta_T", "mV"))
    v_peak: Float[Array, "*#n"] = eqx.field(
        default=0.0, converter=finite("v_peak", "mV", above="v_reset")
    )
    v_reset: Float[Array, "*#n"] = eqx.field(default=-70.6, converter=finite("v_reset", "mV"))
    tau_w: Float[Array, "*#n"] = eqx.field(default=144.0, converter=positive("tau_w", "ms"))
    a: Float[Array, "*#n"] = eqx.field(default=0.004, converter=finite("a", "uS"))
    b: Float[Array, "*#n"] = eqx.field(default=0.0805, converter=finite("b", "nA"))
    t_ref: Float[Array, "*#n"] | None = eqx.field(
        default=None, converter=optional(nonnegative("t_ref", "ms"))
    )
    spike: Spike = function("spike", default=heaviside)
    substeps: int = eqx.field(static=True, default=1, converter=count("substeps", 1, 10_000))

    def __check_init__(self):
        ordered("v_reset", self.v_reset, "v_peak", self.v_peak, "mV")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> AdExState:
        """A population of `shape` at v_rest, not adapted."""
        fits(self, shape)
        v, v_low = at(self.v_rest, shape, dtype)
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        refractory = None if self.t_ref is None else none
        return AdExState(v, zero, zero, refractory, none, v_low, none)

    def step(
        self,
        state: AdExState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[AdExState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        moving, adapting, refractory = _spans(p, s, dt)
        cell = _reset(p, s), (s.w + p.b * s.z, s.w_low)
        cell, late = _swung(p, cell, current, g, moving, adapting, dtype)
        (v, v_low), (w, w_low) = cell
        z = fired(p, whole(v, v_low, dtype) - p.v_peak, dtype)
        v, w = cast((v, w), dtype)
        return AdExState(v, z, w, refractory, late, v_low, w_low), z

    def potential(self, state: AdExState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        return _potential(self, state)

    def threshold(self, state: AdExState) -> Float[Array, "*n"]:
        """The potential at which the upswing sets in, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


def _reset(p, s) -> tuple[Array, Array]:
    fired = s.z > 0
    return jnp.where(fired, p.v_reset, s.v), jnp.where(fired, 0, s.v_low)


def _potential(model, state) -> Array:
    p, s = cast((model, state), working(state.v.dtype))
    return _reset(p, s)[0].astype(state.v.dtype)


def _cut(p, gentle, dtype) -> tuple[Array, Array]:
    """v_peak as `dtype` holds it, and the rest."""
    peak, low = at(p.v_peak, gentle.shape, dtype)
    return capped(jnp.full_like(gentle, jnp.inf), peak.astype(gentle.dtype), gentle), low


def _of_parabola(p, v, current, g, dt) -> tuple[Array, Array]:
    """By how much of the slope of tau dv/dt v moves in `dt`, and whether it passed infinity.

    About its vertex the equation is tau dy/dt = a y^2 + K, solved by tan for K > 0, tanh for
    K < 0: with x = a K (dt / tau)^2, of one function of x that knows no sign.
    """
    a, rate = p.a_0, dt / p.tau_mem
    middle, half = (p.v_rest + p.v_th) / 2, (p.v_th - p.v_rest) / 2
    aside = p.r_mem * g / (2 * a)
    k = p.r_mem * current - a * half**2 - a * aside * (2 * middle + aside)
    cosine, sine = _circular(a * k * rate**2)
    left = cosine - a * rate * (v - middle - aside) * sine
    tiny = jnp.finfo(v.dtype).eps
    passed = (left <= tiny) | (a * k * rate**2 >= jnp.pi**2)
    return rate * sine / jnp.where(passed, 1, left), passed


def _circular(x):
    """cos(q) and sin(q) / q of q = sqrt(x); for x < 0, over cosh, 1 and tanh(q) / q of |x|."""
    near = jnp.abs(x) < 0.01
    q = jnp.sqrt(jnp.where(near, 1, jnp.abs(x)))
    series = (1, 1 / 3, 2 / 15, 17 / 315, 62 / 2835, 1382 / 155925, 21844 / 6081075)
    middle = jnp.zeros_like(x)
    for term in reversed(series):
        middle = middle * x + term
    positive = (x > 0) & ~near
    sine = jnp.where(positive, jnp.sin(q) / q, jnp.tanh(q) / q)
    return jnp.where(positive, jnp.cos(q), 1), jnp.where(near, middle, sine)


def _spans(p, s, dt) -> tuple[Array, Array, Array | None]:
    """Time in which v moves and in which w does, of each sub-step, and time left to hold v, ms.

    What a spike left of its step is made up for; what it is held for is taken off.
    """
    fired = s.z > 0
    span = dt + jnp.where(fired, s.late, 0)
    if p.t_ref is None:
        return span / p.substeps, span / p.substeps, None
    hold = jnp.where(fired, p.t_ref, s.refractory)
    held = jnp.minimum(hold, span)
    return (span - held) / p.substeps, span / p.substeps, hold - held


def _swung(p, cell, current, g, moving, adapting, dtype):
    """v and w after all sub-steps, or as the spike found them, and the time that it left."""

    def part(_, carry):
        cell, done, late = carry
        new, fires, left = _swing(p, cell, current, g, moving, adapting, dtype)
        late = late + jnp.where(done, adapting, jnp.where(fires, left, 0))
        cell = jax.tree.map(lambda x, y: jnp.where(done, x, y), cell, new)
        return cell, done | fires, late

    start = cell, jnp.zeros(current.shape, bool), jnp.zeros_like(current)
    unroll = min(p.substeps, 8)  # a loop of its own costs more than few parts written out
    cell, _, late = jax.lax.fori_loop(0, p.substeps, part, start, unroll=unroll)
    return cell, late


def _swing(p, cell, current, g, moving, adapting, dtype):
    """One sub-step: half of w's, v, half of w's; whether v passed the peak, and the time left, ms.

    As v is of second order and the halves are symmetric, all is.
    """
    (start, low), w = cell
    v = whole(start, low, dtype)
    w = w and _adapted(p, w, v, adapting / 2, dtype)
    driven = current if w is None else current - whole(w[0], w[1], dtype)
    by, reaches = _ascent(p, v, driven, g, moving)
    new, new_low = add(start, by + low, dtype)
    fires = (reaches < moving) | (whole(new, new_low, dtype) >= p.v_peak)
    left = jnp.where(fires, jnp.maximum(moving - reaches, 0), 0)
    peak, peak_low = _cut(p, v + moving / p.tau_mem * (p.r_mem * driven), dtype)
    new, new_low = jnp.where(fires, peak, new), jnp.where(fires, peak_low, new_low)
    towards = jnp.where(fires, v, whole(new, new_low, dtype))  # the peak lasts no time
    w = w and _adapted(p, w, towards, adapting / 2 - left, dtype)
    return ((new, new_low), w), fires, left


def _adapted(p, w, v, span, dtype) -> tuple[Array, Array]:
    gap = whole(w[0], w[1], dtype) - p.a * (v - p.v_rest)
    return add(w[0], leak(span, p.tau_w) * gap + w[1], dtype)


def _ascent(p, v, driven, g, span) -> tuple[Array, Array]:
    """By how much v moves in `span`, and the time at which it would reach v_peak, ms.

    With the local slope J of dq/dt = F, q moves by F (exp(J t) - 1) / J: for q = v where the leak
    rules, and for q = 1 - exp(-(v - v_0) / delta_T) where the upswing does, which makes it linear.
    """
    steep = jnp.exp(jnp.minimum((v - p.v_th) / p.delta_T, _STEEPEST))
    drop = 1 if g is None else 1 + p.r_mem * g
    rest = p.v_rest - v + p.r_mem * (driven if g is None else driven - g * v)
    up = steep > drop
    slope = (rest + p.delta_T * steep) / p.tau_mem
    slope = jnp.where(up, slope / p.delta_T, slope)
    j = jnp.where(up, -(rest / p.delta_T + drop), steep - drop) / p.tau_mem
    ahead = (p.v_peak - v) / p.delta_T
    goal = jnp.where(up, -jnp.expm1(-jnp.maximum(ahead, 0)), p.v_peak - v)
    q = span * mean_growth(jnp.minimum(j * span, _FASTEST)) * slope
    below = q < goal
    by = jnp.where(up, -p.delta_T * jnp.log1p(-jnp.where(up & below, q, 0)), q)
    return jnp.where(below, by, p.v_peak - v), jax.lax.stop_gradient(
        _time_to(goal, slope, j, below)
    )


def _time_to(goal, slope, j, below) -> Array:
    """When q is at its goal, ms; infinite where the step does not take it there."""
    straight = goal / jnp.where(below, 1, slope)
    x = jnp.maximum(j * straight, -1 + 1e-6)
    near = jnp.abs(x) < 1e-4
    far = jnp.where(near, 1, x)
    return jnp.where(below, jnp.inf, straight * jnp.where(near, 1 - x / 2, jnp.log1p(far) / far))
