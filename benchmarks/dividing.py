"""What dividing costs: two devices of this machine against one on the same cores, in one run.

    python -m benchmarks.dividing --json runs/dividing.json

W4's network (`sparse_network.py`) at two sizes, its neurons divided over two virtual devices; and
training steps of two learners, each batch divided over both. Calls of the two kinds take turns, so
that what else the machine does hits both. The one device has both cores to itself where XLA
uses them. What comes out is checked to be equal. No gain can be shown on cores that are shared
out either way: what is shown is the overhead.
"""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import neurojax as nj
from benchmarks.sparse_network import DELAY, DT, NEURON, TAU_SYN, network
from neurojax import sharding

STEPS = 10_000  # a biological second


def simulation(n: int) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """W4 of `n` neurons on one device and on two, and how many steps a call makes."""
    pre, post, w, v = network(n, 0)
    wiring, w = nj.by_sender(pre, post, n, n, jnp.asarray(w, float))
    loop = nj.Projection("cells", "cells", wiring, w=w, delay=DELAY)
    settings: Any = NEURON
    cells = nj.Layer(n, nj.LIF(**settings), nj.Exponential(TAU_SYN))
    net = nj.Network({"cells": cells}, {"loop": loop})
    weights, state = net.init_weights(jax.random.key(0)), net.init()
    state = eqx.tree_at(lambda s: s.neurons["cells"].v, state, jnp.asarray(v, float))
    there = sharding.place(sharding.mesh(neuron=2), net, weights, state)

    def run(net: Any, weights: Any, state: Any) -> Any:
        options: Any = {"n_steps": STEPS, "dt": DT, "probe": lambda _: ()}
        return nj.simulate(net, weights, state, {}, **options)[0].neurons

    return lambda: run(net, weights, state), lambda: run(*there), STEPS


def training(
    learner: Any, batch_size: int, batches: int
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """Steps of a learner of 784 inputs and 10 classes, its batch divided."""
    x = jax.random.uniform(jax.random.key(0), (batch_size * batches, 784))
    data = x, jnp.arange(len(x)) % 10
    run = lambda **more: nj.fit(  # noqa: E731
        learner, data, key=jax.random.key(1), epochs=1, batch_size=batch_size, progress=False,
        **more,
    ).state.weights  # fmt: skip
    return run, lambda: run(mesh=sharding.mesh(data=2)), batches


def perceptron() -> Any:
    """784-512-10 by direct feedback alignment."""
    return nj.learning.Perceptron((784, 512, 10), nj.learning.DFA(), optax.sgd(1e-3))


def spiking() -> Any:
    """The main system with one layer of 512 neurons in a ring, 20 steps."""
    layer = nj.Layer(512, nj.LIF(9.5, 2.0), rule=nj.ThreeFactor(window=nj.triangle(0.5)))
    net = nj.structured(jax.random.key(2), 784, [layer], 10, readout=nj.LeakyIntegrator(9.5))
    system = nj.wta_broadcast.system(jax.random.key(3), net, n_steps=20, start=5)
    return nj.learning.WTABroadcast(system, optax.sgd(1e-6))  # a spike that flips changes little


def trainings() -> dict[str, tuple[Any, int, int]]:
    """By name: a learner, samples a batch, batches."""
    return {
        "784-512-10, batch of 128": (perceptron(), 128, 400),
        "784-512-10, batch of 512": (perceptron(), 512, 100),
        "spiking, batch of 128": (spiking(), 128, 50),
    }


def row(
    name: str, kinds: tuple[Callable[[], Any], Callable[[], Any], int], repeats: int
) -> dict[str, Any]:
    """Microseconds a step of both, by turns, and the median of their ratios."""
    *runs, steps = kinds
    ends = [jax.block_until_ready(run()) for run in runs]
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        if eqx.is_inexact_array(a):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-3)
    took = np.array([[_seconds(run) for run in runs] for _ in range(repeats)]) / steps * 1e6
    ratios = (took[:, 1] / took[:, 0]).tolist()
    spread = quantiles(ratios, n=4) if repeats > 2 else [min(ratios), 0.0, max(ratios)]
    return {
        "name": name, "one": median(took[:, 0].tolist()), "two": median(took[:, 1].tolist()),
        "ratio": median(ratios), "quartiles": [spread[0], spread[2]], "repeats": repeats,
    }  # fmt: skip


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def main() -> None:
    """Measure, print and write."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--sizes", type=int, nargs="+", default=[20_000, 50_000])
    asked.add_argument("--repeats", type=int, default=15)
    asked.add_argument("--json", type=Path)
    given = asked.parse_args()
    kinds = {f"W4, {n:,} neurons": partial(simulation, n) for n in given.sizes}
    kinds |= {name: partial(training, *made) for name, made in trainings().items()}
    print("| | one device, us a step | two, us a step | ratio, quartiles |\n" + "|---" * 4 + "|")  # noqa: T201
    rows = []
    for name, make in kinds.items():
        rows.append(x := row(name, make(), given.repeats))
        low, high = x["quartiles"]
        print(  # noqa: T201
            f"| {x['name']} | {x['one']:.1f} | {x['two']:.1f} | {x['ratio']:.2f}"
            f" ({low:.2f} to {high:.2f}) |", flush=True,
        )  # fmt: skip
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
