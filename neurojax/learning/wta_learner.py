"""The broadcast system as a `Learner`: `wta_broadcast` with its optimiser and schedules."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import between, instance, kind
from neurojax._repr import described
from neurojax.learning import wta_broadcast as wb
from neurojax.learning.learner import Info, Samples, accuracy
from neurojax.weights import MakeWeights, ideal

__all__ = ["WTABroadcast"]


@described
class WTABroadcast(eqx.Module):
    """`system` with what makes steps of its changes.

    `tx` is an optax transformation. `average` in [0, 1): decay in a batch of the running average
    of weights and thresholds that `predict` goes by; 0: none. `anneal(step)` scales the move of
    the thresholds; None is 1 throughout. `changes` asks for changes of weights: by the local rule
    (`wta_broadcast.deltas`), or by a gradient to compare it with (`learning.bptt`).
    What `step` tells: accuracy, `rate`, spikes a neuron and step, and of a system with a gate
    `gate`, how much a sample taught, and `taught`, whether it did; all as means over the batch.

    >>> import optax
    >>> layer = nj.Layer(64, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64, [layer], n_classes=10)
    >>> system = nj.wta_broadcast.system(jax.random.key(1), net)
    >>> learner = nj.learning.WTABroadcast(system, optax.adam(4e-3))
    >>> state = learner.init(jax.random.key(2))
    >>> learner.predict(state, jnp.ones((2, 64))).shape
    (2, 10)
    """

    system: wb.System = eqx.field(converter=lambda x: kind("system", x, wb.System))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    average: float | Array = eqx.field(default=0.0, converter=between("average", 0.0, 1.0))
    anneal: Callable | None = eqx.field(static=True, default=None)
    changes: Callable = eqx.field(static=True, default=wb.deltas)

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> wb.TrainState:
        """A fresh state, as `wta_broadcast.init` makes it."""
        return wb.init(self.system, self.tx, key, make_weights)

    def settle(self, state: wb.TrainState, x: Samples, *, key: Key[Array, ""]) -> wb.TrainState:
        """Thresholds alone move by one batch."""
        return wb.settle(self.system, state, x)

    def step(
        self, state: wb.TrainState, x: Samples, y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[wb.TrainState, Info]:  # fmt: skip
        """Learn from one batch; chance within the network is drawn from the state's own key."""
        anneal = 1.0 if self.anneal is None else jnp.asarray(self.anneal(state.step.astype(float)))
        state, outcome = wb.update(
            self.system, self.tx, state, x, y, average_decay=self.average, anneal=anneal,
            changes=self.changes,
        )  # fmt: skip
        rate = jnp.stack([r.mean() for r in outcome.rates.values()]).mean()
        told = {"accuracy": accuracy(outcome.scores, y), "rate": rate}
        if outcome.gate is None:
            return state, told
        return state, told | {"gate": outcome.gate.mean(), "taught": (outcome.gate > 0).mean()}

    def predict(
        self, state: wb.TrainState, x: Samples, *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores by the averaged weights and thresholds."""
        return wb.predict(self.system, *state.average, x, key=key).scores


def __dir__() -> list[str]:
    return __all__
