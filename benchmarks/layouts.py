"""Which layout of synapses is fastest: dense, fan-in or events, by size, density, spikes, batch.

    python benchmarks/layouts.py

The product of n x n synapses with spikes, in a scan over steps as in a simulation, microseconds
a step, medians over repeats. Events run in C++ (`native`) and in XLA (`pure`).
"""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import neurojax as nj

REPEATS, CELLS = (
    5,
    (
        (1000, 4000),
        (0.01, 0.1),
        (0.001, 0.02, 0.2),
        (1, 32),
    ),
)  # fmt: skip  neurons, density, part that spikes in a step, batch


def layouts(n: int, density: float):
    """The same synapses in each layout."""
    fan = nj.fan_in(jax.random.key(0), n, n, density)
    edges = fan.edges()
    w = jax.random.normal(jax.random.key(1), fan.shape)
    kinds = {"dense": nj.Ideal(fan.matrix(w), nj.Dense(n, n)), "fan-in": nj.Ideal(w, fan)}
    for name, native in (("native", True), ("pure", False)):
        listed, w_listed = nj.by_sender(edges.pre, edges.post, n, n, w.reshape(-1), native=native)
        kinds[name] = nj.Ideal(w_listed, listed)
    return kinds


def microseconds(weights, s, steps: int) -> float:
    """Of one product, median."""

    @jax.jit
    def run(weights, s):
        def step(total, shift):
            moved = jnp.roll(s, shift, axis=-1)
            return total + jax.vmap(weights.apply)(moved), None

        return jax.lax.scan(step, jnp.zeros_like(s), jnp.arange(steps))[0]

    jax.block_until_ready(run(weights, s))
    took = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(run(weights, s))
        took.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(took)) / steps


def main() -> None:
    """Print a table."""
    table = Table("neurons", "density", "spiking", "batch", box=None)
    for name in ("dense", "fan-in", "native", "pure"):
        table.add_column(name, justify="right")
    for n, density, part, batch in itertools.product(*CELLS):
        s = (np.random.default_rng(0).random((batch, n)) < part).astype(np.float32)
        steps = max(10, 2000 // batch // (n // 1000) ** 2)
        times = {
            name: microseconds(w, jnp.asarray(s), steps) for name, w in layouts(n, density).items()
        }
        best = min(times.values())
        cells = (f"[bold]{t:,.0f}[/]" if t == best else f"{t:,.0f}" for t in times.values())
        table.add_row(f"{n:,}", f"{density:g}", f"{part:g}", str(batch), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
