"""Crossbar arrays: weights held by devices, read and programmed through the same conductances.

    w = (G+ - G-) w_max / R,        I = ADC( W DAC(s) + read noise ),       R = G_max - G_min

A `Crossbar` answers to `neurojax.Weights`, so a network moves from numbers to devices by what
makes its weights, and by nothing else.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from hardware.devices import LONGEST, Device, varied
from hardware.programming import Memory, OneSide, Pair, Policy, Spent
from neurojax._check import cast, choice, count, nonnegative, positive
from neurojax.weights import Connectivity, connectivity_mask


class Quantiser(eqx.Module):
    """Converter of `bits` bits over [-limit, limit]: rounds to its levels, and clips."""

    bits: int = eqx.field(static=True, converter=count("bits"))
    limit: Float[Array, ""] = eqx.field(default=1.0, converter=positive("limit", ""))

    def __call__(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The level nearest to each number."""
        limit = self.limit.astype(x.dtype)
        step = 2 * limit / max(2**self.bits - 1, 1)
        level = jnp.round((jnp.clip(x, -limit, limit) + limit) / step)
        return level * step - limit


class Crossbar(eqx.Module):
    """Weights on pairs of devices; all that changes is in here, counters included.

    `w_max` is the weight of a pair at its two ends. Converters, where given, act on what goes
    into the rows and on what comes out of the columns, whichever way the array is read; a
    matrix with more inputs than `rows` is spread over arrays whose outputs are converted
    apart and then added. Noise of reading is drawn at the outputs, with the variance that
    independent noise of the devices has there.
    """

    connectivity: Connectivity
    pair: Pair
    policy: Policy
    memory: Memory
    w_max: Float[Array, ""]
    span: Float[Array, ""]  # nominal R, S
    dac: Quantiser | None = None
    adc: Quantiser | None = None
    rows: int | None = eqx.field(static=True, default=None)
    noisy: bool = eqx.field(static=True, default=False)

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

    def apply(self, s: Float[Array, " pre"], *, key=None) -> Float[Array, " post"]:
        """Spikes or drive [n_pre] to current [n_post]."""
        return self._read(s, key, forward=True)

    def apply_t(self, e: Float[Array, " post"], *, key=None) -> Float[Array, " pre"]:
        """The same conductances read the other way."""
        return self._read(e, key, forward=False)

    def outer(
        self, post: Float[Array, "*lead post"], pre: Float[Array, "*lead pre"]
    ) -> Float[Array, "..."]:
        """Change asked of each synapse by post x pre, summed over all leading axes."""
        return self.connectivity.outer(post, pre)

    def program(self, dw: Float[Array, "..."], *, key=None) -> "Crossbar":
        """The array after the pulses that `dw`, in weight units, becomes.

        A change that is not finite is refused: it must not reach a conductance.
        """
        shape = self.pair.cells_plus.G.shape
        if dw.shape != shape:
            raise ValueError(f"dw must have shape {shape}; got {dw.shape}")
        dw = eqx.error_if(dw, ~jnp.isfinite(dw).all(), "dw must be finite; got NaN or infinity")
        dG = connectivity_mask(self.connectivity, dw) / self._scale(dw.dtype)
        pair, memory = self.policy(self.pair, self.memory, dG, key=key)
        return replace(self, pair=pair, memory=memory)

    def waited(self, seconds: ArrayLike) -> "Crossbar":
        """The array after a time without pulses, in which conductances may drift."""
        seconds = nonnegative("seconds", "s")(seconds).astype(self.pair.t.dtype)
        return eqx.tree_at(lambda a: a.pair.t, self, self.pair.t + seconds)

    def _scale(self, dtype) -> Array:
        """Weight a siemens."""
        return (self.w_max / self.span).astype(dtype)

    def _read(self, s: Array, key, forward: bool) -> Array:
        s = s if self.dac is None else self.dac(s)
        current = self._product(self.w, s, forward)
        if self.noisy and key is not None:
            noise = jnp.sqrt(self._product(self._sigma() ** 2, s**2, forward))
            current = current + noise * jax.random.normal(key, current.shape, current.dtype)
        return (current if self.adc is None else self.adc(current)).sum(0)

    def _product(self, w: Array, s: Array, forward: bool) -> Float[Array, "arrays out"]:
        """What each array's columns give for its own rows."""
        wiring = self.connectivity
        if self.rows is None or len(s) <= self.rows:
            return (wiring.apply(w, s) if forward else wiring.apply_t(w, s))[None]
        matrix = wiring.matrix(w) if forward else wiring.matrix(w).T
        spare = -len(s) % self.rows
        matrix = jnp.pad(matrix, ((0, 0), (0, spare))).reshape(len(matrix), -1, self.rows)
        s = jnp.pad(s, (0, spare)).reshape(-1, self.rows)
        return jnp.einsum("oar,ar->ao", matrix, s)

    def _sigma(self) -> Array:
        """Standard deviation of each weight as it is read."""
        pair = self.pair
        plus = pair.plus.read_sigma(pair.cells_plus, t=pair.t)
        minus = pair.minus.read_sigma(pair.cells_minus, t=pair.t)
        sigma = jnp.sqrt(plus**2 + minus**2) * self._scale(plus.dtype)
        return jnp.broadcast_to(sigma, pair.cells_plus.G.shape)


def crossbar(
    device: Any, policy: Policy, w_max: ArrayLike, *,
    kind: Literal["differential", "reference"] = "differential",
    start: Literal["low", "middle"] = "low", sigma_d2d: ArrayLike = 0.0,
    stuck_low: float = 0.0, stuck_high: float = 0.0, dac: Quantiser | None = None,
    adc: Quantiser | None = None, rows: int | None = None, longest: ArrayLike = LONGEST,
) -> Callable[[Array, Connectivity, Array], Crossbar]:  # fmt: skip
    """What makes the weights of a network: a function of (w, connectivity, key).

    "differential": two devices a synapse, of which one is at G_min where pairs `start` "low",
    or both about the middle. "reference": one device a synapse, against a column held in the
    middle, which needs a policy that moves one side only. The initial weights are written
    with pulses, at most `longest`, which count; beyond +-`w_max` they end at the bound. The key
    decides how devices differ, where `sigma_d2d` or a stuck part says that they do (see
    `varied`).
    """
    choice("kind", "differential", "reference")(kind)
    choice("start", "low", "middle")(start)
    if kind == "reference" and not isinstance(_innermost(policy), OneSide):
        raise ValueError(f"policy must be OneSide with a reference column; got {policy}")
    w_max = positive("w_max", "")(w_max)
    rows = None if rows is None else count("rows")(rows)
    noisy = not _zero(getattr(device, "sigma_read", 1.0))
    alike = _zero(sigma_d2d) and not (stuck_low or stuck_high)
    if not alike and not isinstance(device, Device):
        raise ValueError(
            "sigma_d2d, stuck_low and stuck_high must be 0 for devices that `varied` does not"
            f" draw; got {sigma_d2d}, {stuck_low}, {stuck_high} for a {type(device).__name__}"
        )

    def made(key: Array, shape: tuple[int, ...]) -> Any:
        if alike:
            return device
        return varied(key, device, shape, sigma_d2d, stuck_low=stuck_low, stuck_high=stuck_high)

    def make(w: Float[Array, "..."], connectivity: Connectivity, key: Key[Array, ""]) -> Crossbar:
        keys, dtype = jax.random.split(key, 4), w.dtype
        single = kind == "reference"
        plus = made(keys[0], w.shape)
        minus = device if single else made(keys[1], w.shape)
        span = (device.G_max - device.G_min).astype(dtype) / (2 if single else 1)
        up, down = _targets(w * span / w_max.astype(dtype), cast(device, dtype), kind, start)
        plus, minus = cast((plus, minus), dtype)
        cells = _written(plus, up, keys[2], longest)
        others = minus.init(down) if single else _written(minus, down, keys[3], longest)
        spent = Spent.none(w.shape, dtype)
        pair = Pair(plus, minus, cells, others, spent, jnp.zeros((), dtype))
        held, memory = cast(policy, dtype), policy.init(w)
        return Crossbar(connectivity, pair, held, memory, w_max, span, dac, adc, rows, noisy)

    return make


def _zero(x: ArrayLike) -> bool:
    """Whether all of `x` is known to be 0; what is traced may be anything."""
    try:
        return not np.any(np.asarray(x))
    except jax.errors.TracerArrayConversionError:
        return False


def _innermost(policy: Any) -> Any:
    """The policy that moves devices, whatever is wrapped around it."""
    return _innermost(policy.policy) if hasattr(policy, "policy") else policy


def _targets(dG: Array, device: Any, kind: str, start: str) -> tuple[Array, Array]:
    """Conductances of both sides for a difference `dG`."""
    low, middle = device.G_min, (device.G_min + device.G_max) / 2
    if kind == "reference":
        return middle + dG, jnp.full((1,) * dG.ndim, middle)
    if start == "middle":
        return middle + dG / 2, middle - dG / 2
    return low + jnp.maximum(dG, 0), low + jnp.maximum(-dG, 0)


def _written(device: Any, G: Array, key: Key[Array, ""], longest: ArrayLike) -> Any:
    """Devices taken from G_min to `G` by pulses."""
    cells = device.init(jnp.broadcast_to(device.G_min, G.shape).astype(G.dtype))
    n = device.pulses_to(G, longest)
    return device.pulse(cells, n, jnp.zeros_like(n), key=key)
