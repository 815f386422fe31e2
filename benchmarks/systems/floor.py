"""The floor: the bare matrix products of a workload, in XLA, and nothing else.

Of W4 it is the network written out in C, of W5 the same training with numbers for weights; W7
goes without the recurrence of the forward pass, W8 without the rings.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import device_perceptron, sparse_network
from benchmarks import workloads as w
from benchmarks.workloads import Case

PACKAGES = ("jax", "jaxlib")


def w1() -> Case:
    x = jnp.asarray(w.spikes()).reshape(-1, w.N_IN)
    first = jnp.asarray(w.weights(w.N_IN, w.N_HIDDEN, w.W_IN)).T
    second = jnp.asarray(w.weights(w.N_HIDDEN, w.N_OUT, w.W_OUT)).T
    run = jax.jit(lambda x, first, second: x @ first @ second)
    return Case(lambda: run(x, first, second).block_until_ready())


def w2() -> Case:
    x = jnp.asarray(w.spikes()).reshape(-1, w.N_IN)
    first = jnp.asarray(w.weights(w.N_IN, w.N_HIDDEN, w.W_IN))
    second = jnp.asarray(w.weights(w.N_HIDDEN, w.N_OUT, w.W_OUT))

    @jax.jit
    def run(x, first, second):
        hidden = x @ first.T
        out = hidden @ second.T
        return (out @ second).T @ x, out.T @ hidden

    return Case(lambda: jax.block_until_ready(run(x, first, second)))


def w3() -> Case:
    x = jnp.asarray(w.spikes()).reshape(-1, w.N_IN)
    first = jnp.asarray(w.weights(w.N_IN, w.N_RECURRENT, w.W_IN)).T
    loop = jnp.asarray(w.weights(w.N_RECURRENT, w.N_RECURRENT, w.W_REC)).T
    run = jax.jit(lambda x, first, loop: x @ first @ loop)
    return Case(
        lambda: run(x, first, loop).block_until_ready(), notes="recurrence as one product, not 100"
    )


def w4() -> Case:
    """The same network written out in C, for one core."""
    pre, post, weight, v = sparse_network.network(w.SPARSE[0], w.SPARSE[2])
    order = np.argsort(pre, kind="stable")
    first = np.searchsorted(pre[order], np.arange(w.SPARSE[0] + 1)).astype(np.int64)
    post, weight = post[order].astype(np.int32), weight[order].astype(np.float32)
    steps = round(w.SPARSE[1] * 1000 / sparse_network.DT)
    call, net = compiled(), sparse_constants(w.SPARSE[0])

    def run() -> int:
        n = w.SPARSE[0]
        state = v.astype(np.float32), np.zeros(n, np.float32)
        ring, silent = np.zeros((net.delay + 1) * n, np.float32), np.zeros(n, np.int32)
        return call(ctypes.byref(net), steps, first, post, weight, *state, ring, silent)

    return Case(run, lambda: {"rates": [run() / steps / w.SPARSE[0]]}, "C, one core", calls=1)


def w5() -> Case:
    return device_perceptron.case(device_perceptron.numbers(0.5), "numbers, not devices")


class SparseNet(ctypes.Structure):
    """Constants of `sparse_floor.c`."""

    _fields_ = [
        *((name, ctypes.c_float) for name in ("decay", "input", "v_rest", "v_th", "v_reset")),
        ("held", ctypes.c_float), ("decay_syn", ctypes.c_float), ("n", ctypes.c_int32),
        ("delay", ctypes.c_int32), ("refractory", ctypes.c_int32),
    ]  # fmt: skip


def sparse_constants(n: int) -> SparseNet:
    """Of the network, for its step."""
    p, dt = sparse_network.NEURON, sparse_network.DT
    decay, decay_syn = np.exp(-dt / p["tau_mem"]), np.exp(-dt / sparse_network.TAU_SYN)
    held = (decay_syn - decay) / (1 - decay) / (1 - p["tau_mem"] / sparse_network.TAU_SYN)
    return SparseNet(
        decay, 1 - decay, p["v_rest"], p["v_th"], p["v_reset"], held, decay_syn, n,
        sparse_network.DELAY, round(p["t_ref"] / dt),
    )  # fmt: skip


def compiled():
    """`sparse_floor.c` as a function."""
    source = Path(__file__).with_name("sparse_floor.c")
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "floor.so")
        # Not -ffast-math: it would make the whole process round subnormal numbers to zero.
        words = [os.environ.get("CC", "cc"), "-O3", "-fno-trapping-math", "-march=native"]
        words += ["-shared", "-fPIC"]
        subprocess.run([*words, str(source), "-o", library], check=True)
        run = ctypes.CDLL(library).run
    array = np.ctypeslib.ndpointer
    f, i = array(np.float32, flags="C"), array(np.int32, flags="C")
    run.argtypes = [
        ctypes.POINTER(SparseNet), ctypes.c_int32, array(np.int64, flags="C"), i, f, f, f, f, i,
    ]  # fmt: skip
    run.restype = ctypes.c_int64
    return run


def w7() -> Case:
    x = jnp.asarray(w.spikes(w.T_LOCAL, w.BATCH_LOCAL)).reshape(-1, w.N_IN)
    first = jnp.asarray(w.weights(w.N_IN, w.N_HIDDEN, w.W_IN))
    d = jnp.asarray(w.weights(w.N_HIDDEN, len(x), 1.0))

    @jax.jit
    def run(x, first, d):
        z = x @ first.T
        return d.T @ x, d.T @ z

    return Case(
        lambda: jax.block_until_ready(run(x, first, d)),
        notes="the input and both changes; nothing for the recurrence going forward",
    )


def w8() -> Case:
    rng, n, rows = np.random.default_rng(0), w.N_HIDDEN, 20 * 64
    x = jnp.asarray(rng.random((64, w.N_IN)), jnp.float32)
    first, forward = (jnp.asarray(w.weights(m, n, 1.0)) for m in (w.N_IN, n))
    out = jnp.asarray(w.weights(2 * n, w.N_OUT, 1.0))

    def batch(total, _):
        held, forward, out = total
        z = jnp.tile(x @ held.T, (20, 1))  # the picture is held for all steps
        h2 = z @ forward.T
        both = jnp.concatenate([z, h2], 1)
        y = both @ out.T
        taught = jnp.concatenate([y, h2], 1)[:, :n]
        changes = taught[:64].T @ x, taught.T @ z, y.T @ both
        return tuple(a + 1e-9 * b for a, b in zip(total, changes, strict=True)), None

    run = jax.jit(lambda w0: jax.lax.scan(batch, w0, length=w.STRETCH)[0])

    def seconds() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run((first, forward, out)))
        return (time.perf_counter() - begin) * w.BATCHES / w.STRETCH

    notes = f"dense products of {rows} rows at once, without the rings"
    return Case(seconds, notes=notes, calls=1)


CASES = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W7": w7, "W8": w8}
