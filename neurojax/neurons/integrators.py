"""Integrate-and-fire neurons beside the leaky one: without a leak, and with escape noise."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Shaped

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
from neurojax._decay import whole
from neurojax._repr import described
from neurojax.neurons._steps import (
    after_reset,
    at,
    checked,
    fired,
    mean_growth,
    membrane,
    stored,
    towards_rest,
)
from neurojax.neurons.surrogate import Spike, heaviside

__all__ = ["IF", "EscapeLIF", "IFState"]


def __dir__() -> list[str]:
    return __all__


class IFState(NamedTuple):
    """State of one population of `IF` or `EscapeLIF`.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        refractory: int [n] or None; steps left in which v is held, this one included
        v_low: float [n], mV; what v leaves out by rounding
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    refractory: Int[Array, "*n"] | None
    v_low: Float[Array, "*n"] | None


@described
class IF(eqx.Module):
    """Perfect integrator: integrate-and-fire neuron without a leak.

        c_mem dv/dt = I - g v,    and where v >= v_th: spike, then reset

    Exact for I and g held over dt, and in long runs: of its charge nothing is lost, so that with
    `reset` "subtract" it fires I / (c_mem (v_th - v_reset)) times a ms, whatever dt. Starts at
    v_reset; resets, `t_ref`, `spike`, `conductance` and errors are those of `LIF`.
    Source: Lapicque (1907); Gerstner et al. (2014), Neuronal Dynamics, sec. 5.1.

    >>> neuron = nj.IF(c_mem=0.5, reset="subtract")  # nF; v_th is 1 mV
    >>> step = lambda s, _: neuron.step(s, jnp.array([0.1]), dt=0.5)  # nA, ms
    >>> int(jax.lax.scan(step, neuron.init((1,)), length=200)[1].sum())  # .2 / ms for 100 ms
    20
    """

    c_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("c_mem", "nF"))
    v_th: Float[Array, "*#n"] = eqx.field(
        default=1.0, converter=finite("v_th", "mV", above="v_reset")
    )
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

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> IFState:
        """A population of `shape` at v_reset."""
        return _started(self, self.v_reset, shape, dtype)

    def step(
        self,
        state: IFState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[IFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        v, v_low, refractory = membrane(p, s, current, g, dt, dtype, _charged)
        z = fired(p, whole(v, v_low, dtype) - p.v_th, dtype, refractory)
        return IFState(v.astype(dtype), z, refractory, v_low), z

    def potential(self, state: IFState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        p, s = cast((self, state), working(state.v.dtype))
        return after_reset(p, s)[0].astype(state.v.dtype)

    def threshold(self, state: IFState) -> Float[Array, "*n"]:
        """The potential at which the neurons fired in this step, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


@described
class EscapeLIF(eqx.Module):
    """Leaky integrate-and-fire neuron that fires at random, the likelier the higher it is.

        tau_mem dv/dt = -(v - v_rest) + r_mem (I - g v)
        rho = rate exp((v - v_th) / delta_v),    P(spike in dt) = 1 - exp(-rho dt)

    v_th is where it fires at `rate` (Hz); the sharper `delta_v`, the more it is `LIF`. v is exact
    for I and g held over dt, and the hazard taken at the end of a step. As a layer it draws step t
    from fold_in(key, t). A step compares v with a threshold drawn for it, v_th + delta_v ln(e /
    (rate dt)), e exponential of mean 1, so that `spike` may be a surrogate. Reset is hard;
    `t_ref`, `conductance` and errors are those of `LIF`.
    Source: Gerstner et al. (2014), Neuronal Dynamics, eqs. 9.1 to 9.5; Jolivet et al. (2006).

    >>> neuron = nj.EscapeLIF(rate=20.0)  # Hz at v_th
    >>> state = neuron.init((1000,))._replace(v=jnp.ones(1000))  # held at v_th
    >>> current = jnp.ones(1000)
    >>> int(neuron.step(state, current, dt=1.0, key=jax.random.key(0))[1].sum())  # 20 expected
    16
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_th: Float[Array, "*#n"] = eqx.field(default=1.0, converter=finite("v_th", "mV"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_rest", "mV"))
    v_reset: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_reset", "mV"))
    delta_v: Float[Array, "*#n"] = eqx.field(default=0.2, converter=positive("delta_v", "mV"))
    rate: Float[Array, "*#n"] = eqx.field(default=50.0, converter=positive("rate", "Hz"))
    t_ref: Float[Array, "*#n"] | None = eqx.field(
        default=None, converter=optional(nonnegative("t_ref", "ms"))
    )
    spike: Spike = function("spike", default=heaviside)
    reset: str = eqx.field(static=True, init=False, default="hard")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> IFState:
        """A population of `shape` at rest."""
        return _started(self, self.v_rest, shape, dtype)

    def step(
        self,
        state: IFState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        key: Array,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[IFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and spikes drawn."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        v, v_low, refractory = membrane(p, s, current, g, dt, dtype, towards_rest)
        drawn = p.v_th + p.delta_v * jnp.log(_exponential(key, v) / (p.rate * dt / 1000))
        z = fired(p, whole(v, v_low, dtype) - drawn, dtype, refractory)
        return IFState(v.astype(dtype), z, refractory, v_low), z

    def potential(self, state: IFState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        p, s = cast((self, state), working(state.v.dtype))
        return after_reset(p, s)[0].astype(state.v.dtype)

    def threshold(self, state: IFState) -> Float[Array, "*n"]:
        """The potential at which it fires at `rate`, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


def _started(p, v, shape, dtype) -> IFState:
    fits(p, shape)
    refractory = None if p.t_ref is None else jnp.zeros(shape, jnp.int32)
    v, v_low = at(v, shape, dtype)
    return IFState(v, jnp.zeros(shape, dtype), refractory, v_low)


def _charged(p, v, current, g, dt) -> Array:
    """How far v moves in `dt` by the charge that flows."""
    share = dt / p.c_mem
    return share * current if g is None else share * mean_growth(-share * g) * (current - g * v)


def _exponential(key: Array, like: Array) -> Array:
    """Of mean 1; of 32 bits, so that rare small ones are as rare as they are."""
    bits = jax.random.bits(key, like.shape, jnp.uint32).astype(like.dtype)
    return -jnp.log1p(-jnp.minimum((bits + 0.5) * 2.0**-32, 1 - 2.0**-24))
