"""The package as users get it: what a wheel holds, what an install pulls in, who imports whom."""

import ast
import importlib.metadata
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

import hardware
import neurojax

ROOT = Path(__file__).parents[1]
PACKAGES = ("neurojax", "hardware", "experiments")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]

IMPORT_EVERYTHING = f"""
import importlib, pkgutil, sys
for package in map(importlib.import_module, {PACKAGES}):
    assert package.__file__.startswith(sys.argv[1]), package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
loaded = {{"tensorflow", "tensorflow_datasets", "torch"}} & set(sys.modules)
assert not loaded, loaded
import jax
jax.config.update("jax_num_cpu_devices", 2)  # refused once a backend has started
print("imported", *{PACKAGES})
"""

IMPORT_QUICKLY = """
import sys, neurojax, hardware
late = {"matplotlib", "orbax", "tensorflow_datasets", "sklearn", "networkx", "flax", "optax"}
print(*late & set(sys.modules))
neurojax.metrics, neurojax.plotting
import jax
jax.config.update("jax_num_cpu_devices", 2)  # refused once a backend has started
try:
    neurojax.plot
except AttributeError as error:
    print(error)
"""


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """Top-level names of all that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT))
    return next(out.glob("neurojax-*.whl"))


def pip(command, *arguments):
    line = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", *arguments]
    subprocess.run(line, check=True)


@pytest.mark.slow
def test_wheel_holds_three_typed_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in sources(package)}
    assert {name for name in names if name.endswith(".py")} == modules


@pytest.mark.slow
def test_wheel_imports_from_another_folder_without_tensorflow_and_starts_no_backend(
    wheel, tmp_path
):
    site = tmp_path / "site"
    pip("install", "--target", str(site), str(wheel))
    run = [sys.executable, "-c", IMPORT_EVERYTHING, str(site)]
    env = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(run, check=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["imported", *PACKAGES]


def test_an_import_waits_for_no_figure_and_no_data_and_public_names_are_there():
    run = [sys.executable, "-c", IMPORT_QUICKLY]
    done = subprocess.run(run, check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "\nmodule 'neurojax' has no attribute 'plot'\n"


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("neurojax", {"hardware", "experiments"}),
        ("hardware", {"experiments"}),
        *((package, {"tensorflow", "torch"}) for package in PACKAGES),
    ],
)
def test_imports_point_one_way(package, never):
    assert sources(package)
    found = {path.name: never & set(imported(path)) for path in sources(package)}
    assert not {name: names for name, names in found.items() if names}


def test_every_public_name_has_its_own_docstring():
    public = {name: getattr(neurojax, name) for name in neurojax.__all__}
    generated = re.compile(r"\w+\(")  # dataclasses and named tuples write their signature
    bare = [n for n, x in public.items() if not x.__doc__ or generated.match(x.__doc__)]
    assert not bare


def public_modules():
    """Names of the packages that are imported, and of their modules, less the underscored."""
    for package in (neurojax, hardware):
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "._" not in module.name:
                yield module.name


@pytest.mark.parametrize("name", list(public_modules()))
def test_completion_shows_public_names_alone(name):
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    assert not [x for x in module.__all__ if x.startswith("_") or not hasattr(module, x)]


# What tells a unit: its symbol (one of a letter only after a number, a bracket or "in", as in
# "(S)"), or words for what has none of its own. What tells a shape: brackets that start with a
# name, as [T, n] (not an interval, as [0, 1]), or the word.
UNIT = re.compile(
    r"(?<![\w`.])(ms|mV|nA|MOhm|uS|[pfnum]J|ns|[kM]?Hz|1/mV|nm|rad|pixels|bits)(?![\w`])"
    r"|(?:\d |, |\(|\bin |\d)(?:S|V|W|J|s|%)(?=[ ,.;:)\n]|$)|\d%"
    r"|\b(?:weight units|units? of|without unit|(?:in|whole) steps|spikes (?:a|per) step)\b"
    r"|\bspacings\b|(?:\bin|,) pulses\b|\bof the range\b"
)
SHAPE = re.compile(
    r"(?<![\w\])])\[(?:|\*?[A-Za-z]\w*(?:[ ,+*/-]+\*?\w+|, \.\.\.)*)\]"
    r"|\bshapes?\b|[Ee]lementwise|\bone number\b"
)
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
CODE = re.compile(r"^\s*(?:>>>|\.\.\.) .*$", re.MULTILINE)


def documented():
    """Public functions, classes and callable models of all modules, each once."""
    found = {}
    for name in public_modules():
        module = importlib.import_module(name)
        for public in module.__all__:
            x = getattr(module, public)
            home = getattr(x, "__module__", None) or ""
            if callable(x) and home.partition(".")[0] in PACKAGES:
                found.setdefault(id(x), (f"{name}.{public}", x))
    return dict(found.values())


def told(x):
    """What `help` tells of a name: its docstring, and those of the methods that it defines."""
    members = vars(x).values() if inspect.isclass(x) else ()
    own = [m for m in members if inspect.isfunction(m) or isinstance(m, property | classmethod)]
    return "\n".join(inspect.getdoc(y) or "" for y in (x, *own))


@pytest.mark.parametrize(
    ("pattern", "least"),
    [(UNIT, 0.60), (SHAPE, 0.60), (EXAMPLE, 0.30)],
    ids=["unit", "shape", "example"],
)
def test_docstrings_give_units_shapes_and_examples(pattern, least):
    texts = {name: told(x) for name, x in documented().items()}
    if pattern is not EXAMPLE:  # code proves none of the two
        texts = {name: CODE.sub("", text) for name, text in texts.items()}
    has = {name: bool(pattern.search(text)) for name, text in texts.items()}
    assert np.mean(list(has.values())) >= least, [name for name, y in has.items() if not y]


def imports_of(code):
    """What lies below `neurojax` or `hardware` in the imports of a script or page."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, inner = node.module.partition(".")
            if package in ("neurojax", "hardware"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names if inner)
                public = importlib.import_module(package).__all__
                yield from (a.name for a in node.names if not inner and a.name not in public)


@pytest.mark.parametrize("folder", ["notebooks", "docs", "."])
def test_what_users_read_imports_public_names_alone(folder):
    code = {path.name: path.read_text() for path in (ROOT / folder).glob("*.py")}
    for page in (ROOT / folder).glob("*.md"):
        code[page.name] = "\n".join(
            re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
        )
    found = {name: list(imports_of(text)) for name, text in code.items()}
    assert found
    assert not {name: inner for name, inner in found.items() if inner}


def test_version_stands_in_pyproject_alone():
    assert importlib.metadata.version("neurojax") == neurojax.__version__ == PROJECT["version"]
    version = re.escape(PROJECT["version"])
    literal = re.compile(rf"(?<![\d.]){version}(?![\d.])|^__version__ *= *[\"']", re.MULTILINE)
    files = [ROOT / "README.md", *(path for package in PACKAGES for path in sources(package))]
    assert not [path.name for path in files if literal.search(path.read_text())]


def test_constraints_pin_every_dependency_inside_its_range():
    pins = {canonical(pin.name): pin.specifier for pin in PINS}
    assert all(re.fullmatch(r"==[\w.]+", str(specifier)) for specifier in pins.values())
    extras = PROJECT["optional-dependencies"].values()
    for line in (*PROJECT["dependencies"], *(line for extra in extras for line in extra)):
        wanted = Requirement(line)
        if wanted.name != "neurojax":  # one extra in terms of another
            pinned = str(pins[canonical(wanted.name)]).removeprefix("==")
            assert wanted.specifier.contains(pinned), f"{line}: constraints.txt has {pinned}"


def test_constraints_pull_in_neither_cuda_nor_tensorflow():
    unwanted = re.compile(r"tensorflow(-cpu)?|torch|nvidia-.*|.*cuda.*|.*rocm.*")
    assert not [pin.name for pin in PINS if unwanted.fullmatch(canonical(pin.name))]
