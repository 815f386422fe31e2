"""Long tests of bad luck: `make torture`. Counts of what was tried are printed at the end."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Files whose tests say themselves which of them are long.
_SAY_THEMSELVES = ("test_calls.py", "test_command_lines.py", "test_hostile_data.py")
_COUNTS = pytest.StashKey[Counter]()


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents and item.path.name not in _SAY_THEMSELVES:
            item.add_marker(pytest.mark.slow)


def pytest_configure(config):
    config.stash[_COUNTS] = Counter()


@pytest.fixture(scope="session")
def counts(pytestconfig) -> Counter:
    """What was tried, by its name: printed when all is done."""
    return pytestconfig.stash[_COUNTS]


def pytest_terminal_summary(terminalreporter, config):
    counts = config.stash[_COUNTS]
    if counts:
        terminalreporter.section("what was tried")
        for name in sorted(counts):
            terminalreporter.line(f"{counts[name]:6}  {name}")


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """Also by runs of tests in the background, which is to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory) -> dict[str, str]:
    """The environment of a user who keeps compiled programs, so that runs are short."""
    kept = {name: x for name, x in os.environ.items() if not name.startswith(("JAX", "XLA"))}
    return kept | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
