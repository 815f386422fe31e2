"""Placements: what fits where, what is refused, and how far the wiring then reaches."""

import copy
import pickle
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

import neurojax as nj
from hardware import topology
from hardware.topology import Mesh
from neurojax.wiring.layouts import Edges

KEY = jax.random.key(0)
RING = Mesh(20, 20, 1)


def small_world(key, p):
    return nj.watts_strogatz(key, 400, 400, 10, p).edges()


def shuffled(edges, n):
    """The same graph with its neurons numbered at random."""
    new = jax.random.permutation(jax.random.key(1), n)
    return edges._replace(pre=new[edges.pre], post=new[edges.post])


def chain(*pairs):
    pre, post = np.array(pairs, np.int32).T
    return Edges(jnp.asarray(pre), jnp.asarray(post), jnp.ones(len(pairs), jnp.int32))


# --- where neurons go ---


def test_linear_fills_core_by_core_and_row_after_row():
    assert topology.linear(7, Mesh(2, 2, 2)).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert topology.linear(9, Mesh(3, 3, 1), snake=True).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]


def test_a_snake_keeps_neighbours_neighbours():
    n = RING.capacity
    line = Edges(jnp.arange(n - 1), jnp.arange(1, n), jnp.ones(n - 1, int))
    hops = topology.hops(line, topology.linear(n, RING, snake=True), RING)
    assert (hops == 1).all()


def test_each_layer_starts_on_a_fresh_core():
    mesh = Mesh(3, 2, 4)
    assert topology.by_layer([5, 0, 4, 2], mesh).tolist() == [0] * 4 + [1] + [2] * 4 + [3] * 2
    assert (
        topology.by_layer([9, 1, 4], mesh, snake=True).tolist()
        == [0] * 4 + [1] * 4 + [2] + [5] + [4] * 4
    )
    assert topology.by_layer([], mesh).shape == (0,)


def test_a_placement_of_ones_own_is_kept():
    assert topology.given(np.zeros(0, int), Mesh(2, 2, 2)).shape == (0,)
    assert isinstance(topology.given([3, 0], Mesh(2, 2, 2)), jax.Array)
    assert isinstance(topology.inside("x", [3, 0], 4, "cores"), jax.Array)
    assert topology.given([3, 0, 3, 1], Mesh(2, 2, 2)).tolist() == [3, 0, 3, 1]


@pytest.mark.parametrize("sizes", [(13, 30), (30, 13), (400, 0)])
def test_bisection_fits_every_core(sizes):
    n, mesh = sum(sizes), Mesh(7, 5, 12)
    edges = nj.fan_in(KEY, n, n, 8 / n).edges()
    placement = topology.bisected(edges, n, mesh)
    assert topology.given(placement, mesh).shape == (n,)  # refuses a core too full


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_bisection_finds_the_order_of_a_shuffled_small_world(p):
    ring = small_world(KEY, p)
    edges = shuffled(ring, 400)
    linear = topology.mean_hops(edges, topology.linear(400, RING), RING)
    known = topology.mean_hops(ring, topology.linear(400, RING, snake=True), RING)
    found = topology.mean_hops(edges, topology.bisected(edges, 400, RING), RING)
    # A random graph has little order to be found; on a ring the known one is all but best.
    assert found < (0.8 if p == 1.0 else 0.35) * linear
    assert found < 1.1 * known


def test_bisection_is_never_worse_than_the_order_it_is_given():
    edges, mesh = small_world(KEY, 0.0), Mesh(10, 10, 4)
    snake = topology.mean_hops(edges, topology.linear(400, mesh, snake=True), mesh)
    assert topology.mean_hops(edges, topology.bisected(edges, 400, mesh), mesh) <= snake


def test_bisection_keeps_parts_that_are_not_connected_apart():
    groups = np.random.default_rng(0).permutation(64).reshape(4, 16)
    pairs = [(a, b) for group in groups for a in group for b in group if a != b]
    placement = np.asarray(topology.bisected(chain(*pairs), 64, Mesh(2, 2, 16)))
    assert [len(set(placement[group])) for group in groups] == [1, 1, 1, 1]


def test_bisection_without_synapses_is_linear():
    none = jnp.zeros(0, jnp.int32)
    mesh = Mesh(2, 2, 2)
    placement = topology.bisected(Edges(none, none, none), 7, mesh)
    np.testing.assert_array_equal(placement, topology.linear(7, mesh))


# --- the parts of bisection ---


def two_way(*pairs, n):
    return topology._graph(chain(*pairs), n)


def test_a_graph_holds_synapses_either_way_and_none_to_oneself():
    edges = Edges(
        jnp.array([0, 1, 2, 2, 0]), jnp.array([1, 0, 2, 1, 2]), jnp.array([2, 3, 4, 1, 0])
    )
    expected = [[0, 5, 0], [5, 0, 1], [0, 1, 0]]
    np.testing.assert_array_equal(topology._graph(edges, 3).toarray(), expected)


def test_cost_is_links_of_all_synapses_counted_both_ways():
    mesh, edges = Mesh(3, 2, 1), chain((0, 1), (1, 5), (4, 0), (4, 0))
    placement = topology.linear(6, mesh, snake=True)
    cost = topology._cost(topology._graph(edges, 6), np.asarray(placement), mesh)
    assert cost == 2 * float(topology.hops(edges, placement, mesh).sum()) == 2 * (1 + 2 + 2 * 2)


def test_a_block_is_halved_across_its_longer_side():
    block = topology._Block
    assert block(1, 2, 5, 3).halves() == (block(1, 2, 2, 3), block(3, 2, 3, 3))
    assert block(1, 2, 2, 5).halves() == (block(1, 2, 2, 2), block(1, 4, 2, 3))
    assert block(1, 2, 2, 2).halves() == (block(1, 2, 1, 2), block(2, 2, 1, 2))


@pytest.mark.parametrize("mesh", [Mesh(7, 5, 3), Mesh(2, 5, 2), Mesh(5, 9, 1)], ids=str)
def test_the_block_has_the_least_mean_distance_that_holds_all(mesh):
    def far(nx, ny):  # between cores drawn at random
        return sum(np.abs(np.subtract.outer(range(k), range(k))).mean() for k in (nx, ny))

    for n in range(1, mesh.capacity + 1):
        sides = [(w, -(-n // (w * mesh.neurons_per_core))) for w in range(1, mesh.nx + 1)]
        x, y, nx, ny = topology._square(n, mesh)
        assert (x, y) == (0, 0)
        assert (nx, ny) in [(w, h) for w, h in sides if h <= mesh.ny]
        np.testing.assert_allclose(far(nx, ny), min(far(w, h) for w, h in sides if h <= mesh.ny))


@pytest.mark.parametrize(
    ("n", "counts"), [(10, [5, 5]), (3, [2, 1]), (15, [8, 7]), (9, [3, 3, 3]), (23, [8, 8, 7])]
)
def test_neurons_are_shared_equally_among_cores(n, counts):
    k = len(counts)
    ring = chain(*((i, (i + 1) % n) for i in range(n)))
    in_order = lambda ids, _: np.arange(len(ids))  # noqa: E731
    block, mesh = topology._Block(0, 0, k, 1), Mesh(k, 1, 8)
    core = topology._cut(np.arange(n), block, mesh, in_order, np.zeros(n, np.int32))
    assert np.bincount(core, minlength=k).tolist() == counts
    assert np.bincount(topology.bisected(ring, n, mesh)).max() <= 8


@pytest.mark.parametrize("n", [2, 3, 40, 100])
def test_a_path_is_put_in_its_order_or_backwards(n):
    new = np.random.default_rng(0).permutation(n)
    path = two_way(*zip(new[:-1], new[1:], strict=True), n=n)
    place = np.argsort(new)[topology._spectral_order(path)]  # along the path
    assert (np.abs(np.diff(place)) == 1).all()


def test_the_vector_of_a_larger_graph_is_that_of_its_normalised_laplacian():
    # two cliques with a few synapses between them: a gap that a tolerance of .01 can see
    pairs = [(a + h, b + h) for h in (0, 60) for a in range(60) for b in range(a)]
    pre, post = np.array([*pairs, (0, 60), (1, 61)]).T
    number = (1 + pre % 4) * (1 + post % 4)  # so that degrees differ
    graph = topology._graph(Edges(*map(jnp.asarray, (pre, post, number))), 120)
    degree = graph.sum(0)
    _, vectors = np.linalg.eigh(np.eye(120) - graph.toarray() / np.sqrt(np.outer(degree, degree)))
    expected, got = vectors[:, 1] / np.sqrt(degree), topology._fiedler(graph)
    cosine = got @ expected / np.linalg.norm(got) / np.linalg.norm(expected)
    assert abs(cosine) > 0.999
    np.testing.assert_array_equal(got, topology._fiedler(graph))  # nothing is drawn


def test_parts_come_largest_first():
    graph = two_way((0, 1), (2, 3), (3, 4), n=6)
    order = topology._spectral_order(graph).tolist()
    assert set(order[:3]) == {2, 3, 4}
    assert order[1] == 3
    assert set(order[3:5]) == {0, 1}
    assert order[5] == 5


@pytest.mark.parametrize(("nx", "ny"), [(4, 1), (1, 4)])
def test_neurons_move_to_their_partners_and_the_best_is_kept(nx, ny):
    mesh, block = Mesh(nx, ny, 2), topology._Block(0, 0, nx, ny)
    path = two_way(*((i, i + 1) for i in range(7)), n=8)
    best = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    start = np.array([2, 0, 0, 2, 3, 1, 1, 3])  # from here it takes more than one round
    for first in (start, best):
        np.testing.assert_array_equal(topology._drawn(path, first, block, mesh), best)
    # from others no such order is found, but none that is worse
    for first in ([2, 2, 1, 0, 3, 1, 0, 3], [2, 3, 3, 2, 0, 0, 1, 1]):
        found = topology._drawn(path, np.array(first), block, mesh)
        assert np.bincount(found).tolist() == [2, 2, 2, 2]
        assert topology._cost(path, found, mesh) <= topology._cost(path, np.array(first), mesh)


def test_neurons_of_a_square_block_move_along_the_side_that_is_cut():
    ring = two_way(*((i, (i + 1) % 8) for i in range(8)), n=8)
    start = np.array([1, 0, 2, 2, 3, 1, 3, 0])
    found = topology._drawn(ring, start, topology._Block(0, 0, 2, 2), Mesh(2, 2, 2))
    assert found.tolist() == [0, 0, 2, 2, 3, 3, 1, 1]  # round the mesh


@pytest.mark.parametrize(("far", "snake"), [(1, True), (4, False)])
def test_the_order_itself_is_taken_where_nothing_better_is_found(far, snake, monkeypatch):
    monkeypatch.setattr(topology, "_drawn", lambda graph, core, *_: np.roll(core[::-1], 5))
    mesh, edges = Mesh(4, 3, 1), chain(*((i, i + far) for i in range(12 - far)))
    expected = topology.linear(12, mesh, snake=snake)
    np.testing.assert_array_equal(topology.bisected(edges, 12, mesh), expected)


def test_a_neuron_without_partners_has_a_place_too():
    placement = topology.bisected(chain((0, 2)), 4, Mesh(2, 2, 1))
    assert sorted(placement.tolist()) == [0, 1, 2, 3]
    assert topology.mean_hops(chain((0, 2)), placement, Mesh(2, 2, 1)) == 1


def test_where_no_vector_is_found_neurons_stay_in_order(monkeypatch):
    def fails(*_, **__):
        raise topology.sparse_linalg.ArpackNoConvergence("no", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(topology.sparse_linalg, "eigsh", fails)
    path = two_way(*((i, i + 1) for i in range(149)), n=150)
    np.testing.assert_array_equal(topology._fiedler(path), np.arange(150))


# --- how far the wiring reaches ---


def ensemble(p, graphs=8):
    """Mean hops an edge, ours and those of networkx, on a snake."""
    placement = topology.linear(400, RING, snake=True)
    ours = [topology.mean_hops(small_world(k, p), placement, RING)
            for k in jax.random.split(KEY, graphs)]  # fmt: skip
    core, theirs = np.asarray(placement), []
    for seed in range(graphs):
        a, b = core[np.array(networkx.watts_strogatz_graph(400, 10, p, seed=seed).edges()).T]
        theirs.append((abs(a % 20 - b % 20) + abs(a // 20 - b // 20)).mean())
    return np.array(ours), np.array(theirs)


@pytest.mark.parametrize(("p", "mean"), [(0.0, 3.00), (0.01, 3.11), (0.1, 4.10)])
def test_small_worlds_reach_as_far_as_those_of_networkx(p, mean):
    ours, theirs = ensemble(p)
    error = 4 * np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 8)  # 4 standard errors
    assert abs(ours.mean() - theirs.mean()) < error + 1e-6
    np.testing.assert_allclose(theirs.mean(), mean, atol=0.006)


def test_a_random_graph_reaches_as_far_as_pairs_drawn_at_random():
    # networkx reaches a little farther, 13.5: a rewired edge avoids neighbours still on the ring
    ours, _ = ensemble(1.0)
    pairs = 2 * (20**2 - 1) / (3 * 20) * 400 / 399  # those of a neuron with itself left out
    assert abs(ours.mean() - pairs) < 4 * ours.std(ddof=1) / np.sqrt(8)


def test_mean_hops_counts_parallel_synapses_and_leaves_out_those_that_are_none():
    edges = Edges(jnp.array([0, 0, 1]), jnp.array([1, 3, 2]), jnp.array([3, 1, 0]))
    mesh = Mesh(2, 2, 1)
    assert topology.mean_hops(edges, topology.linear(4, mesh), mesh) == (3 * 1 + 2) / 4


# --- networks ---


def test_wiring_numbers_layer_after_layer_by_name():
    net = nj.Network(
        layers={"b": nj.Layer(2, nj.LIF()), "a": nj.Layer(3, nj.LIF())},
        projections={
            "in": nj.Projection("x", "b", nj.Dense(4, 2)),
            "up": nj.Projection("b", "a", nj.Dense(2, 3)),
            "loop": nj.Projection("a", "a", nj.FanIn(jnp.array([[1], [2], [0]]), 3), delay=1),
        },
    )
    assert topology.wiring(net)[1] == 5
    assert topology.offsets(net) == {"a": 0, "b": 3}
    for edges in (topology.wiring(net)[0], eqx.filter_jit(lambda n: topology.wiring(n)[0])(net)):
        pairs = set(zip(edges.pre.tolist(), edges.post.tolist(), strict=True))
        assert pairs == {(i, j) for i in (3, 4) for j in (0, 1, 2)} | {(1, 0), (2, 1), (0, 2)}
        assert edges.number.tolist() == [1] * 9


def test_a_network_of_one_layer_has_no_wiring():
    net = nj.Network(
        {"cells": nj.Layer(2, nj.LIF())}, {"in": nj.Projection("x", "cells", nj.Dense(4, 2))}
    )
    edges, n = topology.wiring(net)
    assert (n, edges.pre.shape) == (2, (0,))


# --- what is refused ---

SMALL = Mesh(2, 2, 2, max_fan_in=2, max_fan_out=3)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mesh(0, 2, 2), "nx must be a whole number >= 1; got 0"),
        (lambda: Mesh(2, 2, 2, max_fan_in=0), "max_fan_in must be a whole number >= 1; got 0"),
        (lambda: Mesh(2.0, 2, 2), "nx must be a whole number >= 1; got 2.0"),
        (lambda: Mesh(2, 0, 2), "ny must be a whole number >= 1; got 0"),
        (lambda: Mesh(2, 2, True), "neurons_per_core must be a whole number >= 1; got True"),
        (lambda: Mesh(2, 2, 2, max_fan_out=-1), "max_fan_out must be a whole number >= 1; got -1"),
        (lambda: topology.linear(2.5, SMALL), "n must be a whole number >= 0; got 2.5"),
        (lambda: topology.linear(-1, SMALL), "n must be a whole number >= 0; got -1"),
        (lambda: topology.by_layer([2.5], SMALL), "sizes must be a whole number >= 0; got 2.5"),
        (
            lambda: topology.hops(chain((0, 1)), jnp.array([0.0, 1.5]), SMALL),
            r"placement must be whole numbers of shape \[n\]; got shape \(2,\), float32",
        ),
        (
            lambda: topology.mean_hops(
                chain((0, 1))._replace(number=jnp.array([-2])), topology.linear(4, SMALL), SMALL
            ),
            "number of edges must be >= 0, .*; got -2",
        ),
        (lambda: topology.linear(9, SMALL), "n must be at most 8, what 4 cores of 2 .*; got 9"),
        (
            lambda: topology.by_layer([3, 3, 3], SMALL),
            r"sizes must fit 4 cores of 2 .*\[3, 3, 3\] need 6",
        ),
        (lambda: topology.by_layer([-1], SMALL), "sizes must be a whole number >= 0; got -1"),
        (
            lambda: topology.mean_hops(chain((0, 9)), topology.linear(4, SMALL), SMALL),
            r"post of edges must lie in \[0, 3\], the 4 neurons placed; got 9",
        ),
        (
            lambda: topology.hops(chain((0, 1)), jnp.array([0, 7]), SMALL),
            r"placement must lie in \[0, 3\], the cores of the mesh; got 7",
        ),
        (lambda: topology.given([0, 4], SMALL), r"core must lie in \[0, 3\].*got 4 \(1 of 2\)"),
        (lambda: topology.given([1, 1, 1], SMALL), "core 1 must hold at most 2 neurons.*got 3"),
        (
            lambda: topology.given(np.array([0.5]), SMALL),
            r"core must be whole numbers of shape \[n\]",
        ),
        (
            lambda: topology.given(np.array([[0]]), SMALL),
            r"core must be whole .*got shape \(1, 1\)",
        ),
        (
            lambda: topology.bisected(chain((0, 5)), 5, SMALL),
            r"post of edges must lie in \[0, 4\], the 5 neurons placed; got 5 \(1 of 1\)",
        ),
        (
            lambda: topology.bisected(chain((0, 4), (1, 4), (2, 4)), 5, SMALL),
            r"fan-in must be at most 2, max_fan_in of the mesh; neuron 4 has 3 \(1 of 5",
        ),
        (
            lambda: topology.check_fan(chain((2, 0), (2, 1), (2, 3), (2, 4)), 5, SMALL),
            r"fan-out must be at most 3, max_fan_out of the mesh; neuron 2 has 4 \(1 of 5",
        ),
        (lambda: topology.bisected(chain((0, 1)), 9, SMALL), "n must be at most 8"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parallel_synapses_count_towards_the_fan():
    edges = Edges(jnp.array([0]), jnp.array([1]), jnp.array([3]))
    with pytest.raises(ValueError, match=re.escape("neuron 1 has 3")):
        topology.check_fan(edges, 2, SMALL)
    topology.check_fan(edges._replace(number=jnp.array([2])), 2, SMALL)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "make",
    [
        lambda mesh: topology.linear(4, mesh),
        lambda mesh: topology.by_layer([4], mesh),
        lambda mesh: topology.given([0], mesh),
        lambda mesh: topology.bisected(chain((0, 1)), 4, mesh),
        lambda mesh: topology.hops(chain((0, 1)), topology.linear(4, SMALL), mesh),
    ],
)
def test_what_is_no_mesh_is_refused(make):
    with pytest.raises(TypeError, match=r"mesh must be an instance of Mesh; got tuple \(2, 2, 2\)"):
        make((2, 2, 2))
    with pytest.raises(TypeError, match=r"mesh must be an instance; got the class: pass Mesh\(\)"):
        make(Mesh)


@pytest.mark.usefixtures("untyped")
def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match="net must be an instance of Network; got dict"):
        topology.wiring({})


def test_a_mesh_shows_its_sizes_and_is_the_same_after_pickle_and_copy():
    shown = "Mesh(nx=2, ny=2, neurons_per_core=2, max_fan_in=2, max_fan_out=3)"
    assert repr(SMALL) == shown
    assert pickle.loads(pickle.dumps(SMALL)) == copy.deepcopy(SMALL) == SMALL


@pytest.mark.parametrize("n", [0, 5])
def test_without_synapses_no_fan_is_too_wide(n):
    none = jnp.zeros(0, jnp.int32)
    topology.check_fan(Edges(none, none, none), n, SMALL)
