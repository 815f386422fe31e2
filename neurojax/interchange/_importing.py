"""From a graph of NIR to a network: nodes with a state are layers, paths between are projections.

Within a cycle every spike is one step old, unless a delay lies on it: so the answer follows from
the graph alone, not from the names of its nodes or their order.
"""

import itertools
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from neurojax._check import brief
from neurojax.interchange._dynamics import Reading, canonical, model
from neurojax.interchange._file import read
from neurojax.interchange._graph import STATEFUL, Graph, ends, flat, plain, refusal, shapes
from neurojax.interchange._linear import Map, folded, wired
from neurojax.interchange._sidecar import restored
from neurojax.interchange.models import Relay
from neurojax.layers import Layer, Projection
from neurojax.network import Network
from neurojax.neurons.sources import StepCurrent

MOST_PATHS = 10_000


class Imported(NamedTuple):
    """A network from a graph, and how to run it; see `from_nir`.

    Fields:
        net: Network; layers go by the names of their nodes
        weights: dict[str, Ideal]; those of the file
        inputs: dict[str, tuple[int, ...]]; shape of each Input; `simulate` takes it flat, [n]
        outputs: dict[str, str]; for each Output the layer that it hands out
        dt: float, ms; of a step
        notes: tuple[str, ...]; what the file left open, and how it was read
    """

    net: Network
    weights: dict[str, Any]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, str]
    dt: float
    notes: tuple[str, ...]


class _Path(NamedTuple):
    """From a layer, an input or a bias to a layer or an output, through nodes without state."""

    pre: str
    nodes: list[str]
    post: str
    bias: bool
    late: bool  # its first edge lies on a cycle


def from_nir(
    source: Any, *, dt: float, leak: str = "exact", reset: str = "hard", input: str = "hold",
    order: str = "membrane", time_unit: str = "s", sidecar: Any = None,
) -> Imported:  # fmt: skip
    """A network from a NIR file or `nir.NIRGraph`, exact in the reading that is asked for.

    A file holds equations in continuous time; tools step them differently (docs/exchange.md). So
    it is for the caller to say how it is meant:

        dt        step, ms; there is no default
        leak      "exact": exp(-dt / tau) is left after a step;  "euler": 1 - dt / tau
        reset     "hard": v = v_reset;  "subtract": v = v - (v_threshold - v_reset)
        input     "hold": an arrival is 1 high and dt long: a synapse jumps by w_in dt / tau_syn,
                  an integrator by r dt;  "impulse": it has unit area, and they by w_in / tau_syn, r
        order     of a Cuba neuron: "membrane" first, arrivals act from the next step on;
                  "synapse" first, they act in this one
        time_unit "s" or "ms", that of the file's time constants and delays

    I, IF, LI, LIF, CubaLI, CubaLIF and Threshold become layers; Linear, Affine, Scale, Flatten,
    Delay, Conv1d, Conv2d and pools between two of them one projection a path (one a delay where
    elements differ in theirs), with the weights of the file; biases come from a neuron, "bias",
    that sends 1. Neurons fire above the threshold and start at v_leak, IF at v_reset, I at 0. An
    edge that leaves a neuron and closes a cycle is one step late, unless a delay lies on the cycle.
    `sidecar`, a file that `to_nir` wrote, brings back what NIR cannot hold; it is never needed.
    Raises `ValueError` naming file, node and cure for what is no sound graph, for delays that are
    no whole number of steps, and for what would be lost; links out of a file are not followed.
    Source: Pedersen et al. (2024), Neuromorphic intermediate representation.

    >>> import nir
    >>> one = lambda x: np.array([x])
    >>> graph = nir.NIRGraph.from_list(
    ...     nir.Affine(weight=np.ones((1, 2)), bias=one(0.0)),
    ...     nir.LIF(tau=one(0.01), r=one(1.0), v_leak=one(0.0), v_threshold=one(0.5)),
    ... )
    >>> found = nj.from_nir(graph, dt=1.0)
    >>> found.net
    Network: 1 layer, 1 neurons, 2 synapses
      lif: 1 LIF
      affine: input -> lif, Dense 2 x 1, 2 synapses, plastic
    >>> state = found.net.init()
    >>> _, z = nj.simulate(
    ...     found.net, found.weights, state, {"input": jnp.ones(2)}, n_steps=9, dt=found.dt
    ... )
    >>> z["lif"].sum()
    Array(3., dtype=float32)
    """
    how = Reading.of(dt, leak, reset, input, order, time_unit)
    graph = graph_of(source)
    layers = {
        name: Layer(math.prod(shape), *_model(graph, name, how)) for name, shape in _stateful(graph)
    }
    sizes = shapes(graph)
    paths = _paths(graph, how)
    outputs = _outputs(graph, paths, layers, sizes)
    built = _built(graph, paths, sizes, outputs, how)
    projections = {n: _projection(x) for n, x in built.items() if not x.bias}
    biases = {n: _projection(x) for n, x in built.items() if x.bias}
    if biases:
        layers[_BIAS] = Layer(1, StepCurrent(jnp.zeros(1), jnp.ones(1)))
    net = Network(layers, projections | biases)
    if sidecar is not None:
        net = restored(net, sidecar)
    weights = net.init_weights(jax.random.key(0), dtype=canonical())
    inputs = {name: sizes[name] for name in ends(graph, "Input")}
    return Imported(net, weights, inputs, outputs, how.dt, _notes(graph, how, biases))


_BIAS = "bias"


def graph_of(source: Any) -> Graph:
    """A file or a graph as plain data without graphs within, checked."""
    if isinstance(source, str | os.PathLike):
        graph = flat(read(source))
    elif hasattr(source, "nodes") and hasattr(source, "edges"):
        graph = flat(plain(source))
    else:
        raise TypeError(f"source must be a path or a nir.NIRGraph; got {brief(source)}")
    for name in graph.nodes:
        if name == _BIAS and any("bias" in x.fields for x in graph.nodes.values()):
            raise refusal(graph.where, name, "this name is that of the source of biases: rename it")
    if not any(ends(graph, "Input")):
        raise ValueError(f"{graph.where} must have an Input; got none: add one")
    return graph


def _stateful(graph: Graph) -> Iterator[tuple[str, tuple[int, ...]]]:
    found = shapes(graph)
    return ((n, found[n]) for n, x in graph.nodes.items() if x.kind in STATEFUL)


def _model(graph: Graph, name: str, how: Reading) -> tuple[Any, Any]:
    try:
        return model(graph.nodes[name], how)
    except ValueError as error:
        raise refusal(graph.where, name, str(error)) from None


def _cycles(graph: Graph, how: Reading | None) -> dict[str, int]:
    """A number for each node, the same for those on a cycle without a delay of a step or more."""
    number = {name: i for i, name in enumerate(sorted(graph.nodes))}
    least = 1e-6 if how is None else how.dt / how.unit * (1 - 1e-6)
    late = {n for n, x in graph.nodes.items()
            if x.kind == "Delay" and (x.fields["delay"] >= least).all()}  # fmt: skip
    links = [(number[pre], number[post]) for pre, post in graph.edges if post not in late]
    pre, post = np.array(links, int).reshape(-1, 2).T
    n = len(number)
    matrix = sparse.csr_array((np.ones(len(pre)), (pre, post)), shape=(n, n))
    of = csgraph.connected_components(matrix, connection="strong")[1]
    return {name: int(of[i]) for name, i in number.items()}


def _paths(graph: Graph, how: Reading | None = None) -> list[_Path]:
    """Every way from what sends to what hears; a loop of nodes without state has no order."""
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for pre, post in graph.edges:
        after[pre].append(post)
    cycle = _cycles(graph, how)
    found: list[_Path] = []
    turns = itertools.count()

    def follow(start: str, bias: bool, at: str, passed: list[str]) -> None:
        for name in sorted(after[at]):
            node = graph.nodes[name]
            if len(found) >= MOST_PATHS or next(turns) > 20 * MOST_PATHS:
                told = f"at most {MOST_PATHS} paths from layer to layer are read; got more"
                raise ValueError(f"{graph.where}: {told}")
            if node.kind in STATEFUL or node.kind == "Output":
                first = passed[0] if passed else name
                late = not bias and cycle[first] == cycle[start]
                found.append(_Path(start, passed, name, bias, late))
            elif name in passed or name == start:
                told = "lies on a loop of nodes without state: put a neuron on it"
                raise refusal(graph.where, name, told)
            elif len(passed) > 200:
                raise refusal(graph.where, name, "lies on a path of over 200 nodes without state")
            else:
                follow(start, bias, name, [*passed, name])

    for name in sorted(graph.nodes):
        node = graph.nodes[name]
        if node.kind in STATEFUL or node.kind == "Input":
            follow(name, False, name, [])
        elif "bias" in node.fields and np.any(node.fields["bias"]):
            follow(name, True, name, [])
    return found


def _outputs(graph: Graph, paths, layers, sizes) -> dict[str, str]:
    """The layer of each Output: the one that it hears as it is, or a sum of its own."""
    outputs = {}
    for name in ends(graph, "Output"):
        onto = [p for p in paths if p.post == name]
        only = onto[0] if len(onto) == 1 else None
        does = (
            [n for n in only.nodes if graph.nodes[n].kind not in ("Pass", "Flatten")]
            if only
            else []
        )
        if only and not does and not only.bias and only.pre in layers:
            outputs[name] = only.pre
        else:
            layers[name] = Layer(math.prod(sizes[name]), Relay())
            outputs[name] = name
    return outputs


class _Built(NamedTuple):
    """What a projection is made of."""

    pre: str
    post: str
    delay: int
    map: Map
    n: int
    bias: bool


def _built(graph: Graph, paths, sizes, outputs, how: Reading) -> dict[str, _Built]:
    found: dict[str, _Built] = {}
    for p in paths:
        if p.post in outputs and outputs[p.post] != p.post:
            continue
        n = math.prod(sizes[p.pre])
        start = _bias(graph, p.pre, sizes) if p.bias else None
        terms = folded(graph, p.nodes, sizes, start, n, how)
        for delay, x in terms:
            name = _name(graph, p, found)
            name = name if len(terms) == 1 else f"{name}@{delay}"
            pre, n_pre = (_BIAS, 1) if p.bias else (p.pre, n)
            found[name] = _Built(pre, p.post, delay + p.late, x, n_pre, p.bias)
    return found


def _bias(graph: Graph, name: str, sizes: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Of each element that a node sends; one number a map of a convolution."""
    b, shape = graph.nodes[name].fields["bias"], sizes[name]
    return np.broadcast_to(b.reshape(-1, *(1,) * (len(shape) - 1)), shape).reshape(-1)


def _name(graph: Graph, p: _Path, taken: dict[str, Any]) -> str:
    """Of the nodes that weigh, where that is one path's alone."""
    weigh = [n for n in p.nodes if graph.nodes[n].kind not in ("Pass", "Flatten", "Delay")]
    short = "+".join([p.pre, *weigh, "bias"] if p.bias else weigh) or f"{p.pre}->{p.post}"
    short = f"{p.pre}.bias" if p.bias and not weigh else short
    long = "->".join([p.pre, *p.nodes, p.post]) + (" bias" if p.bias else "")
    clash = short in taken or f"{short}@0" in taken or short in graph.nodes and not weigh
    return long if clash else short


def _projection(b: _Built) -> Projection:
    layout, w = wired(b.map, b.n)
    w = jnp.asarray(np.asarray(w), canonical())
    return Projection(b.pre, b.post, layout, delay=b.delay, plastic=not b.bias, w=w)


def _notes(graph: Graph, how: Reading, biases: dict) -> tuple[str, ...]:
    """What the file leaves open and matters in it."""
    kinds = {x.kind for x in graph.nodes.values()}
    notes = []
    if kinds & {"LIF", "LI", "CubaLIF", "CubaLI"}:
        notes.append(f"leaks are {how.leak}, in steps of {how.dt:g} ms")
    if kinds & {"IF", "LIF", "CubaLIF"}:
        notes.append(f"the reset is {how.reset}")
    if kinds & {"I", "IF", "LI", "LIF", "CubaLIF", "CubaLI"}:
        one = "is 1 high for a step" if how.input == "hold" else "has unit area"
        notes.append(f"an arrival {one}")
    if kinds & {"CubaLIF", "CubaLI"}:
        notes.append(f"{how.order} first: order={how.order!r}")
    if biases:
        notes.append('biases are sent by a neuron "bias"')
    return tuple(notes)


class Verdict(NamedTuple):
    """What becomes of one node, or why it is refused."""

    node: str
    kind: str
    shape: str
    becomes: str
    taken: bool


_BECOMES = {
    "Input": "an input", "Output": "an output", "Pass": "nothing: the end of a graph within",
    "I": "a layer of Integrator", "IF": "a layer of IF", "LI": "a layer of LeakyIntegrator",
    "LIF": "a layer of LIF", "CubaLI": "a layer of LeakyIntegrator with a synapse",
    "CubaLIF": "a layer of LIF with a synapse", "Threshold": "a layer of Threshold",
    "Delay": "steps of a projection",
}  # fmt: skip


def verdicts(source: Any, **reading: Any) -> list[Verdict]:
    """A row a node; nothing is built. With `dt` and the rest of a reading numbers are tried."""
    graph = graph_of(source)
    found, how = shapes(graph), _reading(**reading) if reading else None
    _paths(graph, how)
    rows = []
    for name in sorted(graph.nodes):
        node = graph.nodes[name]
        problem = _tried(graph, name, found, how) if how is not None else None
        becomes = problem or _BECOMES.get(node.kind, "part of a projection")
        rows.append(Verdict(name, node.kind, str(list(found[name])), becomes, problem is None))
    return rows


def _reading(
    dt: float, leak: str = "exact", reset: str = "hard", input: str = "hold",
    order: str = "membrane", time_unit: str = "s",
) -> Reading:  # fmt: skip
    return Reading.of(dt, leak, reset, input, order, time_unit)


def _tried(graph: Graph, name: str, found: dict, how: Reading) -> str | None:
    try:
        if graph.nodes[name].kind in STATEFUL:
            _model(graph, name, how)
        elif graph.nodes[name].kind == "Delay":
            folded(graph, [name], found, None, math.prod(found[name]), how)
    except ValueError as error:
        return str(error).partition(f"{name!r}: ")[2] or str(error)
    return None


def check_nir(source: Any, **reading: Any) -> bool:
    """Print what `from_nir` makes of each node of a file or graph; whether it takes it all.

    Builds nothing. `reading` are the arguments of `from_nir`; without them types, fields, shapes
    and edges are checked, and with them delays and time constants against the step as well. A
    file that cannot be read at all is one line that says why, and False.
    Raises `TypeError` for what is neither path nor graph.

    >>> import nir
    >>> graph = nir.NIRGraph.from_list(nir.Threshold(threshold=np.ones(3)))
    >>> nj.check_nir(graph)
    input      Input      [3]  an input
    output     Output     [3]  an output
    threshold  Threshold  [3]  a layer of Threshold
    True
    """
    try:
        rows = verdicts(source, **reading)
    except (ValueError, OSError) as error:
        sys.stdout.write(f"refused: {error}\n")
        return False
    width = [max(len(str(row[i])) for row in rows) for i in range(3)]
    for row in rows:
        cells = (str(x).ljust(n) for x, n in zip(row[:3], width, strict=True))
        refused = "" if row.taken else "refused: "
        sys.stdout.write("  ".join([*cells, refused + row.becomes]) + "\n")
    return all(row.taken for row in rows)
