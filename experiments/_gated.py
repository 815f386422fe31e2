"""Trainings that differ in gate, learning rate, seed and data alone, side by side in one program.

All gates that are compared are one: four modulators, each a product of the gates of the library,
of which a setting switches off what it does not want. So hundreds of trainings are lanes of one
`vmap`, and only one program is compiled for them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Key

import hardware as hw
import neurojax as nj
from experiments import _devices
from neurojax.data import Dataset, streams
from neurojax.learning import WTABroadcast, fitting
from neurojax.network import fold
from neurojax.plasticity import Gate

M = 4  # modulators
GAIN, MARGIN = 6.0, 0.02  # of teacher and surprise
_AT_ONCE = 500  # pictures


class Setting(NamedTuple):
    """A gate, as numbers; each may be one a modulator. What it leaves as it is does nothing.

    Fields:
        low, ratio, high: of `SurpriseGate`
        gain: of the surprise, per unit of score
        budget, rate: of `BudgetGate`
        power, most: of `ChangeGate`
        shuffled: whether `ShuffledGate` deals it out
        evenly: part of all samples that teach, drawn whatever they are and whenever they come
        within: modulators within a presentation, 0, 1 or 4
    """

    low: Any = -1.0
    ratio: Any = 0.0
    high: Any = 1.0
    gain: Any = GAIN
    budget: Any = 1.0
    rate: Any = 0.0
    power: Any = 0.0
    most: Any = 4.0
    shuffled: Any = 0.0
    evenly: Any = 1.0
    within: Any = 0.0


class Lane(NamedTuple):
    """One training: its gate, learning rate and seed, and which data set it learns from."""

    setting: Setting
    lr: float | Array
    seed: int | Array
    of: int | Array = 0


class Plan(NamedTuple):
    """What all lanes share.

    Fields:
        change: what changes from period to period: nothing, labels, classes, inputs
        periods, every: of the stream; samples
        batch_size: pictures a weight change
        hidden: neurons of each hidden layer
        n_steps: of a presentation, ms
        wrong: part of the labels
        synapse: numbers, devices, or devices with an accumulator
        test: whether the test pictures are read, at the end
    """

    change: str
    periods: int
    every: int
    batch_size: int
    hidden: tuple[int, ...]
    n_steps: int
    wrong: float
    synapse: str
    test: bool


class _One(eqx.Module):
    """Product of a surprise, a budget and a change gate."""

    gates: tuple

    def init(self, dtype: DTypeLike = float):
        return tuple(gate.init(dtype) for gate in self.gates)

    def step(self, state, scores, target, *, key=None):
        found = [g.step(s, scores, target) for g, s in zip(self.gates, state, strict=True)]
        return tuple(s for s, _ in found), jnp.stack([m for _, m in found]).prod(0)


class _Dealt(eqx.Module):
    """`ShuffledGate` where `shuffled`, else the gate itself; of its samples the part `evenly`."""

    gate: nj.ShuffledGate
    shuffled: Array
    evenly: Array

    @property
    def a(self):
        return self.gate.a

    def init(self, dtype: DTypeLike = float):
        return self.gate.init(dtype)

    def step(self, state, scores, target, *, key: Any = None):
        new, own = self.gate.gate.step(state, scores, target)
        dealt = self.gate.step(state, scores, target, key=key)[1]
        kept = jax.random.bernoulli(fold(key, "evenly"), self.evenly, (len(target), 1))
        return new, jnp.where(kept, jnp.where(self.shuffled, dealt, own), 0)


def gate(s: Setting, key: Key[Array, ""], sizes: dict[str, int]) -> Gate:
    """That of a setting, which may be traced."""
    s = Setting(*(jnp.broadcast_to(jnp.asarray(x, float), (M,)) for x in s))
    each = tuple(
        _One((
            nj.SurpriseGate(s.ratio[k], s.low[k], s.high[k], gain=s.gain[k]),
            nj.BudgetGate(s.budget[k], s.rate[k], gain=s.gain[k]),
            nj.ChangeGate(s.power[k], 0.0, s.most[k], gain=s.gain[k]),
        ))
        for k in range(M)
    )  # fmt: skip
    all_m = nj.gate_population(key, each, sizes)
    return _Dealt(nj.ShuffledGate(all_m), s.shuffled[0] > 0, s.evenly[0])


def _within(n: Array, key: Key[Array, ""], sizes: dict[str, int]) -> nj.Modulators:
    """Modulators within a presentation: none (which is a gate of one), one, or four."""
    drawn = nj.modulators(key, M, sizes)
    k = jnp.where(n > 1, drawn.k, drawn.k[:1])
    return eqx.tree_at(lambda m: m.k, drawn, jnp.where(n > 0, k, 0.0))


def _system(plan: Plan, s: Setting, key: Key[Array, ""], n_in: int, n_classes: int):
    rule = nj.ThreeFactor(0.95, window=nj.triangle(0.5))
    layers = [nj.Layer(n, nj.LIF(9.5, 2.0), rule=rule) for n in plan.hidden]
    net = nj.structured(
        fold(key, "wiring"), n_in, layers, n_classes, population=1, density=1.0,
        recurrence=nj.Recurrence("none"), gain_in=2.0, readout=nj.LeakyIntegrator(9.5),
    )  # fmt: skip
    sizes = {f"h{i}": n for i, n in enumerate(plan.hidden, 1)}
    made = nj.wta_broadcast.system(
        fold(key, "system"), net, teacher=nj.SoftWTA(GAIN, MARGIN),
        homeostasis=nj.Homeostasis(0.05), n_steps=plan.n_steps, start=plan.n_steps // 4,
        gate=gate(s, fold(key, "gate"), sizes),
    )  # fmt: skip
    slow = _within(jnp.asarray(s.within, float), fold(key, "modulators"), sizes)
    return eqx.tree_at(lambda x: x.modulators, made, slow, is_leaf=lambda x: x is None)


def _stream(plan: Plan, key: Key[Array, ""], labels: Array, n_classes: int) -> streams.Stream:
    labels = streams.mislabelled(key, labels, plan.wrong, n_classes)
    if plan.change == "nothing":
        found = streams.epochs(key, labels, plan.periods, n_classes)
    else:
        make = {
            "labels": streams.rotating, "classes": streams.class_by_class,
            "inputs": streams.shifting,
        }[plan.change]  # fmt: skip
        found = make(key, labels, plan.periods, plan.every, n_classes)
    n = found.order.shape[1] // plan.batch_size * plan.batch_size
    cut = lambda x: x[:, :n].reshape(plan.periods, -1, plan.batch_size)  # noqa: E731
    return found._replace(order=cut(found.order), labels=cut(found.labels))


def weights(synapse: str) -> Any:
    """What holds them: numbers, devices pulsed one by one at random, or by an accumulator."""
    update = {"numbers": "", "devices": "bidirectional", "accumulator": "mixed-precision"}[synapse]
    kind = "linear" if update else "ideal"
    return _devices.make_weights(_devices.Synapses(kind, update), 0.6)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> Array:
    """Writes between two states of all arrays: pulses of devices, or numbers that changed."""

    def one(a: Any, b: Any) -> Array:
        return (b.n_pulses - a.n_pulses) if isinstance(a, hw.Crossbar) else (b.w != a.w).astype(int)

    return jnp.stack([one(before[n], now[n]).sum() for n in now]).sum()


def _joules(held: dict[str, Any]) -> Array:
    return jnp.stack([_devices.spent(w).energy * jnp.ones(()) for w in held.values()]).sum()


def _learner(plan: Plan, lane: Lane, key: Key[Array, ""], total: int, n_in: int, c: int):
    """What learns in a lane, in `total` batches; where the world changes its rate stays."""
    falls = optax.cosine_decay_schedule(1.0, total, alpha=0.0)
    rate = (lambda i: lane.lr * falls(i)) if plan.change == "nothing" else (lambda i: lane.lr)
    system = _system(plan, lane.setting, fold(key, "system"), n_in, c)
    calm = optax.cosine_decay_schedule(1.0, total, alpha=0.1)
    return WTABroadcast(system, optax.sgd(rate), anneal=calm)


def _shifted(plan: Plan, pictures: Array, shift: Array, side: int) -> Array:
    """Flat pictures [b, side side], as the world shows them."""
    images = pictures.reshape(-1, side, side)
    moved = streams.rolled(images, shift) if plan.change == "inputs" else images
    return moved.reshape(-1, side * side)


def _learnt(learner: WTABroadcast, state: Any, key: Key[Array, ""], seen: Any, batches: Any):
    """The state after `batches` of places, labels and shifts, and what each of them told."""

    def batch(state, now):
        at, labels, shift = now
        new, told = learner.step(state, seen(at, shift), labels, key=key)
        writes = _changed(state.weights, new.weights)
        finite = jnp.stack([jnp.isfinite(w.w).all() for w in new.weights.values()]).all()
        return new, (told["accuracy"], told["taught"], writes, finite)

    return jax.lax.scan(batch, state, batches)


def _accuracy(predict: Any, pictures: Array, labels: Array, now: Any, c: int) -> Array:
    """Part of the pictures that are right as the world is `now`, of the classes seen so far."""
    turn, shift, known = now
    step = min(_AT_ONCE, len(labels))

    def block(_, i):
        at = i * step + jnp.arange(step)
        told = predict(pictures[at], shift).argmax(1)
        counts = known[labels[at]]
        return None, (((told == (labels[at] + turn) % c) & counts).sum(), counts.sum())

    hits, n = jax.lax.scan(block, None, jnp.arange(len(labels) // step))[1]
    return hits.sum() / jnp.maximum(n.sum(), 1)


def _taught(plan: Plan, lane: Any, shown: dict[str, tuple[Array, Array]], side: int, c: int):
    """The whole of one training."""
    key, of = jax.random.key(lane.seed), lane.of
    x, y = shown["train"][0].reshape(-1, side * side), shown["train"][1][of]
    stream = _stream(plan, fold(key, "stream"), y, c)
    total = stream.order.shape[0] * stream.order.shape[1]
    learner = _learner(plan, lane, key, total, side * side, c)
    state = learner.init(fold(key, "state"), weights(plan.synapse))
    seen = lambda at, shift: _shifted(plan, x[of * len(y) + at], shift, side)  # noqa: E731
    at = stream.order[0].reshape(-1)[: fitting.SETTLING * plan.batch_size]
    first = seen(at, jnp.zeros((), int))
    state = fitting.settled(learner, state, first, key, plan.batch_size, None)
    begun = _joules(state.weights)

    def right(state, split: str, *now) -> Array:
        images, labels = (a[of] for a in shown[split])
        predict = lambda x, shift: learner.predict(state, _shifted(plan, x, shift, side))  # noqa: E731
        return _accuracy(predict, images, labels, now, c)

    def period(state, now):
        order, labels, *then = now
        moved = jnp.full(len(order), then[1])
        state, told = _learnt(learner, state, key, seen, (order, labels, moved))
        online, taught, writes, finite = told
        n = (taught * plan.batch_size).round().astype(int).sum()
        return state, dict(
            online=online, taught=n, writes=writes.sum(), val=right(state, "val", *then),
            finite=finite.all(), pulsed=_joules(state.weights) - begun,
        )  # fmt: skip

    state, found = jax.lax.scan(period, state, tuple(stream))
    if plan.test:
        found["test"] = right(state, "test", stream.turn[-1], stream.shift[-1], stream.seen[-1])
    return found


def trained(plan: Plan, sets: Sequence[Dataset], lanes: Sequence[Lane]) -> list[dict[str, Any]]:
    """What each lane came to, as numbers that JSON holds.

    `online` accuracy of each batch before it was learnt from, [P, batches]; by period: `taught`
    samples whose gate was open, `writes`, exact, `val` accuracy at its end under the labels and
    shift of then, over the classes seen so far; `joules` of all pulses.
    """
    side = sets[0].train.images.shape[1]
    names = ("train", "val", "test") if plan.test else ("train", "val")
    shown = {
        name: (
            jnp.stack([getattr(s, name).images.reshape(-1, side * side) for s in sets]),
            jnp.stack([jnp.asarray(getattr(s, name).labels) for s in sets]),
        )
        for name in names
    }
    asked = Lane(
        Setting(*(jnp.stack([jnp.broadcast_to(jnp.asarray(x, float), (M,)) for x in each])
                  for each in zip(*(lane.setting for lane in lanes), strict=True))),
        jnp.asarray([lane.lr for lane in lanes], float),
        *(jnp.asarray([getattr(lane, n) for lane in lanes], int) for n in ("seed", "of")),
    )  # fmt: skip
    asked = asked._replace(setting=asked.setting._replace(within=asked.setting.within[:, 0]))
    c = sets[0].n_classes
    program = jax.jit(jax.vmap(lambda lane, x: _taught(plan, lane, x, side, c), in_axes=(0, None)))
    found = jax.tree.map(np.asarray, program(asked, shown))
    return [_told({k: v[i] for k, v in found.items()}) for i in range(len(lanes))]


def _told(found: dict[str, np.ndarray]) -> dict[str, Any]:
    if not found["finite"].all():
        return {"lost": "weights must stay finite; got NaN or infinity"}
    test = {"test": float(found["test"])} if "test" in found else {}
    return test | {
        "online": found["online"].round(4).tolist(),
        "val": found["val"].tolist(),
        "taught": found["taught"].tolist(),
        "writes": [int(n) for n in found["writes"]],
        "joules": float(found["pulsed"][-1]),
    }
