"""Train a convolutional spiking network, by a surrogate gradient or by the local rule.

    python -m experiments.convolution --dataset mnist --out runs/convolution

Maps of leaky neurons with shared weights, pools between them (`nj.convolutional`), pictures as
currents. What asks for changes of weights is a gradient through time (`neurojax.learning.bptt`)
or the broadcast, three-factor rule (`neurojax.learning.wta_broadcast`), which sums what each
place of a shared weight asks for. Settings were chosen on validation pictures. A run may go on
to more epochs: --resume and a larger --epochs; rates then fall along the longer cosine.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

import neurojax as nj
from experiments import _folder, _options, _programs, _run, _training
from experiments._config import UNSET, Preset
from experiments._options import Need, one_of
from neurojax._check import MOST
from neurojax._compile import released
from neurojax.data import Dataset, Split, load
from neurojax.learning import WTABroadcast, bptt, fitting
from neurojax.learning._progress import Progress


@dataclass(frozen=True)
class Network:
    """Maps between the picture and the classes."""

    features: tuple[int, ...] = (64, 128)
    """Maps of each layer; pools of 2 x 2 lie between layers, and before the readout."""
    kernel: int = 3
    """Width of the windows, odd."""
    tau_mem: float = 2.0
    """Membrane time constant, ms."""
    init_gain: float = 3.0
    """First weights: standard deviation times sqrt(fan-in)."""
    n_steps: int = 8
    """Steps of 1 ms that a picture is shown."""
    start: int = 2
    """Step from which scores count."""

    whole: ClassVar = dict(features=(1, MOST), kernel=(1, MOST), n_steps=(1, MOST), start=(0, MOST))
    within: ClassVar = dict(tau_mem="(0, inf)", init_gain="[0, inf)")


@dataclass(frozen=True)
class Learning:
    """Who teaches, and how large its steps are."""

    rule: Literal["surrogate", "local"] = "surrogate"
    """A gradient through time and space; or local traces and a broadcast error."""
    epochs: int = 20
    """Passes over the training pictures; with --resume it may be more than before."""
    batch_size: int = 128
    """Pictures a weight change; what is left over in an epoch waits for the next shuffle."""
    lr: Preset[float] = UNSET
    """Learning rate of Adam; falls along a cosine to 0."""
    weight_decay: float = 0.0
    """Part of a weight that it loses in a step, per unit of learning rate."""
    average: float = 0.99
    """Decay in a batch of the average of weights that is evaluated; 0: none."""
    gain: float = 10.0
    """Slope of the softmax over scores, per mV."""
    slope: float = 2.0
    """Derivative of a spike: 1 / (1 + slope |v - v_th|)^2, slope per mV."""
    augment: Literal["none", "shift", "affine"] = "shift"
    """Training pictures moved by up to 2 pixels each way; or turned, scaled and sheared too."""
    flip: bool = False
    """Half of the training pictures mirrored left to right."""

    needs: ClassVar[tuple[Need, ...]] = (one_of("slope", "rule", "surrogate"),)
    whole: ClassVar = dict(epochs=(1, MOST), batch_size=(1, MOST))
    within: ClassVar = dict(
        lr="[0, inf)", weight_decay="[0, inf)", average="[0, 1)", gain="(0, inf)", slope="(0, inf)"
    )


@dataclass(frozen=True)
class Config(Network, Learning, _run.Data, _run.Run):
    """Every option."""

    out: Path = Path("runs/convolution")

    def __post_init__(self):
        _run.require_sound(self)
        if not self.start < self.n_steps:
            raise ValueError(f"--start must be below --n-steps, {self.n_steps}; got {self.start}")

    @classmethod
    def default_text(cls, name: str) -> str | None:
        """The learning rate goes by the rule."""
        told = [f"{_options.shown(lr)} ({rule})" for rule, lr in _RATES.items()]
        return "; ".join(told) if name == "lr" else None


_RATES = {"surrogate": 3e-3, "local": 3e-3}


def learner(
    c: Config, size: tuple[int, int, int], n_classes: int, n_batches: int, key: Key[Array, ""]
) -> WTABroadcast:
    """The network of pictures of `size` (channels, height, width) and what makes it learn."""
    decay = np.exp(-1 / c.tau_mem)
    neuron = nj.LIF(tau_mem=c.tau_mem, r_mem=1 / (1 - decay))  # a spike by w moves it by w mV
    net = nj.convolutional(
        size, c.features, n_classes, neuron=neuron, kernel=c.kernel, gain_in=c.init_gain,
        gain_forward=c.init_gain,
    )  # fmt: skip
    local = c.rule == "local"
    tone = nj.Homeostasis(rate=0.5 if local else 0.0)
    system = nj.wta_broadcast.system(
        nj.fold(key, "system"), net, homeostasis=tone, teacher=nj.SoftWTA(c.gain, 0.0),
        n_steps=c.n_steps, start=c.start,
    )  # fmt: skip
    rate = optax.cosine_decay_schedule(c.lr, n_batches)
    tx = optax.adamw(rate, weight_decay=c.weight_decay)
    if local:
        anneal = optax.cosine_decay_schedule(1.0, n_batches, alpha=0.1)
        return WTABroadcast(system, tx, average=c.average, anneal=anneal)
    with jax.ensure_compile_time_eval():  # a part of the program, not of what it computes
        spike = nj.surrogate.fast_sigmoid(c.slope)
    return bptt.learner(system, tx, spike=spike, gain=c.gain, average=c.average)


def moved(c: Config, key: Key[Array, ""], images: Array) -> Array:
    """Training pictures [B, H, W] or [B, H, W, channels], each changed at random."""
    if c.augment == "affine":
        images = _training.perturbed(_AFFINE, key, images)
    if c.augment == "shift":
        images = jax.vmap(_shifted)(jax.random.split(nj.fold(key, "shift"), len(images)), images)
    if c.flip:
        flipped = jax.random.bernoulli(nj.fold(key, "flip"), 0.5, (len(images),))
        wide = flipped.reshape(-1, *(1,) * (images.ndim - 1))
        images = jnp.where(wide, images[:, :, ::-1], images)
    return images


_AFFINE = _training.Data(augment="affine", input_dropout=0.0)


def _shifted(key: Key[Array, ""], image: Array) -> Array:
    """Moved by -2 to 2 pixels along both axes; what comes in is 0."""
    around = ((2, 2), (2, 2), *((0, 0),) * (image.ndim - 2))
    first = jax.random.randint(key, (2,), 0, 5)
    starts = (*first, *(0,) * (image.ndim - 2))
    return jax.lax.dynamic_slice(jnp.pad(image, around), starts, image.shape)


def flat(key: Key[Array, ""], images: Array) -> Array:
    """Pictures [B, H, W] or [B, H, W, channels] as currents [B, channels H W], map by map."""
    images = images if images.ndim == 3 else jnp.moveaxis(images, -1, 1)
    return images.reshape(len(images), -1)


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    sets = _run.pictures(load(config.dataset, config.data_dir))
    c = replace(config, lr=_RATES[config.rule]) if config.lr is None else config
    n = _run.n_train(sets, c.train_size, c.batch_size)
    _run.refuse_endless(c.epochs, n // c.batch_size)
    with _folder.held(c, sets, may_grow=("epochs",)) as folder:
        return _run_in(folder, c, sets, n)


def _run_in(folder: _folder.Folder, c: Config, sets: Dataset, n: int) -> dict[str, Any]:
    key, n_batches = jax.random.key(c.seed), n // c.batch_size
    train = Split(np.asarray(sets.train.images[:n]), sets.train.labels[:n])
    height, width, *channels = train.images.shape[1:]
    size = (channels[0] if channels else 1, height, width)

    def fresh(key: Array) -> tuple[WTABroadcast, Any]:
        made = learner(c, size, sets.n_classes, c.epochs * n_batches, key)
        return made, made.init(nj.fold(key, "state"))

    made = _programs.Made(fresh, key)  # what cannot be built is refused here
    folder.begin()
    taught, state = made()
    done, state, history = folder.last(state)
    if done == 0 and c.rule == "local":
        settle = released(partial(fitting.settled, taught, batch_size=c.batch_size, encode=flat))
        state = settle(state, jnp.asarray(train.images), key)
    step = released(partial(fitting.stretch, taught, augment=partial(moved, c), encode=flat))
    right = partial(fitting.evaluate, taught, encode=flat, key=key)
    bar, epochs = Progress(c.epochs, n_batches, done), range(done, c.epochs)
    told = _training.train(step, state, train, key, epochs, c.batch_size, bar)
    with bar:
        state, history = _training.recorded(
            told, state, history, folder, bar, c.epochs, n_batches * c.batch_size,
            val=lambda learnt: right(learnt, sets.val), train=lambda learnt: right(learnt, train),
        )  # fmt: skip
    test = float(right(state, sets.test))
    bar.console.print(f"test accuracy {100 * test:.2f}%", style="bold")
    return folder.finish(
        history.metrics(test, n, len(sets.test.labels))
        | _sizes(state)
        | {"rate": bar.means.get("rate")},
        {"learning_curve": history.curve(test)},
    )


def _sizes(state: Any) -> dict[str, int]:
    """Numbers that learn, and pairs that they connect."""
    weights = state.weights.values()
    return {
        "n_weights": sum(int(w.w.size) for w in weights),
        "n_synapses": int(sum(float(w.connectivity.fan_in.sum()) for w in weights)),
    }


if __name__ == "__main__":
    _run.main(Config, run)
