"""Event lists learn from a batch a few samples after the other: the same, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import wta_broadcast as wb
from neurojax.network import fold
from neurojax.neurons.leaky import LIF, LeakyIntegrator

KEY, CLASSES, BATCH = jax.random.key(0), 3, 6


def system(n, n_steps, fan_in, n_in=10):
    """Input and recurrence by sender, one step and two late, a readout that hears everyone."""

    def listed(name, n_pre):
        edges = nj.fan_in(fold(KEY, name), n_pre, n, fan_in / n_pre).edges()
        return nj.by_sender(edges.pre, edges.post, n_pre, n)

    delta = nj.ThreeFactor(kappa_e=0.0, window=nj.always, reset_trace=False)
    net = nj.Network(
        {
            "hidden": nj.Layer(n, LIF(6.0, 3.0), rule=nj.ThreeFactor(0.9)),
            "readout": nj.Layer(CLASSES, LeakyIntegrator(9.0), rule=delta),
        },
        {
            "in": nj.Projection("input", "hidden", listed("in", n_in), gain=2.0),
            "loop": nj.Projection("hidden", "hidden", listed("loop", n), delay=1),
            "late": nj.Projection("hidden", "hidden", nj.Dense(n, n), delay=2, plastic=False),
            "out": nj.Projection("hidden", "readout", nj.Dense(n, CLASSES), delay=1),
        },
    )  # fmt: skip
    if n > 100:
        net = net.without("late")
    return wb.system(fold(KEY, "system"), net, n_steps=n_steps, start=2)


def examples(time, n_steps):
    shape = (BATCH, n_steps, 10) if time else (BATCH, 10)
    x = np.random.default_rng(1).random(shape).astype(np.float32)
    return 2.0 * (x > 0.6).astype(np.float32) if time else x


# Each has a number of steps of its own, lest what was compiled for another cache is used again.
@pytest.mark.parametrize(
    ("shown", "size", "n_steps"), [("held", 2, 13), ("time", 3, 14), ("ragged", 1, 15)]
)
def test_samples_in_turn_teach_the_mean_of_what_each_teaches_alone(
    shown, size, n_steps, monkeypatch
):
    made = system(24, n_steps, 4)
    weights, tone = made.network.init_weights(fold(KEY, "weights")), made.rest()
    x, y = examples(shown != "held", n_steps), np.arange(BATCH) % CLASSES
    lengths = np.array([n_steps, 9, 6, 12, 7, n_steps])
    batch = nj.data.Rasters(x, lengths) if shown == "ragged" else x
    alone = [wb.deltas(made, weights, tone, batch[b : b + 1], y[b : b + 1]) for b in range(BATCH)]

    monkeypatch.setattr(wb, "_CACHE", 4 * n_steps * (24 + CLASSES) * size)
    assert wb._at_once(made, weights, BATCH) == size
    dw, outcome = wb.deltas(made, weights, tone, batch, y)

    for name, found in dw.items():
        expected = np.mean([one[name] for one, _ in alone], axis=0)
        assert np.abs(expected).max() > 0.01, name
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    for found, each in zip(
        (outcome.scores, outcome.rates["hidden"]),
        zip(*((o.scores, o.rates["hidden"]) for _, o in alone), strict=True),
        strict=True,
    ):
        expected = np.concatenate(each)
        assert len(np.unique(expected, axis=0)) == BATCH  # so that their order tells
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_seeds_side_by_side_learn_in_turn_what_each_learns_alone(monkeypatch):
    made = system(24, 19, 4)
    monkeypatch.setattr(wb, "_CACHE", 4 * 19 * (24 + CLASSES) * 2)
    keys, x = jax.random.split(KEY, 2), examples(False, 19)
    weights = [made.network.init_weights(key) for key in keys]
    assert wb._at_once(made, weights[0], BATCH) == 2
    learn = jax.jit(lambda w: wb.deltas(made, w, made.rest(), x, np.arange(BATCH) % CLASSES)[0])
    numbers = [{n: w[n].w for n in w} for w in weights]
    held = lambda w: {n: nj.Ideal(x, weights[0][n].connectivity) for n, x in w.items()}  # noqa: E731
    both = jax.vmap(lambda w: learn(held(w)))(jax.tree.map(lambda *x: jnp.stack(x), *numbers))
    for i, one in enumerate(map(learn, weights)):
        for name in one:
            found, size = both[name][i], np.abs(one[name]).max()
            assert size > 0.01
            np.testing.assert_allclose(found, one[name], atol=1e-6 * size, err_msg=name)


class Noisy(nj.Ideal):
    """Weights that are read with noise."""

    def apply(self, s, *, key=None):
        out = super().apply(s)
        return out if key is None else out + jax.random.normal(key, out.shape, out.dtype)


def test_samples_in_turn_draw_as_samples_at_once_do(monkeypatch):
    made = system(24, 16, 4)
    weights, tone = made.network.init_weights(fold(KEY, "weights")), made.rest()
    weights["late"] = Noisy(weights["late"].w, weights["late"].connectivity)
    x, y = np.tile(examples(False, 16)[:1], (BATCH, 1)), np.zeros(BATCH, int)
    monkeypatch.setattr(wb, "_CACHE", 4 * 16 * (24 + CLASSES) * 2)
    assert wb._at_once(made, weights, BATCH) == 2
    taught = wb.deltas(made, weights, tone, x, y, key=KEY)[1].rates["hidden"]
    shown = wb.predict(made, weights, tone, x, key=KEY).rates["hidden"]
    assert len(np.unique(shown, axis=0)) == BATCH
    np.testing.assert_allclose(taught, shown, rtol=1e-6)


def test_how_many_go_at_once_divides_the_batch_and_dense_wiring_takes_all():
    made = system(24, 17, 4)
    weights = made.network.init_weights(KEY)
    assert wb._at_once(made, weights, BATCH) == BATCH
    large = system(20_000, 20, 2)  # 1.6 MB a sample, of 4.2
    listed = large.network.init_weights(KEY)
    sizes = [wb._at_once(large, listed, batch) for batch in (1, 2, 7, 12)]
    assert sizes == [1, 2, 1, 2]
    dense = {n: nj.Ideal(jnp.zeros((2, 2)), nj.Dense(2, 2)) for n in large.network.plastic()}
    assert wb._at_once(large, dense, 12) == 12


def test_what_is_recorded_does_not_grow_with_the_batch():
    made = system(60_000, 20, 2)
    weights, tone = jax.eval_shape(lambda: (made.network.init_weights(KEY), made.rest()))

    def temporary(batch):
        x, y = jnp.zeros((batch, 10)), jnp.zeros(batch, jnp.int32)
        step = jax.jit(lambda w, tone, x, y: wb.deltas(made, w, tone, x, y))
        return step.lower(weights, tone, x, y).compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(4), temporary(16)
    assert many - few < 2 * 12 * 60_000 * 4  # what is handed back: a rate of each neuron, twice


def test_a_network_whose_samples_go_in_turn_learns(monkeypatch):
    made, tx = system(24, 18, 4), optax.adam(0.02)
    monkeypatch.setattr(wb, "_CACHE", 4 * 18 * (24 + CLASSES) * 2)
    state = wb.init(made, tx, KEY)
    assert wb._at_once(made, state.weights, BATCH) == 2
    x, y = examples(False, 18), np.arange(BATCH) % CLASSES
    for _ in range(60):
        state, outcome = wb.train_step(made, tx, state, x, y)
    assert (outcome.scores.argmax(1) == y).all()
