"""The broadcast learning system as a whole: what it computes, from what, and in what memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import connectivity as wiring
from oracles import wta_broadcast as oracle

from neurojax.connectivity import Dense, fan_in, locally_dense, merged, watts_strogatz
from neurojax.feedback import broadcast
from neurojax.learning import wta_broadcast as wb
from neurojax.modulation import modulators
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity import Homeostasis, HomeostasisState, ThreeFactor, always, post_spike
from neurojax.teaching import HardWTA, SoftWTA

KEY = jax.random.key(0)
N_IN, H1, H2, CLASSES, T, BATCH = 7, 15, 12, 3, 14, 3

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

DELTA_RULE = ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)


def held():
    """Two layers, ring and dense recurrence, all plastic; ALIF; modulators; a leaky readout."""
    near, far = locally_dense(fold(KEY, "ring"), H1, 3, 0.35)
    fan = fan_in(fold(KEY, "fan"), H1, 2 * CLASSES, 0.5)
    spread = np.linspace(4.0, 12.0, H1)
    layers = {
        "h1": Layer(H1, LIF(spread, 3.0), rule=ThreeFactor(0.9)),
        "h2": Layer(
            H2,
            ALIF(8.0, 4.0, reset="subtract", beta_adapt=0.3, tau_adapt=15.0),
            rule=ThreeFactor(0.8, reset_trace=False),
        ),
        "readout": Layer(CLASSES, LeakyIntegrator(9.0, 0.5), rule=DELTA_RULE),
    }
    links = {
        "input->h1": Projection("input", "h1", Dense(N_IN, H1), gain=2.0),
        "h1->h1": Projection("h1", "h1", near, delay=1),
        "h1->h1 far": Projection("h1", "h1", far, delay=2),
        "h1->h2": Projection("h1", "h2", Dense(H1, H2), gain=4.0),
        "h2->h2": Projection("h2", "h2", Dense(H2, H2), delay=1),
        "h2->h1": Projection("h2", "h1", watts_strogatz(KEY, H2, H1, 4, 0.3), delay=5),
        "h1->readout": Projection("h1", "readout", merged(fan, 2)),
        "h2->readout": Projection("h2", "readout", Dense(H2, CLASSES), delay=1),
    }
    names = {"h1": H1, "h2": H2}
    return wb.System(
        Network(layers, links),
        {n: broadcast(fold(KEY, n), size, CLASSES) for n, size in names.items()},
        SoftWTA(gain=3.0),
        Homeostasis(penalty=0.3),
        modulators(KEY, 4, names),
        n_classes=CLASSES, n_steps=T, start=3,
    )  # fmt: skip


def moving():
    """A spiking readout that feeds back, hard winners, other windows and traces."""
    rivals = np.arange(2 * CLASSES)[:, None] // 2 != np.arange(2 * CLASSES)[None] // 2
    layers = {
        "h1": Layer(H1, ALIF(6.0, 4.0, beta_adapt=0.2), rule=ThreeFactor(0.9, decay=0.7)),
        "h2": Layer(H2, LIF(8.0, 4.0, reset="subtract"), rule=ThreeFactor(0.5, window=post_spike)),
        "readout": Layer(2 * CLASSES, LIF(9.0, 4.0), rule=DELTA_RULE),
    }
    links = {
        "input->h1": Projection("input", "h1", fan_in(KEY, N_IN, H1, 0.6), gain=3.0),
        "h1->h2": Projection("h1", "h2", Dense(H1, H2), gain=4.0),
        "h1->h1": Projection("h1", "h1", Dense(H1, H1), delay=1, plastic=False),
        "h2->readout": Projection("h2", "readout", Dense(H2, 2 * CLASSES), gain=4.0),
        "readout->h1": Projection("readout", "h1", Dense(2 * CLASSES, H1), delay=1),
        "lateral": Projection(
            "readout", "readout", Dense(2 * CLASSES, 2 * CLASSES, jnp.asarray(rivals)), delay=1,
        ),
    }  # fmt: skip
    names = {"h1": H1, "h2": H2}
    return wb.System(
        Network(layers, links),
        {n: broadcast(fold(KEY, n), size, CLASSES, 1) for n, size in names.items()},
        HardWTA(margin=0.05),
        Homeostasis(),
        n_classes=CLASSES, n_steps=T, start=0,
    )  # fmt: skip


def examples(time, dtype=float):
    rng = np.random.default_rng(5)
    shape = (BATCH, T, N_IN) if time else (BATCH, N_IN)
    x = rng.random(shape).astype(np.float32)
    return jnp.asarray(2 * (x > 0.6) if time else x, dtype), jnp.arange(BATCH) % CLASSES


@functools.cache
def built(make, x64=False):
    """System, its weights, and thresholds as homeostasis may have left them."""
    rng = np.random.default_rng(2)

    def build():
        system = make()
        return system, system.network.init_weights(jax.random.key(1)), system.rest()

    with jax.enable_x64(x64):
        system, weights, tone = quick(build)()
        for name, state in tone.items():
            v_th, r = rng.uniform([[0.4], [0.0]], [[1.6], [0.2]], (2, *state.v_th.shape))
            tone[name] = HomeostasisState(jnp.asarray(v_th, float), jnp.asarray(r, float))
        return system, weights, tone


@quick
def both_forms(system, weights, tone, x, target):
    """Mean over the batch, factorised and step by step."""
    online = functools.partial(wb.online_deltas, system, weights, tone)
    alone = jax.vmap(online)(x, target)
    return wb.deltas(system, weights, tone, x, target), jax.tree.map(lambda d: d.mean(0), alone)


@pytest.mark.parametrize("make", [held, moving])
@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-5), (True, 1e-12)])
def test_factorised_and_online_learning_are_the_loops_written_out(make, x64, tolerance):
    with jax.enable_x64(x64):
        system, weights, tone = built(make, x64)
        x, target = examples(make is moving)
        (dw, outcome), online = both_forms(system, weights, tone, x, target)
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
        assert all(0.03 < r.mean() < 0.7 for r in outcome.rates.values())
