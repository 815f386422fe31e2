"""Event-driven products: the kernel and the loops do the same, and both refuse the same."""

import dataclasses
import functools
import warnings
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.wiring import _library, events
from neurojax.wiring.generators import bernoulli
from neurojax.wiring.sparse import FanOut, by_sender, products


@pytest.mark.slow
@pytest.mark.parametrize("said", [None, _library.Unusable("the cache is full: empty it")])
def test_without_a_kernel_loops_do_the_same_and_say_so_once(monkeypatch, said):
    asked = []

    def load(*_):
        asked.append(said)
        if said:
            raise said

    monkeypatch.setattr(_library, "load", load)
    monkeypatch.setattr(events, "compiled", functools.cache(events.compiled.__wrapped__))
    wiring = bernoulli(jax.random.key(0), 50, 40, 0.2)
    w, s = jnp.arange(1.0 * wiring.shape[0]), (jnp.arange(50) % 7 == 0).astype(float)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            np.testing.assert_allclose(wiring.apply(w, s), wiring.matrix(w) @ s, rtol=1e-6)
    assert len(asked) == 1
    assert [str(warning.message) for warning in caught] == (
        [f"products of events run as loops in XLA: {said}; or pass native=False"] if said else []
    )


@pytest.mark.slow
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.02, 1.0])
def test_no_spike_is_dropped_however_many_there_are(native, part):
    wiring = bernoulli(jax.random.key(1), 3000, 700, 0.05, native=native)
    s = (np.random.default_rng(0).random(3000) < part).astype(np.float32)
    reached = jax.jit(lambda w, s: wiring.apply(w, s))(jnp.ones(wiring.shape), jnp.asarray(s))
    pre, post, _ = (np.asarray(x) for x in wiring.edges())
    np.testing.assert_array_equal(reached, np.bincount(post, s[pre], 700))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 128, 200])
def test_each_spike_is_read_once_wherever_it_stands(n):
    """The kernel looks at 64 senders at once; here each has a receiver of its own."""
    wiring, rng = by_sender(np.arange(n), np.arange(n)[::-1], n, n), np.random.default_rng(n)
    read = jax.jit(lambda s: (wiring.apply(jnp.ones(n), s), wiring.outer(s[None] * 0 + 1, s[None])))
    alone = np.eye(n)[[0, n // 2, n - 1]]
    some = [rng.random((4, n)) < part for part in (0.05, 0.5, 1.0)]
    for s in np.concatenate([alone, *(rng.normal(size=x.shape) * x for x in some)]):
        s = np.where(s == 0, -0.0, s).astype(np.float32)  # which is no spike either
        current, change = read(s)
        np.testing.assert_array_equal(current, s[::-1] + 0.0)
        np.testing.assert_array_equal(change, s)


def test_an_error_tells_of_the_first_of_many_senders():
    wiring = by_sender(np.arange(200), np.zeros(200, int), 200, 5)
    index = wiring.index.at[3].set(7).at[90].set(8)
    wrong = eqx.tree_at(lambda c: c.index, wiring, index)
    with pytest.raises((RuntimeError, ValueError), match="index must name one of 5 .*; got 7"):
        jax.block_until_ready(wrong.apply(jnp.ones(200), jnp.ones(200)))


@pytest.mark.slow
def test_kernel_and_loops_round_alike():
    made = [bernoulli(jax.random.key(2), 300, 200, 0.1, native=n) for n in (True, False)]
    w = jax.random.normal(jax.random.key(3), made[0].shape)
    s = jax.random.bernoulli(jax.random.key(4), 0.2, (4, 300)).astype(float)
    post = jax.random.normal(jax.random.key(5), (4, 200))
    for product in (lambda c: jax.vmap(lambda s: c.apply(w, s))(s), lambda c: c.outer(post, s)):
        native, pure = (jax.jit(product)(c) for c in made)
        np.testing.assert_array_equal(native, pure)


@pytest.mark.slow
@pytest.mark.parametrize("native", [True, False])
def test_lists_read_together_bring_what_each_brings_alone(native):
    keys = jax.random.split(jax.random.key(7), 4)
    lists = [bernoulli(keys[0], 300, 200, 0.1), bernoulli(keys[1], 300, 70, 0.2)]
    lists = [dataclasses.replace(c, native=native) for c in lists]
    ws = [jax.random.normal(k, c.shape) for k, c in zip(keys[2:], lists, strict=True)]
    s = jnp.where(jnp.arange(300) % 11 == 0, 0.7, 0.0)

    def total(ws, s, each):
        found = each(ws, s)
        return sum((x**2).sum() for x in found), found

    alone = lambda ws, s: [c.apply(w, s) for c, w in zip(lists, ws, strict=True)]  # noqa: E731
    got, expected = (
        jax.value_and_grad(partial(total, each=each), (0, 1), has_aux=True)(ws, s)
        for each in (partial(products, lists), alone)
    )
    jax.tree.map(np.testing.assert_array_equal, list(got[0][1]), expected[0][1])
    jax.tree.map(np.testing.assert_array_equal, got[1][0], expected[1][0])
    np.testing.assert_allclose(got[1][1], expected[1][1], rtol=1e-6)  # a sum, in another order


def test_an_error_tells_of_the_list_that_it_is_in():
    wrong = eqx.tree_at(lambda c: c.index, LIST, LIST.index.at[2].set(9))
    with pytest.raises(jax.errors.JaxRuntimeError, match="index must name one of 3 .*; got 9"):
        jax.block_until_ready(products([LIST, wrong], [jnp.ones(3)] * 2, jnp.ones(4)))


@pytest.mark.slow
@pytest.mark.parametrize("native", [True, False])
def test_many_terms_add_up_in_bfloat16_and_with_mixed_dtypes(native):
    wiring = bernoulli(jax.random.key(6), 900, 3, 1.0, native=native)
    ones = lambda *shape: jnp.ones(shape, jnp.bfloat16)  # noqa: E731
    np.testing.assert_array_equal(wiring.apply(ones(2700), ones(900)), ones(3) * 900)
    np.testing.assert_array_equal(wiring.outer(ones(300, 3), ones(300, 900)), ones(2700) * 300)
    np.testing.assert_array_equal(wiring.apply_t(ones(2700), ones(3)), ones(900) * 3)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        current = wiring.apply(jnp.ones(2700, "float64"), jnp.ones(900, "float32"))
        assert current.dtype == jnp.float64
        np.testing.assert_array_equal(current, 900.0)


def test_weights_in_the_order_of_the_lists_find_their_synapses():
    pre, post, w = np.array([0, 1, 0]), np.array([2, 0, 1]), np.array([10.0, 20.0, 30.0])
    wiring, (sent, late) = by_sender(pre, post, 2, 3, (jnp.asarray(w, float), [1, 2, 3]))
    matrix = np.asarray(wiring.matrix(sent))
    assert (matrix[2, 0], matrix[0, 1], matrix[1, 0]) == (10, 20, 30)
    np.testing.assert_array_equal(late, np.asarray(sent) / 10)
    pairs = by_sender([1, 1, 0], [0, 0, 0], 2, 1, {"w": jnp.array([1.0, 2.0, 4.0])})
    np.testing.assert_array_equal(pairs[1]["w"], [4, 1, 2])  # parallel synapses keep their order


LIST = by_sender([0, 0, 1], [1, 2, 0], 4, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIST.apply(jnp.ones(3), jnp.ones(5)), r"s must have shape \(4,\); got \(5,\)"),
        (lambda: LIST.apply(jnp.ones(2), jnp.ones(4)), r"w must have shape \(3,\); got \(2,\)"),
        (lambda: LIST.apply_t(jnp.ones(3), jnp.ones(4)), r"e must have shape \(3,\); got"),
        (lambda: LIST.outer(jnp.ones((2, 4)), jnp.ones((2, 4))), r"post must have shape \(2, 3\)"),
        (lambda: LIST.outer(jnp.ones((2, 3)), jnp.ones((2, 5))), r"pre must have shape \(2, 4\)"),
        (lambda: FanOut(LIST.index, LIST.start, 3, 1), "longest must be >= 2, a fan-out; got 1"),
        (lambda: FanOut(LIST.index, LIST.start[:-1] - 1, 3, 2), "start must rise from 0 to 3"),
        (lambda: FanOut(LIST.index, LIST.start, 2, 2), "index must name one of 2 neurons.*got 2"),
        (
            lambda: FanOut(LIST.index.astype("float32"), LIST.start, 3, 2),
            "index must be whole numbers; got f",
        ),
        (lambda: FanOut([0, 2**31], LIST.start, 3, 2), "index must be at most 2147483647; got 214"),
        (lambda: FanOut([1, -1, 0], LIST.start, 3, 2), "index must name one of 3 neurons.*got -1"),
        (lambda: FanOut([], [0], 3, 0), r"shapes \[edges\], \[n_pre \+ 1\]; got \(0,\), \(1,\)"),
        (lambda: FanOut([], [0, 0], -3, 0), "n_post must be a whole number >= 1; got -3"),
        (lambda: by_sender([0, 1], [1, 2], 4, 3, [0.5]), r"one entry for each of 2 .*got \(1,\)"),
        (lambda: by_sender([[0], [1, 2]], [1, 2], 4, 3), "pre must be an array of numbers, its"),
        (lambda: by_sender([0, 4], [1, 1], 4, 3), "pre must name one of 4 neurons.*got 4"),
        (lambda: by_sender([0, 1], [1, -1], 4, 3), "post must name one of 3 neurons.*got -1"),
        (lambda: by_sender([0, 1], [1], 4, 3), r"lists of equal length; got \(2,\), \(1,\)"),
        (lambda: by_sender(np.zeros(1), [1], 4, 3), "pre must be a list of whole numbers; got"),
        (lambda: by_sender([], [], 0, 3), "n_pre must be a whole number >= 1; got 0"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


TRUE = ([1, 2, 0, 1], [0, 2, 4], 2)
NONE, NOT_RISING, TOO_SHORT = (
    "index must name one of 3 neurons, 0 to 2",
    "start must rise from 0 to 4, the synapses",
    "longest must be",
)


def made(index, start, longest):
    """A list that is made as it runs."""
    return FanOut(index, start, 3, longest).at_post(jnp.ones(3))


def put(native, product):
    """A product of a list whose arrays were put in past the checks."""

    def run(index, start, longest):
        wiring = FanOut([0] * 4, [0, 2, 4], 3, longest, native)
        return product(eqx.tree_at(lambda c: (c.index, c.start), wiring, (index, start)))

    return run


def reached(wiring):
    return wiring.apply(jnp.ones(4), jnp.ones(2))


def changed(wiring):
    return wiring.outer(jnp.ones((2, 3)), jnp.ones((2, 2)))


def heard(wiring):
    return wiring.apply_t(jnp.ones(4), jnp.ones(3))


@pytest.mark.parametrize(
    "run",
    [
        made,
        put(False, heard),
        *(put(native, product) for native in (True, False) for product in (reached, changed)),
    ],
)
def test_receivers_that_are_none_end_in_an_error_and_touch_no_memory(run):
    program = jax.jit(run, static_argnums=2)
    at_run_time = (RuntimeError, ValueError)  # XLA raises either
    index, start = [1, 2, 0, 1], [0, 2, 4]
    compute = lambda i, at, n: jax.block_until_ready(program(jnp.array(i), jnp.array(at), n))  # noqa: E731
    assert jnp.isfinite(compute(index, start, 2)).all()
    for far in (3, 10**8, 2**31 - 1, -1, -5, -(2**31)):
        with pytest.raises(at_run_time, match="index must name one of 3 neurons, 0"):
            compute([1, 2, 0, far], start, 2)
    for no in ([0, -3, 4], [0, 9, 4], [-1, 2, 4], [0, 2, 10**7], [3, 3, 5], [0, 2, -(2**31)]):
        with pytest.raises(at_run_time, match="start must rise from 0 to 4, the sy"):
            compute(index, no, 2)
    with pytest.raises(at_run_time, match="longest must be"):
        compute(index, [0, 3, 4], 2)


def test_no_synapse_at_all_is_no_current():
    empty = by_sender([], [], 4, 3)
    np.testing.assert_array_equal(empty.apply(jnp.zeros(0), jnp.ones(4)), np.zeros(3))
    assert empty.outer(jnp.ones((2, 3)), jnp.ones((2, 4))).shape == (0,)
