"""Sources: layers that hear nothing and send what they draw or are given, within the scan.

As a layer, one that draws takes step t from fold_in(key, t): nothing [T, n] is held, and a longer
run begins with the shorter one.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from neurojax._check import (
    cast,
    finite,
    fits,
    nonnegative,
    positive,
    real,
    time_step,
    working,
)
from neurojax._draw import arrivals, happens
from neurojax._repr import described

__all__ = [
    "NoiseCurrent",
    "NoiseCurrentState",
    "Poisson",
    "PoissonInput",
    "PoissonState",
    "SpikeTimes",
    "SpikeTimesState",
    "StepCurrent",
    "StepCurrentState",
]


def __dir__() -> list[str]:
    return __all__


class PoissonState(NamedTuple):
    """State of one population of `Poisson` or `PoissonInput`.

    Fields:
        z: float [n]; spikes of this step: 0 or 1, or how many arrived
    """

    z: Float[Array, "*n"]


@described
class Poisson(eqx.Module):
    """Neurons that fire at random at `rate` Hz, one number or one a neuron, each on its own.

    In a step of `dt` ms a spike has probability rate dt / 1000, as in `encoding.poisson`: so they
    come as often as asked, at any dt, which 1 - exp(-rate dt / 1000), the chance of one spike or
    more, would not give. What differs from a Poisson process is that there are no two in a step:
    where they count, use `PoissonInput`. As a layer it
    draws step t from fold_in(key, t), so nothing [T, n] is held, and a longer run begins with
    the shorter one. It hears nothing: currents into it are refused.
    Raises `ValueError` for a rate that is not finite and >= 0, at `init` for rates that do not
    fit the population, and an equinox error when it steps for a rate above 1000 / dt.

    >>> noise = nj.Layer(100, nj.Poisson(20.0))
    """

    hears: ClassVar[bool] = False

    rate: Float[Array, "*#n"] = eqx.field(converter=nonnegative("rate", "Hz"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> PoissonState:
        """No spike yet."""
        fits(self, shape)
        return PoissonState(jnp.zeros(shape, dtype))

    def step(
        self, state: PoissonState, current: Any, *, dt: Any, key: Array
    ) -> tuple[PoissonState, Float[Array, "*n"]]:
        """Spikes of the next `dt` ms, drawn from `key`; `current` is not heard."""
        dtype = working(state.z.dtype)
        p = cast(self.rate, dtype) * dt / 1000
        p = eqx.error_if(p, (p > 1).any(), "rate must be <= 1000 / dt Hz, one spike a step")
        z = happens(key, p, state.z.shape).astype(state.z.dtype)
        return PoissonState(z), z


class SpikeTimesState(NamedTuple):
    """State of one population of `SpikeTimes`.

    Fields:
        z: float [n]; how many spikes this step has
        sent: int [n]; how many there were until its end
        clock: int []; steps made
    """

    z: Float[Array, "*n"]
    sent: Int[Array, "*n"]
    clock: Int[Array, ""]


class StepCurrentState(NamedTuple):
    """State of one population of `StepCurrent`.

    Fields:
        i: float [n], nA; current of this step
        clock: int []; steps made
    """

    i: Float[Array, "*n"]
    clock: Int[Array, ""]


class NoiseCurrentState(NamedTuple):
    """State of one population of `NoiseCurrent`.

    Fields:
        i: float [n], nA; current at the end of this step, in float32 at the least
        z: float [n], nA; the same, as it is sent
    """

    i: Float[Array, "*n"]
    z: Float[Array, "*n"]


@described
class PoissonInput(eqx.Module):
    """How many spikes arrive in a step from `n_inputs` independent Poisson trains of `rate` Hz each.

    Counts with the distribution of Poisson of mean n_inputs rate dt / 1000, none lost: for the
    drive from cells that are not simulated, in place of a layer of them. Either number may be one a
    neuron. A projection weighs the counts, as in `one_to_one`; it hears nothing. Of one number of
    32 bits a neuron, by the inverse of the distribution: chances are right to 2^-32.
    Raises `ValueError` for a number out of range, at `init` for one that does not fit the
    population, and an equinox error when it steps for a mean above 20: pass a smaller dt.

    >>> source = nj.PoissonInput(n_inputs=1000, rate=8.0)
    >>> z = source.step(source.init((10_000,)), None, dt=0.5, key=jax.random.key(0))[1]
    >>> f"{float(z.mean()):.1f}"  # 1000 inputs, 8 Hz, .5 ms
    '4.0'
    """  # noqa: E501  (its first line)

    hears: ClassVar[bool] = False

    n_inputs: Float[Array, "*#n"] = eqx.field(converter=nonnegative("n_inputs", ""))
    rate: Float[Array, "*#n"] = eqx.field(converter=nonnegative("rate", "Hz"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> PoissonState:
        """Nothing yet."""
        fits(self, shape)
        return PoissonState(jnp.zeros(shape, dtype))

    def step(
        self, state: PoissonState, current: Any, *, dt: Any, key: Array
    ) -> tuple[PoissonState, Float[Array, "*n"]]:
        """Arrivals [n] of the next `dt` ms, drawn from `key`; `current` is not heard."""
        dtype = working(state.z.dtype)
        p = cast(self, dtype)
        mean = p.n_inputs * p.rate * time_step(dt, dtype) / 1000
        allowed = "n_inputs rate dt / 1000 must be <= 20, the mean of a step: pass a smaller dt"
        mean = eqx.error_if(mean, (mean > 20).any(), allowed)
        z = arrivals(key, mean, state.z.shape).astype(state.z.dtype)
        return PoissonState(z), z


_TIMES = "times must be > 0 ms, or infinite where a neuron has no more"


def _spike_times(x: Any) -> Array:
    """Times [n, k], in order."""
    x = real(x)
    if x.ndim == 0:
        raise ValueError("times must have shape [n, k], k for each neuron; got shape ()")
    if isinstance(x, Tracer):
        return jnp.sort(eqx.error_if(x, ~(x > 0), _TIMES), axis=-1)
    bad = ~(np.asarray(x) > 0)
    if bad.any():
        raise ValueError(f"{_TIMES}; got {np.asarray(x)[bad][0]} ({bad.sum()} of {bad.size})")
    return jnp.sort(x, axis=-1)


@described
class SpikeTimes(eqx.Module):
    """Neurons that fire at the `times` given: ms, [n, k], k for each, in any order.

    Rows of fewer spikes are filled up with `jnp.inf`. A spike at t belongs to the step (t_0, t_0 +
    dt] that holds it, also where rounding puts it by that step's end; two in one step are counted,
    and z is then 2. Its clock counts whole steps in the state, so a run may be resumed. It hears
    nothing.
    Raises `ValueError` for times that are NaN or <= 0, and at `init` for ones that do not fit.

    >>> source = nj.SpikeTimes(jnp.array([[0.5, 2.0], [2.0, jnp.inf]]))
    >>> step = lambda s, _: source.step(s, None, dt=1.0)
    >>> jax.lax.scan(step, source.init((2,)), length=3)[1]
    Array([[1., 0.],
           [1., 1.],
           [0., 0.]], dtype=float32)
    """

    hears: ClassVar[bool] = False

    times: Float[Array, "*n k"] = eqx.field(converter=_spike_times)

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> SpikeTimesState:
        """At time 0."""
        if self.times.shape[:-1] != tuple(shape):
            raise ValueError(
                f"times must have shape {(*shape, 'k')}, k for each neuron; got {self.times.shape}"
            )
        none = jnp.zeros(shape, jnp.int32)
        return SpikeTimesState(jnp.zeros(shape, dtype), none, jnp.zeros((), jnp.int32))

    def step(
        self, state: SpikeTimesState, current: Any, *, dt: Any
    ) -> tuple[SpikeTimesState, Float[Array, "*n"]]:
        """How many spikes [n] the next `dt` ms have; `current` is not heard."""
        dt, clock = time_step(dt, self.times.dtype), state.clock + 1
        end = clock.astype(dt.dtype) * dt * (1 + 2 * jnp.finfo(dt.dtype).eps)
        sent = _until(self.times, end)
        z = (sent - state.sent).astype(state.z.dtype)
        return SpikeTimesState(z, sent, clock), z


def _until(times: Array, end: Array) -> Array:
    """How many of each row are at or before `end`."""
    find = lambda row: jnp.searchsorted(row, end, side="right")  # noqa: E731
    rows = times.reshape(-1, times.shape[-1])
    return jax.vmap(find)(rows).reshape(times.shape[:-1]).astype(jnp.int32)


def _change_times(x: Any) -> Array:
    """Times [k], in order."""
    x = nonnegative("times", "ms")(x)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"times must have shape [k]; got shape {x.shape}")
    if not isinstance(x, Tracer) and not np.all(np.diff(np.asarray(x, float)) > 0):
        raise ValueError("times must increase from one to the next, in ms")
    return x


@described
class StepCurrent(eqx.Module):
    """Currents that step from one value to the next at given times, and stay.

    From `times` [k] (ms, increasing) on they are `values` (nA), [k] for all neurons or [k, n]; 0 before
    the first. A step in which they change has its mean, so that no charge is lost. What it sends is
    current: `one_to_one` with weights 1 hands it on. Its clock counts whole steps in the state. It
    hears nothing.
    Raises `ValueError` for times that are negative or do not increase, values that are not finite
    or not as many, and at `init` for ones that do not fit the population.

    >>> source = nj.StepCurrent(times=jnp.array([1.0, 2.5]), values=jnp.array([2.0, 0.0]))
    >>> step = lambda s, _: source.step(s, None, dt=1.0)
    >>> jax.lax.scan(step, source.init((1,)), length=4)[1][:, 0]  # nA
    Array([0., 2., 1., 0.], dtype=float32)
    """  # noqa: E501  (its second line)

    hears: ClassVar[bool] = False

    times: Float[Array, " k"] = eqx.field(converter=_change_times)
    values: Float[Array, "k *#n"] = eqx.field(converter=finite("values", "nA"))

    def __check_init__(self):
        k = self.times.shape
        if self.values.shape[:1] != k:
            raise ValueError(
                f"values must have shape {k}, one a time, or {(*k, 'n')}; got {self.values.shape}"
            )

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> StepCurrentState:
        """At time 0."""
        if self.values.shape[1:] not in ((), tuple(shape)):
            raise ValueError(
                f"values must have shape {self.times.shape} or {(*self.times.shape, *shape)};"
                f" got {self.values.shape}"
            )
        return StepCurrentState(jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))

    def step(
        self, state: StepCurrentState, current: Any, *, dt: Any
    ) -> tuple[StepCurrentState, Float[Array, "*n"]]:
        """Mean current [n] of the next `dt` ms, nA; `current` is not heard."""
        dtype = working(state.i.dtype)
        dt, values = time_step(dt, self.times.dtype), self.values.astype(dtype)
        passed = _passed(self.times / dt, state.clock)
        share = (passed - jnp.append(passed[1:], 0)).astype(dtype)
        i = jnp.tensordot(share, values, axes=1)
        i = jnp.broadcast_to(i, state.i.shape).astype(state.i.dtype)
        return StepCurrentState(i, state.clock + 1), i


def _passed(q: Array, clock: Array) -> Array:
    """Which part of the step from `clock` on lies behind each of the times q, in steps."""
    whole = jnp.round(q)
    q = jnp.where(jnp.abs(q - whole) <= 4 * jnp.finfo(q.dtype).eps * q, whole, q)
    return jnp.clip(clock.astype(q.dtype) + 1 - q, 0, 1)


@described
class NoiseCurrent(eqx.Module):
    """Ornstein-Uhlenbeck noise: a current that wanders about its mean, one for each neuron.

        tau di/dt = -(i - mean) + sigma sqrt(2 tau) xi

    In the long run of mean `mean` and standard deviation `sigma` (nA), with correlation exp(-t /
    tau); it starts at `mean`. Exact at any dt for its values at the ends of steps, which it sends,
    as `StepCurrent` does. It hears nothing.
    Raises `ValueError` for a `sigma` < 0, a `tau` <= 0, and at `init` for a parameter that does not
    fit the population.
    Source: Uhlenbeck and Ornstein (1930), On the theory of the Brownian motion.

    >>> noise = nj.NoiseCurrent(sigma=0.5, tau=5.0)
    >>> step = lambda s, key: noise.step(s, None, dt=1.0, key=key)
    >>> keys = jax.random.split(jax.random.key(0), 1000)
    >>> f"{float(jax.lax.scan(step, noise.init((100,)), keys)[1].std()):.2f} nA"
    '0.50 nA'
    """

    hears: ClassVar[bool] = False

    mean: Float[Array, "*#n"] = eqx.field(default=0.0, converter=finite("mean", "nA"))
    sigma: Float[Array, "*#n"] = eqx.field(default=1.0, converter=nonnegative("sigma", "nA"))
    tau: Float[Array, "*#n"] = eqx.field(default=5.0, converter=positive("tau", "ms"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> NoiseCurrentState:
        """At the mean."""
        fits(self, shape)
        i = jnp.broadcast_to(self.mean.astype(working(dtype)), shape)
        return NoiseCurrentState(i, i.astype(dtype))

    def step(
        self, state: NoiseCurrentState, current: Any, *, dt: Any, key: Array
    ) -> tuple[NoiseCurrentState, Float[Array, "*n"]]:
        """Current [n] after the next `dt` ms, nA, drawn from `key`; `current` is not heard."""
        dtype = state.i.dtype
        p = cast(self, dtype)
        span = time_step(dt, dtype) / p.tau
        kick = p.sigma * jnp.sqrt(-jnp.expm1(-2 * span))
        drawn = jax.random.normal(key, state.i.shape, jnp.float32).astype(dtype)  # at any dtype
        i = state.i + jnp.expm1(-span) * (state.i - p.mean) + kick * drawn
        z = i.astype(state.z.dtype)
        return NoiseCurrentState(i, z), z
