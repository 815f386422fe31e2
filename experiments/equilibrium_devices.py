"""One crossbar read both ways against two programmed apart, under equilibrium propagation.

    python -m experiments.equilibrium_devices --out runs/equilibrium_devices

A net settles on arrays of devices and learns the digits by nudges. Either one array stands
between two layers and is read up and down, or each way has an array of its own, written and
pulsed apart. Accuracy is shown over the size of the nudge and the bits of the converters, over
the number of points, and over the noise of a pulse; networks that differ in numbers alone learn
side by side in one `vmap`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from jaxtyping import Array
from matplotlib.figure import Figure
from rich.console import Console

import hardware as hw
from experiments import _folder, _run
from neurojax import data
from neurojax._check import MOST
from neurojax.learning.equilibrium import Equilibrium

BETAS, BITS = (0.05, 0.2, 0.5, 1.0), (4, 6, 8)
POINTS = (1, 2, 4)
NOISES = (0.0, 0.01, 0.03, 0.1)  # of a pulse, in parts of the range
BETA, BIT, N_POINTS, NOISE = 0.5, 8, 2, 0.01  # what stays while another is varied
N_STATES, W_MAX, COLUMN = 512, 2.0, 4.0  # of a device; of a pair; where the converters end


@dataclass(frozen=True)
class Learning:
    """How long each network learns."""

    epochs: int = 10
    """Passes over the training pictures."""
    hidden: int = 32
    """Neurons of the hidden layer."""
    batch_size: int = 32
    """Pictures a weight change."""
    lr: float = 0.3
    """Learning rate of plain gradient descent."""

    whole: ClassVar = dict(epochs=(1, MOST), hidden=(1, 4096), batch_size=(1, 1150))
    within: ClassVar = dict(lr="(0, inf)")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/equilibrium_devices")
    seeds: int = 3
    """How many networks for each setting, from --seed on."""


@dataclass(frozen=True)
class Config(Learning, Run):
    """How long each network learns, and how many there are."""

    def __post_init__(self):
        _run.require_sound(self)


class Job(NamedTuple):
    """What is compiled as one: networks of several nudges and noises."""

    tied: bool
    bits: int
    n_points: int
    cases: tuple[tuple[float, float], ...]  # |beta| and noise

    @property
    def name(self) -> str:
        """That of its part."""
        return f"{'tied' if self.tied else 'apart'} {self.bits} bits {self.n_points} points"


def jobs() -> list[Job]:
    """All of them; where all else is as it stays, noise is varied too."""
    over_beta = tuple((b, NOISE) for b in BETAS)
    over_noise = tuple((BETA, n) for n in NOISES if n != NOISE)
    found = []
    for tied in (True, False):
        found += [Job(tied, b, N_POINTS, over_beta + over_noise * (b == BIT)) for b in BITS]
        found += [Job(tied, BIT, n, ((BETA, NOISE),)) for n in POINTS if n != N_POINTS]
    return found


def run(config: Config) -> list[dict[str, Any]]:
    """All settings; returns the rows that metrics.json holds."""
    sets, console = data.load("digits"), Console(highlight=False)
    with _folder.held(config, sets) as folder:
        folder.begin()
        rows = []
        for job in jobs():
            found = folder.part(job.name)
            if found is None:
                found = learnt(config, sets, job)
                folder.keep(job.name, found)
            rows += found
            for row in found:
                console.print(_line(row), markup=False)
        folder.finish({"runs": rows}, {"equilibrium": drawn(rows)})
    return rows


def learnt(config: Config, sets: data.Dataset, job: Job) -> list[dict[str, Any]]:
    """Accuracy on the test pictures of each network of a job."""
    pixels = lambda part: jnp.asarray(part.images.reshape(len(part.images), -1))  # noqa: E731
    x, y = pixels(sets.train), jnp.asarray(sets.train.labels)
    n_batches = len(x) // config.batch_size

    def one(seed: Array, beta: Array, noise: Array) -> tuple[Array, Array]:
        net = eqx.tree_at(lambda e: e.beta, _net(config, x.shape[1], sets.n_classes, job), beta)
        key = jax.random.key(seed)
        state = net.init(key, arrays(job.bits, noise))

        def batch(state: Any, step: Array):
            epoch, at = step // n_batches, step % n_batches
            order = jax.random.permutation(jax.random.fold_in(key, epoch), len(x))
            picked = jax.lax.dynamic_slice(order, (at * config.batch_size,), (config.batch_size,))
            state, info = net.step(state, x[picked], y[picked], key=jax.random.fold_in(key, step))
            return state, info["residual"]

        state, residual = jax.lax.scan(batch, state, jnp.arange(config.epochs * n_batches))
        right = net.predict(state, pixels(sets.test)).argmax(1) == jnp.asarray(sets.test.labels)
        return right.mean(), residual[-n_batches:].mean()

    cases = [(config.seed + s, *case) for s in range(config.seeds) for case in job.cases]
    seeds, betas, noises = (jnp.asarray(c) for c in zip(*cases, strict=True))
    quick = {"xla_backend_optimization_level": 0}  # compiling takes longer than learning
    accuracy, residual = jax.jit(jax.vmap(one), compiler_options=quick)(seeds, betas, noises)
    common = {"tied": job.tied, "bits": job.bits, "n_points": job.n_points}
    return [
        common | {"seed": s, "beta": b, "noise": n, "accuracy": float(a), "residual": float(r)}
        for (s, b, n), a, r in zip(cases, accuracy, residual, strict=True)
    ]


def arrays(bits: int, noise: Array) -> Any:
    """Pairs of linear devices about their middle, single random pulses, converters of `bits`."""
    device = hw.Device(hw.linear(N_STATES - 1), sigma_c2c=noise)
    return hw.crossbar(
        device, hw.Bidirectional(hw.Single(N_STATES - 1)), W_MAX, start="middle",
        dac=hw.Quantiser(bits, 1.0), adc=hw.Quantiser(bits, COLUMN),
    )  # fmt: skip


def _net(config: Config, n_in: int, n_classes: int, job: Job) -> Equilibrium:
    return Equilibrium(
        (n_in, config.hidden, n_classes), optax.sgd(config.lr), tied=job.tied,
        n_points=job.n_points, t_free=30, t_nudged=12,
    )  # fmt: skip


def drawn(rows: list[dict[str, Any]]) -> Figure:
    """Three panels: over nudges and bits, over points, over noise; solid where one array."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    colors = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, len(BITS)))
    for tied, style, who in ((True, "-o", "one array"), (False, "--s", "two apart")):
        own = [r for r in rows if r["tied"] == tied]
        some = lambda own=own, **fixed: [r for r in own if fixed.items() <= r.items()]  # noqa: E731
        for bits, color in zip(BITS, colors, strict=True):
            found = some(bits=bits, n_points=N_POINTS, noise=NOISE)
            _curve(axes[0], found, "beta", style, f"{who}, {bits} bits", color)
        _curve(axes[1], some(bits=BIT, beta=BETA, noise=NOISE), "n_points", style, who, None)
        _curve(axes[2], some(bits=BIT, beta=BETA, n_points=N_POINTS), "noise", style, who, None)
    axes[0].set(xscale="log", xlabel="|beta|", ylabel="accuracy on the test digits, %")
    axes[1].set(xlabel="points N", xticks=POINTS)
    axes[2].set(xlabel="noise of a pulse, % of the range")
    for axis in axes:
        axis.legend(fontsize=7)
    return figure


def _curve(axis: Any, rows: list[dict], over: str, style: str, label: str, color: Any) -> None:
    """Mean and spread of all seeds."""
    at = sorted({r[over] for r in rows})
    found = [[100 * r["accuracy"] for r in rows if r[over] == x] for x in at]
    x = [100 * v for v in at] if over == "noise" else at
    mean, spread = [np.mean(f) for f in found], [np.std(f) for f in found]
    axis.errorbar(x, mean, spread, fmt=style, label=label, color=color, ms=4, capsize=2)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{'one array' if row['tied'] else 'two apart'}, {row['bits']} bits, N {row['n_points']},"
        f" |beta| {row['beta']:g}, noise {100 * row['noise']:g}%, seed {row['seed']}:"
        f" {100 * row['accuracy']:.2f}%"
    )


if __name__ == "__main__":
    _run.main(Config, run)
