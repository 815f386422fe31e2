"""Backpropagation through time with a surrogate gradient: what local learning is compared with.

The same network as `wta_broadcast`, the same thresholds and optimiser; only what asks for changes
of weights is another. No learner without backpropagation imports this.
Source: Neftci, Mostafa and Zenke (2019), Surrogate gradient learning, box 3.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from neurojax._check import classes, real
from neurojax.data.ragged import Rasters
from neurojax.learning import wta_broadcast as wb
from neurojax.learning.wta_learner import WTABroadcast
from neurojax.neurons.surrogate import Spike, fast_sigmoid
from neurojax.weights import Ideal
from neurojax.wiring.layouts import Dense, FanIn
from neurojax.wiring.sparse import Connectivity

__all__ = ["Reference", "differentiable", "gradients", "learner", "loss"]


def learner(
    system: wb.System, tx: Any, *, spike: Spike | None = None, gain: float = 10.0,
    **schedules: Any,
) -> WTABroadcast:  # fmt: skip
    """`WTABroadcast` whose changes are minus the gradient of `loss`, by `gradients`.

    `spike` is a surrogate, of slope per mV, or None for `fast_sigmoid(5.0)`; `gain` the slope of
    the softmax over scores, per mV of a leaky readout; `schedules` are `average` and `anneal` of
    `WTABroadcast`. The teacher, feedback and modulators of `system` have no part in it, its rate
    penalty has.
    Raises `ValueError` for a system with a gate between samples.

    >>> import optax
    >>> from neurojax.learning import bptt
    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> system = nj.wta_broadcast.system(jax.random.key(1), net)
    >>> reference = bptt.learner(system, optax.adam(4e-3))
    """
    if system.gate is not None:
        gate = type(system.gate).__name__
        raise ValueError(
            f"system must have no gate for a surrogate gradient; got {gate}: leave it out"
        )
    with jax.ensure_compile_time_eval():  # it may be made within what is compiled
        spike = fast_sigmoid(5.0) if spike is None else spike
        changes = partial(gradients, spike=spike, gain=float(real(gain, "gain")))
    return WTABroadcast(system, tx, changes=changes, **schedules)


class Reference(nnx.Module):
    """The structured network, its plastic weights as parameters, all else as it is.

    Forward it does what `system` does with `weights` and the thresholds of `tone`; backward
    a spike has the derivative of `spike`.
    Source: Neftci, Mostafa and Zenke (2019), Surrogate gradient learning, box 3.
    """

    def __init__(self, system: wb.System, weights: wb.AllWeights, tone: wb.Tone, spike: Spike):
        plastic = system.network.plastic()
        self.w = nnx.Dict({n: nnx.Param(weights[n].w) for n in plastic})
        self.fixed = nnx.data({n: held.w for n, held in weights.items() if n not in plastic})
        self.system = nnx.data(differentiable(system, spike))
        self.tone = nnx.data(tone)

    def __call__(
        self, x: Float[Array, "b *t i"] | Rasters, key: Key[Array, ""] | None
    ) -> wb.Outcome:
        """Scores and rates of a batch, [n_in] held or [T, n_in] a sample."""
        w = self.fixed | {n: p[...] for n, p in self.w.items()}
        wired = self.system.network.projections
        held = {n: _held(w[n], p.connectivity) for n, p in wired.items()}
        same = {n: replace(p, connectivity=held[n].connectivity) for n, p in wired.items()}
        system = eqx.tree_at(lambda s: s.network.projections, self.system, same)
        return wb.predict(system, {**held}, self.tone, x, key=key)


def differentiable(system: wb.System, spike: Spike) -> wb.System:
    """The same system with `spike` as the spike function of all its neurons."""
    layers = {
        n: replace(layer, neuron=replace(layer.neuron, spike=spike))
        if hasattr(layer.neuron, "spike")
        else layer
        for n, layer in system.network.layers.items()
    }
    return eqx.tree_at(lambda s: s.network.layers, system, layers)


def _held(w: Array, wiring: Connectivity) -> Ideal:
    """Index lists become matrices: the transpose of a gather is a scatter, which is slow."""
    if isinstance(wiring, FanIn):
        return Ideal(wiring.matrix(w), Dense(wiring.n_pre, wiring.n_post))
    return Ideal(w, wiring)


def loss(
    model: Reference, x: Float[Array, "b *t i"] | Rasters, target: Int[Array, " b"], gain: float,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, ""], wb.Outcome]:  # fmt: skip
    """Cross-entropy, mean over a batch, and a penalty on rates.

        L = -log softmax(gain s)_target + penalty sum_layers mean_i (r_i - r*)^2

    s: scores that decide; r_i: mean spikes a step of a neuron in the batch; r*: its target.
    """
    outcome, tuned = model(x, key), model.system.homeostasis
    wrong = optax.softmax_cross_entropy_with_integer_labels(gain * outcome.scores, target).mean()
    off = [jnp.square(r.mean(0) - tuned.target).mean() for r in outcome.rates.values()]
    return wrong + tuned.penalty * jnp.stack(off).sum(), outcome


def gradients(
    system: wb.System, weights: wb.AllWeights, tone: wb.Tone, x: Float[Array, "b *t i"] | Rasters,
    target: Int[Array, " b"], *, spike: Spike, gain: float,
    key: Key[Array, ""] | None = None,
) -> tuple[dict[str, Array], wb.Outcome]:  # fmt: skip
    """In place of `wb.deltas`: the ascending changes that lower `loss`, minus its gradient."""
    target = classes("target", target, system.n_classes, len(x))
    model = Reference(system, weights, tone, spike)
    uphill, outcome = nnx.grad(loss, has_aux=True)(model, x, target, gain, key)
    return jax.tree.map(jnp.negative, nnx.to_pure_dict(uphill)["w"]), outcome


def __dir__() -> list[str]:
    return __all__
