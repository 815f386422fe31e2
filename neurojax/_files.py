"""Files that are whole or not there, and that say when they are not what was written."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SEAL = "digest"  # of all else in the object


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that at any moment it is the old one or the whole new one.

    Written beside its place, forced to the disk, then moved over it; text is UTF-8. A process
    killed half-way leaves the old file, and beside it a hidden one, `.NAME.PID.part`. An
    `OSError` names the file.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with naming(path):
        try:
            with part.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An `OSError` in the block names this path, whatever part of the work it befell."""
    try:
        yield
    except OSError as error:
        told = error.strerror or str(error)
        raise OSError(error.errno, told, os.fspath(path)) from None


def sealed(content: dict[str, Any]) -> str:
    """JSON that carries the SHA-256 of what it says, as its `digest`."""
    return json.dumps(content | {_SEAL: _digest(content)}, indent=1) + "\n"


def unsealed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `sealed` was given, read from a file.

    Raises `FileNotFoundError` for none, and `ValueError` naming the file if it is not what was
    written: whatever it holds, be it a folder.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        seal = content.pop(_SEAL)
        if seal == _digest(content):
            return content
        why = "its digest is another"
    except FileNotFoundError:
        raise
    except OSError as error:
        why = error.strerror
    except (ValueError, RecursionError):
        why = "it is no JSON"
    except (AttributeError, TypeError, KeyError):
        why = "it has no digest"
    raise ValueError(f"{os.fspath(path)!r} is not what was written: {why}")


def digest(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _digest(content: dict[str, Any]) -> str:
    """Of what JSON gives back, in whatever order and layout."""
    plain = json.loads(json.dumps(content))
    return digest(json.dumps(plain, sort_keys=True).encode())
