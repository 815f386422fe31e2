"""Train a structured recurrent spiking network without backpropagation.

    python -m experiments.wta_broadcast --dataset digits --out runs/digits

The equations stand in `neurojax.learning.wta_broadcast` and in the parts that it names.

A run may go on to more epochs: --resume and a larger --epochs. From there on learning rates and
homeostasis follow the schedules of the longer run, which start anew at a rate that the shorter
one had left behind: so the result is not that of one long run, and metrics.json says for how
many epochs each epoch was planned.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments import _devices, _finite, _folder, _on_chips, _programs, _run, _training
from experiments._config import Config, refuse_idle, resolved
from neurojax import data
from neurojax._compile import released
from neurojax.analysis import plotting
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import Layer, fold
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity.modulation import modulators
from neurojax.plasticity.teaching import HardWTA, SoftWTA
from neurojax.plasticity.three_factor import Homeostasis, ThreeFactor, boxcar, post_spike, triangle
from neurojax.structured import Recurrence, structured
from neurojax.weights import MakeWeights, ideal


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
        net, _training.feedback(c.bandwidth, names, n_classes, fold(key, "feedback")),
        SoftWTA(c.gain, c.margin) if c.teacher == "soft" else HardWTA(c.margin),
        Homeostasis(c.target_rate, c.homeostasis, penalty=c.rate_penalty),
        modulators(fold(key, "modulators"), c.modulators, names) if c.modulators else None,
        n_steps=n_steps, start=c.start % n_steps,
    )  # fmt: skip


def _neuron(c: Config, n: int, key: Key[Array, ""]) -> LIF | ALIF:
    tau = c.tau_mem
    if c.tau_spread:
        tau = tau * jnp.exp(c.tau_spread * jax.random.uniform(key, (n,), minval=-1.0))
    common: dict[str, Any] = dict(tau_mem=tau, r_mem=c.r_mem, t_ref=c.t_ref, reset=c.reset)
    if c.neuron == "lif":
        return LIF(**common)
    return ALIF(**common, tau_adapt=c.tau_adapt, beta_adapt=c.beta_adapt)


def run(config: Config, changes: wb.Changes = wb.deltas) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    sets = data.load(config.dataset, config.data_dir)
    c = resolved(config, _run.n_train(config, sets))
    refuse_idle(config, c)
    with _folder.held(c, sets, may_grow=("epochs",)) as folder:
        return _run_in(folder, c, sets, changes)


def _run_in(
    folder: _folder.Folder, c: Config, sets: data.Dataset, changes: wb.Changes
) -> dict[str, Any]:
    sets = _training.shown(c, sets)
    lesson = _lesson(c, sets.train)
    n_in, n_steps = _input_shape(c, sets.train.images.shape)
    _run.refuse_endless(c.epochs, len(lesson.labels) // c.batch_size)
    _refuse_large(c, n_in, sets.n_classes, n_steps)
    key, n_batches = jax.random.key(c.seed), c.epochs * (len(lesson.labels) // c.batch_size)
    tx = _training.optimiser(c, n_batches)
    synapses = _devices.make_weights(c.synapses, c.w_max)
    make = lambda key: fresh(c, n_in, sets.n_classes, n_steps, tx, key, synapses)  # noqa: E731
    made = _programs.Made(make, key)  # what cannot be built is refused here
    folder.begin()
    system, state = made()
    steps = _training.trainer(c, system, tx, n_batches, changes)
    written = {name: _devices.spent(w) for name, w in state.weights.items()}
    done, state, history = folder.last(state)
    if done == 0:
        state = _training.settled(c, steps, state, lesson)
    bar = Progress(c.epochs, n_batches // c.epochs, done)
    with bar, _finite.blamed(c):
        for epoch, learnt in _training.train(c, steps, state, lesson, key, done, bar):
            val = _training.evaluate(c, steps, learnt.average, sets.val).accuracy
            history = history.grown(val, bar.means["accuracy"], bar.seconds(), c.epochs)
            folder.save(epoch, learnt, history)
            bar.finish_epoch(val)
            state = learnt
    metrics, figures = measured(c, steps, state, sets, history)
    if c.synapse != "ideal":
        metrics["devices"] = {
            n: _devices.counted(state.weights[n], before) for n, before in written.items()
        }
    _report(metrics, bar.console)
    if c.report_hardware:
        metrics["hardware"] = _on_chips.report(c, steps, state.average, sets.test)
        _on_chips.show(metrics["hardware"], bar.console)
    return folder.finish(metrics, figures)


def _refuse_large(c: Config, n_in: int, n_classes: int, n_steps: int) -> None:
    """Refuse a training that would not fit, by the option that is furthest from what is usual."""
    n, readout = sum(c.hidden), n_classes * c.readout_population
    near = {"none": 0, "local": 2 * c.radius + 1, "dense": n}[c.recurrence]
    links = sum(a * b for a, b in zip((n_in, *c.hidden), c.hidden, strict=False)) + n * near
    links += n * n_classes + math.ceil(readout * n * c.readout_density)
    seen = max(c.batch_size, 500) * n_steps * (n + readout + n_in)
    n_bytes = 32 * links + 16 * seen + 8 * c.modulators * (n + 3)  # moments, average and changes
    _run.affordable(
        n_bytes, hidden=n / 1000, readout_population=c.readout_population / 10,
        modulators=c.modulators / 4, n_steps=n_steps / 20, batch_size=c.batch_size / 500,
    )  # fmt: skip


def fresh(
    c: Config, n_in: int, n_classes: int, n_steps: int, tx, key: Key[Array, ""],
    make_weights: MakeWeights = ideal(),
):  # fmt: skip
    """System and initial state, all that is random drawn from `key`; can be vmapped over it."""
    system = build(c, n_in, n_classes, n_steps, fold(key, "system"))
    return system, wb.init(system, tx, fold(key, "state"), make_weights)


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


def measured(c: Config, run: _training.Trainer, state: wb.TrainState, sets: data.Dataset, history):
    """What metrics.json holds beside its provenance, and the figures; reads the test set."""
    test = _training.evaluate(c, run, state.average, sets.test)
    hidden, wired = run.system.hidden, run.system.network.projections
    metrics = {
        "test_accuracy": test.accuracy,
        "val_accuracy": list(history.val_accuracy),
        "train_accuracy": list(history.train_accuracy),
        "spikes_per_neuron_step": [float(test.spikes[n].mean()) for n in hidden],
        "active_fraction": [test.active[n] for n in hidden],
        "synaptic_events_per_inference": _training.synaptic_events(run.system, test.spikes),
        "layer_readout_accuracy": _training.layer_accuracy(c, run, state.average, sets.test),
        "epochs_planned": list(history.planned),
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


def _raster(c: Config, run: _training.Trainer, average, split: data.Split):
    """What the network does with the first test picture."""
    weights, tone = average
    key = jax.random.key(c.seed)
    x = _training.encoded(c, key, jnp.asarray(split.images[:1]))[0]
    record = released(wb.present)(run.system, weights, tone, x, key=key)
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
