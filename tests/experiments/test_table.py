"""The table of runs: what is missing is run, what is there is kept, and what is shown is right."""

import json
import re
import sys
import threading
from dataclasses import asdict
from functools import partial
from importlib import import_module

import pytest
import tyro

from experiments import _config, _folder, _lock, _run, _runs, table
from neurojax._files import sealed

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
        out, seed = table.Path(option(words, "--out")), int(option(words, "--seed"))
        config = _run.Run(out=out, seed=seed, resume=True)
        with _folder.held(config) as folder:
            folder.begin()
            folder.finish(METRICS | {"test_accuracy": 0.9 + 0.01 * seed}, {})
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
    kept = table.job(config(), "density 100%", 0).result.read_bytes()
    runs.commands.clear()
    table.main(config())
    assert runs.names == ["density-100/1", "frozen-5/1"]
    assert table.job(config(), "density 100%", 0).result.read_bytes() == kept
    runs.commands.clear()
    table.main(config())
    assert runs.commands == []


def test_an_interrupted_run_goes_on_and_what_never_began_begins(runs, config):
    table.main(config(seeds=1))
    assert [words[-1] for words in runs.commands] == ["--resume", "--resume"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_run_stops_no_other_and_is_tried_again(runs, config, capsys, jobs):
    runs.failing, runs.said = ("density-100",), "Traceback\nerror: [/out] must be empty"
    with pytest.raises(SystemExit) as end:
        table.main(config(jobs=jobs))
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert "density 100%, seed 0: failed" in said
    assert "error: [/out] must be empty" in said
    assert "frozen, 5%, seed 1: 91.00%" in said
    assert not table.job(config(), "density 100%", 0).result.exists()
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

    monkeypatch.setattr(_runs.shutil, "which", lambda name: name)
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
    table.main(config(show=True, seeds=3))
    shown = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| ")]
    assert len(runs.commands) == 1
    assert [x.split("|")[1].strip() for x in shown] == 2 * ["row", "density 100%"]
    assert shown[1].split("|")[2].strip() == "90.00"


def test_every_row_can_be_run_and_is_a_run_of_its_own(tmp_path):
    seen, folders = set(), set()
    for row in table.ROWS:
        words = table.job(table.Config(runs=tmp_path), row, seed=0).command
        config = import_module(words[2]).Config
        parsed = _config.resolved(tyro.cli(partial(config), args=words[3:]), 55_000)
        folders.add(str(parsed.out))
        seen.add((words[2], json.dumps(asdict(parsed) | {"out": ""}, default=str)))
    assert len(folders) == len(seen) == len(table.ROWS)


def test_the_command_passes_on_where_the_data_are(tmp_path):
    words = table.job(table.Config(data_dir=tmp_path), "density 5%", 2).command
    assert option(words, "--data-dir") == str(tmp_path)
    assert option(words, "--seed") == "2"
    assert "--data-dir" not in table.job(table.Config(), "density 5%", 2).command


def test_fashion_is_read_from_a_folder_of_its_own_and_never_from_that_of_mnist(
    runs, config, tmp_path, monkeypatch
):
    row, of_mnist = "other data: Fashion-MNIST", tmp_path / "mnist"
    rows = {name: _ROWS[name] for name in (PICKED[0], row)}
    monkeypatch.setattr(table, "ROWS", rows)
    for folder in (of_mnist, tmp_path / "fashion"):
        folder.mkdir()
    table.main(config(seeds=1, data_dir=of_mnist))
    assert runs.names == ["density-100/0"]
    table.main(config(seeds=1, data_dir=of_mnist, fashion_dir=tmp_path / "fashion"))
    assert [option(words, "--data-dir") for words in runs.commands] == [
        str(of_mnist), str(tmp_path / "fashion"),
    ]  # fmt: skip


def test_a_mean_over_layers_is_layer_by_layer(config):
    config, row = config(), "density 5%"
    for seed, rates in enumerate(([0.02, 0.08], [0.04, 0.04])):
        file = table.job(config, row, seed).result
        file.parent.mkdir(parents=True, exist_ok=True)
        result = (
            METRICS
            | {"spikes_per_neuron_step": rates, "seed": seed}
            | table.job(config, row, seed).whose
        )
        file.write_text(sealed(result))
    lines = list(table.table(config, {row: table.ROWS[row]}, []))
    assert lines[-1].split("|")[4].strip() == "0.030 / 0.060"
    assert len({line.count("|") for line in lines}) == 1


# --- what is on disk ---


def shown(config, capsys, code=None):
    """Rows and their number of seeds as the table shows them, and what it says beside."""
    if code is None:
        table.main(config(show=True, seeds=3))
    else:
        with pytest.raises(SystemExit) as end:
            table.main(config(show=True, seeds=3))
        assert end.value.code == code
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split("|") for line in lines if line.startswith("| ")][1:]
    return {c[1].strip(): int(c[3]) for c in cells}, [x for x in lines if not x.startswith("|")]


def test_one_damaged_result_is_named_and_loses_no_other(runs, config, capsys):
    table.main(config())
    file = table.job(config(), "density 100%", 1).result
    whole = file.read_bytes()
    capsys.readouterr()
    flipped = whole.replace(b'"test_accuracy": 0.91', b'"test_accuracy": 0.93')
    assert flipped != whole
    for bad in (b"", b"[]", b"{}", b"3", b'"a"', b"null", b"[" * 100_000, b"\0\xff", flipped):
        file.write_bytes(bad)
        rows, (said,) = shown(config, capsys, code=1)
        assert rows == {"density 100%": 1, "frozen, 5%": 2}
        assert said.startswith(f"left out: '{file}' is not what was written: ")
        assert said.endswith("; take it away, and it is run again")
    file.unlink()
    runs.commands.clear()
    table.main(config())
    assert runs.names == ["density-100/1"]
    capsys.readouterr()
    assert shown(config, capsys) == ({"density 100%": 2, "frozen, 5%": 2}, [])


def test_a_result_of_another_row_or_seed_is_named_and_left_out(runs, config, capsys, monkeypatch):
    table.main(config())
    capsys.readouterr()
    mine = table.job(config(), "density 100%", 0).result
    whole = mine.read_bytes()
    mine.write_bytes(table.job(config(), "frozen, 5%", 0).result.read_bytes())
    assert "is of row 'frozen, 5%', not 'density 100%'" in shown(config, capsys, code=1)[1][0]
    mine.write_bytes(table.job(config(), "density 100%", 1).result.read_bytes())
    assert "0.json' is of seed 1, not 0" in shown(config, capsys, code=1)[1][0]
    mine.write_bytes(whole)
    module, options = table.ROWS["frozen, 5%"]
    changed = {"frozen, 5%": (module, f"{options} --gain 9")}
    monkeypatch.setattr(table, "ROWS", table.ROWS | changed)
    rows, said = shown(config, capsys, code=1)
    assert rows == {"density 100%": 2}
    assert len(said) == 2
    assert all("is of options '--dataset mnist --freeze-hidden', not" in line for line in said)


@pytest.mark.parametrize("harm", [lambda f: f.unlink(), lambda f: f.write_text("{}")])
def test_a_run_that_leaves_no_whole_metrics_has_failed(runs, config, capsys, monkeypatch, harm):
    def run(words, **how):
        done = runs(words, **how)
        harm(table.Path(option(words, "--out")) / "metrics.json")
        return done

    monkeypatch.setattr(table._signals, "run", run)
    with pytest.raises(SystemExit):
        table.main(config(seeds=1))
    assert "density 100%, seed 0: failed" in (said := capsys.readouterr().out)
    assert "metrics.json' is not what was written" in said
    assert not list(config().results.rglob("*.json"))


@pytest.mark.parametrize("place", ["results", "runs"])
def test_two_tables_in_one_place_are_refused_and_one_may_look(runs, config, capsys, place):
    table.main(config(seeds=1))
    capsys.readouterr()
    with _lock.held(getattr(config(), place)):
        with pytest.raises(ValueError, match=rf"--{place} '.*' is in use by process \d+ on"):
            table.main(config())
        assert shown(config, capsys)[0] == {"density 100%": 1, "frozen, 5%": 1}
    assert len(runs.commands) == 2


@pytest.mark.parametrize(
    ("part", "cure"),
    [
        ("desity", "did you mean 'density'"),
        ("frozen 5%", "did you mean 'frozen, 5%'"),
        ("xyz", "rows: density 100%, frozen"),
    ],
)
def test_a_name_that_is_in_no_row_is_refused_at_once(runs, config, part, cure, tmp_path):
    message = rf"--only must be part of the name of a row; got '{part}'; {re.escape(cure)}"
    with pytest.raises(ValueError, match=message):
        table.main(config(only=("density", part)))
    assert runs.commands == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [1, 3, 8])
def test_parts_run_each_row_and_seed_once_whatever_else_is_asked(n):
    whole = {(seed, row) for seed in range(3) for row in _ROWS}
    every = {(s, r) for s, r in whole if "--dataset idx" not in _ROWS[r][1]}
    parts = [table.mine(table.Config(part=f"{k + 1}/{n}"), _ROWS) for k in range(n)]
    assert sorted(x for part in parts for x in part) == sorted(every)
    assert max(map(len, parts)) - min(map(len, parts)) <= 3  # one row is left out, with each seed
    few = table.mine(table.Config(part=f"1/{n}", only=("digits",)), table.picked(("digits",)))
    assert {*few} <= {*parts[0]}


@pytest.mark.parametrize("part", ["9/8", "0/8", "3", "1/0", "-1/2", "a/b", "1/2/3", ""])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ValueError, match=f"--part must be K/N .* such as 3/8; got {part!r}"):
        table.Config(part=part)


def test_tasks_share_results_but_not_a_part(tmp_path):
    with _lock.held(_runs.own(tmp_path, "1/2")), _lock.held(_runs.own(tmp_path, "2/2")):
        with pytest.raises(ValueError, match="in use by process"):
            with _lock.held(_runs.own(tmp_path, "2/2")):
                pass
    assert not any(tmp_path.iterdir())
