"""How a run ends that is told to stop: at once, in one line, and never inside a file.

Ctrl-C, SIGTERM and SIGHUP end the process from a thread that waits for them, without an
exception and without tearing down. An exception is raised only when the main thread is back in
Python, which is after a compilation or a training of minutes; imports and callbacks swallow it;
and an interpreter that is torn down under the working threads of XLA ends in a segmentation
fault. There is nothing to tear down: what is on disk is whole at every moment.

What takes long to import is not imported here: this is the first thing that a run does.
"""

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BEFORE = "interrupted before it began; the same command starts it"
_GOES_ON = "interrupted; the same command{} goes on from what is saved"

_busy = threading.RLock()  # held by what must not be cut short, at last by the end itself
_children: set[Any] = set()
_last_line = [_BEFORE]


def listen() -> None:
    """From now on end with 128 + the number of the signal; those that are ignored stay so."""
    atexit.register(_deaf)  # the first to be registered is the last to be called
    heard, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_end, args=(heard,), daemon=True).start()
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
            signal.signal(number, lambda number, frame: os.write(told, bytes([number])))
    # Heard in the middle of compiled code too. An event loop may borrow it, so handlers tell too.
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)


def _end(heard: int) -> None:
    number = 0
    while number not in _STOPS:
        number = os.read(heard, 1)[0]
    _busy.acquire()
    try:
        for child in _children:
            child.send_signal(number)
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # the cursor that a progress bar has hidden
        os.write(2, f"{_last_line[0]}\n".encode())
    finally:  # whoever would read that may be gone
        os._exit(128 + number)


def _deaf() -> None:
    """Nothing is left to be stopped: an interpreter that is torn down has no handlers any more, and
    a signal would make a failure of a run that is complete."""
    _busy.acquire()
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unbroken() -> Iterator[None]:
    """Signals wait for the end of the block, in whichever thread it is."""
    with _busy:
        yield


def goes_on(again: str = "") -> None:
    """From now on there is something to go on from, with the option `again` ("--resume")."""
    _last_line[0] = _GOES_ON.format(again and f" with {again}")


def run(words: list[str], **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process; it is told to stop when this one is."""
    from subprocess import PIPE, Popen

    with unbroken():
        process = Popen(words, stdout=PIPE, stderr=PIPE, text=True, **options)
        _children.add(process)
    said = process.communicate()
    _children.discard(process)
    return process.returncode, *said
