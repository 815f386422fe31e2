"""What structure is worth: rows are trainings that are accepted; test pictures stay hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from experiments import _command, _lanes, _run, learn, structure
from experiments._rewiring import Rewiring


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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("depth: three layers", marks=pytest.mark.slow),
        "depth: one layer, synapses of two",
    ],
)
def test_no_hidden_neuron_of_a_row_hears_more_than_256(name):
    """Where a row does not say so, the network itself refuses; the bound is one that bites."""
    net = jax.eval_shape(lambda key: structure.NETS[name](key, 784).init(), jax.random.key(0))
    assert {n: x.v.shape for n, x in net.neurons.items() if n != "readout"} == {
        "depth: three layers": {"h1": (1568,), "h2": (784,), "h3": (512,)},
        "depth: one layer, synapses of two": {"h1": (4704,)},
    }[name]


def test_the_test_is_shown_once_it_is_asked_for(config, monkeypatch, capsys):
    def fake(c, sets, lanes, change):
        for _, seed, _ in lanes:
            yield {
                "val_accuracy": [0.1, 0.8], "test_accuracy": 0.6 + seed / 100, "rate": [0.1, 0.05],
                "config": {},
            }  # fmt: skip

    monkeypatch.setattr(_lanes, "trained", fake)
    monkeypatch.setattr(structure, "priced", lambda net: (100, 9, 1.5))
    monkeypatch.setattr(structure, "NETS", dict.fromkeys(structure.NETS, lambda key, n_in: None))
    structure.main(config())
    said = capsys.readouterr().out
    assert (
        "| depth: two layers; symmetric | digits | 80.00 ± 0.00 | 0.050 | 100 | 9 | 1.50 |" in said
    )
    assert "60." not in said
    monkeypatch.setattr(_lanes, "trained", None)  # nothing is run again
    structure.main(config(test=True, show=True))
    assert "| 60.50 ± 0.71 |" in capsys.readouterr().out


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
