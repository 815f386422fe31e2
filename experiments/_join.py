"""Meeting the other processes of a run, which must come before anything of JAX is computed."""

import ctypes
import os
import re
import signal
import sys
import threading

import jax

PATIENCE = 120.0  # s that processes wait for one another at the start
LOST = (
    "another process of this run has ended or cannot be reached; the same commands with --resume"
    " go on from what is saved"
)


def meet(where: str, n: int | None, i: int | None) -> None:
    """Join the others, in `PATIENCE` seconds: the runtime itself would abort the process.

    Raises `ValueError` where there is no cluster to ask, or JAX has computed something before.
    """
    if jax.distributed.is_initialized():
        return
    late = f"--coordinator {where} must answer within {PATIENCE:g} s, and all processes come"
    watch = threading.Timer(PATIENCE, end, (f"{late}; not all did",))
    watch.daemon = True
    watch.start()
    limit = int(2 * PATIENCE + 60)  # at which the runtime aborts
    jax.config.update("jax_enable_recoverability", True)  # one that is lost aborts no other
    try:
        if where == "auto":
            jax.distributed.initialize(initialization_timeout=limit)
        else:
            jax.distributed.initialize(where, n, i, initialization_timeout=limit)
    except (ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"--coordinator {where} cannot be joined: {why}") from None
    finally:
        watch.cancel()
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _aborted)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    """Where the first process is lost between two messages, the runtime aborts all others.

    It does so in a thread of its own, where no handler of Python's would be called in time.
    """
    end(LOST)


def require_address(where: str) -> None:
    """Refuse what is no address."""
    if not _address(where):
        raise ValueError(f"--coordinator must be HOST:PORT, or auto; got {where!r}")


def _address(where: str) -> bool:
    host = re.fullmatch(r"[^\s:/]+:([0-9]{1,5})", where)
    return host is not None and 0 < int(host[1]) < 2**16


def end(line: str) -> None:
    """End this process, whatever its threads wait for."""
    sys.stdout.flush()
    os.write(2, f"error: {line}\n".encode())
    os._exit(2)
