import copy
import pickle

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurojax.neurons import surrogate
from neurojax.neurons.leaky import LIF

FACTORIES = [
    surrogate.fast_sigmoid,
    surrogate.sigmoid,
    surrogate.arctan,
    surrogate.triangle,
    surrogate.boxcar,
]
SPIKES = [surrogate.heaviside, *(f() for f in FACTORIES)]
x = jnp.linspace(-2.0, 2.0, 101)


@given(st.floats(width=32, allow_nan=False, allow_subnormal=False))
def test_all_spike_at_and_above_zero(value):
    for spike in SPIKES:
        assert spike(jnp.float32(value)) == (1.0 if value >= 0 else 0.0)


@pytest.mark.parametrize("spike", SPIKES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_spikes_have_the_dtype_of_the_potential(spike, dtype):
    chex.assert_type(jax.jit(jax.vmap(spike))(x.astype(dtype)), dtype)


DERIVATIVES = {
    "fast_sigmoid": (surrogate.fast_sigmoid(3.0), lambda x: (1 + 3 * abs(x)) ** -2),
    "sigmoid": (surrogate.sigmoid(3.0), jax.vmap(jax.grad(lambda x: jax.nn.sigmoid(3.0 * x)))),
    "arctan": (
        surrogate.arctan(3.0),
        jax.vmap(jax.grad(lambda x: jnp.arctan(jnp.pi / 2 * 3.0 * x) / jnp.pi)),
    ),
    "triangle": (surrogate.triangle(0.5), lambda x: np.interp(x, [-0.5, 0, 0.5], [0, 1, 0])),
    "boxcar": (surrogate.boxcar(0.51), lambda x: 1.0 * (np.abs(x) < 0.51)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_surrogate_has_the_derivative_of_its_source(name):
    spike, expected = DERIVATIVES[name]
    grad = jax.jit(jax.vmap(jax.grad(spike)))(x)
    np.testing.assert_allclose(grad, expected(x), rtol=1e-5, atol=1e-6)  # float32, 5 operations


@pytest.mark.parametrize("spike", SPIKES[1:])
def test_forward_and_reverse_derivative_agree(spike):
    _, tangent = jax.jvp(spike, (x,), (jnp.ones_like(x),))
    np.testing.assert_array_equal(tangent, jax.grad(lambda x: spike(x).sum())(x))


def through(neuron, x):
    """What a network does with a neuron: a step of it, compiled, and a gradient through that."""
    return jax.grad(lambda i: neuron.step(neuron.init((3,)), i, dt=1.0)[1].sum())(x)


@pytest.mark.parametrize("factory", FACTORIES)
def test_models_that_differ_in_a_slope_share_a_program(factory):
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(n=1)(through))
    slopes = [
        run(LIF(r_mem=20.0, spike=factory(s)), jnp.array([0.7, 0.9, 2.0])) for s in (0.5, 0.5, 2)
    ]
    np.testing.assert_array_equal(slopes[0], slopes[1])
    assert np.any(slopes[0] != slopes[2])


@pytest.mark.parametrize("factory", FACTORIES)
def test_slopes_are_leaves_that_vmap(factory):
    run = jax.jit(jax.vmap(lambda s, x: through(LIF(r_mem=20.0, spike=factory(s)), x), (0, None)))
    x, slopes = jnp.array([0.7, 0.9, 2.0]), jnp.array([0.5, 2.0, 7.0])
    alone = [through(LIF(r_mem=20.0, spike=factory(s)), x) for s in slopes]
    np.testing.assert_allclose(run(slopes, x), alone, rtol=1e-5)  # as below
    each = through(LIF(r_mem=20.0, spike=factory(slopes)), x)  # and one a neuron
    np.testing.assert_allclose(each, np.diagonal(alone), rtol=1e-5)


def test_a_gradient_through_a_gradient_finds_the_slope():
    def descent(slope):  # what one step of descent moves by, by the slope
        return jax.grad(lambda v: surrogate.fast_sigmoid(slope)(v))(jnp.float32(0.1))

    # d/ds (1 + s x)^-2 = -2 x (1 + s x)^-3
    np.testing.assert_allclose(jax.grad(descent)(jnp.float32(3.0)), -0.2 * 1.3**-3, rtol=1e-5)


@pytest.mark.parametrize("spike", [*SPIKES, lambda x: (x > 0).astype(x.dtype), jnp.sign])
def test_any_function_makes_a_model_of_arrays_alone(spike):
    model = LIF(spike=spike)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model))
    np.testing.assert_array_equal(jax.jit(lambda m, x: m.spike(x))(model, x), spike(x))


@pytest.mark.parametrize("spike", SPIKES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal_and_compile_no_second_time(spike, copied):
    model = LIF(spike=spike)
    again = copied(model)
    assert jax.tree.structure(again) == jax.tree.structure(model)
    assert eqx.tree_equal(again, model)
    assert copied(spike) == spike


@pytest.mark.parametrize("bad", [surrogate.fast_sigmoid, "heaviside", None, 25.0])
def test_a_neuron_refuses_what_is_no_spike_function(bad):
    with pytest.raises(TypeError, match=r"spike must (be an instance.*fast_sigmoid\(\)|have)"):
        LIF(spike=bad)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_factory_refuses_a_width_that_is_not_positive(factory, bad):
    with pytest.raises(ValueError, match=rf"must be finite and > 0 (1/)?mV; got {bad}"):
        factory(bad)


@pytest.mark.parametrize(
    "differentiate",
    [
        lambda f: jax.grad(lambda x: f(x).sum())(x),
        lambda f: jax.jit(jax.grad(lambda x: f(x).sum()))(x),
        lambda f: jax.vjp(f, x),
        lambda f: jax.jvp(f, (x,), (x,)),
        lambda f: jax.linearize(f, x),
        lambda f: jax.jacfwd(lambda x: jax.lax.scan(lambda c, x: (c, f(x)), 0, x)[1])(x),
        lambda f: jax.grad(lambda x: jax.vmap(f)(x).sum())(x),
    ],
)
def test_heaviside_refuses_to_be_differentiated(differentiate):
    with pytest.raises(TypeError, match=r"pass spike=surrogate.fast_sigmoid\(\) to train by"):
        differentiate(surrogate.heaviside)


def test_heaviside_may_stand_beside_what_is_differentiated():
    def weighted(w):
        return (w * surrogate.heaviside(x)).sum()

    assert float(jax.grad(weighted)(2.0)) == np.sum(np.asarray(x) >= 0)
