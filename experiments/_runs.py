"""Runs of other experiments, side by side, each a process of its own that leaves one file."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from experiments import _folder, _signals
from neurojax._files import sealed, unsealed, write_whole


class Job(NamedTuple):
    """One run.

    Fields:
        name: as one is told of it
        result: the file that keeps its metrics
        folder: where it works
        module: what is run
        options: of the command, one string
        seed: of all its chance
        data_dir: where its pictures lie; None where it needs to be told nothing
        told: what else its result says of whose it is
        may_be_lost: a training that does not stay finite is a result too
        passing: its folder goes once its result is kept
    """

    name: str
    result: Path
    folder: Path
    module: str
    options: str
    seed: Any
    data_dir: Path | None = None
    told: dict[str, str] = {}
    may_be_lost: bool = False
    passing: bool = False

    @property
    def whose(self) -> dict[str, Any]:
        """What a result must say to be that of this run."""
        return self.told | {"module": self.module, "options": self.options, "seed": self.seed}

    @property
    def command(self) -> list[str]:
        """What makes it, or goes on with it."""
        where = ["--data-dir", str(self.data_dir)] if self.data_dir else []
        words = [sys.executable, "-m", self.module, *self.options.split()]
        return [*words, "--seed", str(self.seed), "--out", str(self.folder), *where, "--resume"]


def share(part: str | None) -> tuple[int, int]:
    """K and N of a --part "K/N": the K-th of N; the whole is 1/1."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", "1/1" if part is None else part)
    k, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= k <= n:
        raise ValueError(f"--part must be K/N with 1 <= K <= N, such as 3/8; got {part!r}")
    return k, n


def own(folder: Path, part: str | None) -> Path:
    """What a process locks of a folder that parts share: tasks of one part keep one another out.

    Those of another division are kept out run by run, as each has a folder of its own.
    """
    return folder if part is None else folder / ".part-{}-of-{}".format(*share(part))


def run(jobs: Iterable[Job], at_once: int, say: Callable[[str], Any]) -> bool:
    """Run what has no result yet, each on a core of its own; whether any failed."""
    todo = [job for job in jobs if not job.result.exists()]
    cores: SimpleQueue[int] = SimpleQueue()
    for core in range(at_once):
        cores.put(core)
    failed = False
    with ThreadPoolExecutor(at_once) as pool:
        for done, message in pool.map(lambda job: _run_one(job, at_once, cores), todo):
            say(message)
            failed |= not done
    return failed


def _run_one(job: Job, at_once: int, cores: SimpleQueue) -> tuple[bool, str]:
    """One run, kept once it is complete: whether it is, and what to say."""
    core = cores.get()
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    env = os.environ | {"XLA_FLAGS": flags.strip()}
    pinned = ["taskset", "-c", str(core)] if at_once > 1 and shutil.which("taskset") else []
    code, _, said = _signals.run([*pinned, *job.command], env=env)
    cores.put(core)
    metrics = None
    try:
        if not code:
            metrics = keep(job, _folder.results(job.folder))
        elif job.may_be_lost and "must stay finite; got NaN or infinity" in said:
            return True, f"{job.name}: {keep(job, {'lost': said.strip()})['lost']}"
    except (ValueError, OSError) as error:
        said = str(error)
    if metrics is None:
        return False, f"{job.name}: failed\n{said.strip()[-2000:]}"
    return True, f"{job.name}: {100 * metrics['test_accuracy']:.2f}%"


def keep(job: Job, metrics: dict[str, Any]) -> dict[str, Any]:
    """Copy the metrics of a finished run to its result, with whose it is and the digest."""
    for place in ("out", "data_dir"):  # of this machine alone
        metrics.get("config", {}).pop(place, None)
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_whole(job.result, sealed(metrics | job.whose))
    if job.passing:
        shutil.rmtree(job.folder, ignore_errors=True)
    return metrics


def slug(name: str) -> str:
    """A name as that of a folder."""
    kept = "".join(x if x.isalnum() else "-" for x in name.replace("%", ""))
    return "-".join(part for part in kept.split("-") if part)


def kept(job: Job) -> dict[str, Any]:
    """A result; `ValueError` if it is not what was written, or not of this run."""
    result = unsealed(job.result)
    for name, asked in job.whose.items():
        if result.get(name) != asked:
            found = f"{str(job.result)!r} is of {name} {result.get(name)!r}, not {asked!r}"
            raise ValueError(found)
    return result
