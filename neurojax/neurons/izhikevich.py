"""Izhikevich's neuron, by the schemes that he published and by one that follows the equations.

Several of its firing patterns belong to the Euler step of 1 or .25 ms that they were made with, and
are others where the equations are solved accurately: so the scheme is part of the model. Gradients
pass through spikes, not through resets.
"""

from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import cast, choice, finite, fits, function, ordered, positive, working
from neurojax._decay import add, whole
from neurojax._repr import described
from neurojax.neurons._steps import at, capped, checked, fired, mean_growth, stored
from neurojax.neurons.surrogate import Spike, heaviside

__all__ = ["Izhikevich", "IzhikevichState"]

_FAR = 1e4  # mV; what a step that fires may reach: u, driven by it, stays finite


def __dir__() -> list[str]:
    return __all__


class IzhikevichState(NamedTuple):
    """State of one population of `Izhikevich`.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        u: float [n], nA; recovery before the jump by this step's spike
        v_low: float [n], mV; what v leaves out by rounding
        u_low: float [n], nA; likewise of u
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    u: Float[Array, "*n"]
    v_low: Float[Array, "*n"]
    u_low: Float[Array, "*n"]


@described
class Izhikevich(eqx.Module):
    """Izhikevich's neuron, of 1 nF.

        dv/dt = .04 v^2 + linear v + constant - u + I - g v,    du/dt = a (b v - u)
        v >= v_peak: spike, v = c, u = u + d

    `scheme` "2003" takes v by two half-steps of Euler and then u with the new v, as the program of
    the first source does for its network, at dt = 1 ms; "2004" takes v by one, then u, as the
    figure of 20 patterns in the second does, at .1 to .5 ms; "rk4" solves the equations, of fourth
    order below the peak (patterns I, N, T and others are then not those of the figure). All are
    of first order in spike times. A conductance g (uS) enters the first two exactly, as a leak.
    The figure's patterns G and L have linear = 4.1 and constant = 108. Starts at v_init, u = b v.
    Raises `ValueError` for a parameter out of range, v_peak <= c, an unknown `scheme`, and at
    `init` for one that does not fit the population.
    Source: Izhikevich (2003), Simple model of spiking neurons, eqs. 1-3; Izhikevich (2004), Which
    model to use for cortical spiking neurons?, fig. 1.

    >>> neuron = nj.Izhikevich(a=0.02, b=0.2, c=-65.0, d=6.0)  # tonic spiking
    >>> step = lambda s, _: neuron.step(s, jnp.array([14.0]), dt=0.25)  # nA, ms
    >>> int(jax.lax.scan(step, neuron.init((1,)), length=360)[1].sum())  # spikes in 90 ms
    5
    """

    a: Float[Array, "*#n"] = eqx.field(default=0.02, converter=finite("a", "1/ms"))
    b: Float[Array, "*#n"] = eqx.field(default=0.2, converter=finite("b", "nA/mV"))
    c: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("c", "mV"))
    d: Float[Array, "*#n"] = eqx.field(default=8.0, converter=finite("d", "nA"))
    v_peak: Float[Array, "*#n"] = eqx.field(
        default=30.0, converter=finite("v_peak", "mV", above="c")
    )
    linear: Float[Array, "*#n"] = eqx.field(default=5.0, converter=positive("linear", "1/ms"))
    constant: Float[Array, "*#n"] = eqx.field(default=140.0, converter=finite("constant", "mV/ms"))
    v_init: Float[Array, "*#n"] = eqx.field(default=-65.0, converter=finite("v_init", "mV"))
    scheme: Literal["2003", "2004", "rk4"] = eqx.field(
        static=True, default="2004", converter=choice("scheme", "2003", "2004", "rk4")
    )
    spike: Spike = function("spike", default=heaviside)

    def __check_init__(self):
        ordered("c", self.c, "v_peak", self.v_peak, "mV")

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> IzhikevichState:
        """A population of `shape` at v_init, with the recovery that belongs to it."""
        fits(self, shape)
        v, v_low = at(self.v_init, shape, dtype)
        u, u_low = at(
            cast(self.b, working(dtype)) * cast(self.v_init, working(dtype)), shape, dtype
        )
        return IzhikevichState(v, jnp.zeros(shape, dtype), u, v_low, u_low)

    def step(
        self,
        state: IzhikevichState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[IzhikevichState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        (v, v_low), (u, u_low) = _reset(p, s), (s.u + p.d * s.z, s.u_low)
        moved = _runge_kutta if p.scheme == "rk4" else _published
        v_by, u_by = moved(p, whole(v, v_low, dtype), whole(u, u_low, dtype), current, g, dt)
        v, v_low = add(v, v_by + v_low, dtype)
        u, u_low = add(u, u_by + u_low, dtype)
        peak, peak_low = at(p.v_peak, v.shape, dtype)
        fires = whole(v, v_low, dtype) >= p.v_peak
        v, v_low = capped(v, peak.astype(v.dtype), v), jnp.where(fires, peak_low, v_low)
        z = fired(p, whole(v, v_low, dtype) - p.v_peak, dtype)
        v, u = cast((v, u), dtype)
        return IzhikevichState(v, z, u, v_low, u_low), z

    def potential(self, state: IzhikevichState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        p, s = cast((self, state), working(state.v.dtype))
        return _reset(p, s)[0].astype(state.v.dtype)

    def threshold(self, state: IzhikevichState) -> Float[Array, "*n"]:
        """The potential at which it counts as fired, v_peak, mV [n]."""
        return jnp.broadcast_to(self.v_peak.astype(state.v.dtype), state.v.shape)


def _reset(p, s) -> tuple[Array, Array]:
    fired = s.z > 0
    return jnp.where(fired, p.c, s.v), jnp.where(fired, 0, s.v_low)


def _slope(p, v, u, current, g) -> Array:
    """dv/dt, mV/ms: nA for 1 nF."""
    free = (0.04 * v + p.linear) * v + p.constant - u + current
    return free if g is None else free - g * v


def _published(p, v, u, current, g, dt) -> tuple[Array, Array]:
    """By how much v and u move: v by Euler, in halves in 2003, then u with the new v."""
    n = 2 if p.scheme == "2003" else 1
    span = dt / n if g is None else dt / n * mean_growth(-g * (dt / n))
    by = jnp.zeros_like(v)
    for _ in range(n):
        by = by + span * _slope(p, v + by, u, current, g)
    by = jnp.minimum(by, _FAR)
    return by, dt * p.a * (p.b * (v + by) - u)


def _runge_kutta(p, v, u, current, g, dt) -> tuple[Array, Array]:
    """By how much v and u move, by the classical method of fourth order."""

    def slopes(v_by, u_by):
        below = jnp.minimum(v + v_by, p.v_peak)
        return _slope(p, below, u + u_by, current, g), p.a * (p.b * below - (u + u_by))

    ks = [slopes(0.0, 0.0)]
    for share in (0.5, 0.5, 1.0):
        ks.append(slopes(share * dt * ks[-1][0], share * dt * ks[-1][1]))
    one, two, three, four = ks
    mean = lambda i: (one[i] + 2 * (two[i] + three[i]) + four[i]) / 6  # noqa: E731
    return dt * mean(0), dt * mean(1)
