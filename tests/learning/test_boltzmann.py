"""Mean fields of Boltzmann machines: one, found, and the derivative that two nudges give."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize
from scipy.special import lambertw, xlogy

import hardware as hw
from neurojax.learning import boltzmann as bm
from neurojax.learning.learner import Learner

NODES = bm.Nodes((6, 2), (1, 4), (2, 4), (1, 3))


def owned(nodes):
    """Where the states of each node lie."""
    places = [np.asarray(p).T for p in nodes.parts(jnp.arange(nodes.n, dtype=float))]
    return [of.astype(int) for kind in places for of in kind]


OWN = np.zeros((NODES.n, NODES.n), bool)
for of in owned(NODES):
    OWN[np.ix_(of, of)] = True
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def machine(coupling=None, **given):
    """Settles to rounding."""
    long = {"group": 4, "n_hidden": 3, "max_steps": 4000, "tol": 1e-14, "alpha": 0.25}
    coupling = bm.Monotone(5) if coupling is None else coupling
    return bm.Boltzmann(6, 3, optax.sgd(1.0), coupling, **(long | given))


def strong(coupling, size=3.0, net=None):
    """A state whose array holds anything at all."""
    net = machine(coupling) if net is None else net
    state = net.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    new = {n: jnp.asarray(size * rng.normal(size=w.w.shape)) for n, w in state.weights.items()}
    held = {n: eqx.tree_at(lambda a: a.w, w, new[n]) for n, w in state.weights.items()}
    return state._replace(weights=held)


def matrix(net, state):
    """Phi, column by column."""
    phi = net.coupling.field(net.nodes, state.weights["coupling"])
    one = lambda q: net.nodes.joined(phi(net.nodes.parts(q), None))  # noqa: E731
    return np.asarray(jax.vmap(one)(jnp.eye(net.nodes.n))).T


@pytest.mark.slow
@pytest.mark.parametrize("m", [0.05, 0.3])
def test_whatever_the_array_holds_the_coupling_is_monotone(x64, m):
    net = machine(bm.Monotone(5, m))
    for size in (0.1, 1.0, 30.0):
        phi = matrix(net, strong(net.coupling, size))
        np.testing.assert_allclose(phi, phi.T, atol=1e-12)
        np.testing.assert_allclose(phi[OWN], 0, atol=1e-12)
        assert np.linalg.eigvalsh(np.eye(len(phi)) - phi)[0] >= m - 1e-12
    assert abs(phi[~OWN]).max() > 0.1


def test_layers_of_a_restricted_machine_meet_their_neighbours_alone(x64):
    net = machine(bm.Restricted(), n_hidden=4)
    phi = matrix(net, strong(net.coupling, net=net))
    np.testing.assert_array_equal(phi, phi.T)
    pixels, upper, lower, label = np.split(np.arange(net.nodes.n), [12, 20, 28])
    layers = [pixels, lower, upper, label]
    for i, a in enumerate(layers):
        for j, b in enumerate(layers):
            assert bool(phi[np.ix_(a, b)].any()) == (abs(i - j) == 1), (i, j)


def prox(y, alpha):
    """The paper's: argmin |z - y|^2 / 2 + alpha (sum z log z - |z|^2 / 2) on the simplex."""
    z = lambda nu: (  # noqa: E731
        alpha / (1 - alpha) * lambertw((1 - alpha) / alpha * np.exp((y + nu) / alpha - 1)).real
    )
    return z(optimize.brentq(lambda nu: z(nu).sum() - 1, -y.max() - 3, -y.min() + 3, xtol=1e-15))


@pytest.mark.slow
def test_proximal_iteration_of_the_paper_ends_where_damping_does(x64):
    net = machine(bm.Monotone(5))
    state = strong(net.coupling)
    phi, b = matrix(net, state), np.asarray(state.weights["bias"].w)[:, 0]
    alpha = 1.5 / np.linalg.eigvalsh(np.eye(len(phi)) - phi)[-1]  # below 2 / L
    q = np.array(NODES.softmax(jnp.zeros(NODES.n)))
    for _ in range(800):
        y = (1 - alpha) * q + alpha * (phi @ q + b)
        for of in owned(NODES):
            q[of] = prox(y[of], alpha)
    target, seen = jnp.zeros(NODES.n), jnp.zeros(6, bool)
    found = net.settled(net._told(state.weights), target, seen)
    np.testing.assert_allclose(NODES.softmax(found.state), q, atol=1e-10)


@quick
def from_starts(net, weights, starts):
    told, target = net._told(weights), jnp.zeros(NODES.n)
    one = lambda a: net.settled(told, target, jnp.zeros(6, bool), start=a)  # noqa: E731
    return jax.vmap(one)(starts)


def free_energy(phi, b, q):
    return xlogy(q, q).sum(-1) - (q * (q @ phi)).sum(-1) / 2 - q @ b


@pytest.mark.slow
def test_twelve_starts_and_any_damping_end_in_one_mean_field(x64):
    net = machine(bm.Monotone(5), tol=1e-15)
    state = strong(net.coupling)
    phi, b = matrix(net, state), np.asarray(state.weights["bias"].w)[:, 0]
    rng = np.random.default_rng(2)
    starts, ends = jnp.asarray(6 * rng.normal(size=(12, NODES.n))), []
    for alpha in (0.05, 0.2, 0.5):
        damped = eqx.tree_at(lambda n: n.alpha, net, jnp.asarray(alpha))
        ends.append(NODES.softmax(from_starts(damped, state.weights, starts).state))
    ends = np.asarray(jnp.concatenate(ends))
    assert np.ptp(ends, 0).max() < 2e-12
    told = NODES.softmax(jnp.asarray(phi @ ends[0] + b))
    np.testing.assert_allclose(told, ends[0], atol=1e-12)
    others = np.asarray(NODES.softmax(jnp.asarray(3 * rng.normal(size=(200, NODES.n)))))
    assert (free_energy(phi, b, others) > free_energy(phi, b, ends[0])).all()


@pytest.mark.slow
def test_free_energy_falls_at_each_step_up_to_one_over_l(x64):
    net = machine(bm.Monotone(5))
    state = strong(net.coupling)
    phi, b = matrix(net, state), np.asarray(state.weights["bias"].w)[:, 0]
    top = np.linalg.eigvalsh(np.eye(len(phi)) - phi)[-1]
    rng, fell = np.random.default_rng(3), {}
    for times in (1.0, 8.0):
        a, energies = 4 * rng.normal(size=NODES.n), []
        for _ in range(60):
            q = np.asarray(NODES.softmax(jnp.asarray(a)))
            energies.append(free_energy(phi, b, q))
            a += times / top * (phi @ q + b - a)
        fell[times] = np.diff(energies).max() < 1e-13
    assert fell[1.0]
    assert not fell[8.0]


@pytest.mark.slow
def test_two_nudges_give_the_implicit_derivative(x64):
    rng = np.random.default_rng(4)
    for coupling in (bm.Monotone(5), bm.Restricted()):
        # nudges of 1e-4: what is left is of order beta^2 = 1e-8, rounding over beta 1e-11
        net = machine(coupling, n_hidden=4, beta=1e-4, tol=1e-15)
        nodes, state = net.nodes, strong(coupling, 0.4, net)
        told, phi = net._told(state.weights), matrix(net, state)
        seen = jnp.asarray(rng.random(6) < 0.4)
        target = net._target(jnp.asarray(rng.random((1, 6))), jnp.array([1]))[0]
        one = lambda t, s, k, told=told, net=net: net._nudged(told, t, s, k)  # noqa: E731
        _, q, plus, minus = quick(one)(target, seen, jax.random.key(0))
        # lambda = (I - S Phi)^-T dl/dq, S the blocks of diag(q) - q q^T, held nodes left out
        q, g = np.asarray(q), np.asarray(net._slope(q, target, seen))
        s, held = np.zeros_like(phi), np.asarray(net._held(seen))
        for of in owned(nodes):
            s[np.ix_(of, of)] = np.diag(q[of]) - np.outer(q[of], q[of])
        s = s * ~held[:, None] * ~held
        slope = s @ np.linalg.solve((np.eye(len(q)) - s @ phi).T, g)
        np.testing.assert_allclose((minus - plus) / 2e-4, slope, atol=1e-6)
        by_phi = (np.outer(slope, q) + np.outer(q, slope)) / 2

        def phi_of(w, net=net, state=state):
            array = eqx.tree_at(lambda a: a.w, state.weights["coupling"], w)
            each = net.coupling.field(net.nodes, array)
            one = lambda x: net.nodes.joined(each(net.nodes.parts(x), None))  # noqa: E731
            return jax.vmap(one)(jnp.eye(net.nodes.n)).T

        w = 0.9 * coupling.kept(nodes, state.weights["coupling"].w)  # no norm is at its bound
        array = eqx.tree_at(lambda a: a.w, state.weights["coupling"], w)
        expected = jax.vjp(phi_of, w)[1](jnp.asarray(by_phi))[0]
        got = coupling.change(nodes, array, plus[None], minus[None]) / 2e-4
        np.testing.assert_allclose(got, -expected, atol=1e-6)
        assert abs(expected).max() > 1e-2


@pytest.mark.slow
def test_pixels_that_are_seen_stay_and_do_not_learn(x64):
    net = machine()
    state, x = strong(net.coupling), jnp.asarray(np.random.default_rng(5).random((2, 6)))
    seen = jnp.array([[True] * 6, [True, False] * 3])
    pixels, scores = net.complete(state, x, seen)
    np.testing.assert_array_equal(pixels.argmax(-1)[seen], (x >= 0.5)[seen])
    np.testing.assert_array_equal(pixels[seen].max(-1), 1)
    assert (pixels[~seen].max(-1) < 1).all()
    np.testing.assert_allclose(pixels.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(scores[:1], net.predict(state, x[:1]), rtol=1e-12)


def pictures(n):
    """Two patterns of six pixels."""
    y = np.arange(n) % 2
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    return jnp.asarray(patterns[y], jnp.float32), jnp.asarray(y)


@pytest.mark.slow
def test_a_step_is_the_descent_on_the_mean_loss_of_a_batch(x64):
    net = machine(bm.Restricted(0.1), p_hidden=1 - 1e-12, beta=1e-3)  # all pixels are hidden
    x, y = (jnp.asarray(a) for a in ([[1.0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1]], [2, 0]))
    state = net.init(jax.random.key(0))
    new, _ = quick(lambda s: net.step(s, x, y, key=jax.random.key(1)))(state)

    @quick
    def loss(weights):
        pixels, scores = net.complete(state._replace(weights=weights), x, jnp.zeros(6, bool))
        p = jnp.where(x > 0.5, pixels[..., 1], pixels[..., 0])
        return -jnp.log(p).mean() - jax.nn.log_softmax(scores)[jnp.arange(2), y].mean()

    for name, w in state.weights.items():
        move = new.weights[name].w - w.w
        up, down = (
            loss(state.weights | {name: eqx.tree_at(lambda w: w.w, w, w.w + h * move)})
            for h in (1e-3, -1e-3)
        )
        rise = (up - down) / 2e-3  # the length of the gradient squared, downwards
        np.testing.assert_allclose(rise, -jnp.square(move).sum(), rtol=1e-4)


@functools.cache
def wild():
    """A monotone machine whose array holds columns far above their bound, its Phi, and A scaled."""
    with jax.enable_x64(True):
        net = machine(bm.Monotone(5, 0.3), beta=1e-4)
        state = strong(net.coupling)
        a, phi = np.asarray(state.weights["coupling"].w).copy(), matrix(net, state)
    for of in owned(NODES):
        a[:, of] *= min(1, np.sqrt(0.7) / np.linalg.norm(a[:, of], 2))
    return net, state, phi, a


def test_the_field_is_that_of_the_scaled_array_less_own_blocks():
    _, _, phi, a = wild()
    np.testing.assert_allclose(phi, np.where(OWN, 0, -a.T @ a), atol=1e-12)
    assert abs(phi).max() > 0.1


def test_the_change_of_a_monotone_array_is_hebbian_less_own_blocks(x64):
    net, state, _, a = wild()
    plus, minus = np.random.default_rng(7).random((2, 3, NODES.n))
    pairs = np.where(OWN, 0, plus.T @ plus - minus.T @ minus)
    found = net.coupling.change(NODES, state.weights["coupling"], *map(jnp.asarray, (plus, minus)))
    np.testing.assert_allclose(found, -a @ pairs, atol=1e-12)


def test_a_step_ends_within_the_bound_however_large_it_is(x64):
    net, state, _, _ = wild()
    q = jnp.asarray(np.random.default_rng(8).random((2, 4, NODES.n)))
    weights, _ = net._programmed(state, *q, jax.random.key(0))  # over 1e-4: far beyond
    for of in owned(NODES):
        assert np.linalg.norm(weights["coupling"].w[:, of], 2) <= np.sqrt(0.7) + 1e-9


def test_seen_pixels_are_held_and_their_loss_counts_for_nothing(x64):
    net, state, phi, _ = wild()
    b, rng = np.asarray(state.weights["bias"].w)[:, 0], np.random.default_rng(9)
    seen, target = jnp.arange(6) < 3, jnp.asarray(rng.random(NODES.n))
    held, told = np.arange(NODES.n) % 6 < 3, net._told(state.weights)
    held &= np.arange(NODES.n) < 12  # both states of the first three pixels
    np.testing.assert_array_equal(net._held(seen), held)
    a = net.settled(told, target, seen).state
    q = np.where(held, target, NODES.softmax(a))
    np.testing.assert_allclose(np.asarray(a)[~held], (phi @ q + b)[~held], atol=1e-10)
    slope = np.asarray(net._slope(jnp.asarray(q), target, seen))
    np.testing.assert_array_equal(slope[held], 0)
    assert (slope[:12][~held[:12]] < 0).all()


class Keys:
    """An array that notes with which keys it is read."""

    def __init__(self, w):
        self.w, self.keys = w, []

    def apply(self, s, *, key=None):
        self.keys.append(tuple(np.asarray(jax.random.key_data(key))))
        return self.w @ s

    def apply_t(self, e, *, key=None):
        self.keys.append(tuple(np.asarray(jax.random.key_data(key))))
        return self.w.T @ e


@pytest.mark.slow
def test_each_read_each_nudge_and_each_batch_has_draws_of_its_own(untyped, monkeypatch):
    array = Keys(jnp.ones((5, NODES.n)))
    machine().coupling.field(NODES, array)(NODES.parts(jnp.ones(NODES.n)), jax.random.key(0))
    assert len({*array.keys}) == len(array.keys) == 2
    net = machine(label_weight=0.0, max_steps=1)  # no pixel is hidden: both nudges are 0
    told = lambda q, key: [jax.random.normal(key, x.shape) for x in q]  # noqa: E731
    nudged = quick(lambda key: net._nudged(told, jnp.zeros(NODES.n), jnp.ones(6, bool), key))
    _, _, plus, minus = nudged(jax.random.key(1))
    assert (plus[12:] != minus[12:]).any()
    x, y, keys = jnp.ones((2, 6)), jnp.array([0, 1]), []

    def drawn(key, *_):
        keys.append(tuple(np.asarray(jax.random.key_data(key))))
        raise InterruptedError

    monkeypatch.setattr(bm.jax.random, "bernoulli", drawn)
    for seed in (0, 1):
        with pytest.raises(InterruptedError):
            net.step(None, x, y, key=jax.random.key(seed))
    assert keys[0] != keys[1]


def test_the_label_weighs_what_it_is_given():
    target = jnp.asarray(np.random.default_rng(2).random(machine(bm.Monotone(5)).nodes.n), float)
    seen, q = jnp.arange(6) < 3, jnp.full(target.shape, 0.5)
    parts = [
        (net := machine(bm.Monotone(5), label_weight=w)).nodes.parts(net._slope(q, target, seen))
        for w in (0.0, 1.0, 0.25)
    ]
    np.testing.assert_array_equal(parts[0][-1], 0)
    np.testing.assert_allclose(parts[2][-1], parts[1][-1] / 4)
    assert np.abs(parts[1][-1]).min() > 0
    for pixels, *hidden, _ in parts:  # no others do
        np.testing.assert_array_equal(pixels, parts[0][0])
        for x in hidden:
            np.testing.assert_array_equal(x, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coupling", "rate"),
    [(bm.Monotone(31, gain=0.3), 0.003), (bm.Restricted(), 0.02)],
    ids=["monotone", "restricted"],
)
def test_it_learns_to_complete_and_to_name_without_a_derivative(no_derivatives, coupling, rate):
    net = bm.Boltzmann(6, 3, optax.adam(rate), coupling, n_hidden=4, p_hidden=0.4)
    state, (x, y) = net.init(jax.random.key(0)), pictures(24)
    step = quick(lambda s, key: net.step(s, x, y, key=key))
    seen = []
    for i in range(200):
        state, info = step(state, jax.random.key(i))
        seen.append(float(info["completion"]))
    assert (net.predict(state, x).argmax(1) == y).all()
    assert np.mean(seen[:5]) < 0.75
    assert np.mean(seen[-10:]) > 0.9  # one of two, if nothing were learned
    _, scores = net.complete(state, x, jnp.arange(6) % 3 == 0)  # two of six are known
    assert (scores.argmax(1) == y).all()


@pytest.mark.slow
def test_one_array_of_devices_keeps_its_mean_field_unique():
    device, policy = hw.Device(hw.linear(255)), hw.Bidirectional(hw.Train(255))
    make = hw.crossbar(device, policy, w_max=1.0, start="middle", sigma_d2d=0.2)
    net = machine(bm.Monotone(5), max_steps=60, tol=1e-4, beta=0.5)
    state = net.init(jax.random.key(0), make)
    x = jnp.asarray(np.random.default_rng(5).random((4, 6)), jnp.float32)
    new, _ = quick(lambda s: net.step(s, x, jnp.array([0, 1, 2, 0]), key=jax.random.key(1)))(state)
    for name, w in new.weights.items():
        assert (w.n_pulses - state.weights[name].n_pulses).sum() > 0, name
    phi = matrix(net, new)
    assert np.linalg.eigvalsh(np.eye(len(phi)) - phi)[0] >= 0.05 - 1e-5


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"beta": 0.0}, ValueError, "beta must be finite and > 0; got 0.0"),
        ({"label_weight": -1.0}, ValueError, "label_weight must be finite and >= 0; got -1.0"),
        ({"alpha": 0.0}, ValueError, r"alpha must lie in \(0, 1\]; got 0.0"),
        ({"alpha": 1.5}, ValueError, r"alpha must lie in \(0, 1\]; got 1.5"),
        ({"p_hidden": 1.0}, ValueError, r"p_hidden must lie in \(0, 1\); got 1.0"),
        ({"n_bins": 1}, ValueError, "n_bins must be a whole number >= 2; got 1"),
        ({"n_classes": 1}, ValueError, "n_classes must be a whole number >= 2; got 1"),
        ({"coupling": bm.Monotone}, TypeError, r"instance; got the class: pass Monotone\(\)"),
    ],
)
def test_what_it_cannot_take_is_refused(given, error, told, untyped):
    good = {"n_in": 6, "n_classes": 3, "tx": optax.sgd(0.1)}
    with pytest.raises(error, match=told):
        bm.Boltzmann(**(good | given))


@pytest.mark.parametrize("m", [0.0, 1.0])
def test_monotone_needs_room(m):
    with pytest.raises(ValueError, match=r"m must lie in \(0, 1\); got"):
        bm.Monotone(5, m)


@pytest.mark.slow
def test_samples_of_another_size_are_refused():
    net = machine()
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 6 numbers a sample; got"):
        net.predict(net.init(jax.random.key(0)), jnp.ones((2, 5)))
    assert isinstance(net, Learner)
