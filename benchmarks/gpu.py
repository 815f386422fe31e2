"""Our workloads on a GPU, beside what it can do at most: one script, most valuable parts first.

    python -m benchmarks.gpu --budget 540 --json benchmarks/results-gpu.json

Each part runs in a process of its own, and each case of it alone: what fails is a line. A row is
written as soon as it is there, so that an interruption leaves what was measured. Compiling is
timed apart; seconds are medians of several calls, each waited for. Ceilings are measured first, on
random numbers, and every share is of those. `--tiny` runs all of it with small sizes, on a CPU too.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from neurojax._files import write_whole

ROOT = Path(__file__).resolve().parents[1]
FLAGS = {  # without which compiling takes minutes on a GPU; what is set already stays
    "XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false",
    "EQX_ON_ERROR": "nan",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
UNROLLS, PRECISIONS = (1, 2, 4, 8, 16), ("highest", "tensorfloat32", "bfloat16")
LANES, FAN_IN = (1, 6, 18), 100
Case = tuple[str, Callable[[], dict[str, Any]]]


def timed(run: Callable, *args, calls: int = 7, told: Callable | None = None) -> dict[str, float]:
    """Milliseconds to compile, and of a call; and what is `told` of a result."""
    import jax

    begin = time.perf_counter()
    made = jax.jit(run).lower(*args).compile()
    took = time.perf_counter() - begin
    known = told(made(*args)) if told else jax.block_until_ready(made(*args))
    seen = []
    for _ in range(calls):
        begin = time.perf_counter()
        jax.block_until_ready(made(*args))
        seen.append(time.perf_counter() - begin)
    took = {"ms": 1e3 * median(seen), "min_ms": 1e3 * min(seen), "compile_ms": 1e3 * took}
    return took | (known if told else {})


@contextmanager
def unrolled(n: int) -> Iterator[None]:
    """Every scan goes `n` steps a turn."""
    import jax

    real = jax.lax.scan
    jax.lax.scan = lambda f, init, xs=None, length=None, **more: real(
        f, init, xs, length, **(more | {"unroll": n})
    )
    try:
        yield
    finally:
        jax.lax.scan = real


# --- what the device can do ---


def ceilings(tiny: bool) -> Iterator[Case]:
    """Arithmetic by precision, memory, random reads and additions, and a turn of a loop."""
    import jax
    import jax.numpy as jnp

    n, size = (256, 2**16) if tiny else (8192, 2**28)
    a = jax.random.normal(jax.random.key(0), (n, n))

    def product(a, precision):
        with jax.default_matmul_precision(precision):
            return a @ a

    def arithmetic(precision, dtype):
        took = timed(partial(product, precision=precision), a.astype(dtype))
        return took | {"flops": 2 * n**3 / took["min_ms"] * 1e3}

    for name, precision, dtype in (
        ("float32", "highest", "float32"), ("tf32", "tensorfloat32", "float32"),
        ("bf16", "bfloat16", "bfloat16"),
    ):  # fmt: skip
        yield name, partial(arithmetic, precision, dtype)

    def memory():
        x = jax.random.normal(jax.random.key(1), (size,))
        took = timed(lambda x: jax.lax.fori_loop(0, 8, lambda _, x: x + 1, x), x)
        return took | {"bytes": 64 * size / took["min_ms"] * 1e3}

    def random_reads():
        at = jax.random.randint(jax.random.key(2), (size // 4,), 0, 2**16)
        took = timed(lambda at, s: s[at].reshape(-1, 64).sum(1), at, jnp.ones(2**16))
        return took | {"per_second": size / 4 / took["min_ms"] * 1e3}

    def additions():
        at = jax.random.randint(jax.random.key(2), (size // 16,), 0, 2**16)
        took = timed(lambda at, x: jnp.zeros(2**16).at[at].add(x), at, jnp.ones(size // 16))
        return took | {"per_second": size / 16 / took["min_ms"] * 1e3}

    def turns():
        step = lambda c, _: (jnp.sin(c), None)  # noqa: E731
        took = timed(lambda x: jax.lax.scan(step, x, length=1000)[0], jnp.ones(1000))
        return took | {"us_a_turn": took["min_ms"]}

    yield "memory", memory
    yield "random reads", random_reads
    yield "atomic additions", additions
    yield "loop", turns


# --- does it say the same as a CPU ---


def _both(run: Callable, *args, precision: str = "highest") -> list[list]:
    """Results on the CPU of this process and on the device."""
    import jax
    import numpy as np

    found = []
    for where in (jax.devices("cpu")[0], jax.devices()[0]):
        with jax.default_matmul_precision(precision):
            given = jax.device_put(args, where)
            found.append([np.asarray(x, float) for x in jax.tree.leaves(jax.jit(run)(*given))])
    return found


def _close(run: Callable, *args, bound: float, precision: str = "highest") -> dict[str, Any]:
    """How far apart both are, as a part of their norm."""
    import numpy as np

    far = max(
        float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30))
        for a, b in zip(*_both(run, *args, precision=precision), strict=True)
    )
    return {"off": far, "bound": bound, "agrees": bool(far <= bound)}


def agreement(tiny: bool) -> Iterator[Case]:
    """The same small cases here and on the CPU of this process, within stated bounds."""
    yield from _lists_agree(200 if tiny else 5000)
    if not tiny:
        yield from _nets_agree()


def _lists_agree(n: int) -> Iterator[Case]:
    """Products of lists with spikes, and their changes."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import neurojax as nj

    key = jax.random.key(0)
    wiring, values = nj.by_sender(
        *(np.random.default_rng(i).integers(0, n, 20 * n) for i in (0, 1)), n, n,
        jax.random.normal(key, (20 * n,)),
    )  # fmt: skip
    wiring = wiring.with_columns()
    s = (jax.random.uniform(key, (4, n)) < 0.05).astype(float)
    e = jax.random.normal(key, (4, n))
    late, ring = jnp.asarray(np.arange(20 * n) % 9 + 1), jnp.zeros((9, n))
    fan = nj.fan_in(key, n, n, 20 / n)
    fan_w = jax.random.normal(key, fan.shape)

    def visited(w, s, e):
        return wiring.visited(
            w, (nj.wiring.Visit(s[0], e[0]), nj.wiring.Visit(s[1], e[1])), None, None
        )

    many = lambda w, s: jax.vmap(wiring.apply, (None, 0))(w, s)  # noqa: E731
    later = lambda w, s, ring: wiring.scheduled(w, s, late, ring, jnp.asarray(3))  # noqa: E731
    cases = {
        "scattered": (lambda w, s: wiring.apply(w, s), values, s[0]),
        "scattered, batch": (many, values, s),
        "gathered": (lambda e, s: wiring.outer(e, s), e, s),
        "visited": (visited, values, s, e),
        "scheduled": (later, values, s[0], ring),
        "fan-in": (lambda w, s: fan.apply(w, s), fan_w, s[0]),
    }
    for name, case in cases.items():
        yield name, partial(_close, *case, bound=1e-6)
    yield "triton", partial(_kernel_agrees, n)


def _kernel_agrees(n: int) -> dict[str, Any]:
    """The kernel by sender, which no product uses yet, and the CPU's product by receiver."""
    import jax
    import numpy as np

    from neurojax.wiring._events_triton import summed

    fan, rows, order = _lists(n, 20)
    w = jax.random.normal(jax.random.key(1), fan.shape)
    s = (jax.random.uniform(jax.random.key(2), (n,)) < 0.05).astype(float)
    expected = np.asarray(jax.jit(lambda fan, *x: fan.apply(*x))(
        *jax.device_put((fan, w, s), jax.devices("cpu")[0])
    ))  # fmt: skip
    kernel = jax.jit(summed(n, interpret=jax.default_backend() == "cpu"))
    found = np.asarray(kernel(rows.index, rows.start, w.reshape(-1)[order], s)[0])
    off = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return {"off": off, "bound": 1e-6, "agrees": off <= 1e-6}


def _nets_agree() -> Iterator[Case]:
    """Spikes of W1 and changes of W7, by precision of their products."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import workloads as w
    from benchmarks.systems import neurojax as ours
    from neurojax.learning import wta_broadcast as wb

    def spikes(precision, bound):
        net = ours.feedforward()
        run = partial(ours.spiking, net, layer="out")
        args = net.init_weights(jax.random.key(0)), jnp.asarray(w.spikes(20, 8))
        a, b = _both(run, *args, precision=precision)
        off = float(np.mean(a[0] != b[0]))
        return {"off": off, "bound": bound, "agrees": off <= bound, "rate": float(a[0].mean())}

    # Part of the neurons and steps; products rounded to 11 bits move spikes near threshold.
    yield "W1 spikes, highest", partial(spikes, "highest", 2e-3)
    yield "W1 spikes, tensorfloat32", partial(spikes, "tensorfloat32", 1e-2)

    def changes(precision, bound):
        system = ours.local_system()
        weights, tone = system.network.init_weights(jax.random.key(0)), system.rest()
        x = jnp.asarray(w.spikes(w.T_LOCAL, 8).swapaxes(0, 1).copy())
        run = lambda weights, x, y: wb.deltas(system, weights, tone, x, y)[0]  # noqa: E731
        y = jnp.asarray(w.classes(8))
        return _close(run, weights, x, y, bound=bound, precision=precision)

    # A spike that falls on the other side of the threshold moves a change by some 1e-2 of it.
    yield "W7 changes, highest", partial(changes, "highest", 2e-2)
    yield "W7 changes, tensorfloat32", partial(changes, "tensorfloat32", 1e-1)


# --- the workloads ---


def _spiking(name: str, make=None):
    """A forward pass of W1 or W3, as a function and its arguments."""
    import jax
    import jax.numpy as jnp

    import neurojax as nj
    from benchmarks import workloads as w
    from benchmarks.systems import neurojax as ours

    if name == "W1":
        net, layer = ours.feedforward(), "out"
    else:
        cells = nj.Layer(w.N_RECURRENT, ours.lif())
        net = nj.Network(
            {"cells": cells},
            {
                "in": ours.linked("input", "cells", w.N_IN, w.N_RECURRENT, w.W_IN),
                "loop": ours.linked(
                    "cells", "cells", w.N_RECURRENT, w.N_RECURRENT, w.W_REC, delay=1
                ),
            },
        )
        layer = "cells"
    weights = net.init_weights(jax.random.key(0), make or nj.ideal())
    run = lambda weights, x: ours.spiking(net, weights, x, layer, bool)  # noqa: E731
    return run, (weights, jnp.asarray(w.spikes()))


def _program(name: str, make=None):
    """Any of W1, W2, W3 and W7, as a function and its arguments."""
    import jax
    import jax.numpy as jnp

    import neurojax as nj
    from benchmarks import workloads as w
    from benchmarks.systems import neurojax as ours
    from neurojax.learning import wta_broadcast as wb

    if name in ("W1", "W3"):
        return _spiking(name, make)
    if name == "W2":
        net, x = ours.feedforward(nj.surrogate.fast_sigmoid(w.SLOPE)), jnp.asarray(w.spikes())
        return ours.descent(net, x, jnp.asarray(w.classes())), (
            net.init_weights(jax.random.key(0)),
        )
    system = ours.local_system()
    weights, tone = system.network.init_weights(jax.random.key(1)), system.rest()
    x = jnp.asarray(w.spikes(w.T_LOCAL, w.BATCH_LOCAL).swapaxes(0, 1).copy())
    run = lambda weights, x, y: wb.deltas(system, weights, tone, x, y)  # noqa: E731
    return run, (weights, x, jnp.asarray(w.classes(w.BATCH_LOCAL)))


def _at(name: str, precision: str | None = None, unroll: int | None = None, make=None):
    """The workload timed at one setting."""
    import jax

    run, args = _program(name, make)
    with jax.default_matmul_precision(precision or "highest"):
        if unroll is None:
            return timed(run, *args)
        with unrolled(unroll):
            return timed(run, *args)


def workloads(tiny: bool) -> Iterator[Case]:
    """W1, W2, W3 and W7 at float32, as they are."""
    for name in ("W1",) if tiny else ("W1", "W3", "W7", "W2"):
        yield name, partial(_at, name)


def precision(tiny: bool) -> Iterator[Case]:
    """The same by precision of their products."""
    import neurojax as nj

    for name in () if tiny else ("W1", "W3", "W7", "W2"):
        for p in PRECISIONS[1:]:
            yield f"{name} {p}", partial(_at, name, p)
        for parts in (2, 3) if name in ("W1", "W3") else ():
            make = nj.split_bf16(parts)
            yield f"{name} split bf16, {parts}", partial(_at, name, make=make)


def unroll(tiny: bool) -> Iterator[Case]:
    """The same by steps a turn of the loop."""
    for name in () if tiny else ("W3", "W1", "W7", "W2"):
        for n in UNROLLS:
            yield f"{name} unroll {n}", partial(_at, name, unroll=n)


def layout(tiny: bool) -> Iterator[Case]:
    """A bare recurrent LIF, its state as [B, N] and as [N, B]."""
    import jax
    import jax.numpy as jnp

    n, batch, steps = (64, 4, 10) if tiny else (1024, 32, 100)

    def bare(first: bool):
        product = (lambda w, z: z @ w.T) if first else (lambda w, z: w @ z)
        shape = (batch, n) if first else (n, batch)

        def run(w, drive):
            def step(carry, x):
                v, z = carry
                v = 0.9 * v * (1 - z) + product(w, z) + x
                z = (v >= 1).astype(v.dtype)
                return (v, z), z

            return jax.lax.scan(step, (jnp.zeros(shape),) * 2, drive)[1]

        w = jax.random.normal(jax.random.key(0), (n, n)) / n**0.5
        drive = jax.random.uniform(jax.random.key(1), (steps, *shape))
        with jax.default_matmul_precision("highest"):
            return timed(run, w, drive)

    for first, name in ((True, "[B, N]"), (False, "[N, B]")):
        yield f"state as {name}", partial(bare, first)


# --- events ---


def _lists(n: int, k: int):
    """A list by receiver, and the same by sender, sorted on the device; weights [n, k]."""
    import jax
    import jax.numpy as jnp

    import neurojax as nj

    fan = nj.fan_in(jax.random.key(0), n, n, k / n)

    @jax.jit
    def by_sender(index):
        pre = index.reshape(-1)
        order = jnp.argsort(pre, stable=True)
        start = jnp.searchsorted(pre[order], jnp.arange(n + 1)).astype(jnp.int32)
        return (order // k).astype(jnp.int32), start, order, jnp.diff(start).max()

    post, start, order, longest = by_sender(fan.index)
    return fan, nj.FanOut(post, start, n, int(longest)), order


def events(tiny: bool) -> Iterator[Case]:
    """The product of lists with spikes: chunks, the Triton kernel, by receiver, by a matrix."""
    import jax
    import jax.numpy as jnp

    from neurojax.wiring import events
    from neurojax.wiring._events_gpu import chunks
    from neurojax.wiring._events_triton import summed

    kept: dict[int, Any] = {}

    def forms(n, k):
        if n not in kept:
            kept.clear()
            fan, rows, order = _lists(n, k)
            w = jax.random.normal(jax.random.key(1), fan.shape)
            kept[n] = fan, rows, w, w.reshape(-1)[order]
        fan, rows, w, listed = kept[n]
        many = events._scattered([(rows.rows.longest, n)], chunks)
        alone = summed(n, interpret=jax.default_backend() == "cpu")
        lists = rows.index, rows.start
        return {  # all arrays are arguments: a program would hold its own copy of a constant
            "chunks": (lambda x, s: many([x], s)[0], (*lists, listed)),
            "triton": (lambda x, s: alone(*x, s)[0], (*lists, listed)),
            "by receiver": (lambda x, s: x[0].apply(x[1], s), (fan, w)),
            "matrix": (lambda x, s: x @ s, fan.matrix(w) if n <= 20_000 else None),
        }

    def product(n, k, part, form):
        run, w = forms(n, k)[form]
        steps = 3 if tiny else 50
        if w is None:
            return {"ms": None, "why": "too large"}
        s = (jax.random.uniform(jax.random.key(2), (n,)) < part).astype(float)

        def over(w, s):
            step = lambda total, t: (total + run(w, jnp.roll(s, t)), None)  # noqa: E731
            return jax.lax.scan(step, jnp.zeros(n), jnp.arange(steps))[0]

        took = timed(over, w, s, calls=3)
        us, synapses = 1e3 * took["ms"] / steps, n * k
        return took | {
            "us_a_product": us, "synapses": synapses, "fires": part, "form": form,
            "events_a_second": synapses * part / us * 1e6,
        }  # fmt: skip

    k = 10 if tiny else FAN_IN
    for n in (100,) if tiny else (10_000, 100_000, 1_000_000):
        for part in (0.05,) if tiny else (0.0015, 0.02, 0.2):
            for form in ("chunks", "triton", "by receiver", "matrix"):
                name = f"{n * k:.0e} synapses, {part:g} fire, {form}"
                yield name, partial(product, n, k, part, form)


def networks(tiny: bool) -> Iterator[Case]:
    """W4 and W10, milliseconds a biological second; W4 too by receiver, up to 10^8 synapses."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import neurojax as nj
    from benchmarks import sparse_network as net

    seconds = 0.005 if tiny else 0.2

    def as_cpu(kind):
        n = 200 if tiny else 20_000
        runs = net.neurojax(n, seconds, 0, min(n, 1000), range(3), True, kind)
        took = [(s, z) for s, z in runs]
        rate = float(took[-1][1].mean() * 1e3 / net.DT)
        return {"ms": 1e3 * median(s for s, _ in took) / seconds, "hz": rate}

    def large(n, form):
        fan, rows, order = _lists(n, 20 if tiny else FAN_IN)
        excites = lambda pre: jnp.where(pre < n * 4 // 5, net.W_EXC, -net.G_INH * net.W_EXC)  # noqa: E731
        w, wiring = excites(fan.index).astype(float), fan
        if form == "events":
            w, wiring = w.reshape(-1)[order], rows
        loop = nj.Projection("cells", "cells", wiring, w=w, delay=net.DELAY)
        cells = nj.Layer(n, nj.LIF(**net.NEURON), nj.Exponential(net.TAU_SYN))
        made = nj.Network({"cells": cells}, {"loop": loop})
        weights, steps = made.init_weights(jax.random.key(0)), round(seconds * 250 / net.DT)
        v = jax.random.uniform(jax.random.key(3), (n,)) * net.NEURON["v_th"]
        state = made.init()
        state.neurons["cells"] = state.neurons["cells"]._replace(v=v)
        probe = lambda records: records["cells"].z.mean()  # noqa: E731
        arrays, rest = eqx.partition(made, eqx.is_array)
        run = lambda arrays, weights, state: nj.simulate(  # noqa: E731
            eqx.combine(arrays, rest), weights, state, {}, n_steps=steps, dt=net.DT, probe=probe
        )[1]
        hz = lambda z: {"hz": float(z.mean() * 1e3 / net.DT)}  # noqa: E731
        took = timed(run, arrays, weights, state, calls=3, told=hz)
        bio = steps * net.DT / 1e3
        scaled = {"ms": took["ms"] / bio, "min_ms": took["min_ms"] / bio}
        return took | scaled | {"synapses": n * fan.shape[1]}

    yield "W4", partial(as_cpu, "W4")
    yield "W10", partial(as_cpu, "W10")
    for n in (100,) if tiny else (10_000, 100_000, 1_000_000):
        for form in ("events", "by receiver"):
            yield f"W4 with {n} neurons, {form}", partial(large, n, form)


# --- trainings ---


def trainings(tiny: bool) -> Iterator[Case]:
    """A step of the yardstick's nets, 784-256-256-10, batch 100, by trainings side by side."""
    import jax
    import optax

    import neurojax as nj

    sizes, batch, steps = ((20, 8, 4), 5, 3) if tiny else ((784, 256, 256, 10), 100, 50)

    def learner(name, key):
        tx = optax.sgd(0.05)
        if name != "wta_broadcast":
            rule = {"dfa": nj.learning.DFA, "backprop": nj.learning.Backprop}[name]()
            return nj.learning.Perceptron(sizes, rule, tx)
        wired, sent = jax.random.split(key)
        hidden = [nj.Layer(m, nj.LIF(), rule=nj.ThreeFactor()) for m in sizes[1:-1]]
        net = nj.structured(
            wired, sizes[0], hidden, sizes[-1], population=1, recurrence=nj.Recurrence("none")
        )
        return nj.learning.WTABroadcast(nj.wta_broadcast.system(sent, net), tx)

    def step(name, lanes):
        keys = jax.random.split(jax.random.key(0), lanes)
        x = jax.random.uniform(jax.random.key(1), (steps, batch, sizes[0]))
        y = jax.random.randint(jax.random.key(2), (steps, batch), 0, sizes[-1])

        def one(key, x, y):
            taught = learner(name, jax.random.key(7))

            def learn(state, now):
                return taught.step(state, now[0], now[1], key=key)[0], None

            return jax.lax.scan(learn, taught.init(key), (x, y))[0].weights

        took = timed(jax.vmap(one, (0, None, None)), keys, x, y, calls=3)
        return took | {"ms_a_step": took["ms"] / steps, "lanes": lanes}

    for name in ("dfa", "backprop", "wta_broadcast"):
        for lanes in (2,) if tiny else LANES:
            yield f"{name}, {lanes} lanes", partial(step, name, lanes)


def epoch(tiny: bool) -> Iterator[Case]:
    """W8, an epoch of the main network; needs $NEUROJAX_DATA."""
    from benchmarks.systems import neurojax as ours

    def run():
        case = ours.w8()
        case.run()
        return {"ms": 1e3 * median(case.run() for _ in range(3)), **case.facts()}

    if not tiny:
        yield "W8", run


PARTS = {  # most valuable first, and the most seconds that each may take
    "ceilings": (ceilings, 60), "agreement": (agreement, 90), "workloads": (workloads, 80),
    "networks": (networks, 120), "events": (events, 120), "trainings": (trainings, 90),
    "precision": (precision, 80), "layout": (layout, 20), "epoch": (epoch, 60),
    "unroll": (unroll, 120),
}  # fmt: skip


def rows(part: str, tiny: bool, until: float) -> Iterator[dict[str, Any]]:
    """Each case of a part: what was measured, or why it was not."""
    for name, case in PARTS[part][0](tiny):
        if time.time() > until:
            yield {"part": part, "case": name, "failed": "no time left"}
            continue
        try:
            yield {"part": part, "case": name, **case()}
        except Exception as error:  # noqa: BLE001 - whatever it is, the other cases go on
            said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            yield {"part": part, "case": name, "failed": said[:300]}


def with_shares(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Beside what was measured of W1 to W8, its share of the measured ceilings."""
    from benchmarks.ceilings import work

    most = {r["case"]: r for r in found if r["part"] == "ceilings" and "failed" not in r}
    hz = next((r["hz"] for r in found if r["case"] == "W4" and "hz" in r), 0.0)
    asked = work(hz * 1e-4)
    kinds = {"tensorfloat32": "tf32", "bfloat16": "bf16", "split": "bf16"}
    for r in found:
        name, _, how = r["case"].partition(" ")
        if name not in asked or "ms" not in r or how.startswith("with"):
            continue
        kind = next((k for word, k in kinds.items() if how.startswith(word)), "float32")
        for of, per, own in (
            ("flops", kind, asked[name].flop),
            ("bytes", "memory", asked[name].bytes),
        ):
            if per in most:
                r[f"of_{of}"] = own / r["ms"] * 1e3 / most[per][of]
    return found


def choices(found: list[dict[str, Any]]) -> dict[str, str]:
    """The fastest unroll, layout, precision and form of lists, of each workload or size."""
    best: dict[str, tuple[float, str]] = {}
    for r in found:
        if r["part"] not in ("unroll", "layout", "precision", "events") or not r.get("ms"):
            continue
        about, _, way = r["case"].rpartition(", ") if r["part"] == "events" else (
            r["case"].partition(" ")[0], "", r["case"].partition(" ")[2]
        )  # fmt: skip
        at = f"{r['part']}: {about}"
        best[at] = min(best.get(at, (r["ms"], way)), (r["ms"], way))
    return {at: way for at, (_, way) in best.items()}


def line(r: dict[str, Any]) -> str:
    """One row of the table."""
    if "failed" in r:
        return f"{r['part']:>10}  {r['case']:<44} {r['failed']}"
    told = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items())
    return f"{r['part']:>10}  {r['case']:<44} {'  '.join(list(told)[2:])}"


def measured(parts: list[str], c: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of each part from a process of its own, as they come, until the time is up."""
    end = time.time() + c.budget
    env = FLAGS | dict(os.environ) | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    for part in parts:
        until = min(end, time.time() + PARTS[part][1])
        if until - time.time() < 5:
            yield {"part": part, "case": "all", "failed": "no time left"}
            continue
        words = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--until", str(until)]
        words += ["--tiny"] * c.tiny
        words = ["timeout", "-k", "1", str(max(1, until + 20 - time.time())), *words]
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT) as held:
            for said in held.stdout or ():
                if said.startswith("{"):
                    yield json.loads(said)
        if held.returncode:
            yield {"part": part, "case": "all", "failed": f"ended with code {held.returncode}"}


def report(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written."""
    device = next((r for r in found if r["part"] == "device"), {})
    rest = [r for r in found if r["part"] != "device"]
    return {"device": device, "choices": choices(rest), "rows": with_shares(rest)}


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--budget", type=float, default=540.0, help="seconds for all")
    options.add_argument("--json", type=Path, default=Path("benchmarks/results-gpu.json"))
    options.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    options.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    options.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options.add_argument("--until", type=float, help=argparse.SUPPRESS)
    c = options.parse_args(argv)
    parts = [name.strip() for name in c.only.split(",")]
    if unknown := [name for name in parts if name not in PARTS]:
        options.error(f"--only must name some of {', '.join(PARTS)}; got {unknown[0]!r}")
    if c.part:
        import jax

        device = {"part": "device", "case": jax.devices()[0].device_kind, "jax": jax.__version__}
        print(json.dumps(device), flush=True)
        for row in rows(c.part, c.tiny, c.until or float("inf")):
            print(json.dumps(row), flush=True)
        return
    c.json.parent.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for row in measured(parts, c):
        found.append(row)
        write_whole(c.json, json.dumps(report(found), indent=1) + "\n")
        if row["part"] != "device":
            print(line(row), flush=True)
    for at, way in report(found)["choices"].items():
        print(f"fastest  {at}: {way}")


if __name__ == "__main__":
    main()
