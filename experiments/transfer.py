"""Move a network that was trained on numbers onto devices, and train it there for a while.

    python -m experiments.transfer --sigma-d2d 0.1 0.2 0.3

The digits, or another set. What is learnt on numbers is written into arrays in each of three
ways (`--write` of experiments.wta_broadcast), tested, trained on in the arrays at a part of the
rate, and tested again; metrics.json holds every run. Weights reach as far as the trained ones
do. Nothing is chosen by what is tested.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from rich.console import Console

from experiments import (
    _config,
    _devices,
    _finite,
    _folder,
    _programs,
    _run,
    _training,
    wta_broadcast,
)
from experiments._devices import Response, Synapses, Update, Write
from experiments._options import part
from hardware import transferred
from neurojax._check import MOST
from neurojax.data import Dataset, load
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import fold


@dataclass(frozen=True)
class Learning:
    """How long it learns on each side."""

    epochs: int = 10
    """Passes over the training pictures on numbers."""
    tuned: int = 5
    """Passes on devices."""
    rate: float = 0.25
    """Learning rates on devices, as a part of those on numbers."""

    whole: ClassVar = dict(epochs=(1, MOST), tuned=(1, MOST))
    within: ClassVar = dict(rate="[0, inf)")


@dataclass(frozen=True)
class Devices:
    """Onto what it is moved."""

    synapse: Response = "linear"
    """How conductance answers to pulses."""
    update: Update = "unidirectional"
    """Which of a pair receive pulses."""
    n_states: int = 64
    """States of a device."""
    sigma_d2d: tuple[float, ...] = (0.1, 0.2, 0.3)
    """Relative variation from device to device of each parameter."""

    whole: ClassVar = dict(n_states=(2, _run.STATES))
    within: ClassVar = dict(sigma_d2d="[0, 1]")


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    dataset: str = "digits"
    """digits (embedded), mnist, or what else experiments.wta_broadcast knows."""
    data_dir: Path | None = None
    """Folder of the data."""

    needs = _run.Data.needs


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/transfer")
    seeds: int = 3
    """How many networks, from --seed on."""


@dataclass(frozen=True)
class Config(Learning, Devices, Data, Run):
    """What is moved, onto which devices, and how long it learns on each side."""

    def __post_init__(self):
        _run.require_sound(self)
        if not self.sigma_d2d or len(set(self.sigma_d2d)) < len(self.sigma_d2d):
            got = " ".join(f"{x:g}" for x in self.sigma_d2d) or "none"
            raise ValueError(f"--sigma-d2d must name one or more, each once; got {got}")


def run(config: Config) -> list[dict[str, Any]]:
    """All networks, spreads and ways to write; returns the runs that metrics.json holds."""
    sets = _run.pictures(load(config.dataset, config.data_dir))
    with _folder.held(config, sets) as folder:
        folder.begin()
        seeds = range(config.seed, config.seed + config.seeds)
        rows = [row for seed in seeds for row in _made(folder, config, sets, seed)]
        folder.finish({"runs": rows}, {})
    return rows


def _made(folder: _folder.Folder, config: Config, sets: Dataset, seed: int) -> list[dict[str, Any]]:
    """The runs of one network; if its part is there they are read, not run."""
    console, rows = Console(highlight=False), folder.part(f"seed {seed}")
    if rows is None:
        rows = []
        for row in _one(config.dataset, part(config, Learning), part(config, Devices), sets, seed):
            rows.append(row)
            console.print(_line(row), markup=False)
        folder.keep(f"seed {seed}", rows)
    return rows


def _one(dataset: str, learning: Learning, devices: Devices, sets: Dataset, seed: int):
    """One network on numbers, then on devices of each spread, written in each way."""
    options: Any = dict(dataset=dataset, epochs=learning.epochs, average=0.0)
    c = _config.resolved(_config.Config(**options), len(sets.train.labels))
    data, key = part(c, _config.Data), jax.random.key(seed)
    make = partial(_Learner, part(c, _config.Network), data, _training.shown(data, sets), key)
    rule = part(c, _config.Learning)
    learner = make(rule)
    state = learner.trained(learner.settled())
    yield {"seed": seed, "write": "numbers", "moved": learner.accuracy(state)}
    w_max = max(float(jnp.abs(w.w).max()) for w in state.weights.values())
    slow = dict(lr=learning.rate * rule.lr, lr_readout=learning.rate * rule.lr_readout)
    tuner = make(replace(rule, epochs=learning.tuned, **slow))
    for synapses in _each(devices):
        moved = tuner.moved(state, _devices.make_weights(synapses, w_max))
        try:
            tuned = tuner.trained(moved)
        except _finite.NotFinite as found:
            cure = f" on devices; pass a smaller --rate than {learning.rate:g}"
            raise _finite.NotFinite(found.parts, found.since, cure) from None
        yield {
            "seed": seed, "sigma_d2d": synapses.sigma_d2d, "write": synapses.write,
            "w_max": w_max, "moved": tuner.accuracy(moved), "tuned": tuner.accuracy(tuned),
            "energy": _energy(moved), "energy_tuned": _energy(tuned) - _energy(moved),
        }  # fmt: skip


def _each(devices: Devices) -> Iterator[Synapses]:
    """Of each spread, written in each way."""
    for sigma in devices.sigma_d2d:
        for write in get_args(Write):
            yield Synapses(
                devices.synapse, devices.update, devices.n_states, sigma_d2d=sigma, write=write
            )


class _Learner:
    """A network's compiled steps, with an optimiser for the epochs of `rule`."""

    def __init__(
        self, net: _config.Network, data: _config.Data, sets: Dataset, key: Key[Array, ""],
        rule: _config.Learning,
    ):  # fmt: skip
        self.rule, self.sets, self.key = rule, sets, key
        self.n_batches = len(sets.train.labels) // rule.batch_size
        task = _training.task(data, sets.train.images.shape, sets.n_classes)
        new = partial(wta_broadcast.fresh, net, rule, task, rule.epochs * self.n_batches)
        learner, self.fresh = _programs.Made(new, key)()
        self.steps = _training.trainer(data, learner)

    def settled(self) -> wb.TrainState:
        """Before the first batch."""
        return _training.settled(self.steps, self.fresh, self.sets.train, self.rule.batch_size)

    def trained(self, state: wb.TrainState) -> wb.TrainState:
        """After all epochs."""
        with Progress(self.rule.epochs, self.n_batches, 0) as bar:
            for _, now in _training.train(
                self.steps.learn, state, self.sets.train, self.key, range(self.rule.epochs),
                self.rule.batch_size, bar, _finite.lost,
            ):  # fmt: skip
                state = now
        return state

    def moved(self, state: wb.TrainState, make_weights: Any) -> wb.TrainState:
        """What has been learnt, on devices, with a fresh optimiser."""
        net = self.steps.system.network
        weights = transferred(fold(self.key, "moved"), state.weights, make_weights, net.plastic())
        tone = state.homeostasis
        return self.fresh._replace(weights=weights, homeostasis=tone, average=(weights, tone))

    def accuracy(self, state: wb.TrainState) -> float:
        """On the test pictures."""
        return _training.evaluate(self.steps, state.average, self.sets.test, self.key).accuracy


def _energy(state: wb.TrainState) -> float:
    """Spent on programming so far, J."""
    return sum(float(_devices.spent(w).energy) for w in state.weights.values())


def _line(row: dict[str, Any]) -> str:
    if row["write"] == "numbers":
        return f"seed {row['seed']}: {100 * row['moved']:.2f}% on numbers"
    return (
        f"seed {row['seed']}, spread {100 * row['sigma_d2d']:.0f}%, {row['write']:12}"
        f" moved {100 * row['moved']:.2f}%, tuned {100 * row['tuned']:.2f}%,"
        f" {1e6 * row['energy']:.3f} + {1e6 * row['energy_tuned']:.3f} uJ"
    )


if __name__ == "__main__":
    _run.main(Config, run)
