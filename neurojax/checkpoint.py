"""Save and restore a training state with orbax, whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from neurojax._check import count
from neurojax._quiet import quiet

__all__ = ["latest", "metadata", "restore", "save"]

# orbax is imported where it is needed: it is slow to import.

State = TypeVar("State")
_KEEP = 2


def save(directory: str | os.PathLike[str], step: int, state: Any, metadata: dict) -> None:
    """Write the state of `step`, and return when it is on disk; the last two are kept.

    `state` is any pytree of arrays, typed keys among them; `metadata` is what JSON can hold
    (a configuration, say) and belongs to this step. A process killed at any moment leaves the
    steps that were whole before.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nj.checkpoint.save(folder, 3, {"w": jnp.ones(2)}, {"rate": 0.1})
    ...     step, state, about = nj.checkpoint.restore(folder, {"w": jnp.zeros(2)})
    >>> step, state["w"].tolist(), about
    (3, [1.0, 1.0], {'rate': 0.1})

    Raises `ValueError` for a step that is no whole number above the last, and for a leaf that is
    not an array, `TypeError` for metadata that is no dict or that JSON cannot hold.
    """
    import orbax.checkpoint as ocp

    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict; got {metadata!r:.80}")
    if not isinstance(step, int) or isinstance(step, bool):
        step = count("step", 0)(step)
    leaves = _named_leaves(state)
    info = {"metadata": metadata, "leaves": {name: _kind(x) for name, x in leaves.items()}}
    json.dumps(info)  # raises here, not in a thread of orbax half-way through
    with _manager(directory, read_only=False) as manager:
        last = manager.latest_step()
        if step <= (-1 if last is None else last):
            allowed = ">= 0" if last is None else f"> {last}, the last one saved"
            raise ValueError(f"step must be {allowed}; got {step}")
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_not_empty(leaves)), info=ocp.args.JsonSave(info)
        )
        manager.save(step, args=args, force=True)


def restore(directory: str | os.PathLike[str], template: State) -> tuple[int, State, dict]:
    """The last step saved, its state bit for bit, and its metadata.

    `template` is a state of the same structure, shapes and dtypes; each array comes back with
    the sharding it has there. Raises `FileNotFoundError` if there is nothing to restore, and
    `ValueError` naming the leaf that differs.
    """
    import orbax.checkpoint as ocp

    leaves = _named_leaves(template)
    with _existing(directory) as (manager, step):
        info = _info(manager, step)
        _refuse_different(info["leaves"], {name: _kind(x) for name, x in leaves.items()})
        wanted = {name: _abstract(x) for name, x in _not_empty(leaves).items()}
        args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        found = manager.restore(step, args=args)["state"]
    restored = [
        _placed(found[name], x) if x.size else jnp.empty(x.shape, x.dtype)
        for name, x in leaves.items()
    ]
    return step, jax.tree.unflatten(jax.tree.structure(template), restored), info["metadata"]


def metadata(directory: str | os.PathLike[str]) -> dict:
    """The metadata of the last step saved, without its state; refuses as `restore` does."""
    with _existing(directory) as (manager, step):
        return _info(manager, step)["metadata"]


def latest(directory: str | os.PathLike[str]) -> int | None:
    """The last step saved, or None."""
    if not Path(directory).is_dir():
        return None
    with _manager(directory, read_only=True) as manager:
        return manager.latest_step()


# --- orbax ---


@contextlib.contextmanager
def _manager(directory: str | os.PathLike[str], *, read_only: bool) -> Iterator[Any]:
    """Orbax's manager, which gives a step its name once it is whole; unfinished ones go."""
    import orbax.checkpoint as ocp

    with quiet():
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEEP,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        with ocp.CheckpointManager(Path(directory).absolute(), options=options) as manager:
            yield manager


@contextlib.contextmanager
def _existing(directory: str | os.PathLike[str]) -> Iterator[tuple[Any, int]]:
    nothing = f"directory must hold a checkpoint; got {os.fspath(directory)!r}, which has none"
    if not Path(directory).is_dir():
        raise FileNotFoundError(nothing)
    with _manager(directory, read_only=True) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(nothing)
        yield manager, step


def _info(manager: Any, step: int) -> dict:
    import orbax.checkpoint as ocp

    return manager.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))["info"]


# --- leaves ---


def _named_leaves(state: Any) -> dict[str, Any]:
    """Each array of the state by its path, such as `.weights['ff'].w`."""
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(state)}
    for name, x in leaves.items():
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ValueError(f"state{name} must be an array; got {type(x).__name__}")
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


def _placed(found: Any, template: Any) -> Any:
    """The array found, bound to no device where the template is not: orbax binds each."""
    if isinstance(template, np.ndarray | np.generic) or getattr(template, "committed", False):
        return found
    if jnp.issubdtype(found.dtype, jax.dtypes.prng_key):
        data = jnp.asarray(np.asarray(jax.random.key_data(found)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(found))
    return jnp.asarray(np.asarray(found))


def __dir__() -> list[str]:
    return __all__
