"""The main system at growing size: lists of a fixed fan-in, what a picture costs, and memory."""

import itertools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from experiments import _on_chips, scaling
from hardware import topology
from hardware.energy import LOIHI
from neurojax.data import Split
from neurojax.learning import wta_broadcast as wb


def test_exponents_are_slopes_over_synapses():
    rows = [
        {
            "synapses": n,
            "seconds": 3e-6 * n**1.2,
            "bytes": 40 * n,
            "joules": n**1.5,
            "hops_spike": 7,
        }
        for n in (1e4, 1e5, 1e6)
    ]
    slopes = {"seconds": 1.2, "bytes": 1.0, "joules": 1.5, "hops_spike": 0.0}
    assert scaling.exponents(rows) == pytest.approx(slopes)
    assert scaling.exponents(rows[:1]) == {}


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own():
    first, second = (scaling.batches(23, 5, 0, epoch) for epoch in (0, 1))
    assert first.shape == (4, 5)
    assert len({*first.ravel().tolist()} & {*range(23)}) == 20
    assert (first != second).any()


@pytest.mark.slow
def test_a_score_does_not_depend_on_how_many_neurons_are_heard():
    """Of synapses of one weight, per spike of a neuron; alone they would differ by a factor 8."""
    c, per_spike = scaling.Config(fan_in=8), []
    for n in (64, 512):
        made = scaling.system(c, n, 20, 10, 20, jax.random.key(0))
        weights = made.network.init_weights(jax.random.key(1))
        out = weights["out"]
        weights |= {"out": eqx.tree_at(lambda w: w.w, out, jnp.ones_like(out.w))}
        seen = wb.predict(made, weights, made.rest(), jnp.ones((4, 20)))
        assert float(seen.rates["hidden"].mean()) > 0.01
        per_spike.append(float(seen.scores.mean() / seen.rates["hidden"].mean()))
    assert per_spike[0] == pytest.approx(per_spike[1], rel=0.3)


@pytest.mark.slow
def test_thresholds_settle_in_as_many_batches_as_are_said():
    made = scaling.system(scaling.Config(fan_in=8), 64, 20, 10, 10, jax.random.key(0))
    learner = nj.learning.WTABroadcast(made, optax.sgd(0.1))
    expected = state = learner.init(jax.random.key(1))
    x = jax.random.uniform(jax.random.key(2), (7, 20))
    for i in range(scaling._SETTLED):
        expected = wb.settle(made, expected, x[np.arange(3 * i, 3 * i + 3) % 7])
    found = scaling.settled(made, state, x, 3)
    for a, b in zip(*map(jax.tree.leaves, (found.homeostasis, expected.homeostasis)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), found.homeostasis, state.homeostasis)
    assert any(jax.tree.leaves(moved))


def test_a_picture_costs_what_its_spikes_and_their_links_do():
    """One neuron fires, whose links are counted by hand; all others are idle."""
    n, n_steps, c = 100, 10, scaling.Config(fan_in=8)
    made = scaling.system(c, n, 20, 10, n_steps, jax.random.key(0))
    fired = 0.3  # spikes a step
    found = scaling.priced(made, {"hidden": jnp.zeros(n).at[7].set(fired)})
    pre, post, _ = (np.asarray(x) for x in topology.wiring(made.network)[0])
    mesh = _on_chips.square(n + 10)
    assert found["cores"] == mesh.n_cores == 4
    core = np.asarray(topology.linear(n + 10, mesh))
    apart = lambda a, b: abs(a % 2 - b % 2) + abs(a // 2 - b // 2)  # noqa: E731
    assert found["hops"] == pytest.approx(apart(core[pre], core[post]).mean())
    to = set(core[post[pre == 7]].tolist())
    assert to == {0, 1, 3}
    assert found["hops_spike"] == 2  # from a corner east, and from there south
    value = {name: float(getattr(LOIHI, name).value) for name in
             ("synaptic", "neuron_active", "neuron_idle", "hop_ew", "hop_ns", "tile")}  # fmt: skip
    spikes = fired * n_steps
    links = spikes * (value["hop_ew"] + value["hop_ns"])
    assert found["joules_routing"] == pytest.approx(links)
    reached = (pre == 7).sum()
    steps = spikes * value["neuron_active"] + ((n + 10) * n_steps - spikes) * value["neuron_idle"]
    tiles = spikes * 3 * value["tile"]
    total = spikes * reached * value["synaptic"] + steps + links + tiles
    assert found["joules"] == pytest.approx(total, rel=1e-5)


def test_rates_fall_to_zero_and_the_readout_has_its_own():
    c = scaling.Config(lr=0.25, lr_readout=0.5)
    made = scaling.system(c, 64, 16, 10, 10, jax.random.key(0))
    tx = scaling.taught(c, made, 4).tx
    plain = {n: jnp.zeros(2) for n in made.network.plastic()}
    state, moved = tx.init(plain), []
    for _ in range(5):
        with jax.numpy_dtype_promotion("standard"):  # as optax needs it
            step, state = tx.update(plain | {n: jnp.ones(2) for n in plain}, state, plain)
        moved.append({n: -float(x[0]) for n, x in step.items()})
    falls = [(1 + np.cos(np.pi * k / 4)) / 2 for k in range(5)]
    for name, rate in (("in", 0.25), ("loop", 0.25), ("out", 0.5)):
        np.testing.assert_allclose([x[name] for x in moved], rate * np.array(falls), atol=1e-5)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Four pictures of each of ten classes, that any net tells apart, in two sizes."""
    out = tmp_path_factory.mktemp("scaled")
    images = np.repeat(np.eye(10, dtype=np.float32).repeat(2, 1), 4, axis=0)
    part = Split(images.reshape(40, 4, 5), np.arange(40) // 4)
    sets = scaling.load("digits")._replace(train=part, val=part, test=part)
    c = scaling.Config(
        sizes=(64, 128), fan_in=8, epochs=2, batch_size=8, n_steps=8, durations=(6, 12),
        train_size=32, out=out / "run",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "load", lambda *_: sets)
        seen, ticks = [], itertools.count()
        patch.setattr(scaling.time, "perf_counter", lambda: float(next(ticks)))
        step = scaling.nj.learning.WTABroadcast.step
        counted = lambda self, *a, **k: (seen.append(a[1].shape), step(self, *a, **k))[1]  # noqa: E731
        patch.setattr(scaling.nj.learning.WTABroadcast, "step", counted)
        return scaling.run(c), json.loads((out / "run" / "metrics.json").read_text()), seen, out


@pytest.mark.slow
def test_a_run_gives_each_size_its_row_and_a_figure(done):
    rows, metrics, seen, out = done
    assert [r["n"] for r in rows] == [64, 128]
    assert [r["synapses"] for r in rows] == [n * (8 + 8 + 10) for n in (64, 128)]
    assert {shape for shape in seen} == {(8, 20)}  # batches, as traced
    assert all(len(r["val_accuracy"]) == 2 and r["accuracy"] == r["val_accuracy"][-1] for r in rows)
    assert all(0 < r["rate"] < 0.5 for r in rows)
    assert all(r["seconds"] == 4 for r in rows)  # batches of a tick each, of 32 pictures
    assert [m["n_steps"] for m in rows[0]["memory"]] == [6, 12]
    assert metrics["runs"] == rows
    assert metrics["exponents"] == scaling.exponents(rows)
    assert (out / "run" / "scaling.png").stat().st_size > 10_000


@pytest.mark.slow
def test_synapses_grow_with_neurons_and_memory_of_bptt_faster_with_steps():
    c = scaling.Config(durations=(10, 80), fan_in=8)
    key, x = jax.random.key(0), jnp.ones((4, 64))
    made = scaling.system(c, 200, 64, 10, 10, key)
    assert [made.network.projections[n].connectivity.shape for n in ("in", "loop")] == [(1600,)] * 2
    few, many = scaling.held(c, 200, 64, 10, x, jnp.zeros(4, int), key)
    assert many["bptt"] > 4 * few["bptt"]
    assert many["three_factors_one"] < 1.1 * few["three_factors_one"]
    assert many["bptt_one"] > 2 * few["bptt_one"]
