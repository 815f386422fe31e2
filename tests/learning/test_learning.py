"""The broadcast learning system as a whole: what it computes, from what, and in what memory."""

import copy
import functools
import inspect
import math
import pickle

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import connectivity as wiring
from oracles import wta_broadcast as oracle

from neurojax.learning import wta_broadcast as wb
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity.feedback import Broadcast, broadcast
from neurojax.plasticity.gating import SurpriseGate
from neurojax.plasticity.modulation import Modulators, modulators
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.teaching import HardWTA, SoftWTA
from neurojax.plasticity.three_factor import (
    Homeostasis,
    HomeostasisState,
    Post,
    ThreeFactor,
    always,
    post_spike,
)
from neurojax.structured import Recurrence, structured
from neurojax.weights import Ideal, Weights
from neurojax.wiring.layouts import Band, Dense

KEY = jax.random.key(0)
N_IN, H1, H2, CLASSES, T, BATCH = 7, 15, 12, 3, 14, 3

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

DELTA_RULE = ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)


def held(rng):
    """Two layers, ring and dense recurrence, all plastic; ALIF; modulators; a leaky readout."""
    layers = {
        "h1": Layer(H1, LIF(np.linspace(4.0, 12.0, H1), 3.0), rule=ThreeFactor(0.9)),
        "h2": Layer(
            H2,
            ALIF(8.0, 4.0, reset="subtract", beta_adapt=0.3, tau_adapt=15.0),
            rule=ThreeFactor(0.8, reset_trace=False),
        ),
        "readout": Layer(CLASSES, LeakyIntegrator(9.0, 0.5), rule=DELTA_RULE),
    }
    links = {
        "input->h1": Projection("input", "h1", Dense(N_IN, H1), gain=2.0),
        "h1->h1": Projection("h1", "h1", wiring.banded(rng, H1, 3), delay=1),
        "h1->h1 far": Projection("h1", "h1", wiring.linked(rng, H1, H1, 2), delay=2),
        "h1->h2": Projection("h1", "h2", Dense(H1, H2), gain=4.0),
        "h2->h2": Projection("h2", "h2", Dense(H2, H2), delay=1),
        "h2->h1": Projection("h2", "h1", wiring.linked(rng, H1, H2, 4), delay=5),
        "h1->readout": Projection("h1", "readout", wiring.counted(rng, CLASSES, H1)),
        "h2->readout": Projection("h2", "readout", Dense(H2, CLASSES), delay=1),
    }
    names = {"h1": H1, "h2": H2}
    gates = {n: jnp.asarray(rng.dirichlet(np.ones(4), size), float) for n, size in names.items()}
    return wb.System(
        Network(layers, links),
        feedback(rng, names, 2),
        SoftWTA(gain=3.0),
        Homeostasis(penalty=0.3),
        Modulators(jnp.asarray(rng.normal(size=(4, 3)), float), gates),
        n_steps=T, start=3, dt=0.7,
    )  # fmt: skip


def moving(rng):
    """A spiking readout that feeds back, hard winners, other windows and traces."""
    rivals = np.arange(2 * CLASSES)[:, None] // 2 != np.arange(2 * CLASSES)[None] // 2
    layers = {
        "h1": Layer(H1, ALIF(6.0, 4.0, beta_adapt=0.2), rule=ThreeFactor(0.9, decay=0.7)),
        "h2": Layer(H2, LIF(8.0, 4.0, reset="subtract"), rule=ThreeFactor(0.5, window=post_spike)),
        "readout": Layer(2 * CLASSES, LIF(9.0, 4.0), rule=DELTA_RULE),
    }
    links = {
        "input->h1": Projection("input", "h1", wiring.linked(rng, H1, N_IN, 4), gain=3.0),
        "h1->h2": Projection("h1", "h2", Dense(H1, H2), gain=4.0),
        "h1->h1": Projection("h1", "h1", Dense(H1, H1), delay=1, plastic=False),
        "h2->readout": Projection("h2", "readout", Dense(H2, 2 * CLASSES), gain=4.0),
        "readout->h1": Projection("readout", "h1", Dense(2 * CLASSES, H1), delay=1),
        "lateral": Projection(
            "readout", "readout", Dense(2 * CLASSES, 2 * CLASSES, jnp.asarray(rivals)), delay=1,
        ),
    }  # fmt: skip
    return wb.System(
        Network(layers, links),
        feedback(rng, {"h1": H1, "h2": H2}, 1),
        HardWTA(margin=0.05),
        Homeostasis(),
        n_steps=T, start=0, dt=1.4,
    )  # fmt: skip


def feedback(rng, names, bandwidth):
    shapes = {n: ((size, bandwidth), (bandwidth, CLASSES)) for n, size in names.items()}
    return {
        n: Broadcast(*(jnp.asarray(rng.normal(size=s), float) for s in shape))
        for n, shape in shapes.items()
    }


def examples(time, dtype=float):
    rng = np.random.default_rng(5)
    shape = (BATCH, T, N_IN) if time else (BATCH, N_IN)
    x = rng.random(shape).astype(np.float32)
    return jnp.asarray(2 * (x > 0.6) if time else x, dtype), jnp.arange(BATCH) % CLASSES


@functools.cache
def built(make, x64=False):
    """System, its weights, and thresholds as homeostasis may have left them; drawn by NumPy."""
    rng = np.random.default_rng(2)
    with jax.enable_x64(x64):
        system, weights = make(rng), {}
        for name, p in system.network.projections.items():
            c = p.connectivity
            exists, fan_in = wiring.synapses(c)[2] > 0, np.maximum(np.asarray(c.fan_in), 1)[:, None]
            w = rng.normal(size=c.shape) * exists * p.gain / np.sqrt(fan_in)
            weights[name] = Ideal(jnp.asarray(w, float), c)
        tone = {
            n: HomeostasisState(
                jnp.asarray(rng.uniform(0.4, 1.6, system.network.layers[n].n), float),
                jnp.asarray(rng.uniform(0.0, 0.2, system.network.layers[n].n), float),
            )
            for n in system.hidden
        }
        return system, weights, tone


@quick
def both_forms(system, weights, tone, x, target):
    """Mean over the batch, factorised and step by step."""
    online = functools.partial(wb.online_deltas, system, weights, tone)
    alone = jax.vmap(online)(x, target)
    online = jax.tree.map(lambda d: d.mean(0), alone)
    predicted = wb.predict(system, weights, tone, x)
    return wb.deltas(system, weights, tone, x, target), online, predicted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "x64", "tolerance"), [(held, False, 1e-5), (held, True, 1e-12), (moving, True, 1e-12)]
)
def test_factorised_and_online_learning_are_the_loops_written_out(make, x64, tolerance):
    with jax.enable_x64(x64):
        system, weights, tone = built(make, x64)
        x, target = examples(make is moving)
        (dw, outcome), online, predicted = both_forms(system, weights, tone, x, target)
        loops = [oracle.deltas(system, weights, tone, x[b], target[b]) for b in range(BATCH)]
        assert set(dw) == set(online) == set(loops[0][0])
        for name in dw:
            c = system.network.projections[name].connectivity
            expected = wiring.stored(c, np.mean([loop[0][name] for loop in loops], axis=0))
            size = np.abs(expected).max()
            assert size > 0.01, name
            np.testing.assert_allclose(dw[name], expected, atol=tolerance * size, err_msg=name)
            np.testing.assert_allclose(online[name], expected, atol=tolerance * size, err_msg=name)
        np.testing.assert_allclose(outcome.scores, [s for _, s in loops], atol=tolerance)
        chex.assert_trees_all_close(predicted, outcome, atol=tolerance)
        assert all(0.03 < r.mean() < 0.7 for r in outcome.rates.values())


def test_learning_signals_reach_a_neuron_through_its_own_weights_alone():
    """Records, feedback, gates and rates of all but one neuron are replaced by nothing at all."""
    system, _, tone = built(held)
    rng, mine = np.random.default_rng(0), 1

    def raster(n):
        return jnp.asarray(rng.random((T, n)), float)

    def only(x, axis):
        here = np.indices(x.shape)[axis] == mine
        return jnp.asarray(np.where(here, x, np.nan), x.dtype)

    sizes = {n: layer.n for n, layer in system.network.layers.items()}
    record = {n: Post(raster(size), raster(size)) for n, size in sizes.items()}
    told = wb.Instruction(raster(CLASSES), raster(CLASSES), raster(4))

    def received(s):
        return [
            f(n) for n in s.hidden for f in (lambda n: s.feedback[n].spread, s.modulators.a.get)
        ]

    deaf = eqx.tree_at(received, system, [only(x, 0) for x in received(system)])
    factors = quick(wb.factors)
    full = factors(system, tone, record, told)
    record, tone = jax.tree.map(lambda x: only(x, x.ndim - 1), (record, tone))
    lonely = factors(deaf, tone, record, told)
    for name in system.taught:
        with_others, without = (np.asarray(d[name])[:, mine] for d in (full, lonely))
        assert np.any(with_others)
        assert without.tobytes() == with_others.tobytes()
        assert np.isnan(np.delete(lonely[name], mine, axis=1)).all()


def toy(key, kappa_e=0.9):
    """One hidden ring and a sparse readout, for three patterns of eight pixels."""
    hidden = Layer(24, LIF(6.0, 3.0), rule=ThreeFactor(kappa_e))
    net = structured(
        fold(key, "wiring"), 8, [hidden], 3, density=0.5, population=4,
        recurrence=Recurrence(radius=3, p_rewire=0.34),
    )  # fmt: skip
    feedback = {"h1": broadcast(fold(key, "feedback"), 24, 3)}
    return wb.System(net, feedback, SoftWTA(), Homeostasis(0.1), n_steps=8, start=2)


drawn = quick(toy)


def patterns(key, batch, dtype=float):
    """Noisy copies of three patterns, and which one each of them is."""
    target = jnp.arange(batch) % 3
    clean = jax.random.bernoulli(jax.random.key(7), 0.5, (3, 8)).astype(dtype)
    noise = jax.random.uniform(key, (batch, 8), dtype)
    return 0.7 * clean[target] + 0.3 * noise, target


@pytest.mark.slow
def test_training_takes_no_derivative_compiles_once_and_learns(no_derivatives):
    chex.clear_trace_counter()
    system, tx = drawn(KEY), optax.adam(0.02)
    state = first = quick(lambda key: wb.init(system, tx, key))(KEY)

    @quick
    @chex.assert_max_traces(n=1)
    def step(system, state, x, target):
        return wb.train_step(system, tx, state, x, target, average_decay=0.9)

    right = []
    for i in range(40):
        x, target = patterns(jax.random.key(i), 12)
        state, outcome = step(system, state, x, target)
        right.append(np.mean(outcome.scores.argmax(1) == target))
    assert np.mean(right[:3]) < 0.7
    assert np.mean(right[-10:]) > 0.95
    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)
    assert not any(getattr(x, "weak_type", False) for x in jax.tree.leaves(state))
    assert state.step == 40
    # the average follows the weights, and leaves the wiring as it is, to the bit
    for name, held in state.average[0].items():
        chex.assert_trees_all_equal(held.connectivity, first.weights[name].connectivity)
        if system.network.projections[name].plastic:
            assert not np.array_equal(held.w, state.weights[name].w)
            np.testing.assert_allclose(held.w, state.weights[name].w, atol=0.25)
        else:
            np.testing.assert_allclose(held.w, first.weights[name].w, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_seeds_and_hyperparameters_train_side_by_side_as_they_do_alone():
    def train(key, kappa_e, lr):
        system, tx = toy(key, kappa_e), optax.sgd(lr, 0.9)
        state = wb.init(system, tx, fold(key, "state"))

        def step(state, i):
            x, target = patterns(jax.random.fold_in(fold(key, "data"), i), 6)
            return wb.train_step(system, tx, state, x, target)

        state, outcome = jax.lax.scan(step, state, jnp.arange(4))
        weights = {n: state.weights[n].w for n in system.network.plastic()}
        return weights, state.homeostasis, outcome

    together, alone = quick(jax.vmap(train)), quick(train)
    seeds = jax.random.split(KEY, 8), np.full(8, 0.9), np.full(8, 0.05)
    sweep = jnp.stack([KEY] * 8), np.linspace(0.0, 1.0, 8), np.linspace(0.01, 0.1, 8)
    for settings in (seeds, sweep):
        many = jax.device_get(together(*settings))
        for i in range(8):
            one = jax.device_get(alone(*(x[i] for x in settings)))
            mine = jax.tree.map(lambda x, i=i: x[i], many)
            # rounding may differ in order of summation; a spike that moved would show at once
            chex.assert_trees_all_close(mine, one, rtol=1e-9, atol=1e-11)
        w = many[0]["h1->h1"].reshape(8, -1)
        assert all(not np.allclose(w[i], w[j]) for i in range(8) for j in range(i))


def scaled_memory(n, steps, batch, dense):
    """Bytes of temporaries of `deltas`, over those of one number a neuron, step and sample."""
    near = Dense(n, n) if dense else Band(jnp.ones((n, 33), bool), 16)
    layers = {
        "h": Layer(n, LIF(), rule=ThreeFactor()),
        "readout": Layer(4, LeakyIntegrator(), rule=DELTA_RULE),
    }
    links = {
        "input->h": Projection("input", "h", Dense(8, n)),
        "h->h": Projection("h", "h", near, delay=1),
        "h->readout": Projection("h", "readout", Dense(n, 4)),
    }
    feedback = {"h": Broadcast(jnp.ones((n, 3)), jnp.ones((3, 4)))}
    system = wb.System(
        Network(layers, links), feedback, SoftWTA(), Homeostasis(),
        n_steps=steps, start=0,
    )  # fmt: skip
    weights, tone = jax.eval_shape(lambda: (system.network.init_weights(KEY), system.rest()))
    x, target = jnp.zeros((batch, 8)), jnp.zeros(batch, jnp.int32)
    lowered = quick(functools.partial(wb.deltas, system)).lower(weights, tone, x, target)
    return lowered.compile().memory_analysis().temp_size_in_bytes / (4 * n * steps * batch)


@pytest.mark.slow
@pytest.mark.parametrize(("dense", "axes"), [(False, ("n", "steps", "batch")), (True, ("n",))])
def test_memory_grows_with_time_batch_and_neurons_and_never_with_synapses(dense, axes):
    base = dict(n=128, steps=16, batch=8)
    sizes = [base] + [base | {axis: f * base[axis]} for axis in axes for f in (2, 4)]
    scaled = np.array([scaled_memory(**size, dense=dense) for size in sizes])
    # A few numbers a neuron, step and sample: eligibilities would be 33 on the ring, else 128.
    assert scaled.max() < 10
    for twice, four_times in scaled[1:].reshape(-1, 2):
        # the exponent is 1 in each of the three, less what does not grow
        assert max(np.log2(four_times / twice), np.log2(twice / scaled[0])) < 0.1


@pytest.mark.parametrize(("dtype", "n_steps"), [("bfloat16", 1000), ("float16", 70_000)])
def test_rates_are_summed_more_widely_than_spikes_are_stored(dtype, n_steps):
    z = jnp.asarray(np.random.default_rng(0).random((n_steps, 3)) < 0.3, dtype)
    exact = np.asarray(z, float).mean(0)
    np.testing.assert_array_equal(wb._rate(z), jnp.asarray(exact, dtype))
    assert wb._rate(jnp.ones((n_steps, 3), dtype)).tolist() == [1.0] * 3


@pytest.mark.slow
def test_settling_moves_thresholds_alone_and_prediction_scores_as_training_does():
    system, tx = drawn(KEY), optax.sgd(0.1)

    @quick
    def steps(key):
        state, (x, target) = wb.init(system, tx, key), patterns(key, 6)
        predicted = wb.predict(system, state.weights, state.homeostasis, x)
        _, outcome = wb.deltas(system, state.weights, state.homeostasis, x, target)
        return state, wb.settle(system, state, x), predicted, outcome

    state, calm, predicted, outcome = steps(KEY)
    chex.assert_trees_all_equal(calm.weights, state.weights)
    chex.assert_trees_all_equal(calm.average, (calm.weights, calm.homeostasis))
    moved = system.homeostasis.step(state.homeostasis["h1"], predicted.rates["h1"].mean(0))
    chex.assert_trees_all_close(calm.homeostasis["h1"], moved)
    assert np.any(moved.v_th != state.homeostasis["h1"].v_th)
    chex.assert_trees_all_close(outcome, predicted, rtol=1e-6)


class Steps(eqx.Module):
    """Weights that only come in steps of 1/64, and round each change at random."""

    ideal: Ideal

    def __init__(self, w, connectivity, key=None):
        self.ideal = Ideal(jnp.round(w * 64) / 64, connectivity)

    @property
    def w(self):
        return self.ideal.w

    def apply(self, s, *, key=None):
        return self.ideal.apply(s)

    def apply_t(self, e, *, key=None):
        return self.ideal.apply_t(e)

    def outer(self, post, pre):
        return self.ideal.outer(post, pre)

    def program(self, dw, *, key=None):
        steps = jnp.floor(dw * 64 + jax.random.uniform(key, dw.shape, dw.dtype))
        return eqx.tree_at(lambda s: s.ideal.w, self, self.w + steps / 64)


@pytest.mark.slow
def test_only_make_weights_changes_to_learn_on_something_else():
    system, tx = drawn(KEY), optax.sgd(0.1)
    assert isinstance(Steps(jnp.ones((2, 2)), Dense(2, 2)), Weights)
    x, target = patterns(KEY, 6)

    @quick
    def run(key):
        state = wb.init(system, tx, key, Steps)
        return state, wb.train_step(system, tx, state, x, target)[0]

    before, after = run(KEY)
    for name in system.network.plastic():
        change = np.asarray(after.weights[name].w - before.weights[name].w) * 64
        np.testing.assert_array_equal(change, np.round(change))
        assert np.any(change), name


def without(name, **changes):
    """The static system with one of its layers or projections changed."""

    def make():
        system, _, _ = built(held)
        net = system.network
        layers, links = dict(net.layers), dict(net.projections)
        part = layers if name in layers else links
        fields = {f: getattr(part[name], f) for f in part[name].__dataclass_fields__}
        part[name] = type(part[name])(**(fields | changes))
        kept = {f: getattr(system, f) for f in system.__dataclass_fields__}
        return wb.System(**(kept | {"network": Network(layers, links)}))

    return make


def altered(**changes):
    def make():
        system, _, _ = built(held)
        kept = {f: getattr(system, f) for f in system.__dataclass_fields__}
        return wb.System(**(kept | changes))

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (altered(start=T), rf"start must be in \[0, {T}\); got {T}"),
        (altered(readout="out"), "'out' is no layer of the network: .*'h1', 'h2', 'readout'"),
        (
            altered(feedback={"h1": broadcast(KEY, H1, 2)}),
            "readout 'readout' must have population x n_classes neurons, of the feedback's 2"
            " classes, 1 x 2; got 3",
        ),
        (altered(population=2), "of the feedback's 3 classes, 2 x 3; got 3"),
        (altered(population=0), "population must be a whole number >= 1; got 0"),
        (altered(feedback={}), "feedback must reach a hidden layer; got none"),
        (altered(n_steps=10.0), "n_steps must be a whole number >= 1; got 10.0"),
        (altered(start=-1), "start must be a whole number >= 0; got -1"),
        (altered(dt=0.0), "dt must be finite and > 0 ms; got 0.0"),
        (without("h2", neuron=LeakyIntegrator()), "hidden layer 'h2' must have a threshold v_th"),
        (without("input->h1", pre="picture"), "a projection must start from 'input'; got"),
        (altered(feedback={"h3": broadcast(KEY, H2, CLASSES)}), "'h3' is no layer of the network"),
        (
            altered(feedback={"h1": broadcast(KEY, H2, CLASSES)}),
            r"feedback 'h1' must be \[neurons, classes\] = \(15, 3\); got \(12, 3\)",
        ),
        (
            altered(modulators=modulators(KEY, 2, {"h1": H1})),
            r"modulators must reach \['h1', 'h2'\]; got \['h1'\]",
        ),
        (without("h2", rule=None), "layer 'h2' must have a rule to learn by; got None"),
        (
            without("h1->h1 far", delay=T),
            f"delay of plastic projection 'h1->h1 far' must be below n_steps, {T}; got {T}",
        ),
        (
            altered(feedback={"h2": broadcast(KEY, H2, CLASSES)}),
            "plastic projection 'h1->h1' must link two of .*; got 'h1' and 'h1'",
        ),
    ],
)
def test_refuses_a_system_whose_parts_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(teacher=SoftWTA), r"teacher must be an instance; got the class: pass SoftWTA\(\)"),
        (dict(homeostasis=Homeostasis), r"homeostasis must be an .*: pass Homeostasis\(\)"),
        (dict(network=Network), r"network must be an instance; got the class"),
        (dict(teacher=3), "teacher must have __call__; got int 3"),
        (dict(homeostasis=SoftWTA()), "homeostasis must have init, step, term; got SoftWTA"),
    ],
)
def test_refuses_what_is_no_part_of_a_system(changes, message):
    with pytest.raises(TypeError, match=message):
        altered(**changes)()


PICTURES, LABELS = np.full((6, 8), 0.5, np.float32), np.arange(6) % 3


@functools.cache
def started():
    """System, optimiser and fresh state of three classes of pictures with 8 pixels."""
    tx = optax.sgd(0.1)
    return drawn(KEY), tx, quick(lambda key: wb.init(toy(key), tx, key))(KEY)


def spoilt(at=(1, 2), value=np.nan):
    x = PICTURES.copy()
    x[at] = value
    return x


REFUSED = {
    "class too many": (PICTURES, LABELS + 1, ValueError, r"in \[0, 3\), as .*; got 3 \(2 of 6\)"),
    "class below 0": (PICTURES, LABELS - 1, ValueError, r"in \[0, 3\), as .*; got -1 \(2 of 6\)"),
    "one-hot": (PICTURES, np.eye(3)[LABELS], ValueError, r"got \[6, 3\]: pass target.argmax\(1\)"),
    "labels as floats": (PICTURES, LABELS / 1, TypeError, r"float.*: pass target.astype\(int\)"),
    "too few labels": (PICTURES, LABELS[:5], ValueError, r"\[batch\] = \[6\] labels; got \[5\]"),
    "one label": (PICTURES, 1, ValueError, r"\[batch\] = \[6\] labels; got \[\]"),
    "NaN": (spoilt(), LABELS, ValueError, "x must be finite; 1 of 48 numbers are NaN or inf"),
    "infinite": (spoilt(value=-np.inf), LABELS, ValueError, "x must be finite; 1 of 48"),
    "bytes": (np.full((6, 8), 255, np.uint8), LABELS, TypeError, "got uint8: pass x / 255"),
    "pictures": (
        np.zeros((6, 2, 4)), LABELS, ValueError,
        r"x must be \[batch, 8\] or \[batch, 8, 8\]; got \[6, 2, 4\]: pass x.reshape\(len",
    ),
    "other pixels": (np.zeros((6, 9)), LABELS, ValueError, r"or \[batch, 8, 8\]; got \[6, 9\]"),
    "other steps": (np.zeros((6, 7, 8)), LABELS, ValueError, r"got \[6, 7, 8\]"),
    "no batch": (PICTURES[0], LABELS, ValueError, r"got \[8\]: pass x\[None\] for a batch of one"),
    "none": (PICTURES[:0], LABELS[:0], ValueError, "x must hold one sample at least; got none"),
}  # fmt: skip
SHAPELESS = {"class too many", "class below 0", "NaN", "infinite"}  # seen in values alone


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_a_batch_that_no_system_can_learn(case):
    x, target, error, message = REFUSED[case]
    system, tx, state = started()
    held = (system, state.weights, state.homeostasis)
    calls = [
        lambda x, y: wb.train_step(system, tx, state, x, y),
        lambda x, y: wb.deltas(*held, x, y),
    ]
    if "label" not in case and "class" not in case and case != "one-hot":
        calls += [lambda x, _: wb.predict(*held, x), lambda x, _: wb.settle(system, state, x)]
    for call in calls:
        with pytest.raises(error, match=message):
            call(x, target)
        if case not in SHAPELESS:
            with pytest.raises(error, match=message):
                jax.eval_shape(call, *map(jnp.asarray, (x, target)))


@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (PICTURES, 0, r"x must be \[8\] or \[8, 8\]; got \[6, 8\]: jax.vmap over a batch"),
        (np.zeros((2, 4)), 0, r"got \[2, 4\]: pass x.reshape\(-1\)"),
        (np.zeros(9), 0, r"got \[9\]"),
        (PICTURES[0], 3, r"target must be in \[0, 3\)"),
        (PICTURES[0], LABELS, r"target must be one label; got \[6\]: jax.vmap over both"),
        (spoilt()[1], 0, "x must be finite"),
    ],
)
def test_refuses_a_sample_that_cannot_be_learned_step_by_step(x, target, message):
    system, _, state = started()
    with pytest.raises(ValueError, match=message):
        wb.online_deltas(system, state.weights, state.homeostasis, x, target)


def test_a_compiled_step_refuses_labels_of_no_class_and_takes_others():
    system, tx, state = started()
    step = eqx.filter_jit(wb.train_step)
    new, _ = step(system, tx, state, jnp.asarray(PICTURES), jnp.asarray(LABELS))
    assert new.step == 1
    for wrong in (LABELS + 1, LABELS - 1):
        with pytest.raises((RuntimeError, ValueError), match=r"target must be in \[0, 3\)"):
            jax.block_until_ready(
                step(system, tx, state, jnp.asarray(PICTURES), jnp.asarray(wrong))
            )


@pytest.mark.usefixtures("untyped")
def test_spikes_may_be_bools_and_labels_bytes():
    system, tx, state = started()
    z = np.random.default_rng(0).random((6, 8, 8)) < 0.3
    expected = wb.train_step(system, tx, state, z.astype(np.float32), LABELS)
    for x in (z, z.astype(np.int32)):
        found = wb.train_step(system, tx, state, x, LABELS.astype(np.uint8))
        chex.assert_trees_all_equal(found, expected)
    found = wb.train_step(system, tx, state, z.tolist(), LABELS.tolist())
    chex.assert_trees_all_equal(found, expected)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s, tx, _: inspect.unwrap(wb.init)(s, tx, 0),
            r"key must be a JAX key; got 0: pass jax.random.key",
        ),
        (
            lambda s, tx, _: inspect.unwrap(wb.init)(s, optax.sgd, KEY),
            "tx must have init, update; got function",
        ),
        (
            lambda s, _, state: inspect.unwrap(wb.predict)(
                s, state.weights, state.homeostasis, PICTURES, key=0
            ),
            "key must be a JAX key",
        ),
        (lambda s, tx, _: inspect.unwrap(wb.system)(0, s.network), "key must be a JAX key"),
        (
            lambda s, _, state: inspect.unwrap(wb.predict)(
                s, {n: w.w for n, w in state.weights.items()}, state.homeostasis, PICTURES
            ),
            "weights 'h1->h1' must have apply, outer, program; got",
        ),
    ],
)
def test_refuses_what_is_no_key_optimiser_or_weights(call, message):
    """As its users see it: unwrapped of the checks of types that only tests switch on."""
    with pytest.raises(TypeError, match=message):
        call(*started())


def test_refuses_a_state_of_another_system_or_optimiser():
    system, tx, state = started()
    step = lambda tx, state, **options: wb.train_step(  # noqa: E731
        system, tx, state, PICTURES, LABELS, **options
    )
    some = {n: w for n, w in state.weights.items() if n != "h1->h1"}
    with pytest.raises(ValueError, match="weights must be those of .*'h1->h1'.*; got"):
        step(tx, state._replace(weights=some))
    swapped = state.weights | {"h1->h1": state.weights["input->h1"]}
    with pytest.raises(ValueError, match=r"weights 'h1->h1' must be \(24, 7\); got \(24, 8\)"):
        step(tx, state._replace(weights=swapped))
    short = {"h1": jax.tree.map(lambda x: x[:5], state.homeostasis["h1"])}
    with pytest.raises(ValueError, match=r"homeostasis of layer 'h1' must be \(24,\); got \(5,\)"):
        step(tx, state._replace(homeostasis=short))
    with pytest.raises(ValueError, match=r"state must come from init\(system, tx, key\)"):
        step(optax.adam(0.1), state)
    with pytest.raises(ValueError, match="anneal must be finite and >= 0"):
        step(tx, state, anneal=-1.0)
    for wrong in (1.5, -0.5):
        with pytest.raises(ValueError, match=rf"average_decay must lie in \[0, 1\]; got {wrong}"):
            step(tx, state, average_decay=wrong)
    with pytest.raises(ValueError, match="weights must be those of"):  # whatever the changes are
        step(tx, state._replace(weights=some), changes=asking(0.0))


RATES = jnp.linspace(0.0, 0.3, 6 * 24).reshape(6, 24)


def asking(g):
    """Changes of `g` everywhere, told with the key and the weights that they were asked of."""

    def changes(system, weights, tone, x, target, *, key):
        asked = {n: jnp.full_like(weights[n].w, g) for n in system.network.plastic()}
        return asked, wb.Outcome(jax.random.uniform(key, (6, 3)), {"h1": RATES})

    return changes


def stepped(tx, n, **options):
    """States and outcomes of `n` steps from a fresh one, by `update` and `asking`."""
    system, _, state = started()
    plain = {name: state.weights[name].w for name in system.network.plastic()}
    state = state._replace(opt_state=tx.init(plain))
    states, outcomes = [state], []
    for _ in range(n):
        state, outcome = wb.update(system, tx, state, PICTURES, LABELS, **options)
        states.append(state)
        outcomes.append(outcome)
    return system, states, outcomes


def test_a_step_hands_its_optimiser_the_weights_and_the_state_of_the_step_before():
    """Momentum and decay of weights, written out; what does not learn stays as it is."""
    lr, momentum, decay, g = 0.1, 0.9, 0.2, 0.05
    tx = optax.chain(optax.add_decayed_weights(decay), optax.sgd(lr, momentum))
    system, (first, *_, last), _ = stepped(tx, 3, changes=asking(g))
    for name, held in first.weights.items():
        w = np.asarray(held.w, np.float64)
        v = np.zeros_like(w)
        for _ in range(3):
            v = momentum * v - g + decay * w  # optax descends
            w = w - lr * v
        w = w if system.network.projections[name].plastic else np.asarray(held.w)
        np.testing.assert_allclose(last.weights[name].w, w, rtol=1e-5, atol=1e-6, err_msg=name)
    assert last.step == 3


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_the_average_forgets_its_start_sooner_while_it_is_young(decay):
    _, states, _ = stepped(optax.sgd(1.0), 4, changes=asking(0.5), average_decay=decay)
    mean = jax.tree.map(np.asarray, states[0].average)
    for k, state in enumerate(states[1:]):
        keep = min(decay, (1 + k) / (10 + k))
        now = (state.weights, state.homeostasis)
        mix = lambda a, b, k=keep: k * a + (1 - k) * b if eqx.is_inexact_array(b) else b  # noqa: E731
        mean = jax.tree.map(mix, mean, now)
        chex.assert_trees_all_close(state.average, mean, rtol=1e-5, atol=1e-6)
        # the new, the old and the average are far enough apart to be told apart
        assert np.abs(mean[0]["input->h1"].w - now[0]["input->h1"].w).max() > 0.02


def test_thresholds_move_by_the_annealed_rate_from_the_mean_of_the_batch():
    system, (first, second), _ = stepped(optax.sgd(1.0), 1, changes=asking(0.0), anneal=0.25)
    p, r = system.homeostasis, np.asarray(RATES).mean(0)
    moved = np.asarray(first.homeostasis["h1"].v_th) + 0.25 * float(p.rate) * (r - float(p.target))
    np.testing.assert_allclose(second.homeostasis["h1"].v_th, moved, rtol=1e-6)
    np.testing.assert_allclose(second.homeostasis["h1"].r, r, rtol=1e-6)
    x, y = jnp.asarray(PICTURES), jnp.asarray(LABELS)
    for anneal, expected in ((0.25, second), (jnp.asarray(0.25), second)):
        found = wb.train_step(
            system, optax.sgd(1.0), first, x, y, changes=asking(0.0), anneal=anneal
        )[0]
        chex.assert_trees_all_close(found.homeostasis, expected.homeostasis, rtol=1e-6)


def test_by_default_thresholds_move_by_their_whole_rate_and_the_average_is_now():
    system, (first, second), _ = stepped(optax.sgd(1.0), 1, changes=asking(0.5))
    p, r = system.homeostasis, np.asarray(RATES).mean(0)
    moved = np.asarray(first.homeostasis["h1"].v_th) + float(p.rate) * (r - float(p.target))
    calls = []

    def changes(*arguments, **options):
        calls.append(options)
        return asking(0.5)(*arguments, **options)

    again, tx = first, optax.sgd(1.0)
    for _ in range(2):
        again, _ = wb.train_step(system, tx, first, PICTURES, LABELS, changes=changes)
    assert len(calls) == 1  # it is compiled once
    for state in (second, again):
        np.testing.assert_allclose(state.homeostasis["h1"].v_th, moved, rtol=1e-6)
        chex.assert_trees_all_close(state.average, (state.weights, state.homeostasis), rtol=1e-6)


class Drawn(Steps):
    """Weights that a change moves by what its key draws."""

    def program(self, dw, *, key=None):
        return eqx.tree_at(lambda s: s.ideal.w, self, jax.random.uniform(key, dw.shape, dw.dtype))


@pytest.mark.slow
def test_each_step_and_each_projection_draws_from_a_key_of_its_own():
    """Step k: fold_in(state.key, k); projections: that, folded with their names."""
    system, tx, _ = started()
    start = state = wb.init(system, tx, KEY, Drawn)
    for k in range(2):
        state, outcome = wb.update(system, tx, state, PICTURES, LABELS, changes=asking(0.0))
        key = jax.random.fold_in(start.key, k)
        np.testing.assert_array_equal(outcome.scores, jax.random.uniform(key, (6, 3)))
        for name in system.network.plastic():
            w = state.weights[name].w
            np.testing.assert_array_equal(w, jax.random.uniform(fold(key, name), w.shape))
        assert (state.key == start.key).all()


def test_fresh_weights_and_what_makes_them_have_keys_by_name():
    system, tx, _ = started()
    state = wb.init(system, tx, KEY)
    keys, made = fold(KEY, "weights"), []
    system.network.init_weights(keys, lambda w, c, key: (made.append(key), Ideal(w, c))[1])
    for (name, p), key in zip(system.network.projections.items(), made, strict=True):
        np.testing.assert_array_equal(state.weights[name].w, p.initial(fold(keys, name)))
        assert key == fold(keys, f"{name} made")
    assert state.key == fold(KEY, "train")
    # names are told apart by more than their length
    assert len({int(jax.random.bits(fold(KEY, n))) for n in ("h1->h2", "h2->h1", "h2->h2")}) == 3


class Noisy(Steps):
    """Weights that are read with noise."""

    def apply(self, s, *, key=None):
        out = self.ideal.apply(s)
        return out if key is None else out + jax.random.normal(key, out.shape, out.dtype)


@pytest.mark.slow
def test_each_sample_is_read_with_noise_of_its_own():
    system, tx, _ = started()
    state, same = wb.init(system, tx, KEY, Noisy), np.tile(PICTURES[:1], (3, 1))
    three = system, state.weights, state.homeostasis

    @quick
    def run(state):
        held = (system, state.weights, state.homeostasis)
        rates = lambda outcome: outcome.rates["h1"]  # noqa: E731
        alone = jax.vmap(lambda key: wb.present(*held, same[0], key=key)["h1"].z.mean(0))
        return (
            rates(wb.predict(*held, same, key=state.key)),
            rates(wb.deltas(*held, same, LABELS[:3], key=state.key)[1]),
            alone(jax.random.split(state.key, 3)),
            wb.settle(system, state, same).homeostasis["h1"].r,
            rates(wb.predict(*held, same)),
        )

    online = quick(lambda key: wb.online_deltas(*three, same[0], LABELS[1], key=key))
    for key in jax.random.split(KEY, 2):
        batch, _ = wb.deltas(*three, same[:1], LABELS[1:2], key=key)
        one = online(jax.random.split(key, 1)[0])
        chex.assert_trees_all_close(one, batch, rtol=1e-4, atol=1e-6)
    predicted, taught, alone, settled, silent = map(np.asarray, run(state))
    np.testing.assert_array_equal(taught, predicted)
    np.testing.assert_allclose(predicted, alone, rtol=1e-6)
    assert len({r.tobytes() for r in predicted}) == 3
    np.testing.assert_allclose(settled, predicted.mean(0), rtol=1e-6)
    assert (silent == silent[:1]).all()


def test_thresholds_far_below_zero_stay_at_the_target_rate_and_above_the_reset():
    system, *_ = started()
    neuron = LIF(6.0, 3.0, v_th=-50.0, v_rest=-65.0, v_reset=-65.0)
    deep = eqx.tree_at(lambda s: s.network.layers["h1"].neuron, system, neuron)
    tone = deep.rest()
    np.testing.assert_array_equal(tone["h1"].v_th, -50.0)
    with pytest.raises(ValueError, match="rates 'h1' must hold one sample at least; got none"):
        wb.excited(deep, tone, {"h1": jnp.zeros((0, 24))})
    calm = wb.excited(deep, tone, {"h1": jnp.full((6, 24), 0.1)})  # the target
    np.testing.assert_allclose(calm["h1"].v_th, -50.0, rtol=1e-6)
    low = wb.excited(deep, tone, {"h1": jnp.zeros((6, 24))}, anneal=1e4)
    np.testing.assert_allclose(low["h1"].v_th, -65.0 + 0.05, rtol=1e-6)


def test_a_state_of_half_precision_keeps_its_types_and_wide_thresholds():
    system, tx, _ = started()
    state = jax.eval_shape(lambda key: wb.init(system, tx, key, dtype="bfloat16"), KEY)
    assert state.homeostasis["h1"].v_th.dtype == "float32"
    x = jax.ShapeDtypeStruct((6, 8), "bfloat16")
    half = jnp.asarray(0.5, "bfloat16")
    step = lambda s, x: wb.update(system, tx, s, x, LABELS, anneal=half, average_decay=half)  # noqa: E731
    new, outcome = jax.eval_shape(step, state, x)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert outcome.scores.dtype == "bfloat16"


def two_layers(**options):
    layers = [Layer(24, LIF(6.0, 3.0), rule=ThreeFactor()) for _ in range(2)]
    loop = Recurrence(radius=3)
    return structured(KEY, 8, layers, 3, recurrence=loop, **options)


def test_a_system_is_made_of_a_network_and_a_key():
    net = two_layers()
    made = wb.system(KEY, net, n_modulators=2, bandwidth=1, start=3, teacher=HardWTA(0.3))
    assert (made.n_classes, made.n_in, made.n_steps, made.start) == (3, 8, 20, 3)
    assert made.hidden == ("h1", "h2")
    assert float(made.teacher.margin) == pytest.approx(0.3)
    assert made.modulators.k.shape == (2, 3)
    assert {n: a.shape for n, a in made.modulators.a.items()} == {"h1": (24, 2), "h2": (24, 2)}
    for name in made.hidden:
        own = broadcast(fold(KEY, f"{name} feedback"), 24, 3, 1)
        chex.assert_trees_all_equal(made.feedback[name], own)
    assert not np.array_equal(made.feedback["h1"].spread, made.feedback["h2"].spread)
    chex.assert_trees_all_equal(
        made.modulators, modulators(fold(KEY, "modulators"), 2, {"h1": 24, "h2": 24})
    )
    plain = wb.system(KEY, net)
    assert (plain.n_steps, plain.start, plain.dt, plain.population) == (20, 5, 1.0, None)
    assert plain.modulators is None
    assert plain.feedback["h1"].spread.shape == (24, 2)
    assert isinstance(plain.teacher, SoftWTA)
    # layers without a rule are not taught
    fixed = eqx.tree_at(lambda n: n.layers["h2"].rule, net.without("h1->h2", "h2->h2"), None)
    assert wb.system(KEY, fixed.without("h2->readout")).hidden == ("h1",)


def test_a_system_of_a_spiking_readout_must_be_told_its_populations():
    net = two_layers(readout=LIF(9.0), population=4)
    with pytest.raises(ValueError, match="readout 'readout' has 12 spiking neurons: pass populat"):
        wb.system(KEY, net)
    with pytest.raises(ValueError, match="population must divide 12 readout neurons; got 5"):
        wb.system(KEY, net, population=5)
    with pytest.raises(ValueError, match="'out' is no layer of the network: .*'readout'"):
        wb.system(KEY, net, readout="out")
    told = wb.system(KEY, net, population=4)
    assert (told.n_classes, told.population) == (3, 4)


def tiny(n=3, neuron=None, classes=3, rule=None, **options):
    """Four hidden neurons, and a readout of `n` that is called `out`."""
    layers = {
        "h": Layer(4, LIF(), rule=rule or ThreeFactor()),
        "out": Layer(n, neuron or LeakyIntegrator(), rule=DELTA_RULE),
    }
    links = {
        "input->h": Projection("input", "h", Dense(2, 4)),
        "h->out": Projection("h", "out", Dense(4, n)),
    }
    told = {"h": broadcast(KEY, 4, classes)}
    return wb.System(Network(layers, links), told, readout="out", **options)


def test_a_readout_may_have_any_name_and_layers_stand_in_the_order_of_theirs():
    system = tiny()
    assert wb.system(KEY, system.network, readout="out").taught == ("h", "out")
    base = built(held)[0]
    turned = altered(feedback=dict(sorted(base.feedback.items(), reverse=True)))()
    assert turned.hidden == ("h1", "h2")


def test_a_readout_has_as_many_neurons_as_its_classes_need():
    assert tiny(3, LIF()).n_classes == 3
    assert tiny(6, LIF()).n_classes == 3
    for n, neuron, size in ((6, LeakyIntegrator(), 1), (2, LIF(), 1), (5, LIF(), 1)):
        with pytest.raises(ValueError, match=f"population x n_classes .* {size} x 3; got {n}"):
            tiny(n, neuron)


@pytest.mark.parametrize(("pre", "post"), [("g", "h"), ("h", "g")])
def test_plastic_projections_link_what_is_taught(pre, post):
    net = tiny().network
    links = net.projections | {
        "to": Projection("h", "g", Dense(4, 4), delay=1, plastic=False),
        "odd": Projection(pre, post, Dense(4, 4), delay=2),
    }
    layers = dict(net.layers) | {"g": Layer(4, LIF(), rule=ThreeFactor())}
    with pytest.raises(ValueError, match=f"plastic projection 'odd' must .* {pre!r} and {post!r}"):
        wb.System(Network(layers, links), {"h": broadcast(KEY, 4, 3)}, readout="out")


def above(v, threshold, z):
    return v - threshold


def test_windows_see_the_potential_above_the_threshold_of_now():
    system = tiny(rule=ThreeFactor(window=above), n_steps=6)
    tone = system.rest()
    tone["h"] = tone["h"]._replace(v_th=jnp.array([0.5, 1.0, 2.0, 4.0]))
    weights = system.network.init_weights(KEY)
    h = wb.present(system, weights, tone, jnp.zeros(2))["h"].h
    np.testing.assert_array_equal(h, np.tile([-0.5, -1.0, -2.0, -4.0], (6, 1)))
    with pytest.raises(ValueError, match="weights must be those of"):
        wb.present(system, {}, tone, jnp.zeros(2))
    with pytest.raises(ValueError, match="weights must be those of"):
        wb.online_deltas(system, {}, tone, jnp.zeros(2), 0)


def test_signals_without_modulators_are_not_gated():
    system, _, tone = built(held)
    error = jnp.array([0.5, -0.25, -0.25])
    told = wb.Instruction(jnp.zeros(3), error, None)
    expected = system.feedback["h1"](error) + system.homeostasis.term(tone["h1"])
    np.testing.assert_array_equal(wb.signal(system, "h1", told, tone["h1"]), expected)


@pytest.mark.usefixtures("untyped")
def test_spikes_of_half_precision_are_low_passed_in_float32():
    """Scores of populations of two that spike, rounded once a step."""
    system = tiny(6, LIF(tau_mem=7.0), n_steps=12, dt=0.3)
    y = np.random.default_rng(0).random((12, 6)) < 0.5
    score, expected = np.zeros(3), []
    for row in y.reshape(12, 3, 2):
        kappa = math.exp(-0.3 / 7.0)
        score = kappa * score + (1 - kappa) * row.mean(1)
        score = np.asarray(jnp.asarray(score, "bfloat16"), float)
        expected.append(score)
    found = wb.instruct(system, jnp.asarray(y, "bfloat16"), 1).scores
    np.testing.assert_array_equal(found, jnp.asarray(np.array(expected), "bfloat16"))
    told = wb.instruct(system, jnp.asarray(y), 1).scores  # as truths, in float32
    np.testing.assert_allclose(told, expected, rtol=0.02)


ONE, TOLD = jnp.zeros(2), jnp.zeros((20, 3))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, tx, a: wb.train_step(3, tx, a, PICTURES, LABELS), TypeError, "system must be"),
        (lambda s, tx, a: wb.train_step(s, tx, 3, PICTURES, LABELS), TypeError, "state must be"),
        (lambda s, tx, a: wb.train_step(s, 3, a, PICTURES, LABELS), TypeError, "tx must have init"),
        (lambda s, tx, a: wb.settle(s, 3, PICTURES), TypeError, "state must be an instance of Tra"),
        (lambda s, tx, a: wb.init(3, tx, KEY), TypeError, "system must be an instance of System"),
        (lambda s, tx, a: wb.rule(3, "h1"), TypeError, "system must be an instance of System"),
        (lambda s, tx, a: wb.instruct(3, TOLD, 0), TypeError, "system must be an instance of Sys"),
        (lambda s, tx, a: wb.present(3, {}, {}, ONE), TypeError, "system must be an instance of"),
        (lambda s, tx, a: wb.predict(s, 3, {}, PICTURES), ValueError, "weights must be .*; got 3"),
        (
            lambda s, tx, a: wb.deltas(s, a.weights, a.homeostasis, PICTURES, LABELS, key=0),
            TypeError,
            "key must be a JAX key",
        ),
        (
            lambda s, tx, a: wb.online_deltas(s, a.weights, a.homeostasis, PICTURES[0], 1, key=0),
            TypeError,
            "key must be a JAX key",
        ),
        (
            lambda s, tx, a: wb.predict(s, a.weights, "calm", PICTURES),
            ValueError,
            r"tone, .* must be those of \['h1'\]; got 'calm'",
        ),
        (
            lambda s, tx, a: wb.predict(s, {"b": 1, "a": 2}, a.homeostasis, PICTURES),
            ValueError,
            r"weights must be those of .*; got \['a', 'b'\]",
        ),
        (lambda *_: wb.instruct(tiny(), TOLD, 3), ValueError, r"target must be in \[0, 3\)"),
        (lambda *_: wb.instruct(tiny(), TOLD, LABELS), ValueError, "y must be .*one label; got"),
        (lambda *_: wb.instruct(tiny(), TOLD[0], 1), ValueError, r"y must be .*; got \(3,\) and"),
        (lambda *_: wb.instruct(tiny(), TOLD[None], 1), ValueError, "y must be .*jax.vmap over a"),
        (lambda *_: altered(feedback=3)(), TypeError, "feedback must be a dict by layer; got 3"),
        (
            lambda *_: altered(feedback={"h1": 3})(),
            TypeError,
            "feedback 'h1' must be an instance of Broadcast; got int 3",
        ),
        (lambda *_: altered(modulators=3)(), TypeError, "modulators must have init, step, gate"),
        (
            lambda *_: wb.online_deltas(*trained(tiny(rule=STDP())), ONE, 0),
            ValueError,
            "rule of layer 'h' must be a ThreeFactor to go step by step",
        ),
        (
            lambda *_: wb.system(KEY, two_layers(), n_modulators=-1),
            ValueError,
            "n_modulators must be a whole number >= 0; got -1",
        ),
        (
            lambda *_: wb.system(KEY, two_layers(), n_modulators=2.0),
            ValueError,
            "n_modulators must be a whole number >= 0; got 2.0",
        ),
        (
            lambda *_: wb.system(KEY, two_layers(), population=0),
            ValueError,
            "population must be a whole number >= 1; got 0",
        ),
    ],
)
def test_refuses_what_takes_no_part(call, error, message):
    with pytest.raises(error, match=message):
        call(*started())


GATE = SurpriseGate()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: wb.Gated(3, None), TypeError, "gate must have init, step; got int 3"),
        (
            lambda: wb.Gated(GATE, None),
            ValueError,
            r"state must be that of gate.init\(\); got None",
        ),
        (lambda: wb.Gated(GATE, type(GATE.init())(jnp.ones(2))), ValueError, "state must be that"),
        (lambda: wb.Gated(GATE, GATE.init(), jnp.inf), TypeError, "key must be a JAX key; got inf"),
        (
            lambda: wb.deltas(*trained(tiny()), ONE[None], [0], gate=GATE),
            TypeError,
            "gate must be an instance of Gated; got SurpriseGate",
        ),
        (lambda: altered(network=LIF())(), TypeError, "network must be .* of Network; got LIF"),
        (lambda: wb.system(KEY, LIF()), TypeError, "network must be an instance of Network; got"),
        (lambda: wb.excited(3, {}, {}), TypeError, "system must be an instance of System; got int"),
        (lambda: wb.excited(tiny(), tiny().rest(), {}), TypeError, "rates must be a dict of those"),
        (
            lambda: wb.excited(tiny(), tiny().rest(), {"h": jnp.ones((2, 4))}, jnp.inf),
            ValueError,
            "anneal must be finite and >= 0; got inf",
        ),
        (lambda: wb.update(tiny(), 3, 3, ONE[None], [0]), TypeError, "state must be an instance"),
        (
            lambda: wb.update(tiny(), 3, started()[2], ONE[None], [0]),
            TypeError,
            "tx must have init, update; got int 3",
        ),
        (lambda: wb.instruct(tiny(), TOLD, [1e300]), TypeError, "target must be whole; got float"),
    ],
)
def test_a_gate_comes_with_its_own_state_and_a_network_with_layers(make, error, message):
    with pytest.raises(error, match=message):
        make()


TONED = {
    "present": lambda s, a, t: wb.present(s, a.weights, t, PICTURES[0]),
    "predict": lambda s, a, t: wb.predict(s, a.weights, t, PICTURES),
    "deltas": lambda s, a, t: wb.deltas(s, a.weights, t, PICTURES, LABELS),
    "symmetric": lambda s, a, t: wb.symmetric(s, a.weights, t, PICTURES, LABELS),
    "online_deltas": lambda s, a, t: wb.online_deltas(s, a.weights, t, PICTURES[0], 1),
    "excited": lambda s, a, t: wb.excited(s, t, {"h1": jnp.zeros((6, 24))}),
    "factors": lambda s, a, t: wb.factors(s, t, {}, None),
    "settle": lambda s, a, t: wb.settle(s, a._replace(homeostasis=t), PICTURES),
    "train_step": lambda s, a, t: wb.train_step(
        s, optax.sgd(0.1), a._replace(homeostasis=t), PICTURES, LABELS
    ),
    "update": lambda s, a, t: wb.update(
        s, optax.sgd(0.1), a._replace(homeostasis=t), PICTURES, LABELS
    ),
}
OBJECTS, NUMBERS = np.array([None, 1], object), jnp.zeros(24)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("call", TONED.values(), ids=TONED)
def test_whatever_hears_of_homeostasis_refuses_what_is_none_in_one_line(call):
    system, _, state = started()
    for wrong, error, message in (
        (
            OBJECTS,
            ValueError,
            r"tone, .* those of \['h1'\]; got array\(\[None, 1\], dtype=object\)",
        ),
        ({}, ValueError, r"tone, .* those of \['h1'\]; got \[\]"),
        ({"h1": 3}, TypeError, "homeostasis of layer 'h1' must be .* HomeostasisState; got int 3"),
        ({"h1": HomeostasisState(OBJECTS, NUMBERS)}, TypeError, "'h1' must be real numbers; got"),
        ({"h1": HomeostasisState(NUMBERS, NUMBERS[1:])}, ValueError, r"be \(24,\); got \(23,\)"),
    ):
        with pytest.raises(error, match=message) as told:
            call(system, state, wrong)
        assert "\n" not in str(told.value)


def test_a_signal_is_that_of_a_layer_which_hears_the_error():
    system, _, state = started()
    told = wb.Instruction(TOLD[0], TOLD[0], None)
    with pytest.raises(ValueError, match=r"layer must be one of \['h1'\]; got 'readout'"):
        wb.signal(system, "readout", told, state.homeostasis["h1"])
    with pytest.raises(ValueError, match=r"of layer 'h1' must be \(24,\); got \(\)"):
        wb.signal(system, "h1", told, HomeostasisState(jnp.zeros(()), NUMBERS))


def trained(system):
    return system, system.network.init_weights(KEY), system.rest()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ThreeFactor(0.9, 0.5, post_spike), Homeostasis, SoftWTA, HardWTA,
        lambda: broadcast(KEY, 5, 3), lambda: modulators(KEY, 2, {"h": 5}),
        lambda: started()[0], lambda: started()[2],
    ],
)  # fmt: skip
def test_whatever_learns_can_be_pickled_and_copied(make):
    made = make()

    def bits(x):
        return jax.random.key_data(x) if eqx.is_array(x) and x.dtype == KEY.dtype else x

    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert jax.tree.structure(twin) == jax.tree.structure(made)
        assert eqx.tree_equal(jax.tree.map(bits, twin), jax.tree.map(bits, made))


@pytest.mark.slow
def test_steps_of_time_and_settings_are_swept_by_vmap():
    base, _, state = started()

    x, y = patterns(KEY, 6)

    def scores(dt, margin, target):
        system = wb.System(
            base.network, base.feedback, SoftWTA(30.0, margin), Homeostasis(target, penalty=0.5),
            n_steps=8, start=2, dt=dt,
        )  # fmt: skip
        tone = {"h1": state.homeostasis["h1"]._replace(r=jnp.full(24, 0.2))}
        dw, outcome = wb.deltas(system, state.weights, tone, x, y)
        return outcome.rates["h1"], dw["input->h1"], dw["h1->readout"]

    settings = jnp.array([[0.5, 0.1, 0.05], [2.0, 0.1, 0.05], [0.5, 0.9, 0.05], [0.5, 0.1, 0.5]])
    swept, alone = quick(jax.vmap(scores))(*settings.T), quick(scores)
    for i, each in enumerate(settings):
        mine = jax.tree.map(lambda x, i=i: x[i], swept)
        chex.assert_trees_all_close(alone(*each), mine, rtol=1e-5, atol=1e-6)
    rates, hidden, readout = map(np.asarray, swept)
    assert not np.array_equal(rates[0], rates[1])
    assert np.abs(readout[0]).max() > 1e-3  # and by a teacher with that margin, nothing
    assert not np.any(readout[2])
    assert not np.allclose(hidden[0], hidden[3])
