"""Neurons that answer to a rhythm: the resonate-and-fire neuron."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import Converter, fits, function, nonnegative, positive, working
from neurojax._decay import add, whole
from neurojax._repr import described
from neurojax.neurons._steps import at, checked, fired, stored
from neurojax.neurons.surrogate import Spike, heaviside

_DAMPING = Converter("b must be finite and < 0 1/ms", "1/ms", high=0.0, closed=False)

__all__ = ["ResonateAndFire", "ResonateAndFireState"]


def __dir__() -> list[str]:
    return __all__


class ResonateAndFireState(NamedTuple):
    """State of one population of `ResonateAndFire`.

    Fields:
        v: float [n], mV; imaginary part, like a potential, before reset
        z: float [n]; spikes of this step, 0 or 1
        x: float [n], mV; real part, like a current, before reset
        v_low: float [n], mV; what v leaves out by rounding
        x_low: float [n], mV; likewise of x
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    x: Float[Array, "*n"]
    v_low: Float[Array, "*n"]
    x_low: Float[Array, "*n"]


@described
class ResonateAndFire(eqx.Module):
    """Damped oscillator that fires when it swings high enough: of two pulses the right distance apart.

        d(x + i v)/dt = (b + i omega) (x + i v) + I / c_mem,    v >= v_th: spike, x = 0, v = v_th

    Exact for a current held over dt; it fires where v lies at or above v_th at the end of a step, so
    dt should be well below the period 2 pi / omega. It takes no conductance.
    Raises `ValueError` for a parameter out of range, `b` >= 0 among them, and at `init` for one that
    does not fit the population.
    Source: Izhikevich (2001), Resonate-and-fire neurons, eqs. 3 and 4.

    >>> neuron = nj.ResonateAndFire(b=-0.05, omega=0.25)  # 1/ms, rad/ms: 40 Hz
    >>> state, _ = neuron.step(neuron.init((1,)), jnp.ones(1), dt=0.001)  # nA, ms: a kick
    >>> state, _ = neuron.step(state, jnp.zeros(1), dt=10.0)
    >>> f"{1000 * float(state.x[0]):.3f} mV"  # exp(-.5) cos(2.5)
    '-0.486 mV'
    """  # noqa: E501  (its first line)

    b: Float[Array, "*#n"] = eqx.field(default=-0.05, converter=_DAMPING)
    omega: Float[Array, "*#n"] = eqx.field(default=0.25, converter=nonnegative("omega", "rad/ms"))
    c_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("c_mem", "nF"))
    v_th: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("v_th", "mV"))
    spike: Spike = function("spike", default=heaviside)

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> ResonateAndFireState:
        """A population of `shape` at rest, at 0 mV."""
        fits(self, shape)
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return ResonateAndFireState(zero, zero, zero, none, none)

    def step(
        self, state: ResonateAndFireState, current: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[ResonateAndFireState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, _ = checked(self, state, current, dt)
        (x, x_low), (v, v_low) = _after_reset(p, s, dtype)
        by_x, by_v = _swung(p, whole(x, x_low, dtype), whole(v, v_low, dtype), current, dt)
        x, x_low = add(x, by_x + x_low, dtype)
        v, v_low = add(v, by_v + v_low, dtype)
        z = fired(p, whole(v, v_low, dtype) - p.v_th, dtype)
        return ResonateAndFireState(v.astype(dtype), z, x.astype(dtype), v_low, x_low), z

    def potential(self, state: ResonateAndFireState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        return jnp.where(state.z > 0, self.v_th.astype(state.v.dtype), state.v)

    def threshold(self, state: ResonateAndFireState) -> Float[Array, "*n"]:
        """The height at which it fires, v_th, mV [n]."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)


def _after_reset(p, s, dtype):
    fires = s.z > 0
    top, top_low = at(p.v_th, s.v.shape, dtype)
    x = jnp.where(fires, 0, s.x), jnp.where(fires, 0, s.x_low)
    return x, (
        jnp.where(fires, top.astype(s.v.dtype), s.v),
        jnp.where(fires, top_low, s.v_low),
    )


def _swung(p, x, v, current, dt):
    """By how much x and v move: by their flow, times (exp(l dt) - 1) / l with l = b + i omega.

    Its parts cancel where l dt is small, but not with half angles and expm1.
    """
    flow_x = p.b * x - p.omega * v + current / p.c_mem
    flow_v = p.omega * x + p.b * v
    turn, fade = p.omega * dt, jnp.expm1(p.b * dt)
    grown_x = fade * jnp.cos(turn) - 2 * jnp.sin(turn / 2) ** 2  # exp(l dt) - 1
    grown_v = (1 + fade) * jnp.sin(turn)
    size = p.b**2 + p.omega**2
    mean_x = (grown_x * p.b + grown_v * p.omega) / size
    mean_v = (grown_v * p.b - grown_x * p.omega) / size
    return mean_x * flow_x - mean_v * flow_v, mean_x * flow_v + mean_v * flow_x
