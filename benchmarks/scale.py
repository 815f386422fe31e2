"""What a synapse costs: bytes and seconds, from a million to a thousand millions of them.

    python -m benchmarks.scale                       # 10^6, 10^7, 10^8, and 10^9 computed anew
    python -m benchmarks.scale --synapses 1e7 --kinds plain,stdp --json FILE
    python -m benchmarks.scale --synapses 1e7 --turns 21   # what plasticity costs

W4's network of LIF neurons, four fifths of which excite (`sparse_network.py`), in steps of 0.1 ms:
100 synapses a neuron up to 10^6, then 1,000, weights smaller accordingly. Each row is a process of
its own. Kinds:

    plain             numbers in float32, nothing learns
    stdp              all synapses plastic by pair STDP, bounded, changed in place
    stdp-bf16         the same in bfloat16, and stdp-int8 in levels of one byte
    three-factor      eligibility of 10 ms stretches and a fixed signal, event by event (`taught`)
    procedural        synapses computed at each spike, kept nowhere

Printed for each: seconds to build; bytes a synapse that `nbytes` states of network, weights and
state; of which the peak of the process while it builds, compiles and runs for the first time, and
while it runs then, what was freed by then given back: both less what a network of 20,000 synapses
takes; wall and processor seconds a biological second, the mean rate, and nanoseconds for each
spike and synapse.

With `--turns` a network that learns by STDP and one that does not are run by turns in one process,
driven to 15 spikes a second, and the ratio of their times is printed, median and quartiles.
"""

import argparse
import ctypes
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sparse_network import DELAY, DT, G_INH, NEURON, TAU_MINUS, TAU_PLUS, TAU_SYN, W_EXC

KINDS = ("plain", "stdp", "stdp-bf16", "stdp-int8", "three-factor", "procedural")
DRIVEN = 34.5  # mV at rest, which makes the network of 10^7 fire at 15 Hz
STRETCH = 100  # steps of a presentation, three-factor
STEPS = {10**6: 10_000, 10**7: 4_000, 10**8: 1_000, 10**9: 300}  # timed, at the nearest size


def sizes(synapses: int) -> tuple[int, int]:
    """Neurons, and synapses of each."""
    each = 100 if synapses <= 10**6 else 1000
    return synapses // each, each


def built(synapses: int, kind: str) -> tuple[Any, Any]:
    """A network and its weights."""
    import jax
    import jax.numpy as jnp

    import neurojax as nj

    n, each = sizes(synapses)
    n_exc, scale = n * 4 // 5, W_EXC * 100 / each
    short = kind.endswith(("bf16", "int8"))
    drawn = nj.procedural(jax.random.key(0), n, n, each / n)
    w = jnp.asarray(np.where(np.arange(n) < n_exc, scale, -G_INH * scale), float)
    w = w.astype(jnp.bfloat16) if short else w
    options: dict[str, Any] = {"delay": DELAY, "plastic": kind not in ("plain", "procedural")}
    if kind == "procedural":
        wiring = drawn
    else:
        wiring, w = drawn.stored(w)
    if kind.startswith("stdp"):
        wiring = wiring.with_columns()  # pyright: ignore[reportAttributeAccessIssue]
        step = 4e-4 * scale
        options["rule"] = nj.STDP(step, step, TAU_PLUS, TAU_MINUS)
    layer = nj.Layer(n, nj.LIF(**NEURON), nj.Exponential(TAU_SYN))
    most = 2 * G_INH * scale
    bounds = {"bounds": (-most, most), "keep_sign": True}
    make = nj.levels(most / 127, **bounds) if kind.endswith("int8") else nj.ideal(**bounds)
    if kind in ("plain", "procedural"):
        make = nj.ideal()
    weights = {"loop": make(w, wiring, None)}
    # The weights are handed over beside it: the network itself holds none.
    held = {"w": jnp.zeros(n)} if kind == "procedural" else {}
    link = nj.Projection("cells", "cells", wiring, **options, **held)
    return nj.Network({"cells": layer}, {"loop": link}), weights


def run(net: Any, weights: Any, state: Any, n_steps: int, kind: str) -> tuple[Any, Any, float]:
    """Weights and state after some steps, and spikes of a neuron in a step."""
    import jax

    import neurojax as nj

    key, some = jax.random.key(1), (lambda r: r["cells"].z.mean())
    options = {"n_steps": n_steps, "dt": DT, "probe": some, "key": key}
    if kind == "three-factor":
        rate = 0.0
        for _ in range(n_steps // STRETCH):
            weights, state, z = _presented()(net, weights, state)
            rate += float(z) / (n_steps // STRETCH)
        return weights, state, rate
    if kind.startswith("stdp"):
        weights, state, z = nj.simulate(net, weights, state, {}, learn=True, donate=True, **options)
    else:
        state, z = nj.simulate(net, weights, state, {}, learn=False, **options)
    return weights, state, float(z.mean())


_COMPILED: dict[str, Callable] = {}


def _presented() -> Callable:
    """One presentation, of which the weights learn at its end."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import neurojax as nj
    from neurojax.weights import changes

    if "presented" in _COMPILED:
        return _COMPILED["presented"]
    rule = nj.ThreeFactor(window=nj.post_spike)

    @eqx.filter_jit(donate="all-except-first")
    def learnt(fixed, changing, state):
        net, rest = fixed
        weights = {"loop": eqx.combine(changing, rest)}
        n = net.layers["cells"].n
        state, z = nj.simulate(
            net, weights, state, {}, n_steps=STRETCH, dt=DT, learn=False,
            probe=lambda r: r["cells"].z.astype(bool),
        )  # fmt: skip
        # What arrived: the spikes of DELAY steps before, of this stretch.
        pre = jnp.concatenate([jnp.zeros((DELAY, n), bool), z[:-DELAY]])
        signal = jnp.where(jnp.arange(n) % 2 == 0, 1e-4, -1e-4)
        q = jnp.broadcast_to(signal, z.shape)
        d = rule.factor(net.layers["cells"].neuron, nj.Post(z, z), q, dt=DT)
        changed = nj.taught(weights["loop"], d, pre)
        rate = jax.lax.map(lambda z: z.mean(dtype=float), z).mean()  # of all at once: z in floats
        return eqx.filter(changed, changes(changed)), state, rate

    def presented(net, weights, state):
        loop = weights["loop"]
        changing, rest = eqx.partition(loop, changes(loop))
        changing, state, rate = learnt((net, rest), changing, state)
        return {"loop": eqx.combine(changing, rest)}, state, jax.block_until_ready(rate)

    return _COMPILED.setdefault("presented", presented)


def memory() -> tuple[int, int]:
    """Bytes of this process, now and at its largest since the last call (Linux)."""
    status = Path("/proc/self/status").read_text()
    now, most = (
        int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024  # pyright: ignore[reportOptionalSubscript]
        for name in ("VmRSS", "VmHWM")
    )
    Path("/proc/self/clear_refs").write_text("5")
    return now, most


def given_back() -> None:
    """What was freed goes back to the system, where the C library can be asked to (glibc)."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


def measured(synapses: int, kind: str, n_steps: int) -> dict[str, Any]:
    """One row."""
    import jax

    import neurojax as nj

    begin = time.perf_counter()
    net, weights = jax.block_until_ready(built(synapses, kind))
    took = time.perf_counter() - begin
    learn = kind.startswith("stdp")
    v = np.random.default_rng(1).uniform(0, NEURON["v_th"], net.layers["cells"].n)
    state = net.init(learn=learn)
    cells = state.neurons["cells"]._replace(v=jax.numpy.asarray(v, float))
    state = state._replace(neurons={"cells": cells})
    weights, state, _ = run(net, weights, state, n_steps, kind)  # compiles, and warms up
    building = memory()[1]
    given_back()
    memory()
    wall, cpu = time.perf_counter(), time.process_time()
    weights, state, rate = jax.block_until_ready(run(net, weights, state, n_steps, kind))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    seconds = n_steps * DT / 1000
    edges = net.projections["loop"].n_synapses
    stated = nj.nbytes(net, weights, state)
    # Of a stretch q and D in four bytes, spikes and arrivals in one.
    stated += (4 + 4 + 1 + 1) * STRETCH * len(v) if kind == "three-factor" else 0
    return {
        "synapses": edges, "neurons": len(v), "kind": kind, "build_s": took, "stated": stated,
        "building": building, "running": memory()[1], "wall_s": wall / seconds,
        "cpu_s": cpu / seconds, "rate_hz": rate * 1000 / DT,
        "ns_an_event": 1e9 * wall / max(rate * n_steps * edges, 1),
    }  # fmt: skip


def one(synapses: int, kind: str, n_steps: int | None = None) -> dict[str, Any]:
    """A row in this process, less what the smallest network takes."""
    steps = n_steps or STEPS[min(STEPS, key=lambda n: abs(np.log(n / synapses)))]
    measured(20_000, kind, steps)
    memory()
    before = memory()[0]
    row = measured(synapses, kind, steps)
    return row | {name: row[name] - before for name in ("building", "running")}


def plasticity(synapses: int, turns: int, n_steps: int = 2000) -> dict[str, Any]:
    """Processor seconds a biological second with STDP and without, by turns, and their ratio."""
    import equinox as eqx
    import jax

    ready, took, rates = {}, {"plain": [], "stdp": []}, {}
    for kind in took:
        net, weights = built(synapses, kind)
        driven = lambda net: net.layers["cells"].neuron.v_rest  # noqa: E731
        net = eqx.tree_at(driven, net, jax.numpy.asarray(DRIVEN))
        ready[kind] = net, *run(net, weights, net.init(learn=kind == "stdp"), n_steps, kind)[:2]
    for _ in range(turns):
        for kind, (net, weights, state) in ready.items():
            begin = time.process_time()
            after = jax.block_until_ready(run(net, weights, state, n_steps, kind))
            took[kind].append((time.process_time() - begin) / (n_steps * DT / 1000))
            ready[kind], rates[kind] = (net, *after[:2]), after[2] * 1000 / DT
    ratios = np.divide(took["stdp"], took["plain"])
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {
        "synapses": synapses, **{k: float(np.median(x)) for k, x in took.items()},
        "rates_hz": rates, "ratio": middle, "quartiles": [low, high], "turns": turns,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    each = lambda name: row[name] / row["synapses"]  # noqa: E731
    return (
        f"| {row['synapses']:.0e} | {row['neurons']:,} | {row['kind']} | {row['build_s']:.2f}"
        f" | {each('stated'):.2f} | {each('building'):.2f} | {each('running'):.2f}"
        f" | {row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['rate_hz']:.1f}"
        f" | {row['ns_an_event']:.2f} |"
    )


HEAD = (
    "| synapses | neurons | kind | build, s | stated, B | building, B | running, B | wall s"
    " | processor s | Hz | ns an event |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure every size in every kind and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--synapses", default="1e6,1e7,1e8")
    options.add_argument("--procedural", default="1e9", help="sizes of synapses computed anew")
    options.add_argument("--kinds", default=",".join(KINDS))
    options.add_argument("--steps", type=int, default=None, help="steps that are timed")
    options.add_argument("--json", type=Path)
    options.add_argument("--turns", type=int, help="with STDP and without by turns, so often")
    options.add_argument("--one", help=argparse.SUPPRESS)
    c = options.parse_args()
    numbers = lambda text: [round(float(x)) for x in text.split(",") if x]  # noqa: E731
    if c.one:
        size, kind = c.one.split(":")
        print(json.dumps(one(round(float(size)), kind, c.steps)))
        return
    if c.turns:
        for n in numbers(c.synapses):
            print(json.dumps(plasticity(n, c.turns)))
        return
    kinds = c.kinds.split(",")
    if unknown := {*kinds} - {*KINDS}:
        options.error(f"--kinds must be of {', '.join(KINDS)}; got {', '.join(sorted(unknown))}")
    work = [(n, kind) for n in numbers(c.synapses) for kind in kinds]
    work += [(n, "procedural") for n in numbers(c.procedural) if "procedural" in kinds]
    rows = []
    print(HEAD)
    for size, kind in work:
        words = [sys.executable, "-m", "benchmarks.scale", "--one", f"{size}:{kind}"]
        words += ["--steps", str(c.steps)] if c.steps else []
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{size:.0e} {kind}: {done.stderr.strip().splitlines()[-1]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(rows[-1]), flush=True)
    if c.json:
        c.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
