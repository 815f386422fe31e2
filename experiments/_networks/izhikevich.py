"""Izhikevich's neuron in its 20 patterns, and the network of his first program.

Sources: Izhikevich (2003), Simple model of spiking neurons; Izhikevich (2004), Which model to use
for cortical spiking neurons?, fig. 1, and the program that draws it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

import neurojax as nj
from experiments._networks import figures, judged, seen
from experiments._networks.judged import Row
from experiments._networks.runs import Ready, watched
from experiments._networks.study import Found, Study

# --- the patterns ---


class Pattern(NamedTuple):
    """A panel of the figure: the neuron, its start, how it is driven, and how often it fires."""

    name: str
    a: float
    b: float
    c: float
    d: float
    v: float
    dt: float  # ms
    T: float  # ms
    current: Callable[[np.ndarray], Any]  # of the time in ms
    spikes: int


def _on(*spans: tuple[float, float]) -> Callable[[np.ndarray], Any]:
    return lambda t: sum((t > begin) & (t < end) for begin, end in spans)


def _accommodated(t: np.ndarray) -> Any:
    return np.where(t < 200, t / 25, 4 * (t - 300) / 12.5 * ((t >= 300) & (t < 312.5)))


def _dip(t: np.ndarray) -> Any:
    return np.where((t < 50) | (t > 250), 80, 75)


_PAIRS = _on((40, 44), (60, 64), (280, 284), (320, 324))
_BRIEF = _on((9.09, 11.09), (14.09, 16.09), (70, 72), (80, 82))
PATTERNS = [
    Pattern("tonic spiking", 0.02, 0.2, -65, 6, -70, 0.25, 100, lambda t: 14 * (t > 10), 5),
    Pattern("phasic spiking", 0.02, 0.25, -65, 6, -64, 0.25, 200, lambda t: 0.5 * (t > 20), 1),
    Pattern("tonic bursting", 0.02, 0.2, -50, 2, -70, 0.25, 220, lambda t: 15 * (t > 22), 28),
    Pattern("phasic bursting", 0.02, 0.25, -55, 0.05, -64, 0.2, 200, lambda t: 0.6 * (t > 20), 6),
    Pattern("mixed mode", 0.02, 0.2, -55, 4, -70, 0.25, 160, lambda t: 10 * (t > 16), 6),
    Pattern("adaptation", 0.01, 0.2, -65, 8, -70, 0.25, 85, lambda t: 30 * (t > 8.5), 6),
    Pattern("class 1", 0.02, -0.1, -55, 6, -60, 0.25, 300,
            lambda t: 0.075 * np.maximum(t - 30, 0), 10),
    Pattern("class 2", 0.2, 0.26, -65, 0, -64, 0.25, 300,
            lambda t: -0.5 + 0.015 * np.maximum(t - 30, 0), 14),
    Pattern("spike latency", 0.02, 0.2, -65, 6, -70, 0.2, 100, lambda t: 7.04 * _on((10, 13))(t),
            1),
    Pattern("subthreshold oscillation", 0.05, 0.26, -60, 0, -62, 0.25, 200,
            lambda t: 2 * _on((20, 25))(t), 1),
    Pattern("resonator", 0.1, 0.26, -60, -1, -62, 0.25, 400, lambda t: 0.65 * _PAIRS(t), 1),
    Pattern("integrator", 0.02, -0.1, -55, 6, -60, 0.25, 100, lambda t: 9 * _BRIEF(t), 1),
    Pattern("rebound spike", 0.03, 0.25, -60, 4, -64, 0.2, 200, lambda t: -15 * _on((20, 25))(t),
            1),
    Pattern("rebound burst", 0.03, 0.25, -52, 0, -64, 0.2, 200, lambda t: -15 * _on((20, 25))(t),
            7),
    Pattern("threshold variability", 0.03, 0.25, -60, 4, -64, 0.25, 100,
            lambda t: _on((10, 15), (80, 85))(t) - 6 * _on((70, 75))(t), 1),
    Pattern("bistability", 0.1, 0.26, -60, 0, -61, 0.25, 300,
            lambda t: 0.24 + 1.0 * _on((37.5, 42.5), (216, 221))(t), 5),
    Pattern("depolarising after-potential", 1, 0.2, -60, -21, -70, 0.1, 50,
            lambda t: 20 * (abs(t - 10) < 1), 1),
    Pattern("accommodation", 0.02, 1, -55, 4, -65, 0.5, 400, _accommodated, 1),
    Pattern("inhibition-induced spiking", -0.02, -1, -60, 8, -63.8, 0.5, 350, _dip, 3),
    Pattern("inhibition-induced bursting", -0.026, -1, -45, -2, -63.8, 0.5, 350, _dip, 12),
]  # fmt: skip
# What is published of spike times, ms, and how near a step brings us.
TIMES = {"tonic spiking": [13.0, 17.0, 31.25, 59.0, 86.75], "spike latency": [26.6]}


def cell(p: Pattern) -> nj.Network:
    """One neuron, and the current into it."""
    a, b = float(p.a), float(p.b)
    if p.name == "accommodation":  # du/dt = a b (v + 65): u has no decay, the limit of a small a
        a, b = 1e-6, p.a * p.b / 1e-6
    other = p.name in ("class 1", "integrator")
    linear, constant = (4.1, 108.0) if other else (5.0, 140.0)
    neuron = nj.Izhikevich(
        a=a, b=b, c=p.c, d=p.d, v_init=p.v, linear=linear, constant=constant, scheme="2004"
    )
    wire = nj.Projection("current", "cell", nj.Dense(1, 1), w=jnp.ones((1, 1)))
    return nj.Network({"cell": nj.Layer(1, neuron)}, {"in": wire})


def trace(p: Pattern) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times [T] of the steps' beginnings, ms, the potential [T] and spikes [T] after them."""
    t = np.arange(0, p.T + p.dt / 2, p.dt)
    net, current = cell(p), np.asarray(p.current(t), float)
    state = net.init()
    if p.name == "accommodation":  # u starts at -16, and its zero lies where b v is -65 b
        zero = 65.0 * float(net.layers["cell"].neuron.b)
        u = state.neurons["cell"]._replace(u=jnp.full(1, -16.0 - zero))
        state, current = state._replace(neurons={"cell": u}), current - zero
    probe = lambda records: (records["cell"].neuron.v[0], records["cell"].z[0] > 0)  # noqa: E731
    weights = net.init_weights(jax.random.key(0))
    _, (v, z) = nj.simulate(
        net, weights, state, {"current": current[:, None]}, n_steps=len(t), dt=p.dt, probe=probe
    )
    return t, np.asarray(v), np.asarray(z)


def _patterns_once(seed: int, scale: float, seconds: float, mesh: Mesh | None) -> Found:
    with jax.enable_x64(True):
        traces = {p.name: trace(p) for p in PATTERNS}
    return {
        name: {"times": t[z].tolist(), "t": t.tolist(), "v": v.round(3).tolist()}
        for name, (t, v, z) in traces.items()
    }


def _patterns_judged(found: list[Found]) -> list[Row]:
    (one,), source = found, "Izhikevich (2004), fig. 1"
    counts = [
        judged.near(p.name, "spikes", [float(len(one[p.name]["times"]))], p.spikes, 0.0, source)
        for p in PATTERNS
    ]
    steps = {p.name: p.dt for p in PATTERNS}
    for name, times in TIMES.items():
        ours = one[name]["times"]
        same = len(ours) == len(times)
        off = float(np.abs(np.subtract(ours, times)).max()) if same else float("nan")
        off = round(off, 9)  # times are sums of steps
        counts.append(
            judged.within(f"{name}, off published times", "ms", [off], 0.0, steps[name], source)
        )
    return counts


def _patterns_drawn(found: list[Found]) -> Figure:
    figure = Figure(figsize=(11.0, 8.5), layout="constrained")
    for ax, p in zip(figure.subplots(5, 4).flat, PATTERNS, strict=True):
        t = np.asarray(found[0][p.name]["t"])
        current = np.broadcast_to(np.asarray(p.current(t), float), t.shape)
        span = np.ptp(current) or 1.0
        ax.plot(t, -100 + 12 * (current - current.min()) / span, color=figures.GREY, linewidth=1)
        ax.plot(t, found[0][p.name]["v"], color=figures.BLUE, linewidth=0.8)
        ax.set_title(p.name, fontsize="small")
        ax.set_ylim(-105, 35)
        ax.tick_params(labelsize="x-small")
        figures.tidy(ax)
    figure.supxlabel("Time (ms); grey: the current", fontsize="small")
    figure.supylabel("Potential (mV)", fontsize="small")
    return figure


# --- the network ---

N_EXC, N_INH = 800, 200


class Thalamus(eqx.Module):
    """Currents of a fresh Gaussian in each step, of standard deviation `sigma` [n], nA."""

    sigma: jax.Array

    def init(self, shape: tuple[int, ...], dtype=float) -> jax.Array:
        """Nothing yet."""
        return jnp.zeros(shape, dtype)

    def step(self, state: jax.Array, current: Any, *, dt: Any, key: jax.Array) -> Any:
        """What comes in this step."""
        new = (self.sigma * jax.random.normal(key, state.shape)).astype(state.dtype)
        return new, new


def network(key: jax.Array, scale: float) -> Ready:
    """All to all, of weights drawn uniformly, at steps of 1 ms."""
    n_exc, n_inh = round(N_EXC * scale), round(N_INH * scale)
    n = n_exc + n_inh
    inhibits = np.arange(n) >= n_exc
    r = jax.random.uniform(nj.fold(key, "neurons"), (n,))
    w = jax.random.uniform(nj.fold(key, "weights"), (n, n)) / scale
    neuron = nj.Izhikevich(
        a=jnp.where(inhibits, 0.02 + 0.08 * r, 0.02), b=jnp.where(inhibits, 0.25 - 0.05 * r, 0.2),
        c=jnp.where(inhibits, -65.0, -65 + 15 * r**2), d=jnp.where(inhibits, 2.0, 8 - 6 * r**2),
        scheme="2003",
    )  # fmt: skip
    noise = Thalamus(jnp.where(inhibits, 2.0, 5.0))
    layers = {"cells": nj.Layer(n, neuron), "thalamus": nj.Layer(n, noise)}
    wires = {
        "cells": nj.Projection(
            "cells", "cells", nj.Dense(n, n), delay=1, w=jnp.where(inhibits, -w, 0.5 * w)
        ),
        "in": nj.Projection("thalamus", "cells", nj.one_to_one(n), w=jnp.ones((n, 1))),
    }
    net = nj.Network(layers, wires)
    return Ready(net, net.init())


def _network_once(seed: int, scale: float, seconds: float, mesh: Mesh | None) -> Found:
    key = jax.random.key(seed)
    made = network(nj.fold(key, "made"), scale)
    spikes = watched(made, "cells", seconds=seconds, dt=1.0, key=key, mesh=mesh)
    n_exc, n = round(N_EXC * scale), spikes.n
    rates = nj.spikes.rates(spikes)
    return {
        "rate": float(rates[:n_exc].mean()), "rate_inh": float(rates[n_exc:].mean()),
        "rhythm": nj.spikes.rhythm(spikes, 2.0, 20.0),
        "rates": seen.quantiles(rates), "cvs": seen.quantiles(nj.spikes.cv(spikes)),
        "raster": seen.raster(spikes, [n_exc, n - n_exc], last=1000.0),
    }  # fmt: skip


def _network_judged(found: list[Found]) -> list[Row]:
    others, source = judged.recorded("izhikevich-network")
    both = lambda k: ([x[k] for x in found], [x[k] for x in others])  # noqa: E731
    return [
        judged.alike("rate of excitatory neurons", "Hz", *both("rate"), source),
        judged.alike("rate of inhibitory neurons", "Hz", *both("rate_inh"), source),
        judged.alike("slow rhythm", "Hz", *both("rhythm"), source),
        judged.distance("KS distance of rates", *both("rates"), source),
        judged.distance("KS distance of CVs", *both("cvs"), source),
    ]


def _network_drawn(found: list[Found]) -> Figure:
    others, _ = judged.recorded("izhikevich-network")
    return figures.population(found, others, "Izhikevich (2003)")


STUDIES = {
    "izhikevich-patterns": Study(
        _patterns_once,
        _patterns_judged,
        _patterns_drawn,
        seconds=None,
        scale=None,
        seeds=1,
        divides=False,
    ),
    "izhikevich-network": Study(
        _network_once, _network_judged, _network_drawn, seconds=5.0, least_seconds=2.0
    ),
}
