"""What a graph of NIR does, step by step, in NumPy: from its equations, and nothing of ours.

leak "exact" / "euler", input "hold" / "impulse", order "membrane" / "synapse", reset "hard" /
"subtract", as docs/exchange.md has them; times in the unit of the graph. In a step each node
is evaluated once; an edge that leaves a neuron and closes a cycle without delay is a step old.
"""

import networkx as nx
import numpy as np
from scipy.signal import correlate

NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold")


def run(graph, inputs, *, dt, leak, reset, input, order):
    """Output of every node over time, [T, ...]."""
    nodes, late, turn, breaking = _order(graph, dt)
    n_steps = len(next(iter(inputs.values())))
    state, seen, waiting = {}, {name: [] for name in nodes}, {}
    last = {pre: _silence(nodes[pre]) for pre, _ in late}
    before = {n: [a for a, b in graph.edges if b == n and n not in breaking] for n in nodes}
    for t in range(n_steps):
        now = {}
        for name in turn:
            node, kind = nodes[name], type(nodes[name]).__name__
            if kind == "Input":
                now[name] = inputs[name][t].reshape(node.input_type["input"]).astype(float)
                continue
            x = sum(last[pre] if (pre, name) in late else now[pre] for pre in before[name])
            if kind in NEURONS:
                now[name] = _neuron(kind, node, state, name, x, dt, leak, reset, input, order)
            elif kind == "Delay":
                steps, past = np.round(node.delay / dt).astype(int), waiting.setdefault(name, [])
                if name not in breaking:
                    past.append(np.broadcast_to(x, steps.shape))
                now[name] = np.zeros(steps.shape)
                for i, d in np.ndenumerate(steps):
                    now[name][i] = past[t - d][i] if t >= d else 0.0
            else:
                now[name] = _stateless(kind, node, x)
        for name in breaking:  # what enters these is not read in the same step
            heard = [pre for pre, post in graph.edges if post == name]
            x = sum(last[pre] if (pre, name) in late else now[pre] for pre in heard)
            waiting.setdefault(name, []).append(np.broadcast_to(x, nodes[name].delay.shape))
        for name, y in now.items():
            seen[name].append(y)
        last = now
    return {name: np.array(seen[name]) for name in nodes}


def _order(graph, dt):
    nodes = dict(graph.nodes)
    links = nx.DiGraph()
    links.add_nodes_from(nodes)
    for pre, post in graph.edges:
        delay = getattr(nodes[post], "delay", None)
        if delay is None or np.min(delay) < dt / 2:
            links.add_edge(pre, post)
    cycle = {n: i for i, c in enumerate(nx.strongly_connected_components(links)) for n in c}
    late = {
        (a, b) for a, b in links.edges
        if type(nodes[a]).__name__ in NEURONS and cycle[a] == cycle[b]
    }  # fmt: skip
    links.remove_edges_from(late)
    breaking = [
        n for n, x in nodes.items()
        if type(x).__name__ == "Delay" and np.min(x.delay) >= dt / 2
    ]  # fmt: skip
    return nodes, late, list(nx.lexicographical_topological_sort(links)), breaking


def _silence(node):
    return np.zeros(next(iter(node.output_type.values())))


def _neuron(kind, node, state, name, x, dt, leak, reset, input, order):
    if kind == "Threshold":
        return (x > node.threshold) * 1.0
    if kind in ("I", "IF"):
        start = np.zeros_like(node.r) if kind == "I" else node.v_reset * 1.0
        v = state.get(name, start) + node.r * x * (dt if input == "hold" else 1.0)
        return _fire(kind, node, state, name, v, reset)
    v = state.get(name, node.v_leak * 1.0)
    if kind in ("LI", "LIF"):
        kept = np.exp(-dt / node.tau) if leak == "exact" else 1 - dt / node.tau
        push = (1 - kept) * node.r * x if input == "hold" else node.r * x / node.tau
        return _fire(kind, node, state, name, node.v_leak + kept * (v - node.v_leak) + push, reset)
    tm, ts = node.tau_mem, node.tau_syn
    i = state.get((name, "i"), np.zeros_like(tm))
    jump = node.w_in * x * (dt / ts if input == "hold" else 1 / ts)
    i = i + jump if order == "synapse" else i
    if leak == "exact":
        kept, left = np.exp(-dt / tm), np.exp(-dt / ts)
        apart = np.where(np.abs(ts - tm) < 1e-9 * tm, 1.0, ts - tm)
        through = np.where(apart == 1.0, dt / tm * kept, ts / apart * (left - kept))
    else:
        kept, left, through = 1 - dt / tm, 1 - dt / ts, dt / tm
    v = node.v_leak + kept * (v - node.v_leak) + node.r * through * i
    i = left * i
    state[name, "i"] = i + jump if order == "membrane" else i
    return _fire(kind, node, state, name, v, reset)


def _fire(kind, node, state, name, v, reset):
    if kind in ("I", "LI", "CubaLI"):
        state[name] = v
        return v
    z = v > node.v_threshold
    low = node.v_reset if reset == "hard" else v - (node.v_threshold - node.v_reset)
    state[name] = np.where(z, low, v)
    return z * 1.0


def _stateless(kind, node, x):
    if kind == "Output":
        return x
    if kind == "Linear":
        return node.weight.astype(float) @ x
    if kind == "Affine":
        return node.weight.astype(float) @ x + node.bias
    if kind == "Scale":
        return node.scale * x
    if kind == "Flatten":
        n = x.ndim
        low, high = (d % n for d in (int(node.start_dim), int(node.end_dim)))
        return x.reshape(*x.shape[:low], -1, *x.shape[high + 1 :])
    if kind in ("SumPool2d", "AvgPool2d"):
        weight = np.zeros((len(x), len(x), *node.kernel_size))
        area = 1.0 if kind == "SumPool2d" else float(np.prod(node.kernel_size))
        weight[np.arange(len(x)), np.arange(len(x))] = 1 / area
        return _slid(x, weight, node.stride, node.padding, (1, 1), 1)
    if kind in ("Conv1d", "Conv2d"):
        axes = x.ndim - 1
        each = [np.broadcast_to(np.asarray(v), (axes,)) for v in (node.stride, node.dilation)]
        padding = node.padding
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(each[1], node.weight.shape[2:], strict=True)]
            padding = [0 if padding == "valid" else r // 2 for r in reach]
        padding = np.broadcast_to(np.asarray(padding), (axes,))
        y = _slid(x, node.weight.astype(float), each[0], padding, each[1], int(node.groups))
        return y + node.bias.reshape(-1, *(1,) * axes)
    raise NotImplementedError(kind)


def _slid(x, weight, stride, padding, dilation, groups):
    """Cross-correlation, map by map."""
    x = np.pad(x, [(0, 0), *((p, p) for p in padding)])
    wide = np.zeros((*weight.shape[:2], *(d * (k - 1) + 1 for d, k in
                     zip(dilation, weight.shape[2:], strict=True))))  # fmt: skip
    wide[(..., *(slice(None, None, d) for d in dilation))] = weight
    n, per = weight.shape[1], len(weight) // groups
    maps = []
    for o in range(len(weight)):
        mine = x[(o // per) * n : (o // per + 1) * n]
        seen = zip(mine, wide[o], strict=True)
        full = sum(correlate(m, w, "valid", method="direct") for m, w in seen)
        maps.append(full[tuple(slice(None, None, s) for s in stride)])
    return np.array(maps)
