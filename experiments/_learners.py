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
    from experiments.learn import Config, Learner, Network

Name = Literal[
    "wta_broadcast", "surrogate", "backprop", "fa", "dfa", "drtp", "pepita", "forward_forward",
    "dtp", "predictive_coding", "decolle", "eprop", "softhebb", "node_perturbation",
    "counter_current", "equilibrium", "noprop", "zeroth_order", "boltzmann", "ska",
]  # fmt: skip
System = tuple[_config.Network, _config.Learning]
Activation = Literal["relu", "elu", "tanh", "sigmoid", "dsilu", "steep_sigmoid"]


class Given(NamedTuple):
    """What a learner is made of, and for."""

    net: "Network"
    how: "Learner"
    task: Task
    n_batches: int  # weight changes of the whole training
    mean: float  # of the training pictures
    std: float
    n_bins: int = 2  # that tell pixels apart
    system: System | None = None  # parts of the broadcast system, where that learns
    rate: Any = None  # of all arrays, in place of --lr and --lr-readout; may be traced

    @property
    def sizes(self) -> tuple[int, ...]:
        """From the input to the classes."""
        return (self.task.n_in, *self.net.hidden, self.task.n_classes)

    @property
    def activation(self) -> Any:
        """By its name."""
        room = equilibrium if hasattr(equilibrium, self.net.activation) else perceptron
        return getattr(room, self.net.activation)

    @property
    def tx(self) -> optax.GradientTransformation:
        """What turns changes into steps, for all arrays alike."""
        how = self.how
        rate = how.lr if self.rate is None else self.rate
        if how.schedule == "cosine":
            rate = optax.cosine_decay_schedule(rate, self.n_batches)
        clip = [optax.clip_by_global_norm(how.clip)] if how.clip else []
        if how.optimiser == "adam":
            return optax.chain(*clip, optax.adamw(rate, weight_decay=how.weight_decay))
        decay = [optax.add_decayed_weights(how.weight_decay)] if how.weight_decay else []
        momentum = 0.9 if how.optimiser == "momentum" else None
        return optax.chain(*clip, *decay, optax.sgd(rate, momentum))


class Recipe(NamedTuple):
    """How a learner is made.

    Fields:
        build: callable, (given, key) -> Learner
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


def system(c: "Config") -> System | None:
    """What `c`, resolved, says of the system; None where another learns."""
    if c.learner not in ("wta_broadcast", "surrogate"):
        return None
    rule = surrogate_reference.Learning if c.learner == "surrogate" else _config.Learning
    whole = of_the_system(c)
    return part(whole, _config.Network), part(whole, rule)


def _system(given: Given, key: Key[Array, ""]) -> _training.Learner:
    (net, rule), make = given.system, WTABroadcast  # pyright: ignore[reportGeneralTypeIssues]
    if isinstance(rule, surrogate_reference.Learning):
        with jax.ensure_compile_time_eval():  # a part of the program, not of what it computes
            spike = fast_sigmoid(rule.slope)
        make = partial(bptt.learner, spike=spike, gain=rule.gain)
    if given.rate is not None:
        rule = replace(rule, lr=given.rate, lr_readout=given.rate)
    built = wta_broadcast.build(net, rule, given.task, fold(key, "system"))
    return _training.learner(rule, built, given.n_batches, make)


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
    def build(g: Given, key: Key[Array, ""]) -> Perceptron:
        taught = Readout() if g.net.freeze_hidden else rule()
        return Perceptron(g.sizes, taught, g.tx, g.activation, g.net.init_gain)

    return Recipe(build, f"activation init_gain {_STEPS} {reads}", **_of_net(**own))


def _forward_forward(g: Given, key: Key[Array, ""]) -> learning.ForwardForward:
    return learning.ForwardForward(g.sizes, g.tx, gain=g.net.init_gain)


def _dtp(g: Given, key: Key[Array, ""]) -> learning.DifferenceTarget:
    return learning.DifferenceTarget(g.sizes, g.tx, g.activation, gain=g.net.init_gain)


def _softhebb(g: Given, key: Key[Array, ""]) -> learning.SoftHebb:
    return learning.SoftHebb(g.sizes, g.tx)


def _counter_current(g: Given, key: Key[Array, ""]) -> learning.CounterCurrent:
    frozen = "hidden" if g.net.freeze_hidden else "nothing"
    return learning.CounterCurrent(
        g.sizes, g.tx, activation=g.activation, mean=g.mean, std=g.std, frozen=frozen
    )


def _zeroth_order(g: Given, key: Key[Array, ""]) -> learning.ZerothOrder:
    active = g.how.active
    asks = learning.Neurons() if active is None else learning.Coordinates(active=active)
    return learning.ZerothOrder(g.sizes, asks, g.tx, g.activation, g.net.init_gain)


def _noprop(g: Given, key: Key[Array, ""]) -> learning.NoProp:
    if len(g.net.hidden) != 2:
        allowed = "--hidden must be two layers for --learner noprop, that of the picture and one"
        raise ValueError(f"{allowed} above it; got {_options.shown(g.net.hidden)}")
    image, hidden = g.net.hidden
    block = learning.MLPBlock(g.task.n_in, g.task.n_classes, image=image, hidden=hidden)
    return learning.NoProp(block, g.tx, learning.cosine_noise(g.how.n_blocks))


def _ska(g: Given, key: Key[Array, ""]) -> learning.SKA:
    return learning.SKA(g.sizes, eta=g.how.lr)


# --- what settles ---


def _equilibrium(g: Given, key: Key[Array, ""]) -> learning.Equilibrium:
    return learning.Equilibrium(
        g.sizes, g.tx, g.activation, n_points=g.how.n_points, beta=g.how.beta,
        gain=g.net.init_gain,
    )  # fmt: skip


def _boltzmann(g: Given, key: Key[Array, ""]) -> learning.Boltzmann:
    """Hidden nodes of four states each, as many states as there are hidden neurons."""
    states = sum(g.net.hidden)
    if states % 4 or states < 8:
        allowed = "--hidden must add up to a multiple of 4 from 8 on for --learner boltzmann"
        raise ValueError(f"{allowed}; got {_options.shown(g.net.hidden)}")
    return learning.Boltzmann(
        g.task.n_in, g.task.n_classes, g.tx, n_hidden=states // 4, n_bins=g.n_bins,
        beta=g.how.beta,
    )  # fmt: skip


# --- spiking nets taught locally ---


def _decolle(g: Given, key: Key[Array, ""]) -> learning.Decolle:
    return learning.Decolle(
        g.sizes, g.tx, gain=g.net.init_gain, n_steps=g.task.n_steps, start=g.task.start
    )


def _eprop(g: Given, key: Key[Array, ""]) -> learning.EProp:
    if g.net.recurrence == "local":
        raise ValueError("--recurrence must be dense or none for --learner eprop; got local")
    return learning.EProp(
        g.sizes, g.tx, recurrent=g.net.recurrence == "dense", gain=g.net.init_gain,
        n_steps=g.task.n_steps, start=g.task.start,
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
