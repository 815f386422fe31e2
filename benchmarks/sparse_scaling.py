"""Time and memory of a sparse recurrent network from 10^5 to 5 10^7 synapses.

    python benchmarks/sparse_scaling.py --figure docs/sparse_scaling.png

Each size in a process of its own: the graph is drawn (`fan_in`, 100 partners each), sorted by
sender, and simulated in steps of 0.1 ms, with a given 15 Hz of spikes, so that the work of a
step grows with size alone. Prints JSON with the slopes of straight lines in the log-log plot.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FAN_IN, SIZES = 100, (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 50_000_000)
SPIKES, EVERY = 10, 6667  # of so many neurons as fire in a step of 0.1 ms at 15 Hz
STEPS = 200


def one(synapses: int, fan_in: int = FAN_IN) -> dict[str, float]:
    """Seconds to draw, to sort, and of a step; bytes of the peak that the size adds."""
    measured(10_000, fan_in)  # what the first program of a process takes, it takes here
    before = peak()
    found = measured(synapses, fan_in)
    return {"synapses": synapses, **found, "peak_bytes": peak() - before}


def measured(synapses: int, fan_in: int) -> dict[str, float]:
    """Seconds of each part."""
    import jax
    import jax.numpy as jnp

    import neurojax as nj

    n = synapses // fan_in
    nj.fan_in(jax.random.key(1), n, n, fan_in / n).index.block_until_ready()  # compiles
    begin = time.perf_counter()
    fan = nj.fan_in(jax.random.key(0), n, n, fan_in / n)
    fan.index.block_until_ready()
    drawn = time.perf_counter()
    edges = fan.edges()
    wiring = nj.by_sender(edges.pre, edges.post, n, n)
    del fan, edges
    ordered = time.perf_counter()
    net = nj.Network(
        {"cells": nj.Layer(n, nj.LIF(t_ref=2.0), nj.Exponential(5.0))},
        {"loop": nj.Projection("spikes", "cells", wiring)},
    )
    who = jnp.arange(n, dtype=jnp.uint32)
    weights = {"loop": nj.Ideal(jnp.full(synapses, 0.01), wiring)}

    @jax.jit
    def run(weights, state):
        def step(state, t):
            s = ((who * 7919 + t * 104729) % EVERY < SPIKES).astype(float)
            drive = net.drive(weights, {"spikes": s})
            return net.step(weights, state, drive, dt=0.1)[0], None

        return jax.lax.scan(step, state, jnp.arange(STEPS, dtype=jnp.uint32))[0]

    state = jax.block_until_ready(run(weights, net.init()))
    took = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run(weights, state))
        took.append((time.perf_counter() - start) / STEPS)
    step = float(np.median(took))
    return {"draw_s": drawn - begin, "sort_s": ordered - drawn, "step_s": step}


def peak() -> int:
    """Bytes of this process at its largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def slope(rows: list[dict[str, float]], name: str) -> float:
    """Of log `name` over log synapses, from a million synapses on, where fixed costs are small."""
    x, y = zip(*((r["synapses"], r[name]) for r in rows if r["synapses"] >= 1e6), strict=True)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def straight(rows: list[dict[str, float]]) -> tuple[float, float]:
    """Bytes a synapse, and bytes at none: peak memory as a straight line, from a million on."""
    x, y = zip(
        *((r["synapses"], r["peak_bytes"]) for r in rows if r["synapses"] >= 1e6), strict=True
    )
    each, fixed = np.polyfit(x, y, 1)
    return float(each), float(fixed)


def figure(rows: list[dict[str, float]], path: Path) -> None:
    """Both panels, log-log, beside a line of slope 1."""
    from matplotlib.figure import Figure

    x = np.array([r["synapses"] for r in rows], float)
    drawn = Figure(figsize=(7.0, 3.0), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for name, label, colour in (
        ("draw_s", "draw", "#0072B2"), ("sort_s", "sort by sender", "#009E73"),
        ("step_s", "one step", "#D55E00"),
    ):  # fmt: skip
        left.loglog(x, [r[name] for r in rows], "o-", markersize=4, color=colour, label=label)
    right.loglog(x, [r["peak_bytes"] / 1e6 for r in rows], "o-", markersize=4, color="#0072B2")
    left.set_ylabel("Time (s)")
    right.set_ylabel("Peak memory (MB)")
    left.loglog(x, 0.2 * rows[0]["step_s"] * x / x[0], ":", color="#888888", label="slope 1")
    each, fixed = straight(rows)
    label = f"{fixed / 1e6:.0f} MB + {each:.0f} B a synapse"
    right.loglog(x, (fixed + each * x) / 1e6, ":", color="#888888", label=label)
    for ax, place in ((left, (0.02, 0.32)), (right, "upper left")):
        ax.set_xlabel("Synapses")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc=place)
    drawn.savefig(path, dpi=150)


def main() -> None:
    """Measure every size and print them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--one", type=int)
    options.add_argument("--figure", type=Path)
    c = options.parse_args()
    if c.one:
        print(json.dumps(one(c.one)))
        return
    rows = []
    for synapses in SIZES:
        words = [sys.executable, __file__, "--one", str(synapses)]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(said.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    each, fixed = straight(rows)
    slopes = {name: round(slope(rows, name), 3) for name in ("draw_s", "sort_s", "step_s")}
    print(json.dumps({"slope": slopes, "bytes_a_synapse": each, "bytes_at_none": fixed}))
    if c.figure:
        figure(rows, c.figure)


if __name__ == "__main__":
    main()
