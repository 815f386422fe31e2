"""Two arrays where one would do: how far off the error is, and what homeostasis makes of it.

    python -m experiments.homeostasis --out runs/homeostasis

Nets that settle learn the digits with an array for each way, which begin turned away from each
other's transposes. Of the first hidden layer it is told how far the response to a nudge points
along the true error, over 100 validation pictures, at first, after an epoch and at the end, and
how far the two arrays above it mirror each other. Strengths and seeds learn side by side.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from rich.console import Console

from experiments import _folder, _run
from neurojax import data, evaluate, fit
from neurojax._check import MOST
from neurojax.learning import Equilibrium
from neurojax.network import fold


@dataclass(frozen=True)
class Learning:
    """How long each network learns, and how strongly its arrays are drawn together."""

    strength: tuple[float, ...] = (0.0, 1.0, 10.0)
    """Of homeostasis."""
    epochs: int = 15
    """Passes over the training pictures, two at least."""
    hidden: tuple[int, ...] = (32, 16)
    """Neurons of each hidden layer, two layers at least."""
    batch_size: int = 32
    """Pictures a weight change."""
    lr: float = 0.1
    """Learning rate of plain gradient descent."""
    angle: float = 60.0
    """Between an array and the other's transpose at first, degrees."""

    whole: ClassVar = dict(epochs=(2, MOST), hidden=(1, 4096), batch_size=(1, 1150))
    within: ClassVar = dict(strength="[0, inf)", lr="(0, inf)", angle="[0, 180]")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/homeostasis")
    seeds: int = 3
    """How many networks for each strength, from --seed on."""


@dataclass(frozen=True)
class Config(Learning, Run):
    """How long each network learns, and how many there are."""

    def __post_init__(self):
        _run.require_sound(self)
        if len(self.hidden) < 2:
            raise ValueError(f"--hidden must name two layers or more; got {self.hidden}")


def run(config: Config) -> list[dict[str, Any]]:
    """Each strength from each seed; returns the rows that metrics.json holds."""
    sets, console = data.load("digits"), Console(highlight=False)
    with _folder.held(config, sets) as folder:
        folder.begin()
        rows = folder.part("all")
        if rows is None:
            rows = learnt(config, sets)
            folder.keep("all", rows)
        for row in rows:
            console.print(_line(row, config.epochs), markup=False)
        folder.finish({"runs": rows}, {})
    return rows


def learnt(config: Config, sets: data.Dataset) -> list[dict[str, Any]]:
    """What the networks come to, all of them in one `vmap`."""
    pair = lambda s: (jnp.asarray(s.images.reshape(len(s.labels), -1)), jnp.asarray(s.labels))  # noqa: E731
    train, val, test = map(pair, (sets.train, sets.val, sets.test))
    few = val[0][:100], val[1][:100]
    sizes = (train[0].shape[1], *config.hidden, sets.n_classes)

    def one(strength: Array, seed: Array) -> dict[str, Array]:
        net = Equilibrium(
            sizes, optax.sgd(config.lr), tied=False, angle=config.angle, homeostasis=strength
        )
        key = jax.random.key(seed)

        def on(state: Any, epochs: int) -> Any:
            return fit(
                net, train, key=fold(key, str(epochs)), epochs=epochs, state=state,
                batch_size=config.batch_size, progress=False,
            ).state  # fmt: skip

        begun = net.init(fold(key, "state"))
        soon = on(begun, 1)
        end = on(soon, config.epochs - 1)
        told = {"at_first": begun, "after_an_epoch": soon, "at_the_end": end}
        return {name: along(net, s.weights, *few) for name, s in told.items()} | {
            "mirrored": mirrored(end.weights),
            "test_accuracy": jnp.asarray(evaluate(net, end, test)),
        }

    cases = [(h, config.seed + s) for h in config.strength for s in range(config.seeds)]
    strengths, seeds = (jnp.asarray(x) for x in zip(*cases, strict=True))
    found = jax.jit(jax.vmap(one))(strengths, seeds)
    return [
        {"strength": h, "seed": s} | {n: float(x[i]) for n, x in found.items()}
        for i, (h, s) in enumerate(cases)
    ]


def along(net: Equilibrium, weights: Any, x: Array, y: Array) -> Array:
    """Cosine of dr/dbeta of the first hidden layer with the adjoint, over all of `x`."""

    def both(x: Array, y: Array) -> tuple[Array, Array]:
        u = net.settled(weights, x).state
        return net.response(weights, x, y, u)[0], net.adjoint(weights, y, u)[0]

    return cosine(*jax.vmap(both)(x, y))


def mirrored(weights: Any) -> Array:
    """Cosine of w2, without its bias, with the transpose of v1."""
    return cosine(weights["w2"].w[:, :-1], weights["v1"].w.T)


def cosine(a: Array, b: Array) -> Array:
    """Of two arrays as wholes."""
    return (a * b).sum() / jnp.sqrt(jnp.square(a).sum() * jnp.square(b).sum())


def _line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"homeostasis {row['strength']:g}, seed {row['seed']}: cosine {row['at_first']:.2f} at"
        f" first, {row['after_an_epoch']:.2f} after an epoch, {row['at_the_end']:.2f} after"
        f" {epochs}; arrays {row['mirrored']:.3f}; test {100 * row['test_accuracy']:.1f}%"
    )


if __name__ == "__main__":
    _run.main(Config, run)
