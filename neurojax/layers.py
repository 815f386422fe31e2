"""What networks are made of: layers of neurons, projections between them, records of a step."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from neurojax import _given
from neurojax._check import count, instance, real
from neurojax._repr import described
from neurojax.plasticity.teaching import k_winners
from neurojax.plasticity.three_factor import Rule
from neurojax.weights import normal
from neurojax.wiring.sparse import Connectivity

__all__ = ["Layer", "Projection", "Record"]


def __dir__() -> list[str]:
    return __all__


class Record(NamedTuple):
    """What one layer did in one step: what a `probe` sees of it, by the layer's name.

    States are those after the step: `record.neuron.v` is the potential (mV) of a neuron that
    has one, before any reset by the spike of this step.

    >>> probe = lambda records: records["hidden"].neuron.v  # for simulate(..., probe=probe)

    Fields:
        z: float [n]; output: spikes, 0 or 1, or the potential of a leaky integrator, mV
        neuron: any; state of the neurons, such as LIFState
        synapse: any; state of the layer's synapse, such as ExponentialState; None without one
        arrivals: float [n], nA; sum of what all projections delivered in this step
        current: float [n], nA; what the neurons heard: the arrivals as the synapse filters them
    """

    z: Float[Array, " n"]
    neuron: Any
    synapse: Any
    arrivals: Float[Array, " n"]
    current: Float[Array, " n"]


# Fields are converted by these, so that what is of another kind is refused in our own words.


def _model(name: str, *methods: str) -> Callable[[Any], Any]:
    return lambda x: instance(name, x, *methods)


def _optional(name: str, *methods: str) -> Callable[[Any], Any]:
    return lambda x: None if x is None else instance(name, x, *methods)


def _name(end: str) -> Callable[[Any], str]:
    def convert(x: Any) -> str:
        if not isinstance(x, str):
            raise TypeError(f"{end} must be the name of a layer or input; got {x!r:.60}")
        return x

    return convert


def _winners(x: Any) -> int | None:
    return None if x is None else count("winners")(x)


def _steps(x: Any) -> int:
    """A delay as a whole number of steps, refused in the user's own words."""
    try:
        return count("delay", 0)(x)
    except ValueError:
        one = isinstance(x, float | np.floating) and x > 0
        near = sorted({int(x), round(x + 0.5)}) if one else [1]
        cure = " or ".join(f"delay={n}" for n in near)
        raise ValueError(
            f"delay must be one whole number of steps >= 0; got {x!r}: pass {cure}"
        ) from None


def _numbers(x: Any) -> Array | None:
    """Weights as an array of finite floats."""
    if x is None:
        return None
    try:
        w = real(x)
    except (TypeError, ValueError):
        raise TypeError(f"w must be an array; got {type(x).__name__} {x!r:.60}") from None
    if not isinstance(w, Tracer) and not np.isfinite(np.asarray(w)).all():
        raise ValueError("w must be finite; got NaN or infinity")
    return w


@described
class Layer(eqx.Module):
    """A population: how many neurons of which model, how currents are shaped, how it learns.

    `neuron` has `init` and `step`, as `LIF` does; one whose `step` takes a `key` draws at random
    (`Poisson`). `synapse` filters the summed arrivals (None: they are the current of this step).
    `rule` serves all plastic projections onto this layer. With `winners` k only the k
    neurons of highest potential may fire in a step (k-WTA).
    Raises `TypeError` for a class in place of an instance or a model without its methods, and
    `ValueError` for an `n` that is no whole number >= 1 and `winners` out of [1, n] or on a
    neuron whose state has no v and z.

    >>> nj.Layer(100, nj.LIF(tau_mem=10.0), synapse=nj.Exponential(5.0)).n
    100
    """

    n: int = eqx.field(static=True, converter=count("n"))
    neuron: Any = eqx.field(converter=_model("neuron", "init", "step"))
    synapse: Any = eqx.field(default=None, converter=_optional("synapse", "init", "step"))
    rule: Rule | None = eqx.field(default=None, converter=_optional("rule", "factor"))
    winners: int | None = eqx.field(static=True, default=None, converter=_winners)

    def __check_init__(self):
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

    def step(
        self, neuron: Any, synapse: Any, arrivals: Float[Array, " n"], *, dt: Any,
        key: Array | None = None, name: str = "",
    ) -> Record:  # fmt: skip
        """What `n` neurons do in `dt` ms under `arrivals` (nA); `name` is said in errors."""
        what, current, before = f"layer {name!r}", arrivals, (neuron, synapse)
        if self.synapse is not None:
            tau_mem = getattr(self.neuron, "tau_mem", None)  # else the mean over the step
            answer = self.synapse.step(synapse, arrivals, dt=dt, tau_mem=tau_mem)
            synapse, current = _given.pair(
                f"the synapse of {what}", self.synapse, answer, "current"
            )
        drawn = {"key": self._key(key, what)} if _draws(self.neuron) else {}
        answer = self.neuron.step(neuron, current, dt=dt, **drawn)
        neuron, z = _given.pair(what, self.neuron, answer, "z")
        if z.shape != (self.n,):
            raise ValueError(f"z of {what} must have shape [{self.n}]; got {z.shape}")
        z = z if eqx.is_inexact_array(z) else z.astype(current.dtype)
        if self.winners is not None:
            z = z * k_winners(neuron.v, self.winners)
            neuron = neuron._replace(z=z)
        _given.same(what, before, (neuron, synapse))
        return Record(z, neuron, synapse, arrivals, current)

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
        parts += [] if self.rule is None else [f"rule {_type(self.rule)}"]
        parts += [] if self.winners is None else [f"{self.winners} winners"]
        return f"Layer: {', '.join(parts)}"


def _type(x: Any) -> str:
    return type(x).__name__


def _draws(neuron: Any) -> bool:
    """Whether its `step` wants a key."""
    return "key" in inspect.signature(neuron.step).parameters


@described
class Projection(eqx.Module):
    """Synapses from `pre` (a layer or an external input) onto layer `post`.

    `delay` in steps, 0 from external inputs. Initial weights are `w` where given, in the shape
    of the layout, else Gaussian with standard deviation `gain` / sqrt(fan-in). A projection that
    is not `plastic` keeps its weights.
    Raises `ValueError` for a `delay` that is not one whole number >= 0, and a `w` of another
    shape or not finite; `TypeError` for names that are no strings and a layout that is none.

    >>> nj.Projection("input", "hidden", nj.Dense(64, 100), gain=2.0)
    Projection: input -> hidden, Dense 64 x 100, 6,400 synapses, plastic
    """

    pre: str = eqx.field(static=True, converter=_name("pre"))
    post: str = eqx.field(static=True, converter=_name("post"))
    connectivity: Connectivity = eqx.field(
        converter=_model("connectivity", "apply", "apply_t", "outer")
    )
    delay: int = eqx.field(static=True, default=0, converter=_steps)
    plastic: bool = eqx.field(static=True, default=True)
    gain: float = eqx.field(static=True, default=1.0)
    w: Float[Array, "..."] | None = eqx.field(default=None, converter=_numbers)

    def __check_init__(self):
        shape = self.connectivity.shape
        if self.w is not None and self.w.shape[-len(shape) :] != shape:
            one = "" if self.w.ndim else f": pass jnp.full({shape}, {self.w})"
            raise ValueError(f"w must have shape {shape}; got {self.w.shape}{one}")

    def initial(self, key: Key[Array, ""], dtype: DTypeLike = float) -> Float[Array, "..."]:
        """Weights to start from, in the shape of the layout."""
        if self.w is not None:
            return self.w.astype(dtype)
        return normal(key, self.connectivity, self.gain, dtype)

    @property
    def n_synapses(self) -> int | None:
        """How many synapses there are; None where the layout is traced."""
        try:
            return int(np.asarray(self.connectivity.fan_in, float).sum())
        except jax.errors.JAXTypeError:
            return None

    def __repr__(self) -> str:
        c, n = self.connectivity, self.n_synapses
        parts = [f"{self.pre} -> {self.post}", f"{_type(c)} {c.n_pre:,} x {c.n_post:,}"]
        parts += [] if n is None else [f"{n:,} synapses"]
        parts += [f"delay {self.delay}"] if self.delay else []
        return f"Projection: {', '.join([*parts, 'plastic' if self.plastic else 'fixed'])}"
