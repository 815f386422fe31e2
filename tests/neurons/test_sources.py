"""Spikes drawn within a run: as often as asked, each on its own, the same for the same key."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import neurojax as nj
from neurojax._draw import arrivals

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


def scanned(source, n, steps, dt, key=None, dtype=float, state=None):
    """States and outputs [T, n] of a source on its own."""

    @jax.jit
    def run(state):
        def step(state, t):
            drawn = {} if key is None else {"key": jax.random.fold_in(key, t)}
            state, z = source.step(state, None, dt=dt, **drawn)
            return state, (state, z)

        return jax.lax.scan(step, state, jnp.arange(steps))[1]

    return run(source.init((n,), dtype) if state is None else state)


@pytest.mark.parametrize("mean", [1e-4, 0.01, 0.3, 1.0, 3.0, 10.0, 20.0])
def test_arrivals_have_the_distribution_of_poisson(mean):
    """Chi-square of 200,000 counts in classes of 5 expected and more, at 1e-4; and their mean."""
    source = nj.PoissonInput(n_inputs=1000.0, rate=mean * 2)
    z = np.asarray(source.step(source.init((200_000,)), None, dt=0.5, key=KEY)[1], int)
    k = np.arange(0, 80)
    expected = 200_000 * scipy.stats.poisson.pmf(k, mean)
    bins = np.flatnonzero(expected >= 5)
    low, high = bins[0], bins[-1]
    counts = np.bincount(np.clip(z, low, high) - low, minlength=high - low + 1)
    wanted = expected[low : high + 1].copy()
    wanted[0] += expected[:low].sum()
    wanted[-1] += 200_000 - wanted.sum()
    assert scipy.stats.chisquare(counts, wanted).pvalue > 1e-4
    assert abs(z.mean() - mean) < 4 * np.sqrt(mean / 200_000)


def test_chances_of_arrivals_are_those_of_the_distribution_bit_by_bit(monkeypatch):
    """The numbers of 32 bits at which a count rises, against SciPy's survivor function."""
    for mean in (1e-4, 0.5, 10.0):
        sf = scipy.stats.poisson.sf(np.arange(4), mean) * 2.0**32
        at = np.concatenate([np.floor(sf * (1 - 3e-7)), np.ceil(sf * (1 + 3e-7))])
        at = np.clip(at, 0, 2**32 - 1).astype(np.uint64).astype(np.uint32)
        monkeypatch.setattr(jax.random, "bits", lambda *_, at=at: jnp.asarray(at))
        z = np.asarray(arrivals(KEY, jnp.float32(mean), (8,)))
        assert np.all(z[:4] >= np.arange(1, 5))  # just below the chance of j + 1 or more
        assert np.all((z[4:] <= np.arange(4)) | (sf < 1) | (sf > 2**32 - 600))


def test_arrivals_of_each_neuron_are_of_its_own_rate_and_drawn_anew():
    rate = np.array([0.0, 100.0, 4000.0])
    z = np.asarray(scanned(nj.PoissonInput(10.0, rate), 3, 4000, 0.1, KEY)[1])
    mean = rate * 1e-3
    np.testing.assert_array_less(np.abs(z.mean(0) - mean), 4 * np.sqrt(mean / 4000) + 1e-9)
    np.testing.assert_allclose(z.var(0)[1:], mean[1:], rtol=0.2)
    onwards = np.corrcoef(z[1:, 2], z[:-1, 2])[0, 1]
    assert abs(onwards) < 4 / np.sqrt(4000)


def test_refuses_more_arrivals_than_it_can_draw():
    with pytest.raises(eqx.EquinoxRuntimeError, match="<= 20, the mean of a step: pass a smaller"):
        eqx.filter_jit(nj.PoissonInput(100.0, 1000.0).step)(
            nj.PoissonInput(100.0, 1000.0).init((2,)), None, dt=1.0, key=KEY
        )


def test_spikes_fall_into_the_step_that_holds_them_and_two_in_one_are_counted():
    times = np.array([[0.3, 0.7, 1.1], [0.05, 0.0999, np.inf], [99.95, 100.0, 0.1]])
    z = np.asarray(scanned(nj.SpikeTimes(times), 3, 1002, 0.1)[1])
    assert z.sum() == 8
    steps = [np.flatnonzero(z[:, k]) for k in range(3)]
    np.testing.assert_array_equal(steps[0], [2, 6, 10])  # (.2, .3], (.6, .7], (1.0, 1.1]
    np.testing.assert_array_equal(z[0], [0, 2, 1])
    np.testing.assert_array_equal(steps[2], [0, 999])
    assert z[999, 2] == 2


@pytest.mark.parametrize("dt", [0.1, 0.7, 0.35])  # the last two fall short in float32
def test_every_time_on_the_grid_falls_into_its_own_step_in_float32(dt):
    k = np.arange(1, 20_001)
    z = scanned(nj.SpikeTimes((k * dt)[None]), 1, 20_000, dt)[1]
    np.testing.assert_array_equal(z, 1)


def test_a_run_of_given_spikes_may_be_resumed():
    source = nj.SpikeTimes(jnp.array([[1.0, 2.5, 2.6, 7.0]]))
    state, z = scanned(source, 1, 10, 1.0)
    half = jax.tree.map(lambda x: x[4], state)
    np.testing.assert_array_equal(scanned(source, 1, 5, 1.0, state=half)[1], z[5:])
    np.testing.assert_array_equal(z[:, 0], [1, 0, 2, 0, 0, 0, 1, 0, 0, 0])


def test_step_currents_keep_their_charge():
    times, values = np.array([0.5, 2.0, 3.25, 3.5]), np.array([[1.0, -1], [4, 0], [8, 2], [0, 5]])
    i = np.asarray(scanned(nj.StepCurrent(times, values), 2, 5, 1.0)[1])
    np.testing.assert_allclose(i[:, 0], [0.5, 1, 4, 0.25 * 4 + 0.25 * 8, 0], rtol=1e-6)
    np.testing.assert_allclose(i[:, 1], [-0.5, -1, 0, 0.25 * 2 + 0.5 * 5, 5], rtol=1e-6)
    same = nj.StepCurrent(times, values[:, 0])
    np.testing.assert_array_equal(scanned(same, 3, 5, 1.0)[1][:, 2], i[:, 0])


def test_step_currents_on_the_grid_are_whole_steps_in_float32():
    times = np.array([10.1, 777.7, 1999.9])
    i = np.asarray(scanned(nj.StepCurrent(times, [1.0, 2.0, 3.0]), 1, 20_000, 0.1)[1])[:, 0]
    expected = np.repeat([0.0, 1.0, 2.0, 3.0], np.diff([0, 101, 7777, 19_999, 20_000]))
    np.testing.assert_array_equal(i, expected)


def test_noise_has_its_mean_variance_and_correlation_at_any_step():
    noise = nj.NoiseCurrent(mean=np.linspace(0, 2, 500), sigma=0.5, tau=4.0)
    for dt in (0.5, 5.0):
        i = np.asarray(scanned(noise, 500, 400, dt, KEY)[1])[100:] - np.linspace(0, 2, 500)
        n = i.size * min(1, dt / 8)  # as many are independent: dt over twice tau
        assert abs(i.mean()) < 4 * 0.5 / np.sqrt(n)
        assert abs(i.var() / 0.25 - 1) < 4 * np.sqrt(2 / n)
        ahead = (i[1:] * i[:-1]).mean() / i.var()
        assert abs(ahead - np.exp(-dt / 4)) < 4 * np.sqrt(1 / n)


def test_noise_in_bfloat16_has_the_variance_of_small_steps():
    i = np.asarray(scanned(nj.NoiseCurrent(tau=10.0), 300, 300, 0.1, KEY, "bfloat16")[1], float)
    # from the mean on: sigma^2 (1 - exp(-2 t / tau)); of 300, to 4 standard errors
    exact = 1 - np.exp(-2 * 30 / 10)
    assert abs(i[-1].var() / exact - 1) < 4 * np.sqrt(2 / 300)


def test_sources_of_numbers_drive_a_layer_and_hear_nothing():
    layers = {
        "drive": nj.Layer(3, nj.StepCurrent([2.0], [5.0])),
        "cells": nj.Layer(3, nj.LeakyIntegrator(1e-3)),
    }
    one = nj.one_to_one(3)
    net = nj.Network(layers, {"on": nj.Projection("drive", "cells", one, w=jnp.ones((3, 1)))})
    weights = net.init_weights(KEY)
    y = nj.simulate(net, weights, net.init(), {}, n_steps=4, dt=1.0)[1]["cells"]
    np.testing.assert_allclose(y[:, 0], [0, 0, 5, 5], rtol=1e-6)
    for source in (nj.PoissonInput(1.0, 1.0), nj.SpikeTimes([[1.0]]), nj.NoiseCurrent()):
        layers = {"a": nj.Layer(1, nj.LIF()), "b": nj.Layer(1, source)}
        with pytest.raises(ValueError, match="must not end at layer 'b', a source"):
            nj.Network(layers, {"p": nj.Projection("a", "b", nj.Dense(1, 1))})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nj.PoissonInput(-1.0, 5.0), "n_inputs must be finite and >= 0; got -1.0"),
        (lambda: nj.PoissonInput(1.0, np.nan), "rate must be finite and >= 0 Hz; got nan"),
        (lambda: nj.SpikeTimes([[0.0, 1.0]]), r"times must be > 0 ms.*; got 0.0 \(1 of 2\)"),
        (lambda: nj.SpikeTimes([[np.nan]]), "times must be > 0 ms.*; got nan"),
        (lambda: nj.SpikeTimes(3.0), r"times must have shape \[n, k\]"),
        (lambda: nj.SpikeTimes([[1.0]]).init((2,)), r"times must have shape \(2, 'k'\)"),
        (
            lambda: nj.StepCurrent([2.0, 1.0], [0.0, 0.0]),
            "times must increase from one to the next",
        ),
        (lambda: nj.StepCurrent([-1.0], [0.0]), "times must be finite and >= 0 ms; got -1.0"),
        (lambda: nj.StepCurrent([1.0], [np.inf]), "values must be finite, in nA; got inf"),
        (lambda: nj.StepCurrent([1.0], [1.0, 2.0]), r"values must have shape \(1,\), one a time"),
        (lambda: nj.StepCurrent([1.0], [[1.0, 2.0]]).init((3,)), r"values must have .* \(1, 3\)"),
        (lambda: nj.NoiseCurrent(sigma=-1.0), "sigma must be finite and >= 0 nA; got -1.0"),
        (lambda: nj.NoiseCurrent(tau=0.0), "tau must be finite and > 0 ms; got 0.0"),
        (lambda: nj.NoiseCurrent(mean=np.nan), "mean must be finite, in nA; got nan"),
        (lambda: nj.NoiseCurrent(tau=jnp.ones(2)).init((3,)), "tau of NoiseCurrent must be one"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_makes_no_source(make, match):
    with pytest.raises(ValueError, match=match):
        make()
