"""Forward-forward: each layer's own loss, hard negatives, and decisions by goodness."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax.learning import ForwardForward

KEY, SIZES, Y, WRONG = jax.random.key(0), (5, 7, 6, 8, 3), np.array([0, 2, 1]), np.array([1, 0, 2])
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def learner(lr=0.1, sizes=SIZES, **options):
    return ForwardForward(sizes, optax.sgd(lr), **options)


def drawn(net):
    """A state whose biases and readout are not 0, so that they are seen."""
    state, noise = net.init(KEY), np.random.default_rng(0)
    moved = {
        n: w.program(jnp.asarray(0.1 * noise.normal(size=w.w.shape), w.w.dtype))
        for n, w in state.weights.items()
    }
    return state._replace(weights=moved)


def samples():
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)), float)


def losses(numbers, x, label, side, theta):
    """Of each layer, written from the paper for JAX to differentiate; nothing is cut between."""
    s, found = jnp.concatenate([x, label], 1), []
    for name in ("w1", "w2", "w3"):
        s = s / (jnp.sqrt((s**2).mean(1, keepdims=True)) + 1e-8)
        if found:
            s = jax.lax.stop_gradient(s)
        h = jax.nn.relu(s @ numbers[name][:, :-1].T + numbers[name][None, :, -1])
        found.append(jax.nn.softplus(-side * ((h**2).sum(1) - theta * h.shape[1])).mean())
        s = h
    return jnp.stack(found)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_each_layer_descends_its_own_loss_and_asks_nothing_of_others():
    net = learner(theta=0.3)
    state, x = drawn(net), samples()
    named = quick(lambda w: net.changes(w, x, jnp.asarray(Y), jnp.asarray(WRONG), key=KEY))(
        state.weights
    )
    numbers = {n: state.weights[n].w for n in ("w1", "w2", "w3")}
    label, side = jnp.eye(3)[np.concatenate([Y, WRONG])], jnp.repeat(jnp.array([1.0, -1.0]), 3)
    both = jnp.concatenate([x, x])
    found = quick(jax.jacrev(lambda n: losses(n, both, label, side, 0.3)))(numbers)
    for i, name in enumerate(("w1", "w2", "w3")):
        assert np.abs(named[name]).max() > 1e-3
        np.testing.assert_allclose(named[name], -found[name][i], rtol=1e-9, atol=1e-13)
        np.testing.assert_array_equal(np.delete(found[name], i, axis=0), 0)


def test_what_lies_above_changes_nothing_below():
    net = learner()
    state, x = drawn(net), samples()
    run = quick(lambda w: net.changes(w, x, jnp.asarray(Y), jnp.asarray(WRONG), key=KEY))
    top = state.weights["w3"]
    base, other = run(state.weights), run(state.weights | {"w3": top.program(3 * top.w)})
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(base[name], other[name])
    assert not np.allclose(base["w3"], other["w3"])


def test_goodness_does_not_pass_a_norm():
    net = learner()
    state, x = drawn(net), samples()
    plain = {
        n: eqx.tree_at(lambda a: a.w, w, w.w.at[:, -1].set(0)) for n, w in state.weights.items()
    }
    first = plain["w1"]
    told = jnp.eye(3)[Y]
    _, h = net.climbed(plain, x, told)
    _, louder = net.climbed(plain | {"w1": first.program(4 * first.w)}, x, told)
    np.testing.assert_allclose(louder[0], 5 * h[0], rtol=1e-5)
    for a, b in zip(h[1:], louder[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_decision_is_the_label_of_most_goodness_above_the_first_layer():
    net = learner()
    state, x = drawn(net), samples()
    scores = np.asarray(net.predict(state, x))
    w = {n: np.asarray(a.w, float) for n, a in state.weights.items()}
    for label in range(3):
        s, total = np.hstack([x, np.tile(np.eye(3)[label], (3, 1))]), 0
        for i, name in enumerate(("w1", "w2", "w3")):
            s = s / np.sqrt((s**2).mean(1, keepdims=True))
            s = np.maximum(s @ w[name][:, :-1].T + w[name][:, -1], 0)
            total = total + ((s**2).sum(1) - s.shape[1] if i else 0)
        np.testing.assert_allclose(scores[:, label], total, rtol=1e-4, atol=1e-5)


def test_wrong_labels_are_wrong_and_as_hard_as_the_readout_finds_them():
    net, n = learner(), 20_000
    scores = jnp.tile(jnp.log(jnp.array([0.5, 0.4, 0.1])), (n, 1))
    found = np.asarray(net.wrong(scores, jnp.zeros(n, int), key=KEY))
    assert not (found == 0).any()
    # 4 standard errors of a share of n
    assert (found == 1).mean() == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / n) ** 0.5)


def test_the_readout_learns_from_neutral_labels_by_its_own_error():
    net = learner()
    state, x = drawn(net), samples()
    after, _ = quick(lambda s: net.step(s, x, jnp.asarray(Y), key=KEY))(state)
    _, h = net.climbed(state.weights, x, jnp.full((3, 3), 1 / 3))
    rms = [np.sqrt((np.asarray(a) ** 2).mean(1, keepdims=True)) for a in h[1:]]
    assert (rms[0] > 0).all()
    seen = np.hstack([a / np.maximum(r, 1e-8) for a, r in zip(h[1:], rms, strict=True)])
    seen = np.hstack([seen, np.ones((3, 1))])
    v = np.asarray(state.weights["readout"].w)
    p = np.exp(seen @ v.T)
    e = p / p.sum(1, keepdims=True) - np.eye(3)[Y]
    moved = np.asarray(after.weights["readout"].w) - v
    np.testing.assert_allclose(moved, -0.1 * e.T @ seen / 3, rtol=1e-3, atol=1e-6)


def test_it_learns_without_derivatives_or_backward_reads(no_derivatives, one_way):
    net, y = learner(0.03, (6, 32, 32, 3)), np.arange(30) % 3
    x = np.random.default_rng(1).normal(size=(3, 6))[y]
    x = jnp.asarray(x + 0.3 * np.random.default_rng(2).normal(size=(30, 6)), float)

    @quick
    def trained(key):
        state = net.init(key, one_way)
        keys = jax.random.split(KEY, 150)
        return jax.lax.scan(lambda s, k: net.step(s, x, jnp.asarray(y), key=k), state, keys)

    state, info = trained(KEY)
    assert info["accuracy"][-1] > 0.95
    assert (net.predict(state, x).argmax(1) == y).mean() > 0.95


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match=r"sizes must be .*three or more, with a hidden layer; got"
    ):
        learner(sizes=(5, 3))
    with pytest.raises(ValueError, match="theta must be finite and > 0; got 0.0"):
        learner(theta=0.0)
    with pytest.raises(TypeError, match="tx must have init, update; got float 0.1"):
        ForwardForward(SIZES, 0.1)
    net = learner()
    state = net.init(KEY)
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        net.predict(state, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\), as there are 3 classes; got 3"):
        net.step(state, jnp.ones((1, 5)), jnp.array([3]), key=KEY)
