"""A shared library compiled from C++ where it is first wanted, kept, and loaded if it is ours.

It is kept in $XDG_CACHE_HOME/neurojax (~/.cache/neurojax), by a name that says what it was made
from and, as a SHA-256, what it holds. What is promised:

- Nothing is loaded that another user can have put there. As OpenSSH does with its files, each
  folder from the cache up to the home, or to the root, must belong to us or to root and be
  writable by its owner alone; above the cache one may also be sticky, as /tmp is. The file must
  be a regular one, no link, and pass the same. Folders are made with mode 0700 and files with
  0600, whatever the umask.
- Nothing is loaded that is not whole: a file whose content is not what its name says, or that
  lacks a symbol, is removed and compiled anew. A file appears in the cache whole or not at all;
  of processes that start together one compiles and the others wait for it. What a compilation
  that was killed left behind goes with the next start.
- Where all that cannot be had there is no library, and `Unusable` says why and what helps.

The digest guards against accidents, the permissions against others. Not promised: anything
against one who can act as us or as root, who needs no cache for it; nor is the compiler
mistrusted that $CXX or $PATH names.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import jax

__all__ = ["Unusable", "load"]

_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-shared", "-fPIC"]
_PATIENCE = 300.0  # s; what a compiler may take, some hundred times the usual
_WAIT = 60.0  # s; for another process that compiles


class Unusable(Exception):
    """Why there is no library, and the cure."""


def load(source: Path, symbols: Sequence[str]) -> ctypes.CDLL | None:
    """The library made from `source`, or None where there is no compiler, or no home to keep it.

    Raises `Unusable` where $CXX is no compiler or the compiler fails, and where the cache is not
    ours alone or cannot be written.
    """
    compiler, cache = _compiler(), _cache()
    if os.name != "posix" or not compiler or cache is None:
        return None
    try:
        return _kept_or_made(source, symbols, compiler, _private(cache))
    except OSError as error:
        raise Unusable(f"{error}; set XDG_CACHE_HOME to a folder of yours") from error


def _kept_or_made(
    source: Path, symbols: Sequence[str], compiler: list[str], cache: Path
) -> ctypes.CDLL:
    made_from = [
        source.read_text(),
        metadata.version("jaxlib"),
        platform.system(),
        platform.machine(),
    ]
    key = hashlib.sha256("\0".join([*made_from, *compiler, *_FLAGS]).encode()).hexdigest()[:16]
    name = f"{source.stem}-{key}"
    with _alone(cache) as alone:
        for left in cache.glob("tmp*") if alone else ():
            shutil.rmtree(left, ignore_errors=True)
        for kept in cache.glob(f"{name}-*.so"):
            with contextlib.suppress(OSError, Unusable):
                return _opened(kept, symbols)
            kept.unlink()
        made = _made(source, compiler, cache, name)
        try:
            return _opened(made, symbols)
        except (OSError, Unusable) as error:
            made.unlink()
            raise Unusable(
                f"what {shlex.join(compiler)} made cannot be loaded: {error}; set CXX to a C++17"
                " compiler, or XDG_CACHE_HOME to a folder of yours"
            ) from error


# --- what is loaded ---


def _opened(path: Path, symbols: Sequence[str]) -> ctypes.CDLL:
    """The library at `path`, refused unless it is ours, holds what its name says and `symbols`."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(file, "rb") as content:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise Unusable(f"{path} is no regular file")
        _refuse_foreign(path, status)
        _refuse_writable(path, status)
        if hashlib.file_digest(content, "sha256").hexdigest() != path.stem.rpartition("-")[2]:
            raise Unusable(f"{path} is not what was written")
    library = ctypes.CDLL(str(path))  # none but us or root can have changed it since
    lacking = [name for name in symbols if not hasattr(library, name)]
    if lacking:
        raise Unusable(f"{path} lacks {', '.join(lacking)}")
    return library


def _private(folder: Path) -> Path:
    """`folder`, made where it is missing, without links; refused unless we alone can write."""
    folder = Path(os.path.realpath(folder))
    way = [folder, *folder.parents]
    home = Path(os.path.realpath(_home() or "/"))
    way = way[: way.index(home) + 1] if home in way else way
    for part in reversed(way):
        if not part.exists():
            part.mkdir(mode=0o700, exist_ok=True)
        status = part.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise Unusable(f"{part} is no folder; set XDG_CACHE_HOME to a folder of yours")
        _refuse_foreign(part, status)
        if part == folder or not status.st_mode & stat.S_ISVTX:
            _refuse_writable(part, status)
    return folder


def _refuse_writable(path: Path, status: os.stat_result) -> None:
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise Unusable(f"others can write {path} (mode {mode:04o}); chmod go-w {path}")


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise Unusable(
            f"{path} belongs to user {status.st_uid}, not to us ({os.geteuid()}) or root; set"
            " XDG_CACHE_HOME to a folder of yours"
        )


# --- where it is kept ---


def _cache() -> Path | None:
    """Where libraries are kept; None without a home, as a container may have none.

    A relative path is ignored, as the XDG Base Directory specification (0.8) has it.
    """
    asked, home = Path(os.environ.get("XDG_CACHE_HOME", "")), _home()
    if asked.is_absolute():
        return asked / "neurojax"
    return home and home / ".cache/neurojax"


def _home() -> Path | None:
    """None with neither HOME nor an entry in the list of users, and for a relative one."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[bool]:
    """Whether no other process is at work in `cache`: one that is has some time to end."""
    import fcntl

    try:
        lock = os.open(cache / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:  # it may be ours to read alone
        yield False
        return
    try:
        until, alone = time.monotonic() + _WAIT, False
        while not alone and time.monotonic() < until:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield alone
    finally:
        os.close(lock)


# --- how it is made ---


def _compiler() -> list[str]:
    """The words that $CXX gives or the compiler that is found; none where there is none."""
    asked = os.environ.get("CXX", "")
    try:
        words = shlex.split(asked)
    except ValueError:  # a quotation without an end
        words = [asked]
    if words and not shutil.which(words[0]):
        raise Unusable(f"CXX must name a compiler, or not be set; got {asked!r}")
    return words or [name for name in ("c++", "g++", "clang++") if shutil.which(name)][:1]


def _made(source: Path, compiler: list[str], cache: Path, name: str) -> Path:
    """The library, compiled; whole or not at all."""
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        out = Path(folder, "made.so")
        _run([*compiler, *_FLAGS, "-I", jax.ffi.include_dir(), str(source), "-o", str(out)], folder)
        if not out.is_file():
            raise Unusable(f"{shlex.join(compiler)} made nothing; set CXX to a C++17 compiler")
        out.chmod(0o600)
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        return out.replace(cache / f"{name}-{digest}.so")


def _run(words: list[str], folder: str) -> None:
    """Run a compiler, all of whose files are ours alone and go with `folder`."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=os.environ | {"TMPDIR": folder}, timeout=_PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        how = f"had not ended after {_PATIENCE:.0f} s"
    except OSError as error:
        how = f"could not be run: {error.strerror}"
    else:
        if not done.returncode:
            return
        said = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        how = f"ended with {done.returncode}: {said[0].strip():.200}".rstrip(": ")
    raise Unusable(f"{shlex.join(words)} {how}; set CXX to a C++17 compiler")


def __dir__() -> list[str]:
    return __all__
