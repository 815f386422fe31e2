"""Build the site: gather its pages, have them built and look through the result.

    python docs/site/make_site.py

Pages are docs/*.md, four files of the root, the notebooks, and the reference, made of docstrings.
Nothing but the built site stays; what is wrong ends it with one line each.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import equations
import latex2mathml.converter
import reference

import hardware
import neurojax

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GATHERED, BUILT = ROOT / ".site", ROOT / "site"
ELSEWHERE = {  # pages that stand outside docs/
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)((?: {4,}\S.*\n)(?:(?: {4,}.*)?\n)*)(?=\n|\S|\Z)")


def main() -> int:
    """Gather, build and look through."""
    shutil.rmtree(GATHERED, ignore_errors=True)
    shutil.rmtree(BUILT, ignore_errors=True)
    for name, text in pages().items():
        path = GATHERED / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for picture in [*ROOT.glob("docs/*.png"), *ROOT.glob("docs/*.svg"), *HERE.glob("*.css")]:
        shutil.copy(picture, GATHERED / "pages")
    shutil.copy(HERE / "zensical.toml", GATHERED)
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=GATHERED, env=os.environ | {"NO_COLOR": "1"}, check=False)
    if done.returncode:
        return done.returncode
    shutil.move(GATHERED / "site", BUILT)
    search_offline(BUILT)
    wrong = [*outside_navigation(), *faults(BUILT)]
    sys.stderr.write("".join(f"error: {line}\n" for line in wrong))
    sys.stdout.write(f"{len(list(BUILT.rglob('*.html')))} pages: {BUILT / 'index.html'}\n")
    return bool(wrong)


# --- pages ---


def pages() -> dict[str, str]:
    """Every page by its path, as Markdown."""
    found = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("docs/*.md")}
    found |= {name: ROOT / name for name in ELSEWHERE}
    named = reference.links(ROOT / "docs/api.md")
    made = {}
    for source, path in found.items():
        target = ELSEWHERE.get(source, path.name)
        made[target] = written(path.read_text(), path.parent, target, named)
    for script in sorted(ROOT.glob("notebooks/*.py")):
        target = f"notebooks/{script.stem}.md"
        made[target] = written(notebook(script), script.parent, target, named)
    listing = (ROOT / "docs/api.md").read_text()
    for heading, rows in reference.sections(listing).items():
        target = f"api/{reference.slug(heading)}.md"
        made[target] = linked(reference.page(heading, neurojax, rows), target, named)
    rows = list(reference.hardware_names())
    made["api/hardware.md"] = linked(
        reference.page("Hardware", hardware, rows), "api/hardware.md", named
    )
    return made


def written(text: str, folder: Path, target: str, named: dict[str, str]) -> str:
    """A page with its links led to pages of the site, its equations set, its names linked."""
    parts = FENCED.split(text)
    for i in range(0, len(parts), 2):
        part = INDENTED.sub(lambda m: reference.laid_out(m[1]) + "\n", parts[i])
        part = re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", lambda m: _led(m[1], folder, target), part)
        part = re.sub(r"\[([^]]*)\]\(\)<([^>]*)>", _named, part)
        part = _tables(re.sub(r"\$([^$\n]+)\$", lambda m: _latex(m[1]), part))
        part = re.sub(r"(?:^(?![|#<]).+\n?)+", lambda m: equations.prose(m[0]), part, flags=re.M)
        parts[i] = re.sub("^<math", "<span></span><math", part, flags=re.M)  # a block, at the start
    return linked("".join(parts), target, named)


def _latex(formula: str) -> str:
    return latex2mathml.converter.convert(formula).replace("_", "&#95;").replace("*", "&#42;")


def _led(link: str, folder: Path, target: str) -> str:
    """Where a link of the sources leads on the site; what is no page of it is only named."""
    path, _, anchor = link.partition("#")
    # By name alone: a package may be a link to where it was installed.
    source = Path(os.path.normpath(folder / path)).relative_to(ROOT).as_posix()
    page = ELSEWHERE.get(source)
    if source.startswith("docs/"):
        page = source.removeprefix("docs/")
    elif source.startswith("notebooks/"):
        page = source.removesuffix(".ipynb").removesuffix(".py") + ".md"
    if page is None:
        return f"]()<{source}>"
    anchor = re.sub("-+", "-", anchor).strip("-")  # as the site names its headings
    return f"]({_relative(page, target)}{'#' + anchor if anchor else ''})"


def _named(found: re.Match) -> str:
    text, source = found.groups()
    return f"`{source}`" if source.endswith(text) else f"{text} (`{source}`)"


def _relative(page: str, target: str) -> str:
    return os.path.relpath(page, Path(target).parent).replace(os.sep, "/")


def _tables(text: str) -> str:
    """Columns whose heading speaks of an equation, set as such."""
    lines, columns = text.split("\n"), set()
    for i, line in enumerate(lines):
        cells = re.split(r"(?<!\\)\|", line)
        if not line.startswith("|"):
            columns = set()
        elif i + 1 < len(lines) and re.match(r"^\|[-|: ]+\|$", lines[i + 1]):
            columns = {k for k, cell in enumerate(cells) if re.search(EQUATION, cell)}
        elif columns and not re.match(r"^\|[-|: ]+\|$", line):
            for k in columns:
                cells[k] = " " + equations.inline(cells[k].strip().replace("\\|", "|")) + " "
            lines[i] = "|".join(cells)
        if line.startswith("|"):
            lines[i] = re.sub(r"`(test_\w+)`", lambda m: _breakable(m[1]), lines[i])
    return "\n".join(lines)


def _breakable(name: str) -> str:
    """A long name as code that may break after each word."""
    return f"<code>{name.replace('_', '&#95;<wbr>')}</code>"


EQUATION = r"\b(equation|what it does|derivative|at a spike of|error of a weight)\b"


def linked(text: str, target: str, named: dict[str, str]) -> str:
    """Names of the reference, where they stand as code in the text, as links to it."""
    parts = FENCED.split(text)

    def link(found: re.Match) -> str:
        name = found[1].removeprefix("nj.")
        plain = name.islower() and "." not in name and "_" not in name and name == found[1]
        if plain or name not in named:
            return found[0]
        page, _, anchor = named[name].partition("#")
        here = "" if page == target else _relative(page, target)
        return f"[`{found[1]}`]({here}#{anchor})"

    for i in range(0, len(parts), 2):
        lines = parts[i].split("\n")
        for j, line in enumerate(lines):
            if not line.startswith("#"):
                lines[j] = re.sub(r"(?<![\[`])`([\w.]+)`(?![\]`])", link, line)
        parts[i] = "\n".join(lines)
    return "".join(parts)


def notebook(script: Path) -> str:
    """A notebook in jupytext's percent format as a page."""
    cells = re.split(r"^# %%(.*)\n", script.read_text(), flags=re.MULTILINE)[1:]
    said = []
    for kind, cell in zip(cells[::2], cells[1::2], strict=True):
        if "markdown" in kind:
            said.append("\n".join(line.removeprefix("#")[1:] for line in cell.strip().split("\n")))
        else:
            code = re.sub(r"^# %.*\n", "", cell, flags=re.MULTILINE)
            said.append(f"```python\n{code.strip()}\n```")
    return "\n\n".join(said) + "\n"


def search_offline(site: Path) -> None:
    """Have pages load what lets the search work from the file system from beside them."""
    shutil.copy(HERE / "worker.js", site)
    for path in site.rglob("*.html"):
        beside = os.path.relpath(site / "worker.js", path.parent)
        path.write_text(re.sub(r"https://[\w./]*iframe-worker/\w+", beside, path.read_text()))


# --- what is wrong ---


def outside_navigation() -> Iterator[str]:
    """Pages that the navigation does not name, and would be lost."""
    project = tomllib.loads((HERE / "zensical.toml").read_text())["project"]
    named = set(leaves(project["nav"]))
    for page in sorted((GATHERED / "pages").rglob("*.md")):
        name = page.relative_to(GATHERED / "pages").as_posix()
        if name not in named:
            yield f"{name} is not in the navigation of docs/site/zensical.toml"


def leaves(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict | list):
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(part)


class Seen(HTMLParser):
    """Where a page leads, what it loads, and what may be led to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep its links and its name."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given.get("id", ""), given.get("name", "")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") != "canonical":
            self.loads.append(given.get("href", ""))
        elif "src" in given:
            self.loads.append(given["src"])


def faults(site: Path) -> Iterator[str]:
    """Links that lead nowhere, and what would be loaded from the network."""
    seen = {path.resolve(): Seen(path.read_text()) for path in site.rglob("*.html")}
    for path, page in seen.items():
        name = path.relative_to(site.resolve()).as_posix()
        if name == "404.html":
            continue
        for load in page.loads:
            if re.match(r"(https?:)?//", load):
                yield f"{name} loads {load}: pages must work without a network"
        for link in {*page.links, *page.loads}:
            if re.match(r"[a-z]+:|//", link):
                continue
            to, _, anchor = link.partition("#")
            target = (path.parent / unquote(to)).resolve() if to else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{name} leads to {link}, which is not there"
            elif target in seen and unquote(anchor) not in seen[target].anchors:
                yield f"{name} leads to {link}: that page has no such heading"


if __name__ == "__main__":
    sys.exit(main())
