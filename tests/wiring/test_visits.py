"""What happens at the synapses of neurons that fire: kernel against loops, loops against NumPy."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.wiring import visits
from neurojax.wiring.events import compiled
from neurojax.wiring.visits import Visit

N_PRE, N_POST, EDGES, LONGEST = 300, 200, 5000, 9
RNG = np.random.default_rng(0)
PRE, POST = RNG.integers(0, N_PRE, EDGES), RNG.integers(0, N_POST, EDGES)
VISITED, SCHEDULED = eqx.filter_jit(visits.visited), eqx.filter_jit(visits.scheduled)
done = jax.block_until_ready
needs_compiler = pytest.mark.skipif(not compiled(), reason="no C++ compiler")


def drawn(dtype):
    wiring, w = nj.by_sender(PRE, POST, N_PRE, N_POST, RNG.normal(size=EDGES))
    fired = lambda n: (RNG.random(n) < 0.2) * RNG.uniform(0.5, 2, n)  # noqa: E731
    return wiring.with_columns(), *(
        jnp.asarray(x, dtype)
        for x in (w, fired(N_PRE), RNG.normal(size=N_POST), fired(N_POST), RNG.normal(size=N_PRE))
    )


BOUNDS = {
    "none": (None, None),
    "one": (jnp.asarray(-0.5), jnp.asarray(0.5)),
    "one each": (None, jnp.asarray(RNG.normal(size=EDGES), jnp.float32)),
    "one a sender": tuple(jnp.linspace(a, b, N_PRE) for a, b in ((-2.0, 0.0), (0.1, 2.0))),
}


def changed(wiring, w, s, y, z, x, low, high, native=True):
    ends = (None if b is None else b.astype(w.dtype) for b in (low, high))
    pair = Visit(s, y), Visit(z, x)
    return VISITED(wiring.rows, wiring.columns, w, pair, *ends, native)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_visit_is_a_change_of_the_synapses_of_neurons_that_fired(bounds):
    wiring, w, s, y, z, x = drawn(np.float32)
    pre, post, _ = (np.asarray(e) for e in wiring.edges())
    low, high = BOUNDS[bounds]
    ends = (-np.inf if low is None else low, np.inf if high is None else high)
    ends = [end[pre] if np.size(end) == N_PRE else end for end in ends]
    held = lambda w, at: np.where(at, np.clip(w, *ends), w)  # noqa: E731
    expected = held(np.asarray(w) + np.asarray(s)[pre] * np.asarray(y)[post], s[pre] != 0)
    expected = held(expected + np.asarray(z)[post] * np.asarray(x)[pre], z[post] != 0)
    found = changed(wiring, w, s, y, z, x, low, high, native=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kernel_changes_the_same_bit_for_bit(bounds, dtype):
    with jax.enable_x64(dtype == np.float64):
        given = drawn(dtype)
        found = [changed(*given, *BOUNDS[bounds], native) for native in (True, False)]
        np.testing.assert_array_equal(*found)
        assert (found[0] != given[1]).any()


def later(wiring, w, s, delays, ring, head, native):
    return SCHEDULED(wiring.rows, w, s, delays, ring, head, native)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("head", [0, 5])
def test_spikes_leave_their_currents_where_they_are_due(dtype, head):
    with jax.enable_x64(dtype == np.float64):
        wiring, w, s, *_ = drawn(dtype)
        delays = RNG.integers(1, LONGEST + 1, EDGES)
        ring = jnp.asarray(RNG.normal(size=(LONGEST, N_POST)), dtype)
        given = wiring, w, s, jnp.asarray(delays, jnp.int32), ring, jnp.asarray(head, jnp.int32)
        due, pure = later(*given, native=False)
        pre, post, _ = (np.asarray(e) for e in wiring.edges())
        expected = np.array(ring, float)
        np.add.at(expected, ((head + delays - 1) % LONGEST, post), np.asarray(w * s[pre], float))
        np.testing.assert_allclose(due, expected[head], atol=1e-5)
        expected[head] = 0
        np.testing.assert_allclose(pure, expected, atol=1e-5)
        for a, b in zip(later(*given, native=compiled()), (due, pure), strict=True):
            np.testing.assert_array_equal(a, b)


def test_columns_are_the_rows_by_receiver():
    wiring, w, *_ = drawn(np.float32)
    c, (pre, post, _) = wiring.columns, wiring.edges()
    place = np.asarray(wiring.start)[np.asarray(c.pre)] + np.asarray(c.slot)
    np.testing.assert_array_equal(pre[place], c.pre)
    assert len({*place.tolist()}) == EDGES
    np.testing.assert_array_equal(post[place], np.repeat(np.arange(N_POST), np.diff(c.start)))
    assert c.longest == np.bincount(POST, minlength=N_POST).max()


def test_a_network_without_synapses_changes_nothing():
    wiring = nj.by_sender([], [], 3, 2).with_columns()
    pair = Visit(jnp.ones(3), jnp.ones(2)), Visit(jnp.ones(2), jnp.ones(3))
    assert wiring.visited(jnp.zeros(0), pair, None, None).shape == (0,)


# So large a fan-out may be that a sender's number and a slot take less in one word.
FAR = 70_000


def in_words(wiring):
    """The same list with both in one word a synapse."""
    found = replace(wiring, longest=FAR).with_columns()
    assert found.columns.pre.dtype == np.uint32
    assert found.columns.slot is None
    return found


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_compiler), False])
def test_a_word_that_names_sender_and_slot_leads_to_the_same_synapse(native):
    wiring, *given = drawn(np.float32)
    found = changed(in_words(wiring), *given, *BOUNDS["one a sender"], native)
    expected = changed(wiring, *given, *BOUNDS["one a sender"], native)
    np.testing.assert_array_equal(found, expected)
    assert (found != given[0]).any()


@needs_compiler
@pytest.mark.parametrize("n_pre", [1, 2, 4, 5])
def test_kernel_and_loops_agree_on_how_many_bits_a_sender_takes(n_pre):
    pre = np.arange(40) % n_pre
    wiring = in_words(nj.by_sender(pre, np.arange(40) % 8, n_pre, 8))
    pair = None, Visit(jnp.ones(8), jnp.arange(1.0, 1 + n_pre))
    for native in (True, False):
        w = VISITED(wiring.rows, wiring.columns, jnp.zeros(40), pair, None, None, native)
        np.testing.assert_array_equal(w, 1 + np.sort(pre))


@pytest.mark.parametrize(
    ("n_pre", "longest", "together"),
    [
        (1 << 17, 1 << 15, True),  # 17 and 15 bits
        (1 << 17, (1 << 15) + 1, False),
        ((1 << 17) + 1, 1 << 14, True),
        ((1 << 17) + 1, 1 << 15, False),
        (70_000, 256, False),  # three bytes and one
        (65_536, 65_536, False),  # two and two
        (1, FAR, True),
        (1 << 24, 256, False),
        ((1 << 24) + 1, 128, True),
    ],
)
def test_one_word_holds_sender_and_slot_where_it_can_and_takes_less(n_pre, longest, together):
    start = np.zeros(n_pre + 1, np.int64)
    start[-1] = 2
    index = np.array([1, 0], np.uint16)
    c = visits.by_receiver(index, start, 2, longest)
    assert (c.pre.dtype == np.uint32) == together
    pre, slot = visits.sent_by(c.pre, c.slot, n_pre, jnp.asarray(0), 2)
    np.testing.assert_array_equal(pre, n_pre - 1)
    np.testing.assert_array_equal(slot, [1, 0])


EITHER = pytest.mark.parametrize("native", [pytest.param(True, marks=needs_compiler), False])


def put(name, value, at=3):
    """A list with one number changed, past what checks it."""

    def change(rows):
        get = lambda rows: getattr(rows, name)  # noqa: E731
        return eqx.tree_at(get, rows, get(rows).at[at].set(value))

    return change


def put_wide(name, value, at=3):
    """The same of numbers in four bytes."""

    def change(rows):
        get = lambda rows: getattr(rows, name)  # noqa: E731
        return eqx.tree_at(get, rows, get(rows).astype(jnp.int32).at[at].set(value))

    return change


@EITHER
@pytest.mark.parametrize(
    ("word", "message"),
    [
        (300 << 23, "index must name one of 300 neurons, 0 to 299"),
        (2**32 - 1, "index must name one of 300 neurons"),
        (299 << 23 | 40, "slot must name one of a sender's synapses"),
    ],
)
def test_nor_does_it_trust_a_word(word, message, native):
    wiring, w, *_ = drawn(np.float32)
    wiring = in_words(wiring)  # 9 bits of the sender, 23 of the slot
    everyone, wrong = (None, Visit(jnp.ones(N_POST), jnp.ones(N_PRE))), put("pre", np.uint32(word))
    with pytest.raises(Exception, match=message):
        done(VISITED(wiring.rows, wrong(wiring.columns), w, everyone, None, None, native))


def longer(columns):
    """More columns than there are weights, one of which leads to the first place behind them."""
    more = lambda x, last: jnp.append(x, jnp.asarray(last, x.dtype))  # noqa: E731
    lists = (more(columns.slot, 255), more(columns.pre, 0), columns.start.at[-1].set(EDGES + 1))
    return eqx.tree_at(lambda c: (c.slot, c.pre, c.start), columns, lists)


@EITHER
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (longer, "slot must name one of a sender's synapses|longest must be"),
        (put("pre", 300), "index must name one of 300 neurons, 0 to 299"),
        (put("pre", 65535), "index must name one of 300 neurons"),
        (put_wide("pre", -5), "index must name one of 300 neurons"),
        (put("slot", 255), "slot must name one of a sender's synapses"),
        (put_wide("slot", -1), "slot must name one of a sender's synapses"),
        (put("start", 10**7), "start must rise from 0 to 5000, the synapses"),
        (put("start", -1), "start must rise from 0 to 5000, the synapses"),
        (put("start", EDGES // 2), "longest must be|start must rise"),
    ],
)
def test_a_visit_trusts_no_list_of_columns(change, message, native):
    wiring, w, *_ = drawn(np.float32)
    everyone = None, Visit(jnp.ones(N_POST), jnp.ones(N_PRE))
    with pytest.raises(Exception, match=message):
        done(VISITED(wiring.rows, change(wiring.columns), w, everyone, None, None, native))


TAMPERED = [
    (put("post", 200), "index must name one of 200 neurons, 0 to 199"),
    (put_wide("post", 10**8), "index must name one of 200 neurons, 0 to 199"),
    (put_wide("post", -5), "index must name one of 200 neurons"),
    (put("start", 10**7), "start must rise from 0 to 5000, the synapses"),
    (put("start", -1), "start must rise from 0 to 5000, the synapses"),
    (lambda rows: rows._replace(longest=2), "longest must be"),
]


@EITHER
@pytest.mark.parametrize(("change", "message"), TAMPERED)
def test_neither_does_one_of_rows_nor_what_is_sent_later(change, message, native):
    wiring, w, *_ = drawn(np.float32)
    rows, everyone = change(wiring.rows), Visit(jnp.ones(N_PRE), jnp.ones(N_POST))
    with pytest.raises(Exception, match=message):
        done(VISITED(rows, None, w, (everyone, None), None, None, native))
    ring, head = jnp.zeros((LONGEST, N_POST)), jnp.zeros((), jnp.int32)
    delays = jnp.ones(EDGES, jnp.int32)
    with pytest.raises(Exception, match=message):
        done(SCHEDULED(rows, w, jnp.ones(N_PRE), delays, ring, head, native))


@EITHER
def test_refuses_delays_beyond_its_ring_and_a_head_that_is_no_row(native):
    wiring, w, s, *_ = drawn(np.float32)
    ring, given = jnp.zeros((LONGEST, N_POST)), (wiring.rows, w, s)
    for d, head, message in (
        (0, 0, rf"delays must be in \[1, {LONGEST}\] steps"),
        (LONGEST + 1, 0, rf"delays must be in \[1, {LONGEST}\] steps"),
        (1, LONGEST, "head must be a row of the ring"),
        (1, -1, "head must be a row of the ring"),
    ):
        delays, at = jnp.full(EDGES, d, jnp.int32), jnp.asarray(head, jnp.int32)
        with pytest.raises(Exception, match=message):
            done(SCHEDULED(*given, delays, ring, at, native))


def test_under_vmap_each_sample_changes_on_its_own():
    wiring, w, s, y, z, x = drawn(np.float32)
    both = jnp.stack([s, jnp.roll(s, 1)])
    found = jax.vmap(lambda s: changed(wiring, w, s, y, z, x, None, None))(both)
    for i in range(2):
        np.testing.assert_array_equal(found[i], changed(wiring, w, both[i], y, z, x, None, None))
