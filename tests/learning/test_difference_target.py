"""Difference target propagation: targets, inverses, and losses that are a layer's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import DifferenceTarget
from neurojax.learning.perceptron import Activation

KEY, Y = jax.random.key(0), np.array([0, 2, 1, 2])
SIZES = (5, 7, 6, 4, 3)
LINEAR = Activation(lambda z: z, jnp.ones_like)
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def learner(sizes=SIZES, lr=0.1, **options):
    return DifferenceTarget(sizes, optax.sgd(lr), **options)


def drawn(net):
    """A state with biases that are not 0, so that they are seen."""
    state, noise = net.init(KEY), np.random.default_rng(0)
    moved = {
        n: w.program(jnp.asarray(0.1 * noise.normal(size=w.w.shape), w.w.dtype))
        for n, w in state.weights.items()
    }
    return state._replace(weights=moved)


def samples():
    return jnp.asarray(np.random.default_rng(1).normal(size=(4, 5)), float), jnp.asarray(Y)


def told(net, state):
    """What a batch did, and the targets."""
    x, y = samples()

    def run(w):
        seen = net._passed(w, x, None)
        return seen, net.targets(w, seen, y, key=KEY)

    return quick(run)(state.weights)


def layer(w, a, phi=np.tanh):
    return phi(np.hstack([a, np.ones((len(a), 1))]) @ w.T)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_targets_are_those_of_the_equations():
    net = learner(step_size=0.3)
    state = drawn(net)
    w = {n: np.asarray(a.w) for n, a in state.weights.items()}
    a = [np.asarray(samples()[0])]
    for i in (1, 2, 3):
        a.append(layer(w[f"w{i}"], a[-1]))
    z = layer(w["w4"], a[3], np.asarray)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    t3 = a[3] - 0.3 * (p - np.eye(3)[Y]) @ w["w4"][:, :-1]
    t2 = a[2] + layer(w["v3"], t3) - layer(w["v3"], a[3])
    t1 = a[1] + layer(w["v2"], t2) - layer(w["v2"], a[2])
    for found, t in zip(told(net, state)[1], (t1, t2, t3), strict=True):
        np.testing.assert_allclose(found, t, rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_exact_inverses_give_targets_that_a_linear_net_turns_into_each_other():
    net = learner((5, 6, 6, 6, 3), activation=LINEAR, step_size=0.7)
    state = drawn(net)
    inverted = {}
    for i in (2, 3):
        w = np.asarray(state.weights[f"w{i}"].w)
        back = np.linalg.inv(w[:, :-1])
        v = np.hstack([back, -back @ w[:, -1:]])
        inverted[f"v{i}"] = nj.Ideal(jnp.asarray(v), state.weights[f"v{i}"].connectivity)
    state = state._replace(weights=state.weights | inverted)
    _, targets = told(net, state)
    w = {n: np.asarray(a.w) for n, a in state.weights.items()}
    for i in (2, 3):  # the target of a layer is what gives the target of the next
        got = layer(w[f"w{i}"], np.asarray(targets[i - 2]), np.asarray)
        np.testing.assert_allclose(got, targets[i - 1], rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_a_layer_whose_next_one_is_right_is_right_too():
    """However wrong an inverse is, for then its two readings are one."""
    net = learner()
    state = drawn(net)
    still = state._replace(
        weights=state.weights | {"w4": state.weights["w4"].program(-state.weights["w4"].w)}
    )
    seen, targets = told(net, still)
    for z, t in zip(seen.z[:-1], targets, strict=True):
        np.testing.assert_allclose(t, np.tanh(z), rtol=1e-12)


def local_losses(w, seen, targets, noisy, y):
    """Of each array, written from the paper for JAX to differentiate."""
    one = lambda a: jnp.concatenate([a, jnp.ones((len(a), 1))], 1)  # noqa: E731
    found = {}
    for i, t in enumerate(targets, 1):
        a = jnp.tanh(seen.inputs[i - 1] @ w[f"w{i}"].T)
        found[f"w{i}"] = ((a - t) ** 2).sum(1).mean() / (2 * 0.3)
    scores = seen.inputs[-1] @ w["w4"].T
    found["w4"] = optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()
    for i, a in noisy.items():
        above = jax.lax.stop_gradient(jnp.tanh(one(a) @ w[f"w{i}"].T))
        found[f"v{i}"] = ((jnp.tanh(one(above) @ w[f"v{i}"].T) - a) ** 2).sum(1).mean() / 2
    return found


@pytest.mark.usefixtures("x64")
def test_each_array_descends_its_own_loss():
    net = learner(step_size=0.3, sigma=0.0)
    state, y = drawn(net), jnp.asarray(Y)
    seen, targets = told(net, state)
    found = quick(
        lambda w: net.forward_changes(w, seen, targets, y) | net.inverse_changes(w, seen, key=KEY)
    )(state.weights)
    noisy = {i: jnp.tanh(seen.z[i - 2]) for i in (2, 3)}
    numbers = {n: w.w for n, w in state.weights.items()}
    slopes = quick(jax.jacrev(lambda w: local_losses(w, seen, targets, noisy, y)))(numbers)
    assert found.keys() == slopes.keys()
    for name in found:
        np.testing.assert_allclose(found[name], -slopes[name][name], rtol=1e-9, atol=1e-13)
        assert not any(np.any(slopes[other][name]) for other in slopes if other != name)


@pytest.mark.usefixtures("x64")
def test_the_last_hidden_layer_learns_as_by_backpropagation():
    net = learner(step_size=1e-3)
    state, (x, y) = drawn(net), samples()
    seen, targets = told(net, state)
    found = net.forward_changes(state.weights, seen, targets, y)
    mlp = nj.learning.Perceptron(SIZES, nj.learning.Backprop(), net.tx, net.activation)
    arrays = [state.weights[f"w{i}"] for i in (1, 2, 3, 4)]
    true, _ = mlp.rule(mlp, arrays, None, x, y, key=KEY)
    for i in (3, 4):
        np.testing.assert_allclose(found[f"w{i}"], true[i - 1], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_noise_of_the_inverses_is_of_its_size():
    """A silent net asks each bias of an inverse for the mean of what it is shown, the noise."""
    net = learner((2, 3000, 2, 2), sigma=0.5)
    state = net.init(KEY, lambda w, wiring, _: nj.Ideal(0 * w, wiring))
    seen = net._passed(state.weights, jnp.ones((1, 2)), None)
    asked = np.asarray(net.inverse_changes(state.weights, seen, key=KEY)["v2"][:, -1])
    # of n normal numbers the spread is known to 1 / sqrt(2 n)
    assert asked.std() == pytest.approx(0.5, rel=4 / 6000**0.5)


@pytest.mark.slow
def test_it_learns_without_derivatives(no_derivatives):
    net, y = learner((6, 16, 12, 3), 0.3), np.arange(30) % 3
    x = np.random.default_rng(1).normal(size=(3, 6))[y]
    x = jnp.asarray(x + 0.3 * np.random.default_rng(2).normal(size=(30, 6)), float)

    @quick
    def trained(state):
        keys = jax.random.split(KEY, 100)
        return jax.lax.scan(lambda s, k: net.step(s, x, jnp.asarray(y), key=k), state, keys)

    first = net.init(KEY)
    state, info = trained(first)
    assert info["accuracy"][-1] > 0.95
    assert (net.predict(state, x).argmax(1) == y).mean() > 0.95

    def missed(state):
        a = jnp.tanh(net._passed(first.weights, x, None).z[0])
        above = jnp.tanh(net._passed(state.weights, x, None).z[1])
        a = jnp.tanh(net._passed(state.weights, x, None).z[0])
        return float(jnp.square(net.inverse(state.weights["v2"], above)[0] - a).mean())

    assert missed(state) < 0.7 * missed(first)


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match=r"sizes must be .*three or more, with a hidden layer; got"
    ):
        learner((5, 3))
    with pytest.raises(ValueError, match="step_size must be finite and > 0; got 0.0"):
        learner(step_size=0.0)
    with pytest.raises(ValueError, match="sigma must be finite and >= 0; got -1.0"):
        learner(sigma=-1.0)
    net = learner()
    state = net.init(KEY)
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        net.predict(state, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\), as there are 3 classes; got 3"):
        net.step(state, jnp.ones((1, 5)), jnp.array([3]), key=KEY)


def test_both_readings_of_an_inverse_have_noise_of_their_own(monkeypatch):
    net = DifferenceTarget((4, 5, 6, 3), optax.sgd(0.1))
    weights = net.init(jax.random.key(0)).weights
    seen = net._passed(weights, jnp.ones((2, 4)), None)
    noise = lambda self, v, a, key=None: (jax.random.normal(key, (2, 5)), None)  # noqa: E731
    monkeypatch.setattr(DifferenceTarget, "inverse", noise)
    low, _ = net.targets(weights, seen, jnp.array([0, 1]), key=jax.random.key(1))
    assert (low != net.activation.value(seen.z[0])).all()
