"""Nodes of NIR that no other room has: synapses in steps, integrators, thresholds, plain sums."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    choice,
    finite,
    fits,
    flag,
    function,
    in_working,
    one_each,
    positive,
    time_step,
)
from neurojax._decay import leak
from neurojax._repr import described
from neurojax.neurons._steps import checked, fired, stored
from neurojax.neurons.surrogate import Spike, above
from neurojax.synapses import _propagators as propagators

__all__ = ["Integrator", "Passive", "PotentialState", "Relay", "SteppedExponential",
           "SteppedState", "Threshold"]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


class SteppedState(NamedTuple):
    """State of one population of `SteppedExponential`.

    Fields:
        i: float [n], nA; current
    """

    i: Float[Array, "*n"]


class PotentialState(NamedTuple):
    """State of one population of a model without spikes, or of `Threshold`.

    Fields:
        v: float [n], mV; what is sent, or compared with the threshold
    """

    v: Float[Array, "*n"]


@described
class SteppedExponential(eqx.Module):
    """Exponential synapse as simulators with another order or method of a step have it.

        order "synapse":   i = i + arrivals, the membrane hears i, then i decays
        order "membrane":  the membrane hears i, then i decays, i = i + arrivals

    With `held` the membrane hears i as it is, all through the step, as Euler's method has it;
    without, as it decays, exactly. `nj.Exponential` is order "membrane", not held.
    Raises `ValueError` for a `tau_syn` that is not finite and positive or does not fit the
    population, and for another order.

    >>> synapse = nj.interchange.SteppedExponential(tau_syn=5.0, order="synapse", held=True)
    >>> state, current = synapse.step(synapse.init((1,)), jnp.ones(1), dt=5.0)  # 1 nA arrives
    >>> float(current[0])  # and is heard in this step, nA
    1.0
    """

    tau_syn: Float[Array, "*#n"] = eqx.field(converter=positive("tau_syn", "ms"))
    order: Literal["membrane", "synapse"] = eqx.field(
        static=True, default="synapse", converter=choice("order", "membrane", "synapse")
    )
    held: bool = eqx.field(static=True, default=False, converter=flag("held"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> SteppedState:
        """No current."""
        fits(self, shape)
        return SteppedState(jnp.zeros(shape, dtype))

    def step(
        self, state: SteppedState, arrivals: Shaped[Array, "*n"], *, dt: ArrayLike,
        tau_mem: ArrayLike | None = None,
    ) -> tuple[SteppedState, Float[Array, "*n"]]:  # fmt: skip
        """State after `dt` ms and `arrivals` (nA), and the current that the membrane heard."""
        dtype = state.i.dtype
        arrivals = one_each("arrivals", arrivals, state.i.shape)
        i, p, arrivals = in_working(state.i, self, arrivals)
        dt = time_step(dt, i.dtype)
        tau_mem = None if tau_mem is None else jnp.asarray(tau_mem, i.dtype)
        first = self.order == "synapse"
        heard = i + arrivals if first else i
        left = heard + leak(dt, p.tau_syn) * heard
        after = left if first else left + arrivals
        current = heard if self.held else propagators.held(dt, tau_mem, p.tau_syn)[0] * heard
        return SteppedState(after.astype(dtype)), current.astype(dtype)


@described
class Passive(eqx.Module):
    """Membrane without threshold that rests at `v_rest`: what it sends is its potential.

        tau_mem dv/dt = -(v - v_rest) + r_mem I

    Exact for a current held over dt. `nj.LeakyIntegrator` is the same with v_rest = 0.
    Raises `ValueError` for parameters out of range, or that do not fit the population.

    >>> membrane = nj.interchange.Passive(tau_mem=10.0, v_rest=-1.0)
    >>> float(membrane.step(membrane.init((1,)), jnp.zeros(1), dt=1.0)[1][0])  # mV
    -1.0
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_rest: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("v_rest", "mV"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> PotentialState:
        """A population of `shape` at rest."""
        fits(self, shape)
        return PotentialState(jnp.broadcast_to(self.v_rest, shape).astype(dtype))

    def step(
        self, state: PotentialState, current: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[PotentialState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its potential."""
        p, s, current, dt, _ = checked(self, state, current, dt)
        v = s.v + leak(dt, p.tau_mem) * (s.v - p.v_rest - p.r_mem * current)
        v = v.astype(stored(state))
        return PotentialState(v), v


def _silent(model: Any, shape: tuple[int, ...], dtype: DTypeLike = float) -> PotentialState:
    """A population of `shape` that has heard nothing: 0."""
    fits(model, shape)
    return PotentialState(jnp.zeros(shape, dtype))


@described
class Integrator(eqx.Module):
    """Integral of a current, without threshold: c_mem dv/dt = I; it sends v, from 0 mV on.

    Exact for a current held over dt.
    Raises `ValueError` for a `c_mem` that is not positive or does not fit the population.

    >>> integral = nj.interchange.Integrator(c_mem=2.0)  # nF
    >>> float(integral.step(integral.init((1,)), jnp.ones(1), dt=1.0)[1][0])  # mV
    0.5
    """

    c_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("c_mem", "nF"))

    init = _silent

    def step(
        self, state: PotentialState, current: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[PotentialState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its potential."""
        p, s, current, dt, _ = checked(self, state, current, dt)
        v = (s.v + dt / p.c_mem * current).astype(stored(state))
        return PotentialState(v), v


@described
class Threshold(eqx.Module):
    """Fires where the current of the step is above a threshold; it remembers nothing.

        z = [I > v_th]

    Raises `ValueError` for a `v_th` that is not finite or does not fit the population.

    >>> neuron = nj.interchange.Threshold(v_th=0.5)  # nA
    >>> neuron.step(neuron.init((2,)), jnp.array([0.5, 0.6]), dt=1.0)[1]
    Array([0., 1.], dtype=float32)
    """

    v_th: Float[Array, "*#n"] = eqx.field(default=1.0, converter=finite("v_th", "nA"))
    spike: Spike = function("spike", default=above)

    init = _silent

    def step(
        self, state: PotentialState, current: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[PotentialState, Float[Array, "*n"]]:
        """What was heard in this step, and its spikes."""
        p, _, current, _, _ = checked(self, state, current, dt)
        z = fired(self, current - p.v_th, stored(state))
        return PotentialState(current.astype(stored(state))), z


@described
class Relay(eqx.Module):
    """Hands on the current of the step as it is: a sum of projections that is sent on.

    It remembers nothing; any shape [n], nA.

    >>> relay = nj.interchange.Relay()
    >>> relay.step(relay.init((1,)), jnp.array([0.25]), dt=1.0)[1]
    Array([0.25], dtype=float32)
    """

    init = _silent

    def step(
        self, state: PotentialState, current: Shaped[Array, "*n"], *, dt: Any
    ) -> tuple[PotentialState, Float[Array, "*n"]]:
        """The current [n], as state and as what is sent."""
        _, _, current, _, _ = checked(self, state, current, dt)
        current = current.astype(stored(state))
        return PotentialState(current), current
