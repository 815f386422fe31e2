"""Runs by several processes: equal to one, and a clear line where one of them is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import _join, learn, networks
from experiments._networks import izhikevich, potjans, runs
from neurojax import sharding

LEARN = "learn --learner dfa --dataset digits --hidden 16 --batch-size 32 --train-size 320 --seed 3"
NETWORK = "networks cuba --scale 0.05 --seconds 0.3 --seeds 2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(num_processes=2), "--num-processes needs --coordinator HOST:PORT; got 2 and none"),
        (dict(coordinator="auto", process_id=0), "--process-id needs --coordinator HOST:PORT"),
        (
            dict(coordinator="here:1"),
            "--num-processes must be given beside --coordinator; got none",
        ),
        (dict(coordinator="here:1", num_processes=2), "--process-id must be given beside"),
        (dict(coordinator="here", num_processes=2, process_id=0), "--coordinator must be HOST:POR"),
        (dict(coordinator="a:99999", num_processes=2, process_id=0), "must be HOST:PORT, or auto"),
        (dict(coordinator="a:1", num_processes=2, process_id=2), "--process-id must be .* <= 1; g"),
        (dict(coordinator="a:1", num_processes=0, process_id=0), "--num-processes must be .*>= 1"),
        (dict(coordinator="auto", processors=2), "--processors must be left out beside --coordi"),
        (dict(processors=0), "--processors must be a whole number >= 1; got 0"),
    ],
)
def test_who_is_who_must_be_said_as_a_whole(given, said):
    with pytest.raises(ValueError, match=said):
        learn.Config(**given)
    if "processors" not in given:
        with pytest.raises(ValueError, match=said):
            networks.Config(**given)


@pytest.mark.parametrize("name", ["song", "izhikevich-patterns"])
def test_one_neuron_is_divided_over_no_processes(name):
    said = f"--coordinator must be left out, as {name} has no neurons to divide; got auto"
    with pytest.raises(ValueError, match=said):
        networks.Config(name=name, coordinator="auto")


def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def none_is_left():
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def started(out: Path, more: str, before: str = "0", what: str = LEARN) -> subprocess.Popen:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
    program, *words = f"{what} --out {out} {more}".split()
    module = "import sys, runpy; sys.argv[1:] = {words!r}; from experiments import _join; {before}"
    module += "; runpy.run_module('experiments.{program}', run_name='__main__', alter_sys=True)"
    STARTED.append(
        subprocess.Popen(
            [sys.executable, "-c", module.format(words=words, before=before, program=program)],
            env=env,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    )
    return STARTED[-1]


def pair(out: Path, more: str = "", second: str = "0", what: str = LEARN) -> list[subprocess.Popen]:
    """Two that work as one; what the second does before."""
    where = f"--coordinator localhost:{port()} --num-processes 2"
    return [
        started(out / str(i), f"{where} --process-id {i} {more}", before, what)
        for i, before in enumerate(("0", second))
    ]


def ended(process: subprocess.Popen) -> tuple[int, str]:
    said = process.communicate(timeout=180)
    return process.returncode, "".join(said)


def kept(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def alike(one: dict, other: dict) -> bool:
    names = "test_accuracy", "val_accuracy", "train_accuracy", "weight_updates"
    return all(np.array_equal(one[n], other[n]) for n in names)


@pytest.mark.slow
def test_two_processes_learn_what_one_does_and_go_on_when_one_was_killed(tmp_path):
    code, said = ended(started(tmp_path / "alone", "--epochs 6"))
    assert code == 0, said
    both = pair(tmp_path, "--epochs 6")
    for process in both:
        code, said = ended(process)
        assert code == 0, said
    assert alike(kept(tmp_path / "0"), kept(tmp_path / "alone"))
    assert not (tmp_path / "1").exists()  # the first process alone writes


LATE = (
    "import time, jax; leave = jax.distributed.shutdown;"
    "jax.distributed.shutdown = lambda: (time.sleep(3), leave())"
)


@pytest.mark.slow
def test_the_first_process_waits_for_one_that_leaves_late(tmp_path):
    for process in pair(tmp_path, "--epochs 1", second=LATE):
        code, said = ended(process)
        assert code == 0, said


def left_alone(both: list[subprocess.Popen], lost: int, there: Callable[[], bool]) -> str:
    """What the other says when one is killed, once something is saved."""
    until = time.monotonic() + 180
    while not there():
        assert time.monotonic() < until
        assert all(x.poll() is None for x in both)
        time.sleep(0.02)
    both[lost].send_signal(signal.SIGKILL)
    code, said = ended(both[1 - lost])
    ended(both[lost])
    assert code == 2, said
    assert "error: another process of this run has ended or cannot be reached; the same c" in said
    assert "Traceback" not in said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_killed_ends_the_other_in_a_line_and_both_go_on(lost, tmp_path):
    long = "--epochs 40"
    saved = tmp_path / "0/checkpoints"
    there = lambda: saved.is_dir() and any(x.name.isdigit() for x in saved.iterdir())  # noqa: E731
    said = left_alone(pair(tmp_path, long), lost, there)
    assert "Check failure stack trace" not in said
    on = pair(tmp_path, "--epochs 40 --resume")
    time.sleep(0.1)
    for process in on:
        code, said = ended(process)
        assert code == 0, said
    assert len(kept(tmp_path / "0")["val_accuracy"]) == 40


@pytest.mark.slow
@pytest.mark.parametrize("i", [0, 1])
def test_others_that_do_not_come_are_waited_for_no_longer_than_is_said(i, tmp_path):
    where = f"--coordinator localhost:{port()} --num-processes 2 --process-id {i}"
    code, said = ended(started(tmp_path, where, before="_join.PATIENCE = 3.0"))
    assert code == 2
    assert re.search(
        r"error: --coordinator localhost:\d+ must answer within 3 s, .*; not all", said
    )
    assert "Check failure" not in said


@pytest.mark.slow
def test_processes_with_other_options_are_refused(tmp_path):
    where = f"--coordinator localhost:{port()} --num-processes 2"
    both = [started(tmp_path / str(i), f"{where} --process-id {i} --lr 0.0{i + 1}") for i in (0, 1)]
    for process in both:
        code, said = ended(process)
        assert code == 2
        assert "error: " in said
        assert "Traceback" not in said
    assert not (tmp_path / "0/metrics.json").exists()


@pytest.mark.slow
def test_a_network_that_devices_do_not_divide_is_filled_up_and_fires_the_same():
    key, mesh, n = jax.random.key(0), sharding.mesh(neuron=8), potjans.scaled(0.021).sum()
    run = partial(runs.watched, layer="cells", seconds=0.05, dt=potjans.DT, key=key)
    alone = run(potjans.potjans(key, 0.021))
    longer = run(potjans.potjans(key, 0.021, 8), mesh=mesh)
    assert (alone.n, longer.n) == (n, n + -n % 8) == (1620, 1624)
    assert alone.times.size > 50
    assert (longer.neurons >= n).any()  # those that nobody hears fire as well
    kept = longer.of(slice(n))
    np.testing.assert_array_equal(kept.times, alone.times)
    np.testing.assert_array_equal(kept.neurons, alone.neurons)


def test_a_network_that_cannot_be_divided_is_refused_with_its_cure():
    made, key = izhikevich.network(jax.random.key(0), 0.01), jax.random.key(1)
    run = partial(runs.watched, made, "cells", seconds=0.01, dt=1.0, key=key)
    said = "--num-processes must divide the 10 neurons of layer 'cells'; got 4 devices in all: pass"
    with pytest.raises(ValueError, match=said):
        run(mesh=sharding.mesh(neuron=4))


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_two_processes_simulate_what_one_does_and_go_on_when_one_was_killed(lost, tmp_path):
    first = tmp_path / "0/parts/seed-0.json"
    left_alone(pair(tmp_path, what=NETWORK), lost, first.exists)
    assert not (tmp_path / "0/metrics.json").exists()
    kept_part = first.read_bytes()
    codes, said = zip(*map(ended, pair(tmp_path, "--resume", what=NETWORK)), strict=True)
    assert codes in ((0, 0), (1, 1)), said  # 1: so few neurons do not agree with the reference
    assert first.read_bytes() == kept_part
    assert not (tmp_path / "1").exists()
    ended(started(tmp_path / "alone", "", what=NETWORK))
    theirs, ours = (kept(tmp_path / name) for name in ("0", "alone"))
    for one, other in zip(theirs["found"], ours["found"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
        assert one["raster"]["times"]


@pytest.mark.slow
def test_a_process_that_the_runtime_aborts_says_why_in_its_last_line():
    lines = "import ctypes, os; from experiments import _join; ctypes.CDLL(None).signal(6, "
    lines += "_join._aborted); os.abort()"
    gone = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=False
    )
    assert (gone.returncode, gone.stderr) == (2, f"error: {_join.LOST}\n")
