"""Save and restore a training state with orbax, whole and as it was saved, or not at all.

A step is a folder: the arrays as orbax writes them, and `checkpoint.json`, which holds the
metadata, the kind of each array, and the SHA-256 of every file. Nothing is read from a step in
which a single bit has changed: the one before it takes its place, with a warning.
"""

import errno
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from neurojax._check import count
from neurojax._files import located, naming, plain, sealed, unsealed, write_whole
from neurojax._quiet import quiet

__all__ = ["latest", "metadata", "restore", "save"]

# orbax is imported where it is needed: it is slow to import.

State = TypeVar("State")
_KEEP = 2
_FORMAT = 2  # 1: keys as orbax writes them
_ABOUT, _STATE = "checkpoint.json", "state"
_UNFINISHED = ".unfinished-"  # a step that is being written, or taken away


def save(directory: str | os.PathLike[str], step: int, state: Any, metadata: dict) -> None:
    """Write the state of `step`, and return when it is on disk; the last two are kept.

    `state` is any pytree of arrays, typed keys among them; `metadata` is what JSON can hold
    (a configuration, say) and belongs to this step. A process killed at any moment leaves the
    steps that were whole before. One process at a time saves to a directory.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nj.checkpoint.save(folder, 3, {"w": jnp.ones(2)}, {"rate": 0.1})
    ...     step, state, about = nj.checkpoint.restore(folder, {"w": jnp.zeros(2)})
    >>> step, state["w"].tolist(), about
    (3, [1.0, 1.0], {'rate': 0.1})

    Raises `ValueError` for a step that is no whole number above the last whole one, for a leaf
    that is not an array of numbers, and for metadata with a number that is not finite;
    `TypeError` for metadata that is no dict or that JSON cannot hold; `OSError` naming the
    directory if it cannot be written, as on a full disk.
    """
    folder, step = _path(directory), _number(step)
    _refuse_metadata(metadata)
    leaves = _named_leaves(state)
    kinds = {name: _kind(x) for name, x in leaves.items()}
    stale = [at for at in _steps(folder) if at >= step]
    last = _look(folder)[0] if stale else None
    if last and last.step >= step:
        raise ValueError(f"step must be > {last.step}, the last one saved; got {step}")
    content = {"format": _FORMAT, "metadata": metadata, "leaves": kinds}
    new = folder / f"{_UNFINISHED}{step}"
    with naming(directory):
        _sweep(folder)
        try:
            _write(new / _STATE, _raw(_not_empty(leaves)))
            write_whole(new / _ABOUT, sealed(content | {"files": _digests(new)}))
            for damaged in stale:
                _take_away(folder, damaged)
            new.rename(folder / str(step))
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _sync(folder)
        for old in _steps(folder)[_KEEP:]:
            _take_away(folder, old)


def restore(directory: str | os.PathLike[str], template: State) -> tuple[int, State, dict]:
    """The last whole step saved, its state bit for bit, and its metadata.

    `template` is a state of the same structure, shapes and dtypes; each array comes back with
    the sharding it has there. Warns where a later step is damaged. Raises `FileNotFoundError`
    if there is nothing to restore, and `ValueError` naming the leaf that differs, the files that
    are damaged if no step is whole, or a format that only a later version reads.
    """
    leaves = _named_leaves(template)
    found = _existing(directory)
    _refuse_different(found.about["leaves"], {name: _kind(x) for name, x in leaves.items()})
    arrays = _read(found.path / _STATE, _raw(_not_empty(leaves)))
    restored = [
        _placed(arrays[name], x) if x.size else jnp.empty(x.shape, x.dtype)
        for name, x in leaves.items()
    ]
    state = jax.tree.unflatten(jax.tree.structure(template), restored)
    return found.step, state, found.about["metadata"]


def metadata(directory: str | os.PathLike[str]) -> dict:
    """The metadata of the step that `restore` takes, without its state; refuses as it does."""
    return _existing(directory).about["metadata"]


def latest(directory: str | os.PathLike[str]) -> int | None:
    """The step that `restore` takes, or None where nothing was saved; warns as it does.

    Raises `ValueError` where steps were saved of which none is whole.
    """
    try:
        return _existing(directory).step
    except FileNotFoundError:
        return None


# --- steps ---


class _Step(NamedTuple):
    step: int
    path: Path
    about: dict[str, Any]


def _path(directory: Any) -> Path:
    """The folder, absolute as orbax wants it."""
    path = located("directory", directory)
    if path.exists() and not path.is_dir():
        raise ValueError(f"directory must be the path of a folder; got {str(path)!r}, a file")
    return path


def _number(step: Any) -> int:
    step = step if type(step) is int else count("step", 0)(step)
    if not 0 <= step < 2**63:
        raise ValueError(f"step must be >= 0 and less than 2**63; got {step}")
    return step


def _steps(folder: Path) -> list[int]:
    """All that have been saved, damaged or not, the newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    numbers = [int(name) for name in names if name.isascii() and name.isdigit()]
    return sorted((step for step in numbers if str(step) in names), reverse=True)


def _existing(directory: str | os.PathLike[str]) -> _Step:
    """The step to take; warns of those after it."""
    found, faults = _look(_path(directory))
    where = repr(os.fspath(directory))
    if found and faults:
        told = f"damaged checkpoint in {where}: {', '.join(faults)}"
        warnings.warn(f"{told}; step {found.step} takes its place", stacklevel=3)
    if found:
        return found
    if faults:
        cure = "take them from a copy, or remove the directory to begin anew"
        raise ValueError(f"no checkpoint in {where} is whole: {', '.join(faults)}; {cure}")
    raise FileNotFoundError(f"directory must hold a checkpoint; got {where}, which has none")


def _look(folder: Path) -> tuple[_Step | None, list[str]]:
    """The last step in which every file is as it was saved, and what is wrong after it."""
    faults = []
    for step in _steps(folder):
        try:
            return _Step(step, folder / str(step), _verified(folder / str(step))), faults
        except _Damaged as damage:
            faults.append(f"step {step} ({damage})")
    return None, faults


class _Damaged(Exception):
    """What is wrong with a step."""


def _verified(step: Path) -> dict[str, Any]:
    """What a step says of itself, once each of its files has the digest it had."""
    try:
        about = unsealed(step / _ABOUT)
    except FileNotFoundError:
        raise _Damaged(f"{_ABOUT} is missing") from None
    except ValueError:
        raise _Damaged(f"{_ABOUT} has changed") from None
    if about["format"] > _FORMAT:
        raise ValueError(
            f"{str(step)!r} was made by neurojax checkpoint format {about['format']}; this one"
            f" reads up to {_FORMAT}: upgrade neurojax"
        )
    if about["format"] < _FORMAT:
        raise ValueError(
            f"{str(step)!r} was made by neurojax checkpoint format {about['format']}; this one"
            f" reads {_FORMAT}: go on with the neurojax that made it, or begin anew"
        )
    for name, digest in about["files"].items():
        try:
            changed = _digest(step / name) != digest
        except OSError as error:
            raise _Damaged(f"{name}: {error.strerror}") from None
        if changed:
            raise _Damaged(f"{name} has changed")
    return about


def _digests(step: Path) -> dict[str, str]:
    """Of each file, by its path within the step."""
    files = sorted(path for path in step.rglob("*") if path.is_file())
    return {path.relative_to(step).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with plain(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """A folder without what processes that were killed have left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_UNFINISHED}*"):
        _remove(left)


def _take_away(folder: Path, step: int) -> None:
    """At once, so that a half-deleted step is none."""
    left = folder / f"{_UNFINISHED}old-{step}"
    (folder / str(step)).rename(left)
    _remove(left)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _sync(folder: Path) -> None:
    """Force a new name in a folder to the disk, where folders can be opened."""
    if os.name == "posix":
        at = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(at)
        finally:
            os.close(at)


# --- orbax ---


def _write(path: Path, arrays: dict[str, Any]) -> None:
    import orbax.checkpoint as ocp

    path.parent.mkdir()
    if not arrays:
        return
    with quiet(), _orbax() as orbax:
        try:
            orbax.save(path, args=ocp.args.StandardSave(arrays))
        except Exception as error:  # noqa: BLE001 - from tensorstore as a ValueError with a report
            raise _as_full(error) from None


def _orbax() -> Any:
    """What writes and reads, in this process alone however many train together."""
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.StandardCheckpointHandler())
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _as_full(error: Exception) -> Exception:
    """An error of a full disk as Python has it."""
    for code in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(code) in str(error):
            return OSError(code, os.strerror(code))
    return error


def _read(path: Path, template: dict[str, Any]) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    if not template:
        return {}
    wanted = {name: _abstract(x) for name, x in template.items()}
    with quiet(), _orbax() as orbax:
        return orbax.restore(path, args=ocp.args.StandardRestore(wanted))


def _refuse_metadata(metadata: Any) -> None:
    """Raises here, not when a training is to go on."""
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict; got {metadata!r:.80}")
    try:
        kept = json.dumps(metadata, allow_nan=False)
        names = _kinds_of_names(metadata)
    except ValueError as error:
        raise ValueError(f"metadata must be what JSON can hold; {error}") from None
    except RecursionError:
        raise ValueError("metadata must be what JSON can hold; it is nested too deep") from None
    if names - {str}:
        raise TypeError(f"metadata must have strings as keys; got {kept:.80}")


def _kinds_of_names(content: Any) -> set[type]:
    if isinstance(content, dict):
        inside = (_kinds_of_names(x) for x in content.values())
        return {type(name) for name in content}.union(*inside)
    if isinstance(content, list | tuple):
        return set().union(*(_kinds_of_names(x) for x in content))
    return set()


# --- leaves ---


def _named_leaves(state: Any) -> dict[str, Any]:
    """Each array of the state by its path, such as `.weights['ff'].w`."""
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(state)}
    for name, x in leaves.items():
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ValueError(f"state{name} must be an array; got {type(x).__name__}")
        if isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "OSUMm":
            raise ValueError(f"state{name} must be an array of numbers; got {x.dtype}")
        if isinstance(x, Tracer):
            raise ValueError(f"state{name} must be known: save and restore outside jax.jit")
    return leaves


def _kind(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _refuse_different(saved: dict[str, str], wanted: dict[str, str]) -> None:
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            allowed = f"{saved[name]} as saved" if name in saved else "absent, as it was not saved"
            raise ValueError(f"state{name} must be {allowed}; got {wanted.get(name, 'nothing')}")


def _not_empty(leaves: dict[str, Any]) -> dict[str, Any]:
    """Arrays with something in them: orbax takes no others."""
    return {name: x for name, x in leaves.items() if x.size}


def _abstract(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    sharding = getattr(x, "sharding", None) or device
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _raw(leaves: dict[str, Any]) -> dict[str, Any]:
    """Arrays as orbax is given them: keys as their data; of several processes' on the host."""
    data = {n: jax.random.key_data(x) if _is_key(x) else x for n, x in leaves.items()}
    return data if jax.process_count() == 1 else {n: np.asarray(x) for n, x in data.items()}


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _placed(found: Any, template: Any) -> Any:
    """The array found, bound to no device where the template is not: orbax binds each."""
    if _is_key(template):
        data = _placed(found, jax.random.key_data(template))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(template))
    if isinstance(template, np.ndarray | np.generic) or getattr(template, "committed", False):
        return found
    return jnp.asarray(np.asarray(found))


def __dir__() -> list[str]:
    return __all__
