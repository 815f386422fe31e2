"""Spikes drawn within a run: as often as asked, each on its own, the same for the same key."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj

KEY = jax.random.key(3)


def drawn(rate, n_steps, *, n=50, dt=0.5, key=KEY, **options):
    net = nj.Network({"noise": nj.Layer(n, nj.Poisson(rate))}, {})
    probe = nj.recording.spikes("noise")
    return nj.simulate(net, {}, net.init(), {}, n_steps=n_steps, dt=dt, key=key, probe=probe)[1]


def test_spikes_come_at_their_rate_and_each_on_its_own():
    rate, dt, steps = np.linspace(10.0, 400.0, 50), 0.5, 4000
    z = np.asarray(drawn(jnp.asarray(rate, float), steps), float)
    p = rate * dt / 1000
    error = np.sqrt(p * (1 - p) / steps)
    # 5 standard errors, as 50 are looked at
    np.testing.assert_array_less(np.abs(z.mean(0) - p), 5 * error)
    centred = z - p
    across = (centred[:, 1:] * centred[:, :-1]).mean(0) / np.sqrt(
        p[1:] * p[:-1] * (1 - p[1:]) * (1 - p[:-1])
    )
    onwards = (centred[1:] * centred[:-1]).mean(0) / (p * (1 - p))
    assert np.abs(across).max() < 5 / np.sqrt(steps)
    assert np.abs(onwards).max() < 5 / np.sqrt(steps)


def test_rare_spikes_are_as_rare_as_asked(monkeypatch):
    """p = 3e-9, far below the 1.2e-7 that a float of 23 random bits can tell from 0."""
    bits = lambda key, shape, dtype: jnp.array([0, 12, 13, 2**31], dtype)  # noqa: E731
    monkeypatch.setattr(jax.random, "bits", bits)
    source = nj.Poisson(6e-6)
    z = source.step(source.init((4,)), None, dt=0.5, key=KEY)[1]
    np.testing.assert_array_equal(z, [1, 1, 0, 0])  # 3e-9 of 2^32 numbers are 12.9


def test_a_longer_run_begins_with_the_shorter_and_another_key_or_name_draws_anew():
    z = drawn(100.0, 40)
    np.testing.assert_array_equal(drawn(100.0, 20), z[:20])
    assert (drawn(100.0, 40, key=jax.random.key(4)) != z).any()
    two = {n: nj.Layer(50, nj.Poisson(100.0)) for n in ("a", "b")}
    net = nj.Network(two, {})
    both = nj.simulate(net, {}, net.init(), {}, n_steps=40, dt=0.5, key=KEY)[1]
    assert (both["a"] != both["b"]).any()


def test_a_source_drives_a_layer_and_its_rate_is_mapped():
    def mean(rate):
        layers = {
            "noise": nj.Layer(20, nj.Poisson(rate)),
            "h": nj.Layer(1, nj.LeakyIntegrator(1e-3)),
        }
        link = nj.Projection("noise", "h", nj.Dense(20, 1), w=jnp.ones((1, 20)))
        net = nj.Network(layers, {"out": link})
        weights = net.init_weights(KEY)
        y = nj.simulate(net, weights, net.init(), {}, n_steps=400, dt=1.0, key=KEY)[1]
        return y["h"].mean(), y["noise"].sum(1).mean()

    rates = jnp.array([20.0, 200.0])
    heard, sent = jax.vmap(mean)(rates)
    np.testing.assert_allclose(heard, sent, rtol=1e-5)  # all that is sent is heard, at once
    p = np.asarray(rates) / 1000
    np.testing.assert_array_less(np.abs(sent - 20 * p), 5 * np.sqrt(20 * p / 400))


@pytest.mark.parametrize("rate", [-1.0, jnp.nan, jnp.array([1.0, -2.0])])
def test_refuses_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="rate must be finite and >= 0 Hz"):
        nj.Poisson(rate)


def test_refuses_more_than_a_spike_a_step_and_rates_that_do_not_fit():
    with pytest.raises(eqx.EquinoxRuntimeError, match="rate must be <= 1000 / dt Hz"):
        drawn(2001.0, 2)
    assert drawn(2000.0, 2).all()
    with pytest.raises(ValueError, match=r"rate of Poisson must be one number or one per neuron"):
        drawn(jnp.ones(3), 2)
