"""Several processes, on one machine or on many, that work as one by JAX's own runtime.

All compute the same; the first one alone reads and writes --out. Where one ends before its time
the others end too, in one line, and the same commands with --resume go on.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _folder, _join, _run
from neurojax.data import Dataset

_LOST = ("Gloo", "coordination", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Connection closed")
_APART = ("out", "data_dir", "process_id", "resume", "overwrite")


@dataclass(frozen=True)
class Hosts:
    """Processes that work as one, each started with the same options but its --process-id."""

    coordinator: str | None = None
    """HOST:PORT of the first process; auto: what SLURM or another cluster says of all three."""
    num_processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which one this is, from 0; the first writes --out."""

    whole: ClassVar = dict(num_processes=(1, _run.MANY), process_id=(0, _run.MANY))


def check(c: Any) -> None:
    """Refuse options that do not say who is who."""
    whose = {"--num-processes": c.num_processes, "--process-id": c.process_id}
    if c.coordinator in (None, "auto"):
        for option, value in whose.items():
            if value is not None:
                need = "--coordinator HOST:PORT"
                raise ValueError(
                    f"{option} needs {need}; got {value} and {c.coordinator or 'none'}"
                )
    else:
        _join.require_address(c.coordinator)
        for option, value in whose.items():
            if value is None:
                raise ValueError(f"{option} must be given beside --coordinator; got none")
        _run.require_whole(c, process_id=(0, c.num_processes - 1))
    if c.coordinator is not None and getattr(c, "processors", 1) != 1:
        raise ValueError(
            f"--processors must be left out beside --coordinator, as all are used; got"
            f" {c.processors}"
        )


@contextmanager
def joined(c: Any) -> Iterator[None]:
    """With all others, where there are any; whatever goes wrong ends this process in one line."""
    if c.coordinator is None:
        yield
        return
    _join.meet(c.coordinator, c.num_processes, c.process_id)
    try:
        yield
        _together(b"end")
        _leave()
    except BaseException as error:  # noqa: BLE001 - none is left to wait for the others
        _join.end(_told(error, type(c)))


def _leave() -> None:
    """Leave the others; the first goes last, since what all of them speak to ends with it."""
    from jax.experimental.multihost_utils import live_devices

    if first():
        with live_devices(jax.devices()):  # waits for every other that has not left
            pass
    jax.distributed.shutdown()


def _told(error: BaseException, config: type) -> str:
    text = str(error)
    if any(word in text for word in _LOST):
        return _join.LOST
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return _run.in_options(text, config)
    return f"{type(error).__name__}: {text:.300}"


def first() -> bool:
    """Whether this process writes."""
    return jax.process_index() == 0


def told() -> dict[str, Any]:
    """How progress is shown: by the first process, in stretches that all agree on."""
    return {"quiet": not first(), "agreed": agreed}


def _together(mine: bytes) -> list[bytes]:
    """Digests of what all processes have, in their order."""
    from jax.experimental.multihost_utils import process_allgather

    digest = np.frombuffer(hashlib.sha256(mine).digest(), np.uint8)
    return [row.tobytes() for row in np.asarray(process_allgather(digest)).reshape(-1, 32)]


def refuse_different(c: Any, sets: Dataset | None = None) -> None:
    """Refuse processes that were started with other options or other pictures than the first."""
    asked = {k: v for k, v in _folder.jsonable(c).items() if k not in _APART}
    pictures = None if sets is None else _folder.fingerprint(sets)
    found = _together(json.dumps([asked, pictures], sort_keys=True).encode())
    other = [i for i, digest in enumerate(found) if digest != found[0]]
    if other:
        what = "options" if sets is None else "options and pictures"
        raise ValueError(
            f"processes must be started with the same {what}; process {other[0]} has others than"
            " process 0"
        )


def agreed(tree: Any) -> Any:
    """What the first process has, for all; arrays on the host."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    leaves, structure = jax.tree.flatten(tree)
    held = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in leaves]
    raw = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in held]
    told = [np.asarray(x) for x in broadcast_one_to_all(raw)]
    new = [
        jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(old)) if is_key(old)
        else jnp.asarray(x)
        for x, old in zip(told, held, strict=True)
    ]  # fmt: skip
    return jax.tree.unflatten(structure, new)


def of_first(x: Any) -> Any:
    """What the first process has of what JSON holds, for all."""
    raw = np.frombuffer(json.dumps(x).encode() if first() else b"", np.uint8)
    told = np.zeros(int(agreed(np.int32(raw.size))), np.uint8)
    told[: raw.size] = raw
    return json.loads(np.asarray(agreed(told)).tobytes())


class Follower:
    """In place of the folder, in a process that writes nothing."""

    def begin(self) -> None:
        """Nothing is there."""

    def last(self, state: Any) -> tuple[int, Any, _folder.History]:
        """As it begins; what the first process goes on from is told by `agreed`."""
        return 0, state, _folder.History()

    def save(self, epoch: int, state: Any, history: Any) -> None:
        """The first process does."""

    def part(self, name: str) -> None:
        """What is there is told by `of_first`."""

    def keep(self, name: str, rows: list[dict[str, Any]]) -> None:
        """The first process does."""

    def finish(self, metrics: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
        """The same metrics."""
        return metrics


@contextmanager
def held(c: Any, sets: Dataset | None = None, may_grow: tuple[str, ...] = ()) -> Iterator[Any]:
    """The folder of the run, in the first process."""
    if c.coordinator is not None and not first():
        yield Follower()
        return
    with _folder.held(c, sets, may_grow=may_grow) as folder:
        yield folder
