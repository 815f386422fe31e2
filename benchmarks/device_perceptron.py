"""W5, seconds to equal accuracy: a perceptron on linear 64-level devices, here and in aihwkit.

784-100-10 with ReLU, batches of 64, plain SGD on the cross-entropy, of each system's learning
RATES the one that is fastest, weights in +-REACH / sqrt(fan-in) of each layer, a device of
constant step without noise for each, its zero in the middle. After every STRETCH batches the
validation pictures, 5,000 of MNIST's training set left out, are decided, which is not timed; the
clock stops at ACCURACY. The work differs: aihwkit updates picture by picture with trains of
coincident pulses, we sum a batch and send at most one pulse a device.

    NEUROJAX_DATA=FOLDER python -m benchmarks.device_perceptron neurojax

prints the seconds of one system at each rate, of `aihwkit` in an environment that has it.
"""

import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import workloads
from benchmarks.workloads import Case

BATCH, HIDDEN, N_STATES, REACH = 64, 100, 64, 10.0
STRETCH, ACCURACY = 25, 0.92
RATES = 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0


class Learner(NamedTuple):
    """One system: nothing in it is compiled anew for another start."""

    start: Callable[[int], Any]  # seed -> network
    train: Callable[[Any, int, np.ndarray, np.ndarray], Any]  # network after a stretch of batches
    decide: Callable[[Any, np.ndarray], np.ndarray]  # classes of pictures


def idx(folder: Path, name: str) -> np.ndarray:
    """One IDX file of bytes, raw or gzipped."""
    file = folder / name
    raw = (
        file.read_bytes()
        if file.exists()
        else gzip.decompress((folder / f"{name}.gz").read_bytes())
    )
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def pictures(folder: Path) -> tuple[np.ndarray, ...]:
    """Training and validation pictures [n, 784] in [0, 1] and classes."""
    x = idx(folder, "train-images-idx3-ubyte").reshape(-1, 784).astype(np.float32) / 255
    y = idx(folder, "train-labels-idx1-ubyte").astype(np.int32)
    order = np.random.default_rng(0).permutation(len(y))
    train, val = order[5000:], order[:5000]
    return x[train], y[train], x[val], y[val]


def case(learner: Learner, notes: str = "") -> Case:
    """Train from a new seed each time, until the validation pictures are known well enough."""
    x, y, x_val, y_val = pictures(workloads.mnist())
    seeds = iter(range(1_000_000))
    reached: list[float] = []

    def run() -> float:
        seed, seconds = next(seeds), 0.0
        order = np.random.default_rng(seed).permutation(len(y))
        order = order[: len(y) // (BATCH * STRETCH) * BATCH * STRETCH]
        net = learner.start(seed)
        for i, rows in enumerate(order.reshape(-1, STRETCH, BATCH)):
            begin = time.perf_counter()
            net = learner.train(net, i, x[rows], y[rows])
            seconds += time.perf_counter() - begin
            accuracy = float((learner.decide(net, x_val) == y_val).mean())
            if accuracy >= ACCURACY:
                reached.append(accuracy)
                return seconds
        raise RuntimeError(f"stays below {ACCURACY} on validation for an epoch")

    return Case(run, lambda: {"val_accuracy": reached[-1]}, notes, calls=1)


def neurojax(lr: float) -> Learner:
    """Ours, on devices in crossbars."""
    import jax
    import jax.numpy as jnp

    from experiments._perceptron import Perceptron, Program, Setting

    program = Program("linear", "one-side", HIDDEN)
    setting = Setting(float(N_STATES), 10.0, 0.0, lr, 0.75, 0.25, 0)
    make = jax.jit(lambda key: Perceptron.fresh(program, setting, 784, 10, key))

    @jax.jit
    def learn(net, x, y, key):
        def batch(net, now):
            x, y, key = now
            return net.trained(x, y, jnp.asarray(lr), key), None

        return jax.lax.scan(batch, net, (x, y, jax.random.split(key, len(y))))[0]

    decide = jax.jit(lambda net, x: net(x)[1].argmax(1))
    return Learner(
        lambda seed: make(jax.random.key(seed)),
        lambda net, i, x, y: jax.block_until_ready(learn(net, x, y, jax.random.key(i))),
        lambda net, x: np.asarray(decide(net, x)),
    )


def aihwkit(lr: float) -> Learner:
    """The same in aihwkit: analogue layers, pulsed updates."""
    import torch
    from aihwkit.nn import AnalogLinear
    from aihwkit.optim import AnalogSGD
    from aihwkit.simulator.configs import ConstantStepDevice, SingleRPUConfig

    wrong = torch.nn.CrossEntropyLoss()

    def layer(n_in: int, n_out: int):
        w_max = REACH / n_in**0.5
        device = ConstantStepDevice(
            w_max=w_max, w_min=-w_max, dw_min=2 * w_max / N_STATES, w_max_dtod=0.0,
            w_min_dtod=0.0, dw_min_dtod=0.0, dw_min_std=0.0, up_down_dtod=0.0,
        )  # fmt: skip
        config = SingleRPUConfig(device=device)
        config.forward.is_perfect = config.backward.is_perfect = True
        made = AnalogLinear(n_in, n_out, bias=False, rpu_config=config)
        made.set_weights(torch.randn(n_out, n_in) / n_in**0.5)
        return made

    def start(seed: int):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(layer(784, HIDDEN), torch.nn.ReLU(), layer(HIDDEN, 10))
        descent = AnalogSGD(net.parameters(), lr=lr)
        descent.regroup_param_groups(net)
        return net, descent

    def train(made, i: int, x, y):
        net, descent = made
        for now, target in zip(torch.from_numpy(x), torch.from_numpy(y).long(), strict=True):
            descent.zero_grad()
            wrong(net(now), target).backward()
            descent.step()
        return made

    def decide(made, x):
        with torch.no_grad():
            return made[0](torch.from_numpy(x)).argmax(1).numpy()

    return Learner(start, train, decide)


def numbers(lr: float) -> Learner:
    """The floor: the same perceptron with plain numbers for weights."""
    import jax
    import jax.numpy as jnp

    def forward(net, x):
        hidden = jax.nn.relu(x @ net[0])
        return hidden, hidden @ net[1]

    @jax.jit
    def learn(net, x, y):
        def batch(net, now):
            x, y = now
            hidden, scores = forward(net, x)
            wrong = (jax.nn.softmax(scores) - jax.nn.one_hot(y, 10)) / BATCH
            behind = (wrong @ net[1].T) * (hidden > 0)
            return (net[0] - lr * x.T @ behind, net[1] - lr * hidden.T @ wrong), None

        return jax.lax.scan(batch, net, (x, y))[0]

    def start(seed: int):
        rng = np.random.default_rng(seed)
        draw = lambda n, m: jnp.asarray(rng.standard_normal((n, m)) / n**0.5, jnp.float32)  # noqa: E731
        return draw(784, HIDDEN), draw(HIDDEN, 10)

    decide = jax.jit(lambda net, x: forward(net, x)[1].argmax(1))
    return Learner(
        start,
        lambda net, i, x, y: jax.block_until_ready(learn(net, x, y)),
        lambda net, x: np.asarray(decide(net, x)),
    )


SYSTEMS = {"neurojax": neurojax, "aihwkit": aihwkit, "numbers": numbers}


def search(system: str, repeats: int = 5) -> None:
    """Print the median seconds of one system at each learning rate."""
    for lr in RATES:
        learner = case(SYSTEMS[system](lr))
        try:
            learner.run()  # compiles
            seconds = sorted(learner.run() for _ in range(repeats))
        except RuntimeError as stuck:
            print(f"lr {lr:4}  {stuck}", flush=True)
        else:
            spread = f"{seconds[0]:.2f}-{seconds[-1]:.2f}"
            print(f"lr {lr:4}  {median(seconds):.2f} s ({spread})", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SYSTEMS:
        sys.exit(f"usage: python -m benchmarks.device_perceptron {{{','.join(SYSTEMS)}}}")
    try:
        search(sys.argv[1])
    except LookupError as error:
        sys.exit(f"error: {error}")
