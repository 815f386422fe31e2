"""What networks are made of: layers of neurons, projections between them, records of a step."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from neurojax import _given
from neurojax._check import MOST, brief, count, finite, flag, instance, known_finite, name_of, real
from neurojax._repr import described
from neurojax.plasticity.teaching import k_winners
from neurojax.plasticity.three_factor import Rule
from neurojax.synapses.delays import Delays
from neurojax.weights import normal
from neurojax.wiring.procedural import Procedural
from neurojax.wiring.sparse import Connectivity, FanOut

__all__ = ["Layer", "PortRecord", "Projection", "Record"]


def __dir__() -> list[str]:
    return __all__


class PortRecord(NamedTuple):
    """What one named port of a layer did in one step.

    Fields:
        state: any; state of the receptor after the step, such as ExponentialState
        arrivals: float [n], nA or uS; sum of what projections delivered at this port
        value: float [n]; what it stood for over the step: current, nA, or conductance, uS
    """

    state: Any
    arrivals: Float[Array, " n"]
    value: Float[Array, " n"]


class Record(NamedTuple):
    """What one layer did in one step: what a `probe` sees of it, by the layer's name.

    States are those after the step: `record.neuron.v` is the potential (mV) of a neuron that
    has one, before any reset by the spike of this step.

    >>> probe = lambda records: records["hidden"].neuron.v  # for simulate(..., probe=probe)

    Fields:
        z: float [n]; output: spikes, 0 or 1, or the potential of a leaky integrator, mV
        neuron: any; state of the neurons, such as LIFState
        synapse: any; state of the layer's synapse, such as ExponentialState; None without one
        arrivals: float [n], nA; sum of what projections delivered at no named port
        current: float [n], nA; what the neurons heard, of all ports together: the arrivals as
            receptors filter them, g_k E_k of conductances, g_ij v_j of gap junctions
        conductance: float [n], uS; sum of all conductances, of gap junctions too; None where the
            layer has none
        ports: dict[str, PortRecord]; the same of each named port
    """

    z: Float[Array, " n"]
    neuron: Any
    synapse: Any
    arrivals: Float[Array, " n"]
    current: Float[Array, " n"]
    conductance: Float[Array, " n"] | None
    ports: dict[str, PortRecord]


# Fields are converted by these, so that what is of another kind is refused in our own words.


def _model(name: str, *methods: str) -> Callable[[Any], Any]:
    return lambda x: instance(name, x, *methods)


def _optional(name: str, *methods: str) -> Callable[[Any], Any]:
    return lambda x: None if x is None else instance(name, x, *methods)


def _port(x: Any) -> str | None:
    if x is not None and (not isinstance(x, str) or not x):
        raise TypeError(f"port must be the name of a port, or None; got {x!r:.60}")
    return x


def _ports(x: Any) -> dict[str, Any]:
    """Receptors by name."""
    if x is None:
        return {}
    if not isinstance(x, dict):
        raise TypeError(f"ports must be a dict of receptors by name; got {type(x).__name__}")
    for name, receptor in x.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"ports must have names; got {name!r:.60}")
        instance(f"port {name!r}", receptor, "init", "step")
    return dict(sorted(x.items()))


def _winners(x: Any) -> int | None:
    return None if x is None else count("winners")(x)


def _rule(x: Any) -> Any:
    if x is None:
        return None
    instance("rule", x, "init")
    if not runs(x):
        raise TypeError(
            f"rule must have visit, or a step with a signal, to run with the network; got"
            f" {_type(x)}: give it to the layer to learn by presentations"
        )
    return x


def runs(rule: Any) -> bool:
    """Whether a rule can change weights while the network runs."""
    step = getattr(rule, "step", None)
    by_step = callable(step) and "signal" in inspect.signature(step).parameters
    return by_step or callable(getattr(rule, "visit", None))


def _delays(x: Any) -> Any:
    if x is None or isinstance(x, Delays):
        return x
    raise TypeError(f"delays must be nj.Delays(steps); got {type(x).__name__} {x!r:.60}")


def _steps(x: Any) -> int:
    """A delay as a whole number of steps, refused in the user's own words."""
    try:
        return count("delay", 0)(x)
    except ValueError:
        one = isinstance(x, float | np.floating) and 0 < x < MOST
        near = sorted({int(x), round(x + 0.5)}) if one else [1]
        cure = " or ".join(f"delay={n}" for n in near)
        cure += " or delays=nj.Delays(steps), one a synapse" if np.ndim(x) else ""
        raise ValueError(
            f"delay must be one whole number of steps >= 0; got {brief(x)}: pass {cure}"
        ) from None


def _gain(x: Any) -> float:
    finite("gain", "nA")(x)
    if np.ndim(x):
        raise ValueError(f"gain must be one number; got shape {np.shape(x)}")
    return float(x)


def _numbers(x: Any) -> Array | None:
    """Weights as an array of finite floats."""
    if x is None:
        return None
    return known_finite("w", real(x, "w"))


@described
class Layer(eqx.Module):
    """A population: how many neurons of which model, how currents are shaped, how it learns.

    `neuron` has `init` and `step`, as `LIF` does; one whose `step` takes a `key` draws at random
    (`Poisson`). `synapse` filters the summed arrivals (None: they are the current of this step).
    `ports` are receptors beside it by name, each with arrivals and kinetics of its own: currents,
    or conductances (`Conductance`), which the neuron hears as two sums,

        I = sum_k i_k + sum_k g_k E_k,    g = sum_k g_k

    `rule` serves all plastic projections onto this layer. With `winners` k only the k
    neurons of highest potential may fire in a step (k-WTA).
    Raises `TypeError` for a class in place of an instance or a model without its methods, and
    `ValueError` for an `n` that is no whole number >= 1, a conductance on a neuron whose `step`
    takes none, and `winners` out of [1, n] or on a
    neuron whose state has no v and z.

    >>> nj.Layer(100, nj.LIF(tau_mem=10.0), synapse=nj.Exponential(5.0)).n
    100
    """

    n: int = eqx.field(static=True, converter=count("n"))
    neuron: Any = eqx.field(converter=_model("neuron", "init", "step"))
    synapse: Any = eqx.field(default=None, converter=_optional("synapse", "init", "step"))
    rule: Rule | None = eqx.field(default=None, converter=_optional("rule", "factor"))
    winners: int | None = eqx.field(static=True, default=None, converter=_winners)
    ports: dict[str, Any] = eqx.field(default=None, converter=_ports)

    def __check_init__(self):
        conductive = [f"port {n!r}" for n, x in self.ports.items() if _conductive(x)]
        conductive += ["synapse"] if _conductive(self.synapse) else []
        if conductive and not takes(self.neuron, "conductance"):
            raise ValueError(
                f"{conductive[0]} must be a current, as {_type(self.neuron)}.step takes no"
                " conductance; got a conductance: give step a keyword conductance, uS"
            )
        if self.winners is not None:
            self._check_winners(self.winners)

    def _check_winners(self, k: int) -> None:
        if k > self.n:
            raise ValueError(f"winners must be in [1, {self.n}], the layer; got {k}")
        state = jax.eval_shape(lambda: self.neuron.init((self.n,)))
        lacking = [x for x in ("v", "z", "_replace") if not hasattr(state, x)]
        if lacking:
            raise ValueError(
                "winners must be None unless the neuron's state is a NamedTuple with v and z; that"
                f" of {_type(self.neuron)} has no {lacking[0]}"
            )

    def init(self, dtype: DTypeLike = float) -> tuple[Any, Any, dict[str, Any]]:
        """States of the neurons, of the synapse and of each named port, at rest."""
        shape = (self.n,)
        synapse = None if self.synapse is None else self.synapse.init(shape, dtype)
        ports = {name: x.init(shape, dtype) for name, x in self.ports.items()}
        return self.neuron.init(shape, dtype), synapse, ports

    def step(
        self, neuron: Any, synapse: Any, arrivals: Float[Array, " n"], *, dt: Any,
        ports: dict[str, Any] | None = None, onto: dict[str, Array] | None = None,
        gap: tuple[Array, Array] | None = None, key: Array | None = None, name: str = "",
    ) -> Record:  # fmt: skip
        """What `n` neurons do in `dt` ms under `arrivals` (nA), and those `onto` named ports.

        `neuron`, `synapse` and `ports` are the states; `gap` the current (nA) and conductance
        (uS) of gap junctions; `name` is said in errors.
        """
        what, before = f"layer {name!r}", (neuron, synapse, ports or {})
        heard = _Heard(self.neuron, neuron, dt, self._tau_mem() if gap is None else None)
        synapse, current, g = heard.of(f"the synapse of {what}", self.synapse, synapse, arrivals)
        if gap is not None:
            current, g = current + gap[0], gap[1] if g is None else g + gap[1]
        records = {}
        for port, receptor in self.ports.items():
            arrived = (onto or {}).get(port, jnp.zeros_like(current))
            of = f"port {port!r} of {what}"
            state, i, g_k = heard.of(of, receptor, before[2][port], arrived)
            records[port] = PortRecord(state, arrived, i if g_k is None else g_k)
            current, g = current + i, g_k if g is None else g if g_k is None else g + g_k
        more = {} if g is None else {"conductance": g}
        more |= {"key": self._key(key, what)} if takes(self.neuron, "key") else {}
        answer = self.neuron.step(neuron, current, dt=dt, **more)
        neuron, z = _given.pair(what, self.neuron, answer, "z")
        if z.shape != (self.n,):
            raise ValueError(f"z of {what} must have shape [{self.n}]; got {z.shape}")
        z = z if eqx.is_inexact_array(z) else z.astype(current.dtype)
        if self.winners is not None:
            z = z * k_winners(neuron.v, self.winners)
            neuron = neuron._replace(z=z)
        _given.same(what, before, (neuron, synapse, {n: r.state for n, r in records.items()}))
        return Record(z, neuron, synapse, arrivals, current, g, records)

    def _tau_mem(self) -> Any:
        """Of the membrane, where currents can be exact for it: no port adds to its leak."""
        conductive = any(map(_conductive, (self.synapse, *self.ports.values())))
        return None if conductive else getattr(self.neuron, "tau_mem", None)

    def _key(self, key: Array | None, what: str) -> Array:
        if key is None:
            raise ValueError(
                f"key must be given, as {what}, a {_type(self.neuron)}, draws from it: pass"
                " key=jax.random.key(0)"
            )
        return key

    def __repr__(self) -> str:
        parts = [f"{self.n:,} {_type(self.neuron)}"]
        parts += [] if self.synapse is None else [f"synapse {_type(self.synapse)}"]
        parts += [f"port {name} {_type(x)}" for name, x in self.ports.items()]
        parts += [] if self.rule is None else [f"rule {_type(self.rule)}"]
        parts += [] if self.winners is None else [f"{self.winners} winners"]
        return f"Layer: {', '.join(parts)}"


def _type(x: Any) -> str:
    return type(x).__name__


def takes(model: Any, argument: str) -> bool:
    """Whether its `step` has this argument."""
    return argument in inspect.signature(model.step).parameters


def _conductive(receptor: Any) -> bool:
    """Whether what it opens has a reversal potential: a conductance, not a current."""
    return hasattr(receptor, "e_rev")


class _Heard(NamedTuple):
    """How the receptors of one layer are read in one step."""

    model: Any
    neuron: Any
    dt: Any
    tau_mem: Any

    def of(self, what: str, receptor: Any, state: Any, arrivals: Array):
        """State of a receptor after the step, its current, and its conductance or None."""
        if receptor is None:
            return state, arrivals, None
        if not _conductive(receptor):
            answer = receptor.step(state, arrivals, dt=self.dt, tau_mem=self.tau_mem)
            return *_given.pair(what, receptor, answer, "current"), None
        v = {"v": potential(self.model, self.neuron)} if takes(receptor, "v") else {}
        answer = receptor.step(state, arrivals, dt=self.dt, **v)
        state, g = _given.pair(what, receptor, answer, "conductance")
        return state, g * jnp.asarray(receptor.e_rev, g.dtype), g


def potential(model: Any, state: Any) -> Array:
    """What the coming step starts from, mV."""
    return model.potential(state) if hasattr(model, "potential") else state.v


@described
class Projection(eqx.Module):
    """Synapses from `pre` (a layer or an external input) onto layer `post`.

    In a step: spikes, `release` (what a spike sets free, state [n_pre]; None: all alike), delay,
    weights, `port` of the layer (None: its synapse). `delay` is a number of steps, structure;
    `delays` (`Delays`) in its place are data, one number or one a synapse. Initial weights are
    `w` where given, in the shape of the layout, else Gaussian with standard deviation
    `gain` / sqrt(fan-in). A projection that is not `plastic` keeps its weights; `rule` is its own
    where the layer's is not to serve it.
    Raises `ValueError` for a `delay` that is not one whole number >= 0, both kinds of delay,
    `delays` that fit no synapse, a `w` of another shape or not finite, and a `Procedural` layout
    that is plastic or has no `w`; `TypeError` for names
    that are no strings and a layout that is none.

    >>> nj.Projection("input", "hidden", nj.Dense(64, 100), gain=2.0)
    Projection: input -> hidden, Dense 64 x 100, 6,400 synapses, plastic
    """

    pre: str = eqx.field(static=True, converter=name_of("pre", "a layer or input"))
    post: str = eqx.field(static=True, converter=name_of("post", "a layer or input"))
    connectivity: Connectivity = eqx.field(
        converter=_model("connectivity", "apply", "apply_t", "outer")
    )
    delay: int = eqx.field(static=True, default=0, converter=_steps)
    plastic: bool = eqx.field(static=True, default=True, converter=flag("plastic"))
    gain: float = eqx.field(static=True, default=1.0, converter=_gain)
    w: Float[Array, "..."] | None = eqx.field(default=None, converter=_numbers)
    port: str | None = eqx.field(static=True, default=None, converter=_port)
    release: Any = eqx.field(default=None, converter=_optional("release", "init", "step"))
    delays: Delays | None = eqx.field(default=None, converter=_delays)
    rule: Any = eqx.field(default=None, converter=_rule)

    def __check_init__(self):
        shape = self.connectivity.shape
        self._check_delays(shape)
        if self.rule is not None and not self.plastic:
            raise ValueError("plastic must be True beside a rule; got False")
        if isinstance(self.connectivity, Procedural):
            self._check_procedural()
        if self.w is not None and self.w.shape[-len(shape) :] != shape:
            one = "" if self.w.ndim else f": pass jnp.full({shape}, {self.w})"
            raise ValueError(f"w must have shape {shape}; got {self.w.shape}{one}")

    def _check_procedural(self) -> None:
        if self.plastic:
            raise ValueError(
                "plastic must be False where synapses are computed at each spike and kept nowhere;"
                " got Procedural: pass plastic=False, or connectivity.stored() to learn"
            )
        if self.w is None:
            raise ValueError(
                "w must be given where synapses are computed at each spike, one weight a sender:"
                f" pass w=jnp.full({self.connectivity.n_pre}, 0.1)"
            )

    def _check_delays(self, shape: tuple[int, ...]) -> None:
        if self.delays is None:
            return
        if self.delay:
            raise ValueError(
                f"delay must be 0 beside delays, which hold all of it; got {self.delay}"
            )
        if self.delays.steps.ndim and self.delays.steps.shape[-len(shape) :] != shape:
            raise ValueError(
                f"delays must be one number, or one a synapse of shape {shape}; got"
                f" {self.delays.steps.shape}"
            )

    @property
    def late(self) -> bool:
        """Whether it carries spikes of steps before, not of this one."""
        return bool(self.delay) or self.delays is not None

    @property
    def steady(self) -> bool:
        """Whether what it delivers follows from what is sent in the same step alone."""
        return not self.late and self.release is None

    def initial(self, key: Key[Array, ""], dtype: DTypeLike = float) -> Float[Array, "..."]:
        """Weights to start from, in the shape of the layout."""
        if self.w is not None:
            return self.w.astype(dtype)
        return normal(key, self.connectivity, self.gain, dtype)

    @property
    def n_synapses(self) -> int | None:
        """How many synapses there are; None where the layout is traced."""
        if isinstance(self.connectivity, FanOut | Procedural):
            return self.connectivity.n_synapses
        try:
            return int(np.asarray(self.connectivity.fan_in, float).sum())
        except jax.errors.JAXTypeError:
            return None

    def __repr__(self) -> str:
        c, n = self.connectivity, self.n_synapses
        parts = [f"{self.pre} -> {self.post}", f"{_type(c)} {c.n_pre:,} x {c.n_post:,}"]
        parts += [] if n is None else [f"{n:,} synapses"]
        parts += [f"port {self.port}"] if self.port else []
        parts += [] if self.release is None else [f"release {_type(self.release)}"]
        parts += [f"delay {self.delay}"] if self.delay else []
        parts += [] if self.delays is None else [repr(self.delays)]
        return f"Projection: {', '.join([*parts, 'plastic' if self.plastic else 'fixed'])}"
