"""From pictures to a trained state: encoding, optimiser, compiled steps, evaluation."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from experiments import _finite
from experiments._config import Config
from neurojax import data
from neurojax._compile import released
from neurojax.data import augment, encoding
from neurojax.learning import WTABroadcast, fitting
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import fold
from neurojax.plasticity.feedback import broadcast


def feedback(bandwidth: int | None, sizes: dict[str, int], n_classes: int, key: Key[Array, ""]):
    """Fixed random weights that carry the error to each layer."""
    return {n: broadcast(fold(key, n), size, n_classes, bandwidth) for n, size in sizes.items()}


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


def shown(c: Config, sets: data.Dataset) -> data.Dataset:
    """The data as `c.inputs` has them: as they are, or each pixel centred and all scaled alike,

        x' = (x - m) / S

    m: its mean over the training pictures; S^2: the mean over all pixels of their variance there,
    so that one that hardly ever changes is not blown up.
    """
    if c.inputs == "raw":
        return sets
    learnt = sets.train.images[: c.train_size].astype(np.float64)
    m, spread = learnt.mean(0), np.sqrt(learnt.var(0).mean())
    spread = spread or 1.0  # pictures that are all the same
    of = lambda x: data.Split(((x.images - m) / spread).astype(np.float32), x.labels)  # noqa: E731
    return sets._replace(train=of(sets.train), val=of(sets.val), test=of(sets.test))


def encoded(c: Config, key: Key[Array, ""], images: Array) -> Array:
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


def perturbed(c: Config, key: Key[Array, ""], images: Array) -> Array:
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
    learn: Any  # (state, images, labels, order, key, [first, last]) -> state, sums
    settle: Any  # (state, images) -> state
    predict: Any  # (system, weights, tone, images, key) -> Outcome


class _Redrawn(eqx.Module):
    """Control: the learner under new random feedback for every batch."""

    learner: WTABroadcast
    bandwidth: int | None = eqx.field(static=True)

    def step(self, state, x, y, *, key):
        system = self.learner.system
        sizes = {n: system.network.layers[n].n for n in system.hidden}
        drawn = feedback(self.bandwidth, sizes, system.n_classes, fold(key, "feedback"))
        taught = eqx.tree_at(lambda x: x.system.feedback, self.learner, drawn)
        return taught.step(state, x, y, key=key)


def trainer(
    c: Config, system: wb.System, tx: optax.GradientTransformation, n_batches: int,
    changes: wb.Changes = wb.deltas,
) -> Trainer:  # fmt: skip
    """Compile-once functions: learn from a stretch of batches, settle, predict."""
    anneal = optax.cosine_decay_schedule(1.0, n_batches, alpha=0.1)
    learner: Any = WTABroadcast(system, tx, c.average, anneal, changes)
    if c.redraw_feedback:
        learner = _Redrawn(learner, c.bandwidth)
    learn = partial(
        fitting.stretch, learner, augment=partial(perturbed, c), encode=partial(encoded, c)
    )

    @released
    def settle(state, images):
        return wb.settle(system, state, encoded(c, state.key, images))

    @released
    def predict(system, weights, tone, images, key):
        return wb.predict(system, weights, tone, encoded(c, key, images), key=key)

    return Trainer(system, released(learn), settle, predict)


def train(
    c: Config, run: Trainer, state: wb.TrainState, split: data.Split, key: Key[Array, ""],
    first_epoch: int, progress: Progress,
) -> Iterator[tuple[int, wb.TrainState]]:  # fmt: skip
    """Yield the state after each epoch; the order of samples follows from key and epoch.

    Raises `NotFinite` in place of an epoch after which something is NaN or infinite.
    """
    _finite.refuse_lost(state, "before the first batch")
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    n_batches = len(labels) // c.batch_size
    for epoch in range(first_epoch, c.epochs):
        key_e = fitting.epoch_key(key, epoch)
        order = fitting.shuffled(key_e, len(labels), c.batch_size)
        learn = partial(run.learn, x=images, y=labels, order=order, key=key_e)
        begun = state
        for first, last in progress.stretches():
            stretch = jnp.asarray([first, last])  # traced: one program for all stretches
            state, sums = learn(state, ends=stretch)
            progress.show(last - first, sums)
        if _finite.lost(state):
            raise _finite.first_loss(learn, begun, n_batches, epoch + 1)
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
    """Accuracy and activity with the averaged weights, 500 pictures at a time.

    Raises `ValueError` for a split without pictures, which has no accuracy.
    """
    if not len(split.labels):
        raise ValueError("split must hold one picture at least; got none")
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
