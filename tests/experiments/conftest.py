"""Programs are kept; Ctrl-C reaches tests also where the background ignores it."""

import signal

import pytest


@pytest.fixture(scope="module", autouse=True)
def _programs(programs_kept):
    return


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
