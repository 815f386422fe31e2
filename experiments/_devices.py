"""The choices of synapse and update that experiments offer, as what makes weights."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal, NamedTuple
from typing import cast as typed

import jax
import jax.numpy as jnp
from jaxtyping import Array

import hardware as hw
from neurojax.weights import MakeWeights, Weights, connectivity_mask, ideal

Response = Literal["linear", "exponential", "querlioz", "soft-bounds"]
Synapse = Literal["ideal", Response]
Write = Literal["exact", "open-loop", "write-verify"]
Update = Literal["bidirectional", "unidirectional", "one-side", "mixed-precision"]
G_MAX = 1e-5  # S
EVERY = 20  # updates from one look for worn pairs to the next
VERIFIED = 20  # rounds of write-verify


class Synapses(NamedTuple):
    """Which devices, and how they are programmed; names change the compiled program."""

    synapse: str  # a Synapse
    update: str  # an Update, unless the synapse is ideal
    n_states: Any = 64  # of a device
    nonlinearity: Any = 2.0  # a step at G_max is e^-nonlinearity of one at G_min
    dynamic_range: Any = 10.0  # G_max / G_min
    sigma_d2d: Any = 0.0
    sigma_c2c: Any = None  # no noise of pulses
    upper: Any = 0.75  # thresholds of refresh
    lower: Any = 0.25
    write: str = "exact"  # a Write


_RESPONSES: dict[str, Callable[[Any, Any], hw.Response]] = {
    "linear": lambda n, x: hw.linear(n),
    "exponential": lambda n, x: hw.exponential(n, n / x),
    "querlioz": lambda n, x: hw.querlioz(n, x),
    "soft-bounds": lambda n, x: hw.soft_bounds(n),
}
_LAYOUTS: dict[str, dict[str, Any]] = {
    "bidirectional": {"start": "middle"},
    "unidirectional": {"start": "low"},
    "one-side": {"kind": "reference"},
    "mixed-precision": {"kind": "reference"},
}


def make_weights(a: Synapses, w_max: Any) -> MakeWeights:
    """Numbers for "ideal", else crossbars, whose weights reach `w_max`.

    Pulses are single and random, but for mixed precision, where memory says how many. One side
    alone is read against a fixed column; pairs that only go up start low, others in the middle.
    `n_states` - 1 pulses span the range; soft bounds never end, their first step is that part.
    The first weights are written as `write` says: write-verify sends one pulse at a time in the
    way of the update.
    """
    if a.synapse == "ideal":
        return ideal()
    n = a.n_states - 1
    device = hw.Device(
        _RESPONSES[a.synapse](n, a.nonlinearity), G_min=G_MAX / a.dynamic_range, G_max=G_MAX,
        sigma_c2c=a.sigma_c2c,
    )  # fmt: skip
    layout = _LAYOUTS[a.update]
    return hw.crossbar(
        device, _policy(a, n), w_max, write=_write(a, n), sigma_d2d=a.sigma_d2d, longest=2 * n,
        **layout,
    )  # fmt: skip


def _policy(a: Synapses, n: Any) -> hw.Policy:
    if a.update == "mixed-precision":
        return hw.MixedPrecision(hw.OneSide(hw.Train(n)), n)
    return _sides(a, n, hw.Single(n))


def _sides(a: Synapses, n: Any, coder: hw.Coder) -> hw.Policy:
    """What moves the devices that the update moves, by pulses of `coder`."""
    if a.update == "bidirectional":
        return hw.Bidirectional(coder)
    if a.update == "unidirectional":
        return hw.Unidirectional(coder, a.upper, a.lower, longest=2 * n, every=EVERY)
    return hw.OneSide(coder)


def _write(a: Synapses, n: Any) -> hw.Write:
    if a.write != "write-verify":
        return typed(hw.Write, a.write)
    return hw.WriteVerify(_sides(a, n, hw.Train(n, longest=1)), rounds=VERIFIED)


class Spent(NamedTuple):
    """What programming an array has taken so far."""

    n_pulses: Any  # all devices together
    n_refresh: Any  # pairs
    energy: Any  # J
    time: Any  # s


def spent(w: Weights) -> Spent:
    """Nothing, for numbers."""
    if not isinstance(w, hw.Crossbar):
        return Spent(0.0, 0.0, 0.0, 0.0)
    now = w.pair.spent
    total = lambda x: jnp.asarray(x, float).sum()  # noqa: E731 - there may be many of a kind
    return Spent(total(w.n_pulses), total(now.n_refresh), total(now.energy), total(now.time))


def held(w: Weights) -> Array:
    """What synapses hold; of arrays that are many of a kind, all of them, [many, ...]."""
    read = attrgetter("w")
    if isinstance(w, hw.Crossbar):
        for _ in range(w.n_pulses.ndim - len(w.connectivity.shape)):
            read = jax.vmap(read)
    return read(w)


def counted(w: Any, before: Spent) -> dict[str, float]:
    """What training has taken, beyond the writing of the first weights.

    But for `most_pulses`, all that one synapse has received: its two devices wear by them.
    """
    present = connectivity_mask(w.connectivity, jnp.ones(held(w).shape))
    most = w.n_pulses.max() if isinstance(w, hw.Crossbar) else 0
    now = {name: float(x) for name, x in spent(w)._asdict().items()}
    since = {name: now[name] - float(x) for name, x in before._asdict().items()}
    return {"n_synapses": int(present.sum()), "most_pulses": int(most), **since}
