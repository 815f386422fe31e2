"""The mutation tester: which faults it makes, and which of them a toy's tests let through."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

TOOL = Path(mutants.__file__)


def faults(line):
    """What comes in place of one line of code."""
    source = line.encode()
    return {m.applied(source).decode() for m in mutants.mutants("toy.py", source)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a < b", {"(a <= b)", "(a >= b)"}),
        ("a in b", {"(a not in b)"}),
        ("a - b", {"(a + b)"}),
        ("x[~m]", {"x[(m)]"}),
        ("a and b", {"(a or b)"}),
        ("-x", {"(x)"}),
        ("x[3]", {"x[(4)]", "x[(2)]"}),
        ("r = 0.5", {"r = (1.0)", "r = (0.0)"}),
        ("on = True", {"on = (False)"}),
        ("a.pre", {"(a.post)"}),
        ("y = x.sum(n)", {"y = (x.mean)(n)", "y = (x)"}),
        ("y = f(a, b)", {"y = (a)", "y = (f(b, a))"}),
        ("import n\ny = n.maximum(a, b)", {"import n\ny = (n.minimum)(a, b)", "import n\ny = (a)"}),
        ("y = f(k=a)", {"y = (f())"}),
        ("y = f(dt=d)", {"y = (f())", "y = (f(dt=1.0))"}),
        ("y = checked('x', a)", {"y = (a)"}),
        ("f(a)", {"pass", "(a)"}),
        ("a if b else c", {"a if (not b) else c"}),
        ("[a for a in b if a]", {"[a for a in b if (not a)]"}),
    ],
)
def test_a_fault_is_a_small_change(line, expected):
    assert faults(line) == expected


@pytest.mark.parametrize(
    "code",
    [
        '"""Says 1 + 1."""',
        "import a.b",
        "x: Float[Array, 'n'] | None",
        "def f(x: A | B) -> C | D: x",
        "f'{a + b}'",
        "__all__ = [*a, *f(b)]",
        "@cached(1)\ndef f(): x",
        "x = f(static=True, strict=True)",
    ],
)
def test_what_is_not_calculated_is_left_alone(code):
    assert faults(code) == set()


def test_a_message_is_left_alone_but_its_raise_is_not():
    assert faults("if a is None:\n    raise E(1 + 1)") == {
        "if (a is not None):\n    raise E(1 + 1)",
        "if a is None:\n    pass",
    }


def test_each_fault_is_a_module_of_its_own():
    source = (mutants.ROOT / "neurojax/plasticity/traces.py").read_bytes()
    found = mutants.mutants("neurojax/plasticity/traces.py", source)
    changed = {ast.dump(ast.parse(m.applied(source))) for m in found}
    assert len(changed) == len(found) > 20
    assert ast.dump(ast.parse(source)) not in changed


TOY = """
def dose(x, most):
    if most < 0:
        raise ValueError(f"most must be >= 0; got {most}")
    return 2 * x if x <= most else most
"""
TESTS = """
import pytest
from toy import dose


def test_dose():
    assert dose(2, 3) == 4
    assert dose(5, 3) == 3


def test_refused():
    with pytest.raises(ValueError):
        dose(1, -1)
"""
EQUIVALENT = """
# no comment is a name
toy.py dose: if {most < 0 -> most <= 0}:
toy.py dose: if {x - 1 -> x + 1}:
    one reason
    of two lines
"""


@pytest.fixture
def toy(tmp_path):
    """Survivors and the last line, of the toy with `options`."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "tests" / "test_toy.py").write_text(TESTS)
    (tmp_path / "tests" / "mutants.txt").write_text(EQUIVALENT)
    code = "import mutants; mutants.IMPORTED, mutants.PATIENCE = ('pytest',), 0; mutants.main()"
    environment = os.environ | {
        "PYTHONPATH": str(TOOL.parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }

    def run(*options):
        argv = [sys.executable, "-c", code, "toy.py", "--root", str(tmp_path), *options]
        got = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert got.returncode == 0, got.stderr
        *survivors, last = got.stdout.splitlines()
        return survivors, last

    return run


@pytest.mark.slow
def test_survivors_are_those_that_no_value_tells(toy):
    survivors, last = toy()
    assert survivors == [
        "no such mutant any more: toy.py dose: if {x - 1 -> x + 1}:",
        # no test has most = 0, none x = most
        "toy.py:3 dose: if most < {0 -> 1}:",
        "toy.py:5 dose: return 2 * x if {x <= most -> x < most} else most",
    ]
    assert last.startswith("toy.py: killed 7 of 9 (77.8%) out of 10, 1 equivalent")


@pytest.mark.slow
def test_what_never_ends_is_killed(toy, tmp_path):
    (tmp_path / "toy.py").write_text("def down(x):\n    while x:\n        x -= 1\n    return x\n")
    test = "from toy import down\n\n\ndef test_down():\n    assert down(3) == 0\n"
    (tmp_path / "tests" / "test_toy.py").write_text(test)
    _, last = toy()  # `x += 1`, `x -= 2` and `x -= 0` go on for ever
    assert last.startswith("toy.py: killed 4 of 4 (100.0%)")
