"""Trainings that differ in learning rate, seed and data alone, side by side in one program.

Each is the training of `experiments.learn` with these, to rounding. An accelerator, whose time
goes into starting small pieces of work, takes little longer for many than for one.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from jaxtyping import Array, Key

from experiments import _command, _folder, _runs, _training, learn
from experiments._config import Data, Devices
from experiments._learners import Given
from experiments._options import part
from neurojax._compile import Parts
from neurojax.data import Dataset, Split
from neurojax.learning import fitting


class Lane(NamedTuple):
    """One training.

    Fields:
        rate: float; learning rate of all arrays
        seed: int; of all its chance
        of: int; which data set it learns from
    """

    rate: float
    seed: int
    of: int = 0


class _Shown(NamedTuple):
    """What all lanes are shown, [set, N, ...] each: pictures or recordings, and labels."""

    train: tuple[Any, Array]
    val: tuple[Any, Array]
    test: tuple[Any, Array]


def run(
    jobs: Sequence[tuple[_runs.Job, float, int]], sets: Sequence[Dataset],
    say: Callable[[str], Any], change: learn.Change = learn.unchanged,
) -> bool:  # fmt: skip
    """Those runs of `experiments.learn` that have no result yet as one program, each with its rate
    and the data set that it is of; whether any failed.

    They differ in nothing else, but `change` may make more of the learner than options can.
    """
    todo = [job for job in jobs if not job[0].result.exists()]
    if not todo:
        return False
    failed, first = False, todo[0][0]
    c = _command.parsed(learn.Config, first.command[3:], learn)
    lanes = [Lane(lr, job.seed, of) for job, lr, of in todo]
    try:
        found = list(trained(c, sets, lanes, change))
    except (ValueError, JaxRuntimeError) as error:
        say(f"{first.name} and those beside it: failed\n{str(error)[-2000:]}")
        return True
    for (job, _, _), metrics in zip(todo, found, strict=True):
        done = job.may_be_lost or "lost" not in metrics
        said = metrics.get("lost") or f"{100 * metrics['test_accuracy']:.2f}%"
        say(f"{job.name}: {'' if done else 'failed: '}{said}")
        if done:
            _runs.keep(job, metrics)
        failed |= not done
    return failed


def trained(
    config: learn.Config, sets: Sequence[Dataset], lanes: Sequence[Lane],
    change: learn.Change = learn.unchanged,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Metrics of each training as metrics.json has them; of one that was not finite any more after
    an epoch, which epoch that was, as `lost`.

    Data sets must be of one shape, for which `config` stands. `seconds` are those of all lanes
    together, without compilation.
    """
    c = learn.resolved(config, len(sets[0].train.labels))
    data, devices = part(c, Data), part(c, Devices)
    sets = [_training.shown(data, some) for some in sets]
    taught = [_training.lesson(data, some.train, c.batch_size, c.seed) for some in sets]
    given = [learn.known(c, x, some.n_classes) for x, some in zip(taught, sets, strict=True)]
    mean, std = (jnp.asarray([getattr(g, name) for g in given]) for name in ("mean", "std"))
    shown = _Shown(
        _stacked(taught), _stacked([some.val for some in sets]),
        _stacked([some.test for some in sets]),
    )  # fmt: skip

    def lane(rate: Array, key: Key[Array, ""], of: Array, shown: _Shown) -> Parts:
        whose = given[0]._replace(rate=rate, mean=mean[of], std=std[of])
        return Parts.of(_lane(whose, devices, data, key, of, shown, change))

    rates, of = jnp.asarray([x.rate for x in lanes], float), jnp.asarray([x.of for x in lanes])
    asked = (rates, jnp.stack([jax.random.key(x.seed) for x in lanes]), of, shown)
    program = jax.jit(jax.vmap(lane, in_axes=(0, 0, 0, None))).lower(*asked).compile()
    begun = perf_counter()
    found = jax.block_until_ready(program(*asked))
    seconds = perf_counter() - begun
    sizes = {"n_train": len(taught[0].labels), "n_test": len(sets[0].test.labels)}
    for i, (rate, seed, _) in enumerate(lanes):
        mine = jax.tree.map(lambda x: x[i], found).whole()  # noqa: B023
        whose = _folder.provenance(c)
        whose["config"] |= {"lr": rate, "seed": seed}
        measures = _measures(devices, given[0].n_batches, mine)
        spent = {"seconds": seconds, "seconds_per_epoch": [seconds / c.epochs] * c.epochs}
        yield measures | spent | {"lanes": len(lanes)} | sizes | whose | {"seed": seed}


def _stacked(splits: Sequence[Split]) -> tuple[Any, Array]:
    return jax.tree.map(lambda *some: jnp.stack(some), *map(tuple, splits))


def _lane(
    given: Given, devices: Devices, data: Data, key: Key[Array, ""], of: Array, shown: _Shown,
    change: learn.Change,
) -> tuple[Any, Any, dict[str, Any]]:  # fmt: skip
    """The whole of one training: weights at its beginning and at its end, and what was seen."""
    how = given.how
    encode, augment = partial(_training.encoded, data), partial(_training.perturbed, data)
    learner, state = learn.fresh(given, devices, key, change)
    begun = learn.plastic(state)
    right = partial(fitting.evaluate, learner, encode=encode, key=key)
    flat = lambda a: a.reshape(-1, *a.shape[2:])  # noqa: E731
    all_x, all_y = jax.tree.map(flat, shown.train)  # none is copied for a lane
    val, test = jax.tree.map(lambda a: a[of], (shown.val, shown.test))
    size = shown.train[1].shape[1]
    n = size // how.batch_size
    few = min(size, fitting.SETTLING * how.batch_size)
    begin = lambda a: jax.lax.dynamic_slice_in_dim(a, of * size, few)  # noqa: E731
    first = jax.tree.map(begin, all_x)
    state = fitting.settled(learner, state, first, key, how.batch_size, encode)

    def epoch(state: Any, number: Array) -> tuple[Any, dict[str, Any]]:
        at, ends = fitting.epoch_key(key, number), jnp.array([0, n])
        order = of * size + fitting.shuffled(at, size, how.batch_size)
        state, seen = fitting.stretch(
            learner, state, all_x, all_y, order, at, ends, augment, encode
        )
        told = {"train_accuracy": seen["accuracy"].mean()} if "accuracy" in seen else {}
        told |= {"rate": seen["rate"].mean()} if "rate" in seen else {}
        return state, told | dict(val_accuracy=right(state, val), finite=fitting.finite(state))

    state, seen = jax.lax.scan(epoch, state, jnp.arange(how.epochs))
    return begun, learn.plastic(state), seen | {"test_accuracy": right(state, test)}


def _measures(devices: Devices, n_batches: int, found: tuple[Any, Any, Any]) -> dict[str, Any]:
    """What metrics.json holds of one training."""
    begun, now, seen = found
    lost = np.flatnonzero(~seen.pop("finite"))
    if len(lost):
        return {"lost": f"weights must stay finite; got NaN or infinity in epoch {lost[0] + 1}"}
    return {n: x.tolist() for n, x in seen.items()} | learn.changes(devices, n_batches, begun, now)
