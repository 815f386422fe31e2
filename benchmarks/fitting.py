"""What `nj.fit` adds to the steps that it takes: W15, microseconds of the processor a batch.

    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python -m benchmarks.fitting

784-256-256-10 by direct feedback, batches of 64 of 54,016 samples. Bare is one `lax.scan` over an
epoch's batches, compiled, each gathered by its rows in an order that is there already, and nothing
kept but the weights. `fit` draws the order, keeps the accuracy of every batch, looks whether all
is finite, and writes its history. Both take the same steps; their epochs alternate, so that what
else the machine does falls on both. Medians, and the quartiles of the ratio of neighbours.
"""

import sys
import time
from statistics import median, quantiles
from typing import Any

import jax
import jax.numpy as jnp
import optax

import neurojax as nj
from neurojax.learning import fitting

N, BATCH, EPOCHS = 54_016, 64, 61


def learner() -> nj.learning.Perceptron:
    """That of the yardstick."""
    return nj.learning.Perceptron((784, 256, 256, 10), nj.learning.DFA(), optax.sgd(0.03, 0.9))


def bare(net: Any) -> Any:
    """A compiled epoch of steps alone: (state, x, y, order [batches, batch], key) -> state."""

    @jax.jit
    def epoch(state: Any, x: Any, y: Any, order: Any, key: Any) -> Any:
        def one(state: Any, now: Any) -> tuple[Any, None]:
            rows, i = now
            return net.step(state, x[rows], y[rows], key=jax.random.fold_in(key, i))[0], None

        return jax.lax.scan(one, state, (order, jnp.arange(len(order))))[0]

    return epoch


def measured(n: int = N, epochs: int = EPOCHS) -> tuple[list[float], list[float]]:
    """Microseconds a batch of `fit` and of bare steps, epoch by epoch, the first left out."""
    key, net = jax.random.key(0), learner()
    x = jax.random.uniform(key, (n, 784))
    y = jax.random.randint(key, (n,), 0, 10)
    steps, state = bare(net), net.init(key)
    order = jax.block_until_ready(fitting.shuffled(key, n, BATCH))
    steps(state, x, y, order, key)
    found: tuple[list[float], list[float]] = [], []
    per_batch, since = 1e6 / len(order), [time.process_time()]

    def hook(epoch: int, seen: dict[str, float]) -> None:
        found[0].append((time.process_time() - since[0]) * per_batch)
        begun = time.process_time()
        jax.block_until_ready(steps(state, x, y, order, key))
        since[0] = time.process_time()
        found[1].append((since[0] - begun) * per_batch)

    nj.fit(net, (x, y), key=key, epochs=epochs, batch_size=BATCH, progress=False, hook=hook)
    return found[0][1:], found[1][1:]


if __name__ == "__main__":
    fit, steps = measured()
    low, _, high = quantiles([100 * (a / b - 1) for a, b in zip(fit, steps, strict=True)])
    more = 100 * (median(fit) / median(steps) - 1)
    sys.stdout.write(
        f"fit {median(fit):.0f} us a batch, bare {median(steps):.0f}: {more:.1f}% more"
        f" ({low:.1f} to {high:.1f})\n"
    )
