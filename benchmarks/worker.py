"""A process that holds one workload of one system, and times it when it is asked to.

    python -m benchmarks.worker SYSTEM WORKLOAD

Says a line of JSON when it is ready, with the milliseconds from the start of building to the
first result, then one for each line that it reads: milliseconds of each call. So systems take
turns, each in an environment of its own, and drift of the machine hits all alike.
"""

import importlib
import json
import os
import resource
import sys
import time
from importlib import metadata

from benchmarks.workloads import ONE_CORE, Case


def timed(case: Case) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    known = case.run()
    return 1e3 * (known if isinstance(known, float) else time.perf_counter() - begin)


def peak_mb() -> float:
    """The largest that this process or one that it called has been, MB."""
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return max(resource.getrusage(x).ru_maxrss for x in who) * 1024 / 1e6


def hold_to_one_core() -> None:
    """This process, its threads and its children; JAX then starts no more threads than that."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(system: str, workload: str) -> None:
    """Serve until there is no more to read."""
    say = lambda **what: print(json.dumps(what), file=out, flush=True)  # noqa: E731
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries and their children print is not an answer
    if workload in ONE_CORE:
        hold_to_one_core()
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
    try:
        main(*sys.argv[1:])
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a line of the table
        print(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        sys.exit(1)
