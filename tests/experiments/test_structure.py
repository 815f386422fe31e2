"""What structure is worth: rows are trainings that are accepted; test pictures stay hidden."""

import jax
import pytest

from experiments import _command, _lanes, _run, learn, structure


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
    net = jax.eval_shape(lambda key: structure.NETS[name](key).init(), jax.random.key(0))
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
    monkeypatch.setattr(structure, "NETS", dict.fromkeys(structure.NETS, lambda key: None))
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
