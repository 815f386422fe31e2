"""Graphs of NIR do in our hands what their equations say: spike for spike, in every reading."""

import itertools
from pathlib import Path

import hypothesis
import jax.numpy as jnp
import nir
import numpy as np
import pytest
from hypothesis import strategies as st
from oracles import nir_interpreter as oracle

import neurojax as nj

PUBLISHED = Path(__file__).parents[2] / "../shared/data/nir"
READINGS = [
    dict(zip(("leak", "reset", "input", "order"), x, strict=True))
    for x in itertools.product(
        ("exact", "euler"), ("hard", "subtract"), ("hold", "impulse"), ("membrane", "synapse")
    )
]
# Each choice is in one of two; the others are slow.
QUICK = [
    pytest.param(r, marks=() if i in (0, 15) else pytest.mark.slow) for i, r in enumerate(READINGS)
]
STEPS, DT = 256, 0.5  # ms


def same(graph, found, inputs, dt=DT, **reading):
    """Spikes of every neuron, bit for bit, potentials to rounding; returns how many spikes."""
    given = {n: jnp.asarray(x) for n, x in inputs.items()}
    state = found.net.init()
    z = nj.simulate(found.net, found.weights, state, given, n_steps=STEPS, dt=dt)[1]
    expected = oracle.run(graph, inputs, dt=1e-3 * dt, **reading)
    n_spikes = 0
    for name in {*z} - {"bias"}:
        ours, theirs = np.asarray(z[name]), expected[name].reshape(STEPS, -1)
        if {*np.unique(theirs)} <= {0.0, 1.0}:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            n_spikes += theirs.sum()
        else:  # sums of the same numbers in another order
            near = 1e-11 * np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=near, err_msg=name)
    for out, layer in found.outputs.items():
        np.testing.assert_allclose(z[layer], expected[out].reshape(STEPS, -1), atol=1e-9)
    return n_spikes


def spikes(rng, n, p=0.3):
    return (rng.random((STEPS, n)) < p) * 1.0


def neuron(rng, kind, n):
    """A node of any kind, whose arrivals are of order one where they last a step of .5 ms."""
    u = lambda low, high: rng.uniform(low, high, n)  # noqa: E731
    fires = {"v_threshold": u(0.2, 1.0), "v_reset": u(-0.3, 0.1)}
    leaky = {"r": u(1, 3), "v_leak": u(-0.1, 0.1)}
    cuba = {"tau_mem": u(1e-3, 2e-2), "tau_syn": u(1e-3, 1e-2), "w_in": u(2, 9), **leaky}
    fields = {
        "I": {"r": u(1, 30)}, "IF": {"r": u(100, 900), **fires},
        "LI": {"tau": u(1e-3, 2e-2), **leaky},
        "LIF": {"tau": u(1e-3, 2e-2), **leaky, **fires}, "CubaLI": cuba, "CubaLIF": cuba | fires,
        "Threshold": {"threshold": u(-0.5, 0.5)},
    }  # fmt: skip
    return getattr(nir, kind)(**fields[kind])


def weights(rng, n_post, n_pre):
    return rng.normal(size=(n_post, n_pre)) / np.sqrt(n_pre) + 0.2


def everything(rng, n=5):
    """Each kind of neuron and of stateless node, loops, delays, fans and a graph within."""
    kinds = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold")
    nodes = {"x": nir.Input(np.array([3])), "y": nir.Input(np.array([n]))}
    edges, outs = [], []
    for i, kind in enumerate(kinds):
        nodes[kind] = neuron(rng, kind, n)
        nodes[f"in{i}"] = nir.Affine(weight=weights(rng, n, 3), bias=rng.normal(size=n) * 0.1)
        edges += [("x", f"in{i}"), (f"in{i}", kind)]
    nodes |= {
        "rec": nir.Linear(weight=weights(rng, n, n)), "scale": nir.Scale(scale=rng.normal(size=n)),
        "late": nir.Delay(delay=1e-3 * DT * np.array([3, 1, 3, 0, 2])),
        # Of two in a row some come to the same.
        "later": nir.Delay(delay=1e-3 * DT * np.array([0, 2, 1, 3, 1])),
        "both": nir.Affine(weight=weights(rng, n, n), bias=rng.normal(size=n) * 0.1),
        "soon": nir.Delay(delay=1e-3 * DT * np.full(n, 2)),
        "out": nir.Output(np.array([n])), "sum": nir.Output(np.array([n])),
    }  # fmt: skip
    edges += [
        ("LIF", "rec"), ("rec", "CubaLIF"), ("CubaLIF", "LIF"), ("CubaLIF", "CubaLIF"),
        ("IF", "late"), ("late", "later"), ("later", "both"), ("LIF", "both"), ("both", "LI"),
        ("both", "Threshold"),
        ("Threshold", "soon"), ("soon", "Threshold"), ("y", "scale"), ("scale", "IF"), ("y", "LIF"),
        ("LI", "out"), ("both", "sum"), ("CubaLI", "sum"), ("I", "sum"),
    ]  # fmt: skip
    return nir.NIRGraph(nodes, edges + outs, type_check=True)


@pytest.mark.parametrize("reading", QUICK, ids=lambda r: "-".join(r.values()))
def test_every_node_does_what_its_equations_say(x64, reading):
    rng = np.random.default_rng(1)
    graph = everything(rng)
    found = nj.from_nir(graph, dt=DT, **reading)
    inputs = {"x": spikes(rng, 3), "y": spikes(rng, 5)}
    if reading["input"] == "impulse":  # of unit area: as much larger
        inputs = {n: 1e-3 * DT * x for n, x in inputs.items()}
    assert same(graph, found, inputs, **reading) > 500


@pytest.mark.parametrize("reading", QUICK, ids=lambda r: "-".join(r.values()))
@pytest.mark.parametrize(
    ("name", "dt"),
    [
        ("lif_norse", 0.1),
        ("braille_noDelay_bias_zero", 0.1),
        ("braille_noDelay_noBias_subtract", 0.1),
    ],
)
@pytest.mark.slow
def test_published_graphs_spike_for_spike(x64, name, dt, reading):
    path = published(name)
    graph, rng = nir.read(path), np.random.default_rng(0)
    inputs = {"input": spikes(rng, graph.nodes["input"].input_type["input"][0])}
    assert same(graph, nj.from_nir(path, dt=dt, **reading), inputs, dt, **reading) > 10


def published(name):
    path = PUBLISHED / f"{name}.nir"
    if not path.exists():
        pytest.skip(f"the published graph {path.name} is not in {PUBLISHED}")
    return path


@pytest.mark.slow
def test_the_published_convolutional_graph_spike_for_spike(x64):
    path, rng = published("cnn_sinabs"), np.random.default_rng(0)
    reading = dict(leak="exact", reset="subtract", input="impulse", order="membrane")
    inputs = {"input": spikes(rng, 2 * 34 * 34, 0.02)}
    found = nj.from_nir(path, dt=1.0, **reading)
    assert same(nir.read(path), found, inputs, 1.0, **reading) > 10_000


def test_the_published_braille_graph_as_it_ran_at_home(x64):
    path, rng = published("braille_noDelay_bias_zero"), np.random.default_rng(0)
    reading = dict(leak="euler", reset="hard", input="hold", order="synapse")
    found = nj.from_nir(path, dt=0.1, **reading)
    assert same(nir.read(path), found, {"input": spikes(rng, 12)}, 0.1, **reading) > 10
    np.testing.assert_array_equal(found.weights["fc1"].w, nir.read(path).nodes["fc1"].weight)


@pytest.mark.parametrize(
    "way",
    [
        dict(stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=2),
        pytest.param(dict(stride=1, padding=1, dilation=1, groups=1), marks=pytest.mark.slow),
        pytest.param(dict(stride=2, padding="valid", dilation=2, groups=4), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_convolutions_and_pools_are_those_of_the_equations(x64, way):
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(4, 4 // way["groups"], 3, 2))
    conv = nir.Conv2d(input_shape=(9, 8), weight=weight, bias=rng.normal(size=4), **way)
    from neurojax.interchange._graph import convolved, plain

    node = plain(nir.NIRGraph({"c": conv}, [], type_check=False)).nodes["c"]
    shape = convolved("graph", "c", node, (4, 9, 8)).size_post
    pooled = (4, shape[1] // 2, shape[2] // 2)
    pool = dict(kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0]))
    nodes = {
        "x": nir.Input(np.array([4, 9, 8])), "c": conv,
        "a": nir.IF(r=np.full(shape, 900.0), v_threshold=np.full(shape, 1.0)),
        "sum": nir.SumPool2d(**pool), "mean": nir.AvgPool2d(**pool),
        "flat": nir.Flatten(np.array(pooled), 0, -1),
        "dense": nir.Linear(weight=rng.normal(size=(3, int(np.prod(pooled))))),
        "b": nir.IF(r=np.full(3, 900.0), v_threshold=np.full(3, 1.0)),
        "m": nir.IF(r=np.full(pooled, 900.0), v_threshold=np.full(pooled, 1.0)),
        "out": nir.Output(np.array([3])), "maps": nir.Output(np.array(pooled)),
    }  # fmt: skip
    edges = [("x", "c"), ("c", "a"), ("a", "sum"), ("sum", "flat"), ("flat", "dense"),
             ("dense", "b"), ("a", "mean"), ("mean", "m"), ("b", "out"), ("m", "maps")]  # fmt: skip
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    reading = dict(leak="exact", reset="hard", input="hold", order="membrane")
    found = nj.from_nir(graph, dt=DT, **reading)
    assert same(graph, found, {"x": spikes(rng, 288)}, **reading) > 1000


FIXTURE = [hypothesis.HealthCheck.function_scoped_fixture]
NEURONS = st.sampled_from(("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold"))


@st.composite
def graphs(draw):
    """Neurons at random, and between them paths of stateless nodes, some of which close loops."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers = draw(st.lists(NEURONS, min_size=1, max_size=4))
    sizes = [draw(st.integers(1, 4)) for _ in layers]
    nodes, edges = {"x": nir.Input(np.array([2]))}, []
    names = [
        f"{chr(122 - i)}{kind}" for i, kind in enumerate(layers)
    ]  # not in order of their names
    for name, kind, n in zip(names, layers, sizes, strict=True):
        nodes[name] = neuron(rng, kind, n)
    ends = [("x", 2), *zip(names, sizes, strict=True)]
    links = [(0, 1)] + draw(
        st.lists(st.tuples(st.integers(0, len(layers)), st.integers(1, len(layers))), max_size=5)
    ) + [(0, i) for i in range(2, len(layers) + 1)]  # fmt: skip
    graded = ("I", "LI", "CubaLI")  # a loop of these alone may grow without bounds
    links = [(a, b) for a, b in links if a < b or layers[a - 1] not in graded]
    for k, (a, b) in enumerate(dict.fromkeys(links)):
        (at, n_pre), (post, n_post) = ends[a], ends[b]
        for j, kind in enumerate(draw(st.lists(st.sampled_from(("Scale", "Delay")), max_size=2))):
            steps = rng.integers(0, 3, n_pre)
            made = nir.Scale(scale=rng.normal(size=n_pre))
            if kind == "Delay":
                # None at all or all a step late: what closes a loop is then plain to see.
                made = nir.Delay(delay=1e-3 * DT * (steps + 1 if rng.random() < 0.8 else 0 * steps))
            nodes[f"p{k}{j}"] = made
            edges.append((at, f"p{k}{j}"))
            at = f"p{k}{j}"
        w, bias = weights(rng, n_post, n_pre), 0.1 * rng.normal(size=n_post)
        nodes[f"w{k}"] = nir.Affine(w, bias) if rng.random() < 0.5 else nir.Linear(w)
        edges += [(at, f"w{k}"), (f"w{k}", post)]
    for i, (name, n) in enumerate(zip(names, sizes, strict=True)):
        nodes[f"out{i}"] = nir.Output(np.array([n]))
        edges.append((name, f"out{i}"))
    return nir.NIRGraph(nodes, edges), rng


def random_graph(case, reading):
    graph, rng = case
    found = nj.from_nir(graph, dt=DT, **reading)
    x = spikes(rng, 2) * (1e-3 * DT if reading["input"] == "impulse" else 1.0)
    same(graph, found, {"x": x}, **reading)


@hypothesis.settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=FIXTURE)
@hypothesis.given(graphs(), st.sampled_from(READINGS))
def test_random_graphs_spike_for_spike(x64, case, reading):
    random_graph(case, reading)


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=FIXTURE)
@hypothesis.given(graphs(), st.sampled_from(READINGS))
def test_many_random_graphs_spike_for_spike(x64, case, reading):
    random_graph(case, reading)


@pytest.mark.slow
def test_no_neuron_fires_at_its_threshold():
    graph = nir.NIRGraph.from_list(
        nir.Linear(weight=np.full((1, 1), 0.5)), nir.IF(r=np.ones(1), v_threshold=np.ones(1))
    )
    reading = dict(leak="exact", reset="hard", input="impulse", order="membrane")
    found = nj.from_nir(graph, dt=DT, **reading)
    # .5, 1 and, above it, 1.5: every third step, 85 times in 256
    assert same(graph, found, {"input": np.ones((STEPS, 1))}, **reading) == 85
