"""The same steps with nothing to learn: all of W7 but the rule is the forward pass."""

from functools import partial

import jax.numpy as jnp

from benchmarks.systems import neurojax
from benchmarks.systems.neurojax import PACKAGES
from neurojax.learning import wta_broadcast as wb

__all__ = ["CASES", "PACKAGES"]


def no_changes(system, weights, tone, x, target, *, key=None):
    """In place of `wb.deltas`: what the network answers, and nothing to learn from it."""
    outcome = wb.predict(system, weights, tone, x, key=key)
    return {n: jnp.zeros_like(weights[n].w) for n in system.network.plastic()}, outcome


CASES = {name: partial(getattr(neurojax, name.lower()), no_changes) for name in ("W7", "W8")}
