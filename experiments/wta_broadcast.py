"""Train a structured recurrent spiking network without backpropagation.

    python -m experiments.wta_broadcast --dataset digits --out runs/digits

The equations stand in `neurojax.learning.wta_broadcast` and in the parts that it names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from experiments import _run
from neurojax import augment, data, encoding, plotting
from neurojax.feedback import broadcast
from neurojax.learning import wta_broadcast as wb
from neurojax.modulation import modulators
from neurojax.network import Layer, fold
from neurojax.neurons import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity import Homeostasis, ThreeFactor, boxcar, post_spike, triangle
from neurojax.structured import Recurrence, structured
from neurojax.teaching import HardWTA, SoftWTA

_T = TypeVar("_T")
if TYPE_CHECKING:
    Preset = Annotated[_T, "never None once `resolved`"]
else:
    Preset = _T | None
UNSET: Any = None


@dataclass(frozen=True)
class Config:
    """Every switch of the experiment; None takes what suits the data set (`PRESETS`)."""

    dataset: str = "digits"
    """digits (embedded), mnist, idx (four IDX files), or an image classification set of tfds."""
    data_dir: Path | None = None
    """Folder of the IDX files or of a prepared tfds set; default: $NEUROJAX_DATA."""
    out: Path = Path("runs/wta_broadcast")
    """Folder for metrics.json, figures and checkpoints."""
    seed: int = 0
    """Decides weights, wiring, order of samples and augmentation; never the split."""
    resume: bool = False
    """Go on from the last checkpoint in --out."""
    overwrite: bool = False
    """Replace another run's results in --out."""

    epochs: Preset[int] = UNSET
    """Passes over the training pictures."""
    batch_size: Preset[int] = UNSET
    """Pictures a weight change; what is left over in an epoch waits for the next shuffle."""
    train_size: int | None = None
    """Use this many training pictures only."""
    augment: Preset[Literal["none", "weak", "affine"]] = UNSET
    """Random affine maps of training pictures; weak is half as strong."""
    input_dropout: Preset[float] = UNSET
    """Part of the pixels left out at random in training."""
    shuffle_labels: bool = False
    """Control: train on labels that mean nothing."""

    hidden: Preset[tuple[int, ...]] = UNSET
    """Neurons of each hidden layer."""
    neuron: Literal["lif", "alif"] = "lif"
    tau_mem: Preset[float] = UNSET
    """Membrane time constant, ms."""
    tau_spread: float = 0.0
    """Mixed time constants: each neuron's is tau_mem exp(u), u uniform within this."""
    r_mem: Preset[float] = UNSET
    """Membrane resistance, MOhm."""
    reset: Literal["hard", "subtract"] = "hard"
    t_ref: float | None = None
    """Refractory time, ms."""
    beta_adapt: float = 0.1
    """ALIF: rise of the threshold a spike, mV."""
    tau_adapt: float = 20.0
    """ALIF: decay of the threshold, ms."""
    winners: int | None = None
    """k-WTA in each hidden layer: how many neurons may fire in a step."""
    recurrence: Preset[Literal["local", "dense", "none"]] = UNSET
    """local: a ring, all within --radius connected, a part --p-rewire sent far away."""
    learn_recurrence: bool = True
    radius: int = 16
    p_rewire: float = 0.1
    gain_in: Preset[float] = UNSET
    gain_forward: float = 2.0
    gain_recurrent: Preset[float] = UNSET
    """Initial weights have standard deviation gain / sqrt(fan-in)."""
    freeze_hidden: bool = False
    """Control: only the readout learns."""

    readout: Literal["leaky", "spiking"] = "leaky"
    """spiking: LIF populations that inhibit one another."""
    readout_density: float = 0.05
    """Part of each hidden layer that a readout neuron hears, in (0, 1]."""
    readout_population: int = 10
    """Readout neurons a class."""
    learn_readout: bool = True
    tau_out: Preset[float] = UNSET
    """Readout time constant, ms."""
    inhibition: float = 1.0
    """Spiking readout: weight of the lateral inhibition."""

    presentation: Literal["static", "rows"] = "static"
    """rows: the picture is read row by row and decided at the end."""
    encoding: Literal["direct", "poisson", "latency"] = "direct"
    max_rate: float = 200.0
    """Poisson: spikes a second of a white pixel."""
    n_steps: int = 20
    """Steps of 1 ms a static picture is shown."""
    start: Preset[int] = UNSET
    """Step from which error and scores count; negative: that many steps before the end."""

    teacher: Literal["soft", "hard"] = "soft"
    gain: float = 30.0
    """Soft: slope of the softmax over scores."""
    margin: Preset[float] = UNSET
    """No error below this (soft), no error once the target leads by this (hard)."""
    bandwidth: int | None = None
    """Channels of the broadcast error; None: classes - 1, all there is."""
    redraw_feedback: bool = False
    """Control: new random feedback for every batch."""
    modulators: int = 0
    """Neuromodulators that gate learning; judge them with --optimiser sgd."""

    window: Literal["triangle", "boxcar", "spike"] = "triangle"
    window_width: Preset[float] = UNSET
    """Half-width of the triangle, width of the boxcar, mV."""
    kappa_e: float = 0.95
    """Decay of the eligibility in a step."""
    trace_decay: float | None = None
    """Decay of the presynaptic trace in a step; None: that of the membrane."""
    reset_trace: Preset[bool] = UNSET
    """A spike of the receiver clears its presynaptic traces."""
    target_rate: Preset[float] = UNSET
    """Homeostasis: spikes a neuron and step."""
    homeostasis: float = 0.5
    """How fast thresholds follow, mV per unit of rate and batch; anneals to a tenth."""
    rate_penalty: float = 0.0
    """Weight of the rate's difference from target in the learning signal."""

    optimiser: Literal["adam", "sgd", "momentum"] = "adam"
    lr: Preset[float] = UNSET
    lr_readout: Preset[float] = UNSET
    weight_decay: float = 0.0
    average: Preset[float] = UNSET
    """Decay in a batch of the average of weights that is evaluated; 0: none."""

    def __post_init__(self):
        _check(self)


PRESETS: dict[str, dict[str, Any]] = {
    "static": dict(
        epochs=8, batch_size=64, augment="affine", input_dropout=0.0, hidden=(512, 512),
        tau_mem=9.5, r_mem=2.0, recurrence="local", gain_in=2.0, gain_recurrent=0.3, tau_out=9.5,
        start=5, margin=0.02, window_width=0.5, reset_trace=True, target_rate=0.05, lr=4e-3,
        lr_readout=5e-3, average=0.998,
    ),
    "rows": dict(
        epochs=10, batch_size=64, augment="none", input_dropout=0.0, hidden=(512,), tau_mem=4.5,
        r_mem=3.0, recurrence="dense", gain_in=3.0, gain_recurrent=0.5, tau_out=19.5, start=-10,
        margin=0.0, window_width=1.0, reset_trace=True, target_rate=0.08, lr=5e-3, lr_readout=1e-2,
        average=0.998,
    ),
    "digits": dict(epochs=40, batch_size=32, augment="weak", hidden=(256, 256), average=0.99),
}  # fmt: skip


def resolved(config: Config) -> Config:
    """The configuration with every None that a preset knows filled in."""
    preset = PRESETS[config.presentation] | PRESETS.get(config.dataset, {})
    return replace(config, **{k: v for k, v in preset.items() if getattr(config, k) is None})


def _check(c: Config) -> None:
    """Refuse numbers out of range, naming the option."""
    whole = dict(epochs=1, batch_size=1, train_size=1, readout_population=1, n_steps=1,
                 bandwidth=1, modulators=0, radius=1, winners=1, seed=0)  # fmt: skip
    for name, low in whole.items():
        value = getattr(c, name)
        if value is not None and value < low:
            raise ValueError(f"--{_run.dashed(name)} must be a whole number >= {low}; got {value}")
    if c.hidden is not None and min(c.hidden, default=0) < 1:
        raise ValueError(f"--hidden must name one or more layers of >= 1 neurons; got {c.hidden}")
    ranges = dict(readout_density="(0, 1]", input_dropout="[0, 1)", p_rewire="[0, 1]",
                  kappa_e="[0, 1]", trace_decay="[0, 1]", target_rate="[0, 1]", average="[0, 1)",
                  tau_mem="(0, inf)", tau_out="(0, inf)", r_mem="(0, inf)", t_ref="[0, inf)",
                  tau_spread="[0, 10]", tau_adapt="(0, inf)", beta_adapt="[0, inf)",
                  gain="(0, inf)", margin="[0, inf)", window_width="(0, inf)", lr="[0, inf)",
                  lr_readout="[0, inf)", weight_decay="[0, inf)", homeostasis="[0, inf)",
                  rate_penalty="[0, inf)", inhibition="[0, inf)", gain_in="[0, inf)",
                  max_rate="(0, 1000]", gain_forward="[0, inf)", gain_recurrent="[0, inf)",
    )  # fmt: skip
    for name, interval in ranges.items():
        _run.require_within(f"--{_run.dashed(name)}", getattr(c, name), interval)


def build(c: Config, n_in: int, n_classes: int, n_steps: int, key: Key[Array, ""]) -> wb.System:
    """The network and its teachers, all random parts drawn from `key`."""
    width = c.window_width
    window = {"triangle": triangle(width), "boxcar": boxcar(width), "spike": post_spike}[c.window]
    rule = ThreeFactor(c.kappa_e, c.trace_decay, window, bool(c.reset_trace))
    hidden = [
        Layer(n, _neuron(c, n, fold(key, f"neuron {i}")), rule=rule, winners=c.winners)
        for i, n in enumerate(c.hidden or ())
    ]
    out = LeakyIntegrator(c.tau_out) if c.readout == "leaky" else LIF(c.tau_out)
    loop = Recurrence(
        c.recurrence, c.radius, c.p_rewire, c.gain_recurrent,
        c.learn_recurrence and not c.freeze_hidden,
    )  # fmt: skip
    net = structured(
        fold(key, "wiring"), n_in, hidden, n_classes, density=c.readout_density,
        population=c.readout_population, readout=out, inhibition=c.inhibition, recurrence=loop,
        gain_in=c.gain_in, gain_forward=c.gain_forward, plastic_hidden=not c.freeze_hidden,
        plastic_readout=c.learn_readout,
    )  # fmt: skip
    names = {f"h{i + 1}": n for i, n in enumerate(c.hidden or ())}
    if not -n_steps <= c.start < n_steps:
        raise ValueError(f"--start must be in [{-n_steps}, {n_steps}); got {c.start}")
    return wb.System(
        net, _feedback(c, names, n_classes, fold(key, "feedback")),
        SoftWTA(c.gain, c.margin) if c.teacher == "soft" else HardWTA(c.margin),
        Homeostasis(c.target_rate, c.homeostasis, penalty=c.rate_penalty),
        modulators(fold(key, "modulators"), c.modulators, names) if c.modulators else None,
        n_classes=n_classes, n_steps=n_steps, start=c.start % n_steps,
    )  # fmt: skip


def _neuron(c: Config, n: int, key: Key[Array, ""]) -> LIF | ALIF:
    tau = c.tau_mem
    if c.tau_spread:
        tau = tau * jnp.exp(c.tau_spread * jax.random.uniform(key, (n,), minval=-1.0))
    common: dict[str, Any] = dict(tau_mem=tau, r_mem=c.r_mem, t_ref=c.t_ref, reset=c.reset)
    if c.neuron == "lif":
        return LIF(**common)
    return ALIF(**common, tau_adapt=c.tau_adapt, beta_adapt=c.beta_adapt)


def _feedback(c: Config, names: dict[str, int], n_classes: int, key: Key[Array, ""]):
    return {n: broadcast(fold(key, n), size, n_classes, c.bandwidth) for n, size in names.items()}


def optimiser(c: Config, n_batches: int) -> optax.GradientTransformation:
    """Cosine to zero, one rate for the readout and one for all else."""

    def one(lr: float) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(lr, n_batches)
        if c.optimiser == "adam":
            return optax.adamw(schedule, weight_decay=c.weight_decay)
        momentum = 0.9 if c.optimiser == "momentum" else None
        decay = optax.add_decayed_weights(c.weight_decay)
        return optax.chain(decay, optax.sgd(schedule, momentum))

    label = lambda names: {n: n.endswith("->readout") for n in names}  # noqa: E731
    return optax.multi_transform({True: one(c.lr_readout), False: one(c.lr)}, label)


def encoded(c: Config, images: Array, key: Key[Array, ""]) -> Array:
    """Pictures [B, H, W, ...] as the network sees them: [B, n_in] held, or [B, T, n_in]."""
    flat = images.reshape(images.shape[0], -1)
    if c.presentation == "rows":
        return jax.vmap(encoding.rows)(images.reshape(*images.shape[:2], -1))
    if c.encoding == "direct":
        return flat
    if c.encoding == "latency":
        return jax.vmap(lambda x: encoding.latency(x, c.n_steps))(flat)
    draw = lambda k, x: encoding.poisson(k, x, c.n_steps, dt=1.0, max_rate=c.max_rate)  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, len(flat)), flat)


def perturbed(c: Config, images: Array, key: Key[Array, ""]) -> Array:
    """Training pictures after augmentation and dropout of pixels."""
    if c.augment != "none":
        part = {"affine": 1.0, "weak": 0.5}[c.augment]
        limits = dict(rotation=0.2 * part, scale=0.1 * part, shift=part, shear=0.15 * part)
        warp = lambda k, x: augment.affine(k, x, **limits)  # noqa: E731
        images = jax.vmap(warp)(jax.random.split(key, len(images)), images)
    if c.input_dropout:
        keep = jax.random.bernoulli(fold(key, "dropout"), 1 - c.input_dropout, images.shape)
        images = jnp.where(keep, images / (1 - c.input_dropout), 0.0)
    return images


class Trainer(NamedTuple):
    """The jitted steps of one run."""

    system: wb.System
    learn: Any  # (state, order, images, labels, key, [first, last]) -> state, seen
    settle: Any  # (state, images) -> state
    predict: Any  # (system, weights, tone, images, key) -> Outcome


class Seen(NamedTuple):
    """Sums over the batches of a stretch."""

    batches: Array
    accuracy: Array
    rate: Array


def trainer(
    c: Config, system: wb.System, tx: optax.GradientTransformation, n_batches: int,
    changes: wb.Changes = wb.deltas,
) -> Trainer:  # fmt: skip
    """Compile-once functions: learn from a stretch of batches, settle, predict."""
    anneal = optax.cosine_decay_schedule(1.0, n_batches, alpha=0.1)

    def batch(state, images, labels, key):
        x = encoded(c, perturbed(c, images, fold(key, "perturb")), fold(key, "encode"))
        taught = system
        if c.redraw_feedback:
            sizes = {n: system.network.layers[n].n for n in system.hidden}
            drawn = _feedback(c, sizes, system.n_classes, fold(key, "feedback"))
            taught = eqx.tree_at(lambda s: s.feedback, system, drawn)
        state, outcome = wb.train_step(
            taught, tx, state, x, labels, average_decay=c.average,
            anneal=jnp.asarray(anneal(state.step.astype(float))), changes=changes,
        )  # fmt: skip
        rate = jnp.stack([r.mean() for r in outcome.rates.values()]).mean()
        return state, Seen(jnp.ones(()), (outcome.scores.argmax(1) == labels).mean(), rate)

    @eqx.filter_jit
    def learn(state, order, images, labels, key, stretch):
        def one(i, carry):
            state, seen = carry
            picked = order[i]
            at = jax.random.fold_in(key, i)
            state, now = batch(state, images[picked], labels[picked], at)
            return state, jax.tree.map(jnp.add, seen, now)

        return jax.lax.fori_loop(stretch[0], stretch[1], one, (state, Seen(*jnp.zeros(3))))

    @eqx.filter_jit
    def settle(state, images):
        return wb.settle(system, state, encoded(c, images, state.key))

    @eqx.filter_jit
    def predict(system, weights, tone, images, key):
        return wb.predict(system, weights, tone, encoded(c, images, key), key=key)

    return Trainer(system, learn, settle, predict)


def train(
    c: Config, run: Trainer, state: wb.TrainState, split: data.Split, key: Key[Array, ""],
    first_epoch: int, progress: _run.Progress,
) -> Iterator[tuple[int, wb.TrainState]]:  # fmt: skip
    """Yield the state after each epoch; the order of samples follows from key and epoch."""
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    n_batches = len(labels) // c.batch_size
    for epoch in range(first_epoch, c.epochs):
        key_e = jax.random.fold_in(fold(key, "epoch"), epoch)
        order = jax.random.permutation(fold(key_e, "order"), len(labels))
        order = order[: n_batches * c.batch_size].reshape(n_batches, -1)
        for first, last in progress.stretches():
            stretch = jnp.asarray([first, last])  # traced: one program for all stretches
            state, seen = run.learn(state, order, images, labels, key_e, stretch)
            progress.show(*(float(x) for x in seen))
        yield epoch + 1, state


def settled(c: Config, run: Trainer, state: wb.TrainState, split: data.Split) -> wb.TrainState:
    """Thirty batches in which only the thresholds move."""
    for i in range(30):
        at = np.arange(i * c.batch_size, (i + 1) * c.batch_size) % len(split.labels)
        state = run.settle(state, jnp.asarray(split.images[at]))
    return state


class Evaluation(NamedTuple):
    """What a split showed."""

    accuracy: float
    spikes: dict[str, np.ndarray]  # mean spikes per step of each neuron
    active: dict[str, float]  # part of the neurons that fire at least once


def evaluate(
    c: Config, run: Trainer, average, split: data.Split, *, system: wb.System | None = None
) -> Evaluation:
    """Accuracy and activity with the averaged weights, 500 pictures at a time."""
    system = run.system if system is None else system
    weights, tone = average
    right, spikes = 0, {n: np.zeros(()) for n in system.hidden}
    for i in range(0, len(split.labels), 500):
        images = jnp.asarray(split.images[i : i + 500])
        key = jax.random.fold_in(jax.random.key(c.seed), i)
        outcome = run.predict(system, weights, tone, images, key)
        decided = np.asarray(outcome.scores.argmax(1))
        right += int((decided == split.labels[i : i + 500]).sum())
        for n, r in outcome.rates.items():
            spikes[n] = spikes[n] + np.asarray(r, np.float64).sum(0)
    mean = {n: s / len(split.labels) for n, s in spikes.items()}
    active = {n: float((s > 0).mean()) for n, s in mean.items()}
    return Evaluation(right / len(split.labels), mean, active)


def layer_accuracy(c: Config, run: Trainer, average, split: data.Split) -> list[float]:
    """Accuracy with the readout of each hidden layer alone."""
    names = [f"{n}->readout" for n in run.system.hidden]
    out = []
    for kept in names:
        net = run.system.network.without(*(n for n in names if n != kept))
        alone = eqx.tree_at(lambda s: s.network, run.system, net)
        weights = {n: average[0][n] for n in net.projections}
        out.append(evaluate(c, run, (weights, average[1]), split, system=alone).accuracy)
    return out


def synaptic_events(system: wb.System, spikes: dict[str, np.ndarray]) -> float:
    """Synapses that a spike of a hidden layer reaches in one presentation, mean."""
    net, total = system.network, 0.0
    for p in net.projections.values():
        if p.pre in spikes:
            total += float(spikes[p.pre] @ np.asarray(p.connectivity.fan_out))
    return total * system.n_steps


def run(config: Config, changes: wb.Changes = wb.deltas) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    c = resolved(config)
    folder = _run.Folder(c)
    sets = data.load(c.dataset, c.data_dir)
    lesson = _lesson(c, sets.train)
    n_in, n_steps = _input_shape(c, sets.train.images.shape)
    key, n_batches = jax.random.key(c.seed), c.epochs * (len(lesson.labels) // c.batch_size)
    tx = optimiser(c, n_batches)
    make = lambda key: fresh(c, n_in, sets.n_classes, n_steps, tx, key)  # noqa: E731
    # Used once: lightly optimised, the same numbers are compiled in half the time.
    quick: Any = {"compiler_options": {"xla_backend_optimization_level": 1}}
    system, state = eqx.filter_jit(make, **quick)(key)
    steps = trainer(c, system, tx, n_batches, changes)
    done, state, history = folder.start(state)
    if done == 0:
        state = settled(c, steps, state, lesson)
    with _run.Progress(c.epochs, n_batches // c.epochs, done) as bar:
        for epoch, learnt in train(c, steps, state, lesson, key, done, bar):
            val = evaluate(c, steps, learnt.average, sets.val).accuracy
            history = history.grown(val, bar.accuracy, bar.seconds())
            folder.save(epoch, learnt, history)
            bar.finish_epoch(val)
            state = learnt
    metrics, figures = measured(c, steps, state, sets, history)
    _report(metrics, bar.console)
    return folder.finish(metrics, figures)


def fresh(c: Config, n_in: int, n_classes: int, n_steps: int, tx, key: Key[Array, ""]):
    """System and initial state, all that is random drawn from `key`; can be vmapped over it."""
    system = build(c, n_in, n_classes, n_steps, fold(key, "system"))
    return system, wb.init(system, tx, fold(key, "state"))


def _lesson(c: Config, split: data.Split) -> data.Split:
    """The training pictures of this run."""
    images, labels = (x[: c.train_size] for x in split)
    if len(labels) < c.batch_size:
        raise ValueError(f"--batch-size must be at most {len(labels)} pictures; got {c.batch_size}")
    if c.shuffle_labels:
        labels = np.random.default_rng(c.seed).permutation(labels)
    return data.Split(images, labels)


def _input_shape(c: Config, shape: tuple[int, ...]) -> tuple[int, int]:
    """Input neurons and time steps for pictures [N, H, W, ...]."""
    if c.presentation == "rows":
        return int(np.prod(shape[2:])), shape[1]
    return int(np.prod(shape[1:])), c.n_steps


def measured(c: Config, run: Trainer, state: wb.TrainState, sets: data.Dataset, history):
    """What metrics.json holds beside its provenance, and the figures; reads the test set."""
    test = evaluate(c, run, state.average, sets.test)
    hidden, wired = run.system.hidden, run.system.network.projections
    metrics = {
        "test_accuracy": test.accuracy,
        "val_accuracy": list(history.val_accuracy),
        "train_accuracy": list(history.train_accuracy),
        "spikes_per_neuron_step": [float(test.spikes[n].mean()) for n in hidden],
        "active_fraction": [test.active[n] for n in hidden],
        "synaptic_events_per_inference": synaptic_events(run.system, test.spikes),
        "layer_readout_accuracy": layer_accuracy(c, run, state.average, sets.test),
        "seconds": sum(history.seconds),
        "seconds_per_epoch": list(history.seconds),
        "n_train": len(sets.train.labels[: c.train_size]),
        "n_test": len(sets.test.labels),
    }
    figures = {
        "learning_curve": plotting.learning_curve(
            _percent(history.val_accuracy), _percent(history.train_accuracy), 100 * test.accuracy
        ),
        "raster": _raster(c, run, state.average, sets.test),
        "weights": plotting.weights(
            {n: np.asarray(wired[n].connectivity.matrix(w.w)) for n, w in state.average[0].items()}
        ),
    }
    return metrics, figures


def _percent(parts: Sequence[float]) -> list[float]:
    return [100 * x for x in parts]


def _raster(c: Config, run: Trainer, average, split: data.Split):
    """What the network does with the first test picture."""
    weights, tone = average
    key = jax.random.key(c.seed)
    x = encoded(c, jnp.asarray(split.images[:1]), key)[0]
    record = eqx.filter_jit(wb.present)(run.system, weights, tone, x, key=key)
    told = wb.instruct(run.system, record[run.system.readout].z, jnp.asarray(split.labels[0]))
    spikes = {n: record[n].z for n in run.system.hidden}
    target = int(split.labels[0])
    return plotting.raster({**spikes}, scores=np.asarray(told.scores), target=target)


def _report(metrics: dict[str, Any], console) -> None:
    layers = zip(metrics["spikes_per_neuron_step"], metrics["active_fraction"], strict=True)
    active = ", ".join(
        f"h{i} {s:.3f} ({100 * a:.0f}% active)" for i, (s, a) in enumerate(layers, 1)
    )
    console.print(f"test accuracy {100 * metrics['test_accuracy']:.2f}%", style="bold")
    console.print(f"spikes a neuron and step: {active}")
    console.print(f"synaptic events an inference: {metrics['synaptic_events_per_inference']:,.0f}")


if __name__ == "__main__":
    _run.main(Config, run)
