"""W4, a network of sparse synapses: 20,000 LIF neurons with 2 million, here and in Brian2.

Four fifths of the neurons excite and a fifth inhibits; each hears 100, drawn at random, 1.5 ms
late. A constant current would make all of them fire; inhibition makes them fire seldom and
irregularly. Graph and initial potentials are drawn by NumPy from a seed, alike for both; steps
of 0.1 ms, exact integration. neurojax calculates in float32 and Brian2, in C++ compiled as a
whole, in float64. Only steps are timed: neither compiling nor building.

W10 is the same with every synapse plastic by pair STDP, within bounds that keep its sign; W13 has
a delay of its own for each synapse, uniform in .1 to 5 ms.
"""

import time
from collections.abc import Iterable

import numpy as np

FAN_IN, DT, DELAY = 100, 0.1, 15  # DT in ms, DELAY in steps
NEURON = {"tau_mem": 20.0, "v_th": 20.0, "v_reset": 10.0, "t_ref": 2.0, "v_rest": 30.0}
TAU_SYN, W_EXC, G_INH = 5.0, 2.5, 8.0
STEP, TAU_PLUS, TAU_MINUS = 1e-3, 16.8, 33.7  # of STDP: nA a pair, ms
LONGEST = 50  # steps


def network(n: int, seed: int, start: int = 0):
    """Sender and receiver of each synapse, its weight (nA), and initial potentials (mV).

    Another `start` is the same graph from other potentials.
    """
    rng, n_exc = np.random.default_rng(seed), n * 4 // 5
    n_inh_heard = FAN_IN // 5
    exc = rng.integers(0, n_exc, (n, FAN_IN - n_inh_heard))
    inh = rng.integers(n_exc, n, (n, n_inh_heard))
    pre = np.concatenate([exc, inh], axis=1).ravel()
    post = np.repeat(np.arange(n), FAN_IN)
    v = np.random.default_rng((seed, start)).uniform(0, NEURON["v_th"], n)
    return pre, post, np.where(pre < n_exc, W_EXC, -G_INH * W_EXC), v


def statistics(z: np.ndarray) -> dict[str, float]:
    """Mean rate (Hz), CV of intervals, mean correlation of counts in 5 ms, from z [T, n]."""
    z = z[round(200 / DT) :]
    intervals = [np.diff(np.flatnonzero(x)) for x in z.T]
    cv = [x.std() / x.mean() for x in intervals if x.size >= 3]
    width = round(5 / DT)
    counts = z[: z.shape[0] // width * width].reshape(-1, width, z.shape[1]).sum(1)
    active = counts[:, counts.std(0) > 0]
    correlation = np.corrcoef(active.T.astype(float))
    return {
        "rate": float(z.mean() * 1000 / DT),
        "cv": float(np.mean(cv)),
        "correlation": float(correlation[np.triu_indices_from(correlation, 1)].mean()),
    }


def per_step(z: np.ndarray) -> float:
    """Mean spikes of a neuron in a step, from z [T, n] after the first 200 ms."""
    return float(z[round(200 / DT) :].mean())


def delays(seed: int, edges: int) -> np.ndarray:
    """Steps of each synapse in W13."""
    return np.random.default_rng((seed, 13)).integers(1, LONGEST + 1, edges)


def neurojax(
    n: int, seconds: float, seed: int, watched: int, starts: Iterable[int], native: bool,
    kind: str = "W4",
):  # fmt: skip
    """Seconds of a run from each start, and the spikes of the first `watched` neurons."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import neurojax as nj

    pre, post, w, _ = network(n, seed)
    late = delays(seed, len(pre))
    wiring, (w, late) = nj.by_sender(
        pre, post, n, n, (jnp.asarray(w, float), jnp.asarray(late)), native=native
    )
    learn, options = kind == "W10", {"delay": DELAY}
    if learn:
        wiring = wiring.with_columns()
        options |= {"rule": nj.STDP(STEP, STEP, TAU_PLUS, TAU_MINUS)}
    if kind == "W13":
        options = {"delays": nj.Delays(late, LONGEST)}
    net = nj.Network(
        {"cells": nj.Layer(n, nj.LIF(**NEURON), nj.Exponential(TAU_SYN))},
        {"loop": nj.Projection("cells", "cells", wiring, w=w, **options)},
    )
    most = 2 * jnp.where(w > 0, W_EXC, G_INH * W_EXC)
    make = nj.ideal(bounds=(-most, most), keep_sign=True) if learn else nj.ideal()
    weights = net.init_weights(jax.random.key(0), make)
    steps = round(seconds * 1000 / DT)

    @eqx.filter_jit
    def run(net, weights, rest, v):
        state = eqx.tree_at(lambda s: s.neurons["cells"].v, rest, v)
        probe = lambda records: records["cells"].z[:watched].astype(bool)  # noqa: E731
        return nj.simulate(net, weights, state, {}, n_steps=steps, dt=DT, probe=probe, learn=learn)[
            ::-1
        ]

    rest = net.init(learn=learn)
    jax.block_until_ready(run(net, weights, rest, jnp.zeros(n)))
    for start in starts:
        v = jnp.asarray(network(n, seed, start)[-1], float)
        begin = time.perf_counter()
        z = jax.block_until_ready(run(net, weights, rest, v))[0]
        yield time.perf_counter() - begin, np.asarray(z)


_STDP = """w : 1
    least : 1 (constant)
    most : 1 (constant)
    dseen/dt = -seen / tau_plus : 1 (event-driven)
    dfired/dt = -fired / tau_minus : 1 (event-driven)"""
_ARRIVES = "x += w; seen += 1; w = clip(w - a * fired, least, most)"
_FIRES = "fired += 1; w = clip(w + a * seen, least, most)"


def brian2(n: int, seconds: float, seed: int, watched: int, start: int = 0, kind: str = "W4"):
    """The same in Brian2's standalone mode, whose program notes the seconds of each run."""
    import brian2 as b2

    b2.set_device("cpp_standalone", build_on_run=False)
    b2.defaultclock.dt = DT * b2.ms
    pre, post, w, v = network(n, seed, start)
    space = {"tau_syn": TAU_SYN * b2.ms, "mu": NEURON["v_rest"], "th": NEURON["v_th"]}
    space |= {"tau_mem": NEURON["tau_mem"] * b2.ms, "v_reset": NEURON["v_reset"]}
    cells = b2.NeuronGroup(
        n,
        """dv/dt = (mu - v + x) / tau_mem : 1 (unless refractory)
           dx/dt = -x / tau_syn : 1""",
        threshold="v >= th",
        reset="v = v_reset",
        refractory=(NEURON["t_ref"] + DT) * b2.ms,
        method="exact",
        namespace=space,
    )  # fmt: skip - Brian2 counts the step of the spike into the refractory time
    plastic = {} if kind != "W10" else {
        "on_post": _FIRES,
        "namespace": {
            "tau_plus": TAU_PLUS * b2.ms, "tau_minus": TAU_MINUS * b2.ms, "a": STEP
        },
    }  # fmt: skip
    model, arrives = (_STDP, _ARRIVES) if plastic else ("w : 1", "x += w")
    loop = b2.Synapses(cells, cells, model, on_pre=arrives, **plastic)
    loop.connect(i=pre, j=post)
    loop.pre.delay = (delays(seed, len(pre)) if kind == "W13" else DELAY) * DT * b2.ms
    loop.w, cells.v = w, v
    if plastic:
        loop.least, loop.most = np.minimum(2 * w, 0), np.maximum(2 * w, 0)
    monitor = b2.SpikeMonitor(cells[:watched])
    b2.run(seconds * b2.second)
    b2.device.build(directory=None, run=False)
    while True:
        b2.device.run()
        z = np.zeros((round(seconds * 1000 / DT), watched), bool)
        z[np.round(monitor.t / b2.ms / DT).astype(int), monitor.i] = True
        yield b2.device._last_run_time, z
