"""Gates between samples: which of a batch teach, by how much they surprise.

A gate hears, for each sample, the scores and the label, and remembers what is usual. It never
sees a weight, so that it gates numbers and devices alike; what a shut gate leaves out is neither
computed into a change nor written.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    between,
    brief,
    classes,
    count,
    instance,
    one_number,
    ordered,
    positive,
    prng_key,
    real,
    working,
)
from neurojax._draw import fold
from neurojax._repr import described
from neurojax.plasticity.modulation import _by_layer, _simplex

__all__ = [
    "BudgetGate", "ChangeGate", "Gate", "GatePopulation", "ShuffledGate", "SurpriseGate",
    "gate_population", "opened", "surprise",
]  # fmt: skip


@runtime_checkable
class Gate(Protocol):
    """What lets samples teach: M modulators, whose activity goes over a whole batch.

    One that also has `a`, {layer: float [n, M]}, reaches the neurons of these layers one by one;
    every other layer hears the mean of its modulators.
    """

    def init(self, dtype: DTypeLike = float) -> Any:
        """What it remembers, before the first batch."""
        ...

    def step(
        self, state: Any, scores: Float[Array, "b c"], target: Int[Array, " b"], *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Any, Float[Array, "b m"]]:  # fmt: skip
        """What it remembers after a batch, and its activity there, without unit, >= 0."""
        ...


def surprise(
    scores: Float[Array, "b c"], target: Int[Array, " b"], gain: float | Array = 30.0
) -> Float[Array, " b"]:
    """1 - softmax(gain scores)_target of each sample, in [0, 1]; `gain` per unit of score.

    Raises `ValueError` for labels that are none of the classes, outside jit, or not one a sample.

    >>> surprise(jnp.array([[0.0, 0.0], [9.0, 0.0]]), jnp.array([0, 0])).round(3).tolist()
    [0.5, 0.0]
    """
    scores = real(scores, "scores")
    if scores.ndim != 2:
        raise ValueError(f"scores must be [batch, n_classes]; got {list(scores.shape)}")
    target = classes("target", target, scores.shape[1], len(scores))
    belief = jax.nn.softmax(jnp.asarray(gain, scores.dtype) * scores)
    return 1 - jnp.take_along_axis(belief, target[:, None], 1)[:, 0]


def opened(gate: Gate, layer: str, m: Float[Array, "b m"]) -> Float[Array, "b #n"]:
    """How much each sample teaches each neuron of `layer`, [b, n], or all alike, [b, 1].

    >>> opened(nj.SurpriseGate(), "h1", jnp.array([[1.0], [0.0]])).tolist()
    [[1.0], [0.0]]
    """
    a = getattr(gate, "a", {}).get(layer)
    return m.mean(1, keepdims=True) if a is None else m @ a.astype(m.dtype).T


class Usual(NamedTuple):
    """What a gate takes for usual.

    Fields:
        mean: float []; running mean of the surprise, in [0, 1]
    """

    mean: Float[Array, ""]


@described
class SurpriseGate(eqx.Module):
    """Samples teach that surprise more than is usual, and not too much:

        g_b = 1 where low + ratio usual < s_b <= high, else 0
        usual <- rho usual + (1 - rho) mean_b s_b

    s_b in [0, 1] is `surprise` at `gain` (per unit of score), `usual` starts from 0, and the
    batch is judged by what was usual before it. `ratio` 0 is a fixed threshold of the error;
    `high` < 1 shuts out what cannot be believed, as wrong labels are. `rho` is per batch. All is
    one number each and, but for `gain`, without unit.
    Raises `ValueError` for a parameter out of range.
    Source: Frémaux and Gerstner (2016), sec. 3.3 (surprise as third factor); equations our own.

    >>> gate = nj.SurpriseGate(low=0.5)
    >>> scores, target = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0])
    >>> gate.step(gate.init(), scores, target)[1].tolist()  # the second is misjudged
    [[0.0], [1.0]]
    """

    ratio: Float[Array, ""] = eqx.field(default=0.0, converter=between("ratio", 0.0, 1e6))
    low: Float[Array, ""] = eqx.field(default=0.0, converter=between("low", -1.0, 1.0))
    high: Float[Array, ""] = eqx.field(default=1.0, converter=between("high", 0.0, 1.0))
    rho: Float[Array, ""] = eqx.field(default=0.98, converter=between("rho", 0.0, 1.0))
    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))

    def __check_init__(self):
        one_number(self)

    def init(self, dtype: DTypeLike = float) -> Usual:
        """Whatever is not known for certain surprises."""
        return Usual(jnp.zeros((), working(dtype)))

    def step(self, state: Usual, scores, target, *, key=None) -> tuple[Usual, Array]:
        """What is usual after a batch, and the gate [b, 1] of each sample, 0 or 1."""
        s = surprise(scores.astype(state.mean.dtype), target, self.gain)
        low = self.low + self.ratio * state.mean
        g = ((s > low) & (s <= self.high)).astype(scores.dtype)
        mean = self.rho * state.mean + (1 - self.rho) * s.mean()
        return Usual(mean.astype(state.mean.dtype)), g[:, None]


class Threshold(NamedTuple):
    """The surprise above which a `BudgetGate` opens.

    Fields:
        theta: float []; in [0, 1]
    """

    theta: Float[Array, ""]


@described
class BudgetGate(eqx.Module):
    """A set part of the samples teach, those of most surprise, as a threshold follows it:

        g_b = 1 where s_b > theta, else 0         theta <- theta + rate (mean_b g_b - budget)

    s_b in [0, 1] is `surprise` at `gain` (per unit of score); theta starts from 0, stays in
    [0, 1], and moves by `rate` a batch at the most. `budget` in [0, 1] is the part of samples.
    Raises `ValueError` for a parameter out of range.
    Source: homeostasis of a threshold, as in Zhang and Linden (2003), on the gate; our own.

    >>> gate = nj.BudgetGate(budget=0.1)
    >>> scores, target = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0])
    >>> state, g = gate.step(gate.init(), scores, target)
    >>> g.tolist(), round(float(state.theta), 3)  # one was known; more than a tenth teach
    ([[0.0], [1.0]], 0.02)
    """

    budget: Float[Array, ""] = eqx.field(default=0.1, converter=between("budget", 0.0, 1.0))
    rate: Float[Array, ""] = eqx.field(default=0.05, converter=between("rate", 0.0, 1.0))
    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))

    def __check_init__(self):
        one_number(self)

    def init(self, dtype: DTypeLike = float) -> Threshold:
        """Whatever is not known for certain teaches."""
        return Threshold(jnp.zeros((), working(dtype)))

    def step(self, state: Threshold, scores, target, *, key=None) -> tuple[Threshold, Array]:
        """The threshold after a batch, and the gate [b, 1] of each sample, 0 or 1."""
        s = surprise(scores.astype(state.theta.dtype), target, self.gain)
        g = (s > state.theta).astype(state.theta.dtype)
        theta = jnp.clip(state.theta + self.rate * (g.mean() - self.budget), 0, 1)
        return Threshold(theta.astype(state.theta.dtype)), g.astype(scores.dtype)[:, None]


class Trend(NamedTuple):
    """Two running means of the surprise, in [0, 1].

    Fields:
        fast: float []; of the last batches
        slow: float []; of many
    """

    fast: Float[Array, ""]
    slow: Float[Array, ""]


@described
class ChangeGate(eqx.Module):
    """Plasticity of all samples alike rises where the world has changed, and falls with calm:

        g = min(max((fast / slow)^power, least), most)
        fast <- rho_fast fast + (1 - rho_fast) mean_b s_b           and slow likewise

    s_b in [0, 1] is `surprise` at `gain` (per unit of score); `rho_fast` < `rho_slow` are per
    batch, both means start from 1, and the batch that is judged is within `fast`. A `power` of 0
    is a gate of one. All numbers; but for `gain` without unit.
    Raises `ValueError` for a parameter out of range, and unless least <= 1 <= most and
    rho_fast < rho_slow.
    Source: Yu and Dayan (2005), eq. 4 (unexpected over expected uncertainty); equations our own.

    >>> gate = nj.ChangeGate(power=1.0)
    >>> scores, target = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> gate.step(gate.init(), scores, target)[1].round(3)  # .8 / .99: it teaches less
    Array([[0.808]], dtype=float32)
    """

    power: Float[Array, ""] = eqx.field(default=1.0, converter=between("power", 0.0, 10.0))
    least: Float[Array, ""] = eqx.field(default=0.0, converter=between("least", 0.0, 1.0))
    most: Float[Array, ""] = eqx.field(default=4.0, converter=between("most", 1.0, 1e6))
    rho_fast: Float[Array, ""] = eqx.field(default=0.8, converter=between("rho_fast", 0.0, 1.0))
    rho_slow: Float[Array, ""] = eqx.field(default=0.99, converter=between("rho_slow", 0.0, 1.0))
    gain: Float[Array, ""] = eqx.field(default=30.0, converter=positive("gain", ""))

    def __check_init__(self):
        one_number(self)
        ordered("rho_fast", self.rho_fast, "rho_slow", self.rho_slow, "a batch")

    def init(self, dtype: DTypeLike = float) -> Trend:
        """All is surprising, and usually is."""
        one = jnp.ones((), working(dtype))
        return Trend(one, one)

    def step(self, state: Trend, scores, target, *, key=None) -> tuple[Trend, Array]:
        """Both means after a batch, and the gate [b, 1] of each sample, in [least, most]."""
        dtype = state.fast.dtype
        s = surprise(scores.astype(dtype), target, self.gain).mean()
        fast = self.rho_fast * state.fast + (1 - self.rho_fast) * s
        slow = self.rho_slow * state.slow + (1 - self.rho_slow) * s
        tiny = jnp.finfo(dtype).tiny
        ratio = jnp.maximum(fast, tiny) / jnp.maximum(slow, tiny)
        g = jnp.clip(ratio**self.power, self.least, self.most).astype(scores.dtype)
        return Trend(fast.astype(dtype), slow.astype(dtype)), jnp.full((len(scores), 1), g)


@described
class ShuffledGate(eqx.Module):
    """Control: `gate` dealt out anew among the samples of each batch, at random.

    As many samples teach, in the same batches and as much, but not those that surprise.
    Raises `TypeError` for what is no gate, and `ValueError` in a step without a key.

    >>> gate = nj.ShuffledGate(nj.SurpriseGate(low=0.5))
    >>> scores, target = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0])
    >>> float(gate.step(gate.init(), scores, target, key=jax.random.key(0))[1].sum())
    1.0
    """

    gate: Gate = eqx.field(converter=lambda x: instance("gate", x, "init", "step"))

    def init(self, dtype: DTypeLike = float) -> Any:
        """What `gate` remembers."""
        return self.gate.init(dtype)

    def step(self, state: Any, scores, target, *, key=None) -> tuple[Any, Array]:
        """What `gate` remembers after a batch, and its activity [b, M] in another order."""
        if key is None:
            raise ValueError("key must be given, as samples are drawn at random; got None")
        state, m = self.gate.step(state, scores, target, key=fold(key, "gate"))
        return state, jax.random.permutation(key, m)

    @property
    def a(self) -> dict[str, Array]:
        """Whom the modulators of `gate` reach."""
        return getattr(self.gate, "a", {})


def _gates(x: Any) -> tuple:
    """Field converter: gates."""
    if not isinstance(x, tuple | list):
        raise TypeError(f"gates must be a tuple of gates; got {brief(x)}")
    return tuple(instance("gates", g, "init", "step") for g in x)


@described
class GatePopulation(eqx.Module):
    """M gates, of which each neuron hears a mixture of its own:

        g_{b,i} = sum_k a_ik m_{b,k}

    `gates` are M gates of one modulator each, `a` [n, M] by layer is how much of each a neuron
    hears; a layer that it does not name hears their mean. So some neurons stay plastic where
    others keep what they know. `gate_population` draws `a`.
    Raises `TypeError` for what is no gate, `ValueError` where `a` is not [n, M].
    Source: Frémaux and Gerstner (2016), sec. 3 (several modulators); equations our own.
    """

    gates: tuple = eqx.field(converter=_gates)
    a: dict[str, Float[Array, "_ m"]] = eqx.field(converter=_by_layer)

    def __check_init__(self):
        if not self.gates:
            raise ValueError("gates must hold one gate at least; got none")
        for name, a in self.a.items():
            if a.ndim != 2 or a.shape[1] != len(self.gates):
                allowed = f"[n, {len(self.gates)}], a column a gate"
                raise ValueError(f"a of layer {name!r} must be {allowed}; got {a.shape}")

    def init(self, dtype: DTypeLike = float) -> tuple:
        """What each gate remembers."""
        return tuple(gate.init(dtype) for gate in self.gates)

    def step(self, state: tuple, scores, target, *, key=None) -> tuple[tuple, Array]:
        """What each gate remembers after a batch, and the activity [b, M] of all."""
        drawn = lambda i: None if key is None else jax.random.fold_in(key, i)  # noqa: E731
        found = [
            gate.step(now, scores, target, key=drawn(i))
            for i, (gate, now) in enumerate(zip(self.gates, state, strict=True))
        ]
        states, m = zip(*found, strict=True)
        return states, jnp.concatenate(m, 1)


def gate_population(
    key: Key[Array, ""], gates: tuple, layers: dict[str, int], dtype: DTypeLike = float
) -> GatePopulation:
    """`gates` with a random fixed share of each for every neuron of `layers` (name: neurons).

    Shares [n, M] are uniform on the simplex: not negative, and each neuron's add up to one.

    >>> gates = (nj.SurpriseGate(ratio=1.0), nj.ChangeGate())
    >>> nj.gate_population(jax.random.key(0), gates, {"h1": 100}).a["h1"].shape
    (100, 2)
    """
    if not isinstance(layers, dict):
        raise TypeError(f"layers must be a dict of neurons by name; got {brief(layers)}")
    sizes = {name: count(f"layer {name!r}")(n) for name, n in layers.items()}
    gates, key = _gates(gates), prng_key(key)
    shares = {n: _simplex(fold(key, n), (size, len(gates)), dtype) for n, size in sizes.items()}
    return GatePopulation(gates, shares)


def __dir__() -> list[str]:
    return __all__
