"""The graph of a file as plain data, checked: what each node must have, shapes, and edges."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

MOST_NODES, DEEPEST = 100_000, 16

# Fields of each node; those behind "?" may be missing.
FIELDS: dict[str, str] = {
    "Input": "shape", "Output": "shape", "Affine": "weight bias", "Linear": "weight",
    "Scale": "scale", "Delay": "delay", "Threshold": "threshold", "I": "r",
    "Conv1d": "weight stride padding dilation groups bias ?input_shape",
    "Conv2d": "weight stride padding dilation groups bias ?input_shape",
    "SumPool2d": "kernel_size stride padding", "AvgPool2d": "kernel_size stride padding",
    "Flatten": "start_dim end_dim ?input_type", "IF": "r v_threshold ?v_reset",
    "LI": "tau r v_leak", "LIF": "tau r v_leak v_threshold ?v_reset",
    "CubaLI": "tau_mem tau_syn r v_leak ?w_in",
    "CubaLIF": "tau_mem tau_syn r v_leak v_threshold ?v_reset ?w_in",
}  # fmt: skip
STATEFUL = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold")
_POSITIVE = ("tau", "tau_mem", "tau_syn", "r", "w_in")
_UNLIKE = {
    "r": "fold its sign into the weights that lead there",
    "w_in": "fold its sign into the weights that lead there",
}


class Node(NamedTuple):
    """One node: its type, its fields as arrays or text, and the texts of its metadata."""

    kind: str
    fields: dict[str, Any]
    metadata: dict[str, str]


class Graph(NamedTuple):
    """Nodes by name, edges by names; `where` says in errors what it is of."""

    nodes: dict[str, Any]  # Node, or Graph
    edges: list[tuple[str, str]]
    where: str


def refusal(where: str, name: str, problem: str) -> ValueError:
    """An error that names file and node, on one line."""
    return ValueError(f"{where}, node {name[:80]!r}: {' '.join(problem.split())}")


def checked(where: str, name: str, kind: str, fields: dict[str, Any], metadata: Any) -> Node:
    """A node, refused where its type or a field of it is unknown, missing or out of range."""
    if kind not in FIELDS:
        raise refusal(where, name, f"type must be one of {', '.join(FIELDS)}; got {kind[:60]!r}")
    allowed = [x.removeprefix("?") for x in FIELDS[kind].split()]
    needed = [x for x in FIELDS[kind].split() if not x.startswith("?")]
    if unknown := sorted(fields.keys() - set(allowed)):
        cure = f"{kind} has {', '.join(allowed)}: take it out of the file, or rename it"
        raise refusal(where, name, f"field {unknown[0][:60]!r} is unknown; {cure}")
    if missing := [x for x in needed if x not in fields]:
        raise refusal(where, name, f"field {missing[0]!r} is missing, which {kind} needs: add it")
    held = {x: _field(where, name, kind, x, value) for x, value in fields.items()}
    return _of_one_shape(where, name, Node(kind, held, metadata))


def _field(where: str, name: str, kind: str, field: str, x: Any) -> Any:
    """One field as a finite array of numbers, or text."""
    if isinstance(x, str):
        if field == "padding" and x in ("same", "valid"):
            return x
        raise refusal(where, name, f"{field} must be numbers; got the text {x[:40]!r}")
    try:
        x = np.asarray(x)
    except ValueError:  # rows of several lengths
        x = np.asarray(None)
    if x.dtype.kind not in "fiu":
        cure = "write float32 or float64"
        raise refusal(where, name, f"{field} must be real numbers; got {x.dtype}: {cure}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = x[~np.isfinite(x)]
        raise refusal(where, name, f"{field} must be finite; got {bad[0]} ({bad.size} of {x.size})")
    if field in _POSITIVE and not (x > 0).all():
        bad = x[~(x > 0)]
        cure = _UNLIKE.get(field, "a time constant is > 0")
        got = f"got {bad[0]} ({bad.size} of {x.size}): {cure}"
        raise refusal(where, name, f"{field} must be > 0; {got}")
    if field == "delay" and (x < 0).any():
        raise refusal(where, name, f"delay must be >= 0; got {x.min()}: nothing arrives early")
    dims = {"weight": {"Conv1d": 3, "Conv2d": 4}.get(kind, 2), "bias": 1}.get(field)
    if dims is not None and (x.ndim != dims or 0 in x.shape):
        raise refusal(where, name, f"{field} of {kind} must have {dims} axes; got shape {x.shape}")
    if field in ("shape", "input_type", "input_shape", "stride", "dilation", "groups",
                 "kernel_size", "padding", "start_dim", "end_dim"):  # fmt: skip
        return _whole(where, name, field, x)
    return x


def _whole(where: str, name: str, field: str, x: np.ndarray) -> np.ndarray:
    least = -(2**31) if field.endswith("_dim") else 0 if field == "padding" else 1
    whole = x.ndim <= 1 and x.size > 0 and (x == np.round(x)).all()
    if not whole or x.min() < least or x.max() >= 2**31:
        said = f"{field} must be whole numbers >= {least} and < 2^31"
        got = x.tolist() if x.size <= 4 else f"shape {x.shape}"
        raise refusal(where, name, f"{said}; got {got}")
    return x.astype(int)


def _of_one_shape(where: str, name: str, node: Node) -> Node:
    """Parameters of a neuron must have one shape, numbers alone beside it."""
    if node.kind in ("Affine", "Conv1d", "Conv2d") and "bias" in node.fields:
        n, b = node.fields["weight"].shape[0], node.fields["bias"].shape
        if b != (n,):
            raise refusal(where, name, f"bias must have shape ({n},), as weight has; got {b}")
    if node.kind in STATEFUL:
        shapes = {np.shape(x) for x in node.fields.values()} - {()}
        if len(shapes) > 1:
            raise refusal(where, name, f"parameters must have one shape; got {sorted(shapes)}")
    return node


def flat(graph: Graph, most: int = MOST_NODES) -> Graph:
    """The same without graphs within graphs: their nodes have dotted names, their ends are none.

    Ends of an inner graph become nodes of kind "Pass", which do nothing.
    """
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    _flatten(graph, "", nodes, edges, 0)
    if len(nodes) > most:
        raise ValueError(f"{graph.where}: at most {most} nodes are read; got {len(nodes)}")
    seen = set()
    for edge in edges:
        if edge in seen:
            cure = "give it once, with weights twice as large"
            raise ValueError(f"{graph.where}: edge {edge} must be there once; got it twice: {cure}")
        seen.add(edge)
    return Graph(nodes, edges, graph.where)


def _flatten(graph: Graph, prefix: str, nodes, edges, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"{graph.where}: graphs must lie at most {DEEPEST} deep; got more")
    for name, node in graph.nodes.items():
        full = prefix + name
        if isinstance(node, Graph):
            _flatten(node, f"{full}.", nodes, edges, depth + 1)
            continue
        if prefix and node.kind in ("Input", "Output"):
            node = Node("Pass", {**node.fields, "was": node.kind}, node.metadata)
        if full in nodes:
            raise refusal(graph.where, full, "is there twice, once within a graph: rename one")
        nodes[full] = node
    for pre, post in graph.edges:
        ends = _end(graph, pre, "Output"), _end(graph, post, "Input")
        edges.append((prefix + ends[0], prefix + ends[1]))


def _end(graph: Graph, name: str, kind: str) -> str:
    """The node that an edge ends at; that of a graph is its one `kind`, or the one it names."""
    node = graph.nodes.get(name)
    if isinstance(node, Node):
        return name
    if isinstance(node, Graph):
        ends = [n for n, x in node.nodes.items() if isinstance(x, Node) and x.kind == kind]
        if len(ends) != 1:
            cure = f"name one, as {name}.{ends[0] if ends else kind.lower()}"
            raise refusal(
                graph.where, name, f"must have one {kind} for an edge; got {ends}: {cure}"
            )
        return f"{name}.{ends[0]}"
    inner, _, port = name.rpartition(".")
    if isinstance(graph.nodes.get(inner), Graph) and port in graph.nodes[inner].nodes:
        return name
    known = ", ".join(sorted(graph.nodes)[:8])
    raise ValueError(
        f"{graph.where}: an edge ends at {name[:80]!r}, which is no node; there are {known}"
    )


def shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shape of what each node of a flat graph sends, refused where two ends of an edge differ."""
    found: dict[str, tuple[int, ...]] = {}
    before = {name: [pre for pre, post in graph.edges if post == name] for name in graph.nodes}
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for pre, post in graph.edges:
        after[pre].append(post)
    waiting = [n for n, x in graph.nodes.items() if _own(x) is not None]
    for name in waiting:
        found[name] = _own(graph.nodes[name]) or ()
    while waiting:
        for post in after[waiting.pop()]:
            if post not in found:
                heard = next(found[pre] for pre in before[post] if pre in found)
                found[post] = _through(graph.where, post, graph.nodes[post], heard)
                waiting.append(post)
    for name, node in graph.nodes.items():
        if name not in found or (node.kind != "Input" and not before[name]):
            raise refusal(graph.where, name, "hears no Input: lead an edge there, or take it out")
        if node.kind == "Input" and not after[name]:
            raise refusal(graph.where, name, "is heard by nothing: lead an edge from it")
    for pre, post in graph.edges:
        sent = found[pre]
        if _through(graph.where, post, graph.nodes[post], sent, pre) != found[post]:
            told = f"must hear what it is made for, as it sends {found[post]}"
            raise refusal(graph.where, post, f"{told}; got shape {sent} from {pre!r}")
    return found


def _own(node: Node) -> tuple[int, ...] | None:
    """The shape that a node says itself, whatever it hears."""
    if node.kind in ("Input", "Output"):
        return tuple(int(n) for n in node.fields["shape"].reshape(-1))
    if node.kind in ("Affine", "Linear"):
        return node.fields["weight"].shape[:1]
    if node.kind in (*STATEFUL, "Scale", "Delay"):
        own = [np.shape(x) for x in node.fields.values() if np.shape(x)]
        return own[0] if own else None
    return None


def _through(
    where: str, name: str, node: Node, heard: tuple[int, ...], pre: str = ""
) -> tuple[int, ...]:
    """Shape of what a node sends when it hears `heard`."""
    of = f" from {pre!r}" if pre else ""
    if node.kind == "Input":
        raise refusal(where, name, f"must hear nothing, as an Input; got an edge{of}")
    if node.kind == "Pass":
        own = tuple(int(n) for n in node.fields["shape"].reshape(-1))
        if own != heard:
            raise refusal(where, name, f"shape must be {own}, as it says; got {heard}{of}")
        return own
    if node.kind in ("Affine", "Linear"):
        w = node.fields["weight"].shape
        if heard != w[1:]:
            cure = "put a Flatten before it" if math.prod(heard) == w[1] else "mend the weight"
            raise refusal(
                where, name, f"must hear {w[1:]}, as weight says; got {heard}{of}: {cure}"
            )
        return w[:1]
    if node.kind == "Flatten":
        return _flattened(where, name, node, heard)
    if node.kind in ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d"):
        return convolved(where, name, node, heard).size_post
    own = _own(node)
    if own is not None and own != heard:
        raise refusal(where, name, f"must hear its own shape, {own}; got {heard}{of}")
    return heard


def _flattened(where: str, name: str, node: Node, heard: tuple[int, ...]) -> tuple[int, ...]:
    said = node.fields.get("input_type")
    if said is not None and tuple(said.reshape(-1)) != heard:
        raise refusal(where, name, f"input_type says {said.tolist()}; got {heard}: mend one")
    first, last = (int(node.fields[x].reshape(-1)[0]) for x in ("start_dim", "end_dim"))
    n = len(heard)
    low, high = (x + n if x < 0 else x for x in (first, last))
    if not 0 <= low <= high < n:
        got = f"start_dim {first}, end_dim {last} of shape {heard}"
        raise refusal(where, name, f"must flatten axes that are there; got {got}")
    return (*heard[:low], math.prod(heard[low : high + 1]), *heard[high + 1 :])


def convolved(where: str, name: str, node: Node, heard: tuple[int, ...]) -> Any:
    """The layout of a convolution or pooling over maps `heard`."""
    from neurojax.wiring.convolution import Conv1D, Conv2D

    f, one = node.fields, node.kind == "Conv1d"
    axes = 1 if one else 2
    if len(heard) != axes + 1:
        raise refusal(where, name, f"must hear (channels, {axes} sizes); got {heard}")
    each: Any = lambda x: x if isinstance(x, str) else _sizes(where, name, x, axes)  # noqa: E731
    padding = 0 if isinstance(f["padding"], str) and f["padding"] == "valid" else each(f["padding"])
    pool = node.kind in ("SumPool2d", "AvgPool2d")
    groups = heard[0] if pool else int(f["groups"].reshape(-1)[0])
    features = heard[0] if pool else f["weight"].shape[0]
    kernel = each(f["kernel_size"]) if pool else f["weight"].shape[2:]
    dilation = 1 if pool else each(f["dilation"])
    if not pool and heard[0] != f["weight"].shape[1] * groups:
        n = f["weight"].shape[1] * groups
        raise refusal(where, name, f"must hear {n} channels, as weight and groups say; got {heard}")
    said = f.get("input_shape")
    if said is not None and tuple(said.reshape(-1)) != heard[1:]:
        raise refusal(where, name, f"input_shape says {said.tolist()}; got {heard[1:]}: mend one")
    try:
        return (Conv1D if one else Conv2D)(
            heard, features, kernel, stride=each(f["stride"]), padding=padding,
            dilation=dilation, groups=groups,
        )  # fmt: skip
    except ValueError as error:
        raise refusal(where, name, str(error)) from None


def _sizes(where: str, name: str, x: np.ndarray, axes: int) -> tuple[int, ...]:
    x = x.reshape(-1)
    if x.size not in (1, axes):
        raise refusal(where, name, f"sizes must be one number or {axes}; got {x.tolist()}")
    return tuple(int(n) for n in np.broadcast_to(x, (axes,)))


def plain(graph: Any, where: str = "graph", depth: int = 0) -> Graph:
    """A `nir.NIRGraph` as plain data, checked."""
    if depth > DEEPEST:
        raise ValueError(f"{where}: graphs must lie at most {DEEPEST} deep; got more")
    nodes: dict[str, Any] = {}
    for name, node in graph.nodes.items():
        if hasattr(node, "nodes") and hasattr(node, "edges"):
            nodes[name] = plain(node, where, depth + 1)
            continue
        try:
            given = dict(node.to_dict())
        except AttributeError:
            got = type(node).__name__
            raise refusal(where, name, f"must be a node of nir; got {got}") from None
        kind, metadata = given.pop("type", "none"), given.pop("metadata", None)
        given = {k: v for k, v in given.items() if v is not None}
        nodes[name] = checked(where, name, kind, given, _texts(metadata))
    return Graph(nodes, [(str(a), str(b)) for a, b in graph.edges], where)


def _texts(metadata: Any) -> dict[str, str]:
    found = metadata if isinstance(metadata, dict) else {}
    return {k: v for k, v in found.items() if isinstance(v, str)}


def ends(graph: Graph, kind: str) -> Iterable[str]:
    """Names of the Input or Output nodes."""
    return (name for name, node in graph.nodes.items() if node.kind == kind)
