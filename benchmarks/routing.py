"""Seconds to route a million synapses over 32 x 32 cores, to compile that, and to place neurons.

python benchmarks/routing.py
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import hardware as hw
import neurojax as nj

N, FAN_IN, MESH = 10_240, 98, hw.Mesh(32, 32, neurons_per_core=10)


def main() -> None:
    """Print a line a route: the first call, then the median of five."""
    edges = nj.watts_strogatz(jax.random.key(0), N, N, FAN_IN, 0.1).edges()
    placement, spikes = hw.topology.linear(N, MESH, snake=True), jnp.full(N, 15.0)
    print(f"{len(edges.pre):,} synapses")
    tree = hw.routing.multicast(edges, placement, MESH, spikes)
    delay = hw.routing.loihi_delay()
    routes = {
        "unicast": lambda: hw.routing.unicast(edges, placement, MESH, spikes),
        "multicast": lambda: hw.routing.multicast(edges, placement, MESH, spikes),
        "latency": lambda: hw.routing.latency(edges, placement, MESH, tree, delay, 1e6),
        "tables": lambda: hw.routing.tables(edges, placement, MESH, weight_bits=8),
    }
    jax.clear_caches()
    for name, route in routes.items():
        took = []
        for _ in range(6):
            begin = time.perf_counter()
            jax.block_until_ready(route())
            took.append(time.perf_counter() - begin)
        print(f"{name:10} first {took[0]:.2f} s, then {np.median(took[1:]):.3f} s")
    few = nj.watts_strogatz(jax.random.key(0), 10_000, 10_000, 20, 0.1).edges()
    begin = time.perf_counter()
    hw.topology.bisected(few, 10_000, MESH)
    print(f"bisected   {time.perf_counter() - begin:.2f} s, 10,000 neurons of fan-in 20")


if __name__ == "__main__":
    main()
