"""Train on the very devices that will be used, or bring weights to them: faults within the loss.

    python -m experiments.in_situ --stuck 0 0.1 0.2 0.3

A perceptron learns the digits, or another set, by backpropagation on numbers. Its weights are
written into arrays of which some devices are stuck, half of them at each end, and tested there at
once and after a wait in which all drift. From there, and beside it from fresh weights in the same
arrays, the net learns by values of its loss alone, read through the devices as they are: each
neuron's current is shifted a little, and no weight is ever known. metrics.json holds every run.
Nothing is chosen by what is tested.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.console import Console

import hardware as hw
from experiments import _folder, _run
from experiments._options import part
from experiments.transfer import Data
from neurojax import evaluate, fit
from neurojax._check import MOST
from neurojax.data import Dataset, load
from neurojax.learning import Backprop, Neurons, Perceptron, ZerothOrder
from neurojax.network import fold

WAYS = ("imported", "waited", "tuned", "in_situ")


@dataclass(frozen=True)
class Learning:
    """What learns, and for how long on each side."""

    hidden: tuple[int, ...] = (32,)
    """Neurons of each hidden layer."""
    epochs: int = 40
    """Passes over the training pictures on numbers; as many in the arrays from fresh weights."""
    tuned: int = 20
    """Passes in the arrays from weights that were brought there."""
    batch_size: int = 32
    """Pictures a weight change."""
    lr: float = 0.1
    """Rate of plain descent on either side."""
    mu: float = 0.3
    """How far a neuron's current is shifted, both ways."""

    whole: ClassVar = dict(
        hidden=(1, MOST), epochs=(1, MOST), tuned=(1, MOST), batch_size=(1, MOST)
    )
    within: ClassVar = dict(lr="(0, inf)", mu="(0, inf)")


@dataclass(frozen=True)
class Devices:
    """What holds the weights."""

    stuck: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    """Parts of the devices that stay where they are, half of them at each end."""
    n_states: int = 64
    """States of a device."""
    sigma_d2d: float = 0.1
    """Relative variation from device to device of each parameter."""
    sigma_read: float = 0.01
    """Noise of a read, of the conductance's range."""
    nu: float = 0.05
    """Exponent of the drift of conductances."""
    wait: float = 1e5
    """Time between writing and use, s."""

    whole: ClassVar = dict(n_states=(2, _run.STATES))
    within: ClassVar = dict(
        stuck="[0, 1]", sigma_d2d="[0, 1]", sigma_read="[0, 1]", nu="[0, 1]", wait="[0, inf)"
    )


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/in_situ")
    seeds: int = 3
    """How many networks, from --seed on."""


@dataclass(frozen=True)
class Config(Learning, Devices, Data, Run):
    """What is learnt, on which devices, and for how long on each side."""

    def __post_init__(self):
        _run.require_sound(self)
        if not self.stuck or len(set(self.stuck)) < len(self.stuck):
            got = " ".join(f"{x:g}" for x in self.stuck) or "none"
            raise ValueError(f"--stuck must name one or more, each once; got {got}")


def run(config: Config) -> dict[str, Any]:
    """All networks and parts; returns what it writes to metrics.json."""
    sets = _run.pictures(load(config.dataset, config.data_dir))
    n_train = _run.n_train(sets, None, config.batch_size)
    _run.refuse_endless(max(config.epochs, config.tuned), n_train // config.batch_size)
    n_in = int(np.prod(sets.train.images.shape[1:]))
    neurons = sum(config.hidden) + sets.n_classes
    widest = max(n_in, *config.hidden)
    _run.affordable(64 * widest * neurons, hidden=neurons / 1000)
    with _folder.held(config, sets) as folder:
        folder.begin()
        seeds = range(config.seed, config.seed + config.seeds)
        rows = [row for seed in seeds for row in _made(folder, config, sets, seed)]
        table = [_summary([r for r in rows if r["stuck"] == x]) for x in config.stuck]
        return folder.finish({"table": table, "runs": rows}, {"in_situ": drawn(table)})


def _made(folder: _folder.Folder, config: Config, sets: Dataset, seed: int) -> list[dict[str, Any]]:
    """The runs of one network; if its part is there they are read, not run."""
    rows = folder.part(f"seed {seed}")
    if rows is None:
        rows = []
        for row in _one(part(config, Learning), part(config, Devices), sets, seed):
            rows.append(row)
            Console(highlight=False).print(_line(row), markup=False)
        folder.keep(f"seed {seed}", rows)
    return rows


def _one(c: Learning, devices: Devices, sets: Dataset, seed: int):
    """One network on numbers, then in arrays of each part of stuck devices."""
    key = jax.random.key(seed)
    sizes = (int(np.prod(sets.train.images.shape[1:])), *c.hidden, sets.n_classes)
    known = Perceptron(sizes, Backprop(), optax.sgd(c.lr))
    blind = ZerothOrder(sizes, Neurons(c.mu, central=True), optax.sgd(c.lr))
    fresh = known.init(fold(key, "first"))
    learnt = _fitted(c, known, sets, fresh, c.epochs, fold(key, "numbers"))
    w_max = max(float(jnp.abs(w.w).max()) for w in learnt.weights.values())
    numbers = evaluate(known, learnt, sets.test)
    for stuck in devices.stuck:
        make, at = _arrays(devices, stuck, w_max), fold(key, f"arrays {stuck!r}")
        here = lambda weights, at=at, make=make: hw.transferred(at, weights, make)  # noqa: E731
        seen = lambda state, at=at: evaluate(blind, state, sets.test, key=fold(at, "test"))  # noqa: E731
        start = blind.init(key)
        imported = start._replace(weights=here(learnt.weights))
        waited = start._replace(
            weights={n: w.waited(devices.wait) for n, w in imported.weights.items()}  # pyright: ignore[reportAttributeAccessIssue]
        )
        tuned = _fitted(c, blind, sets, waited, c.tuned, fold(at, "tune"))
        begun = start._replace(weights=here(fresh.weights))
        in_situ = _fitted(c, blind, sets, begun, c.epochs, fold(at, "learn"))
        yield {
            "seed": seed, "stuck": stuck, "w_max": w_max, "numbers": numbers,
            "imported": seen(imported), "waited": seen(waited), "tuned": seen(tuned),
            "in_situ": seen(in_situ), "queries": blind.queries,
        }  # fmt: skip


def _arrays(c: Devices, stuck: float, w_max: float) -> Any:
    """Pairs of devices about the middle, of which a part is stuck."""
    n = c.n_states - 1
    device = hw.Device(hw.linear(n), sigma_read=c.sigma_read, nu=c.nu)
    return hw.crossbar(
        device, hw.Bidirectional(hw.Single(n)), w_max, start="middle", sigma_d2d=c.sigma_d2d,
        stuck_low=stuck / 2, stuck_high=stuck / 2, longest=2 * n,
    )  # fmt: skip


def _fitted(c: Learning, learner: Any, sets: Dataset, state: Any, epochs: int, key: Any) -> Any:
    """The state after all epochs."""
    return fit(
        learner, sets.train, key=key, epochs=epochs, batch_size=c.batch_size, state=state,
        progress=False,
    ).state  # fmt: skip


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and standard deviations as name_sd."""
    out: dict[str, Any] = {"stuck": rows[0]["stuck"], "n_seeds": len(rows)}
    for name in ("numbers", *WAYS):
        values = [row[name] for row in rows]
        out[name] = float(np.mean(values))
        out[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return out


_LABELS = {
    "imported": ("weights imported", "#D55E00", "o-"),
    "waited": ("imported, after the wait", "#D55E00", "s--"),
    "tuned": ("then trained in situ", "#0072B2", "o-"),
    "in_situ": ("trained in situ alone", "#009E73", "^-"),
}  # Okabe and Ito (2008)


def drawn(table: list[dict[str, Any]]) -> Figure:
    """Accuracy over the part of devices that are stuck, a line a way."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    ax = figure.subplots()
    rows = sorted(table, key=lambda row: row["stuck"])
    x = [100 * row["stuck"] for row in rows]
    for name, (label, colour, style) in _LABELS.items():
        ax.errorbar(
            x, [100 * row[name] for row in rows], [100 * (row[f"{name}_sd"] or 0) for row in rows],
            fmt=style, color=colour, markersize=4, capsize=2, label=label,
        )  # fmt: skip
    ax.axhline(100 * rows[0]["numbers"], color="#222222", linestyle=":", label="numbers")
    ax.set_xlabel("Devices that are stuck (%)")
    ax.set_ylabel("Test accuracy (%)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return figure


def _line(row: dict[str, Any]) -> str:
    return (
        f"seed {row['seed']}, {100 * row['stuck']:g}% stuck: numbers {100 * row['numbers']:.2f}%,"
        f" imported {100 * row['imported']:.2f}%, after the wait {100 * row['waited']:.2f}%,"
        f" then trained {100 * row['tuned']:.2f}%, in situ alone {100 * row['in_situ']:.2f}%"
    )


if __name__ == "__main__":
    _run.main(Config, run)
