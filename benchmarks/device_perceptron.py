"""Seconds to equal accuracy: a perceptron on linear 64-level devices, here and in aihwkit.

    python benchmarks/device_perceptron.py neurojax --data-dir path/to/mnist
    path/to/peer/python benchmarks/device_perceptron.py aihwkit --data-dir path/to/mnist

784-100-10 with ReLU, batches of 64, plain SGD on the cross-entropy, one learning rate of each
system's own, weights in +-w_max of each layer, devices of constant step without noise;
validation on 5,000 training pictures left out, not timed. The work differs: aihwkit updates
picture by picture with trains of coincident pulses, we sum a batch and send at most one pulse
a device. Prints a line a stretch of batches, last of all JSON with the seconds to 90 and 92%:
the first stretch, in which programs are compiled and loaded, counts there as the median one.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np

BATCH, HIDDEN, N_STATES, REACH = 64, 100, 64, 10.0


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


def neurojax(lr: float, seed: int):
    """What trains on a stretch of batches, and what decides."""
    import jax
    import jax.numpy as jnp

    from experiments._perceptron import Perceptron, Program, Setting

    key = jax.random.key(seed)
    setting = Setting(float(N_STATES), 10.0, 0.0, lr, 0.75, 0.25, seed)
    make = jax.jit(lambda key: Perceptron.fresh(
        Program("linear", "bidirectional", HIDDEN), setting, 784, 10, key))  # fmt: skip

    @jax.jit
    def learn(net, x, y, key):
        def batch(net, now):
            x, y, key = now
            return net.trained(x, y, jnp.asarray(lr), key), None

        return jax.lax.scan(batch, net, (x, y, jax.random.split(key, len(y))))[0]

    net = make(key)

    def train(i: int, x, y):
        nonlocal net
        net = jax.block_until_ready(learn(net, x, y, jax.random.fold_in(key, i)))

    decide = jax.jit(lambda net, x: net(x)[1].argmax(1))
    return train, lambda x: np.asarray(decide(net, x))


def aihwkit(lr: float, seed: int):
    """The same in aihwkit: analogue layers, pulsed updates."""
    import torch
    from aihwkit.nn import AnalogLinear
    from aihwkit.optim import AnalogSGD
    from aihwkit.simulator.configs import ConstantStepDevice, SingleRPUConfig

    torch.manual_seed(seed)

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

    net = torch.nn.Sequential(layer(784, HIDDEN), torch.nn.ReLU(), layer(HIDDEN, 10))
    descent = AnalogSGD(net.parameters(), lr=lr)
    descent.regroup_param_groups(net)
    wrong = torch.nn.CrossEntropyLoss()

    def train(i: int, x, y):
        for now, target in zip(torch.from_numpy(x), torch.from_numpy(y).long(), strict=True):
            descent.zero_grad()
            wrong(net(now), target).backward()
            descent.step()

    def decide(x):
        with torch.no_grad():
            return net(torch.from_numpy(x)).argmax(1).numpy()

    return train, decide


def reached(curve: list[tuple[float, float]], accuracy: float) -> float | None:
    """Seconds to `accuracy`, start-up left out; None if it was never there."""
    stretches = np.diff([seconds for seconds, _ in curve], prepend=0.0)
    stretches[0] = np.median(stretches[1:])
    there = np.flatnonzero([seen >= accuracy for _, seen in curve])
    return round(float(stretches[: there[0] + 1].sum()), 3) if there.size else None


def main() -> None:
    """Train once and print how accuracy grew with time."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("system", choices=("neurojax", "aihwkit"))
    options.add_argument("--data-dir", type=Path, required=True)
    options.add_argument("--lr", type=float, default=0.2)
    options.add_argument("--stretch", type=int, default=25)
    options.add_argument("--seed", type=int, default=0)
    c = options.parse_args()
    x, y, x_val, y_val = pictures(c.data_dir)
    order = np.random.default_rng(c.seed).permutation(len(y))
    n = len(y) // (BATCH * c.stretch)
    rows = order[: n * BATCH * c.stretch].reshape(n, c.stretch, BATCH)
    begin = time.perf_counter()
    train, decide = {"neurojax": neurojax, "aihwkit": aihwkit}[c.system](c.lr, c.seed)
    seconds, curve = time.perf_counter() - begin, []
    for i, picked in enumerate(rows):
        begin = time.perf_counter()
        train(i, x[picked], y[picked])
        seconds += time.perf_counter() - begin
        curve.append((seconds, float((decide(x_val) == y_val).mean())))
        print(f"{(i + 1) * c.stretch:4} batches {seconds:7.2f} s {100 * curve[-1][1]:6.2f}%")
    to = {f"seconds_to_{a}": reached(curve, a / 100) for a in (90, 92)}
    print(json.dumps({"system": c.system, "lr": c.lr, "seed": c.seed} | to))


if __name__ == "__main__":
    main()
