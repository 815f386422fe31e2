"""What structure is worth: depth and recurrence within a bound on fan-in, a row each.

    python -m experiments.structure --data-dir mnist --fashion-dir fashion --only depth

Protocol. Settings are those of the main experiment and were not tuned here; what differs between
rows is who connects to whom and what teaches lower layers. Rows are compared by validation pictures
alone, and so the table shows; with --test it shows what the test pictures, read once at the end of
each training, have to say. Depth: pictures held, a batch of 64, no augmentation, fan-in at most 256
but for rows named so. Recurrence: pictures row by row, one layer of 512. The seeds of a row, on all
data sets, are one program; a row that is there is not run again.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key
from rich.console import Console

import neurojax as nj
from experiments import (
    _lanes,
    _lock,
    _options,
    _run,
    _runs,
    _small_world,
    _structure_figure,
    _training,
    learn,
    yardstick,
)
from experiments._rewiring import Rewiring
from experiments.published import Row, alike
from hardware import topology
from hardware.energy import LOIHI
from neurojax._check import MOST
from neurojax._files import write_whole
from neurojax.data.event_sets import MADE
from neurojax.network import Network, fold
from neurojax.structured import READOUT

PER_CORE = 32  # neurons
_FIELDS, _SMALL = nj.Sheet(8, window=7, stride=2), nj.Sheet(16, window=5, stride=2)
_TOP = nj.Sheet(512, window=0, far=256)
_MAPS, _WIDE = (nj.Sheet(n, window=7, stride=2, shared=True) for n in (8, 24))
Make = Callable[[Key[Array, ""], int, int], Network]  # of a key, inputs and classes


def _depth(*sheets: nj.Sheet, bound: int | None = 256) -> Make:
    """Layers of maps, from a square picture on, or from two."""

    def make(key: Key[Array, ""], n_in: int, n_classes: int) -> Network:
        pair = math.isqrt(n_in) ** 2 != n_in  # of squares side by side
        side = math.isqrt(n_in // (1 + pair))
        size = 1, side, side * (1 + pair)
        return nj.topographic(
            key, size, sheets, n_classes, neuron=nj.LIF(9.5, 2.0), max_fan_in=bound,
            rule=nj.ThreeFactor(window=nj.triangle(0.5)), readout=nj.LeakyIntegrator(9.5),
        )  # fmt: skip

    return make


def _loop(recurrence: nj.Recurrence, spread: float = 0.0, n: int = 512) -> Make:
    """One layer that is shown rows, whose time constants are spread by a factor e^spread."""

    def make(key: Key[Array, ""], n_in: int, n_classes: int) -> Network:
        u = jax.random.uniform(fold(key, "tau"), (n,), minval=-1.0)
        neuron = nj.LIF(4.5 * jax.numpy.exp(spread * u), 3.0)
        layer = nj.Layer(n, neuron, rule=nj.ThreeFactor())
        return nj.structured(
            key, n_in, [layer], n_classes, population=1, recurrence=recurrence, gain_in=3.0,
            readout=nj.LeakyIntegrator(19.5),
        )  # fmt: skip

    return make


_GRID = partial(nj.Recurrence, "grid", fan_in=60, gain=0.5)
DEPTH: dict[str, Make] = {
    "one layer": _depth(_FIELDS),
    "one layer, synapses of two": _depth(nj.Sheet(24, window=7, stride=2)),
    "one layer, wide windows": _depth(nj.Sheet(8, window=13, stride=2)),
    "one layer, anywhere": _depth(nj.Sheet(640, window=0, far=256)),
    "two layers": _depth(_FIELDS, _TOP),
    "two layers, both local": _depth(_FIELDS, _SMALL),
    "two layers, any fan-in": _depth(_FIELDS, nj.Sheet(512, window=None), bound=None),
    "three layers": _depth(_FIELDS, _SMALL, _TOP),
    "one layer, shared": _depth(_MAPS),
    "one layer, shared, synapses of two": _depth(_WIDE),
    "one layer, shared, wide windows": _depth(nj.Sheet(8, window=13, stride=2, shared=True)),
    "two layers, shared": _depth(_MAPS, _TOP),
    "two layers, shared, any fan-in": _depth(_MAPS, nj.Sheet(512, window=None), bound=None),
    "three layers, shared": _depth(_MAPS, nj.Sheet(16, window=5, stride=2, shared=True), _TOP),
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
        net = make(fold(key, "wiring"), old.n_in, old.n_classes)
        sizes = {n: x.n for n, x in net.layers.items() if n != old.readout}
        told = _training.feedback(None, sizes, old.n_classes, fold(key, "feedback"))
        system = replace(old, network=net, feedback=told, population=None)
        learner = replace(learner, system=system, changes=changes or learner.changes)
        return learner if moves is None else Rewiring(learner, *moves)

    return change


Set = Literal["mnist", "fashion", "digits", "mnist1d", "moving-digits", "sums"]
SUMS = "sums"  # of two digits of MNIST at half the resolution
_LIKE = yardstick.SETS | {SUMS: "mnist"}  # settings, and the command that has them
_SHAPES = {
    "mnist": (28, 28), "fashion": (28, 28), "digits": (8, 8), "mnist1d": (40, 2), MADE: (28, 144),
    SUMS: (14, 28),
}  # fmt: skip
_CLASSES = {MADE: 40, SUMS: 19}  # of all others 10
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
class Data(yardstick.Data):
    """What to learn from."""

    datasets: tuple[Set, ...] = ("mnist", "fashion")  # pyright: ignore[reportIncompatibleVariableOverride]
    """Data sets; depth needs pictures, recurrence lines: of square pictures, mnist1d, or events."""

    needs: ClassVar = (_options.one_of("data_dir", "datasets", "mnist", SUMS),)


@dataclass(frozen=True)
class Run:
    """What to run, and where."""

    only: tuple[str, ...] = ()
    """Rows whose name contains one of these; without, all."""
    seeds: int = 3
    """Seeds of each row, from 0 on."""
    epochs: int | None = None
    """Passes over the training pictures; without, as the row has it."""
    augment: Literal["none", "mirror", "weak", "affine"] = "none"
    """mirror: half of the training pictures are shown left for right; or affine maps of them."""
    synapse: Literal["numbers", "devices"] = "numbers"
    """devices: of 64 levels, linear, pulsed one by one."""
    results: Path = Path("experiments/results/structure")
    """One file a training: SET/ROW/seed.json; the table, its numbers (structure.json), figures."""
    show: bool = False
    """Only print the table of what is there."""
    test: bool = False
    """Show test accuracy too: once all is chosen."""

    whole: ClassVar = dict(epochs=(1, MOST), seeds=(1, 1000))


@dataclass(frozen=True)
class Config(Data, Run):
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
            for names, sets in _sets(config):
                if not _fits(name, names[0]):
                    continue
                trainings = [
                    (job(config, name, dataset, seed), ROWS[name].rates[0], i)
                    for i, dataset in enumerate(names)
                    for seed in range(config.seeds)
                ]
                failed |= _lanes.run(trainings, sets, say, ROWS[name].change)
        found = [measured(config, *row) for row in _there(config)]
        lines = list(table(config, found))
        console.print("\n".join(lines), soft_wrap=True, markup=False)
        write_whole(config.results / "structure.md", "\n".join(lines) + "\n")
        write_whole(config.results / "structure.json", json.dumps(found, indent=1) + "\n")
        for name, image in figures(found):
            write_whole(config.results / f"{name}.png", image)
    if failed:
        sys.exit(1)


def job(config: Config, name: str, dataset: str, seed: int) -> _runs.Job:
    """One training."""
    row = ROWS[name]
    options = row.options
    if config.augment != "none":
        options = f"{options.replace(' --augment none', '')} --augment {config.augment}"
    if dataset == MADE:  # is a row of pixels a step as it is
        options = options.replace(" --presentation rows", "")
    parts = [
        f"--dataset {_LIKE[dataset]} {options} --lr {row.rates[0]:g}",
        f"--epochs {config.epochs}" if config.epochs else "",
        f"--train-size {config.train_size}" if config.train_size else "",
        "--synapse linear --n-states 64" if config.synapse == "devices" else "",
    ]
    return _runs.Job(
        f"{dataset}, {name}, seed {seed}",
        config.results / dataset / _runs.slug(name) / f"{seed}.json", config.results,
        "experiments.learn", " ".join(filter(None, parts)), seed,
        config.data_dir if dataset == SUMS else yardstick.folder(config, dataset),
        {"dataset": dataset, "row": name}, may_be_lost=True,
    )  # fmt: skip


class Cost(NamedTuple):
    """What a network takes, its neurons on the smallest square mesh of cores of 32 that holds them.

    Fields:
        synapses: int
        fan_in: int; the largest of a hidden neuron, its input included
        hops: float; of a synapse between neurons, mean
        hops_spike: float; of a spike, sent as a multicast tree
        joules: float, J; of one picture on Loihi, all neurons firing alike
    """

    synapses: int
    fan_in: int
    hops: float
    hops_spike: float
    joules: float


def priced(net: Network, rate: float, n_steps: int) -> Cost:
    """Of a network whose hidden neurons fire `rate` spikes a step, placed where wiring suggests."""
    fan = {n: np.zeros(x.n) for n, x in net.layers.items()}
    for p in net.projections.values():
        fan[p.post] += np.asarray(p.connectivity.fan_in)
    edges, n = topology.wiring(net)
    side = int(np.ceil(np.sqrt(np.ceil(n / PER_CORE))))
    mesh = topology.Mesh(side, side, PER_CORE)
    rates = {name: jax.numpy.full(x.n, rate) for name, x in net.layers.items() if name != READOUT}
    system = nj.wta_broadcast.system(jax.random.key(0), net, n_steps=n_steps, start=0)
    price = _small_world.price(system, rates, topology.bisected(edges, n, mesh), mesh)
    most = max(x.max() for name, x in fan.items() if name != READOUT)
    return Cost(
        int(sum(x.sum() for x in fan.values())), int(most), float(price.hops_per_edge),
        float(price.hops_per_spike), float(price.energy.total),
    )  # fmt: skip


def _sets(config: Config) -> Iterator[tuple[list[str], list[nj.data.Dataset]]]:
    """Names of data sets of one shape, and what is in them."""
    others = tuple(name for name in config.datasets if name != SUMS)
    yield from alike(yardstick.Data(others, config.data_dir, config.fashion_dir))  # pyright: ignore[reportArgumentType]
    if SUMS in config.datasets:
        pairs = nj.data.sums(nj.data.load("mnist", config.data_dir))
        train, val, test = (_halved(x) for x in (pairs.train, pairs.val, pairs.test))
        yield [SUMS], [pairs._replace(train=train, val=val, test=test)]


def _halved(split: nj.data.Split) -> nj.data.Split:
    """Means of 2 x 2 pixels."""
    images: Any = split.images
    n, rows, columns = images.shape
    few = images.reshape(n, rows // 2, 2, columns // 2, 2).mean((2, 4))
    return nj.data.Split(few, split.labels)


def _fits(name: str, dataset: str) -> bool:
    """Whether a row can be shown what is in a data set: still pictures, or what comes in steps."""
    rows, columns = _SHAPES[dataset]
    return rows == columns or name.startswith("depth") == (dataset == SUMS)


def _there(config: Config) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Row, data set and runs, of what is there and has not been lost."""
    for name in picked(config):
        for dataset in config.datasets:
            jobs = [job(config, name, dataset, seed) for seed in range(config.seeds)]
            runs = [_runs.kept(x) for x in jobs if x.result.exists()]
            if runs := [x for x in runs if "lost" not in x]:
                yield name, dataset, runs


def measured(config: Config, name: str, dataset: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs of a row have come to, and what it costs; accuracies in %, one a seed.

    Changes are of weights, one a batch and synapse, each a visit of 120 pJ on Loihi; on devices
    they are pulses, which cost what the devices take.
    """
    rows, columns = _SHAPES[dataset]
    whole, rate = name.startswith("depth"), float(np.mean([x["rate"][-1] for x in runs]))
    n_in = rows * columns if whole else columns
    net = NETS[name.partition(";")[0]](jax.random.key(0), n_in, _CLASSES.get(dataset, 10))
    cost = priced(net, rate, 20 if whole else rows)
    pulsed = [list(x["devices"].values()) for x in runs if "devices" in x]
    changes = float(np.mean(
        [sum(w["n_pulses"] for w in each) for each in pulsed]
        or [x["weight_updates"] for x in runs]
    ))  # fmt: skip
    learning = (
        float(np.mean([sum(w["energy"] for w in each) for each in pulsed]))
        if pulsed
        else changes * float(LOIHI.learning.value)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
    )
    test = {"test": [100 * x["test_accuracy"] for x in runs]} if config.test else {}
    return {
        "row": name, "data": dataset, "val": [100 * x["val_accuracy"][-1] for x in runs], **test,
        "rate": rate, **cost._asdict(), "changes": changes, "learning_joules": learning,
    }  # fmt: skip


def table(config: Config, found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown, of what has been `measured`."""
    made = "pulses" if config.synapse == "devices" else "changes"
    heads = [
        "validation, %", *(["test, %"] if config.test else []), "spikes a neuron and step",
        "synapses", "fan-in", "hops a synapse", "a spike", "inference, uJ", made, "learning, mJ",
    ]  # fmt: skip
    yield f"| | data | {' | '.join(heads)} |"
    yield "|---" * (2 + len(heads)) + "|"
    for x in found:
        cells = [_mean(x["val"]), *([_mean(x["test"])] if config.test else [])]
        cells += [f"{x['rate']:.3f}", f"{x['synapses']:,}", f"{x['fan_in']}", f"{x['hops']:.2f}"]
        cells += [f"{x['hops_spike']:.1f}", f"{1e6 * x['joules']:.3g}", f"{x['changes']:.2e}"]
        cells.append(f"{1e3 * x['learning_joules']:.3g}")
        yield f"| {x['row']} | {x['data']} | {' | '.join(cells)} |"


def figures(found: Sequence[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Name and image of each study on each data set, of what has been `measured`."""
    for study, dataset in product(_SHOWN, dict.fromkeys(x["data"] for x in found)):
        some = [x for x in found if x["row"].startswith(study) and x["data"] == dataset]
        if some:
            name = lambda x: x["row"].partition(": ")[2].partition("; ")  # noqa: E731
            rows = [x | {"row": name(x)[0], "kind": name(x)[2]} for x in some]
            yield f"{study}-{dataset}", _structure_figure.png(_structure_figure.drawn(rows))


def _mean(percent: Sequence[float]) -> str:
    spread = f" ± {np.std(percent, ddof=1):.2f}" if len(percent) > 1 else ""
    return f"{np.mean(percent):.2f}{spread}"


if __name__ == "__main__":
    _run.main(Config, main)
