"""Each number of the command line arrives at the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware as hw
from experiments import _config, _devices
from experiments._devices import Synapses
from neurojax.wiring.layouts import Dense

KEY = jax.random.key(0)


def made(a: Synapses, w=0.0, w_max=1.0):
    """Two synapses of `a` that hold `w`."""
    return _devices.make_weights(a, w_max)(jnp.full((1, 2), w), Dense(2, 1), KEY)


@pytest.mark.slow
def test_every_option_of_a_device_reaches_it():
    c = _config.Config(
        synapse="linear", update="unidirectional", n_states=33, nonlinearity=3.0,
        dynamic_range=5.0, sigma_d2d=0.0, sigma_c2c=0.25, w_max=2.0, write="open-loop",
    )  # fmt: skip
    assert c.synapses.write == "open-loop"
    assert _config.Config(synapse="linear", sigma_d2d=0.2).synapses.sigma_d2d == 0.2
    array = made(c.synapses, w_max=c.w_max)
    device = array.pair.plus
    assert float(device.sigma_c2c) == 0.25
    np.testing.assert_allclose(device.up.step, 1 / 32)  # 32 pulses lead through 33 states
    np.testing.assert_allclose(device.G_max / device.G_min, 5.0, rtol=1e-6)
    assert float(array.w_max) == 2.0
    np.testing.assert_allclose(array.policy.coder.n_pulses, 32)
    np.testing.assert_allclose(array.policy.longest, 64)
    bent = made(Synapses("exponential", "one-side", n_states=65, nonlinearity=3.0)).pair.plus
    one = bent.pulse(bent.init(jnp.stack([bent.G_min, bent.G_max])), jnp.ones(2), jnp.zeros(2))
    steps = bent.up(jnp.array([0.0, 63 / 64]), jnp.ones(2)) - jnp.array([0.0, 63 / 64])
    assert one.n_pulses.tolist() == [1, 1]
    slope = 1 - float(bent.up.slope)  # of the step at G_max to that at G_min
    assert slope == pytest.approx(np.exp(-3.0), rel=1e-4)
    assert steps[0] > steps[1]


def test_n_states_are_the_states_that_there_are():
    many = _devices.make_weights(Synapses("linear", "one-side", n_states=5), 1.0)
    w = jnp.linspace(-1, 1, 41).reshape(1, 41)
    held = np.unique(np.asarray(many(w, Dense(41, 1), KEY).w).round(5))
    np.testing.assert_allclose(held, [-1, -0.5, 0, 0.5, 1], atol=1e-5)


@pytest.mark.slow
def test_the_first_writing_is_the_one_asked_for():
    w = 0.3 * jax.random.normal(KEY, (40, 40))
    error = {}
    for update in ("bidirectional", "unidirectional", "one-side", "mixed-precision"):
        for write in ("exact", "open-loop", "write-verify"):
            a = Synapses("linear", update, n_states=32, sigma_d2d=0.2, write=write)
            array = _devices.make_weights(a, 1.0)(w, Dense(40, 40), KEY)
            error[update, write] = float(jnp.sqrt(jnp.mean((array.w - w) ** 2)))
        assert error[update, "open-loop"] > 2 * error[update, "exact"]
        assert error[update, "open-loop"] > 2 * error[update, "write-verify"]


def test_a_write_needs_devices():
    config = _config.Config(write="open-loop")
    with pytest.raises(ValueError, match="--write open-loop needs a --synapse other than ideal"):
        _config.refuse_idle(config, _config.resolved(config))
    assert isinstance(made(Synapses("linear", "one-side")).policy, hw.OneSide)
