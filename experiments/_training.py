"""From pictures to a trained state: encoding, optimiser, compiled steps, evaluation."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from experiments import _finite
from experiments._config import Data, Learning
from experiments._folder import Folder, History
from neurojax._compile import released
from neurojax.data import Dataset, Rasters, Split, augment, encoding
from neurojax.data.event_sets import NAMES as EVENTS
from neurojax.data.ragged import arrays, on_disk
from neurojax.learning import WTABroadcast, fitting
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import fold
from neurojax.plasticity.feedback import broadcast
from neurojax.sharding import replicated
from neurojax.weights import ideal


def feedback(bandwidth: int | None, sizes: dict[str, int], n_classes: int, key: Key[Array, ""]):
    """Fixed random weights that carry the error to each layer."""
    return {n: broadcast(fold(key, n), size, n_classes, bandwidth) for n, size in sizes.items()}


def optimiser(rule: Learning, n_batches: int) -> optax.GradientTransformation:
    """Cosine to zero, one rate for the readout and one for all else."""

    def one(lr: float) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(lr, n_batches)
        if rule.optimiser == "adam":
            return optax.adamw(schedule, weight_decay=rule.weight_decay)
        momentum = 0.9 if rule.optimiser == "momentum" else None
        decay = optax.add_decayed_weights(rule.weight_decay)
        return optax.chain(decay, optax.sgd(schedule, momentum))

    label = lambda names: {n: n.endswith("->readout") for n in names}  # noqa: E731
    return optax.multi_transform({True: one(rule.lr_readout), False: one(rule.lr)}, label)


def shown(data: Data, sets: Dataset) -> Dataset:
    """The data as `data.inputs` has them: as they are, or each pixel centred and all scaled alike,

        x' = (x - m) / S

    m: its mean over the training pictures; S^2: the mean over all pixels of their variance there,
    so that one that hardly ever changes is not blown up.
    """
    if data.inputs == "raw" or isinstance(sets.train.images, Rasters):
        return sets
    learnt = sets.train.images[: data.train_size].astype(np.float64)
    m, spread = learnt.mean(0), np.sqrt(learnt.var(0).mean())
    spread = spread or 1.0  # pictures that are all the same
    of = lambda x: Split(((x.images - m) / spread).astype(np.float32), x.labels)  # noqa: E731
    return sets._replace(train=of(sets.train), val=of(sets.val), test=of(sets.test))


def lesson(data: Data, split: Split, batch_size: int, seed: int) -> Split:
    """The training pictures of this run."""
    images, labels = split.images[: data.train_size], split.labels[: data.train_size]
    if len(labels) < batch_size:
        raise ValueError(f"--batch-size must be at most {len(labels)} pictures; got {batch_size}")
    if data.shuffle_labels:
        labels = np.random.default_rng(seed).permutation(labels)
    return Split(images, labels)


def encoded(data: Data, key: Key[Array, ""], images: Any) -> Any:
    """Pictures [B, H, W, ...] as the network sees them: [B, n_in] held, or [B, T, n_in].

    Events are what they are.
    """
    if isinstance(images, Rasters):
        return images
    flat = images.reshape(images.shape[0], -1)
    if data.presentation == "rows":
        return jax.vmap(encoding.rows)(images.reshape(*images.shape[:2], -1))
    if data.encoding == "direct":
        return flat
    if data.encoding == "latency":
        return jax.vmap(lambda x: encoding.latency(x, data.n_steps))(flat)
    draw = lambda k, x: encoding.poisson(k, x, data.n_steps, dt=1.0, max_rate=data.max_rate)  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, len(flat)), flat)


def perturbed(data: Data, key: Key[Array, ""], images: Any) -> Any:
    """Training pictures after augmentation and dropout of pixels."""
    if isinstance(images, Rasters):
        return images
    if data.augment == "mirror":
        images = jax.vmap(augment.mirrored)(jax.random.split(key, len(images)), images)
    elif data.augment != "none":
        part = {"affine": 1.0, "weak": 0.5}[data.augment]
        limits = dict(rotation=0.2 * part, scale=0.1 * part, shift=part, shear=0.15 * part)
        warp = lambda k, x: augment.affine(k, x, **limits)  # noqa: E731
        images = jax.vmap(warp)(jax.random.split(key, len(images)), images)
    if data.input_dropout:
        keep = jax.random.bernoulli(fold(key, "dropout"), 1 - data.input_dropout, images.shape)
        images = jnp.where(keep, images / (1 - data.input_dropout), 0.0)
    return images


class Task(NamedTuple):
    """What a network is shown, and how many classes it is to tell apart."""

    n_in: int
    n_classes: int
    n_steps: int
    start: int  # step from which error and scores count, from 0


def task(data: Data, shape: tuple[int, ...], n_classes: int) -> Task:
    """That of pictures of `shape` [N, H, W, ...], or of events [N, T, n]."""
    rows = data.presentation == "rows" or data.dataset in EVENTS
    n_in, n_steps = int(np.prod(shape[1 + rows :])), shape[1] if rows else data.n_steps
    if not -n_steps <= data.start < n_steps:
        raise ValueError(f"--start must be in [{-n_steps}, {n_steps}); got {data.start}")
    return Task(n_in, n_classes, n_steps, data.start % n_steps)


class _Redrawn(eqx.Module):
    """Control: the learner under new random feedback for every batch."""

    learner: WTABroadcast
    bandwidth: int | None = eqx.field(static=True)

    @property
    def system(self) -> wb.System:
        return self.learner.system

    def init(self, key, make_weights=ideal()):
        return self.learner.init(key, make_weights)

    def predict(self, state, x, *, key=None):
        return self.learner.predict(state, x, key=key)

    def step(self, state, x, y, *, key):
        sizes = {n: self.system.network.layers[n].n for n in self.system.hidden}
        drawn = feedback(self.bandwidth, sizes, self.system.n_classes, fold(key, "feedback"))
        taught = eqx.tree_at(lambda x: x.system.feedback, self.learner, drawn)
        return taught.step(state, x, y, key=key)


Learner = WTABroadcast | _Redrawn
Lost = Callable[[Any], list[str]]  # of a state: names of what is not finite
Make = Callable[..., WTABroadcast]  # (system, tx, average=, anneal=) -> learner


def learner(
    rule: Learning, system: wb.System, n_batches: int, make: Make = WTABroadcast
) -> Learner:
    """`system` with its optimiser; all that falls does so over `n_batches`."""
    anneal = optax.cosine_decay_schedule(1.0, n_batches, alpha=0.1)
    if rule.feedback == "symmetric":
        make = partial(make, changes=wb.symmetric)
    made = make(system, optimiser(rule, n_batches), average=rule.average, anneal=anneal)
    return _Redrawn(made, rule.bandwidth) if rule.redraw_feedback else made


class Trainer(NamedTuple):
    """The jitted steps of one run."""

    system: wb.System
    learn: Callable  # (state, x=, y=, order=, key=, ends=[first, last]) -> state, sums
    settle: Callable  # (state, images) -> state
    predict: Callable  # (system, weights, tone, images, key) -> Outcome


def trainer(data: Data, learner: Learner) -> Trainer:
    """Compile-once functions: learn from a stretch of batches, settle, predict."""
    system, encode = learner.system, partial(encoded, data)
    learn = partial(fitting.stretch, learner, augment=partial(perturbed, data), encode=encode)

    @released
    def settle(state, images):
        return wb.settle(system, state, encode(state.key, images))

    @released
    def predict(system, weights, tone, images, key):
        return wb.predict(system, weights, tone, encode(key, images), key=key)

    return Trainer(system, fitting.served(released(learn)), settle, predict)


def over(mesh: Mesh | None, split: Split) -> Split:
    """Pictures and labels whole on every device of the mesh; those on disk stay there."""
    if mesh is None or on_disk(split.images):
        return split
    return replicated(mesh, Split(arrays(split.images), split.labels))


def train(
    learn: Callable, state: Any, split: Split, key: Key[Array, ""], epochs: range, batch_size: int,
    progress: Progress, lost: Lost = fitting.lost,
) -> Iterator[tuple[int, Any]]:  # fmt: skip
    """Yield the state after each epoch; the order of samples follows from key and epoch.

    `learn` is a `fitting.stretch` of a learner, compiled. Raises `NotFinite` in place of an epoch
    after which something is NaN or infinite, which is what `lost` names.
    """
    _finite.refuse(lost(state), "before the first batch")
    images, labels = split.images, jnp.asarray(split.labels)
    images = images if on_disk(images) else arrays(images)
    for epoch in epochs:
        key_e = fitting.epoch_key(key, epoch)
        order = fitting.shuffled(key_e, len(labels), batch_size)
        now = partial(learn, x=images, y=labels, order=order, key=key_e)
        begun = state
        for first, last in progress.stretches():
            stretch = jnp.asarray([first, last])  # traced: one program for all stretches
            state, seen = now(state, ends=stretch)
            progress.show(last - first, seen)
        if lost(state):
            raise _finite.first_loss(now, begun, len(order), epoch + 1, lost)
        yield epoch + 1, state


def recorded(
    epochs: Iterator[tuple[int, Any]], state: Any, history: History, folder: Folder, bar: Progress,
    planned: int, n_seen: int, val: Callable[[Any], Any], train: Callable[[Any], Any],
) -> tuple[Any, History]:  # fmt: skip
    """Write down each of the `epochs` that `train` yields; the last state, and its history.

    `val` and `train` tell what part a state gets right of the pictures for validation and of the
    `n_seen` that it learnt from, which is asked where the bar doesn't know.
    """
    for epoch, learnt in epochs:
        right, seen = float(val(learnt)), bar.means.get("accuracy")
        seen = float(train(learnt)) if seen is None else seen
        seen = fitting.counted(seen, n_seen)
        history = history.grown(right, seen, bar.seconds(), planned)
        folder.save(epoch, learnt, history)
        bar.finish_epoch(right)
        state = learnt
    return state, history


def settled(steps: Trainer, state: wb.TrainState, split: Split, batch_size: int) -> wb.TrainState:
    """Thirty batches in which only the thresholds move."""
    for i in range(30):
        at = np.arange(i * batch_size, (i + 1) * batch_size) % len(split.labels)
        state = steps.settle(state, arrays(split.images[at]))
    return state


class Evaluation(NamedTuple):
    """What a split showed."""

    accuracy: float
    spikes: dict[str, np.ndarray]  # mean spikes per step of each neuron
    active: dict[str, float]  # part of the neurons that fire at least once


def evaluate(
    steps: Trainer, average, split: Split, key: Key[Array, ""], *,
    system: wb.System | None = None,
) -> Evaluation:  # fmt: skip
    """Accuracy and activity with the averaged weights, 500 pictures at a time.

    Raises `ValueError` for a split without pictures, which has no accuracy.
    """
    if not len(split.labels):
        raise ValueError("split must hold one picture at least; got none")
    system = steps.system if system is None else system
    weights, tone = average
    right, spikes = 0, {n: np.zeros(()) for n in system.hidden}
    for i in range(0, len(split.labels), 500):
        images = arrays(split.images[i : i + 500])
        outcome = steps.predict(system, weights, tone, images, jax.random.fold_in(key, i))
        decided = np.asarray(outcome.scores.argmax(1))
        right += int((decided == split.labels[i : i + 500]).sum())
        for n, r in outcome.rates.items():
            spikes[n] = spikes[n] + np.asarray(r, np.float64).sum(0)
    mean = {n: s / len(split.labels) for n, s in spikes.items()}
    active = {n: float((s > 0).mean()) for n, s in mean.items()}
    return Evaluation(right / len(split.labels), mean, active)


def layer_accuracy(steps: Trainer, average, split: Split, key: Key[Array, ""]) -> list[float]:
    """Accuracy with the readout of each hidden layer alone."""
    names = [f"{n}->readout" for n in steps.system.hidden]
    out = []
    for kept in names:
        net = steps.system.network.without(*(n for n in names if n != kept))
        alone = eqx.tree_at(lambda s: s.network, steps.system, net)
        weights = {n: average[0][n] for n in net.projections}
        found = evaluate(steps, (weights, average[1]), split, key, system=alone)
        out.append(found.accuracy)
    return out


def synaptic_events(system: wb.System, spikes: dict[str, np.ndarray]) -> float:
    """Synapses that a spike of a hidden layer reaches in one presentation, mean."""
    net, total = system.network, 0.0
    for p in net.projections.values():
        if p.pre in spikes:
            total += float(spikes[p.pre] @ np.asarray(p.connectivity.fan_out))
    return total * system.n_steps
