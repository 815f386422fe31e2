"""Counter-current learning: each level's own loss, and that nothing else reaches it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax.learning import CounterCurrent

SIZES = (5, 7, 6, 8, 3)
L = len(SIZES) - 1
KEY = jax.random.key(0)
LEARNER = CounterCurrent(SIZES, optax.sgd(1.0))
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
deltas = quick(lambda state, x, y: LEARNER.deltas(state, x, y)[0])
prototypes = quick(lambda state: LEARNER.prototypes(state))
drawn = functools.cache(lambda: quick(lambda key: LEARNER.init(key))(KEY))


def batch():
    """Four samples and their labels, in the precision that there is."""
    x = np.random.default_rng(0).normal(size=(4, 5))
    return jnp.asarray(x, float), jnp.array([0, 2, 1, 2])


def numbers(state):
    return {name: w.w for name, w in state.weights.items()}


def holding(state, changed):
    """The state with other numbers in some of its arrays."""
    held = {n: eqx.tree_at(lambda a: a.w, state.weights[n], w) for n, w in changed.items()}
    return state._replace(weights=state.weights | held)


def unit(x):
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def losses(w, x, y, normalised):
    """L_0 to L_(L-1) and the cross-entropy, written from the paper for JAX to differentiate."""
    a, b, cut = [x], [jnp.eye(3)], jax.lax.stop_gradient
    for i in range(1, L + 1):
        z = cut(a[-1]) @ w[f"u{i}"].T
        a.append(jax.nn.elu(z) if i < L else z)
    for i in range(L, 0, -1):
        z = cut(b[0]) @ w[f"v{i}"].T
        b.insert(0, jax.nn.elu(z) if i > 1 else z)
    told = jnp.eye(3)[y]
    meet = []
    for p, q in zip(a[:L], b[:L], strict=True):
        if normalised:
            meet.append(jnp.mean((unit(p) @ unit(q).T - told) ** 2))
        else:
            meet.append(128 / p.shape[1] * jnp.mean((p @ q.T - told) ** 2))
    return [*meet, optax.softmax_cross_entropy(a[L], told).mean()]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("normalised", [False, True])
def test_each_array_descends_the_loss_of_its_own_level_alone(normalised):
    learner = CounterCurrent(SIZES, optax.sgd(1.0), mean=0.1, std=0.5, normalised=normalised)
    x, y = batch()
    state = quick(lambda key: learner.init(key))(KEY)
    dw, scores = quick(lambda state: learner.deltas(state, x, y))(state)
    assert scores.shape == (4, 3)

    def of_levels(w):
        return jnp.stack(losses(w, (x - 0.1) / 0.5, y, normalised))

    levels = quick(of_levels)
    own, base = quick(jax.jacrev(of_levels))(numbers(state)), levels(numbers(state))
    for i in range(1, L + 1):
        for name, level in ((f"u{i}", i), (f"v{i}", i - 1)):
            np.testing.assert_allclose(dw[name], -own[name][level], rtol=1e-10, atol=1e-14)
            others = np.delete(np.asarray(own[name]), level, axis=0)
            np.testing.assert_array_equal(others, 0)  # no level above or below asks for anything
        # although the losses above do depend on what lies below
        moved = levels(numbers(state) | {f"u{i}": 1.5 * numbers(state)[f"u{i}"]}) - base
        assert (np.abs(moved) > 1e-6).tolist() == [level >= i for level in range(L + 1)]


def test_no_error_is_sent_back():
    """What an array is asked for knows of the arrays below it, and of one prototype a class."""
    state, (x, y) = drawn(), batch()
    base, blind = deltas(state, x, y), prototypes(state)
    for level in range(1, L):
        above = {f"u{i}": 9 * state.weights[f"u{i}"].w for i in range(level + 1, L + 1)}
        other = holding(state, above)
        assert all(map(np.array_equal, prototypes(other), blind))
        same = deltas(other, x, y)
        for i in range(1, level + 1):
            np.testing.assert_array_equal(base[f"u{i}"], same[f"u{i}"])
            np.testing.assert_array_equal(base[f"v{i}"], same[f"v{i}"])
    forward = {n: 9 * w.w for n, w in state.weights.items() if n.startswith("u")}
    assert all(map(np.array_equal, prototypes(holding(state, forward)), blind))


@pytest.mark.slow
def test_it_learns_without_derivatives_or_backward_reads(no_derivatives, one_way):
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    learner = CounterCurrent((6, 16, 16, 3), tx)
    state = quick(lambda key: learner.init(key, one_way))(KEY)
    centres = np.random.default_rng(1).normal(size=(3, 6))
    y = jnp.arange(30) % 3
    x = jnp.asarray(centres[y] + 0.3 * np.random.default_rng(2).normal(size=(30, 6)), float)
    first = learner.alignment(state)
    step = quick(lambda state: learner.step(state, x, y, key=KEY))
    for _ in range(40):
        state, info = step(state)
    assert info["accuracy"] > 0.95
    assert (learner.predict(state, x).argmax(1) == y).mean() > 0.95
    # each net becomes the other's mirror
    assert (learner.alignment(state) - first).min() > 0.05
    assert learner.alignment(state)[-1] > 0.6


def test_permuted_classes_permute_prototypes_and_learn_the_same():
    state, order = drawn(), jnp.array([2, 0, 1])
    turned = holding(
        state,
        {f"u{L}": state.weights[f"u{L}"].w[order], f"v{L}": state.weights[f"v{L}"].w[:, order]},
    )
    (x, y), place = batch(), jnp.argsort(order)  # where a class has gone
    step = quick(lambda state, y: LEARNER.step(state, x, y, key=KEY)[0])
    for _ in range(3):
        state, turned = step(state, y), step(turned, place[y])
    for mine, theirs in zip(prototypes(state), prototypes(turned), strict=True):
        np.testing.assert_allclose(mine[order], theirs, rtol=2e-5, atol=1e-6)
    scores = quick(lambda state: LEARNER.predict(state, x))
    np.testing.assert_allclose(scores(state)[:, order], scores(turned), rtol=2e-5, atol=1e-6)


def test_one_clip_holds_a_whole_net():
    """A clip by global norm scales all arrays of a net alike, and not those of the other."""
    state, (x, y) = drawn(), batch()
    dw = deltas(state, 3 * x, y)
    squares = {n: np.square(w).sum() for n, w in dw.items()}
    norm = {net: sum(s for n, s in squares.items() if n[0] == net) ** 0.5 for net in "uv"}
    limit = 0.5 * min(norm.values())
    tx = optax.chain(optax.clip_by_global_norm(limit), optax.sgd(1.0))
    clipped = CounterCurrent(SIZES, tx)
    fresh = state._replace(opt_state={net: tx.init({}) for net in "uv"})
    after = quick(lambda state: clipped.step(state, 3 * x, y, key=KEY)[0])(fresh)
    for name, w in numbers(after).items():
        moved = w - state.weights[name].w
        np.testing.assert_allclose(moved, dw[name] * limit / norm[name[0]], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("frozen", "learns"),
    [
        ("nothing", {f"{n}{i}" for n in "uv" for i in range(1, L + 1)}),
        ("feedback", {f"u{i}" for i in range(1, L + 1)}),
        ("hidden", {f"u{L}"} | {f"v{i}" for i in range(1, L + 1)}),
    ],
)
def test_the_controls_freeze_what_they_say(frozen, learns):
    learner, state = CounterCurrent(SIZES, optax.sgd(1.0), frozen=frozen), drawn()
    x, y = batch()
    after = quick(lambda state: learner.step(state, x, y, key=KEY)[0])(state)
    changed = {n for n, w in numbers(after).items() if np.any(w != state.weights[n].w)}
    assert changed == learns


def test_bad_input_is_refused():
    tx = optax.sgd(1.0)
    with pytest.raises(ValueError, match=r"sizes must be \(n_in, ..., n_classes\).*got \(5,\)"):
        CounterCurrent((5,), tx)
    with pytest.raises(ValueError, match="frozen must be 'nothing' or 'feedback' or 'hidden'; got"):
        CounterCurrent(SIZES, tx, frozen="all")
    with pytest.raises(ValueError, match=r"std must be finite and > 0; got 0.0"):
        CounterCurrent(SIZES, tx, std=0.0)
    with pytest.raises(TypeError, match="tx must have init, update; got float 0.1"):
        CounterCurrent(SIZES, 0.1)
    learner, state = LEARNER, drawn()
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        learner.predict(state, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\), as there are 3 classes; got 3"):
        learner.step(state, jnp.ones((1, 5)), jnp.array([3]), key=KEY)


@pytest.mark.slow
def test_levels_are_those_of_the_equations():
    net = CounterCurrent((4, 5, 6, 3), optax.sgd(1.0))
    state, elu = net.init(jax.random.key(0)), lambda z: np.where(z > 0, z, np.expm1(z))
    w = {n: np.asarray(a.w, float) for n, a in state.weights.items()}
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    y = jnp.arange(7) % 3
    b2 = elu(w["v3"].T)
    b1 = elu(b2 @ w["v2"].T)
    for found, b in zip(net.prototypes(state), (b1 @ w["v1"].T, b1, b2), strict=True):
        np.testing.assert_allclose(found, b, rtol=1e-4, atol=1e-6)  # the lowest is linear
    z1 = x @ w["u1"].T
    z2 = elu(z1) @ w["u2"].T
    e = elu(z2) @ b2.T - np.eye(3)[np.asarray(y)]
    told = 2 * 128 / 6 / 7 / 3 * (e @ b2) * np.where(z2 > 0, 1, np.exp(z2))
    dw, _ = net.deltas(state, jnp.asarray(x), y)
    np.testing.assert_allclose(dw["u2"], -told.T @ elu(z1), rtol=1e-3, atol=1e-5)
