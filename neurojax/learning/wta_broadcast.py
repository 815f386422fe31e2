"""Learning without backpropagation: population winner-take-all, broadcast, three factors.

A structured recurrent network spikes; the readout populations compete; their error is
broadcast through fixed random weights to all hidden neurons, gated by neuromodulators, and
meets each synapse's own eligibility. Every update uses its presynaptic trace, its
postsynaptic window, its neuron's learning signal and its gate, and nothing else.
Source: Tang and Xie (2026), arXiv 2605.00402 (the system); each part cites its own.
"""

import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Integer, Key

from neurojax._check import (
    between,
    brief,
    cast,
    classes,
    instance,
    kind,
    nonnegative,
    prng_key,
    real,
    working,
)
from neurojax._compile import compiled
from neurojax._drive import currents, held, read
from neurojax._transmission import due
from neurojax.data.ragged import Rasters, lasting
from neurojax.layers import Record
from neurojax.learning._spiking import decided
from neurojax.learning._system import (
    INPUT,
    AllWeights,
    System,
    Tone,
    check_excitability,
    check_given,
    check_state,
    check_tone,
    labels,
    rule,
    sample,
    samples,
    system,
)
from neurojax.network import fold
from neurojax.neurons.leaky import LeakyIntegrator
from neurojax.plasticity.feedback import Broadcast
from neurojax.plasticity.gating import Gate, opened
from neurojax.plasticity.teaching import class_scores
from neurojax.plasticity.three_factor import HomeostasisState, Post, ThreeFactor
from neurojax.simulation import simulate
from neurojax.weights import MakeWeights, added, by_events, ideal

if typing.TYPE_CHECKING:
    from optax import GradientTransformation
else:  # slow to import, and whoever hands one over has done so
    GradientTransformation = Any

__all__ = [
    "Gated", "Instruction", "Outcome", "System", "TrainState", "deltas", "excited", "factors",
    "init", "instruct", "online_deltas", "predict", "present", "probe", "rule", "settle",
    "signal", "symmetric", "system", "train_step", "update",
]  # fmt: skip

_CACHE = 1 << 22  # bytes; there are several records, and most of a step reads one or two

Changes = Callable[..., tuple[dict[str, Array], "Outcome"]]  # called as `deltas` is


class TrainState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; of each projection, in weight units (nA a spike)
        opt_state: any; that of the optax transformation
        homeostasis: dict[str, HomeostasisState]; thresholds (mV) and rates [n] of hidden layers
        average: running averages of these weights and thresholds, as a pair
        step: int []; batches learned so far
        key: key []; step k draws from fold_in(key, k)
        gate: any; what the gate between samples remembers, None where there is none
    """

    weights: AllWeights
    opt_state: Any
    homeostasis: Tone
    average: tuple[AllWeights, Tone]
    step: Int[Array, ""]
    key: Key[Array, ""]
    gate: Any = None


class Instruction(NamedTuple):
    """What the readout tells in one step, or in all, with time first.

    Fields:
        scores: float [n_classes]; in units of the readout's output; [T, n_classes] of all steps
        error: float [n_classes]; what the teacher makes of them; likewise
        m: float [M] or None; modulator activity in [0, 1]; likewise
    """

    scores: Float[Array, "*t c"]
    error: Float[Array, "*t c"]
    m: Float[Array, "*t m"] | None


class Outcome(NamedTuple):
    """What a batch did.

    Fields:
        scores: float [batch, n_classes]; mean over the deciding steps, in units of the readout
        rates: dict[str, float [batch, n]]; spikes a step of each neuron, by hidden layer
        gate: float [batch] or None; how much each sample taught, mean over the modulators
    """

    scores: Float[Array, "b c"]
    rates: dict[str, Float[Array, "b n"]]
    gate: Float[Array, " b"] | None = None


class Gated(eqx.Module):
    """The gate of a batch, with what it remembers and draws from: scores and labels to activity.

    >>> gate = nj.SurpriseGate(low=0.5)
    >>> gated = nj.wta_broadcast.Gated(gate, gate.init())
    >>> gated(jnp.array([[0.0, 1.0]]), jnp.array([0])).tolist()
    [[1.0]]

    Raises `TypeError` for what is no gate or key, `ValueError` for the state of another gate.
    """

    gate: Gate = eqx.field(converter=lambda x: instance("gate", x, "init", "step"))
    state: Any
    key: Key[Array, ""] | None = eqx.field(default=None, converter=lambda x: _key(x))

    def __check_init__(self):
        needed, tree = jax.tree.flatten(jax.eval_shape(self.gate.init))
        got, own = jax.tree.flatten(self.state)
        if own != tree or any(np.shape(a) != b.shape for a, b in zip(got, needed, strict=True)):
            raise ValueError(f"state must be that of gate.init(); got {brief(self.state)}")

    def __call__(self, scores: Float[Array, "b c"], target: Int[Array, " b"]) -> Array:
        """Activity [b, M] of the gate's modulators."""
        return self.gate.step(self.state, scores, target, key=self.key)[1]

    def after(self, scores: Float[Array, "b c"], target: Int[Array, " b"]) -> Any:
        """What the gate remembers after the batch."""
        return self.gate.step(self.state, scores, target, key=self.key)[0]


def probe(system: System, records: dict[str, Record]) -> dict[str, Any]:
    """What learning needs to know of a step: windows and outputs, each [n], of what learns.

    Those of hidden layers are spikes, that of a leaky readout is its potential, mV.
    """
    kept: dict[str, Any] = {}
    for name in system.taught:
        neuron, z, state = system.network.layers[name].neuron, records[name].z, records[name].neuron
        v_th = neuron.threshold(state) if hasattr(neuron, "threshold") else z
        kept[name] = Post(rule(system, name).window(state.v, v_th, z), z)
    return kept


def _by_step(system: System, layer: str) -> ThreeFactor:
    """The rule of `layer`, refused without a step-by-step form."""
    found = rule(system, layer)
    if not isinstance(found, ThreeFactor):
        raise ValueError(f"rule of layer {layer!r} must be a ThreeFactor to go step by step")
    return found


def present(
    system: System, weights: AllWeights, tone: Tone, x: ArrayLike, *, key: Array | None = None
) -> dict[str, Post]:
    """Show one sample, [n_in] held or [n_steps, n_in]: what each layer did, [n_steps, n].

    Windows and outputs are those of `probe`; a presentation has n_steps steps of dt ms.
    """
    x = sample(system, x)
    check_state(system, weights, tone)
    net = system.tuned(tone)
    watched = eqx.tree_at(lambda s: s.network, system, net)  # windows lie about these thresholds
    return simulate(
        net, weights, net.init(x.dtype), {INPUT: x},
        n_steps=system.n_steps, dt=system.dt, probe=partial(probe, watched), key=key, learn=False,
    )[1]  # fmt: skip


def instruct(
    system: System, y: Float[Array, "t cp"], target: Integer[ArrayLike, ""]
) -> Instruction:
    """Scores, error and modulators, step by step in causal order, from the readout `y`.

    `y` [n_steps, readout neurons] is in mV of leaky integrators, else spikes; `target` is one
    label. The scores have its units, the error is what the teacher makes of them.
    """

    target, y = classes("target", target, kind("system", system, System).n_classes), real(y, "y")
    if y.ndim != 2 or target.ndim:
        raise ValueError(
            f"y must be [n_steps, readout neurons] and target one label; got {y.shape} and"
            f" {target.shape}: jax.vmap over a batch"
        )

    def step(carry, now):
        t, y_t = now
        return _told(system, carry, t, y_t, target)

    return jax.lax.scan(step, _untold(system, y.dtype), (jnp.arange(system.n_steps), y))[1]


def _untold(system: System, dtype: DTypeLike):
    """Scores and modulators before the first step."""
    calm = system.modulators and system.modulators.init(system.n_classes, dtype)
    return jnp.zeros(system.n_classes, dtype), calm


def _told(system: System, carry, t: Array, y: Array, target: Any):
    """Scores and modulators after step `t`, and what it tells."""
    scores, calm = carry
    scores = _scores(system, scores, y)
    error = jnp.where(t >= system.start, system.teacher(scores, target), 0)
    if system.modulators is None:
        return (scores, calm), Instruction(scores, error, None)
    calm, m = system.modulators.step(calm, scores, target)
    return (scores, calm), Instruction(scores, error, m)


def _scores(system: System, scores: Array, y: Array) -> Array:
    """Leaky integrators have filtered already; spikes are low-passed with the same decay."""
    neuron = system.network.layers[system.readout].neuron
    now = class_scores(y, system.n_classes)
    if isinstance(neuron, LeakyIntegrator):
        return now
    scores, now, kappa = cast((scores, now, neuron.decay(system.dt)), working(y.dtype))
    return (kappa * scores + (1 - kappa) * now).astype(y.dtype)


def signal(
    system: System, layer: str, instruction: Instruction, state: HomeostasisState
) -> Float[Array, " n"]:
    """gate x learning signal of each neuron of hidden `layer` in one step, [n].

    It has the unit of the error, as feedback and gate are without unit. Raises `ValueError` for
    a layer without feedback, and a `state` of another size.
    """
    check_excitability(system, layer, state)
    heard = system.feedback[layer](instruction.error)
    heard = heard + system.homeostasis.term(state).astype(heard.dtype)
    if system.modulators is None or instruction.m is None:
        return heard
    return system.modulators.gate(layer, instruction.m) * heard


def _third_factor(
    system: System, tone: Tone, layer: str, instruction: Instruction
) -> Float[Array, " n"]:
    """`signal` in a hidden layer, in the readout the error of each neuron's own class."""
    if layer == system.readout:
        copies = system.network.layers[layer].n // system.n_classes
        return jnp.repeat(instruction.error, copies)
    return signal(system, layer, instruction, tone[layer])


def factors(
    system: System, tone: Tone, record: dict[str, Post], instruction: Instruction,
    end: Int[Array, ""] | None = None,
) -> dict[str, Float[Array, "t n"]]:  # fmt: skip
    """D [T, n] of each layer, the postsynaptic side of all its weight changes.

    dw = sum_t D_t pre_t^T, in weight units; windows, spikes and instruction are [T, ...], of
    which steps from `end` on teach nothing.
    """
    check_tone(system, tone)
    out = {}
    for name in system.taught:
        q = jax.vmap(partial(_third_factor, system, tone, name))(instruction)
        q = q if end is None else jnp.where((jnp.arange(len(q)) < end)[:, None], q, 0)
        neuron = system.network.layers[name].neuron
        out[name] = rule(system, name).factor(neuron, record[name], q, dt=system.dt)
    return out


def deltas(
    system: System, weights: AllWeights, tone: Tone, x: ArrayLike | Rasters, target: ArrayLike, *,
    key: Array | None = None, gate: Gated | None = None,
) -> tuple[dict[str, Array], Outcome]:  # fmt: skip
    """Ascending change of each plastic weight, mean over a batch; factorised form.

    Changes have the shapes of the weights and are in weight units. `x` [batch, n_in] is held,
    [batch, n_steps, n_in] changes with time, `data.Rasters` for as long as each sample lasts;
    `target` [batch] are labels. A sample counts as much as `gate` lets it, in a mean over all.
    On a CPU event lists learn from samples in turn where their records outgrow a cache and there
    is no `gate`: the same sum, in another order. Compiled once for one structure. Raises as
    `train_step` does, inside jit for shapes and dtypes alone.
    """
    batch = samples(system, x)
    target = labels(system, target, len(batch))
    check_given(system, weights, tone)
    gate = None if gate is None else kind("gate", gate, Gated)
    return _deltas(system, weights, tone, batch, target, _key(key), gate)


def symmetric(
    system: System, weights: AllWeights, tone: Tone, x: ArrayLike | Rasters, target: ArrayLike, *,
    key: Array | None = None,
) -> tuple[dict[str, Array], Outcome]:  # fmt: skip
    """`deltas` of errors that go back along the readout's own synapses, not broadcast at random.

        learning signal of hidden layer l = W_l^T e,    W_l: weights from l onto the readout

    W_l is the array as it is when the batch begins, read the other way (`apply_t`): a neuron hears
    of those classes alone whose populations hear it, through no wire but those that are there. A
    layer that the readout does not hear keeps its `feedback`.
    Changes are in weight units and, as W_l starts at 0, small at first: an optimiser that rescales
    (Adam) does not mind. Pass it as `changes` of `train_step` or `learning.WTABroadcast`; arguments
    and errors are those of `deltas`.

    >>> import optax
    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> system = nj.wta_broadcast.system(jax.random.key(1), net)
    >>> changes = nj.wta_broadcast.symmetric
    >>> learner = nj.learning.WTABroadcast(system, optax.adam(4e-3), changes=changes)

    Source: Bellec et al. (2020), A solution to the learning dilemma, Results, "symmetric e-prop".
    """
    check_given(system, weights, tone)
    heard = {n: f"{n}->{system.readout}" for n in system.hidden}
    back = {n: _back(system, weights[p], key) for n, p in heard.items() if p in weights}
    taught = eqx.tree_at(lambda s: s.feedback, system, system.feedback | back)
    return deltas(taught, weights, tone, x, target, key=key)


def _back(system: System, weights: Any, key: Array | None) -> Broadcast:
    """What an error of each class is to each neuron that the readout hears through `weights`."""
    n_classes = system.n_classes
    copies = system.network.layers[system.readout].n // n_classes
    of_class = jnp.repeat(jnp.eye(n_classes, dtype=weights.w.dtype), copies, axis=1)
    key = None if key is None else fold(key, "back")
    told = jax.vmap(lambda e: weights.apply_t(e, key=key))(of_class)
    return Broadcast(told.T, jnp.eye(n_classes, dtype=told.dtype))


@compiled
def _deltas(system, weights, tone, x, target, key, gate=None):
    x, ends = lasting(x)
    batch = x, ends, target, None if key is None else jax.random.split(key, len(x))
    whole, size = partial(_asked, system, weights, tone, gate), _at_once(system, weights, len(x))
    if size == len(x) or gate is not None:
        dw, outcome = whole(batch)
    else:
        in_turn = partial(_in_turn, system, weights, tone, size)
        dw, outcome = jax.lax.platform_dependent(batch, cpu=in_turn, default=whole)
    return {n: d / len(x) for n, d in dw.items()}, outcome


def _shown(system, weights, tone, batch, gate=None):
    """Both sides of each projection's outer product, and what the batch did."""
    x, ends, target, keys = batch

    def one(x, end, target, key):
        record = present(system, weights, tone, x, key=key)
        told = instruct(system, record[system.readout].z, target)
        spikes = {n: record[n].z for n in system.taught}
        return factors(system, tone, record, told, end), spikes, told.scores

    post, spikes, scores = jax.vmap(one, out_axes=1)(x, ends, target, keys)
    scores, taught = decided(scores, system.start, ends), None
    if gate is not None:
        m = gate(scores, target)
        post, taught = {n: d * opened(gate.gate, n, m)[None] for n, d in post.items()}, m.mean(1)
    sides = {n: _paired(system, n, post, spikes, x) for n in system.network.plastic()}
    rates = {n: _rate(spikes[n], ends) for n in system.hidden}
    return sides, Outcome(scores, rates, taught)


def _asked(system, weights, tone, gate, batch):
    """Time leads in what is recorded, so one product a projection sums time and batch."""
    sides, outcome = _shown(system, weights, tone, batch, gate)
    return {n: weights[n].outer(*sides[n]) for n in sides}, outcome


def _at_once(system: System, weights: AllWeights, batch: int) -> int:
    """How many samples are learnt from at once, a divisor of `batch`.

    On event lists those whose records stay in a core's cache; elsewhere all, as one product of
    many samples costs less than as many products.
    """
    if not any(by_events(weights[name]) for name in system.network.plastic()):
        return batch
    n = sum(system.network.layers[name].n for name in system.taught)
    most = max(_CACHE // (4 * system.n_steps * n), 1)
    return max(size for size in range(1, batch + 1) if size <= most and batch % size == 0)


def _in_turn(system, weights, tone, size: int, batch):
    """`_asked`, `size` samples after the other: what is recorded does not grow with the batch."""

    def part(total, batch):
        sides, outcome = _shown(system, weights, tone, batch)
        return {n: added(weights[n], total[n], *sides[n]) for n in sides}, outcome

    # Those that go at once are taken from all over the batch, which may be divided over devices.
    split = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]).swapaxes(0, 1), batch)
    first = jax.tree.map(lambda a: a[0], split)
    asked = jax.eval_shape(partial(_asked, system, weights, tone, None), first)[0]
    none = {n: jnp.zeros(d.shape, working(d.dtype)) for n, d in asked.items()}
    total, outcome = jax.lax.scan(part, none, split)
    joined = jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1, *a.shape[2:]), outcome)
    return {n: d.astype(asked[n].dtype) for n, d in total.items()}, joined


def _paired(system: System, name: str, post, spikes, x: Array) -> tuple[Array, Array]:
    """The two sides of a projection's outer product, aligned in time by its delay."""
    p = system.network.projections[name]
    d = post[p.post]
    if p.pre in spikes:
        n_steps = d.shape[0] - p.delay
        return d[p.delay :], spikes[p.pre][:n_steps]
    # The product turns D in any case; so x, which comes batch first, stays as it is.
    return (_total(d).astype(d.dtype), x) if x.ndim == 2 else (d.swapaxes(0, 1), x)


def _rate(z: Float[Array, "t *n"], ends: Int[Array, " b"] | None = None) -> Float[Array, "*n"]:
    """Spikes a step, of those that a sample has."""
    if ends is None:
        return (_total(z) / len(z)).astype(z.dtype)
    own = jnp.arange(len(z))[:, None] < ends[None]
    total = _total(jnp.where(own[..., None], z, 0))
    return (total / ends[:, None].astype(total.dtype)).astype(z.dtype)


def _total(x: Float[Array, "t *n"]) -> Float[Array, "*n"]:
    """Sum over time, in float32 at the least.

    It is a product because on CPUs XLA's own sum of floats takes ten times as long.
    """
    return jnp.tensordot(
        jnp.ones(len(x), x.dtype), x, 1, precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=working(x.dtype),
    )  # fmt: skip


def online_deltas(
    system: System, weights: AllWeights, tone: Tone, x: ArrayLike, target: ArrayLike, *,
    key: Array | None = None,
) -> dict[str, Array]:  # fmt: skip
    """What `deltas` gives for one sample, step by step: causal, as on a chip.

    Each synapse holds its eligibility, which meets error and gate in the step in which they
    arise; nothing is recorded. Changes are in weight units, equal to `deltas` up to rounding,
    at N^2 numbers a step. `x` is [n_in] or [n_steps, n_in], `target` one label; raises as
    `deltas` does, and for a rule that is no `ThreeFactor`.
    """
    x, target = sample(system, x), classes("target", target, system.n_classes)
    if target.ndim:
        raise ValueError(f"target must be one label; got {list(target.shape)}: jax.vmap over both")
    check_given(system, weights, tone)
    return _online_deltas(system, weights, tone, x, target, _key(key))


@compiled
def _online_deltas(system, weights, tone, x, target, key):
    check_state(system, weights, tone)
    net = system.tuned(tone)
    watched = eqx.tree_at(lambda s: s.network, system, net)
    inputs = {INPUT: x}
    noisy = held(net, weights, inputs, key)
    drive = currents(net, weights, inputs, key, besides=noisy)
    late = [n for n in net.plastic() if net.projections[n].late]
    at = lambda x, t: x if x.ndim == 1 else x[t]  # noqa: E731

    def step(carry, t):
        state, told, synapses, dw = carry
        delayed = {n: due(net.projections[n], n, state) for n in late}
        key_t = None if key is None else jax.random.fold_in(key, t)
        now = read(net, {n: at(d, t) for n, d in drive.items()}, noisy, key_t)
        state, records = net.step(weights, state, now, dt=system.dt, key=key_t)
        post = probe(watched, records)
        told, instruction = _told(system, told, t, post[system.readout].z, target)
        sent = {INPUT: at(x, t)} | {n: r.z for n, r in records.items()}
        pre = {n: delayed.get(n, sent[net.projections[n].pre]) for n in net.plastic()}
        synapses, asked = _learned(system, tone, synapses, pre, post, instruction)
        return (state, told, synapses, jax.tree.map(jnp.add, dw, asked)), None

    synapses, dw = _unlearned(system, x.dtype)
    start = (net.init(x.dtype), _untold(system, x.dtype), synapses, dw)
    return jax.lax.scan(step, start, jnp.arange(system.n_steps))[0][-1]


def _unlearned(system: System, dtype: DTypeLike):
    """Eligibility of each plastic projection before the first step, and no change yet."""
    net = system.network
    synapses = {
        n: _by_step(system, net.projections[n].post).init(net.projections[n].connectivity, dtype)
        for n in net.plastic()
    }
    return synapses, {n: jnp.zeros_like(s.e) for n, s in synapses.items()}


def _learned(system: System, tone: Tone, synapses, pre, post, instruction: Instruction):
    """Eligibilities after one step, and the changes that it asks for."""
    new, asked = {}, {}
    for name, synapse in synapses.items():
        p = system.network.projections[name]
        q = _third_factor(system, tone, p.post, instruction)
        new[name], asked[name] = _by_step(system, p.post).step(
            synapse, p.connectivity, system.network.layers[p.post].neuron,
            pre[name], post[p.post], q, dt=system.dt,
        )  # fmt: skip
    return new, asked


def init(
    system: System, tx: GradientTransformation, key: Key[Array, ""],
    make_weights: MakeWeights = ideal(), dtype: DTypeLike = float,
) -> TrainState:  # fmt: skip
    """Fresh weights and everything that goes with them.

    `make_weights` says what holds them: `ideal` numbers, or devices; they have the shapes of
    their layouts and are in weight units, of float `dtype`. Raises `TypeError` for a `tx` that
    is no optax transformation, or a `key` that is none.

    >>> import optax
    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> system, tx = nj.wta_broadcast.system(jax.random.key(1), net), optax.sgd(0.1)
    >>> state = nj.wta_broadcast.init(system, tx, jax.random.key(2))
    >>> state.weights["input->h1"].w.shape, int(state.step)
    ((64, 64), 0)
    """
    kind("system", system, System)
    tx, key = instance("tx", tx, "init", "update"), prng_key(key)
    weights = system.network.init_weights(fold(key, "weights"), make_weights, dtype)
    tone, step = system.rest(dtype), jnp.zeros((), jnp.int32)
    opt_state = tx.init({n: weights[n].w for n in system.network.plastic()})
    gate = None if system.gate is None else system.gate.init(dtype)
    return TrainState(weights, opt_state, tone, (weights, tone), step, fold(key, "train"), gate)


def train_step(
    system: System, tx: GradientTransformation, state: TrainState, x: ArrayLike | Rasters,
    target: ArrayLike, *, anneal: float | Array = 1.0, average_decay: float | Array = 0.0,
    changes: Changes = deltas,
) -> tuple[TrainState, Outcome]:  # fmt: skip
    """Learn from one batch what `changes` asks for: by default the local rule's `deltas`.

    `x` [batch, n_in] is held for the presentation, [batch, n_steps, n_in] changes with time, and
    `data.Rasters` of n_steps steps for as long as each sample lasts: pictures flat, of the order
    of 1, or spikes. `target` [batch] are labels in [0, n_classes).
    `tx` takes the changes (weight units), ascending, so they go in negated. `anneal` scales the
    move of the thresholds. `average_decay` in [0, 1] keeps a running average of weights and
    thresholds: step k, from 0, leaves min(average_decay, (1 + k) / (10 + k)) of the old one.
    Compiled once for one structure. Raises `ValueError` or `TypeError` for shapes, dtypes,
    labels and numbers that do not fit, and a state of another system or `tx`. Inside a jit
    labels are still looked at (under `eqx.filter_jit` with this message), and `x` is not.

    >>> import optax
    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> system, tx = nj.wta_broadcast.system(jax.random.key(1), net), optax.sgd(0.1)
    >>> state = nj.wta_broadcast.init(system, tx, jax.random.key(2))
    >>> x, target = jnp.ones((2, 64)), jnp.array([0, 2])  # two pictures and their labels
    >>> state, outcome = nj.wta_broadcast.train_step(system, tx, state, x, target)
    >>> int(state.step), outcome.scores.shape
    (1, (2, 10))
    """
    kind("state", state, TrainState)
    tx = instance("tx", tx, "init", "update")
    batch = samples(system, x)
    check_given(system, state.weights, state.homeostasis)
    target = labels(system, target, len(batch))
    if isinstance(target, Tracer):
        wrong = (target < 0) | (target >= system.n_classes)
        target = eqx.error_if(target, wrong, f"target must be in [0, {system.n_classes})")
    return _update(
        system, tx, state, batch, target,
        anneal=_number(anneal, nonnegative("anneal", "")),
        average_decay=_number(average_decay, between("average_decay", 0.0, 1.0)), changes=changes,
    )  # fmt: skip


def update(
    system: System, tx: GradientTransformation, state: TrainState, x: ArrayLike | Rasters,
    target: ArrayLike, *, anneal: float | Array = 1.0, average_decay: float | Array = 0.0,
    changes: Changes = deltas,
) -> tuple[TrainState, Outcome]:  # fmt: skip
    """`train_step` inside a jitted loop of one's own, where labels are taken on trust.

    `x` is [batch, n_in] or [batch, n_steps, n_in], `target` [batch]; all else is as there.
    """
    kind("state", state, TrainState)
    tx = instance("tx", tx, "init", "update")
    check_state(system, state.weights, state.homeostasis)
    plain = {n: state.weights[n].w for n in system.network.plastic()}
    _check_optimiser(tx, state.opt_state, plain)
    key = jax.random.fold_in(state.key, state.step)
    remembers = state.gate, fold(key, "gate")
    gate = None if system.gate is None else Gated(system.gate, *remembers)
    asked = {} if gate is None else {"gate": gate}
    dw, outcome = changes(system, state.weights, state.homeostasis, x, target, key=key, **asked)
    descent = jax.tree.map(jnp.negative, dw)
    with jax.numpy_dtype_promotion("standard"):  # optax promotes, whatever the user has set
        updates, opt_state = tx.update(descent, state.opt_state, plain)
    weights = state.weights | {
        n: state.weights[n].program(u, key=fold(key, n))
        for n, u in typing.cast(dict[str, Array], updates).items()
    }
    tone = excited(system, state.homeostasis, outcome.rates, anneal)
    average = _averaged(state.average, (weights, tone), average_decay, state.step)
    learnt = None if gate is None else gate.after(outcome.scores, jnp.asarray(target))
    return state._replace(
        weights=weights, opt_state=opt_state, homeostasis=tone, average=average,
        step=state.step + 1, gate=learnt,
    ), outcome  # fmt: skip


_update = compiled(update)


def _key(key: Any) -> Any:
    return None if key is None else prng_key(key)


def _number(x: float | Array, checked: Callable) -> Array:
    """A number as an array, so that another value compiles nothing again; traced ones on trust."""
    return x if isinstance(x, Tracer) else checked(x)


def _check_optimiser(tx: GradientTransformation, opt_state: Any, plain: Any) -> None:
    shape = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    if shape(jax.eval_shape(tx.init, plain)) != shape(opt_state):
        raise ValueError("state must come from init(system, tx, key) with this tx and system")


def excited(
    system: System, tone: Tone, rates: dict[str, Array], anneal: float | Array = 1.0
) -> Tone:
    """Thresholds [n], mV, after a batch with `rates` [b, n], spikes a step.

    Raises `ValueError` for a batch of none, whose mean is not defined, an `anneal` that is not
    finite and >= 0, and a `tone` of another system; `TypeError` for rates that are no dict.
    """
    check_tone(system, tone)
    anneal = _number(anneal, nonnegative("anneal", ""))
    if not isinstance(rates, Mapping) or not set(system.hidden) <= set(rates):
        raise TypeError(f"rates must be a dict of those of {[*system.hidden]}; got {brief(rates)}")
    if none := [n for n in system.hidden if not len(rates[n])]:
        raise ValueError(f"rates {none[0]!r} must hold one sample at least; got none")
    neurons = {n: system.network.layers[n].neuron for n in system.hidden}
    return {
        n: system.homeostasis.step(
            tone[n], rates[n].mean(0), anneal, v_reset=getattr(neuron, "v_reset", None)
        )
        for n, neuron in neurons.items()
    }


def settle(system: System, state: TrainState, x: ArrayLike | Rasters) -> TrainState:
    """Let the thresholds (mV) alone move by one batch, before anything is learned.

    `x` [batch, n_in] or [batch, n_steps, n_in], as in `train_step`.
    """
    kind("state", state, TrainState)
    outcome = predict(system, state.weights, state.homeostasis, x, key=state.key)
    tone = excited(system, state.homeostasis, outcome.rates)
    return state._replace(homeostasis=tone, average=(state.weights, tone))


def predict(
    system: System, weights: AllWeights, tone: Tone, x: ArrayLike | Rasters, *,
    key: Array | None = None,
) -> Outcome:  # fmt: skip
    """Scores [b, n_classes], whose argmax is the decision, and each neuron's rate, spikes a step.

    `x` as in `train_step`, [batch, n_in] or [batch, n_steps, n_in]; raises as that does, inside
    jit for shapes and dtypes alone. Compiled once for one structure.

    >>> import optax
    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> system = nj.wta_broadcast.system(jax.random.key(1), net)
    >>> state = nj.wta_broadcast.init(system, optax.sgd(0.1), jax.random.key(2))
    >>> x = jnp.ones((2, 64))  # two pictures
    >>> outcome = nj.wta_broadcast.predict(system, state.weights, state.homeostasis, x)
    >>> outcome.scores.argmax(1).shape, outcome.rates["h1"].shape
    ((2,), (2, 64))
    """
    x = samples(system, x)
    check_given(system, weights, tone)
    return _predict(system, weights, tone, x, _key(key))


@compiled
def _predict(system, weights, tone, x, key):
    x, ends = lasting(x)

    def one(x, end, key):
        record = present(system, weights, tone, x, key=key)
        alone = lambda x: (x[:, None], None if end is None else end[None])  # noqa: E731
        rates = {n: _rate(*alone(record[n].z))[0] for n in system.hidden}
        scores, end = alone(_all_scores(system, record))
        return Outcome(decided(scores, system.start, end)[0], rates)

    keys = None if key is None else jax.random.split(key, len(x))
    return jax.vmap(one)(x, ends, keys)


def _all_scores(system: System, record: dict[str, Post]) -> Float[Array, "t c"]:
    def step(scores, y):
        scores = _scores(system, scores, y)
        return scores, scores

    y = record[system.readout].z
    return jax.lax.scan(step, jnp.zeros(system.n_classes, y.dtype), y)[1]


def _averaged(average, now, decay: float | Array, step: Array):
    """Running average of all that is a float; it forgets its start sooner while it is young."""
    young = (1 + step) / (10 + step)
    keep = jnp.minimum(jnp.asarray(decay, young.dtype), young)
    mix = lambda a, b: a * keep.astype(a.dtype) + b * (1 - keep).astype(a.dtype)  # noqa: E731
    return jax.tree.map(lambda a, b: mix(a, b) if eqx.is_inexact_array(b) else b, average, now)


def __dir__() -> list[str]:
    return __all__
