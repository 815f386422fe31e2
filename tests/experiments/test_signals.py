"""What a run says and leaves behind when it is told to stop, from its first moment on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
BEFORE = "interrupted before it began; the same command starts it\n"
GOES_ON = "interrupted; the same command with --resume goes on from what is saved\n"
# As a shell starts it: nohup and jobs in the background would have it ignore some.
USUAL = "import signal\nfor n in (1, 2): signal.signal(n, signal.SIG_DFL)\n"
LISTENING = "import os, signal, time; from experiments import _signals as s; s.listen()\n"
CATCH = "try:\n    {}\nexcept BaseException as error:\n    print(repr(error))"

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def ended(script: str, *, before: str = "") -> tuple[int, str, str]:
    """Exit code and output of a program that listens before it runs the script."""
    done = subprocess.run(
        [sys.executable, "-c", USUAL + before + LISTENING + script], capture_output=True, text=True,
        timeout=30, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_in_one_line_and_no_exception(number):
    told = f"os.kill(os.getpid(), {number:d}); time.sleep(20)"
    assert ended(CATCH.format(told)) == (128 + number, "", BEFORE)


def test_compiled_code_that_never_comes_back_to_python_is_ended_too():
    begin = time.perf_counter()
    told = "import hashlib, threading; threading.Timer(0.1, os.kill, (os.getpid(), 15)).start()\n"
    minutes = "hashlib.pbkdf2_hmac('sha512', b'', b'', 10**9)"  # one call of C
    assert ended(told + minutes) == (143, "", BEFORE)
    assert time.perf_counter() - begin < 10


def test_what_can_go_on_says_how():
    told = "os.kill(os.getpid(), 15); time.sleep(20)"
    assert ended(f"s.goes_on('--resume'); {told}") == (143, "", GOES_ON)
    assert ended(f"s.goes_on(); {told}")[2] == GOES_ON.replace(" with --resume", "")


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_waits_for_what_must_not_be_cut_short_however_often_it_comes(number):
    script = (
        f"with s.unbroken(), s.unbroken():\n"
        f"    for _ in range(5): os.kill(os.getpid(), {number:d}); time.sleep(.02)\n"
        f"    print('whole', flush=True)\n"
        f"time.sleep(20)"
    )
    assert ended(script) == (128 + number, "whole\n", BEFORE)


def test_it_waits_for_another_thread_too():
    script = (
        "import threading\n"
        "def write():\n"
        "    with s.unbroken():\n"
        "        held.set(); time.sleep(.1); print('whole', flush=True)\n"
        "held = threading.Event(); threading.Thread(target=write).start(); held.wait()\n"
        "os.kill(os.getpid(), 2); time.sleep(20)"
    )
    assert ended(script) == (130, "whole\n", BEFORE)


def test_what_was_to_be_ignored_is():
    """As `nohup` has it, and shells without job control for what runs in the background."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    assert ended("os.kill(os.getpid(), 1); print('on')", before=ignore) == (0, "on\n", "")


@pytest.mark.parametrize("number", STOPS)
def test_a_run_that_is_complete_stays_so_while_python_is_torn_down(number):
    late = f"type('Late', (), {{'__del__': lambda self: kill({number:d})}})()"
    script = f"kill = lambda number, pid=os.getpid(), to=os.kill: to(pid, number); late = {late}"
    assert ended(script) == (0, "", "")


def test_an_event_loop_that_borrows_the_wake_up_gives_it_on():
    script = "s.signal.set_wakeup_fd(-1); os.kill(os.getpid(), 15); time.sleep(20)"
    assert ended(script) == (143, "", BEFORE)


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@linux
def test_children_are_told_to_stop_as_well():
    child = "import time; time.sleep(20)"
    script = (
        "import sys, threading\n"
        f"words = [sys.executable, '-c', {child!r}]\n"
        "threading.Thread(target=s.run, args=(words,), daemon=True).start()\n"
        "while not s._children: time.sleep(.01)\n"
        "print(next(iter(s._children)).pid, flush=True)\n"
        "os.kill(os.getpid(), 15); time.sleep(20)"
    )
    code, pid, said = ended(script)
    assert (code, said) == (143, BEFORE)
    deadline = time.monotonic() + 10
    while lives(pid.strip()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not lives(pid.strip())


def test_a_child_that_ends_by_itself_gives_code_and_output():
    child = "import sys; print(1); sys.exit(3)"
    script = f"import sys; print(s.run([sys.executable, '-c', {child!r}]), s._children)"
    assert ended(script)[1] == "(3, '1\\n', '') set()\n"


def listens(process: subprocess.Popen) -> bool:
    """Whether it has a handler for SIGTERM yet."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@linux
@pytest.mark.parametrize("after", [0.0, 0.05, 0.4])
def test_a_run_that_is_still_importing_ends_in_one_line(after):
    words = [sys.executable, "-m", "experiments.wta_broadcast", "--help"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        while not listens(process):
            time.sleep(0.001)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)
    assert (process.returncode, *said) == (130, "", BEFORE)


def test_what_is_slow_on_a_busy_machine_is_no_word_on_stderr():
    """Folding constants for more than a second, XLA would write a page for each."""
    script = (
        "import os, sys; sys.argv, sys.orig_argv = ['-m'], ['', '-m', 'experiments.x']\n"
        "import experiments; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "3\n"


def test_who_only_imports_experiments_keeps_the_handlers():
    script = "import signal, experiments; print(*map(signal.getsignal, (2, 15)))"
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout == f"{signal.default_int_handler} {signal.SIG_DFL}\n"
