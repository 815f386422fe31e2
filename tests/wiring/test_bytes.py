"""Memory that a long list takes is what `nbytes` says of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import neurojax as nj

ROOT = Path(__file__).resolve().parents[2]

GROWN = """
import ctypes, gc, re
from pathlib import Path
import jax, jax.numpy as jnp
import neurojax as nj

trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)  # glibc alone has it

def resident():
    gc.collect(), trim(0)  # what was freed goes back, and is not taken again unseen
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def made(n):
    wiring, w = nj.procedural(jax.random.key(0), n, n, 1000 / n).stored(jnp.full(n, 0.1))
    wiring = wiring.with_columns()
    return jax.block_until_ready(nj.ideal(bounds=(0.0, 1.0))(w, wiring, None))

made(2_000), made(4_000)  # what drawing takes for a while stays with the process
before = resident()
held = made(20_000)
print((resident() - before) / nj.nbytes(held))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_twenty_million_synapses_take_the_bytes_that_are_stated():
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", GROWN]
    said = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    part = float(said.split()[-1])
    assert 0.95 < part < 1.15, part  # compiled programs are some 20 of its 240 MB


def test_as_many_bytes_a_synapse_as_the_page_of_scaling_says():
    wiring = nj.FanOut([70_000] * 300, [0, 300], 100_000, 300).with_columns()
    rest = nj.nbytes(wiring.start, wiring.columns.start)  # pyright: ignore[reportOptionalMemberAccess]
    assert nj.nbytes(wiring) - rest == (3 + 2 + 2) * 300  # one sender, 300 places
    ends = np.arange(300) % 2, np.full(300, 70_000)
    wiring = nj.by_sender(*ends, 100_000, 100_000)
    wiring = nj.FanOut(wiring.index, wiring.start, 100_000, 1000).with_columns()
    rest = nj.nbytes(wiring.start, wiring.columns.start)  # pyright: ignore[reportOptionalMemberAccess]
    assert nj.nbytes(wiring) - rest == (3 + 4) * 300  # 17 bits of the sender, 10 of its place
