"""What surrounds every experiment: refusals in one line, results that are whole, a fair pace."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _run
from neurojax.learning import _progress
from neurojax.learning._progress import Progress


@dataclass(frozen=True)
class Config(_run.Data, _run.Run):
    """Options of a make-believe experiment."""

    out: Path = Path("out")
    learning_rate: float = 0.1
    hidden: tuple[int, ...] = (3, 4)

    def __post_init__(self):
        _run.require_within("--learning-rate", self.learning_rate, "(0, 1]")


# --- the command line ---


def stopped(capsys, run, *argv):
    """Exit code and stderr of an experiment that does not come to its end."""
    with pytest.raises(SystemExit) as end:
        _run.main(Config, run, list(argv))
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("data_dir must be\n  a folder; got 3"), "--data-dir must be a folder; got 3"),
        (ValueError("hidden layers must fit; got [/3]"), "hidden layers must fit; got [/3]"),
        (ValueError("x: magic number must be 1; got 2"), "x: magic number must be 1; got 2"),
        (FileNotFoundError("data_dir must be there"), "--data-dir must be there"),
        (
            ValueError("'h1': data_dir must be there; got no; pass another seed or Out('x')"),
            "'h1': --data-dir must be there; got no; pass another --seed or --out x",
        ),
        (OSError(13, "Permission denied", "x"), "cannot use 'x': Permission denied"),
        (
            OSError(28, "No space left on device"),
            "No space left on device; make room, and the same command with --resume goes on",
        ),
    ],
)
def test_a_refusal_is_one_line_that_names_the_option(error, line, capsys):
    def run(config):
        raise error

    assert stopped(capsys, run) == (2, f"error: {line}\n")


def test_what_the_options_refuse_is_one_line_too(capsys):
    code, said = stopped(capsys, lambda config: {}, "--learning-rate", "1.5")
    assert (code, said) == (2, "error: --learning-rate must be in (0, 1]; got 1.5\n")


def test_what_cannot_be_parsed_is_one_line_too(capsys):
    code, said = stopped(capsys, lambda config: {}, "--hidden", "3", "x")
    assert (code, said) == (2, "error: --hidden must be INT ...; got '3 x'\n")


@pytest.mark.parametrize("error", [TypeError, RuntimeError, KeyError, AttributeError])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    def run(config):
        raise error("bug")

    with pytest.raises(error, match="bug"):
        _run.main(Config, run, [])


@pytest.mark.parametrize(
    ("value", "interval", "fits"),
    [
        (0.0, "(0, 1]", False), (1e-30, "(0, 1]", True), (1.0, "(0, 1]", True),
        (1.0000001, "(0, 1]", False), (0.0, "[0, 1)", True), (1.0, "[0, 1)", False),
        (-0.1, "[0, inf)", False), (1e38, "[0, inf)", True), (np.inf, "[0, inf)", False),
        (np.nan, "[0, inf)", False), (np.nan, "[0, 1]", False), (None, "(0, 1]", True),
    ],
)  # fmt: skip
def test_intervals_are_open_and_closed_as_written(value, interval, fits):
    if fits:
        _run.require_within("--x", value, interval)
    else:
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared whole below
            _run.require_within("--x", value, interval)
        assert str(refused.value) == f"--x must be in {interval}; got {value}"


@pytest.mark.parametrize(
    ("value", "interval", "single"),
    [(1e308, "[0, inf)", "inf"), (1e-300, "(0, 1]", "0"), (1 - 1e-9, "[0, 1)", "1")],
)
def test_intervals_are_those_of_single_precision(value, interval, single):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared whole below
        _run.require_within("--x", value, interval)
    where = f"{single} in single precision"
    assert str(refused.value) == f"--x must be in {interval}; got {value}, {where}"


# --- progress ---


@pytest.mark.parametrize("pace", [1e-6, 3e-3, 0.07, 4.0])
@pytest.mark.parametrize("n_batches", [1, 7, 1000])
def test_stretches_cover_an_epoch_and_last_half_a_second(monkeypatch, pace, n_batches):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: now[0])
    bar, seen = Progress(2, n_batches, 0), []
    for _ in range(2):
        for first, last in bar.stretches():
            seen.append((first, last))
            now[0] += pace * (last - first)
        bar.show(n_batches, {"accuracy": np.full(n_batches, 0.5)})
    batches = [i for first, last in seen for i in range(first, last)]
    assert batches == 2 * list(range(n_batches))
    sizes = [last - first for first, last in seen]
    # Half a second to the nearest batch, or one batch; rounding apart.
    assert max(sizes) * pace <= max(0.5 + pace / 2, pace) + 1e-9
    assert sizes[0] == 1
    first_epoch = sizes[: [last for _, last in seen].index(n_batches)]
    assert all(after <= 4 * before for before, after in itertools.pairwise(first_epoch))


def test_progress_gives_means_over_the_epoch(capsys):
    bar = Progress(2, 5, 0)
    stretches = bar.stretches()
    next(stretches)
    bar.show(2, {"accuracy": [0.5, 0.5, 0, 0, 0], "rate": [0.2, 0, 0, 0, 0]})
    bar.show(3, {"accuracy": [0, 0, 1, 1, 1], "rate": [0, 0, 0.4, 0.4, 0]})
    assert bar.means == pytest.approx({"accuracy": 4 / 5, "rate": 1 / 5})
    bar.finish_epoch(0.875)
    said = capsys.readouterr().out
    assert "1/2" in said
    assert "train  80.00%" in said
    assert "val  87.50%" in said
    assert "spikes 0.200" in said
    next(bar.stretches())
    bar.show(1, {"accuracy": [0.25], "rate": [0.0]})
    assert bar.means["accuracy"] == 0.25  # a new epoch forgets the last


def test_keeping_freed_memory_breaks_nothing():
    _run.keep_freed_memory()
    assert float(jnp.ones(1000).sum()) == 1000
