"""Every product against loops over the synapses; every generator against what it promises."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import connectivity as oracle
from scipy.stats import binom

from neurojax.wiring import generators
from neurojax.wiring.generators import (
    bernoulli,
    blocks,
    distance_dependent,
    exponential_profile,
    fan_in,
    fan_out,
    gaussian_profile,
    locally_dense,
    merged,
    one_to_one,
    watts_strogatz,
    watts_strogatz_grid,
)
from neurojax.wiring.layouts import Band, Dense, FanIn

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
    [(kind, i) for kind, row in oracle.ALL_KINDS.items() for i in range(len(row.sizes))],
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


@pytest.mark.parametrize("kind", oracle.ALL_KINDS)
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


@pytest.mark.parametrize("kind", oracle.ALL_KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_products_keep_the_dtype(kind, dtype):
    with jax.enable_x64(True):
        c = oracle.example(kind)
        w, s = jnp.ones(c.shape, dtype), jnp.ones(c.n_pre, dtype)
        made = jax.eval_shape(lambda w, s: (c.apply(w, s), c.apply_t(w, s), c.outer(s, s)), w, s)
        assert {x.dtype for x in made} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("kind", oracle.ALL_KINDS)
def test_products_of_bfloat16_are_those_of_float32_rounded_once(kind):
    """A rounding is 2^-8 of a number; float32 sums of 300 products are right to 2^-24 of each."""
    rng, c = np.random.default_rng(2), oracle.example(kind)
    shapes = c.shape, (c.n_pre,), (c.n_post,), (2, 3, c.n_post), (2, 3, c.n_pre)
    short = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
    short[1], short[4] = (jnp.signbit(x).astype(x.dtype) for x in (short[1], short[4]))  # spikes
    single = [x.astype(jnp.float32) for x in short]
    total = products(c, *map(jnp.abs, single))
    for got, asked, most in zip(products(c, *short), products(c, *single), total, strict=True):
        assert got.dtype == jnp.bfloat16
        wrong = np.abs(got.astype(jnp.float32) - asked)
        assert (wrong <= 2**-8 * np.abs(asked) + 300 * 2**-24 * most).all()


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


def test_wiring_of_few_pairs_stays_as_recorded_results_have_it():
    index = drawn(fan_in, 9, 2, 0.34)(KEY).index
    np.testing.assert_array_equal(index, [[0, 8, 2], [0, 3, 5]])
    far = drawn(locally_dense, 9, 2, 0.5)(KEY)[1]
    expected = [[6, 4], [5, 6], [8, 5], [6, 0], [1, 0], [2, 1], [2, 1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(far.index, expected)


def test_listed_wiring_stays_as_recorded_results_have_it():
    np.testing.assert_array_equal(drawn(fan_out, 4, 9, 0.34)(KEY).index, RECORDED[0])
    c = blocks(KEY, [4, 4], [4, 4], [[0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(c.index, RECORDED[1])
    np.testing.assert_array_equal(c.start, RECORDED[2])


RECORDED = (
    [0, 3, 5, 4, 7, 8, 3, 5, 6, 0, 3, 4],
    [3, 6, 7, 0, 2, 4, 6, 2, 3, 6, 0, 6, 0, 1, 3, 4, 0, 3, 4, 7, 4, 6],
    [0, 3, 7, 10, 12, 12, 16, 20, 22],
)


OTHERS = [
    functools.partial(fan_in, autapses=False, n_pre=12, n_post=12, density=0.3),
    lambda key: listed_rows(fan_out(key, 12, 12, 0.3, autapses=False)),
]


def listed_rows(c):
    """A `FanOut` of equal fan-outs, seen from its senders, as a `FanIn`."""
    return FanIn(c.index.reshape(c.n_pre, -1), c.n_post)


@pytest.mark.parametrize("draw", OTHERS, ids=["fan in", "fan out"])
def test_without_autapses_all_others_are_equally_likely(draw):
    linked = links(draw, draws=1000)
    np.testing.assert_array_equal(linked.sum(2), 3)  # round(0.3 11), where 12 would give 4
    assert not linked[:, range(12), range(12)].any()
    assert_frequency(linked[:, ~np.eye(12, dtype=bool)], 3 / 11)


@pytest.mark.slow
def test_blocks_without_autapses_leave_out_the_diagonal_alone():
    n, p = 120, np.array([[1.0, 0.3], [0.3, 0.3]])
    c = blocks(KEY, [1, n], [1, n], p, autapses=False)
    assert_listed(c, n + 1, n + 1)
    linked = np.asarray(c.matrix(jnp.ones(c.shape)))
    assert not linked.diagonal().any()
    own, pairs = linked[1:, 1:], n * (n - 1) / 2
    # 5 standard errors; those before oneself as often as those after, and as other blocks
    for seen, of in ((np.triu(own), pairs), (np.tril(own), pairs), (linked[0, 1:], n)):
        assert abs(seen.sum() - 0.3 * of) < 5 * np.sqrt(of * 0.3 * 0.7)
    one = bernoulli(KEY, 40, 40, 1.0, autapses=False)
    np.testing.assert_array_equal(one.matrix(jnp.ones(one.shape)), 1 - np.eye(40))


def test_one_to_one_costs_a_product_a_neuron():
    n = 100_000  # an array of all pairs would have 40 GB
    c = one_to_one(n)
    w, s = jnp.arange(1.0 * n)[:, None], (jnp.arange(n) % 3 == 0).astype(float)
    np.testing.assert_array_equal(c.apply(w, s), w[:, 0] * s)
    np.testing.assert_array_equal(c.apply_t(w, s), w[:, 0] * s)
    np.testing.assert_array_equal(c.outer(w.T, s[None])[:, 0], w[:, 0] * s)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda key: fan_in(key, 4, 2, 1.0).matrix(jnp.ones((2, 4))), np.ones((2, 4))),
        (
            lambda key: fan_in(key, 4, 4, 1.0, autapses=False).matrix(jnp.ones((4, 3))),
            1 - np.eye(4),
        ),
        (lambda key: fan_out(key, 4, 2, 1.0).matrix(jnp.ones(8)), np.ones((2, 4))),
        (
            lambda key: blocks(key, [2, 2], [2], [[0.0, 1.0]]).matrix(jnp.ones(4)),
            np.array([[0, 0, 1, 1]] * 2),
        ),
        (lambda key: watts_strogatz(key, 4, 4, 2, 0.0).index, [[1, 3], [2, 0], [3, 1], [0, 2]]),
        (lambda key: watts_strogatz(key, 6, 2, 2, 0.0).index, [[0, 1], [3, 4]]),
        (lambda key: watts_strogatz_grid(key, (1, 4), 3, 0.0).index[0], [1, 2, 3]),
        (
            lambda key: distance_dependent(key, (4,), 2, lambda d: d < 2).index,
            [[1, 3], [2, 0], [3, 1], [0, 2]],
        ),
        (lambda key: locally_dense(key, 9, 2, 0.0)[0].mask[0], [True, True, False, True, True]),
    ],
)
def test_where_nothing_is_drawn_no_key_is_needed(make, expected):
    for key in (None, KEY):
        np.testing.assert_array_equal(make(key), expected)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("key", [0, None, jnp.zeros(3), jax.random.split(KEY)])
@pytest.mark.parametrize(
    "draw",
    [
        lambda key: fan_in(key, 9, 9, 0.5),
        lambda key: fan_out(key, 9, 9, 0.5),
        lambda key: bernoulli(key, 9, 9, 0.5),
        lambda key: blocks(key, [9], [9], [[0.5]]),
        lambda key: watts_strogatz(key, 9, 9, 2, 0.5),
        lambda key: watts_strogatz_grid(key, (3, 3), 4, 0.5),
        lambda key: distance_dependent(key, (9,), 2, gaussian_profile(1.0)),
        lambda key: locally_dense(key, 9, 2, 0.5),
    ],
)
def test_a_generator_refuses_what_is_no_key(draw, key):
    with pytest.raises((TypeError, ValueError), match="key must be"):
        draw(key)


@pytest.mark.slow
def test_wiring_of_many_pairs_draws_alike(monkeypatch):
    c = drawn(fan_in, 3001, 1500, 0.004)(KEY)  # above the limit, and not whole batches
    assert c.shape == (1500, 12)
    assert_distinct(c)
    monkeypatch.setattr(generators, "_RECORDED", 0)
    assert_frequency(links(fan_in, 12, 10, 0.25, draws=1000), 3 / 12)


def assert_chances(rows, chances):
    """Rows of partners come as sets with these chances, all of them within 5 standard errors."""
    rows = np.sort(rows.reshape(-1, rows.shape[-1]), axis=1)
    seen = {kind: np.all(rows == kind, axis=1).mean() for kind in chances}
    assert sum(seen.values()) == pytest.approx(1)
    for kind, chance in chances.items():
        error = math.sqrt(chance * (1 - chance) / len(rows))
        assert seen[kind] == pytest.approx(chance, abs=5 * error)


def test_fan_out_draws_every_subset_equally_often():
    c = drawn(fan_out, 20_480, 5, 0.6)(KEY)  # whole batches: one program
    assert_listed(c, 20_480, 5)
    subsets = dict.fromkeys(itertools.combinations(range(5), 3), 1 / 10)
    assert_chances(np.asarray(c.index).reshape(-1, 3), subsets)


def assert_listed(c, n_pre, n_post):
    """A `FanOut` without parallel synapses, in order."""
    start, index = np.asarray(c.start), np.asarray(c.index)
    n_out = np.diff(start)
    assert (c.n_pre, c.n_post, start[0], start[-1]) == (n_pre, n_post, 0, index.size)
    assert (n_out.min() >= 0, n_out.max()) == (True, c.longest)
    place = np.repeat(np.arange(n_pre), n_out) * n_post + index
    assert np.all(np.diff(place) > 0)
    assert not index.size or 0 <= index.min() <= index.max() < n_post


@given(seed=SEEDS, density=st.sampled_from([0.4, 1.0]))
def test_fan_out_reaches_a_share_of_receivers_once_each(seed, density):
    c = drawn(fan_out, 40, 13, density)(jax.random.key(seed))
    assert_listed(c, 40, 13)
    np.testing.assert_array_equal(c.fan_out, max(1, round(density * 13)))


def test_bernoulli_connects_each_pair_alone():
    n_pre, n_post, p = 5120, 12, 0.3
    c = bernoulli(KEY, n_pre, n_post, p)
    assert_listed(c, n_pre, n_post)
    linked = np.zeros((n_pre, n_post))
    linked[np.repeat(np.arange(n_pre), np.diff(c.start)), np.asarray(c.index)] = 1
    assert_frequency(linked, p)
    both = np.triu(linked.T @ linked, 1) / n_pre  # of any two receivers
    error = math.sqrt(p**2 * (1 - p**2) / n_pre)
    np.testing.assert_allclose(both[both > 0], p**2, atol=5 * error)
    seen = np.bincount(linked.sum(1).astype(int), minlength=n_post + 1) / n_pre
    chance = binom.pmf(np.arange(n_post + 1), n_post, p)
    # a count that is expected less than once may still come once or twice
    error = np.sqrt(chance * (1 - chance) / n_pre)
    assert np.all(np.abs(seen - chance) < 5 * error + 2 / n_pre)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_bernoulli_of_nothing_and_of_all(p):
    c = bernoulli(KEY, 7, 12, p)
    assert_listed(c, 7, 12)
    np.testing.assert_array_equal(c.matrix(jnp.ones(c.shape)), np.full((12, 7), p))


@pytest.mark.slow
@settings(max_examples=4)
@given(seed=SEEDS)
def test_blocks_have_their_densities(seed):
    n_pre, n_post = [200, 200], [100, 100, 90]
    p = np.array([[0.02, 0.5], [0.5, 1.0], [0.0, 0.02]])
    c = blocks(jax.random.key(seed), n_pre, n_post, p)
    assert_listed(c, 400, 290)
    pre, post, _ = c.edges()
    b, a = (np.repeat(np.arange(len(n)), n) for n in (n_pre, n_post))
    linked = np.zeros((3, 2))
    np.add.at(linked, (a[np.asarray(post)], b[np.asarray(pre)]), 1)
    pairs = np.outer(n_post, n_pre)
    assert np.all(np.abs(linked - pairs * p) <= 5 * np.sqrt(pairs * p * (1 - p)))


@pytest.mark.slow
def test_blocks_do_not_depend_on_those_added_after_them():
    few = blocks(KEY, [20], [30], [[0.2]])
    more = blocks(KEY, [20, 20], [30, 30], np.full((2, 2), 0.2))
    few, more = (np.asarray(c.matrix(jnp.ones(c.shape))) for c in (few, more))
    np.testing.assert_array_equal(few, more[:30, :20])


small_world = quick(watts_strogatz, static_argnums=(1, 2, 3))


@pytest.mark.slow
@given(seed=SEEDS, p=st.floats(0, 1), sizes=st.sampled_from([(12, 12, 10), (30, 10, 5)]))
def test_watts_strogatz_keeps_fan_in_without_pairs_or_loops(seed, p, sizes):
    n_pre, n_post, k = sizes
    c = small_world(jax.random.key(seed), *sizes, jnp.asarray(p))
    assert c.shape == (n_post, k)
    assert_distinct(c)
    if n_pre == n_post:
        assert not np.any(np.asarray(c.index) == np.arange(n_post)[:, None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_pre", "n_post", "k"),
    [(12, 12, 4), (12, 12, 10), (30, 10, 5), (7, 12, 4), (7, 12, 7)],
)
def test_watts_strogatz_without_rewiring_takes_the_nearest(n_pre, n_post, k):
    index = np.asarray(small_world(KEY, n_pre, n_post, k, jnp.zeros(())).index)
    for i in range(n_post):
        away = [abs((j * n_post - i * n_pre + n_pre * n_post / 2) % (n_pre * n_post)
                    - n_pre * n_post / 2) for j in range(n_pre)]  # fmt: skip
        if n_pre == n_post:
            away[i] = math.inf
        assert sorted(away)[:k] == sorted(away[j] for j in index[i])


@pytest.mark.slow
def test_watts_strogatz_fully_rewired_is_a_uniform_graph():
    linked = links(watts_strogatz, 14, 14, 4, 1.0, draws=1000)
    assert not linked[:, range(14), range(14)].any()
    assert_frequency(linked[:, ~np.eye(14, dtype=bool)], 4 / 13)
    loops = functools.partial(watts_strogatz, autapses=True)
    assert_frequency(links(loops, 14, 14, 4, 1.0, draws=1000), 4 / 14)


def test_watts_strogatz_maps_over_rewiring_and_seeds():
    keys, p = jax.random.split(KEY, 3), jnp.array([0.0, 0.2, 1.0])
    draw = lambda key, p: watts_strogatz(key, 12, 12, 4, p).index  # noqa: E731
    all_of_them = quick(jax.vmap(jax.vmap(draw, (None, 0)), (0, None)))(keys, p)
    one_by_one = [[small_world(key, 12, 12, 4, x).index for x in p] for key in keys]
    np.testing.assert_array_equal(all_of_them, one_by_one)


grid = quick(watts_strogatz_grid, static_argnums=(1, 2))


@pytest.mark.parametrize(("shape", "k"), [((5, 7), 8), ((4, 6), 23)])
def test_watts_strogatz_on_a_grid_takes_the_nearest(shape, k):
    index = np.asarray(grid(KEY, shape, k, jnp.zeros(())).index)
    (ny, nx), everyone = shape, list(np.ndindex(shape))
    for i, (y, x) in enumerate(everyone):
        away = [math.hypot((v - y + ny // 2) % ny - ny // 2, (u - x + nx // 2) % nx - nx // 2)
                for v, u in everyone]  # fmt: skip
        away[i] = math.inf
        assert sorted(away)[:k] == sorted(away[j] for j in index[i])
        assert len(set(index[i])) == k


@given(seed=SEEDS, p=st.floats(0, 1))
def test_watts_strogatz_on_a_grid_keeps_fan_in_without_pairs_or_loops(seed, p):
    c = grid(jax.random.key(seed), (5, 7), 8, jnp.asarray(p))
    assert c.shape == (35, 8)
    assert_distinct(c)
    assert not np.any(np.asarray(c.index) == np.arange(35)[:, None])


def seen_from_each(index, shape):
    """Flat offsets of partners [..., n, k] on a torus: who they would be to neuron 0."""
    y, x = (np.indices(shape)[axis].reshape(-1) for axis in (0, 1))
    dy, dx = y[index] - y[:, None], x[index] - x[:, None]
    return dy % shape[0] * shape[1] + dx % shape[1]


@pytest.mark.parametrize(
    ("profile", "weight", "loops"),
    [
        (exponential_profile(1.5), lambda d: math.exp(-d / 1.5), False),
        (gaussian_profile(1.5), lambda d: math.exp(-(d**2) / 4.5), True),
    ],
    ids=["exponential", "Gaussian"],
)
def test_partners_come_in_proportion_to_their_profile(profile, weight, loops):
    shape = (4, 5)
    draw = lambda key: distance_dependent(key, shape, 1, profile, autapses=loops).index  # noqa: E731
    index = np.asarray(quick(jax.vmap(draw))(jax.random.split(KEY, 1000)))
    w = {
        (y * 5 + x,): weight(math.hypot(min(y, 4 - y), min(x, 5 - x))) for y, x in np.ndindex(shape)
    }
    if not loops:
        del w[(0,)]
    chances = {kind: chance / sum(w.values()) for kind, chance in w.items()}
    assert_chances(seen_from_each(index, shape), chances)


def test_partners_are_drawn_one_after_another():
    profile = lambda d: 3.0**-d  # noqa: E731
    draw = lambda key: distance_dependent(key, (6,), 3, profile).index  # noqa: E731
    index = np.asarray(quick(jax.vmap(draw))(jax.random.split(KEY, 3000)))
    w = {1: 9, 2: 3, 3: 1, 4: 3, 5: 9}
    chances = dict.fromkeys(itertools.combinations(w, 3), 0.0)
    for order in itertools.permutations(w, 3):
        left, chance = sum(w.values()), 1.0
        for j in order:
            chance, left = chance * w[j] / left, left - w[j]
        chances[tuple(sorted(order))] += chance
    assert_chances(seen_from_each(index, (1, 6)), chances)


steep = exponential_profile(0.3)  # the farthest are 20 000 times less likely than the nearest


@given(seed=SEEDS)
def test_distance_dependent_takes_the_last_partner_where_it_must(seed):
    c = drawn(distance_dependent, (9,), 8, steep)(jax.random.key(seed))
    everyone = [[j for j in range(9) if j != i] for i in range(9)]
    np.testing.assert_array_equal(np.sort(c.index, axis=1), everyone)


@pytest.mark.usefixtures("x64")
def test_indices_stay_short_in_double_precision():
    near = functools.partial(distance_dependent, profile=gaussian_profile(2.0))
    draw = lambda key: (near(key, (3, 5), 4), watts_strogatz(key, 9, 9, 4, 0.5))  # noqa: E731
    made = [*jax.eval_shape(draw, KEY), bernoulli(KEY, 7, 12, 0.5)]
    assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype("int32"), jnp.dtype("uint16")}


def test_watts_strogatz_rewires_each_neighbour_alone():
    n, k, p, draws = 20, 6, 0.3, 300
    linked = links(watts_strogatz, n, n, k, p, draws=draws)
    near = (np.arange(n)[:, None] + [-3, -2, -1, 1, 2, 3]) % n
    local = np.take_along_axis(linked, near[None], axis=2).sum(2)
    # lost ~ Bin(k, p); each fills up with any of the n - 1 - k + lost that are not kept
    lost = np.arange(k + 1)
    chance = [math.comb(k, m) * p**m * (1 - p) ** (k - m) for m in lost]
    expected = np.sum(chance * (k - lost + lost * lost / (n - 1 - k + lost)))
    assert local.mean() == pytest.approx(expected, abs=4 * local.std() / math.sqrt(draws * n))
    assert len(np.unique(local)) > k / 2  # a coin for each, not a fixed number


@pytest.mark.slow
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
        drawn(fan_out, 40, 13, 0.4),
        drawn(distance_dependent, (4, 5), 4, gaussian_profile(2.0)),
        lambda key: bernoulli(key, 20, 12, 0.3),
    ],
    ids=["fan in", "Watts-Strogatz", "locally dense", "fan out", "distance", "Bernoulli"],
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
        (lambda: fan_out(KEY, 9, 3, 1.5), r"density must be in \(0, 1\]; got 1.5"),
        (lambda: bernoulli(KEY, 9, 3, 1.5), r"p must lie in \[0, 1\]; got 1.5"),
        (lambda: bernoulli(KEY, 9, 0, 0.5), r"n_post must be a whole number >= 1; got 0"),
        (lambda: blocks(KEY, [3, 4], [5], [[0.1, -0.1]]), r"p must lie in \[0, 1\]; got -0.1"),
        (lambda: blocks(KEY, [3, 4], [5], [[0.1]]), r"shape \(1, 2\), post by pre; got \(1, 1\)"),
        (lambda: watts_strogatz(KEY, 9, 9, 9, 0.1), r"k must be even and in \[2, 8\], .*; got 9"),
        (lambda: watts_strogatz(KEY, 9, 9, 3, 0.1), r"k must be even and in \[2, 8\], .*; got 3"),
        (lambda: watts_strogatz(KEY, 9, 9, 10, 0.1), r"k must be even and in \[2, 8\], .*; got 10"),
        (
            lambda: watts_strogatz_grid(KEY, (20, 20), 10, 0.1),
            r"k must take in all that are equally far, as 4, 8, 12, 20, 24, 28 do; got 10",
        ),
        (lambda: watts_strogatz_grid(KEY, (5, 7), 8, 1.5), r"p_rewire must lie in .*; got 1.5"),
        (
            lambda: distance_dependent(KEY, (9,), 9, gaussian_profile(2.0)),
            r"k must be in \[1, 8\], the partners of weight > 2.*; got 9",
        ),
        (
            lambda: distance_dependent(KEY, (99,), 20, gaussian_profile(1.0)),
            r"k must be in \[1, 13\], the partners of weight > 2.*; got 20",
        ),
        (
            lambda: distance_dependent(KEY, (9,), 2, lambda d: 1 - d),
            r"profile must give finite weights >= 0, not all of them 0",
        ),
        (
            lambda: distance_dependent(KEY, (9, 9, 9), 2, gaussian_profile(2.0)),
            r"shape must be \(n,\) or \(ny, nx\); got \(9, 9, 9\)",
        ),
        (lambda: gaussian_profile(-1.0), r"scale must be finite and > 0 spacings; got -1.0"),
        (lambda: exponential_profile(0.0), r"scale must be finite and > 0 spacings; got 0.0"),
        (lambda: watts_strogatz(KEY, 9, 3, 10, 0.1), r"k must be in \[1, 9\]; got 10"),
        (lambda: watts_strogatz(KEY, 9, 3, 0, 0.1), r"k must be in \[1, 9\]; got 0"),
        (lambda: watts_strogatz(KEY, 9, 3, 2, 1.1), r"p_rewire must lie in \[0, 1\]; got 1.1"),
        (lambda: blocks(KEY, [9, 0], [9], [[0.5, 0.5]]), "sizes must be a whole number >= 1; got"),
        (lambda: fan_in(KEY, 9, 3, "0.5"), r"density must be in \(0, 1\]; got '0.5'"),
        (lambda: fan_in(KEY, 9, 3, 0.5, autapses=False), "one population .*; got 9 and 3 neurons"),
        (lambda: fan_out(KEY, 9, 3, 0.5, autapses=False), "one population .*; got 3 and 9 neurons"),
        (lambda: fan_in(KEY, 1, 1, 0.5, autapses=False), "two neurons or more; got 1 and 1 neuro"),
        (
            lambda: blocks(KEY, [3, 4], [4, 3], [[0.1] * 2] * 2, autapses=False),
            r"autapses=False is for one population; got blocks \[3, 4\], \[4, 3\]",
        ),
        (lambda: one_to_one(0), "n must be a whole number >= 1; got 0"),
        (lambda: watts_strogatz(KEY, 9, 9, 2.5, 0.1), "k must be a whole number >= 0; got 2.5"),
        (lambda: watts_strogatz_grid(KEY, (9,), 2, 0.1), r"shape must be \(ny, nx\); got \(9,\)"),
        (
            lambda: distance_dependent(KEY, (9,), 2, lambda d: 1.0),
            r"profile must give one weight a distance, \(8,\); got \(\)",
        ),
        (lambda: fan_in(KEY, 0, 5, 0.3), r"n_pre must be a whole number >= 1; got 0"),
        (lambda: fan_in(KEY, 5, 0, 0.3), r"n_post must be a whole number >= 1; got 0"),
        (lambda: locally_dense(KEY, 9, 0, 0.1), r"radius must be in \[1, 4\] for 9 .*; got 0"),
        (lambda: locally_dense(KEY, 9, 5, 0.1), r"radius must be in \[1, 4\] for 9 .*; got 5"),
        (lambda: locally_dense(KEY, 9, 2, -0.1), r"p_rewire must lie in \[0, 1\]; got -0.1"),
        (lambda: locally_dense(KEY, 9, 3, 0.9), r"p_rewire must be at most 0.333, .*; got 0.9"),
        (lambda: Band(jnp.ones((9, 5), bool), 3), r"mask must have shape \(9, 7\); got \(9, 5\)"),
        (lambda: Band(jnp.ones((9, 11), bool), 5), r"radius must be in \[1, 4\] .*; got 5"),
        (
            lambda: Dense(4, 3, jnp.ones((4, 3), int)),
            r"count must have shape \(3, 4\); got \(4, 3\)",
        ),
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
@pytest.mark.usefixtures("untyped")
def test_refuses_what_cannot_be_drawn(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", oracle.ALL_KINDS)
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
