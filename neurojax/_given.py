"""What is handed over to a network, checked once; refusals say what and the cure."""

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from neurojax._check import brief, flag, real
from neurojax._decay import felt

if TYPE_CHECKING:
    from neurojax.network import Network, State


def meant(name: str, known: Iterable[str]) -> str:
    """The cure where a name looks like a slip of the pen."""
    close = get_close_matches(str(name), list(known), 1)
    return f": did you mean {close[0]!r}?" if close else ""


def inputs(net: "Network", given: Any, n_steps: int | None = None) -> dict[str, Array]:
    """Each external input as an array, [n_in] or [T, n_in], refused where nothing reads it."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"inputs must be a dict by name; got {_briefly(given)}: pass {{'input': x}}"
        )
    read = {net.projections[name].pre: name for name in net.external()}
    for pre, name in read.items():
        if pre not in given:
            raise ValueError(
                f"projection {name!r} reads {pre!r}, which is neither a layer,"
                f" {sorted(net.layers)}, nor a given input, {sorted(given)}"
                f"{meant(pre, [*net.layers, *given])}"
            )
    for name in given:
        if name not in read:
            raise ValueError(
                f"input {name!r} is read by no projection; inputs are {sorted(read)}"
                f"{meant(name, read)}"
            )
    readers = {pre: net.projections[name].connectivity for pre, name in read.items()}
    return {name: _input(name, x, readers[name], n_steps) for name, x in given.items()}


def _input(name: str, x: Any, reader: Any, n_steps: int | None) -> Array:
    n = reader.n_pre
    given, x = x, real(x, f"input {name!r}")
    if isinstance(given, jax.Array):  # booleans and whole numbers stay as they are
        x = given
    over_time = x.ndim == 2 and x.shape[1] == n and n_steps in (None, len(x))
    if x.shape != (n,) and not over_time:
        T = "T" if n_steps is None else n_steps
        raise ValueError(
            f"input {name!r} must have shape [{n}], held, or [{T}, {n}], a row a step; got"
            f" {x.shape}{_shape_meant(x.shape, n, n_steps, getattr(reader, 'size', None))}"
        )
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"input {name!r} must be real; got {x.dtype}")
    if not isinstance(x, Tracer) and not _finite(x):
        raise ValueError(f"input {name!r} must be finite; got NaN or infinity")
    return x


def _shape_meant(
    shape: tuple[int, ...], n: int, n_steps: int | None, maps: tuple[int, ...] | None
) -> str:
    """The cure for an input of that shape, read as `maps` if any."""
    if maps and len(shape) > 1 and math.prod(shape[-len(maps) :]) == n != shape[-1]:
        return _maps_meant(shape, maps)
    if len(shape) == 2 and shape[1] == n:
        return f": pass n_steps={shape[0]} if rows are steps, jax.vmap over the batch if samples"
    if len(shape) == 3 and shape[2] == n:
        return ": jax.vmap over the batch"
    if math.prod(shape) == n:
        return ": pass x.reshape(-1)"
    if len(shape) > 1 and math.prod(shape[1:]) == n:
        if shape[0] == n_steps:
            return ": pass x.reshape(len(x), -1)"
        return ": pass x.reshape(len(x), -1), and jax.vmap over the batch"
    return ""


def _maps_meant(shape: tuple[int, ...], maps: tuple[int, ...]) -> str:
    """The cure for pictures that are not flat: neurons of maps are numbered channels first."""
    lead, own = shape[: -len(maps)], shape[-len(maps) :]
    flat = "reshape(-1)" if not lead else "reshape(len(x), -1)"
    after = ", and jax.vmap over the batch if rows are samples" if lead else ""
    if own == maps or maps[0] == 1 and own == (*maps[1:], 1):
        return f": pass x.{flat}{after}"
    if own == (*maps[1:], maps[0]):
        first = f"moveaxis(x, -1, {len(lead)})"
        return f", channels last: pass jnp.{first}.{flat}{after}"
    return f": maps of {maps} are meant, flat, channels first"


def maps(projections: Mapping[str, Any]) -> None:
    """Refuse one layer's neurons as maps whose axes are in another order elsewhere."""
    seen: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, p in projections.items():
        for end, which in ((p.pre, "size"), (p.post, "size_post")):
            if hasattr(p.connectivity, "size_post"):
                size = getattr(p.connectivity, which)
                first, other = seen.setdefault(end, (size, name))
                if size != first and sorted(size) == sorted(first):
                    raise ValueError(
                        f"projection {name!r} has {end!r} as maps of {size}, {other!r} as {first}:"
                        " pass both sizes channels first"
                    )


def _finite(x: Array) -> bool:
    """Row by row on the host where that copies nothing, so that no mask of all is made."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return True
    if any(d.platform != "cpu" for d in x.devices()) or len(x.devices()) > 1:
        return bool(jnp.isfinite(x).all())
    rows = np.asarray(x)
    return all(np.isfinite(rows[i : i + 512]).all() for i in range(0, len(rows), 512))


def mapping(name: str, given: Any) -> None:
    """Refuse what is not by name."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a dict by layer; got {_briefly(given)}")


def weights(net: "Network", given: Any) -> None:
    """Refuse unless each projection has weights that can be read."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"weights must be a dict by projection; got {_briefly(given)}: pass"
            " net.init_weights(key)"
        )
    for name in net.projections:
        if name not in given:
            raise ValueError(
                f"weights must have projection {name!r}; got {sorted(given)}: pass"
                " net.init_weights(key)"
            )
        if isinstance(given[name], type) or not callable(getattr(given[name], "apply", None)):
            raise TypeError(
                f"weights of projection {name!r} must have apply; got {_briefly(given[name])}: hold"
                f" numbers by nj.Ideal(w, net.projections[{name!r}].connectivity)"
            )
        _joins(name, net.projections[name].connectivity, given[name])


def _joins(name: str, connectivity: Any, held: Any) -> None:
    """Refuse weights of another wiring, as far as sizes tell."""
    sizes = lambda c: (c.n_pre, c.n_post, *c.shape)  # noqa: E731
    other = getattr(held, "connectivity", None)
    if hasattr(other, "n_pre") and sizes(other) != sizes(connectivity):
        raise ValueError(
            f"weights of projection {name!r} must be of {_wiring(connectivity)}; got"
            f" {_wiring(other)}: pass net.init_weights(key) of this network"
        )


def _wiring(c: Any) -> str:
    return f"{type(c).__name__} {c.n_pre} x {c.n_post}, weights {list(c.shape)}"


def state(net: "Network", given: Any) -> None:
    """Refuse what is no state of these layers."""
    neurons = getattr(given, "neurons", None)
    if not isinstance(neurons, dict):
        raise TypeError(f"state must be a State; got {_briefly(given)}: pass net.init()")
    if set(neurons) != set(net.layers):
        raise ValueError(
            f"state must be of layers {sorted(net.layers)}; got {sorted(neurons)}: pass net.init()"
        )
    for name, layer in net.layers.items():
        _precise(f"neurons[{name!r}]", neurons[name], "v_low", layer.neuron, ("tau_mem",))
        kept = {f"synapses[{name!r}]": (layer.synapse, given.synapses.get(name))}
        own = given.ports.get(name, {})
        kept |= {f"ports[{name!r}][{m!r}]": (x, own.get(m)) for m, x in layer.ports.items()}
        for what, (model, of) in kept.items():
            _precise(what, of, "_low", getattr(model, "kinetics", model))
    for name in set(given.rules) & set(net.projections):
        _precise(f"rules[{name!r}]", given.rules[name], "_low", net.rule(name))


def _precise(what: str, of: Any, low: str, model: Any, taus: Iterable[str] | None = None) -> None:
    """Refuse a state that was made for other parameters, and keeps too little for these."""
    parts = jax.tree_util.tree_flatten_with_path(of, is_leaf=lambda x: x is None)[0]
    lows = [x for path, x in parts if _path(path).endswith(low)]
    if not lows or any(x is not None for x in lows):
        return
    dtype = next(x.dtype for _, x in parts if x is not None)
    around: Any = getattr(model, "v_rest", 0.0)
    for name in taus or [name for name in dir(model) if name.startswith("tau")]:
        tau: Any = getattr(model, name, 0.0)
        if not any(isinstance(x, Tracer) for x in (tau, around)) and felt(tau, dtype, around):
            why = f"{name} of" if felt(tau, dtype) else "v_rest of"
            raise ValueError(
                f"state.{what} must keep what {dtype} leaves out, as {why} {type(model).__name__}"
                " asks for it; got None: pass net.init() of this network"
            )


def made_by(net: "Network", given: "State") -> None:
    """Refuse a state of another network, by names, parts and shapes: where a run is traced."""
    rules = jax.eval_shape(net.init_rules) if given.rules else {}
    fresh = jax.eval_shape(net.init)._replace(rules=rules)
    for part, own, other in zip(fresh._fields, given, fresh, strict=True):
        if not set(other) <= set(own):  # more may be there: a projection was cut
            raise ValueError(
                f"state.{part} must be of {sorted(other)}; got {sorted(own)}: pass net.init() of"
                " this network"
            )
        for name in other:
            _alike(f"state.{part}[{name!r}]", own[name], other[name])


def _alike(what: str, own: Any, fresh: Any) -> None:
    """Refuse what has other parts or shapes; a part that is not kept may be None."""
    found, expected = (
        dict(jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda x: x is None)[0])
        for x in (own, fresh)
    )
    if found.keys() != expected.keys():
        kinds = [type(x).__name__ for x in (fresh, own)]
        parts = (
            kinds if kinds[0] != kinds[1] else [sorted(map(_path, x)) for x in (expected, found)]
        )
        raise ValueError(
            f"{what} must be {parts[0]}; got {parts[1]}: pass net.init() of this network"
        )
    for path, x in found.items():
        new = expected[path]
        if x is None or new is None or jnp.shape(x) == new.shape:
            continue
        batch = jnp.ndim(x) > new.ndim and jnp.shape(x)[-new.ndim :] == new.shape
        cure = "jax.vmap over the batch" if batch else "pass net.init() of this network"
        raise ValueError(
            f"{what}{_path(path)} must have shape {new.shape}; got {jnp.shape(x)}: {cure}"
        )


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path)


def learn(net: "Network", asked: bool | None) -> None:
    """Refuse to leave open whether rules are applied, and to apply those that cannot be."""
    asked = None if asked is None else flag("learn")(asked)
    taught = {n: net.rule(n) for n in net.plastic() if net.rule(n) is not None}
    if taught and asked is None:
        name = next(iter(taught))
        own = net.projections[name].rule is not None
        who = f"projection {name!r}" if own else f"layer {net.projections[name].post!r}"
        raise ValueError(
            f"learn must be said, as {who} has a rule: pass learn=True to change weights"
            " while the network runs, learn=False to run it as it is"
        )
    if not asked:
        return
    for name, rule in taught.items():
        if name not in net.learning():
            raise ValueError(
                f"learn must be False, as {type(rule).__name__}, the rule of projection {name!r},"
                " cannot run with the network: learn by wta_broadcast.train_step, or a loop over"
                " net.step"
            )
        wiring, delays = net.projections[name].connectivity, net.projections[name].delays
        if hasattr(rule, "visit") and getattr(wiring, "columns", ()) is None:
            raise ValueError(
                f"projection {name!r} learns where receivers fire, for which its event list must"
                " have columns: pass connectivity.with_columns()"
            )
        if delays is not None and delays.steps.ndim:
            raise ValueError(
                f"delays of projection {name!r} must be one number, as it learns; got one a synapse"
            )
    if not taught:
        raise ValueError(
            "learn must be False, as no plastic projection has a rule: pass Layer(..., rule=...)"
            " or Projection(..., rule=...)"
        )


def signals(net: "Network", given: Any, n_steps: int, learn: bool) -> dict[str, Array]:
    """Third factors by layer, each one number, [T], or [T, n]; refused where no rule hears them."""
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise TypeError(f"signals must be a dict by layer; got {_briefly(given)}")
    taught = [n for n in net.learning() if not hasattr(net.rule(n), "visit")] if learn else []
    heard = sorted({net.projections[n].post for n in taught})
    found = {}
    for name, x in given.items():
        if name not in heard:
            raise ValueError(
                f"signals of {name!r} are heard by no rule; layers whose rules hear one are {heard}"
                f"{meant(name, heard)}"
            )
        x, n = real(x), net.layers[name].n
        if x.shape not in ((), (n_steps,), (n_steps, n)):
            raise ValueError(
                f"signals of {name!r} must be one number, [{n_steps}] or [{n_steps}, {n}]; got"
                f" {x.shape}"
            )
        if not isinstance(x, Tracer) and not _finite(jnp.atleast_1d(x)):
            raise ValueError(f"signals of {name!r} must be finite; got NaN or infinity")
        found[name] = x
    return found


def drive(layer: str, n: int, current: Array) -> None:
    """Refuse a current that is not one number a neuron."""
    if jnp.shape(current) != (n,):
        current = jnp.asarray(current)
        cure = ": pass x.reshape(-1)" if math.prod(current.shape) == n else ""
        cure = ": jax.vmap over the batch" if current.shape[1:] == (n,) else cure
        raise ValueError(
            f"current into layer {layer!r} must have shape [{n}]; got {current.shape}{cure}"
        )


def pair(what: str, model: Any, answer: Any, second: str) -> tuple[Any, Any]:
    """What `step` of a model returned, refused unless two things."""
    if type(answer) is not tuple or len(answer) != 2:
        raise TypeError(
            f"step of {what}, a {type(model).__name__}, must return (state, {second}); got"
            f" {_briefly(answer)}"
        )
    return answer


def same(what: str, before: Any, after: Any) -> None:
    """Refuse a state whose structure, shapes or dtypes change in a step."""
    old, new = (jax.tree.map(_kind, x) for x in (before, after))
    if old != new:
        raise TypeError(
            f"step of {what} must return a state like the one it got, {old}; got {new}: give state,"
            " weights and inputs one dtype"
        )


def _kind(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if eqx.is_array(x) else type(x).__name__


def _briefly(x: Any) -> str:
    if isinstance(x, type):
        return f"the class {x.__name__}"
    if eqx.is_array(x):
        return f"an array of shape {x.shape}"
    return f"{type(x).__name__} {brief(x)}"
