"""Settling by repetition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.learning.relax import relax


def linear(a):
    return lambda s: a * s + (1 - a) * 3.0  # rests at 3, an error a^k after k steps


def test_a_linear_step_settles_in_the_steps_that_its_slope_asks_for(x64):
    found = relax(linear(0.5), jnp.zeros(()), 1e-6, 100)
    # step k, from 0, asks for a move of 3 (1 - a) a^k
    k = int(np.ceil(np.log(1e-6 / 1.5) / np.log(0.5)))
    assert int(found.steps) == k + 1
    np.testing.assert_allclose(found.residual, 1.5 * 0.5**k, rtol=1e-9)
    np.testing.assert_allclose(found.state, 3 - 3 * 0.5 ** (k + 1), rtol=1e-14)


def test_damping_stills_an_orbit_of_period_two():
    swing = lambda s: -s  # noqa: E731
    left = relax(swing, jnp.ones(3), 1e-5, 50)
    assert (left.steps, float(left.residual)) == (50, 2.0)
    still = relax(swing, jnp.ones(3), 1e-5, 50, damping=0.25)
    # each step leaves |d - (1 - d)| = 1/2 of the state, and asks for twice the state
    assert int(still.steps) == 1 + int(np.ceil(np.log2(2 / 1e-5)))
    np.testing.assert_allclose(np.abs(still.state), 0.5 ** float(still.steps), rtol=1e-4)


def test_complex_states_settle_as_their_two_parts_do(x64):
    a = jnp.array([0.3 + 0.4j, 0.5])  # |a| = .5 both
    found = relax(lambda s: a * s + 1, jnp.zeros(2, complex), 1e-12, 200)
    assert found.state.dtype == jnp.complex128
    assert found.residual.dtype == jnp.float64
    np.testing.assert_allclose(found.state, 1 / (1 - np.asarray(a)), rtol=1e-11)


def test_under_vmap_each_sample_is_as_if_alone():
    slopes = jnp.array([0.1, 0.9, 0.5])
    solve = lambda a: relax(linear(a), jnp.zeros(()), 1e-4, 60)  # noqa: E731
    together = jax.vmap(solve)(slopes)
    alone = [solve(a) for a in slopes]
    assert len({int(x.steps) for x in alone}) == 3
    for got, *each in zip(together, *alone, strict=True):
        np.testing.assert_array_equal(got, jnp.stack(each))


def test_states_are_pytrees_and_keys_differ_from_step_to_step():
    def step(state, *, key):
        return {"drawn": jax.random.normal(key, (2,)), "before": state["drawn"]}

    state = {"drawn": jnp.zeros(2), "before": jnp.zeros(2)}
    found = relax(step, state, 0.0, 3, key=jax.random.key(0))
    draw = lambda i: jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (2,))  # noqa: E731
    np.testing.assert_allclose(found.state["drawn"], draw(2), rtol=1e-6)
    np.testing.assert_allclose(found.state["before"], draw(1), rtol=1e-6)


def test_what_is_not_finite_ends_it_and_is_told():
    found = relax(lambda s: s**2, jnp.full((), 1e10), 1e-6, 100)
    assert int(found.steps) < 5
    assert not np.isfinite(found.residual)


def test_no_step_leaves_the_state_and_says_that_nothing_is_known():
    found = relax(jnp.cos, jnp.ones(2), 1e-6, 0)
    np.testing.assert_array_equal(found.state, 1)
    assert np.isinf(found.residual)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"tol": -1.0}, ValueError, "tol must be finite and >= 0; got -1.0"),
        ({"max_steps": 1.5}, ValueError, "max_steps must be a whole number >= 0; got 1.5"),
        ({"damping": 1.0}, ValueError, r"damping must be finite and in \[0, 1\); got 1.0"),
        ({"state": jnp.arange(3)}, TypeError, "state must be arrays of floats or complex"),
        (
            {"step": lambda s: s[:2]},
            ValueError,
            r"what it is given, float32\[3\]; got float32\[2\]",
        ),
        ({"step": lambda s: (s, s)}, ValueError, "step must give back what it is given"),
        ({"step": 3}, TypeError, "step must have __call__; got int 3"),
        ({"key": 3}, TypeError, r"key must be a JAX key; got 3: pass jax.random.key\(3\)"),
    ],
)
def test_what_cannot_settle_is_refused(given, error, told, untyped):
    good = {"step": jnp.cos, "state": jnp.ones(3), "tol": 1e-6, "max_steps": 10}
    with pytest.raises(error, match=told):
        relax(**(good | given))


def test_what_grows_without_bounds_ends_where_it_leaves_the_numbers():
    found = relax(lambda s: s * 1e30, jnp.ones(()), 1e-6, 10)
    assert int(found.steps) == 2
    assert np.isinf(found.residual)


@pytest.mark.parametrize("given", [dict(tol=jnp.ones(2)), dict(damping=jnp.array([0.0, 0.9]))])
def test_tolerance_and_damping_are_one_number_each(given, untyped):
    (name,) = given
    with pytest.raises(ValueError, match=rf"{name} must be one number; got shape \(2,\)"):
        relax(jnp.cos, jnp.ones(()), given.pop("tol", 1e-6), 10, **given)
