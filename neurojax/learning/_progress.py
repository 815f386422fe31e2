"""A bar over the batches of a training, and a line an epoch."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_TEXTS = {  # of the sums that are known: while an epoch runs, and when it is done
    "accuracy": (lambda x: f"accuracy {100 * x:.1f}%", lambda x: f"train {100 * x:6.2f}%"),
    "rate": (lambda x: f"spikes {x:.3f} a step", lambda x: f"spikes {x:.3f} a neuron and step"),
}


def _running(name: str, x: float) -> str:
    return _TEXTS[name][0](x) if name in _TEXTS else f"{name} {x:.4g}"


def _done(name: str, x: float) -> str:
    return _TEXTS[name][1](x) if name in _TEXTS else f"{name} {x:.4g}"


class Progress:
    """A bar over the batches of all epochs; on a pipe, a line an epoch; if `quiet`, nothing.

    `agreed` is asked how many batches to run at once, where several processes must run as many.
    """

    def __init__(self, epochs: int, n_batches: int, done: int, *, quiet: bool = False,
        agreed: Callable[[int], Any] = int,
    ):  # fmt: skip
        self.console = Console(highlight=False, quiet=quiet)
        self.epochs, self.n_batches, self.epoch = epochs, n_batches, done
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console,
            disable=quiet or not self.console.is_terminal,
        )  # fmt: skip
        total, at = epochs * n_batches, done * n_batches
        self._task = self._bar.add_task("training", total=total, completed=at, note="")
        self._stretch, self._agreed = 1, agreed

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:  # rich before 14.1 would print an empty line
            self._bar.stop()

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The batches of one epoch in runs of about half a second."""
        self._seen: dict[str, np.ndarray] = {}
        self._since = time.perf_counter()
        self._batches = first = 0
        while first < self.n_batches:
            begin = time.perf_counter()
            last = min(first + self._stretch, self.n_batches)
            yield first, last
            pace = max(time.perf_counter() - begin, 1e-4) / (last - first)
            some = max(1, min(4 * self._stretch, round(0.5 / pace)))
            self._stretch = int(self._agreed(some))
            first = last

    def show(self, batches: int, seen: dict[str, Any]) -> None:
        """Take in what a stretch showed: a number for each batch of the epoch, others 0."""
        now = {n: np.asarray(x, np.float64) for n, x in seen.items()}  # waits until they are there
        self._seen = {name: self._seen.get(name, 0.0) + x for name, x in now.items()}
        self._batches += batches
        note = "  ".join(_running(name, x.sum() / batches) for name, x in now.items())
        self._bar.update(self._task, advance=batches, note=note)

    def finish_epoch(self, val: float | None) -> None:
        """Say how the epoch went."""
        self.epoch += 1
        texts = [_done(name, x) for name, x in self.means.items()]
        if val is not None:
            texts.insert("accuracy" in self.means, f"val {100 * val:6.2f}%")
        line = "  ".join(
            [f"epoch {self.epoch:>3}/{self.epochs}", *texts, f"{self.seconds():.1f} s"]
        )
        self.console.print(line)

    @property
    def means(self) -> dict[str, float]:
        """Over the batches of the epoch so far; to the bit the same however they were stretched."""
        return {name: float(x.sum() / self._batches) for name, x in self._seen.items()}

    def seconds(self) -> float:
        """Since the epoch began."""
        return time.perf_counter() - self._since
