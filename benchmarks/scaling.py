"""W9: how time and memory grow, beside what theory says.

    python -m benchmarks.scaling --figure docs/scaling.png

Every point runs in a process of its own. Memory is that of the compiled program's temporaries;
for `neurons` and `synapses` it is what the point adds to the peak of the process, drawing and
sorting the graph included, and time is a median without its spread.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

REPEATS = 5
RULES = ("factorised", "step by step", "through time")


class Axis(NamedTuple):
    """What grows, and how: exponents of time and of memory that theory gives.

    Devices share out memory; beyond the cores of the machine they save no time.
    """

    sizes: tuple[int, ...]
    time: float
    memory: float
    what: str


AXES = {
    "neurons": Axis((1_000, 10_000, 100_000, 1_000_000), 1, 1, "a step, 10 synapses a neuron"),
    "synapses": Axis(
        (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000), 1, 1,
        "a step, 100 synapses a neuron",
    ),
    "steps": Axis((10, 100, 1_000, 10_000), 1, 0, "256 neurons, last state alone kept"),
    "seeds": Axis((1, 2, 4, 8, 16, 32, 64), 1, 1, "a training step, vmapped"),
    "devices": Axis((1, 2, 4, 8), 0, -1, "a training step of 8 seeds, spread over CPU devices"),
    **{f"n, {rule}": Axis((128, 256, 512, 1024), 2, 2 if rule == "step by step" else 1,
        "a three-factor change, 25 steps, batch 16") for rule in RULES},
    **{f"T, {rule}": Axis((25, 50, 100, 200), 1, 0 if rule == "step by step" else 1,
        "a three-factor change, 256 neurons, batch 16") for rule in RULES},
}  # fmt: skip


def timed(run: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Median milliseconds of a call, and megabytes that its program needs beside its data."""
    import jax

    compiled = jax.jit(run).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    took = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        took.append(1e3 * (time.perf_counter() - begin))
    memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
    return {"median_ms": median(took), "min_ms": min(took), "max_ms": max(took), "mb": memory}


def system(n: int, n_steps: int):
    """n neurons with dense recurrence between 64 inputs and 10 classes."""
    import jax

    import neurojax as nj

    wiring, sent = jax.random.split(jax.random.key(0))
    net = nj.structured(
        wiring, 64, [nj.Layer(n, nj.LIF(tau_mem=9.5, r_mem=2.0), rule=nj.ThreeFactor())], 10,
        density=1.0, population=1, recurrence=nj.Recurrence("dense", gain=0.3),
    )  # fmt: skip
    return nj.wta_broadcast.System(
        net, {"h1": nj.broadcast(sent, n, 10)}, nj.SoftWTA(), nj.Homeostasis(),
        n_steps=n_steps, start=0,
    )  # fmt: skip


def steps(size: int) -> dict[str, float]:
    """A simulation of `size` steps under held input."""
    import jax

    import neurojax as nj

    net = system(256, 2).network
    weights, x = net.init_weights(jax.random.key(0)), jax.random.uniform(jax.random.key(1), (64,))
    run = lambda weights, x: nj.simulate(  # noqa: E731
        net, weights, net.init(), {"input": x}, n_steps=size, dt=1.0, probe=lambda records: (),
        learn=False,
    )[0]  # fmt: skip
    return timed(run, weights, x)


def trained(n_seeds: int, spread: Callable[[Any], Any] = lambda x: x) -> dict[str, float]:
    """A training step of `n_seeds` networks at once, laid out by `spread`."""
    import jax
    import optax

    from neurojax.learning import wta_broadcast as wb

    one, tx = system(128, 20), optax.adam(4e-3)
    made = jax.vmap(lambda key: wb.init(one, tx, key))(jax.random.split(jax.random.key(0), n_seeds))
    x = jax.random.uniform(jax.random.key(1), (32, 64))
    target = jax.random.randint(jax.random.key(2), (32,), 0, 10)
    step = jax.vmap(lambda state: wb.train_step(one, tx, state, x, target)[0])
    return timed(step, spread(made))


def devices(size: int) -> dict[str, float]:
    """Eight networks over `size` devices."""
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    jax.config.update("jax_num_cpu_devices", size)
    mesh = jax.make_mesh((size,), ("seeds",), (AxisType.Auto,))
    along = NamedSharding(mesh, PartitionSpec("seeds"))
    return trained(8, lambda state: jax.device_put(state, along))


def changes(rule: str, n: int, n_steps: int) -> dict[str, float]:
    """A change of all weights from one batch, by one of RULES."""
    import jax

    from neurojax.learning import wta_broadcast as wb
    from neurojax.learning.bptt import gradients
    from neurojax.neurons.surrogate import fast_sigmoid

    taught = system(n, n_steps)
    weights, tone = taught.network.init_weights(jax.random.key(1)), taught.rest()
    x = jax.random.uniform(jax.random.key(1), (16, 64))
    target = jax.random.randint(jax.random.key(2), (16,), 0, 10)

    def step_by_step(system, weights, tone, x, target):
        each = jax.vmap(partial(wb.online_deltas, system, weights, tone))(x, target)
        return jax.tree.map(lambda dw: dw.mean(0), each)

    by = {
        "factorised": wb.deltas,
        "step by step": step_by_step,
        "through time": partial(gradients, spike=fast_sigmoid(5.0), gain=10.0),
    }[rule]
    return timed(lambda weights, x: by(taught, weights, tone, x, target), weights, x)


def sparse(size: int, fan_in: int) -> dict[str, float]:
    """A step of a sparse recurrent network of `size` synapses."""
    from benchmarks import sparse_scaling

    found = sparse_scaling.one(size, fan_in)
    ms = 1e3 * found["step_s"]
    return {"median_ms": ms, "min_ms": ms, "max_ms": ms, "mb": found["peak_bytes"] / 1e6}


def point(axis: str, size: int) -> dict[str, float]:
    """One size of one axis."""
    kind, _, rule = axis.partition(", ")
    return {
        "neurons": lambda: sparse(10 * size, 10),
        "synapses": lambda: sparse(size, 100),
        "steps": lambda: steps(size),
        "seeds": lambda: trained(size),
        "devices": lambda: devices(size),
        "n": lambda: changes(rule, size, 25),
        "T": lambda: changes(rule, 256, size),
    }[kind]()


def rows(axes: tuple[str, ...] = tuple(AXES)) -> Iterator[dict[str, Any]]:
    """Every size of every axis, each in a process of its own."""
    for axis in axes:
        for size in AXES[axis].sizes:
            words = [sys.executable, "-m", "benchmarks.scaling", "--point", axis, str(size)]
            said = subprocess.run(
                words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
            ).stdout
            found = json.loads(said.splitlines()[-1])
            alone: dict[str, Any] = {"ratio_to_floor": None, "ratio_to_best_peer": None}
            what = {"workload": f"W9 {axis}", "system": "neurojax", "size": size}
            yield what | found | alone


def exponents(measured: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Slopes of the larger sizes of each axis in the log-log plot, beside those of theory."""
    out = {}
    for axis, known in AXES.items():
        own = [r for r in measured if r["workload"] == f"W9 {axis}"]
        own = own[len(own) // 2 - 1 :]
        if len(own) > 1:
            x = np.log([r["size"] for r in own])
            out[axis] = {
                "time": _slope(x, own, "median_ms"), "time_in_theory": known.time,
                "memory": _slope(x, own, "mb"), "memory_in_theory": known.memory,
            }  # fmt: skip
    return out


def _slope(x: np.ndarray, rows: list[dict[str, Any]], name: str) -> float:
    """Of log `name` against `x`; what rounds to nothing is 0, without a sign."""
    return round(float(np.polyfit(x, np.log([r[name] for r in rows]), 1)[0]), 4) + 0.0


def figure(measured: list[dict[str, Any]], path: Path) -> None:
    """Time of the axes, and memory of the rules against neurons and steps."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.0, 6.0), layout="constrained")
    panels = drawn.subplots(2, 3).ravel()
    lines = [
        ("median_ms", ("neurons", "synapses"), "Time of a step (ms)", "Neurons, synapses"),
        ("median_ms", ("steps",), "Time (ms)", "Steps"),
        ("median_ms", ("seeds", "devices"), "Training step (ms)", "Seeds, devices"),
        ("mb", ("steps",), "Memory (MB)", "Steps"),
        ("mb", tuple(f"n, {rule}" for rule in RULES), "Memory (MB)", "Neurons"),
        ("mb", tuple(f"T, {rule}" for rule in RULES), "Memory (MB)", "Steps"),
    ]
    colours, slopes = ("#0072B2", "#D55E00", "#009E73"), exponents(measured)
    for ax, (name, axes, y_label, x_label) in zip(panels, lines, strict=True):
        for axis, colour in zip(axes, colours, strict=False):
            own = [r for r in measured if r["workload"] == f"W9 {axis}"]
            slope = slopes[axis]["time" if name == "median_ms" else "memory"]
            ax.loglog(
                [r["size"] for r in own], [r[name] for r in own], "o-", markersize=4, color=colour,
                label=f"{axis.partition(', ')[2] or axis}, slope {slope:.2f}",
            )  # fmt: skip
        if len(axes) == len(RULES):  # less than two decades: name the sizes themselves
            ax.set_xticks(AXES[axes[0]].sizes, AXES[axes[0]].sizes)
            ax.minorticks_off()
        ax.set(xlabel=x_label, ylabel=y_label)
        ax.set_ylim(ax.get_ylim()[0] / 2, ax.get_ylim()[1] * 4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    drawn.savefig(path, dpi=100)


def main() -> None:
    """Measure all, or one point."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--point", nargs=2, metavar=("AXIS", "SIZE"))
    options.add_argument("--figure", type=Path)
    c = options.parse_args()
    if c.point:
        print(json.dumps(point(c.point[0], int(c.point[1]))))
        return
    found = []
    for row in rows():
        found.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps(exponents(found), indent=1))
    if c.figure:
        figure(found, c.figure)


if __name__ == "__main__":
    main()
