"""Crossbar arrays: weights held by devices, read and programmed through the same conductances.

    w = (G+ - G-) w_max / R,        I = ADC( W DAC(s) + read noise ),       R = G_max - G_min

A `Crossbar` answers to `neurojax.Weights`, so a network moves from numbers to devices by what
makes its weights, and by nothing else.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from hardware._check import bits
from hardware._check import policy as checked
from hardware._check import single as one_number
from hardware._clock import added, exact
from hardware.devices import LONGEST, Device, known_zero, varied
from hardware.programming import Memory, OneSide, Pair, Policy, Pulses, Spent, pulsed_by, reset
from neurojax._check import (
    brief,
    cast,
    choice,
    count,
    flag,
    instance,
    nonnegative,
    positive,
    prng_key,
    real,
    working,
)
from neurojax._repr import described, value
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, connectivity_mask
from neurojax.wiring.convolution import Conv1D, Conv2D
from neurojax.wiring.sparse import Connectivity

__all__ = ["Crossbar", "Held", "Quantiser", "crossbar", "transferred"]


def __dir__() -> list[str]:
    return __all__


@described
class Quantiser(eqx.Module):
    """Converter that rounds to 2^bits levels from 0 to `limit`, and as many below 0.

        Q(x) = k limit / (2^bits - 1),    k whole and nearest,    x beyond the ends clipped to them

    0 is a level whatever the number of bits (mid-tread), so that silence stays silence. The
    default counts the bits of the magnitude and has the sign beside them, as arrays are driven
    that read a signed vector in two phases: 1 bit holds spikes as they are, and errors as -1, 0
    or 1 times `limit`. `signed` False is for what is never negative; what is, becomes 0.
    `limit` is in units of what is converted. Elementwise, any shape and float dtype; booleans
    and whole numbers count as floats. Raises `ValueError` unless 1 <= bits <= 24, limit > 0.
    Source: IEEE Std 1241 (2010), ADC terminology, mid-tread converters.

    >>> q = hardware.Quantiser(1, limit=1.0)
    >>> [float(q(jnp.asarray(x))) for x in (0.0, 0.3, 1.0, -0.8, 7.0)]
    [0.0, 0.0, 1.0, -1.0, 1.0]
    """

    bits: int = eqx.field(static=True, converter=bits)
    limit: Float[Array, ""] = eqx.field(default=1.0, converter=positive("limit", ""))
    signed: bool = eqx.field(static=True, default=True, converter=flag("signed"))

    def __call__(self, x: Shaped[Array, "*n"]) -> Float[Array, "*n"]:
        """The level nearest to each number."""
        x = real(x)
        fine = x.astype(working(x.dtype))
        limit = self.limit.astype(fine.dtype)
        step = limit / (2**self.bits - 1)
        low = -limit if self.signed else jnp.zeros_like(limit)
        return (jnp.round(jnp.clip(fine, low, limit) / step) * step).astype(x.dtype)


@described
class Held(eqx.Module):
    """What the columns give for an input that is held: each read draws its noise anew.

    Nothing is multiplied in a read, as sum w s and sum sigma^2 s^2 are known once.
    """

    current: Float[Array, "arrays post"]
    sigma: Float[Array, "arrays post"] | None  # of the noise; None: there is none
    adc: Quantiser | None

    def read(self, *, key: Key[Array, ""] | None = None) -> Float[Array, " post"]:
        """Current [n_post] of one read, with noise if there is a key."""
        seen = self.current
        if self.sigma is not None and key is not None:
            seen = seen + self.sigma * jax.random.normal(key, seen.shape, seen.dtype)
        return (seen if self.adc is None else self.adc(seen)).sum(0)


class Crossbar(eqx.Module):
    """Weights on pairs of devices; all that changes is in here, counters included.

    `w_max` is the weight of a pair at its two ends. Converters, where given, act on what goes
    into the rows and on what comes out of the columns, whichever way the array is read; a
    matrix with more inputs than `rows` is spread over arrays whose outputs are converted
    apart and then added. The kernel of a convolution is one array, of as many inputs as a window
    has, which is read at each place in turn, with noise and converters of each reading; pools are
    added up before it. Noise of reading is drawn at the outputs, with the variance that
    independent noise of the devices has there, and before an output is converted.
    `n_clipped` of the weights that it was made from lay beyond +-`w_max` and ended there.
    """

    connectivity: Connectivity
    pair: Pair
    policy: Policy
    memory: Memory
    w_max: Float[Array, ""]
    span: Float[Array, ""]  # nominal R, S
    n_clipped: Int[Array, ""]
    dac: Quantiser | None
    adc: Quantiser | None
    rows: int | None = eqx.field(static=True)
    noisy: bool = eqx.field(static=True)
    start: str = eqx.field(static=True, default="low")

    def __repr__(self) -> str:
        """`Crossbar: 20 x 12 synapses, w_max 0.5, Device(...), OneSide(...)`, not their state."""
        shape = " x ".join(map(str, self.connectivity.shape))
        parts = [f"{shape} synapses", f"w_max {value(self.w_max)}", repr(self.pair.plus)]
        parts += [repr(self.policy), f"{value(self.n_clipped)} clipped"]
        parts += [f"{n} {getattr(self, n)}" for n in ("dac", "adc", "rows") if getattr(self, n)]
        return f"Crossbar: {', '.join(parts)}"

    @property
    def w(self) -> Array:
        """What each synapse holds now, in weight units."""
        plus, minus = self.pair.plus, self.pair.minus
        G = plus.read(self.pair.cells_plus, t=self.pair.t)
        w = (G - minus.read(self.pair.cells_minus, t=self.pair.t)) * self._scale(G.dtype)
        return connectivity_mask(self.connectivity, w)

    @property
    def n_pulses(self) -> Int[Array, "..."]:
        """Pulses that each synapse has received, both devices together."""
        return self.pair.cells_plus.n_pulses + self.pair.cells_minus.n_pulses

    def apply(self, s: Shaped[Array, " pre"], *, key=None) -> Float[Array, " post"]:
        """Spikes or drive [n_pre] to current [n_post]; the noise of reading needs a key."""
        return self._hold(self._pooled(s), key is not None, forward=True).read(key=key)

    def apply_t(self, e: Shaped[Array, " post"], *, key=None) -> Float[Array, " pre"]:
        """The same conductances read the other way: [n_post] to [n_pre]."""
        x = self._hold(e, key is not None, forward=False).read(key=key)
        wiring = self.connectivity
        return wiring.unpooled(x) if _shares(wiring) else x

    def hold(self, s: Shaped[Array, " pre"]) -> Held | None:
        """What each step reads of an input [n_pre] held over time; None: it is always the same.

        `hold(s).read(key=key)` is `apply(s, key=key)` without its products.
        """
        return self._hold(self._pooled(s), True, forward=True) if self.noisy else None

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        return self.connectivity.outer(post, pre)

    def program(self, dw: Shaped[Array, "..."], *, key=None) -> "Crossbar":
        """The array after the pulses that `dw`, in weight units, becomes.

        What drives a device beyond its bound ends there, as its physics has it. Raises
        `ValueError` for another shape than that of the synapses, and at run time for a change
        that is not finite: it must not reach a conductance.
        """
        shape, dw = self.pair.cells_plus.G.shape, real(dw)
        if dw.shape != shape:
            raise ValueError(f"dw must have shape {shape}; got {dw.shape}")
        dw = eqx.error_if(dw, ~jnp.isfinite(dw).all(), "dw must be finite; got NaN or infinity")
        dG = connectivity_mask(self.connectivity, dw) / self._scale(dw.dtype)
        pair, memory = self.policy(self.pair, self.memory, dG, key=key)
        return replace(self, pair=pair, memory=memory)

    def renewed(self, connectivity: Connectivity, new: Bool[Array, "..."]) -> "Crossbar":
        """On other wiring, the devices of `new` synapses as if just made, and w near 0.

        A pulse resets each; pulses up follow, without noise, where pairs start from the middle or
        against a column of reference. What the policy remembers of these synapses is gone.
        """
        pair = reset(self.pair, new)
        single = pair.cells_minus.G.shape != new.shape
        if single or self.start == "middle":
            up = jnp.where(new, _to_middle(pair.plus, pair.cells_plus), 0)
            down = jnp.where(new, _to_middle(pair.minus, pair.cells_plus), 0)
            plus, minus = (Pulses(n, jnp.zeros_like(n)) for n in (up, down))
            pair = pulsed_by(pair, plus, None if single else minus, None, None)
        forget = lambda x: jnp.where(new, 0, x) if jnp.shape(x) == new.shape else x  # noqa: E731
        memory = jax.tree.map(forget, self.memory)
        return replace(self, connectivity=connectivity, pair=pair, memory=memory)

    def waited(self, seconds: ArrayLike) -> "Crossbar":
        """The array after a time without pulses (s), in which conductances may drift.

        Many short waits are one long one, at any age: see `hardware._clock`.
        """
        checked = one_number("seconds", nonnegative("seconds", "s")(seconds))
        exactly = checked if isinstance(seconds, jax.Array) else seconds
        t = added(self.pair.t, exact(exactly, self.pair.t.s.dtype))
        return eqx.tree_at(lambda a: a.pair.t, self, t)

    def _scale(self, dtype) -> Array:
        """Weight a siemens."""
        return (self.w_max / self.span).astype(dtype)

    def _hold(self, s: Array, noise: bool, forward: bool) -> Held:
        """What one way of reading gives of `s`, array by array."""
        s = self._driven(s, forward)
        current, sigma = self._product(self.w, s, forward), None
        if self.noisy and noise:
            sigma = jnp.sqrt(self._product(self._sigma() ** 2, s**2, forward))
        return Held(current, sigma, self.adc)

    def _pooled(self, s: Array) -> Array:
        """Spikes as the array hears them: of windows that see pools, these are added before it."""
        wiring = self.connectivity
        return wiring.pooled(self._floats("s", s, wiring.n_pre)) if _shares(wiring) else s

    def _floats(self, name: str, s: Array, n: int) -> Array:
        s = jnp.asarray(s)
        if s.shape != (n,):
            raise ValueError(
                f"{name} must have shape ({n},); got {s.shape}: jax.vmap over batch and time"
            )
        return s if jnp.issubdtype(s.dtype, jnp.inexact) else s.astype(self.span.dtype)

    def _driven(self, s: Array, forward: bool) -> Array:
        """What the lines are driven with."""
        wiring = self.connectivity
        n_pre = math.prod(wiring.pooled_size) if _shares(wiring) else wiring.n_pre
        s = self._floats(*(("s", s, n_pre) if forward else ("e", s, wiring.n_post)))
        if self.dac is None:
            return s
        if not (forward or self.dac.signed):
            raise ValueError("dac must be signed to read errors backwards: pass signed=True")
        return self.dac(s)

    def _product(self, w: Array, s: Array, forward: bool) -> Float[Array, "arrays out"]:
        """What each array's columns give for its own rows."""
        wiring = self.connectivity
        if _shares(wiring):
            return self._by_place(wiring, w, s, forward)
        if self.rows is None or len(s) <= self.rows:
            return (wiring.apply(w, s) if forward else wiring.apply_t(w, s))[None]
        matrix = wiring.matrix(w) if forward else wiring.matrix(w).T
        spare = -len(s) % self.rows
        matrix = jnp.pad(matrix, ((0, 0), (0, spare))).reshape(len(matrix), -1, self.rows)
        s = jnp.pad(s, (0, spare)).reshape(-1, self.rows)
        return jnp.einsum("oar,ar->ao", matrix, s)

    def _by_place(
        self, wiring: Conv1D | Conv2D, w: Array, s: Array, forward: bool
    ) -> Float[Array, "arrays out"]:
        """The same of a kernel [features, channels, *kernel], which is read at each place anew.

        A place gives one output a feature or, backwards, one a channel and point of the kernel;
        outputs of different places are converted apart, and then added.
        """
        features, _, *kernel = w.shape
        lines = np.arange(w.size).reshape(w.shape)
        if forward:
            array = lines % wiring.window // (self.rows or wiring.window)
            product = wiring.over_pools
        else:
            per_group = features // wiring.groups
            rows = min(self.rows or per_group, per_group)
            array = lines // wiring.window % per_group // rows * math.prod(kernel)
            array += lines % math.prod(kernel)
            product = wiring.over_pools_t
            if self.adc is None:
                array = np.zeros_like(lines)
        masks = array == np.arange(array.max() + 1).reshape(-1, *(1,) * w.ndim)
        return jax.vmap(lambda mask: product(jnp.where(mask, w, 0), s))(jnp.asarray(masks))

    def _sigma(self) -> Array:
        """Standard deviation of each weight as it is read."""
        pair = self.pair
        plus = pair.plus.read_sigma(pair.cells_plus, t=pair.t)
        minus = pair.minus.read_sigma(pair.cells_minus, t=pair.t)
        sigma = jnp.sqrt(plus**2 + minus**2) * self._scale(plus.dtype)
        return jnp.broadcast_to(sigma, pair.cells_plus.G.shape)


def _shares(wiring: Any) -> TypeGuard[Conv1D | Conv2D]:
    """Whether one array serves many places."""
    return isinstance(wiring, Conv1D | Conv2D)


Write = Literal["exact", "open-loop"] | Policy


def crossbar(
    device: Any, policy: Policy, w_max: ArrayLike, *, write: Write = "exact",
    kind: Literal["differential", "reference"] = "differential",
    start: Literal["low", "middle"] = "low", sigma_d2d: ArrayLike = 0.0,
    stuck_low: ArrayLike = 0.0, stuck_high: ArrayLike = 0.0, dac: Quantiser | None = None,
    adc: Quantiser | None = None, rows: int | None = None, longest: ArrayLike = LONGEST,
) -> Callable[[Array, Connectivity, Array], Crossbar]:  # fmt: skip
    """What makes the weights of a network: a function of (w, connectivity, key).

    "differential": two devices a synapse, of which one is at G_min where pairs `start` "low",
    or both about the middle. "reference": one device a synapse, against a column held in the
    middle, which needs a policy that moves one side only.

    `write` says how the first weights get there, by pulses that are counted in number, energy
    and time, at most `longest` a device:

    - "exact": each device is given the pulses that its own response asks for, as if it had been
      measured before. What is left is half a step, and noise from cycle to cycle.
    - "open-loop": all are given the pulses that the nominal `device` would need, so that what
      varies from device to device varies in the weights.
    - a policy, say `WriteVerify(...)`: the same, and then it is asked for what is missing.

    Weights beyond +-`w_max` end at the bound, and are counted in `n_clipped`. The key decides
    how devices differ, where `sigma_d2d` or a stuck part says that they do (see `varied`), and
    the noise of writing. `w_max` is in weight units, `rows` in inputs, `dac` and `adc` in units
    of inputs and outputs.
    Raises `ValueError` for a number out of range, `TypeError` for what is no device, policy or
    converter; what is returned refuses weights of another shape than the wiring's, and at run
    time those that are not finite.

    >>> device, policy = hardware.Device(hardware.linear(64)), hardware.OneSide(hardware.Train(64))
    >>> make = hardware.crossbar(device, policy, w_max=1.0)
    >>> make(jnp.full((2, 3), 0.5), nj.Dense(3, 2), jax.random.key(0)).w.round(3).tolist()
    [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """
    instance("device", device, "init", "pulse", "read", "read_sigma", "pulses_to")
    choice("kind", "differential", "reference")(kind)
    choice("start", "low", "middle")(start)
    for name, given in (("policy", policy), ("write", write)):
        _check_policy(name, given, kind)
    for name, converter in (("dac", dac), ("adc", adc)):
        if converter is not None and not isinstance(instance(name, converter), Quantiser):
            raise TypeError(f"{name} must be a Quantiser or None; got {brief(converter)}")
    w_max = positive("w_max", "")(w_max)
    longest = one_number("longest", positive("longest", "pulses")(longest))
    rows = None if rows is None else count("rows")(rows)
    noisy = not known_zero(getattr(device, "sigma_read", 1.0))
    alike = all(known_zero(x) for x in (sigma_d2d, stuck_low, stuck_high))
    if not alike and not isinstance(device, Device):
        raise ValueError(
            "sigma_d2d, stuck_low and stuck_high must be 0 for devices that `varied` does not"
            f" draw; got {sigma_d2d}, {stuck_low}, {stuck_high} for a {type(device).__name__}"
        )

    return _MakeCrossbar(
        device, policy, w_max, None if isinstance(write, str) else write,
        (sigma_d2d, stuck_low, stuck_high), longest, dac, adc, write == "exact",
        kind == "reference", start, rows, noisy, alike,
    )  # fmt: skip


class _MakeCrossbar(eqx.Module):
    """`crossbar`, of which numbers are leaves: it pickles, copies and vmaps."""

    device: Any
    policy: Policy
    w_max: Float[Array, ""]
    write: Policy | None  # what is missing is asked of it
    spread: tuple[ArrayLike, ArrayLike, ArrayLike]  # sigma_d2d, stuck_low, stuck_high
    longest: Float[Array, ""]
    dac: Quantiser | None
    adc: Quantiser | None
    exact: bool = eqx.field(static=True)  # by each device's own response
    single: bool = eqx.field(static=True)  # one device a synapse
    start: str = eqx.field(static=True)
    rows: int | None = eqx.field(static=True)
    noisy: bool = eqx.field(static=True)
    alike: bool = eqx.field(static=True)

    def __call__(
        self, w: Shaped[Array, "..."], connectivity: Connectivity, key: Key[Array, ""]
    ) -> Crossbar:
        w, single = _sound(w, connectivity.shape), self.single
        keys, dtype = jax.random.split(prng_key(key), 4), w.dtype
        device, nominal = self.device, cast(self.device, dtype)
        sides = self._drawn(keys[0], w.shape), device if single else self._drawn(keys[1], w.shape)
        span = (device.G_max - device.G_min).astype(dtype) / (2 if single else 1)
        limit = self.w_max.astype(dtype)
        up, down = _targets(w * span / limit, nominal, single, self.start)
        pair = _blank(cast(sides, dtype), up, down, single)
        known = cast(sides, dtype) if self.exact else (nominal, nominal)
        pair = _written(pair, known, up, None if single else down, keys[2:], self.longest)
        if self.write is not None:
            dG = connectivity_mask(connectivity, jnp.clip(w, -limit, limit) * span / limit)
            rewrite, missing = cast(self.write, dtype), dG - pair.dG
            key_on = jax.random.fold_in(keys[2], 1)
            pair = rewrite(pair, rewrite.init(dG), missing, key=key_on)[0]
        clipped = (jnp.abs(w) > limit).sum(dtype=jnp.int32)
        held, memory = cast(self.policy, dtype), self.policy.init(w)
        return Crossbar(
            connectivity, pair, held, memory, limit, span, clipped, self.dac, self.adc,
            self.rows, self.noisy, self.start,
        )  # fmt: skip

    def _drawn(self, key: Array, shape: tuple[int, ...]) -> Any:
        """Devices of one side."""
        if self.alike:
            return self.device
        sigma, low, high = self.spread
        return varied(key, self.device, shape, sigma, stuck_low=low, stuck_high=high)


def _check_policy(name: str, given: Any, kind: str) -> None:
    """Refuse what is no policy, or one that moves a column of reference."""
    if name == "write" and isinstance(given, str):
        choice("write", "exact", "open-loop")(given)
        return
    checked(given, name)
    if kind == "reference" and not isinstance(_innermost(given), OneSide):
        raise ValueError(f"{name} must be OneSide with a reference column; got {brief(given)}")


def _innermost(policy: Any) -> Any:
    """The policy that moves devices, whatever is wrapped around it."""
    return _innermost(policy.policy) if hasattr(policy, "policy") else policy


def _sound(w: Any, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Weights as floats, refused unless they have the wiring's shape and are finite."""
    w = real(w)
    if w.shape != shape:
        raise ValueError(f"w must have shape {shape}; got {w.shape}")
    return eqx.error_if(w, ~jnp.isfinite(w).all(), "w must be finite; got NaN or infinity")


def _targets(dG: Array, device: Any, single: bool, start: str) -> tuple[Array, Array]:
    """Conductances of both sides for a difference `dG`."""
    low, middle = device.G_min, (device.G_min + device.G_max) / 2
    if single:
        return middle + dG, jnp.full((1,) * dG.ndim, middle)
    if start == "middle":
        return middle + dG / 2, middle - dG / 2
    return low + jnp.maximum(dG, 0), low + jnp.maximum(-dG, 0)


def _to_middle(device: Any, cells: Any) -> Array:
    """Pulses that bring each device from G_min to the middle of its window."""
    return device.pulses_to(jnp.broadcast_to((device.G_min + device.G_max) / 2, cells.G.shape))


def _blank(sides: tuple[Any, Any], up: Array, down: Array, single: bool) -> Pair:
    """Pairs at G_min, or against a column of reference, on which nothing has been spent."""
    empty = lambda side: side.init(jnp.broadcast_to(side.G_min, up.shape).astype(up.dtype))  # noqa: E731
    plus, minus = sides
    others = minus.init(down) if single else empty(minus)
    spent, t = Spent.none(up.shape, up.dtype), exact(0.0, up.dtype)
    return Pair(plus, minus, empty(plus), others, spent, t)


def _written(
    pair: Pair, known: tuple[Any, Any], up: Array, down: Array | None, keys: Array, longest: Array
) -> Pair:
    """The pair after the pulses that devices taken for `known` need from G_min to their goals."""

    def pulses(device: Any, goal: Array) -> Pulses:
        n = device.pulses_to(goal, longest)
        return Pulses(n, jnp.zeros_like(n))

    minus = None if down is None else pulses(known[1], down)
    return pulsed_by(pair, pulses(known[0], up), minus, keys[0], keys[1])


def transferred(
    key: Key[Array, ""], weights: Mapping[str, Weights],
    make_weights: MakeWeights | Mapping[str, MakeWeights], names: Iterable[str] | None = None,
) -> dict[str, Weights]:  # fmt: skip
    """Weights of a trained network, written into devices; the rest as they came.

    What is written is what each projection holds now (`.w`), into what `make_weights` makes,
    one for all or one a projection by name. `names` are the projections to move (None: those
    that `make_weights` names, or all; `net.plastic()` for those that learn). Each draws from
    a key of its own, by name. Nothing else is touched: moving thresholds and optimisers along
    is the caller's, see "Moving a trained network" in docs/hardware.md.
    Weights keep their shape and, up to devices' flaws and bounds, their value, in weight units.
    Raises `ValueError` for a name that `weights` or `make_weights` lacks, `TypeError` for bare
    arrays.

    >>> trained = {"x->h": nj.ideal()(jnp.array([[0.5, -0.25]]), nj.Dense(2, 1))}
    >>> policy = hardware.OneSide(hardware.Train(64))
    >>> make = hardware.crossbar(hardware.Device(hardware.linear(64)), policy, w_max=1.0)
    >>> moved = hardware.transferred(jax.random.key(0), trained, make)
    >>> moved["x->h"].w.round(3).tolist()
    [[0.5, -0.25]]
    """
    made = make_weights if isinstance(make_weights, Mapping) else None
    chosen = tuple(names if names is not None else made if made is not None else weights)
    for where, held in (("weights", weights), ("make_weights", made)):
        lacking = [] if held is None else sorted(set(chosen) - set(held))
        if lacking:
            raise ValueError(f"names must be in {where}, {sorted(held or ())}; got {lacking}")
    moved = dict(weights)
    for name in chosen:
        make = make_weights[name] if isinstance(make_weights, Mapping) else make_weights
        held = instance(f"weights[{name!r}]", weights[name], "apply", "program")
        moved[name] = make(held.w, held.connectivity, fold(prng_key(key), f"{name} made"))
    return moved
