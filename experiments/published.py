"""Published networks with their published settings, and learners as no option makes them.

    python -m experiments.published --rows dfa fa --data-dir mnist --fashion-dir fashion

Each row is a training of `experiments.learn`, all of whose rates and seeds are one program, on
both data sets at once. The rate of a row is the one of most validation accuracy at the end of the
training, mean over seeds; the test pictures are read once, there. A row that is there is not run
again. Of accelerators ask for whole single precision: JAX_DEFAULT_MATMUL_PRECISION=highest, as
nudges are lost in products of fewer digits.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Key
from rich.console import Console

import neurojax as nj
from experiments import _lanes, _lock, _options, _run, _runs, learn, yardstick
from experiments._learners import RECIPES
from neurojax import data
from neurojax._check import MOST
from neurojax._files import write_whole
from neurojax.learning import NoProp, SpikingBlock
from neurojax.network import fold


class Row(NamedTuple):
    """One network.

    Fields:
        options: of `experiments.learn`
        rates: that are tried; none: the learner's own
        published: accuracy, %, by data set; as its source has it
        change: callable, (learner, key) -> learner, what no option says
    """

    options: str
    rates: tuple[float, ...] = ()
    published: dict[str, str] = {}
    change: learn.Change = learn.unchanged


def _as(**fields: Any) -> learn.Change:
    return lambda learner, key: replace(learner, **fields)


def spiking(learner: NoProp, key: Key[Array, ""]) -> NoProp:
    """Its blocks are 128 spiking neurons each, taught by broadcast and three factors."""
    n_in, n_classes = learner.block.n_in, learner.block.n_classes  # pyright: ignore[reportAttributeAccessIssue]
    layer = nj.Layer(128, nj.LIF(4.5, 3.0), rule=nj.ThreeFactor(window=nj.triangle(1.0)))
    net = nj.structured(
        None, n_in + n_classes, [layer], n_classes, recurrence=nj.Recurrence("none"), gain_in=3.0,
        readout=nj.LeakyIntegrator(19.5),
    )  # fmt: skip
    system = nj.wta_broadcast.system(
        fold(key, "system"), net, teacher=nj.SoftWTA(30.0, 0.0), homeostasis=nj.Homeostasis(0.08),
        n_steps=20, start=10,
    )  # fmt: skip
    return replace(learner, block=SpikingBlock(system))


# 784-5x256-10 as Kao and Hariharan (2024) train all of their table 1, but for the rates.
_SIX = (
    "--hidden 256 256 256 256 256 --epochs 100 --batch-size 256 --optimiser sgd --clip 1"
    " --schedule constant"
)
_RATES = (0.03, 0.1, 0.3, 1.0)
_NUDGED = "--learner equilibrium --epochs 5 --batch-size 50 --optimiser momentum --beta 0.5"
_NUDGES = partial(Row, rates=(0.005, 0.01, 0.02))
_APART = dict(tied=False, angle=60.0)
_BLOCKS = (
    "--learner noprop --epochs 10 --batch-size 100 --optimiser adam --weight-decay 0"
    " --schedule cosine"
)
_FASHION = {"fashion": "85.7 (50 epochs, N = 6)"}

ROWS: dict[str, Row] = {
    "backprop": Row(
        f"--learner backprop {_SIX}", _RATES, {"mnist": "98.19 ± .10", "fashion": "89.58"}
    ),
    "fa": Row(f"--learner fa {_SIX}", _RATES, {"mnist": "96.96 ± .05"}),
    "dfa": Row(f"--learner dfa {_SIX}", _RATES, {"mnist": "97.27 ± .06"}),
    "drtp": Row(f"--learner drtp {_SIX}", (0.003, 0.01, 0.03, 0.1), {"mnist": "92.16 ± .18"}),
    "dtp": Row(
        "--learner dtp --hidden 240 240 240 240 240 240 240 --epochs 50 --batch-size 100",
        (0.0003, 0.001, 0.003), {"mnist": "98.06"},
    ),
    "counter_current": Row(
        f"--learner counter_current {_SIX}", (0.5, 1.0, 1.5, 2.0),
        {"mnist": "98.13 ± .10", "fashion": "88.58 ± .29"},
    ),
    "counter_current_frozen_feedback": Row(
        f"--learner counter_current {_SIX}", (0.5, 1.0, 1.5, 2.0), {"mnist": "97.19"},
        _as(frozen="feedback"),
    ),
    "counter_current_frozen_hidden": Row(
        f"--learner counter_current --freeze-hidden {_SIX}", (0.5, 1.0, 1.5, 2.0)
    ),
    "pepita": Row(
        "--learner pepita --hidden 1024 --epochs 100 --schedule cosine", (0.01, 0.03, 0.1),
        {"mnist": "98.01 ± .09 (with dropout)"},
    ),
    "forward_forward": Row(
        "--learner forward_forward --hidden 2000 2000 2000 2000 --epochs 60 --batch-size 100",
        (0.0003, 0.001), {"mnist": "98.64"},
    ),
    "predictive_coding": Row(
        "--learner predictive_coding --hidden 600 600 --epochs 20", (0.03, 0.1, 0.3),
        {"mnist": "~98.3"},
    ),
    "softhebb": Row(
        "--learner softhebb --hidden 2000 --epochs 20", (0.003, 0.01, 0.03), {"mnist": "~97"}
    ),
    "equilibrium_2_points": _NUDGES(f"{_NUDGED} --n-points 2", published=_FASHION),
    "equilibrium_6_points": _NUDGES(f"{_NUDGED} --n-points 6", published=_FASHION),
    "equilibrium_exact": _NUDGES(_NUDGED, change=_as(exact=True)),
    "two_arrays_2_points": _NUDGES(f"{_NUDGED} --n-points 2", change=_as(**_APART)),
    "two_arrays_2_points_homeostasis": _NUDGES(
        f"{_NUDGED} --n-points 2", change=_as(homeostasis=10.0, **_APART)
    ),
    "two_arrays_exact": _NUDGES(_NUDGED, change=_as(exact=True, **_APART)),
    "noprop_spiking": Row(f"{_BLOCKS} --n-blocks 10", (0.005,), change=spiking),
    "noprop_spiking_one_block": Row(f"{_BLOCKS} --n-blocks 1", (0.005,), change=spiking),
} | {
    f"own_{name}": Row(f"--learner {name}")
    for name in RECIPES
    if name not in ("wta_broadcast", "surrogate", "counter_current", "ska")
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What to run, and where."""

    rows: tuple[str, ...] = ()
    """Names of the rows; without, all."""
    seeds: int = 3
    """Seeds of each row, from 0 on."""
    epochs: int | None = None
    """Passes over the training pictures; without, as the row has it."""
    results: Path = Path("experiments/results/published")
    """One file a training: SET/ROW/RATE/seed.json; and the table."""

    whole: ClassVar = dict(epochs=(1, MOST), seeds=(1, 1000))


@dataclass(frozen=True)
class Config(yardstick.Data, Run):
    """Which rows, from which data."""

    def __post_init__(self):
        _run.require_paths(self)
        _run.require_ranges(self)
        _options.refuse_idle(self, _options.needs(Config), lambda name: getattr(Config, name))
        _run.require_lists(self, filled=(), once=("rows", "datasets"))
        if others := [x for x in self.rows if x not in ROWS]:
            raise ValueError(f"--rows must be of {' '.join(ROWS)}; got {others[0]}")


def main(config: Config) -> None:
    """Run what is missing, print the table and write it; ends with code 1 if a run failed."""
    console = Console(highlight=False)
    say = lambda line: console.print(line, markup=False)  # noqa: E731
    with _lock.held(config.results, "--results"):
        failed = False
        for name in config.rows or ROWS:
            for names, sets in alike(config):
                trainings = [
                    (job(config, name, dataset, lr, seed), lr, i)
                    for i, dataset in enumerate(names)
                    for lr in rates(name)
                    for seed in range(config.seeds)
                ]
                failed |= _lanes.run(trainings, sets, say, ROWS[name].change)
        lines = list(table(config))
        console.print("\n".join(lines), soft_wrap=True, markup=False)
        write_whole(config.results / "published.md", "\n".join(lines) + "\n")
    if failed:
        sys.exit(1)


def alike(config: yardstick.Data) -> Iterator[tuple[list[str], list[data.Dataset]]]:
    """Names of data sets of one shape, and what is in them."""
    for kind in dict.fromkeys(yardstick.SETS[name] for name in config.datasets):
        names = [name for name in config.datasets if yardstick.SETS[name] == kind]
        yield names, [data.load(kind, yardstick.folder(config, name)) for name in names]


def rates(name: str) -> tuple[float, ...]:
    """Those that a row tries."""
    if ROWS[name].rates:
        return ROWS[name].rates
    usual = RECIPES[ROWS[name].options.split()[1]].usual
    return (usual["lr"],)


def job(config: Config, name: str, dataset: str, lr: float, seed: int) -> _runs.Job:
    """One training."""
    parts = [
        f"--dataset {yardstick.SETS[dataset]} {ROWS[name].options} --lr {lr:g}",
        f"--epochs {config.epochs}" if config.epochs else "",
        f"--train-size {config.train_size}" if config.train_size else "",
    ]
    return _runs.Job(
        f"{dataset}, {name}, rate {lr:g}, seed {seed}",
        config.results / dataset / name / f"{lr:g}" / f"seed-{seed}.json", config.results,
        "experiments.learn", " ".join(filter(None, parts)), seed, yardstick.folder(config, dataset),
        {"dataset": dataset, "row": name}, may_be_lost=True,
    )  # fmt: skip


class Outcome(NamedTuple):
    """What the seeds at one rate have come to, %."""

    rate: float
    val: float
    test: list[float]


def outcome(config: Config, name: str, dataset: str) -> Outcome | None:
    """That of the rate of most validation accuracy, of those that no seed was lost at."""
    found = []
    for lr in rates(name):
        jobs = [job(config, name, dataset, lr, seed) for seed in range(config.seeds)]
        runs = [_runs.kept(job) for job in jobs if job.result.exists()]
        if runs and not any("lost" in run for run in runs):
            val = 100 * float(np.mean([run["val_accuracy"][-1] for run in runs]))
            found.append(Outcome(lr, val, [100 * run["test_accuracy"] for run in runs]))
    return max(found, key=lambda x: x.val, default=None)


def table(config: Config) -> Iterator[str]:
    """Markdown, of what is there."""
    yield "| | data | rate | validation, % | test, % | published, % |"
    yield "|---" * 6 + "|"
    for name in config.rows or ROWS:
        for dataset in config.datasets:
            if seen := outcome(config, name, dataset):
                spread = f" ± {np.std(seen.test, ddof=1):.2f}" if len(seen.test) > 1 else ""
                test = f"{np.mean(seen.test):.2f}{spread}"
                published = ROWS[name].published.get(dataset, "")
                rate = f"{seen.rate:g}" + ", an end" * _at_an_end(name, seen.rate)
                yield f"| {name} | {dataset} | {rate} | {seen.val:.2f} | {test} | {published} |"


def _at_an_end(name: str, rate: float) -> bool:
    tried = rates(name)
    return len(tried) > 1 and rate in (min(tried), max(tried))


if __name__ == "__main__":
    _run.main(Config, main)
