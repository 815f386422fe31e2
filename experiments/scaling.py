"""The main system from a thousand hidden neurons to a hundred thousand, at a fixed fan-in.

    python -m experiments.scaling --dataset mnist --data-dir mnist --sizes 1000 3000 10000 100000

Input, hidden neurons and their recurrence are lists of `fan-in` synapses a neuron; three factors
change them from broadcast errors. Accuracy, seconds and bytes against size, joules of a picture on
Loihi and hops of a spike on its mesh, with exponents fitted in the log-log plot; beside them what
backpropagation through time would hold of the same net, as XLA plans it, for more and more steps:
nothing of that is run. A size that is done is kept.
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
from experiments import _folder, _on_chips, _run, _small_world
from hardware import topology
from neurojax import evaluate
from neurojax._check import MOST
from neurojax.data import Split, load
from neurojax.learning import wta_broadcast as wb
from neurojax.network import fold
from neurojax.plasticity.three_factor import always

_SETTLED = 30  # batches before the first change, in which only thresholds move
_WATCHED = 100  # pictures whose spikes are priced


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
    lr: float = 4e-3
    """Rate of Adam for hidden neurons, which falls to zero as all rates do."""
    lr_readout: float = 5e-3
    """That of the readout."""
    durations: tuple[int, ...] = (10, 20, 40, 80)
    """Steps for which memory of both ways to learn is asked of the compiler."""

    whole: ClassVar = dict(
        sizes=(64, MOST), fan_in=(1, 4096), epochs=(1, MOST), batch_size=(1, MOST),
        n_steps=(6, 10_000), durations=(6, 10_000),
    )  # fmt: skip
    within: ClassVar = dict(lr="[0, inf)", lr_readout="(0, inf)")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/scaling")


@dataclass(frozen=True)
class Config(Learning, _run.Data, Run):
    """What grows, and what it learns."""

    def __post_init__(self):
        _run.require_sound(self)


def run(config: Config) -> list[dict[str, Any]]:
    """Each size; returns the rows that metrics.json holds."""
    sets, console = _run.pictures(load(config.dataset, config.data_dir)), Console(highlight=False)
    n_train = _run.n_train(sets, config.train_size, config.batch_size)
    train, val, test = (_pixels(x) for x in (sets.train, sets.val, sets.test))
    train = tuple(x[:n_train] for x in train)
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
                f" {r['seconds']:.1f} s an epoch, {r['bytes'] / 1e6:.0f} MB,"
                f" {1e6 * r['joules']:.3g} uJ a picture, {r['hops_spike']:.1f} hops a spike",
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
    rule = nj.ThreeFactor(window=nj.triangle(0.5))
    delta = nj.ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)
    # So that a weight change moves scores alike, however many neurons are heard.
    readout = nj.LeakyIntegrator(tau_mem=9.5, r_mem=1000 / n)
    net = nj.Network(
        {
            "hidden": nj.Layer(n, nj.LIF(tau_mem=9.5, r_mem=2.0), rule=rule),
            "readout": nj.Layer(n_classes, readout, rule=delta),
        },
        {
            "in": nj.Projection("input", "hidden", listed("in", n_in, k_in), gain=2.0),
            "loop": nj.Projection("hidden", "hidden", listed("loop", n, k), delay=1, gain=0.3),
            "out": nj.Projection("hidden", "readout", nj.Dense(n, n_classes), gain=0.0),
        },
    )
    teacher = nj.SoftWTA(gain=6.0, margin=0.02)
    return wb.system(fold(key, "feedback"), net, n_steps=n_steps, teacher=teacher)


def taught(config: Learning, made: Any, n_batches: int) -> Any:
    """The system with its optimiser; rates fall to zero over `n_batches`."""

    def falling(rate: float):
        return optax.adam(optax.cosine_decay_schedule(rate, n_batches))

    tx = optax.multi_transform(
        {True: falling(config.lr_readout), False: falling(config.lr)},
        lambda names: {n: n == "out" for n in names},
    )
    slower = optax.cosine_decay_schedule(1.0, n_batches, alpha=0.1)
    return nj.learning.WTABroadcast(made, tx, anneal=slower)


def learnt(
    config: Config, n: int, n_classes: int, train: Any, val: Any, test: Any
) -> dict[str, Any]:
    """Accuracy, seconds of an epoch by its median batch, bytes that a step asks for, and price."""
    key, n_in, size = jax.random.key(config.seed), train[0].shape[1], config.batch_size
    made = system(config, n, n_in, n_classes, config.n_steps, key)
    n_batches = len(train[1]) // size
    learner = taught(config, made, config.epochs * n_batches)
    state = settled(made, learner.init(fold(key, "state")), train[0], size)
    x, y = (a[:size] for a in train)
    step = jax.jit(lambda state, x, y, key: learner.step(state, x, y, key=key)[0])
    memory = planned(step, state, x, y, key)
    seconds, accuracies = [], []
    for epoch in range(config.epochs):
        for i, now in enumerate(batches(len(train[1]), size, config.seed, epoch)):
            begin, shown = time.perf_counter(), (train[0][now], train[1][now])
            chance = jax.random.fold_in(key, epoch * n_batches + i)
            state = jax.block_until_ready(step(state, *shown, chance))
            seconds.append(time.perf_counter() - begin)
        accuracies.append(evaluate(learner, state, val))
    rates = wb.predict(made, state.weights, state.homeostasis, val[0][:_WATCHED]).rates
    synapses = sum(w.w.size for w in state.weights.values())
    return {
        "n": n, "synapses": int(synapses), "accuracy": evaluate(learner, state, test),
        "val_accuracy": accuracies, "seconds": float(np.median(seconds)) * n_batches,
        "rate": float(rates["hidden"].mean()),
        "bytes": int(memory.argument_size_in_bytes + memory.temp_size_in_bytes),
        **priced(made, {name: r.mean(0) for name, r in rates.items()}),
        "memory": held(config, n, n_in, n_classes, x, y, key),
    }  # fmt: skip


def batches(n: int, size: int, seed: int, epoch: int) -> np.ndarray:
    """Which of `n` pictures each batch of an epoch shows, [batches, size]; the rest waits."""
    order = np.random.default_rng((seed, epoch)).permutation(n)
    return order[: n - n % size].reshape(-1, size)


def settled(made: Any, state: Any, x: Array, size: int) -> Any:
    """The state after batches of `size` pictures by which only thresholds moved."""
    settle = jax.jit(lambda state, x: wb.settle(made, state, x))
    for i in range(_SETTLED):
        state = settle(state, x[np.arange(i * size, (i + 1) * size) % len(x)])
    return state


def priced(made: Any, rates: dict[str, Array]) -> dict[str, float]:
    """Joules of one picture on Loihi, those of links alone, and hops of a synapse and of a spike.

    Neurons sit in order on the smallest square mesh of cores: wiring at random has no parts that
    lie together better otherwise. Spikes go as multicast trees; pictures are currents.
    """
    n = topology.wiring(made.network)[1]
    mesh = _on_chips.square(n)
    price = _small_world.price(made, rates, topology.linear(n, mesh), mesh)
    routing = price.energy.routing
    found = {
        "joules": price.energy.total, "joules_routing": 0.0 if routing is None else routing,
        "hops": price.hops_per_edge, "hops_spike": price.hops_per_spike, "cores": mesh.n_cores,
    }  # fmt: skip
    return {name: float(x) for name, x in found.items()}


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
    names = ("seconds", "bytes", "joules", "hops_spike")
    return {n: float(np.polyfit(x, np.log([r[n] for r in rows]), 1)[0]) for n in names}


def drawn(rows: list[dict[str, Any]]) -> Figure:
    """Accuracy, seconds and bytes, joules and hops over size; memory of the largest over steps."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    learnt, made, sent, held = figure.subplots(1, 4)
    n = [r["n"] for r in rows]
    learnt.semilogx(n, [100 * r["accuracy"] for r in rows], "o-")
    learnt.set(xlabel="hidden neurons", ylabel="test accuracy, %")
    for ax, name, unit, label in (
        (made, "seconds", 1, "s an epoch"), (made, "bytes", 1e-6, "MB"),
        (sent, "joules", 1e6, "µJ a picture"), (sent, "joules_routing", 1e6, "of these on links"),
        (sent, "hops_spike", 1, "hops a spike"),
    ):  # fmt: skip
        ax.loglog(n, [unit * r[name] for r in rows], "o-", label=label)
    for ax in (made, sent):
        ax.set(xlabel="hidden neurons")
        ax.margins(y=0.3)  # room for the legend
        ax.legend(fontsize="small", loc="lower right")
    seen = rows[-1]["memory"]
    for way, name in (
        ("three_factors_one", "three factors, as it runs"), ("bptt_one", "BPTT"),
    ):  # fmt: skip
        held.plot([m["n_steps"] for m in seen], [m[way] / 1e6 for m in seen], "o-", label=name)
    held.set(xlabel="steps", ylabel=f"MB a sample, {n[-1]:,} neurons", ylim=(0, None))
    held.legend()
    return figure


if __name__ == "__main__":
    _run.main(Config, run)
