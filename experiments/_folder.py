"""The folder of one run: what is in it, whose it is, and what made it."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from matplotlib.figure import Figure

from experiments import _signals
from experiments._run import Run, dashed
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
