"""What every learner keeps to: one list of them, one battery."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware as hw
import neurojax as nj
from neurojax import learning
from neurojax.learning import bptt

KEY = jax.random.key(0)
SIZES = (6, 8, 7, 3)
TX = optax.sgd(0.05)


def _system():
    layer = nj.Layer(8, nj.LIF(r_mem=4.0), rule=nj.ThreeFactor())
    net = nj.structured(
        jax.random.key(1), 6, [layer], n_classes=3, density=1.0, recurrence=nj.Recurrence("dense")
    )
    return nj.wta_broadcast.system(jax.random.key(2), net, population=1, n_steps=8, start=2)


# Samples are [6], labels in [0, 3). A learner that takes derivatives says so.
LEARNERS: dict[str, Any] = {
    "wta_broadcast": lambda: learning.WTABroadcast(_system(), TX),
    "surrogate": lambda: bptt.learner(_system(), TX),
    "backprop": lambda: learning.Perceptron(SIZES, learning.Backprop(), TX),
    "counter_current": lambda: learning.CounterCurrent(SIZES, TX),
    "noprop": lambda: learning.NoProp(
        learning.MLPBlock(6, 3, 5, 4, 5), TX, learning.cosine_noise(2)
    ),
    "ska": lambda: learning.SKA(SIZES, eta=0.5, n_passes=4, std=0.2),
    "decolle": lambda: learning.Decolle(
        SIZES, TX, nj.LIF(r_mem=4.0, reset="subtract"), n_steps=8, start=2
    ),
    "eprop": lambda: learning.EProp(SIZES, TX, nj.ALIF(r_mem=4.0), n_steps=8, start=2),
    "zeroth_order": lambda: learning.ZerothOrder(SIZES, learning.Neurons(), TX),
    "dfa": lambda: learning.Perceptron(SIZES, learning.DFA(), TX),
    "difference_target": lambda: learning.DifferenceTarget(SIZES, TX),
    "forward_forward": lambda: learning.ForwardForward(SIZES, TX),
    "softhebb": lambda: learning.SoftHebb(SIZES, TX),
    "equilibrium": lambda: learning.Equilibrium(SIZES, TX, t_free=20, t_nudged=8),
    "boltzmann": lambda: learning.Boltzmann(6, 3, TX, learning.Monotone(5), n_hidden=2),
}
LONG = ("difference_target", "forward_forward", "softhebb", "equilibrium", "boltzmann")
DIFFERENTIATES = {"surrogate"}  # by JAX; `backprop` does it by hand


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in LEARNERS],
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def learner(name):
    return LEARNERS[name]()


@pytest.fixture(scope="module")
def batch(name):
    y = jnp.arange(9) % 3
    x = jnp.abs(jax.random.normal(KEY, (9, 6))) / 2 + 2 * jax.nn.one_hot(y, 6)
    return (jnp.minimum(x, 1) if name == "boltzmann" else x), y


@pytest.fixture(scope="module")
def state(learner):
    return eqx.filter_jit(learner.init)(KEY)


@pytest.fixture(scope="module")
def stepped(learner, state, batch):
    return eqx.filter_jit(learner.step)(state, *batch, key=jax.random.key(3))


def close(a, b):
    """Arrays alike to rounding, keys to the bit."""

    def one(a, b):
        if eqx.is_inexact_array(a):
            return np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
        same = jax.random.key_data if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else np.asarray
        np.testing.assert_array_equal(same(a), same(b))

    jax.tree.map(one, a, b)


def test_is_a_learner(learner):
    assert isinstance(learner, nj.Learner)


def test_a_step_keeps_structure_shapes_and_types(learner, state, stepped):
    new, info = stepped
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert not getattr(b, "weak_type", False) or a.weak_type
    assert all(x.shape == () and np.isfinite(x) for x in info.values())


def test_a_step_learns_something_and_nothing_is_lost(state, stepped):
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(stepped[0]), strict=True)
        if eqx.is_inexact_array(a)
    ]
    assert any(moved)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(stepped[0]) if eqx.is_inexact_array(x))


def test_the_same_key_draws_the_same_and_another_initial_weights(learner, state):
    again, other = (eqx.filter_jit(learner.init)(key) for key in (KEY, jax.random.key(9)))
    close(again, state)
    assert not eqx.tree_equal(other, state)


def test_scores_are_one_a_class_and_each_sample_by_itself(learner, state, batch):
    x, _ = batch
    predict = eqx.filter_jit(learner.predict)
    scores = predict(state, x)
    assert scores.shape == (9, 3)
    assert jnp.issubdtype(scores.dtype, jnp.floating)
    turned = predict(state, x[::-1])  # each has other neighbours
    np.testing.assert_allclose(turned[::-1], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_seeds_are_mapped(learner, state, batch, stepped):
    keys = jnp.stack([jax.random.key(9), KEY])
    states = jax.vmap(learner.init)(keys)
    close(jax.tree.map(lambda a: a[1], states), state)
    step = lambda state: learner.step(state, *batch, key=jax.random.key(3))  # noqa: E731
    close(jax.tree.map(lambda a: a[1], jax.vmap(step)(states)), stepped)


def test_it_runs_where_jax_takes_no_derivative(name, learner, state, batch, no_derivatives):
    step = lambda: jax.eval_shape(lambda s: learner.step(s, *batch, key=KEY), state)  # noqa: E731
    if name in DIFFERENTIATES:
        with pytest.raises(AssertionError, match="a derivative was taken"):
            step()
    else:
        step()


@pytest.mark.slow
def test_devices_hold_what_it_learns(learner, batch):
    devices = hw.crossbar(
        hw.Device(hw.linear(2**14)), hw.Bidirectional(hw.Train(2**14)), w_max=4.0, write="open-loop"
    )
    make = eqx.filter_jit(lambda key: learner.init(key, devices))
    held = lambda state: jax.tree.leaves(  # noqa: E731
        state, is_leaf=lambda x: isinstance(x, hw.Crossbar)
    )
    before = make(KEY)
    after, _ = eqx.filter_jit(learner.step)(before, *batch, key=jax.random.key(3))
    pulses = lambda state: [  # noqa: E731
        int(x.n_pulses.sum()) for x in held(state) if isinstance(x, hw.Crossbar)
    ]
    assert len(pulses(before)) > 0
    assert sum(pulses(after)) > sum(pulses(before))
    assert np.isfinite(learner.predict(after, batch[0])).all()


def test_samples_of_another_size_are_refused(learner, state, untyped):
    with pytest.raises(ValueError, match=r"x must be .*; got \[9, 5\]"):
        learner.predict(state, jnp.ones((9, 5)))


@pytest.mark.parametrize(
    "y",
    [
        jnp.array([2]), jnp.array(1), jnp.zeros((9, 1), int), jnp.arange(8) % 3, jnp.full(9, 3),
        jnp.full(9, -1), jnp.full(9, 0.7),
    ],
    ids=["one", "a number", "a column", "too few", "no class", "negative", "parts"],
)  # fmt: skip
def test_what_is_no_label_of_each_sample_is_refused(name, learner, state, batch, y, untyped):
    if name == "ska":
        pytest.skip("it reads no labels")
    x, _ = batch
    with pytest.raises((ValueError, TypeError), match=r"^(y|target) must be"):
        jax.eval_shape(lambda s, x: learner.step(s, x, y, key=KEY), state, x)


def test_known_inputs_are_finite(name, learner, state, batch, untyped):
    x, _ = batch
    with pytest.raises(ValueError, match="must be finite|known samples|must lie in|NaN"):
        learner.predict(state, x.at[0, 0].set(jnp.nan))
