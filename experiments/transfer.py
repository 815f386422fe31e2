"""Move a network that was trained on numbers onto devices, and train it there for a while.

    python -m experiments.transfer --sigma-d2d 0.1 0.2 0.3

The digits, or another set. What is learnt on numbers is written into arrays in each of three
ways (`--write` of experiments.wta_broadcast), tested, trained on in the arrays at a part of the
rate, and tested again; metrics.json holds every run. Weights reach as far as the trained ones
do. Nothing is chosen by what is tested.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
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
from hardware import transferred
from neurojax import data
from neurojax._check import MOST
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import fold


@dataclass(frozen=True)
class Config(_run.Run):
    """What is moved, onto which devices, and how long it learns on each side."""

    dataset: str = "digits"
    """digits (embedded), mnist, or what else experiments.wta_broadcast knows."""
    data_dir: Path | None = None
    """Folder of the data."""
    seeds: int = 3
    """How many networks, from --seed on."""
    epochs: int = 10
    """Passes over the training pictures on numbers."""
    tuned: int = 5
    """Passes on devices."""
    synapse: Response = "linear"
    """How conductance answers to pulses."""
    update: Update = "unidirectional"
    """Which of a pair receive pulses."""
    n_states: int = 64
    """States of a device."""
    sigma_d2d: tuple[float, ...] = (0.1, 0.2, 0.3)
    """Relative variation from device to device of each parameter."""
    rate: float = 0.25
    """Learning rates on devices, as a part of those on numbers."""
    out: Path = Path("runs/transfer")

    needs = _run.Data.needs

    def __post_init__(self):
        _run.require_sound(self)
        _run.require_whole(self, epochs=(1, MOST), tuned=(1, MOST), n_states=(2, _run.STATES))
        _run.require_within("--rate", self.rate, "[0, inf)")
        for sigma in self.sigma_d2d:
            _run.require_within("--sigma-d2d", sigma, "[0, 1]")
        if not self.sigma_d2d or len(set(self.sigma_d2d)) < len(self.sigma_d2d):
            got = " ".join(f"{x:g}" for x in self.sigma_d2d) or "none"
            raise ValueError(f"--sigma-d2d must name one or more, each once; got {got}")


def run(config: Config) -> list[dict[str, Any]]:
    """All networks, spreads and ways to write; returns the runs that metrics.json holds."""
    sets = data.load(config.dataset, config.data_dir)
    with _folder.held(config, sets) as folder:
        folder.begin()
        seeds = range(config.seed, config.seed + config.seeds)
        rows = [row for seed in seeds for row in _made(folder, config, sets, seed)]
        folder.finish({"runs": rows}, {})
    return rows


def _made(
    folder: _folder.Folder, config: Config, sets: data.Dataset, seed: int
) -> list[dict[str, Any]]:
    """The runs of one network; if its part is there they are read, not run."""
    console, rows = Console(highlight=False), folder.part(f"seed {seed}")
    if rows is None:
        rows = []
        for row in _one(config, sets, seed):
            rows.append(row)
            console.print(_line(row), markup=False)
        folder.keep(f"seed {seed}", rows)
    return rows


def _one(config: Config, sets: data.Dataset, seed: int):
    """One network on numbers, then on devices of each spread, written in each way."""
    options: Any = dict(dataset=config.dataset, epochs=config.epochs, seed=seed, average=0.0)
    c = _config.resolved(_config.Config(**options), len(sets.train.labels))
    sets = _training.shown(c, sets)
    learner = _Learner(c, sets)
    state = _training.settled(c, learner.steps, learner.fresh, sets.train)
    state = learner.trained(state)
    at_start = learner.accuracy(state)
    yield {"seed": seed, "write": "numbers", "moved": at_start}
    w_max = max(float(jnp.abs(w.w).max()) for w in state.weights.values())
    slow = dict(lr=config.rate * c.lr, lr_readout=config.rate * c.lr_readout)
    tuner = _Learner(replace(c, epochs=config.tuned, **slow), sets)
    for sigma in config.sigma_d2d:
        for write in get_args(Write):
            synapses = Synapses(
                config.synapse, config.update, config.n_states, sigma_d2d=sigma, write=write
            )
            moved = tuner.moved(state, _devices.make_weights(synapses, w_max))
            try:
                tuned = tuner.trained(moved)
            except _finite.NotFinite as found:
                cure = f" on devices; pass a smaller --rate than {config.rate:g}"
                raise _finite.NotFinite(found.parts, found.since, cure) from None
            yield {
                "seed": seed, "sigma_d2d": sigma, "write": write, "w_max": w_max,
                "moved": tuner.accuracy(moved), "tuned": tuner.accuracy(tuned),
                "energy": _energy(moved), "energy_tuned": _energy(tuned) - _energy(moved),
            }  # fmt: skip


class _Learner:
    """A network's compiled steps, with an optimiser for the epochs of `c`."""

    def __init__(self, c: _config.Config, sets: data.Dataset):
        self.c, self.sets, self.key = c, sets, jax.random.key(c.seed)
        self.n_batches = len(sets.train.labels) // c.batch_size
        n_in = int(np.prod(sets.train.images.shape[1:]))
        self.tx = _training.optimiser(c, c.epochs * self.n_batches)
        make = lambda key: wta_broadcast.fresh(  # noqa: E731
            c, n_in, sets.n_classes, c.n_steps, self.tx, key
        )
        system, self.fresh = _programs.Made(make, self.key)()
        self.steps = _training.trainer(c, system, self.tx, c.epochs * self.n_batches)

    def trained(self, state: wb.TrainState) -> wb.TrainState:
        """After all epochs."""
        with Progress(self.c.epochs, self.n_batches, 0) as bar:
            epochs = _training.train(self.c, self.steps, state, self.sets.train, self.key, 0, bar)
            for _, now in epochs:
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
        return _training.evaluate(self.c, self.steps, state.average, self.sets.test).accuracy


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
