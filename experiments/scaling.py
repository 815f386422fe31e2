"""The main system from a thousand hidden neurons to a hundred thousand, at a fixed fan-in.

    python -m experiments.scaling --dataset mnist --data-dir mnist --sizes 1000 3000 10000 100000

Input, hidden neurons and their recurrence are lists of `fan-in` synapses a neuron; three factors
change them from broadcast errors. Accuracy, seconds and bytes an epoch against size, with exponents
fitted in the log-log plot; beside them what backpropagation through time would hold of the same
net, as XLA plans it, for more and more steps: nothing of that is run. A size that is done is kept.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from matplotlib.figure import Figure
from rich.console import Console

import neurojax as nj
from experiments import _folder, _run
from experiments.transfer import Data
from neurojax import evaluate
from neurojax._check import MOST
from neurojax.data import Split, load
from neurojax.learning import wta_broadcast as wb
from neurojax.network import fold
from neurojax.plasticity.three_factor import always


@dataclass(frozen=True)
class Learning:
    """What learns, and for how long."""

    sizes: tuple[int, ...] = (1000, 3000)
    """Hidden neurons of each net."""
    fan_in: int = 32
    """Synapses of a hidden neuron from the input, and as many from the others."""
    epochs: int = 2
    """Passes over the training pictures."""
    batch_size: int = 32
    """Pictures a weight change."""
    n_steps: int = 20
    """Steps that a picture is shown for."""
    lr: float = 1e-3
    """Rate of Adam."""
    durations: tuple[int, ...] = (10, 20, 40, 80)
    """Steps for which memory of both ways to learn is asked of the compiler."""

    whole: ClassVar = dict(
        sizes=(64, MOST), fan_in=(1, 4096), epochs=(1, MOST), batch_size=(1, MOST),
        n_steps=(6, 10_000), durations=(6, 10_000),
    )  # fmt: skip
    within: ClassVar = dict(lr="(0, inf)")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/scaling")


@dataclass(frozen=True)
class Config(Learning, Data, Run):
    """What grows, and what it learns."""

    def __post_init__(self):
        _run.require_sound(self)


def run(config: Config) -> list[dict[str, Any]]:
    """Each size; returns the rows that metrics.json holds."""
    sets, console = _run.pictures(load(config.dataset, config.data_dir)), Console(highlight=False)
    _run.n_train(sets, None, config.batch_size)
    train, val, test = (_pixels(x) for x in (sets.train, sets.val, sets.test))
    with _folder.held(config, sets, may_grow=("sizes",)) as folder:
        folder.begin()
        rows = []
        for n in config.sizes:
            kept = folder.part(str(n))
            if kept is None:
                kept = [learnt(config, n, sets.n_classes, train, val, test)]
                folder.keep(str(n), kept)
            rows.append(kept[0])
            r = kept[0]
            console.print(
                f"{n:,} hidden neurons, {r['synapses']:,} synapses: {100 * r['accuracy']:.2f}%,"
                f" {r['seconds']:.1f} s an epoch, {r['bytes'] / 1e6:.0f} MB",
                markup=False,
            )  # fmt: skip
        found = {"runs": rows, "exponents": exponents(rows)}
        folder.finish(found, {"scaling": drawn(rows)})
    return rows


def system(config: Learning, n: int, n_in: int, n_classes: int, n_steps: int, key: Array):
    """n_in -> n, in lists by sender, with recurrence one step late -> a leaky readout."""

    def listed(name: str, n_pre: int, k: int):
        edges = nj.fan_in(fold(key, name), n_pre, n, k / n_pre).edges()
        return nj.by_sender(edges.pre, edges.post, n_pre, n)

    k, k_in = min(config.fan_in, n), min(config.fan_in, n_in)
    delta = nj.ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)
    readout = nj.LeakyIntegrator(tau_mem=-1 / np.log(0.9), r_mem=1.0)
    net = nj.Network(
        {
            "hidden": nj.Layer(n, nj.LIF(), rule=nj.ThreeFactor()),
            "readout": nj.Layer(n_classes, readout, rule=delta),
        },
        {
            "in": nj.Projection("input", "hidden", listed("in", n_in, k_in), gain=2.0),
            "loop": nj.Projection("hidden", "hidden", listed("loop", n, k), delay=1, gain=0.5),
            "out": nj.Projection("hidden", "readout", nj.Dense(n, n_classes), gain=0.0),
        },
    )
    return wb.system(fold(key, "feedback"), net, n_steps=n_steps)


def learnt(
    config: Config, n: int, n_classes: int, train: Any, val: Any, test: Any
) -> dict[str, Any]:
    """Accuracy, median seconds of an epoch, spikes, and bytes that the compiled step asks for."""
    key, n_in = jax.random.key(config.seed), train[0].shape[1]
    made = system(config, n, n_in, n_classes, config.n_steps, key)
    learner = nj.learning.WTABroadcast(made, optax.adam(config.lr))
    state = learner.init(fold(key, "state"))
    x, y = (a[: config.batch_size] for a in train)
    step = jax.jit(lambda state, x, y, key: learner.step(state, x, y, key=key))
    memory = planned(step, state, x, y, key)
    seconds, accuracies = [], []
    for epoch in range(config.epochs):
        order = np.random.default_rng((config.seed, epoch)).permutation(len(train[1]))
        begin = time.perf_counter()
        for at in range(0, len(order) - config.batch_size + 1, config.batch_size):
            now = order[at : at + config.batch_size]
            state, _ = step(state, train[0][now], train[1][now], jax.random.fold_in(key, at))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - begin)
        accuracies.append(evaluate(learner, state, val))
    synapses = sum(w.w.size for w in state.weights.values())
    rate = float(rates(made, state, x).mean())
    return {
        "n": n, "synapses": int(synapses), "accuracy": evaluate(learner, state, test),
        "val_accuracy": accuracies, "seconds": float(np.median(seconds)), "rate": rate,
        "bytes": int(memory.argument_size_in_bytes + memory.temp_size_in_bytes),
        "memory": held(config, n, n_in, n_classes, x, y, key),
    }  # fmt: skip


def rates(made: Any, state: Any, x: Array) -> Array:
    """Spikes a step of each hidden neuron, for pictures `x`."""
    target = jnp.zeros(len(x), int)
    return wb.deltas(made, state.weights, state.homeostasis, x, target)[1].rates["hidden"]


def held(config, n: int, n_in: int, n_classes: int, x: Array, y: Array, key: Array):
    """Temporary bytes of three factors, recorded first or as it runs, and of backpropagation.

    By duration; of one sample, where it is learnt from as it runs. Compiled, not run.
    """
    found = []
    for n_steps in config.durations:
        made = system(config, n, n_in, n_classes, n_steps, key)
        weights, tone = made.network.init_weights(key), made.rest()
        ours = lambda w, x, y, made=made, tone=tone: wb.deltas(made, w, tone, x, y)[0]  # noqa: E731
        loss = partial(_loss, made, tone)
        one = lambda w, x, y, made=made, tone=tone: wb.online_deltas(made, w, tone, x[0], y[0])  # noqa: E731
        alone = lambda w, x, y, loss=loss: jax.grad(loss, allow_int=True)(w, x[:1], y[:1])  # noqa: E731
        ways = {
            "three_factors": ours, "bptt": jax.grad(loss, allow_int=True),
            "three_factors_one": one, "bptt_one": alone,
        }  # fmt: skip
        sizes = {name: planned(f, weights, x, y).temp_size_in_bytes for name, f in ways.items()}
        found.append({"n_steps": n_steps} | sizes)
    return found


def _loss(made: Any, tone: Any, weights: Any, x: Array, y: Array) -> Array:
    """Cross-entropy of the mean readout, which can be differentiated through all steps."""
    net = made.tuned(tone)
    net = jax.tree.map(
        lambda layer: _soft(layer) if isinstance(layer, nj.LIF) else layer, net,
        is_leaf=lambda layer: isinstance(layer, nj.LIF),
    )  # fmt: skip

    def one(x):
        probe = lambda records: records["readout"].z  # noqa: E731
        return nj.simulate(
            net, weights, net.init(), {"input": x}, n_steps=made.n_steps, dt=made.dt,
            probe=probe, learn=False,
        )[1].mean(0)  # fmt: skip

    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(one)(x), y).mean()


def _soft(neuron: nj.LIF) -> nj.LIF:
    """The neuron with a derivative."""
    return replace(neuron, spike=nj.surrogate.fast_sigmoid())


def planned(f: Any, *args: Any) -> Any:
    """Memory of `f` as XLA plans it; compiled, not run."""
    found = jax.jit(f).lower(*args).compile().memory_analysis()
    assert found is not None  # noqa: S101 - every backend that JAX ships tells
    return found


def _pixels(part: Split) -> tuple[Array, Array]:
    images = np.asarray(part.images, np.float32).reshape(len(part.labels), -1)
    return jnp.asarray(images), jnp.asarray(part.labels)


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slopes over synapses in the log-log plot."""
    if len(rows) < 2:
        return {}
    x = np.log([r["synapses"] for r in rows])
    names = ("seconds", "bytes")
    return {n: float(np.polyfit(x, np.log([r[n] for r in rows]), 1)[0]) for n in names}


def drawn(rows: list[dict[str, Any]]) -> Figure:
    """Accuracy, seconds and bytes over size; memory over steps of the largest net."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    n = [r["n"] for r in rows]
    left.semilogx(n, [100 * r["accuracy"] for r in rows], "o-")
    left.set(xlabel="hidden neurons", ylabel="test accuracy, %")
    middle.loglog(n, [r["seconds"] for r in rows], "o-", label="s an epoch")
    middle.loglog(n, [r["bytes"] / 1e6 for r in rows], "s-", label="MB")
    middle.set(xlabel="hidden neurons")
    middle.legend()
    for way, name in (
        ("three_factors_one", "three factors, as it runs"), ("bptt_one", "BPTT"),
    ):  # fmt: skip
        seen = rows[-1]["memory"]
        right.plot([m["n_steps"] for m in seen], [m[way] / 1e6 for m in seen], "o-", label=name)
    right.set(xlabel="steps", ylabel=f"temporary MB a sample, {n[-1]:,} neurons")
    right.legend()
    return figure


if __name__ == "__main__":
    _run.main(Config, run)
