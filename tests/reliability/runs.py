"""Experiments as processes: started, stopped by signals, gone on with, and compared bit for bit."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BEFORE = "interrupted before it began; the same command starts it\n"
GOES_ON = "interrupted; the same command with --resume goes on from what is saved\n"
_NOT_THE_RUN = ("out", "resume", "overwrite", "git_revision")


@dataclass(frozen=True)
class Command:
    """An experiment with its options, small enough to be run a hundred times."""

    module: str
    options: str
    env: dict[str, str]
    code: int = 0  # of its end

    def started(self, out: Path, *more: str) -> subprocess.Popen:
        """A process that works in `out`."""
        words = [sys.executable, "-m", f"experiments.{self.module}", *self.options.split()]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*words, "--out", str(out), *more], stdout=pipe, stderr=pipe, text=True, cwd=ROOT,
            env=self.env,
        )  # fmt: skip

    def whole(self, out: Path, *more: str) -> float:
        """Run to the end, and say how many seconds it took."""
        begin = time.perf_counter()
        with self.started(out, *more) as process:
            said = process.communicate(timeout=300)
        assert (process.returncode, said[1]) == (self.code, ""), said
        return time.perf_counter() - begin

    def stopped(self, out: Path, number: int, after: float, *more: str) -> tuple[int, str]:
        """Exit code and stderr of a run that gets a signal `after` seconds from its start."""
        begin = time.perf_counter()
        with self.started(out, *more) as process:
            while number != signal.SIGKILL and process.poll() is None and not listens(process):
                time.sleep(0.002)
            time.sleep(max(0.0, begin + after - time.perf_counter()))
            process.send_signal(number)
            said = process.communicate(timeout=300)[1]
        return process.returncode, said


def listens(process: subprocess.Popen) -> bool:
    """Whether it has come as far as our first line: SIGTERM has a handler."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def reached(out: Path) -> str:
    """How far the run had come."""
    if (out / "metrics.json").exists():
        return "after its end"
    if not (out / "run.json").exists():
        return "before it began"
    steps = [int(p.name) for p in out.glob("checkpoints/*") if p.name.isdigit()]
    parts = len([*out.glob("parts/*.json")])
    return f"after epoch {max(steps)}" if steps else f"after {parts} parts" if parts else "begun"


def outcome(out: Path) -> Any:
    """metrics.json without times, places, and the commit, which may change meanwhile."""
    return _timeless(json.loads((out / "metrics.json").read_text()))


def _timeless(x: Any) -> Any:
    if isinstance(x, dict):
        kept = {k: v for k, v in x.items() if not k.startswith("seconds") and k not in _NOT_THE_RUN}
        return {k: _timeless(v) for k, v in kept.items()}
    return [_timeless(v) for v in x] if isinstance(x, list) else x


def files(out: Path) -> set[str]:
    """Names of all that lies in a run's folder, but for what orbax calls by chance."""
    return {*_names(out)}


def _names(out: Path) -> Iterator[str]:
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if "/d/" not in name and "ocdbt.process" not in name:
            yield name
