"""Every product against loops over the synapses; every generator against what it promises."""

import functools
import math

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import connectivity as oracle

from neurojax.connectivity import fan_in, locally_dense, merged, watts_strogatz
from neurojax.layouts import Band, Dense

KEY = jax.random.key(0)
SEEDS = st.integers(0, 2**31 - 1)


# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def drawn(generator, *arguments):
    """key -> connectivity, compiled once for all keys."""
    return quick(lambda key: generator(key, *arguments))


def whole(rng, *shape):
    """Small whole numbers: float32 sums of their products have no rounding at all."""
    return rng.integers(-4, 5, shape).astype(np.float32)


@quick
def products(c, w, s, e, post, pre):
    batch = jax.vmap(functools.partial(c.apply, w))(pre.reshape(-1, c.n_pre))
    return c.matrix(w), c.apply(w, s), batch, c.apply_t(w, e), c.outer(post, pre)


@pytest.mark.parametrize(
    ("kind", "size"),
    [(kind, i) for kind, row in oracle.KINDS.items() for i in range(len(row.sizes))],
)
@settings(max_examples=5)
@given(seed=SEEDS)
def test_products_are_those_of_the_matrix(kind, size, seed):
    rng, c = np.random.default_rng(seed), oracle.example(kind, seed, size)
    lead = [(2, 3), (3,), ()][size % 3]
    w, s, e = whole(rng, *c.shape), whole(rng, c.n_pre), whole(rng, c.n_post)
    post, pre = whole(rng, *lead, c.n_post), whole(rng, *lead, c.n_pre)
    matrix, current, batch, back, change = products(c, *map(jnp.asarray, (w, s, e, post, pre)))
    full = oracle.matrix(c, w)
    np.testing.assert_array_equal(matrix, full)
    np.testing.assert_array_equal(current, full @ s)
    np.testing.assert_array_equal(batch, pre.reshape(-1, c.n_pre) @ full.T)
    np.testing.assert_array_equal(back, e @ full)
    rows, columns, count = oracle.synapses(c)
    outer = np.einsum("ti,tj->ij", post.reshape(-1, c.n_post), pre.reshape(-1, c.n_pre))
    np.testing.assert_array_equal(change, oracle.stored(c, outer))
    np.testing.assert_array_equal(c.fan_in, np.bincount(rows.ravel(), count.ravel(), c.n_post))
    np.testing.assert_array_equal(c.fan_out, np.bincount(columns.ravel(), count.ravel(), c.n_pre))


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_transpose_is_the_adjoint_and_outer_the_gradient_of_apply(kind):
    rng, c = np.random.default_rng(1), oracle.example(kind)
    w, s, e = (jnp.asarray(whole(rng, *shape)) for shape in (c.shape, (45,), (45,)))

    @quick
    def both(w, s, e):
        power, change = jax.value_and_grad(lambda w: e @ c.apply(w, s))(w)
        return power, c.apply_t(w, e) @ s, change, c.outer(e, s)

    forward, backward, gradient, outer = both(w, s, e)
    assert forward == backward != 0
    # synapses that share a weight each learn as one, where the gradient adds them up
    shared = np.asarray(c.count) if kind == "counted" else 1
    np.testing.assert_array_equal(gradient, np.asarray(outer) * shared)


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_products_keep_the_dtype(kind, dtype):
    with jax.enable_x64(True):
        c = oracle.example(kind)
        w, s = jnp.ones(c.shape, dtype), jnp.ones(c.n_pre, dtype)
        made = jax.eval_shape(lambda w, s: (c.apply(w, s), c.apply_t(w, s), c.outer(s, s)), w, s)
        assert {x.dtype for x in made} == {jnp.dtype(dtype)}


@given(seed=SEEDS, sizes=st.sampled_from([(40, 13, 0.01), (40, 13, 0.05), (7, 13, 1.0)]))
def test_fan_in_draws_a_share_of_partners_once_each(seed, sizes):
    n_pre, n_post, density = sizes
    c = drawn(fan_in, *sizes)(jax.random.key(seed))
    assert c.shape == (n_post, max(1, round(density * n_pre)))
    assert_distinct(c)


def assert_distinct(c):
    index = np.sort(c.index, axis=1)
    assert index.min() >= 0
    assert index.max() < c.n_pre
    assert np.all(np.diff(index, axis=1) > 0)


def links(generator, *arguments, draws):
    """[draws, n_post, n_pre]: 1 where a pair is linked in that draw of a FanIn."""
    draw = quick(jax.vmap(lambda key: generator(key, *arguments)))
    c = draw(jax.random.split(KEY, draws))
    linked = np.zeros((draws, c.n_post, c.n_pre))
    np.put_along_axis(linked, np.asarray(c.index), 1, axis=2)
    return linked


def assert_frequency(linked, p):
    # the largest of some hundred binomial means stays within 5 standard errors
    error = np.sqrt(p * (1 - p) / linked.shape[0])
    np.testing.assert_allclose(linked.mean(0), p, atol=5 * error)


def test_fan_in_has_no_favourites():
    assert_frequency(links(fan_in, 12, 10, 0.25, draws=1000), 3 / 12)


small_world = quick(watts_strogatz, static_argnums=(1, 2, 3))


@given(seed=SEEDS, p=st.floats(0, 1), sizes=st.sampled_from([(12, 12, 11), (30, 10, 5)]))
def test_watts_strogatz_keeps_fan_in_without_pairs_or_loops(seed, p, sizes):
    n_pre, n_post, k = sizes
    c = small_world(jax.random.key(seed), *sizes, jnp.asarray(p))
    assert c.shape == (n_post, k)
    assert_distinct(c)
    if n_pre == n_post:
        assert not np.any(np.asarray(c.index) == np.arange(n_post)[:, None])


@pytest.mark.parametrize(("n_pre", "n_post"), [(12, 12), (30, 10), (7, 12)])
@pytest.mark.parametrize("k", [4, 5])
def test_watts_strogatz_without_rewiring_takes_the_nearest(n_pre, n_post, k):
    index = np.asarray(small_world(KEY, n_pre, n_post, k, jnp.zeros(())).index)
    for i in range(n_post):
        away = [abs((j * n_post - i * n_pre + n_pre * n_post / 2) % (n_pre * n_post)
                    - n_pre * n_post / 2) for j in range(n_pre)]  # fmt: skip
        if n_pre == n_post:
            away[i] = math.inf
        assert sorted(away)[:k] == sorted(away[j] for j in index[i])


def test_watts_strogatz_fully_rewired_is_a_uniform_graph():
    linked = links(watts_strogatz, 14, 14, 4, 1.0, draws=1000)
    assert not linked[:, range(14), range(14)].any()
    assert_frequency(linked[:, ~np.eye(14, dtype=bool)], 4 / 13)


def test_watts_strogatz_rewires_each_neighbour_alone():
    n, k, p, draws = 20, 6, 0.3, 300
    linked = links(watts_strogatz, n, n, k, p, draws=draws)
    near = np.asarray(watts_strogatz(KEY, n, n, k, 0.0).index)
    local = np.take_along_axis(linked, near[None], axis=2).sum(2)
    # lost ~ Bin(k, p); each fills up with any of the n - 1 - k + lost that are not kept
    lost = np.arange(k + 1)
    chance = [math.comb(k, m) * p**m * (1 - p) ** (k - m) for m in lost]
    expected = np.sum(chance * (k - lost + lost * lost / (n - 1 - k + lost)))
    assert local.mean() == pytest.approx(expected, abs=4 * local.std() / math.sqrt(draws * n))
    assert len(np.unique(local)) > k / 2  # a coin for each, not a fixed number


def test_watts_strogatz_is_a_small_world_as_that_of_networkx():
    """Clustering falls as (1 - p)^3 (Barrat and Weigt 2000); paths get short long before."""
    n, k = 120, 8

    def ours(p, seed):
        c = small_world(jax.random.key(seed), n, n, k, jnp.asarray(p))
        edges = [(int(j), i) for i, row in enumerate(np.asarray(c.index)) for j in row]
        return networkx.DiGraph(edges)

    def ensemble(draw, p):
        graphs = [draw(p, seed) for seed in range(4)]
        clustering = np.mean([networkx.average_clustering(g) for g in graphs])
        return clustering, np.mean([networkx.average_shortest_path_length(g) for g in graphs])

    def theirs(p, seed):
        return networkx.connected_watts_strogatz_graph(n, k, p, seed=seed)

    assert ensemble(ours, 0.0) == pytest.approx(ensemble(theirs, 0.0))
    for p in (0.1, 0.5):
        (clustering, length), (c_oracle, l_oracle) = ensemble(ours, p), ensemble(theirs, p)
        assert clustering == pytest.approx(c_oracle, abs=0.05)
        assert length == pytest.approx(l_oracle, rel=0.15)


@given(
    seed=SEEDS,
    sizes=st.sampled_from([(9, 4, 0.0), (9, 2, 1.0), (50, 6, 0.1)]),
)
def test_locally_dense_keeps_every_in_degree(seed, sizes):
    n, radius, p = sizes
    near, far = drawn(locally_dense, *sizes)(jax.random.key(seed))
    lost = round(2 * radius * p)
    np.testing.assert_array_equal(near.fan_in, 2 * radius - lost)
    assert not np.any(near.mask[:, radius])  # no self-loop
    if lost == 0:
        assert far is None
        return
    assert_distinct(far)
    assert far.shape == (n, lost)
    away = np.abs((np.asarray(far.index) - np.arange(n)[:, None] + n / 2) % n - n / 2)
    assert away.min() > radius


def test_locally_dense_rewires_without_favourites():
    n, radius, lost = 13, 3, 2
    draw = quick(jax.vmap(lambda key: locally_dense(key, n, radius, lost / 6)))
    near, far = draw(jax.random.split(KEY, 1000))
    sides = np.delete(np.asarray(near.mask, float), radius, axis=2)
    assert_frequency(sides, 1 - lost / 6)
    offset = (np.asarray(far.index) - np.arange(n)[:, None]) % n - radius - 1
    hits = np.stack([(offset == m).any(2) for m in range(n - 1 - 2 * radius)], axis=2)
    assert_frequency(hits.astype(float), lost / (n - 1 - 2 * radius))


@pytest.mark.parametrize(
    "draw",
    [
        drawn(fan_in, 40, 13, 0.05),
        drawn(watts_strogatz, 14, 14, 4, 1.0),
        drawn(locally_dense, 50, 6, 0.1),
    ],
    ids=["fan in", "Watts-Strogatz", "locally dense"],
)
def test_same_key_same_wiring_and_another_key_another(draw):
    first, again, other = (jax.tree.leaves(draw(jax.random.key(seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_merged_counts_the_copies_that_hear_each_neuron():
    fan = oracle.linked(np.random.default_rng(0), 12, 9)
    heard = np.zeros((4, 9))
    for i, row in enumerate(np.asarray(fan.index)):
        heard[i // 3, row] += 1
    c = merged(fan, 3)
    np.testing.assert_array_equal(c.count, heard)
    assert jnp.issubdtype(c.count.dtype, jnp.integer)  # averages of weights leave it alone


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fan_in(KEY, 9, 3, 0.0), r"density must be in \(0, 1\]; got 0.0"),
        (lambda: fan_in(KEY, 9, 3, 1.5), r"density must be in \(0, 1\]; got 1.5"),
        (lambda: fan_in(KEY, 9, 3, math.nan), r"density must be in \(0, 1\]; got nan"),
        (lambda: watts_strogatz(KEY, 9, 9, 9, 0.1), r"k must be in \[1, 8\]; got 9"),
        (lambda: watts_strogatz(KEY, 9, 3, 10, 0.1), r"k must be in \[1, 9\]; got 10"),
        (lambda: watts_strogatz(KEY, 9, 3, 0, 0.1), r"k must be in \[1, 9\]; got 0"),
        (lambda: watts_strogatz(KEY, 9, 3, 2, 1.1), r"p_rewire must lie in \[0, 1\]; got 1.1"),
        (lambda: locally_dense(KEY, 9, 0, 0.1), r"radius must be in \[1, 4\] for 9 .*; got 0"),
        (lambda: locally_dense(KEY, 9, 5, 0.1), r"radius must be in \[1, 4\] for 9 .*; got 5"),
        (lambda: locally_dense(KEY, 9, 2, -0.1), r"p_rewire must lie in \[0, 1\]; got -0.1"),
        (lambda: locally_dense(KEY, 9, 3, 0.9), r"p_rewire must be at most 0.333, .*; got 0.9"),
        (lambda: Band(jnp.ones((9, 5), bool), 3), r"mask must have shape \(9, 7\); got \(9, 5\)"),
        (lambda: Band(jnp.ones((9, 11), bool), 5), r"radius must be in \[1, 4\] .*; got 5"),
        (lambda: Dense(4, 3, jnp.ones((4, 3))), r"count must have shape \(3, 4\); got \(4, 3\)"),
        (
            lambda: merged(oracle.linked(np.random.default_rng(0), 12, 9), 5),
            r"population must divide 12 receivers; got 5",
        ),
        (
            lambda: merged(oracle.linked(np.random.default_rng(0), 12, 9), 0),
            r"population must divide 12 receivers; got 0",
        ),
    ],
)
def test_refuses_what_cannot_be_drawn(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_outer_refuses_sides_that_are_not_aligned(kind):
    outer = unchecked(oracle.example(kind).outer)
    with pytest.raises(ValueError, match=r"share leading axes; got \(6, 45\), \(2, 3, 45\)"):
        outer(jnp.ones((6, 45)), jnp.ones((2, 3, 45)))


def unchecked(method):
    """The method as users have it, without this suite's type checks."""
    function = method.__func__ if hasattr(method, "__func__") else method
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return functools.partial(function, method.__self__)
