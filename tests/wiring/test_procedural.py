"""Synapses that are computed at each spike are those of the list that is stored of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax import _memory
from neurojax.wiring.events import compiled

N = 400
KEY = jax.random.key(4)
RNG = np.random.default_rng(4)
W = jnp.asarray(RNG.normal(size=N), jnp.float32)
S = jnp.asarray((RNG.random(N) < 0.2) * RNG.uniform(0.5, 1, N), jnp.float32)
E = jnp.asarray(RNG.normal(size=N), jnp.float32)
EITHER = [False, *([True] if compiled() else [])]


def drawn(native=True, spread=0.0, autapses=True, key=KEY, density=0.1):
    return nj.procedural(key, N, N, density, spread=spread, autapses=autapses, native=native)


@pytest.mark.slow
@pytest.mark.parametrize("native", EITHER)
@pytest.mark.parametrize(("spread", "autapses"), [(0.0, True), (0.3, False)])
def test_each_synapse_is_that_of_the_stored_list(native, spread, autapses):
    wiring = drawn(native, spread, autapses)
    stored, w = wiring.stored(W)
    pre, post, number = wiring.edges()
    for a, b in zip((pre, post, number), stored.edges(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(stored.fan_out, np.full(N, 40))
    np.testing.assert_array_equal(wiring.fan_in, stored.fan_in)
    assert (pre == post).any() == autapses
    # One synapse at a time: who hears sender j, and how much, bit for bit.
    np.testing.assert_array_equal(wiring.apply(W, S), stored.apply(w, S))
    np.testing.assert_array_equal(wiring.apply(W, S), jax.jit(wiring.__class__.apply)(wiring, W, S))
    np.testing.assert_array_equal(wiring.matrix(W), stored.matrix(w))
    # Sums of some 40 terms, in another order.
    np.testing.assert_allclose(wiring.apply_t(W, E), stored.apply_t(w, E), atol=2e-5)


def test_gradients_are_those_of_the_matrix():
    wiring = drawn(spread=0.3)
    f = lambda w, s: (wiring.apply(w, s) * E).sum()  # noqa: E731
    g = lambda w, s: ((wiring.matrix(w) @ s) * E).sum()  # noqa: E731
    for a, b in zip(jax.grad(f, (0, 1))(W, S), jax.grad(g, (0, 1))(W, S), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_every_receiver_is_as_likely_and_drawn_alone():
    """Chi-square of fan-ins, of pairs that meet twice, and of a sender beside the next."""
    wiring = drawn()
    post = np.asarray(wiring.edges().post).reshape(N, 40)
    heard = np.bincount(post.reshape(-1), minlength=N)
    chi = ((heard - 40) ** 2 / 40).sum()
    assert abs(chi - (N - 1)) < 4 * np.sqrt(2 * (N - 1))
    pairs = 40 * 39 / 2 / N  # of a row that name the same receiver, on average
    same = [len(row) - len(set(row)) for row in post]
    expected = 40 - N * (1 - (1 - 1 / N) ** 40)  # those that come again
    assert abs(np.mean(same) - expected) < 4 * np.sqrt(pairs / N)
    for lag in (1, 2, 64):
        shared = (post[lag:, :, None] == post[:-lag, None, :]).sum((1, 2))
        assert abs(shared.mean() - 4) < 4 * 2 / np.sqrt(N - lag)  # 1,600 chances of 1 in 400
        assert (post[lag:] == post[:-lag]).mean() < 1 / N + 4 / np.sqrt(N * 40 * N)
    other = np.asarray(drawn(key=jax.random.key(5)).edges().post).reshape(N, 40)
    assert (post == other).mean() < 1 / N + 4 / np.sqrt(N * 40 * N)


def test_weights_are_spread_as_they_are_asked_to_be():
    wiring = drawn(spread=0.25, density=1.0)
    factor = np.asarray(wiring.stored(jnp.ones(N))[1])
    n = factor.size  # 160,000
    assert abs(factor.mean() - 1) < 4 * 0.25 / np.sqrt(n)
    assert abs(factor.std() / 0.25 - 1) < 4 / np.sqrt(2 * n)
    g = (factor - 1) / 0.25
    assert abs((g**4).mean() - 3) < 0.15  # without tails beyond 3.3: 2.93
    post = np.asarray(wiring.edges().post)
    assert abs(np.corrcoef(factor, post)[0, 1]) < 4 / np.sqrt(n)  # who hears says nothing


def test_a_network_runs_alike_on_what_is_computed_and_what_is_stored():
    wiring = drawn()
    cells = nj.Layer(N, nj.LIF(v_rest=1.2), nj.Exponential(5.0))
    w = 0.1 * W
    stored, each = wiring.stored(w)
    seen = []
    for c, values in ((wiring, w), (stored, each)):
        net = nj.Network(
            {"cells": cells},
            {"loop": nj.Projection("cells", "cells", c, w=values, delay=2, plastic=False)},
        )
        assert f"{N * 40:,} synapses" in repr(net)
        weights = net.init_weights(KEY)
        seen.append(nj.simulate(net, weights, net.init(), {}, n_steps=60, dt=1.0)[1]["cells"])
    np.testing.assert_array_equal(*seen)
    assert seen[0].sum() > N


def test_what_is_kept_does_not_grow_with_synapses():
    few, many = (nj.procedural(KEY, 1000, 10**6, density) for density in (1e-6, 1.0))
    assert nj.nbytes(few) == nj.nbytes(many) == 8
    assert many.n_synapses == 10**9


SEED = jnp.ones(2, jnp.uint32)
LOOP = {"pre": "cells", "post": "cells", "connectivity": drawn()}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nj.Projection(**LOOP, w=W), ValueError,
         r"plastic must be False .*: pass plastic=False, or connectivity.stored\(\) to learn"),
        (lambda: nj.Projection(**LOOP, w=W, rule=nj.STDP()), ValueError, "plastic must be False"),
        (lambda: nj.Projection(**LOOP, plastic=False), ValueError, "w must be given where syn"),
        (lambda: nj.Projection(**LOOP, plastic=False, w=W[:3]), ValueError, "w must have shape"),
        (lambda: drawn().outer(E, S), ValueError, r"cannot learn: .* connectivity.stored\(\)"),
        (lambda: nj.ideal()(W, drawn(), KEY).outer(E, S), ValueError, "cannot learn"),
        (lambda: drawn().apply(W, S[:3]), ValueError, r"s must have shape \(400,\); got \(3,\)"),
        (lambda: drawn(spread=-1.0), ValueError, r"spread must be one number in \[0, 1e6\]"),
        (lambda: drawn(density=0.0), ValueError, r"density must be in \(0, 1\]; got 0"),
        (lambda: nj.procedural(KEY, 3, 4, 0.5, autapses=False), ValueError, "autapses=False is"),
        (lambda: nj.procedural(KEY, 10**6, 10**6, 0.5).stored(), ValueError, "would take|at most"),
        (lambda: nj.procedural(0, 3, 4, 0.5), TypeError, "key must be"),
        (lambda: nj.Procedural(SEED, None, 9, 5, 6), ValueError, "k must be <= 5, .*; got 6"),
        (lambda: nj.Procedural(SEED, None, 9, 9, 9, False), ValueError, "k must be <= 8, "),
        (lambda: nj.Procedural(SEED, None, 9, 5, 2, False), ValueError, "autapses=False is for"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_refuses_what_it_cannot_do(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_step_is_refused_by_what_it_would_take(monkeypatch):
    """Weights and spikes of 10^8 senders, currents of as many receivers, four bytes each."""
    monkeypatch.setattr(_memory, "memory", lambda: 10**9)
    with pytest.raises(
        ValueError, match="100000000 neurons would take 1.2 GB; this machine has 1 GB"
    ):
        nj.Procedural(SEED, None, 10**8, 10**8, 1)


def test_another_seed_compiles_nothing_anew():
    traces = []

    @jax.jit
    def current(wiring):
        traces.append(wiring)
        return wiring.apply(W, S)

    one, other = (current(drawn(key=jax.random.key(k))) for k in (1, 2))
    assert len(traces) == 1
    assert (np.asarray(one) != np.asarray(other)).any()


def test_lists_of_large_populations_are_stored_in_three_bytes():
    wiring = nj.procedural(KEY, 3, 10**5, 1e-4)
    stored = wiring.stored()
    assert stored.index.shape == (30, 3)
    np.testing.assert_array_equal(stored.edges().post, wiring.edges().post)
