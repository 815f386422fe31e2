"""Seconds and memory to draw ten million synapses of 100,000 neurons, generator by generator.

    python benchmarks/generators.py

Each in a process of its own: the first draw compiles, the second has another key; the peak is
of the whole process. Prints a line of JSON a generator.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

N, K = 100_000, 100


def generators():
    """What draws, of a key."""
    import neurojax as nj

    near = nj.exponential_profile(200.0)
    torus, around = (250, 400), nj.gaussian_profile(10.0)
    part = [[4 * K / N * (0.7 if a == b else 0.1) for b in range(4)] for a in range(4)]
    quarter = [N // 4] * 4
    return {
        "fan_in": lambda key: nj.fan_in(key, N, N, K / N),
        "fan_out": lambda key: nj.fan_out(key, N, N, K / N),
        "bernoulli": lambda key: nj.bernoulli(key, N, N, K / N),
        "blocks": lambda key: nj.blocks(key, quarter, quarter, part),
        "watts_strogatz": lambda key: nj.watts_strogatz(key, N, N, K, 0.1),
        "watts_strogatz_grid": lambda key: nj.watts_strogatz_grid(key, torus, 108, 0.1),
        "distance, ring": lambda key: nj.distance_dependent(key, (N,), K, near),
        "distance, torus": lambda key: nj.distance_dependent(key, torus, K, around),
        "locally_dense": lambda key: nj.locally_dense(key, N, K // 2, 0.1),
    }


def one(name: str) -> dict[str, float | str]:
    """Seconds of the first and the second draw, and the peak, MB."""
    import jax

    draw, took = generators()[name], []
    for seed in range(2):
        begin = time.perf_counter()
        jax.block_until_ready(draw(jax.random.key(seed)))
        took.append(round(time.perf_counter() - begin, 2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"generator": name, "first_s": took[0], "again_s": took[1], "peak_mb": peak}


def main() -> None:
    """Measure every generator."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--one")
    name = options.parse_args().one
    if name:
        print(json.dumps(one(name)))
        return
    for name in generators():
        subprocess.run([sys.executable, __file__, "--one", name], check=True)


if __name__ == "__main__":
    main()
