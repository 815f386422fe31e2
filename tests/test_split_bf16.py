"""Weights as sums of bfloat16 numbers: how near they are, and that they learn like others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neurojax as nj

FLOATS = st.floats(-1e3, 1e3, width=32).filter(lambda w: w == 0 or abs(w) > 1e-20)


@pytest.mark.parametrize("parts", [1, 2, 3])
@given(w=st.lists(FLOATS, min_size=6, max_size=6))
def test_parts_add_up_to_the_weight_within_their_bound(parts, w):
    w = np.array(w, np.float32).reshape(2, 3)
    held = nj.split_bf16(parts)(jnp.asarray(w), nj.Dense(3, 2), jax.random.key(0))
    assert np.all(np.abs(np.asarray(held.w) - w) <= 2.0 ** (-8 * parts) * np.abs(w))


def test_three_parts_are_float32_itself():
    w = jax.random.normal(jax.random.key(0), (64, 100))
    held = nj.split_bf16(3)(w, nj.Dense(100, 64), jax.random.key(0))
    np.testing.assert_array_equal(held.w, w)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("kind", ["dense", "counted", "fan-in"])
def test_products_with_spikes_err_by_the_bound_of_the_weights_alone(parts, kind):
    count = jax.random.randint(jax.random.key(3), (40, 300), 0, 8)
    wiring = {
        "dense": lambda: nj.Dense(300, 40),
        "counted": lambda: nj.Dense(300, 40, count),
        "fan-in": lambda: nj.fan_in(jax.random.key(2), 300, 40, 0.2),
    }[kind]()
    w = jax.random.normal(jax.random.key(0), wiring.shape)
    s = (jax.random.uniform(jax.random.key(1), (300,)) < 0.2).astype(float)
    e = (jax.random.uniform(jax.random.key(1), (40,)) < 0.2).astype(float)
    held = nj.split_bf16(parts)(w, wiring, jax.random.key(0))
    matrix = np.asarray(wiring.matrix(w), np.float64)
    for got, true, size in (
        (held.apply(s), matrix @ np.asarray(s), np.abs(matrix) @ np.asarray(s)),
        (held.apply_t(e), np.asarray(e) @ matrix, np.asarray(e) @ np.abs(matrix)),
    ):
        bound = (2.0 ** (-8 * parts) + 300 * 2.0**-24) * size  # of the weights, of float32 sums
        assert np.all(np.abs(np.asarray(got) - true) <= bound)
        if parts == 1:  # so that the bound says something
            assert np.abs(np.asarray(got) - true).max() > 2.0**-14 * size.max()


@pytest.mark.slow
def test_a_network_learns_on_them_as_on_float32():
    wiring, sent, made = jax.random.split(jax.random.key(0), 3)
    net = nj.structured(
        wiring, 30, [nj.Layer(40, nj.LIF(tau_mem=10.0, r_mem=4.0), rule=nj.ThreeFactor())], 5,
        recurrence=nj.Recurrence("dense"), density=1.0,
    )  # fmt: skip
    system = nj.wta_broadcast.System(
        net, {"h1": nj.broadcast(sent, 40, 5)}, nj.SoftWTA(), nj.Homeostasis()
    )
    x = (jax.random.uniform(made, (8, 20, 30)) < 0.3).astype(float)
    y, tx = jnp.arange(8) % 5, optax.sgd(0.01)
    states = [
        nj.wta_broadcast.init(system, tx, made, make) for make in (nj.ideal(), nj.split_bf16(3))
    ]
    step = jax.jit(lambda state: nj.wta_broadcast.train_step(system, tx, state, x, y)[0])
    ideal, split = (step(step(state)) for state in states)
    for name in net.plastic():
        assert np.abs(np.asarray(ideal.weights[name].w - states[0].weights[name].w)).max() > 1e-3
        np.testing.assert_allclose(
            split.weights[name].w, ideal.weights[name].w, rtol=1e-5, atol=1e-5
        )


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match=r"parts must be 1, 2 or 3; got 4"):
        nj.split_bf16(4)
    near, _ = nj.locally_dense(jax.random.key(0), 20, 3, 0.0)
    with pytest.raises(ValueError, match="connectivity must be Dense or FanIn.*got Band"):
        nj.split_bf16(2)(jnp.zeros(near.shape), near, jax.random.key(0))
    held = nj.split_bf16(2)(jnp.zeros((2, 3)), nj.Dense(3, 2), jax.random.key(0))
    with pytest.raises(ValueError, match=r"dw must have shape \(2, 3\); got \(3,\)"):
        held.program(jnp.zeros(3))


def test_many_networks_at_once_hold_their_own_weights():
    w = jax.random.normal(jax.random.key(0), (5, 3, 4))
    held = jax.vmap(lambda w: nj.split_bf16(2)(w, nj.Dense(4, 3), jax.random.key(0)))(w)
    np.testing.assert_allclose(held.w, w, rtol=2.0**-16)
