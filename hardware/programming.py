"""From a wanted change of conductance to pulses on a pair of devices, w ~ G+ - G-.

Two choices make an update. The coder says how many pulses a change asks for; the policy says
which devices of the pair receive them. Both are pure and elementwise over synapses, and all
pulses go through `pulsed`, which counts them.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from hardware import _check
from hardware._check import ordered_thresholds
from hardware._clock import Sum, added, exact
from hardware.devices import LONGEST
from neurojax._check import between, count, flag, positive, prng_key, working
from neurojax._draw import happens
from neurojax._repr import described

__all__ = [
    "Bidirectional", "Coder", "MixedPrecision", "OneSide", "Pair", "Policy", "Pulses", "Single",
    "Spent", "Train", "Unidirectional", "WriteVerify", "pulsed", "refreshed", "reset",
    "step_size",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


Memory = Any  # a pytree of arrays, or None


class Spent(NamedTuple):
    """What programming has cost so far, the first writing too; pulses stand in the cells.

    Fields:
        energy: float [], J
        time: float [], s
        n_refresh: int [d]; how often each pair was refreshed
        rest: float [2]; of energy and time: what the two have rounded away
    """

    energy: Float[Array, ""]
    time: Float[Array, ""]
    n_refresh: Int[Array, "*d"]
    rest: Float[Array, " 2"]

    @classmethod
    def none(cls, shape: tuple[int, ...], dtype: DTypeLike = float) -> "Spent":
        """Nothing yet, on pairs of `shape`; in float32 at the least."""
        zero = jnp.zeros((), working(dtype))
        return cls(zero, zero, jnp.zeros(shape, jnp.int32), jnp.zeros(2, zero.dtype))

    def more(self, energy: Float[Array, ""], time: Float[Array, ""]) -> "Spent":
        """With `energy` (J) and `time` (s) on top, in sums that do not stall in long runs."""
        now = Sum(jnp.stack([self.energy, self.time]), self.rest)
        dtype = now.s.dtype
        spent = added(now, exact(jnp.stack([energy.astype(dtype), time.astype(dtype)]), dtype))
        return self._replace(energy=spent.s[0], time=spent.s[1], rest=spent.rest)


class Pair(NamedTuple):
    """Devices of both sides, their state, and what programming them has cost.

    Fields:
        plus: any; devices of one side, such as a `Device`
        minus: any; devices of the other
        cells_plus: any; what the devices' `init` gives: `G` (S) and `n_pulses`, [d], at the least
        cells_minus: any; the same of the other side
        spent: Spent; J, s and refreshes
        t: Sum, s; the clock that drift goes by
    """

    plus: Any
    minus: Any
    cells_plus: Any
    cells_minus: Any
    spent: Spent
    t: Sum

    @property
    def dG(self) -> Float[Array, "*d"]:
        """G+ - G-, S."""
        return self.cells_plus.G - self.cells_minus.G


class Pulses(NamedTuple):
    """Pulses up, then down, for each device of one side.

    Fields:
        up: float [d], pulses; these come first
        down: float [d], pulses
    """

    up: Float[Array, "*d"]
    down: Float[Array, "*d"]


def pulsed(
    pair: Pair, plus: Pulses | None, minus: Pulses | None, *, key: Key[Array, ""] | None
) -> Pair:
    """The pair after its pulses, with their energy and time.

        energy = n t_pulse v_pulse^2 (G_before + G_after) / 2        in J

    `plus` and `minus` are [d], None for a side that gets none; `key` draws their noise. Rows are
    programmed one after another, the devices of a row at once: time is the sum over rows of
    t_pulse times the longest train, both sides together.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    return pulsed_by(pair, plus, minus, *keys)


def pulsed_by(
    pair: Pair, plus: Pulses | None, minus: Pulses | None, k_plus: Any, k_minus: Any
) -> Pair:
    """`pulsed`, with a key for the noise of each side."""
    time = _rows(pair, *(None if n is None else n.up + n.down for n in (plus, minus)))
    t = added(pair.t, exact(time, pair.t.s.dtype))
    cells_plus, e_plus = _pulsed(pair.plus, pair.cells_plus, plus, k_plus, t)
    cells_minus, e_minus = _pulsed(pair.minus, pair.cells_minus, minus, k_minus, t)
    pair = _paid(pair, e_plus + e_minus, time)
    return pair._replace(cells_plus=cells_plus, cells_minus=cells_minus)


def _rows(pair: Pair, n_plus: Array | None, n_minus: Array | None) -> Float[Array, ""]:
    """Time of one row after another, each as long as its longest train on either side, s."""
    dtype = pair.t.s.dtype
    sides = ((pair.plus, n_plus), (pair.minus, n_minus))
    rows = [
        device.t_pulse.astype(dtype) * n.astype(dtype).max(-1)
        for device, n in sides
        if n is not None
    ]
    return jax.tree.reduce(jnp.maximum, rows).sum()


def _paid(pair: Pair, energy: Array, time: Array) -> Pair:
    """The pair with `energy` (J) and `time` (s) spent, its clock gone on by that."""
    t = added(pair.t, exact(time, pair.t.s.dtype))
    return pair._replace(spent=pair.spent.more(energy, time), t=t)


def _pulsed(device: Any, cells: Any, n: Pulses | None, key, t: Sum):
    """Cells of one side after their pulses, which end at `t`, and the energy, J."""
    if n is None:
        return cells, jnp.zeros((), t.s.dtype)
    new = device.pulse(cells, n.up, n.down, key=key, t=t)
    return new, _work(device, n.up + n.down, cells.G, new.G)


def _work(device: Any, n: Array, before: Array, after: Array) -> Float[Array, ""]:
    """Energy of `n` pulses that lead from one conductance to another, J."""
    n, before, after = (x.astype(working(before.dtype)) for x in (n, before, after))
    each = device.t_pulse * device.v_pulse**2
    return each.astype(n.dtype) * (n * (before + after) / 2).sum()


@runtime_checkable
class Coder(Protocol):
    """How many pulses a wanted change of conductance becomes."""

    def __call__(
        self,
        device: Any,
        cells: Any,
        dG: Float[Array, "*d"],
        *,
        key: Key[Array, ""] | None,
    ) -> Pulses:
        """Pulses, [d], of devices that shall change by `dG` [d], S."""
        ...


@described
class Single(eqx.Module):
    """At most one pulse, with probability |dG| / step: right on the average, while |dG| < step.

    dG [d] and step are in S; step is R / `n_pulses`, or with `adaptive` what a pulse moves now.
    Source: Gokmen and Vlasov (2016), Front. Neurosci. 10, 333, eq. 1 (stochastic update).
    """

    n_pulses: Float[Array, ""] = eqx.field(converter=positive("n_pulses", "pulses"))
    adaptive: bool = eqx.field(static=True, default=False, converter=flag("adaptive"))

    def __call__(self, device, cells, dG, *, key) -> Pulses:
        """One pulse or none."""
        if key is None:
            raise ValueError("key must be given, as single pulses are drawn at random; got None")
        p = jnp.abs(dG) / step_size(device, cells, dG > 0, self.n_pulses, self.adaptive)
        n = happens(key, p.astype(working(dG.dtype)), dG.shape)
        return _signed(dG, n.astype(dG.dtype))


@described
class Train(eqx.Module):
    """The nearest whole number of pulses, |dG| / step, at most `longest`.

    dG [d] and step are in S; step is R / `n_pulses`, or with `adaptive` what a pulse moves now.
    Source: Lim et al. (2019), arXiv 1707.06381 (pulses from the change and the present slope).

    >>> device = hardware.Device(hardware.linear(9))  # from 1 to 10 uS: 1 uS a pulse
    >>> cells = device.init(jnp.full(2, 5e-6))
    >>> hardware.Train(9)(device, cells, jnp.array([3.1e-6, -0.9e-6]))
    Pulses(up=Array([3., 0.], dtype=float32), down=Array([0., 1.], dtype=float32))
    """

    n_pulses: Float[Array, ""] = eqx.field(converter=positive("n_pulses", "pulses"))
    longest: Float[Array, ""] = eqx.field(default=64.0, converter=positive("longest", "pulses"))
    adaptive: bool = eqx.field(static=True, default=False, converter=flag("adaptive"))

    def __call__(self, device, cells, dG, *, key=None) -> Pulses:
        """0, 1, ... `longest`; for devices that are not discrete, any number between."""
        step = step_size(device, cells, dG > 0, self.n_pulses, self.adaptive)
        n = jnp.minimum(jnp.abs(dG) / step, self.longest.astype(dG.dtype))
        return _signed(dG, jnp.round(n) if device.discrete else n)


def step_size(
    device: Any, cells: Any, up: Bool[Array, "*d"], n_pulses: Array, adaptive: bool
) -> Float[Array, "*#d"]:
    """What a pulse is taken to move, S: R / n_pulses, or what it would move now, noiseless.

    One number for all, or one a device [d] where `adaptive`. Infinite where the device would not
    move at all, so that no pulses are asked for.
    """
    if not adaptive:
        return ((device.G_max - device.G_min) / n_pulses).astype(cells.G.dtype)
    one = up.astype(cells.G.dtype)
    moved = jnp.abs(device.pulse(cells, one, 1 - one).G - cells.G)
    return jnp.where(moved > 0, moved, jnp.inf)


def _signed(dG: Array, n: Array) -> Pulses:
    return Pulses(jnp.where(dG > 0, n, 0), jnp.where(dG < 0, n, 0))


@runtime_checkable
class Policy(Protocol):
    """Which devices of a pair receive pulses for a wanted change of G+ - G-."""

    def init(self, dG: Float[Array, "*d"]) -> Memory:
        """Digital memory that the policy keeps beside the devices, for changes like `dG`."""
        ...

    def __call__(
        self, pair: Pair, memory: Memory, dG: Float[Array, "*d"], *, key: Key[Array, ""] | None
    ) -> tuple[Pair, Memory]:
        """The pair after a change of G+ - G- by `dG` [d], S."""
        ...


@described
class Bidirectional(eqx.Module):
    """Both devices move, each by half of the change: G+ up and G- down, or the reverse.

    Changes of G+ - G- are [d], S. Pairs had better start in the middle, where both can move.

    >>> policy = hardware.Bidirectional(hardware.Train(64))
    >>> device = hardware.Device(hardware.linear(64))
    >>> make = hardware.crossbar(device, policy, w_max=1.0, start="middle")
    >>> array = make(jnp.zeros((1, 2)), nj.Dense(2, 1), jax.random.key(0))
    >>> array.program(jnp.array([[0.25, -0.25]])).w.round(3).tolist()
    [[0.25, -0.25]]
    """

    coder: Coder = eqx.field(converter=_check.coder)

    def init(self, dG) -> None:
        """No memory."""

    def __call__(self, pair, memory, dG, *, key=None):
        """The pair after a change by `dG`, S."""
        k_plus, k_minus, k_pulse = _split(key, 3)
        plus = self.coder(pair.plus, pair.cells_plus, dG / 2, key=k_plus)
        minus = self.coder(pair.minus, pair.cells_minus, -dG / 2, key=k_minus)
        return pulsed(pair, plus, minus, key=k_pulse), memory


@described
class OneSide(eqx.Module):
    """Only G+ moves, both ways; G- is a reference. Changes of G+ - G- are [d], S.

    >>> policy = hardware.OneSide(hardware.Single(64))
    >>> device = hardware.Device(hardware.linear(64))
    >>> make = hardware.crossbar(device, policy, w_max=1.0, kind="reference")
    """

    coder: Coder = eqx.field(converter=_check.coder)

    def init(self, dG) -> None:
        """No memory."""

    def __call__(self, pair, memory, dG, *, key=None):
        """The pair after a change by `dG`, S."""
        k_code, k_pulse = _split(key, 2)
        plus = self.coder(pair.plus, pair.cells_plus, dG, key=k_code)
        return pulsed(pair, plus, None, key=k_pulse), memory


@described
class Unidirectional(eqx.Module):
    """Pulses up only: on G+ to raise the weight, on G- to lower it; refresh when worn.

    A pair whose larger u exceeds `upper` while its smaller exceeds `lower` is refreshed: both
    are reset and their difference is written back by pulses on one of them. It is looked for
    in every call, or once in `every` calls; a write takes `longest` pulses at the most.
    Changes of G+ - G- are [d], S; u is G as part of the range.
    Raises `ValueError` unless 0 <= lower < upper <= 1.
    Source: Lim et al. (2019), arXiv 1707.06381 (unidirectional update).

    >>> policy = hardware.Unidirectional(hardware.Train(64))
    >>> device = hardware.Device(hardware.linear(64))
    >>> make = hardware.crossbar(device, policy, w_max=1.0)
    >>> array = make(jnp.zeros((1, 2)), nj.Dense(2, 1), jax.random.key(0))
    >>> array = array.program(jnp.array([[0.25, -0.25]]))
    >>> pair = array.pair
    >>> pair.cells_plus.n_pulses.tolist(), pair.cells_minus.n_pulses.tolist()  # up alone
    ([[16, 0]], [[0, 16]])
    """

    coder: Coder = eqx.field(converter=_check.coder)
    upper: Float[Array, ""] = eqx.field(default=0.75, converter=between("upper", 0.0, 1.0))
    lower: Float[Array, ""] = eqx.field(default=0.25, converter=between("lower", 0.0, 1.0))
    longest: Float[Array, ""] = eqx.field(default=LONGEST, converter=positive("longest", "pulses"))
    every: int = eqx.field(static=True, default=1, converter=count("every"))

    def __check_init__(self):
        ordered_thresholds(self.lower, self.upper)

    def init(self, dG) -> Int[Array, ""]:
        """Calls so far."""
        return jnp.zeros((), jnp.int32)

    def __call__(self, pair, memory, dG, *, key=None):
        """The pair after a change by `dG`, S, and after refresh where it is due."""
        k_code, k_pulse, k_refresh = _split(key, 3)
        # One side at most is asked for anything, so both can go by the same draw.
        plus = self.coder(pair.plus, pair.cells_plus, jnp.maximum(dG, 0), key=k_code)
        minus = self.coder(pair.minus, pair.cells_minus, jnp.maximum(-dG, 0), key=k_code)
        pair = pulsed(pair, plus, minus, key=k_pulse)
        limits = self.upper, self.lower, self.longest
        refresh = lambda pair: refreshed(pair, *limits, key=k_refresh)  # noqa: E731
        due = (memory + 1) % self.every == 0
        return jax.lax.cond(due, refresh, lambda pair: pair, pair), memory + 1


def refreshed(
    pair: Pair, upper: Array, lower: Array, longest: ArrayLike = LONGEST, *,
    key: Key[Array, ""] | None = None,
) -> Pair:  # fmt: skip
    """Worn pairs reset, their difference written back on one side; counted and paid for.

    Worn are pairs, of any shape [d], whose larger u, the place of G as part of the range, is
    above `upper` while the smaller is above `lower`. A write takes `longest` pulses at most.
    """
    u_plus, u_minus = _place(pair.plus, pair.cells_plus), _place(pair.minus, pair.cells_minus)
    worn = (jnp.maximum(u_plus, u_minus) > upper) & (jnp.minimum(u_plus, u_minus) > lower)

    def rewrite(pair: Pair) -> Pair:
        blank = reset(pair, worn)
        left = jnp.where(worn, pair.dG - blank.dG, 0)  # what the reset has lost
        up = lambda device, cells, more: device.pulses_to(  # noqa: E731
            cells.G + jnp.maximum(more, 0), longest
        )
        plus = jnp.where(worn, up(blank.plus, blank.cells_plus, left), 0)
        minus = jnp.where(worn, up(blank.minus, blank.cells_minus, -left), 0)
        none = jnp.zeros_like(plus)
        new = pulsed(blank, Pulses(plus, none), Pulses(minus, none), key=key)
        n_refresh = pair.spent.n_refresh + worn.astype(jnp.int32)
        return new._replace(spent=new.spent._replace(n_refresh=n_refresh))

    return jax.lax.cond(worn.any(), rewrite, lambda pair: pair, pair)


def _place(device: Any, cells: Any) -> Array:
    return (cells.G - device.G_min) / (device.G_max - device.G_min)


def reset(pair: Pair, which: Bool[Array, "*d"]) -> Pair:
    """Pairs at G_min, `which` of them [d], at the price of one pulse a device, counted and paid.

    A column of reference, which all share, stays.
    """
    due = which.astype(working(pair.cells_plus.G.dtype))
    both = pair.cells_minus.G.shape == which.shape
    time = _rows(pair, due, due if both else None)
    t = added(pair.t, exact(time, pair.t.s.dtype))

    def side(device: Any, cells: Any):
        low = jnp.broadcast_to(device.G_min, cells.G.shape).astype(cells.G.dtype)
        pick = lambda new, old: jnp.where(which, new, old)  # noqa: E731
        n_pulses = cells.n_pulses + which.astype(jnp.int32)
        new = jax.tree.map(pick, device.init(low, t=t), cells)._replace(n_pulses=n_pulses)
        return new, _work(device, due, cells.G, new.G)

    plus, e_plus = side(pair.plus, pair.cells_plus)
    minus, e_minus = side(pair.minus, pair.cells_minus) if both else (pair.cells_minus, 0.0)
    return _paid(pair, e_plus + e_minus, time)._replace(cells_plus=plus, cells_minus=minus)


@described
class WriteVerify(eqx.Module):
    """Read, noise and all, pulse what is missing, and again: `rounds` times.

    `policy` gives the pulses. Changes of G+ - G- are [d], S.

    >>> checked = hardware.WriteVerify(hardware.OneSide(hardware.Train(64)), rounds=3)
    >>> make = hardware.crossbar(hardware.presets.reram(), checked, w_max=1.0, write=checked)
    """

    policy: Policy = eqx.field(converter=_check.policy)
    rounds: int = eqx.field(static=True, default=5, converter=count("rounds", 1, 10_000))

    def init(self, dG) -> Memory:
        """That of the policy."""
        return self.policy.init(dG)

    def __call__(self, pair, memory, dG, *, key=None):
        """The pair after a change by `dG`, S."""
        target = pair.dG + dG

        def again(i, carry):
            pair, memory = carry
            k_plus, k_minus, k_pulse = _split(_at(key, i), 3)
            seen = pair.plus.read(pair.cells_plus, key=k_plus, t=pair.t)
            seen -= pair.minus.read(pair.cells_minus, key=k_minus, t=pair.t)
            return self.policy(pair, memory, target - seen, key=k_pulse)

        return jax.lax.fori_loop(0, self.rounds, again, (pair, memory))


@described
class MixedPrecision(eqx.Module):
    """Changes add up in digital memory; what exceeds a step there goes to the devices.

    A step is R / `n_pulses`. What the pulses were meant to do leaves the memory. Changes of
    G+ - G- and the memory are [d], S.

    >>> policy = hardware.MixedPrecision(hardware.OneSide(hardware.Train(64)), n_pulses=64)
    >>> make = hardware.crossbar(hardware.Device(hardware.linear(64)), policy, w_max=1.0)
    >>> array = make(jnp.zeros((1, 2)), nj.Dense(2, 1), jax.random.key(0))
    >>> small = jnp.full((1, 2), 0.01)  # a step is 1 / 64 = 0.0156
    >>> once = array.program(small)
    >>> float(once.w[0, 0]), f"{float(once.program(small).w[0, 0]):.4f}"
    (0.0, '0.0156')

    Source: Nandakumar et al. (2020), Front. Neurosci. 14, 406, sec. 2 (mixed precision).
    """

    policy: Policy = eqx.field(converter=_check.policy)
    n_pulses: Float[Array, ""] = eqx.field(converter=positive("n_pulses", "pulses"))

    def init(self, dG) -> tuple[Array, Memory]:
        """Nothing owed yet, and the memory of the policy."""
        return jnp.zeros_like(dG), self.policy.init(dG)

    def __call__(self, pair, memory, dG, *, key=None):
        """The pair after a change by `dG`, S, or with it in memory."""
        step = ((pair.plus.G_max - pair.plus.G_min) / self.n_pulses).astype(dG.dtype)
        owed, inner = memory[0] + dG, memory[1]
        due = jnp.trunc(owed / step) * step
        pair, inner = self.policy(pair, inner, due, key=key)
        return pair, (owed - due, inner)


def _split(key: Key[Array, ""] | None, n: int):
    return (None,) * n if key is None else jax.random.split(prng_key(key), n)


def _at(key: Key[Array, ""] | None, i: Array) -> Array | None:
    return None if key is None else jax.random.fold_in(key, i)
