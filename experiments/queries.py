"""What a loss that is only read can teach, query by query.

    python -m experiments.queries --dataset mnist --data-dir mnist --side 14

A perceptron learns by values of its loss alone: by shifts of its neurons, or of a random tenth of
its weights, drawn anew for each batch, with as many from each array as it has, or as ZO-GraSP
finds worth it. Accuracy on the validation pictures is shown over the queries that it took; the
test pictures are looked at once, at the end.
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
from matplotlib.figure import Figure
from rich.console import Console

from experiments import _folder, _run
from experiments.transfer import Data
from neurojax import evaluate
from neurojax._check import MOST
from neurojax.data import Split, load
from neurojax.learning import Coordinates, Neurons, ZerothOrder, zo_grasp
from neurojax.network import fold

WAYS = ("neurons", "a part of each array", "as ZO-GraSP finds")


@dataclass(frozen=True)
class Learning:
    """What learns, and for how long."""

    hidden: tuple[int, ...] = (16,)
    """Neurons of each hidden layer."""
    active: float = 0.1
    """Part of the weights that are shifted for a batch."""
    steps: int = 500
    """Batches that change the weights."""
    batch_size: int = 64
    """Pictures a weight change."""
    lr: float = 0.05
    """Rate of descent with momentum 0.9."""
    side: int = 14
    """Pictures become side x side, of means, where they are larger."""

    whole: ClassVar = dict(hidden=(1, 4096), steps=(10, MOST), batch_size=(1, MOST), side=(1, 4096))
    within: ClassVar = dict(active="(0, 1]", lr="(0, inf)")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/queries")
    seeds: int = 3
    """How many networks, from --seed on."""


@dataclass(frozen=True)
class Config(Learning, Data, Run):
    """What is learnt, and for how long."""

    def __post_init__(self):
        _run.require_sound(self)


def run(config: Config) -> list[dict[str, Any]]:
    """Each way, from each seed; returns the rows that metrics.json holds."""
    sets, console = _run.pictures(load(config.dataset, config.data_dir)), Console(highlight=False)
    _run.n_train(sets, None, config.batch_size)
    train, val, test = (_pixels(x, config.side) for x in (sets.train, sets.val, sets.test))
    sizes = (train[0].shape[1], *config.hidden, sets.n_classes)
    with _folder.held(config, sets) as folder:
        folder.begin()
        rows = []
        for seed in range(config.seed, config.seed + config.seeds):
            for way in WAYS:
                kept = folder.part(f"{way} {seed}")
                if kept is None:
                    key = jax.random.key(seed)
                    told = learnt(config, sizes, train, val, test, way, key)
                    kept = [{"way": way, "seed": seed} | told]
                    folder.keep(f"{way} {seed}", kept)
                found = kept[0]
                rows.append(found)
                console.print(
                    f"{way}, seed {seed}: {found['queries_a_step']} queries a step,"
                    f" {100 * found['test_accuracy']:.2f}% after {config.steps}",
                    markup=False,
                )  # fmt: skip
        folder.finish({"runs": rows}, {"queries": drawn(rows)})
    return rows


def learnt(
    config: Config, sizes: tuple[int, ...], train: Any, val: Any, test: Any, way: str, key: Array
) -> dict[str, Any]:
    """Accuracy on the validation pictures ten times on the way, on the test pictures at its end."""
    net = ZerothOrder(sizes, Neurons(), optax.sgd(config.lr, 0.9))
    state = net.init(fold(key, "state"))
    if way != WAYS[0]:
        part: Any = config.active
        if way == WAYS[2]:
            x, y = _some_of_each(train, sizes[-1], 25)
            asked = ZerothOrder(sizes, Coordinates(), net.tx)
            part = zo_grasp(asked, state, x, y, key=fold(key, "grasp"), active=part)
        net = ZerothOrder(sizes, Coordinates(active=part), net.tx)

    @partial(jax.jit, static_argnums=2)
    def steps(state: Any, at: Array, n: int) -> Any:
        def one(state: Any, i: Array) -> tuple[Any, None]:
            now = jax.random.fold_in(key, i)
            picked = jax.random.choice(fold(now, "batch"), len(train[1]), (config.batch_size,))
            return net.step(state, train[0][picked], train[1][picked], key=now)[0], None

        return jax.lax.scan(one, state, at + jnp.arange(n))[0]

    n, seen = config.steps // 10, [evaluate(net, state, val)]
    for i in range(10):
        state = steps(state, jnp.asarray(i * n), n)
        seen.append(evaluate(net, state, val))
    each = net.estimator.queries(sizes)
    return {
        "queries_a_step": each,
        "queries": [i * n * each for i in range(11)],
        "val_accuracy": seen,
        "test_accuracy": evaluate(net, state, test),
    }


def _pixels(part: Split, side: int) -> tuple[Array, Array]:
    """Pictures [N, side * side] of means, and labels."""
    images = np.asarray(part.images, np.float32)
    k = images.shape[1] // side if images.ndim > 2 else 1
    if k > 1:
        images = images[:, : k * side, : k * side]
        images = images.reshape(len(images), side, k, side, k).mean((2, 4))
    return jnp.asarray(images.reshape(len(images), -1)), jnp.asarray(part.labels)


def _some_of_each(train: tuple[Array, Array], n_classes: int, n: int) -> tuple[Array, Array]:
    """The first `n` pictures of each class."""
    y = np.asarray(train[1])
    picked = np.concatenate([np.flatnonzero(y == c)[:n] for c in range(n_classes)])
    return train[0][picked], train[1][picked]


def drawn(rows: list[dict[str, Any]]) -> Figure:
    """Accuracy over queries, a line a way: mean and spread over seeds."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for way in WAYS:
        own = [r for r in rows if r["way"] == way]
        found = 100 * np.array([r["val_accuracy"] for r in own])
        x = np.array(own[0]["queries"][1:])
        axis.errorbar(
            x, found.mean(0)[1:], found.std(0)[1:], fmt="-o", ms=3, capsize=2,
            label=f"{way} ({own[0]['queries_a_step']} a step)",
        )  # fmt: skip
    axis.set(xscale="log", xlabel="queries", ylabel="accuracy on the validation pictures, %")
    axis.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    _run.main(Config, run)
