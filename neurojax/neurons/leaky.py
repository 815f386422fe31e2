"""Neuron models: parameters in a frozen pytree, `init` the state, `step` by one `dt`.

All are exact for a current and a conductance held over `dt`, as their equations are linear
between spikes; only spike times are rounded up to the grid. Each parameter is one number or one
per neuron.
Within a step the last step's spikes reset the potential first, then it is integrated, then
compared with the threshold (>=): a spike belongs to the interval (t, t + dt].

A state is stored in the dtype that `init` was given and calculated in float32 at the least.
What that dtype cannot hold of a potential is kept beside it, so that no step is lost, however
small beside v_rest or in however long a run: spikes of a bfloat16 state are those of float32.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
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
    time_step,
    working,
)
from neurojax._decay import add, fade, felt, leak, left_out, moved, whole
from neurojax._repr import described
from neurojax.neurons._foreign import eulers, lasting
from neurojax.neurons._steps import (
    after_reset,
    checked,
    fired,
    membrane,
    stored,
    towards_rest,
)
from neurojax.neurons.surrogate import Spike, above, heaviside

__all__ = [
    "ALIF",
    "LIF",
    "ALIFState",
    "LIFState",
    "LeakyIntegrator",
    "LeakyIntegratorState",
]


def __dir__() -> list[str]:
    return __all__


class LIFState(NamedTuple):
    """State of one population of `LIF`; batch, seeds and settings are vmapped.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        refractory: int [n] or None; steps left in which v is held, this one included
        v_low: float [n] or None, mV; what v leaves out by rounding; None: nothing felt
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    refractory: Int[Array, "*n"] | None
    v_low: Float[Array, "*n"] | None


class ALIFState(NamedTuple):
    """State of one population of `ALIF`: that of `LIF`, and its adaptation.

    Fields:
        v: float [n], mV; membrane potential before reset
        z: float [n]; spikes of this step, 0 or 1
        refractory: int [n] or None; steps left in which v is held, this one included
        a: float [n]; adaptation that set this step's threshold: decayed count of spikes
        v_low: float [n] or None, mV; what v leaves out by rounding; None: nothing felt
        a_low: float [n]; likewise of a
    """

    v: Float[Array, "*n"]
    z: Float[Array, "*n"]
    refractory: Int[Array, "*n"] | None
    a: Float[Array, "*n"]
    v_low: Float[Array, "*n"] | None
    a_low: Float[Array, "*n"]


class LeakyIntegratorState(NamedTuple):
    """State of one population of `LeakyIntegrator`.

    Fields:
        v: float [n], mV; potential
        v_low: float [n] or None, mV; what v leaves out by rounding; None: nothing felt
    """

    v: Float[Array, "*n"]
    v_low: Float[Array, "*n"] | None


@described
class LIF(eqx.Module):
    """Leaky integrate-and-fire neuron.

        tau_mem dv/dt = -(v - v_rest) + r_mem (I - g v),    where v >= v_th: spike, then reset

    g is the `conductance` of a step, uS, and I then holds g E of its reversal potentials E.
    Reset "hard" restarts at v = v_reset; "subtract" lowers v by v_th - v_reset, which keeps
    what went over the threshold. With `t_ref` the neuron is silent after a spike for
    ceil(t_ref / dt) whole steps, v held where the reset left it; with None there is no
    refractory state at all. `spike` maps v - v_th to spikes; the default has no derivative.
    Raises `ValueError` for a parameter out of range, v_th <= v_reset, an unknown `reset`,
    and at `init` for a parameter that does not fit the population.
    Source: Gerstner et al. (2014), Neuronal Dynamics, eq. 1.5; the reset by subtraction:
    Bellec et al. (2020), A solution to the learning dilemma, Methods, "LIF neurons".

    >>> neuron = nj.LIF(tau_mem=10.0)  # ms; v_th is 1 mV
    >>> state, z = neuron.step(neuron.init((3,)), jnp.array([0.0, 5.0, 50.0]), dt=1.0)  # nA, ms
    >>> z
    Array([0., 0., 1.], dtype=float32)
    >>> f"{float(state.v[1]):.3f} mV"  # 5 (1 - exp(-1 / 10))
    '0.476 mV'
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_th: Float[Array, "*#n"] = eqx.field(
        default=1.0, converter=finite("v_th", "mV", above="v_reset")
    )
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

    @classmethod
    def from_snntorch(
        cls, beta: Any, threshold: Any = 1.0, reset: str = "subtract", *, dt: Any = 1.0,
        spike: Callable = above,
    ) -> "LIF":  # fmt: skip
        """snnTorch's `Leaky`, exactly, where it is run with steps of `dt` ms.

            u_t = beta u_{t-1} + x_t - z_{t-1} threshold,    z_t = [u_t > threshold]

        so with `reset` "subtract"; "zero" multiplies u_{t-1} by 1 - z_{t-1} instead. `beta` and
        `threshold` are one number or one a neuron. snnTorch subtracts after the decay, this
        class before it: v_reset is threshold (1 - 1 / beta), so that both come to the same.
        Pass a surrogate as `spike` to train on.
        Raises `ValueError` for a beta outside [0, 1), a threshold that is not positive and
        another reset, "none" included.
        Source: Eshraghian et al. (2023), Training spiking neural networks, eq. 4.

        >>> neuron = nj.LIF.from_snntorch(beta=0.9, threshold=1.0, reset="zero")
        >>> neuron.decay(dt=1.0)
        Array(0.9, dtype=float32)
        """
        return cls(**lasting(beta, threshold, reset, dt), spike=spike)

    @classmethod
    def from_spyx(
        cls, beta: Any, threshold: Any = 1.0, *, dt: Any = 1.0, spike: Callable = above
    ) -> "LIF":
        """Spyx's `LIF`, exactly, but for its spikes, which it sends one step late.

            z_t = [V_{t-1} > threshold],    V_t = beta V_{t-1} + x_t - z_t threshold

        V is the potential of this neuron in the same step of `dt` ms, whose spikes of step t - 1
        Spyx sends in step t: give the projections of a layer that hears them one step of
        `delay`. Arguments and errors are those of `from_snntorch`.
        Source: Heckel and Nowotny (2024), Spyx.

        >>> nj.LIF.from_spyx(beta=0.5, threshold=2.0).v_reset  # 2 (1 - 1 / 0.5), mV
        Array(-2., dtype=float32)
        """
        return cls(**lasting(beta, threshold, "subtract", dt), spike=spike)

    @classmethod
    def from_norse(
        cls, tau_mem_inv: Any = 100.0, v_leak: Any = 0.0, v_th: Any = 1.0, v_reset: Any = 0.0, *,
        dt: Any = 1.0, spike: Callable = above,
    ) -> "LIF":  # fmt: skip
        """Norse's `LIFBoxCell`, exactly, and the membrane of its `LIFCell`, with steps of `dt` ms.

            v_t = v_{t-1} + dt tau_mem_inv (v_leak - v_{t-1} + x_t),    z_t = [v_t > v_th]
            v_t = v_reset where it fired

        `tau_mem_inv` in 1/s, as there; potentials in mV. That is Euler's method: the time
        constant becomes the one that leaves 1 - dt tau_mem_inv after a step, so that another dt
        than the one given here is another neuron. Norse starts at 0, this class at v_leak.
        Raises `ValueError` for dt tau_mem_inv outside (0, 1] and v_th <= v_reset.
        Source: Pehle and Pedersen (2021), Norse.

        >>> nj.LIF.from_norse(tau_mem_inv=100.0).decay(dt=1.0)  # 1 - 0.1
        Array(0.9, dtype=float32)
        """
        tau = eulers(tau_mem_inv, dt)
        return cls(tau, v_th=v_th, v_rest=v_leak, v_reset=v_reset, spike=spike)

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> LIFState:
        """A population of `shape` at rest."""
        fits(self, shape)
        v, v_low = _at_rest(self, shape, dtype)
        return LIFState(v, jnp.zeros(shape, dtype), _ready(self, shape), v_low)

    def step(
        self,
        state: LIFState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[LIFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        v, v_low, refractory = membrane(p, s, current, g, dt, dtype, towards_rest)
        z = fired(p, whole(v, v_low, dtype) - p.v_th, dtype, refractory)
        return LIFState(v.astype(dtype), z, refractory, v_low), z

    def potential(self, state: LIFState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        p, s = cast((self, state), working(state.v.dtype))
        return after_reset(p, s)[0].astype(state.v.dtype)

    def threshold(self, state: LIFState) -> Float[Array, "*n"]:
        """The potential at which the neurons fired in this step, mV."""
        return jnp.broadcast_to(self.v_th.astype(state.v.dtype), state.v.shape)

    def decay(self, dt: ArrayLike) -> Float[Array, "*#n"]:
        """The part of a potential that is left after `dt`: exp(-dt / tau_mem)."""
        return jnp.exp(-time_step(dt, self.tau_mem.dtype) / self.tau_mem)


@described
class ALIF(eqx.Module):
    """Leaky integrate-and-fire neuron whose threshold rises with each of its spikes.

        tau_mem dv/dt = -(v - v_rest) + r_mem (I - g v),    spike where v >= v_th + beta_adapt a
        a_t = exp(-dt / tau_adapt) a_{t-1} + z_{t-1}

    A spike raises the threshold by `beta_adapt` (mV) from the next step on; the reset by
    subtraction stays v_th - v_reset. All else, and all errors, are those of `LIF`.
    Source: Bellec et al. (2020), A solution to the learning dilemma, Methods, "ALIF neurons".

    >>> neuron = nj.ALIF(beta_adapt=0.5)  # mV
    >>> state, z = neuron.step(neuron.init((2,)), jnp.array([0.0, 50.0]), dt=1.0)  # nA, ms
    >>> state, _ = neuron.step(state, jnp.zeros(2), dt=1.0)
    >>> z, neuron.threshold(state)  # mV: higher by 0.5 in the step after the spike
    (Array([0., 1.], dtype=float32), Array([1. , 1.5], dtype=float32))
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))
    v_th: Float[Array, "*#n"] = eqx.field(
        default=1.0, converter=finite("v_th", "mV", above="v_reset")
    )
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
        v, v_low = _at_rest(self, shape, dtype)
        zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, working(dtype))
        return ALIFState(v, zero, _ready(self, shape), zero, v_low, none)

    def step(
        self,
        state: ALIFState,
        current: Shaped[Array, "*n"],
        *,
        dt: ArrayLike,
        conductance: Shaped[Array, "*n"] | None = None,
    ) -> tuple[ALIFState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA) and `conductance` (uS), and its spikes."""
        dtype = stored(state)
        p, s, current, dt, g = checked(self, state, current, dt, conductance)
        v, v_low, refractory = membrane(p, s, current, g, dt, dtype, towards_rest)
        a, a_low = fade(s.a, s.a_low, leak(dt, p.tau_adapt), dtype)
        a, a_low = add(a, s.z + a_low, dtype)
        threshold = p.v_th + p.beta_adapt * whole(a, a_low, dtype)
        z = fired(p, whole(v, v_low, dtype) - threshold, dtype, refractory)
        new = ALIFState(v.astype(dtype), z, refractory, a.astype(dtype), v_low, a_low)
        return new, z

    def potential(self, state: ALIFState) -> Float[Array, "*n"]:
        """What the next step starts from, mV [n]: v after the reset by this step's spikes."""
        p, s = cast((self, state), working(state.v.dtype))
        return after_reset(p, s)[0].astype(state.v.dtype)

    def threshold(self, state: ALIFState) -> Float[Array, "*n"]:
        """The potential at which the neurons fired in this step, v_th + beta_adapt a, mV."""
        dtype = state.a.dtype
        p, s = cast((self, state), working(dtype))
        return (p.v_th + p.beta_adapt * whole(s.a, s.a_low, dtype)).astype(dtype)

    def decay(self, dt: ArrayLike) -> Float[Array, "*#n"]:
        """The part of a potential that is left after `dt`: exp(-dt / tau_mem)."""
        return jnp.exp(-time_step(dt, self.tau_mem.dtype) / self.tau_mem)


@described
class LeakyIntegrator(eqx.Module):
    """Neuron without threshold: its output is its potential, a low-pass of the current.

        y_t = kappa y_{t-1} + (1 - kappa) r_mem I_t,    kappa = exp(-dt / tau_mem)

    Raises `ValueError` for a parameter that is not finite and positive, and at `init` for
    one that does not fit the population.
    Source: Bellec et al. (2020), A solution to the learning dilemma, Methods, readout y_k.

    >>> readout = nj.LeakyIntegrator(tau_mem=10.0)  # ms
    >>> state, y = readout.step(readout.init((1,)), jnp.ones(1), dt=1.0)  # nA, ms
    >>> f"{float(y[0]):.3f} mV"  # 1 - exp(-1 / 10)
    '0.095 mV'
    """

    tau_mem: Float[Array, "*#n"] = eqx.field(default=20.0, converter=positive("tau_mem", "ms"))
    r_mem: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("r_mem", "MOhm"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> LeakyIntegratorState:
        """A population of `shape` at 0 mV."""
        fits(self, shape)
        low = left_out(self.tau_mem, shape, dtype)
        return LeakyIntegratorState(jnp.zeros(shape, dtype), low)

    def step(
        self, state: LeakyIntegratorState, current: Shaped[Array, "*n"], *, dt: ArrayLike
    ) -> tuple[LeakyIntegratorState, Float[Array, "*n"]]:
        """State after `dt` ms under `current` (nA), and its potential."""
        dtype = stored(state)
        p, s, current, dt, _ = checked(self, state, current, dt)
        gap = whole(s.v, s.v_low, dtype) - p.r_mem * current
        v, v_low = moved(s.v, leak(dt, p.tau_mem) * gap, s.v_low, dtype)
        v = v.astype(dtype)
        return LeakyIntegratorState(v, v_low), v

    def decay(self, dt: ArrayLike) -> Float[Array, "*#n"]:
        """The part of a potential that is left after `dt`: exp(-dt / tau_mem)."""
        return jnp.exp(-time_step(dt, self.tau_mem.dtype) / self.tau_mem)


def _at_rest(p: LIF | ALIF, shape: tuple[int, ...], dtype: DTypeLike):
    """Potential at rest, and what its type cannot hold of it."""
    rest = jnp.broadcast_to(p.v_rest.astype(working(dtype)), shape)
    if not felt(p.tau_mem, dtype, p.v_rest):
        return rest.astype(dtype), None
    v, v_low = add(jnp.zeros_like(rest), rest, dtype)
    return v.astype(dtype), v_low


def _ready(p: LIF | ALIF, shape: tuple[int, ...]) -> Array | None:
    return None if p.t_ref is None else jnp.zeros(shape, jnp.int32)
