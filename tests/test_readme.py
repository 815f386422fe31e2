"""What README and docs say is so: code runs, names, options, links and sources exist."""

import ast
import dataclasses
import functools
import importlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

import neurojax as nj
from neurojax.plasticity.three_factor import Post

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
README = PAGES["README.md"]
EVERYTHING = "\n".join(PAGES.values())


def blocks(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.M | re.S)


def namespace(page):
    """Imports, classes and functions of a page; the rest of its code does not run."""
    tree = ast.parse("\n".join(blocks(page)))
    kept = ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef
    named = [n for n in tree.body if isinstance(n, kept) or ast.unparse(n).startswith("State =")]
    found = {"__name__": page}
    exec(compile(ast.Module(named, []), page, "exec"), found)
    return found


def run(code, folder, *arguments):
    """What `code` prints in a process like a user's, without the strictness of these tests."""
    script = folder / "page.py"
    script.write_text(code)
    env = {k: v for k, v in os.environ.items() if k != "NEUROJAX_DATA"}
    env["XLA_FLAGS"] = env["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "True"  # more is compiled than computed
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, env=env, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


# --- code ---


@pytest.mark.slow
def test_the_readme_learns_in_each_way_that_it_shows(tmp_path):
    accuracies = [float(x) for x in run("\n".join(blocks("README.md")), tmp_path).split()]
    # guessing gets 10%; 5 standard errors of 400 pictures below 93% are 87%
    assert len(accuracies) == 4  # numbers, devices, another neuron, by gradient
    assert min(accuracies) > 0.87, accuracies


LONG = tuple(  # whole trainings, or much to compile
    f"docs/{name}.md"
    for name in (
        "coming-from convolution extending hardware howto learning networks neurons start"
    ).split()
)

ONE_BY_ONE = """
import json, sys, traceback
for page, code in json.loads(sys.argv[1]).items():
    try:
        exec(compile(code, page, "exec"), {"__name__": page})
        print("to the end of", page)
    except BaseException:
        print(traceback.format_exc())
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What pages print, each in a namespace of its own: quick ones in one process."""

    @functools.cache
    def by(*pages):
        code = json.dumps({page: "\n".join(blocks(page)) for page in pages})
        return run(ONE_BY_ONE, tmp_path_factory.mktemp("pages"), code)

    quick = tuple(page for page in CODE if page not in LONG)
    return lambda page: by(page) if page in LONG else by(*quick)


CODE = tuple(page for page in PAGES if page != "README.md" and blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", CODE)
def test_code_of_a_page_runs_as_written(page, printed):
    assert re.search(r"^\s*assert ", "\n".join(blocks(page)), re.M), "code must check what it shows"
    assert f"to the end of {page}\n" in printed(page), printed(page)


@pytest.mark.parametrize(
    ("page", "name"), [("README.md", "QIF"), ("docs/extending.md", "RewardSTDP")]
)
def test_a_neuron_and_a_rule_take_less_than_fifteen_lines(page, name):
    (block,) = (b for b in blocks(page) if f"class {name}" in b)
    lines = [x for x in block.splitlines() if x and not x.startswith(("from", "print"))]
    assert len(lines) < 15


def test_the_readmes_neuron_fires_at_the_interval_of_the_closed_form():
    neuron, dt, current = namespace("README.md")["QIF"](), 1e-3, 2.0
    # v' = (v^2 - v + I) / tau, integrated from 0 to v_th for I > 1/4
    root = math.sqrt(4 * current - 1)
    angle = math.atan((2 * neuron.v_th - 1) / root) + math.atan(1 / root)
    interval = neuron.tau_mem * 2 / root * angle
    (when,) = np.nonzero(_spikes(neuron, current, dt, steps=int(3.5 * interval / dt)))
    # forward Euler is of first order: relative error of some dt / tau, here 2e-4
    np.testing.assert_allclose((when + 1) * dt, interval * np.arange(1, 4), rtol=2e-3)
    assert not _spikes(neuron, 0.24, dt=0.1, steps=5000).any()  # a stable point below 1/4


def _spikes(neuron, current, dt, steps):
    drive = jnp.full((steps, 1), current)
    z = jax.lax.scan(lambda s, i: neuron.step(s, i, dt=dt), neuron.init((1,)), drive)[1]
    return np.asarray(z[:, 0])


def test_the_rule_of_the_docs_equals_a_loop_over_synapses_and_steps():
    rule, dt, n_steps = namespace("docs/extending.md")["RewardSTDP"](), 1.0, 40
    rng = np.random.default_rng(0)
    z, pre = (rng.random((n_steps, n)) < 0.3 for n in (3, 4))
    q, decay = rng.normal(size=(n_steps, 3)), math.exp(-dt / rule.tau)
    x_post, x_pre, e, dw = np.zeros(3), np.zeros(4), np.zeros((3, 4)), np.zeros((3, 4))
    for t in range(n_steps):
        x_pre = decay * x_pre + pre[t]
        x_post = decay * x_post  # spikes of this step weaken nothing
        change = np.outer(z[t], x_pre) - rule.depression * np.outer(x_post, pre[t])
        e = rule.kappa_e * e + change
        dw += q[t][:, None] * e
        x_post = x_post + z[t]
    z, pre, q = (jnp.asarray(x, jnp.float32) for x in (z, pre, q))
    d = rule.factor(nj.LIF(), Post(rule.window(z, z, z), z), q, dt=dt)
    np.testing.assert_allclose(nj.Dense(4, 3).outer(d, pre), dw, rtol=1e-4, atol=1e-4)


def test_the_synapse_of_the_docs_is_the_difference_of_two_exponentials():
    synapse, dt = namespace("docs/extending.md")["DualExponential"](), 0.5
    arrivals = jnp.zeros((60, 1)).at[0].set(1.0)
    # a membrane far faster than the synapse follows the current at the end of each step
    step = lambda s, x: synapse.step(s, x, dt=dt, tau_mem=1e-4)  # noqa: E731
    current = jax.lax.scan(step, synapse.init((1,)), arrivals)[1][:, 0]
    t = dt * np.arange(60)
    expected = np.exp(-t / 10) - np.exp(-t / 2)
    np.testing.assert_allclose(current, expected, atol=1e-3)


# --- names ---


def public():
    """Every public name, and those of public modules as module.name."""
    for name in nj.__all__:
        yield name, getattr(nj, name)
        module = getattr(nj, name)
        for member, x in vars(module).items() if isinstance(module, ModuleType) else ():
            listed = getattr(module, "__all__", ())  # parts of a module may stand in another
            ours = member in listed or getattr(x, "__module__", None) == module.__name__
            if ours and not member.startswith("_") and not isinstance(x, TypeVar):
                yield f"{name}.{member}", x


def test_the_public_surface_is_sorted():
    assert nj.__all__ == sorted(set(nj.__all__))


def test_every_public_name_has_a_docstring_and_a_line():
    lines = re.findall(r"^\| `([\w.]+)` \| \S.* \|$", PAGES["docs/api.md"], re.M)
    assert sorted(lines) == sorted(name for name, _ in public())
    assert not [name for name, x in public() if not (x.__doc__ or "").strip()]


def test_names_in_code_and_text_exist():
    names = set(re.findall(r"\bnj\.((?:[a-z_]+\.)?\w+)", EVERYTHING))
    assert names
    assert not names - {name for name, _ in public()}


def test_tests_that_the_docs_name_exist():
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = set(re.findall(r"`(test_\w+)`", EVERYTHING))
    assert named
    assert not named - defined


# --- commands ---


def commands():
    text = EVERYTHING.replace("\\\n", " ")
    return sorted(set(re.findall(r"python -m (experiments\.\w+)([^`\n|]*)", text)))


@pytest.mark.parametrize(("module", "options"), commands())
def test_commands_have_options_that_exist(module, options):
    config = importlib.import_module(module).Config
    asked = tyro.cli(config, args=shlex.split(options))
    assert (asked != config()) == bool(options.strip())


def test_options_in_the_text_exist():
    fields = {
        f"--{field.name.replace('_', '-')}"
        for module in {module for module, _ in commands()}
        for field in dataclasses.fields(importlib.import_module(module).Config)
    }
    named = set(re.findall(r"`(--[\w-]+)", EVERYTHING))
    assert named
    assert not named - fields - {"--help"}


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([\w ]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|\$ )make (\w+)", EVERYTHING))
    assert {"demo", "test"} <= named <= {name for line in targets for name in line.split()}


# --- files ---


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)$", found.read_text(), re.M) if anchor else []
        named = [re.sub(r"[^\w\s-]", "", h.lower()).strip().replace(" ", "-") for h in headings]
        assert not anchor or anchor in named, target


def test_pictures_are_small():
    pictures = list((ROOT / "docs").glob("*.png"))
    assert pictures
    assert not [p.name for p in pictures if p.stat().st_size > 150_000]


def test_the_tree_has_a_line_for_each_folder():
    (tree,) = blocks("README.md", "text")
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line[0] != " "}
    assert not [name for name in named if not (ROOT / name).is_dir()]
    top = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert top | {"docs", "notebooks"} == named


def test_the_results_have_their_place():
    page = PAGES["docs/results.md"]
    assert page.count("<!-- results -->") == page.count("<!-- /results -->") == 1
    assert page.index("<!-- results -->") < page.index("<!-- /results -->")


def test_the_readme_stays_a_page_one_reads():
    assert len(README.splitlines()) <= 250


def test_every_source_in_the_code_is_listed():
    listed = " ".join(PAGES["docs/sources.md"].split())
    code = "\n".join(
        path.read_text() for p in ("neurojax", "experiments") for path in (ROOT / p).rglob("*.py")
    )
    cited = set()
    for source in re.findall(r"Source: (.*?)(?:\n\s*\n|\"\"\")", code, re.S):
        source = " ".join(source.split())
        cited |= set(re.findall(r"(\w+)(?: et al\.| and \w+)? \((\d{4})\)", source))
    assert len(cited) > 10
    missing = [
        c for c in cited if not re.search(rf"\b{c[0]}\b[^.()]*(?:\bal\. )?\({c[1]}\)", listed)
    ]
    assert not missing
