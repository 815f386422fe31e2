"""What modulators are worth, where they can be worth something: writes, change and noise.

    python -m experiments.modulators --datasets mnist fashion --data-dir mnist --fashion-dir fashion

Protocol, written before the first run. The network is n-256-256-10 of spiking neurons, taught by
population winner-take-all, broadcast and three factors, with plain steps (momentum and Adam hide a
gate). Five studies:

- writes: the training pictures for --epochs on linear devices of 64 levels, pulsed one by one
  at random; rates fall along a cosine. Fewest pulses at .3 points below the ungated best.
- noise: the same on numbers, with 30% of the labels wrong; accuracy on right ones.
- labels: every --every samples each class is called as the next one was. Test, then train:
  accuracy over the stream.
- inputs: every --every samples pictures stand two columns further to the right. Likewise.
- classes: two classes at a time that have not come before. Mean over the periods of the accuracy
  on all classes seen so far.

Rows are gates (`ROWS`), M = 0 modulators, 1 or 4. Each row's gate and rate are found by one
search, of all its values and all of --lr, from a seed of its own, on validation pictures or on the
stream: by the measure of the study, for writes the fewest pulses of those that lose at most .3
points to the best ungated rate (where none does, the most accurate). What is found is frozen, and
--seeds other seeds trained; the test pictures are read once, at their end. `random` deals the
same gates out among the samples of a batch by chance: as many writes, without the reason.
`evenly` draws as many over the whole stream: without the time, too.

All trainings of a study are lanes of one program, --together of them at once. Each leaves one file
in --results, and is not run again. The settings of rows that lose stay in the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from rich.console import Console

from experiments import _folder, _lock, _options, _run, yardstick
from experiments._gated import Lane, Plan, Setting
from neurojax import data
from neurojax._check import MOST
from neurojax._files import sealed, unsealed, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Name = Literal["writes", "noise", "labels", "inputs", "classes"]
_SEARCH = 1_000_000  # its seed
_LOSS = 0.3  # points that fewer writes may cost
_BACK = 0.9  # of the accuracy before a change: recovered
_WINDOW = 250  # samples that this is judged by


class Row(NamedTuple):
    """A kind of gate.

    Fields:
        m: modulators
        values: that the search tries
        setting: callable, value -> the gate
        what: it does
    """

    m: int
    values: tuple[float, ...]
    setting: Callable[[float], Setting]
    what: str


_SPREAD = np.array([0.25, 0.5, 1.0, 2.0])
ROWS: dict[str, Row] = {
    "none": Row(0, (0.0,), lambda v: Setting(), "every sample teaches"),
    "within 1": Row(1, (1.0,), lambda v: Setting(within=v), "within a presentation"),
    "within 4": Row(4, (4.0,), lambda v: Setting(within=v), "within a presentation"),
    "threshold": Row(
        1, (0.3, 0.5, 0.7), lambda v: Setting(low=v), "surprise above a fixed threshold"
    ),
    "mistakes": Row(
        1, (0.5,), lambda v: Setting(low=v, gain=1e4), "what is misjudged alone"
    ),
    "relative": Row(
        1, (0.75, 1.0, 1.25), lambda v: Setting(ratio=v), "surprise above its running mean x v"
    ),
    "budget": Row(
        1, (0.05, 0.1, 0.2), lambda v: Setting(budget=v, rate=0.05),
        "the part v of most surprise, by a threshold that follows",
    ),
    "random": Row(
        0, (0.05, 0.1, 0.2), lambda v: Setting(budget=v, rate=0.05, shuffled=1.0),
        "budget, dealt out by chance",
    ),
    "evenly": Row(
        0, (0.05, 0.1, 0.2, 0.3), lambda v: Setting(evenly=v), "the part v, by chance, at all times"
    ),
    "believable": Row(
        1, (0.8, 0.9, 0.95), lambda v: Setting(high=v), "surprise below v: what can be believed"
    ),
    "change": Row(
        1, (0.5, 1.0, 2.0), lambda v: Setting(power=v), "(fast / slow surprise)^v, up to 4"
    ),
    "calm": Row(
        1, (1.0, 2.0), lambda v: Setting(power=v, most=1.0), "that up to 1: consolidation"
    ),
    "relative 4": Row(
        4, (0.5, 1.0), lambda v: Setting(ratio=_SPREAD * v),
        "running mean x v / 4, / 2, 1, 2, mixed by each neuron",
    ),
    "change 4": Row(
        4, (1.0,), lambda v: Setting(power=np.array([0.0, 0.5, 1.0, 2.0]) * v),
        "powers 0, .5, 1, 2, mixed by each neuron",
    ),
    "change x budget": Row(
        1, (0.1, 0.2), lambda v: Setting(budget=v, rate=0.05, power=1.0), "budget times change"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """One size for all."""

    hidden: tuple[int, ...] = (256, 256)
    """Neurons of each hidden layer."""
    n_steps: int = 20
    """Steps of 1 ms a picture is shown."""

    whole: ClassVar = dict(hidden=(1, MOST), n_steps=(4, 1000))


@dataclass(frozen=True)
class Learning:
    """One budget for all."""

    epochs: int = 5
    """Passes over the training pictures, of writes and noise."""
    periods: int = 10
    """Periods of a stream; of classes five."""
    every: int = 5000
    """Samples of a period; where there are fewer, half of them."""
    batch_size: int = 50
    """Pictures a weight change."""
    lr: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Learning rates that the search tries, with each value of each row."""
    synapse: Literal["suited", "numbers", "devices", "accumulator"] = "suited"
    """What holds weights: devices for writes and numbers for the rest; or one of these for all."""

    whole: ClassVar = dict(
        epochs=(1, MOST), periods=(2, 1000), every=(1, MOST), batch_size=(1, MOST)
    )
    within: ClassVar = dict(lr="(0, inf)")


@dataclass(frozen=True)
class Data(yardstick.Data):
    """What to learn from."""

    datasets: tuple[yardstick.Set, ...] = ("digits",)
    """Data sets, a table each."""


@dataclass(frozen=True)
class Run:
    """What to run, and where."""

    results: Path = Path("experiments/results/modulators")
    """One file a training: SET/STUDY/ROW/what.json; the table and the figure."""
    studies: tuple[Name, ...] = ()
    """Studies; without, all."""
    only: tuple[str, ...] = ()
    """Rows whose name contains one of these, and none; without, all."""
    seeds: int = 3
    """Seeds of each row at what its search has found, from 0 on; 0: the search alone."""
    together: int = 32
    """Trainings in one program; hundreds on an accelerator."""
    show: bool = False
    """Only print the table of what is there."""

    needs: ClassVar = (_options.one_of("together", "show", False),)
    whole: ClassVar = dict(seeds=(0, _run.MANY), together=(1, _run.MANY))


@dataclass(frozen=True)
class Config(Network, Learning, Data, Run):
    """Every option."""

    def __post_init__(self):
        _run.require_paths(self)
        filled = "hidden", "lr", "datasets"
        _run.require_lists(self, filled, once=("lr", "datasets", "studies"))
        _run.require_ranges(self)
        _options.refuse_idle(self, _options.needs(Config), lambda name: getattr(Config, name))
        for part in self.only:
            if not any(part in name for name in ROWS):
                known = ", ".join(ROWS)
                raise ValueError(f"--only must be part of the name of a row; got {part!r}; {known}")


class Trial(NamedTuple):
    """One training of a row."""

    dataset: str
    study: str
    row: str
    value: float
    lr: float
    seed: int

    @property
    def what(self) -> dict[str, Any]:
        """What its result must say to be its own."""
        return self._asdict()


def main(config: Config) -> None:
    """Run what is missing, print the table and write it beside its figure."""
    console = Console(highlight=False, soft_wrap=True)
    if config.show:
        console.print("\n".join(table(config)), markup=False)
        return
    with _lock.held(config.results, "--results"):
        for study in studies(config):
            for kind, sets in _alike(config):
                _run_study(config, study, kind, sets, lambda x: console.print(x, markup=False))
        lines = list(table(config))
        console.print("\n".join(lines), markup=False)
        write_whole(config.results / "modulators.md", "\n".join(lines) + "\n")
        write_whole(config.results / "modulators.png", _drawn(figure(config)))


def studies(config: Run) -> tuple[str, ...]:
    """Those that are asked for."""
    return config.studies or get_args(Name)


def rows(config: Run) -> list[str]:
    """Those that are asked for; the ungated one first."""
    few = [n for n in ROWS if not config.only or any(part in n for part in config.only)]
    return list(dict.fromkeys(("none", *few)))


def _alike(config: Data) -> Iterator[tuple[list[str], list[data.Dataset]]]:
    """Names of data sets of one shape, and what is in them."""
    for kind in dict.fromkeys(yardstick.SETS[name] for name in config.datasets):
        names = [name for name in config.datasets if yardstick.SETS[name] == kind]
        sets = [data.load(kind, yardstick.folder(config, name)) for name in names]
        n = config.train_size
        yield names, [_first(s, n) for s in sets]


def _first(sets: data.Dataset, n: int | None) -> data.Dataset:
    """The data with the first `n` of the training pictures alone."""
    few = data.Split(sets.train.images[:n], sets.train.labels[:n])
    return sets._replace(train=few)


def _run_study(config: Config, study: str, names: list[str], sets: Any, say: Any) -> None:
    """The search, then the seeds at what it has found."""
    tried = [trial for name in names for trial in searched(config, name, study)]
    _run_lanes(config, study, tried, names, sets, say, test=False)
    final = [
        found._replace(seed=seed)
        for name in names
        for found in chosen(config, name, study).values()
        for seed in range(config.seeds)
    ]
    _run_lanes(config, study, final, names, sets, say, test=True)


def searched(config: Config, dataset: str, study: str) -> list[Trial]:
    """All trials of the search."""
    return [
        Trial(dataset, study, row, value, lr, _SEARCH)
        for row in rows(config)
        for value, lr in product(ROWS[row].values, config.lr)
    ]


def plan(config: Config, study: str, n_train: int, n_classes: int, test: bool) -> Plan:
    """What all trainings of a study share."""
    change = study if study in ("labels", "inputs", "classes") else "nothing"
    periods = {"nothing": config.epochs, "classes": n_classes // 2}.get(change, config.periods)
    suited = "devices" if study == "writes" else "numbers"
    every = config.every if config.every <= n_train else n_train // 2
    return Plan(
        change, periods, every, config.batch_size, config.hidden, config.n_steps,
        0.3 if study == "noise" else 0.0, suited if config.synapse == "suited" else config.synapse,
        test,
    )  # fmt: skip


def _run_lanes(
    config: Config, study: str, trials: list[Trial], names: list[str], sets: Any,
    say: Callable[[str], Any], test: bool,
) -> None:  # fmt: skip
    from experiments import _gated  # compilers are slow to import

    todo = [trial for trial in trials if not place(config, trial).exists()]
    shared = plan(config, study, len(sets[0].train.labels), sets[0].n_classes, test)
    _refuse_others(config, trials, shared)
    for first in range(0, len(todo), config.together):
        some = todo[first : first + config.together]
        lanes = [
            Lane(ROWS[t.row].setting(t.value), t.lr, t.seed, names.index(t.dataset)) for t in some
        ]
        found = _gated.trained(shared, sets, lanes)
        for trial, result in zip(some, found, strict=True):
            made = {"plan": shared._asdict(), "processor": _folder.processor()}
            file = place(config, trial)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, sealed(result | made | trial.what))
        say(f"{study}, {', '.join(names)}: {first + len(some)} of {len(todo)} trainings")


def _refuse_others(config: Config, trials: list[Trial], shared: Plan) -> None:
    """Refuse results that other options made, in place of which nothing would be run."""
    asked = shared._asdict() | {"hidden": list(shared.hidden)}
    for trial in trials:
        if (found := result(config, trial)) and found.get("plan") != asked:
            raise ValueError(
                f"--results must be of these options; got {str(place(config, trial))!r}, made with"
                " others; pass another --results"
            )


def place(config: Run, trial: Trial) -> Path:
    """The file of a training."""
    seed = "search" if trial.seed == _SEARCH else f"seed-{trial.seed}"
    folder = config.results / trial.dataset / trial.study / trial.row.replace(" ", "-")
    return folder / f"{trial.value:g}-{trial.lr:g}-{seed}.json"


def result(config: Run, trial: Trial) -> dict[str, Any] | None:
    """That of a training, None where there is none; `ValueError` where it is another's."""
    file = place(config, trial)
    if not file.exists():
        return None
    found = unsealed(file)
    if any(found.get(name) != x for name, x in trial.what.items()):
        raise ValueError(f"{str(file)!r} is of another training; take it away")
    return found


# --- measures ---


def measure(study: str, found: dict[str, Any]) -> float:
    """What a study judges by, %."""
    if "lost" in found:
        return 0.0
    if study in ("labels", "inputs"):
        return 100 * float(np.mean(found["online"]))
    if study == "classes":
        return 100 * float(np.mean(found["val"]))
    return 100 * float(found.get("test", found["val"][-1]))


def recovery(found: dict[str, Any]) -> float:
    """Samples after a change until accuracy is back at .9 of what it was, mean over the changes.

    Both by the mean over 250 samples. A period in which it does not come back counts whole.
    """
    online, size = np.asarray(found["online"]), found["plan"]["batch_size"]
    window = max(1, min(_WINDOW // size, online.shape[1] // 2))
    needed = []
    for before, after in zip(online[:-1], online[1:], strict=True):
        level = _BACK * before[-window:].mean()
        means = np.convolve(after, np.ones(window) / window, "valid")
        back = np.flatnonzero(means >= level)
        needed.append((back[0] + window if len(back) else len(after)) * size)
    return float(np.mean(needed))


def chosen(config: Config, dataset: str, study: str) -> dict[str, Trial]:
    """The value and rate of each row that its search has found."""
    seen = [(t, r) for t in searched(config, dataset, study) if (r := result(config, t))]
    score = {t: measure(study, r) for t, r in seen}
    pulses = {t: sum(r.get("writes", [MOST])) for t, r in seen}
    best = max((score[t] for t, _ in seen if t.row == "none"), default=0.0)
    out = {}
    for row in rows(config):
        own = [t for t, _ in seen if t.row == row]
        if not own:
            continue
        enough = [t for t in own if study == "writes" and score[t] >= best - _LOSS]
        # The ungated row is what others are compared with: its most accurate rate.
        few = enough if row != "none" else []
        out[row] = min(few, key=pulses.get) if few else max(own, key=score.get)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return out


# --- what is shown ---


def table(config: Config) -> Iterator[str]:
    """Markdown, of what is there: the search on validation, then the seeds at what it found."""
    for dataset, study in product(config.datasets, studies(config)):
        found = chosen(config, dataset, study)
        if not found:
            continue
        yield f"### {study}, {dataset}"
        yield ""
        yield (
            "| gate | M | v | rate | search, % | seeds, % | samples that taught | writes |"
            " against none | energy of pulses, uJ | learning on Loihi, mJ | samples to recover |"
        )
        yield "|---" * 12 + "|"
        base = None
        for row, trial in found.items():
            searched = result(config, trial) or {}
            runs = [r for s in range(config.seeds) if (r := result(config, trial._replace(seed=s)))]
            cells = _cells(study, runs or [searched], base)
            base = base or sum((runs or [searched])[0].get("writes", [0]))
            name = [row, str(ROWS[row].m), f"{trial.value:g}", f"{trial.lr:g}"]
            name += [f"{measure(study, searched):.2f}", _spread(study, runs)]
            yield f"| {' | '.join(name + cells)} |"
        yield ""


def _spread(study: str, runs: list[dict[str, Any]]) -> str:
    each = [measure(study, r) for r in runs]
    if not each:
        return ""
    return f"{np.mean(each):.2f}" + (f" ± {np.std(each, ddof=1):.2f}" if len(each) > 1 else "")


def _cells(study: str, runs: list[dict[str, Any]], base: float | None) -> list[str]:
    """Means over runs: what it cost."""
    runs = [r for r in runs if "writes" in r]
    if not runs:
        return ["lost"] + [""] * 5
    writes = float(np.mean([sum(r["writes"]) for r in runs]))
    shown = [r["taught"] for r in runs]
    part = np.mean([np.sum(t) / (r["plan"]["batch_size"] * np.size(r["online"]))
                    for t, r in zip(shown, runs, strict=True)])  # fmt: skip
    loihi = float(np.mean([_loihi(r) for r in runs]))
    joules = float(np.mean([r["joules"] for r in runs]))
    return [
        f"{100 * part:.1f}%", f"{writes:.3g}", f"÷ {base / writes:.1f}" if base and writes else "",
        f"{1e6 * joules:.3g}" if joules else "", f"{1e3 * loihi:.3g}",
        f"{recovery(runs[0]):,.0f}" if study in ("labels", "inputs") else "",
    ]  # fmt: skip


def _loihi(found: dict[str, Any]) -> float:
    """J of learning on Loihi, where each sample that teaches visits each plastic synapse once."""
    from hardware import energy

    sizes = (*found["plan"]["hidden"],)
    n_in = 64 if found["dataset"] == "digits" else 784
    links = sum(a * b for a, b in zip((n_in, *sizes), sizes, strict=False)) + 10 * sum(sizes)
    did = energy.Activity(*[0.0] * 10)._replace(  # pyright: ignore[reportArgumentType]
        learning_events=float(links) * float(np.sum(found["taught"]))
    )
    return float(energy.energy(did, energy.LOIHI).learning)  # pyright: ignore[reportArgumentType]


def figure(config: Config) -> "Figure":
    """A panel a study, of the first data set: accuracy over writes, over the stream, by gate."""
    from matplotlib.figure import Figure

    asked, dataset = studies(config), config.datasets[0]
    drawn = Figure(figsize=(4.2 * len(asked), 3.6), layout="constrained")
    for axis, study in zip(np.atleast_1d(drawn.subplots(1, len(asked))), asked, strict=True):
        found = chosen(config, dataset, study)
        if study == "writes":
            _frontier(config, axis, dataset)
        elif study in ("labels", "inputs", "classes"):
            _streams(config, axis, study, found)
        else:
            _dots(config, axis, study, found)
        axis.set_title(f"{study}, {dataset}", fontsize=10)
    return drawn


_DRAWN = (
    "none",
    "random",
    "evenly",
    "threshold",
    "budget",
    "mistakes",
    "relative",
    "change",
    "change 4",
    "relative 4",
)


def _frontier(config: Config, axis: Any, dataset: str) -> None:
    """Validation accuracy over pulses: of each row, what no other of its trials beats in both."""
    from matplotlib.ticker import LogLocator

    for row in (r for r in _DRAWN if r in rows(config)):
        seen = [(sum(r["writes"]), measure("writes", r))
                for t in searched(config, dataset, "writes")
                if t.row == row and (r := result(config, t)) and "lost" not in r]  # fmt: skip
        best = [p for p in sorted(seen) if all(q[1] <= p[1] for q in seen if q[0] < p[0])]
        if best:
            axis.plot(*zip(*best, strict=True), "o-", ms=3, label=row)
    axis.set(xscale="log", xlabel="pulses", ylabel="validation accuracy, %")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:.0e}".replace("e+0", "e"))
    axis.xaxis.set_minor_formatter("")
    axis.legend(fontsize=7)


def _streams(config: Config, axis: Any, study: str, found: dict[str, Trial]) -> None:
    """Accuracy over the stream, mean over seeds, by period: before learning, or of classes seen."""
    for row in (r for r in _DRAWN if r in found):
        runs = _runs_of(config, found[row])
        if not runs:
            continue
        each = 100 * np.stack(
            [np.asarray(r["val"]) if study == "classes" else _smooth(r) for r in runs]
        )
        per = runs[0]["plan"]["periods"] / each.shape[1]
        axis.plot((1 + np.arange(each.shape[1])) * per, each.mean(0), lw=1, label=row)
    axis.set(xlabel="period", ylabel="accuracy, %")
    axis.legend(fontsize=7)


def _smooth(found: dict[str, Any]) -> np.ndarray:
    """Accuracy in ten stretches of each period."""
    online = np.asarray(found["online"])
    return np.concatenate([[x.mean() for x in np.array_split(p, min(10, len(p)))] for p in online])


def _dots(config: Config, axis: Any, study: str, found: dict[str, Trial]) -> None:
    names = [*found][::-1]
    each = [[measure(study, r) for r in _runs_of(config, found[n])] for n in names]
    mean, spread = [np.mean(x) for x in each], [np.std(x, ddof=len(x) > 1) for x in each]
    axis.errorbar(mean, names, xerr=spread, fmt="o", ms=4)
    axis.set(xlabel="accuracy, %")
    axis.tick_params(axis="y", labelsize=7)


def _runs_of(config: Config, trial: Trial) -> list[dict[str, Any]]:
    """Those of the seeds, or of the search where there are none."""
    seeds = [trial._replace(seed=seed) for seed in range(config.seeds)]
    runs = [r for t in seeds if (r := result(config, t)) and "lost" not in r]
    alone = result(config, trial)
    return runs or ([alone] if alone and "lost" not in alone else [])


def _drawn(figure: "Figure") -> bytes:
    image = BytesIO()
    figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return image.getvalue()


if __name__ == "__main__":
    _run.main(Config, main)
