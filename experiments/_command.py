"""The command line of an experiment, made from its configuration: options in groups, real defaults.

A configuration is a frozen dataclass that inherits its parts, each a small dataclass as well.
Parts are the groups of `--help`; the string below a field is the text of its option.
"""

import ast
import inspect
import io
import re
import sys
from contextlib import redirect_stderr
from dataclasses import field, fields, make_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from experiments import _options


def parsed(config: type, argv: list[str] | None, module: Any) -> Any:
    """A `config` of the command line; what cannot be read is refused in one line.

    `config.withheld` names fields that are no options; `config.default_text(name)` says the
    default of a field that depends on others, None for those that do not.
    Raises `ValueError` for what cannot be read or is out of range; ends the process for --help.
    """
    refuse_unreadable(argv)
    groups = [(t.lower(), _group(config, t, names)) for t, names in _groups(config).items()]
    grouped = make_dataclass("Options", groups)
    program = f"python -m {_name(module)}"
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            found = tyro.cli(
                tyro.conf.OmitArgPrefixes[grouped], prog=program, args=argv,
                description=_indented(module.__doc__),
            )  # fmt: skip
    except SystemExit as end:
        if not end.code:
            raise
        words = sys.argv[1:] if argv is None else argv
        raise ValueError(one_line(said.getvalue(), config, words)) from None
    values = {k: v for group in vars(found).values() for k, v in vars(group).items()}
    return config(**values)


def refuse_unreadable(argv: list[str] | None) -> None:
    """Refuse a value that is nothing, and characters that no file has in its name.

    An empty path would be the folder that one is in.
    """
    option = "the first argument"
    for word in sys.argv[1:] if argv is None else argv:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        option = name or option
        if (equals or not name) and not value:
            raise ValueError(f"{option} must be followed by a value; got ''")
        if "\0" in word:
            raise ValueError(f"{option} must be text without NUL; got {_cut(word)!r}")


def _typed(argv: list[str], option: str) -> str:
    """All that was typed behind an option, where it stands last."""
    behind, reading = list[str](), False
    for word in argv:
        name, equals, value = word.partition("=")
        if name == option:
            behind = [value] if equals else []
            reading = True
        elif word.startswith("--"):
            reading = False
        elif reading:
            behind.append(word)
    return " ".join(behind)


def _cut(text: str, most: int = 80) -> str:
    """So much of it as one reads."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _indented(text: str) -> str:
    """All but the first line set in, so that tyro leaves the lines as they are."""
    first, *rest = (line for line in text.splitlines() if line)
    return "\n".join([first, *(f"  {line}" for line in rest)])


def _name(module: Any) -> str:
    """As one types it behind `python -m`."""
    spec = getattr(module, "__spec__", None)
    return spec.name if spec else module.__name__


def _groups(config: type) -> dict[str, list[str]]:
    """Names of the fields by the name of the class that is the first to bring them in."""
    home: dict[str, str] = {}
    for part in reversed(config.__mro__):
        for name in inspect.get_annotations(part):
            home.setdefault(name, part.__name__)
    groups: dict[str, list[str]] = {part.__name__: [] for part in config.__mro__}
    for f in fields(config):
        groups[home[f.name]].append(f.name)
    return {name: held for name, held in groups.items() if held}


def _group(config: type, title: str, names: list[str]) -> type:
    """Dataclass of one group of options."""
    hints, texts = get_type_hints(config, include_extras=True), documented(config)
    defaults = {f.name: f.default for f in fields(config)}
    made = []
    for name in names:
        asked = tyro.conf.arg(
            help=" ".join([texts.get(name, ""), _options.told(config, name)]).strip(),
            metavar=_metavar(_given(hints[name])),
            help_behavior_hint=_default(config, name, defaults[name]),
        )  # fmt: skip
        kind = Annotated[hints[name], asked]
        if name in getattr(config, "withheld", ()):
            kind = tyro.conf.Suppress[kind]
        made.append((name, kind, field(default=defaults[name])))
    group = make_dataclass(title, made, frozen=True)
    part = next(part for part in config.__mro__ if part.__name__ == title)
    group.__doc__ = inspect.cleandoc(part.__doc__ or "").partition("\n\n")[0]
    return group


def _default(config: type, name: str, value: Any) -> str:
    """What stands behind the text of an option; nothing where the text says it."""
    told = getattr(config, "default_text", lambda name: None)(name)
    if told is None and value is None:
        return ""
    return f"(default: {_options.shown(value) if told is None else told})"


@cache
def documented(config: type) -> dict[str, str]:
    """The string below each field, that of the last class to have one."""
    found: dict[str, str] = {}
    for part in reversed(config.__mro__[:-1]):
        (tree,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(part))).body
        body = getattr(tree, "body", [])
        for at, below in zip(body, body[1:], strict=False):
            match at, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
    return found


def _given(kind: Any) -> Any:
    """The type of what is typed: None is what it is when nothing is."""
    if get_origin(kind) is Annotated:  # by position, without the option's name
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (k for k in get_args(kind) if k is not NoneType)
    return kind


def _metavar(kind: Any) -> str | None:
    """What stands for the value; nothing for a switch."""
    if kind is bool:
        return None
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        one = _metavar(first) or ""
        return f"{one} ..." if rest == [...] else " ".join([one] * (1 + len(rest)))
    return kind.__name__.upper()


def one_line(box: str, config: type, argv: list[str]) -> str:
    """A refusal of tyro's as one line: the option, what it may be, and what it was."""
    parts: list[str] = [""]
    for line in box.splitlines()[1:]:  # the first is a title
        inside = line.strip("│ ")
        rule = len(inside) > 3 and set(inside) <= set("─-╰╯")
        parts = [*parts, ""] if rule else [*parts[:-1], f"{parts[-1]} {inside}".strip()]
    first, *parts = (part for part in parts if part)
    wrong = first.partition("Got errors")[0]
    option = re.search(r"Error parsing (--[\w-]+)|for argument '(?:\(')?(--[\w-]+)", wrong)
    if option:
        name = option[1] or option[2]
        kind = get_type_hints(config, include_extras=True)[name[2:].replace("-", "_")]
        allowed = _metavar(_given(kind)) or "no more than a switch"
        return f"{name} must be {allowed}; got {_cut(_typed(argv, name))!r}"
    meant = [part.split()[3] for part in parts if part.startswith("Perhaps you meant: ")]
    return f"{wrong[:1].lower()}{_cut(wrong[1:])}; " + (
        f"did you mean {meant[0]}?" if meant else "--help lists the options"
    )
