"""The script for GPUs, with small sizes on a CPU: what fails is a line, all rows are written."""

import json
import sys

import jax.numpy as jnp
import pytest

from benchmarks import gpu


def test_a_case_that_fails_is_a_line_and_the_others_go_on(monkeypatch):
    cases = lambda _: iter([("bad", lambda: 1 / 0), ("good", lambda: {"ms": 2.0})])  # noqa: E731
    monkeypatch.setitem(gpu.PARTS, "layout", (cases, 5))
    bad, good = gpu.rows("layout", True, float("inf"))
    assert bad["failed"] == "ZeroDivisionError: division by zero"
    assert good == {"part": "layout", "case": "good", "ms": 2.0}
    assert [r["failed"] for r in gpu.rows("layout", True, 0.0)] == ["no time left"] * 2


def test_lists_sorted_on_the_device_are_those_by_receiver():
    fan, rows, order = gpu._lists(60, 5)
    w = jnp.arange(300.0).reshape(60, 5)
    assert (rows.matrix(w.reshape(-1)[order]) == fan.matrix(w)).all()


def test_every_row_is_written_as_it_comes_with_its_share_and_the_fastest(monkeypatch, tmp_path):
    said = [
        {"part": "device", "case": "H100"},
        {"part": "ceilings", "case": "float32", "ms": 1.0, "flops": 5e13},
        {"part": "ceilings", "case": "memory", "ms": 1.0, "bytes": 3e12},
        {"part": "workloads", "case": "W1", "ms": 1.0},
        {"part": "unroll", "case": "W1 unroll 1", "ms": 1.0},
        {"part": "unroll", "case": "W1 unroll 8", "ms": 0.5},
        {"part": "layout", "case": "all", "failed": "ended with code 1"},
    ]
    written = []

    def one_by_one(*_):
        for row in said:
            yield dict(row)
            written.append(json.loads((tmp_path / "made" / "x.json").read_text()))

    monkeypatch.setattr(gpu, "measured", one_by_one)
    gpu.main(["--json", str(tmp_path / "made" / "x.json")])
    assert [len(r["rows"]) for r in written] == list(range(7))
    assert written[-1]["device"]["case"] == "H100"
    assert written[-1]["choices"] == {"unroll: W1": "unroll 8"}
    share = written[-1]["rows"][2]["of_flops"]
    assert share == pytest.approx(2 * 3200 * 512 * (784 + 10) / 1e-3 / 5e13)


def test_a_part_runs_in_a_process_of_its_own_and_its_death_is_a_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    c = type("C", (), {"budget": 60.0, "tiny": True})
    assert list(gpu.measured(["layout"], c)) == [
        {"part": "layout", "case": "all", "failed": "ended with code 1"}
    ]
    c.budget = 1.0
    assert next(gpu.measured(["layout"], c))["failed"] == "no time left"


def test_a_part_that_is_none_is_refused():
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--only", "speed"])


@pytest.mark.slow
def test_all_of_it_runs_with_small_sizes(tmp_path):
    out = tmp_path / "x.json"
    gpu.main(["--tiny", "--json", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert not [r for r in rows if "failed" in r]
    assert all(r["agrees"] for r in rows if r["part"] == "agreement")
