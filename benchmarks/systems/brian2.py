"""Brian2, as C++ compiled as a whole (standalone mode)."""

from functools import partial

from benchmarks import sparse_network, workloads
from benchmarks.workloads import Case

PACKAGES = ("brian2",)


def sparse(kind: str) -> Case:
    runs = sparse_network.brian2(*workloads.SPARSE, watched=1000, kind=kind)
    return Case(
        lambda: next(runs)[0],
        lambda: {"rates": [sparse_network.per_step(next(runs)[1])]},
        "float64; its program notes the seconds of the run itself",
        calls=1,
    )


CASES = {name: partial(sparse, name) for name in ("W4", "W10", "W13")}
