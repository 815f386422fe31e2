"""Options of the experiment, what suits each data set, and the ranges allowed.

`Config` is what is typed, filled in and written; `_options.part(config, Network)` and so on, for
the five classes that it inherits, is what functions take.
"""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from experiments import _options, _run
from experiments._devices import Synapse, Synapses, Update, Write
from experiments._options import Need, none_of, one_of, other_than
from neurojax._check import MOST
from neurojax.data.event_sets import MADE
from neurojax.data.event_sets import NAMES as EVENTS

_T = TypeVar("_T")
if TYPE_CHECKING:
    Preset = Annotated[_T, "never None once `resolved`"]
else:
    Preset = _T | None
UNSET: Any = None
_TUNED = ("mnist", "digits", MADE)
_OTHER = "other data"


def _one_of(names: str, option: str, *values: Any) -> Need:
    return one_of(names, option, *values, filled=True)


_LOOP = (
    _one_of("radius p_rewire", "recurrence", "local"),
    _one_of("gain_recurrent learn_recurrence", "recurrence", "local", "dense"),
    Need(
        "learn_recurrence", "p_rewire", "--p-rewire below 1",
        lambda c: c.recurrence != "local" or c.p_rewire < 1, filled=True,
    ),
    Need(
        "gain_forward", "hidden", "two hidden layers", lambda c: len(c.hidden) > 1, filled=True
    ),
)  # fmt: skip
_RATES = Need(
    "target_rate", "homeostasis", "--homeostasis or --rate-penalty above 0",
    lambda c: c.homeostasis or c.rate_penalty, filled=True,
)  # fmt: skip
_OF_DEVICES = "update write n_states dynamic_range sigma_d2d sigma_c2c w_max"
_OF_HIDDEN = (
    "lr rate_penalty feedback bandwidth redraw_feedback modulators kappa_e trace_decay window"
    " window_width reset_trace learn_recurrence learn_readout"
)


@dataclass(frozen=True)
class Network:
    """Hidden layers on a ring, each heard by the readout. Times are in ms."""

    hidden: Preset[tuple[int, ...]] = UNSET
    """Neurons of each hidden layer."""
    neuron: Literal["lif", "alif"] = "lif"
    """alif: its threshold rises at each spike."""
    tau_mem: Preset[float] = UNSET
    """Membrane time constant, ms."""
    tau_spread: float = 0.0
    """Mixed time constants: each neuron's is tau_mem exp(u), u uniform within this."""
    r_mem: Preset[float] = UNSET
    """Membrane resistance, MOhm."""
    reset: Literal["hard", "subtract"] = "hard"
    """After a spike: back to 0 mV, or down by the threshold."""
    t_ref: float | None = None
    """Refractory time, ms; without, none."""
    beta_adapt: float = 0.1
    """Rise of the threshold a spike, mV."""
    tau_adapt: float = 20.0
    """Decay of the threshold, ms."""
    winners: int | None = None
    """k-WTA in each hidden layer: how many neurons may fire in a step; without, all."""
    recurrence: Preset[Literal["local", "dense", "none"]] = UNSET
    """local: a ring, all within --radius connected, a part --p-rewire sent far away."""
    learn_recurrence: bool = True
    """Weights within a hidden layer learn; those sent far away never do."""
    radius: int = 16
    """Neighbours heard on each side."""
    p_rewire: float = 0.1
    """Part of the synapses sent far away."""
    gain_in: Preset[float] = UNSET
    """Initial weights from the input: standard deviation times sqrt(fan-in)."""
    gain_forward: float = 2.0
    """The same between hidden layers."""
    gain_recurrent: Preset[float] = UNSET
    """The same within a hidden layer."""
    freeze_hidden: bool = False
    """Control: only the readout learns."""
    readout: Literal["leaky", "spiking"] = "leaky"
    """spiking: LIF populations that inhibit one another."""
    readout_density: float = 0.05
    """Part of each hidden layer that a readout neuron hears, in (0, 1]."""
    readout_population: int = 10
    """Readout neurons a class."""
    learn_readout: bool = True
    """Weights onto the readout learn."""
    tau_out: Preset[float] = UNSET
    """Readout time constant, ms."""
    inhibition: float = 1.0
    """Weight of the lateral inhibition."""

    needs: ClassVar[tuple[Need, ...]] = (
        _one_of("beta_adapt tau_adapt", "neuron", "alif"), *_LOOP,
        _one_of("inhibition", "readout", "spiking"),
    )  # fmt: skip
    whole: ClassVar = dict(readout_population=(1, MOST), radius=(1, MOST), winners=(1, MOST))
    within: ClassVar = dict(
        tau_mem="(0, inf)", tau_spread="[0, 10]", r_mem="(0, inf)", t_ref="[0, inf)",
        beta_adapt="[0, inf)", tau_adapt="(0, inf)", p_rewire="[0, 1]", gain_in="[0, inf)",
        gain_forward="[0, inf)", gain_recurrent="[0, inf)", readout_density="(0, 1]",
        tau_out="(0, inf)", inhibition="[0, inf)",
    )  # fmt: skip


@dataclass(frozen=True)
class Learning:
    """Who teaches, what a synapse remembers, and how large its steps are."""

    epochs: Preset[int] = UNSET
    """Passes over the training pictures; with --resume it may be more than before."""
    batch_size: Preset[int] = UNSET
    """Pictures a weight change; what is left over in an epoch waits for the next shuffle."""
    teacher: Literal["soft", "hard"] = "soft"
    """How classes compete: softmax over the scores, or the leader alone."""
    gain: Preset[float] = UNSET
    """Slope of the softmax over scores."""
    margin: Preset[float] = UNSET
    """No error below this (soft), no error once the target leads by this (hard)."""
    feedback: Preset[Literal["broadcast", "symmetric"]] = UNSET
    """Errors come back through fixed random weights, or through those of the readout."""
    bandwidth: int | None = None
    """Channels of the broadcast error; without, classes - 1, all there is."""
    redraw_feedback: bool = False
    """Control: new random feedback for every batch."""
    modulators: int = 0
    """Neuromodulators that gate learning; judge them with --optimiser sgd."""
    window: Literal["triangle", "boxcar", "spike"] = "triangle"
    """When a neuron's synapses become eligible: near its threshold, or at its spikes."""
    window_width: Preset[float] = UNSET
    """Half-width of the triangle, width of the boxcar, mV."""
    kappa_e: float = 0.95
    """Decay of the eligibility in a step."""
    trace_decay: float | None = None
    """Decay of the presynaptic trace in a step; without, that of the membrane."""
    reset_trace: bool = True
    """A spike of the receiver clears its presynaptic traces."""
    target_rate: Preset[float] = UNSET
    """Spikes a neuron and step."""
    homeostasis: float = 0.5
    """How fast thresholds follow, mV per unit of rate and batch; anneals to a tenth."""
    rate_penalty: float = 0.0
    """Weight of the rate's difference from target in the learning signal."""
    optimiser: Literal["adam", "sgd", "momentum"] = "adam"
    """What turns the changes that the rule asks for into steps; momentum is 0.9."""
    lr: Preset[float] = UNSET
    """Learning rate of all but the readout; falls along a cosine to 0."""
    lr_readout: Preset[float] = UNSET
    """Learning rate of the readout; falls with the other."""
    weight_decay: Preset[float] = UNSET
    """Part of a weight that it loses in a step, per unit of learning rate."""
    average: Preset[float] = UNSET
    """Decay in a batch of the average of weights that is evaluated; 0: none."""

    needs: ClassVar[tuple[Need, ...]] = (
        _one_of("gain", "teacher", "soft"),
        _one_of("bandwidth redraw_feedback", "feedback", "broadcast"),
        _one_of("window_width", "window", "triangle", "boxcar"),
        _one_of("lr_readout", "learn_readout", True), _RATES,
        _one_of(_OF_HIDDEN, "freeze_hidden", False),
    )  # fmt: skip
    whole: ClassVar = {n: (1, MOST) for n in ("epochs", "batch_size", "bandwidth")} | {
        "modulators": (0, MOST)
    }
    within: ClassVar = dict(
        gain="(0, inf)", margin="[0, inf)", window_width="(0, inf)", kappa_e="[0, 1]",
        trace_decay="[0, 1]", target_rate="[0, 1]", homeostasis="[0, inf)",
        rate_penalty="[0, inf)", lr="[0, inf)", lr_readout="[0, inf)", weight_decay="[0, inf)",
        average="[0, 1)",
    )  # fmt: skip


@dataclass(frozen=True)
class Devices:
    """What holds the weights, if not numbers."""

    synapse: Synapse = "ideal"
    """What holds weights: numbers, or devices by how they respond to pulses."""
    update: Update = "bidirectional"
    """Which of a pair receive pulses."""
    write: Write = "exact"
    """First weights by pulses for each one (exact) or for the nominal one (open-loop)."""
    n_states: int = 64
    """States of each device."""
    nonlinearity: float = 2.0
    """A step up at G_max is e^-nonlinearity of one at G_min."""
    dynamic_range: float = 10.0
    """G_max / G_min."""
    sigma_d2d: float = 0.0
    """Relative variation of each parameter from device to device."""
    sigma_c2c: float = 0.0
    """Noise of a pulse, in parts of the range."""
    w_max: Preset[float] = UNSET
    """The weight of a pair at its ends."""

    needs: ClassVar[tuple[Need, ...]] = (
        other_than(_OF_DEVICES, "synapse", "ideal", filled=True),
        _one_of("nonlinearity", "synapse", "exponential", "querlioz"),
    )
    whole: ClassVar = dict(n_states=(2, _run.STATES))
    within: ClassVar = dict(
        nonlinearity="(0, 20]", dynamic_range="(1, inf)", sigma_d2d="[0, 1]", sigma_c2c="[0, 1]",
        w_max="(0, inf)",
    )  # fmt: skip

    @property
    def synapses(self) -> Synapses:
        """Which devices, and how they are programmed."""
        return Synapses(
            self.synapse, self.update, self.n_states, self.nonlinearity, self.dynamic_range,
            self.sigma_d2d, self.sigma_c2c or None, write=self.write,
        )  # fmt: skip


@dataclass(frozen=True)
class Data(_run.Data):
    """What to learn from, and how it is shown."""

    dataset: str = "digits"
    """digits, mnist1d or moving-digits (embedded), mnist, idx (four IDX files), nmnist, shd, ssc,
    or an image classification set of tfds."""
    bin_ms: float | None = None
    """Of a set of events: ms of a recording in each step of 1 ms; without, what suits the set."""
    inputs: Preset[Literal["raw", "centred"]] = UNSET
    """centred: each pixel less its mean over the training pictures, over the spread of them all."""
    augment: Preset[Literal["none", "weak", "affine", "mirror"]] = UNSET
    """Random affine maps of training pictures, weak is half as strong; or half of them mirrored."""
    input_dropout: Preset[float] = UNSET
    """Part of the pixels left out at random in training."""
    shuffle_labels: bool = False
    """Control: train on labels that mean nothing."""
    presentation: Literal["static", "rows"] = "static"
    """rows: the picture is read row by row and decided at the end."""
    encoding: Literal["direct", "poisson", "latency"] = "direct"
    """Pixels as currents, as rates of random spikes, or as the time of one spike."""
    max_rate: float = 200.0
    """Spikes a second of a white pixel."""
    n_steps: int = 20
    """Steps of 1 ms a static picture is shown."""
    start: Preset[int] = UNSET
    """Step from which error and scores count; negative: that many steps before the end."""

    needs: ClassVar[tuple[Need, ...]] = (
        _one_of("encoding n_steps", "presentation", "static"),
        _one_of("max_rate", "encoding", "poisson"),
        _one_of("bin_ms", "dataset", *EVENTS),
        none_of(
            "presentation encoding n_steps max_rate inputs augment input_dropout", "dataset",
            *EVENTS, text="a --dataset of pictures", filled=True,
        ),
    )  # fmt: skip
    whole: ClassVar = dict(n_steps=(1, MOST), start=(-MOST, MOST))
    within: ClassVar = dict(input_dropout="[0, 1)", max_rate="(0, 1000]", bin_ms="(0, inf)")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/wta_broadcast")
    report_hardware: bool = False
    """Price what has been trained, inference and learning, on published chips."""


@dataclass(frozen=True)
class Config(Network, Learning, Devices, Data, Run):
    """Every switch of the experiment; None takes what suits the data set (`PRESETS`)."""

    def __post_init__(self):
        _check(self)

    @classmethod
    def default_text(cls, name: str) -> str | None:
        """What the presets give: of the first that knows the field, then what others change."""
        if next(f.default for f in fields(cls) if f.name == name) is not None:
            return None
        given = {k: preset[name] for k, preset in PRESETS.items() if name in preset}
        shown = {k: _options.shown(value) for k, value in given.items()}
        if name in ("epochs", "batch_size"):
            shown[_OTHER] = "by their number"
        usual = next(iter(shown.values()), None)
        others = [f"{k}: {x}" for k, x in shown.items() if x != usual]
        return None if usual is None else "; ".join([usual, *others])


PRESETS: dict[str, dict[str, Any]] = {
    "static": dict(
        epochs=10, batch_size=64, inputs="raw", augment="affine", input_dropout=0.0,
        hidden=(512, 512), tau_mem=9.5, r_mem=2.0, recurrence="local", gain_in=2.0,
        gain_recurrent=0.3, tau_out=9.5, start=5, gain=6.0, margin=0.02, window_width=0.5,
        target_rate=0.05, lr=4e-3, lr_readout=5e-3, weight_decay=0.1, feedback="broadcast",
        average=0.998, w_max=0.6,
    ),
    "rows": dict(
        epochs=10, batch_size=64, inputs="raw", augment="none", input_dropout=0.0, hidden=(512,),
        tau_mem=4.5, r_mem=3.0, recurrence="dense", gain_in=3.0, gain_recurrent=0.5, tau_out=19.5,
        start=-10, gain=30.0, margin=0.0, window_width=1.0, target_rate=0.08,
        lr=5e-3, lr_readout=1e-2, weight_decay=0.0, feedback="broadcast", average=0.998, w_max=1.0,
    ),
    "digits": dict(
        epochs=40, batch_size=32, augment="weak", hidden=(256, 256), gain=12.0, weight_decay=0.0,
        average=0.99, w_max=1.0,
    ),
    _OTHER: dict(
        inputs="centred", augment="none", hidden=(1024,), recurrence="none", average=0.99,
        feedback="symmetric",
    ),
    MADE: dict(
        epochs=12, batch_size=64, hidden=(512,), tau_mem=5.0, recurrence="dense",
        gain_recurrent=1.0, gain=6.0, weight_decay=0.0, average=0.99, start=24,
        target_rate=0.08, w_max=1.0,
    ),
    "events": dict(inputs="raw", augment="none", hidden=(256,), average=0.99, start=0),
    "devices": dict(average=0.0),
}  # fmt: skip


def resolved(config: Config, n_train: int | None = None) -> Config:
    """The configuration with every None that a preset knows filled in.

    MNIST and the digits, by these names, have settings found on their own validation pictures.
    Any other data, MNIST in a folder of IDX files included, get what does no harm to data of
    which nothing is known but their number, `n_train` pictures to learn from: no augmentation,
    inputs centred where they are currents, one layer without recurrence, errors back along the
    readout's own synapses, and batches and epochs as `schedule` has them. Raises `ValueError`
    where that needs `n_train`.
    """
    events = PRESETS["events"] if config.dataset in EVENTS else {}
    preset = PRESETS[config.presentation] | events | PRESETS.get(config.dataset, {})
    if config.dataset not in _TUNED:
        if None in (config.epochs, config.batch_size):
            preset |= schedule(n_train, config.batch_size)
        if config.presentation == "static" and not events:
            preset |= PRESETS[_OTHER]
        if config.encoding != "direct":  # rates and times are those of pixels in [0, 1]
            preset["inputs"] = "raw"
    if config.synapse != "ideal":
        preset |= PRESETS["devices"]
    return replace(config, **{k: v for k, v in preset.items() if getattr(config, k) is None})


def schedule(n_train: int | None, batch_size: int | None = None) -> dict[str, int]:
    """Batch size and epochs for `n_train` pictures: about 1,000 weight changes, or 10 epochs.

    A batch is a power of two near a 32nd of the pictures, from 8 to 64, unless it is given.
    """
    if n_train is None:
        raise ValueError("n_train must be the number of training pictures; got None")
    batch_size = batch_size or min(n_train, max(8, min(64, 2 ** round(math.log2(n_train / 32)))))
    epochs = max(10, math.ceil(1000 / max(1, n_train // batch_size)))
    return dict(batch_size=batch_size, epochs=epochs)


def refuse_idle(config: Config, c: Config) -> None:
    """Refuse options that change nothing; `c` is `config` resolved."""
    unset = {f.name: f.default for f in fields(config)}
    timed = replace(config, epochs=c.epochs, batch_size=c.batch_size)  # may go by n_train
    usual = lambda name: getattr(resolved(replace(timed, **{name: unset[name]})), name)  # noqa: E731
    found = [need for need in _options.needs(type(config)) if need.filled]
    _options.refuse_idle(c, found, usual)


def _check(c: Config) -> None:
    """Refuse numbers out of range, naming the option."""
    _run.require_sound(c)
    if c.hidden is not None and min(c.hidden, default=0) < 1:
        raise ValueError(f"--hidden must name one or more layers of >= 1 neurons; got {c.hidden}")
    _run.require_whole(c, hidden=(1, MOST))
    require_currents(c)
    if c.synapse != "ideal" and c.average:
        raise ValueError(f"--average must be 0, as devices hold no average; got {c.average}")


def require_currents(data: Data) -> None:
    """Refuse what takes pixels out of [0, 1], where rates or times are made of them."""
    if (data.presentation, data.encoding) == ("static", "direct"):
        return
    unless = "unless pixels of a static picture are currents"
    if data.inputs == "centred":
        raise ValueError(f"--inputs must be raw {unless}; got centred")
    if data.input_dropout:
        raise ValueError(f"--input-dropout must be 0 {unless}; got {data.input_dropout:g}")
