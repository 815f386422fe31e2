"""The folder of a run: another run's results are refused, a run goes on, results are whole."""

import importlib.metadata
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import _folder, _run, _signals


@dataclass(frozen=True)
class Config(_run.Data, _run.Run):
    """Options of a make-believe experiment."""

    out: Path = Path("out")
    learning_rate: float = 0.1
    hidden: tuple[int, ...] = (3, 4)


def state(value=0.0):
    return {"w": jnp.full((2, 3), float(value)), "step": jnp.asarray(0)}


def begun(out, epochs=2, **options):
    """A run that was interrupted after some epochs, the last of them leaving w = epochs."""
    folder = _folder.Folder(Config(out=out, **options))
    _, now, history = folder.start(state())
    for epoch in range(1, epochs + 1):
        history = history.grown(0.25 * epoch, 0.125 * epoch, 2.0 * epoch, 9)
        folder.save(epoch, state(epoch), history)
    return folder


def finished(out, **options):
    folder = begun(out, **options)
    names = ("learning_curve", "raster", "weights")
    return folder.finish({"test_accuracy": 0.9}, {name: Figure() for name in names})


def content(folder):
    """Every file below a folder, byte by byte."""
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_a_run_goes_on_from_its_last_epoch(tmp_path):
    begun(tmp_path, epochs=2)
    epoch, now, history = _folder.Folder(Config(out=tmp_path, resume=True)).start(state())
    assert epoch == 2
    np.testing.assert_array_equal(now["w"], np.full((2, 3), 2.0))
    assert history == _folder.History((0.25, 0.5), (0.125, 0.25), (2.0, 4.0), (9, 9))


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    begun(tmp_path, epochs=0)
    (tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir(parents=True)
    epoch, now, history = _folder.Folder(Config(out=tmp_path, resume=True)).start(state(7.0))
    assert (epoch, history) == (0, _folder.History())
    np.testing.assert_array_equal(now["w"], state(7.0)["w"])


def test_nothing_is_touched_before_the_start(tmp_path):
    finished(tmp_path)
    before = content(tmp_path)
    _folder.Folder(Config(out=tmp_path, overwrite=True))
    _folder.Folder(Config(out=tmp_path, resume=True))
    assert content(tmp_path) == before


def test_overwriting_takes_away_what_the_other_run_left_and_nothing_else(tmp_path):
    finished(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    config = Config(out=tmp_path, overwrite=True, seed=9)
    assert _folder.Folder(config).start(state())[0] == 0
    assert sorted(p.name for p in content(tmp_path)) == ["notes.txt", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 9


def test_with_resume_nothing_is_overwritten(tmp_path):
    begun(tmp_path, epochs=3)
    config = Config(out=tmp_path, resume=True, overwrite=True)
    assert _folder.Folder(config).start(state())[0] == 3


@pytest.mark.parametrize("make", [begun, finished])
def test_results_of_another_run_are_refused(tmp_path, make):
    make(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"--out .* holds .* another run .*--resume .*--overwrite"):
        _folder.Folder(Config(out=tmp_path))
    assert content(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_resume_needs_something_to_resume(tmp_path, there):
    out = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match="--resume needs a run .* --out; '.*' holds none"):
        _folder.Folder(Config(out=out, resume=True))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(seed=1), "was made with --seed 0; got 1"),
        (dict(learning_rate=0.2), "was made with --learning-rate 0.1; got 0.2"),
        (dict(hidden=(3,)), r"was made with --hidden \[3, 4\]; got \[3\]"),
    ],
)
def test_resume_names_the_option_that_differs(tmp_path, options, message):
    begun(tmp_path)
    with pytest.raises(ValueError, match=f"--resume: the run in .* {message}"):
        _folder.Folder(Config(out=tmp_path, resume=True, **options))


def test_what_may_grow_does_and_the_run_is_not_complete_any_more(tmp_path):
    finished(tmp_path, seed=3)
    longer = _folder.Folder(Config(out=tmp_path, resume=True, seed=4), may_grow=("seed",))
    assert (tmp_path / "metrics.json").exists()
    assert longer.start(state())[0] == 2
    assert not (tmp_path / "metrics.json").exists()
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 4
    with pytest.raises(ValueError, match="made with --seed 4, which may only grow; got 3"):
        _folder.Folder(Config(out=tmp_path, resume=True, seed=3), may_grow=("seed",))
    with pytest.raises(ValueError, match="made with --learning-rate 0.1; got 0.2"):
        _folder.Folder(Config(out=tmp_path, resume=True, seed=4, learning_rate=0.2), ("seed",))


def test_without_growth_a_complete_run_stays_as_it_is(tmp_path):
    finished(tmp_path, seed=3)
    before = content(tmp_path)
    again = _folder.Folder(Config(out=tmp_path, resume=True, seed=3), may_grow=("seed",))
    assert again.start(state())[0] == 2
    assert content(tmp_path) == before


def test_resume_refuses_an_experiment_with_other_options(tmp_path):
    begun(tmp_path)
    kept = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(kept | {"slope": 5.0}))
    with pytest.raises(ValueError, match="was made with --slope 5.0; got None"):
        _folder.Folder(Config(out=tmp_path, resume=True))


def test_a_run_may_move_with_its_data(tmp_path):
    begun(tmp_path / "a", data_dir=Path("here"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = Config(out=tmp_path / "b", data_dir=Path("there"), resume=True)
    assert _folder.Folder(moved).start(state())[0] == 2


@pytest.mark.parametrize("below", [".", "a/b"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"--out must be a folder that can be written; got '.*' \("
    ):
        _folder.Folder(Config(out=tmp_path / "file" / below))


def test_the_metrics_come_last_and_say_where_they_come_from(tmp_path):
    metrics = finished(tmp_path, seed=3)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["test_accuracy"] == 0.9
    assert metrics["seed"] == 3
    assert metrics["config"]["hidden"] == [3, 4]
    assert metrics["processor"] == _folder.processor() != ""
    for package in ("neurojax", "jax", "jaxlib", "equinox", "optax", "flax", "numpy"):
        assert metrics["versions"][package] == importlib.metadata.version(package)
    written = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()}
    assert max(written, key=lambda name: written[name]) == "metrics.json"


def test_a_run_whose_figures_fail_has_no_metrics(tmp_path):
    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise OSError(28, "No space left on device")

    folder = begun(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        folder.finish({}, {"learning_curve": Figure(), "raster": Broken()})
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
    assert _folder.Folder(Config(out=tmp_path, resume=True)).start(state())[0] == 1
