"""Strict arrays and eight CPU devices for every test."""

import functools
import gc
import importlib.metadata
import os
from pathlib import Path

gc.set_threshold(100_000, 20, 100)  # tracing makes objects by the thousand, and few cycles

flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # one that it does not know kills it
    flags.append("--xla_cpu_use_fusion_emitters=false")  # compiles a third faster
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # waiting threads take a worker's core

import hypothesis  # noqa: E402  (the flags must stand before JAX starts)
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most tests compile more than they compute.
jax.config.update("jax_disable_most_optimizations", True)
# Programs need not say which line each of their operations is from.
jax.config.update("jax_traceback_in_locations_limit", 0)
# A context of its own for each program takes longer to set up than most are to lower.
if hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)

# No deadline: the first example compiles. The same examples at every run.
hypothesis.settings.register_profile("neurojax", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("neurojax")


def pytest_collection_finish():
    """What is imported stays: no collection looks through it again."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """A process may hold 65,530 memory maps, and a program takes ten or so of them."""
    yield
    maps = Path("/proc/self/maps")
    most = 48_000  # and a file takes some 7,000
    if maps.exists() and len(maps.read_bytes().splitlines()) > most:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def untyped():
    """As users run it, without the checks of types that tests go through beforehand."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def programs_kept(tmp_path_factory):
    """Compiled programs are kept between runs, those of other processes too."""
    if jax.config.jax_compilation_cache_dir:  # whoever runs the tests keeps them
        yield
        return
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    switches = {  # what it is here, and what it is elsewhere
        "jax_compilation_cache_dir": (str(root / "programs"), None),
        "jax_persistent_cache_min_compile_time_secs": (0.0, 1.0),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "True")  # as above, in other processes
        for name, (here, _) in switches.items():
            patch.setenv(name.upper(), str(here))
            jax.config.update(name, here)
        compilation_cache.reset_cache()
        yield
    for name, (_, elsewhere) in switches.items():
        jax.config.update(name, elsewhere)
    compilation_cache.reset_cache()
