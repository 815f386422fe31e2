"""Train a perceptron in arrays of synapse devices: responses, levels, variation, updates.

    python -m experiments.electronic_synapse --dataset mnist --data-dir path/to/mnist

Forward pass, backward pass and update go through the same conductances. After Lim et al.
(2019), arXiv 1707.06381. The design is fractional: every number of states meets every
variation at the middle dynamic range, and every dynamic range meets every variation at the
middle number of states, for each response, policy and seed; hidden layers but the first are
trained at the middle of both alone. What is trained before, on validation pictures alone,
chooses the learning rate of each response and policy, and the thresholds of refresh.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from experiments import _device_figures, _folder, _run
from experiments._devices import Response, Update
from experiments._options import Need, one_of, part
from experiments._perceptron import HELD, Outcome, Program, Setting, lesson, side_by_side, use_cores
from neurojax import data
from neurojax._check import MOST

_IDEAL = ("ideal", "none")
_SEARCH_SEED = 1_000_000  # a seed of its own: what is chosen is not chosen for the grid's draws
_SEARCH_VARIATION = (0.0, 0.3)
_PAIRED = ("upper", "lower")
_POINT = ("hidden", "n_states", "dynamic_range", "sigma_d2d")


@dataclass(frozen=True)
class Network:
    """A perceptron of two arrays."""

    hidden: tuple[int, ...] = (100, 200)
    """Hidden neurons, one network each."""

    whole: ClassVar = dict(hidden=(1, MOST))


@dataclass(frozen=True)
class Learning:
    """Plain gradient descent, in the arrays."""

    epochs: int = 1
    """Passes over the training pictures."""
    batch_size: int = 64
    """Pictures a weight change; what is left over in an epoch waits for the next shuffle."""
    lr: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    """Learning rates that the search tries, for each response and policy."""

    whole: ClassVar = dict(epochs=(1, MOST), batch_size=(1, MOST))
    within: ClassVar = dict(lr="(0, inf)")


@dataclass(frozen=True)
class Devices:
    """The design: which devices, how many states, how they vary."""

    responses: tuple[Response, ...] = ("linear", "exponential", "querlioz", "soft-bounds")
    """How conductance answers to pulses."""
    policies: tuple[Update, ...] = ("bidirectional", "unidirectional", "one-side")
    """Which devices of a pair receive pulses."""
    n_states: tuple[int, ...] = (16, 64, 256)
    """States of a device."""
    dynamic_range: tuple[float, ...] = (3.0, 10.0, 100.0)
    """G_max / G_min."""
    sigma_d2d: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5)
    """Relative variation from device to device of each parameter."""
    upper: tuple[float, ...] = (0.75, 0.9, 0.5)
    """Thresholds of refresh that the search tries, paired with --lower."""
    lower: tuple[float, ...] = (0.25, 0.5, 0.1)
    """What the other device of a pair must exceed for a refresh, each below its --upper."""

    needs: ClassVar[tuple[Need, ...]] = (one_of("upper lower", "policies", "unidirectional"),)
    whole: ClassVar = dict(n_states=(2, _run.STATES))
    within: ClassVar = dict(dynamic_range="(1, inf)", sigma_d2d="[0, 1]", upper="[0, 1]",
                            lower="[0, 1]")  # fmt: skip


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, what runs side by side, and where results go."""

    out: Path = Path("runs/electronic_synapse")
    seeds: int = 3
    """How many seeds each point of the design has, from --seed on."""
    width: int = 2
    """Trainings side by side on each device."""
    cores: int = 2
    """CPU devices to spread them over."""

    whole: ClassVar = dict(width=(1, _run.MANY), cores=(1, max(2, os.cpu_count() or 1)))


@dataclass(frozen=True)
class Config(Network, Learning, Devices, _run.Data, Run):
    """The design, and where its results go."""

    dataset: str = "mnist"

    def __post_init__(self):
        _check(self)


def _check(c: Config) -> None:
    """Refuse numbers out of range, naming the option."""
    _run.require_sound(c)
    several = tuple(f.name for f in fields(c) if isinstance(getattr(c, f.name), tuple))
    once = tuple(name for name in several if name not in _PAIRED)
    _run.require_lists(c, filled=several, once=once)
    if len(c.upper) != len(c.lower) or any(a <= b for a, b in zip(c.upper, c.lower, strict=True)):
        raise ValueError(f"--upper must pair with --lower, each above; got {c.upper}, {c.lower}")


class Job(NamedTuple):
    """Trainings that share a compiled program; the name is that of the file that keeps them."""

    name: str
    program: Program
    settings: list[Setting]


def searched(devices: Devices, rates: tuple[float, ...], hidden: int) -> list[Job]:
    """What is trained to choose learning rates and thresholds, at the middle of the design."""
    at = Setting(*_middle(devices), 0.0, 0.0, 1.0, 0.0, _SEARCH_SEED)
    pairs = list(zip(devices.upper, devices.lower, strict=True))
    jobs = []
    for response, policy in [_IDEAL, *product(devices.responses, devices.policies)]:
        thresholds = pairs if policy == "unidirectional" else pairs[:1]
        variation = (0.0,) if policy == "none" else _SEARCH_VARIATION
        settings = [
            at._replace(lr=lr, upper=upper, lower=lower, sigma_d2d=sigma)
            for lr, (upper, lower), sigma in product(rates, thresholds, variation)
        ]
        program = Program(response, policy, hidden)
        jobs.append(Job(f"search {response} {policy}", program, settings))
    return jobs


def chosen(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Setting]:
    """For each response and policy, the numbers with the best mean validation accuracy."""
    best: dict[tuple[str, str], tuple[float, Setting]] = {}
    for row, mean in _means(rows, "lr", "upper", "lower"):
        program = row["response"], row["policy"]
        setting = Setting(*(row[name] for name in Setting._fields))
        best[program] = max(best.get(program, (0.0, setting)), (mean["val_accuracy"], setting))
    return {program: setting for program, (_, setting) in best.items()}


def grid(
    devices: Devices, hidden: tuple[int, ...], seeds: range, best: dict[tuple[str, str], Setting]
) -> list[Job]:
    """The design, with what the search has chosen."""
    middle = n_0, range_0 = _middle(devices)
    others = [(n_0, wide) for wide in devices.dynamic_range if wide != range_0]
    points = [(n, range_0) for n in devices.n_states] + others
    jobs = []
    for (response, policy), size in product(best, hidden):
        one = size != hidden[0] or policy == "none"
        variation = (0.0,) if policy == "none" else devices.sigma_d2d
        settings = [
            best[response, policy]._replace(
                n_states=n, dynamic_range=wide, sigma_d2d=sigma, seed=seed
            )
            for (n, wide), sigma, seed in product([middle] if one else points, variation, seeds)
        ]
        jobs.append(Job(f"{response} {policy} {size}", Program(response, policy, size), settings))
    return jobs


def _middle(devices: Devices) -> tuple[Any, Any]:
    """The middle number of states and dynamic range, of two the larger."""
    n, wide = (sorted(x)[len(x) // 2] for x in (devices.n_states, devices.dynamic_range))
    return n, wide


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    use_cores(config.cores)
    sets = _run.pictures(data.load(config.dataset, config.data_dir))
    n_train = _run.n_train(sets, config.train_size, config.batch_size)
    _run.refuse_endless(config.epochs, n_train // config.batch_size)
    n_in = int(np.prod(sets.train.images.shape[1:]))
    devices = max(config.hidden) * (n_in + sets.n_classes)
    at_once = config.width * config.cores
    _run.affordable(
        128 * devices * at_once, hidden=max(config.hidden) / 1000, width=config.width / 10
    )
    with _folder.held(config, sets) as folder:
        folder.begin()
        return _run_in(folder, config, sets)


def _run_in(folder: _folder.Folder, c: Config, sets: data.Dataset) -> dict[str, Any]:
    rule, devices, pictures = part(c, Learning), part(c, Devices), lesson(sets, c.train_size)

    def trained(job: Job) -> Iterator[list[Outcome]]:
        return side_by_side(
            job.program, sets.n_classes, rule.epochs, rule.batch_size, pictures, job.settings,
            c.width,
        )  # fmt: skip

    search = _made(folder, searched(devices, rule.lr, c.hidden[0]), trained, "search")
    best = chosen(search)
    kept = [{"response": r, "policy": p} | s._asdict() for (r, p), s in best.items()]
    folder.write("search.json", {"tried": search, "chosen": kept})
    jobs = grid(devices, c.hidden, range(c.seed, c.seed + c.seeds), best)
    trainings = _made(folder, jobs, trained, "grid")
    points = [
        {name: at[name] for name in ("response", "policy", *_POINT)} | mean
        for at, mean in _means(trainings, *_POINT)
    ]
    plain = {p["hidden"]: p for p in points if p["policy"] == "none"}
    metrics = {
        "baseline": list(plain.values()),
        "points": [p for p in points if p["policy"] != "none"],
        "chosen": kept,
        "held": HELD,
        "n_trainings": len(trainings),
        "n_searched": len(search),
        "seconds": sum({row["job"]: row["seconds"] for row in search + trainings}.values()),
        "trainings": trainings,
    }
    shown = [p for p in metrics["points"] if p["hidden"] == c.hidden[0]]
    figures = {
        "advantage": _device_figures.advantage(shown),
        "variation": _device_figures.variation(shown, plain[c.hidden[0]]["test_accuracy"]),
    }
    return folder.finish(metrics, figures)


def _made(
    folder: _folder.Folder, jobs: list[Job], trained: Callable[[Job], Iterator[list[Outcome]]],
    title: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """All trainings of `jobs`, a row each; jobs whose file is there are read, not run."""
    rows = []
    with _run.jobs_bar() as bar:
        task = bar.add_task(title, total=sum(len(job.settings) for job in jobs))
        for job in jobs:
            made = folder.part(job.name)
            if made is not None:
                bar.advance(task, len(job.settings))
            else:
                begin, outcomes = time.perf_counter(), []
                for some in trained(job):
                    outcomes += some
                    _refuse_lost(job, outcomes)
                    bar.advance(task, len(some))
                made = _rows(job, outcomes, time.perf_counter() - begin)
                folder.keep(job.name, made)
                bar.console.print(_line(made), markup=False)
            rows += made
    return rows


def _refuse_lost(job: Job, outcomes: list[Outcome]) -> None:
    """The learning rate is all that can take weights out of range."""
    for s, outcome in zip(job.settings, outcomes, strict=False):
        if not np.isfinite(np.array([*outcome], float)).all():
            raise FloatingPointError(
                f"{job.name!r} must stay finite; got NaN or infinity in a training at"
                f" --lr {s.lr:g}; pass a smaller --lr"
            )


def _rows(job: Job, outcomes: list, seconds: float) -> list[dict[str, Any]]:
    whole = {"job": job.name, "seconds": seconds, **job.program._asdict()}
    return [
        whole | s._asdict() | outcome._asdict()
        for s, outcome in zip(job.settings, outcomes, strict=True)
    ]


def _line(rows: list[dict[str, Any]]) -> str:
    """What a job has come to."""
    val = [100 * r["val_accuracy"] for r in rows]
    return (
        f"{rows[0]['job']:32} {len(rows):3} trainings  val {min(val):5.1f} to {max(val):5.1f}%"
        f"  {rows[0]['seconds']:.1f} s"
    )


def _means(rows: list[dict[str, Any]], *keys: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows that agree in response, policy and `keys`: the first of them, and their means."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in ("response", "policy", *keys)), []).append(row)
    return [(some[0], _mean(some)) for some in groups.values()]


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    spread = float(np.std([r["test_accuracy"] for r in rows], ddof=1)) if len(rows) > 1 else None
    mean = {name: float(np.mean([r[name] for r in rows])) for name in Outcome._fields}
    return mean | {"test_accuracy_sd": spread, "n_seeds": len(rows)}


if __name__ == "__main__":
    _run.main(Config, run)
