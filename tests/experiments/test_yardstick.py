"""The table of all learners: its search, what is run when, and what it shows."""

import json
import re
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from experiments import _folder, _lanes, _learners, _lock, _run, _runs, learn, yardstick
from experiments.yardstick import COLUMNS, Cell

ROWS = ("frozen", "backprop")
# Validation accuracy by rate: the best of the perceptron's is 0.1, of the frozen one's 1.
BEST = {"--freeze-hidden": 1.0, "": 0.1}


def option(words, name):
    return words[words.index(name) + 1]


_DRAWN = yardstick._drawn


class Runs:
    """Stands for `_signals.run`: notes each command, and leaves metrics as a run would."""

    def __init__(self):
        self.commands, self.failing = [], ()

    def __call__(self, words, **how):
        self.commands.append(words)
        out, lr, seed = Path(option(words, "--out")), float(option(words, "--lr")), self.seed(words)
        if out.parts[-3] in self.failing:
            return 2, "", "error: --data-dir must be a folder"
        if lr > 100:
            return 2, "", "error: weights.w1.w must stay finite; got NaN or infinity in epoch 1"
        best = BEST["--freeze-hidden" if "--freeze-hidden" in words else ""]
        val = 0.9 - 0.1 * abs(np.log10(lr / best))
        devices = {n: {"n_pulses": 20.0} for n in ("w1", "w2")} if "--synapse" in words else None
        with _folder.held(_run.Run(out=out, seed=seed, resume=True)) as folder:
            folder.begin()
            metrics = {
                "test_accuracy": 1 - val + 0.01 * (seed % 10), "val_accuracy": [1.0, val],
                "seconds_per_epoch": [9.0, 1.0, 3.0], "weight_updates": 1000,
            }  # fmt: skip
            folder.finish(metrics | ({"devices": devices} if devices else {}), {})
        return 0, "", ""

    @staticmethod
    def seed(words):
        return int(option(words, "--seed"))

    @property
    def places(self):
        """Row, column and what of each command, by the folder that it works in."""
        return ["/".join(option(words, "--out").split("/")[-3:]) for words in self.commands]


@pytest.fixture
def runs(monkeypatch):
    fake = Runs()
    monkeypatch.setattr(_runs._signals, "run", fake)
    monkeypatch.setattr(yardstick.data, "load", lambda *args: None)
    monkeypatch.setattr(yardstick._run, "n_train", lambda *args: None)
    monkeypatch.setattr(_folder, "_git_revision", lambda: None)  # processes cost time
    monkeypatch.setattr(yardstick, "_drawn", lambda figure: b"drawn")
    return fake


@pytest.fixture
def config(tmp_path):
    return partial(
        yardstick.Config, results=tmp_path / "results", runs=tmp_path / "runs", learners=ROWS,
        datasets=("digits",), lr=(0.1, 1.0, 1000.0), seeds=2,
    )  # fmt: skip


def printed(config, capsys):
    """Cells of each row of the table."""
    capsys.readouterr()
    yardstick.main(config)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| ")]
    return {c[0]: c[1:] for c in ([x.strip() for x in li.strip("|").split("|")] for li in lines)}


# --- what is run ---


def test_the_search_of_all_cells_comes_before_one_seed_of_all_before_the_next(runs, config):
    yardstick.main(config())
    columns = [_runs.slug(c) for c in COLUMNS]
    tried = [f"{r}/{c}/search-{lr}" for r in ROWS for c in columns for lr in ("0.1", "1", "1000")]
    seeds = [f"{r}/{c}/seed-{i}" for i in (0, 1) for r in ROWS for c in columns]
    assert runs.places == tried + seeds
    assert all(runs.seed(words) == 1_000_000 for words in runs.commands[: len(tried)])
    assert {option(words, "--epochs") for words in runs.commands[: len(tried)]} == {"2"}
    assert {option(words, "--epochs") for words in runs.commands[len(tried) :]} == {"10"}


def test_each_cell_takes_the_rate_of_its_best_last_validation_and_never_a_lost_one(runs, config):
    yardstick.main(config())  # by the test, or by the first validation, it would be another
    taken = {
        place.split("/")[0]: option(words, "--lr")
        for place, words in zip(runs.places, runs.commands, strict=True)
        if "seed-" in place
    }
    assert taken == {"frozen": "1", "backprop": "0.1"}


def test_what_is_there_is_not_run_again_and_its_folder_is_gone(runs, config):
    yardstick.main(config(seeds=1))
    assert not [p for p in config().runs.rglob("metrics.json")]
    runs.commands.clear()
    yardstick.main(config())
    assert {place.split("/")[-1] for place in runs.places} == {"seed-1"}
    runs.commands.clear()
    yardstick.main(config())
    assert runs.commands == []


@pytest.mark.parametrize("n", [1, 3, 8])
def test_parts_have_each_cell_once_whatever_else_is_asked(n):
    of = lambda k, **more: yardstick.mine(yardstick.Config(part=f"{k}/{n}", **more))  # noqa: E731
    parts = [of(k + 1) for k in range(n)]
    every = [cell for cell in yardstick.cells(yardstick.Config()) if not cell.refused]
    assert sorted(cell for part in parts for cell in part) == sorted(every)
    assert max(map(len, parts)) - min(map(len, parts)) <= 2  # a kind of cell is one of each set
    for few in (dict(datasets=("digits",)), dict(learners=("dfa", "backprop")), dict(lr=(0.1,))):
        for k, part in enumerate(parts):
            asked = {(cell.row, cell.column) for cell in of(k + 1, **few)}
            assert asked <= {(cell.row, cell.column) for cell in part}


def test_tasks_of_an_array_run_nothing_twice_and_together_all(runs, config):
    alone = config(results=config().results / "alone", runs=config().runs / "alone")
    yardstick.main(alone)
    expected, runs.commands = runs.places, []
    for part in ("2/3", "1/3", "3/3"):
        yardstick.main(config(part=part))
    assert sorted(runs.places) == sorted(expected)
    assert len({*runs.places}) == len(runs.places)
    runs.commands = []
    yardstick.main(config())
    assert runs.commands == []


def test_a_task_whose_part_is_running_is_refused_and_others_are_not(runs, config):
    with _lock.held(_runs.own(config().results, "2/3"), "--results"):
        yardstick.main(config(part="1/3"))
        with pytest.raises(ValueError, match="--results .* in use by process"):
            yardstick.main(config(part="2/3"))
    with pytest.raises(ValueError, match="--part must be K/N .* such as 3/8; got '4/3'"):
        config(part="4/3")


def test_a_failing_run_stops_no_other_and_is_tried_again(runs, config, capsys):
    runs.failing = ("frozen",)
    with pytest.raises(SystemExit) as end:
        yardstick.main(config())
    assert end.value.code == 1
    assert "frozen, numbers, search 0.1: failed" in capsys.readouterr().out
    runs.failing, runs.commands = (), []
    yardstick.main(config())
    assert {place.split("/")[0] for place in runs.places} == {"frozen"}


def test_a_damaged_trial_is_named_and_loses_its_cell_alone(runs, config, capsys):
    yardstick.main(config())
    cell = Cell("digits", "backprop", "numbers")
    file = yardstick.search(config(), cell, 0.1).result
    file.write_bytes(file.read_bytes().replace(b"0.9", b"0.8"))
    with pytest.raises(SystemExit) as end:
        yardstick.main(config(show=True))
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert f"left out: '{file}' is not what was written: " in said


def test_together_the_same_runs_are_programs_of_a_search_and_of_all_seeds(
    runs, config, capsys, monkeypatch
):
    asked = []

    def trained(c, sets, lanes, change):
        asked.append((c.freeze_hidden, c.synapse, sets, [*lanes]))
        for rate, seed, of in lanes:
            if rate > 100:
                yield {"lost": "weights must stay finite"}
                continue
            val = 0.9 - 0.1 * abs(np.log10(rate / (1.0 if c.freeze_hidden else 0.1)))
            devices = {"devices": {"w1": {"n_pulses": 40.0}}} if c.synapse != "ideal" else {}
            yield {
                "test_accuracy": 1 - val + 0.01 * (seed % 10) + of, "val_accuracy": [1.0, val],
                "seconds_per_epoch": [9.0, 1.0, 3.0], "weight_updates": 1000,
                "config": {"lr": rate},
            } | devices  # fmt: skip

    monkeypatch.setattr(_lanes, "trained", trained)
    monkeypatch.setattr(yardstick.data, "load", lambda name, folder: name)
    alone = printed(config(), capsys)
    beside = config(results=config().results / "beside", together=True)
    assert printed(beside, capsys) == alone
    searches, seeds = asked[0::2], asked[1::2]
    assert [x[:2] for x in searches] == [x[:2] for x in seeds]
    assert len({x[:2] for x in searches}) == len(searches) == len(ROWS) * len(COLUMNS)
    assert all(x[3] == [(lr, 1_000_000, 0) for lr in (0.1, 1.0, 1000.0)] for x in searches)
    assert all(x[3] == [(1.0 if x[0] else 0.1, seed, 0) for seed in (0, 1)] for x in seeds)
    asked.clear()
    for trial in beside.results.rglob("search-*.json"):  # seeds that are there need it no more
        trial.unlink()
    assert printed(beside, capsys) == alone
    assert asked == []


@pytest.mark.parametrize("row", get_args(yardstick.Row))
@pytest.mark.parametrize("column", COLUMNS)
def test_every_cell_is_a_command_that_is_accepted(row, column, config):
    cell = Cell("digits", row, column)
    words = yardstick.search(config(train_size=100), cell, 0.1).command
    given = learn._run._command.parsed(learn.Config, words[3:], learn)
    c = learn.resolved(given, 100)
    learn.refuse_idle(given, c)
    assert (c.hidden, c.lr, c.optimiser, c.epochs) == ((256, 256), 0.1, "sgd", 2)
    assert (c.inputs, c.augment, c.weight_decay, c.train_size) == ("raw", "none", 0.0, 100)
    assert c.schedule == (None if c.learner in ("wta_broadcast", "surrogate") else "cosine")
    assert c.lr_readout in (None, 0.1)
    assert c.freeze_hidden == row.endswith("frozen")
    assert c.recurrence in (None, "none")


def test_all_learners_but_those_that_do_not_classify_are_rows():
    cells = [Cell("digits", row, "numbers") for row in get_args(yardstick.Row)]
    assert {c.learner[0] for c in cells} == {*get_args(_learners.Name)} - {"ska"}


# --- what is shown ---


def test_the_table_shows_means_over_seeds_updates_pulses_and_seconds(
    runs, config, capsys, monkeypatch
):
    monkeypatch.setattr(yardstick, "_drawn", _DRAWN)
    rows = printed(config(seeds=3, lr=(0.01, 0.1, 1.0)), capsys)
    assert [*rows] == ["learner", "frozen hidden layers", "backprop"]
    # 10% + 0, 1 and 2; the median of 9, 1 and 3 seconds; a thousand updates or forty pulses
    assert rows["backprop"] == [
        "11.00 ± 1.00", "1e+03", "3.0", "0.1", *(2 * ["11.00 ± 1.00", "40", "3.0", "0.1"]),
    ]  # fmt: skip
    assert rows["learner"][:3] == ["numbers: accuracy, %", "weight updates", "s an epoch"]
    written = (config().results / "yardstick.md").read_text()
    assert "| backprop | 11.00 ± 1.00 |" in written
    assert (config().results / "yardstick.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_that_cannot_be_says_why_and_is_not_run(runs, config, capsys, monkeypatch):
    bare = _learners.RECIPES["backprop"]._replace(numbers_only="batch statistics")
    monkeypatch.setitem(_learners.RECIPES, "backprop", bare)
    rows = printed(config(seeds=1), capsys)
    assert rows["backprop"][0] == "10.00"
    assert [rows["backprop"][i] for i in (4, 8)] == 2 * ["batch statistics"]
    assert {place.split("/")[1] for place in runs.places} == {"numbers"}


def test_a_rate_at_an_end_of_the_search_is_marked(runs, config, capsys):
    rows = printed(config(seeds=1, lr=(0.01, 0.1, 1.0)), capsys)
    assert (rows["backprop"][3], rows["frozen hidden layers"][3]) == ("0.1", "1, an end")


def test_of_one_table_with_other_options_nothing_is_shown_as_this_ones(runs, config, capsys):
    yardstick.main(config(seeds=1))
    with pytest.raises(SystemExit):
        yardstick.main(config(seeds=1, epochs=3))
    assert "seed-0.json' is of options '" in (said := capsys.readouterr().out)
    assert "not run" in said


# --- refusals ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "--fashion-dir must name the folder of the Fashion-MNIST files; got none; pass it"),
        ("--datasets digits --data-dir .", "--data-dir . needs --datasets mnist; got"),
        ("--datasets digits --lr", "--lr must name at least one; got none"),
        ("--datasets digits --lr 1 1", "--lr must name each once; got 1 1"),
        ("--datasets digits --lr 0", "--lr must be in (0, inf); got 0.0"),
        ("--datasets digits --learners dfaa", "--learners must be {frozen,backprop,"),
        ("--datasets digits --seeds 0", "--seeds must be a whole number >= 1; got 0"),
        ("--datasets digits --train-size 9999", "--train-size must be at most 1150, all that"),
        ("--datasets mnist --data-dir /no/where", "--data-dir must be an existing folder; got"),
    ],
)
def test_refusals(argv, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)
    where = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    if not argv:
        monkeypatch.setattr(yardstick.data, "load", lambda *args: None)
        monkeypatch.setattr(yardstick._run, "n_train", lambda *args: None)
    with pytest.raises(SystemExit) as end:
        _run.main(yardstick.Config, yardstick.main, [*argv.split(), *where])
    assert end.value.code == 2
    assert re.sub(r"\s+", " ", capsys.readouterr().err).startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_small_table_of_the_digits_from_end_to_end(tmp_path, capsys):
    config = yardstick.Config(
        datasets=("digits",), learners=("backprop",), hidden=(16,), epochs=3, search_epochs=1,
        lr=(1e-4, 1.0), seeds=1, train_size=320, results=tmp_path / "results",
        runs=tmp_path / "runs",
    )  # fmt: skip
    yardstick.main(config)
    chosen = {cell.column: yardstick.chosen(config, cell, []) for cell in yardstick.cells(config)}
    assert chosen == dict.fromkeys(COLUMNS, 1.0)
    for cell in yardstick.cells(config):
        seen = json.loads(yardstick.final(config, cell, 1.0, 0).result.read_text())
        assert seen["test_accuracy"] > 0.3  # of ten classes
        assert ("devices" in seen) == (cell.column != "numbers")
    assert not list((tmp_path / "runs").rglob("*.json"))
