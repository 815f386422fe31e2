"""Numbers in two, three and four bytes; weights in one, two and four: all the same products."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.wiring import generators, narrow, sparse, visits
from neurojax.wiring.events import compiled
from neurojax.wiring.visits import Visit

N_PRE, N_POST, EDGES = 150, 100, 2000
RNG = np.random.default_rng(1)
PRE, POST = RNG.integers(0, N_PRE, EDGES), RNG.integers(0, N_POST, EDGES)
BOTH = [False, *([True] if compiled() else [])]
KEY = jax.random.key(3)


@pytest.mark.parametrize(
    ("n", "dtype", "shape"),
    [(1 << 16, "uint16", (4,)), ((1 << 16) + 1, "uint8", (4, 3)), (1 << 24, "uint8", (4, 3)),
     ((1 << 24) + 1, "int32", (4,))],
)  # fmt: skip
def test_as_few_bytes_as_name_every_neuron_hold_each_of_them(n, dtype, shape):
    x = np.array([0, 1, n // 3, n - 1])
    for kept in (narrow.narrow(x, n), narrow.narrow(jnp.asarray(x), n), narrow.stored(x, n)):
        assert (kept.dtype, kept.shape) == (dtype, shape)
        np.testing.assert_array_equal(narrow.wide(kept), x)
        np.testing.assert_array_equal(narrow.wide(np.asarray(kept)), x)
    wiring = nj.FanOut(x, [0, 4], n, 4)
    np.testing.assert_array_equal(wiring.edges().post, x)
    again = dataclasses.replace(wiring, native=False)  # from what it has kept
    assert again.index.dtype == dtype
    np.testing.assert_array_equal(again.edges().post, x)


def drawn():
    wiring, w = nj.by_sender(PRE, POST, N_PRE, N_POST, RNG.normal(size=EDGES).astype("f4"))
    fired = lambda n: jnp.asarray((RNG.random(n) < 0.2) * RNG.uniform(0.5, 2, n), jnp.float32)  # noqa: E731
    trace = lambda n: jnp.asarray(RNG.normal(size=n), jnp.float32)  # noqa: E731
    return wiring.with_columns(), w, (fired(N_PRE), trace(N_POST), fired(N_POST), trace(N_PRE))


def in_bytes(x):
    x = narrow.wide(x)
    return jnp.stack([(x >> (8 * k)).astype(jnp.uint8) for k in range(3)], -1)


def everything(wiring, w, fired, native, key=None, put=lambda c: c):
    """What the products give of a list, of which `put` makes another."""
    (s, y, z, x), most = fired, 90.0 if jnp.abs(w).max() > 20 else 1.0
    delays, ring = jnp.arange(EDGES, dtype=jnp.int32) % 5 + 1, jnp.zeros((5, N_POST))
    wiring = put(dataclasses.replace(wiring, native=native))

    @eqx.filter_jit
    def run(wiring, w):
        pair = Visit(s, y), Visit(z, x)
        low, high = jnp.asarray(-1.5), jnp.asarray(most)
        return (
            sparse.products([wiring], [w], s)[0],
            wiring.outer(y[None], s[None]),
            wiring.visited(w, pair, low, high, key=key),
            *wiring.scheduled(w, s, delays, ring, jnp.asarray(2)),
        )

    return run(wiring, w)


@pytest.mark.parametrize("native", BOTH)
@pytest.mark.parametrize("n", [1 << 16, (1 << 16) + 1, 1 << 20])
def test_every_byte_of_a_name_counts(n, native):
    far = np.unique([0, 255, 256, 65_535, 70_000 % n, 131_329 % n, n - 1])
    k, own = len(far), jnp.arange(n, dtype=jnp.float32) / 1024
    w, one, there = jnp.arange(1.0, k + 1), jnp.ones(1), np.asarray(own)[far]
    receivers = dataclasses.replace(nj.FanOut(far, [0, k], n, k), native=native)
    senders = nj.by_sender(far, np.zeros(k, int), n, 1).with_columns()
    senders = dataclasses.replace(senders, native=native)

    @eqx.filter_jit
    def products(receivers, senders, w):
        late = jnp.full(k, 2, jnp.int32), jnp.zeros((2, n)), jnp.asarray(0)
        return (
            sparse.products([receivers], [w], one)[0],
            receivers.scheduled(w, one, *late)[1].sum(0),
            receivers.outer(own[None], one[None]),
            receivers.visited(w, (Visit(one, own), None), None, None) - w,
            senders.visited(w, (None, Visit(one, own)), None, None) - w,
        )

    current, later, *changes = products(receivers, senders, w)
    np.testing.assert_array_equal(np.flatnonzero(current), far)
    np.testing.assert_array_equal(np.asarray(current)[far], w)
    np.testing.assert_array_equal(later, current)
    for change in changes:
        np.testing.assert_allclose(change, there, atol=4e-3)  # whole numbers are 1/1024 apart


@pytest.mark.slow
def test_bytes_of_an_index_change_no_result():
    wiring, w, fired = drawn()
    expected = everything(wiring, w, fired, native=False)
    lists = lambda c: (c.index, c.columns.pre, c.columns.slot)  # noqa: E731
    as_int = lambda x: narrow.wide(x)  # noqa: E731
    for change in (in_bytes, as_int):
        kept = *map(change, lists(wiring)[:2]), as_int(wiring.columns.slot)
        put = functools.partial(eqx.tree_at, lists, replace=kept)
        for native in BOTH:
            found = everything(wiring, w, fired, native, put=put)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)


def short(w, dtype):
    return jnp.round(w * 20).astype(jnp.int8) if dtype == jnp.int8 else w.astype(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8])
def test_short_weights_are_read_as_they_are_and_change_alike_in_both_forms(dtype):
    wiring, w, fired = drawn()
    held = short(w, dtype)
    wide = everything(wiring, held.astype(jnp.float32), fired, native=False)
    found = [everything(wiring, held, fired, native, KEY) for native in BOTH]
    for of in found:
        assert of[2].dtype == dtype
        for k in (0, 1, 3, 4):
            np.testing.assert_array_equal(of[k], wide[k])
        # A neighbour of what float32 holds after either visit: each is off by a unit at the most.
        unit = 1.0 if dtype == jnp.int8 else np.abs(wide[2]) * 2**-7 + 2**-7
        assert (np.abs(of[2].astype(jnp.float32) - wide[2]) <= 2 * unit).all()
        assert (np.asarray(of[2] != held)).mean() > 0.05
    for a, b in zip(found[0], found[-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_long_lists_are_put_in_order_a_part_at_a_time(monkeypatch):
    fan = generators.fan_in(KEY, N_PRE, N_POST, 0.1)
    w = jax.random.normal(KEY, fan.shape)
    edges = fan.edges()
    ends = np.asarray(edges.pre), np.asarray(edges.post), N_PRE, N_POST
    by_receiver = jax.random.permutation(KEY, len(ends[0]))
    mixed = *(x[by_receiver] for x in ends[:2]), N_PRE, N_POST
    expected, sent = nj.by_sender(*mixed, w.reshape(-1)[by_receiver])
    monkeypatch.setattr(narrow, "_PIECE", 64)
    monkeypatch.setattr(sparse, "_SORTED", 100)
    monkeypatch.setattr(generators, "_PART", 64)
    for wiring, own in (
        nj.by_sender(*mixed, w.reshape(-1)[by_receiver]), nj.as_fan_out(fan, w),
        (nj.as_fan_out(fan), sent), (nj.by_sender(*ends), sent),
    ):  # fmt: skip
        np.testing.assert_array_equal(wiring.index, expected.index)
        np.testing.assert_array_equal(wiring.start, expected.start)
        np.testing.assert_array_equal(own, sent)
    monkeypatch.undo()
    for a, b in zip(
        jax.tree.leaves(visits.by_receiver(*_arrays(expected))),
        jax.tree.leaves(wiring.with_columns().columns), strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def _arrays(wiring):
    return np.asarray(wiring.index), np.asarray(wiring.start), wiring.n_post, wiring.longest


@pytest.mark.slow
def test_rows_drawn_in_parts_are_those_drawn_at_once(monkeypatch):
    at_once = generators._drawn(KEY, 700, 50, 4)
    monkeypatch.setattr(generators, "_PART", 1)  # 256 rows each
    np.testing.assert_array_equal(generators._drawn(KEY, 700, 50, 4), at_once)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nj.FanOut(np.array([1], np.uint8), [0, 1], 300, 1),
         "index must be of a type that can name all 300 neurons; got uint8, .* 255: pass int32"),
        (lambda: nj.FanOut(np.array([1], np.uint16), [0, 1], 70_000, 1), "ends at 65535"),
        (lambda: nj.by_sender([0], np.array([1], np.uint16), 1, 70_000), "post must be of a type"),
        (lambda: nj.by_sender(np.array([1], np.int8), [0], 200, 1), "pre must be of a type"),
        (lambda: nj.as_fan_out(nj.fan_in(KEY, 9, 6, 0.5), jnp.ones((6, 3))), "w must have shape"),
        (lambda: nj.FanOut([65_536], [0, 1], 65_536, 1), "index must name one of 65536 neurons"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_refuses_types_too_small_for_the_population(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.usefixtures("untyped")
def test_refuses_to_list_what_is_no_fan_in():
    with pytest.raises(TypeError, match="fan must be a FanIn; got .*: see by_sender"):
        nj.as_fan_out(nj.Dense(2, 3))


def test_bytes_are_those_of_each_array_once():
    wiring = nj.by_sender(PRE, POST, N_PRE, N_POST)
    assert nj.nbytes(wiring) == 2 * EDGES + 4 * (N_PRE + 1)
    columns = (2 + 1) * EDGES + 4 * (N_POST + 1)
    assert nj.nbytes(wiring.with_columns()) == nj.nbytes(wiring) + columns
    weights = nj.Ideal(jnp.zeros(EDGES), wiring)
    assert nj.nbytes(weights, wiring, {"again": weights}) == 4 * EDGES + nj.nbytes(wiring)
