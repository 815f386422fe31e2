"""Brian2, as C++ compiled as a whole (standalone mode)."""

from functools import partial

from benchmarks import balanced, sparse_network, workloads
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


def one_core(name: str) -> Case:
    runs = balanced.brian2(name)
    return Case(
        lambda: next(runs)[0],
        lambda: {"rates": [next(runs)[1]]},
        f"float64, {balanced.METHODS[name]}; its program notes the seconds of the run itself",
        calls=1,
    )


CASES = {name: partial(sparse, name) for name in ("W4", "W10", "W13")}
CASES |= {name: partial(one_core, net) for name, net in workloads.BALANCED.items()}
