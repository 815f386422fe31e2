"""Networks of the field, each run from several seeds and held against its reference.

    python -m experiments.networks cuba --out runs/cuba

Prints each statistic beside the reference's, and whether the two agree; writes metrics.json and
a figure. Ends with 0 where all agree, with 1 where one does not. With --coordinator the neurons of
a network are divided over the processes, which find what one finds.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from experiments import _hosts, _run
from experiments._networks import STUDIES
from experiments._networks.judged import Row
from experiments._networks.study import Study
from neurojax import sharding

Name = Literal[
    "cuba", "coba", "cobahh", "brunel", "vogels", "song", "izhikevich-patterns",
    "izhikevich-network", "potjans",
]  # fmt: skip


@dataclass(frozen=True)
class Network:
    """Which network, how large, how often and for how long."""

    name: Positional[Name] = "cuba"
    """The network: docs/networks.md tells what each is."""
    seeds: int | None = None
    """How many, from --seed on, each with a wiring and a start of its own."""
    scale: float | None = None
    """Part of the published size."""
    seconds: float | None = None
    """Of biology, a seed."""


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/networks")
    seed: int = 0
    """Decides wiring and start of the first network; the others have those that follow."""


@dataclass(frozen=True)
class Config(Network, Run, _hosts.Hosts):
    """A network and its run."""

    @classmethod
    def default_text(cls, name: str) -> str | None:
        """Of what depends on the network."""
        return {
            "seeds": "5, or 1",
            "scale": "1; vogels 0.2, potjans 0.1",
            "seconds": "the network's",
        }.get(name)

    def __post_init__(self):
        _check(self)


def _check(c: Config) -> None:
    """Refuse numbers out of range, and options that change nothing."""
    study = STUDIES[c.name]
    _run.require_sound(c)
    _hosts.check(c)
    if c.coordinator is not None and not study.divides:
        raise ValueError(
            f"--coordinator must be left out, as {c.name} has no neurons to divide; got"
            f" {c.coordinator}"
        )
    if study.seeds == 1 and c.seeds not in (None, 1):
        raise ValueError(f"--seeds must be 1, as {c.name} leaves nothing to chance; got {c.seeds}")
    for option in ("scale", "seconds"):
        value = getattr(c, option)
        if value is not None and getattr(study, option) is None:
            raise ValueError(f"--{option} must be left out, as {c.name} has but one; got {value}")
    _run.require_within("--scale", c.scale, f"[{study.least_scale:g}, 1]")
    _run.require_within("--seconds", c.seconds, f"[{study.least_seconds:g}, 1000]")
    _run.require_whole(c, seed=(0, 2**32 - (c.seeds or study.seeds)))


def run(c: Config) -> dict[str, Any]:
    """All seeds, held against the reference; returns what it writes to metrics.json."""
    with _hosts.joined(c):
        if c.coordinator:
            _hosts.refuse_different(c)
        with _hosts.held(c) as folder:
            return _run_in(folder, c)


def _run_in(folder: Any, c: Config) -> dict[str, Any]:
    study = STUDIES[c.name]
    seeds = range(c.seed, c.seed + (study.seeds if c.seeds is None else c.seeds))
    mesh = sharding.mesh(neuron=jax.device_count()) if c.coordinator else None
    folder.begin()
    found = [_made(folder, study, c, seed, mesh) for seed in seeds]
    rows = study.judged(found)
    if _hosts.first():
        _print(c.name, rows)
    told = {
        "network": c.name, "table": [row.told() for row in rows],
        "agrees": all(row.agrees for row in rows),
        "seconds": sum(x["seconds"] for x in found), "found": [_finite(x) for x in found],
    }  # fmt: skip
    return folder.finish(told, {"network": study.drawn(found)})


def _finite(found: dict[str, Any]) -> dict[str, Any]:
    """What is no number is null, as in the table."""
    return {k: None if isinstance(x, float) and x != x else x for k, x in found.items()}


def _made(folder: Any, study: Study, c: Config, seed: int, mesh: Mesh | None) -> dict[str, Any]:
    """What one seed gave; if its part is there it is read."""
    made = folder.part(f"seed {seed}")
    made = _hosts.of_first(made) if c.coordinator else made
    if made is None:
        begin = time.perf_counter()
        scale = study.scale if c.scale is None else c.scale
        found = study.once(seed, scale, study.seconds if c.seconds is None else c.seconds, mesh)
        made = [{"seed": seed, "seconds": time.perf_counter() - begin} | found]
        folder.keep(f"seed {seed}", made)
        if _hosts.first():
            numbers = [f"{k} {x:.4g}" for k, x in made[0].items() if isinstance(x, float)]
            Console(highlight=False).print(f"seed {seed}:", ", ".join(numbers), soft_wrap=True)
    return made[0]


def _print(name: str, rows: list[Row]) -> None:
    table = Table(title=f"{name}, mean ± standard deviation over seeds", title_justify="left")
    for heading in ("statistic", "ours", "reference", "must be in", "agrees", "source"):
        table.add_column(heading)
    for row in rows:
        spread = "" if row.sd is None else f" ± {row.sd:.2g}"
        table.add_row(
            row.statistic, f"{row.mean:.4g}{spread} {row.unit}", f"{row.reference:.4g} {row.unit}",
            f"[{row.low:.4g}, {row.high:.4g}]".replace("[", r"\["),
            "yes" if row.agrees else "NO", row.source,
        )  # fmt: skip
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


def judged(c: Config) -> None:
    """Run, and end the process with 1 where a statistic does not agree."""
    if not run(c)["agrees"]:
        sys.exit(1)


if __name__ == "__main__":
    _run.main(Config, judged)
