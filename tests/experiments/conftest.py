"""Ctrl-C reaches the tests even where they were started in the background, which ignores it."""

import signal

import pytest


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
