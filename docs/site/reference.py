"""Pages of the reference: every public name with its signature and docstring, from the package."""

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

import equations

import hardware
import neurojax

ROOMS = ("energy", "presets", "routing", "topology")  # modules of `hardware`


def sections(listing: str) -> dict[str, list[tuple[str, str]]]:
    """Headings of docs/api.md, and under each its public names with a line on each."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in re.split(r"^## ", listing, flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `([\w.]+)` \| (\S.*) \|$", part, re.MULTILINE)
        if rows:
            found[part.partition("\n")[0].replace("`", "")] = rows
    return found


def hardware_names() -> Iterator[tuple[str, str]]:
    """Public names of `hardware` and of its modules, with the first line of each docstring."""
    names = list(hardware.__all__)
    for room in ROOMS:
        module = importlib.import_module(f"hardware.{room}")
        names += [f"{room}.{name}" for name in module.__all__]
    for name in names:
        yield name, _about(found(hardware, name))


def _about(x: Any) -> str:
    """The first line of a docstring; of a value that has none of its own, what it is."""
    if _is_value(x):
        return f"`{type(x).__name__}`" if isinstance(x, hardware.energy.Chip) else "names allowed"
    return (inspect.getdoc(x) or "").partition("\n")[0].rstrip(".:").replace("|", "\\|")


def _is_value(x: Any) -> bool:
    """Whether there is no docstring of its own: constants, and names of types."""
    return get_origin(x) is not None or not (isinstance(x, ModuleType) or callable(x))


def slug(heading: str) -> str:
    """File name of a section."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def page(heading: str, package: ModuleType, rows: list[tuple[str, str]]) -> str:
    """One section: a table of its names, then each of them."""
    short = "hw" if package is hardware else "nj"
    line = f"`import {package.__name__} as {short}` gives these."
    table = ["| name | what it is |", "|---|---|"]
    table += [f"| [`{name}`](#{anchor(package, name)}) | {about} |" for name, about in rows]
    entries = (entry(package, short, name) for name, _ in rows)
    return "\n".join([f"# {heading}", "", line, "", *table, "", *entries])


def anchor(package: ModuleType, name: str) -> str:
    """Where a name stands on its page."""
    return f"{package.__name__}.{name}"


def entry(package: ModuleType, short: str, name: str) -> str:
    """Heading, signature, docstring and methods of one name."""
    x = found(package, name)
    parts = [f"## {name} {{#{anchor(package, name)}}}", ""]
    if _is_value(x):
        return "\n".join([*parts, "```text", str(x), "```", ""])
    if not isinstance(x, ModuleType) and callable(x):
        parts += [_code(f"{short}.{name}", x), ""]
    parts += [docstring(inspect.getdoc(x) or ""), ""]
    for method, function in _methods(x):
        parts += [_code(method, function, bound=True), ""]
        parts += ['<div class="method" markdown>', "", docstring(inspect.getdoc(function) or "")]
        parts += ["", "</div>", ""]
    return "\n".join(parts)


def found(package: ModuleType, name: str) -> Any:
    for part in name.split("."):
        package = getattr(package, part)
    return package


def _methods(x: Any) -> Iterator[tuple[str, Any]]:
    """What a class defines itself and says something about."""
    for name, member in vars(x).items() if inspect.isclass(x) else ():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        told = inspect.isfunction(function) or isinstance(function, property)
        method = "__call__" if name == "__call__" else name
        if told and (name == "__call__" or not name.startswith("_")) and function.__doc__:
            yield method, function
        elif told and not name.startswith("_") and callable(getattr(function, "__wrapped__", None)):
            yield method, function.__wrapped__


def _code(name: str, x: Any, *, bound: bool = False) -> str:
    if isinstance(x, property):
        return f"```python\n{name}\n```"
    try:
        parameters = list(inspect.signature(x).parameters.values())
    except (TypeError, ValueError):
        return f"```python\n{name}\n```"
    shown = [_parameter(p) for p in (parameters[1:] if bound else parameters)]
    keyword = next((i for i, p in enumerate(parameters[bound:]) if p.kind is p.KEYWORD_ONLY), None)
    if keyword is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        shown.insert(keyword, "*")
    line = f"{name}({', '.join(shown)})"
    if len(line) > 80:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in shown) + ")"
    return f"```python\n{line}\n```"


def _parameter(p: inspect.Parameter) -> str:
    stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
    if p.default is p.empty:
        return stars + p.name
    default = re.sub(r"<(?:function|class|object)?\s*'?([\w.<>]*).*", r"\1", repr(p.default))
    default = re.sub(r"_Make(\w+)\(.*\)", lambda made: f"{made[1].lower()}()", default)
    return f"{p.name}={default.rsplit('.', 1)[-1] if '<' in repr(p.default) else default}"


def docstring(text: str) -> str:
    """A docstring as Markdown: its equations set, its examples and fields laid out."""
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(_block(block) for block in blocks if block.strip())


def _block(block: str) -> str:
    lines = block.strip("\n").split("\n")
    if lines[0].startswith(">>> "):
        return "```pycon\n" + "\n".join(lines) + "\n```"
    if lines[0] == "Fields:":
        return _fields(lines[1:])
    if all(line.startswith("    ") or not line for line in lines):
        return laid_out("\n".join(lines))
    if lines[0].startswith("- "):
        return "\n".join(prose(line) for line in lines)
    return "\n".join(_paragraph(lines))


def _paragraph(lines: list[str]) -> Iterator[str]:
    """Lines of text; what is raised and where it comes from begin a paragraph of their own."""
    for line in lines:
        if re.match(r"(Raises|Source:|Sources:)", line):
            yield ""
        yield prose(line)


def laid_out(block: str) -> str:
    """An indented block: equations, or code."""
    if equations.is_equation(block):
        return equations.display(block)
    return "```text\n" + textwrap.dedent(block).strip("\n") + "\n```"


def prose(line: str) -> str:
    """Text with nothing in it that Markdown would take for its own."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]~^|\\])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def _fields(lines: list[str]) -> str:
    """`name: type and shape, unit; default` as a table."""
    rows = ["| field | what it is | default |", "|---|---|---|"]
    joined: list[str] = []
    for line in lines:
        if line.startswith("     ") and joined:
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.strip())
    for line in joined:
        name, _, about = line.partition(": ")
        about, _, default = about.partition("; default ")
        default = default.replace("|", "\\|")
        rows.append(f"| `{name}` | {prose(about)} | {f'`{default}`' if default else ''} |")
    return "\n".join(rows)


def links(api: Path) -> dict[str, str]:
    """Where each public name stands in the reference, from the root of the site."""
    found = {}
    for heading, rows in sections(api.read_text()).items():
        for name, _ in rows:
            found[name] = f"api/{slug(heading)}.md#{anchor(neurojax, name)}"
    for name, _ in hardware_names():
        found[f"hw.{name}"] = found[f"hardware.{name}"] = (
            f"api/hardware.md#{anchor(hardware, name)}"
        )
    return found
