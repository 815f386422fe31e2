"""Train the same network by backpropagation through time: what local learning is compared with.

    python -m experiments.surrogate_reference --dataset digits --out runs/reference

Wiring, neurons, homeostasis, pictures, optimiser and evaluation are those of
`experiments.wta_broadcast`. Only what asks for changes of weights is another: here the
gradient of a loss, in which each spike has the derivative of a surrogate.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from experiments import _config, _run, wta_broadcast
from experiments._options import Need
from neurojax.learning import wta_broadcast as wb
from neurojax.neurons.surrogate import Spike, fast_sigmoid
from neurojax.weights import Ideal
from neurojax.wiring.layouts import Dense, FanIn
from neurojax.wiring.sparse import Connectivity

_OF_THE_RULE = (
    "teacher", "margin", "bandwidth", "redraw_feedback", "modulators", "window", "window_width",
    "kappa_e", "trace_decay", "reset_trace",
)  # fmt: skip


@dataclass(frozen=True)
class Learning(_config.Learning):
    """The loss, its gradient, and what makes steps of it."""

    gain: float = 10.0
    """Slope of the softmax over the scores that decide."""
    slope: float = 5.0
    """Derivative of a spike: 1 / (1 + slope |v - v_th|)^2, slope per mV."""
    weight_decay: float = 0.0
    rate_penalty: float = 0.0
    """Weight in the loss of the squared difference of each neuron's rate from target."""

    needs: ClassVar[tuple[Need, ...]] = (
        Need(
            "slope", "freeze_hidden", "--no-freeze-hidden or --readout spiking",
            lambda c: not c.freeze_hidden or c.readout == "spiking",
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Config(Learning, _config.Config):
    """Options of the local system, but for those of its learning rule, which are refused."""

    out: Path = Path("runs/surrogate_reference")

    withheld = _OF_THE_RULE

    def __post_init__(self):
        super().__post_init__()
        _run.require_within("--slope", self.slope, "(0, inf)")


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

    def __call__(self, x: Float[Array, "b *t i"], key: Key[Array, ""] | None) -> wb.Outcome:
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
    model: Reference, x: Float[Array, "b *t i"], target: Int[Array, " b"], gain: float,
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
    system: wb.System, weights: wb.AllWeights, tone: wb.Tone, x: Float[Array, "b *t i"],
    target: Int[Array, " b"], *, spike: Spike, gain: float,
    key: Key[Array, ""] | None = None,
) -> tuple[dict[str, Array], wb.Outcome]:  # fmt: skip
    """In place of `wb.deltas`: the ascending changes that lower `loss`, minus its gradient."""
    model = Reference(system, weights, tone, spike)
    uphill, outcome = nnx.grad(loss, has_aux=True)(model, x, target, gain, key)
    return jax.tree.map(jnp.negative, nnx.to_pure_dict(uphill)["w"]), outcome


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    for name in _OF_THE_RULE:
        value = getattr(config, name)
        if value != getattr(wta_broadcast.Config, name):
            allowed = f"--{_run.dashed(name)} belongs to the local rule and must be left out"
            raise ValueError(f"{allowed}; got {value}")
    spike = fast_sigmoid(config.slope)
    return wta_broadcast.run(config, partial(gradients, spike=spike, gain=config.gain))


if __name__ == "__main__":
    _run.main(Config, run)
