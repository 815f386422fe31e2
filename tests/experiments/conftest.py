"""Ctrl-C reaches the tests even where they were started in the background; quick compilation."""

import os
import signal

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="module", autouse=True)
def _compile_once_and_quickly(tmp_path_factory):
    """Programs are kept between runs, those of other processes too, and hardly optimised."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    switches = {  # what it is here, and what it is elsewhere
        "jax_compilation_cache_dir": (str(root / "programs"), None),
        "jax_persistent_cache_min_compile_time_secs": (0.0, 1.0),
        "jax_disable_most_optimizations": (True, False),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, (here, _) in switches.items():
            patch.setenv(name.upper(), str(here))
            jax.config.update(name, here)
        compilation_cache.reset_cache()
        yield
    for name, (_, elsewhere) in switches.items():
        jax.config.update(name, elsewhere)
    compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
