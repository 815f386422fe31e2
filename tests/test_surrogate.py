import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurojax import surrogate

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


@pytest.mark.parametrize("factory", FACTORIES)
def test_equal_arguments_give_the_same_function(factory):
    assert factory() is factory()
    assert factory(2.0) is factory(2.0)
    assert factory(2.0) is not factory(3.0)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_factory_refuses_a_width_that_is_not_positive(factory, bad):
    with pytest.raises(ValueError, match=rf"must be finite and > 0; got {bad}"):
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
