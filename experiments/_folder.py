"""The folder of one run: what is in it, whose it is, and what made it."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import _lock, _options, _signals
from experiments._run import Run
from neurojax import checkpoint, data
from neurojax._files import digest, plain, sealed, unsealed, write_whole
from neurojax.analysis import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PACKAGES = ("neurojax", "jax", "jaxlib", "equinox", "optax", "flax", "orbax-checkpoint", "numpy")
_BEGUN = "run.json"  # the configuration; its presence says that a run has begun
_METRICS = "metrics.json"  # its presence says that the run is complete
_SUMS = "SHA256SUMS"  # of it and the figures, as `sha256sum -c` reads them
_PICTURES = "pictures"  # what was learnt from, by its fingerprint
_FIGURES = (
    "learning_curve", "raster", "weights", "advantage", "variation", "routing_cost", "network",
    "in_situ", "equilibrium", "queries",
)  # fmt: skip
_OURS = (
    _METRICS, _SUMS, "search.json", "checkpoints", "parts", _BEGUN,
    *(f"{name}.png" for name in _FIGURES),
)  # fmt: skip
# May differ when a run goes on.
_NOT_THE_RUN = (
    "out",
    "resume",
    "overwrite",
    "data_dir",
    "width",
    "cores",
    "processors",
    "coordinator",
    "num_processes",
    "process_id",
)


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

    def metrics(self, test: float, n_train: int, n_test: int) -> dict[str, Any]:
        """What metrics.json holds of it: parts of pictures that are right, seconds, how many."""
        return {
            "test_accuracy": test,
            "val_accuracy": list(self.val_accuracy),
            "train_accuracy": list(self.train_accuracy),
            "epochs_planned": list(self.planned),
            "seconds": sum(self.seconds),
            "seconds_per_epoch": list(self.seconds),
            "n_train": n_train,
            "n_test": n_test,
        }

    def curve(self, test: float) -> "Figure":
        """The learning curve, in percent."""
        val, train = ([100 * x for x in seen] for seen in (self.val_accuracy, self.train_accuracy))
        return plotting.learning_curve(val, train, 100 * test)


@contextmanager
def held(
    config: Run, sets: data.Dataset | None = None, may_grow: tuple[str, ...] = ()
) -> Iterator["Folder"]:
    """The folder in --out, this process's alone until the block ends.

        with held(config, sets) as folder:
            ...                 # what may be refused
            folder.begin()
            ...                 # what takes time

    A run that fails before its first result leaves the folder as it was, so that it can be started
    anew; what it was to overwrite goes with its first result.
    Raises `ValueError` for a folder that holds another run's results, is in use or cannot be
    written; with --resume, for one in which anything was made with another configuration, but
    for the options in `may_grow`, which may be larger than they were, or with other pictures.
    """
    with _lock.held(Path(config.out)):
        folder = Folder(config, None if sets is None else fingerprint(sets), may_grow)
        try:
            yield folder
        except Exception:
            folder.leave()
            raise


class Folder:
    """What a run keeps: checkpoints or finished parts, whose it is beside them, its results.

    Nothing is changed before `begin`.
    """

    def __init__(self, config: Run, pictures: str | None, may_grow: tuple[str, ...]):
        self.config, self.path = config, Path(config.out)
        self._pictures = {} if pictures is None else {_PICTURES: pictures}
        self._whose = jsonable(config) | self._pictures
        self._checkpoints, self._parts = self.path / "checkpoints", self.path / "parts"
        self._aside = self.path / ".replaced"
        self._may_grow = may_grow
        self._held = [name for name in _OURS if (self.path / name).exists()]
        self._fruitless = False  # begun, and nothing would be lost with it
        self._warned: set[str] = set()
        if config.resume:
            self._refuse_others()
        elif self._held and not config.overwrite:
            raise ValueError(
                f"--out {str(self.path)!r} holds the results of another run ({self._held[0]}):"
                " pass --resume to go on with it, --overwrite to replace it"
            )

    def begin(self) -> None:
        """Make the folder this run's: unless it goes on, nothing of another run stays in it."""
        self._fruitless = not self.config.resume or not self._held
        if self.config.resume and not self._held:
            print(f"nothing to go on with in {str(self.path)!r}: the run begins")  # noqa: T201
        with _signals.unbroken():  # so that what an interrupt says of it is true
            self._sweep()
            if not self.config.resume:
                self._set_aside()
            self._note_begun()
            _signals.goes_on("--resume")

    def _note_begun(self) -> None:
        now, begun = self._whose, self.path / _BEGUN
        then = unsealed(begun) if begun.exists() else None
        if then is None or any(now[name] != then[name] for name in self._may_grow):
            (self.path / _METRICS).unlink(missing_ok=True)  # it is not complete any more
            write_whole(begun, sealed(now))

    def last(self, state: Any) -> tuple[int, Any, History]:
        """Epoch, state and history of the last whole checkpoint; without any, `state` afresh."""
        with self._telling():
            if checkpoint.latest(self._checkpoints) is None:
                return 0, state, History()
            epoch, state, kept = checkpoint.restore(self._checkpoints, state)
        return epoch, state, History(**{k: tuple(v) for k, v in kept["history"].items()})

    def save(self, epoch: int, state: Any, history: History) -> None:
        """One checkpoint; returns when it is on disk."""
        kept = {"config": self._whose, "history": asdict(history)}
        with _signals.unbroken():
            checkpoint.save(self._checkpoints, epoch, state, kept)
        self._bear_fruit()

    def part(self, name: str) -> list[dict[str, Any]] | None:
        """Rows of a finished part of a run that has no epochs; None if it is still to be made."""
        file = self._part(name)
        return self._unsealed(file)["rows"] if file.exists() else None

    def keep(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write the rows of a finished part."""
        self._parts.mkdir(exist_ok=True)
        whose = {"part": name, "config": self._whose}
        _write(self._part(name), sealed(whose | {"rows": rows}))
        self._bear_fruit()

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of results."""
        _write(self.path / name, sealed(content))

    def finish(self, metrics: dict[str, Any], figures: dict[str, "Figure"]) -> dict[str, Any]:
        """Write the figures, then metrics.json, whose presence says that the run is complete."""
        metrics = metrics | self._pictures | provenance(self.config)
        files = {f"{name}.png": _drawn(figure) for name, figure in figures.items()}
        files[_METRICS] = (json.dumps(metrics, indent=1) + "\n").encode()
        sums = "".join(f"{digest(content)}  {name}\n" for name, content in files.items())
        for name, content in ({_SUMS: sums.encode()} | files).items():
            _write(self.path / name, content)
        self._bear_fruit()
        return metrics

    def leave(self) -> None:
        """Take away what was begun, if nothing has come of it, and bring back what was there."""
        if self._fruitless:
            _remove(self.path)
            _move(self._aside, self.path)
            self._bear_fruit()

    def _sweep(self) -> None:
        """Away with what processes that were killed were just writing."""
        for folder in (self.path, self._parts):
            for left in folder.glob(".*.part"):
                left.unlink()

    def _set_aside(self) -> None:
        """What is to be overwritten, until there is something in its place."""
        if self._aside.exists():  # by a run that was killed, whose own results came to nothing
            _remove(self.path)
        elif self._held:
            self._aside.mkdir()
            _move(self.path, self._aside)

    def _bear_fruit(self) -> None:
        """From here on something would be lost with the run, and what it replaces goes."""
        self._fruitless = False
        if self._aside.exists():
            _remove(self._aside)
            self._aside.rmdir()

    def _part(self, name: str) -> Path:
        return self._parts / f"{name.replace(' ', '-')}.json"

    def _refuse_others(self) -> None:
        """What is in the folder must be of this run, whatever lies beside it."""
        with self._telling():
            for what, then, cure in self._claims():
                self._refuse_other(what, then, cure)

    def _claims(self) -> Iterator[tuple[str, Any, str]]:
        """What says whose it is: its name, the configuration in it, the cure if it is another."""
        cure = "pass what it was made with, or another --out"
        if (self.path / _BEGUN).exists():
            yield "the run", self._unsealed(self.path / _BEGUN), cure
        elif (self.path / _METRICS).exists():  # without its beginning the end says whose it is
            found = self._without(results, self.path)
            pictures = {k: v for k, v in found.items() if k == _PICTURES}
            yield "the run", found["config"] | pictures, cure
        foreign = "it is of another run: take it away, or pass --overwrite to begin anew"
        if checkpoint.latest(self._checkpoints) is not None:
            kept = checkpoint.metadata(self._checkpoints)
            yield "the checkpoint", kept.get("config"), foreign
        for file in sorted(self._parts.glob("*.json")):
            kept = self._unsealed(file)
            if self._part(str(kept.get("part"))) != file:
                raise ValueError(f"{str(file)!r} holds another part; {foreign}")
            yield f"parts/{file.name}", kept.get("config"), foreign

    def _refuse_other(self, what: str, then: Any, cure: str) -> None:
        where = f"--resume: {what} in {str(self.path)!r}"
        if not isinstance(then, dict):
            raise ValueError(f"{where} does not say what it was made with; {cure}")
        now = self._whose
        if then.get(_PICTURES) != now.get(_PICTURES):
            raise ValueError(f"{where} was made with other pictures; {cure}")
        for name in sorted({*then, *now} - {*_NOT_THE_RUN}):
            before, asked = then.get(name), now.get(name)
            may_grow = name in self._may_grow
            if before != asked and not (may_grow and before is not None and asked > before):
                made = f"was made with {_option(name, before)}"
                only = ", which may only grow" if may_grow else ""
                raise ValueError(f"{where} {made}{only}; got {_option(name, asked)}; {cure}")

    def _unsealed(self, file: Path) -> dict[str, Any]:
        return self._without(unsealed, file)

    def _without(self, read: Callable[[Path], dict[str, Any]], file: Path) -> dict[str, Any]:
        """What is read from a file, or the cure."""
        try:
            return read(file)
        except ValueError as error:
            raise ValueError(f"{error}; take it away, and --resume goes on without it") from None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say each warning once, in a line."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield
        for line in {str(warning.message) for warning in told} - self._warned:
            self._warned.add(line)
            print(f"warning: {line}", file=sys.stderr)  # noqa: T201


def fingerprint(sets: data.Dataset) -> str:
    """SHA-256 of all pictures and labels."""
    found = hashlib.sha256()
    for x in jax.tree.leaves((sets.train, sets.val, sets.test)):
        found.update(f"{x.dtype}{x.shape}".encode())
        found.update(np.ascontiguousarray(x).data)
    return found.hexdigest()


def results(folder: Path) -> dict[str, Any]:
    """The metrics.json of a run; `ValueError` naming it if it is not what was written."""
    file = folder / _METRICS
    try:
        content = plain(file).read_bytes()
        known = f"{digest(content)}  {_METRICS}" in plain(folder / _SUMS).read_text().splitlines()
        why = f"its digest is not that in {_SUMS}"
        if known:
            return json.loads(content)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
    raise ValueError(f"{str(file)!r} is not what was written: {why}")


def _remove(folder: Path) -> None:
    """All in it that is ours."""
    for name in _OURS:
        target = folder / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    for name in _OURS:
        if (source / name).exists():
            (source / name).rename(target / name)


def _write(path: Path, content: str | bytes) -> None:
    """A signal waits, so that not even a hidden file is left."""
    with _signals.unbroken():
        write_whole(path, content)


def _drawn(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _option(name: str, value: Any) -> str:
    """An option as one types it, from its value in JSON."""
    if value is None:
        return f"no --{_options.dashed(name)}"
    return _options.typed(name, tuple(value) if isinstance(value, list) else value)


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
    if (device := jax.devices()[0]).platform != "cpu":
        return device.device_kind
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
