"""Every file of a run damaged, full disks, two processes in one place: nothing lost or mixed.

Minutes. A run goes on to the very end that it would have had, or ends in one line that names the
file; with that file taken away, or room made, it goes on to that end.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments import _run, electronic_synapse, networks, wta_broadcast

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs_kept")]

NETWORK = (
    "--epochs 4 --hidden 24 20 --radius 4 --n-steps 8 --start 2 --train-size 320 --batch-size 32"
    " --readout-density 0.2 --readout-population 3"
)
STUDY = (
    "--dataset digits --train-size 256 --epochs 1 --batch-size 16 --hidden 8 --responses linear"
    " --policies bidirectional --n-states 16 --dynamic-range 10 --sigma-d2d 0 --lr 0.2"
    " --seeds 1 --width 1"
)

OF_THE_FIELD = "song --seconds 1 --seeds 3"
RUNS = [(wta_broadcast, NETWORK), (electronic_synapse, STUDY), (networks, OF_THE_FIELD)]


class End(NamedTuple):
    code: int
    said: str  # on stderr


def run(experiment, options, out, capsys, *more) -> End:
    """A command, to its end."""
    capsys.readouterr()
    jax.clear_caches()  # hundreds of runs in one process would use up what it may map
    try:
        _run.main(experiment.Config, experiment.run, [*options.split(), "--out", str(out), *more])
    except SystemExit as end:
        return End(int(end.code or 0), capsys.readouterr().err)
    return End(0, capsys.readouterr().err)


def results(out):
    """What a run has found: its metrics but for time and place, and its figures."""
    metrics = json.loads((out / "metrics.json").read_text())
    left_out = ("config", "git_revision", "seconds")
    kept = {k: v for k, v in metrics.items() if not k.startswith(left_out)}
    for name in ("trainings", "table", "networks", "found"):
        for row in kept.get(name, ()):
            row.pop("seconds", None)
    return kept, {p.name: p.read_bytes() for p in sorted(out.glob("*.png"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One finished run of each experiment."""
    out = tmp_path_factory.mktemp("whole")
    for experiment, options in RUNS:
        name = experiment.__name__.split(".")[1]
        words = [*options.split(), "--out", str(out / name)]
        _run.main(experiment.Config, experiment.run, words)
    return out


def harms(content, random, is_text):
    """A few of what may be found in place of a file; None: nothing, "folder": a folder."""
    found = [*_harms(content, random, is_text)]
    return [found[0], *(found[i] for i in random.choice(len(found) - 1, 2, replace=False) + 1)]


def _harms(content, random, is_text):
    for at in random.integers(len(content), size=3):
        bad = bytearray(content)
        bad[at] ^= 1 << random.integers(8)
        yield bytes(bad)
    yield content[: random.integers(len(content))]
    yield b""
    yield None
    yield "folder"
    if is_text:
        yield from (x.encode() for x in ("[]", "{}", "1", '"a"', "null", "true", "[" * 100_000))


def put(file, harm):
    file.unlink()
    if harm == "folder":
        file.mkdir()
    elif harm is not None:
        file.write_bytes(harm)


def take_away(file):
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)


@pytest.mark.parametrize(("experiment", "options"), RUNS)
def test_whatever_befalls_a_file_the_run_comes_to_its_end_or_names_it(
    experiment, options, whole, tmp_path, capsys
):
    reference, random = whole / experiment.__name__.split(".")[1], np.random.default_rng(0)
    expected, out, counts = results(reference), tmp_path / "run", {"same end": 0, "named": 0}
    for file in sorted(p for p in reference.rglob("*") if p.is_file()):
        name = file.relative_to(reference)
        for harm in harms(file.read_bytes(), random, file.suffix == ".json"):
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(reference, out)
            put(out / name, harm)
            code, said = run(experiment, options, out, capsys, "--resume")
            assert said.count("\n") <= 1, said
            if code:
                counts["named"] += 1
                assert code == 2
                assert f"'{out / name}'" in said
                take_away(out / name)
                assert run(experiment, options, out, capsys, "--resume") == (0, "")
            else:
                counts["same end"] += 1
            assert results(out) == expected, (name, harm)
    with capsys.disabled():
        sys.stdout.write(f"\n{experiment.__name__}: {counts}\n")
    assert min(counts.values()) > 2  # both are met: a checkpoint before is most often there


def test_two_files_damaged_at_once_lose_no_more_than_said(whole, tmp_path, capsys):
    """Both checkpoints: nothing is left to go on from, which is said; --overwrite begins anew."""
    reference, out = whole / "wta_broadcast", tmp_path / "run"
    shutil.copytree(reference, out)
    for step in (3, 4):
        (out / "checkpoints" / str(step) / "checkpoint.json").write_text("{}")
    code, said = run(wta_broadcast, NETWORK, out, capsys, "--resume")
    assert code == 2
    assert re.search(r"no checkpoint in '.*' is whole: step 4 \(.*\), step 3 \(", said)
    assert run(wta_broadcast, NETWORK, out, capsys, "--overwrite") == (0, "")
    assert results(out) == results(reference)


# --- full disks ---


@pytest.fixture
def disk(tmp_path):
    """A file system that can be given a size, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(size, how="remount,"):
        words = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}", "tmpfs", str(place)]
        return subprocess.run(words, capture_output=True).returncode

    if os.name != "posix" or shutil.which("mount") is None or sized("1m", how=""):
        pytest.skip("no file system can be mounted here")
    yield place, sized
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", ["4k", "8k", "16k", "64k", "128k", "200k", "300k", "400k", "500k"])
def test_a_disk_that_is_full_is_one_line_and_with_room_the_run_goes_on(size, whole, disk, capsys):
    place, sized = disk
    assert sized(size) == 0
    code, said = run(wta_broadcast, NETWORK, place / "run", capsys)
    assert (code, said.count("\n")) == (2, 1), said
    assert str(place / "run") in said
    assert "No space left on device" in said
    assert sized("64m") == 0
    assert run(wta_broadcast, NETWORK, place / "run", capsys, "--resume") == (0, "")
    assert results(place / "run") == results(whole / "wta_broadcast")


# --- two processes ---


def started(module, *words):
    here = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(here)}
    command = [sys.executable, "-u", "-m", f"experiments.{module}", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=here)


@pytest.mark.parametrize("how", [[], ["--resume"], ["--overwrite"]])
def test_a_second_run_on_one_folder_is_refused_and_the_first_comes_to_its_end(how, whole, tmp_path):
    words = [*NETWORK.replace("--epochs 4", "--epochs 60").split(), "--out", str(tmp_path / "run")]
    with started("wta_broadcast", *words) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("epoch   1/60"):
                break
        with started("wta_broadcast", *words, *how) as second:
            out, said = second.communicate(timeout=120)
        assert (second.returncode, out) == (2, "")
        assert re.fullmatch(
            f"error: --out '.*' is in use by process {first.pid} on .*, since .*: .*\n", said
        )
        first.stdout.read()
        assert first.stderr is not None
        assert first.stderr.read() == ""
    assert first.returncode == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["val_accuracy"]) == 60
    assert not (tmp_path / "run" / ".lock").exists()


def test_two_tables_side_by_side_run_nothing_twice(tmp_path):
    words = ["--only", "digits, frozen", "--seeds", "1", "--results", str(tmp_path / "results"),
             "--runs", str(tmp_path / "runs")]  # fmt: skip
    with started("table", *words) as first, started("table", *words) as second:
        ends = [(p, *p.communicate(timeout=300)) for p in (first, second)]
    (winner, shown, _), (loser, out, said) = sorted(ends, key=lambda end: end[0].returncode)
    assert (winner.returncode, loser.returncode) == (0, 2)
    assert "| digits, frozen |" in shown
    assert out == ""
    assert re.fullmatch(f"error: --results '.*' is in use by process {winner.pid} on .*\n", said)
