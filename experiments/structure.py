"""What structure is worth: depth and recurrence within a bound on fan-in, a row each.

    python -m experiments.structure --data-dir mnist --fashion-dir fashion --only depth

Protocol. Settings are those of the main experiment and were not tuned here; what differs between
rows is who connects to whom and what teaches lower layers. Rows are compared by validation pictures
alone, and so the table shows; with --test it shows what the test pictures, read once at the end of
each training, have to say. Depth: pictures held, a batch of 64, no augmentation, fan-in at most 256
but for rows named so. Recurrence: pictures row by row, one layer of 512. The seeds of a row, on all
data sets, are one program; a row that is there is not run again.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Key
from rich.console import Console

import neurojax as nj
from experiments import _lanes, _lock, _options, _run, _runs, _training, learn, yardstick
from experiments._rewiring import Rewiring
from experiments.published import Row, alike
from hardware import topology
from neurojax._check import MOST
from neurojax._files import write_whole
from neurojax.network import Network, fold

PER_CORE = 32  # neurons
_FIELDS, _SMALL = nj.Sheet(8, window=7, stride=2), nj.Sheet(16, window=5, stride=2)
_TOP = nj.Sheet(512, window=0, far=256)
Make = Callable[[Key[Array, ""], int], Network]  # of a key and the number of inputs


def _depth(*sheets: nj.Sheet, bound: int | None = 256) -> Make:
    neuron, rule = nj.LIF(9.5, 2.0), nj.ThreeFactor(window=nj.triangle(0.5))
    return lambda key, n_in: nj.topographic(
        key, (1, math.isqrt(n_in), math.isqrt(n_in)), sheets, 10, neuron=neuron, rule=rule,
        max_fan_in=bound, readout=nj.LeakyIntegrator(9.5),
    )  # fmt: skip


def _loop(recurrence: nj.Recurrence, spread: float = 0.0, n: int = 512) -> Make:
    """One layer that is shown rows, whose time constants are spread by a factor e^spread."""

    def make(key: Key[Array, ""], n_in: int) -> Network:
        u = jax.random.uniform(fold(key, "tau"), (n,), minval=-1.0)
        neuron = nj.LIF(4.5 * jax.numpy.exp(spread * u), 3.0)
        layer = nj.Layer(n, neuron, rule=nj.ThreeFactor())
        return nj.structured(
            key, n_in, [layer], 10, population=1, recurrence=recurrence, gain_in=3.0,
            readout=nj.LeakyIntegrator(19.5),
        )  # fmt: skip

    return make


_GRID = partial(nj.Recurrence, "grid", fan_in=60, gain=0.5)
DEPTH: dict[str, Make] = {
    "one layer": _depth(_FIELDS),
    "one layer, synapses of two": _depth(nj.Sheet(24, window=7, stride=2)),
    "one layer, wide windows": _depth(nj.Sheet(8, window=13, stride=2)),
    "two layers": _depth(_FIELDS, _TOP),
    "two layers, both local": _depth(_FIELDS, _SMALL),
    "two layers, any fan-in": _depth(_FIELDS, nj.Sheet(512, window=None), bound=None),
    "three layers": _depth(_FIELDS, _SMALL, _TOP),
}
RECURRENCE: dict[str, Make] = {
    "none": _loop(nj.Recurrence("none")),
    "none, mixed time constants": _loop(nj.Recurrence("none"), 1.0),
    "dense": _loop(nj.Recurrence("dense", gain=0.5)),
    "ring of 32": _loop(nj.Recurrence("local", gain=0.5)),
    "grid of 60": _loop(_GRID()),
    "random 60": _loop(_GRID(p_rewire=1.0)),
    "grid of 60, four delays": _loop(_GRID(delays=(1, 2, 4, 8))),
    "grid of 60, four delays, mixed time constants": _loop(_GRID(delays=(1, 2, 4, 8)), 1.0),
}
# Of these, so many synapses of each delay move every so many batches: those of least weight.
REWIRED = {
    "random 60, rewired": ("random 60", 4, 50),
    "grid of 60, four delays, rewired": ("grid of 60, four delays", 1, 50),
}
RECURRENCE |= {name: RECURRENCE[whose] for name, (whose, _, _) in REWIRED.items()}
TEACHERS: dict[str, tuple[str, Any]] = {
    "broadcast": ("wta_broadcast", nj.wta_broadcast.deltas),
    "symmetric": ("wta_broadcast", nj.wta_broadcast.symmetric),
    "surrogate gradient": ("surrogate", None),  # what the learner brings along
}


def _wired(make: Make, changes: Any, moves: tuple[int, int] | None) -> learn.Change:
    """The learner of the main experiment with another network, and what asks for changes.

    `moves`: synapses that each neuron moves of each loop, and batches between.
    """

    def change(learner: Any, key: Key[Array, ""]) -> Any:
        old = learner.system
        net = make(fold(key, "wiring"), old.n_in)
        sizes = {n: x.n for n, x in net.layers.items() if n != old.readout}
        told = _training.feedback(None, sizes, old.n_classes, fold(key, "feedback"))
        system = replace(old, network=net, feedback=told, population=None)
        learner = replace(learner, system=system, changes=changes or learner.changes)
        return learner if moves is None else Rewiring(learner, *moves)

    return change


_SHAPES = {"mnist": (28, 28), "digits": (8, 8), "mnist1d": (40, 2)}
_SHOWN = {"depth": ("--augment none", 6, 4e-3), "recurrence": ("--presentation rows", 10, 5e-3)}
NETS = {f"depth: {n}": x for n, x in DEPTH.items()}
NETS |= {f"recurrence: {n}": x for n, x in RECURRENCE.items()}
ROWS: dict[str, Row] = {}
for _net, _make in NETS.items():
    _shown, _epochs, _rate = _SHOWN[_net.partition(":")[0]]
    _moves = REWIRED.get(_net.partition(": ")[2])
    for _who, (_learner, _changes) in TEACHERS.items():
        ROWS[f"{_net}; {_who}"] = Row(
            f"--learner {_learner} {_shown} --epochs {_epochs}", (_rate,),
            change=_wired(_make, _changes, _moves and _moves[1:]),
        )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What to run, and where."""

    only: tuple[str, ...] = ()
    """Rows whose name contains one of these; without, all."""
    seeds: int = 3
    """Seeds of each row, from 0 on."""
    epochs: int | None = None
    """Passes over the training pictures; without, as the row has it."""
    results: Path = Path("experiments/results/structure")
    """One file a training: SET/ROW/seed.json; and the table."""
    show: bool = False
    """Only print the table of what is there."""
    test: bool = False
    """Show test accuracy too: once all is chosen."""

    whole: ClassVar = dict(epochs=(1, MOST), seeds=(1, 1000))


@dataclass(frozen=True)
class Config(yardstick.Data, Run):
    """Which rows, from which data."""

    def __post_init__(self):
        _run.require_paths(self)
        _run.require_ranges(self)
        _options.refuse_idle(self, _options.needs(Config), lambda name: getattr(Config, name))
        for part in self.only:
            if not any(part in name for name in ROWS):
                some = ", ".join([*NETS][:3])
                raise ValueError(
                    f"--only must be part of the name of a row; got {part!r}; rows: {some} ..."
                )


def picked(config: Config) -> list[str]:
    """Names of the rows that were asked for."""
    return [n for n in ROWS if not config.only or any(part in n for part in config.only)]


def main(config: Config) -> None:
    """Run what is missing, print the table and write it; ends with code 1 if a run failed."""
    console, failed = Console(highlight=False), False

    def say(line: str) -> None:
        name, _, found = line.rpartition(": ")
        hidden = found.endswith("%") and not config.test  # of the test
        console.print(f"{name}: done" if hidden else line, markup=False)

    with _lock.held(config.results, "--results"):
        for name in () if config.show else picked(config):
            for names, sets in alike(config):
                trainings = [
                    (job(config, name, dataset, seed), ROWS[name].rates[0], i)
                    for i, dataset in enumerate(names)
                    for seed in range(config.seeds)
                ]
                failed |= _lanes.run(trainings, sets, say, ROWS[name].change)
        lines = list(table(config))
        console.print("\n".join(lines), soft_wrap=True, markup=False)
        write_whole(config.results / "structure.md", "\n".join(lines) + "\n")
    if failed:
        sys.exit(1)


def job(config: Config, name: str, dataset: str, seed: int) -> _runs.Job:
    """One training."""
    row = ROWS[name]
    parts = [
        f"--dataset {yardstick.SETS[dataset]} {row.options} --lr {row.rates[0]:g}",
        f"--epochs {config.epochs}" if config.epochs else "",
        f"--train-size {config.train_size}" if config.train_size else "",
    ]
    return _runs.Job(
        f"{dataset}, {name}, seed {seed}",
        config.results / dataset / _runs.slug(name) / f"{seed}.json", config.results,
        "experiments.learn", " ".join(filter(None, parts)), seed, yardstick.folder(config, dataset),
        {"dataset": dataset, "row": name}, may_be_lost=True,
    )  # fmt: skip


def priced(net: Network) -> tuple[int, int, float]:
    """Synapses, the largest fan-in of a hidden neuron, and hops of a synapse between neurons.

    Neurons sit on the smallest square mesh of cores of 32, where their wiring suggests.
    """
    fan = {n: np.zeros(x.n) for n, x in net.layers.items()}
    for p in net.projections.values():
        fan[p.post] += np.asarray(p.connectivity.fan_in)
    edges, n = topology.wiring(net)
    side = int(np.ceil(np.sqrt(np.ceil(n / PER_CORE))))
    mesh = topology.Mesh(side, side, PER_CORE)
    hops = topology.mean_hops(edges, topology.bisected(edges, n, mesh), mesh)
    most = max(x.max() for name, x in fan.items() if name != "readout")
    return int(sum(x.sum() for x in fan.values())), int(most), float(hops)


def table(config: Config) -> Iterator[str]:
    """Markdown, of what is there."""
    heads = ["validation, %", *(["test, %"] if config.test else [])]
    wide = ["spikes a neuron and step", "synapses", "fan-in", "hops"]
    yield f"| | data | {' | '.join([*heads, *wide])} |"
    yield "|---" * (2 + len(heads) + len(wide)) + "|"
    for name in picked(config):
        for dataset in config.datasets:
            jobs = [job(config, name, dataset, seed) for seed in range(config.seeds)]
            runs = [_runs.kept(x) for x in jobs if x.result.exists()]
            runs = [x for x in runs if "lost" not in x]
            if runs:
                cells = [_mean([x["val_accuracy"][-1] for x in runs])]
                cells += [_mean([x["test_accuracy"] for x in runs])] if config.test else []
                cells.append(f"{np.mean([x['rate'][-1] for x in runs]):.3f}")
                n_in = _inputs(dataset, name.startswith("depth"))
                synapses, most, hops = priced(NETS[name.partition(";")[0]](jax.random.key(0), n_in))
                cells += [f"{synapses:,}", f"{most}", f"{hops:.2f}"]
                yield f"| {name} | {dataset} | {' | '.join(cells)} |"


def _inputs(dataset: str, whole: bool) -> int:
    """Of pictures that are shown whole, or row by row."""
    rows, columns = _SHAPES[yardstick.SETS[dataset]]
    return rows * columns if whole else columns


def _mean(parts: Sequence[float]) -> str:
    percent = [100 * x for x in parts]
    spread = f" ± {np.std(percent, ddof=1):.2f}" if len(percent) > 1 else ""
    return f"{np.mean(percent):.2f}{spread}"


if __name__ == "__main__":
    _run.main(Config, main)
