"""The reference trained by gradient: the same network, the right gradient, and it learns."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _config, _training
from experiments import surrogate_reference as sr
from experiments import wta_broadcast as wta
from experiments._options import part
from experiments._training import Task
from neurojax import data
from neurojax.learning import bptt
from neurojax.learning import wta_broadcast as wb
from neurojax.neurons.surrogate import fast_sigmoid
from neurojax.weights import connectivity_mask
from neurojax.wiring.layouts import FanIn

GAIN = 10.0
SMALL = dict(
    hidden=(24,), radius=4, p_rewire=0.25, readout_density=0.4, readout_population=2, n_steps=8,
    start=2, target_rate=0.1,
)  # fmt: skip


def parts(c):
    return part(c, _config.Network), part(c, _config.Learning)


def made(seed=0, **options):
    """System and initial weights for 12 inputs and 3 classes, all readout weights random."""
    config = _config.resolved(sr.Config(**(SMALL | options)))

    @eqx.filter_jit
    def build(key):
        system = wta.build(*parts(config), Task(12, 3, config.n_steps, config.start), key)
        weights = system.network.init_weights(key)
        held = weights["h1->readout"]
        w = connectivity_mask(held.connectivity, jax.random.normal(key, held.w.shape))
        return system, weights | {"h1->readout": held.program(w - held.w)}

    return build(jax.random.key(seed))


def batch():
    """Five pictures strong enough to make neurons fire, and their classes."""
    return 4 * jax.random.uniform(jax.random.key(7), (5, 12)), jnp.array([0, 1, 2, 1, 0])


def lost(system, weights, tone, *seen, gain=GAIN):
    return bptt.loss(bptt.Reference(system, weights, tone, fast_sigmoid(5.0)), *seen, gain)[0]


def gradients(system, weights, **options):
    options = dict(spike=fast_sigmoid(5.0), gain=GAIN) | options
    tone = system.rest(batch()[0].dtype)
    return jax.jit(lambda w: bptt.gradients(system, w, tone, *batch(), **options))(weights)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_readout_weight_is_that_of_finite_differences():
    system, weights = made()
    name = "h1->readout"
    dw, _ = gradients(system, weights)
    held, eps = weights[name], 1e-5
    synapses = np.argwhere(np.asarray(held.connectivity.count) > 0)[:5]

    @jax.jit
    @jax.vmap
    def moved(row, column, by):
        change = jnp.zeros_like(held.w).at[row, column].set(by)
        return lost(system, weights | {name: held.program(change)}, system.rest(), *batch())

    up, down = (moved(*jnp.asarray(synapses.T), jnp.full(5, by)) for by in (eps, -eps))
    # Central differences: eps^2 / 6 times a third derivative of order GAIN^3, 2e-8.
    slope = (up - down) / (2 * eps)
    np.testing.assert_allclose(-dw[name][tuple(synapses.T)], slope, rtol=0, atol=1e-7)
    assert np.abs(slope).max() > 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_gradient_of_a_hidden_weight_in_one_step_is_the_surrogates():
    system, weights = made(recurrence="none", n_steps=1, start=0)
    x, target = batch()
    slope = 3.0
    dw, _ = gradients(system, weights, spike=fast_sigmoid(slope))

    hidden, readout = (system.network.layers[n].neuron for n in ("h1", "readout"))
    charge = float(1 - np.exp(-1 / hidden.tau_mem)) * float(hidden.r_mem)
    w_in = np.asarray(weights["input->h1"].w)
    w_out = np.asarray(weights["h1->readout"].connectivity.matrix(weights["h1->readout"].w))
    w_out = w_out * float(1 - np.exp(-1 / readout.tau_mem)) * float(readout.r_mem)
    v = charge * np.asarray(x) @ w_in.T - 1.0  # above the threshold of 1 mV
    belief = np.asarray(jax.nn.softmax(jnp.asarray(GAIN * (v >= 0) @ w_out.T)))
    error = (np.eye(3)[np.asarray(target)] - belief) * GAIN / len(x)
    factor = error @ w_out / (1 + slope * np.abs(v)) ** 2
    np.testing.assert_allclose(dw["input->h1"], charge * factor.T @ np.asarray(x), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("recurrence", "readout"), [("local", "leaky"), ("dense", "spiking")])
def test_forward_the_reference_is_the_local_system(recurrence, readout):
    system, weights = made(recurrence=recurrence, readout=readout)
    x, target = batch()
    tone = system.rest(x.dtype)
    _, local = jax.jit(partial(wb.deltas, system))(weights, tone, x, target)
    dw, reference = gradients(system, weights)
    assert float(local.rates["h1"].mean()) > 0.01
    np.testing.assert_array_equal(reference.rates["h1"], local.rates["h1"])
    np.testing.assert_allclose(reference.scores, local.scores, atol=1e-5)
    assert sorted(dw) == sorted(system.network.plastic())
    assert all(float(jnp.abs(change).max()) > 0 for change in dw.values())


@pytest.mark.slow
def test_the_penalty_alone_moves_rates_towards_target():
    system, weights = made(recurrence="none", target_rate=0.0, rate_penalty=1e3)
    dw, before = gradients(system, weights, gain=0.0)
    quieter = weights | {"input->h1": weights["input->h1"].program(1e-2 * dw["input->h1"])}
    _, after = gradients(system, quieter, gain=0.0)
    assert float(after.rates["h1"].mean()) < 0.9 * float(before.rates["h1"].mean())


@pytest.fixture(scope="module")
def trained():
    """System, weights before and after two epochs of digits, and both losses."""
    c = _config.resolved(sr.Config(hidden=(48,), radius=4, n_steps=10, weight_decay=0.01))
    train = data.load("digits").train
    images, labels = jnp.asarray(train.images.reshape(-1, 64)), jnp.asarray(train.labels)
    batches = 2 * list(range(0, len(labels) - 31, 32))
    net, rule = parts(c)
    tx, key = _training.optimiser(rule, len(batches)), jax.random.key(0)
    system = eqx.filter_jit(partial(wta.build, net, rule, Task(64, 10, 10, c.start)))(key)
    start = state = jax.jit(lambda key: wb.init(system, tx, key))(key)
    changes = partial(bptt.gradients, spike=fast_sigmoid(5.0), gain=GAIN)
    step = jax.jit(lambda state, x, y: wb.train_step(system, tx, state, x, y, changes=changes)[0])
    for i in batches:
        state = step(state, images[i : i + 32], labels[i : i + 32])
    measure = jax.jit(lambda s: lost(system, s.weights, s.homeostasis, images, labels))
    return system, start.weights, state.weights, float(measure(start)), float(measure(state))


@pytest.mark.slow
def test_two_epochs_lower_the_loss(trained):
    *_, before, after = trained
    assert before == pytest.approx(np.log(10), rel=1e-5)  # readout weights start at zero
    assert after < 0.7 * before


@pytest.mark.slow
def test_absent_and_fixed_synapses_stay_as_they_were(trained):
    system, before, after, *_ = trained
    for name, held in after.items():
        absent = np.asarray(connectivity_mask(held.connectivity, jnp.ones(held.w.shape))) == 0
        assert not np.asarray(held.w)[absent].any()
        learns = name in system.network.plastic()
        assert np.array_equal(held.w, before[name].w) != learns
        assert learns or isinstance(held.connectivity, FanIn)  # the rewired ones


@pytest.mark.slow
def test_both_experiments_wire_the_same_network(tmp_path, monkeypatch):
    class Wired(Exception):  # noqa: N818 - no error: it ends a run before it trains
        pass

    def stop(data, learner):
        raise Wired(learner.system, learner.changes)

    def wired(run, config):
        with pytest.raises(Wired) as caught:
            run(config)
        return caught.value.args

    monkeypatch.setattr(_training, "trainer", stop)
    options = dict(seed=3, hidden=(40,), radius=4)
    ours, changes = wired(sr.run, sr.Config(out=tmp_path / "ours", slope=7.0, **options))
    theirs, local = wired(wta.run, wta.Config(out=tmp_path / "theirs", **options))
    assert eqx.tree_equal(ours.network, theirs.network)
    assert local is wb.deltas
    assert changes.func is bptt.gradients
    assert changes.keywords == dict(spike=fast_sigmoid(7.0), gain=10.0)


@pytest.mark.slow
def test_without_learning_both_experiments_run_one_and_the_same_network(tmp_path):
    options = dict(
        seed=3, epochs=1, hidden=(40,), radius=4, train_size=64, lr=0.0, lr_readout=0.0,
    )  # fmt: skip
    # Promotion as the command has it.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        ours = sr.run(sr.Config(out=tmp_path / "ours", **options))
        theirs = wta.run(wta.Config(out=tmp_path / "theirs", **options))
    assert ours.keys() == theirs.keys()
    assert ours["config"]["slope"] == 5.0
    for name in ("test_accuracy", "spikes_per_neuron_step", "synaptic_events_per_inference"):
        # The order of a sum may differ, and with it a rare spike.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3)
    assert ours["spikes_per_neuron_step"][0] > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kappa_e=0.5), "--kappa-e belongs to the local rule and must be left out; got 0.5"),
        (dict(modulators=2), "--modulators belongs to the local rule"),
        (dict(teacher="hard"), "--teacher belongs to the local rule"),
        (dict(slope=0.0), r"--slope must be in \(0, inf\); got 0.0"),
    ],
)
def test_refusals(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sr.run(sr.Config(out=tmp_path, **options))
