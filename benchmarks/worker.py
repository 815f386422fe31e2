"""A process that holds one workload of one system, and times it when it is asked to.

    python -m benchmarks.worker SYSTEM WORKLOAD

Says a line of JSON when it is ready, with the milliseconds from the start of building to the
first result, then one for each line that it reads: milliseconds of each call. So systems take
turns, each in an environment of its own, and drift of the machine hits all alike.
"""

import importlib
import json
import resource
import sys
import time
from importlib import metadata

from benchmarks.workloads import Case


def timed(case: Case) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    known = case.run()
    return 1e3 * (known if isinstance(known, float) else time.perf_counter() - begin)


def peak_mb() -> float:
    """The largest that this process has been, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(system: str, workload: str) -> None:
    """Serve until there is no more to read."""
    say = lambda **what: print(json.dumps(what), file=out, flush=True)  # noqa: E731
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    module = importlib.import_module(f"benchmarks.systems.{system}")
    begin = time.perf_counter()
    case = module.CASES[workload]()
    case.run()
    first = 1e3 * (time.perf_counter() - begin)
    versions = {name: metadata.version(name) for name in module.PACKAGES}
    say(first_ms=first, versions=versions, notes=case.notes, **case.facts())
    for _ in sys.stdin:
        say(ms=[timed(case) for _ in range(case.calls)], peak_mb=peak_mb())


if __name__ == "__main__":
    main(*sys.argv[1:])
