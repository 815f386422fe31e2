"""What is refused leaves nothing, and takes nothing away from what it was to replace."""

import pytest

from experiments import (
    _run,
    electronic_synapse,
    routing_cost,
    surrogate_reference,
    transfer,
    wta_broadcast,
)

EARLY = {  # as the options say
    wta_broadcast: ("--epochs 0", "--nope", "--dataset digit", "--hidden x"),
    surrogate_reference: ("--slope 0", "--teacher hard"),
    routing_cost: ("--seeds 0", "--p-rewire 2", "--mesh 0 0"),
    electronic_synapse: ("--dataset digits --n-states 1", "--dataset nope"),
    transfer: ("--dataset nope", "--synapse x"),
}
LATE = {  # as the data or the network say
    wta_broadcast: ("--radius 99", "--bandwidth 10", "--winners 999", "--batch-size 5000"),
    surrogate_reference: ("--radius 99", "--train-size 1"),
    routing_cost: ("--fan-in 3", "--fan-in-input 999", "--hidden 1 1", "--mesh 2 2"),
    electronic_synapse: ("--dataset digits --batch-size 5000",),
}
SMALL = {wta_broadcast: "--hidden 24 20", surrogate_reference: "--hidden 24 20"}


def said(experiment, argv, capsys):
    with pytest.raises(SystemExit) as end:
        _run.main(experiment.Config, experiment.run, argv)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def content(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EARLY, ids=lambda module: module.__name__.split(".")[1])
def test_a_refusal_leaves_nothing_and_takes_nothing(experiment, tmp_path, capsys):
    held = tmp_path / "held"
    (held / "checkpoints" / "1").mkdir(parents=True)
    for name in ("run.json", "metrics.json", "weights.png", "checkpoints/1/checkpoint.json"):
        (held / name).write_text("another run's")
    before = content(tmp_path)
    for argv in (*EARLY[experiment], *LATE.get(experiment, ())):
        words = [*SMALL.get(experiment, "").split() * ("--hidden" not in argv), *argv.split()]
        fresh = said(experiment, [*words, "--out", str(tmp_path / "a" / "b")], capsys)
        over = said(experiment, [*words, "--out", str(held), "--overwrite"], capsys)
        assert over == fresh
        assert "--out" not in fresh
        assert content(tmp_path) == before, argv
