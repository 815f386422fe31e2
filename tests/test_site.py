"""The site before it is built: its pages, its reference, its equations, and what it refuses."""

import inspect
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import hardware
import neurojax as nj

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/site"))

import equations  # noqa: E402
import make_site  # noqa: E402
import reference  # noqa: E402


@pytest.fixture(scope="module")
def pages():
    return make_site.pages()


def math(html):
    """Text of each element of MathML, which must be well formed."""
    found = re.findall(r"<math.*?</math>", html, re.S)
    return ["".join(ET.fromstring(x.replace("&#8203;", "")).itertext()) for x in found]


# --- pages ---


def test_every_page_is_in_the_navigation_once(pages):
    nav = tomllib.loads((ROOT / "docs/site/zensical.toml").read_text())["project"]["nav"]
    assert sorted(make_site.leaves(nav)) == sorted(pages)


def test_a_raster_is_three_clicks_away_at_most(pages):
    """From the first page to one with a program that draws a raster, and its picture."""
    assert "nj.plotting.raster(" in pages["index.md"]
    assert "](start.md)" in pages["index.md"]
    assert "nj.plotting.raster(" in pages["start.md"]


def test_every_public_name_has_its_docstring_in_the_reference(pages):
    text = "\n".join(page for name, page in pages.items() if name.startswith("api/"))
    text = re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", text)
    headings = re.findall(r"^## \S+ \{#(\S+)\}$", text, re.M)
    assert len(headings) == len(set(headings))
    names = re.findall(r"^\| `([\w.]+)` \| \S.* \|$", (ROOT / "docs/api.md").read_text(), re.M)
    expected = {f"neurojax.{name}" for name in names}
    expected |= {f"hardware.{name}" for name, _ in reference.hardware_names()}
    assert set(headings) == expected
    assert {f"hardware.{name}" for name in hardware.__all__} <= expected
    for name in names:
        said = inspect.getdoc(reference.found(nj, name)).split("\n")[0]
        assert reference.prose(said) in text, name


def test_links_out_of_the_docs_lead_to_pages_or_are_only_named(pages):
    for name, page in pages.items():
        for link in re.findall(
            r"\]\((?!https?:|#)([^)\s]+)\)", re.sub("```.*?```", "", page, flags=re.S)
        ):
            path = (Path("/") / name).parent / link.partition("#")[0]
            found = Path(*path.parts[1:])
            parts = []
            for part in found.parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            target = "/".join(parts)
            assert target in pages or (ROOT / "docs" / target).is_file(), (name, link)


def test_what_is_no_page_is_named_as_the_sources_have_it_where_a_package_is_a_link(
    tmp_path, monkeypatch
):
    (tmp_path / "installed").mkdir()
    (tmp_path / "experiments").symlink_to(tmp_path / "installed")
    monkeypatch.setattr(make_site, "ROOT", tmp_path)
    led = make_site._led("../experiments/table.md", tmp_path / "docs", "results.md")
    assert led == "]()<experiments/table.md>"


def test_a_page_outside_the_navigation_is_refused(tmp_path, monkeypatch):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/lost.md").write_text("# Lost")
    monkeypatch.setattr(make_site, "GATHERED", tmp_path)
    (line,) = make_site.outside_navigation()
    assert line == "lost.md is not in the navigation of docs/site/zensical.toml"


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="b.html#here">', None),
        ('<a href="https://example.org">', None),
        ('<a href="c.html">', "a.html leads to c.html, which is not there"),
        ('<a href="b.html#gone">', "a.html leads to b.html#gone: that page has no such heading"),
        ('<img src="c.png">', "a.html leads to c.png, which is not there"),
        ('<script src="https://example.org/x.js">', "a.html loads https://example.org/x.js"),
    ],
)
def test_dead_links_and_what_needs_a_network_are_refused(html, said, tmp_path):
    (tmp_path / "a.html").write_text(html)
    (tmp_path / "b.html").write_text('<h2 id="here">Here</h2>')
    lines = list(make_site.faults(tmp_path))
    assert len(lines) == (said is not None)
    assert said is None or lines[0].startswith(said)


# --- equations ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tau_mem dv/dt = -(v - v_rest) + r_mem I", ["τmemdvdt", "=−(v−vrest)+rmemI"]),
        ("x_{j,t} = λ_{i,t} x_{j,t−1}", ["xj,t=λi,txj,t−1"]),
        ("where v >= v_th: spike, then reset", ["v≥vth"]),
        ("τ ln(RI / (RI − v_th)) of a spike", ["τln(RI/(RI−vth))"]),
        ("at a spike u ← u + U(1 − u), sends u x", ["u←u+U(1−u)", "ux"]),
        ("exp(-lag / tau_plus)", ["exp(−lag/τplus)"]),
        ("2⁻¹⁶ of x", ["x"]),
        ("spikes of a bfloat16 state, 10 ms", []),
    ],
)
def test_what_is_mathematics_is_set_and_words_stay_words(text, said):
    assert math(equations.inline(text)) == said
    words = re.sub(r"<math.*?</math>", "", equations.inline(text))
    for word in re.findall(r"[A-Za-z]{5,}", words):
        assert word in text


def test_subscripts_fractions_and_powers_are_elements_of_their_own():
    set_ = equations.inline("τ dv/dt = Σ_j g_ij x^2")
    assert (
        "<mfrac><mrow><mi>d</mi><mi>v</mi></mrow><mrow><mi>d</mi><mi>t</mi></mrow></mfrac>" in set_
    )
    assert "<msub><mi>g</mi><mrow><mi>i</mi><mi>j</mi></mrow></msub>" in set_
    assert "<msup><mi>x</mi><mrow><mn>2</mn></mrow></msup>" in set_


@pytest.mark.parametrize(
    ("block", "is_one"),
    [
        ("    dw = a z_post x_pre", True),
        ("    standard deviation / mean,    over all intervals", False),
        ("    python -m experiments.learn --learner dfa", False),
        ("    hook=lambda epoch, seen: None", False),
        ("    picture → h1 ⟲ → h2", False),
    ],
)
def test_indented_blocks_are_told_apart(block, is_one):
    assert equations.is_equation(block) == is_one


def test_every_equation_of_the_site_is_well_formed(pages):
    found = [text for page in pages.values() for text in math(page)]
    assert len(found) > 400
    assert not [text for text in found if "`" in text or "](" in text]
