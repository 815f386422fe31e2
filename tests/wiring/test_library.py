"""The compiled kernel: made once and whole, loaded if it is ours, done without where it fails."""

import hashlib
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from neurojax.wiring import _library, events

SYMBOLS = ("scattered", "gathered")
COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache/neurojax"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Makes a shared library of a few words of C; one that is loaded writes its path there."""
    folder = tmp_path_factory.mktemp("libraries")

    def make(name, *symbols):
        source, out = folder / f"{name}.c", folder / f"{name}.so"
        run = (
            f'__attribute__((constructor)) static void run() {{ fclose(fopen("{out}.ran", "w")); }}'
        )
        source.write_text("\n".join(["#include <stdio.h>", run, *(f"int {x};" for x in symbols)]))
        subprocess.run([COMPILER, "-shared", "-fPIC", source, "-o", out], check=True)
        return out

    return make


@pytest.fixture(scope="module")
def ours(library):
    return library("ours", *SYMBOLS)


@pytest.fixture
def compiler(tmp_path, monkeypatch, ours):
    """A compiler of little work: `compiler(words)` has the shell do them, $out is what to write."""
    log = tmp_path / "log"

    def make(words=f"cp {ours} $out"):
        script = tmp_path / "compile"
        script.write_text(f"#!/bin/sh\necho run >> {log}\nfor out; do :; done\n{words}\n")
        script.chmod(0o700)
        monkeypatch.setenv("CXX", str(script))

    make()
    make.runs = lambda: len(log.read_text().split()) if log.exists() else 0
    return make


def load():
    return _library.load(events._SOURCE, SYMBOLS)


def kept(cache):
    (found,) = cache.glob("*.so")
    return found


def modes(folder):
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_the_kernel_is_compiled_by_what_is_found(cache):
    assert load().scattered
    assert kept(cache).name.startswith("events-")


def test_it_is_compiled_once_and_kept_for_us_alone_whatever_the_umask(cache, compiler):
    old = os.umask(0)
    try:
        load()
    finally:
        os.umask(old)
    assert modes(cache.parent) == {"0o700", "0o600"}
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".so"]  # and the lock
    load()
    assert compiler.runs() == 1


def test_processes_that_start_together_compile_once(cache, compiler, ours):
    compiler(f"sleep 0.2; cp {ours} $out")
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiler.runs() == 1
    assert kept(cache)


def test_what_a_killed_compilation_left_goes_but_not_what_one_at_work_needs(
    cache, compiler, monkeypatch
):
    monkeypatch.setattr(_library, "_WAIT", 0.1)
    left = cache / "tmpkilled"
    left.mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    (left / "made.so").write_bytes(b"half")
    with _library._alone(cache) as alone:
        assert alone
        assert load()  # after it has waited
        assert left.exists()
    load()
    assert not left.exists()


def test_where_it_is_kept_is_what_xdg_says(cache, monkeypatch, tmp_path):
    assert _library._cache() == cache
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert _library._cache() == tmp_path / ".cache/neurojax"
    monkeypatch.setenv("HOME", "relative")
    assert _library._cache() is None


def nobody(uid):
    raise KeyError(uid)


@pytest.mark.parametrize("missing", ["compiler", "home"])
def test_without_a_compiler_or_a_home_there_is_none_without_a_word(cache, monkeypatch, missing):
    if missing == "compiler":
        monkeypatch.setenv("PATH", "")
    else:  # as in a container: no HOME, and a user that no list has
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", nobody)
    assert load() is None


def done_without(cache, message):
    with pytest.warns(UserWarning, match=message) as said:
        assert not events.compiled.__wrapped__()
    (line,) = (str(warning.message) for warning in said)
    assert "\n" not in line
    assert line.endswith("; or pass native=False")
    assert {path.name for path in cache.glob("*")} <= {"lock"}


@pytest.mark.parametrize(
    ("cxx", "message"),
    [
        ("no-such-compiler -O1", "CXX must name a compiler, or not be set; got 'no-such-compiler"),
        ("c++ '", 'CXX must name a compiler, or not be set; got "c\\+\\+ \'"'),
        ("false", r"false -std=c\+\+17 .* ended with 1; set CXX to a C\+\+17 compiler"),
        ("true", r"true made nothing; set CXX to a C\+\+17 compiler"),
    ],
)
def test_what_is_no_compiler_is_done_without(cache, monkeypatch, cxx, message):
    monkeypatch.setenv("CXX", cxx)
    done_without(cache, message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            r"printf 'In file\nx.cc:1: error: no \377\n' >&2; exit 3",
            "ended with 3: x.cc:1: error: no",
        ),
        ("sleep 5", "had not ended after 0 s; set CXX"),
        ("echo junk > $out", "what .* made cannot be loaded: .* file too short; set CXX"),
        ("cp {bare} $out", "cannot be loaded: .* lacks scattered, gathered.*; set CXX"),
    ],
)
def test_a_compiler_that_fails_is_done_without(
    cache, compiler, monkeypatch, library, words, message
):
    if "sleep" in words:
        monkeypatch.setattr(_library, "_PATIENCE", 0.3)
    compiler(words.format(bare=library("bare")))
    done_without(cache, message)


def test_a_compiler_that_is_no_program_is_done_without(cache, compiler):
    Path(os.environ["CXX"]).write_bytes(b"\0no program")
    done_without(cache, "could not be run: Exec format error; set CXX")


def replaced(path, content):
    """Not in place: this process has loaded the file."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def flipped(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


def link(path):
    path.rename(path.parent.parent / "elsewhere.so")
    path.symlink_to(path.parent.parent / "elsewhere.so")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "cut": lambda path: replaced(path, path.read_bytes()[:5000]),
    "empty": lambda path: replaced(path, b""),
    "flipped": lambda path: replaced(path, flipped(path.read_bytes())),
    "link": link,
    "pipe": pipe,
    "unreadable": lambda path: path.chmod(0),
    "writable": lambda path: path.chmod(0o622),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_what_was_written_is_compiled_anew(cache, compiler, damage):
    load()
    DAMAGE[damage](kept(cache))
    assert load().scattered
    readable = damage == "unreadable" and os.geteuid() == 0  # by root, it is as good as before
    assert compiler.runs() == (1 if readable else 2)
    assert readable or modes(cache) == {"0o600"}


def put(cache, library):
    """Another library under the very name that would be loaded, digest and all."""
    name = kept(cache).stem.rpartition("-")[0]
    kept(cache).unlink()
    path = cache / f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()}.so"
    shutil.copy(library, path)
    path.chmod(0o600)
    return path


def test_one_without_our_symbols_is_compiled_anew(cache, compiler, library):
    load()
    bare = put(cache, library("bare"))
    assert load().scattered
    assert compiler.runs() == 2
    assert kept(cache) != bare


def give_away(path, monkeypatch):
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:  # none but root can; then it is we who are another
        monkeypatch.setattr(_library.os, "geteuid", lambda: 12345)


OPEN = {
    "cache, world": lambda cache: cache.chmod(0o777),
    "cache, group": lambda cache: cache.chmod(0o770),
    "cache, sticky": lambda cache: cache.chmod(0o1777),
    "above, world": lambda cache: cache.parent.chmod(0o777),
    "above, group": lambda cache: cache.parent.chmod(0o770),
    "home": lambda cache: cache.parent.parent.chmod(0o777),
}


@pytest.fixture
def evil(library):
    """A library whose code has run when `evil.ran` exists."""
    made = library("evil", *SYMBOLS)
    ran = Path(f"{made}.ran")
    ran.unlink(missing_ok=True)
    return SimpleNamespace(file=made, ran=ran)


@pytest.mark.parametrize("way", OPEN)
def test_nothing_is_loaded_from_where_others_can_write(cache, compiler, evil, way):
    load()
    put(cache, evil.file)
    OPEN[way](cache)
    with pytest.raises(_library.Unusable, match=r"others can write .*; chmod go-w /"):
        load()
    assert not evil.ran.exists()
    for folder in (cache, *cache.parents[:2]):
        folder.chmod(0o700)
    load()
    assert evil.ran.exists()  # it was that alone


@pytest.mark.parametrize("which", ["file", "cache", "above"])
def test_nothing_is_loaded_that_belongs_to_another(cache, compiler, evil, monkeypatch, which):
    load()
    planted = put(cache, evil.file)
    give_away({"file": planted, "cache": cache, "above": cache.parent}[which], monkeypatch)
    if which == "file" and os.geteuid() == 0:
        assert load().scattered  # compiled anew
        assert kept(cache) != planted
    else:
        with pytest.raises(_library.Unusable, match="belongs to user .*; set XDG_CACHE_HOME to"):
            load()
    assert not evil.ran.exists()


def test_a_sticky_folder_of_all_above_it_will_do(cache, compiler, monkeypatch):
    sticky = cache.parent.parent / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(sticky / "mine"))
    assert load()
    assert modes(sticky) == {"0o700", "0o600"}
    give_away(sticky, monkeypatch)
    with pytest.raises(_library.Unusable, match="belongs to user "):
        load()


def test_a_link_to_a_folder_is_followed_and_what_it_names_is_checked(cache, compiler, monkeypatch):
    true = cache.parent.parent / "true"
    true.mkdir(mode=0o700)
    cache.parent.symlink_to(true)
    assert load()
    assert kept(true / "neurojax")
    true.chmod(0o777)
    with pytest.raises(_library.Unusable, match=f"others can write {true} "):
        load()


def test_a_cache_that_cannot_be_written_is_done_without(cache):
    cache.parent.write_text("")  # a file where the folder should be
    with pytest.raises(_library.Unusable, match="is no folder; set XDG_CACHE_HOME"):
        load()
    cache.parent.unlink()
    cache.parent.symlink_to("/proc/nowhere")
    with pytest.raises(_library.Unusable, match="No such file.*/proc/nowhere.*; set XDG_CACHE_HO"):
        load()
