"""Neurons with channels: Hodgkin-Huxley of the squid, Traub-Miles, Wang-Buzsaki.

    c_mem dv/dt = -g_na m^3 h (v - e_na) - g_k n^4 (v - e_k) - g_l (v - e_l) + I - g v

Gates follow dx/dt = alpha(v) (1 - x) - beta(v) x. In a step gates move first, exactly for v held,
then v, exactly for the new gates held: staggered so, exponential Euler is of second order, and
stable up to dt = .1 ms; with all taken at the old state it is of first order and worse than plain
Euler. Advised are .05 ms and less. A spike is an upward crossing of v_th; there is no reset, and no
`tau_mem`, so synapses hand over the mean of a step. Each parameter is one number or one a neuron.
Units are those of a patch of .001 cm2: 1 nF, uS and nA stand for 1 uF, mS and uA a cm2.
Source: Hodgkin and Huxley (1952), A quantitative description of membrane current.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import cast, finite, fits, function, nonnegative, positive, working
from neurojax._decay import add, whole
from neurojax._repr import described
from neurojax.neurons._steps import at, checked, fired, mean_growth, stored
from neurojax.neurons.surrogate import Spike, heaviside

__all__ = ["ChannelState", "HodgkinHuxley", "TraubMiles", "WangBuzsaki"]

_FASTEST = 10.0  # growth of v in one step, beyond which it is not followed

Rates = dict[str, tuple[Array, Array]]


def __dir__() -> list[str]:
    return __all__


class ChannelState(NamedTuple):
    """State of one population of `HodgkinHuxley`, `TraubMiles` or `WangBuzsaki`.

    Gates are kept in float32 at the least.

    Fields:
        v: float [n], mV; membrane potential
        z: float [n]; spikes of this step, 0 or 1: upward crossings of v_th
        m: float [n]; open share of the activation gates of sodium
        h: float [n]; of its inactivation gates
        n: float [n]; of the gates of potassium
        v_low: float [n], mV; what v leaves out by rounding
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    m: Float[Array, "*n"]
    h: Float[Array, "*n"]
    n: Float[Array, "*n"]
    v_low: Float[Array, "*n"]


@described
class HodgkinHuxley(eqx.Module):
    """Hodgkin-Huxley neuron, of the squid's giant axon, at rest at -65 mV.

        alpha_m = .1 (v + 40) / (1 - exp(-(v + 40) / 10)),      beta_m = 4 exp(-(v + 65) / 18)
        alpha_h = .07 exp(-(v + 65) / 20),      beta_h = 1 / (1 + exp(-(v + 35) / 10))
        alpha_n = .01 (v + 55) / (1 - exp(-(v + 55) / 10)),     beta_n = .125 exp(-(v + 65) / 80)

    Potentials are absolute; the original counts them from rest, downward. Spikes of 200 ms under 7
    to 20 nA drift by .02 ms at dt .01, .09 at .025, .3 at .05 and 1.2 ms at .1. `conductance` is
    that of `LIF`.
    Raises `ValueError` for a parameter out of range, and at `init` for one that does not fit.
    Source: Hodgkin and Huxley (1952), eqs. 12 to 26.

    >>> neuron = nj.HodgkinHuxley()
    >>> step = lambda s, _: neuron.step(s, jnp.array([2.0, 10.0]), dt=0.05)  # nA, ms
    >>> jax.lax.scan(step, neuron.init((2,)), length=1000)[1].sum(0)  # spikes in 50 ms
    Array([0., 4.], dtype=float32)
    """

    c_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("c_mem", "nF"))
    g_na: Float[Array, "*#n"] = eqx.field(default=120.0, converter=nonnegative("g_na", "uS"))
    g_k: Float[Array, "*#n"] = eqx.field(default=36.0, converter=nonnegative("g_k", "uS"))
    g_l: Float[Array, "*#n"] = eqx.field(default=0.3, converter=positive("g_l", "uS"))
    e_na: Float[Array, "*#n"] = eqx.field(default=50.0, converter=finite("e_na", "mV"))
    e_k: Float[Array, "*#n"] = eqx.field(default=-77.0, converter=finite("e_k", "mV"))
    e_l: Float[Array, "*#n"] = eqx.field(default=-54.387, converter=finite("e_l", "mV"))
    v_th: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_th", "mV"))
    v_init: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("v_init", "mV"))
    spike: Spike = function("spike", default=heaviside)

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> ChannelState:
        """A population of `shape` at v_init, its gates as they are there in the long run."""
        return _started(self, shape, dtype)

    def step(
        self,
        state: ChannelState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[ChannelState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        return _staggered(self, state, current, dt, conductance)

    def rates(self, v: Float[Array, "*n"]) -> Rates:
        """alpha and beta of each gate at v (mV), 1/ms [n]."""
        return {
            "m": (_ramp(-(v + 40) / 10), 4 * _exp(-(v + 65) / 18)),
            "h": (0.07 * _exp(-(v + 65) / 20), jax.nn.sigmoid((v + 35) / 10)),
            "n": (0.1 * _ramp(-(v + 55) / 10), 0.125 * _exp(-(v + 65) / 80)),
        }

    def threshold(self, state: ChannelState) -> Float[Array, "*n"]:
        """The potential whose upward crossing is a spike, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


@described
class TraubMiles(eqx.Module):
    """Hodgkin-Huxley neuron of the hippocampus, after Traub and Miles, as in COBAHH networks.

    With u = v - v_t:

        alpha_m = .32 (13 - u) / (exp((13 - u) / 4) - 1), beta_m = .28 (u - 40) / (exp((u - 40) / 5) - 1)
        alpha_h = .128 exp((17 - u) / 18),                beta_h = 4 / (1 + exp((40 - u) / 5))
        alpha_n = .032 (15 - u) / (exp((15 - u) / 5) - 1), beta_n = .5 exp((10 - u) / 40)

    Values are those of a cell of .2 nF, not of a patch; it fires at 14 Hz without input. Integrated as `HodgkinHuxley` is, with its
    errors. `conductance` is that of `LIF`.
    Source: Traub and Miles (1991), Neuronal networks of the hippocampus, as reduced and
    parametrised by Brette et al. (2007), Simulation of networks of spiking neurons, benchmark 3.

    >>> neuron = nj.TraubMiles()
    >>> step = lambda s, _: neuron.step(s, jnp.array([0.0, 0.5]), dt=0.05)  # nA, ms
    >>> jax.lax.scan(step, neuron.init((2,)), length=1000)[1].sum(0)  # spikes in 50 ms
    Array([1., 4.], dtype=float32)
    """  # noqa: E501  (equations in columns)

    c_mem: Float[Array, "*#n"] = eqx.field(default=0.2, converter=positive("c_mem", "nF"))
    g_na: Float[Array, "*#n"] = eqx.field(default=20.0, converter=nonnegative("g_na", "uS"))
    g_k: Float[Array, "*#n"] = eqx.field(default=6.0, converter=nonnegative("g_k", "uS"))
    g_l: Float[Array, "*#n"] = eqx.field(default=0.01, converter=positive("g_l", "uS"))
    e_na: Float[Array, "*#n"] = eqx.field(default=50.0, converter=finite("e_na", "mV"))
    e_k: Float[Array, "*#n"] = eqx.field(default=-90.0, converter=finite("e_k", "mV"))
    e_l: Float[Array, "*#n"] = eqx.field(default=-60.0, converter=finite("e_l", "mV"))
    v_t: Float[Array, "*#n"] = eqx.field(default=-63.0, converter=finite("v_t", "mV"))
    v_th: Float[Array, "*#n"] = eqx.field(default=-20.0, converter=finite("v_th", "mV"))
    v_init: Float[Array, "*#n"] = eqx.field(default=-60.0, converter=finite("v_init", "mV"))
    spike: Spike = function("spike", default=heaviside)

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> ChannelState:
        """A population of `shape` at v_init, its gates as they are there in the long run."""
        return _started(self, shape, dtype)

    def step(
        self,
        state: ChannelState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[ChannelState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        return _staggered(self, state, current, dt, conductance)

    def rates(self, v: Float[Array, "*n"]) -> Rates:
        """alpha and beta of each gate at v (mV), 1/ms [n]."""
        u = v - self.v_t
        return {
            "m": (1.28 * _ramp((13 - u) / 4), 1.4 * _ramp((u - 40) / 5)),
            "h": (0.128 * _exp((17 - u) / 18), 4 * jax.nn.sigmoid((u - 40) / 5)),
            "n": (0.16 * _ramp((15 - u) / 5), 0.5 * _exp((10 - u) / 40)),
        }

    def threshold(self, state: ChannelState) -> Float[Array, "*n"]:
        """The potential whose upward crossing is a spike, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


@described
class WangBuzsaki(eqx.Module):
    """Fast-spiking interneuron after Wang and Buzsáki, whose m follows v at once.

        alpha_m = .1 (v + 35) / (1 - exp(-(v + 35) / 10)),    beta_m = 4 exp(-(v + 60) / 18)
        alpha_h = .35 exp(-(v + 58) / 20),    beta_h = 5 / (1 + exp(-(v + 28) / 10))
        alpha_n = .05 (v + 34) / (1 - exp(-(v + 34) / 10)),   beta_n = .625 exp(-(v + 44) / 80)

    with the source's factor phi = 5. Integrated as `HodgkinHuxley` is, but for the part of m in the
    local slope of v; with its errors. `conductance` is that of `LIF`.
    Source: Wang and Buzsáki (1996), Gamma oscillation by synaptic inhibition, eqs. 2.1 to 2.4.

    >>> neuron = nj.WangBuzsaki()
    >>> step = lambda s, _: neuron.step(s, jnp.array([0.0, 1.0]), dt=0.05)  # nA, ms
    >>> jax.lax.scan(step, neuron.init((2,)), length=2000)[1].sum(0)  # spikes in 100 ms
    Array([0., 6.], dtype=float32)
    """

    c_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("c_mem", "nF"))
    g_na: Float[Array, "*#n"] = eqx.field(default=35.0, converter=nonnegative("g_na", "uS"))
    g_k: Float[Array, "*#n"] = eqx.field(default=9.0, converter=nonnegative("g_k", "uS"))
    g_l: Float[Array, "*#n"] = eqx.field(default=0.1, converter=positive("g_l", "uS"))
    e_na: Float[Array, "*#n"] = eqx.field(default=55.0, converter=finite("e_na", "mV"))
    e_k: Float[Array, "*#n"] = eqx.field(default=-90.0, converter=finite("e_k", "mV"))
    e_l: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("e_l", "mV"))
    v_th: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_th", "mV"))
    v_init: Float[Array, "*#n"] = eqx.field(default=-64.0, converter=finite("v_init", "mV"))
    spike: Spike = function("spike", default=heaviside)

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> ChannelState:
        """A population of `shape` at v_init, its gates as they are there in the long run."""
        return _started(self, shape, dtype)

    def step(
        self,
        state: ChannelState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[ChannelState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        return _staggered(self, state, current, dt, conductance, at_once="m")

    def rates(self, v: Float[Array, "*n"]) -> Rates:
        """alpha and beta of each gate at v (mV), 1/ms [n]."""
        return {
            "m": (_ramp(-(v + 35) / 10), 4 * _exp(-(v + 60) / 18)),
            "h": (0.35 * _exp(-(v + 58) / 20), 5 * jax.nn.sigmoid((v + 28) / 10)),
            "n": (0.5 * _ramp(-(v + 34) / 10), 0.625 * _exp(-(v + 44) / 80)),
        }

    def threshold(self, state: ChannelState) -> Float[Array, "*n"]:
        """The potential whose upward crossing is a spike, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


def _started(p, shape, dtype) -> ChannelState:
    fits(p, shape)
    p = cast(p, working(dtype))
    v, v_low = at(p.v_init, shape, dtype)
    rates = p.rates(jnp.broadcast_to(p.v_init, shape))
    gates = {x: alpha / (alpha + beta) for x, (alpha, beta) in rates.items()}
    return ChannelState(v, jnp.zeros(shape, dtype), **gates, v_low=v_low)


def _staggered(p, state, current, dt, conductance, at_once="") -> tuple[ChannelState, Array]:
    """Gates with v held, then v with its local slope, of which gates `at_once` are a part."""
    dtype = stored(state)
    p, s, current, dt, g = checked(p, state, current, dt, conductance)
    v = whole(s.v, s.v_low, dtype)
    x = {}
    for name, (alpha, beta) in p.rates(v).items():
        left, ends = jnp.exp(-dt * (alpha + beta)), alpha / (alpha + beta)
        x[name] = ends if name == at_once else ends + left * (getattr(s, name) - ends)

    def slope(v):
        now = {k: alpha / (alpha + beta) for k, (alpha, beta) in p.rates(v).items() if k == at_once}
        return _slope(p, x | now, v, current, g)

    f, j = jax.jvp(slope, (v,), (jnp.ones_like(v),))
    new, v_low = add(s.v, dt * mean_growth(jnp.minimum(dt * j, _FASTEST)) * f + s.v_low, dtype)
    above = fired(p, whole(new, v_low, dtype) - p.v_th, dtype)
    z = jnp.where(v < p.v_th, above, jnp.zeros_like(above))
    return ChannelState(new.astype(dtype), z, **x, v_low=v_low), z


def _slope(p, x, v, current, g) -> Array:
    """dv/dt with the gates x as they are, mV/ms."""
    na, k = p.g_na * x["m"] ** 3 * x["h"], p.g_k * x["n"] ** 4
    outward = na * (v - p.e_na) + k * (v - p.e_k) + p.g_l * (v - p.e_l)
    outward = outward if g is None else outward + g * v
    return (current - outward) / p.c_mem


def _ramp(x: Array) -> Array:
    """x / (exp(x) - 1), and 1 at 0: a bare quotient there is no number, nor is its derivative.

    Beyond -1e9 the gate is open to a part in 1e9 whatever x is, and 1 / x^2 no longer a number.
    """
    return 1 / mean_growth(jnp.clip(x, -1e9, 80))


def _exp(x: Array) -> Array:
    """exp(x) of potentials that are far out of range stays finite."""
    return jnp.exp(jnp.minimum(x, 60))
