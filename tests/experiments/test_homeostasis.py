"""Angles that the table of homeostasis is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import homeostasis
from neurojax.weights import ideal
from neurojax.wiring.layouts import Dense


def test_mirrored_is_the_cosine_without_the_bias():
    v = np.random.default_rng(0).normal(size=(3, 2))
    make = lambda w: ideal()(jnp.asarray(w), Dense(w.shape[1], w.shape[0]), jax.random.key(0))  # noqa: E731
    w = np.concatenate([2 * v.T, np.full((2, 1), 9.0)], 1)
    assert homeostasis.mirrored({"w2": make(w), "v1": make(v)}) == pytest.approx(1, abs=1e-6)
    assert homeostasis.mirrored({"w2": make(-w), "v1": make(v)}) == pytest.approx(-1, abs=1e-6)


def test_along_compares_the_first_layer_over_all_pictures():
    class Net:
        def settled(self, weights, x):
            return type("Free", (), {"state": (x, x)})

        def response(self, weights, x, y, u):
            return jnp.stack([x[0], 0 * x[0]]), None

        def adjoint(self, weights, y, u):
            return jnp.stack([u[0][0], y * u[0][1]]), None

    x, y = jnp.array([[1.0, 5.0], [2.0, 2.0]]), jnp.array([0.0, 1.0])
    found = homeostasis.along(Net(), None, x, y)
    assert found == pytest.approx(5 / np.sqrt(5 * 9), abs=1e-6)


def test_one_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="--hidden must name two layers or more"):
        homeostasis.Config(hidden=(8,))
