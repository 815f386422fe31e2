"""Perceptrons and the rules that they learn by."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import perceptron


def cross_entropy(net, state, x, y):
    """The loss as a function of the arrays' numbers, for JAX to differentiate."""

    def loss(numbers):
        held = {n: eqx.tree_at(lambda a: a.w, w, numbers[n]) for n, w in state.weights.items()}
        scores = net.passed(list(held.values()), x).scores
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    return loss, {n: w.w for n, w in state.weights.items()}


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "elu", "tanh", "sigmoid"])
def test_backpropagation_by_hand_is_the_gradient(activation):
    phi = getattr(perceptron, activation)
    net = nj.learning.Perceptron((5, 7, 6, 3), nj.learning.Backprop(), optax.sgd(0.1), phi)
    state = net.init(jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (4, 5)), jnp.array([0, 2, 1, 2])
    loss, numbers = cross_entropy(net, state, x, y)
    dw, _ = net.rule(net, list(state.weights.values()), None, x, y, key=jax.random.key(2))
    for name, asked, g in zip(numbers, dw, jax.grad(loss)(numbers).values(), strict=True):
        np.testing.assert_allclose(asked, -g, rtol=1e-5, atol=1e-7, err_msg=name)


def test_direct_feedback_reaches_each_layer_by_its_own_matrix():
    net = nj.learning.Perceptron((5, 7, 6, 3), nj.learning.DFA(), optax.sgd(0.1))
    state = net.init(jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (4, 5)), jnp.array([0, 2, 1, 2])
    dw, scores = net.rule(
        net, list(state.weights.values()), state.fixed, x, y, key=jax.random.key(2)
    )
    w = [np.asarray(a.w) for a in state.weights.values()]
    a, zs = np.asarray(x), []
    inputs = []
    for each in w:
        inputs.append(np.hstack([a, np.ones((4, 1))]))
        zs.append(inputs[-1] @ each.T)
        a = np.maximum(zs[-1], 0)
    p = np.exp(zs[-1]) / np.exp(zs[-1]).sum(1, keepdims=True)
    e = p - np.eye(3)[np.asarray(y)]
    for i in range(2):
        delta = e @ np.asarray(state.fixed[i]).T * (zs[i] > 0)
        np.testing.assert_allclose(dw[i], -delta.T @ inputs[i] / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dw[2], -e.T @ inputs[2] / 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [((5,), r"sizes must be \(n_in, ..., n_classes\)"), ((5, 0), "sizes must be"), (5, "sizes")],
)
def test_sizes_are_refused(sizes, told):
    with pytest.raises(ValueError, match=told):
        nj.learning.Perceptron(sizes, nj.learning.DFA(), optax.sgd(0.1))


def test_samples_of_another_size_are_refused():
    net = nj.learning.Perceptron((5, 3), nj.learning.DFA(), optax.sgd(0.1))
    state = net.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        net.predict(state, jnp.ones((2, 6)))
