"""Run the experiment's table, run by run, and print what there is of it.

    python -m experiments.table --data-dir path/to/mnist --jobs 2

Each finished run leaves one file in --results, and is not run again; an interrupted run goes
on from its last epoch. So the table can be made in pieces, across days, and on many machines:
N tasks with --part 1/N to N/N share --results and --runs, and no row is run twice.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments import _lock, _options, _run, _runs, _signals

_LOCAL, _SURROGATE = "experiments.wta_broadcast", "experiments.surrogate_reference"
_MNIST, _FASHION = "--dataset mnist", "--dataset idx"
_SMALL = f"{_MNIST} --hidden 256 256 --epochs 5"
_SINGLE = (  # so few weights to read with cannot fit augmented pictures
    f"{_MNIST} --readout-population 1 --augment none --gain 30 --weight-decay 0 --homeostasis 2"
)
_SPIKING = "--readout spiking --lr-readout {} --gain {} --inhibition 0.3 --weight-decay 0"
_ROWS = f"{_MNIST} --presentation rows --readout-density 1 --readout-population 1"
_SGD = f"{_SMALL} --optimiser momentum --lr 0.02 --lr-readout 0.02"

# name: (module, options); every row is run with each seed.
ROWS: dict[str, tuple[str, str]] = {
    "digits": (_LOCAL, "--dataset digits"),
    "digits, frozen": (_LOCAL, "--dataset digits --freeze-hidden"),
    "density 100%": (_LOCAL, f"{_MNIST} --readout-density 1"),
    "density 5%": (_LOCAL, _MNIST),
    "density 2%": (_LOCAL, f"{_MNIST} --readout-density 0.02"),
    "density 100%, symmetric": (_LOCAL, f"{_MNIST} --readout-density 1 --feedback symmetric"),
    "density 5%, symmetric": (_LOCAL, f"{_MNIST} --feedback symmetric"),
    "density 2%, symmetric": (_LOCAL, f"{_MNIST} --readout-density 0.02 --feedback symmetric"),
    "density 5%, P = 1": (_LOCAL, _SINGLE),
    "density 2%, P = 1": (_LOCAL, f"{_SINGLE} --readout-density 0.02"),
    "density 5%, P = 1, symmetric": (_LOCAL, f"{_SINGLE} --feedback symmetric"),
    "density 2%, P = 1, symmetric": (
        _LOCAL,
        f"{_SINGLE} --feedback symmetric --readout-density 0.02",
    ),
    "frozen, 100%": (_LOCAL, f"{_MNIST} --readout-density 1 --freeze-hidden"),
    "frozen, 5%": (_LOCAL, f"{_MNIST} --freeze-hidden"),
    "surrogate gradient, 100%": (_SURROGATE, f"{_MNIST} --readout-density 1"),
    "density 5%, symmetric, few spikes": (
        _LOCAL,
        f"{_MNIST} --feedback symmetric --target-rate 0.01 --rate-penalty 0.1",
    ),
    "spiking readout, 5%": (_LOCAL, f"{_MNIST} {_SPIKING.format(0.1, 60)}"),
    "spiking readout, 5%, symmetric": (
        _LOCAL,
        f"{_MNIST} {_SPIKING.format(0.03, 30)} --feedback symmetric",
    ),
    "rows: dense, 512": (_LOCAL, _ROWS),
    "rows: dense, 512, mixed time constants, symmetric": (
        _LOCAL,
        f"{_ROWS} --feedback symmetric --tau-spread 1",
    ),
    "rows: dense, 256": (_LOCAL, f"{_ROWS} --hidden 256 --lr 0.01"),
    "rows: fixed dense": (_LOCAL, f"{_ROWS} --no-learn-recurrence"),
    "rows: none": (_LOCAL, f"{_ROWS} --recurrence none"),
    "rows: ring": (_LOCAL, f"{_ROWS} --recurrence local"),
    "rows: fixed ring": (_LOCAL, f"{_ROWS} --recurrence local --no-learn-recurrence"),
    "rows: none, mixed time constants": (_LOCAL, f"{_ROWS} --recurrence none --tau-spread 1"),
    "rows: frozen": (_LOCAL, f"{_ROWS} --freeze-hidden"),
    "rows: surrogate gradient": (_SURROGATE, _ROWS),
    "control: 2 x 256": (_LOCAL, _SMALL),
    "control: no recurrence": (_LOCAL, f"{_SMALL} --recurrence none"),
    "control: p = 0": (_LOCAL, f"{_SMALL} --p-rewire 0"),
    "control: p = 1, random": (_LOCAL, f"{_SMALL} --p-rewire 1"),
    "control: feedback redrawn": (_LOCAL, f"{_SMALL} --redraw-feedback"),
    "control: hard WTA": (_LOCAL, f"{_SMALL} --teacher hard"),
    "control: K = 1": (_LOCAL, f"{_SMALL} --bandwidth 1"),
    "control: K = 2": (_LOCAL, f"{_SMALL} --bandwidth 2"),
    "control: K = 4": (_LOCAL, f"{_SMALL} --bandwidth 4"),
    "control: one layer of 512": (_LOCAL, f"{_SMALL} --hidden 512"),
    "control: M = 0, momentum": (_LOCAL, _SGD),
    "control: M = 1, momentum": (_LOCAL, f"{_SGD} --modulators 1"),
    "control: M = 4, momentum": (_LOCAL, f"{_SGD} --modulators 4"),
    "control: shuffled labels": (_LOCAL, f"{_SMALL} --shuffle-labels"),
    # settings that nobody tuned on it
    "other data: Fashion-MNIST": (_LOCAL, f"{_FASHION} --feedback symmetric"),
    "other data: Fashion-MNIST, broadcast": (_LOCAL, f"{_FASHION} --feedback broadcast"),
}

# The main network on devices: digits over levels, nonlinearity and update, then MNIST.
_SYNAPSES = {
    "linear": "--synapse linear",
    "exponential 2": "--synapse exponential --nonlinearity 2",
    "exponential 5": "--synapse exponential --nonlinearity 5",
}
ROWS |= {
    f"devices: digits, {synapse}, {n} levels, {update}": (
        _LOCAL, f"--dataset digits {options} --n-states {n} --update {update}",
    )
    for synapse, options in _SYNAPSES.items()
    for n in (16, 64, 256)
    for update in ("unidirectional", "mixed-precision")
} | {
    f"devices: MNIST, {synapse}, 64 levels, {update}": (
        _LOCAL, f"{_MNIST} {options} --update {update}",
    )
    for synapse, options in _SYNAPSES.items()
    for update in ("unidirectional", "mixed-precision")
} | {
    f"devices: {name}, linear, 64 levels, unidirectional, open loop": (
        _LOCAL, f"{options} --synapse linear --update unidirectional --write open-loop",
    )
    for name, options in (("digits", "--dataset digits --n-states 64"), ("MNIST", _MNIST))
}  # fmt: skip


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    data_dir: Path | None = None
    """Folder of the MNIST files; without, $NEUROJAX_DATA."""
    fashion_dir: Path | None = None
    """Folder of the Fashion-MNIST files; without, its row is not run."""


@dataclass(frozen=True)
class Run:
    """What to run, and where."""

    results: Path = Path("experiments/results")
    """One file a finished run: ROW/seed.json."""
    runs: Path = Path("runs/table")
    """Working folders of the runs, with checkpoints and figures."""
    only: tuple[str, ...] = ()
    """Rows whose name contains one of these; without, all."""
    seeds: int = 3
    """Seeds of each row, from 0 on."""
    jobs: int = 1
    """Runs side by side, each on a core of its own."""
    part: str | None = None
    """K/N: of N equal parts of the table the K-th, as one task of N that share --results."""
    show: bool = False
    """Only print the table of what is there."""


@dataclass(frozen=True)
class Config(Data, Run):
    """Every option of the table."""

    needs = (_options.one_of("data_dir fashion_dir jobs part seeds", "show", False),)

    def __post_init__(self):
        _run.require_paths(self)
        _run.require_whole(self, seeds=(1, _run.MANY), jobs=(1, max(2, os.cpu_count() or 1)))
        _options.refuse_idle(self, _options.needs(Config), lambda name: getattr(Config, name))
        _runs.share(self.part)


def main(config: Config) -> None:
    """Run what is missing, one seed of every row before the next seed, and print the table.

    Ends with code 1 if a run failed or a result is not what was written; the others are shown.
    """
    console = Console(highlight=False)
    _signals.goes_on()
    rows = picked(config.only)
    _refuse_absent(config)
    with ExitStack() as held:
        if not config.show:
            for folder, option in ((config.results, "--results"), (config.runs, "--runs")):
                held.enter_context(_lock.held(_runs.own(folder, config.part), option))
        failed = not config.show and run_missing(config, rows, console)
        damaged: list[str] = []
        for line in table(config, rows, damaged):
            console.print(line, soft_wrap=True, markup=False)
        for line in damaged:
            console.print(f"left out: {line}", soft_wrap=True, markup=False)
    if failed or damaged:
        sys.exit(1)


def _refuse_absent(config: Config) -> None:
    """Refuse folders of data that are not there, before anything is run."""
    for name in ("data_dir", "fashion_dir"):
        folder = getattr(config, name)
        if folder is not None and not folder.is_dir():
            option = f"--{_run.dashed(name)}"
            raise ValueError(f"{option} must be a folder that is there; got {str(folder)!r}")


def picked(only: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """The rows whose name contains one of these; one that is in none is refused."""
    for part in only:
        if not any(part in name for name in ROWS):
            words = {word for name in ROWS for word in (name, *re.findall(r"[\w-]+", name))}
            near = get_close_matches(part, sorted(words), cutoff=0.5)
            groups = sorted({re.split("[:,]", name)[0] for name in ROWS})
            cure = f"did you mean {' or '.join(map(repr, near))}?"
            raise ValueError(
                f"--only must be part of the name of a row; got {part!r};"
                f" {cure if near else 'rows: ' + ', '.join(groups)}"
            )
    return {n: r for n, r in ROWS.items() if not only or any(part in n for part in only)}


def run_missing(config: Config, rows: dict[str, tuple[str, str]], console: Console) -> bool:
    """Run what has no result yet, `config.jobs` at once; whether any run failed."""
    jobs = [job(config, row, seed) for seed, row in mine(config, rows)]
    return _runs.run(jobs, config.jobs, lambda line: console.print(line, markup=False))


def mine(config: Config, rows: dict[str, tuple[str, str]]) -> list[tuple[int, str]]:
    """Seeds and rows that this part runs, whatever --only and --seeds leave of the others."""
    k, n = _runs.share(config.part)
    place = {row: i for i, row in enumerate(ROWS)}
    return [
        (seed, row)
        for seed in range(config.seeds)
        for row, (_, options) in rows.items()
        if (seed * len(ROWS) + place[row]) % n == k - 1
        and (config.fashion_dir or _FASHION not in options)
    ]


def job(config: Config, row: str, seed: Any) -> _runs.Job:
    """One run of a row."""
    module, options = ROWS[row]
    return _runs.Job(
        f"{row}, seed {seed}", config.results / _runs.slug(row) / f"{seed}.json",
        config.runs / _runs.slug(row) / str(seed), module, options, seed,
        next((f for x, f in _folders(config).items() if x in options), None), {"row": row},
    )  # fmt: skip


def _folders(config: Config) -> dict[str, Path | None]:
    """Where the data of rows lie, by the option that names the data; the digits are embedded."""
    return {_MNIST: config.data_dir, _FASHION: config.fashion_dir}


def table(config: Config, rows: dict[str, tuple[str, str]], damaged: list[str]) -> Iterator[str]:
    """Markdown: mean and standard deviation over the seeds that are there and undamaged."""
    yield (
        "| row | test accuracy, % | seeds | spikes a neuron and step | active, % |"
        " each layer alone, % | events an inference | s an epoch |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        results = []
        for file in sorted((config.results / _runs.slug(row)).glob("*.json")):
            seed = int(file.stem) if file.stem.isdecimal() else file.stem
            try:
                results.append(_runs.kept(job(config, row, seed)))
            except ValueError as error:
                damaged.append(f"{error}; take it away, and it is run again")
        if results:
            yield _line(row, results)


def _line(row: str, runs: list[dict]) -> str:
    mean = lambda key, scale=1.0: np.mean([r[key] for r in runs], axis=0) * scale  # noqa: E731
    accuracy = [100 * r["test_accuracy"] for r in runs]
    spread = f" ± {np.std(accuracy, ddof=1):.2f}" if len(runs) > 1 else ""
    each = lambda x, form: " / ".join(format(v, form) for v in np.atleast_1d(x))  # noqa: E731
    cells = [
        row,
        f"{np.mean(accuracy):.2f}{spread}",
        str(len(runs)),
        each(mean("spikes_per_neuron_step"), ".3f"),
        each(mean("active_fraction", 100), ".0f"),
        each(mean("layer_readout_accuracy", 100), ".1f"),
        f"{mean('synaptic_events_per_inference'):,.0f}",
        f"{np.mean([np.median(r['seconds_per_epoch']) for r in runs]):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    _run.main(Config, main)
