"""Learning without backpropagation: population winner-take-all, broadcast, three factors.

A structured recurrent network spikes; the readout populations compete; their error is
broadcast through fixed random weights to all hidden neurons, gated by neuromodulators, and
meets each synapse's own eligibility. Every update uses its presynaptic trace, its
postsynaptic window, its neuron's learning signal and its gate, and nothing else.
Source: Tang and Xie (2026), arXiv 2605.00402 (the system); each part cites its own.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from neurojax.feedback import Broadcast
from neurojax.modulation import Modulators
from neurojax.network import Network, Record, fold, simulate
from neurojax.neurons import LeakyIntegrator
from neurojax.plasticity import Homeostasis, HomeostasisState, Post
from neurojax.teaching import HardWTA, SoftWTA, class_scores
from neurojax.weights import Ideal, Weights


class System(eqx.Module):
    """The network and all that teaches it; nothing here changes while it learns.

    Hidden layers are those with `feedback`. The error counts from step `start` on, and so
    do the scores that decide.
    """

    network: Network
    feedback: dict[str, Broadcast]
    teacher: SoftWTA | HardWTA
    homeostasis: Homeostasis
    modulators: Modulators | None = None
    n_classes: int = eqx.field(static=True, default=10)
    n_steps: int = eqx.field(static=True, default=20)
    start: int = eqx.field(static=True, default=5)
    dt: float = eqx.field(static=True, default=1.0)
    readout: str = eqx.field(static=True, default="readout")

    def __check_init__(self):
        if not 0 <= self.start < self.n_steps:
            raise ValueError(f"start must be in [0, {self.n_steps}); got {self.start}")
        if self.readout not in self.network.layers:
            raise ValueError(f"readout {self.readout!r} is no layer of the network")

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of the layers that the error is broadcast to."""
        return tuple(sorted(self.feedback))

    def rest(self, dtype=float) -> "Tone":
        """Excitability of the hidden layers before any homeostasis."""
        layers = self.network.layers
        return {
            n: self.homeostasis.init(jnp.full(layers[n].n, layers[n].neuron.v_th, dtype))
            for n in self.hidden
        }

    def tuned(self, tone: "Tone") -> Network:
        """The network with the thresholds that homeostasis has reached."""
        return eqx.tree_at(
            lambda net: [net.layers[n].neuron.v_th for n in self.hidden],
            self.network,
            [tone[n].v_th for n in self.hidden],
        )


Tone = dict[str, HomeostasisState]
AllWeights = dict[str, Weights]


class TrainState(NamedTuple):
    """Exactly what a checkpoint holds."""

    weights: AllWeights
    opt_state: Any
    homeostasis: Tone
    average: tuple[AllWeights, Tone]  # running average of weights and thresholds
    step: Int[Array, ""]
    key: Key[Array, ""]


class Instruction(NamedTuple):
    """What the readout tells in one step."""

    scores: Float[Array, "*t c"]
    error: Float[Array, "*t c"]
    m: Float[Array, "*t m"] | None  # modulator activity


class Outcome(NamedTuple):
    """What a batch did."""

    scores: Float[Array, "b c"]  # mean over the deciding steps
    rates: dict[str, Float[Array, "b n"]]  # spikes per step of each hidden neuron


def probe(system: System, records: dict[str, Record]) -> dict[str, Any]:
    """What learning needs to know of a step: hidden windows and spikes, readout output."""
    kept: dict[str, Any] = {}
    for name in (*system.hidden, system.readout):
        layer, (z, state) = system.network.layers[name], records[name]
        v_th = layer.neuron.threshold(state) if hasattr(layer.neuron, "threshold") else z
        kept[name] = Post(layer.rule.window(state.v, v_th, z), z)
    return kept


def present(
    system: System, weights: AllWeights, tone: Tone, x: Array, *, key: Array | None = None
) -> dict[str, Post]:
    """Show one sample, [n_in] held or [T, n_in]: what each layer did, [T, n]."""
    net = system.tuned(tone)
    dtype = jnp.result_type(x)
    watch = lambda records: probe(system, records)  # noqa: E731
    return simulate(
        net, weights, net.init(dtype), {"input": x},
        n_steps=system.n_steps, dt=system.dt, probe=watch, key=key,
    )[1]  # fmt: skip


def instruct(
    system: System, y: Float[Array, "t cp"], target: Int[Array, ""]
) -> Instruction:
    """Scores, error and modulators, step by step in causal order, from the readout `y`."""

    def step(carry, now):
        t, y_t = now
        scores, calm = carry
        scores = _scores(system, scores, y_t)
        error = system.teacher(scores, target) * (t >= system.start)
        if system.modulators is None:
            return (scores, calm), Instruction(scores, error, None)
        calm, m = system.modulators.step(calm, scores, target)
        return (scores, calm), Instruction(scores, error, m)

    calm = system.modulators and system.modulators.init(system.n_classes, y.dtype)
    start = (jnp.zeros(system.n_classes, y.dtype), calm)
    return jax.lax.scan(step, start, (jnp.arange(system.n_steps), y))[1]


def _scores(system: System, scores: Array, y: Array) -> Array:
    """Leaky integrators have filtered already; spikes are low-passed with the same decay."""
    neuron = system.network.layers[system.readout].neuron
    now = class_scores(y, system.n_classes)
    if isinstance(neuron, LeakyIntegrator):
        return now
    kappa = neuron.decay(system.dt).astype(y.dtype)
    return kappa * scores + (1 - kappa) * now


def signal(
    system: System, layer: str, instruction: Instruction, state: HomeostasisState
) -> Float[Array, " n"]:
    """gate x learning signal of each neuron of `layer` in one step."""
    heard = system.feedback[layer](instruction.error) + system.homeostasis.term(state)
    if system.modulators is None:
        return heard
    return system.modulators.gate(layer, instruction.m) * heard


def factors(
    system: System, tone: Tone, record: dict[str, Post], instruction: Instruction
) -> dict[str, Float[Array, "t n"]]:
    """D [T, n] of each layer, the postsynaptic side of all its weight changes."""
    net, out = system.network, {}
    for name in (*system.hidden, system.readout):
        if name == system.readout:
            copies = net.layers[name].n // system.n_classes
            q = jnp.repeat(instruction.error, copies, axis=-1)
        else:
            heard = lambda now, name=name: signal(system, name, now, tone[name])  # noqa: E731
            q = jax.vmap(heard)(instruction)
        layer = net.layers[name]
        out[name] = layer.rule.factor(layer.neuron, record[name], q, dt=system.dt)
    return out


def deltas(
    system: System, weights: AllWeights, tone: Tone, x: Float[Array, "b *t i"],
    target: Int[Array, " b"], *, key: Array | None = None,
) -> tuple[dict[str, Array], Outcome]:  # fmt: skip
    """Ascending change of each plastic weight, mean over a batch; factorised form.

    Time leads in what is recorded, so one product a projection sums time and batch.
    """

    def one(x, target, key):
        record = present(system, weights, tone, x, key=key)
        told = instruct(system, record[system.readout].z, target)
        spikes = {n: record[n].z for n in system.hidden}
        return factors(system, tone, record, told), spikes, told.scores

    keys = None if key is None else jax.random.split(key, x.shape[0])
    axes = (0, 0, None if key is None else 0)
    post, spikes, scores = jax.vmap(one, axes, out_axes=1)(x, target, keys)
    dw = {
        name: weights[name].outer(*_paired(system, name, post, spikes, x)) / x.shape[0]
        for name in system.network.plastic()
    }
    rates = {n: z.mean(0) for n, z in spikes.items()}
    return dw, Outcome(scores[system.start :].mean(0), rates)


def _paired(system: System, name: str, post, spikes, x: Array) -> tuple[Array, Array]:
    """The two sides of a projection's outer product, aligned in time by its delay."""
    p = system.network.projections[name]
    d = post[p.post]
    if p.pre in spikes:
        n_steps = d.shape[0] - p.delay
        return d[p.delay :], spikes[p.pre][:n_steps]
    return (d.sum(0), x) if x.ndim == 2 else (d, x.swapaxes(0, 1))


def init(
    system: System, tx: optax.GradientTransformation, key: Key[Array, ""],
    make_weights=Ideal, dtype=float,
) -> TrainState:  # fmt: skip
    """Fresh weights and everything that goes with them."""
    weights = system.network.init_weights(fold(key, "weights"), make_weights, dtype)
    tone, step = system.rest(dtype), jnp.zeros((), jnp.int32)
    opt_state = tx.init({n: weights[n].w for n in system.network.plastic()})
    return TrainState(weights, opt_state, tone, (weights, tone), step, fold(key, "train"))


def train_step(
    system: System, tx: optax.GradientTransformation, state: TrainState,
    x: Float[Array, "b *t i"], target: Int[Array, " b"], *,
    anneal: float | Array = 1.0, average_decay: float | Array = 0.0,
) -> tuple[TrainState, Outcome]:  # fmt: skip
    """Learn from one batch.

    `tx` takes the local deltas, ascending, so they go in negated. `anneal` scales the move
    of the thresholds. `average_decay` keeps a running average of weights and thresholds.
    """
    key = jax.random.fold_in(state.key, state.step)
    dw, outcome = deltas(system, state.weights, state.homeostasis, x, target, key=key)
    descent = jax.tree.map(jnp.negative, dw)
    plain = {n: state.weights[n].w for n in dw}
    updates, opt_state = tx.update(descent, state.opt_state, plain)
    weights = state.weights | {
        n: state.weights[n].program(u, key=fold(key, n)) for n, u in updates.items()
    }
    tone = excited(system, state.homeostasis, outcome.rates, anneal)
    average = _averaged(state.average, (weights, tone), average_decay, state.step)
    return TrainState(weights, opt_state, tone, average, state.step + 1, state.key), outcome


def excited(system: System, tone: Tone, rates: dict[str, Array], anneal=1.0) -> Tone:
    """Thresholds after a batch with `rates` [b, n]."""
    return {
        n: system.homeostasis.step(tone[n], rates[n].mean(0), anneal) for n in system.hidden
    }


def settle(system: System, state: TrainState, x: Float[Array, "b *t i"]) -> TrainState:
    """Let the thresholds alone move by one batch, before anything is learned."""
    outcome = predict(system, state.weights, state.homeostasis, x, key=state.key)
    tone = excited(system, state.homeostasis, outcome.rates)
    return state._replace(homeostasis=tone, average=(state.weights, tone))


def predict(
    system: System, weights: AllWeights, tone: Tone, x: Float[Array, "b *t i"], *,
    key: Array | None = None,
) -> Outcome:  # fmt: skip
    """Scores [b, n_classes], whose argmax is the decision, and each neuron's rate."""

    def one(x, key):
        record = present(system, weights, tone, x, key=key)
        zero = jnp.zeros(system.n_classes, x.dtype)
        told = lambda s, y: (_scores(system, s, y),) * 2  # noqa: E731
        scores = jax.lax.scan(told, zero, record[system.readout].z)[1]
        rates = {n: record[n].z.mean(0) for n in system.hidden}
        return Outcome(scores[system.start :].mean(0), rates)

    keys = None if key is None else jax.random.split(key, x.shape[0])
    return jax.vmap(one, (0, None if key is None else 0))(x, keys)


def _averaged(average, now, decay: float | Array, step: Array):
    """Running average of all that is a float; it forgets its start sooner while it is young."""
    young = (1 + step) / (10 + step)
    keep = jnp.minimum(jnp.asarray(decay, young.dtype), young)
    mix = lambda a, b: a * keep.astype(a.dtype) + b * (1 - keep).astype(a.dtype)  # noqa: E731
    return jax.tree.map(lambda a, b: mix(a, b) if eqx.is_inexact_array(b) else b, average, now)
