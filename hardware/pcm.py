"""Phase-change memory: noise of programming, drift, and 1/f noise of reading."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Shaped

from hardware._check import called, conductance, normal, one_a_device, trains, window
from hardware._clock import Sum, exact, since
from hardware.devices import LONGEST, Response, everywhere, linear, nearest, programmed, restarted
from neurojax._check import cast, flag, nonnegative, positive, working
from neurojax._repr import described

__all__ = [
    "PCM",
    "PCMCells",
]


def __dir__() -> list[str]:
    return __all__


_LEAST = 1e-7  # of G_max: below it the logarithms of the fit make no sense


class PCMCells(NamedTuple):
    """State of an array of phase-change devices, of any shape `d`.

    Fields:
        G: float [d], S; when it was programmed
        n_pulses: int [d]; received so far: endurance
        since: Sum, s; time of the last pulse
        nu: float [d]; exponent of the drift since then
    """

    G: Float[Array, "*d"]
    n_pulses: Int[Array, "*d"]
    since: Sum
    nu: Float[Array, "*d"]


@described
class PCM(eqx.Module):
    """Phase-change device: pulses up crystallise step by step, any pulse down resets to G_min.

    With g = G / G_max, G in uS for the first line, ln natural, t the time since programming:

        programming    G + sigma xi, sigma = (.26348 + 1.965 g - 1.1731 g^2) G_max / 25
        drift          G(t) = G (1 + t / t_0)^-nu, nu = |mu + s xi|,
                       mu = .0244 - .0155 ln g, within [.049, .1],
                       s = -.0125 ln g - .0059, within [.008, .045]
        reading        noise G min(.0088 / g^.65, .2) sqrt(ln((t + t_0 + t_read) / (2 t_read)))

    Noise and exponent are drawn anew whenever a device is pulsed; without a key there is no
    noise and nu is its mean. The fit is of devices programmed with verification; that it also
    holds pulse by pulse is our assumption.
    Raises `ValueError` for a parameter out of range, or G_max <= G_min.
    Source: Nandakumar et al. (2019), ICECS, as in aihwkit's PCMLikeNoiseModel.

    >>> device = hardware.PCM()
    >>> cells = device.init(jnp.array([5e-6, 25e-6]))  # S
    >>> later = device.read(cells, t=3600.0)  # S, after an hour, without noise
    >>> [f"{x:.3f}" for x in (later / cells.G).tolist()]
    ['0.774', '0.775']
    """

    up: Response = eqx.field(
        default_factory=partial(linear, 20),
        converter=called("up", "hardware.linear(n_pulses)", of=linear.__module__),
    )
    G_min: Float[Array, "*#d"] = eqx.field(default=0.0, converter=nonnegative("G_min", "S"))
    G_max: Float[Array, "*#d"] = eqx.field(default=25e-6, converter=positive("G_max", "S"))
    t_0: Float[Array, ""] = eqx.field(default=20.0, converter=positive("t_0", "s"))
    t_read: Float[Array, ""] = eqx.field(default=250e-9, converter=positive("t_read", "s"))
    v_pulse: Float[Array, ""] = eqx.field(default=1.0, converter=nonnegative("v_pulse", "V"))
    t_pulse: Float[Array, ""] = eqx.field(default=1e-7, converter=positive("t_pulse", "s"))
    discrete: bool = eqx.field(static=True, default=True, converter=flag("discrete"))

    def __check_init__(self):
        window(self.G_min, self.G_max)

    def init(self, G: Shaped[Array, "*d"], *, t: ArrayLike | Sum = 0.0) -> PCMCells:
        """Devices set at time `t` (s) to `G` (S), held within the window, without noise."""
        G = conductance(G)
        one_a_device(self, G.shape)
        p, last = cast(self, G.dtype), everywhere(exact(t, G.dtype), G.shape)
        G = jnp.clip(G, p.G_min, p.G_max)
        return PCMCells(G, jnp.zeros(G.shape, jnp.int32), last, p._drift(G, None))

    def pulse(
        self, cells: PCMCells, n_up: Shaped[ArrayLike, "*#d"], n_down: Shaped[ArrayLike, "*#d"], *,
        key: Key[Array, ""] | None = None, t: ArrayLike | Sum = 0.0,
    ) -> PCMCells:  # fmt: skip
        """After `n_up` pulses up, then `n_down` down, ending at time `t`."""
        dtype = working(programmed(cells).dtype)
        (p, G), (n_up, n_down) = cast((self, cells.G), dtype), trains(n_up, n_down, dtype)
        n, span = n_up + n_down, p.G_max - p.G_min
        u = p.up(jnp.clip((G - p.G_min) / span, 0, 1), n_up)
        G = p.G_min + span * jnp.where(n_down > 0, 0, u)
        k_noise, k_drift = (None, None) if key is None else jax.random.split(key)
        if k_noise is not None:
            G = jnp.maximum(G + p._spread(G) * normal(k_noise, G), 0)
        keep = lambda new, old: jnp.where(n > 0, new.astype(old.dtype), old)  # noqa: E731
        return PCMCells(
            keep(G, cells.G), cells.n_pulses + n.astype(jnp.int32),
            restarted(n > 0, t, cells.since), keep(p._drift(G, k_drift), cells.nu),
        )  # fmt: skip

    def pulses_to(self, G: Float[Array, "*d"], longest: ArrayLike = LONGEST) -> Float[Array, "*d"]:
        """Noiseless pulses up, at most `longest`, that bring devices from G_min nearest to `G`.

        In float32 at the least, as half precision counts no further than 256.
        """
        p, G = cast((self, G), working(G.dtype))
        return nearest(p.up, jnp.clip((G - p.G_min) / (p.G_max - p.G_min), 0, 1), longest)

    def read(
        self, cells: PCMCells, *, key: Key[Array, ""] | None = None, t: ArrayLike | Sum = 0.0
    ) -> Float[Array, "*d"]:
        """Conductance at time `t` (s), S; it has not drifted before the last pulse."""
        G, (age, t_0) = cells.G, self._age(cells, t)
        left = (1 + age / t_0) ** -cells.nu.astype(age.dtype)
        G = (G.astype(age.dtype) * left).astype(G.dtype)
        if key is None:
            return G
        noise = normal(key, G)
        return jnp.maximum(G + self.read_sigma(cells, t=t) * noise, 0)

    def read_sigma(self, cells: PCMCells, *, t: ArrayLike | Sum = 0.0) -> Float[Array, "*d"]:
        """Standard deviation of what is read at time `t` (s), S."""
        p, G = cast(self, cells.G.dtype), self.read(cells, t=t)
        part = jnp.minimum(0.0088 / jnp.maximum(cells.G / p.G_max, _LEAST) ** 0.65, 0.2)
        age, t_0 = self._age(cells, t)
        t_read = self.t_read.astype(age.dtype)
        log = jnp.log((age + t_0 + t_read) / (2 * t_read))  # below 0 where t_0 < t_read
        return G * part * jnp.sqrt(jnp.maximum(log, 0)).astype(G.dtype)

    def _age(self, cells: PCMCells, t: ArrayLike | Sum) -> tuple[Array, Array]:
        """Time since the last pulse and `t_0`, s, as precise as the clock."""
        age = since(exact(t, cells.G.dtype), cells.since)
        return age, self.t_0.astype(age.dtype)

    def _spread(self, G: Array) -> Array:
        """Standard deviation of programming, S."""
        g = G / self.G_max
        return (0.26348 + 1.965 * g - 1.1731 * g**2) * self.G_max / 25

    def _drift(self, G: Array, key: Key[Array, ""] | None) -> Array:
        """Exponent of the drift from `G` on."""
        log_g = jnp.log(jnp.maximum(G / self.G_max, _LEAST))
        mean = jnp.clip(0.0244 - 0.0155 * log_g, 0.049, 0.1)
        if key is None:
            return mean
        s = jnp.clip(-0.0125 * log_g - 0.0059, 0.008, 0.045)
        return jnp.abs(mean + s * normal(key, G))
