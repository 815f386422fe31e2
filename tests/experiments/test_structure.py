"""What structure is worth: rows are trainings that are accepted; test pictures stay hidden."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from experiments import _command, _lanes, _run, _structure_figure, learn, structure
from experiments._rewiring import Rewiring

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    return lambda **more: structure.Config(**(
        dict(only=("depth: two layers;",), datasets=("digits",), seeds=2, results=tmp_path) | more
    ))  # fmt: skip


def test_every_row_is_a_training_that_is_accepted(config):
    kinds = {}
    for name in structure.ROWS:
        words = structure.job(config(epochs=7), name, "mnist", 0).command[3:]
        kinds.setdefault(" ".join(words), name)
    # rows that differ in their network alone are asked for in the same words
    assert len(kinds) == 2 * 2  # depth or rows, local or by gradient
    for words in kinds:
        c = learn.resolved(_command.parsed(learn.Config, words.split(), learn), 1000)
        assert c.epochs == 7


def test_pictures_are_mirrored_where_it_is_asked_for(config):
    for name in ("depth: two layers; symmetric", "recurrence: dense; broadcast"):
        words = structure.job(config(augment="mirror"), name, "fashion", 0).command[3:]
        assert _command.parsed(learn.Config, words, learn).augment == "mirror"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("depth: three layers", marks=pytest.mark.slow),
        "depth: one layer, synapses of two",
    ],
)
def test_no_hidden_neuron_of_a_row_hears_more_than_256(name):
    """Where a row does not say so, the network itself refuses; the bound is one that bites."""
    net = jax.eval_shape(lambda key: structure.NETS[name](key, 784, 10).init(), jax.random.key(0))
    assert {n: x.v.shape for n, x in net.neurons.items() if n != "readout"} == {
        "depth: three layers": {"h1": (1568,), "h2": (784,), "h3": (512,)},
        "depth: one layer, synapses of two": {"h1": (4704,)},
    }[name]


def ran(devices=None):
    """In place of a training."""

    def fake(c, sets, lanes, change):
        for _, seed, _ in lanes:
            yield {
                "val_accuracy": [0.1, 0.8], "test_accuracy": 0.6 + seed / 100, "rate": [0.1, 0.05],
                "weight_updates": 2000, "config": {},
            } | (devices or {})  # fmt: skip

    return fake


def small(key, n_in, n_classes):
    layer = nj.Layer(40, nj.LIF(), rule=nj.ThreeFactor())
    return nj.structured(
        key, n_in, [layer], n_classes, recurrence=nj.Recurrence("grid", fan_in=8), population=1
    )


def test_the_table_shows_what_a_row_costs_and_the_test_once_it_is_asked_for(
    config, monkeypatch, capsys
):
    """Counted by hand: synapses, fan-in, spikes at synapses, updates of neurons, changes."""
    monkeypatch.setattr(_lanes, "trained", ran())
    monkeypatch.setattr(structure, "NETS", dict.fromkeys(structure.NETS, small))
    structure.main(config())
    said = capsys.readouterr().out
    found = json.loads((config().results / "structure.json").read_text())[0]
    row = "| depth: two layers; symmetric | digits | 80.00 ± 0.00 | 0.050 | 3,280 | 72 |"
    assert row in said
    assert "60." not in said
    assert "test" not in found
    assert (found["synapses"], found["fan_in"]) == (64 * 40 + 8 * 40 + 10 * 40, 72)
    assert (found["val"], found["changes"]) == ([80.0, 80.0], 2000)
    assert found["learning_joules"] == pytest.approx(2000 * 120e-12)
    # 40 spikes in 20 steps, each at 18 synapses on average; 50 neurons are updated in every step
    spikes, events = 0.05 * 40 * 20, 0.05 * 20 * (8 + 10) * 40
    still = events * 23.6e-12 + spikes * 81e-12 + (50 * 20 - spikes) * 52e-12
    moved = found["joules"] - still  # hops of 3 or 4 pJ, 1.7 pJ at each core of arrival
    assert 3e-12 * found["hops_spike"] * spikes < moved
    assert moved < spikes * (4e-12 * found["hops_spike"] + 4 * 1.7e-12)
    assert 0 < found["hops"] < 2  # two cores in a square of four
    assert (config().results / "depth-digits.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(_lanes, "trained", None)  # nothing is run again
    structure.main(config(test=True, show=True))
    assert "| 60.50 ± 0.71 |" in capsys.readouterr().out


def test_pulses_of_devices_are_counted_and_paid_for(config, monkeypatch, capsys):
    each = {"n_synapses": 9, "n_pulses": 30.0, "energy": 2e-9, "time": 1.0}
    monkeypatch.setattr(_lanes, "trained", ran({"devices": {"a": each, "b": each}}))
    monkeypatch.setattr(structure, "NETS", dict.fromkeys(structure.NETS, small))
    asked = config(synapse="devices", only=("recurrence: none; symmetric",))
    structure.main(asked)
    found = json.loads((asked.results / "structure.json").read_text())[0]
    assert (found["changes"], found["learning_joules"]) == (60.0, 4e-9)
    assert "| pulses | learning, mJ |" in capsys.readouterr().out
    words = structure.job(asked, "recurrence: none; symmetric", "mnist", 0).command[3:]
    assert "--synapse linear --n-states 64" in " ".join(words)


def test_depth_is_not_asked_of_lines(config, monkeypatch):
    """And recurrence is, with the inputs that each set has."""
    seen = []

    def run(jobs, *_):
        seen.append([job.name for job, _, _ in jobs])
        return False

    monkeypatch.setattr(_lanes, "run", run)
    structure.main(config(datasets=("mnist1d",), only=("two layers; sym", "none; sym"), seeds=1))
    assert seen == [["mnist1d, recurrence: none; symmetric, seed 0"]]
    for name, shape in (("mnist", (28, 28)), ("mnist1d", (40, 2)), ("moving-digits", (28, 144))):
        assert structure._SHAPES[name] == shape


def test_sums_are_pairs_at_half_the_resolution_for_depth_alone(config, monkeypatch):
    """Windows lie over both; means of 2 x 2 pixels; 19 classes; the digits stand in for MNIST."""
    asked = config(datasets=("sums", "digits"))
    digits = nj.data.load("digits")
    monkeypatch.setattr(nj.data, "load", lambda name, folder: digits)
    (pairs,) = next(sets for names, sets in structure._sets(asked) if names == ["sums"])
    whole = nj.data.sums(digits)
    assert pairs.train.images.shape == (575, 4, 8)
    np.testing.assert_allclose(
        pairs.train.images[:, 1, 5], whole.train.images[:, 2:4, 10:12].mean((1, 2)), rtol=1e-6
    )
    np.testing.assert_array_equal(pairs.test.labels, whole.test.labels)
    assert structure._fits("depth: two layers; symmetric", "sums")
    assert not structure._fits("recurrence: none; symmetric", "sums")
    net = structure.DEPTH["two layers"](jax.random.key(0), 14 * 28, 19)
    assert {n: x.n for n, x in net.layers.items()} == {"h1": 8 * 7 * 14, "h2": 512, "readout": 19}
    assert net.projections["input->h1"].connectivity.size == (1, 14, 28)
    words = structure.job(asked, "depth: two layers; symmetric", "sums", 0).command
    assert words[words.index("--dataset") + 1] == "mnist"
    with pytest.raises(ValueError, match="data-dir .* needs --datasets mnist or sums"):
        config(datasets=("fashion",), data_dir=config().results)


@pytest.mark.slow
def test_moving_digits_are_recordings_of_40_classes(config):
    """They come as they are, one frame a step, to a readout of so many, whose cost is shown."""
    asked = config(datasets=("moving-digits",), only=("recurrence: none; symm",), seeds=1,
                   epochs=1, train_size=128)  # fmt: skip
    structure.main(asked)
    found = json.loads((asked.results / "structure.json").read_text())[0]
    assert found["synapses"] == 512 * (144 + 40)
    assert found["changes"] == 2 * found["synapses"]  # of two batches of 64
    assert found["fan_in"] == 144


def test_refusals(tmp_path, capsys):
    argv = ["--only", "breadth", "--results", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        _run.main(structure.Config, structure.main, argv)
    assert end.value.code == 2
    assert "--only must be part of the name of a row" in " ".join(capsys.readouterr().err.split())


def test_loops_move_every_so_many_batches_and_forget():
    """Fan-in stays, no pair twice over all delays; what moved starts at 0 in all that is kept."""
    net = nj.structured(
        jax.random.key(0), 6, [nj.Layer(40, nj.LIF(9.5, 9.0), rule=nj.ThreeFactor())],
        3, recurrence=nj.Recurrence("grid", fan_in=8, delays=(1, 2)), population=1,
    )  # fmt: skip
    system = nj.wta_broadcast.system(jax.random.key(0), net, n_steps=12, start=2)
    learner = Rewiring(nj.learning.WTABroadcast(system, optax.adam(1e-2), 0.9), 2, every=2)
    state = learner.init(jax.random.key(1))
    x, y = 4 * jax.random.uniform(jax.random.key(2), (4, 6)), jnp.array([0, 1, 2, 0])
    step = jax.jit(lambda s: learner.step(s, x, y, key=jax.random.key(0))[0])
    loops = ["h1->h1", "h1->h1 after 2"]
    index = lambda s, n: np.asarray(s.weights[n].connectivity.index)  # noqa: E731
    once = step(state)
    twice = step(once)
    for n in loops:
        np.testing.assert_array_equal(index(once, n), index(state, n))
        new = index(twice, n) != index(once, n)
        np.testing.assert_array_equal(new.sum(1), 2)
        np.testing.assert_array_equal(twice.average[0][n].connectivity.index, index(twice, n))
        held = [twice.weights[n].w, twice.average[0][n].w]
        for moment in (twice.opt_state[0].mu[n], twice.opt_state[0].nu[n]):
            assert np.asarray(moment)[~new].any()
            held.append(moment)
        assert not any(np.asarray(part)[new].any() for part in held)
    both = np.sort(np.concatenate([index(twice, n) for n in loops], 1), 1)
    assert (np.diff(both, axis=1) > 0).all()
    assert not (both == np.arange(40)[:, None]).any()
    assert learner.predict(twice, x).shape == (4, 3)


@pytest.mark.parametrize("name", ["depth", "recurrence", "mnist1d", "rewiring", "sums"])
def test_the_page_has_the_numbers_that_its_figures_show(name):
    """Each accuracy of the kept screens stands in the tables, to two digits."""
    rows = json.loads(
        (ROOT / f"experiments/results/structure-screens/structure_{name}.json").read_text()
    )
    page = (ROOT / "docs/structure.md").read_text()
    assert f"(structure_{name}.png)" in page or name == "rewiring"
    for row in rows:
        assert all(f"{x:.2f}" in page for x in row["val"]), row
    drawn = _structure_figure.drawn(rows).axes
    assert sorted(y for line in drawn[0].lines for y in line.get_xdata()) == sorted(
        x for row in rows for x in row["val"]
    )
    assert [t.get_text() for t in drawn[0].get_yticklabels()] == [
        row["row"] for row in sorted(rows, key=lambda row: np.mean(row["val"]))
    ]
