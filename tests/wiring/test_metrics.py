"""Measures of graphs: equal to networkx, and small worlds where theory has them."""

import functools

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurojax.wiring import metrics
from neurojax.wiring.generators import watts_strogatz
from neurojax.wiring.layouts import Band, Dense, FanIn
from neurojax.wiring.sparse import by_sender

KEY = jax.random.key(0)
SEEDS = st.integers(0, 2**31 - 1)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
rings = quick(
    jax.vmap(watts_strogatz, (0, None, None, None, None)), static_argnums=(1, 2, 3)
)  # several seeds


def ensemble(n, k, p, graphs):
    index = np.asarray(rings(jax.random.split(KEY, graphs), n, n, k, jnp.asarray(p)).index)
    return [FanIn(jnp.asarray(x), n) for x in index]


def measured(wirings):
    """Mean clustering and path length of several graphs, that of each pair counted."""
    paths = [metrics.path_length(w) for w in wirings]
    length = np.average([p.length for p in paths], weights=[p.reached for p in paths])
    return np.mean([metrics.clustering(w) for w in wirings]), length


def random_pairs(rng, n, n_edges):
    """Any synapses, parallel ones and self-loops among them."""
    pre, post = rng.integers(0, n, (2, n_edges))
    return by_sender(pre, post, n, n)


def counted(rng, n, n_edges):
    chance = n_edges / n**2 / 2
    return Dense(n, n, jnp.asarray(rng.choice(3, (n, n), p=[1 - 2 * chance, chance, chance])))


def band(rng, n, n_edges):
    return Band(jnp.asarray(rng.random((n, 5)) < n_edges / n / 5), 2)


def graph(wiring):
    g = networkx.DiGraph()
    g.add_nodes_from(range(wiring.n_post))
    pre, post, count = (np.asarray(x).tolist() for x in wiring.edges())
    g.add_edges_from((j, i) for j, i, c in zip(pre, post, count, strict=True) if c)
    return g


@pytest.mark.slow
@settings(max_examples=20)
@given(seed=SEEDS, make=st.sampled_from([random_pairs, counted, band]), n_edges=st.integers(20, 60))
def test_clustering_and_paths_are_those_of_networkx(seed, make, n_edges):
    wiring = make(np.random.default_rng(seed), 15, n_edges)
    for g, directed in ((graph(wiring), True), (graph(wiring).to_undirected(), False)):
        expected = networkx.average_clustering(g)
        assert metrics.clustering(wiring, directed=directed) == pytest.approx(expected, rel=1e-12)
        found = dict(networkx.all_pairs_shortest_path_length(g))
        steps = [d for i, others in found.items() for j, d in others.items() if i != j]
        length, reached = metrics.path_length(wiring, directed=directed)
        assert length == pytest.approx(np.mean(steps), rel=1e-12)
        assert reached == pytest.approx(len(steps) / (15 * 14), rel=1e-12)


@pytest.mark.parametrize("make", [random_pairs, counted, band])
def test_degrees_count_every_synapse(make):
    wiring = make(np.random.default_rng(0), 15, 40)
    onto, out = metrics.degrees(wiring)
    np.testing.assert_array_equal(onto, wiring.fan_in)
    np.testing.assert_array_equal(out, wiring.fan_out)
    assert onto.sum() == out.sum() > 0


def test_degrees_of_two_populations():
    pre, post = np.array([0, 0, 3, 3, 3]), np.array([1, 2, 1, 1, 0])
    onto, out = metrics.degrees(by_sender(pre, post, 4, 3))
    np.testing.assert_array_equal(onto, [1, 3, 1])
    np.testing.assert_array_equal(out, [2, 0, 0, 3])


def test_work_in_blocks_changes_nothing(monkeypatch):
    wiring = random_pairs(np.random.default_rng(0), 40, 200)
    whole = metrics.clustering(wiring), metrics.path_length(wiring)
    monkeypatch.setattr(metrics, "_BLOCK", 100)
    assert (metrics.clustering(wiring), metrics.path_length(wiring)) == whole


def test_a_sample_of_neurons_estimates_the_whole():
    wiring = random_pairs(np.random.default_rng(0), 300, 2000)
    sample = {"key": KEY, "n_sources": 100}
    g = graph(wiring)
    closed = np.array(list(networkx.clustering(g).values()))
    steps = [list(d.values()) for _, d in networkx.all_pairs_shortest_path_length(g)]
    steps = np.array([sum(d) / (len(d) - 1) for d in steps if len(d) > 1])
    # 4 standard errors of means of 100 neurons
    length, _ = metrics.path_length(wiring, **sample)
    assert length == pytest.approx(steps.mean(), abs=4 * steps.std() / 10)
    assert metrics.clustering(wiring, **sample) == pytest.approx(
        closed.mean(), abs=0.4 * closed.std()
    )
    assert length != metrics.path_length(wiring).length
    # all of them in another order are the whole
    everyone = metrics.path_length(wiring, key=KEY, n_sources=300)
    assert everyone.length == pytest.approx(metrics.path_length(wiring).length, rel=1e-12)


def test_a_lattice_has_its_closed_form():
    (ring,) = ensemble(400, 10, 0.0, 1)
    assert metrics.clustering(ring) == pytest.approx(3 * 8 / (4 * 9))  # 3 (K - 2) / 4 (K - 1)
    away = np.minimum(np.arange(1, 400), np.arange(399, 0, -1))
    assert metrics.path_length(ring) == (pytest.approx(np.ceil(away / 5).mean()), 1.0)


@pytest.mark.parametrize(
    ("p", "clustering", "length"), [(0.01, 0.645, 7.0), (0.1, 0.489, 3.74), (1.0, 0.022, 2.84)]
)
def test_watts_strogatz_is_a_small_world_as_that_of_networkx(p, clustering, length):
    """Numbers are means of `networkx.connected_watts_strogatz_graph(400, 10, p)`."""
    ours = measured(ensemble(400, 10, p, 4))
    # C of the two kinds of graph differs in that only theirs keep the number of all edges
    assert ours[0] == pytest.approx(clustering, abs=0.01)
    # a few shortcuts each: paths of single graphs spread by 10% at p = 0.01, by 1% above
    assert ours[1] == pytest.approx(length, rel=0.15 if p < 0.1 else 0.03)
    # Barrat and Weigt (2000): a triangle stays if its three edges do; chance closes 10 / 400
    assert ours[0] == pytest.approx(2 / 3 * (1 - p) ** 3, abs=0.03)


def test_small_world_measures_tell_lattice_small_world_and_random_graph_apart():
    lattice, between, random = (
        metrics.small_world(KEY, *ensemble(400, 10, p, 1), n_random=2) for p in (0.0, 0.1, 1.0)
    )
    # expected are the means above; C_rand, a few triangles, spreads most
    assert lattice.C == pytest.approx(2 / 3)
    assert lattice.omega == pytest.approx(2.84 / 20.45 - 1, abs=0.01)
    assert between.sigma == pytest.approx(0.489 / 0.022 * 2.84 / 3.74, rel=0.15)
    assert between.omega == pytest.approx(2.84 / 3.74 - 0.489 / 0.667, abs=0.05)
    assert random.sigma == pytest.approx(1, abs=0.1)
    assert random.omega == pytest.approx(1, abs=0.05)
    assert lattice.reached == between.reached == 1.0


def test_small_world_is_silent_about_references_without_clustering():
    cycle = by_sender(np.arange(40), np.roll(np.arange(40), 1), 40, 40)
    assert not np.isfinite(metrics.small_world(KEY, cycle, n_random=1).omega)  # C_latt is 0


alone = by_sender(np.array([2]), np.array([2]), 4, 4)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: metrics.clustering(Dense(4, 3)), r"one population .*; got 4 senders and 3"),
        (lambda: metrics.path_length(Dense(4, 3)), r"one population .*; got 4 senders and 3"),
        (lambda: metrics.path_length(alone), "no neuron reaches another"),
        (
            lambda: metrics.path_length(Dense(4, 4), key=KEY, n_sources=5),
            r"n_sources must be in \[1, 4\] and come with a key; got 5",
        ),
        (
            lambda: metrics.clustering(Dense(4, 4), n_sources=2),
            r"n_sources must be in \[1, 4\] and come with a key; got 2",
        ),
        (lambda: metrics.degrees(np.eye(3)), "wiring must have edges; got ndarray"),
        (lambda: metrics.clustering(Dense), r"wiring must be an instance; .*: pass Dense\(\)"),
        (
            lambda: metrics.path_length(Dense(4, 4), key=0, n_sources=2),
            "key must be a JAX key; got",
        ),
        (
            lambda: metrics.path_length(Dense(4, 4), key=KEY, n_sources=2.5),
            "n_sources must be a wh",
        ),
        (lambda: metrics.small_world(0, Dense(9, 9)), "key must be a JAX key; got 0"),
        (lambda: metrics.small_world(KEY, Dense(9, 9), n_random=0), "n_random must be a whole num"),
        (lambda: metrics.small_world(KEY, Dense(4, 4)), r"k must be even and in \[2, 3\]"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_cannot_be_measured(measure, message):
    with pytest.raises((ValueError, TypeError), match=message):
        measure()
