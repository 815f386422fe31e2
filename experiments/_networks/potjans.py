"""The cortical microcircuit of Potjans and Diesmann (2014), a tenth of it unless asked for more.

Source: Potjans and Diesmann (2014), The cell-type specific cortical microcircuit: relating
structure and activity in a full-scale spiking network model, Cerebral Cortex 24, 785: tables 4, 5.
"""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

import neurojax as nj
from experiments._networks import figures, judged, seen
from experiments._networks.judged import Row
from experiments._networks.runs import Ready, begun, watched
from experiments._networks.study import Found, Study

NAMES = ("L2/3E", "L2/3I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
SIZES = np.array([20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948])
CHANCE = np.array(  # that a pair is connected, to row from column
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
        [0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443],
    ]
)
TOTAL = np.log1p(-CHANCE) / np.log1p(-1 / np.outer(SIZES, SIZES))  # synapses, of the whole
OUTSIDE = np.array([1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100])  # synapses a neuron
W, G, BACKGROUND = 0.0878, -4.0, 8.0  # nA, inhibition relative to it, Hz
MEAN = np.where(np.arange(8) % 2, G * W, W) * np.ones((8, 1))  # nA, to row from column
MEAN[0, 2] *= 2  # L4E onto L2/3E
DT, SKIP, TAU_SYN, TAU_MEM, R_MEM = 0.1, 500.0, 0.5, 10.0, 40.0  # ms, ms, ms, ms, MOhm
LATE = np.array([1.5, 0.75])  # ms, of excitation and inhibition; half of it their spread
LONGEST = 64  # steps; six standard deviations are 60
_PIECE = 1 << 16  # synapses

WHOLE = np.array([0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829])  # Hz, by NEST


def potjans(key: jax.Array, scale: float, devices: int = 1) -> Ready:
    """Numbers of neurons and of synapses a neuron times `scale`.

    What is missing of the input is made up for: its variance by weights larger by 1 / sqrt(scale),
    its mean by a current, from the rates of the whole. So that they can be divided over `devices`,
    neurons are added behind them that nobody hears.
    """
    sizes = scaled(scale)
    n = int(sizes.sum() + -sizes.sum() % devices)
    kind = np.repeat(np.arange(8), [*sizes[:-1], n - sizes[:-1].sum()])
    number = np.rint(TOTAL * scale**2).astype(int)
    wiring = nj.fixed_total(nj.fold(key, "wiring"), sizes.tolist(), sizes.tolist(), number)
    w, steps = _each(nj.fold(key, "each"), wiring, kind, scale)
    start = np.pad(wiring.start, (0, n - wiring.n_pre), "edge")
    wiring = replace(wiring, start=start, n_post=n)
    lost = (MEAN * TOTAL / SIZES[:, None] * WHOLE).sum(1) + W * OUTSIDE * BACKGROUND
    held = (1 - np.sqrt(scale)) * lost * TAU_SYN / 1000  # nA
    neuron = nj.LIF(
        TAU_MEM, r_mem=R_MEM, v_rest=-65.0 + R_MEM * held[kind], v_th=-50.0, v_reset=-65.0,
        t_ref=2.0,
    )  # fmt: skip
    outside = nj.PoissonInput(OUTSIDE[kind] * scale, BACKGROUND)
    layers = {
        "cells": nj.Layer(n, neuron, synapse=nj.Exponential(TAU_SYN)),
        "outside": nj.Layer(n, outside),
    }
    delays, from_outside = nj.Delays(steps, longest=LONGEST), jnp.full((n, 1), W / np.sqrt(scale))
    wires = {
        "within": nj.Projection("cells", "cells", wiring, delays=delays, w=w),
        "in": nj.Projection("outside", "cells", nj.one_to_one(n), w=from_outside),
    }
    v = -58.0 + 10.0 * jax.random.normal(nj.fold(key, "v"), (n,))
    net = nj.Network(layers, wires)
    return Ready(net, begun(net, "cells", v=v))


def scaled(scale: float) -> np.ndarray:
    """Neurons of each population."""
    return np.rint(SIZES * scale).astype(int)


@partial(jax.jit, static_argnames="scale")
def _each(key, wiring: nj.FanOut, kind, scale: float) -> tuple[jax.Array, jax.Array]:
    """Weight (nA) and delay (steps) of each synapse: normal, no delay below half a step."""
    edges = wiring.shape[0]

    def piece(i):  # one after another, so that nothing large is held beside what is asked for
        place = jnp.minimum(i * _PIECE + jnp.arange(_PIECE), edges - 1)
        of = kind[jnp.searchsorted(wiring.start, place, side="right") - 1]
        spread, late = jax.random.split(jax.random.fold_in(key, i))
        w = jnp.asarray(MEAN / np.sqrt(scale), float)[kind[wiring.index[place]], of]
        w = w * (1 + 0.1 * jax.random.normal(spread, w.shape))
        mean = jnp.asarray(LATE / DT, float)[of % 2]
        late = jax.random.truncated_normal(late, (0.5 - mean) / (0.5 * mean), 6.0, w.shape)
        steps = jnp.rint(mean * (1 + 0.5 * late)).astype(jnp.int32)
        return w, jnp.clip(steps, 1, LONGEST)

    found = jax.lax.map(piece, jnp.arange(-(-edges // _PIECE)))
    w, steps = (x.reshape(-1)[:edges] for x in found)
    return w, steps


# --- what is held against what ---


def _once(seed: int, scale: float, seconds: float, mesh: Mesh | None) -> Found:
    key = jax.random.key(seed)
    made = potjans(nj.fold(key, "made"), scale, 1 if mesh is None else mesh.size)
    spikes = watched(made, "cells", seconds=seconds, dt=DT, key=key, mesh=mesh)
    sizes = scaled(scale)
    spikes = spikes.of(slice(sizes.sum()))
    found: Found = {
        "scale": scale,
        "raster": seen.raster(spikes, sizes.tolist(), last=300.0, shown=2000),
    }
    for a, (n, end) in enumerate(zip(sizes, np.cumsum(sizes), strict=True)):
        told = seen.population(spikes.of(slice(end - n, end)), skip=SKIP)
        found |= {f"{k}_{a}": told[k] for k in ("rate", "cv", "correlation", "rates")}
    return found


def _judged(found: list[Found]) -> list[Row]:
    """The whole beside NEST's, any part beside the tenth of another hand."""
    others, brian = judged.recorded("potjans")
    both = lambda k: ([x[k] for x in found], [x[k] for x in others])  # noqa: E731
    rows = []
    for a, name in enumerate(NAMES):
        ours, theirs = both(f"rate_{a}")
        if found[0]["scale"] == 1:
            # of ten times as many neurons, whose mean wanders less by the root of ten
            sd = float(np.std(theirs, ddof=1)) / math.sqrt(10)
            whole = float(WHOLE[a])
            rows.append(judged.one_run(f"{name}: rate", "Hz", ours, whole, sd, "NEST, all of it"))
            continue
        rows.append(judged.alike(f"{name}: rate", "Hz", ours, theirs, brian))
        for k, told in (("cv", "CV of intervals"), ("correlation", "correlation in 5 ms")):
            rows.append(judged.alike(f"{name}: {told}", "", *both(f"{k}_{a}"), brian))
        rows.append(judged.distance(f"{name}: KS distance of rates", *both(f"rates_{a}"), brian))
    return rows


def _drawn(found: list[Found]) -> Figure:
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    shown = found[0]["raster"]
    title = f"Microcircuit at scale {found[0]['scale']:g}: excitation blue, inhibition orange"
    figures.raster(left, shown, title, (figures.BLUE, figures.ORANGE))
    ends = np.cumsum(shown["groups"])
    left.set_yticks(ends - np.asarray(shown["groups"]) / 2, NAMES)
    left.set_ylabel("Population")
    left.invert_yaxis()
    at, ours = np.arange(8), [[run[f"rate_{a}"] for run in found] for a in range(8)]
    others, source = judged.recorded("potjans")
    theirs = [np.mean([run[f"rate_{a}"] for run in others]) for a in range(8)]
    right.barh(at - 0.27, np.mean(ours, 1), 0.25, color=figures.BLUE, label="neurojax")
    right.barh(at, theirs, 0.25, color=figures.ORANGE, label=f"a tenth, {source.split(',')[0]}")
    right.barh(at + 0.27, WHOLE, 0.25, color=figures.GREY, label="the whole, NEST")
    right.set_yticks(at, NAMES)
    right.invert_yaxis()
    right.set_xlabel("Rate (Hz)")
    right.legend(frameon=False, fontsize="small")
    figures.tidy(right)
    return figure


STUDIES = {"potjans": Study(_once, _judged, _drawn, seconds=1.5, scale=0.1, least_seconds=0.6)}
