"""The command line: help that tells the truth, and refusals in one line."""

import importlib
import inspect
import re
from dataclasses import dataclass, fields
from typing import Literal

import pytest

from experiments import _command, _config, _options
from experiments import wta_broadcast as wta

EXPERIMENTS = (
    "wta_broadcast", "surrogate_reference", "electronic_synapse", "routing_cost", "transfer",
    "table", "learn", "yardstick", "in_situ", "equilibrium_devices", "queries",
)  # fmt: skip
each_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


@pytest.fixture
def helped(capsys, monkeypatch):
    """What --help of an experiment prints at 100 columns, by group: option to text."""

    def run(name) -> tuple[str, dict[str, dict[str, str]]]:
        module = importlib.import_module(f"experiments.{name}")
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as end:
            _command.parsed(module.Config, ["--help"], module)
        assert end.value.code == 0
        said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        _, *boxes = re.split(r"^[╭─ ]*(\w+) options[─╮ ]*$", said, flags=re.M)
        titles, texts = boxes[::2], boxes[1::2]
        return said, {t: dict(_texts(x)) for t, x in zip(titles, texts, strict=True)}

    return run


def _texts(box):
    """Each option of a box of the help, and the text beside and below it."""
    lines = [line.strip("│╰─╯") for line in box.splitlines()]
    option, text = "", ""
    for line in [*lines, "--end"]:
        if re.match(r" {0,2}--\w", line):
            if option:
                yield option, " ".join(text.split())
            option, _, text = line.strip().partition("  ")
            option = option.split()[0].rstrip(",")
        else:
            text += f" {line}"


@each_experiment
def test_help_has_a_text_and_a_group_for_every_option(name, helped):
    said, groups = helped(name)
    assert said.startswith(f"usage: python -m experiments.{name} [-h] [OPTIONS]\n")
    assert max(len(line) for line in said.splitlines()) <= 100
    config = importlib.import_module(f"experiments.{name}").Config
    hidden = getattr(config, "withheld", ())
    expected = {f"--{f.name.replace('_', '-')}" for f in fields(config) if f.name not in hidden}
    shown = [option for group in groups.values() for option in group if option != "-h"]
    assert sorted(shown) == sorted(expected)
    assert set(groups) <= {"network", "learning", "learner", "devices", "data", "run", "hosts"}
    for options in groups.values():
        for option, text in options.items():
            assert len(text.partition("(default")[0].strip()) > 10, option


@each_experiment
def test_the_default_in_the_help_is_the_one_in_force(name, helped):
    _, groups = helped(name)
    config = importlib.import_module(f"experiments.{name}").Config
    told = {k[2:].replace("-", "_"): v for group in groups.values() for k, v in group.items()}
    for f in fields(config):
        if f.name in told and f.default is not None:
            assert told[f.name].endswith(f"(default: {_options.shown(f.default)})")
        elif f.name in told:
            assert "(default: None)" not in told[f.name]


def test_defaults_that_depend_on_the_data_are_those_of_the_presets(helped):
    _, groups = helped("wta_broadcast")
    told = {k[2:].replace("-", "_"): v for group in groups.values() for k, v in group.items()}
    for name in {name for preset in _config.PRESETS.values() for name in preset}:
        if next(f.default for f in fields(_config.Config) if f.name == name) is not None:
            continue
        said = re.search(r"\(default: (.*)\)$", told[name])
        assert said, name
        given = [_options.shown(p[name]) for p in _config.PRESETS.values() if name in p]
        assert [part.split(": ")[-1] for part in said[1].split("; ")][0] == given[0]
        by_number = {"by their number"} if name in ("epochs", "batch_size") else set()
        assert {part.split(": ")[-1] for part in said[1].split("; ")} == {*given, *by_number}
    gain = re.search(r"default: (.*)\)", told["gain"])
    assert gain
    assert gain[1].startswith(_options.shown(_config.resolved(wta.Config(dataset="mnist")).gain))


@each_experiment
def test_the_help_of_an_option_says_what_it_needs_in_the_words_that_refuse_it(name, helped):
    _, groups = helped(name)
    config = importlib.import_module(f"experiments.{name}").Config
    for option, text in ((k, v) for group in groups.values() for k, v in group.items()):
        field = option[2:].replace("-", "_")
        needed = [need for need in _options.needs(config) if need.of(field)]
        offered = [need for need in needed if need.option not in getattr(config, "withheld", ())]
        assert ("Needs " in text) == bool(offered), option
        for need in offered:
            assert need.text in text


def test_options_that_are_refused_are_not_offered(helped):
    _, groups = helped("surrogate_reference")
    assert "--gain" in groups["learning"]
    assert "--slope" in groups["learning"]
    assert not {"--teacher", "--kappa-e", "--window"} & {o for g in groups.values() for o in g}


@dataclass(frozen=True)
class Base:
    """A part."""

    size: int | None = None
    """How many; over
    two lines."""
    mode: Literal["a", "b"] = "a"
    """Which."""


@dataclass(frozen=True)
class Config(Base):
    """All."""

    rates: tuple[float, ...] = (0.5, 1.0)
    """How fast."""
    mode: Literal["a", "b"] = "b"
    on: bool = False
    """Whether."""


THIS = inspect.getmodule(Base)


def test_what_is_typed_arrives_and_the_rest_stays():
    argv = "--size 3 --rates 1 2.5 --on".split()
    assert _command.parsed(Config, argv, THIS) == Config(3, "b", (1.0, 2.5), True)
    assert _command.parsed(Config, [], THIS) == Config()


def test_the_text_is_that_of_the_last_class_that_has_one():
    assert _command.documented(Config) == {
        "size": "How many; over two lines.", "mode": "Which.", "rates": "How fast.",
        "on": "Whether.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--size x", "--size must be INT; got 'x'"),
        ("--size 1.5", "--size must be INT; got '1.5'"),
        ("--size", "--size must be INT; got ''"),
        ("--rates 1 fast", "--rates must be FLOAT ...; got '1 fast'"),
        ("--mode c", "--mode must be {a,b}; got 'c'"),
        ("--sise 3", "unrecognized options: --sise, 3; did you mean --size?"),
        ("--on maybe", "unrecognized options: maybe; --help lists the options"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "100"])
def test_what_cannot_be_read_is_refused_in_one_line(argv, line, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared whole below
        _command.parsed(Config, argv.split(), THIS)
    assert str(refused.value) == line
