"""The sparse network of Brunel (2000) in four states, and the theory of its rates.

Source: Brunel (2000), Dynamics of sparsely connected networks of excitatory and inhibitory
spiking neurons, Journal of Computational Neuroscience 8, 183: fig. 8, table 1, eqs. 4, 5, 21.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.optimize import root_scalar
from scipy.special import erfcx

import neurojax as nj
from experiments._networks import figures, judged, seen
from experiments._networks.judged import Row
from experiments._networks.runs import Ready, begun, watched
from experiments._networks.study import Found, Study

N_EXC, N_INH, C_EXC, C_INH = 10_000, 2_500, 1_000, 250
TAU, V_TH, V_RESET, T_REF = 20.0, 20.0, 10.0, 2.0  # ms, mV, mV, ms
J, DELAY, DT, SKIP = 0.1, 1.5, 0.1, 100.0  # mV, ms, ms, ms
NU_THR = 1000 * V_TH / (J * C_EXC * TAU)  # of each external train, so that the mean is V_TH: Hz


class Condition(NamedTuple):
    """Strength of inhibition, the drive in units of that which reaches threshold."""

    g: float
    drive: float


CONDITIONS = {
    "A": Condition(3.0, 2.0),
    "B": Condition(6.0, 4.0),
    "C": Condition(5.0, 2.0),
    "D": Condition(4.5, 0.9),
}


def wired(key: jax.Array, scale: float) -> tuple[nj.FanOut, int]:
    """Each neuron hears exactly C_EXC and C_INH others, and how many excite."""
    n_exc, n_inh = round(N_EXC * scale), round(N_INH * scale)
    n = n_exc + n_inh
    exc = nj.fan_in(nj.fold(key, "exc"), n_exc, n, C_EXC / n_exc).index
    inh = nj.fan_in(nj.fold(key, "inh"), n_inh, n, C_INH / n_inh).index + n_exc
    pre, post = (np.asarray(x).ravel() for x in (exc, inh)), np.arange(n)
    post = np.concatenate([np.repeat(post, C_EXC), np.repeat(post, C_INH)])
    return nj.by_sender(np.concatenate([*pre]), post, n, n), n_exc


def brunel(key: jax.Array, wiring: nj.FanOut, n_exc: int, at: Condition) -> Ready:
    """Neurons whose potential jumps with each arrival, within and from outside."""
    n = wiring.n_pre
    jump = J / -math.expm1(-DT / TAU)  # nA through 1 MOhm over a step move it by J
    w = jnp.where(jnp.arange(n) < n_exc, jump, -at.g * jump)
    neuron = nj.LIF(TAU, v_th=V_TH, v_reset=V_RESET, t_ref=T_REF)
    outside = nj.PoissonInput(n_inputs=C_EXC, rate=at.drive * NU_THR)
    layers = {"cells": nj.Layer(n, neuron), "outside": nj.Layer(n, outside)}
    wires = {
        "loop": nj.Projection(
            "cells", "cells", wiring, delay=int(nj.steps(DELAY, dt=DT)), w=wiring.at_pre(w)
        ),
        "in": nj.Projection("outside", "cells", nj.one_to_one(n), w=jnp.full((n, 1), jump)),
    }
    v = jax.random.uniform(nj.fold(key, "v"), (n,), maxval=V_TH)
    net = nj.Network(layers, wires)
    return Ready(net, begun(net, "cells", v=v))


# --- theory ---


def mean_field(at: Condition) -> float:
    """The highest rate (Hz) at which neurons fire as often as input of that rate makes them."""
    rate = lambda nu: 1000 / (T_REF + TAU * math.sqrt(math.pi) * _passage(at, nu))  # noqa: E731
    grid = np.concatenate([np.geomspace(0.01, 100, 60), np.linspace(105, 999 / T_REF, 60)])
    excess = [rate(nu) - nu for nu in grid]
    last = np.flatnonzero(np.diff(np.sign(excess)))[-1]
    return root_scalar(lambda nu: rate(nu) - nu, bracket=(grid[last], grid[last + 1])).root


def _bounds(at: Condition, nu: float) -> tuple[float, float]:
    """Reset and threshold as distances from the mean input, in its standard deviations."""
    outside, gamma = at.drive * NU_THR, C_INH / C_EXC
    mean = J * C_EXC * TAU / 1000 * (outside + nu * (1 - at.g * gamma))
    sigma = math.sqrt(J**2 * C_EXC * TAU / 1000 * (outside + nu * (1 + at.g**2 * gamma)))
    return (V_RESET - mean) / sigma, (V_TH - mean) / sigma


def _passage(at: Condition, nu: float) -> float:
    low, high = _bounds(at, nu)
    return quad(lambda u: erfcx(-u), low, min(high, 20.0))[0] if low < 20 else math.inf


# --- what is held against what ---


def _once(seed: int, scale: float, seconds: float, mesh: Mesh | None) -> Found:
    key, found = jax.random.key(seed), {}
    wiring, n_exc = wired(nj.fold(key, "wiring"), scale)
    for name, at in CONDITIONS.items():
        own = nj.fold(key, name)
        made = brunel(own, wiring, n_exc, at)
        spikes = watched(made, "cells", seconds=seconds, dt=DT, key=own, mesh=mesh)
        late = spikes.after(SKIP)
        found |= {
            f"rate_{name}": float(nj.spikes.rates(late).mean()),
            f"cv_{name}": seen.mean(nj.spikes.cv(late, least=4)),
            f"raster_{name}": seen.raster(spikes, [n_exc, spikes.n - n_exc], last=150.0),
        }
        if name == "B":
            found["rhythm_B"] = nj.spikes.rhythm(late, 100.0, 300.0)
        if name == "D":
            found["rhythm_D"] = nj.spikes.rhythm(late, 10.0, 50.0)
    return found


def _judged(found: list[Found]) -> list[Row]:
    ours = lambda k: [x[k] for x in found]  # noqa: E731
    theory, paper = {k: mean_field(at) for k, at in CONDITIONS.items()}, "Brunel (2000), table 1"
    others, loop = judged.recorded("brunel")
    both = lambda k: (ours(k), [x[k] for x in others])  # noqa: E731
    rows = [
        judged.near("A: rate", "Hz", ours("rate_A"), theory["A"], 0.03, "mean field"),
        judged.near("C: rate", "Hz", ours("rate_C"), theory["C"], 0.03, "mean field"),
        judged.near("B: rate", "Hz", ours("rate_B"), 60.7, 0.05, paper),
        judged.near("D: rate", "Hz", ours("rate_D"), 5.5, 0.1, paper),
        judged.near("B: fast rhythm", "Hz", ours("rhythm_B"), 180.0, 0.1, paper),
        judged.near("D: slow rhythm", "Hz", ours("rhythm_D"), 22.0, 0.2, paper),
    ]
    for k in "BCD":
        rows.append(judged.alike(f"{k}: rate", "Hz", *both(f"rate_{k}"), loop))
        rows.append(judged.alike(f"{k}: CV of intervals", "", *both(f"cv_{k}"), loop))
    return rows


def _drawn(found: list[Found]) -> Figure:
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    for ax, (k, at) in zip(figure.subplots(2, 2).flat, CONDITIONS.items(), strict=True):
        title = f"{k}: g = {at.g:g}, drive {at.drive:g}, {found[0][f'rate_{k}']:.1f} Hz"
        figures.raster(ax, found[0][f"raster_{k}"], title)
    return figure


STUDIES = {"brunel": Study(_once, _judged, _drawn, seconds=1.1, least_scale=0.1, least_seconds=0.6)}
