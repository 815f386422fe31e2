"""Every learner on one network, one budget, as numbers and on devices: the table and its figure.

    python -m experiments.yardstick --data-dir mnist --fashion-dir fashion --jobs 2

A perceptron n-256-256-10 and a spiking net of the same size, batches of 100, plain gradient steps
whose rate falls along a cosine. The rate of each cell is found by one search: each of --lr once,
for --search-epochs, from a seed of its own; the best validation accuracy at its end decides, and
no test picture. Then each seed is trained for --epochs, and the test set read once at the end.

Each finished run leaves one file in --results, and is not run again; an interrupted run goes on
from its last epoch. So the table can be made in pieces, across days, and on many machines: N
tasks with --part 1/N to N/N share --results and --runs, each has cells of its own, which it
searches and trains, and no run is made twice. With --together the rates of a search are one
program, and so are all seeds, of both sets: what an accelerator wants, and the same runs to
rounding, whose seconds an epoch are then those of all that ran side by side.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from rich.console import Console

from experiments import _lock, _options, _run, _runs, _signals
from experiments._learners import RECIPES
from neurojax import data
from neurojax._check import MOST
from neurojax._files import unsealed, write_whole
from neurojax.data.event_sets import MADE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Literal[
    "frozen", "backprop", "fa", "dfa", "drtp", "pepita", "forward_forward", "dtp",
    "predictive_coding", "softhebb", "node_perturbation", "counter_current", "equilibrium",
    "noprop", "zeroth_order", "boltzmann", "spiking_frozen", "surrogate", "wta_broadcast",
    "decolle", "eprop",
]  # fmt: skip
Set = Literal["mnist", "fashion", "digits"]

_SYSTEM = "--recurrence none --readout-density 1 --readout-population 1"
# Where it is more than the learner of that name.
_MORE: dict[str, tuple[str, str]] = {
    "frozen": ("backprop", "--freeze-hidden"),
    "spiking_frozen": ("wta_broadcast", f"{_SYSTEM} --freeze-hidden"),
    "surrogate": ("surrogate", _SYSTEM),
    "wta_broadcast": ("wta_broadcast", _SYSTEM),
    "eprop": ("eprop", "--recurrence none"),
}
COLUMNS = {
    "numbers": "",
    "linear, 64 levels": "--synapse linear --n-states 64",
    "e^-2, 20% variation, open loop": (
        "--synapse exponential --nonlinearity 2 --n-states 64 --sigma-d2d 0.2 --write open-loop"
    ),
}
_ENDS = {"frozen": "frozen hidden layers", "backprop": "backprop"}
# Files of the same names, and the same settings; all others are made, or embedded.
SETS = {"mnist": "mnist", "fashion": "mnist"} | {x: x for x in ("digits", "mnist1d", MADE)}
_LEAST = 60.0  # %, that the figure has room for
_SEARCH_SEED = 1_000_000  # what is chosen is not chosen for the table's own draws


@dataclass(frozen=True)
class Network:
    """One size for all."""

    hidden: tuple[int, ...] = (256, 256)
    """Neurons of each hidden layer."""

    whole: ClassVar = dict(hidden=(1, MOST))


@dataclass(frozen=True)
class Learning:
    """One budget for all."""

    epochs: int = 10
    """Passes over the training pictures."""
    batch_size: int = 100
    """Pictures a weight change."""
    lr: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates that the search tries, in each cell of the table."""
    search_epochs: int = 2
    """Passes of each trial of the search."""

    whole: ClassVar = {name: (1, MOST) for name in ("epochs", "batch_size", "search_epochs")}
    within: ClassVar = dict(lr="(0, inf)")


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    datasets: tuple[Set, ...] = ("mnist", "fashion")
    """Data sets, a table each."""
    data_dir: Path | None = None
    """Folder of the MNIST files; without, $NEUROJAX_DATA."""
    fashion_dir: Path | None = None
    """Folder of the Fashion-MNIST files."""
    train_size: int | None = None
    """Use this many training pictures only; without, all of them."""

    needs: ClassVar = (
        _options.one_of("data_dir", "datasets", "mnist"),
        _options.one_of("fashion_dir", "datasets", "fashion"),
    )
    whole: ClassVar = dict(train_size=(1, MOST))


@dataclass(frozen=True)
class Run:
    """What to run, and where."""

    results: Path = Path("experiments/results/yardstick")
    """One file a finished run: SET/LEARNER/COLUMN/seed.json; the table and the figure."""
    runs: Path = Path("runs/yardstick")
    """Working folders of the runs; each goes when its run is complete."""
    learners: tuple[Row, ...] = ()
    """Rows of the table; without, all."""
    seeds: int = 3
    """Seeds of each cell, from 0 on."""
    jobs: int = 1
    """Runs side by side, each on a core of its own."""
    part: str | None = None
    """K/N: of N equal parts of the cells the K-th, as one task of N that share --results."""
    together: bool = False
    """A search is one program, and so are the seeds, in this process: for accelerators."""
    show: bool = False
    """Only print the table of what is there."""

    needs: ClassVar = (
        _options.one_of("jobs part together", "show", False),
        _options.one_of("jobs", "together", False),
    )


@dataclass(frozen=True)
class Config(Network, Learning, Data, Run):
    """Every option of the table."""

    def __post_init__(self):
        _run.require_paths(self)
        filled = "hidden", "lr", "datasets"
        _run.require_lists(self, filled, once=("lr", "datasets", "learners"))
        _run.require_whole(self, seeds=(1, _run.MANY), jobs=(1, max(2, os.cpu_count() or 1)))
        _run.require_ranges(self)
        _options.refuse_idle(self, _options.needs(Config), lambda name: getattr(Config, name))
        _runs.share(self.part)


class Cell(NamedTuple):
    """One learner on one kind of synapse and one data set."""

    dataset: str
    row: str
    column: str

    @property
    def learner(self) -> tuple[str, str]:
        """Its name, and what else is asked of it."""
        return _MORE.get(self.row, (self.row, ""))

    @property
    def refused(self) -> str:
        """Why there is nothing to be run; empty where there is."""
        return RECIPES[self.learner[0]].numbers_only if COLUMNS[self.column] else ""


class Outcome(NamedTuple):
    """What the seeds of a cell have come to, means over them."""

    accuracy: float  # %
    spread: float | None  # standard deviation, %
    changes: float  # of weights, or pulses
    seconds: float  # an epoch
    lr: float


def main(config: Config) -> None:
    """Run what is missing, print the table and write it beside its figure.

    Ends with code 1 if a run failed or a result is not what was written; the others are shown.
    """
    console, damaged = Console(highlight=False), list[str]()
    _signals.goes_on()
    _refuse_absent(config)
    with ExitStack() as held:
        if not config.show:
            for folder, option in ((config.results, "--results"), (config.runs, "--runs")):
                held.enter_context(_lock.held(_runs.own(folder, config.part), option))
        failed = not config.show and _run_missing(config, console)
        found = {cell: outcome(config, cell, damaged) for cell in cells(config)}
        lines = list(table(config, found))
        console.print("\n".join(lines), soft_wrap=True, markup=False)
        if not config.show and any(found.values()):
            write_whole(config.results / "yardstick.md", "\n".join(lines) + "\n")
            write_whole(config.results / "yardstick.png", _drawn(figure(config, found)))
    for line in dict.fromkeys(damaged):
        console.print(f"left out: {line}", soft_wrap=True, markup=False)
    if failed or damaged:
        sys.exit(1)


def _refuse_absent(config: Config) -> None:
    """Refuse data that are not there, before anything is run."""
    for name in () if config.show else config.datasets:
        if name == "fashion" and config.fashion_dir is None:
            raise ValueError(
                "--fashion-dir must name the folder of the Fashion-MNIST files; got none; pass it,"
                " or --datasets mnist"
            )
        sets = data.load(SETS[name], folder(config, name))
        _run.n_train(sets, config.train_size, config.batch_size)


def folder(config: Data, dataset: str) -> Path | None:
    """Where the pictures of a data set lie."""
    return {"mnist": config.data_dir, "fashion": config.fashion_dir}.get(dataset)


def cells(config: Config) -> list[Cell]:
    """All cells of the table."""
    rows = config.learners or get_args(Row)
    return [Cell(*names) for names in product(config.datasets, rows, COLUMNS)]


# --- runs ---


def mine(config: Config) -> list[Cell]:
    """Cells that this part runs, whatever --datasets and --learners leave of the others."""
    k, n = _runs.share(config.part)
    # The sets of a row and a column are with one part: --together makes them one program.
    kinds = [Cell("", *names) for names in product(get_args(Row), COLUMNS)]
    able = [cell._replace(dataset="") for cell in kinds if not cell.refused]
    own = {*able[k - 1 :: n]}
    return [cell for cell in cells(config) if cell._replace(dataset="") in own]


def _run_missing(config: Config, console: Console) -> bool:
    """The search of all cells, then one seed of all cells before the next; whether any failed."""
    able = mine(config)
    say = lambda line: console.print(line, markup=False)  # noqa: E731
    if config.together:
        return _run_together(config, able, say)
    new = [cell for cell in able if _taken(config, cell) is None]
    tried = [search(config, cell, lr) for cell in new for lr in config.lr]
    failed = _runs.run(tried, config.jobs, say)
    rates = {cell: rate(config, cell, []) for cell in able}
    jobs = [
        final(config, cell, lr, seed)
        for seed in range(config.seeds)
        for cell, lr in rates.items()
        if lr is not None
    ]
    return _runs.run(jobs, config.jobs, say) or failed


def _run_together(config: Config, able: list[Cell], say: Callable[[str], Any]) -> bool:
    """The search, then the seeds at the rates found, of cells of one kind; whether any failed."""
    from experiments import _lanes  # compilers are slow to import

    failed = False
    for kind in dict.fromkeys(SETS[name] for name in config.datasets):
        names = [name for name in config.datasets if SETS[name] == kind]
        sets = [data.load(kind, folder(config, name)) for name in names]
        for row, column in dict.fromkeys((cell.row, cell.column) for cell in able):
            alike = [Cell(name, row, column) for name in names]
            tried = [
                (search(config, cell, lr), lr, i)
                for i, cell in enumerate(alike)
                if _taken(config, cell) is None
                for lr in config.lr
            ]
            failed |= _lanes.run(tried, sets, say)
            seeds = [
                (final(config, cell, lr, seed), lr, i)
                for i, cell in enumerate(alike)
                if (lr := rate(config, cell, [])) is not None
                for seed in range(config.seeds)
            ]
            failed |= _lanes.run(seeds, sets, say)
    return failed


def search(config: Config, cell: Cell, lr: float) -> _runs.Job:
    """One trial of the search."""
    options = _of(config, cell, lr, config.search_epochs)
    return _job(config, cell, f"search-{lr:g}", options, _SEARCH_SEED)._replace(may_be_lost=True)


def final(config: Config, cell: Cell, lr: float, seed: int) -> _runs.Job:
    """One seed, at the rate that was chosen."""
    return _job(config, cell, f"seed-{seed}", _of(config, cell, lr, config.epochs), seed)


def _job(config: Config, cell: Cell, what: str, options: str, seed: int) -> _runs.Job:
    place = Path(cell.dataset, cell.row, _runs.slug(cell.column))
    return _runs.Job(
        f"{', '.join(cell)}, {what.replace('-', ' ', 1)}", config.results / place / f"{what}.json",
        config.runs / place / what, "experiments.learn", options, seed,
        folder(config, cell.dataset), cell._asdict(), passing=True,
    )  # fmt: skip


def _of(config: Config, cell: Cell, lr: float, epochs: int) -> str:
    """The options of a run."""
    learner, more = cell.learner
    reads = RECIPES[learner].reads.split()
    hidden = _options.typed("hidden", config.hidden)
    parts = [
        f"--learner {learner} --dataset {SETS[cell.dataset]} {hidden} --epochs {epochs}",
        f"--batch-size {config.batch_size} --optimiser sgd --lr {lr:g} --weight-decay 0",
        "--inputs raw --augment none",
        f"--lr-readout {lr:g}" if "lr_readout" in reads else "",
        "--schedule cosine" if "schedule" in reads else "",  # that of those without is one
        f"--train-size {config.train_size}" if config.train_size else "",
        more, COLUMNS[cell.column],
    ]  # fmt: skip
    return " ".join(filter(None, parts))


def rate(config: Config, cell: Cell, damaged: list[str]) -> float | None:
    """That of the seeds that are there, which need their search no more; else of its best trial."""
    taken = _taken(config, cell)
    return chosen(config, cell, damaged) if taken is None else taken


def _taken(config: Config, cell: Cell) -> float | None:
    """The rate of the first seed that is there."""
    for seed in range(config.seeds):
        try:
            return float(unsealed(final(config, cell, 0.0, seed).result)["config"]["lr"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def chosen(config: Config, cell: Cell, damaged: list[str]) -> float | None:
    """The rate of the best trial, of equal ones the lowest; None where none is known."""
    best, rate = 0.0, None
    for lr in sorted(config.lr):
        tried = _kept(search(config, cell, lr), damaged)
        if tried and "lost" not in tried and tried["val_accuracy"][-1] > best:
            best, rate = tried["val_accuracy"][-1], lr
    return rate


def _kept(job: _runs.Job, damaged: list[str]) -> dict[str, Any] | None:
    """The result of a run, None where there is none that is right."""
    if not job.result.exists():
        return None
    try:
        return _runs.kept(job)
    except ValueError as error:
        damaged.append(f"{error}; take it away, and it is run again")
        return None


# --- what is shown ---


def outcome(config: Config, cell: Cell, damaged: list[str]) -> Outcome | None:
    """What there is of a cell."""
    lr = None if cell.refused else rate(config, cell, damaged)
    if lr is None:
        return None
    jobs = [final(config, cell, lr, seed) for seed in range(config.seeds)]
    runs = [kept for job in jobs if (kept := _kept(job, damaged))]
    if not runs:
        return None
    accuracy = [100 * run["test_accuracy"] for run in runs]
    spread = float(np.std(accuracy, ddof=1)) if len(runs) > 1 else None
    changes = float(np.mean([_changes(run) for run in runs]))
    seconds = float(np.mean([np.median(run["seconds_per_epoch"]) for run in runs]))
    return Outcome(float(np.mean(accuracy)), spread, changes, seconds, lr)


def _changes(run: dict[str, Any]) -> float:
    """Pulses of devices, or how often a weight was changed."""
    if "devices" in run:
        return sum(array["n_pulses"] for array in run["devices"].values())
    return run["weight_updates"]


def table(config: Config, found: dict[Cell, Outcome | None]) -> Iterator[str]:
    """Markdown, a table for each data set."""
    for dataset in config.datasets:
        yield f"{dataset}:"
        yield ""
        heads = [f"{c}: accuracy, % | {_unit(c)} | s an epoch | rate" for c in COLUMNS]
        yield f"| learner | {' | '.join(heads)} |"
        yield "|---" * (1 + 4 * len(COLUMNS)) + "|"
        for row in dict.fromkeys(cell.row for cell in found):
            texts = [_texts(config, Cell(dataset, row, column), found) for column in COLUMNS]
            yield f"| {_ENDS.get(row, row)} | {' | '.join(texts)} |"
        yield ""


def _unit(column: str) -> str:
    return "pulses" if COLUMNS[column] else "weight updates"


def _texts(config: Config, cell: Cell, found: dict[Cell, Outcome | None]) -> str:
    """Four columns of the table."""
    seen = found[cell]
    if seen is None:
        return f"{cell.refused or 'not run'} | | | "
    spread = "" if seen.spread is None else f" ± {seen.spread:.2f}"
    rate = f"{seen.lr:g}" + ", an end" * (seen.lr in (min(config.lr), max(config.lr)))
    return f"{seen.accuracy:.2f}{spread} | {seen.changes:.2g} | {seen.seconds:.1f} | {rate}"


def figure(config: Config, found: dict[Cell, Outcome | None]) -> "Figure":
    """Accuracy of each learner, a mark for each kind of synapse, a panel for each data set.

    What is far below all others is written at the edge, in the colour of its mark.
    """
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(cell.row for cell, seen in found.items() if seen))
    size = (1.5 + 4.2 * len(config.datasets), 1.4 + 0.32 * len(rows))
    drawn = Figure(size, layout="constrained")
    panels = drawn.subplots(1, len(config.datasets), sharey=True, squeeze=False)[0]
    for ax, dataset in zip(panels, config.datasets, strict=True):
        for k, (column, mark) in enumerate(zip(COLUMNS, "os^", strict=True)):
            cells = [(found[Cell(dataset, r, column)], i) for i, r in enumerate(rows)]
            seen = [(x, i) for x, i in cells if x is not None]
            for x, i in ((x, i) for x, i in seen if x.accuracy < _LEAST):
                text, edge = f"← {x.accuracy:.0f}%", ax.get_yaxis_transform()
                ax.text(0.01 + 0.12 * k, i, text, transform=edge, va="center", color=f"C{k}")
            at = [(x, i) for x, i in seen if x.accuracy >= _LEAST]
            ax.errorbar(
                [x.accuracy for x, _ in at], [i for _, i in at],
                xerr=[x.spread or 0 for x, _ in at], fmt=mark, label=column, markersize=5,
                color=f"C{k}",
            )  # fmt: skip
        ax.set(title=dataset, xlabel="test accuracy, %", yticks=range(len(rows)))
        ax.set_yticklabels([_ENDS.get(r, r) for r in rows])
        ax.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    marks = panels[0].get_legend_handles_labels()
    drawn.legend(*marks, fontsize="small", loc="outside lower center", ncols=len(COLUMNS))
    return drawn


def _drawn(drawn: "Figure") -> bytes:
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


if __name__ == "__main__":
    _run.main(Config, main)
