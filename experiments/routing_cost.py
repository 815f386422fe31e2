"""What small-world wiring buys and what routing it costs, from a lattice to a random graph.

    python -m experiments.routing_cost --dataset digits --out runs/routing_cost

Every projection of a spiking network is sparse; each synapse is local or, with probability p,
goes anywhere. For each p the network learns without backpropagation, all seeds side by side
in one `vmap`; then its spikes are routed over a mesh of cores and priced.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments import _config, _folder, _run, _training, _world_figure
from experiments._small_world import Plan, columns, network, price
from experiments._training import Trainer
from hardware import topology
from neurojax import data
from neurojax._check import MOST
from neurojax._compile import released
from neurojax.learning import wta_broadcast as wb
from neurojax.network import Layer, fold
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.plasticity.teaching import SoftWTA
from neurojax.plasticity.three_factor import Homeostasis, ThreeFactor, triangle
from neurojax.wiring import metrics


@dataclass(frozen=True)
class Network:
    """Two or more sparse layers along one ring, and a readout that hears all of them."""

    p_rewire: tuple[float, ...] = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
    """Probabilities that a synapse leaves the neighbourhood."""
    hidden: tuple[int, ...] = (256, 256)
    """Neurons of each hidden layer."""
    population: int = 10
    """Readout neurons a class."""
    fan_in_input: int = 4
    """Pixels that a neuron of the first layer hears."""
    fan_in: int = 4
    """Neurons of its own layer that a hidden neuron hears, and as many of the layer below."""
    fan_in_readout: int = 4
    """Neurons of each hidden layer that a readout neuron hears."""


@dataclass(frozen=True)
class Learning:
    """As in the main experiment, but for these."""

    epochs: int = 20
    """Passes over the training pictures."""
    batch_size: int = 32
    """Pictures a weight change."""


@dataclass(frozen=True)
class Devices:
    """The mesh of cores on which the neurons sit."""

    mesh: tuple[int, int] = (8, 8)
    """Columns and rows of cores."""
    neurons_per_core: int = 10
    """Neurons that a core holds at most."""


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/routing_cost")
    seeds: int = 3
    """How many networks for each probability, from --seed on."""


@dataclass(frozen=True)
class Config(Network, Learning, Devices, _run.Data, Run):
    """The network, its mesh, and the rewiring probabilities."""

    def __post_init__(self):
        _check(self)


def _check(c: Config) -> None:
    """Refuse numbers out of range, naming the option."""
    _run.require_sound(c)
    least = dict(epochs=1, batch_size=1, train_size=1, population=1, fan_in_input=1, fan_in=2,
                 fan_in_readout=1, neurons_per_core=1, mesh=1)  # fmt: skip
    _run.require_whole(c, **{name: (low, MOST) for name, low in least.items()})
    for p in c.p_rewire:
        _run.require_within("--p-rewire", p, "[0, 1]")
    if not c.p_rewire or len(set(c.p_rewire)) < len(c.p_rewire):
        raise ValueError(f"--p-rewire must name one or more, each once; got {c.p_rewire}")
    if len(set(c.hidden)) != 1 or min(c.hidden) < 1:
        raise ValueError(
            f"--hidden must name layers of one size, as they share a ring; got {c.hidden}"
        )
    n = c.hidden[0]
    _run.require_whole(c, hidden=(1, MOST))
    if c.fan_in % 2 or not c.fan_in < n:
        raise ValueError(f"--fan-in must be even, half on each side, and below {n}; got {c.fan_in}")
    if c.fan_in_readout > n:
        raise ValueError(f"--fan-in-readout must be at most {n}, the layer; got {c.fan_in_readout}")
    if c.mesh[0] * c.mesh[1] * c.neurons_per_core > MOST:
        got = f"--mesh {c.mesh[0]} {c.mesh[1]} --neurons-per-core {c.neurons_per_core}"
        raise ValueError(f"--mesh must hold at most {MOST} neurons; got {got}")


class Learner(NamedTuple):
    """What is fixed for all networks of a study."""

    c: Config
    base: _config.Config  # of the main experiment, whose teaching, augmentation and rates serve
    plan: Plan
    n_batches: int  # of an epoch

    @classmethod
    def of(cls, c: Config, sets: data.Dataset, n_train: int) -> "Learner":
        """For a data set."""
        base = _config.resolved(
            _config.Config(
                dataset=c.dataset, epochs=c.epochs, batch_size=c.batch_size, train_size=c.train_size
            ),
            n_train,
        )
        n_in = int(np.prod(sets.train.images.shape[1:]))
        plan = Plan(
            n_in, c.hidden, sets.n_classes, c.population, c.fan_in_input, c.fan_in,
            c.fan_in_readout, base.gain_in, base.gain_forward, base.gain_recurrent,
        )  # fmt: skip
        return cls(c, base, plan, n_train // c.batch_size)

    def fresh(self, key: Array, p: Array) -> tuple[wb.System, wb.TrainState]:
        """One network and its initial state."""
        b, plan = self.base, self.plan
        rule = ThreeFactor(b.kappa_e, window=triangle(b.window_width))
        layer = Layer(1, LIF(tau_mem=b.tau_mem, r_mem=b.r_mem), rule=rule)
        net = network(plan, layer, LeakyIntegrator(b.tau_out), fold(key, "wiring"), p)
        sizes = {name: net.layers[name].n for name in net.layers if name != "readout"}
        told = _training.feedback(b.bandwidth, sizes, plan.n_classes, fold(key, "feedback"))
        system = wb.System(
            net, told, SoftWTA(b.gain, b.margin), Homeostasis(b.target_rate, b.homeostasis),
            n_steps=b.n_steps, start=b.start, population=plan.population,
        )  # fmt: skip
        return system, wb.init(system, self.optimiser, fold(key, "state"))

    @property
    def optimiser(self):
        """As in the main experiment."""
        return _training.optimiser(self.base, self.n_batches * self.c.epochs)

    def steps(self, system: wb.System) -> Trainer:
        """Training, settling and prediction of one network."""
        return _training.trainer(self.base, system, self.optimiser, self.n_batches * self.c.epochs)

    def epoch(self, system, state, key, epoch, images, labels) -> wb.TrainState:
        """All batches of an epoch, in an order of the network's own."""
        key = jax.random.fold_in(fold(key, "epoch"), epoch)
        order = jax.random.permutation(fold(key, "order"), len(labels))
        order = order[: self.n_batches * self.c.batch_size].reshape(self.n_batches, -1)
        whole = jnp.asarray([0, self.n_batches])
        return self.steps(system).learn(state, images, labels, order, key, whole)[0]

    def settled(self, system, state, images) -> wb.TrainState:
        """As the main experiment begins: a few batches in which the thresholds alone move."""
        batches = np.arange(30 * self.c.batch_size).reshape(30, -1) % len(images)
        settle = self.steps(system).settle
        return jax.lax.scan(lambda s, i: (settle(s, images[i]), None), state, batches)[0]

    def seen(self, system, state, images) -> tuple[Array, dict[str, Array]]:
        """The class decided on for each picture, and mean spikes of each neuron in a step."""
        predict = self.steps(system).predict
        outcome = predict(system, *state.average, images, jax.random.key(0))
        return outcome.scores.argmax(1), {n: r.mean(0) for n, r in outcome.rates.items()}


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    c = config
    sets = data.load(c.dataset, c.data_dir)
    n_train = _run.n_train(c, sets)
    _run.refuse_endless(c.epochs, n_train // c.batch_size)
    _refuse_large(c, sets)
    learner, mesh = Learner.of(c, sets, n_train), topology.Mesh(*c.mesh, c.neurons_per_core)
    placement = columns(learner.plan, mesh)
    with _folder.held(c, sets) as folder:
        sets = _training.shown(learner.base, sets)
        key, p = jax.random.key(c.seed), jnp.ones(())
        eqx.filter_eval_shape(learner.fresh, key, p)  # what cannot be wired is refused here
        folder.begin()
        rows = _made(folder, learner, sets, mesh, placement)
        table = [_summary([row for row in rows if row["p_rewire"] == p]) for p in c.p_rewire]
        found = {
            "table": table, "networks": rows, "chip": "Loihi", "placement": "columns",
            "n_neurons": len(placement), "seconds": sum(row["seconds"] for row in rows) / c.seeds,
        }  # fmt: skip
        return folder.finish(found, {"routing_cost": _world_figure.knee(table)})


def _refuse_large(c: Config, sets: data.Dataset) -> None:
    """Refuse what does not fit the pictures, the mesh or the memory."""
    n_in, readout = int(np.prod(sets.train.images.shape[1:])), sets.n_classes * c.population
    n, n_cores = sum(c.hidden) + readout, c.mesh[0] * c.mesh[1]
    if c.fan_in_input > n_in:
        raise ValueError(f"--fan-in-input must be at most {n_in} pixels; got {c.fan_in_input}")
    if n > n_cores * c.neurons_per_core:
        raise ValueError(
            f"--mesh must hold {n} neurons, {-(-n // c.neurons_per_core)} cores of"
            f" {c.neurons_per_core}; got {n_cores}"
        )
    links = c.hidden[0] * (c.fan_in_input + 2 * c.fan_in * len(c.hidden))
    wired = 2 * links + n * (n_in + readout)
    seen = 20 * max(c.batch_size, len(sets.test.labels)) * n
    routed = 2 * (n_cores + n * c.mesh[0])
    _run.affordable(
        16 * c.seeds * (wired + seen + routed), hidden=n / 1000, population=c.population / 10,
        mesh=n_cores / 100, batch_size=c.batch_size / 500, seeds=c.seeds / 10,
    )  # fmt: skip


def _made(
    folder: _folder.Folder, learner: Learner, sets: data.Dataset, mesh: topology.Mesh,
    placement: Array,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each network; of probabilities whose part is there they are read, not trained."""
    c, rows, each = learner.c, [], released(_each)
    with _run.jobs_bar() as bar:
        task = bar.add_task("networks", total=len(c.p_rewire) * c.seeds)
        for p in c.p_rewire:
            made = folder.part(f"p {p!r}")
            if made is None:
                begin = time.perf_counter()
                found = _networks(each, learner, sets, mesh, placement, p)
                seconds = time.perf_counter() - begin
                made = [row | {"seconds": seconds} for row in found]
                folder.keep(f"p {p!r}", made)
                bar.console.print(_line(found, seconds), markup=False)
            rows += made
            bar.advance(task, c.seeds)
    return rows


def _networks(
    each: Callable, learner: Learner, sets: data.Dataset, mesh: topology.Mesh, placement: Array,
    p: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train and price a network for each seed, all at once; a row each."""
    c = learner.c
    images, labels = (jnp.asarray(x[: c.train_size]) for x in sets.train)
    keys = jax.vmap(jax.random.key)(jnp.arange(c.seed, c.seed + c.seeds))
    systems, states = each(learner.fresh, keys, jnp.asarray(p, float), axes=(0, None))
    states = each(learner.settled, systems, states, images, axes=(0, 0, None))
    for epoch in range(c.epochs):
        states = each(
            learner.epoch, systems, states, keys, jnp.asarray(epoch), images, labels,
            axes=(0, 0, 0, None, None, None),
        )  # fmt: skip
    right, rates = {}, {}
    for name in ("val", "test"):
        split = getattr(sets, name)
        shown = systems, states, jnp.asarray(split.images)
        decided, rates = each(learner.seen, *shown, axes=(0, 0, None))
        right[name] = (np.asarray(decided) == split.labels).mean(1)
    cost = each(partial(price, placement=placement, mesh=mesh), systems, rates, axes=(0, 0))
    cost = jax.tree.map(np.asarray, cost)
    rows = []
    for i in range(c.seeds):
        system = jax.tree.map(lambda x: x[i] if eqx.is_array(x) else x, systems)  # noqa: B023
        mine = jax.tree.map(lambda x: float(x[i]), cost)  # noqa: B023
        rows.append(
            {"p_rewire": p, "seed": c.seed + i}
            | {f"{name}_accuracy": float(x[i]) for name, x in right.items()}
            | {"spikes_per_neuron_step": float(np.mean([r[i].mean() for r in rates.values()]))}
            | _graph(system)
            | {k: v for k, v in mine._asdict().items() if k != "energy"}
            | {f"energy_{k}": v for k, v in mine.energy._asdict().items() if v is not None}
            | {"energy": float(mine.energy.total)}
            | {"hops_per_edge_bisected": _bisected(system, mesh)}
        )
    return rows


def _each(function, *arguments, axes):
    """`function` over the leading axes of the arguments marked 0."""
    in_axes = tuple(eqx.if_array(0) if axis == 0 else None for axis in axes)
    return eqx.filter_vmap(function, in_axes=in_axes)(*arguments)


def _graph(system: wb.System) -> dict[str, float]:
    """Of the first layer's recurrent wiring: clustering and mean path length."""
    fan = system.network.projections["h1->h1"].connectivity
    return {"clustering": metrics.clustering(fan), "path_length": metrics.path_length(fan).length}


def _bisected(system: wb.System, mesh: topology.Mesh) -> float:
    """Hops of an edge where neurons are placed to suit this very graph."""
    edges, n = topology.wiring(system.network)
    return float(topology.mean_hops(edges, topology.bisected(edges, n, mesh), mesh))


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and standard deviations as name_sd."""
    names = [n for n in rows[0] if n not in ("seed", "seconds", "p_rewire")]
    out: dict[str, Any] = {"p_rewire": rows[0]["p_rewire"], "n_seeds": len(rows)}
    for name in names:
        values = [row[name] for row in rows]
        out[name] = float(np.mean(values))
        out[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(rows) > 1 else None
    return out


def _line(rows: list[dict[str, Any]], seconds: float) -> str:
    mean = _summary(rows)
    return (
        f"p {mean['p_rewire']:<5g} test {100 * mean['test_accuracy']:6.2f}%"
        f"  {mean['hops_per_spike']:5.1f} hops a spike  hottest link {mean['hottest_link']:6.1f}"
        f" spikes  {1e9 * mean['energy']:6.1f} nJ an inference  {seconds:.1f} s"
    )


if __name__ == "__main__":
    _run.main(Config, run)
