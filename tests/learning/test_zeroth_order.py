"""Estimators of a gradient from values of the loss, against the gradient itself."""

import dataclasses
import functools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware
import neurojax as nj
from neurojax.learning import (
    Coordinates,
    Directions,
    Neurons,
    ZerothOrder,
    perceptron,
    zeroth_order,
    zo_grasp,
)
from neurojax.learning import zeroth_order as zo
from neurojax.learning.zeroth_order import directions

KEY = jax.random.key(0)


def learner(estimator, sizes=(5, 6, 3), tx=None, activation=perceptron.tanh):
    return ZerothOrder(sizes, estimator, tx or optax.sgd(0.1), activation)


def batch(net, n=7):
    x = jax.random.normal(jax.random.key(1), (n, net.sizes[0]), float)
    return x, jnp.arange(n) % net.sizes[-1]


@eqx.filter_jit
def found(net, state, x, y, key=KEY):
    """Less what is asked for: the gradient, array by array."""
    asked = net.asked(state, x, y)
    dw = net.estimator(asked, key=key, mask_key=state.key, step=state.step)
    return [-d for d in dw]


@eqx.filter_jit
def exact(net, state, x, y):
    """JAX's own gradient of the mean cross-entropy."""

    def loss(numbers):
        held = {n: eqx.tree_at(lambda a: a.w, w, numbers[n]) for n, w in state.weights.items()}
        return net.asked(state._replace(weights=held), x, y).losses.mean()

    return list(jax.grad(loss)({n: w.w for n, w in state.weights.items()}).values())


@functools.cache
def prepared(double, sizes=(5, 6, 3)):
    """A net, its state, a batch and the gradient there."""
    net = learner(Coordinates(), sizes)
    state, (x, y) = eqx.filter_jit(net.init)(KEY), batch(net)
    return net, state, x, y, exact(net, state, x, y)


def apart(g, true):
    """Square of the relative error of a whole gradient."""
    off = sum(
        float(((np.asarray(a) - np.asarray(b)) ** 2).sum()) for a, b in zip(g, true, strict=True)
    )
    return off / sum(float((np.asarray(b) ** 2).sum()) for b in true)


def error(double, estimator):
    net, state, x, y, true = prepared(double)
    return apart(found(dataclasses.replace(net, estimator=estimator), state, x, y), true) ** 0.5


@pytest.mark.parametrize("kind", [Coordinates, Neurons])
def test_the_error_is_linear_in_mu_and_quadratic_with_both_signs(x64, kind):
    large, small = (error(True, kind(mu)) for mu in (5e-3, 1e-4))
    both_large, both_small = (error(True, kind(mu, central=True)) for mu in (5e-3, 1e-4))
    assert large < 8e-3  # 4e-3 of the net that the page measures
    assert large / small == pytest.approx(50, rel=0.05)
    assert both_large < 4e-5
    assert both_large / both_small == pytest.approx(2500, rel=0.1)


def test_single_precision_is_best_near_a_thousandth():
    far, near, too_near = (error(False, Coordinates(mu)) for mu in (2e-2, 1e-3, 1e-4))
    assert near < 8e-3
    assert near < far
    assert near < too_near  # the loss's last digit, over mu
    assert error(False, Coordinates(5e-3, central=True)) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(("part", "n_keys"), [(0.1, 60), (1.0, 20), (10.0, 6)])
def test_random_directions_err_by_the_number_of_weights_over_that_of_queries(x64, part, n_keys):
    net, state, x, y, true = prepared(True)
    d = sum(g.size for g in true)
    q = round(part * d)
    net = dataclasses.replace(net, estimator=Directions(q, mu=1e-5))
    keys = jax.random.split(jax.random.key(5), n_keys)
    g = jax.vmap(lambda key: found(net, state, x, y, key))(keys)
    square = [apart([a[i] for a in g], true) for i in range(n_keys)]
    error = np.std(square) / n_keys**0.5
    assert np.mean(square) == pytest.approx((d + 1) / q, abs=4 * error)
    assert error < 0.2 * np.mean(square)


@pytest.mark.slow
def test_twelve_neurons_tell_what_240_weights_do(x64):
    net = learner(Coordinates(1e-3, central=True), (19, 12, 4))
    state, (x, y) = net.init(KEY), batch(net)
    other = dataclasses.replace(net, estimator=Neurons(1e-3, central=True))
    (each, _), (one, _) = (found(n, state, x, y) for n in (net, other))
    assert one.size == 240
    assert float(jnp.abs(one - each).max() / jnp.abs(each).max()) < 4e-6
    assert net.queries == 1 + 2 * (240 + 52)
    assert other.queries == 1 + 2 * (12 + 4)


def test_reuse_is_a_whole_pass_bit_for_bit_and_queries_side_by_side_are_a_loop():
    net = learner(Coordinates(), (5, 6, 4, 3), activation=perceptron.relu)
    state, (x, y) = net.init(KEY), batch(net)

    def whole(layer, shift):
        """Losses of a whole pass, in which a current flows into a layer."""
        a = z = x
        for i, w in enumerate(state.weights.values()):
            z = jax.vmap(w.apply)(perceptron.with_one(a))
            z = z + shift[:, : z.shape[1]] if layer == i else z
            a = perceptron.relu.value(z)
        return zeroth_order._losses(z, y)

    def reused(layer, shift):
        seen = net.asked(state, x, y)
        return seen.shifted(layer, seen.z[layer] + shift[:, : seen.z[layer].shape[1]], KEY)

    @jax.jit
    def both(shifts):
        return [[jax.vmap(partial(f, i))(shifts) for f in (whole, reused)] for i in range(3)]

    shifts = 5e-3 * jax.random.normal(KEY, (10, len(x), 6))
    for layer, (one, other) in enumerate(both(shifts)):
        np.testing.assert_array_equal(one, other)
        alone = jax.jit(partial(reused, layer))
        np.testing.assert_allclose(other, [alone(s) for s in shifts], rtol=1e-6)  # 8 roundings


def test_a_mask_has_its_ratios_in_each_layer_and_is_drawn_anew_in_time():
    masks = Coordinates(active=(0.1, 0.5), every=3)
    sizes = (9, 10, 5)
    at = [masks.mask(sizes, KEY, step) for step in range(4)]
    assert masks.counts(sizes) == [10, 28]  # of 100 and of 55
    assert [len(set(np.asarray(m).tolist())) for m in at[0]] == [10, 28]
    for same in (1, 2):
        np.testing.assert_array_equal(at[0][0], at[same][0])
    assert set(np.asarray(at[0][0]).tolist()) != set(np.asarray(at[3][0]).tolist())


@pytest.mark.slow
def test_what_is_not_asked_for_stays_but_for_momentum_and_decay():
    masks = Coordinates(active=0.2)
    net = learner(masks)
    state, (x, y) = net.init(KEY), batch(net)
    g = found(net, state, x, y)
    for a, at in zip(g, masks.mask(net.sizes, state.key, 0), strict=True):
        asked = np.zeros(a.size, bool)
        asked[np.asarray(at)] = True
        assert (np.ravel(a)[~asked] == 0).all()
        assert (np.ravel(a)[asked] != 0).any()
    moved = []
    for tx in (
        optax.sgd(0.1),
        optax.sgd(0.1, 0.9),
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    ):
        now = dataclasses.replace(net, tx=tx)
        step = eqx.filter_jit(now.step)
        state = now.init(KEY)
        first, _ = step(state, x, y, key=KEY)
        second, _ = step(first, x, y, key=KEY)
        at = masks.mask(net.sizes, state.key, 1)[0]
        change = np.array(second.weights["w1"].w - first.weights["w1"].w).ravel()
        change[np.asarray(at)] = 0
        moved.append(np.abs(change).sum())
    assert moved[0] == 0
    assert moved[1] > 0
    assert moved[2] > 0


@pytest.mark.slow
def test_grasp_is_that_of_a_loop(x64):
    net = learner(Coordinates(), (4, 3, 2))
    state, (x, y) = net.init(KEY), batch(net)
    q, mu, key = 6, 5e-3, jax.random.key(3)
    w = [np.asarray(a.w) for a in state.weights.values()]

    def loss(arrays):
        a = z = np.asarray(x)
        for v in arrays:
            z = np.hstack([a, np.ones((len(a), 1))]) @ v.T
            a = np.tanh(z)
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), np.asarray(y)]))

    keys = jax.random.split(nj.network.fold(key, "directions"), q)
    us = [[np.asarray(u) for u in directions([jnp.asarray(v) for v in w], k)] for k in keys]

    def gradient(at):
        g = [np.zeros_like(v) for v in w]
        for u in us:
            rise = (loss([a + mu * b for a, b in zip(at, u, strict=True)]) - loss(at)) / mu
            g = [a + rise * b / q for a, b in zip(g, u, strict=True)]
        return g

    g = gradient(w)
    there = gradient([a + mu * b for a, b in zip(w, g, strict=True)])
    score = [np.abs(-a * (c - b) / mu) for a, b, c in zip(w, g, there, strict=True)]
    limit = np.sort(np.concatenate([s.ravel() for s in score]))[-12]
    wanted = tuple(float((s >= limit).mean()) for s in score)
    assert zo_grasp(net, state, x, y, key=key, active=0.5, q=q, mu=mu) == pytest.approx(wanted)
    assert sum(Coordinates(active=wanted).counts(net.sizes)) == 12


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: learner(Coordinates(active=1e-3)), r"active must leave a coordinate .*of 57; got"),
        (lambda: learner(Coordinates(active=(0.5,))), "one for each of 2 arrays; got 1"),
        (lambda: Coordinates(active=1.5), r"active must lie in \[0, 1\]; got 1.5"),
        (lambda: Coordinates(mu=0.0), "mu must be finite and > 0; got 0"),
        (lambda: Directions(0), "q must be a whole number >= 1; got 0"),
        (lambda: learner(Neurons(central=True), (5,)), r"sizes must be \(n_in, ..., n_classes\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@eqx.filter_jit
def trained(net, state, x, y, n):
    """Losses of `n` steps on one batch, and the state after."""

    def step(state, key):
        state, info = net.step(state, x, y, key=key)
        return state, info["loss"]

    state, loss = jax.lax.scan(step, state, jax.random.split(KEY, n))
    return loss, state


def test_it_learns_where_no_derivative_can_be_taken(no_derivatives):
    net = learner(Neurons(), (4, 8, 2), optax.sgd(0.5), perceptron.relu)
    state, x = net.init(KEY), jnp.eye(4)
    y = jnp.array([0, 1, 1, 0])
    loss, state = trained(net, state, x, y, 60)
    assert loss[-1] < 0.1
    assert (net.predict(state, x).argmax(1) == y).all()


@pytest.mark.slow
def test_faults_lie_within_the_loss():
    """Devices that are stuck have no gradient of use, and those about them make up for it."""
    device = hardware.Device(hardware.linear(64), sigma_read=0.02)
    policy = hardware.OneSide(hardware.Train(64))
    make = hardware.crossbar(device, policy, w_max=1.0, stuck_low=0.1, stuck_high=0.1)
    net = learner(Neurons(0.05, central=True), (4, 8, 2), optax.sgd(0.5), perceptron.relu)
    state, x = net.init(KEY, make), jnp.eye(4)
    y = jnp.array([0, 1, 1, 0])
    pulses = lambda state: int(state.weights["w1"].n_pulses.sum())  # noqa: E731
    before = pulses(state)
    loss, state = trained(net, state, x, y, 40)
    assert loss[-5:].mean() < 0.5 * loss[:5].mean()
    assert pulses(state) > before


@pytest.mark.slow
def test_noise_of_reading_is_drawn_anew_in_each_query():
    device = hardware.Device(hardware.linear(64), sigma_read=0.05)
    make = hardware.crossbar(device, hardware.OneSide(hardware.Train(64)), w_max=1.0)
    net = learner(Neurons(1e-3), (4, 8, 2))
    state, (x, y) = net.init(KEY, make), batch(net, 3)
    asked = net.asked(state, x, y, KEY)
    keys = jax.random.split(KEY, 3)
    losses = [asked.shifted(0, asked.z[0], k) for k in keys]
    assert not np.array_equal(losses[0], losses[1])
    last = [asked.shifted(1, asked.z[1], k) for k in keys]  # nothing is read above the last
    np.testing.assert_array_equal(last[0], last[1])


def test_both_signs_are_read_with_noise_of_their_own(untyped):
    class Noisy:
        z = [jnp.zeros((5, 4))]
        inputs = [jnp.ones((5, 2))]

        def shifted(self, i, z, key):
            return jax.random.normal(key, (len(z),))

    found = zo._differences(
        zo.Neurons(central=True), Noisy(), 0, lambda j: jax.nn.one_hot(j, 4)[None],
        jnp.arange(4), jax.random.key(0),
    )  # fmt: skip
    assert (found != 0).all()
