"""Which learner a name on the command line is, which options it reads, and its own defaults."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from experiments import _config, _options, _training, surrogate_reference, wta_broadcast
from experiments._options import Need, part
from experiments._training import Task
from neurojax import learning
from neurojax.learning import Perceptron, WTABroadcast, bptt, equilibrium, perceptron
from neurojax.learning.learner import error
from neurojax.learning.perceptron import asked
from neurojax.network import fold
from neurojax.neurons.surrogate import fast_sigmoid
from neurojax.weights import Weights

if TYPE_CHECKING:
    from experiments.learn import Config

Name = Literal[
    "wta_broadcast", "surrogate", "backprop", "fa", "dfa", "drtp", "pepita", "forward_forward",
    "dtp", "predictive_coding", "decolle", "eprop", "softhebb", "node_perturbation",
    "counter_current", "equilibrium", "noprop", "zeroth_order", "boltzmann", "ska",
]  # fmt: skip
Activation = Literal["relu", "elu", "tanh", "sigmoid", "dsilu", "steep_sigmoid"]


def _activation(c: "Config") -> Any:
    room = equilibrium if hasattr(equilibrium, c.activation) else perceptron
    return getattr(room, c.activation)


class Given(NamedTuple):
    """What a learner is made for."""

    task: Task
    n_batches: int  # weight changes of the whole training
    mean: float  # of the training pictures
    std: float
    rate: Any = None  # of all arrays, in place of --lr and --lr-readout; may be traced

    def sizes(self, c: "Config") -> tuple[int, ...]:
        """From the input to the classes."""
        return (self.task.n_in, *c.hidden, self.task.n_classes)


class Recipe(NamedTuple):
    """How a learner is made.

    Fields:
        build: callable, (configuration, given, key) -> Learner
        reads: names of the options that not all learners read, with spaces between them
        usual: its own defaults of options
        by_data: what of these is another for a data set, by its name
        numbers_only: why its weights can't be devices; empty where they can
        reach: w_max sqrt(fan-in) of devices: trained numbers have less, but for a few
    """

    build: Callable[..., Any]
    reads: str
    usual: dict[str, Any]
    by_data: dict[str, dict[str, Any]] = {}
    numbers_only: str = ""
    reach: float = 10.0


def steps(c: "Config", given: Given) -> optax.GradientTransformation:
    """What turns changes into steps, for all arrays alike."""
    rate = c.lr if given.rate is None else given.rate
    if c.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, given.n_batches)
    clip = [optax.clip_by_global_norm(c.clip)] if c.clip else []
    if c.optimiser == "adam":
        return optax.chain(*clip, optax.adamw(rate, weight_decay=c.weight_decay))
    decay = [optax.add_decayed_weights(c.weight_decay)] if c.weight_decay else []
    momentum = 0.9 if c.optimiser == "momentum" else None
    return optax.chain(*clip, *decay, optax.sgd(rate, momentum))


# --- the broadcast system, and the reference to it ---

_OF_SYSTEMS = "lr_readout recurrence readout_density readout_population freeze_hidden"
_OVER_TIME = "presentation encoding max_rate n_steps start"
_SHARED = (
    "hidden epochs batch_size optimiser lr weight_decay dataset train_size inputs augment"
    f" input_dropout synapse w_max {_OF_SYSTEMS} {_OVER_TIME}"
).split()


def of_the_system(c: "Config", n_train: int | None = None) -> _config.Config:
    """The same as a configuration of the experiment that has all options of the system."""
    kind = surrogate_reference.Config if c.learner == "surrogate" else _config.Config
    given = {name: getattr(c, name) for name in _SHARED}
    return _config.resolved(kind(**{k: v for k, v in given.items() if v is not None}), n_train)


def _system(c: "Config", given: Given, key: Key[Array, ""]) -> _training.Learner:
    whole, make = of_the_system(c), WTABroadcast
    if isinstance(whole, surrogate_reference.Config):
        with jax.ensure_compile_time_eval():  # a part of the program, not of what it computes
            spike = fast_sigmoid(whole.slope)
        make = partial(bptt.learner, spike=spike, gain=whole.gain)
    net, rule = part(whole, _config.Network), part(whole, _config.Learning)
    if given.rate is not None:
        rule = replace(rule, lr=given.rate, lr_readout=given.rate)
    system = wta_broadcast.build(net, rule, given.task, fold(key, "system"))
    return _training.learner(rule, system, given.n_batches, make)


def _of_presets(*names: str, **own: Any) -> dict[str, Any]:
    """Of the presets of the system, later ones first, what is an option here."""
    found: dict[str, Any] = {}
    for name in names:
        found |= {k: v for k, v in _config.PRESETS[name].items() if k in _SHARED}
    return found | own


_system_by_data = {name: _of_presets(name) for name in ("digits", _config._OTHER)}
_SYSTEM = Recipe(
    _system, f"optimiser {_OF_SYSTEMS} {_OVER_TIME} weight_decay",
    _of_presets("static", optimiser="adam", readout_density=0.05, readout_population=10),
    _system_by_data,
)  # fmt: skip


# --- perceptrons ---


class Readout(eqx.Module):
    """Control: hidden layers stay as they were drawn, only the last array learns."""

    def init(self, key: Key[Array, ""], sizes: tuple[int, ...]) -> None:
        """Nothing is fixed."""

    def __call__(
        self, net: Perceptron, weights: list[Weights], fixed: Any, x: Float[Array, "b i"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[list[Array], Float[Array, "b c"]]:  # fmt: skip
        """Changes of each array, and the scores."""
        seen = net.passed(weights, x, key=key)
        last = asked(weights[-1:], [error(seen.scores, y)], seen.inputs[-1:])
        return [jnp.zeros_like(w.w) for w in weights[:-1]] + last, seen.scores


_STEPS = "optimiser weight_decay schedule clip"
_NET = dict(
    hidden=(256, 256), activation="tanh", init_gain=1.0, epochs=10, batch_size=64,
    optimiser="momentum", lr=0.03, weight_decay=0.0, schedule="constant", clip=0.0,
)  # fmt: skip
_FEW = dict(epochs=40, batch_size=32)


def _of_net(without: str = "", digits: Any = None, **own: Any) -> dict[str, Any]:
    """Defaults of a recipe: those of all nets, its own, and what it does not read left out."""
    usual = {k: v for k, v in (_NET | own).items() if k not in without.split()}
    return dict(usual=usual, by_data={"digits": _FEW | (digits or {})})


def _perceptron(rule: Callable[[], Any], reads: str = "", **own: Any) -> Recipe:
    def build(c: "Config", given: Given, key: Key[Array, ""]) -> Perceptron:
        taught = Readout() if c.freeze_hidden else rule()
        return Perceptron(given.sizes(c), taught, steps(c, given), _activation(c), c.init_gain)

    return Recipe(build, f"activation init_gain {_STEPS} {reads}", **_of_net(**own))


def _forward_forward(c: "Config", given: Given, key: Key[Array, ""]) -> learning.ForwardForward:
    return learning.ForwardForward(given.sizes(c), steps(c, given), gain=c.init_gain)


def _dtp(c: "Config", given: Given, key: Key[Array, ""]) -> learning.DifferenceTarget:
    tx, activation = steps(c, given), _activation(c)
    return learning.DifferenceTarget(given.sizes(c), tx, activation, gain=c.init_gain)


def _softhebb(c: "Config", given: Given, key: Key[Array, ""]) -> learning.SoftHebb:
    return learning.SoftHebb(given.sizes(c), steps(c, given))


def _counter_current(c: "Config", given: Given, key: Key[Array, ""]) -> learning.CounterCurrent:
    return learning.CounterCurrent(
        given.sizes(c), steps(c, given), activation=_activation(c), mean=given.mean, std=given.std,
        frozen="hidden" if c.freeze_hidden else "nothing",
    )  # fmt: skip


def _zeroth_order(c: "Config", given: Given, key: Key[Array, ""]) -> learning.ZerothOrder:
    asks = learning.Neurons() if c.active is None else learning.Coordinates(active=c.active)
    return learning.ZerothOrder(given.sizes(c), asks, steps(c, given), _activation(c), c.init_gain)


def _noprop(c: "Config", given: Given, key: Key[Array, ""]) -> learning.NoProp:
    if len(c.hidden) != 2:
        allowed = "--hidden must be two layers for --learner noprop, that of the picture and one"
        raise ValueError(f"{allowed} above it; got {_options.shown(c.hidden)}")
    image, hidden = c.hidden
    block = learning.MLPBlock(given.task.n_in, given.task.n_classes, image=image, hidden=hidden)
    return learning.NoProp(block, steps(c, given), learning.cosine_noise(c.n_blocks))


def _ska(c: "Config", given: Given, key: Key[Array, ""]) -> learning.SKA:
    return learning.SKA(given.sizes(c), eta=c.lr)


# --- what settles ---


def _equilibrium(c: "Config", given: Given, key: Key[Array, ""]) -> learning.Equilibrium:
    return learning.Equilibrium(
        given.sizes(c), steps(c, given), _activation(c), n_points=c.n_points, beta=c.beta,
        gain=c.init_gain,
    )  # fmt: skip


def _boltzmann(c: "Config", given: Given, key: Key[Array, ""]) -> learning.Boltzmann:
    """Hidden nodes of four states each, as many states as there are hidden neurons."""
    states = sum(c.hidden)
    if states % 4 or states < 8:
        allowed = "--hidden must add up to a multiple of 4 from 8 on for --learner boltzmann"
        raise ValueError(f"{allowed}; got {_options.shown(c.hidden)}")
    return learning.Boltzmann(
        given.task.n_in, given.task.n_classes, steps(c, given), n_hidden=states // 4, beta=c.beta,
        n_bins=4 if c.dataset == "digits" else 2,
    )  # fmt: skip


# --- spiking nets taught locally ---


def _decolle(c: "Config", given: Given, key: Key[Array, ""]) -> learning.Decolle:
    n_steps, start = given.task.n_steps, given.task.start
    return learning.Decolle(
        given.sizes(c), steps(c, given), gain=c.init_gain, n_steps=n_steps, start=start
    )


def _eprop(c: "Config", given: Given, key: Key[Array, ""]) -> learning.EProp:
    if c.recurrence == "local":
        raise ValueError("--recurrence must be dense or none for --learner eprop; got local")
    return learning.EProp(
        given.sizes(c), steps(c, given), recurrent=c.recurrence == "dense", gain=c.init_gain,
        n_steps=given.task.n_steps, start=given.task.start,
    )  # fmt: skip


_SPIKES: dict[str, Any] = dict(optimiser="adam", lr=3e-3, schedule="cosine", start=5)

RECIPES: dict[str, Recipe] = {
    "wta_broadcast": _SYSTEM,
    "surrogate": _SYSTEM._replace(usual=_SYSTEM.usual | dict(weight_decay=0.0)),
    "backprop": _perceptron(learning.Backprop, "freeze_hidden"),
    "fa": _perceptron(learning.FeedbackAlignment),
    "dfa": _perceptron(learning.DFA),
    "drtp": _perceptron(learning.DRTP),
    "pepita": _perceptron(learning.PEPITA, lr=0.1, activation="relu"),
    "forward_forward": Recipe(
        _forward_forward, f"init_gain {_STEPS}", **_of_net("activation", lr=0.001)
    ),
    "dtp": Recipe(_dtp, f"activation init_gain {_STEPS}", **_of_net(optimiser="adam", lr=0.001)),
    "predictive_coding": _perceptron(learning.PredictiveCoding, lr=0.1),
    "decolle": Recipe(
        _decolle, f"init_gain {_OVER_TIME} {_STEPS}",
        **_of_net("activation", digits=dict(init_gain=15.0),
                  **(_SPIKES | dict(init_gain=8.0, start=8))),
    ),
    "eprop": Recipe(
        _eprop, f"init_gain recurrence {_OVER_TIME} {_STEPS}",
        **_of_net("activation", **(_SPIKES | dict(init_gain=3.0, recurrence="dense"))),
    ),
    "softhebb": Recipe(
        _softhebb, _STEPS,
        **_of_net("activation init_gain", hidden=(256,), optimiser="adam", lr=0.01), reach=60.0,
    ),
    "node_perturbation": _perceptron(lambda: learning.NodePerturbation(10), lr=0.003),
    "counter_current": Recipe(
        _counter_current, f"activation freeze_hidden {_STEPS}",
        **_of_net("init_gain", hidden=(256,) * 5, activation="elu", optimiser="sgd", lr=1.0,
                  clip=1.0, epochs=100, batch_size=256),
    ),
    "equilibrium": Recipe(
        _equilibrium, f"activation init_gain beta n_points {_STEPS}",
        **_of_net(activation="dsilu", lr=0.01, batch_size=50, beta=0.2, n_points=2,
                  digits=dict(lr=0.1)),
    ),
    "noprop": Recipe(
        _noprop, f"n_blocks {_STEPS}",
        **_of_net("activation init_gain", hidden=(128, 128), optimiser="adam", lr=2e-3,
                  schedule="cosine", weight_decay=0.01, batch_size=128, epochs=5, n_blocks=10,
                  digits=dict(lr=3e-3)),
    ),
    "zeroth_order": Recipe(
        _zeroth_order, f"activation init_gain active {_STEPS}",
        **_of_net(activation="relu", optimiser="sgd", lr=0.2),
    ),
    "boltzmann": Recipe(
        _boltzmann, f"beta {_STEPS}",
        **_of_net("activation init_gain", hidden=(80,), optimiser="adam", lr=0.003, beta=0.5),
    ),
    "ska": Recipe(
        _ska, "",
        dict(hidden=(256, 128, 64), lr=0.01, epochs=1, batch_size=1000),
        {"digits": dict(batch_size=500)},
    ),
}  # fmt: skip
assert get_args(Name) == (*RECIPES,)  # noqa: S101 - what is typed, and what is known of it


def needs() -> tuple[Need, ...]:
    """Options that some learners read, and others do not."""
    names = dict.fromkeys(name for recipe in RECIPES.values() for name in recipe.reads.split())
    readers = {n: [k for k, r in RECIPES.items() if n in r.reads.split()] for n in names}
    return tuple(_read_by(n, who) for n, who in readers.items() if len(who) < len(RECIPES))


def _read_by(name: str, readers: list[str]) -> Need:
    others = [other for other in RECIPES if other not in readers]
    text = _options.typed("learner", *readers)
    if len(others) < len(readers):
        text = f"a --learner other than {' or '.join(others)}"
    return Need(name, "learner", text, lambda c: c.learner in readers)


_ANYWHERE = dict(inputs="raw", augment="none", input_dropout=0.0)


def usual(c: "Config", n_train: int | None = None) -> dict[str, Any]:
    """Defaults of the options that `c` leaves open."""
    recipe = RECIPES[c.learner]
    if c.learner in ("wta_broadcast", "surrogate"):
        whole = of_the_system(c, n_train)
        return {name: getattr(whole, name) for name in _SHARED}
    found = _ANYWHERE | recipe.usual
    if c.dataset in ("digits", "mnist"):
        return found | recipe.by_data.get(c.dataset, {})
    return found | recipe.by_data.get(_config._OTHER, {}) | _few(found, c.batch_size, n_train)


def _few(found: dict[str, Any], batch_size: int | None, n_train: int | None) -> dict[str, int]:
    """Batches and epochs where pictures are too few for those that are usual."""
    few = _config.schedule(n_train, batch_size)
    n, size = few["epochs"], min(found["batch_size"], few["batch_size"])
    return dict(batch_size=size, epochs=max(n, found["epochs"]))


def told(learner: str, name: str) -> str | None:
    """The default of an option for a learner, as --help shows it; None where there is none."""
    recipe = RECIPES[learner]
    if name not in recipe.reads.split() and any(name in r.reads.split() for r in RECIPES.values()):
        return None
    found = dict(w_max=f"{recipe.reach:g} / sqrt(fan-in)") | _ANYWHERE | recipe.usual
    if name not in found:
        return None
    text = _options.shown(found[name])
    others = {k: _options.shown(x[name]) for k, x in recipe.by_data.items() if name in x}
    return ", ".join([text, *(f"{k}: {x}" for k, x in others.items() if x != text)])
