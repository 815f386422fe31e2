"""Neuron models: parameters in a frozen pytree, `init` the state, `step` by one `dt`.

All are exact for a current held over `dt`, as their equations are linear between spikes;
only spike times are rounded up to the grid. Each parameter is one number or one per neuron.
Within a step the last step's spikes reset the potential first, then it is integrated, then
compared with the threshold (>=): a spike belongs to the interval (t, t + dt]. A state is
stored in the dtype that `init` was given and calculated in float32 at the least.
"""

from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from neurojax._check import (
    cast,
    choice,
    finite,
    fits,
    function,
    nonnegative,
    optional,
    ordered,
    positive,
    working,
)
from neurojax._repr import described
from neurojax.surrogate import Spike, heaviside


class LIFState(NamedTuple):
    """One population; batch, seeds and settings are vmapped."""

    v: Float[Array, "*n"]  # membrane potential before reset, mV
    z: Float[Array, "*n"]  # spikes of this step, 0 or 1
    refractory: Int[Array, "*n"] | None  # steps left in which v is held, this one included


class ALIFState(NamedTuple):
    """One population of `ALIF`: that of `LIF`, and its adaptation."""

    v: Float[Array, "*n"]  # membrane potential before reset, mV
    z: Float[Array, "*n"]  # spikes of this step, 0 or 1
    refractory: Int[Array, "*n"] | None  # steps left in which v is held, this one included
    a: Float[Array, "*n"]  # adaptation that set this step's threshold: decayed count of spikes


class LeakyIntegratorState(NamedTuple):
    """One population of `LeakyIntegrator`."""

    v: Float[Array, "*n"]  # potential, mV


@described
class LIF(eqx.Module):
    """Leaky integrate-and-fire neuron.

        tau_mem dv/dt = -(v - v_rest) + r_mem I,    and where v >= v_th: spike, then reset

    Reset "hard" restarts at v = v_reset; "subtract" lowers v by v_th - v_reset, which keeps
    what went over the threshold. With `t_ref` the neuron is silent after a spike for
    ceil(t_ref / dt) whole steps, v held where the reset left it; with None there is no
    refractory state at all. `spike` maps v - v_th to spikes; the default has no derivative.
    Raises `ValueError` for a parameter out of range, v_th <= v_reset, an unknown `reset`,
    and at `init` for a parameter that does not fit the population.
    Source: Gerstner et al. (2014), Neuronal Dynamics, eq. 1.5; the reset by subtraction:
    Bellec et al. (2020), A solution to the learning dilemma, Methods, "LIF neurons".
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_th: Float[Array, "*#n"] = eqx.field(default=1.0, converter=finite("v_th", "mV"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_rest", "mV"))
    v_reset: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_reset", "mV"))
    t_ref: Float[Array, "*#n"] | None = eqx.field(
        default=None, converter=optional(nonnegative("t_ref", "ms"))
    )
    reset: Literal["hard", "subtract"] = eqx.field(
        static=True, default="hard", converter=choice("reset", "hard", "subtract")
    )
    spike: Spike = function("spike", default=heaviside)

    def __check_init__(self):
        ordered("v_reset", self.v_reset, "v_th", self.v_th, "mV")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> LIFState:
        """A population of `shape` at rest."""
        fits(self, shape)
        zero = jnp.zeros(shape, dtype)
        return LIFState(_at_rest(self.v_rest, zero), zero, _ready(self, zero))

    def step(
        self, state: LIFState, current: Float[Array, "*n"], *, dt: float | Array
    ) -> tuple[LIFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its spikes."""
        dtype = state.v.dtype
        p, s, current = cast((self, state, current), working(dtype))
        v, refractory = _potential(p, s, current, dt)
        z = _fire(p, v - p.v_th, refractory)
        new = cast(LIFState(v, z, refractory), dtype)
        return new, new.z

    def threshold(self, state: LIFState) -> Float[Array, "*n"]:
        """The potential at which the neurons fired in this step, mV."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)

    def decay(self, dt: float | Array) -> Float[Array, "*#n"]:
        """The part of a potential that is left after `dt`: exp(-dt / tau_mem)."""
        return jnp.exp(-dt / self.tau_mem)


@described
class ALIF(eqx.Module):
    """Leaky integrate-and-fire neuron whose threshold rises with each of its spikes.

        tau_mem dv/dt = -(v - v_rest) + r_mem I,    spike where v >= v_th + beta_adapt a
        a_t = exp(-dt / tau_adapt) a_{t-1} + z_{t-1}

    A spike raises the threshold by `beta_adapt` (mV) from the next step on; the reset by
    subtraction stays v_th - v_reset. All else, and all errors, are those of `LIF`.
    Source: Bellec et al. (2020), A solution to the learning dilemma, Methods, "ALIF neurons".
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_th: Float[Array, "*#n"] = eqx.field(default=1.0, converter=finite("v_th", "mV"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_rest", "mV"))
    v_reset: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_reset", "mV"))
    t_ref: Float[Array, "*#n"] | None = eqx.field(
        default=None, converter=optional(nonnegative("t_ref", "ms"))
    )
    tau_adapt: Float[Array, "*#n"] = eqx.field(default=200.0, converter=positive("tau_adapt", "ms"))
    beta_adapt: Float[Array, "*#n"] = eqx.field(
        default=1.6, converter=nonnegative("beta_adapt", "mV")
    )
    reset: Literal["hard", "subtract"] = eqx.field(
        static=True, default="hard", converter=choice("reset", "hard", "subtract")
    )
    spike: Spike = function("spike", default=heaviside)

    def __check_init__(self):
        ordered("v_reset", self.v_reset, "v_th", self.v_th, "mV")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> ALIFState:
        """A population of `shape` at rest, not adapted."""
        fits(self, shape)
        zero = jnp.zeros(shape, dtype)
        return ALIFState(_at_rest(self.v_rest, zero), zero, _ready(self, zero), zero)

    def step(
        self, state: ALIFState, current: Float[Array, "*n"], *, dt: float | Array
    ) -> tuple[ALIFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its spikes."""
        dtype = state.v.dtype
        p, s, current = cast((self, state, current), working(dtype))
        v, refractory = _potential(p, s, current, dt)
        a = jnp.exp(-dt / p.tau_adapt) * s.a + s.z
        z = _fire(p, v - (p.v_th + p.beta_adapt * a), refractory)
        new = cast(ALIFState(v, z, refractory, a), dtype)
        return new, new.z

    def threshold(self, state: ALIFState) -> Float[Array, "*n"]:
        """The potential at which the neurons fired in this step, v_th + beta_adapt a, mV."""
        p, a = cast((self, state.a), working(state.a.dtype))
        return (p.v_th + p.beta_adapt * a).astype(state.a.dtype)

    def decay(self, dt: float | Array) -> Float[Array, "*#n"]:
        """The part of a potential that is left after `dt`: exp(-dt / tau_mem)."""
        return jnp.exp(-dt / self.tau_mem)


@described
class LeakyIntegrator(eqx.Module):
    """Neuron without threshold: its output is its potential, a low-pass of the current.

        y_t = kappa y_{t-1} + (1 - kappa) r_mem I_t,    kappa = exp(-dt / tau_mem)

    Raises `ValueError` for a parameter that is not finite and positive, and at `init` for
    one that does not fit the population.
    Source: Bellec et al. (2020), A solution to the learning dilemma, Methods, readout y_k.
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> LeakyIntegratorState:
        """A population of `shape` at 0 mV."""
        fits(self, shape)
        return LeakyIntegratorState(jnp.zeros(shape, dtype))

    def step(
        self, state: LeakyIntegratorState, current: Float[Array, "*n"], *, dt: float | Array
    ) -> tuple[LeakyIntegratorState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its potential."""
        dtype = state.v.dtype
        p, v, current = cast((self, state.v, current), working(dtype))
        v = _relax(v, p.r_mem * current, p.tau_mem, dt).astype(dtype)
        return LeakyIntegratorState(v), v

    def decay(self, dt: float | Array) -> Float[Array, "*#n"]:
        """The part of a potential that is left after `dt`: exp(-dt / tau_mem)."""
        return jnp.exp(-dt / self.tau_mem)


def _at_rest(v_rest: Array, zero: Array) -> Array:
    return jnp.broadcast_to(v_rest.astype(zero.dtype), zero.shape)


def _ready(p: LIF | ALIF, zero: Array) -> Array | None:
    return None if p.t_ref is None else jnp.zeros(zero.shape, jnp.int32)


def _potential(p, s, current, dt):
    """Potential before reset, and refractory steps left; `p` and `s` in one dtype."""
    start = _reset(p, s.v, s.z)
    v = _relax(start, p.v_rest + p.r_mem * current, p.tau_mem, dt)
    if p.t_ref is None:
        return v, None
    refractory = jnp.where(s.z > 0, _whole_steps(p.t_ref, dt), jnp.maximum(s.refractory - 1, 0))
    return jnp.where(refractory > 0, start, v), refractory


def _reset(p, v, z):
    if p.reset == "subtract":
        return v - (p.v_th - p.v_reset) * z
    return v * (1 - z) + p.v_reset * z


def _relax(v, target, tau, dt):
    """Exact solution of tau dv/dt = target - v after `dt`; 1 - exp without cancellation."""
    return jnp.exp(-dt / tau) * v - jnp.expm1(-dt / tau) * target


def _whole_steps(t, dt):
    """ceil(t / dt), blind to the rounding of the quotient: 0.15 ms are 15 steps of 0.01 ms."""
    return jnp.ceil(t / dt * (1 - 1e-6)).astype(jnp.int32)


def _fire(p, excess, refractory):
    z = p.spike(excess)
    return z if refractory is None else jnp.where(refractory > 0, jnp.zeros_like(z), z)
