"""What every experiment needs around its science: options, a results folder, a progress bar."""

import ctypes
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from experiments import _command, _signals
from neurojax import checkpoint
from neurojax._files import write_whole

_PACKAGES = ("neurojax", "jax", "jaxlib", "equinox", "optax", "flax", "orbax-checkpoint", "numpy")
_BEGUN = "run.json"  # the configuration; its presence says that a run has begun
_FIGURES = ("learning_curve", "raster", "weights", "advantage", "variation", "routing_cost")
_OURS = (
    "metrics.json", "search.json", "checkpoints", "parts", _BEGUN,
    *(f"{name}.png" for name in _FIGURES),
)  # fmt: skip
# May differ when a run goes on.
_NOT_THE_RUN = ("out", "resume", "overwrite", "data_dir", "width", "cores")


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    dataset: str = "digits"
    """digits (embedded), mnist, idx (four IDX files), or an image classification set of tfds."""
    data_dir: Path | None = None
    """Folder of the IDX files or of a prepared tfds set; without, $NEUROJAX_DATA."""
    train_size: int | None = None
    """Use this many training pictures only; without, all of them."""


@dataclass(frozen=True)
class Run:
    """Chance, and where results go."""

    out: Path = Path("runs")
    """Folder for metrics.json, figures and what a run needs to go on."""
    seed: int = 0
    """Decides weights, wiring, order of samples and augmentation; never the split."""
    resume: bool = False
    """Go on with the run in --out, from what it has saved."""
    overwrite: bool = False
    """Replace another run's results in --out."""

    withheld: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def default_text(cls, name: str) -> str | None:
        """The default of a field that depends on others; None where it is the field's own."""
        return None


def dashed(name: str) -> str:
    """Field name as an option."""
    return name.replace("_", "-")


def require_within(name: str, value: float | None, interval: str) -> None:
    """Refuse a number outside `interval`, such as "(0, 1]", as single precision has it too."""
    if value is None:
        return
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    low, high = (float(x) for x in interval[1:-1].split(","))
    for x, where in ((value, ""), (single, f", {single:g} in single precision")):
        above = x > low or (interval[0] == "[" and x == low)
        below = x < high or (interval[-1] == "]" and x == high)
        if not (above and below):
            raise ValueError(f"{name} must be in {interval}; got {value}{where}")


def refuse_idle_folder(config: Data) -> None:
    """Refuse a folder for data that need none."""
    if config.dataset == "digits" and config.data_dir is not None:
        raise ValueError(f"--data-dir needs a --dataset other than digits; got '{config.data_dir}'")


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: XLA's matrix products ask for scratch anew at every call,
    and giving it back to the system each time costs up to a fifth of a training step."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-1, 2**31 - 1), (-2, 2**26), (-3, 2**25)):  # trim, pad, mmap
            mallopt(option, value)


def main(config: type, run: Callable[[Any], Any], argv: list[str] | None = None) -> None:
    """Parse the command line into `config` and run; errors are one line, without traceback."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    keep_freed_memory()
    try:
        run(_command.parsed(config, argv, sys.modules[run.__module__]))
    except (ValueError, OSError) as error:
        console.print(f"error: {in_options(str(error), config)}", style="red", markup=False)
        sys.exit(2)


def in_options(message: str, config: type) -> str:
    """A message as one line, in which fields are options.

    Those that must be something, "n_in must ..." at its start or after what it is of; and in its
    cure those to be passed, "another radius or Recurrence('none')".
    """
    known = {field.name for field in fields(config)}

    def option(found: re.Match) -> str:
        before, name, value = found[1], found[2].lower(), found[3]
        told = f"--{dashed(name)} {value}" if value else f"--{dashed(name)}"
        return before + told if name in known else found[0]

    problem, passed, cure = " ".join(message.split()).partition("; pass ")
    problem = re.sub(r"(^|: )(\w+)()(?= must )", option, problem, count=1)
    cure = re.sub(r"((?:another|or) |^)(\w+)(?:\('(\w+)'\))?", option, cure)
    return problem + passed + cure


@dataclass(frozen=True)
class History:
    """What was seen epoch by epoch; goes into every checkpoint."""

    val_accuracy: tuple[float, ...] = ()
    train_accuracy: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    planned: tuple[int, ...] = ()  # epochs of the run that its schedules were made for

    def grown(self, val: float, train: float, seconds: float, planned: int) -> "History":
        """With one more epoch."""
        return History(
            (*self.val_accuracy, val), (*self.train_accuracy, train), (*self.seconds, seconds),
            (*self.planned, planned),
        )  # fmt: skip


class Folder:
    """The folder of one run: refuses another run's results, keeps checkpoints, writes whole files.

    Nothing is changed before `begin` or `start`. Raises `ValueError` for a folder that holds
    results or cannot be written, and with --resume for a run of another configuration, in which
    only the options in `may_grow` may be larger than they were; `FileNotFoundError` for none.
    """

    def __init__(self, config: Run, may_grow: tuple[str, ...] = ()):
        self.config = config
        self.path = Path(config.out)
        self._checkpoints = self.path / "checkpoints"
        self._may_grow = may_grow
        if config.resume:
            self._refuse_other_config()
        elif not config.overwrite:
            self._refuse_results()
        self._refuse_unwritable()

    def begin(self) -> None:
        """Make the folder this run's: unless it goes on, nothing of another run stays in it."""
        begun = self.path / _BEGUN
        if not self.config.resume:
            self._clear()
            write_whole(begun, text(jsonable(self.config)))
        elif self._grown(json.loads(begun.read_text())):
            (self.path / "metrics.json").unlink(missing_ok=True)  # it is not complete any more
            write_whole(begun, text(jsonable(self.config)))
        _signals.goes_on("--resume")

    def _grown(self, then: dict[str, Any]) -> bool:
        """Whether the run that has begun is to be longer now."""
        return any(getattr(self.config, name) > then[name] for name in self._may_grow)

    def start(self, state: Any) -> tuple[int, Any, History]:
        """Epoch, state and history to go on from: the last checkpoint's, or `state` afresh."""
        self.begin()
        if checkpoint.latest(self._checkpoints) is None:
            return 0, state, History()
        epoch, state, kept = checkpoint.restore(self._checkpoints, state)
        return epoch, state, History(**{k: tuple(v) for k, v in kept["history"].items()})

    def part(self, name: str) -> Path:
        """File for a finished part of a run that has no epochs to keep checkpoints of."""
        folder = self.path / "parts"
        folder.mkdir(exist_ok=True)
        return folder / f"{name.replace(' ', '-')}.json"

    def save(self, epoch: int, state: Any, history: History) -> None:
        """One checkpoint; returns when it is on disk."""
        kept = {"config": jsonable(self.config), "history": asdict(history)}
        with _signals.unbroken():
            checkpoint.save(self._checkpoints, epoch, state, kept)

    def finish(self, metrics: dict[str, Any], figures: dict[str, Figure]) -> dict[str, Any]:
        """Write the figures, then metrics.json, whose presence says that the run is complete."""
        for name, figure in figures.items():
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=150)
            write_whole(self.path / f"{name}.png", buffer.getvalue())
        metrics = metrics | provenance(self.config)
        write_whole(self.path / "metrics.json", text(metrics))
        return metrics

    def _clear(self) -> None:
        for name in _OURS:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def _refuse_results(self) -> None:
        held = [name for name in _OURS if (self.path / name).exists()]
        if held:
            raise ValueError(
                f"--out {str(self.path)!r} holds the results of another run ({held[0]}):"
                " pass --resume to go on with it, --overwrite to replace it"
            )

    def _refuse_unwritable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ValueError(
                f"--out must be a folder that can be written; got {str(self.path)!r}"
                f" ({error.strerror})"
            ) from None

    def _refuse_other_config(self) -> None:
        try:
            then = json.loads((self.path / _BEGUN).read_text())
        except OSError:
            raise FileNotFoundError(
                f"--resume needs a run that has begun in --out; {str(self.path)!r} holds none"
            ) from None
        now = jsonable(self.config)
        for name in sorted({*then, *now} - {*_NOT_THE_RUN}):
            before, asked = then.get(name), now.get(name)
            may_grow = name in self._may_grow
            if before != asked and not (may_grow and asked > before):
                raise ValueError(
                    f"--resume: the run in {str(self.path)!r} was made with"
                    f" --{dashed(name)} {before}{', which may only grow' if may_grow else ''};"
                    f" got {asked}"
                )


class Progress:
    """A bar over the batches of all epochs; on a pipe, a line an epoch."""

    def __init__(self, epochs: int, n_batches: int, done: int):
        self.console = Console(highlight=False)
        self.epochs, self.n_batches, self.epoch = epochs, n_batches, done
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console,
            disable=not self.console.is_terminal,
        )  # fmt: skip
        total, at = epochs * n_batches, done * n_batches
        self._task = self._bar.add_task("training", total=total, completed=at, note="")
        self._stretch = 1

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The batches of one epoch in runs of about half a second."""
        self._sums, self._since = [0.0, 0.0, 0.0], time.perf_counter()
        first = 0
        while first < self.n_batches:
            begin = time.perf_counter()
            last = min(first + self._stretch, self.n_batches)
            yield first, last
            pace = max(time.perf_counter() - begin, 1e-4) / (last - first)
            self._stretch = max(1, min(4 * self._stretch, round(0.5 / pace)))
            first = last

    def show(self, batches: float, accuracy: float, rate: float) -> None:
        """Take in the sums over a stretch of batches."""
        self._sums = [a + b for a, b in zip(self._sums, (batches, accuracy, rate), strict=True)]
        note = f"accuracy {100 * accuracy / batches:.1f}%  spikes {rate / batches:.3f} a step"
        self._bar.update(self._task, advance=batches, note=note)

    def finish_epoch(self, val: float) -> None:
        """Say how the epoch went."""
        self.epoch += 1
        self.console.print(
            f"epoch {self.epoch:>3}/{self.epochs}  train {100 * self.accuracy:6.2f}%"
            f"  val {100 * val:6.2f}%  spikes {self.rate:.3f} a neuron and step"
            f"  {self.seconds():.1f} s"
        )

    @property
    def accuracy(self) -> float:
        """Mean training accuracy of the epoch so far."""
        return self._sums[1] / self._sums[0]

    @property
    def rate(self) -> float:
        """Mean spikes per neuron and step of the epoch so far."""
        return self._sums[2] / self._sums[0]

    def seconds(self) -> float:
        """Since the epoch began."""
        return time.perf_counter() - self._since


def jobs_bar() -> Bar:
    """A bar over the parts of an experiment that has no epochs to show."""
    console = Console(highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def text(content: Any) -> str:
    """JSON as it is written to files."""
    return json.dumps(content, indent=1) + "\n"


def jsonable(config: Any) -> dict[str, Any]:
    """A configuration dataclass as JSON would give it back."""
    return json.loads(json.dumps(asdict(config), default=os.fspath))


def provenance(config: Any) -> dict[str, Any]:
    """What made a result: configuration, seed, package versions, git revision."""
    return {
        "config": jsonable(config),
        "seed": config.seed,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "processor": processor(),
        "git_revision": _git_revision(),
    }


def processor() -> str:
    """What the numbers were computed on: sums are ordered by what a processor can do at once."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Commit of the source tree, "+" behind it if files differ; None outside a checkout."""
    here = Path(__file__).parent
    git = lambda *args: subprocess.run(  # noqa: E731
        ["git", "-C", str(here), *args], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        tracked = git("ls-files", "--", Path(__file__).name)
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if dirty else "") if tracked else None
    except (OSError, subprocess.CalledProcessError):
        return None
