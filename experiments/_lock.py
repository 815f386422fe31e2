"""One folder, one process: a lock that the system takes back when its holder ends, however it does.

It holds among all processes of a machine; among machines on one file system where that has
`flock`, as NFS has. Where there is none (Windows, some cluster file systems) a line says so.
"""

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = ".lock"  # of the file that is locked; it says by whom


@contextmanager
def held(folder: Path, option: str = "--out") -> Iterator[None]:
    """A folder, made if need be, for this process alone; left as it was if nothing came into it.

    Raises `ValueError` if it cannot be written, and if another holds it: which process, on which
    machine, since when.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = folder / _NAME
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _locked(lock, folder, option)
        except OSError as error:
            raise ValueError(
                f"{option} must be a folder that can be written; got {str(folder)!r}"
                f" ({error.strerror})"
            ) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is ours
            os.close(file)
    finally:
        _remove_empty(new)


def _locked(lock: Path, folder: Path, option: str) -> int:
    """The open file, which nobody else has locked."""
    while True:
        file = _opened(lock, folder, option)
        try:
            _take(file, folder)
            if _is(file, lock):  # whoever held it before took it away
                with suppress(OSError):  # a full disk: nobody will know who
                    os.ftruncate(file, 0)
                    os.write(file, _who().encode())
                return file
        except BlockingIOError:
            first = os.read(file, 1000).decode(errors="replace") or "another process"
            os.close(file)
            raise ValueError(
                f"{option} {str(folder)!r} is in use by {first}: wait until it has ended, or pass"
                f" another {option}"
            ) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _opened(lock: Path, folder: Path, option: str) -> int:
    """A file of its own, and no link: what is written into it must befall no other file."""
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        about = os.fstat(file)
        if stat.S_ISREG(about.st_mode) and about.st_nlink <= 1:
            return file
        os.close(file)
    except OSError as error:
        if error.errno != errno.ELOOP or not lock.is_symlink():
            raise
    raise ValueError(
        f"{option} {str(folder)!r} holds a {_NAME} that is a link or no file: take it away"
    )


def _take(file: int, folder: Path) -> None:
    """Lock an open file, if files can be locked here."""
    try:
        if fcntl:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        why = "this system has no flock"
    except BlockingIOError:
        raise
    except OSError as error:
        why = error.strerror
    told = f"warning: {str(folder)!r} cannot be locked ({why}): start no second run in it"
    print(told, file=sys.stderr)  # noqa: T201


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _who() -> str:
    since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}"


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something came into it
            return
