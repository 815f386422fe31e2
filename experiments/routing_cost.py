"""What small-world wiring buys and what routing it costs, from a lattice to a random graph.

    python -m experiments.routing_cost --dataset digits --out runs/routing_cost

Every projection of a spiking network is sparse; each synapse is local or, with probability p,
goes anywhere. For each p the network learns without backpropagation, all seeds side by side
in one `vmap`; then its spikes are routed over a mesh of cores and priced.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments import _config, _folder, _run, _training, _world_figure
from experiments._options import part
from experiments._small_world import Plan, columns, network, price
from hardware import topology
from neurojax._check import MOST
from neurojax._compile import released
from neurojax.data import Dataset, load
from neurojax.learning import wta_broadcast as wb
from neurojax.learning.fitting import fit
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

    whole: ClassVar = dict(population=(1, MOST), fan_in_input=(1, MOST), fan_in=(2, MOST),
                           fan_in_readout=(1, MOST))  # fmt: skip
    within: ClassVar = dict(p_rewire="[0, 1]")


@dataclass(frozen=True)
class Learning:
    """As in the main experiment, but for these."""

    epochs: int = 20
    """Passes over the training pictures."""
    batch_size: int = 32
    """Pictures a weight change."""

    whole: ClassVar = dict(epochs=(1, MOST), batch_size=(1, MOST))


@dataclass(frozen=True)
class Devices:
    """The mesh of cores on which the neurons sit."""

    mesh: tuple[int, int] = (8, 8)
    """Columns and rows of cores."""
    neurons_per_core: int = 10
    """Neurons that a core holds at most."""

    whole: ClassVar = dict(mesh=(1, MOST), neurons_per_core=(1, MOST))


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


class Study(NamedTuple):
    """What is fixed for all networks of a study."""

    net: _config.Network  # of the main experiment, as the two below
    rule: _config.Learning
    data: _config.Data
    plan: Plan
    n_batches: int  # of an epoch

    @classmethod
    def of(
        cls, net: Network, rule: Learning, data: _run.Data, sets: Dataset, n_train: int
    ) -> "Study":
        """For a data set."""
        options: Any = asdict(rule) | asdict(data)
        base = _config.resolved(_config.Config(**options), n_train)
        n_in = int(np.prod(sets.train.images.shape[1:]))
        plan = Plan(
            n_in, net.hidden, sets.n_classes, net.population, net.fan_in_input, net.fan_in,
            net.fan_in_readout, base.gain_in, base.gain_forward, base.gain_recurrent,
        )  # fmt: skip
        parts = part(base, _config.Network), part(base, _config.Learning), part(base, _config.Data)
        return cls(*parts, plan, n_train // rule.batch_size)

    def learner(self, key: Array, p: Array) -> _training.Learner:
        """One network, taught as in the main experiment."""
        net, rule, plan = self.net, self.rule, self.plan
        local = ThreeFactor(rule.kappa_e, window=triangle(rule.window_width))
        layer = Layer(1, LIF(tau_mem=net.tau_mem, r_mem=net.r_mem), rule=local)
        wired = network(plan, layer, LeakyIntegrator(net.tau_out), fold(key, "wiring"), p)
        sizes = {name: wired.layers[name].n for name in wired.layers if name != "readout"}
        told = _training.feedback(rule.bandwidth, sizes, plan.n_classes, fold(key, "feedback"))
        system = wb.System(
            wired, told, SoftWTA(rule.gain, rule.margin),
            Homeostasis(rule.target_rate, rule.homeostasis), n_steps=self.data.n_steps,
            start=self.data.start, population=plan.population,
        )  # fmt: skip
        return _training.learner(rule, system, self.n_batches * rule.epochs)

    def trained(
        self, key: Array, p: Array, images: Array, labels: Array
    ) -> tuple[wb.System, wb.TrainState]:
        """One network after all epochs, its pictures in an order of its own."""
        learner = self.learner(key, p)
        fitted = fit(
            learner, (images, labels), key=key, epochs=self.rule.epochs,
            batch_size=self.rule.batch_size, augment=partial(_training.perturbed, self.data),
            encode=partial(_training.encoded, self.data),
        )  # fmt: skip
        return learner.system, fitted.state

    def seen(
        self, system: wb.System, state: wb.TrainState, images: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The class decided on for each picture, and mean spikes of each neuron in a step."""
        x = _training.encoded(self.data, jax.random.key(0), images)
        outcome = wb.predict(system, *state.average, x)
        return outcome.scores.argmax(1), {n: r.mean(0) for n, r in outcome.rates.items()}


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    c, net, rule = config, part(config, Network), part(config, Learning)
    data, devices = part(config, _run.Data), part(config, Devices)
    sets = _run.pictures(load(data.dataset, data.data_dir))
    n_train = _run.n_train(sets, data.train_size, rule.batch_size)
    _run.refuse_endless(rule.epochs, n_train // rule.batch_size)
    _refuse_large(net, devices, rule.batch_size, c.seeds, sets)
    study = Study.of(net, rule, data, sets, n_train)
    mesh = topology.Mesh(*devices.mesh, devices.neurons_per_core)
    placement = columns(study.plan, mesh)
    with _folder.held(c, sets) as folder:
        sets = _training.shown(study.data, sets)
        key, p = jax.random.key(c.seed), jnp.ones(())
        eqx.filter_eval_shape(study.learner, key, p)  # what cannot be wired is refused here
        folder.begin()
        seeds = range(c.seed, c.seed + c.seeds)
        rows = _made(folder, study, sets, mesh, placement, net.p_rewire, seeds)
        table = [_summary([row for row in rows if row["p_rewire"] == p]) for p in net.p_rewire]
        found = {
            "table": table, "networks": rows, "chip": "Loihi", "placement": "columns",
            "n_neurons": len(placement), "seconds": sum(row["seconds"] for row in rows) / c.seeds,
        }  # fmt: skip
        return folder.finish(found, {"routing_cost": _world_figure.knee(table)})


def _refuse_large(
    net: Network, devices: Devices, batch_size: int, seeds: int, sets: Dataset
) -> None:
    """Refuse what does not fit the pictures, the mesh or the memory."""
    n_in, readout = int(np.prod(sets.train.images.shape[1:])), sets.n_classes * net.population
    n, n_cores = sum(net.hidden) + readout, devices.mesh[0] * devices.mesh[1]
    if net.fan_in_input > n_in:
        raise ValueError(f"--fan-in-input must be at most {n_in} pixels; got {net.fan_in_input}")
    if n > n_cores * devices.neurons_per_core:
        raise ValueError(
            f"--mesh must hold {n} neurons, {-(-n // devices.neurons_per_core)} cores of"
            f" {devices.neurons_per_core}; got {n_cores}"
        )
    links = net.hidden[0] * (net.fan_in_input + 2 * net.fan_in * len(net.hidden))
    wired = 2 * links + n * (n_in + readout)
    seen = 20 * max(batch_size, len(sets.test.labels)) * n
    routed = 2 * (n_cores + n * devices.mesh[0])
    _run.affordable(
        16 * seeds * (wired + seen + routed), hidden=n / 1000, population=net.population / 10,
        mesh=n_cores / 100, batch_size=batch_size / 500, seeds=seeds / 10,
    )  # fmt: skip


def _made(
    folder: _folder.Folder, study: Study, sets: Dataset, mesh: topology.Mesh,
    placement: Array, probabilities: tuple[float, ...], seeds: range,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each network; of probabilities whose part is there they are read, not trained."""
    rows, each = [], released(_each)
    with _run.jobs_bar() as bar:
        task = bar.add_task("networks", total=len(probabilities) * len(seeds))
        for p in probabilities:
            made = folder.part(f"p {p!r}")
            if made is None:
                begin = time.perf_counter()
                found = _networks(each, study, sets, mesh, placement, p, seeds)
                seconds = time.perf_counter() - begin
                made = [row | {"seconds": seconds} for row in found]
                folder.keep(f"p {p!r}", made)
                bar.console.print(_line(found, seconds), markup=False)
            rows += made
            bar.advance(task, len(seeds))
    return rows


def _networks(
    each: Callable, study: Study, sets: Dataset, mesh: topology.Mesh, placement: Array,
    p: float, seeds: range,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train and price a network for each seed, all at once; a row each."""
    images, labels = (jnp.asarray(x[: study.data.train_size]) for x in sets.train)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    systems, states = each(
        study.trained, keys, jnp.asarray(p, float), images, labels, axes=(0, None, None, None)
    )
    right, rates = {}, {}
    for name in ("val", "test"):
        split = getattr(sets, name)
        shown = systems, states, jnp.asarray(split.images)
        decided, rates = each(study.seen, *shown, axes=(0, 0, None))
        right[name] = (np.asarray(decided) == split.labels).mean(1)
    cost = each(partial(price, placement=placement, mesh=mesh), systems, rates, axes=(0, 0))
    cost = jax.tree.map(np.asarray, cost)
    rows = []
    for i, seed in enumerate(seeds):
        system = jax.tree.map(lambda x: x[i] if eqx.is_array(x) else x, systems)  # noqa: B023
        mine = jax.tree.map(lambda x: float(x[i]), cost)  # noqa: B023
        rows.append(
            {"p_rewire": p, "seed": seed}
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
