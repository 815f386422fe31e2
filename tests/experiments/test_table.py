"""The table of runs: what is missing is run, what is there is kept, and what is shown is right."""

import json
import sys
import threading
from dataclasses import asdict
from functools import partial
from importlib import import_module

import pytest
import tyro

from experiments import _config, _folder, table
from experiments import wta_broadcast as wta

_ROWS = table.ROWS
PICKED = ("density 100%", "frozen, 5%")  # two rows are enough
METRICS = {
    "test_accuracy": 0.9,
    "spikes_per_neuron_step": [0.04, 0.06],
    "active_fraction": [1.0, 0.5],
    "layer_readout_accuracy": [0.8, 0.7],
    "synaptic_events_per_inference": 12345.6,
    "seconds_per_epoch": [100.0, 10.0, 12.0],
}


def option(words, name):
    return words[words.index(name) + 1]


class Runs:
    """Stands for `_signals.run`: notes each command, and leaves metrics as a run would."""

    def __init__(self):
        self.commands, self.failing, self.said = [], (), "error: --data-dir must be a folder"

    def __call__(self, words, **how):
        self.commands.append(words)
        if option(words, "--out").split("/")[-2] in self.failing:
            return 2, "", self.said
        out = table.Path(option(words, "--out"))
        out.mkdir(parents=True, exist_ok=True)
        accuracy = 0.9 + 0.01 * int(option(words, "--seed"))
        (out / "metrics.json").write_text(json.dumps(METRICS | {"test_accuracy": accuracy}))
        return 0, "", ""

    @property
    def names(self):
        """Row and seed of each command, by the folder that it works in."""
        return ["/".join(option(words, "--out").split("/")[-2:]) for words in self.commands]


@pytest.fixture
def runs(monkeypatch):
    fake = Runs()
    monkeypatch.setattr(table._signals, "run", fake)
    monkeypatch.setattr(table, "ROWS", {name: table.ROWS[name] for name in PICKED})
    return fake


@pytest.fixture
def config(tmp_path):
    return partial(table.Config, results=tmp_path / "results", runs=tmp_path / "runs", seeds=2)


def test_one_seed_of_every_row_comes_before_the_next_seed(runs, config):
    table.main(config())
    assert runs.names == ["density-100/0", "frozen-5/0", "density-100/1", "frozen-5/1"]
    module, options = table.ROWS["density 100%"]
    assert runs.commands[0][: 3 + len(options.split())] == [
        sys.executable, "-m", module, *options.split(),
    ]  # fmt: skip


def test_a_finished_run_is_not_run_again(runs, config):
    table.main(config(seeds=1))
    kept = table.result_file(config(), "density 100%", 0).read_bytes()
    runs.commands.clear()
    table.main(config())
    assert runs.names == ["density-100/1", "frozen-5/1"]
    assert table.result_file(config(), "density 100%", 0).read_bytes() == kept
    runs.commands.clear()
    table.main(config())
    assert runs.commands == []


def test_an_interrupted_run_goes_on_and_what_never_began_is_cleared_away(runs, config):
    begun = table.run_folder(config(), "density 100%", 0)
    with _folder.held(wta.Config(out=begun)) as folder:
        folder.begin()
    table.main(config(seeds=1))
    assert [words[-1] for words in runs.commands] == ["--resume", "--overwrite"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_run_stops_no_other_and_is_tried_again(runs, config, capsys, jobs):
    runs.failing, runs.said = ("density-100",), "Traceback\nerror: [/out] must be empty"
    table.main(config(jobs=jobs))
    said = capsys.readouterr().out
    assert "density 100%, seed 0: failed" in said
    assert "error: [/out] must be empty" in said
    assert "frozen, 5%, seed 1: 91.00%" in said
    assert not table.result_file(config(), "density 100%", 0).exists()
    runs.failing, runs.commands = (), []
    table.main(config(jobs=jobs))
    assert sorted(runs.names) == ["density-100/0", "density-100/1"]


def test_runs_side_by_side_keep_to_a_core_each(runs, config, monkeypatch):
    both, busy, lock = threading.Barrier(2, timeout=30), [], threading.Lock()

    def run(words, **how):
        assert words[:2] == ["taskset", "-c"]
        with lock:
            assert words[2] not in busy
            busy.append(words[2])
        both.wait()  # passes only if two runs are under way at once
        with lock:
            busy.remove(words[2])
        return runs(words[3:], **how)

    monkeypatch.setattr(table.shutil, "which", lambda name: name)
    monkeypatch.setattr(table._signals, "run", run)
    table.main(config(jobs=2))
    assert len(runs.commands) == 4


def test_the_table_shows_mean_and_standard_deviation(runs, config, capsys):
    table.main(config(seeds=3))
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| density"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "density 100%",
        "91.00 ± 1.00",  # of 90, 91 and 92
        "3",
        "0.040 / 0.060",
        "100 / 50",
        "80.0 / 70.0",
        "12,346",
        "12.0",  # the median: the first epoch compiles
    ]


def test_one_seed_has_no_deviation_and_a_row_without_runs_no_line(runs, config, capsys):
    table.main(config(seeds=1, only=("density",)))
    table.main(config(show=True))
    shown = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| ")]
    assert len(runs.commands) == 1
    assert [x.split("|")[1].strip() for x in shown] == 2 * ["row", "density 100%"]
    assert shown[1].split("|")[2].strip() == "90.00"


def test_every_row_can_be_run_and_is_a_run_of_its_own(tmp_path):
    seen, folders = set(), set()
    for row in table.ROWS:
        words = table.command(table.Config(runs=tmp_path), row, seed=0)
        config = import_module(words[2]).Config
        parsed = _config.resolved(tyro.cli(partial(config), args=words[3:]), 55_000)
        folders.add(str(parsed.out))
        seen.add((words[2], json.dumps(asdict(parsed) | {"out": ""}, default=str)))
    assert len(folders) == len(seen) == len(table.ROWS)


def test_the_command_passes_on_where_the_data_are(tmp_path):
    words = table.command(table.Config(data_dir=tmp_path), "density 5%", 2)
    assert option(words, "--data-dir") == str(tmp_path)
    assert option(words, "--seed") == "2"
    assert "--data-dir" not in table.command(table.Config(), "density 5%", 2)


def test_fashion_is_read_from_a_folder_of_its_own_and_never_from_that_of_mnist(
    runs, config, tmp_path, monkeypatch
):
    row, of_mnist = "other data: Fashion-MNIST", tmp_path / "mnist"
    rows = {name: _ROWS[name] for name in (PICKED[0], row)}
    monkeypatch.setattr(table, "ROWS", rows)
    table.main(config(seeds=1, data_dir=of_mnist))
    assert runs.names == ["density-100/0"]
    table.main(config(seeds=1, data_dir=of_mnist, fashion_dir=tmp_path / "fashion"))
    assert [option(words, "--data-dir") for words in runs.commands] == [
        str(of_mnist), str(tmp_path / "fashion"),
    ]  # fmt: skip


def test_a_mean_over_layers_is_layer_by_layer(config):
    config = config()
    for seed, rates in enumerate(([0.02, 0.08], [0.04, 0.04])):
        file = table.result_file(config, "density 5%", seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(METRICS | {"spikes_per_neuron_step": rates}))
    lines = list(table.table(config, {"density 5%": table.ROWS["density 5%"]}))
    assert lines[-1].split("|")[4].strip() == "0.030 / 0.060"
    assert len({line.count("|") for line in lines}) == 1
