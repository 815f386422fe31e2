"""Sums that carry what they round away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware._clock import Sum, added, exact, since

YEAR = 31_536_000.25  # s: float32 moves in steps of 2 there


def value(x):
    return np.asarray(x.s, float) + np.asarray(x.rest, float)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("x64", [False, True])
def test_a_number_is_held_to_twice_the_digits(dtype, x64):
    with jax.enable_x64(x64):
        kept = "float64" if x64 and dtype == "float64" else "float32"
        for x in (YEAR, 0.1, np.array([0.1, YEAR]), 3, jnp.array([1, 2])):
            made = exact(x, dtype)
            assert isinstance(made.s, jax.Array)
            assert isinstance(made.rest, jax.Array)
            assert made.s.dtype == made.rest.dtype == kept
            np.testing.assert_allclose(value(made), np.asarray(x, float), rtol=2.0**-47)
            np.testing.assert_array_equal(made.s, jnp.asarray(np.asarray(x), kept))  # rounded
        again = exact(Sum(*(jnp.asarray(p, "float16") for p in (1.0, 2.0**-13))), dtype)
        assert again.s.dtype == again.rest.dtype == kept
        assert value(again) == 1 + 2.0**-13


def test_sums_keep_what_either_has_rounded_away_in_either_order():
    a, b = exact(YEAR, float), exact(np.float64(0.1) - 5.0, float)
    for x, y in ((a, b), (b, a)):
        total = added(x, y)
        np.testing.assert_allclose(value(total), YEAR + (0.1 - 5.0), rtol=2.0**-47)
        assert abs(float(total.rest)) <= 1  # half a step: the first is the sum rounded
    tiny = exact(0.0, float)
    for _ in range(100):
        tiny = added(tiny, exact(0.1, float))
    np.testing.assert_allclose(value(tiny), 10.0, rtol=2.0**-44)


def test_time_since_is_exact_and_0_before():
    then = exact(YEAR, float)
    np.testing.assert_allclose(since(exact(YEAR + 0.75, float), then), 0.75, rtol=1e-6)
    np.testing.assert_allclose(since(exact(YEAR + 1e-5, float), then), 1e-5, atol=4e-8)
    assert since(exact(YEAR - 10, float), then) == 0
