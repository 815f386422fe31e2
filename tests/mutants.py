"""Plants faults in a module, one at a time, and prints those that its tests let through.

    python tests/mutants.py hardware/routing.py --sample 100 --seed 1
    make mutants MODULES="neurojax/plasticity/stdp.py hardware" SAMPLE=100

A fault ("mutant") is one small change of an expression or a statement: `<` to `<=`, `+` to `-`,
a number to the next one, a keyword argument left out, `f(x)` to `x`, a `raise` to `pass`, `pre`
to `post`. The tests that mirror the module, or those that `TESTS` names, run on it until one
fails, slow ones too: those that run the changed line come first. One that survives is printed as

    hardware/routing.py:321 _bits: return (n - {1 -> 2}).bit_length()

and asks for a test of the value that it changes, or, where no value can tell, for an entry in
`tests/mutants.txt`: the same without the line number, and below it, indented, the reason. What
takes much longer than the tests on the true module counts as killed. The same seed draws the
same sample of a module that did not change.

Tools that are widely used do not fit. mutmut 3 skips decorated functions, so all that is
jitted, and forks from a process whose compiled programs know nothing of the fault; cosmic-ray
starts JAX and compiles everything anew for each. Here a process that has imported JAX, but
started no backend, forks one child a fault, with its own copy of the tree and the compiled
programs of the true module: seconds each.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults import Mutant, mutants

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "pytest", "jax", "equinox", "optax", "hypothesis", "networkx", "scipy.stats", "rich", "tyro",
    "sklearn.linear_model", "matplotlib.pyplot", "orbax.checkpoint", "beartype", "xdist",
)  # fmt: skip
PATIENCE = 10  # seconds of the processor, beyond three times what the true module takes
# Where tests of another name cover a module.
_PARAMETERS = "tests/plasticity/test_rule_parameters.py"
_RULES = ["tests/plasticity/test_rules.py", "tests/plasticity/test_rules_running.py"]
TESTS = {
    "neurojax/plasticity/_trace.py": [_PARAMETERS, *_RULES],
    "neurojax/plasticity/dependence.py": [_PARAMETERS, *_RULES],
    "neurojax/plasticity/inhibitory.py": [_PARAMETERS, *_RULES],
    "neurojax/plasticity/triplet.py": [_PARAMETERS, *_RULES],
    "neurojax/plasticity/stdp.py": [_PARAMETERS, "tests/plasticity/test_stdp.py", _RULES[0]],
    "hardware/pcm.py": [
        f"tests/hardware/test_{n}.py" for n in ("pcm", "device_parameters", "devices")
    ],
    "hardware/crossbar.py": [
        f"tests/hardware/test_{n}.py" for n in ("crossbar", "device_parameters", "pcm")
    ],
    "hardware/topology.py": ["tests/hardware/test_topology.py", "tests/hardware/test_routing.py"],
    "neurojax/learning/wta_broadcast.py": ["tests/learning/test_learning.py"],
    "neurojax/learning/_system.py": ["tests/learning/test_learning.py"],
    **{
        f"neurojax/learning/{name}.py": [
            "tests/learning/test_perceptron.py",
            "tests/learning/test_perceptron_rules.py",
        ]
        for name in (
            "backprop",
            "direct_feedback",
            "direct_target",
            "feedback_alignment",
            "node_perturbation",
            "pepita",
            "predictive_coding",
        )
    },
    **{
        f"neurojax/interchange/{name}.py": ["tests/interchange/test_nir_writing.py"]
        for name in ("_exporting", "_nodes", "_reducing")
    },
    "neurojax/wiring/_events_triton.py": ["tests/wiring/test_events_gpu.py"],
    "experiments/_gated.py": ["tests/experiments/test_modulators.py"],
    "neurojax/_check.py": ["tests/neurons/test_leaky.py", "tests/plasticity/test_three_factor.py"],
    "neurojax/layers.py": ["tests/test_network.py"],
    "neurojax/wiring/layouts.py": ["tests/test_network.py", "tests/wiring/test_generators.py"],
    "neurojax/wiring/sparse.py": ["tests/wiring/test_sparse_network.py", "tests/test_network.py"],
    "experiments/_small_world.py": ["tests/experiments/test_routing_cost.py"],
}


# --- whether a test sees it ---


class Listener:
    """Plugin of pytest: notes which lines of a file each test runs, and how long it takes."""

    def __init__(self, file: Path):
        self.file, self.seen = str(file), {}

    def pytest_runtest_protocol(self, item):
        """The test begins; returns nothing, so that pytest goes on to run it."""
        lines: set[int] = set()

        def line(frame, event, _):
            lines.add(frame.f_lineno)
            return line

        def call(frame, event, _):
            return line(frame, event, _) if frame.f_code.co_filename == self.file else None

        self.seen[item.nodeid] = [0.0, lines]
        sys.settrace(call)

    def pytest_runtest_logreport(self, report):
        """What fixtures take counts too."""
        self.seen[report.nodeid][0] += report.duration

    def pytest_runtest_logfinish(self):
        """The test is over."""
        sys.settrace(None)


class Order:
    """Plugin of pytest: tests that run the changed lines come first, quick ones before slow."""

    def __init__(self, seen: dict[str, list], lines: range):
        self.seen, self.lines = seen, set(lines)

    def pytest_collection(self):
        """A failure is enough: no search for a simpler one."""
        if "hypothesis" in sys.modules:
            from hypothesis import Phase, settings

            settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])
            settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items):
        """Tests that are not known, as the fault gave them another name, come last."""

        def place(item):
            seconds, lines = self.seen.get(item.nodeid, (0.0, ()))
            return not lines, self.lines.isdisjoint(lines), seconds

        items.sort(key=place)


class Tree:
    """A copy of the tree, in which one module at a time is wrong."""

    def __init__(self, root: Path, copy: Path):
        self.copy = copy
        left_out = shutil.ignore_patterns(".*", "runs", "results", "notebooks", "__pycache__")
        shutil.copytree(root, copy, ignore=left_out, dirs_exist_ok=True)

    def run(self, files: list[str], plugin: Any, limit: float = 3600) -> int | None:
        """What pytest returns in a child process; None after `limit` seconds of the processor.

        Or after 20 times as long, on whatever else it waits.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks; no thread of its own runs yet
            child = os.fork()
        if not child:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
            code = 70
            if not isinstance(plugin, Listener):  # bytecode of the true module serves all others
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                sys.dont_write_bytecode = True
            try:
                code = self._tested(files, plugin)
            except BaseException:  # noqa: BLE001  (it must not go on as a second parent)
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
        end = time.monotonic() + 20 * limit
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return None if code == -signal.SIGKILL else code
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def _tested(self, files: list[str], plugin: Any) -> int:
        import pytest

        with open(self.copy / ".said", "w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.chdir(self.copy)
        sys.path[0] = str(self.copy)  # was that of this file
        quiet = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = pytest.main(["-x", "-q", "-m", "", *quiet, *files], [plugin])
        if isinstance(plugin, Listener):
            seen = {name: [t, sorted(lines)] for name, (t, lines) in plugin.seen.items()}
            (self.copy / ".seen").write_text(json.dumps(seen))
        return int(code)

    def seen(self, module: str, files: list[str]) -> dict[str, list]:
        """Seconds and lines of each test on the true module; programs are kept from here on."""
        if self.run(files, Listener(self.copy / module)):
            raise SystemExit(f"{files} fail before any fault:\n{(self.copy / '.said').read_text()}")
        return json.loads((self.copy / ".seen").read_text())

    def survives(self, mutant: Mutant, files: list[str], seen: dict, limit: float) -> bool:
        """Whether all tests pass on the module with the fault in it."""
        file, kept = self.copy / mutant.module, set(self._programs())
        true, when = file.read_bytes(), file.stat()
        file.write_bytes(mutant.applied(true))
        try:
            return self.run(files, Order(seen, mutant.lines), limit) == 0
        finally:
            file.write_bytes(true)
            os.utime(file, ns=(when.st_atime_ns, when.st_mtime_ns))  # so its bytecode is valid
            for program in set(self._programs()) - kept:
                program.unlink(missing_ok=True)

    def _programs(self) -> Iterator[Path]:
        return (self.copy / ".programs").glob("*")


# --- what was asked for ---


def equivalent(text: str) -> dict[str, str]:
    """Names of mutants that no value tells from the true module, and the reason of each.

    One or more names, a line each, then the reason, indented; `#` begins a comment.
    """
    reasons, names = {}, []
    for begins, lines in itertools.groupby(
        (line for line in text.splitlines() if line.strip() and not line.startswith("#")),
        key=lambda line: not line[0].isspace(),
    ):
        if begins:
            names = list(lines)
        else:
            reasons |= dict.fromkeys(names, " ".join(line.strip() for line in lines))
    return reasons


def tests_of(root: Path, module: str) -> list[str]:
    """Those that mirror the module: tests/hardware/test_energy.py for hardware/energy.py."""
    path = Path(module)
    mirror = Path("tests", *path.parts[:-1], f"test_{path.stem.lstrip('_')}.py")
    inner = Path("tests", *path.parts[1:-1], mirror.name)
    found = [p for p in (mirror, inner) if (root / p).exists()]
    rooms = {root / p.parent for p in found} - {root / "tests"}  # and what all its models share
    found += [p.relative_to(root) for r in rooms for p in r.glob("test_*_parameters.py")]
    return TESTS.get(module) or [str(p) for p in found]


def modules_of(root: Path, names: list[str]) -> list[str]:
    """Modules, and all in a folder."""
    for name in names:
        if not (root / name).exists():
            raise SystemExit(f"no such module: {root / name}")
    found = [sorted((root / n).rglob("*.py")) if (root / n).is_dir() else [root / n] for n in names]
    return [str(p.relative_to(root)) for p in itertools.chain(*found) if p.name != "__init__.py"]


def examine(tree: Tree, module: str, known: dict[str, str], sample: int | None, seed: int) -> None:
    """Print the survivors of one module, and how many there are."""
    everything = mutants(module, (tree.copy / module).read_bytes())
    for name in known.keys() - {m.name for m in everything}:
        if name.startswith(f"{module} "):
            print(f"no such mutant any more: {name}", flush=True)
    chosen = [m for m in everything if m.name not in known]
    alike = len(everything) - len(chosen)
    if sample is not None and sample < len(chosen):
        chosen = random.Random(f"{seed} {module}").sample(chosen, sample)
        chosen.sort(key=lambda m: m.start)
    files = tests_of(tree.copy, module)
    if not files:
        print(f"{module}: no tests mirror it; name them in TESTS of {__file__}", flush=True)
        return
    begin, busy = time.monotonic(), os.times().children_user
    seen = tree.seen(module, files)
    limit = PATIENCE + 3 * (os.times().children_user - busy)
    survived = 0
    for mutant in chosen:
        if tree.survives(mutant, files, seen, limit):
            survived += 1
            print(mutant.name.replace(" ", f":{mutant.lines[0]} ", 1), flush=True)
    killed, n = len(chosen) - survived, len(chosen)
    share = f"{100 * killed / n:.1f}%" if n else "-"
    taken = time.monotonic() - begin
    print(f"{module}: killed {killed} of {n} ({share}) out of {len(everything)}, "
          f"{alike} equivalent; {taken:.0f} s", flush=True)  # fmt: skip


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.split("\n")[0])
    parser.add_argument("modules", nargs="+", help="files or folders, relative to the root")
    parser.add_argument("--sample", type=int, help="as many of each module; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the tree")
    options = parser.parse_args()
    root = options.root.resolve()
    listed = root / "tests" / "mutants.txt"
    known = equivalent(listed.read_text()) if listed.exists() else {}
    modules = modules_of(root, options.modules)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        _prepare(Path(folder))
        tree = Tree(root, Path(folder))
        for module in modules:
            examine(tree, module, known, options.sample, options.seed)


def _prepare(folder: Path) -> None:
    """What children inherit: settings, and the imports of others, which take seconds."""
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / ".programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "True",  # as in tests/conftest.py, in other processes
    }
    for name in IMPORTED:
        with warnings.catch_warnings(), contextlib.suppress(ImportError):
            warnings.simplefilter("ignore")
            importlib.import_module(name)


if __name__ == "__main__":
    main()
