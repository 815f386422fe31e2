"""A learner whose loops are rewired between batches: synapses of least weight go, others come."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from neurojax.learning import WTABroadcast
from neurojax.learning import wta_broadcast as wb
from neurojax.network import fold
from neurojax.plasticity.structural import rewired
from neurojax.weights import ideal


class Rewiring(eqx.Module):
    """`learner`, of which each hidden neuron moves `n` synapses of each loop every `every` batches.

    Loops are the projections of a layer onto itself, lists of fixed fan-in; what one hears after
    one delay it does not hear after another. Moments of the optimiser start anew with a synapse.
    """

    learner: WTABroadcast
    n: int = eqx.field(static=True)
    every: int = eqx.field(static=True)

    @property
    def system(self) -> wb.System:
        """That of the learner."""
        return self.learner.system

    def init(self, key, make_weights=ideal()) -> wb.TrainState:
        """A fresh state of the learner."""
        return self.learner.init(key, make_weights)

    def settle(self, state, x, *, key) -> wb.TrainState:
        """As the learner does."""
        return self.learner.settle(state, x, key=key)

    def step(self, state, x, y, *, key) -> tuple[wb.TrainState, dict[str, Array]]:
        """The learner's step, and after every so many of them the move."""
        state, told = self.learner.step(state, x, y, key=key)
        moved = lambda s: _moved(s, self._loops(), self.n)  # noqa: E731
        return jax.lax.cond(state.step % self.every == 0, moved, lambda s: s, state), told

    def predict(self, state, x, *, key=None) -> Array:
        """By the averaged weights, on the wiring that is there now."""
        return self.learner.predict(state, x, key=key)

    def _loops(self) -> list[str]:
        links = self.system.network.projections
        return [n for n, p in links.items() if p.pre == p.post != self.system.readout]


def _moved(state: wb.TrainState, loops: list[str], n: int) -> wb.TrainState:
    """Each loop beside all others of its layer."""
    weights, tone, opt = dict(state.weights), state.average[1], state.opt_state
    mean: Any = dict(state.average[0])
    key = fold(jax.random.fold_in(state.key, state.step), "rewire")
    layer = lambda name: name.partition("->")[0]  # noqa: E731
    held: Any = weights
    for name in loops:
        beside = [held[x].connectivity for x in loops if x != name and layer(x) == layer(name)]
        weights[name], new = rewired(fold(key, name), held[name], n, autapses=False, beside=beside)
        mean[name] = mean[name].renewed(held[name].connectivity, new)
        opt = _forgotten(opt, name, new)
    return state._replace(weights=weights, average=(mean, tone), opt_state=opt)


def _forgotten(opt: Any, name: str, new: Array) -> Any:
    """What the optimiser remembers, but of new synapses."""
    of = lambda x: isinstance(x, dict) and getattr(x.get(name), "shape", None) == new.shape  # noqa: E731
    blank = lambda x: x | {name: jnp.where(new, 0, x[name])} if of(x) else x  # noqa: E731
    return jax.tree.map(blank, opt, is_leaf=of)
