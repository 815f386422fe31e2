"""What the machine can do at most, and which share of it our cases reach.

    python -m benchmarks --only W1,W2,W3,W4,W7,W8 --json FILE
    python -m benchmarks.ceilings FILE

on the same machine. Ceilings are measured: the product of two large float32 matrices, at the
precision that JAX takes by itself, and a pass over an array that fits no cache. Work is counted
by hand, as any system has to do it: operations of the products, and bytes of each large array once
a write and once a read. What stays in a cache moves faster than the ceiling of memory.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks import sparse_network
from benchmarks import workloads as w


class Work(NamedTuple):
    """Of one call, or of the machine in a second."""

    flop: float
    bytes: float


def work(sparse_rate: float) -> dict[str, Work]:
    """What one call of each workload has to do; in W4, at so many spikes a neuron and step."""
    i, h, o, r = w.N_IN, w.N_HIDDEN, w.N_OUT, w.N_RECURRENT
    rows, local = w.T * w.BATCH, w.T_LOCAL * w.BATCH_LOCAL  # steps of all samples
    n, seconds, _ = w.SPARSE
    steps = round(1000 * seconds / sparse_network.DT)
    updates, events = n * steps, sparse_rate * n * steps * sparse_network.FAN_IN
    batch, t, width = 64, 20, 33  # of W8, and synapses of a neuron on its ring
    plastic = i * h + h * h + 2 * h * width + 2 * h * o
    return {
        # The input, its current, the spikes that come out.
        "W1": Work(2 * rows * h * (i + o), 4 * (rows * (i + 2 * h + o) + h * i)),
        # Spikes, slopes, their error and D as well.
        "W2": Work(2 * rows * h * (2 * i + 3 * o), 4 * (rows * (2 * i + 10 * h) + 2 * h * i)),
        # Recurrent weights in every step.
        "W3": Work(2 * rows * r * (i + r), 4 * (rows * (i + 3 * r) + r * i + w.T * r * r)),
        # A synapse: weight, receiver, its current. A neuron: potential, current, silent steps.
        "W4": Work(10 * updates + events, 24 * updates + 16 * events),
        # Current, spikes, window, D.
        "W7": Work(
            4 * local * h * (i + h), 4 * (local * (2 * i + 8 * h) + 2 * h * i + w.T_LOCAL * h * h)
        ),
        # As in W7, less the current of a held input; weights, and both moments of Adam.
        "W8": Work(
            w.BATCHES * 4 * batch * (i * h + t * (h * h + 2 * h * width + 2 * h * o)),
            w.BATCHES * 4 * (14 * batch * t * h + 6 * plastic),
        ),
    }


def ceilings() -> Work:
    """Operations and bytes a second of the device that JAX takes by itself."""
    large = jax.default_backend() != "cpu"
    n, size = (8192, 2**28) if large else (2048, 2**26)
    a, x = jnp.ones((n, n)), jnp.ones(size)
    product = jax.jit(lambda a: a @ a)
    passes = jax.jit(lambda x: jax.lax.fori_loop(0, 8, lambda _, x: x + 1, x))  # in place
    return Work(2 * n**3 / _seconds(product, a), 8 * 8 * size / _seconds(passes, x))


def _seconds(run: Callable[[Any], Any], x: Any) -> float:
    def once() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(x))
        return time.perf_counter() - begin

    return median([once() for _ in range(12)][3:])


def shares(rows: list[dict[str, Any]], most: Work) -> list[dict[str, Any]]:
    """What each of our own rows does in a second, and its share of `most`."""
    own = {r["workload"]: r for r in rows if r["system"] == "neurojax"}
    asked = work(own["W4"]["rates"][0] if "W4" in own else 0.0)
    out = []
    for name in own.keys() & asked.keys():
        seconds = own[name]["median_ms"] / 1e3
        done = Work(*(x / seconds for x in asked[name]))
        out.append({
            "workload": name, "ms": 1e3 * seconds,
            "gflops": done.flop / 1e9, "of_arithmetic": done.flop / most.flop,
            "gbs": done.bytes / 1e9, "of_memory": done.bytes / most.bytes,
        })  # fmt: skip
    return sorted(out, key=lambda row: row["workload"])


def main(rows: list[dict[str, Any]]) -> None:
    """Print the table of what `python -m benchmarks` has measured."""
    most = ceilings()
    title = (
        f"{jax.devices()[0].device_kind}: {most.flop / 1e9:,.0f} GFLOP/s,"
        f" {most.bytes / 1e9:,.0f} GB/s"
    )
    table = Table(title=title, title_justify="left", box=None)
    for name in ("workload", "ms", "GFLOP/s", "of most", "GB/s", "of most"):
        table.add_column(name, justify="right")
    for row in shares(rows, most):
        table.add_row(
            row["workload"], f"{row['ms']:,.1f}", f"{row['gflops']:,.0f}",
            f"{row['of_arithmetic']:.0%}", f"{row['gbs']:,.1f}", f"{row['of_memory']:.0%}",
        )  # fmt: skip
    Console(highlight=False).print(table)


if __name__ == "__main__":
    file = " ".join(sys.argv[1:])
    try:
        measured = json.loads(Path(file).read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        print(f"error: FILE must be what --json has written; got {file!r}", file=sys.stderr)
        sys.exit(2)
    main(measured)
