"""What arrays of devices are refused for, and how it is said."""

import inspect
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware import _check
from hardware.devices import Affine, linear
from hardware.programming import OneSide, Train

pytestmark = pytest.mark.usefixtures("untyped")


def test_one_number_is_one():
    assert _check.single("dt", jnp.asarray(2.0)) == 2
    with pytest.raises(ValueError, match=r"dt must be one number; got shape \(2,\): jax.vmap over"):
        _check.single("dt", jnp.ones(2))


def test_whole_numbers_come_in_a_row():
    for x in ([1, 2], np.arange(3), jnp.arange(2)):
        values = _check.whole("core", x)
        assert values.shape == (len(x),)
        np.testing.assert_array_equal(values, np.asarray(x))
    for x in ([1.0, 2.0], 3, [[1, 2]], jnp.ones(2), [True], jnp.zeros((1, 2), int)):
        with pytest.raises(ValueError, match=r"core must be whole numbers of shape \[n\]; got sha"):
            _check.whole("core", x)


def test_windows_and_thresholds_are_open():
    _check.window(jnp.zeros(2), jnp.array([1.0, 2.0]))
    _check.ordered_thresholds(jnp.asarray(0.0), jnp.asarray(0.5))
    with pytest.raises(ValueError, match="G_max must be above G_min; got 1 and 1 S"):
        _check.window(jnp.zeros(2).at[1].set(1), jnp.ones(2))
    with pytest.raises(ValueError, match="upper must be above lower; got 0.2 and 0.5 of the range"):
        _check.ordered_thresholds(jnp.asarray(0.5), jnp.asarray(0.2))


def test_rising_numbers_are_two_or_more_and_finite():
    for x in ([0.0, 0.5], [-1.0, 0.0, 0.25]):
        _check.rising("G", jnp.array(x), "S")
    jax.jit(lambda x: _check.rising("G", x, "S"))(jnp.array([2.0, 1.0]))  # taken on trust
    for x in ([0.0], 3.0, [[0.0, 1.0], [2.0, 3.0]]):
        with pytest.raises(ValueError, match="G must be two or more rising numbers, S; got shape"):
            _check.rising("G", jnp.array(x), "S")
    for x in ([1.0, 1.0], [2.0, 1.0], [1.0, 3.0, 2.0], [0.0, np.inf], [np.nan, 1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match=r"G must be two or more rising numbers, S; got \["):
            _check.rising("G", np.array(x), "S")


class Part(eqx.Module):
    x: jax.Array
    y: object = None


def test_parameters_are_one_number_or_one_a_device():
    for shape in ((), (2,)):
        _check.one_a_device(Part(jnp.ones(shape)), (2,))
    with pytest.raises(
        ValueError, match=r"x of Part must be one .* shape \(2,\); got shape \(3,\)"
    ):
        _check.one_a_device(Part(jnp.ones(3)), (2,))
    _check.one_a_device(Part(jnp.ones(()), SimpleNamespace(shape=(3,))), (2,))  # no array


def test_bits_are_those_of_a_float32():
    assert (_check.bits(1), _check.bits(24)) == (1, 24)
    with pytest.raises(ValueError, match="bits must be at most 24, those of a float32; got 25"):
        _check.bits(25)
    for x in (0, 2.0, True):
        with pytest.raises(ValueError, match=f"bits must be a whole number >= 1; got {x}"):
            _check.bits(x)


def step(u):
    return u


def test_what_is_called_is_an_instance_or_a_function_of_ones_own():
    convert = _check.called("up", "hardware.linear(8)", of="hardware.devices")
    response = Affine(0.5)
    assert convert(response) is response  # with arrays for leaves
    held = convert(step)
    assert held(3) == 3
    assert jax.tree.leaves(held) == []
    assert _check.called("down", "it", optional=True)(None) is None
    for x, told in (
        (None, "up must be callable; got None: pass hardware.linear"),
        (0.5, "up must be callable; got 0.5: pass hardware.linear"),
        (Affine, "up must be an instance; got the class"),
        (linear, r"up must be what linear returns; got the function: pass hardware.linear\(8\)"),
    ):
        with pytest.raises(TypeError, match=told):
            convert(x)
    assert _check.called("up", "it", of="elsewhere")(linear)(4).step == 0.25
    optional = _check.called("down", "it", of="hardware.devices", optional=True)
    with pytest.raises(TypeError, match="down must be callable; got 3: pass it"):
        optional(3)
    assert optional(response) is response


def test_policies_and_coders_are_told_apart():
    train = Train(8)
    policy = OneSide(train)
    assert _check.coder(train) is train
    assert _check.policy(policy) is policy
    for check, x, told in (
        (_check.coder, policy, "coder must say how many pulses; got the policy OneSide: pass"),
        (_check.coder, 8, "coder must be callable; got 8: pass hardware.Train"),
        (_check.policy, train, "policy must say which devices move; got the coder Train: pass"),
        (_check.policy, 8, "policy must be callable; got 8: pass hardware.Bidirectional"),
        (lambda x: _check.policy(x, "write"), Train, "write must be an instance; got the class"),
    ):
        with pytest.raises(TypeError, match=told):
            check(x)


def test_pulses_are_counted_in_32_bits():
    up, down = _check.trains([1, 2], True, "float32")
    assert (up.dtype, down.dtype) == ("float32", "float32")
    np.testing.assert_array_equal(up, [1, 2])
    assert down == 1
    for n in (-1, [0.0, -0.5], np.nan, np.inf, 2.2e9):
        with pytest.raises(ValueError, match="n_up must be >= 0 pulses, at most 2147483647; got"):
            _check.trains(n, 0, float)
        with pytest.raises(ValueError, match="n_down must be >= 0 pulses, at most 2147483647; got"):
            _check.trains(0, n, float)
    assert jax.jit(lambda n: _check.trains(n, 0, float)[0])(-1) == -1  # traced: on trust
    with pytest.raises(TypeError, match="n_down must be real numbers; got 'two'"):
        _check.trains(0, "two", float)
    with jax.enable_x64(True):
        assert _check.trains(2**31 - 1, 0, "float64")[0] == 2**31 - 1
        assert _check.trains(0.25, 0, "float64")[0] == 0.25
        with pytest.raises(ValueError, match="n_up must be"):
            _check.trains(2**31, 0, "float64")


def test_conductances_are_finite_numbers():
    assert _check.conductance([1, 2]).dtype == "float32"
    with pytest.raises(ValueError, match="G must be finite, in S; got NaN or infinity"):
        _check.conductance([1.0, np.inf])
    with pytest.raises(TypeError, match="G must be real numbers; got 'much'"):
        _check.conductance("much")


def test_noise_has_the_shape_and_type_of_what_it_is_added_to():
    key = jax.random.key(0)
    for dtype in ("bfloat16", "float32"):
        drawn = inspect.unwrap(_check.normal)(key, jnp.zeros((2, 3), dtype))
        np.testing.assert_array_equal(drawn, jax.random.normal(key, (2, 3), dtype))
        assert drawn.dtype == dtype
    with pytest.raises(TypeError, match="key must be a JAX key; got 3"):
        _check.normal(3, jnp.zeros(2))
