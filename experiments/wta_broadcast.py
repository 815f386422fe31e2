"""Train a structured recurrent spiking network without backpropagation.

    python -m experiments.wta_broadcast --dataset digits --out runs/digits

The equations stand in `neurojax.learning.wta_broadcast` and in the parts that it names.

A run may go on to more epochs: --resume and a larger --epochs. From there on learning rates and
homeostasis follow the schedules of the longer run, which start anew at a rate that the shorter
one had left behind: so the result is not that of one long run, and metrics.json says for how
many epochs each epoch was planned.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from experiments import _devices, _finite, _folder, _on_chips, _programs, _run, _training
from experiments._config import Config, Data, Devices, Learning, Network, refuse_idle, resolved
from experiments._options import part
from experiments._training import Make, Task, Trainer
from neurojax._compile import released
from neurojax.analysis import plotting
from neurojax.data import Dataset, Split, load
from neurojax.data.ragged import arrays, lasting
from neurojax.learning import WTABroadcast
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import Layer, fold
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity.modulation import modulators
from neurojax.plasticity.teaching import HardWTA, SoftWTA
from neurojax.plasticity.three_factor import Homeostasis, ThreeFactor, boxcar, post_spike, triangle
from neurojax.structured import Recurrence, structured
from neurojax.weights import MakeWeights, ideal


def build(net: Network, rule: Learning, task: Task, key: Key[Array, ""]) -> wb.System:
    """The network and its teachers, all random parts drawn from `key`."""
    sizes = {f"h{i + 1}": n for i, n in enumerate(net.hidden or ())}
    return wb.System(
        _wired(net, rule, task, key),
        _training.feedback(rule.bandwidth, sizes, task.n_classes, fold(key, "feedback")),
        SoftWTA(rule.gain, rule.margin) if rule.teacher == "soft" else HardWTA(rule.margin),
        Homeostasis(rule.target_rate, rule.homeostasis, penalty=rule.rate_penalty),
        modulators(fold(key, "modulators"), rule.modulators, sizes) if rule.modulators else None,
        n_steps=task.n_steps, start=task.start,
    )  # fmt: skip


def _wired(net: Network, rule: Learning, task: Task, key: Key[Array, ""]):
    width = rule.window_width
    windows = {"triangle": triangle(width), "boxcar": boxcar(width), "spike": post_spike}
    local = ThreeFactor(
        rule.kappa_e, rule.trace_decay, windows[rule.window], bool(rule.reset_trace)
    )
    hidden = [
        Layer(n, _neuron(net, n, fold(key, f"neuron {i}")), rule=local, winners=net.winners)
        for i, n in enumerate(net.hidden or ())
    ]
    radius = net.radius if net.recurrence == "local" else None
    loop = Recurrence(
        net.recurrence, radius, net.p_rewire, net.gain_recurrent,
        net.learn_recurrence and not net.freeze_hidden,
    )  # fmt: skip
    return structured(
        fold(key, "wiring"), task.n_in, hidden, task.n_classes, density=net.readout_density,
        population=net.readout_population,
        readout=LeakyIntegrator(net.tau_out) if net.readout == "leaky" else LIF(net.tau_out),
        inhibition=net.inhibition, recurrence=loop, gain_in=net.gain_in,
        gain_forward=net.gain_forward, plastic_hidden=not net.freeze_hidden,
        plastic_readout=net.learn_readout,
    )  # fmt: skip


def _neuron(net: Network, n: int, key: Key[Array, ""]) -> LIF | ALIF:
    tau = net.tau_mem
    if net.tau_spread:
        tau = tau * jnp.exp(net.tau_spread * jax.random.uniform(key, (n,), minval=-1.0))
    common: dict[str, Any] = dict(tau_mem=tau, r_mem=net.r_mem, t_ref=net.t_ref, reset=net.reset)
    if net.neuron == "lif":
        return LIF(**common)
    return ALIF(**common, tau_adapt=net.tau_adapt, beta_adapt=net.beta_adapt)


def fresh(
    net: Network, rule: Learning, task: Task, n_batches: int, key: Key[Array, ""],
    make_weights: MakeWeights = ideal(), make: Make = WTABroadcast,
) -> tuple[_training.Learner, wb.TrainState]:  # fmt: skip
    """What learns for `n_batches`, all that is random drawn from `key`; can be vmapped over it."""
    system = build(net, rule, task, fold(key, "system"))
    learner = _training.learner(rule, system, n_batches, make)
    return learner, learner.init(fold(key, "state"), make_weights)


def run(config: Config, make: Make = WTABroadcast) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    sets = load(config.dataset, config.data_dir, bin_ms=config.bin_ms)
    c = resolved(config, _run.n_train(sets, config.train_size, config.batch_size))
    refuse_idle(config, c)
    with _folder.held(c, sets, may_grow=("epochs",)) as folder:
        return _run_in(folder, c, sets, make)


def _run_in(folder: _folder.Folder, c: Config, sets: Dataset, make: Make) -> dict[str, Any]:
    net, rule = part(c, Network), part(c, Learning)
    data, devices = part(c, Data), part(c, Devices)
    sets, key = _training.shown(data, sets), jax.random.key(c.seed)
    lesson = _training.lesson(data, sets.train, rule.batch_size, c.seed)
    task = _training.task(data, sets.train.images.shape, sets.n_classes)
    n_batches = len(lesson.labels) // rule.batch_size
    _run.refuse_endless(rule.epochs, n_batches)
    _refuse_large(net, rule, task)
    synapses = _devices.make_weights(devices.synapses, devices.w_max)
    total = rule.epochs * n_batches
    new = lambda key: fresh(net, rule, task, total, key, synapses, make)  # noqa: E731
    made = _programs.Made(new, key)  # what cannot be built is refused here
    folder.begin()
    learner, state = made()
    steps = _training.trainer(data, learner)
    written = {name: _devices.spent(w) for name, w in state.weights.items()}
    done, state, history = folder.last(state)
    if done == 0:
        state = _training.settled(steps, state, lesson, rule.batch_size)
    bar, epochs = Progress(rule.epochs, n_batches, done), range(done, rule.epochs)
    right = lambda s, split: _training.evaluate(steps, s.average, split, key).accuracy  # noqa: E731
    told = _training.train(
        steps.learn, state, lesson, key, epochs, rule.batch_size, bar, _finite.lost
    )
    with bar, _finite.blamed(c):
        state, history = _training.recorded(
            told, state, history, folder, bar, rule.epochs, n_batches * rule.batch_size,
            val=lambda learnt: right(learnt, sets.val), train=lambda learnt: right(learnt, lesson),
        )  # fmt: skip
    metrics, figures = measured(data, steps, state, sets, key, history)
    if devices.synapse != "ideal":
        metrics["devices"] = {
            n: _devices.counted(state.weights[n], before) for n, before in written.items()
        }
    _report(metrics, bar.console)
    if c.report_hardware:
        shown = _on_chips.report(data, rule.batch_size, steps, state.average, sets.test, key)
        metrics["hardware"] = shown
        _on_chips.show(shown, bar.console)
    return folder.finish(metrics, figures)


def _refuse_large(net: Network, rule: Learning, task: Task) -> None:
    """Refuse a training that would not fit, by the option that is furthest from what is usual."""
    n, readout = sum(net.hidden), task.n_classes * net.readout_population
    near = {"none": 0, "local": 2 * net.radius + 1, "dense": n}[net.recurrence]
    below = (task.n_in, *net.hidden)
    links = sum(a * b for a, b in zip(below, net.hidden, strict=False)) + n * near
    links += n * task.n_classes + math.ceil(readout * n * net.readout_density)
    seen = max(rule.batch_size, 500) * task.n_steps * (n + readout + task.n_in)
    n_bytes = 32 * links + 16 * seen + 8 * rule.modulators * (n + 3)  # moments, average, changes
    _run.affordable(
        n_bytes, hidden=n / 1000, readout_population=net.readout_population / 10,
        modulators=rule.modulators / 4, n_steps=task.n_steps / 20,
        batch_size=rule.batch_size / 500,
    )  # fmt: skip


def measured(
    data: Data, steps: Trainer, state: wb.TrainState, sets: Dataset, key: Key[Array, ""],
    history: _folder.History,
):  # fmt: skip
    """What metrics.json holds beside its provenance, and the figures; reads the test set."""
    average, system = state.average, steps.system
    test = _training.evaluate(steps, average, sets.test, key)
    hidden, wired = system.hidden, system.network.projections
    n_train, n_test = len(sets.train.labels[: data.train_size]), len(sets.test.labels)
    metrics = history.metrics(test.accuracy, n_train, n_test) | {
        "spikes_per_neuron_step": [float(test.spikes[n].mean()) for n in hidden],
        "active_fraction": [test.active[n] for n in hidden],
        "synaptic_events_per_inference": _training.synaptic_events(system, test.spikes),
        "layer_readout_accuracy": _training.layer_accuracy(steps, average, sets.test, key),
    }
    figures = {
        "learning_curve": history.curve(test.accuracy),
        "raster": _raster(data, system, average, sets.test, key),
        "weights": plotting.weights(
            {n: np.asarray(wired[n].connectivity.matrix(w.w)) for n, w in average[0].items()}
        ),
    }
    return metrics, figures


def _raster(data: Data, system: wb.System, average, split: Split, key: Key[Array, ""]):
    """What the network does with the first test picture."""
    weights, tone = average
    x = _training.encoded(data, key, arrays(split.images[:1]))[0]
    x = jnp.asarray(lasting(x)[0], float)
    record = released(wb.present)(system, weights, tone, x, key=key)
    told = wb.instruct(system, record[system.readout].z, jnp.asarray(split.labels[0]))
    spikes = {n: record[n].z for n in system.hidden}
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
