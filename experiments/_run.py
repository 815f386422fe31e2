"""What every experiment needs around its science: options, refusals, a progress bar."""

import ctypes
import errno
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from experiments import _command, _options
from experiments._options import Need, dashed, needs, none_of, refuse_idle
from neurojax import _memory
from neurojax._check import MOST
from neurojax._files import located
from neurojax.data.event_sets import MADE
from neurojax.data.ragged import Rasters

MANY = 10_000  # networks of one study
_LONGEST = 450  # characters of a refusal
STATES = 2**16  # of a device: its pulses may be gone through one by one


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    dataset: str = "digits"
    """digits (embedded), mnist, idx (four IDX files), or an image classification set of tfds."""
    data_dir: Path | None = None
    """Folder of the IDX files or of a prepared set; without, $NEUROJAX_DATA."""
    train_size: int | None = None
    """Use this many training pictures only; without, all of them."""

    needs: ClassVar[tuple[Need, ...]] = (
        none_of("data_dir", "dataset", "digits", MADE, text="a --dataset that is not embedded"),
    )
    whole: ClassVar[dict[str, tuple[int, int]]] = dict(train_size=(1, MOST))


@dataclass(frozen=True)
class Run:
    """Chance, and where results go."""

    out: Path = Path("runs")
    """Folder for metrics.json, figures and what a run needs to go on."""
    seed: int = 0
    """Decides weights, wiring, order of samples and augmentation; never the split."""
    resume: bool = False
    """Go on with the run in --out, from what it has saved; begin it if there is none."""
    overwrite: bool = False
    """Replace another run's results in --out."""

    withheld: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def default_text(cls, name: str) -> str | None:
        """The default of a field that depends on others; None where it is the field's own."""
        return None


def require_within(name: str, value: float | None, interval: str) -> None:
    """Refuse a number outside `interval`, such as "(0, 1]", as single precision has it too."""
    if value is None:
        return
    ends = [float(x) for x in interval[1:-1].split(",")]
    with np.errstate(over="ignore"):
        singles = [float(np.float32(x)) for x in (value, *ends)]
    in_single = f", {singles[0]:g} in single precision"
    for (x, low, high), where in (([value, *ends], ""), (singles, in_single)):
        above = x > low or (interval[0] == "[" and x == low)
        below = x < high or (interval[-1] == "]" and x == high)
        if not (above and below):
            raise ValueError(f"{name} must be in {interval}; got {value}{where}")


def require_whole(config: Any, **ranges: tuple[int, int]) -> None:
    """Refuse whole numbers outside their range, both ends in it; None is none."""
    for name, (low, high) in ranges.items():
        given = getattr(config, name)
        for value in given if isinstance(given, tuple) else () if given is None else (given,):
            if not low <= value <= high:
                end = f">= {low}" if value < low else f"<= {high}"
                got = shown(value)
                raise ValueError(f"--{dashed(name)} must be a whole number {end}; got {got}")


def shown(value: int) -> str:
    """A whole number, without its digits where they are too many to read."""
    if abs(value) < 10**20:
        return str(value)
    return f"about {value:.0e}" if abs(value) < 10**300 else "a number of over 300 digits"


def require_sound(config: Any) -> None:
    """Refuse what no experiment takes: seeds that are another's again, idle or opposed options,
    numbers out of range.

    A key has 32 bits: the seed 2^32 would be the seed 0.
    """
    require_paths(config)
    seeds = getattr(config, "seeds", 1) or 1  # None: as many as suit
    require_whole(config, **({"seeds": (1, MANY)} if hasattr(config, "seeds") else {}))
    require_whole(config, seed=(0, 2**32 - seeds))
    if config.resume and config.overwrite:
        raise ValueError("--overwrite replaces what --resume goes on with; pass one of them")
    found = [need for need in needs(type(config)) if not need.filled]
    refuse_idle(config, found, lambda name: getattr(type(config), name))
    require_ranges(config)


def require_lists(config: Any, filled: tuple[str, ...], once: tuple[str, ...]) -> None:
    """Refuse options that name nothing, of those that must, or the same twice."""
    for name in filled:
        if not getattr(config, name):
            raise ValueError(f"--{dashed(name)} must name at least one; got none")
    for name in once:
        if len(set(given := getattr(config, name))) < len(given):
            raise ValueError(f"--{dashed(name)} must name each once; got {_options.shown(given)}")


def require_ranges(config: Any) -> None:
    """Refuse numbers outside what the parts of a configuration allow.

    `whole` of a part has the ends of its whole numbers, `within` the intervals of the others.
    """
    parts = [vars(part) for part in type(config).__mro__]
    for part in parts:
        require_whole(config, **part.get("whole", {}))
    for name, interval in (x for part in parts for x in part.get("within", {}).items()):
        given = getattr(config, name)
        for value in given if isinstance(given, tuple) else (given,):
            require_within(f"--{dashed(name)}", value, interval)


def require_paths(config: Any) -> None:
    """Refuse a path that no file can have."""
    for f in fields(config):
        if isinstance(value := getattr(config, f.name), Path):
            located(f"--{dashed(f.name)}", value)


def pictures(sets: Any) -> Any:
    """A data set, refused where it is one of events."""
    if isinstance(sets.train.images, Rasters):
        raise ValueError(
            f"--dataset must be of pictures here; got {sets.name}, which are events: learn from"
            " them by experiments.wta_broadcast or experiments.learn"
        )
    return sets


def n_train(sets: Any, train_size: int | None, batch_size: int | None) -> int:
    """How many pictures are learnt from, refused where there are fewer, or less than a batch."""
    there = len(sets.train.labels)
    if train_size is not None and train_size > there:
        allowed = f"--train-size must be at most {there}, all that there are"
        raise ValueError(f"{allowed}; got {train_size}")
    learnt = there if train_size is None else train_size
    if batch_size is not None and batch_size > learnt:
        raise ValueError(f"--batch-size must be at most {learnt} pictures; got {batch_size}")
    return learnt


def refuse_endless(epochs: int, n_batches: int) -> None:
    """Refuse more weight changes than can be numbered."""
    if epochs * n_batches > MOST:
        raise ValueError(
            f"--epochs must be at most {MOST // n_batches}, as weight changes are numbered in 32"
            f" bits; got {epochs}"
        )


def affordable(n_bytes: int, **sizes: float) -> None:
    """Refuse what would take more memory than there is, by the option of the largest of `sizes`.

    These are multiples of what is usual.
    """
    name = dashed(max(sizes, key=lambda name: sizes[name]))
    _memory.affordable(f"what --{name} asks for", n_bytes, f"pass a smaller --{name}")


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
    except (ValueError, OSError, FloatingPointError) as error:
        console.print(
            f"error: {in_options(_told(error, config), config)}", style="red", markup=False
        )
        sys.exit(2)


def _told(error: Exception, config: type) -> str:
    """What an error says, and what to do about a full disk."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"cannot use {error.filename!r}: {error.strerror}" if error.filename else error.strerror
        )
    file = f"cannot write {error.filename!r}: " if error.filename else ""
    again = " with --resume" if hasattr(config, "resume") else ""
    return f"{file}{error.strerror}; make room, and the same command{again} goes on"


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
    line = problem + passed + cure
    return line if len(line) <= _LONGEST else f"{line[:300]} ... {line[-100:]}"


def jobs_bar() -> Bar:
    """A bar over the parts of an experiment that has no epochs to show."""
    console = Console(highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
