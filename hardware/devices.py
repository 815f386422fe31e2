"""Synapse devices: how programming pulses move a conductance, and all that goes wrong.

A device lives between G_min and G_max; u = (G - G_min) / (G_max - G_min) says where. One
function tells what a pulse adds to u; a pulse down is its mirror image, u <-> 1 - u, unless
the device has another function for it. Everything is elementwise: a parameter is one number
or one a device, so that variation is data. SI units.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from hardware._check import (
    called,
    conductance,
    normal,
    one_a_device,
    rising,
    trains,
    window,
)
from hardware._clock import Sum, exact, since
from neurojax._check import (
    between,
    brief,
    cast,
    count,
    finite,
    flag,
    instance,
    nonnegative,
    optional,
    positive,
    prng_key,
    real,
    working,
)
from neurojax._memory import affordable
from neurojax._repr import described

__all__ = [
    "Affine", "Cells", "Device", "Levels", "Response", "Stepwise", "Table", "exp_step",
    "exponential", "linear", "nearest", "piecewise", "power", "querlioz", "soft_bounds",
    "table", "varied",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


LONGEST = 2**16  # pulses of one write: devices that need more are left short of their target
_ONE_BY_ONE = 2.0**20  # pulses of a response without a closed form: a second or so
_STEEPEST = 80.0  # exponents up to here are numbers in float32
_NEAR = 1e-6  # of the range: as near to a bound that is never reached as float32 can tell


@runtime_checkable
class Response(Protocol):
    """u of devices at `u` after `n` more pulses up; `n` is a whole number >= 0 a device.

    Both are [d], elementwise; u is the place in [0, 1] as part of the range.
    """

    def __call__(self, u: Float[Array, "*d"], n: Float[Array, "*d"]) -> Float[Array, "*d"]:
        """u after `n` pulses up."""
        ...


@described
class Affine(eqx.Module):
    """Step that shrinks in proportion to u: du = step (1 - slope u).

        u_n = u + (1 - slope u) (1 - q^n) / slope,    q = 1 - step slope

    `slope` None or 0 is linear, 1 has soft bounds, between them lies the exponential device.
    u, `step` and `slope` are in parts of the range.
    Raises `ValueError` for a step outside [0, 1] and a slope below 0.
    Source: aihwkit's ConstantStep, LinearStep and SoftBounds (Rasch et al. 2021); closed
    form: their geometric sum.

    >>> hardware.Affine(step=0.5, slope=1.0)(jnp.zeros(3), jnp.array([0.0, 1.0, 2.0]))
    Array([0.  , 0.5 , 0.75], dtype=float32)
    """

    step: Float[Array, "*#d"] = eqx.field(converter=between("step", 0.0, 1.0))
    slope: Float[Array, "*#d"] | None = eqx.field(
        default=None, converter=optional(nonnegative("slope", ""))
    )

    def __call__(self, u: Float[Array, "*d"], n: Float[Array, "*d"]) -> Float[Array, "*d"]:
        """u after `n` pulses up."""
        if self.slope is None:
            return jnp.minimum(u + n * self.step, 1.0)
        curved = self.slope > 0
        slope = jnp.where(curved, self.slope, 1.0)
        # log1p(-1) = -inf is the device that one pulse takes to its bound; 0 pulses do not.
        gone = jnp.where(n > 0, -jnp.expm1(n * jnp.log1p(-jnp.minimum(self.step * slope, 1))), 0.0)
        steps = jnp.where(curved, gone / slope, n * self.step)
        return jnp.minimum(u + (1 - self.slope * u) * steps, 1.0)

    def pulses_to(self, u: Float[Array, "*d"]) -> Float[Array, "*d"]:
        """How many pulses, whole or not, lead from 0 to `u`; as many as matter where none do."""
        if self.slope is None:
            return u / self.step
        curved = self.slope > 0
        slope = jnp.where(curved, self.slope, 1.0)
        shrink = jnp.log1p(-jnp.minimum(self.step * slope, 1 - _NEAR))
        left = jnp.log1p(-jnp.minimum(u * slope, 1 - _NEAR))
        return jnp.where(curved, left / shrink, u / self.step)


def linear(n_pulses: ArrayLike) -> Affine:
    """Equal steps; `n_pulses` span the range. `n_pulses` is one number, or one a device.

    >>> hardware.linear(4)(jnp.zeros(3), jnp.array([1.0, 2.0, 8.0]))  # u of three devices
    Array([0.25, 0.5 , 1.  ], dtype=float32)
    """
    return Affine(1 / positive("n_pulses", "pulses")(n_pulses))


def soft_bounds(n_pulses: ArrayLike) -> Affine:
    """Steps in proportion to what is left of the range; the first is 1 / `n_pulses` of it.

    `n_pulses` is one number, or one a device.

    >>> hardware.soft_bounds(2)(jnp.zeros(3), jnp.array([1.0, 2.0, 3.0]))
    Array([0.5  , 0.75 , 0.875], dtype=float32)
    """
    return Affine(1 / positive("n_pulses", "pulses")(n_pulses), 1.0)


def exponential(n_pulses: ArrayLike, a: ArrayLike) -> Affine:
    """G = G_min + B (1 - exp(-P / A)), which `n_pulses` take from end to end; A in pulses.

    `n_pulses` and `a` = A are one number, or one a device.
    Source: Chen, Peng and Yu (2018), NeuroSim, eqs. 1-3: B = R / (1 - exp(-n_pulses / A)).

    >>> u = hardware.exponential(10, a=5.0)(jnp.zeros(2), jnp.array([5.0, 10.0]))
    >>> [f"{float(x):.3f}" for x in u]  # most of the way in the first half
    ['0.731', '1.000']
    """
    n_pulses, a = positive("n_pulses", "pulses")(n_pulses), positive("a", "pulses")(a)
    slope = -jnp.expm1(-n_pulses / a)
    return Affine(-jnp.expm1(-1 / a) / slope, slope)


@described
class Stepwise(eqx.Module):
    """Any device, from one function: what a single pulse up adds to u.

    `step` maps u [d] to steps [d], both in parts of the range. n pulses are a loop as long as
    the largest n; u stays in [0, 1].
    """

    step: Callable[[Array], Array] = eqx.field(
        converter=called("step", "a function of u, or hardware.linear(n_pulses)", of=__name__)
    )

    def __call__(self, u: Float[Array, "*d"], n: Float[Array, "*d"]) -> Float[Array, "*d"]:
        """u after `n` pulses up."""
        u, n = real(u, "u"), real(n, "n")
        if not isinstance(n, Tracer):
            between("n", 0.0, _ONE_BY_ONE, "pulses, which are gone through one by one")(n)
        u, n = jnp.broadcast_arrays(u, n.astype(u.dtype))
        return _stepped(self.step, u, n)


@eqx.filter_jit
def _stepped(step: Callable[[Array], Array], u: Array, n: Array) -> Array:
    def pulse(i, u):
        return jnp.where(i < n, jnp.clip(u + step(u), 0, 1).astype(u.dtype), u)

    return jax.lax.fori_loop(0, jnp.max(n, initial=0).astype(int), pulse, u)


def _one_by_one(n_pulses: ArrayLike) -> Array:
    """Pulses that span the range of a response that has no closed form."""
    n_pulses = positive("n_pulses", "pulses")(n_pulses)
    most = 0.0 if isinstance(n_pulses, Tracer) else np.asarray(n_pulses).max(initial=0)
    if most > LONGEST:
        raise ValueError(
            f"n_pulses must be at most {LONGEST} where pulses are gone through one by one; got"
            f" {most:g}: pass fewer, or hardware.linear or exponential"
        )
    return n_pulses


@described
class _Querlioz(eqx.Module):
    alpha: Float[Array, "*#d"]
    beta: Float[Array, "*#d"]

    def __call__(self, u):
        return self.alpha * jnp.exp(-self.beta * u)


def querlioz(n_pulses: ArrayLike, beta: ArrayLike) -> Stepwise:
    """du = alpha exp(-beta u), alpha such that `n_pulses` span the range.

    alpha is solved for by bisection: the integral of the continuous equation would miss by
    22% of the range at beta = 5 and 64 pulses.
    `n_pulses` and `beta` are one number, or one a device.
    Source: Querlioz et al. (2011), IJCNN, eqs. 1-2.

    >>> u = hardware.querlioz(10, beta=2.0)(jnp.zeros(2), jnp.array([5.0, 10.0]))
    >>> [f"{float(x):.3f}" for x in u]
    ['0.736', '1.000']
    """
    n_pulses = _one_by_one(n_pulses)
    beta = between("beta", 0.0, _STEEPEST)(beta)
    dtype = working(jnp.promote_types(n_pulses.dtype, beta.dtype))
    n_pulses, beta = jnp.broadcast_arrays(n_pulses.astype(dtype), beta.astype(dtype))

    def last(alpha):
        pulse = lambda i, u: jnp.where(i < n_pulses, u + alpha * jnp.exp(-beta * u), u)  # noqa: E731
        return jax.lax.fori_loop(0, jnp.max(n_pulses).astype(int), pulse, jnp.zeros_like(alpha))

    def halve(_, ends):
        low, high = ends
        middle = jnp.sqrt(low * high)
        over = last(middle) > 1
        return jnp.where(over, low, middle), jnp.where(over, middle, high)

    # Every step lies between alpha exp(-beta) and alpha.
    ends = (1 / n_pulses, jnp.exp(beta) / n_pulses)
    return Stepwise(_Querlioz(jax.lax.fori_loop(0, 60, halve, ends)[1], beta))


@described
class _Power(eqx.Module):
    first: Float[Array, "*#d"]
    gamma: Float[Array, "*#d"]

    def __call__(self, u):
        return self.first * (1 - u) ** self.gamma


def power(n_pulses: ArrayLike, gamma: ArrayLike) -> Stepwise:
    """du = (1 - u)^gamma / n_pulses: the first step is 1 / `n_pulses` of the range.

    `n_pulses` and `gamma` are one number, or one a device.
    Source: aihwkit's PowStep (Rasch et al. 2021).

    >>> hardware.power(2, gamma=2.0)(jnp.zeros(3), jnp.array([0.0, 1.0, 2.0]))
    Array([0.   , 0.5  , 0.625], dtype=float32)
    """
    first = 1 / _one_by_one(n_pulses)
    return Stepwise(_Power(first, nonnegative("gamma", "")(gamma)))


@described
class _ExpStep(eqx.Module):
    first: Float[Array, "*#d"]
    scale: Float[Array, "*#d"]
    gamma: Float[Array, "*#d"]
    a: Float[Array, "*#d"]
    b: Float[Array, "*#d"]

    def __call__(self, u):
        z = self.a * (2 * u - 1) + self.b
        return self.first * jnp.maximum(0, 1 - self.scale * jnp.exp(self.gamma * z))


def exp_step(
    n_pulses: ArrayLike, scale: ArrayLike = 0.00081, gamma: ArrayLike = 12.44625,
    a: ArrayLike = 0.244, b: ArrayLike = 0.2425,
) -> Stepwise:  # fmt: skip
    """du = max(0, 1 - scale exp(gamma z)) / n_pulses, z = a (2 u - 1) + b.

    The defaults are a measured device's way up. Each is one number, or one a device; du and u
    are in parts of the range. Source: aihwkit's ExpStep (Rasch et al. 2021), whose A is
    `scale`, fitted to Gong et al. (2018), IEDM.
    """
    first = 1 / _one_by_one(n_pulses)
    named = {"scale": scale, "gamma": gamma, "a": a, "b": b}
    shape = (between(name, -_STEEPEST, _STEEPEST)(x) for name, x in named.items())
    return Stepwise(_ExpStep(first, *shape))


@described
class _Piecewise(eqx.Module):
    first: Float[Array, "*#d"]
    nodes: Float[Array, " k"]

    def __call__(self, u):
        at = jnp.linspace(0.0, 1.0, len(self.nodes), dtype=u.dtype)
        return self.first * jnp.interp(u, at, self.nodes)


def piecewise(n_pulses: ArrayLike, nodes: Float[Array, " k"]) -> Stepwise:
    """du = f(u) / n_pulses, f linear between `nodes` [k], spread evenly over the range.

    Raises `ValueError` for fewer than two nodes, or one below 0.
    Source: aihwkit's PiecewiseStep (Rasch et al. 2021).
    """
    first = 1 / _one_by_one(n_pulses)
    nodes = nonnegative("nodes", "")(nodes)
    if nodes.ndim != 1 or len(nodes) < 2:
        raise ValueError(f"nodes must be two or more numbers; got shape {nodes.shape}")
    return Stepwise(_Piecewise(first, nodes))


class Cells(NamedTuple):
    """State of an array of devices, each of any shape `d`.

    Fields:
        G: float [d], S; as the last pulse left it
        n_pulses: int [d]; received so far: endurance
        since: Sum or None, s; time of the last pulse, where G drifts
    """

    G: Float[Array, "*d"]
    n_pulses: Int[Array, "*d"]
    since: Sum | None = None


@described
class Device(eqx.Module):
    """A conductance that pulses move: the response, its window, and its flaws.

        G_n = G_min + R f(u, n) + sigma_c2c R sqrt(n) xi,        R = G_max - G_min
        G(t) = G_n max(1, (t - t_n) / t_0)^-nu + sigma_read R xi

    Pulses act on G_n: what has drifted since the last one is taken to come back with the next.
    Without `sigma_c2c` no noise is drawn, which saves time.
    `down` is the response of u' = 1 - u to pulses down (None: that of `up`). Devices with
    `stuck` -1 or 1 stay at G_min or G_max. `discrete` False lets n be any number >= 0.
    G is in S and of any shape [d], time in s, the noises in parts of R.
    Raises `ValueError` for a parameter out of range, or G_max <= G_min.
    Source: Yu (2018), Proc. IEEE 106, 260, sec. III (window and flaws); drift: Ielmini et
    al. (2007), IEEE Trans. Electron Devices 54, 308, eq. 1.

    >>> device = hardware.Device(hardware.linear(9))  # from 1 to 10 uS in 9 pulses
    >>> up, down = jnp.array([0, 2, 20]), jnp.array([0, 0, 1])  # pulses
    >>> cells = device.pulse(device.init(jnp.full(3, 1e-6)), up, down)
    >>> [f"{G * 1e6:.1f} uS" for G in device.read(cells).tolist()]
    ['1.0 uS', '3.0 uS', '9.0 uS']
    """

    up: Response = eqx.field(converter=called("up", "hardware.linear(n_pulses)", of=__name__))
    down: Response | None = eqx.field(
        default=None,
        converter=called("down", "hardware.linear(n_pulses)", of=__name__, optional=True),
    )
    G_min: Float[Array, "*#d"] = eqx.field(default=1e-6, converter=nonnegative("G_min", "S"))
    G_max: Float[Array, "*#d"] = eqx.field(default=1e-5, converter=positive("G_max", "S"))
    sigma_c2c: Float[Array, "*#d"] | None = eqx.field(
        default=None, converter=optional(nonnegative("sigma_c2c", "R"))
    )
    sigma_read: Float[Array, "*#d"] = eqx.field(
        default=0.0, converter=nonnegative("sigma_read", "R")
    )
    nu: Float[Array, "*#d"] | None = eqx.field(
        default=None, converter=optional(nonnegative("nu", ""))
    )
    t_0: Float[Array, ""] = eqx.field(default=1.0, converter=positive("t_0", "s"))
    stuck: Int[Array, "*#d"] | None = None
    v_pulse: Float[Array, ""] = eqx.field(default=1.0, converter=nonnegative("v_pulse", "V"))
    t_pulse: Float[Array, ""] = eqx.field(default=1e-7, converter=positive("t_pulse", "s"))
    discrete: bool = eqx.field(static=True, default=True, converter=flag("discrete"))

    def __check_init__(self):
        window(self.G_min, self.G_max)

    def init(self, G: Shaped[Array, "*d"], *, t: ArrayLike | Sum = 0.0) -> Cells:
        """Devices set at time `t` (s) to `G` (S), held within the window, without noise."""
        G = conductance(G)
        _fit(self, G.shape)
        p = cast(self, G.dtype)
        last = None if self.nu is None else everywhere(exact(t, G.dtype), G.shape)
        held = p._held(jnp.clip(G, p.G_min, p.G_max))
        return Cells(held, jnp.zeros(G.shape, jnp.int32), last)

    def pulse(
        self, cells: Cells, n_up: Shaped[ArrayLike, "*#d"], n_down: Shaped[ArrayLike, "*#d"], *,
        key: Key[Array, ""] | None = None, t: ArrayLike | Sum = 0.0,
    ) -> Cells:  # fmt: skip
        """After `n_up` pulses up, then `n_down` down, ending at time `t`, s."""
        dtype = working(programmed(cells).dtype)
        (p, G), (n_up, n_down) = cast((self, cells.G), dtype), trains(n_up, n_down, dtype)
        n = n_up + n_down
        u = p.up(jnp.clip((G - p.G_min) / (p.G_max - p.G_min), 0, 1), n_up)
        u = 1 - (p.down or p.up)(1 - u, n_down)
        if key is not None and p.sigma_c2c is not None:
            noise = normal(key, u)
            u = jnp.clip(u + p.sigma_c2c * jnp.sqrt(n) * noise, 0, 1)
        # A device that gets no pulse keeps its conductance to the bit.
        G = p._held(jnp.where(n > 0, p.G_min + (p.G_max - p.G_min) * u, G))
        G = G.astype(cells.G.dtype)
        last = None if cells.since is None else restarted(n > 0, t, cells.since)
        return Cells(G, cells.n_pulses + jnp.ceil(n).astype(jnp.int32), last)

    def read(
        self, cells: Cells, *, key: Key[Array, ""] | None = None, t: ArrayLike | Sum = 0.0
    ) -> Float[Array, "*d"]:
        """Conductance at time `t` (s), S; it has not drifted before the last pulse."""
        G = cells.G
        if self.nu is not None and cells.since is not None:
            p, age = cast(self, cells.since.s.dtype), since(exact(t, G.dtype), cells.since)
            left = jnp.maximum(1, age / p.t_0) ** -p.nu
            G = (G.astype(age.dtype) * left).astype(G.dtype)
        if key is None:
            return G
        noise = normal(key, G)
        return jnp.maximum(G + self.read_sigma(cells, t=t) * noise, 0)

    def read_sigma(self, cells: Cells, *, t: ArrayLike | Sum = 0.0) -> Float[Array, "*#d"]:
        """Standard deviation of what is read, S."""
        return (self.sigma_read * (self.G_max - self.G_min)).astype(cells.G.dtype)

    def pulses_to(self, G: Float[Array, "*d"], longest: ArrayLike = LONGEST) -> Float[Array, "*d"]:
        """Noiseless pulses up, at most `longest`, that bring devices from G_min nearest to `G`.

        In float32 at the least, as half precision counts no further than 256.
        """
        p, G = cast((self, G), working(G.dtype))
        target = jnp.clip((G - p.G_min) / (p.G_max - p.G_min), 0, 1)
        if isinstance(p.up, Affine) and not self.discrete:
            return jnp.minimum(p.up.pulses_to(target), jnp.asarray(longest, G.dtype))
        return nearest(p.up, target, longest)

    def _held(self, G: Array) -> Array:
        """Stuck devices at their ends."""
        if self.stuck is None:
            return G
        return jnp.where(self.stuck < 0, self.G_min, jnp.where(self.stuck > 0, self.G_max, G))


def programmed(cells: Any) -> Array:
    """The conductance of cells, refused where they are none."""
    if not hasattr(getattr(cells, "G", None), "dtype"):
        raise TypeError(f"cells must be what init gives; got {brief(cells)}")
    return cells.G


def everywhere(t: Sum, shape: tuple[int, ...]) -> Sum:
    """One time for all devices of `shape`."""
    return Sum(*(jnp.broadcast_to(part, shape) for part in t))


def restarted(pulsed: Bool[Array, "*d"], t: ArrayLike | Sum, last: Sum) -> Sum:
    """Time of the last pulse: now where one came."""
    now = exact(t, last.s.dtype)
    return Sum(*(jnp.where(pulsed, new, old) for new, old in zip(now, last, strict=True)))


def known_zero(x: ArrayLike) -> bool:
    """Whether all of `x` is known to be 0; what is traced may be anything."""
    try:
        return not np.any(np.asarray(x))
    except jax.errors.TracerArrayConversionError:
        return False


def _fit(device: Device, shape: tuple[int, ...]) -> None:
    """Refuse parameters that are neither one number nor one a device of `shape`."""
    for part in (device, device.up, device.down):
        if isinstance(part, Device | Affine):
            one_a_device(part, shape)


def nearest(
    response: Response, u: Float[Array, "*d"], longest: ArrayLike = LONGEST
) -> Float[Array, "*d"]:
    """Whole number of pulses from 0, at most `longest`, that comes nearest to `u`.

    `u` [d], in parts of the range, may differ from device to device; so does what comes out.
    """
    longest = jnp.floor(jnp.asarray(longest, u.dtype))
    if not isinstance(response, Affine):
        return _counted(response, u, longest)
    zero, n = jnp.zeros_like(u), jnp.floor(response.pulses_to(u))
    n = jnp.where(u > (response(zero, n) + response(zero, n + 1)) / 2, n + 1, n)
    return jnp.minimum(n, longest)


@eqx.filter_jit
def _counted(response: Response, target: Array, longest: ArrayLike) -> Array:
    """Pulses from u = 0 nearest to `target`, one by one, for as long as any device moves on."""
    one = jnp.ones_like(target)

    def on(carry):
        u, after, n = carry
        return (target > (u + after) / 2) & (after > u) & (n < longest)

    def pulse(carry):
        more, (u, after, n) = on(carry), carry
        u = jnp.where(more, after, u)
        return u, response(u, one), n + more.astype(n.dtype)

    zero = jnp.zeros_like(target)
    start = zero, response(zero, one), zero
    return jax.lax.while_loop(lambda carry: on(carry).any(), pulse, start)[2]


class Levels(NamedTuple):
    """State of an array of devices that are tables, each of any shape `d`.

    Fields:
        G: float [d], S; as the last pulse left it
        n_pulses: int [d]; received so far: endurance
        level: int [d]; which of the table's states, from 0
    """

    G: Float[Array, "*d"]
    n_pulses: Int[Array, "*d"]
    level: Int[Array, "*d"]


@described
class Table(eqx.Module):
    """A measured device: its `n_states` conductances, of which each pulse moves to the next.

    Which one is a whole number in the state, so the states are discrete exactly, with noise
    of each programming, `sigma_c2c` of the range and pulse, on top.
    Raises `ValueError` for fewer than two levels, or levels that do not rise.
    Source: Lim et al. (2019), arXiv 1707.06381 (a measured device in the learning loop).

    >>> device = hardware.Table([1e-6, 4e-6, 5e-6])  # S
    >>> cells = device.pulse(device.init(jnp.full(3, 1e-6)), jnp.array([0, 1, 9]), 0)
    >>> cells.level.tolist(), [f"{G * 1e6:.1f} uS" for G in cells.G.tolist()]
    ([0, 1, 2], ['1.0 uS', '4.0 uS', '5.0 uS'])
    """

    levels: Float[Array, " k"] = eqx.field(converter=finite("levels", "S"))
    sigma_c2c: Float[Array, "*#d"] | None = eqx.field(
        default=None, converter=optional(nonnegative("sigma_c2c", "R"))
    )
    sigma_read: Float[Array, "*#d"] = eqx.field(
        default=0.0, converter=nonnegative("sigma_read", "R")
    )
    v_pulse: Float[Array, ""] = eqx.field(default=1.0, converter=nonnegative("v_pulse", "V"))
    t_pulse: Float[Array, ""] = eqx.field(default=1e-7, converter=positive("t_pulse", "s"))
    discrete: ClassVar[bool] = True

    def __check_init__(self):
        rising("levels", self.levels, "S")

    @property
    def G_min(self) -> Float[Array, ""]:
        """Lowest level, S."""
        return self.levels[0]

    @property
    def G_max(self) -> Float[Array, ""]:
        """Highest level, S."""
        return self.levels[-1]

    def init(self, G: Shaped[Array, "*d"], *, t: ArrayLike | Sum = 0.0) -> Levels:
        """Devices at the level nearest to `G`."""
        G = conductance(G)
        levels = self.levels.astype(G.dtype)
        level = jnp.searchsorted((levels[1:] + levels[:-1]) / 2, G).astype(jnp.int32)
        return Levels(levels[level], jnp.zeros(G.shape, jnp.int32), level)

    def pulse(
        self, cells: Levels, n_up: Shaped[ArrayLike, "*#d"], n_down: Shaped[ArrayLike, "*#d"], *,
        key: Key[Array, ""] | None = None, t: ArrayLike | Sum = 0.0,
    ) -> Levels:  # fmt: skip
        """After `n_up` pulses up, then `n_down` down; both stop at the last level."""
        n_up, n_down = trains(n_up, n_down, working(programmed(cells).dtype))
        p, n = cast(self, cells.G.dtype), n_up + n_down
        up = jnp.minimum(cells.level + n_up.astype(jnp.int32), len(self.levels) - 1)
        level = jnp.maximum(up - n_down.astype(jnp.int32), 0)
        G = p.levels[level]
        if key is not None and p.sigma_c2c is not None:
            noise = p.sigma_c2c * jnp.sqrt(n).astype(G.dtype) * normal(key, G)
            G = jnp.clip(G + (p.G_max - p.G_min) * noise, p.G_min, p.G_max)
        G = jnp.where(n > 0, G, cells.G)
        return Levels(G, cells.n_pulses + n.astype(jnp.int32), level)

    def pulses_to(self, G: Float[Array, "*d"], longest: ArrayLike = LONGEST) -> Float[Array, "*d"]:
        """Pulses up, at most `longest`, from the lowest level to that nearest to `G`.

        In float32 at the least, as half precision counts no further than 256.
        """
        dtype = working(G.dtype)
        longest = jnp.floor(jnp.asarray(longest, dtype))
        return jnp.minimum(self.init(G).level.astype(dtype), longest)

    def read(
        self, cells: Levels, *, key: Key[Array, ""] | None = None, t: ArrayLike | Sum = 0.0
    ) -> Float[Array, "*d"]:
        """Conductance, S."""
        if key is None:
            return cells.G
        noise = normal(key, cells.G)
        return jnp.maximum(cells.G + self.read_sigma(cells, t=t) * noise, 0)

    def read_sigma(self, cells: Levels, *, t: ArrayLike | Sum = 0.0) -> Float[Array, "*#d"]:
        """Standard deviation of what is read, S."""
        return (self.sigma_read * (self.G_max - self.G_min)).astype(cells.G.dtype)


def table(G: Float[Array, " p"], n_states: int | None = None) -> Table:
    """A device from conductances `G` [p] measured after 0, 1, 2, ... pulses up, S.

    With `n_states`, so many that lie linearly between the points; else one a point.
    Raises `ValueError` for values that are negative or do not rise, and below two states.

    >>> device = hardware.table(jnp.array([1e-6, 4e-6, 5e-6]), n_states=5)
    >>> [f"{G * 1e6:.1f} uS" for G in device.levels.tolist()]
    ['1.0 uS', '2.5 uS', '4.0 uS', '4.5 uS', '5.0 uS']
    """
    G = nonnegative("G", "S")(G)
    rising("G", G, "S")
    if n_states is None:
        return Table(G)
    at = jnp.linspace(0, len(G) - 1, count("n_states", 2)(n_states))
    return Table(jnp.interp(at, jnp.arange(float(len(G))), G))


def varied(
    key: Key[Array, ""], device: Device, shape: tuple[int, ...], sigma_d2d: ArrayLike,
    *, stuck_low: ArrayLike = 0.0, stuck_high: ArrayLike = 0.0,
) -> Device:  # fmt: skip
    """Devices of `shape` that differ: each parameter of each is drawn on its own.

    A parameter x becomes x (1 + sigma_d2d xi), xi normal and cut off where the factor leaves
    (0, 2), so that its mean stays. What is drawn are the numbers of the responses, up and
    down apart, G_min, the range R and nu. The parts `stuck_low` and `stuck_high` of the
    devices stay at G_min and at G_max. Spread and parts are numbers without unit.
    Raises `ValueError` for a spread below 0 and parts outside [0, 1], `TypeError` for what is
    no `Device` or no key.

    >>> device = hardware.Device(hardware.linear(64))
    >>> array = hardware.varied(jax.random.key(0), device, (20, 10), sigma_d2d=0.1)
    >>> array.G_max.shape, round(float(array.up.step.std() * 64), 1)
    ((20, 10), 0.1)
    """
    prng_key(key)
    if not isinstance(instance("device", device), Device):
        raise TypeError(f"device must be a Device; got {type(device).__name__}")
    sigma = nonnegative("sigma_d2d", "")(sigma_d2d)
    low, high = (
        between(name, 0.0, 1.0)(part)
        for name, part in (("stuck_low", stuck_low), ("stuck_high", stuck_high))
    )
    between("stuck_low + stuck_high", 0.0, 1.0)(low + high)
    shape = tuple(count("shape", 0)(n) for n in shape)
    affordable(f"devices of shape {shape}", 4 * math.prod(shape))
    number = itertools.count()

    def draw(x):
        if not eqx.is_inexact_array(x) or x.shape not in ((), shape):
            return x
        reach = 1 / jnp.maximum(sigma, 1e-6)
        key_x = jax.random.fold_in(key, next(number))
        xi = jax.random.truncated_normal(key_x, -reach, reach, shape)
        return x * (1 + sigma * xi)

    up, down = jax.tree.map(draw, (device.up, device.down or device.up))
    G_min, span = draw(device.G_min), draw(device.G_max - device.G_min)
    coin = jax.random.uniform(jax.random.fold_in(key, 10**6), shape)
    stuck = jnp.where(coin < low, -1, jnp.where(coin >= 1 - high, 1, 0))
    return replace(
        device, up=up, down=down, G_min=G_min, G_max=G_min + span,
        nu=None if device.nu is None else draw(device.nu),
        stuck=None if known_zero(stuck_low) and known_zero(stuck_high) else stuck,
    )  # fmt: skip
