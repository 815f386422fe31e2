"""Any learner, on any devices, from any data: three options say which.

    python -m experiments.learn --learner dfa --synapse linear --dataset digits --out runs/dfa

Each learner has its own defaults, which --help shows; its equations stand in the module of
`neurojax.learning` that it comes from. A run may go on to more epochs: --resume and a larger
--epochs; rates that fall along a cosine then follow that of the longer run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key
from rich.console import Console

from experiments import (
    _devices,
    _folder,
    _hosts,
    _learners,
    _options,
    _programs,
    _run,
    _training,
)  # fmt: skip
from experiments._config import UNSET, Data, Devices, Preset, require_currents
from experiments._learners import RECIPES, Given
from experiments._options import Need, part
from neurojax import sharding
from neurojax._check import MOST
from neurojax._compile import released
from neurojax.analysis import plotting
from neurojax.data import Dataset, Rasters, Split, load
from neurojax.data.event_sets import NAMES as EVENTS
from neurojax.data.ragged import arrays
from neurojax.learning import NotFinite, fitting
from neurojax.learning._progress import Progress
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, connectivity_mask


@dataclass(frozen=True)
class Network:
    """What is between the pixels and the classes."""

    hidden: Preset[tuple[int, ...]] = UNSET
    """Neurons of each hidden layer."""
    activation: Preset[_learners.Activation] = UNSET
    """What a neuron makes of its input."""
    init_gain: Preset[float] = UNSET
    """First weights: standard deviation times sqrt(fan-in)."""
    recurrence: Preset[Literal["local", "dense", "none"]] = UNSET
    """Within each hidden layer: a ring of neighbours, a few sent far away; all to all; nothing."""
    readout_density: Preset[float] = UNSET
    """Part of each hidden layer that a readout neuron hears, in (0, 1]."""
    readout_population: Preset[int] = UNSET
    """Readout neurons a class."""
    freeze_hidden: bool = False
    """Control: only the readout learns."""

    whole: ClassVar = dict(readout_population=(1, MOST))
    within: ClassVar = dict(init_gain="[0, inf)", readout_density="(0, 1]")


@dataclass(frozen=True)
class Learner:
    """Who learns, and how large its steps are."""

    learner: _learners.Name = "wta_broadcast"
    """What asks for changes of weights."""
    epochs: Preset[int] = UNSET
    """Passes over the training pictures; with --resume it may be more than before."""
    batch_size: Preset[int] = UNSET
    """Pictures a weight change; what is left over in an epoch waits for the next shuffle."""
    optimiser: Preset[Literal["adam", "sgd", "momentum"]] = UNSET
    """What turns the changes that are asked for into steps; momentum is 0.9."""
    lr: Preset[float] = UNSET
    """Learning rate."""
    lr_readout: Preset[float] = UNSET
    """Learning rate of the readout."""
    schedule: Preset[Literal["constant", "cosine"]] = UNSET
    """Learning rates stay, or fall along a cosine to 0."""
    weight_decay: Preset[float] = UNSET
    """Part of a weight that it loses in a step, per unit of learning rate."""
    clip: Preset[float] = UNSET
    """The longest that the changes of a batch may be together, before the learning rate; 0: any."""
    beta: Preset[float] = UNSET
    """Size of a nudge."""
    n_points: Preset[int] = UNSET
    """Nudges: 1 against none, 2 up and down, more of them on a circle in the complex plane."""
    n_blocks: Preset[int] = UNSET
    """Blocks, each trained alone."""
    active: float | None = None
    """Part of the weights, drawn anew each batch, that are shifted alone; without, neurons are."""

    needs: ClassVar[tuple[Need, ...]] = _learners.needs()
    whole: ClassVar = {name: (1, MOST) for name in ("epochs", "batch_size", "n_points", "n_blocks")}
    within: ClassVar = {n: "[0, inf)" for n in ("lr", "lr_readout", "weight_decay", "clip")} | {
        "beta": "(0, inf)", "active": "(0, 1]",
    }  # fmt: skip


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/learn")
    processors: int = 1
    """Divide each batch over so many, as JAX counts its devices; a run may go on over others."""

    whole: ClassVar = dict(processors=(1, _run.MANY))


@dataclass(frozen=True)
class Config(Network, Learner, Devices, Data, Run, _hosts.Hosts):
    """Every option; None takes what suits the learner and the data."""

    def __post_init__(self):
        _check(self)

    @classmethod
    def default_text(cls, name: str) -> str | None:
        """What the learners take, those that take the same together."""
        if next(f.default for f in fields(cls) if f.name == name) is not None:
            return None
        told: dict[str, list[str]] = {}
        for learner in RECIPES:
            if text := _learners.told(learner, name):
                told.setdefault(text, []).append(learner)
        if len(told) < 2:
            return next(iter(told), None)
        return "; ".join(f"{text} ({', '.join(who)})" for text, who in told.items())


def _check(c: Config) -> None:
    """Refuse numbers out of range, naming the option."""
    _run.require_sound(c)
    _hosts.check(c)
    if c.hidden is not None and min(c.hidden, default=0) < 1:
        raise ValueError(f"--hidden must name one or more layers of >= 1 neurons; got {c.hidden}")
    _run.require_whole(c, hidden=(1, MOST))
    require_currents(c)
    if c.dataset in EVENTS and not _over_time(c):
        allowed = "wta_broadcast, surrogate, decolle or eprop"
        raise ValueError(
            f"--learner must be {allowed} for --dataset {c.dataset}, which are events over time;"
            f" got {c.learner}"
        )
    if c.synapse != "ideal" and (why := RECIPES[c.learner].numbers_only):
        raise ValueError(
            f"--synapse must be ideal for --learner {c.learner}: {why}; got {c.synapse}"
        )


def resolved(config: Config, n_train: int | None = None) -> Config:
    """With what the learner takes where nothing is given; `n_train` pictures are learnt from."""
    found = _learners.usual(config, n_train)
    return replace(config, **{k: v for k, v in found.items() if getattr(config, k) is None})


def refuse_idle(config: Config, c: Config) -> None:
    """Refuse options that change nothing; `c` is `config` resolved."""
    unset = {f.name: f.default for f in fields(config)}
    # how many there are to learn from decides epochs and batches alone, which need nothing
    again = lambda name: resolved(replace(c, **{name: unset[name]}), MOST)  # noqa: E731
    usual = lambda name: getattr(again(name), name)  # noqa: E731
    found = [need for need in _options.needs(type(config)) if need.filled]
    _options.refuse_idle(c, found, usual)


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    with _hosts.joined(config):
        return _run_it(config)


def _run_it(config: Config) -> dict[str, Any]:
    sets = load(config.dataset, config.data_dir, bin_ms=config.bin_ms)
    c = resolved(config, _run.n_train(sets, config.train_size, config.batch_size))
    refuse_idle(config, c)
    if c.coordinator:
        _hosts.refuse_different(c, sets)
    with _hosts.held(c, sets, may_grow=("epochs",)) as folder:
        return _run_in(folder, c, sets)


def _run_in(folder: _folder.Folder, c: Config, sets: Dataset) -> dict[str, Any]:
    how, devices, data = part(c, Learner), part(c, Devices), part(c, Data)
    key = jax.random.key(c.seed)
    sets = _training.shown(data, sets)
    train = _training.lesson(data, sets.train, how.batch_size, c.seed)
    mesh = _mesh(jax.device_count() if c.coordinator else c.processors, how.batch_size)
    given = known(c, train, sets.n_classes)
    n_batches = given.n_batches // how.epochs
    _run.refuse_endless(how.epochs, n_batches)
    _refuse_large(given)
    make = partial(fresh, given, devices)
    made = _programs.Made(make, key)  # what cannot be built is refused here
    encode = partial(_training.encoded, data)
    _refuse_unfit(make, encode, train, how.batch_size, key)
    folder.begin()
    learner, state = made()
    begun = plastic(state)
    right = partial(fitting.evaluate, learner, encode=encode, key=key, mesh=mesh)
    state, history, console = _learnt(folder, c, learner, state, sets, train, mesh, right)
    test = float(right(state, sets.test))
    console.print(f"test accuracy {100 * test:.2f}%", style="bold")
    now = plastic(state)
    metrics = history.metrics(test, len(train.labels), len(sets.test.labels))
    metrics |= changes(devices, given.n_batches, begun, now)
    return folder.finish(metrics, _figures(history, test, now))


def _learnt(
    folder: _folder.Folder, c: Config, learner: Any, state: Any, sets: Dataset, train: Split,
    mesh: Mesh | None, right: Callable,
) -> tuple[Any, _folder.History, Console]:  # fmt: skip
    """All epochs, from the last that the folder holds; the state, what was seen, where to tell."""
    how, data, key = part(c, Learner), part(c, Data), jax.random.key(c.seed)
    encode, n_batches = partial(_training.encoded, data), len(train.labels) // how.batch_size
    done, state, history = folder.last(state)
    if done == 0:
        settle = released(
            partial(fitting.settled, learner, batch_size=how.batch_size, encode=encode)
        )
        state = settle(state, fitting.beginning(learner, train.images, how.batch_size), key)
    augment = partial(_training.perturbed, data)
    step = fitting.served(
        released(partial(fitting.stretch, learner, augment=augment, encode=encode, mesh=mesh))
    )
    train = _training.over(mesh, train)
    if c.coordinator:
        done, state = _hosts.agreed((done, state))
        done = int(done)
    state = state if mesh is None else sharding.replicated(mesh, state)
    several = _hosts.told() if c.coordinator else {}
    bar, epochs = Progress(how.epochs, n_batches, done, **several), range(done, how.epochs)
    told = _training.train(step, state, train, key, epochs, how.batch_size, bar)
    with bar, _blamed(how.lr):
        state, history = _training.recorded(
            told, state, history, folder, bar, how.epochs, n_batches * how.batch_size,
            val=lambda learnt: right(learnt, sets.val), train=lambda learnt: right(learnt, train),
        )  # fmt: skip
    return state, history, bar.console


def _mesh(n: int, batch_size: int) -> Mesh | None:
    """Of the processors over which each batch is divided."""
    there = jax.device_count()
    if n > there:
        cure = ": set JAX_NUM_CPU_DEVICES" * (jax.default_backend() == "cpu")
        raise ValueError(f"--processors must be at most {there}, all that there are; got {n}{cure}")
    if batch_size % n:
        raise ValueError(f"--batch-size must be a multiple of --processors, {n}; got {batch_size}")
    return sharding.mesh(data=n) if n > 1 else None


def changes(
    devices: Devices, n_batches: int, begun: dict[str, Any], now: dict[str, Any]
) -> dict[str, Any]:
    """How often weights were changed on the way from `begun` to `now`, what devices have spent."""
    moved = [
        name
        for name, w in now.items()
        if not np.array_equal(_devices.held(w), _devices.held(begun[name]))
    ]
    found: dict[str, Any] = {
        "n_synapses": sum(_synapses(w) for w in now.values()),
        "weight_updates": n_batches * sum(_synapses(now[name]) for name in moved),
    }
    if devices.synapse != "ideal":
        spent = {name: _devices.spent(w) for name, w in begun.items()}
        found["devices"] = {name: _devices.counted(now[name], x) for name, x in spent.items()}
    return found


def known(c: Config, train: Split, n_classes: int) -> Given:
    """What the learner is made of, and for; `c` is resolved."""
    how, data = part(c, Learner), part(c, Data)
    timed = data if data.start is not None else replace(data, start=0)
    task = _training.task(timed, train.images.shape, n_classes)
    mean, std = 0.0, 1.0  # what learners over time do not ask for
    if not isinstance(train.images, Rasters):
        pixels = train.images.astype(np.float64)
        mean, std = float(pixels.mean()), float(pixels.std()) or 1.0
    n_batches = how.epochs * (len(train.labels) // how.batch_size)
    n_bins = 4 if data.dataset == "digits" else 2
    system = _learners.system(c)
    return Given(part(c, Network), how, task, n_batches, mean, std, n_bins, system)


Change = Callable[[Any, Key[Array, ""]], Any]  # of a learner, all that is random from a key


def unchanged(learner: Any, key: Key[Array, ""]) -> Any:
    """It is what options make it."""
    return learner


def fresh(
    given: Given, devices: Devices, key: Key[Array, ""], change: Change = unchanged
) -> tuple[Any, Any]:
    """The learner and its first state, all that is random drawn from `key`."""
    recipe = RECIPES[given.how.learner]
    learner = change(recipe.build(given, key), fold(key, "change"))
    return learner, learner.init(fold(key, "state"), make_weights(devices, recipe.reach))


def make_weights(devices: Devices, reach: float) -> MakeWeights:
    """Numbers, or devices; where no --w-max is given, they reach `reach` / sqrt(fan-in)."""
    synapses = devices.synapses
    if devices.synapse == "ideal" or devices.w_max is not None:
        return _devices.make_weights(synapses, devices.w_max)

    def make(w: Array, wiring: Any, key: Array) -> Weights:
        return _devices.make_weights(synapses, reach / np.sqrt(wiring.n_pre))(w, wiring, key)

    return make


def plastic(state: Any) -> dict[str, Any]:
    """All weights of a learner's state, by name."""
    # By their kind: those that are many of a kind cannot be asked what they hold.
    is_weights = lambda x: hasattr(type(x), "program")  # noqa: E731
    found = jax.tree_util.tree_flatten_with_path(state.weights, is_leaf=is_weights)[0]
    return {jax.tree_util.keystr(at, simple=True, separator="."): w for at, w in found}


def _synapses(w: Any) -> int:
    return int(connectivity_mask(w.connectivity, jnp.ones(_devices.held(w).shape)).sum())


def _refuse_unfit(
    make: Callable[[Array], Any], encode: fitting.Change, train: Split, batch_size: int,
    key: Key[Array, ""],
) -> None:  # fmt: skip
    """Refuse data that the learner cannot take, before anything is written."""

    def first(key: Array, images: Array, labels: Array) -> Any:
        learner, state = make(key)
        state = fitting.settled(learner, state, images, key, len(labels), encode)
        return learner.step(state, encode(key, images), labels, key=key)

    x, y = (arrays(some[:batch_size]) for some in train)
    jax.eval_shape(first, key, x, y)


def _refuse_large(given: Given) -> None:
    """Refuse a training that would not fit, by the option that is furthest from what is usual."""
    net, how, sizes, n_steps = given.net, given.how, given.sizes, given.task.n_steps
    links = sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    links += sum(n * n for n in net.hidden) if net.recurrence in ("local", "dense") else 0
    seen = max(how.batch_size, 500) * sum(sizes) * (n_steps if _over_time(how) else 1)
    _run.affordable(
        32 * links + 16 * seen, hidden=sum(net.hidden) / 1000, n_steps=n_steps / 20,
        batch_size=how.batch_size / 500,
    )  # fmt: skip


def _over_time(how: Learner) -> bool:
    return "n_steps" in RECIPES[how.learner].reads.split()


@contextmanager
def _blamed(lr: float) -> Iterator[None]:
    """`NotFinite` in the block names the learning rate."""
    try:
        yield
    except NotFinite as found:
        cure = f"; pass a smaller --lr than {lr:g}"
        raise NotFinite(found.parts, found.since, cure) from None


def _matrix(w: Any) -> Array:
    """Of arrays that are many of a kind, the first."""
    held = _devices.held(w)
    return w.connectivity.matrix(held[(0,) * (held.ndim - len(w.connectivity.shape))])


def _figures(history: _folder.History, test: float, now: dict[str, Any]) -> dict[str, Any]:
    tables: dict[str, Any] = {n: np.asarray(_matrix(w)) for n, w in now.items()}
    return {"learning_curve": history.curve(test), "weights": plotting.weights(tables)}


if __name__ == "__main__":
    _run.main(Config, run)
