"""What the peers in JAX share: a step of gradient descent, and the epoch of W8."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import workloads as w


def descent(tx: optax.GradientTransformation, loss: Callable[[Any], Any], learnt: Any):
    """The first state, and a step that lowers `loss` of what is learnt."""

    @jax.jit
    def step(learnt, memory):
        change, memory = tx.update(jax.grad(loss)(learnt), memory, learnt)
        return optax.apply_updates(learnt, change), memory

    return (learnt, tx.init(learnt)), step


def epoch(begun: Any, step: Callable) -> Callable[[], float]:
    """Seconds of an epoch of W8, from those of a stretch of it."""

    def seconds() -> float:
        begin, state = time.perf_counter(), begun
        for _ in range(w.STRETCH):
            state = step(*state)
        jax.block_until_ready(state)
        return (time.perf_counter() - begin) * w.BATCHES / w.STRETCH

    return seconds


def picture() -> np.ndarray:
    """Values in [0, 1], a fifth of them not 0, as a digit has them."""
    chance, size = np.random.default_rng(0), (64, w.N_IN)
    return (chance.random(size) * (chance.random(size) < 0.2)).astype(np.float32)
