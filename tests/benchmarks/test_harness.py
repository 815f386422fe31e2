"""The harness of the benchmarks: what it runs, what it writes, and what it does without peers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import benchmarks.__main__ as harness
from benchmarks import balanced, ceilings, scaling, sparse_network, workloads
from benchmarks.systems import floor
from benchmarks.systems import neurojax as ours
from experiments._networks import brette

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_one_workload_is_measured_shown_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "OURS", {"floor": "W1", "neurojax": "W1"})
    monkeypatch.setattr(harness, "PEERS", {"jaxpike": ("nowhere", "W1")})
    out = tmp_path / "made" / "rows.json"
    harness.main(harness.Config(only="W1", peers="jaxpike", repeats=2, json=out))
    report = json.loads(out.read_text())
    by = {row["system"]: row for row in report["rows"]}
    assert set(by) == {"floor", "neurojax"}
    for row in by.values():
        assert row["workload"] == "W1"
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert row["ratio_to_floor"] == row["median_ms"] / by["floor"]["median_ms"]
        assert row["ratio_to_best_peer"] is None
        assert row["first_ms"] > row["median_ms"]
    assert by["neurojax"]["rates"] == pytest.approx([0.0673, 0.1073], abs=1e-3)
    assert report["absent"] == {"W1 jaxpike": "missing: make bench-peers"}
    assert report["versions"]["neurojax"]["jax"] == jax.__version__
    assert report["machine"]["cores"] >= 1


def test_every_workload_has_a_title_and_a_case_of_ours():
    titled = harness.titles()
    assert list(titled) == list(harness.WORKLOADS)
    assert set(harness.OURS["neurojax"].split()) == set(ours.CASES) == {*titled} - {"W9"}
    assert {w for _, has in harness.PEERS.values() for w in has.split()} <= {*titled}


def test_a_worker_that_is_held_to_one_core_has_one():
    code = "import os; from benchmarks import worker; worker.hold_to_one_core(); " + (
        "print(len(os.sched_getaffinity(0)), os.system('exit $(($(nproc) - 1))'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1 0\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "hz"), [("cuba", 5.5), ("coba", 19), ("cobahh", 41)])
def test_a_network_on_one_core_fires_as_it_should(name, hz, monkeypatch):
    monkeypatch.setattr(balanced, "SECONDS", 0.5)
    _, rate = next(balanced.neurojax(name))
    assert rate * 1000 / brette.DT[name] == pytest.approx(hz, rel=0.25)


def test_ratios_are_to_the_floor_and_to_the_fastest_peer():
    took = {"floor": 2.0, "neurojax": 3.0, "spyx": 6.0, "norse": 4.0}
    rows = harness.with_ratios([{"system": s, "median_ms": ms} for s, ms in took.items()])
    assert [r["ratio_to_floor"] for r in rows] == [1.0, 1.5, 3.0, 2.0]
    assert [r["ratio_to_best_peer"] for r in rows] == [0.5, 0.75, 1.5, 1.0]


def test_a_system_that_dies_is_a_line_with_its_reason(monkeypatch):
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)
    said = harness.start("floor", "W5", None)
    assert said == "LookupError: needs MNIST: set NEUROJAX_DATA to the folder of its IDX files"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": "nest"}, "--peers must name some of jaxpike, .*; got 'nest'"),
        ({"peers": ""}, "--peers must name some of jaxpike, .*none alone; got ''"),
        ({"json": Path()}, "--json must be a file; got the folder '.'"),
        ({"repeats": 0}, "--repeats must be >= 1; got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        harness.Config(**options)


def test_a_refusal_is_one_line():
    words = [sys.executable, "-m", "benchmarks", "--only", "W1,W6"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    allowed = ", ".join(harness.WORKLOADS)
    assert done.stderr == f"error: --only must name some of {allowed}; got 'W6'\n"
    assert done.returncode == 2


def test_the_case_does_the_work_it_says():
    net = ours.feedforward()
    x = workloads.spikes(20, 4)
    weights = net.init_weights(jax.random.key(0))
    z = np.asarray(ours.spiking(net, weights, jnp.asarray(x), "out"))
    layers = [
        (workloads.weights(784, 512, workloads.W_IN), np.zeros((4, 512))),
        (workloads.weights(512, 10, workloads.W_OUT), np.zeros((4, 10))),
    ]
    expected = []
    for s in x.astype(float):
        for i, (w, v) in enumerate(layers):
            v = workloads.BETA * (v - workloads.V_TH * (v >= workloads.V_TH)) + s @ w.T
            layers[i], s = (w, v), (v >= workloads.V_TH).astype(float)
        expected.append(s)
    assert z.sum() > 20
    assert np.mean(z != np.array(expected)) < 2e-3  # float32 on the threshold


@pytest.mark.skipif(not shutil.which(os.environ.get("CC", "cc")), reason="needs a C compiler")
def test_the_floor_of_the_sparse_network_is_that_network(monkeypatch):
    monkeypatch.setattr(workloads, "SPARSE", (400, 0.5, 0))
    floors = floor.w4().facts()["rates"][0]
    _, z = next(sparse_network.neurojax(400, 0.5, 0, 400, [0], False))
    assert floors == pytest.approx(z.mean(), rel=0.1)  # chaos parts the spikes, not the rates


def test_what_a_program_costs_to_compile_is_told():
    squared = jax.jit(lambda x: x @ x.T @ x)
    told = ours.compiled(squared, jnp.ones((512, 8)))
    assert told["compile_ms"] > 0
    assert 4 * 512**2 <= 1e6 * told["temp_mb"] < 2 * 4 * 512**2  # x x^T, and little else


def test_exponents_are_those_of_the_points():
    rows = [
        {"workload": "W9 steps", "size": n, "median_ms": 0.5 + n**1.5, "mb": 3.0}
        for n in scaling.AXES["steps"].sizes
    ]
    found = scaling.exponents(rows)["steps"]
    assert found["time"] == pytest.approx(1.5, abs=0.01)
    assert found["memory"] == pytest.approx(0.0, abs=1e-9)
    assert set(scaling.exponents(rows)) == {"steps"}


@pytest.mark.slow
def test_memory_of_a_simulation_is_that_of_its_last_state():
    assert scaling.steps(50)["mb"] == pytest.approx(scaling.steps(500)["mb"], rel=0.05)


def test_a_worker_that_is_killed_is_a_line_too():
    worker = harness.start("floor", "W7", None)
    assert isinstance(worker, harness.Worker)
    worker.turn()
    worker.process.kill()
    worker.process.wait()
    worker.turn()
    worker.stop()
    assert worker.failed
    assert len(worker.ms) == 1


def test_names_are_taken_once_and_without_spaces():
    config = harness.Config(only="W1, W2,W1", peers="none")
    assert (config.workloads, config.chosen) == (["W1", "W2"], [])


def test_work_is_what_xla_counts_in_the_products():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)  # noqa: E731
    flop = lambda f, *args: jax.jit(f).lower(*args).cost_analysis()["flops"]  # noqa: E731

    def learned(x, first, second):
        hidden = x @ first
        out = hidden @ second
        return (out @ second.T).T @ x, out.T @ hidden

    def changed(x, first, loop):
        z = x @ first
        d = z @ loop
        return d.T @ x, d.T @ z

    rows, held = shape(3200, 784), shape(1600, 784)
    forward = lambda x, first, second: x @ first @ second  # noqa: E731
    asked = ceilings.work(0.0)
    assert asked["W1"].flop == flop(forward, rows, shape(784, 512), shape(512, 10))
    assert asked["W2"].flop == flop(learned, rows, shape(784, 512), shape(512, 10))
    assert asked["W3"].flop == flop(forward, rows, shape(784, 1024), shape(1024, 1024))
    assert asked["W7"].flop == flop(changed, held, shape(784, 512), shape(512, 512))


def test_shares_are_of_what_the_machine_can_do():
    rows = [
        {"workload": "W4", "system": "neurojax", "median_ms": 1000.0, "rates": [0.5]},
        {"workload": "W4", "system": "brian2", "median_ms": 500.0, "rates": [0.5]},
        {"workload": "W9 seeds", "system": "neurojax", "median_ms": 1.0},
    ]
    updates, events = 20_000 * 10_000, 0.5 * 2_000_000 * 10_000
    flop, moved = 10 * updates + events, 24 * updates + 16 * events
    (share,) = ceilings.shares(rows, ceilings.Work(2 * flop, 4 * moved))
    assert (share["workload"], share["of_arithmetic"], share["of_memory"]) == ("W4", 0.5, 0.25)
    assert share["gflops"] == flop / 1e9


def test_shares_of_another_file_are_refused_in_one_line():
    words = [sys.executable, "-m", "benchmarks.ceilings", "pyproject.toml"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "error: FILE must be what --json has written; got 'pyproject.toml'\n"
    assert done.returncode == 2
