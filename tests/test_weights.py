"""Weights that are plain numbers, and how they start."""

import copy
import functools
import pickle

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import connectivity as wiring

from neurojax.weights import Ideal, Weights, ideal, normal
from neurojax.wiring.layouts import Band, Dense, FanIn
from neurojax.wiring.sparse import by_sender

KEY = jax.random.key(0)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
drawn = quick(normal, static_argnums=2)


def ring(n, radius):
    offsets = np.arange(-radius, radius + 1)
    return Band(jnp.asarray(np.broadcast_to(offsets % 3 != 0, (n, 2 * radius + 1))), radius)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("connectivity", "fan_in"),
    [
        (Dense(50, 300), 50),
        (Dense(50, 300, jnp.asarray(np.tile([0, 1, 2, 3, 0], (300, 10)))), 60),
        (FanIn(jnp.asarray(np.tile(np.arange(9), (1500, 1))), 40), 9),
        (ring(1000, 8), 12),
    ],
    ids=["dense", "counted", "fan in", "band"],
)
def test_initial_weights_have_the_variance_of_their_fan_in(connectivity, fan_in):
    w = np.asarray(drawn(KEY, connectivity, 2.0))
    exists = wiring.synapses(connectivity)[2] > 0
    assert not w[~exists].any()
    # 4 standard errors of mean and standard deviation of some 10^4 Gaussian numbers
    scale, error = 2.0 / np.sqrt(fan_in), 4 / np.sqrt(exists.sum())
    assert w[exists].mean() == pytest.approx(0, abs=error * scale)
    assert w[exists].std() == pytest.approx(scale, rel=error)


@pytest.mark.parametrize("kind", wiring.KINDS)
def test_ideal_weights_are_their_connectivity_with_numbers(kind):
    rng, c = np.random.default_rng(0), wiring.example(kind, size=1)
    w, dw = (jnp.asarray(rng.integers(-4, 5, c.shape), float) for _ in range(2))
    s, e = (jnp.asarray(rng.integers(-4, 5, n), float) for n in (c.n_pre, c.n_post))
    weights = Ideal(w, c)
    assert isinstance(weights, Weights)
    full = wiring.matrix(c, w)

    @quick
    def used(weights):
        products = weights.apply(s), weights.apply_t(e), weights.outer(e, s)
        return *products, weights.program(dw)

    current, back, change, programmed = used(weights)
    np.testing.assert_array_equal(current, full @ s)
    np.testing.assert_array_equal(back, e @ full)
    np.testing.assert_array_equal(change, wiring.stored(c, np.outer(e, s)))
    np.testing.assert_array_equal(programmed.w, w + dw)


def test_program_refuses_a_change_of_another_shape():
    weights = Ideal(jnp.ones((3, 4)), Dense(4, 3))
    with pytest.raises(ValueError, match=r"dw must have shape \(3, 4\); got \(4, 3\)"):
        weights.program(jnp.ones((4, 3)))


START = jnp.array([[0.5, -0.5, 0.0]])
PAIRS = Dense(3, 1)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({}, -np.inf, np.inf),
        ({"bounds": (-0.75, 0.75)}, -0.75, 0.75),
        ({"bounds": (None, 0.625)}, -np.inf, 0.625),
        ({"bounds": (-0.625, None)}, -0.625, np.inf),
        ({"bounds": (jnp.full((1, 3), -1), jnp.array([[0.75, 1, 2]]))}, -1, [0.75, 1, 2]),
        ({"keep_sign": True}, [0, -np.inf, -np.inf], [np.inf, 0, np.inf]),
        ({"bounds": (-0.75, 0.75), "keep_sign": True}, [0, -0.75, -0.75], [0.75, 0, 0.75]),
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_is_learned_stays_within_bounds_and_on_its_side_of_zero(options, low, high, dtype):
    weights = ideal(**options)(START.astype(dtype), PAIRS)
    assert isinstance(weights, Weights)
    expected = np.array(START)
    for dw in (0.125, -2.0, 4.0, 0.125):  # each exact in bfloat16, and so is every sum
        weights = weights.program(jnp.full((1, 3), dw, dtype))
        expected = np.clip(
            expected + dw, *(np.asarray(x, dtype).astype(float) for x in (low, high))
        )
        assert weights.w.dtype == dtype
        np.testing.assert_array_equal(np.asarray(weights.w, float), expected)


def test_bounds_that_the_synapses_of_each_sender_share_are_held_once_a_sender():
    pre, post = [0, 0, 1, 1, 1], [0, 1, 0, 1, 1]  # senders 2 and 3 have none
    wiring, w = by_sender(pre, post, 4, 2, jnp.array([1.0, 2.0, -1.0, -2.0, -2.0]))
    make = ideal(bounds=(-3.0, 3.0), keep_sign=True)
    weights = make(w, wiring)
    np.testing.assert_array_equal(weights.low[:2], [0, -3])
    np.testing.assert_array_equal(weights.high[:2], [3, 0])
    up, down = (weights.program(jnp.full(5, dw)).w for dw in (5.0, -5.0))
    np.testing.assert_array_equal(up, [3, 3, 0, 0, 0])
    np.testing.assert_array_equal(down, [0, 0, -3, -3, -3])
    traced = eqx.filter_jit(lambda w: make(w, wiring))(w)
    for each in (make(w.at[0].set(-1.0), wiring), traced):
        assert each.low.shape == w.shape  # a sender of both signs, or not known yet
    np.testing.assert_array_equal(traced.program(jnp.full(5, 5.0)).w, up)


def test_another_bound_compiles_nothing_anew_and_bounds_are_vmapped():
    traces = []

    @eqx.filter_jit
    def learned(make):
        traces.append(make)
        return make(START, PAIRS).program(jnp.ones((1, 3))).w

    assert learned(ideal(bounds=(-1.0, 1.0))).max() == 1.0
    assert learned(ideal(bounds=(-1.0, 1.25))).max() == 1.25
    assert len(traces) == 1
    highs = jnp.array([0.75, 1.0, 2.0])
    many = jax.vmap(lambda high: ideal(bounds=(None, high))(START, PAIRS).program(10 + START).w)
    np.testing.assert_array_equal(many(highs), jnp.broadcast_to(highs[:, None, None], (3, 1, 3)))


def test_a_maker_and_its_weights_pickle_and_copy_to_equal_ones():
    make = ideal(bounds=(-1.0, 1.0), keep_sign=True)
    for x in (make, make(START, PAIRS), ideal()):
        for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
            chex.assert_trees_all_equal(again, x)
            assert jax.tree.structure(again) == jax.tree.structure(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ideal(bounds=(1.0, 0.0)),
            r"bounds must be \(low, high\), low < high.*\(1.0, 0.0\)",
        ),
        (lambda: ideal(bounds=(0.0, jnp.nan)), r"bounds must be \(low, high\).*got \(0.0, nan\)"),
        (lambda: ideal(bounds=1.0), r"bounds must be \(low, high\).*got 1.0"),
        (lambda: ideal(bounds=(0.0, 1.0, 2.0)), r"bounds must be \(low, high\)"),
        (
            lambda: ideal(bounds=(0.0, 1.0))(START, PAIRS),
            r"initial weights must lie within bounds, \(0.0, 1.0\); got -0.5 \(1 of 3\)",
        ),
        (
            lambda: ideal(bounds=(None, 0.25))(START, PAIRS),
            r"initial weights must lie within bounds, \(None, 0.25\); got 0.5 \(1 of 3\)",
        ),
        (
            lambda: ideal(bounds=(jnp.zeros(3), None))(START, PAIRS),
            r"bounds must be one number or one a synapse, of shape \(1, 3\); got \(3,\)",
        ),
    ],
)
def test_refuses_bounds_that_are_none_and_weights_beyond_them(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_weights_beyond_their_bounds_are_refused_within_a_compiled_function_too():
    made = eqx.filter_jit(lambda w: ideal(bounds=(0.0, 1.0))(w, PAIRS))
    with pytest.raises(RuntimeError, match="initial weights must lie within bounds"):
        jax.block_until_ready(made(START))


def test_a_synapse_that_is_not_there_is_beyond_no_bounds():
    layout = Dense(2, 1, jnp.array([[1, 0]]))
    held = ideal(bounds=(0.25, 1.0))(jnp.array([[0.5, 0.0]]), layout)
    changed = held.program(jnp.full((1, 2), -1.0))
    np.testing.assert_array_equal(changed.apply(jnp.ones(2)), [0.25])
    with pytest.raises(ValueError, match=r"got 0.0 \(1 of 2\)"):
        ideal(bounds=(0.25, 1.0))(jnp.array([[0.0, 0.0]]), layout)
