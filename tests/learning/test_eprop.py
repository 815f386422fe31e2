"""E-prop against the gradient through time, where the two are one, and against a loop."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware
import neurojax as nj
from neurojax.learning import EProp
from neurojax.neurons import surrogate

KEY = jax.random.key(0)
T, START, DT, TAU, R, TAU_OUT, WIDTH = 12, 4, 0.7, 8.0, 3.0, 6.0, 0.9
NEURONS = {
    "lif": lambda: nj.LIF(TAU, R, reset="subtract"),
    "lif hard": lambda: nj.LIF(TAU, R),
    "alif": lambda: nj.ALIF(TAU, R, reset="subtract", beta_adapt=0.4, tau_adapt=15.0),
}


def learner(sizes=(5, 7, 3), tx=None, neuron="lif", **parts):
    return EProp(
        sizes, tx or optax.sgd(1.0), NEURONS[neuron](), TAU_OUT, nj.triangle(WIDTH),
        n_steps=T, start=START, dt=DT, **parts,
    )  # fmt: skip


def batch(net, time, n=4):
    shape = (n, T, net.sizes[0]) if time else (n, net.sizes[0])
    x = jax.random.uniform(jax.random.key(1), shape, float)
    return (2 * jnp.round(x) if time else 2 * x), jnp.arange(n) % net.sizes[-1]


def asked(net, state, x, y):
    """Ascending changes: what plain descent at rate 1 has added."""
    new, info = eqx.filter_jit(net.step)(state, x, y, key=KEY)
    return {n: w.w - state.weights[n].w for n, w in new.weights.items()}, info


@pytest.mark.slow
@pytest.mark.parametrize(("neuron", "time"), [("lif", True), ("lif hard", False), ("alif", True)])
def test_without_recurrence_it_is_the_gradient_through_time(x64, neuron, time):
    """With the readout's own weights for feedback; a reset is what it was."""
    net = learner(neuron=neuron, recurrent=False, feedback="symmetric")
    state, (x, y) = net.init(KEY), batch(net, time)
    spike, hard = surrogate.triangle(WIDTH), neuron == "lif hard"
    alpha, rho, kappa = np.exp(-DT / TAU), np.exp(-DT / 15.0), np.exp(-DT / TAU_OUT)
    beta = 0.4 if neuron == "alif" else 0.0
    one = lambda s: jnp.concatenate([s, jnp.ones((*s.shape[:-1], 1))], -1)  # noqa: E731

    def loss(w):
        s = x.swapaxes(0, 1) if time else jnp.broadcast_to(x, (T, *x.shape))
        v = z = a = jnp.zeros((len(x), 7))
        out, total = jnp.zeros((len(x), 3)), 0.0
        for t, now in enumerate(s):
            was = jax.lax.stop_gradient(z)
            left = v * (1 - was) if hard else v - was
            v = alpha * left + (1 - alpha) * R * one(now) @ w["w1"].T
            a = rho * a + z
            z = spike(v - 1.0 - beta * a)
            out = kappa * out + (1 - kappa) * one(z) @ w["out"].T
            if t >= START:
                total += optax.softmax_cross_entropy_with_integer_labels(out, y).mean()
        return total / (T - START)

    wanted = jax.jit(jax.grad(loss))({n: w.w for n, w in state.weights.items()})
    dw, _ = asked(net, state, x, y)
    assert set(dw) == {"w1", "out"}
    for name, g in wanted.items():
        assert np.abs(g).max() > 1e-3
        np.testing.assert_allclose(dw[name], -g, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("neuron", ["lif", "alif"])
@pytest.mark.parametrize("feedback", ["random", "symmetric"])
def test_with_recurrence_it_is_the_papers_loop_over_synapses_and_steps(x64, neuron, feedback):
    """Each synapse holds its eligibility vector, and an eligibility that the readout filters."""
    net = learner((5, 6, 4, 3), neuron=neuron, feedback=feedback)
    state, (x, y) = net.init(KEY), batch(net, True, 3)
    dw, _ = asked(net, state, x, y)
    w = {n: np.asarray(a.w) for n, a in state.weights.items()}
    told = np.split(w["out"][:, :-1].T, [6]) if feedback == "symmetric" else state.feedback or []
    alpha, rho, kappa = np.exp(-DT / TAU), np.exp(-DT / 15.0), np.exp(-DT / TAU_OUT)
    beta = 0.4 if neuron == "alif" else 0.0
    total = {n: np.zeros_like(a) for n, a in w.items()}
    for sample, label in zip(np.asarray(x), np.asarray(y), strict=True):
        sizes, names = (6, 4), ("w1", "r1", "w2", "r2")
        v, z, a = ([np.zeros(n) for n in sizes] for _ in range(3))
        eps_v, eps_a, elig = ({n: np.zeros_like(w[n]) for n in names} for _ in range(3))
        out, trace = np.zeros(3), np.zeros(11)
        for t, s in enumerate(sample):
            pres, below = {}, s
            for i in range(2):
                pres |= {f"w{i + 1}": np.append(below, 1), f"r{i + 1}": z[i]}
                current = w[f"w{i + 1}"] @ pres[f"w{i + 1}"] + w[f"r{i + 1}"] @ z[i]
                v[i] = alpha * (v[i] - z[i]) + (1 - alpha) * R * current
                a[i] = rho * a[i] + z[i]
                h = np.maximum(0, 1 - np.abs(v[i] - 1 - beta * a[i]) / WIDTH)[:, None]
                z[i] = (v[i] >= 1 + beta * a[i]).astype(float)
                for n in (f"w{i + 1}", f"r{i + 1}"):
                    eps_v[n] = alpha * eps_v[n] + (1 - alpha) * R * pres[n][None]
                    e = h * (eps_v[n] - beta * eps_a[n])
                    eps_a[n] = rho * eps_a[n] + e
                    elig[n] = kappa * elig[n] + (1 - kappa) * e
                below = z[i]
            sent = np.append(np.concatenate(z), 1)
            trace = kappa * trace + (1 - kappa) * sent
            out = kappa * out + (1 - kappa) * w["out"] @ sent
            if t >= START:
                p = np.exp(out) / np.exp(out).sum()
                miss = p - np.eye(3)[label]
                total["out"] += np.outer(miss, trace)
                for n in names:
                    total[n] += (np.asarray(told[int(n[1]) - 1]) @ miss)[:, None] * elig[n]
    for n, g in total.items():
        assert np.abs(g).max() > 1e-3
        np.testing.assert_allclose(-dw[n] * 3 * (T - START), g, rtol=1e-9, atol=1e-12, err_msg=n)


@pytest.mark.slow
def test_what_is_held_is_what_is_repeated():
    net = learner()
    state, (x, y) = net.init(KEY), batch(net, False)
    held, info = asked(net, state, x, y)
    repeated, same = asked(net, state, jnp.repeat(x[:, None], T, 1), y)
    for name, d in held.items():
        np.testing.assert_allclose(repeated[name], d, rtol=1e-4, atol=1e-6)
    assert info == pytest.approx(same)


def test_no_synapse_holds_anything_over_time():
    """What is largest is what neurons did, not [T, b, n_post, n_pre] or [b, n_post, n_pre]."""
    net = learner((50, 40, 3))
    state = net.init(KEY)
    x, y = jnp.ones((16, T, 50)), jnp.zeros(16, int)
    closed = jax.make_jaxpr(lambda s, x: net.step(s, x, y, key=KEY))(state, x)
    sizes = [v.aval.size for e in _equations(closed.jaxpr) for v in e.outvars if v.aval.shape]
    assert max(sizes) <= T * 16 * 51 < 16 * 40 * 40


def _equations(jaxpr):
    for e in jaxpr.eqns:
        yield e
        for inner in jax.tree.leaves(list(e.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                yield from _equations(getattr(inner, "jaxpr", inner))


def _is_jaxpr(x):
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: EProp((5, 3), optax.sgd(0.1)), ValueError, "sizes must be .*three or more"),
        (
            lambda: EProp((5, 4, 3), optax.sgd(0.1), nj.LIF(t_ref=2.0)), ValueError,
            "neuron must have t_ref=None",
        ),
        (lambda: EProp((5, 4, 3), optax.sgd(0.1), nj.Izhikevich()), TypeError, "an LIF or ALIF"),
        (
            lambda: EProp((5, 4, 3), optax.sgd(0.1), feedback="none"), ValueError,
            "feedback must be 'random' or 'symmetric'; got 'none'",
        ),
        (
            lambda: EProp((5, 4, 3), optax.sgd(0.1), n_steps=5, start=7), ValueError,
            r"start must be in \[0, 5\); got 7",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, told):
    with pytest.raises(error, match=told):
        make()


def patterns():
    """Four patterns of two classes, which no line parts."""
    x = jnp.array([[1.0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
    return 2 * x, jnp.array([0, 1, 1, 0])


@eqx.filter_jit
def trained(net, state, x, y, n):
    step = lambda state, key: net.step(state, x, y, key=key)  # noqa: E731
    return jax.lax.scan(step, state, jax.random.split(KEY, n))


@pytest.mark.slow
def test_it_learns_where_no_derivative_can_be_taken(no_derivatives):
    net = learner((4, 30, 2), optax.adam(1e-2), "alif")
    x, y = patterns()
    state, info = trained(net, net.init(KEY), x, y, 150)
    assert float(info["accuracy"][-20:].mean()) > 0.95
    assert (net.predict(state, x).argmax(1) == y).all()


@pytest.mark.slow
def test_it_runs_on_devices_whose_readout_is_read_both_ways():
    make = hardware.crossbar(
        hardware.Device(hardware.linear(64), sigma_read=0.01),
        hardware.OneSide(hardware.Train(64)), w_max=3.0,
    )  # fmt: skip
    net = dataclasses.replace(learner((4, 8, 2), feedback="symmetric"), tx=optax.sgd(10.0))
    state, (x, y) = net.init(KEY, make), patterns()
    pulses = lambda state: {n: int(w.n_pulses.sum()) for n, w in state.weights.items()}  # noqa: E731
    before = pulses(state)
    state, _ = eqx.filter_jit(net.step)(state, x, y, key=KEY)
    assert all(n > before[name] for name, n in pulses(state).items())
