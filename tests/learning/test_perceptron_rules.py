"""Rules of perceptrons: each against its equations in NumPy, and against what it tends to."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware as hw
import neurojax as nj
from neurojax.learning import node_perturbation, perceptron
from neurojax.learning.learner import forward

SIZES, KEY, Y = (5, 7, 6, 3), jax.random.key(0), np.array([0, 2, 1, 2])
RULES = {
    "fa": nj.learning.FeedbackAlignment,
    "drtp": nj.learning.DRTP,
    "pepita": lambda: nj.learning.PEPITA(0.4),
    "predictive coding": lambda: nj.learning.PredictiveCoding(6, 0.2, 0.7),
    "node perturbation": lambda: nj.learning.NodePerturbation(3),
}
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def net(rule, phi="tanh", sizes=SIZES, lr=0.1):
    return nj.learning.Perceptron(sizes, rule, optax.sgd(lr), getattr(perceptron, phi))


def drawn(learner):
    """A state with biases that are not 0, so that they are seen."""
    state = learner.init(KEY)
    noise = [
        0.1 * jax.random.normal(jax.random.key(i), w.w.shape)
        for i, w in enumerate(state[0].values())
    ]
    moved = {n: w.program(d) for (n, w), d in zip(state.weights.items(), noise, strict=True)}
    return state._replace(weights=moved)


def samples():
    return jnp.asarray(np.random.default_rng(1).normal(size=(4, 5)), float), jnp.asarray(Y)


def changes(learner, state, x, y, key=KEY):
    arrays = list(state.weights.values())
    return quick(lambda a, f, x, y, k: learner.rule(learner, a, f, x, y, key=k))(
        arrays, state.fixed, x, y, key
    )


# --- the same in NumPy ---


def one(a):
    return np.hstack([a, np.ones((len(a), 1))])


def up(w, x, phi=np.tanh):
    """Inputs of each array with their 1, and what each gives."""
    inputs, z, a = [], [], x
    for each in w:
        inputs.append(one(a))
        z.append(inputs[-1] @ each.T)
        a = phi(z[-1])
    return inputs, z


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def slope(z):
    return 1 - np.tanh(z) ** 2


TOLD = np.eye(3)[Y]


def fa(w, b, x):
    inputs, z = up(w, x)
    d3 = softmax(z[2]) - TOLD
    d2 = d3 @ b[1].T * slope(z[1])
    d1 = d2 @ b[0].T * slope(z[0])
    return [d1, d2, d3], inputs


def drtp(w, b, x):
    inputs, z = up(w, x)
    return [
        -TOLD @ b[0].T * slope(z[0]),
        -TOLD @ b[1].T * slope(z[1]),
        softmax(z[2]) - TOLD,
    ], inputs


def pepita(w, f, x):
    _, z = up(w, x)
    moved, zz = up(w, x + (softmax(z[2]) - TOLD) @ f.T)
    h = [np.tanh(a) - np.tanh(b) for a, b in zip(z[:2], zz[:2], strict=True)]
    return [*h, softmax(zz[2]) - TOLD], moved


def predictive_coding(w, _, x, n_steps=6, rate=0.2, precision=0.7):
    inputs, z = up(w, x)
    v1, v2 = z[0], z[1]

    def errors():
        out = precision * (TOLD - softmax(one(np.tanh(v2)) @ w[2].T))
        return v1 - z[0], v2 - one(np.tanh(v1)) @ w[1].T, out

    for _ in range(n_steps):
        e1, e2, e3 = errors()
        pull1 = slope(v1) * (e2 @ w[1])[:, :-1] - e1
        v1, v2 = v1 + rate * pull1, v2 + rate * (slope(v2) * (e3 @ w[2])[:, :-1] - e2)
    delta = [-e / precision for e in errors()]
    return delta, [inputs[0], one(np.tanh(v1)), one(np.tanh(v2))]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "by_hand"),
    [("fa", fa), ("drtp", drtp), ("pepita", pepita), ("predictive coding", predictive_coding)],
)
def test_changes_are_those_of_the_equations(name, by_hand):
    learner = net(RULES[name]())
    state, (x, y) = drawn(learner), samples()
    dw, scores = changes(learner, state, x, y)
    w = [np.asarray(each.w) for each in state.weights.values()]
    delta, inputs = by_hand(w, jax.tree.map(np.asarray, state.fixed), np.asarray(x))
    for found, d, s in zip(dw, delta, inputs, strict=True):
        np.testing.assert_allclose(found, -d.T @ s / 4, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(scores, up(w, np.asarray(x))[1][-1], rtol=1e-12)


def exact(learner, state, x, y):
    """The gradient, by backpropagation written by hand (itself checked against JAX)."""
    true = eqx.tree_at(lambda n: n.rule, learner, nj.learning.Backprop())
    return changes(true, state._replace(fixed=None), x, y)[0]


@pytest.mark.usefixtures("x64")
def test_feedback_through_the_transposes_is_backpropagation():
    learner = net(RULES["fa"]())
    state, (x, y) = drawn(learner), samples()
    mirrored = [w.w[:, :-1].T for w in list(state.weights.values())[1:]]
    found, _ = changes(learner, state._replace(fixed=mirrored), x, y)
    for mine, true in zip(found, exact(learner, state, x, y), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-12, atol=1e-15)


def test_feedback_is_as_wide_as_what_it_goes_from():
    for name, per in (("fa", (200, 10)), ("drtp", (10, 10))):
        b = RULES[name]().init(KEY, (5, 300, 200, 10))
        for each, n in zip(b, per, strict=True):
            # of m normal numbers the spread is known to 1 / sqrt(2 m)
            spread = 4 / (2 * each.size) ** 0.5
            assert float(each.std() * n**0.5) == pytest.approx(1, abs=spread)
    f = RULES["pepita"]().init(KEY, (300, 20, 10))
    limit = 0.4 * (6 / 300) ** 0.5
    assert 0.99 * limit < float(f.max()) <= limit
    assert -limit <= float(f.min()) < -0.99 * limit


@pytest.mark.slow
def test_what_is_told_the_label_alone_knows_no_error_below_the_output():
    learner = net(RULES["drtp"]())
    state, (x, y) = drawn(learner), samples()
    base, _ = changes(learner, state, x, y)
    last = state.weights["w3"]
    wild = state._replace(weights=state.weights | {"w3": last.program(5 * last.w)})
    other, _ = changes(learner, wild, x, y)
    for i in range(2):
        np.testing.assert_array_equal(base[i], other[i])
    assert not np.allclose(base[2], other[2])


# --- predictive coding ---


@pytest.mark.usefixtures("x64")
def test_settling_goes_down_the_energy_whose_slope_its_steps_are():
    rule = nj.learning.PredictiveCoding(4, 0.1, 2.0)
    learner = net(rule)
    state, (x, y) = drawn(learner), samples()
    arrays = list(state.weights.values())
    z = learner.passed(arrays, x).z

    @quick
    def on(v):
        v = rule.settled(learner, arrays, z[0], v, y)
        return v, rule.energy(rule.predicted(learner, arrays, z[0], v), v, y)

    v, energies = z[:-1], []
    for _ in range(8):
        v, energy = on(v)
        energies.append(energy)
    assert (np.diff(np.array(energies), axis=0) < 0).all()  # of every sample
    # one step is rate times the downward slope of the energy
    rule = nj.learning.PredictiveCoding(1, 1e-3, 2.0)
    start = (z[0] - 0.2, z[1] + 0.3)

    def energy(v):
        return rule.energy(rule.predicted(learner, arrays, z[0], v), v, y).sum()

    slopes = quick(jax.grad(energy))(start)
    moved = quick(lambda v: rule.settled(learner, arrays, z[0], v, y))(start)
    for before, after, g in zip(start, moved, slopes, strict=True):
        np.testing.assert_allclose((after - before) / 1e-3, -g, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_settled_errors_tend_to_those_of_backpropagation_at_first_order():
    state, (x, y) = drawn(net(RULES["predictive coding"]())), samples()
    true = exact(net(RULES["fa"]()), state, x, y)
    off = []
    for precision in (4e-3, 2e-3, 1e-3):
        learner = net(nj.learning.PredictiveCoding(400, 0.2, precision))
        dw, _ = changes(learner, state, x, y)
        off.append(
            [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(dw, true, strict=True)]
        )
    off = np.array(off)
    assert (off[0] < 2e-2).all()
    # halved with the precision, but for terms of second order, a hundredth of the first
    np.testing.assert_allclose(off[:-1] / off[1:], 2, rtol=0.03)


# --- node perturbation ---


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_perturbed_nodes_find_the_gradient_on_average_and_d_plus_1_times_its_square():
    rule = nj.learning.NodePerturbation(1, 1e-4)
    learner = net(rule)
    state, (x, y) = drawn(learner), samples()
    x, y, n = x[:1], y[:1], 20_000
    arrays = list(state.weights.values())

    def ask(key):
        return learner.rule(learner, arrays, None, x, y, key=key)[0]

    draws = [np.asarray(d) for d in jax.jit(jax.vmap(ask))(jax.random.split(KEY, n))]
    true = exact(net(RULES["fa"]()), state, x, y)
    for found, g in zip(draws, true, strict=True):
        sem = found.std(0) / n**0.5
        # 4 standard errors of each synapse, of 100 in all: one in 160 such tests would fail
        np.testing.assert_array_less(np.abs(found.mean(0) - g), 4 * sem + 1e-7)
    # with the bias as input, 1, the last column is delta itself
    delta, g = (np.concatenate([a[..., -1] for a in each], -1) for each in (draws, true))
    d = sum(SIZES[1:])
    ratio = ((delta - g) ** 2).sum(1) / (g**2).sum()
    assert ratio.mean() == pytest.approx(d + 1, abs=4 * ratio.std() / n**0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_draws_side_by_side_are_averaged():
    """q draws leave (d + 1) / q of the variance."""
    state, (x, y) = drawn(net(RULES["fa"]())), samples()
    arrays, q, n = list(state.weights.values()), 16, 1500
    true = exact(net(RULES["fa"]()), state, x[:1], y[:1])
    learner = net(nj.learning.NodePerturbation(q, 1e-4))

    def ask(key):
        return learner.rule(learner, arrays, None, x[:1], y[:1], key=key)[0]

    draws = jax.jit(jax.vmap(ask))(jax.random.split(KEY, n))
    delta, g = (np.concatenate([a[..., -1] for a in each], -1) for each in (draws, true))
    ratio = ((delta - g) ** 2).sum(1) / (g**2).sum()
    assert ratio.mean() == pytest.approx((sum(SIZES[1:]) + 1) / q, abs=4 * ratio.std() / n**0.5)


# --- all of them ---


def centred(n=30):
    y = np.arange(n) % 3
    x = np.random.default_rng(1).normal(size=(3, 6))[y]
    return jnp.asarray(x + 0.3 * np.random.default_rng(2).normal(size=(n, 6)), float), jnp.asarray(
        y
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("fa", 0.5),
        ("drtp", 0.2),
        ("pepita", 0.3),
        ("predictive coding", 0.5),
        ("node perturbation", 0.1),
    ],
)
def test_learns_without_derivatives(no_derivatives, one_way, name, lr):
    learner = net(RULES[name](), sizes=(6, 16, 16, 3), lr=lr)
    make = nj.ideal() if name == "predictive coding" else one_way
    state, (x, y) = quick(lambda key: learner.init(key, make))(KEY), centred()

    @quick
    def trained(state):
        keys = jax.random.split(KEY, 80)
        return jax.lax.scan(lambda s, k: learner.step(s, x, y, key=k), state, keys)

    state, info = trained(state)
    assert info["accuracy"][0] < 0.7
    assert info["accuracy"][-1] > 0.95
    assert (learner.predict(state, x).argmax(1) == y).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_learns_on_devices_by_pulses(name):
    make = hw.crossbar(hw.Device(hw.linear(64)), hw.OneSide(hw.Single(7)), w_max=1.0)
    learner, (x, y) = net(RULES[name](), sizes=(5, 4, 3), lr=50.0), samples()

    @quick
    def run(key):
        state = learner.init(key, make)
        return state, *learner.step(state, x, y, key=key)

    state, new, info = run(KEY)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for array, before in zip(new.weights.values(), state.weights.values(), strict=True):
        assert array.n_pulses.sum() > before.n_pulses.sum()
    assert np.isfinite(info["accuracy"])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: nj.learning.PEPITA(-1.0), "scale must be finite and >= 0; got -1.0"),
        (lambda: nj.learning.PEPITA([0.1, 0.2]), "scale of PEPITA must be one number"),
        (lambda: nj.learning.PredictiveCoding(0), "n_steps must be a whole number >= 1; got 0"),
        (lambda: nj.learning.PredictiveCoding(rate=0.0), "rate must be finite and > 0; got 0.0"),
        (lambda: nj.learning.PredictiveCoding(precision=-1), "precision must be finite and > 0"),
        (lambda: nj.learning.PredictiveCoding(rate=[0.1, 0.2]), "rate of Pred.* one number"),
        (lambda: nj.learning.PredictiveCoding(precision=[1.0, 2.0]), "precision of Pred.* one num"),
        (lambda: nj.learning.NodePerturbation(0), "n_draws must be a whole number >= 1; got 0"),
        (lambda: nj.learning.NodePerturbation(1.5), "n_draws must be a whole number >= 1; got 1.5"),
        (lambda: nj.learning.NodePerturbation(sigma=0), "sigma must be finite and > 0; got 0"),
    ],
)
def test_refuses_settings_out_of_range(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.fixture
def keys_of_reads(monkeypatch):
    """The keys by which arrays are read upwards."""
    seen = []

    def spied(w, a, key=None):
        seen.append(key)
        return forward(w, a, key)

    for module in (perceptron, node_perturbation):
        monkeypatch.setattr(module, "forward", spied)
    return seen


@pytest.mark.parametrize("name", ["fa", "drtp", "pepita"])
def test_each_read_of_a_step_draws_by_a_key_of_its_own(keys_of_reads, name):
    learner = net(RULES[name]())
    state = drawn(learner)
    learner.rule(learner, list(state.weights.values()), state.fixed, *samples(), key=KEY)
    told = {tuple(jax.random.key_data(key).tolist()) for key in keys_of_reads}
    assert len(told) == len(keys_of_reads) == (6 if name == "pepita" else 3)


def test_each_perturbed_read_draws_by_a_key_of_its_own(keys_of_reads):
    learner = net(RULES["node perturbation"]())
    arrays = list(drawn(learner).weights.values())
    noise = [jnp.zeros((4, n)) for n in SIZES[1:]]
    learner.rule.perturbed(learner, arrays, noise[0], noise, KEY)
    a, b = (jax.random.key_data(key).tolist() for key in keys_of_reads)
    assert a != b


def test_settings_are_swept_by_vmap():
    x, y = samples()
    arrays = list(drawn(net(nj.learning.DRTP())).weights.values())

    def asked(precision):
        learner = net(nj.learning.PredictiveCoding(3, precision=precision))
        return learner.rule(learner, arrays, None, x, y, key=KEY)[0][0]

    many, alone = quick(jax.vmap(asked))(jnp.array([0.5, 2.0])), quick(asked)
    np.testing.assert_allclose(many[1], alone(2.0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(many[0], many[1], rtol=0.1)


@pytest.mark.parametrize("name", RULES)
def test_a_net_without_hidden_layers_learns_by_the_error_of_its_output(name):
    learner = net(RULES[name](), sizes=(5, 3))
    state, (x, y) = drawn(learner), samples()
    (dw,), scores = changes(learner, state, x, y)
    assert dw.shape == (3, 6)
    if name in ("fa", "drtp", "predictive coding"):
        e = softmax(np.asarray(scores)) - TOLD
        np.testing.assert_allclose(dw, -e.T @ one(np.asarray(x)) / 4, rtol=1e-4, atol=1e-6)
