"""The folder of a run: another run's results are refused, a run goes on, results are whole."""

import errno
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import _folder, _lock, _run, _signals
from neurojax import data
from neurojax._files import digest, sealed, unsealed, write_whole


@dataclass(frozen=True)
class Config(_run.Data, _run.Run):
    """Options of a make-believe experiment."""

    out: Path = Path("out")
    learning_rate: float = 0.1
    hidden: tuple[int, ...] = (3, 4)


def state(value=0.0):
    return {"w": jnp.full((2, 3), float(value)), "step": jnp.asarray(0)}


FRESH = state()


def started(may_grow=(), begin=FRESH, **options):
    """What a run goes on from."""
    with _folder.held(Config(**options), may_grow=may_grow) as folder:
        folder.begin()
        return folder.last(begin)


def refused(may_grow=(), **options):
    """A run that is refused before it begins, and why."""
    with (
        pytest.raises((ValueError, OSError)) as error,
        _folder.held(Config(**options), may_grow=may_grow),
    ):
        pass
    return str(error.value)


def begun(out, epochs=2, finish=lambda folder: None, **options):
    """A run that was interrupted after some epochs, the last of them leaving w = epochs."""
    with _folder.held(Config(out=out, **options)) as folder:
        folder.begin()
        _, now, history = folder.last(state())
        for epoch in range(1, epochs + 1):
            history = history.grown(0.25 * epoch, 0.125 * epoch, 2.0 * epoch, 9)
            folder.save(epoch, state(epoch), history)
        return finish(folder)


def finished(out, **options):
    names = ("learning_curve", "raster", "weights")
    figures = {name: Figure() for name in names}
    return begun(out, finish=lambda f: f.finish({"test_accuracy": 0.9}, figures), **options)


def content(folder):
    """Every file below a folder, byte by byte."""
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_a_run_goes_on_from_its_last_epoch(tmp_path):
    begun(tmp_path, epochs=2)
    epoch, now, history = started(out=tmp_path, resume=True)
    assert epoch == 2
    np.testing.assert_array_equal(now["w"], np.full((2, 3), 2.0))
    assert history == _folder.History((0.25, 0.5), (0.125, 0.25), (2.0, 4.0), (9, 9))


def test_a_history_is_told_in_numbers_and_drawn_in_percent():
    history = _folder.History().grown(0.25, 0.125, 2.0, 9).grown(0.5, 0.75, 3.5, 10)
    assert history.metrics(0.875, n_train=40, n_test=8) == {
        "test_accuracy": 0.875,
        "val_accuracy": [0.25, 0.5],
        "train_accuracy": [0.125, 0.75],
        "epochs_planned": [9, 10],
        "seconds": 5.5,
        "seconds_per_epoch": [2.0, 3.5],
        "n_train": 40,
        "n_test": 8,
    }
    (ax,) = history.curve(0.875).axes
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert [25.0, 50.0] in drawn
    assert [12.5, 75.0] in drawn
    assert any(set(y) == {87.5} for y in drawn)


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    begun(tmp_path, epochs=0)
    (tmp_path / "checkpoints" / ".unfinished-1").mkdir(parents=True)
    epoch, now, history = started(begin=state(7.0), out=tmp_path, resume=True)
    assert (epoch, history) == (0, _folder.History())
    np.testing.assert_array_equal(now["w"], state(7.0)["w"])


def test_nothing_is_touched_before_the_beginning(tmp_path):
    finished(tmp_path)
    before = content(tmp_path)
    for how in ("overwrite", "resume"):
        with _folder.held(Config(out=tmp_path, **{how: True})):
            pass
        with pytest.raises(RuntimeError), _folder.held(Config(out=tmp_path, **{how: True})):
            raise RuntimeError
    assert content(tmp_path) == before


def test_overwriting_takes_away_what_the_other_run_left_and_nothing_else(tmp_path):
    finished(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert started(out=tmp_path, overwrite=True, seed=9)[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [".replaced", "notes.txt", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 9


def test_with_resume_nothing_is_overwritten(tmp_path):
    begun(tmp_path, epochs=3)
    assert started(out=tmp_path, resume=True, overwrite=True)[0] == 3


@pytest.mark.parametrize("make", [begun, finished])
def test_results_of_another_run_are_refused(tmp_path, make):
    make(tmp_path)
    before = content(tmp_path)
    said = refused(out=tmp_path)
    assert re.fullmatch(
        "--out .* holds .* another run .*--resume .*--overwrite to replace it", said
    )
    assert content(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_resume_begins_a_run_where_there_is_none(tmp_path, there, capsys):
    out = tmp_path if there else tmp_path / "no" / "where"
    assert started(out=out, resume=True)[0] == 0
    assert capsys.readouterr().out == f"nothing to go on with in '{out}': the run begins\n"
    assert started(out=out, resume=True)[0] == 0
    assert capsys.readouterr().out == ""
    assert "was made with --seed 0; got --seed 1" in refused(out=out, resume=True, seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(seed=1), "was made with --seed 0; got --seed 1"),
        (dict(learning_rate=0.2), "was made with --learning-rate 0.1; got --learning-rate 0.2"),
        (dict(hidden=(3,)), "was made with --hidden 3 4; got --hidden 3"),
    ],
)
def test_resume_names_the_option_that_differs(tmp_path, options, message):
    begun(tmp_path)
    cure = "pass what it was made with, or another --out"
    assert refused(out=tmp_path, resume=True, **options) == (
        f"--resume: the run in '{tmp_path}' {message}; {cure}"
    )


def test_what_may_grow_does_and_the_run_is_not_complete_any_more(tmp_path):
    finished(tmp_path, seed=3)
    longer = Config(out=tmp_path, resume=True, seed=4)
    with _folder.held(longer, may_grow=("seed",)) as folder:
        assert (tmp_path / "metrics.json").exists()
        folder.begin()
        assert folder.last(state())[0] == 2
    assert not (tmp_path / "metrics.json").exists()
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 4
    shrunk = refused(("seed",), out=tmp_path, resume=True, seed=3)
    assert "the run in" in shrunk
    assert "made with --seed 4, which may only grow; got --seed 3" in shrunk
    other = refused(("seed",), out=tmp_path, resume=True, seed=4, learning_rate=0.2)
    assert "made with --learning-rate 0.1; got --learning-rate 0.2" in other


def test_without_growth_a_complete_run_stays_as_it_is(tmp_path):
    finished(tmp_path, seed=3)
    before = content(tmp_path)
    assert started(("seed",), out=tmp_path, resume=True, seed=3)[0] == 2
    assert content(tmp_path) == before


def test_resume_refuses_an_experiment_with_other_options(tmp_path):
    begun(tmp_path)
    kept = unsealed(tmp_path / "run.json")
    (tmp_path / "run.json").write_text(sealed(kept | {"slope": 5.0}))
    assert "was made with --slope 5; got no --slope" in refused(out=tmp_path, resume=True)


def test_a_run_may_move_with_its_data(tmp_path):
    begun(tmp_path / "a", data_dir=Path("here"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert started(out=tmp_path / "b", data_dir=Path("there"), resume=True)[0] == 2


@pytest.mark.parametrize("below", [".", "a/b"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    said = refused(out=tmp_path / "file" / below)
    assert re.match(r"--out must be a folder that can be written; got '.*' \(", said)


# --- whose it is ---


def test_checkpoints_of_another_run_are_refused_whatever_lies_beside_them(tmp_path):
    begun(tmp_path / "a", seed=0)
    begun(tmp_path / "b", seed=1)
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    shutil.copytree(tmp_path / "b" / "checkpoints", tmp_path / "a" / "checkpoints")
    said = refused(out=tmp_path / "a", resume=True)
    assert said == (
        f"--resume: the checkpoint in '{tmp_path}/a' was made with --seed 1; got --seed 0; it is of"
        " another run: take it away, or pass --overwrite to begin anew"
    )
    (tmp_path / "a" / "run.json").unlink()
    assert refused(out=tmp_path / "a", resume=True) == said
    assert started(out=tmp_path / "a", resume=True, seed=1)[0] == 2


def test_a_checkpoint_that_was_made_by_hand_is_refused(tmp_path):
    begun(tmp_path, epochs=0)
    for about in ({}, {"config": 3}):
        _folder.checkpoint.save(tmp_path / "checkpoints", len(about), state(), about)
        said = refused(out=tmp_path, resume=True)
        assert "the checkpoint in" in said
        assert "does not say what it was made with; it is of another run" in said


def test_a_run_without_its_beginning_goes_on_if_all_that_is_left_is_its_own(tmp_path):
    finished(tmp_path, seed=3)
    (tmp_path / "run.json").unlink()
    assert "was made with --seed 3; got --seed 0" in refused(out=tmp_path, resume=True)
    assert started(out=tmp_path, resume=True, seed=3)[0] == 2
    assert unsealed(tmp_path / "run.json")["seed"] == 3


def with_parts(out, **options):
    """A run without epochs that has finished two parts."""
    with _folder.held(Config(out=out, **options)) as folder:
        folder.begin()
        for name in ("one", "the other"):
            folder.keep(name, [{"name": name, "accuracy": 0.5}])


def test_a_part_comes_back_and_one_that_is_missing_is_none(tmp_path):
    with_parts(tmp_path)
    with _folder.held(Config(out=tmp_path, resume=True)) as folder:
        folder.begin()
        assert folder.part("the other") == [{"name": "the other", "accuracy": 0.5}]
        assert folder.part("third") is None


def test_parts_of_another_run_or_name_are_refused(tmp_path):
    with_parts(tmp_path / "a")
    with_parts(tmp_path / "b", seed=1)
    shutil.copy(tmp_path / "b" / "parts" / "one.json", tmp_path / "a" / "parts" / "one.json")
    said = refused(out=tmp_path / "a", resume=True)
    assert "parts/one.json in" in said
    assert "was made with --seed 1; got --seed 0; it is of another run: take it away" in said
    shutil.copy(tmp_path / "a" / "parts" / "the-other.json", tmp_path / "a" / "parts" / "one.json")
    assert "one.json' holds another part" in refused(out=tmp_path / "a", resume=True)


def pictures(seed):
    images = np.random.default_rng(seed).random((9, 4, 4)).astype(np.float32)
    split = data.Split(images, np.arange(9) % 3)
    return data.Dataset("own", split, split, split, 3)


def test_a_run_does_not_go_on_with_other_pictures(tmp_path):
    config = Config(out=tmp_path, data_dir=Path("a"))
    with _folder.held(config, pictures(0)) as folder:
        folder.begin()
        folder.save(1, state(1), _folder.History())
    moved = Config(out=tmp_path, data_dir=Path("b"), resume=True)
    with _folder.held(moved, pictures(0)) as folder:
        assert folder.last(state())[0] == 1
        folder.finish({}, {})
    one = pictures(0)
    one.train.labels[3] = 2
    for sets in (pictures(1), one):
        for file in (None, "run.json", "metrics.json"):
            if file:
                (tmp_path / file).rename(tmp_path / f"{file}.away")
            with pytest.raises(ValueError, match="--resume: the .* was made with other pictures;"):
                with_pictures(moved, sets)
        for file in ("run.json", "metrics.json"):
            (tmp_path / f"{file}.away").rename(tmp_path / file)


def with_pictures(config, sets):
    with _folder.held(config, sets):
        pass


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path):
    with_parts(tmp_path)
    for place in (tmp_path, tmp_path / "parts"):
        (place / ".run.json.12345.part").write_text("half")
    started(out=tmp_path, resume=True)
    assert not [*tmp_path.rglob("*.part")]


# --- one process ---


def test_a_second_run_is_refused_by_the_name_of_the_first_and_harms_nothing(tmp_path):
    out = tmp_path / "run"
    with _folder.held(Config(out=out)) as folder:
        folder.begin()
        folder.save(1, state(1), _folder.History())
        before = content(out)
        for how in ({}, {"resume": True}, {"overwrite": True}, {"seed": 1}):
            said = refused(out=out, **how)
            first = rf"process {os.getpid()} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d .\d+"
            wait = "wait until it has ended, or pass another --out"
            assert re.fullmatch(f"--out '{out}' is in use by {first}: {wait}", said)
            assert content(out) == before
        folder.save(2, state(2), _folder.History())
    assert started(out=out, resume=True)[0] == 2
    assert not (out / ".lock").exists()


HOLD = """
import sys, time
from pathlib import Path
from experiments import _lock
with _lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert f"in use by process {process.pid} on " in refused(out=tmp_path)
        process.kill()
    assert (tmp_path / ".lock").exists()
    assert started(out=tmp_path)[0] == 0


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_lock_that_leads_elsewhere_is_refused_and_harms_nothing(tmp_path, link):
    precious, out = tmp_path / "precious", tmp_path / "run"
    precious.write_text("all there is")
    out.mkdir()
    getattr(out / ".lock", link)(precious)
    assert (
        refused(out=out) == f"--out '{out}' holds a .lock that is a link or no file: take it away"
    )
    assert precious.read_text() == "all there is"
    (out / ".lock").unlink()
    os.mkfifo(out / ".lock")
    assert "holds a .lock that is a link or no file" in refused(out=out)
    (out / ".lock").unlink()
    assert started(out=out)[0] == 0


def test_what_is_being_written_follows_no_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("all there is")
    (tmp_path / f".run.json.{os.getpid()}.part").symlink_to(precious)
    assert started(out=tmp_path)[0] == 0
    (tmp_path / f".a.{os.getpid()}.part").symlink_to(precious)
    write_whole(tmp_path / "a", "x")
    assert precious.read_text() == "all there is"
    assert (tmp_path / "a").read_text() == "x"


def test_where_files_cannot_be_locked_it_is_said(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock.fcntl, "flock", none)
    assert started(out=tmp_path)[0] == 0
    line = f"warning: '{tmp_path}' cannot be locked (No locks available): start no second run in it"
    assert capsys.readouterr().err == line + "\n"


# --- damaged ---


def test_a_damaged_checkpoint_falls_back_and_says_so_in_one_line(tmp_path, capsys):
    begun(tmp_path, epochs=3)
    next((tmp_path / "checkpoints" / "3").rglob("manifest.ocdbt")).write_bytes(b"")
    assert started(out=tmp_path, resume=True)[0] == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.match(r"warning: damaged checkpoint in .*: step 3 \(.* has changed\); step 2", said)
    (tmp_path / "checkpoints" / "2" / "checkpoint.json").unlink()
    assert "is whole: step 3" in refused(out=tmp_path, resume=True)


BAD = ["", "[]", "{}", "1", '"a"', "null", "true", "[" * 100_000, "\0\xff", '{"digest": 0}']


@pytest.mark.parametrize("name", ["run.json", "parts/one.json"])
def test_a_damaged_file_is_one_line_that_names_it_and_the_cure(tmp_path, name):
    with_parts(tmp_path)
    file = tmp_path / name
    whole = file.read_bytes()
    harmless = 0
    for bad in [*BAD, *flipped(whole)]:
        file.write_bytes(bad if isinstance(bad, bytes) else bad.encode("latin1"))
        try:
            harmless += unsealed(file) == json.loads(whole) | {}
        except ValueError:
            said = refused(out=tmp_path, resume=True)
            assert said.startswith(f"'{file}' is not what was written: it")
            assert said.endswith("; take it away, and --resume goes on without it")
            assert "\n" not in said
    assert harmless < 5  # a blank for another
    file.unlink()
    file.mkdir()
    assert f"'{file}' is not what was written: Is a dir" in refused(out=tmp_path, resume=True)
    file.rmdir()
    os.mkfifo(file)  # nobody will ever write into it
    assert f"'{file}' is not what was written: it is no file" in refused(out=tmp_path, resume=True)
    file.unlink()
    assert started(out=tmp_path, resume=True)[0] == 0  # the cure


def flipped(content):
    """The content with one bit another, at random places."""
    random = np.random.default_rng(0)
    for at in random.integers(len(content), size=40):
        bad = bytearray(content)
        bad[at] ^= 1 << random.integers(8)
        yield bytes(bad)


def test_damaged_metrics_are_refused_by_name(tmp_path):
    finished(tmp_path)
    (tmp_path / "run.json").unlink()  # the end must say whose it is
    file = tmp_path / "metrics.json"
    whole = file.read_bytes()
    for bad in [*(text.encode("latin1") for text in BAD), *flipped(whole)]:
        file.write_bytes(bad)
        said = refused(out=tmp_path, resume=True)
        assert said.startswith(f"'{file}' is not what was written: its digest is not that in SHA")
    file.unlink()
    os.mkfifo(file)
    assert f"'{file}' is not what was written: it is no file" in refused(out=tmp_path, resume=True)
    file.unlink()
    file.write_bytes(whole)
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff")
    assert f"'{file}' is not what was written: " in refused(out=tmp_path, resume=True)
    file.unlink()
    assert started(out=tmp_path, resume=True)[0] == 2


# --- what fails leaves nothing ---


def failing(error, work=lambda folder: None, **options):
    """A run that begins, does its work and comes to this end."""
    with _folder.held(Config(**options)) as folder:
        folder.begin()
        work(folder)
        raise error("no")


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError])
def test_a_run_that_fails_before_its_first_result_leaves_nothing(tmp_path, error):
    for options in ({}, {"resume": True}):
        with pytest.raises(error):
            failing(error, out=tmp_path / "a" / "b", **options)
        assert not (tmp_path / "a").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(error):
        failing(error, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    finished(tmp_path)
    before = content(tmp_path)
    with pytest.raises(error):
        failing(error, out=tmp_path, overwrite=True, seed=1)
    assert content(tmp_path) == before


def test_what_is_overwritten_goes_with_the_first_result_that_replaces_it(tmp_path):
    finished(tmp_path)
    before = content(tmp_path)
    started(out=tmp_path, overwrite=True, seed=1)  # and killed
    started(out=tmp_path, overwrite=True, seed=2)  # and killed
    assert unsealed(tmp_path / "run.json")["seed"] == 2
    with pytest.raises(ValueError, match="no"):
        failing(ValueError, out=tmp_path, overwrite=True, seed=3)
    assert content(tmp_path) == before
    started(out=tmp_path, overwrite=True, seed=1)
    with _folder.held(Config(out=tmp_path, resume=True, seed=1)) as folder:
        folder.begin()
        folder.save(1, state(1), _folder.History())
    assert not (tmp_path / ".replaced").exists()
    assert unsealed(tmp_path / "run.json")["seed"] == 1
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("work", "kept"),
    [
        (lambda folder: folder.save(1, state(1), _folder.History()), (1, None)),
        (lambda folder: folder.keep("one", [{"accuracy": 0.5}]), (0, [{"accuracy": 0.5}])),
    ],
)
def test_a_run_that_fails_after_its_first_result_keeps_it(tmp_path, work, kept):
    with pytest.raises(ValueError, match="no"):
        failing(ValueError, work, out=tmp_path)
    with pytest.raises(ValueError, match="no"):
        failing(ValueError, out=tmp_path, resume=True)
    with _folder.held(Config(out=tmp_path, resume=True)) as folder:
        assert (folder.last(state())[0], folder.part("one")) == kept


# --- full disks ---


@pytest.mark.parametrize("file", ["run.json", "checkpoints", "weights.png", "metrics.json"])
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, monkeypatch, file, capsys):
    begun(tmp_path, epochs=1)
    rename = os.rename

    def full(source, target, **_):
        if Path(target).name == file or file == "checkpoints" and Path(target).name == "2":
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        rename(source, target)

    def run(config):
        with _folder.held(config, may_grow=("seed",)) as folder:
            folder.begin()
            folder.save(2, state(2), _folder.History())
            folder.finish({}, {"weights": Figure()})

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(os, "replace", full)
    options = ["--out", str(tmp_path), "--resume", "--seed", "1"]
    with pytest.raises(SystemExit) as end:
        _run.main(Config, run, options)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"error: cannot write '{tmp_path}/{file}': No space left on device; make room, and the"
        " same command with --resume goes on\n"
    )
    monkeypatch.undo()
    assert started(("seed",), out=tmp_path, resume=True, seed=1)[0] in (1, 2)


# --- results ---


def test_the_metrics_come_last_and_say_where_they_come_from(tmp_path):
    metrics = finished(tmp_path, seed=3)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["test_accuracy"] == 0.9
    assert metrics["seed"] == 3
    assert metrics["config"]["hidden"] == [3, 4]
    assert metrics["processor"] == _folder.processor() != ""
    for package in ("neurojax", "jax", "jaxlib", "equinox", "optax", "flax", "numpy"):
        assert metrics["versions"][package] == importlib.metadata.version(package)
    names = ["learning_curve.png", "raster.png", "weights.png", "metrics.json"]
    sums = [f"{digest((tmp_path / name).read_bytes())}  {name}" for name in names]
    assert (tmp_path / "SHA256SUMS").read_text().splitlines() == sums
    assert _folder.results(tmp_path) == metrics
    written = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()}
    assert max(written, key=lambda name: written[name]) == "metrics.json"


def test_a_run_whose_figures_fail_has_no_metrics(tmp_path):
    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise OSError(28, "No space left on device")

    figures = {"learning_curve": Figure(), "raster": Broken()}
    with pytest.raises(OSError, match="No space left"):
        begun(tmp_path, finish=lambda folder: folder.finish({}, figures))
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_is_the_commit_and_says_if_files_differ(tmp_path, monkeypatch):
    def git(*args):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        words = ["git", "-C", str(tmp_path), *who, *args]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "_folder.py"
    source.write_text("one")
    monkeypatch.setattr(_folder, "__file__", str(source))
    assert _folder.provenance(Config())["git_revision"] is None  # outside a checkout
    git("init", "-q")
    assert _folder.provenance(Config())["git_revision"] is None  # in someone else's
    git("add", "_folder.py")
    git("commit", "-qm", "one")
    assert _folder.provenance(Config())["git_revision"] == git("rev-parse", "HEAD")
    source.write_text("two")
    assert _folder.provenance(Config())["git_revision"] == git("rev-parse", "HEAD") + "+"


def would_wait() -> bool:
    """Whether a signal that comes now ends the process only later."""

    def asked():
        free = _signals._busy.acquire(blocking=False)
        if free:
            _signals._busy.release()
        return not free

    with ThreadPoolExecutor(1) as pool:  # signals are answered in a thread of their own
        return pool.submit(asked).result()


def test_signals_wait_until_a_checkpoint_is_on_disk(tmp_path, monkeypatch):
    save, waits = _folder.checkpoint.save, []
    noted = lambda *a: waits.append(would_wait()) or save(*a)  # noqa: E731
    monkeypatch.setattr(_folder.checkpoint, "save", noted)
    begun(tmp_path, epochs=2)
    assert waits == [True, True]
    assert not would_wait()


def test_threads_save_too(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(begun, tmp_path, epochs=1).result()
    assert started(out=tmp_path, resume=True)[0] == 1
