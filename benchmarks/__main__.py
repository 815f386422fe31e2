"""Us, the peers and the physical floor, side by side.

    python -m benchmarks --only W1,W3 --peers jaxpike,spyx --json FILE

Every system of a workload waits in a process of its own, peers in environments of their own
(`make bench-peers`). They take turns, so that drift of the machine hits all alike; a repeat
is the median of a few calls, and a row the median, least and greatest of the repeats.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import scaling, workloads
from neurojax._files import write_whole

ROOT = Path(__file__).resolve().parents[1]
COMPILED = "_compiled"  # behind the name of a peer in PyTorch: under torch.compile
PEERS = {  # name: (environment, workloads)
    "jaxpike": ("jax", "W1 W2 W3 W8"),
    "spyx": ("jax", "W1 W2 W3 W8"),
    **{
        name + way: ("torch", "W1 W2 W3")
        for way in ("", COMPILED)
        for name in ("snntorch", "norse", "spikingjelly")
    },
    "spikingjelly": ("torch", "W1 W2 W3 W14 W14-learn"),
    "brian2": ("brian2", "W4 W10 W11-cuba W11-coba W12 W13"),
    "aihwkit": ("aihwkit", "W5"),
}
OURS = {  # name: workloads
    "floor": "W1 W2 W3 W4 W5 W7 W8",
    "neurojax": "W1 W2 W3 W4 W5 W7 W8 W10 W11-cuba W11-coba W12 W13 W14 W14-learn",
    "neurojax_split": "W1 W3",
    "neurojax_xla": "W4",
    "neurojax_forward": "W7 W8",
    "neurojax_surrogate": "W7 W8",
}
WORKLOADS = (
    "W1", "W2", "W3", "W4", "W5", "W7", "W8", "W9", "W10", "W11-cuba", "W11-coba", "W12", "W13",
    "W14", "W14-learn",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What to measure, and against whom."""

    only: str = ",".join(WORKLOADS)
    """Workloads, with commas between them."""
    peers: str = ",".join(PEERS)
    """Peers, with commas between them, or none."""
    json: Path | None = None
    """Where to write the rows."""
    repeats: int = 9
    """Turns of every system."""
    data_dir: Path | None = None
    """Folder of the MNIST files, for W5 and W8; default: $NEUROJAX_DATA."""

    def __post_init__(self):
        _known("--only", self.workloads, WORKLOADS)
        _known("--peers", self.chosen, (*PEERS, "none alone"))
        if self.json and self.json.is_dir():
            raise ValueError(f"--json must be a file; got the folder {str(self.json)!r}")
        if self.repeats < 1:
            raise ValueError(f"--repeats must be >= 1; got {self.repeats}")

    @property
    def workloads(self) -> list[str]:
        """What to measure."""
        return _names(self.only)

    @property
    def chosen(self) -> list[str]:
        """Whom to measure against."""
        return [] if self.peers == "none" else _names(self.peers)


def _names(said: str) -> list[str]:
    """What commas part, each once."""
    return list(dict.fromkeys(name.strip() for name in said.split(",")))


def _known(option: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed:
            raise ValueError(f"{option} must name some of {', '.join(allowed)}; got {name!r}")


@dataclass
class Worker:
    """One workload of one system in a process of its own, and what it took so far."""

    system: str
    process: subprocess.Popen
    errors: IO[str]
    ready: dict[str, Any] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    failed: str = ""

    def answer(self) -> dict[str, Any]:
        """The next line it says; empty, with `failed` set, once it has died."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or ["no reason given"]
            self.failed = said[-1]
        return json.loads(line) if line else {}

    def turn(self) -> None:
        """One repeat."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has died since: `answer` finds out why
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        said = self.answer()
        if said:
            self.ms.append(median(said["ms"]))
            self.peak_mb = said["peak_mb"]

    def stop(self) -> None:
        """Let it end; closes all that links it to us."""
        self.process.stdout.close() if self.process.stdout else None
        with self.errors, suppress(BrokenPipeError), self.process:
            pass

    def row(self, workload: str) -> dict[str, Any]:
        """What it took."""
        return {
            "workload": workload, "system": self.system, "median_ms": median(self.ms),
            "min_ms": min(self.ms), "max_ms": max(self.ms), "peak_mb": self.peak_mb, **self.ready,
        }  # fmt: skip


def start(system: str, workload: str, data_dir: Path | None) -> Worker | str:
    """A worker that is ready, or why there is none."""
    python = sys.executable
    if system in PEERS:
        environment = ROOT / "benchmarks" / ".peers" / PEERS[system][0]
        python = str(environment / "bin" / "python")
        if not Path(python).exists():
            return "missing: make bench-peers"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env["TORCH_COMPILE_DISABLE"] = "0" if system.endswith(COMPILED) else "1"
    if data_dir:
        env["NEUROJAX_DATA"] = str(data_dir.resolve())
    errors = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(
        [python, "-m", "benchmarks.worker", system.removesuffix(COMPILED), workload],
        env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=errors,
    )  # fmt: skip
    worker = Worker(system, process, errors)
    worker.ready = worker.answer()
    if worker.failed:
        worker.stop()
    return worker.failed or worker


def compared(config: Config, workload: str, console: Console) -> tuple[list[dict], dict[str, str]]:
    """Rows of one workload, with ratios, and the systems that could not take part."""
    own = [name for name, has in OURS.items() if workload in has.split()]
    names = own + [name for name in config.chosen if workload in PEERS[name][1].split()]
    workers, absent = [], {}
    for name in names:
        with console.status(f"{workload}: {name} gets ready"):
            worker = start(name, workload, config.data_dir)
        if isinstance(worker, str):
            absent[name] = worker
        else:
            workers.append(worker)
    for turn in range(config.repeats):
        for worker in workers:
            with console.status(
                f"{workload}: turn {turn + 1} of {config.repeats}, {worker.system}"
            ):
                if not worker.failed:
                    worker.turn()
    for worker in workers:
        worker.stop()
    absent |= {worker.system: worker.failed for worker in workers if worker.failed}
    return with_ratios([x.row(workload) for x in workers if not x.failed]), absent


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one workload beside its floor and the fastest of its peers."""
    floor = [r["median_ms"] for r in rows if r["system"] == "floor"]
    peers = [r["median_ms"] for r in rows if r["system"] in PEERS]
    for r in rows:
        r["ratio_to_floor"] = r["median_ms"] / floor[0] if floor else None
        r["ratio_to_best_peer"] = r["median_ms"] / min(peers) if peers else None
    return rows


def shown(rows: list[dict[str, Any]], absent: dict[str, str], title: str) -> Table:
    """One workload for the screen."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("system", no_wrap=True)
    for name in (
        "median ms", "min-max", "x floor", "x peer", "first ms", "compile ms", "peak MB",
        "temp MB", "rates",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        said = lambda name, form, r=r: "" if r.get(name) is None else form.format(r[name])  # noqa: E731
        table.add_row(
            r["system"], digits(r["median_ms"]), f"{digits(r['min_ms'])}-{digits(r['max_ms'])}",
            said("ratio_to_floor", "{:.2f}"), said("ratio_to_best_peer", "{:.2f}"),
            said("first_ms", "{:,.0f}"), said("compile_ms", "{:,.0f}"),
            said("peak_mb", "{:,.0f}"), said("temp_mb", "{:.1f}"),
            " ".join(f"{x:.3g}" for x in r.get("rates", ())),
        )  # fmt: skip
    notes = {r["system"]: r["notes"] for r in rows if r["notes"]} | absent
    table.caption = "\n".join(f"{name}: {what}" for name, what in notes.items())
    table.caption_justify = "left"
    return table


def digits(ms: float) -> str:
    """Milliseconds, with a decimal where it says something."""
    return f"{ms:,.0f}" if ms >= 1000 else f"{ms:.1f}"


def growth(exponents: dict[str, dict[str, float]], title: str) -> Table:
    """W9 for the screen: fitted exponents and those of theory."""
    table = Table(title=title, title_justify="left", box=None)
    for name in ("axis", "time ~", "theory", "memory ~", "theory"):
        table.add_column(name, justify="left" if name == "axis" else "right", no_wrap=True)
    for axis, found in exponents.items():
        table.add_row(axis, *(f"{x:.2f}" for x in found.values()))
    return table


def machine() -> dict[str, Any]:
    """Where this was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    return {
        "processor": model or platform.processor(), "cores": os.cpu_count(),
        "system": platform.system(), "python": platform.python_version(),
    }  # fmt: skip


def titles() -> dict[str, str]:
    """Each workload in a line."""
    lines = (workloads.__doc__ or "").splitlines()[2:]
    return {line.split()[0]: line for line in lines if line[:1] == "W"}


def main(config: Config) -> None:
    """Measure, print and write."""
    console = Console(highlight=False, width=max(120, Console().width))
    title = titles()
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(), "versions": {}, "rows": [], "absent": {}}
    for workload in config.workloads:
        if workload == "W9":
            with console.status("W9: every size of every axis"):
                rows = list(scaling.rows())
            report["exponents"], absent = scaling.exponents(rows), {}
            console.print(growth(report["exponents"], title[workload]))
        else:
            rows, absent = compared(config, workload, console)
            console.print(shown(rows, absent, title[workload]))
        for row in rows:
            if "versions" in row:
                report["versions"][row["system"]] = row.pop("versions")
        report["rows"] += rows
        report["absent"] |= {f"{workload} {name}": why for name, why in absent.items()}
        if config.json:  # after every workload: what an interruption leaves is whole
            write_whole(config.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    try:  # of a bare class tyro would put its own refusals into a box
        main(tyro.cli(partial(Config), description=__doc__))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
