"""Files that are whole or not there, and that say when they are not what was written."""

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurojax._check import brief

_SEAL = "digest"  # of all else in the object
_ROOM = 256  # bytes, for the names of files within a folder


def located(name: str, path: Any) -> Path:
    """The path that was handed over, absolute, refused by `name` if no file can have it.

    Raises `TypeError` for what is no path, and `ValueError` for an empty one, for a character that
    a name cannot have, and for one longer than its file system takes, in a part or as a whole.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} must be a path; got {brief(path)}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ValueError(f"{name} must be a path, not empty and without NUL; got {brief(text)}")
    try:
        size = len(os.fsencode(os.path.abspath(text)))
        longest = max((os.fsencode(part) for part in Path(text).parts), key=len, default=b"")
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be a path in Unicode; got {brief(ascii(text))}") from None
    whole = Path(text).absolute()
    there = next((x for x in (whole, *whole.parents) if os.path.exists(x)), whole)
    of_name, of_path = _limits(there)
    if len(longest) > of_name:
        got = f"{len(longest)}: {brief(os.fsdecode(longest))}"
        raise ValueError(f"{name} must be a path of names of at most {of_name} bytes; got {got}")
    if size > of_path:
        raise ValueError(f"{name} must be a path of at most {of_path} bytes; got {size}")
    return whole


def _limits(there: Path) -> tuple[int, int]:
    """Bytes that a name may have where `there` lies, and a path that leaves room for files."""
    found = []
    for limit in ("PC_NAME_MAX", "PC_PATH_MAX"):
        try:
            found.append(os.pathconf(there, limit))
        except (AttributeError, OSError):  # Windows, which says in its own words
            found.append(-1)
    of_name, of_path = (sys.maxsize if n < 0 else n for n in found)
    return of_name, of_path - _ROOM


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that at any moment it is the old one or the whole new one.

    Written beside its place, forced to the disk, then moved over it; text is UTF-8. A process
    killed half-way leaves the old file, and beside it a hidden one, `.NAME.PID.part`. An
    `OSError` names the file.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with naming(path):
        part.unlink(missing_ok=True)  # a link of that name would lead elsewhere
        try:
            with part.open("xb") as file:
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


def plain(path: str | os.PathLike[str]) -> Path:
    """The path, unless what lies there is no file: a pipe would be waited for."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no file", os.fspath(path))
    return path


def sealed(content: dict[str, Any]) -> str:
    """JSON that carries the SHA-256 of what it says, as its `digest`."""
    return json.dumps(content | {_SEAL: _digest(content)}, indent=1) + "\n"


def unsealed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `sealed` was given, read from a file.

    Raises `FileNotFoundError` for none, and `ValueError` naming the file if it is not what was
    written: whatever it holds, be it a folder.
    """
    try:
        content = json.loads(plain(path).read_bytes())
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
    again = json.loads(json.dumps(content))
    return digest(json.dumps(again, sort_keys=True).encode())
