"""Command lines of every experiment, drawn by a seed; what each ends in, up to where it trains.

What is accepted stops where the run would begin: data are read, the network is traced, nothing
is trained. `outcome` says what went wrong, nothing where a line is right or refused in one line.
"""

import contextlib
import io
import os
import random
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from unittest import mock

from experiments import _command, _folder, _run, table, yardstick

EXPERIMENTS = (
    "wta_broadcast", "surrogate_reference", "electronic_synapse", "routing_cost", "transfer",
    "networks", "table", "learn", "yardstick", "in_situ", "equilibrium_devices", "queries",
)  # fmt: skip

WHOLE = (
    "0",
    "1",
    "2",
    "3",
    "-1",
    "7",
    "1000000000000",
    "4294967296",
    "1" + 30 * "0",
    "-" + "9" * 25,
)
REAL = ("0", "0.5", "1", "-1", "1e308", "1e-308", "1e-50", "nan", "inf", "-inf", "1e3", "20")
WRONG = (
    "",
    "x",
    "1,5",
    "0x10",
    "None",
    "--",
    "\u00e9",
    "\udc80",
    "a" * 3000,
    "a\0b",
    "9" * 5000,
    "1e400",
)


class Accepted(Exception):  # noqa: N818 - no error: it ends a run before it trains
    """The line is one that runs."""


def experiment(name: str) -> ModuleType:
    """The module that runs it."""
    return import_module(f"experiments.{name}")


def options(config: type) -> dict[str, Any]:
    """Each option, and the type of what is typed behind it."""
    hints = get_type_hints(config, include_extras=True)
    names = [f.name for f in fields(config)]
    return {name: _command._given(hints[name]) for name in names}


def value(draw: random.Random, kind: Any, out: Path) -> list[str]:
    """What is typed behind an option of that type: mostly of the kind, now and then not."""
    if draw.random() < 0.12:
        return draw.choice([[draw.choice(WRONG)], [], [draw.choice(WRONG), draw.choice(WRONG)]])
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        n = draw.choice([1, 2, 2, 3]) if rest == [...] else draw.choice([2, 2, 2, 1, 3])
        return [x for _ in range(n) for x in value(draw, first, out)]
    if get_origin(kind) is Literal:
        return [draw.choice(get_args(kind))]
    if kind is int:
        return [draw.choice(WHOLE)]
    if kind is float:
        return [draw.choice(REAL)]
    if kind is Path:
        return [draw.choice([str(out), str(out / "none"), "/dev/null", "/proc/none", "a" * 300])]
    return [draw.choice(["digits", "mnist", "idx", "nothing", "", "../x", "digit"])]


def line(draw: random.Random, name: str, out: Path) -> list[str]:
    """Up to five options of an experiment."""
    config = experiment(name).Config
    known = options(config)
    argv: list[str] = []
    for option in draw.sample(sorted(known), draw.choice([1, 1, 2, 3, 5])):
        if option == "name":  # by its position
            argv = [*value(draw, known[option], out)[:1], *argv]
            continue
        dashed = f"--{option.replace('_', '-')}"
        if draw.random() < 0.03:
            dashed = draw.choice([dashed[:-1], dashed + "x", "-x", dashed.upper(), "--"])
        if known[option] is bool:
            argv.append(draw.choice([dashed, dashed, f"--no-{dashed[2:]}"]))
        else:
            argv += [dashed, *value(draw, known[option], out)]
    if name == "electronic_synapse" and "--dataset" not in argv:
        argv += ["--dataset", "digits"]
    if "--out" not in argv and "out" in known:
        argv += ["--out", str(out / "run")]
    return argv


def outcome(name: str, argv: list[str]) -> str:
    """Nothing if the line is accepted or refused in one line, else what is wrong with its end."""
    module, said = experiment(name), io.StringIO()
    run = module.main if module in (table, yardstick) else module.run
    none = {"NEUROJAX_DATA": os.devnull}  # nothing is downloaded
    stop = mock.Mock(side_effect=Accepted)
    with (
        contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(_folder.Folder, "begin", stop), mock.patch.object(table, "picked", stop),
        mock.patch.object(yardstick, "cells", stop),
        mock.patch.object(sys, "stderr", said), mock.patch.dict(os.environ, none),
    ):  # fmt: skip
        try:
            _run.main(module.Config, run, argv)
        except Accepted:
            return ""
        except SystemExit as end:
            if end.code == 0 and {"-h", "--help"} & {*argv}:
                return ""
            if end.code != 2:
                return f"ended with {end.code}"
        except Exception as error:  # noqa: BLE001 - what may come is the question
            return f"{type(error).__name__}: {str(error)[:200]!r}"
    lines = said.getvalue().strip().splitlines()
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines: {lines[:2]}"
    if len(lines[0]) > 500:
        return f"{len(lines[0])} characters: {lines[0][:200]}"
    return ""


def said(name: str, argv: list[str]) -> str:
    """The refusal of a line."""
    module, told = experiment(name), io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        _run.main(module.Config, module.main if module in (table, yardstick) else module.run, argv)
    return told.getvalue().strip()


def generated(seed: int, number: int, out: Path):
    """So many lines, of all experiments in turn."""
    draw = random.Random(seed)
    for i in range(number):
        name = EXPERIMENTS[i % len(EXPERIMENTS)]
        yield name, line(draw, name, out)
