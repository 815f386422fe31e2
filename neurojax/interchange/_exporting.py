"""From a network to a graph of NIR: what it can hold, and nothing is skipped in silence."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neurojax import _given
from neurojax._check import brief
from neurojax._memory import affordable
from neurojax.interchange import _sidecar
from neurojax.interchange._dynamics import Reading, misfit, node
from neurojax.interchange._file import required
from neurojax.interchange._importing import Imported, from_nir
from neurojax.interchange.models import Relay
from neurojax.layers import Layer, Projection
from neurojax.network import Network
from neurojax.neurons.leaky import ALIF, LIF
from neurojax.neurons.sources import StepCurrent
from neurojax.simulation import simulate
from neurojax.weights import Ideal
from neurojax.wiring.convolution import Conv1D, Conv2D
from neurojax.wiring.layouts import FanIn

DROPPED = ("adaptation", "devices", "learning", "refractory", "release")
MOST_DELAYS = 32
_STEPS, _SEED = 256, 0


def to_nir(
    net: Any, weights: Any, path: Any = None, *, dt: float, leak: str = "exact",
    reset: str = "hard", input: str = "hold", order: str = "membrane", time_unit: str = "s",
    outputs: Any = None, drop: Iterable[str] = (),
) -> Any:  # fmt: skip
    """The `nir.NIRGraph` of a network, written to `path` if there is one: without loss, or refused.

    The arguments say how the numbers are to be read again, as those of `from_nir` do: with leak
    "euler" time constants become those that leave the same after a step of Euler's method; r and
    w_in follow from `input`. `dt` is the step in ms that the network runs with. `outputs` maps
    names of Output nodes to layers, by default one for each layer that no other hears.
    LIF fires at its threshold and NIR above it, so v_threshold is the next number below, unless the
    neuron has `spike=nj.surrogate.above`; with reset "subtract", which NIR does not know, it stays
    and the node's metadata tell. A projection back to its own layer, one step late, is written
    without a Delay, as every tool runs it; any other delay is one.
    What has been written is read again and run for 256 steps of random input: its spikes are those
    of the network, bit for bit, or there is no file. Beside it `path` + ".json" says how it was
    made and holds what `drop` names: "learning" (rules), "release" (short-term plasticity),
    "refractory", "adaptation" (ALIF becomes LIF), "devices" (weights as they read now).
    Raises `ValueError` naming layer or projection and cure for all that NIR cannot hold.
    Source: Pedersen et al. (2024), Neuromorphic intermediate representation.

    >>> layers = {"h": nj.Layer(2, nj.LIF(tau_mem=10.0))}
    >>> net = nj.Network(layers, {"in": nj.Projection("x", "h", nj.Dense(3, 2))})
    >>> graph = nj.to_nir(net, net.init_weights(jax.random.key(0)), dt=1.0)
    >>> sorted(graph.nodes), graph.nodes["h"].tau  # s
    (['h', 'in', 'output', 'x'], array([0.01, 0.01]))
    """
    nir = required("nir")
    how = Reading.of(dt, leak, reset, input, order, time_unit)
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network; got {brief(net)}")
    _given.weights(net, weights)
    kept, held, dropped = _reduced(net, weights, _names(drop))
    built = _Graph(kept, held, how)
    built.write(_sinks(kept, outputs))
    graph = built.graph(nir)
    if path is None:
        _same(kept, held, graph, how, built.outputs)
    else:
        _stored(nir, graph, Path(os.fspath(path)), kept, held, how, dropped, built.outputs)
    return graph


def _names(drop: Iterable[str]) -> set[str]:
    names = {drop} if isinstance(drop, str) else {*drop}
    if unknown := sorted(map(str, names - {*DROPPED})):
        raise ValueError(f"drop must name some of {', '.join(DROPPED)}; got {unknown[0]!r}")
    return names


def _reduced(net: Network, weights: dict, drop: set[str]) -> tuple[Network, dict, dict]:
    """What is left of network and weights, and what is not, by layer or projection."""
    if net.gaps:
        raise ValueError(f"gap junctions {sorted(net.gaps)[0]!r}: NIR has none: take them out")
    lost: dict[str, dict[str, Any]] = {}
    layers = {n: _layer(n, x, drop, lost.setdefault(n, {})) for n, x in net.layers.items()}
    projections = {}
    for n, p in net.projections.items():
        projections[n] = _projection(n, p, drop, lost.setdefault(n, {}))
    held = {n: _numbers(n, w, drop, lost.setdefault(n, {})) for n, w in weights.items()}
    held = {n: held[n] for n in projections}
    return Network(layers, projections), held, {n: x for n, x in lost.items() if x}


def _refuse(what: str, name: str, problem: str, cure: str = "") -> ValueError:
    return ValueError(f"{what} {name!r}: {problem}{cure and ': '}{cure}")


def _layer(name: str, layer: Layer, drop: set[str], lost: dict[str, Any]) -> Layer:
    neuron = layer.neuron
    if layer.ports:
        raise _refuse("layer", name, "NIR has no ports", "give it one synapse")
    if layer.winners is not None:
        raise _refuse("layer", name, "NIR has no winners", "pass winners=None")
    if layer.rule is not None:
        _drop("layer", name, "learning", "a rule", drop)
        lost["rule"] = repr(layer.rule)
    if isinstance(neuron, ALIF):
        _drop("layer", name, "adaptation", "a threshold that adapts", drop)
        lost["adaptation"] = _sidecar.adaptation(neuron)
        shared = {f: getattr(neuron, f) for f in LIF.__dataclass_fields__}
        neuron = LIF(**shared)
    if getattr(neuron, "t_ref", None) is not None and "refractory" in drop:
        lost["t_ref_ms"] = np.asarray(neuron.t_ref, float).tolist()
        neuron = replace(neuron, t_ref=None)
    return Layer(layer.n, neuron, layer.synapse)


def _drop(what: str, name: str, item: str, has: str, drop: set[str]) -> None:
    if item not in drop:
        raise _refuse(
            what, name, f"NIR cannot hold {has}", f"pass drop=({item!r},) to leave it out"
        )


def _projection(name: str, p: Projection, drop: set[str], lost: dict[str, Any]) -> Projection:
    if p.rule is not None:
        _drop("projection", name, "learning", "a rule", drop)
        lost["rule"] = repr(p.rule)
    if p.release is not None:
        _drop("projection", name, "release", "short-term plasticity", drop)
        lost["release"] = repr(p.release)
    return replace(p, rule=None, release=None)


def _numbers(name: str, w: Any, drop: set[str], lost: dict[str, Any]) -> Ideal:
    if type(w) is Ideal:
        return Ideal(w.w, w.connectivity)
    _drop("projection", name, "devices", f"{type(w).__name__}", drop)
    lost["devices"] = f"weights as they read at the time, of {type(w).__name__}"
    return Ideal(w.w, w.connectivity)


def _sinks(net: Network, outputs: Any) -> dict[str, str]:
    """Layers to hand out, by the names of Output nodes."""
    if outputs is not None:
        if not isinstance(outputs, dict) or not outputs:
            raise TypeError(
                f"outputs must map names of Output nodes to layers; got {outputs!r:.60}"
            )
        if unknown := sorted(map(str, {*outputs.values()} - net.layers.keys())):
            raise ValueError(f"outputs must be among {sorted(net.layers)}; got {unknown[0]!r}")
        return outputs
    heard = {p.pre for p in net.projections.values() if p.pre != p.post}
    last = [n for n in sorted(net.layers) if n not in heard] or sorted(net.layers)
    last = [n for n in last if not isinstance(net.layers[n].neuron, StepCurrent)]
    taken = {*net.layers, *net.projections, *(p.pre for p in net.projections.values())}
    if len(last) == 1:
        relay = isinstance(net.layers[last[0]].neuron, Relay)
        return {last[0] if relay else _free("output", taken): last[0]}
    return {n if isinstance(net.layers[n].neuron, Relay) else _free(f"{n}.output", taken): n
            for n in last}  # fmt: skip


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


class _Graph:
    """Nodes and edges, as they are written."""

    def __init__(self, net: Network, weights: dict[str, Ideal], how: Reading):
        self.net, self.weights, self.how = net, weights, how
        self.nodes: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {}
        self.edges: list[tuple[str, str]] = []
        self.outputs: dict[str, str] = {}
        self.shapes = _maps(net)
        self.own: dict[str, np.ndarray] = {}
        self.biases = self._biases()
        self.marked = _marked(net)

    def _biases(self) -> dict[str, dict[int, np.ndarray]]:
        """Currents of constant sources by the layer and delay that they reach, [n].

        One called "name.bias" is that of projection "name", as `from_nir` calls them.
        """
        found: dict[str, dict[int, np.ndarray]] = {}
        for name, p in self.net.projections.items():
            source = self.net.layers.get(p.pre)
            if source is None or not isinstance(source.neuron, StepCurrent):
                continue
            sent = _constant(p.pre, source, p)
            current = np.asarray(_dense(p.connectivity, self.weights[name].w), float) @ sent
            beside = self.net.projections.get(name.removesuffix(".bias"), p)
            if p.delay == 0 and beside is not p and beside.post == p.post and _takes_bias(beside):
                self.own[name.removesuffix(".bias")] = current
                continue
            onto = found.setdefault(p.post, {})
            onto[p.delay] = onto.get(p.delay, 0) + current
        return found

    def _bias(self, name: str, post: str) -> np.ndarray | None:
        """What a projection takes with it: its own, or what is left for its layer."""
        if name in self.own:
            return self.own.pop(name)
        return self.biases.get(post, {}).pop(0, None)

    def write(self, outputs: dict[str, str]) -> None:
        """All layers, projections and ends."""
        net, relays = self.net, {}
        for name, layer in net.layers.items():
            if isinstance(layer.neuron, StepCurrent):
                continue
            if isinstance(layer.neuron, Relay):
                sent = any(p.pre == name for p in net.projections.values())
                named = [o for o, n in outputs.items() if n == name]
                if not sent and named == [name]:
                    relays[name] = named[0]
                    continue
                self.node(name, "Scale", {"scale": np.ones(self.shapes.get(name, (layer.n,)))})
                continue
            if problem := misfit(layer, self.how):
                raise _refuse("layer", name, problem)
            self.node(name, *node(layer, self.shapes.get(name, (layer.n,)), self.how))
        for name in sorted({p.pre for p in net.projections.values()} - {*net.layers}):
            n = next(p.connectivity.n_pre for p in net.projections.values() if p.pre == name)
            self.node(name, "Input", {"shape": np.array(self.shapes.get(name, (n,)))})
        for name in sorted(net.projections):
            p = net.projections[name]
            if not isinstance(getattr(net.layers.get(p.pre), "neuron", None), StepCurrent):
                self.projection(name, p)
        for post, left in self.biases.items():
            if left:
                self._alone(post, left)
        for out, name in outputs.items():
            shape = self.shapes.get(name, (net.layers[name].n,))
            self.node(out, "Output", {"shape": np.array(shape)})
            if name not in relays:
                self.edges.append((name, out))
        self.outputs = outputs

    def node(self, name: str, kind: str, fields: dict, metadata: dict | None = None) -> str:
        """Refused where its name cannot be written, or is another's."""
        if not name or name == "." or "/" in name or "\0" in name:
            raise _refuse(
                "node", name, "a name in NIR must be text without '/', not '.'", "rename it"
            )
        if name in self.nodes:
            cure = "rename a layer, a projection or an input"
            raise _refuse("node", name, "names must differ in NIR, whatever they are of", cure)
        self.nodes[name] = kind, fields, metadata or {}
        return name

    def projection(self, name: str, p: Projection) -> None:
        """Its nodes, one after another; one row of them for each delay."""
        if p.delays is None:
            return self._row(name, name, p, p.delay, None)
        steps = np.asarray(p.delays.steps)
        different = np.unique(steps)
        if len(different) > MOST_DELAYS:
            told = f"NIR has a delay an element, none a synapse; {len(different)} different ones"
            raise _refuse("projection", name, told, f"round them to at most {MOST_DELAYS}")
        for d in different:
            mask = None if len(different) == 1 else jnp.asarray(steps == d)
            self._row(name, name if mask is None else f"{name}@{d}", p, int(d), mask)
        return None

    def _row(self, of: str, name: str, p: Projection, delay: int, mask: Any) -> None:
        at = p.pre
        if delay and not (name in self.marked and mask is None):
            shape = self.shapes.get(p.pre, (p.connectivity.n_pre,))
            seconds = delay * self.how.dt / self.how.unit
            fields = {"delay": np.full(shape, seconds)}
            at = self._next(at, self.node(f"{name}.delay", "Delay", fields))
        w = self.weights[of].w
        w = w if mask is None else jnp.where(mask, w, 0)
        w = w.astype(jnp.float32) if w.dtype.itemsize < 4 else w
        at = self._weighed(name, p, w, at)
        post = p.post
        if at == p.pre and (at, post) in self.edges:
            ones = {"scale": np.ones(self.shapes.get(p.pre, (p.connectivity.n_pre,)))}
            at = self._next(at, self.node(name, "Scale", ones))
        self.edges.append((at, post))

    def _next(self, at: str, name: str) -> str:
        self.edges.append((at, name))
        return name

    def _weighed(self, name: str, p: Projection, w: Any, at: str) -> str:
        c = p.connectivity
        if isinstance(c, Conv1D | Conv2D):
            return self._windows(name, p, np.asarray(w), at)
        shape = self.shapes.get(p.pre, (c.n_pre,))
        if isinstance(c, FanIn) and _each(c):
            if self.shapes.get(p.post, (c.n_post,)) != shape:
                raise _refuse("projection", name, "ends at maps of another shape", "use a Conv2D")
            scale = np.asarray(w).reshape(shape)
            if (scale == 1).all():
                return at
            return self._next(at, self.node(name, "Scale", {"scale": scale}))
        if len(self.shapes.get(p.post, (c.n_post,))) > 1:
            raise _refuse(
                "projection", name, "NIR cannot make maps of a plain layer", "use a Conv2D"
            )
        affordable(f"projection {name!r} as a matrix", 8 * c.n_pre * c.n_post)
        full = np.asarray(_dense(c, w))
        if len(shape) > 1:
            fields = {"input_type": np.array(shape), "start_dim": 0, "end_dim": -1}
            at = self._next(at, self.node(f"{name}.flatten", "Flatten", fields))
        bias = self._bias(name, p.post)
        if bias is None:
            return self._next(at, self.node(name, "Linear", {"weight": full}))
        fields = {"weight": full, "bias": bias.astype(full.dtype)}
        return self._next(at, self.node(name, "Affine", fields))

    def _windows(self, name: str, p: Projection, w: np.ndarray, at: str) -> str:
        c: Any = p.connectivity
        one = isinstance(c, Conv1D)
        if {*c.pool} != {1}:
            if one:
                raise _refuse("projection", name, "NIR has no pools along one axis", "pass pool=1")
            if any(n % k for n, k in zip(c.size[1:], c.pool, strict=True)):
                cure = "pass a pool that divides them"
                raise _refuse("projection", name, "pools leave part of the maps unseen", cure)
            fields = {"kernel_size": np.array(c.pool), "stride": np.array(c.pool),
                      "padding": np.zeros(2, int)}  # fmt: skip
            at = self._next(at, self.node(f"{name}.pool", "AvgPool2d", fields))
        sizes = (lambda x: int(x[0])) if one else (lambda x: np.array(x))  # noqa: E731
        bias = np.zeros(c.features, w.dtype)
        given = self._bias(name, p.post)
        if given is not None:
            maps = given.reshape(c.features, -1)
            if (maps != maps[:, :1]).any():
                told = "its bias differs within a map"
                raise _refuse("projection", name, told, "give each map one")
            bias = maps[:, 0].astype(w.dtype)
        fields = {
            "input_shape": sizes(c.pooled_size[1:]), "weight": w, "stride": sizes(c.stride),
            "padding": sizes(c.padding), "dilation": sizes(c.dilation), "groups": c.groups,
            "bias": bias,
        }  # fmt: skip
        return self._next(at, self.node(name, "Conv1d" if one else "Conv2d", fields))

    def _alone(self, post: str, left: dict[int, np.ndarray]) -> None:
        """Biases that no projection could take: of weights 0, from an input."""
        source = next((n for n, x in self.nodes.items() if x[0] == "Input"), None)
        shape = self.shapes.get(post, (self.net.layers[post].n,))
        for delay, bias in left.items():
            if source is None or len(shape) > 1:
                raise _refuse("layer", post, "its bias has no projection to stand with", "add one")
            at, maps = source, self.nodes[source][1]["shape"]
            name = _free(f"{post}.bias", self.nodes)
            if len(maps) > 1:
                fields = {"input_type": maps, "start_dim": 0, "end_dim": -1}
                at = self._next(at, self.node(f"{name}.flatten", "Flatten", fields))
            zeros = np.zeros((len(bias), int(np.prod(maps))), np.float32)
            at = self._next(at, self.node(name, "Affine", {"weight": zeros, "bias": bias}))
            if delay:
                seconds = np.full(shape, delay * self.how.dt / self.how.unit)
                at = self._next(at, self.node(f"{name}.delay", "Delay", {"delay": seconds}))
            self.edges.append((at, post))

    def graph(self, nir: Any) -> Any:
        """As nir has it; its own check of shapes, where that is right."""
        made = {}
        for name, (kind, fields, metadata) in self.nodes.items():
            fields = {k: v for k, v in fields.items() if k != "shape"} | (
                {"input_type" if kind == "Input" else "output_type": fields["shape"]}
                if "shape" in fields else {}
            )  # fmt: skip
            made[name] = getattr(nir, kind)(**fields, metadata=metadata)
        trusted = not any(kind.startswith(("Conv", "Avg")) for kind, _, _ in self.nodes.values())
        return nir.NIRGraph(nodes=made, edges=self.edges, metadata={}, type_check=trusted)


def _constant(name: str, source: Layer, p: Projection) -> np.ndarray:
    """What a source sends in every step, [n]."""
    neuron: Any = source.neuron
    times, values = np.asarray(neuron.times), np.asarray(neuron.values, float)
    if times.shape != (1,) or times[0] != 0 or p.delays is not None:
        cure = "NIR has constant ones alone, from 0 ms on"
        raise _refuse("layer", name, "currents that change in time", cure)
    return np.broadcast_to(values[0], (source.n,))


def _takes_bias(p: Projection) -> bool:
    """Whether it becomes one Affine or convolution, which has room for a bias."""
    return p.delays is None and not (isinstance(p.connectivity, FanIn) and _each(p.connectivity))


def _each(c: FanIn) -> bool:
    """Whether neuron i hears neuron i alone."""
    return c.shape == (c.n_pre, 1) and bool((np.asarray(c.index)[:, 0] == np.arange(c.n_pre)).all())


def _dense(c: Any, w: Any) -> Any:
    if hasattr(c, "matrix"):
        return c.matrix(w)
    return jax.vmap(lambda s: c.apply(w, s))(jnp.eye(c.n_pre, dtype=w.dtype)).T


def _maps(net: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of layers and inputs that convolutions read or write."""
    found: dict[str, tuple[int, ...]] = {}
    for name, p in net.projections.items():
        c = p.connectivity
        for end, shape in ((p.pre, "size"), (p.post, "size_post")):
            if isinstance(c, Conv1D | Conv2D):
                shape = tuple(getattr(c, shape))
                if found.setdefault(end, shape) != shape:
                    told = f"{end!r} has maps of shape {found[end]} elsewhere; got {shape}"
                    raise _refuse("projection", name, told, "NIR has one shape a node")
    return found


def _marked(net: Network) -> set[str]:
    """Projections one step late that are so by closing a loop, as every reader takes it.

    All within a loop must be, or a reader could not tell which.
    """
    inner = [(n, p) for n, p in net.projections.items() if p.pre in net.layers]
    near = {n: p for n, p in inner if p.delays is None and p.delay <= 1}
    after: dict[str, set[str]] = {n: set() for n in net.layers}
    for p in near.values():
        after[p.pre].add(p.post)
    reach = {n: {n} for n in after}
    for _ in after:
        for n, found in reach.items():
            reach[n] = found | {m for x in found for m in after[x]}
    loops = {n: frozenset(m for m in found if n in reach[m]) for n, found in reach.items()}
    within = {n: p for n, p in near.items() if p.post in loops[p.pre]}
    mixed = {loops[p.pre] for p in within.values() if p.delay == 0}
    return {n for n, p in within.items() if p.delay == 1 and loops[p.pre] not in mixed}


def _same(net: Network, weights: dict, source: Any, how: Reading, outputs: dict[str, str]) -> None:
    """Refuse a graph that does not do what the network does, over 256 steps of random input."""
    unit = "s" if how.unit == 1000.0 else "ms"
    again = from_nir(
        source, dt=how.dt, leak=how.leak, reset=how.reset, input=how.input, order=how.order,
        time_unit=unit,
    )  # fmt: skip
    rng = np.random.default_rng(_SEED)
    inputs = {}
    for name, shape in sorted(again.inputs.items()):
        sizes = 2.0 ** rng.integers(-3, 7, (_STEPS, 1))
        inputs[name] = jnp.asarray((rng.random((_STEPS, int(np.prod(shape)))) < 0.3) * sizes, float)
    key = jax.random.key(_SEED)
    ours = _sent(net, weights, inputs, how, key, {*outputs.values()})
    kinds = {n: getattr(net.layers[n].neuron, "v_th", None) is not None for n in outputs.values()}
    theirs = _sent(again.net, again.weights, inputs, how, key, {*again.outputs.values()})
    for out, layer in outputs.items():
        a, b = ours[layer], theirs[again.outputs[out]]
        spiking = kinds[layer]
        # Potentials are sums in another order, perhaps: a few dozen roundings of the largest.
        near = 64 * np.finfo(a.dtype).eps * max(1.0, np.abs(a).max(initial=0.0))
        if (a != b).any() if spiking else not np.allclose(a, b, rtol=1e-4, atol=near):
            step = int(np.argwhere(a != b)[0][0])
            told = f"what was written differs from the network in step {step}"
            raise _refuse("layer", layer, told, "tell us, with the network")


def _sent(net: Network, weights: dict, inputs: dict, how: Reading, key: Any, layers: set[str]):
    read = {p.pre for p in net.projections.values()} - {*net.layers}
    probe = lambda records: {n: records[n].z for n in layers}  # noqa: E731
    given = {n: x for n, x in inputs.items() if n in read}
    _, z = simulate(
        net, weights, net.init(), given, n_steps=_STEPS, dt=how.dt, probe=probe, key=key
    )
    return {n: np.asarray(x) for n, x in z.items()}


def _stored(nir, graph, path: Path, net, weights, how, dropped, outputs) -> None:
    """Write, read again, and only then be there under its name; the sidecar beside it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "no such folder", str(path.parent))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nir-") as folder:
        new = Path(folder) / "graph.nir"
        nir.write(str(new), graph)
        _same(net, weights, new, how, outputs)
        side = _sidecar.beside(new)
        _sidecar.written(side, how, dropped, _SEED)
        side.replace(_sidecar.beside(path))
        new.replace(path)


__all__ = ["Imported", "to_nir"]
