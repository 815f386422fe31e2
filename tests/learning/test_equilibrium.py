"""Equilibrium propagation: what a nudge moves, against the derivative that it stands for."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware as hw
from neurojax.learning import equilibrium as ep
from neurojax.learning.learner import Learner

SIZES, N = (5, 8, 6, 4), 18  # states
X, Y = np.random.default_rng(0).random(5), 1
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def net(**given):
    """Settles to rounding."""
    long = {"t_free": 400, "t_nudged": 400, "tol": 1e-15, "gain": 1.0}
    return ep.Equilibrium(SIZES, optax.sgd(1.0), **(long | given))


def coupling(weights):
    """W [18, 18] of all layers, as a matrix: row receives, column sends."""
    w, ends = np.zeros((N, N)), np.cumsum([0, *SIZES[1:]])
    rows = [slice(*e) for e in zip(ends, ends[1:], strict=False)]
    for i in (1, 2):
        up = np.asarray(weights[f"w{i + 1}"].w)[:, :-1]
        w[rows[i], rows[i - 1]] = up
        w[rows[i - 1], rows[i]] = np.asarray(weights[f"v{i}"].w) if f"v{i}" in weights else up.T
    return w


@functools.cache
def errors(tied, n_points):
    """Weights, u, dr/dbeta at several sizes of the nudge, and delta, in double precision."""
    with jax.enable_x64(True):
        one = net(n_points=n_points, tied=tied, angle=0.0 if tied else 60.0)
        weights = one.init(jax.random.key(0)).weights

        @quick
        def both(betas):
            u = one.settled(weights, jnp.asarray(X)).state
            sized = jax.vmap(lambda b: eqx.tree_at(lambda e: e.beta, one, b))(betas)
            moved = jax.vmap(lambda e: e.response(weights, jnp.asarray(X), jnp.asarray(Y), u))
            return u, moved(sized), one.adjoint(weights, jnp.asarray(Y), u)

        return weights, *both(jnp.asarray(BETAS))


BETAS = [0.025, 0.05, 0.2]


def joined(states):
    return np.concatenate([np.asarray(s) for s in states], -1)


def far(a, b):
    return np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b)


# What the error is allowed at |beta| = .05, for 1, 2, 4, 6 and 8 points.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_points", "most"), [(1, 7e-2), (2, 7e-3), (4, 2e-5), (6, 3e-6), (8, 9e-8)]
)
def test_n_points_leave_an_error_of_order_n(n_points, most):
    _, _, moved, delta = errors(True, n_points)
    found = far(joined(moved), joined(delta))
    assert found[1] < most
    # what is left is c beta^N (1 + O(beta)), down to rounding over the size of the nudge
    small, middle, large = np.maximum(found, 1e-12)
    assert np.log(large / middle) / np.log(4) > min(0.95 * n_points, 4.5)
    if n_points < 8:
        assert np.log(middle / small) / np.log(2) == pytest.approx(n_points, rel=0.1)


def test_the_rule_is_exact_for_polynomials_up_to_degree_n(x64):
    c = np.random.default_rng(1).normal(size=9)
    for n in (1, 2, 4, 6, 8):
        turns, shares = ep._circle(n, jnp.float64)
        z = 0.7 * np.asarray(turns)
        for beyond in (0.0, 1.0):
            f = np.polynomial.Polynomial([*c[: n + 1], beyond])
            rule = shares @ ((f(z) - f(0)) * np.conj(turns)).real / (0.7 * n)
            np.testing.assert_allclose(rule, c[1] + beyond * 0.7**n, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["dsilu", "steep_sigmoid"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_adjoint_is_the_derivative_by_each_array(x64, tied, activation):
    phi = getattr(ep, activation)
    one = net(tied=tied, angle=0.0 if tied else 60.0, exact=True, activation=phi, gain=0.7)
    state = one.init(jax.random.key(0))
    x, y = jnp.asarray(np.random.default_rng(2).random((3, 5))), jnp.array([0, 3, 1])

    @quick
    def losses(directions):
        def loss(d):
            held = {n: eqx.tree_at(lambda a: a.w, w, w.w + d[n]) for n, w in state.weights.items()}
            scores = one.predict(state._replace(weights=held), x)
            return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

        new, _ = one.step(state, x, y, key=jax.random.key(1))  # by SGD at a rate of 1
        return jax.vmap(loss)(directions), {n: new.weights[n].w - w.w for n, w in held_now}

    held_now, h = list(state.weights.items()), 1e-5
    rng = np.random.default_rng(3)
    draws = {n: rng.normal(size=w.w.shape) for n, w in held_now}
    names = list(draws)
    alone = lambda n, sign: {m: sign * h * d * (m == n) for m, d in draws.items()}  # noqa: E731
    moves = [alone(n, s) for n in names for s in (1, -1)]
    found, dw = losses(jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *moves))
    for name, (up, down) in zip(names, np.asarray(found).reshape(-1, 2), strict=True):
        expected = -(dw[name] * draws[name]).sum()
        # h^2 of the third derivative, and rounding over h: both about 1e-10
        np.testing.assert_allclose((up - down) / (2 * h), expected, atol=1e-8, err_msg=name)


def test_without_symmetry_the_response_is_what_the_jacobian_makes_of_the_error():
    weights, u, moved, delta = errors(False, 8)
    u, moved, delta = joined(u), joined(moved)[1], joined(delta)
    j = coupling(weights) - np.diag(1 / np.asarray(ep.dsilu.slope(jnp.asarray(u))))
    np.testing.assert_allclose(moved, np.linalg.solve(j, j.T @ delta), atol=1e-7 * abs(delta).max())
    assert far(moved, delta) > 0.1


def test_activities_tell_the_error_and_membranes_do_not():
    _, u, moved, delta = errors(True, 8)
    u, moved, delta = joined(u), joined(moved)[1], joined(delta)
    cosine = lambda a: a @ delta / np.linalg.norm(a) / np.linalg.norm(delta)  # noqa: E731
    assert cosine(moved) > 1 - 1e-12
    with jax.enable_x64(True):
        assert cosine(moved / np.asarray(ep.dsilu.slope(jnp.asarray(u)))) < 0.99


def test_hutchinsons_estimate_is_that_of_the_antisymmetric_part(x64):
    weights = net(tied=False, angle=60.0).init(jax.random.key(0)).weights
    w = coupling(weights)
    a = (w - w.T) / 2
    eps = np.random.default_rng(4).normal(size=(4000, N))

    def estimates(j):
        je = eps @ j.T
        return (je**2).sum(1) - ((eps @ j) * je).sum(1)

    found = estimates(w)
    off = 4 * found.std() / np.sqrt(len(found))
    assert 0 < off < 0.2 * 2 * (a**2).sum()
    assert abs(found.mean() - 2 * (a**2).sum()) < off
    np.testing.assert_allclose(estimates(w + w.T), 0, atol=1e-12)  # draw by draw


@pytest.mark.slow
def test_homeostasis_is_the_descent_on_what_is_antisymmetric(x64):
    one = net(tied=False, angle=60.0)
    state = one.init(jax.random.key(0))
    x, y, key = jnp.asarray(X)[None], jnp.array([Y]), jax.random.key(1)
    step = quick(lambda e: e.step(state, x, y, key=key)[0].weights)
    plain = step(one)
    drawn = step(eqx.tree_at(lambda e: e.homeostasis, one, jnp.asarray(0.5)))

    def loss(w2, v1, w3, v2):  # 2 |A|^2 / n: each block apart and its mirror image
        return sum(((w[:, :-1] - v.T) ** 2).sum() for w, v in ((w2, v1), (w3, v2))) / N

    names = ("w2", "v1", "w3", "v2")
    slopes = jax.grad(loss, (0, 1, 2, 3))(*(state.weights[n].w for n in names))
    for name, slope in zip(names, slopes, strict=True):
        moved = drawn[name].w - plain[name].w
        np.testing.assert_allclose(moved, -0.5 * slope, atol=1e-14, err_msg=name)
    np.testing.assert_array_equal(drawn["w1"].w, plain["w1"].w)


def test_homeostasis_drives_the_asymmetry_to_nothing(x64):
    # each step halves w - v^T: 4 lr h / n = 1/2; the loss itself moves it by lr alone
    one = ep.Equilibrium(
        SIZES, optax.sgd(1e-9), tied=False, angle=60.0, homeostasis=1e9 * N / 8, t_free=9
    )
    state = one.init(jax.random.key(0))
    apart = lambda s: np.abs((w := coupling(s.weights)) - w.T).max()  # noqa: E731
    x, y, first = jnp.asarray(X)[None], jnp.array([Y]), apart(state)
    step = quick(lambda s: one.step(s, x, y, key=jax.random.key(1))[0])
    for _ in range(20):
        state = step(state)
    assert apart(state) == pytest.approx(0.5**20 * first, rel=0.05)


@pytest.mark.slow
def test_one_array_learns_what_its_two_ways_would_together(x64):
    x, y, key = jnp.asarray(X)[None], jnp.array([Y]), jax.random.key(1)
    changes = {}
    for tied in (True, False):
        one = net(tied=tied)
        state = one.init(jax.random.key(0))
        new = quick(lambda s, one=one: one.step(s, x, y, key=key)[0])(state)
        changes[tied] = {n: new.weights[n].w - w.w for n, w in state.weights.items()}
    for i in (1, 2):
        both = changes[False][f"w{i + 1}"].at[:, :-1].add(changes[False][f"v{i}"].T)
        np.testing.assert_allclose(changes[True][f"w{i + 1}"], both, atol=1e-13)
    for name in ("w1", "readout"):
        np.testing.assert_allclose(changes[True][name], changes[False][name], atol=1e-13)


def blobs(n=64):
    """Four classes, five numbers each."""
    rng = np.random.default_rng(6)
    y = np.arange(n) % 4
    x = np.eye(5)[y] + 0.3 * rng.random((n, 5))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y)


@pytest.mark.slow
@pytest.mark.parametrize(("n_points", "tied"), [(2, True), (4, False)])
def test_it_learns_and_takes_no_derivative(no_derivatives, n_points, tied):
    one = ep.Equilibrium(
        (5, 12, 4), optax.sgd(0.3, 0.9), n_points=n_points, tied=tied, t_free=20, t_nudged=8
    )
    state, (x, y) = one.init(jax.random.key(0)), blobs()
    step = quick(lambda s, key: one.step(s, x, y, key=key))
    seen = []
    for i in range(40):
        state, info = step(state, jax.random.key(i))
        seen.append(float(info["accuracy"]))
    assert seen[0] < 0.6
    assert seen[-1] > 0.95
    assert (one.predict(state, x).argmax(1) == y).mean() > 0.95


def fine(**parts):
    device, policy = hw.Device(hw.linear(4096)), hw.Bidirectional(hw.Train(4096))
    return hw.crossbar(device, policy, w_max=2.0, start="middle", **parts)


@pytest.mark.slow
def test_arrays_are_read_both_ways_by_real_and_imaginary_part_and_programmed():
    one = ep.Equilibrium(SIZES, optax.sgd(0.1), n_points=4, t_free=20, t_nudged=8, beta=0.3)
    (x, y), key = blobs(6), jax.random.key(1)
    ideal = one.init(jax.random.key(0))
    held = one.init(jax.random.key(0), fine(dac=hw.Quantiser(12, 2.0), adc=hw.Quantiser(14, 8.0)))
    step = quick(lambda s, x, y, key: one.step(s, x, y, key=key))
    (new, _), (expected, _) = step(held, x, y, key), step(ideal, x, y, key)
    for name, w in new.weights.items():
        assert (w.n_pulses - held.weights[name].n_pulses).sum() > 0, name
        asked = expected.weights[name].w - ideal.weights[name].w
        moved = w.w - held.weights[name].w
        # a pulse is 2 w_max / 4096; converters round a part in 4096, over the size of the nudge
        np.testing.assert_allclose(moved, asked, atol=2 / 1024 + 0.1 * abs(asked).max())


@pytest.mark.slow
def test_unsettled_samples_are_told_and_damping_settles_them():
    # weights of 12 / sqrt(fan-in), all layers at once: orbits of period two
    one = ep.Equilibrium(
        (2, 5, 4, 2),
        optax.sgd(0.1),
        ep.steep_sigmoid,
        t_free=80,
        gain=12.0,
        damping=0.0,
    )
    state = one.init(jax.random.key(0))
    x, y = jnp.linspace(0, 1, 16).reshape(8, 2), jnp.arange(8) % 2
    step = quick(lambda e: e.step(state, x, y, key=jax.random.key(1))[1])
    swinging, still = step(one), step(eqx.tree_at(lambda e: e.damping, one, jnp.asarray(0.5)))
    assert swinging["unsettled"] > 0.5
    assert swinging["residual"] > 1
    assert still["unsettled"] == 0
    assert still["residual"] <= 1e-4


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"n_points": 3}, ValueError, "n_points must be 1 or even; got 3: pass 4"),
        ({"n_points": 0}, ValueError, "n_points must be a whole number >= 1; got 0"),
        ({"beta": 0.0}, ValueError, "beta must be finite and > 0; got 0.0"),
        ({"beta": -0.5}, ValueError, "beta must be finite and > 0; got -0.5"),
        ({"t_free": 0}, ValueError, "t_free must be a whole number >= 1; got 0"),
        ({"damping": 1.0}, ValueError, r"damping must be finite and in \[0, 1\); got 1.0"),
        ({"homeostasis": 1.0}, ValueError, "homeostasis must be 0 for one array read both ways"),
        ({"angle": 90.0}, ValueError, "angle must be 0 .* got 90.0: pass tied=False"),
        ({"sizes": (5,)}, ValueError, r"sizes must be \(n_in, ..., n_classes\)"),
        ({"tx": optax.sgd}, TypeError, "tx must have init, update"),
    ],
)
def test_what_it_cannot_take_is_refused(given, error, told, untyped):
    good = {"sizes": SIZES, "tx": optax.sgd(0.1)}
    with pytest.raises(error, match=told):
        ep.Equilibrium(**(good | given))


def test_samples_of_another_size_are_refused():
    one = net()
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 5 numbers a sample; got"):
        one.predict(one.init(jax.random.key(0)), jnp.ones((2, 6)))
    assert isinstance(one, Learner)


@pytest.mark.slow
def test_each_part_of_a_read_and_each_nudge_has_noise_of_its_own(monkeypatch):
    noise = lambda s, key: jax.random.normal(key, s.shape)  # noqa: E731
    found = ep._read(noise, jnp.ones(3, complex), jax.random.key(0))
    assert (found.real != found.imag).all()

    def relaxed(self, step, start, steps, key):
        return ep.Relaxed(tuple(noise(s, key) for s in start), jnp.zeros(()), jnp.zeros((), int))

    one = net(n_points=2)
    weights = one.init(jax.random.key(0)).weights
    monkeypatch.setattr(ep.Equilibrium, "_relaxed", relaxed)
    u = tuple(jnp.zeros(n) for n in SIZES[1:])
    moved = one.response(weights, jnp.asarray(X), jnp.asarray(Y), u, key=jax.random.key(1))
    assert all((m != 0).all() for m in moved)  # up and down alike would cancel
