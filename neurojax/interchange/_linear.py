"""What lies between two layers, as one projection: weights, layout and delay.

A path of nodes is folded into `Map`s, one for each delay in it: a plain one leaves a single node
as the file has it, so its weights are the file's to the last bit.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neurojax._memory import affordable
from neurojax.interchange._dynamics import Reading
from neurojax.interchange._graph import Graph, convolved, refusal
from neurojax.wiring.convolution import Conv2D
from neurojax.wiring.generators import one_to_one
from neurojax.wiring.layouts import Dense

MOST_DELAYS = 256


class Map(NamedTuple):
    """A linear map of one kind: of each element alone, by a matrix, or by windows.

    Fields:
        kind: "each", weights [n]; "matrix", [n_post, n_pre]; "pool", one number, and "windows",
            weights of the layout
        w: float array of the weights; None: ones
        layout: of "pool" and "windows"
    """

    kind: str
    w: Any
    layout: Any = None


def folded(
    graph: Graph, path: list[str], shapes: dict[str, tuple[int, ...]], start: Any, n: int,
    how: Reading,
) -> list[tuple[int, Map]]:  # fmt: skip
    """Maps by delay, in steps, of the nodes of `path`, from [n] or, through `start`, from [1].

    `start` is what one source gives each of n elements, or None.
    """
    first = Map("each", None) if start is None else Map("matrix", np.asarray(start)[:, None])
    terms = [(0, first)]
    for name in path:
        node, at = graph.nodes[name], graph.where
        if node.kind == "Delay":
            steps = _steps(graph, name, math.prod(shapes[name]), how)
            terms = _merged((d + more, x) for d, old in terms for more, x in _split(old, steps, n))
            if len(terms) > MOST_DELAYS:
                told = f"at most {MOST_DELAYS} different delays a path are read"
                raise refusal(at, name, f"{told}; got {len(terms)}: round them")
        elif node.kind == "Scale":
            s = np.broadcast_to(node.fields["scale"], shapes[name]).reshape(-1)
            terms = [(d, _scaled(x, s, n)) for d, x in terms]
        elif node.kind in ("Affine", "Linear"):
            terms = [(d, _weighted(x, node.fields["weight"], n)) for d, x in terms]
        elif node.kind not in ("Flatten", "Pass"):
            heard = _heard(graph, name, shapes)
            layout = convolved(at, name, node, heard)
            terms = [(d, _windowed(x, node, layout, n)) for d, x in terms]
    return terms


def _heard(graph: Graph, name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    return next(shapes[pre] for pre, post in graph.edges if post == name)


def _steps(graph: Graph, name: str, n: int, how: Reading) -> Any:
    """Delays [n] in whole steps, refused where they are not."""
    delay = np.asarray(graph.nodes[name].fields["delay"], float) * how.unit
    steps = delay / how.dt
    whole = np.round(steps)
    bad = np.abs(steps - whole) > 1e-6 * np.maximum(1, whole)
    if bad.any():
        said = f"delay must be a whole number of steps of dt, {how.dt:g} ms"
        cure = "pass a dt that divides it"
        raise refusal(graph.where, name, f"{said}; got {delay[bad][0]:g} ms: {cure}")
    if whole.max() > 10**6:
        raise refusal(graph.where, name, f"delay must be <= 10^6 steps; got {whole.max():g}")
    return np.broadcast_to(whole.astype(int).reshape(-1), (n,))


def _split(x: Map, steps: np.ndarray, n: int) -> list[tuple[int, Map]]:
    """One map for each of the delays, with the weights of its elements alone."""
    different = np.unique(steps)
    if len(different) == 1:
        return [(int(different[0]), x)]
    return [(int(d), _scaled(x, (steps == d).astype(np.float32), n)) for d in different]


def _merged(terms: Iterable[tuple[int, Map]]) -> list[tuple[int, Map]]:
    """One map for each delay: what came to the same on two ways is added."""
    found: dict[int, Map] = {}
    for d, x in terms:
        found[d] = Map(x.kind, found[d].w + x.w) if d in found else x
    return sorted(found.items())


def _scaled(x: Map, s: np.ndarray, n: int) -> Map:
    if x.kind == "each":
        return Map("each", s if x.w is None else _product(x.w, s))
    w = matrix(x, n)
    return Map("matrix", _product(s[:, None], w))


def _product(a: np.ndarray, b: np.ndarray) -> Any:
    return np.asarray(a, float) * np.asarray(b, float)


def _weighted(x: Map, w: np.ndarray, n: int) -> Map:
    if x.kind == "each":
        return Map("matrix", w if x.w is None else _product(w, x.w[None]))
    if x.kind == "pool" and x.layout is not None and _plain_pool(x.layout):
        size = x.layout.size_post
        layout = Conv2D(x.layout.size, len(w), size[1:], pool=x.layout.kernel)
        scale = x.w * math.prod(x.layout.kernel)
        return Map("windows", _product(w.reshape(layout.shape), np.asarray(scale)), layout)
    return Map("matrix", np.asarray(w, float) @ np.asarray(matrix(x, n), float))


def _windowed(x: Map, node: Any, layout: Any, n: int) -> Map:
    if node.kind in ("SumPool2d", "AvgPool2d"):
        each = 1.0 if node.kind == "SumPool2d" else 1 / math.prod(layout.kernel)
        new = Map("pool", each, layout)
    else:
        new = Map("windows", node.fields["weight"], layout)
    if x.kind == "each" and x.w is None:
        return new
    if x.kind == "pool" and new.kind == "windows" and isinstance(layout, Conv2D):
        if _plain_pool(x.layout):
            joined = Conv2D(
                x.layout.size, layout.features, layout.kernel, stride=layout.stride,
                padding=layout.padding, dilation=layout.dilation, groups=layout.groups,
                pool=x.layout.kernel,
            )  # fmt: skip
            return Map("windows", _product(new.w, np.asarray(x.w * math.prod(joined.pool))), joined)
    before = np.asarray(matrix(x, n), float)
    affordable("a matrix of what nodes in a row do", 8 * layout.n_post * before.shape[1])
    return Map("matrix", _columns(new, before))


def _plain_pool(layout: Any) -> bool:
    """Whether pools lie side by side, with nothing around."""
    return layout.kernel == layout.stride and set(layout.padding) == {0}


def _weights(x: Map) -> Any:
    return np.full(x.layout.shape, x.w) if x.kind == "pool" else x.w


def _columns(x: Map, before: np.ndarray) -> Any:
    """Windows of each column, in the precision that there is."""
    w, columns = jnp.asarray(_weights(x), float), jnp.asarray(before.T, float)
    return np.asarray(jax.vmap(partial(x.layout.apply, w))(columns)).T


def matrix(x: Map, n: int) -> Any:
    """The map as a matrix [n_post, n_pre], where `n` elements are heard."""
    if x.kind == "matrix":
        return x.w
    n_post = n if x.kind == "each" else x.layout.n_post
    n_pre = n if x.kind == "each" else x.layout.n_pre
    affordable("a matrix of what nodes in a row do", 8 * n_post * n_pre)
    if x.kind == "each":
        return np.diag(np.ones(n) if x.w is None else x.w)
    return _columns(x, np.eye(n_pre))


def wired(x: Map, n: int) -> tuple[Any, Any]:
    """Layout and weights of a map from `n` elements."""
    if x.kind == "each":
        w = np.ones(n) if x.w is None else x.w
        return one_to_one(n), w[:, None]
    if x.kind == "matrix":
        return Dense(x.w.shape[1], x.w.shape[0]), x.w
    if x.kind == "pool" and _plain_pool(x.layout):
        c = x.layout.size[0]
        layout = Conv2D(x.layout.size, c, 1, groups=c, pool=x.layout.kernel)
        return layout, np.full(layout.shape, x.w * math.prod(x.layout.kernel))
    return x.layout, _weights(x)
