"""Weights of few bits: right to a stated error, and learning in steps below their resolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.wiring.visits import Visit

KEY = jax.random.key(7)
N_PRE, N_POST, EDGES = 40, 30, 4000
RNG = np.random.default_rng(2)
WIRING = nj.by_sender(
    RNG.integers(0, N_PRE, EDGES), RNG.integers(0, N_POST, EDGES), N_PRE, N_POST
).with_columns()
START = jnp.asarray(RNG.uniform(0.2, 0.8, EDGES), jnp.float32)
SCALE = 1 / 127
MAKE = {"bfloat16": nj.ideal(), "levels": nj.levels(SCALE)}


def short(kind, w=START, wiring=WIRING):
    w = w.astype(jnp.bfloat16) if kind == "bfloat16" else w
    return MAKE[kind](w, wiring, None)


def bound(kind, w=START):
    """Most that a weight is off: half a unit in the last place."""
    return np.abs(w) * 2**-8 if kind == "bfloat16" else np.full(w.shape, SCALE / 2)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("wiring", [WIRING, nj.Dense(N_PRE, N_POST)], ids=["list", "dense"])
def test_currents_are_right_to_half_a_unit_of_each_weight(kind, wiring):
    w = START[: int(np.prod(wiring.shape))].reshape(wiring.shape)
    s = jnp.asarray(RNG.random(N_PRE) < 0.3, jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        off = jnp.abs(short(kind, w, wiring).apply(s) - wiring.apply(w, s))
    most = wiring.apply(jnp.asarray(bound(kind, w), jnp.float32), s)
    assert (off <= most + 1e-5).all()  # and rounding of float32 sums, of some 30 terms below 1
    assert off.max() > 0.05 * most.max()
    assert np.abs(np.asarray(short(kind, w, wiring).w, float) - w).max() <= bound(kind, w).max()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("by", ["program", "visit"])
def test_steps_far_below_the_resolution_add_up(kind, by):
    """Each step is a 20th of a unit: rounded to the nearest, no weight would ever move."""
    unit, n_steps = (2**-8 if kind == "bfloat16" else SCALE), 40  # bfloat16 from .5 to 1
    step = unit / 20
    weights = short(kind, jnp.full(EDGES, 0.5))
    everyone = Visit(jnp.ones(N_PRE), jnp.full(N_POST, step))

    def learn(weights, t):
        key = jax.random.fold_in(KEY, t)
        if by == "visit":
            return nj.weights.visited(weights, (everyone, None), key=key), None
        return weights.program(jnp.full(EDGES, step, weights.w.dtype), key=key), None

    start = np.asarray(weights.w, float).mean()
    learnt = jax.lax.scan(learn, weights, jnp.arange(n_steps))[0]
    change = np.asarray(learnt.w, float) - start
    # Each step goes up by a unit with chance 1/20 (bfloat16 rounds the step of `program`, by 2^-9).
    error = unit * np.sqrt(n_steps / 20 / EDGES)
    assert abs(change.mean() - n_steps * step) < 4 * error + n_steps * step * 2**-9
    assert 0.5 < change.std() / (unit * np.sqrt(n_steps / 20 * 19 / 20)) < 1.5


@pytest.mark.slow
def test_what_few_bits_learn_is_what_float32_learns_but_for_chance():
    net = nj.Network(
        {"cells": nj.Layer(N_POST, nj.LIF())},
        {"in": nj.Projection("x", "cells", WIRING, w=START, rule=nj.STDP(0.02, 0.01))},
    )
    x = jnp.asarray(RNG.random((100, N_PRE)) < 0.02, jnp.float32)
    run = lambda make, dtype: nj.simulate(  # noqa: E731
        net, net.init_weights(KEY, make, dtype), net.init(learn=True), {"x": x}, n_steps=100,
        dt=1.0, learn=True, key=KEY,
    )[0]["in"].w.astype(jnp.float32)  # fmt: skip
    bounds = {"bounds": (0.0, 1.0)}
    whole = run(nj.ideal(**bounds), float) - START
    assert jnp.abs(whole).mean() > 0.01
    with jax.numpy_dtype_promotion("standard"):
        for make, dtype, unit in (
            (nj.ideal(**bounds), jnp.bfloat16, 2**-8), (nj.levels(SCALE, **bounds), float, SCALE)
        ):  # fmt: skip
            off = run(make, dtype) - START - whole
            # Some hundred changes of each, each by less than a unit either way, and the start.
            assert abs(off.mean()) < 4 * unit * 10 / np.sqrt(EDGES)
            assert off.std() < 10 * unit


@pytest.mark.parametrize("make", [nj.ideal(), nj.levels(SCALE)], ids=["numbers", "levels"])
def test_a_presentation_is_taught_event_by_event_as_in_one_product(make):
    pre = jnp.asarray(RNG.random((20, N_PRE)) < 0.1, jnp.float32)
    post = jnp.asarray(RNG.normal(size=(20, N_POST)) * 0.01, jnp.float32)
    weights = make(START, WIRING, None)
    change = nj.taught(weights, post, pre, key=KEY).w - weights.w
    expected = WIRING.outer(post, pre)
    if isinstance(weights, nj.Levels):
        assert abs((change - expected).mean()) < 4 * SCALE * np.sqrt(20 * 0.1 / 4 / EDGES)
    else:
        np.testing.assert_allclose(change, expected, atol=1e-6)
    dense = nj.Dense(N_PRE, N_POST)
    w = jnp.zeros(dense.shape)
    at_once = nj.taught(make(w, dense, None), post, pre, key=KEY).w
    assert jnp.abs(at_once - dense.outer(post, pre)).max() <= SCALE


def test_bounds_hold_levels_and_the_sign_of_each_sender_stays():
    w = jnp.where(WIRING.at_pre(jnp.arange(N_PRE)) % 2 == 0, START, -START)
    weights = nj.levels(SCALE, bounds=(-0.9, 0.9), keep_sign=True)(w, WIRING, None)
    assert weights.low.shape == (N_PRE,)
    for change in (3.0, -3.0):
        for held in (
            weights.program(jnp.full(EDGES, change), key=KEY),
            nj.weights.visited(
                weights, (Visit(jnp.ones(N_PRE), jnp.full(N_POST, change)), None), key=KEY
            ),
        ):
            expected = np.clip(change, *(np.where(w > 0, 0, -0.9), np.where(w > 0, 0.9, 0)))
            assert np.abs(held.w - expected).max() <= SCALE  # .9 lies between two levels


def test_a_change_that_would_be_lost_is_refused_without_a_key():
    weights = nj.ideal()(jnp.ones(EDGES, jnp.bfloat16), WIRING, None)
    assert weights.program(jnp.full(EDGES, 0.25, jnp.bfloat16)).w[0] == 1.25
    small = jnp.full(EDGES, 2**-10, jnp.bfloat16)
    with pytest.raises(ValueError, match="key must be given where weights of bfloat16 learn in st"):
        weights.program(small)
    with pytest.raises(Exception, match="key must be given where weights of bfloat16"):
        jax.block_until_ready(jax.jit(lambda dw: weights.program(dw).w)(small))
    everyone = Visit(jnp.ones(N_PRE), jnp.ones(N_POST)), None
    for held in (weights, nj.levels(0.1)(START, WIRING, None)):
        with pytest.raises(ValueError, match="key must be given where weights of .* learn"):
            nj.weights.visited(held, everyone)
    with pytest.raises(ValueError, match="key must be given where int8 levels learn"):
        nj.levels(0.1)(START, WIRING, None).program(START)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nj.Ideal(jnp.zeros(EDGES, jnp.int8), WIRING), TypeError,
         r"w must be floats; got int8.*: pass make_weights=nj.levels\(scale\)"),
        (lambda: nj.levels(0.001)(START, WIRING, None), ValueError,
         r"scale must be at least the largest weight / 127, 0.0063; got 0.001"),
        (lambda: nj.levels(0.0), ValueError, "scale must be finite and > 0 weight units; got 0.0"),
        (lambda: nj.levels(jnp.ones(2)), ValueError, "^scale must be one number"),
        (lambda: nj.weights.visited(
            nj.ideal()(START.astype(jnp.float16), WIRING, None),
            (Visit(jnp.ones(N_PRE), jnp.ones(N_POST)), None), key=KEY), ValueError,
         "must be float32, float64, bfloat16 or int8 levels; got float16"),
        (lambda: nj.taught(nj.ideal()(START, WIRING, None), jnp.ones((3, N_POST)),
                           jnp.ones((2, N_PRE))), ValueError, "as many steps; got 3 and 2"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_refuses_what_it_cannot_hold(make, error, message):
    with pytest.raises(error, match=message):
        make()
