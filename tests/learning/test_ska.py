"""Structured knowledge accumulation: what it computes, and that it can't tell classes apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.learning import SKA
from neurojax.learning.ska import entropy, entropy_slope, lagrangian

KEY = jax.random.key(0)
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def digits():
    part = nj.data.load("digits").train
    first = np.concatenate([np.flatnonzero(part.labels == c)[:20] for c in range(10)])
    return part.images[first].reshape(200, 64), part.labels[first]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bits(d):
    return -(d * np.log2(d) + (1 - d) * np.log2(1 - d))


def loops(w, x, eta, n_passes):
    """The passes written out, from the equations alone: weights, z and h of every pass."""
    w, before, z_all, h_all = [a.copy() for a in w], None, [], []
    for _ in range(n_passes):
        d, z = [x], []
        for a in w:
            z.append(np.hstack([d[-1], np.ones((len(x), 1))]) @ a.T)
            d.append(sigmoid(z[-1]))
        if before is not None:
            h_all.append([])
            for i, a in enumerate(w):
                change = d[i + 1] - before[i + 1]
                h_all[-1].append(-(z[i] * change).sum() / np.log(2))
                g = -(z[i] * d[i + 1] * (1 - d[i + 1]) + change) / np.log(2)
                below = np.hstack([before[i], np.ones((len(x), 1))])
                a -= eta / len(x) * g.T @ below
        before = d
        z_all.append(z)
    return w, z_all, np.array(h_all)


@functools.cache
def passed(eta, n_passes, sizes=(64, 24, 12, 10)):
    """A run over the digits: learner, states before and after, trace."""
    learner = SKA(sizes, eta, n_passes, std=0.03)

    @quick
    def both(key, x):
        state = learner.init(key)
        return state, *learner.run(state, x, key=key)

    return learner, *both(KEY, jnp.asarray(digits()[0], float))


@pytest.mark.usefixtures("x64")
def test_passes_are_the_loops_written_out():
    learner = SKA((5, 7, 4, 3), eta=0.3, n_passes=9, std=0.5)
    x = jnp.asarray(np.random.default_rng(0).random((6, 5)))

    @quick
    def both(key):
        state = learner.init(key)
        return state, *learner.run(state, x, key=key), learner.predict(state, x)

    state, after, trace, said = both(KEY)
    w, z, h = loops([np.asarray(a.w) for a in state.weights.values()], np.asarray(x), 0.3, 9)
    for mine, theirs in zip(after.weights.values(), w, strict=True):
        np.testing.assert_allclose(mine.w, theirs, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(trace.entropy, h, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(said, sigmoid(z[0][-1]), rtol=1e-12)
    norm = np.array([[np.linalg.norm(layer) for layer in of] for of in z])
    np.testing.assert_allclose(trace.norm, norm[1:], rtol=1e-10)
    for i in range(3):
        dz = [z[k][i] - z[k - 1][i] for k in range(1, 9)]
        dd = [sigmoid(z[k][i]) - sigmoid(z[k - 1][i]) for k in range(1, 9)]
        np.testing.assert_allclose(
            trace.flow[:, i], [np.linalg.norm(v) / 0.3 for v in dz], rtol=1e-9, atol=1e-13
        )
        turned = [(z[k][i] * v).sum() for k, v in enumerate(dd, 1)]
        size = [norm[k, i] * np.linalg.norm(v) for k, v in enumerate(dd, 1)]
        np.testing.assert_allclose(trace.cosine[1:, i], np.divide(turned[1:], size[1:]), rtol=1e-9)
    np.testing.assert_array_equal(trace.cosine[0, 0], 0)  # nothing changes before the first change


@pytest.mark.usefixtures("x64")
def test_the_slope_is_that_of_the_entropy_with_past_decisions_held():
    rng = np.random.default_rng(0)
    z, before = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.random((4, 3)))
    slope = jax.grad(lambda z: entropy(z, before))(z)
    np.testing.assert_allclose(entropy_slope(z, before), slope, rtol=1e-12)


def path_error(eta, n_passes):
    """Of the summed entropy, against that of its ends; and of the tensor net likewise."""
    learner, state, _, trace = passed(eta, n_passes)
    x = np.asarray(digits()[0], float)
    w = [np.asarray(a.w, float) for a in state.weights.values()]
    _, z, _ = loops(w, x, eta, n_passes)
    h = np.array(
        [(bits(sigmoid(b)) - bits(sigmoid(a))).sum() for a, b in zip(z[0], z[-1], strict=True)]
    )
    soft = np.array(
        [(np.logaddexp(0, b) - np.logaddexp(0, a)).sum() for a, b in zip(z[0], z[-1], strict=True)]
    )
    sums = np.asarray(trace.entropy, float).sum(0), np.asarray(trace.net, float).sum(0)
    return np.abs(sums[0] / h - 1), np.abs(sums[1] / (soft - h) - 1)


@pytest.mark.slow
def test_what_is_accumulated_depends_on_the_ends_alone_to_first_order():
    """Half the step at twice the passes: half the error, of entropy and net, in every layer."""
    coarse, fine = path_error(0.04, 40), path_error(0.02, 80)
    for before, after in zip(coarse, fine, strict=True):
        assert after.max() < 0.15
        np.testing.assert_allclose(after / before, 0.5, atol=0.1)


@pytest.mark.usefixtures("x64")
def test_any_curve_obeys_the_equation_of_the_lagrangian():
    """d/dt dL/dv = dL/dz holds for a random curve: it says nothing about learning."""
    amplitude, phase = np.random.default_rng(0).normal(size=(2, 5))
    z = lambda t: (amplitude * jnp.sin(jnp.arange(1.0, 6) * t + phase)).sum()  # noqa: E731
    by_velocity = jax.grad(lagrangian, 1)
    left = jax.grad(lambda t: by_velocity(z(t), jax.grad(z)(t)))
    right = lambda t: jax.grad(lagrangian)(z(t), jax.grad(z)(t))  # noqa: E731
    times = jnp.linspace(0.0, 3.0, 7)
    held = jax.vmap(right)(times)
    assert np.abs(held).max() > 0.1
    np.testing.assert_allclose(jax.vmap(left)(times), held, rtol=1e-9, atol=1e-11)


def refuse(*arguments, **options):
    raise AssertionError("neither derivatives nor backward reads")


def test_labels_change_nothing_and_no_derivative_is_taken(monkeypatch, no_derivatives):
    monkeypatch.setattr(nj.Ideal, "apply_t", refuse)
    x, y = (jnp.asarray(a) for a in digits())
    learner = SKA((64, 4), n_passes=3)
    step = quick(lambda key, y: learner.step(learner.init(key), x, y, key=key))
    (state, info), (other, _) = step(KEY, y), step(KEY, jnp.roll(y, 7))
    np.testing.assert_array_equal(state.weights["w1"].w, other.weights["w1"].w)
    assert info["entropy"] < 0


def test_first_weights_have_their_deviation_and_pictures_are_read_as_rows():
    learner = SKA((64, 100), n_passes=3, std=0.03)
    state = learner.init(KEY)
    w = np.asarray(state.weights["w1"].w)
    assert w[:, :-1].std() == pytest.approx(0.03, rel=0.05)  # 4.5 errors of 6,400 draws
    assert not w[:, -1].any()
    x = jnp.asarray(digits()[0][:7])
    run = quick(lambda x: learner.run(state, x, key=KEY)[1].entropy)
    np.testing.assert_array_equal(run(x.reshape(7, 8, 8)), run(x))


def test_it_does_not_classify():
    """Every input gets the same answer, and what the last layer knew of the classes goes."""
    learner, state, after, _ = passed(0.05, 150)
    x, y = digits()
    said = quick(lambda state: learner.decisions(state, jnp.asarray(x)))
    assert len(np.unique(said(after)[-1].argmax(1))) == 1
    told = np.eye(10)[y]

    def known(d):  # by the best linear readout of these very samples
        d = np.hstack([np.asarray(d, float), np.ones((200, 1))])
        w = np.linalg.solve(d.T @ d + 1e-6 * np.eye(d.shape[1]), d.T @ told)
        return ((d @ w).argmax(1) == y).mean()

    before, now = ([known(d) for d in said(s)] for s in (state, after))
    assert before[1] > now[1] + 0.2
    assert before[2] > now[2] + 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"sizes must be \(n_in, ..., n_classes\).*got \(5,\)"):
        SKA((5,))
    with pytest.raises(ValueError, match=r"eta must be finite and >= 0; got -0.01"):
        SKA((5, 3), eta=-0.01)
    with pytest.raises(ValueError, match="n_passes must be a whole number >= 2; got 1"):
        SKA((5, 3), n_passes=1)
    with pytest.raises(ValueError, match="std must be finite and > 0; got 0.0"):
        SKA((5, 3), std=0.0)
    learner = SKA((5, 3))
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        learner.step(learner.init(KEY), jnp.ones((2, 4)), key=KEY)
