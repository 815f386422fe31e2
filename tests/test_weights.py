"""Weights that are plain numbers, and how they start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import connectivity as wiring

from neurojax.layouts import Band, Dense, FanIn
from neurojax.weights import Ideal, Weights, normal

KEY = jax.random.key(0)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
drawn = quick(normal, static_argnums=2)


def ring(n, radius):
    offsets = np.arange(-radius, radius + 1)
    return Band(jnp.asarray(np.broadcast_to(offsets % 3 != 0, (n, 2 * radius + 1))), radius)


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
