"""SoftHebb: soft competition, lengths that tend to 1, and labels at the readout alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import SoftHebb

KEY, SIZES, Y = jax.random.key(0), (5, 7, 6, 3), np.array([0, 2, 1, 2])
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def learner(sizes=SIZES, lr=0.1, **options):
    return SoftHebb(sizes, optax.sgd(lr), **options)


def samples():
    return jnp.asarray(np.random.default_rng(1).random((4, 5)), float), jnp.asarray(Y)


def holding(w):
    return nj.Ideal(jnp.asarray(w), nj.Dense(w.shape[1], w.shape[0]))


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.usefixtures("x64")
def test_changes_are_those_of_the_equations():
    net = learner(rate=0.03, power=0.4, tau=0.5)
    x, rng = np.asarray(samples()[0]), np.random.default_rng(2)
    w = rng.random((7, 5))
    found = net.change(holding(w), jnp.asarray(x), jnp.asarray(x @ w.T))
    dw = np.zeros((7, 5))  # of what is heard, whatever its length
    for a in x:
        u = w @ a
        y = softmax(u[None] / 0.5)[0]
        for i in range(7):
            for j in range(5):
                dw[i, j] += y[i] * (a[j] - u[i] * w[i, j]) / 4
    length = np.sqrt((w**2).sum(1, keepdims=True))
    expected = 0.03 * np.abs(length - 1) ** 0.4 * dw / np.abs(dw).max()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


@pytest.mark.usefixtures("x64")
def test_a_neuron_of_length_1_keeps_it_and_others_tend_to_it():
    """w . dw = mean y u (1 - |w|^2), which is 0 at length 1 whatever the input."""
    net, x = learner(), np.asarray(samples()[0])
    w = np.random.default_rng(2).random((7, 5))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    for length, sign in ((1.0, 0), (2.0, -1), (0.5, 1)):
        v = length * w
        dw = np.asarray(net.hebbian(holding(v), jnp.asarray(x), jnp.asarray(x @ v.T)))
        y, u = softmax(100 * x @ v.T), x @ v.T
        along = (v * dw).sum(1)
        np.testing.assert_allclose(along, (y * u).mean(0) * (1 - length**2), rtol=1e-9, atol=1e-15)
        assert (np.sign(along) == sign).all() if sign else (np.abs(along) < 1e-15).all()
    stays = net.change(holding(w), jnp.asarray(x), jnp.asarray(x @ w.T))
    assert np.abs(stays).max() < 0.045 * (1e-15) ** 0.2  # rate | |w| - 1 |^power, of a rounding


def test_lengths_converge_to_1():
    net = learner((16, 8, 3), radius=5.0, rate=0.05)
    state = net.init(KEY)
    x = jnp.asarray(np.random.default_rng(0).random((40, 16)), float)
    y = jnp.zeros(40, int)

    @quick
    def trained(state):
        keys = jax.random.split(KEY, 1500)
        return jax.lax.scan(lambda s, k: (net.step(s, x, y, key=k)[0], None), state, keys)[0]

    before = np.linalg.norm(state.weights["w1"].w, axis=1)
    after = np.linalg.norm(trained(state).weights["w1"].w, axis=1)
    assert before.min() > 3
    assert np.abs(after - 1).max() < 0.1


def test_each_layer_hears_the_soft_winners_below_at_length_1():
    net = learner(tau_out=0.3)
    state, (x, _) = net.init(KEY), samples()
    inputs, u = quick(lambda w: net.climbed(w, x))(state.weights)
    a = np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(inputs[0], a, rtol=1e-6)
    for i in (1, 2):
        z = a @ np.asarray(state.weights[f"w{i}"].w).T
        np.testing.assert_allclose(u[i - 1], z, rtol=1e-5)
        winners = softmax(z / 0.3)
        a = winners / np.sqrt((winners**2).sum(1, keepdims=True))
        np.testing.assert_allclose(inputs[i], a, rtol=1e-4, atol=1e-6)


def test_first_weights_have_their_length_and_no_sign():
    w = learner((300, 400, 3), radius=5.0).init(KEY).weights["w1"].w
    assert (w >= 0).all()
    # of a neuron's 300 squares, each of spread 0.89 of its mean, the length is known to 2.6%
    lengths = np.linalg.norm(w, axis=1)
    assert lengths.mean() == pytest.approx(5, rel=0.01)
    assert lengths.std() / 5 == pytest.approx(0.5 * 0.89 / 300**0.5, rel=0.2)


def test_labels_reach_the_readout_alone():
    net = learner()
    state, (x, y) = net.init(KEY), samples()
    step = quick(lambda s, y: net.step(s, x, y, key=KEY)[0])
    told, other = step(state, y), step(state, (y + 1) % 3)
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(told.weights[name].w, other.weights[name].w)
        assert not np.array_equal(told.weights[name].w, state.weights[name].w)
    assert not np.allclose(told.weights["readout"].w, other.weights["readout"].w)
    # the readout starts at 0, so that its scores are alike: it moves by 0.1 mean (y - 1/3) a
    inputs, _ = net.climbed(state.weights, x)
    seen = np.hstack([inputs[-1], np.ones((4, 1))])
    moved = 0.1 * (np.eye(3)[Y] - 1 / 3).T @ seen / 4
    np.testing.assert_allclose(told.weights["readout"].w, moved, rtol=1e-4, atol=1e-6)


def test_it_learns_without_derivatives_or_backward_reads(no_derivatives, one_way):
    net, y = learner((12, 24, 3), 1.0, radius=5.0), np.arange(30) % 3
    x = np.random.default_rng(1).random((3, 12))[y] > 0.5
    x = jnp.asarray(x + 0.2 * np.random.default_rng(2).random((30, 12)), float)

    @quick
    def trained(key):
        state = net.init(key, one_way)
        keys = jax.random.split(KEY, 300)
        return jax.lax.scan(lambda s, k: net.step(s, x, jnp.asarray(y), key=k), state, keys)

    state, info = trained(KEY)
    assert info["accuracy"][-1] > 0.95
    assert (net.predict(state, x).argmax(1) == y).mean() > 0.95


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match=r"sizes must be .*three or more, with a hidden layer; got"
    ):
        learner((5, 3))
    for name in ("rate", "tau", "tau_out", "radius"):
        with pytest.raises(ValueError, match=f"{name} must be finite and > 0; got 0"):
            learner(**{name: 0.0})
    with pytest.raises(ValueError, match="power must be finite and >= 0; got -1.0"):
        learner(power=-1.0)
    net = learner()
    state = net.init(KEY)
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        net.predict(state, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\), as there are 3 classes; got 3"):
        net.step(state, jnp.ones((1, 5)), jnp.array([3]), key=KEY)
