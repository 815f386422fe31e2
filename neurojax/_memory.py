"""What would be too large is refused before it is made, by what it would take."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import jax

try:
    import resource
except ImportError:  # not on every system
    resource = None

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def affordable(what: str, n_bytes: int, cure: str = "") -> None:
    """Refuse `what` where its `n_bytes` are more than this machine has."""
    if n_bytes > memory():
        said = f"{what} would take {spelt(n_bytes)}; this machine has {spelt(memory())}"
        raise ValueError(said + (f": {cure}" if cure else ""))


@cache
def memory() -> int:
    """Bytes of memory that this process may use at most."""
    try:
        least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        return 1 << 40
    for path in _LIMITS:
        try:
            least = min(least, int(Path(path).read_text()))
        except (OSError, ValueError):  # there is none, or "max"
            continue
    return min([least, *_given()])


def _given() -> list[int]:
    """What `ulimit` leaves."""
    if resource is None:
        return []
    limits = [resource.getrlimit(k)[0] for k in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return [limit for limit in limits if limit != resource.RLIM_INFINITY]


def nbytes(*trees: Any) -> int:
    """Bytes of all arrays in `trees`: networks, weights, states; one that is met twice counts once.

    What a run holds is that of its network, weights and state, twice the weights where it learns
    and does not give the old ones away (`donate`).

    >>> wiring = nj.by_sender([0, 1, 1], [0, 0, 1], 2, 2)  # 2 bytes a synapse, 4 a sender and 4
    >>> nj.nbytes(wiring), nj.nbytes(nj.Ideal(jnp.ones(3), wiring))
    (18, 30)
    """
    found = {id(x): x.nbytes for x in jax.tree.leaves(trees) if hasattr(x, "nbytes")}
    return sum(found.values())


def spelt(n_bytes: int) -> str:
    """Bytes as one says them: 37 TB."""
    power = min((len(str(n_bytes)) - 1) // 3, len(_UNITS) - 1)
    amount = n_bytes / 1000**power if n_bytes < 10**300 else float("inf")
    return f"{amount:.3g} {_UNITS[power]}" if amount < 1000 else f"over {_UNITS[power]}"
