"""Routing against explicit paths on a networkx grid, link by link; queues and tables by hand."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware import routing, topology
from hardware.topology import Mesh
from neurojax.wiring.layouts import Edges, FanIn

MESH, N, E = Mesh(4, 3, 2), 10, 24
GRID = networkx.grid_2d_graph(MESH.nx, MESH.ny)
STEPS = {(1, 0): 0, (-1, 0): 1, (0, 1): 2, (0, -1): 3}  # as in `routing.DIRECTIONS`
SEEDS = st.integers(0, 2**31 - 1)
ROUTES = {"unicast": routing.unicast, "multicast": routing.multicast}


def drawn(seed):
    """Edges with some that are none, a placement and whole numbers of spikes."""
    rng = np.random.default_rng(seed)
    edges = Edges(*(jnp.asarray(rng.integers(0, high, E), jnp.int32) for high in (N, N, 3)))
    placement = jnp.asarray(rng.integers(0, MESH.n_cores, N), jnp.int32)
    return edges, placement, jnp.asarray(rng.integers(0, 6, N), jnp.float32)


def at(core):
    return core % MESH.nx, core // MESH.nx


def path(a, b):
    """Cores from `a` to `b`, along the row first; each step is an edge of the grid."""
    (x, y), (dx, dy) = at(a), at(b)
    row = [(i, y) for i in range(x, dx, 1 if dx > x else -1)]
    column = [(dx, j) for j in range(y, dy, 1 if dy > y else -1)]
    steps = [*row, *column, (dx, dy)]
    assert all(GRID.has_edge(*step) for step in zip(steps[:-1], steps[1:], strict=True))
    assert len(steps) - 1 == networkx.shortest_path_length(GRID, (x, y), (dx, dy))
    return list(zip(steps[:-1], steps[1:], strict=True))


def direction(link):
    (x, y), (u, v) = link
    return STEPS[u - x, v - y]


def reference(edges, placement, spikes, route):
    """Traffic by loops: receivers as sets of cores, and for a tree as a set of links."""
    load, core, spikes = np.zeros((4, MESH.ny, MESH.nx)), np.asarray(placement), np.asarray(spikes)
    ew, ns, packets, cores = (np.zeros(N, int) for _ in range(4))
    for neuron in range(N):
        real = (np.asarray(edges.pre) == neuron) & (np.asarray(edges.number) > 0)
        to = set(core[np.asarray(edges.post)[real]].tolist())
        links = [link for b in to for link in path(core[neuron], b)]
        away = len(to - {core[neuron]})
        if route == "multicast":
            links, away = set(links), min(away, 1)
        for link in links:
            (x, y), d = link[0], direction(link)
            load[d, y, x] += spikes[neuron]
            (ew if d < 2 else ns)[neuron] += 1
        packets[neuron], cores[neuron] = away, len(to)
    return ew, ns, packets, cores, load


@pytest.mark.parametrize("route", ROUTES)
@given(seed=SEEDS)
def test_traffic_is_that_of_explicit_paths(route, seed):
    edges, placement, spikes = drawn(seed)
    traffic = ROUTES[route](edges, placement, MESH, spikes)
    expected = reference(edges, placement, spikes, route)
    for got, want in zip(traffic[1:], expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert traffic.spike_hops == traffic.load.sum()
    hottest = traffic.hottest
    assert hottest.load == traffic.load.max()
    assert hottest.load == traffic.load[hottest.direction, hottest.y, hottest.x]


@settings(max_examples=10)
@given(seed=SEEDS)
def test_a_tree_crosses_no_more_links_than_unicast(seed):
    edges, placement, spikes = drawn(seed)
    one, tree = (route(edges, placement, MESH, spikes) for route in ROUTES.values())
    assert (tree.load <= one.load).all()
    assert (tree.packets <= one.packets).all()
    np.testing.assert_array_equal(tree.cores, one.cores)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_hops_of_an_edge_are_the_shortest_path(seed):
    edges, placement, _ = drawn(seed)
    lengths = dict(networkx.all_pairs_shortest_path_length(GRID))
    core = np.asarray(placement)
    ends = [(at(core[a]), at(core[b])) for a, b in zip(*map(np.asarray, edges[:2]), strict=True)]
    expected = np.array([lengths[a][b] for a, b in ends])
    np.testing.assert_array_equal(topology.hops(edges, placement, MESH), expected)
    mean = (expected * np.asarray(edges.number)).sum() / max(np.asarray(edges.number).sum(), 1)
    np.testing.assert_allclose(topology.mean_hops(edges, placement, MESH), mean, rtol=1e-6)


@pytest.mark.parametrize(("nx", "ny", "mean"), [(8, 4, 3.875), (64, 64, 42.656)])
def test_uniform_traffic_has_the_mean_of_the_closed_form(nx, ny, mean):
    mesh, n = Mesh(nx, ny, 1), nx * ny
    placement, everyone = topology.linear(n, mesh), jnp.arange(n)
    from_one = lambda i: topology.mean_hops(  # noqa: E731
        Edges(jnp.full(n, i), everyone, jnp.ones(n, int)), placement, mesh
    )
    got = jax.jit(lambda: jax.lax.map(from_one, everyone).mean())()
    closed = (nx**2 - 1) / (3 * nx) + (ny**2 - 1) / (3 * ny)
    np.testing.assert_allclose(got, closed, rtol=1e-5)
    np.testing.assert_allclose(closed, mean, atol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES.values())
def test_vmap_is_a_loop_and_jit_is_eager(route):
    index = jax.random.uniform(jax.random.key(0), (3, N, N)).argsort(-1)[..., :4]
    placement = jax.random.randint(jax.random.key(1), (3, N), 0, MESH.n_cores)
    spikes = jax.random.randint(jax.random.key(2), (3, N), 0, 9).astype(float)

    def run(index, placement, spikes):
        edges = FanIn(index, N).edges()
        traffic = route(edges, placement, MESH, spikes)
        return traffic, routing.latency(edges, placement, MESH, traffic, DELAY, 1e3).latency

    batched, late = eqx.filter_jit(jax.vmap(run))(index, placement, spikes)
    for i in range(3):
        alone, late_alone = run(index[i], placement[i], spikes[i])
        for one, many in zip(alone, batched, strict=True):
            np.testing.assert_array_equal(one, many[i])
        np.testing.assert_array_equal(alone.spike_hops, batched.spike_hops[i])
        assert [x[i] for x in batched.hottest] == list(alone.hottest)
        np.testing.assert_allclose(late[i], late_alone, rtol=1e-6)  # sums in another order


def test_rates_scale_all_loads_and_leave_none_below_zero():
    edges, placement, spikes = drawn(5)
    whole, part = (routing.unicast(edges, placement, MESH, s) for s in (spikes, spikes / 7))
    # A load is a running sum over 4 cores of some 20 terms below 6: roundings of 6e-8 each.
    np.testing.assert_allclose(part.load, whole.load / 7, atol=1e-5)
    assert (part.load >= 0).all()


def test_a_network_without_synapses_has_no_traffic():
    none = jnp.zeros(0, jnp.int32)
    for route in ROUTES.values():
        traffic = route(Edges(none, none, none), jnp.arange(N, dtype=jnp.int32), MESH, jnp.ones(N))
        assert traffic.spike_hops == traffic.hottest.load == 0
        assert traffic.cores.sum() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("route", ROUTES)
def test_double_precision_gives_the_same(route):
    wide = FanIn(jnp.arange(4 * N).reshape(N, 4) % N, N).edges()  # 64-bit indices
    placement, spikes = jnp.arange(N), jnp.arange(N) / 3
    traffic = ROUTES[route](wide, placement, MESH, spikes)
    expected = reference(wide, placement, spikes, route)
    assert traffic.load.dtype == float
    np.testing.assert_allclose(traffic.load, expected[-1], atol=1e-14)
    late = routing.latency(wide, placement, MESH, traffic, DELAY, 1e3)
    assert late.latency.shape == (4 * N,)
    for each in (traffic.hops_ew, traffic.hops_ns, traffic.packets, traffic.cores):
        assert each.dtype == jnp.int32
    single = ROUTES[route](wide, placement, MESH, spikes.astype(jnp.float32))
    assert routing.burst(single, 0.5).dtype == jnp.float32
    short = routing.latency(wide, placement, MESH, single, DELAY, 1e3)
    assert short.latency.dtype == jnp.float32
    np.testing.assert_allclose(short.latency, late.latency, rtol=1e-6)


@pytest.mark.parametrize("n", [2048, 4096])  # n n_cores is 2^31, then above
def test_keys_past_the_range_of_integers_are_sorted_in_pairs(n):
    mesh, last = Mesh(1024, 1024, 1), n - 1
    ends = [last, last, last, 0, 5], [0, 1, 0, 1, 6], [1, 1, 1, 1, 0]
    edges = Edges(*(jnp.asarray(x, jnp.int32) for x in ends))
    placement = jnp.arange(n, dtype=jnp.int32)
    hops = routing._unicast(edges, placement, mesh, jnp.ones(n)).hops_ew
    # The last neuron sits at x 1023; of its three synapses two end on one core.
    assert (hops[last], hops[0], hops.sum()) == (1023 + 1022, 1, 2046)


def test_a_placement_may_be_a_list_and_spikes_whole_numbers():
    edges, placement, spikes = drawn(1)
    got = routing._unicast(*routing._checked(edges, placement.tolist(), MESH, spikes.astype(int)))
    for one, other in zip(got, routing.unicast(edges, placement, MESH, spikes), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_spikes_in_half_precision_are_added_up_in_single():
    edges, placement, spikes = drawn(1)
    got = routing.unicast(edges, placement, MESH, (100 + spikes).astype(jnp.bfloat16))
    # 100 to 105 are exact in bfloat16; their sums would not be
    want = routing.unicast(edges, placement, MESH, 100 + spikes)
    assert got.load.dtype == jnp.float32
    np.testing.assert_array_equal(got.load, want.load)


# --- time ---

DELAY = routing.Delay(4.0, 6.0, 2.0)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_latency_adds_up_the_queues_of_the_path(seed):
    edges, placement, spikes = drawn(seed)
    traffic, mu = routing.unicast(edges, placement, MESH, spikes), 200.0
    got = routing.latency(edges, placement, MESH, traffic, DELAY, mu)
    edges = Edges(*map(np.asarray, edges))
    rho = np.asarray(traffic.load, float) / mu
    wait, core = rho / (2 * mu * (1 - rho)), np.asarray(placement)
    expected = np.full(E, 2.0)
    for i in range(E):
        for link in path(core[edges.pre[i]], core[edges.post[i]]):
            d, (x, y) = direction(link), link[0]
            expected[i] += (4.0 if d < 2 else 6.0) + wait[d, y, x]
    np.testing.assert_allclose(got.latency, expected, rtol=1e-6)
    np.testing.assert_allclose(got.wait, wait, rtol=1e-5)


def test_the_wait_is_that_of_a_simulated_queue():
    rng, rho, n = np.random.default_rng(0), 0.7, 400_000
    arrival = rng.exponential(1 / rho, n)  # service takes 1
    steps = np.cumsum(1 - arrival)  # Lindley: wait = how far this is above its lowest point
    waited = (steps - np.minimum.accumulate(steps)).reshape(20, -1).mean(1)
    edges = Edges(*(jnp.array([i], jnp.int32) for i in (0, 1, 1)))
    placement, mesh = jnp.arange(2, dtype=jnp.int32), Mesh(2, 1, 1)
    traffic = routing.unicast(edges, placement, mesh, jnp.array([rho, 0.0]))
    none = routing.Delay(0.0, 0.0)
    (got,) = routing.latency(edges, placement, mesh, traffic, none, 1.0).latency
    # 4 standard errors of the means of 20 stretches, far longer than the queue remembers
    assert abs(got - waited.mean()) < 4 * waited.std(ddof=1) / np.sqrt(20)


def test_a_burst_lasts_as_long_as_the_hottest_link_is_busy():
    # neurons 0 and 1 on core 0 send 3 and 4 spikes to core 1, and 1 sends on to core 2
    ends = jnp.array([0, 1, 1], jnp.int32), jnp.array([2, 2, 3], jnp.int32)
    edges, mesh = Edges(*ends, jnp.ones(3, jnp.int32)), Mesh(3, 1, 2)
    placement, spikes = jnp.array([0, 0, 1, 2]), jnp.array([3.0, 4.0, 9.0, 9.0])
    assert routing.burst(routing.multicast(edges, placement, mesh, spikes), 0.5) == 3.5
    assert routing.burst(routing.unicast(edges, placement, mesh, spikes), 0.5) == 5.5


def test_loihi_hops_are_those_of_the_paper():
    delay = routing.loihi_delay()
    np.testing.assert_allclose((delay.hop_ew, delay.hop_ns, delay.tile), (4.1e-9, 6.5e-9, 2.1e-9))
    assert repr(delay) == "Delay(hop_ew=4.1e-09 s, hop_ns=6.5e-09 s, tile=2.1e-09 s)"
    assert pickle.loads(pickle.dumps(delay)) == copy.deepcopy(delay) == delay
    assert routing.Delay(1.0, 2.0).tile == 0


# --- memory ---


@settings(max_examples=10)
@given(seed=SEEDS)
def test_tables_are_counted_core_by_core(seed):
    edges, placement, _ = drawn(seed)
    got = routing.tables(edges, placement, MESH, weight_bits=8)
    core, real = np.asarray(placement), np.asarray(edges.number) > 0
    lists, entries, synapses = (np.zeros(MESH.n_cores, int) for _ in range(3))
    for neuron in range(N):
        mine = real & (np.asarray(edges.pre) == neuron)
        away = set(core[np.asarray(edges.post)[mine]]) - {core[neuron]}
        lists[core[neuron]] += len(away)
        on_tree = {end for b in away for link in path(core[neuron], b) for end in link}
        for x, y in on_tree:
            entries[y * MESH.nx + x] += 1
    np.add.at(synapses, core[np.asarray(edges.post)[real]], 1)
    # 12 cores take 4 bits, 10 neurons 4 and 5 for links and core, 2 neurons a core 1.
    np.testing.assert_array_equal(got.source_lists, 4 * lists)
    np.testing.assert_array_equal(got.tree_entries, 9 * entries)
    np.testing.assert_array_equal(got.synapses, 9 * synapses)
    where, bits = routing.fullest(got.tree_entries)
    assert bits == got.tree_entries[where] == 9 * entries.max()


# --- what is refused ---

REFUSED = {
    "negative": (dict(spikes=jnp.ones(N).at[3].set(-1)), r"spikes must .*>= 0.*-1.0 \(1 of 10\)"),
    "not finite": (dict(spikes=jnp.ones(N).at[3].set(jnp.nan)), "spikes must be finite.*nan"),
    "too few": (dict(spikes=jnp.ones(3)), r"spikes must have shape \[10\].*got \(3,\)"),
    "no such core": (dict(placement=jnp.full(N, 12)), r"placement must lie in \[0, 11\].*got 12"),
    "below the first core": (dict(placement=jnp.full(N, -1)), r"placement must .*; got -1 \(10"),
    "not whole": (
        dict(placement=jnp.full(N, 0.5)),
        r"placement must be whole numbers of shape \[n\]; got shape \(10,\), float32",
    ),
    "a column": (dict(placement=jnp.zeros((N, 1), int)), r"placement must .*; got shape \(10, 1\)"),
    "less than no synapse": (
        dict(edges=Edges(*(jnp.array([x]) for x in (0, 1, -1)))),
        "number of edges must be >= 0, the synapses that each stands for; got -1",
    ),
    "no such neuron": (
        dict(edges=Edges(*(jnp.array([x]) for x in (10, 0, 1)))),
        r"pre of edges must lie in \[0, 9\], the 10 neurons placed; got 10",
    ),
    **{
        f"{short} is shorter": (
            dict(edges=Edges(**{end: jnp.zeros(3 - (end == short), int) for end in Edges._fields})),
            rf"pre, post and number of edges must have one shape \[E\]; got {shapes}",
        )
        for short, shapes in (
            ("pre", r"\(\(2,\), \(3,\), \(3,\)\)"),
            ("post", r"\(\(3,\), \(2,\), \(3,\)\)"),
            ("number", r"\(\(3,\), \(3,\), \(2,\)\)"),
        )
    },
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("route", ROUTES.values())
def test_what_makes_no_traffic_is_refused(route, case):
    edges, placement, spikes = drawn(0)
    changed, message = REFUSED[case]
    given = {"edges": edges, "placement": placement, "spikes": spikes} | changed
    with pytest.raises(ValueError, match=message):
        route(mesh=MESH, **given)


def test_what_is_traced_is_refused_at_run_time():
    edges, placement, spikes = drawn(0)

    @eqx.filter_jit
    def run(placement, number):
        return routing.unicast(edges._replace(number=number), placement, MESH, spikes).load

    for wrong in (placement.at[3].set(-1), placement.at[3].set(12)):
        with pytest.raises(eqx.EquinoxRuntimeError, match=r"placement must lie in \[0, 11\]"):
            run(wrong, edges.number)
    with pytest.raises(eqx.EquinoxRuntimeError, match="number of edges must be >= 0"):
        run(placement, edges.number.at[3].set(-1))


def test_traced_spikes_are_refused_at_run_time():
    edges, placement, spikes = drawn(0)
    run = eqx.filter_jit(lambda s: routing.unicast(edges, placement, MESH, s).load)
    with pytest.raises(eqx.EquinoxRuntimeError, match="spikes must be finite and >= 0"):
        run(-spikes)


def test_a_saturated_link_is_refused_by_name():
    edges = Edges(*(jnp.array([i], jnp.int32) for i in (0, 1, 1)))
    placement = jnp.array([6, 4], jnp.int32)  # from x 2, y 1 two links west
    traffic = routing.unicast(edges, placement, MESH, jnp.array([30.0, 0.0]))
    name = r"link west out of core [56] \(x [12], y 1\) is asked for 1.5 times its rate \(2 of 48"
    with pytest.raises(ValueError, match=name):
        routing.latency(edges, placement, MESH, traffic, DELAY, 20.0)
    with pytest.raises(ValueError, match="asked for 1 times"):
        routing.latency(edges, placement, MESH, traffic, DELAY, 30.0)

    def late(load):
        return routing.latency(edges, placement, MESH, traffic._replace(load=load), DELAY, 20.0)

    for load in (traffic.load, traffic.load * 2 / 3):  # 1.5 times the rate, and just that
        with pytest.raises(eqx.EquinoxRuntimeError, match="load of every link must be below"):
            eqx.filter_jit(late)(load)


def test_numbers_that_make_no_sense_are_refused():
    edges, placement, spikes = drawn(0)
    traffic = routing.unicast(edges, placement, MESH, spikes)
    with pytest.raises(ValueError, match="hop_ew must be finite and >= 0 s; got -1.0"):
        routing.Delay(-1.0, 1.0)
    with pytest.raises(ValueError, match="service_rate must be finite and > 0"):
        routing.latency(edges, placement, MESH, traffic, DELAY, 0.0)
    with pytest.raises(ValueError, match="service_time must be finite and >= 0 s"):
        routing.burst(traffic, -1.0)
    with pytest.raises(ValueError, match="weight_bits must be a whole number >= 1; got 0"):
        routing.tables(edges, placement, MESH, weight_bits=0)
    with pytest.raises(ValueError, match=r"service_rate must be one number; got shape \(2,\)"):
        routing.latency(edges, placement, MESH, traffic, DELAY, jnp.ones(2))
    with pytest.raises(ValueError, match=r"service_time must be one number; got shape \(2,\)"):
        routing.burst(traffic, jnp.ones(2))


@pytest.mark.usefixtures("untyped")
def test_what_is_of_another_kind_or_another_mesh_is_refused():
    edges, placement, spikes = drawn(0)
    traffic = routing.unicast(edges, placement, MESH, spikes)
    with pytest.raises(ValueError, match=r"hop_ns must be one number; got shape \(2,\): jax.vmap"):
        routing.Delay(1.0, jnp.ones(2))
    late = lambda mesh, delay: routing.latency(  # noqa: E731
        edges, placement, mesh, traffic, delay, 1e3
    )
    other = r"load of shapes \(10,\) and \(4, 4, 3\); got \(10,\) and \(4, 3, 4\)"
    with pytest.raises(ValueError, match=other):
        late(Mesh(3, 4, 2), DELAY)
    with pytest.raises(ValueError, match=r"shapes \(11,\) and .*; got \(10,\)"):
        routing.latency(edges, jnp.zeros(11, int), MESH, traffic, DELAY, 1e3)
    with pytest.raises(TypeError, match="delay must be an instance of Delay; got function"):
        late(MESH, routing.loihi_delay)
    with pytest.raises(TypeError, match="mesh must be an instance; got the class: pass Mesh"):
        late(Mesh, DELAY)
    with pytest.raises(TypeError, match="mesh must be an instance of Mesh; got tuple"):
        routing.unicast(edges, placement, (4, 3, 2), spikes)
    with pytest.raises(TypeError, match="edges must be an instance of Edges; got tuple"):
        routing.multicast(tuple(edges), placement, MESH, spikes)
    with pytest.raises(TypeError, match="traffic must be an instance of Traffic; got"):
        routing.burst(traffic.load, 1.0)
    with pytest.raises(TypeError, match="traffic must be an instance of Traffic; got"):
        routing.latency(edges, placement, MESH, traffic.load, DELAY, 1e3)
