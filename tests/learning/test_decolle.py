"""Local losses at each layer: the rule against JAX's gradient of these, and against a loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import Decolle
from neurojax.neurons import surrogate

KEY = jax.random.key(0)
WIDTH = 0.8


def learner(sizes=(5, 7, 6, 3), tx=None, **parts):
    neuron = nj.LIF(tau_mem=8.0, r_mem=3.0, reset="subtract")
    return Decolle(
        sizes, tx or optax.sgd(1.0), neuron, tau_syn=3.0, window=nj.boxcar(WIDTH),
        n_steps=12, start=4, dt=0.7, **parts,
    )  # fmt: skip


def batch(net, time, n=4):
    shape = (n, 12, net.sizes[0]) if time else (n, net.sizes[0])
    x = jax.random.uniform(jax.random.key(1), shape, float)
    return (2 * jnp.round(x) if time else 2 * x), jnp.arange(n) % net.sizes[-1]


def asked(net, state, x, y):
    """Ascending changes: what plain descent at rate 1 has added."""
    new, info = eqx.filter_jit(net.step)(state, x, y, key=KEY)
    return {n: w.w - state.weights[n].w for n, w in new.weights.items()}, info


def by_time(x):
    return jnp.broadcast_to(x, (12, *x.shape)) if x.ndim == 2 else x.swapaxes(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("time", [False, True])
def test_it_is_the_gradient_of_losses_that_stay_in_their_layer(x64, time):
    """No layer sends anything down, a reset is what it was; through time all the same."""
    net = learner()
    state = net.init(KEY)
    x, y = batch(net, time)
    spike = surrogate.boxcar(WIDTH / 2)
    alpha, beta = np.exp(-0.7 / 8), np.exp(-0.7 / 3)

    def loss(w):
        s, total = by_time(x), 0.0
        for name, g in zip(w, state.readouts, strict=True):
            current = jnp.concatenate([s, jnp.ones((*s.shape[:2], 1))], -1) @ w[name].T
            q = v = z = jnp.zeros(current.shape[1:])
            out = []
            for t, i in enumerate(current):
                q = beta * q + (1 - beta) * i
                v = alpha * (v - jax.lax.stop_gradient(z)) + (1 - alpha) * 3.0 * q
                z = spike(v - 1.0)
                out.append(z)
                if t >= 4:
                    miss = z @ g.T - jax.nn.one_hot(y, 3)
                    total += 0.5 * (miss**2).sum() / len(y) / 8
            s = jax.lax.stop_gradient(jnp.stack(out))
        return total

    wanted = jax.jit(jax.grad(loss))({n: w.w for n, w in state.weights.items()})
    dw, _ = asked(net, state, x, y)
    for name, g in wanted.items():
        assert np.abs(g).max() > 1e-3
        np.testing.assert_allclose(dw[name], -g, rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_is_the_papers_loop_over_steps(x64):
    """Traces P and Q at the senders, R at the receivers, an outer product in each step."""
    net = learner()
    state, (x, y) = net.init(KEY), batch(net, True)
    dw, _ = asked(net, state, x, y)
    alpha, beta = np.exp(-0.7 / 8), np.exp(-0.7 / 3)
    for b, (sample, label) in enumerate(zip(np.asarray(x), np.asarray(y), strict=True)):
        del b
        sent = sample
        for name, g in zip(dw, state.readouts, strict=True):
            w, g = np.asarray(state.weights[name].w), np.asarray(g)
            p = q = np.zeros(w.shape[1])
            r = np.zeros(len(w))
            fired = []
            for t, s in enumerate(sent):
                q = beta * q + (1 - beta) * np.append(s, 1)
                p = alpha * p + (1 - alpha) * 3.0 * q
                u = w @ p - r
                z = (u >= 1.0).astype(float)
                r = alpha * (r + z)
                fired.append(z)
                if t >= 4:
                    e = g @ z - np.eye(3)[label]
                    h = np.abs(u - 1.0) <= WIDTH / 2
                    dw[name] = dw[name] + np.outer(g.T @ e * h, p) / 8 / len(x)
            sent = np.array(fired)
    for name, left in dw.items():  # the loop has taken all of it back
        np.testing.assert_allclose(left, 0, atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_a_layer_learns_the_same_whatever_lies_above_it():
    deep, flat = learner(), learner((5, 7, 3))
    state = deep.init(KEY)
    x, y = batch(deep, False)
    below = {"w1": state.weights["w1"]}
    alone = flat.init(KEY)._replace(weights=below, readouts=state.readouts[:1])
    np.testing.assert_array_equal(
        asked(deep, state, x, y)[0]["w1"], asked(flat, alone, x, y)[0]["w1"]
    )


def test_what_is_held_is_what_is_repeated():
    net = learner()
    state, (x, y) = net.init(KEY), batch(net, False)
    held, info = asked(net, state, x, y)
    repeated, same = asked(net, state, jnp.repeat(x[:, None], 12, 1), y)
    for name, d in held.items():
        np.testing.assert_allclose(repeated[name], d, rtol=1e-4, atol=1e-6)
    assert info == pytest.approx(same)


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: Decolle((5, 3), optax.sgd(0.1)), ValueError, "sizes must be .*three or more"),
        (lambda: Decolle((5, 4, 3), optax.sgd(0.1), nj.LIF()), ValueError, "resets by 'subtract'"),
        (lambda: Decolle((5, 4, 3), optax.sgd(0.1), nj.ALIF()), ValueError, "must be an LIF that"),
        (
            lambda: Decolle((5, 4, 3), optax.sgd(0.1), nj.LIF(t_ref=2.0, reset="subtract")),
            ValueError, "neuron must have t_ref=None",
        ),
        (lambda: Decolle((5, 4, 3), optax.sgd(0.1), nj.Izhikevich()), TypeError, "LIF or ALIF"),
        (
            lambda: Decolle((5, 4, 3), optax.sgd(0.1), n_steps=5, start=5), ValueError,
            r"start must be in \[0, 5\); got 5",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, told):
    with pytest.raises(error, match=told):
        make()


@pytest.mark.parametrize(
    ("shape", "told"),
    [((2, 6), r"x must be \[batch, 5\], or \[batch, steps, 5\]"), ((5,), "x must be"),
     ((2, 12, 6), "x must be"), ((2, 4, 5), "x must have more than 4 steps, as start is; got 4")],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused(shape, told):
    net = learner()
    with pytest.raises(ValueError, match=told):
        net.predict(net.init(KEY), jnp.ones(shape))


def patterns():
    """Four patterns of two classes, which no line parts."""
    x = jnp.array([[1.0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    return 3 * x, jnp.array([0, 1, 1, 0])


@eqx.filter_jit
def trained(net, state, x, y, n):
    step = lambda state, key: net.step(state, x, y, key=key)  # noqa: E731
    return jax.lax.scan(step, state, jax.random.split(KEY, n))


@pytest.mark.slow
def test_it_learns_where_no_derivative_can_be_taken(no_derivatives):
    net = learner((4, 40, 20, 2), optax.adam(1e-2))
    x, y = patterns()
    state, info = trained(net, net.init(KEY), x, y, 100)
    assert float(info["accuracy"][-20:].mean()) > 0.95
    assert (net.predict(state, x).argmax(1) == y).all()
