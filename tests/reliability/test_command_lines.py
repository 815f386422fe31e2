"""Command lines of every experiment are accepted or refused in one line, whatever is typed."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from experiments import _options, _run
from experiments import wta_broadcast as wta
from tests.reliability import commands


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def faults(seed, number, out):
    lines = commands.generated(seed, number, out)
    return [f"{name} {argv}: {x}" for name, argv in lines if (x := commands.outcome(name, argv))]


@pytest.mark.usefixtures("untyped")
def test_twenty_command_lines_are_right_or_refused(tmp_path):
    assert faults(0, 20, tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_hundred_command_lines_are_right_or_refused(seed, tmp_path):
    assert faults(seed, 300, tmp_path) == []


@pytest.mark.parametrize(
    ("name", "typed", "line"),
    [
        # a key has 32 bits
        ("wta_broadcast", "--seed 4294967296", "--seed must be a whole number <= 4294967295; got"),
        ("routing_cost", "--seed 4294967294", "--seed must be a whole number <= 4294967293; got"),
        ("transfer", "--seed -1", "--seed must be a whole number >= 0; got -1"),
        # a range is that of single precision
        ("wta_broadcast", "--tau-mem 1e308", "--tau-mem must be in (0, inf); got 1e+308, inf in"),
        ("wta_broadcast", "--lr 1e-50 --tau-out 1e-50", "--tau-out must be in (0, inf); got 1e-50"),
        ("electronic_synapse", "--lr 1e39", "--lr must be in (0, inf); got 1e+39, inf in single"),
        # sizes, by what they would take
        ("wta_broadcast", "--hidden 10000000", "what --hidden asks for would take "),
        ("wta_broadcast", "--readout-population 100000000", "what --readout-population asks for w"),
        ("wta_broadcast", "--n-steps 100000000", "what --n-steps asks for would take"),
        ("wta_broadcast", "--modulators 1000000000", "what --modulators asks for would take"),
        ("wta_broadcast", "--epochs 1000000000000", "--epochs must be a whole number <= 214748364"),
        ("wta_broadcast", "--epochs 2147483647", "--epochs must be at most 61356675, as weight ch"),
        ("wta_broadcast", "--batch-size 2000", "--batch-size must be at most 1150 pictures; got 2"),
        ("wta_broadcast", "--train-size 2000", "--train-size must be at most 1150, all that there"),
        ("routing_cost", "--mesh 100000 100000", "--mesh must hold at most 2147483647 neurons; go"),
        ("routing_cost", "--mesh 10000 10000 --seeds 9", "what --mesh asks for would take"),
        ("routing_cost", "--mesh 0 0", "--mesh must be a whole number >= 1; got 0"),
        ("routing_cost", "--fan-in 3", "--fan-in must be even, half on each side, and below 256;"),
        ("routing_cost", "--fan-in-input 65", "--fan-in-input must be at most 64 pixels; got 65"),
        ("routing_cost", "--seeds 1000000", "--seeds must be a whole number <= 10000; got 1000000"),
        ("electronic_synapse", "--cores 100000", "--cores must be a whole number <= "),
        ("electronic_synapse", f"--hidden {10**30}", "--hidden must be a whole number <= 21474836"),
        ("electronic_synapse", f"--width {10**30}", "--width must be a whole number <= 10000; got"),
        ("electronic_synapse", "--n-states 1000000", "--n-states must be a whole number <= 65536"),
        ("transfer", "--sigma-d2d 0.1 0.1", "--sigma-d2d must name one or more, each once; got 0."),
        ("transfer", "--tuned 0", "--tuned must be a whole number >= 1; got 0"),
        ("table", "--jobs 1000000", "--jobs must be a whole number <= "),
        ("table", "--show --jobs 2", "--jobs 2 needs --no-show; got --show"),
        # what has no effect
        ("wta_broadcast", "--resume --overwrite", "--overwrite replaces what --resume goes on wit"),
        ("wta_broadcast", "--teacher hard --gain 5", "--gain 5 needs --teacher soft; got --teache"),
        ("wta_broadcast", "--homeostasis 0 --target-rate 0.2", "--target-rate 0.2 needs --homeost"),
        (
            "wta_broadcast", "--recurrence local --p-rewire 1 --no-learn-recurrence",
            "--no-learn-recurrence needs --p-rewire below 1",
        ),
        ("surrogate_reference", "--freeze-hidden --slope 2", "--slope 2 needs --no-freeze-hidden "),
        (
            "electronic_synapse", "--policies one-side --lower 0.1 0.2 0.3",
            "--lower 0.1 0.2 0.3 needs --policies unidirectional; got --policies one-side",
        ),
        # what cannot be read
        ("wta_broadcast", "--out=", "--out must be followed by a value; got ''"),
        ("wta_broadcast", "--out a\0b", "--out must be text without NUL; got 'a"),
        ("wta_broadcast", "--tau-mem", "--tau-mem must be FLOAT; got ''"),
        ("wta_broadcast", "--hidden 5 x", "--hidden must be INT ...; got '5 x'"),
        ("wta_broadcast", "--neuron lof", "--neuron must be {lif,alif}; got 'lof'"),
        ("wta_broadcast", "digits", "unrecognized options: digits; --help lists the options"),
        ("routing_cost", "--mesh 3", "--mesh must be INT INT; got '3'"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_a_line_that_cannot_be_is_refused_in_the_words_that_were_typed(
    name, typed, line, tmp_path, monkeypatch
):
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path))
    digits = ["--dataset", "digits"] if name == "electronic_synapse" else []
    said = commands.said(name, [*typed.split(" "), *digits])
    assert said.startswith(f"error: {line}")
    assert len(said.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", commands.EXPERIMENTS)
@pytest.mark.usefixtures("untyped")
def test_a_path_that_no_file_can_have_is_refused_by_its_option(name, tmp_path):
    kinds = commands.options(commands.experiment(name).Config)
    paths = [option for option, kind in kinds.items() if kind is Path]
    assert paths
    for option in paths:
        dashed = f"--{option.replace('_', '-')}"
        for typed, line in (
            ("a" * 256, "names of at most 255 bytes; got 256: 'aaa"),
            ("a/" * 3000, "at most 3840 bytes; got "),
        ):
            said = commands.said(name, [dashed, typed])
            assert said.startswith(f"error: {dashed} must be a path of {line}")
            assert len(said) < 200
    assert [*tmp_path.iterdir()] == []


def test_an_empty_folder_is_not_the_one_that_one_is_in(tmp_path):
    for argv in (["--out", ""], ["--out="]):
        assert commands.said("wta_broadcast", argv).startswith("error: --out must be followed by")


@pytest.mark.parametrize("name", commands.EXPERIMENTS)
def test_what_an_option_needs_are_options(name):
    config = commands.experiment(name).Config
    known = {f.name for f in fields(config)}
    for need in _options.needs(config):
        assert {*need.names.split(), need.option} <= known


def test_the_trace_is_reset_by_a_plain_switch(capsys):
    with pytest.raises(SystemExit):
        _run.main(wta.Config, wta.run, ["--help"])
    text = re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m|│", "", capsys.readouterr().out))
    assert "--reset-trace, --no-reset-trace" in text
    assert "clears its presynaptic traces. Needs --no-freeze-hidden. (default: yes)" in text


def test_seeds_that_are_keys_of_their_own_are_taken():
    assert replace(wta.Config(), seed=2**32 - 1).seed == 4294967295
