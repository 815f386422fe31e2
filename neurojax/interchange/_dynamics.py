"""What a node's numbers mean: NIR's neurons and ours, both ways, for one reading of the standard.

A file says neither how a step is made nor what a spike is. `Reading` does:

    leak     "exact": x decays by exp(-dt / tau);  "euler": by 1 - dt / tau
    input    "hold": what arrives lasts one dt;    "impulse": it has unit area
    order    "membrane": a synapse's arrivals act from the next step on;  "synapse": in this one
    reset    "hard": to v_reset;                   "subtract": by v_threshold - v_reset
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from neurojax._check import choice, step_size
from neurojax.interchange._graph import Node
from neurojax.interchange.models import Integrator, Passive, SteppedExponential, Threshold
from neurojax.neurons._foreign import time_constant
from neurojax.neurons.integrators import IF
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.neurons.surrogate import Surrogate, above, heaviside
from neurojax.synapses.receptors import Exponential

UNITS = {"s": 1000.0, "ms": 1.0}  # ms
AT_THRESHOLD = {"fires": "v >= v_threshold"}


class Reading(NamedTuple):
    """How the numbers of a file are read; see above. `dt` in ms, `unit` that of the file in ms."""

    dt: float
    leak: str
    reset: str
    input: str
    order: str
    unit: float

    @classmethod
    def of(cls, dt, leak, reset, input, order, time_unit) -> "Reading":
        """Checked."""
        step_size(dt)
        choice("leak", "exact", "euler")(leak)
        choice("reset", "hard", "subtract")(reset)
        choice("input", "hold", "impulse")(input)
        choice("order", "membrane", "synapse")(order)
        choice("time_unit", *UNITS)(time_unit)
        return cls(float(dt), leak, reset, input, order, UNITS[time_unit])

    def share(self, tau: Any) -> Any:
        """What a step loses of what decays with `tau` ms, as the file has it."""
        part = self.dt / np.asarray(tau, float)
        return -np.expm1(-part) if self.leak == "exact" else part

    def ours(self, tau: Any, name: str) -> Any:
        """The time constant, ms, that loses exactly that: `tau` in the file's unit."""
        tau = np.asarray(tau, float) * self.unit
        if self.leak == "exact":
            return tau
        if (bad := self.dt / tau > 1 + 1e-9).any():
            said = f"{name} must be >= dt, {self.dt:g} ms, with leak='euler', which overshoots else"
            got = f"{tau[bad][0]:g} ms ({bad.sum()} of {tau.size})"
            raise ValueError(f"{said}; got {got}: pass a smaller dt, or leak='exact'")
        return time_constant(np.maximum(1 - self.dt / tau, 0.0), self.dt)

    def theirs(self, tau: Any) -> Any:
        """The file's time constant, in its unit, for one of ours in ms."""
        tau = np.asarray(tau, float)
        return (tau if self.leak == "exact" else self.dt / -np.expm1(-self.dt / tau)) / self.unit

    def jump(self, tau: Any) -> Any:
        """How far an arrival of height 1 moves a synapse of `tau`, in the file's unit."""
        tau = np.asarray(tau, float)
        return self.dt / self.unit / tau if self.input == "hold" else 1 / tau

    def gain(self, tau: Any) -> Any:
        """By how much an arrival moves a membrane more than one that is held does."""
        if self.input == "hold":
            return np.ones(np.shape(tau))
        tau = np.asarray(tau, float)
        return 1 / tau / self.share(tau * self.unit)

    def charge(self) -> float:
        """ms over which an arrival flows into an integrator, divided by the file's unit."""
        return self.unit if self.input == "hold" else self.dt


def model(node: Node, how: Reading) -> tuple[Any, Any]:
    """Neuron and synapse of a node; `ValueError` where its numbers have none."""
    f = {k: np.asarray(x, float) for k, x in node.fields.items()}
    kind = node.kind
    if kind == "Threshold":
        return Threshold(_one(f["threshold"])), None
    if kind == "I":
        return Integrator(_one(how.charge() / f["r"])), None
    fires = _spiking(node, f, how) if "v_threshold" in f else {}
    if kind == "IF":
        return IF(c_mem=_one(how.charge() / f["r"]), **fires), None
    tau = f.get("tau_mem", f.get("tau"))
    tau_name = "tau_mem" if "tau_mem" in f else "tau"
    synapse, r = None, f["r"]
    if kind.startswith("Cuba"):
        jump = _near_one(f.get("w_in", np.ones(())) * how.jump(f["tau_syn"]))
        synapse, r = _synapse(_one(how.ours(f["tau_syn"], "tau_syn")), how), r * jump
    else:
        r = r * how.gain(tau)
    held = {"tau_mem": _one(how.ours(tau, tau_name)), "r_mem": _one(r)}
    if fires:
        return LIF(**held, v_rest=_one(f["v_leak"]), **fires), synapse
    if f["v_leak"].any():
        return Passive(**held, v_rest=_one(f["v_leak"])), synapse
    return LeakyIntegrator(**held), synapse


def _spiking(node: Node, f: dict[str, Any], how: Reading) -> dict[str, Any]:
    at = node.metadata.get("fires") == AT_THRESHOLD["fires"]
    return {
        "v_th": _one(f["v_threshold"]), "v_reset": _one(f.get("v_reset", np.zeros(()))),
        "reset": how.reset, "spike": heaviside if at else above,
    }  # fmt: skip


def _synapse(tau: Any, how: Reading) -> Any:
    if how.leak == "exact" and how.order == "membrane":
        return Exponential(tau)
    return SteppedExponential(tau, how.order, how.leak == "euler")  # pyright: ignore[reportArgumentType]


def _near_one(x: Any) -> Any:
    """1 where it is 1 but for rounding, as where a file was written to be read this way."""
    return np.where(np.abs(x - 1) < 1e-9, 1.0, x)


def _one(x: Any) -> Any:
    """One number where all are the same: models are then smaller, and read better."""
    x = np.asarray(x, float)
    return float(x.reshape(-1)[0]) if x.size and (x == x.reshape(-1)[0]).all() else x.reshape(-1)


def node(layer: Any, shape: tuple[int, ...], how: Reading) -> tuple[str, dict[str, Any], dict]:
    """Type, fields and metadata of the node of a layer; `ValueError` where it has none."""
    neuron, synapse = layer.neuron, layer.synapse
    full = lambda x: np.array(np.broadcast_to(_wide(x, shape), shape))  # noqa: E731
    if isinstance(neuron, Threshold):
        return "Threshold", {"threshold": full(_threshold(neuron, how)[0])}, {}
    if isinstance(neuron, Integrator):
        return "I", {"r": full(how.charge() / np.asarray(neuron.c_mem, float))}, {}
    if isinstance(neuron, IF):
        fields, note = _fires(neuron, how, full)
        return "IF", {"r": full(how.charge() / np.asarray(neuron.c_mem, float)), **fields}, note
    tau, r = how.theirs(neuron.tau_mem), np.asarray(neuron.r_mem, float)
    rest = full(np.asarray(getattr(neuron, "v_rest", 0.0), float))
    fields, note = _fires(neuron, how, full) if isinstance(neuron, LIF) else ({}, {})
    kind = "LIF" if isinstance(neuron, LIF) else "LI"
    if synapse is None:
        held = {"tau": full(tau), "r": full(r / how.gain(tau)), "v_leak": rest}
        return kind, held | fields, note
    tau_syn = how.theirs(synapse.tau_syn)
    held = {
        "tau_mem": full(tau), "tau_syn": full(tau_syn), "r": full(r), "v_leak": rest,
        "w_in": full(1 / how.jump(tau_syn)),
    }  # fmt: skip
    return f"Cuba{kind}", held | fields, note


def _wide(x: Any, shape: tuple[int, ...]) -> Any:
    x = np.asarray(x, float)
    return x.reshape(shape) if x.ndim else x


def _fires(neuron: Any, how: Reading, full: Any) -> tuple[dict[str, Any], dict[str, str]]:
    v_th, note = _threshold(neuron, how)
    reset = np.asarray(neuron.v_reset, float)
    return {"v_threshold": full(v_th), "v_reset": full(reset)}, note


def _threshold(neuron: Any, how: Reading) -> tuple[Any, dict[str, str]]:
    """NIR fires above its threshold, ours at it: the next number below is the same.

    Not so where the reset subtracts the threshold, which must then stay what it is: a note says
    what happens on it.
    """
    v_th, strict = np.asarray(neuron.v_th), getattr(neuron.spike, "strict", False)
    if strict:
        return v_th.astype(float), {}
    if getattr(neuron, "reset", None) == "subtract":
        return v_th.astype(float), dict(AT_THRESHOLD)
    return np.nextafter(v_th, v_th.dtype.type(-np.inf)).astype(float), {}


def misfit(layer: Any, how: Reading) -> str | None:
    """Why a layer cannot be written as a node read in this way, and the cure; None if it can."""
    neuron, synapse = layer.neuron, layer.synapse
    kind = type(neuron).__name__
    if type(neuron) not in (LIF, IF, LeakyIntegrator, Passive, Integrator, Threshold):
        return f"NIR has no {kind}: it has LIF, IF, LI, I and thresholds"
    spike = getattr(neuron, "spike", heaviside)
    if not isinstance(spike, Surrogate):
        return f"spike must be one of nj.surrogate; got {spike!r:.60}"
    if getattr(neuron, "t_ref", None) is not None:
        return "NIR has no refractory time: pass t_ref=None, or drop=('refractory',)"
    reset = getattr(neuron, "reset", how.reset)
    if reset != how.reset:
        return f"reset is {reset!r}, which is read as {how.reset!r}: pass reset={reset!r}"
    if synapse is None:
        return None
    if isinstance(neuron, IF | Integrator | Threshold):
        return f"NIR has no {kind} with a synapse: pass synapse=None"
    if type(synapse) not in (Exponential, SteppedExponential):
        return f"NIR has no synapse {type(synapse).__name__}: it has exponential ones"
    order = getattr(synapse, "order", "membrane")
    if order != how.order:
        return f"arrivals act as order={order!r} has it: pass order={order!r}"
    held = getattr(synapse, "held", False)
    if held != (how.leak == "euler"):
        right = "euler" if held else "exact"
        return f"the synapse is stepped as leak={right!r} has it: pass leak={right!r}"
    return None


def canonical() -> np.dtype:
    """The float type that models are made in."""
    return jax.dtypes.canonicalize_dtype(float)
