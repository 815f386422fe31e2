"""Layouts at their boundary: what is refused, what is cast, what `repr` shows, copies.

Their products are tested in `test_connectivity`, beside the generators.
"""

import copy
import pickle
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import connectivity as oracle

import neurojax as nj
from neurojax.wiring import layouts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nj.FanIn([[7, 0]], 5), r"index must name one of 5 .*, 0 to 4; got 7 \(1 of 2\)"),
        (lambda: nj.FanIn([[-1, 0]], 5), r"index must name one of 5 .*; got -1 \(1 of 2\)"),
        (
            lambda: nj.FanIn([[0, 1, 2], [4, 3, 4]], 5),
            "index must name a pair once; neuron 1 hears 4 twice: add up .* by_sender",
        ),
        (lambda: nj.FanIn(np.arange(20)[None] % 19, 20), "neuron 0 hears 0 twice"),
        (lambda: nj.FanIn([[0.0, 1.0]], 5), "index must be whole numbers; got float64"),
        (lambda: nj.FanIn(jnp.zeros((2, 1), bool), 5), "index must be whole numbers; got bool"),
        (lambda: nj.FanIn([[0, 1], [2]], 5), "index must be an array of numbers, its rows of one"),
        (lambda: nj.FanIn([0, 1], 5), r"index must have shape \[n_post, k\], .*; got \(2,\)"),
        (lambda: nj.FanIn(np.zeros((4, 0)), 5), r"without a 0; got \(4, 0\)"),
        (lambda: nj.FanIn([[2**32]], 5), "index must be at most 2147483647; got 4294967296"),
        (lambda: nj.FanIn([[0]], 0), "n_pre must be a whole number >= 1; got 0"),
        (lambda: nj.Dense(-4, 3), "n_pre must be a whole number >= 1; got -4"),
        (lambda: nj.Dense(4, 3.0), "n_post must be a whole number >= 1; got 3.0"),
        (lambda: nj.Dense(2, 1, [[0.5, 1]]), "count must be whole numbers or booleans; got float"),
        (lambda: nj.Dense(2, 1, [[2, -1]]), "count must be >= 0 synapses a pair; got -1"),
        (lambda: nj.Band(jnp.ones((9, 5)), 2), r"mask must be booleans; got float32: .*astype"),
        (lambda: nj.Band(jnp.ones(9, bool), 2), r"mask must have shape \[n, 2 radius .*got \(9,\)"),
        (lambda: nj.Band(jnp.ones((9, 5), bool), True), r"radius must be in \[1, 4\] .*; got True"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_names_no_synapse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_indices_may_be_lists_of_any_width_and_stay_short():
    for index in ([[1, 0]], np.array([[1, 0]], np.uint8), np.array([[1, 0]], np.int64)):
        assert nj.FanIn(index, 2).index.dtype == jnp.int32


EXAMPLES = {kind: oracle.example(kind) for kind in oracle.KINDS}
each_layout = pytest.mark.parametrize("c", EXAMPLES.values(), ids=EXAMPLES)


@pytest.mark.slow
@each_layout
@pytest.mark.parametrize("dtype", [bool, jnp.int8, jnp.int32])
def test_spikes_may_be_booleans_or_whole_numbers(c, dtype):
    w, s = jnp.full(c.shape, 0.5, jnp.bfloat16), jnp.arange(45) % 3 == 0

    @jax.jit
    def of(s):
        return c.apply(w, s), c.apply_t(w, s), c.outer(w.ravel()[:45], s), c.outer(s, s)

    for got, expected in zip(of(s.astype(dtype)), of(s.astype(w.dtype)), strict=True):
        np.testing.assert_array_equal(got.astype(float), expected.astype(float))
    assert {x.dtype for x in of(s.astype(dtype))[:3]} == {w.dtype}
    assert c.outer(s, s).dtype == jnp.float32


@each_layout
@pytest.mark.usefixtures("untyped")
def test_products_refuse_arrays_of_another_shape(c):
    w, s, longer = jnp.ones(c.shape), jnp.ones(45), jnp.ones(46)
    size = re.escape("(45,); got ")
    for name, product in {
        f"s must have shape {size}\\(46,\\)": lambda: c.apply(w, longer),
        f"s must have shape {size}\\(3, 45\\): jax.vmap over the batch": lambda: c.apply(
            w, jnp.ones((3, 45))
        ),
        f"e must have shape {size}": lambda: c.apply_t(w, longer),
        r"w must have shape .*; got \(7,\)": lambda: c.apply(jnp.ones(7), s),
        r"w must have shape .*; got \(8,\)": lambda: c.apply_t(jnp.ones(8), s),
        r"w must have shape .*; got \(9,\)": lambda: c.matrix(jnp.ones(9)),
        r"pre must have shape \(1, 45\); got \(1, 46\)": lambda: c.outer(s, longer),
        r"post must have shape \(1, 45\); got \(1, 46\)": lambda: c.outer(longer, s),
    }.items():
        with pytest.raises(ValueError, match=name):
            jax.eval_shape(product)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: nj.Dense(784, 512), "Dense(784 -> 512)"),
        (lambda: nj.Dense(2, 2, jnp.array([[0, 3], [1, 0]])), "Dense(2 -> 2, 4 synapses)"),
        (
            lambda: nj.FanIn(jnp.arange(26)[None].repeat(100, 0), 512),
            "FanIn(512 -> 100, fan-in 26)",
        ),
        (lambda: nj.FanOut([1, 0], [0, 2, 2, 2], 2, 2), "FanOut(3 -> 2, 2 synapses)"),
        (
            lambda: nj.Band(jnp.ones((1000, 3), bool).at[:, 1].set(False), 1),
            "Band(1000 -> 1000, radius 1, 2,000 synapses)",
        ),
    ],
)
def test_repr_says_how_large_it_is(make, shown):
    c = make()
    assert repr(c) == shown
    assert shown in eqx.tree_pformat({"wiring": c})
    abstract = eqx.filter_eval_shape(make)  # as in a message of what is under `jit`
    assert repr(abstract).startswith(shown.partition(",")[0].rstrip(")"))


def public_objects():
    key = jax.random.key(0)
    held = nj.split_bf16(2)(jnp.ones((2, 3)), nj.Dense(3, 2), key)
    yield from EXAMPLES.values()
    yield from (EXAMPLES["events"].edges(), nj.one_to_one(3), held)
    yield from (nj.split_bf16(2), nj.gaussian_profile(2.0), nj.exponential_profile(3.0))
    yield from (nj.Recurrence("dense", autapses=False), nj.metrics.degrees(EXAMPLES["band"]))
    yield nj.data.Split(np.ones((1, 2, 2), np.float32), np.zeros(1, np.int32))
    yield nj.structured(key, 3, [nj.Layer(4, nj.LeakyIntegrator())], 2, population=2)


@pytest.mark.parametrize("x", list(public_objects()), ids=lambda x: type(x).__name__)
def test_copies_are_equal(x):
    for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert jax.tree.structure(again) == jax.tree.structure(x)
        assert eqx.tree_equal(again, x)


@pytest.mark.parametrize(
    ("make", "good", "bad", "message"),
    [
        (lambda i: nj.FanIn(i, 5), [[4, 0]], [[4, 5]], "index must name one of 5 neurons, 0 to 4"),
        (lambda i: nj.FanIn(i, 5), [[4, 0]], [[-1, 0]], "index must name one of 5 neurons, 0"),
        (lambda i: nj.FanIn(i, 5), [[4, 0]], [[4, 4]], "index must name a pair once in a row"),
        (lambda n: nj.Dense(2, 1, n), [[2, 0]], [[1, -1]], "count must be >= 0 synapses a pair"),
    ],
)
def test_what_is_traced_is_refused_at_run_time(make, good, bad, message):
    program = eqx.filter_jit(lambda x: make(x))
    np.testing.assert_array_equal(jax.tree.leaves(program(jnp.array(good)))[0], good)
    with pytest.raises((RuntimeError, ValueError), match=message):  # XLA raises either
        jax.block_until_ready(program(jnp.array(bad)))


def test_completion_shows_public_names_alone():
    assert dir(layouts) == layouts.__all__


def test_a_fan_in_whose_matrix_is_large_goes_without_one():
    n, k = 1000, 10
    wiring = nj.FanIn(
        np.random.default_rng(0).permuted(np.tile(np.arange(n), (n, 1)), axis=1)[:, :k], n
    )
    w, s, e = (
        jax.random.normal(jax.random.key(i), x) for i, x in enumerate([(n, k), (n,), (2, n)])
    )
    run = jax.jit(lambda w, s, e: (wiring.apply(w, s), wiring.outer(e, 2 * e[::-1])))
    made = run.lower(w, s, e).compile()
    assert made.memory_analysis().temp_size_in_bytes < 4 * n * n / 8
    current, change = made(w, s, e)
    np.testing.assert_allclose(current, wiring.matrix(w) @ s, rtol=1e-4, atol=1e-5)
    full = 2 * np.asarray(e).T @ np.asarray(e)[::-1]
    np.testing.assert_allclose(
        change, np.take_along_axis(full, wiring.index, 1), rtol=1e-4, atol=1e-5
    )
