"""Pictures of which most is hidden, completed and named by machines that settle.

    python -m experiments.completion --dataset mnist --data-dir mnist --side 14 --hidden 32

A monotone Boltzmann machine, whose mean field is unique, learns with the label weighing as much as
all hidden pixels and a tenth of it; beside it a deep restricted machine of the same nodes. Each
--lr is tried with each seed, side by side; the rate that is kept completes and names the
validation pictures best, mean over seeds, at the end. Digits have 4 bins a pixel, others are black
or white. Then the test pictures are read once.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from rich.console import Console

from experiments import _folder, _run
from experiments.queries import _pixels
from experiments.transfer import Data
from neurojax import evaluate, fit
from neurojax._check import MOST
from neurojax.data import load
from neurojax.learning import Boltzmann, Monotone, Restricted
from neurojax.network import fold

WAYS = {
    "monotone": (partial(Monotone, 128, m=0.05, gain=0.3), 1.0),
    "monotone, label a tenth": (partial(Monotone, 128, m=0.05, gain=0.3), 0.1),
    "restricted": (Restricted, 1.0),
}  # what makes the coupling, and the weight of the label
HIDDEN = 0.6  # part of the pixels
Pictures = tuple[Array, Array]  # [N, pixels] and labels


@dataclass(frozen=True)
class Learning:
    """What learns, and for how long."""

    hidden: int = 20
    """Hidden nodes of four states each."""
    epochs: int = 20
    """Passes over the training pictures."""
    batch_size: int = 32
    """Pictures a weight change."""
    lr: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Rates of Adam that are tried."""
    side: int = 14
    """Pictures become side x side, of means, where they are larger."""

    whole: ClassVar = dict(hidden=(2, 4096), epochs=(1, MOST), batch_size=(1, MOST), side=(1, 4096))
    within: ClassVar = dict(lr="(0, inf)")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/completion")
    seeds: int = 3
    """How many machines at each rate, from --seed on."""


@dataclass(frozen=True)
class Config(Learning, Data, Run):
    """What is learnt, and for how long."""

    def __post_init__(self):
        _run.require_sound(self)
        if len(set(self.lr)) < len(self.lr) or not self.lr:
            raise ValueError(f"--lr must name one or more, each once; got {self.lr}")


def run(config: Config) -> list[dict[str, Any]]:
    """Each way, at each rate, from each seed; returns the rows that metrics.json holds."""
    sets, console = _run.pictures(load(config.dataset, config.data_dir)), Console(highlight=False)
    _run.n_train(sets, None, config.batch_size)
    n_bins = 4 if config.dataset == "digits" else 2
    shown = [_pixels(x, config.side) for x in (sets.train, sets.val, sets.test)]
    with _folder.held(config, sets) as folder:
        folder.begin()
        often, rows = commonest(shown[0], shown[2], n_bins), []
        console.print(f"the commonest bin of each pixel: {100 * often:.1f}%")
        for way in WAYS:
            found = folder.part(way)
            if found is None:
                found = learnt(config, sets.n_classes, n_bins, shown, way)
                folder.keep(way, found)
            rows += found
            console.print(_line(way, best(found)), markup=False)
        folder.finish({"commonest": often, "runs": rows}, {})
    return rows


def learnt(
    config: Config, n_classes: int, n_bins: int, shown: list[Pictures], way: str
) -> list[dict[str, Any]]:
    """What machines of one kind come to, those of all rates and seeds in one `vmap`."""
    (coupling, weight), (train, val, test) = WAYS[way], shown

    def one(rate: Array, seed: Array) -> dict[str, Array]:
        net = Boltzmann(
            train[0].shape[1], n_classes, optax.adam(rate), coupling(), n_bins=n_bins,
            n_hidden=config.hidden, label_weight=weight, tol=1e-3, max_steps=30,
        )  # fmt: skip
        key = jax.random.key(seed)
        state = fit(
            net, train, key=key, epochs=config.epochs, batch_size=config.batch_size, progress=False
        ).state
        at = fold(key, "completed")
        return completed(net, state, val, "val", at) | completed(net, state, test, "test", at)

    cases = [(lr, config.seed + s) for lr in config.lr for s in range(config.seeds)]
    rates, seeds = (jnp.asarray(x) for x in zip(*cases, strict=True))
    found = jax.jit(jax.vmap(one))(rates, seeds)
    return [
        {"way": way, "lr": lr, "seed": seed} | {n: float(x[i]) for n, x in found.items()}
        for i, (lr, seed) in enumerate(cases)
    ]


def completed(
    net: Boltzmann, state: Any, shown: Pictures, name: str, key: Array
) -> dict[str, Array]:
    """Parts that are right: of hidden pixels, of labels beside them, of labels with all seen."""
    x, y = shown
    seen = jax.random.bernoulli(key, 1 - HIDDEN, x.shape)
    pixels, scores = net.complete(state, x, seen)
    right = (pixels.argmax(-1) == binned(x, net.n_bins)) & ~seen
    return {
        f"{name}_pixels": right.sum() / (~seen).sum(),
        f"{name}_label": (scores.argmax(1) == y).mean(),
        f"{name}_label_all_seen": jnp.asarray(evaluate(net, state, shown)),
    }


def binned(x: Array, n_bins: int) -> Array:
    """Which bin each pixel falls into."""
    return jnp.clip(x * n_bins, 0, n_bins - 1).astype(int)


def commonest(train: Pictures, test: Pictures, n_bins: int) -> float:
    """Part of the test pixels that are in the bin that is commonest there in training."""
    of = jax.nn.one_hot(binned(train[0], n_bins), n_bins).sum(0).argmax(-1)
    return float((binned(test[0], n_bins) == of[None]).mean())


def best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those at the rate that completes and names the validation pictures best."""
    told = {lr: [r["val_pixels"] + r["val_label"] for r in rows if r["lr"] == lr] for lr in (
        r["lr"] for r in rows
    )}  # fmt: skip
    chosen = max(told, key=lambda lr: np.mean(told[lr]))
    return [r for r in rows if r["lr"] == chosen]


def _line(way: str, rows: list[dict[str, Any]]) -> str:
    def told(name: str) -> str:
        found = [100 * r[name] for r in rows]
        spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
        return f"{np.mean(found):.1f}{spread}%"

    return (
        f"{way}, rate {rows[0]['lr']:g}: hidden pixels {told('test_pixels')}, label"
        f" {told('test_label')}, all seen {told('test_label_all_seen')}"
    )


if __name__ == "__main__":
    _run.main(Config, run)
