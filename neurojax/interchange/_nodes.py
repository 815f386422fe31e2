"""Nodes and edges of NIR, as a network is written."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neurojax._memory import affordable
from neurojax.interchange._dynamics import Reading, misfit, node
from neurojax.interchange._reducing import unheld
from neurojax.interchange.models import Relay
from neurojax.layers import Layer, Projection
from neurojax.network import Network
from neurojax.neurons.sources import StepCurrent
from neurojax.weights import Ideal
from neurojax.wiring.convolution import Conv1D, Conv2D
from neurojax.wiring.layouts import FanIn

__all__ = ["Graph", "free"]

MOST_DELAYS = 32


def __dir__() -> list[str]:
    return __all__


class Graph:
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
                raise unheld("layer", name, problem)
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
            raise unheld(
                "node", name, "a name in NIR must be text without '/', not '.'", "rename it"
            )
        if name in self.nodes:
            cure = "rename a layer, a projection or an input"
            raise unheld("node", name, "names must differ in NIR, whatever they are of", cure)
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
            raise unheld("projection", name, told, f"round them to at most {MOST_DELAYS}")
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
                raise unheld("projection", name, "ends at maps of another shape", "use a Conv2D")
            scale = np.asarray(w).reshape(shape)
            if (scale == 1).all():
                return at
            return self._next(at, self.node(name, "Scale", {"scale": scale}))
        if len(self.shapes.get(p.post, (c.n_post,))) > 1:
            raise unheld(
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
                raise unheld("projection", name, "NIR has no pools along one axis", "pass pool=1")
            if any(n % k for n, k in zip(c.size[1:], c.pool, strict=True)):
                cure = "pass a pool that divides them"
                raise unheld("projection", name, "pools leave part of the maps unseen", cure)
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
                raise unheld("projection", name, told, "give each map one")
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
                raise unheld("layer", post, "its bias has no projection to stand with", "add one")
            at, maps = source, self.nodes[source][1]["shape"]
            name = free(f"{post}.bias", self.nodes)
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
        raise unheld("layer", name, "currents that change in time", cure)
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
                    raise unheld("projection", name, told, "NIR has one shape a node")
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


def free(name: str, taken: Iterable[str]) -> str:
    """`name`, with as many `_` behind it as none of `taken` has."""
    while name in taken:
        name += "_"
    return name
