"""Recordings that faery writes, and its own array of them, beside what is read here."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from neurojax.data import read_events

pytest.importorskip("lz4.frame")
pytest.importorskip("zstandard")
PEERS = Path(__file__).parents[2] / "benchmarks/.peers/events/bin/python"
THEIRS = """
import sys, numpy, faery
rng, n = numpy.random.default_rng(0), 20_000
made = numpy.zeros(n, faery.EVENTS_DTYPE)
made["t"] = numpy.sort(rng.integers(0, 40_000_000, n))
made["x"], made["y"] = rng.integers(0, 346, n), rng.integers(0, 260, n)
made["on" if "on" in made.dtype.names else "p"] = rng.integers(0, 2, n)
numpy.save("made.npy", made)
stream = lambda: faery.events_stream_from_array(made, dimensions=(346, 260))
for version in ("evt2", "evt3"):
    stream().to_file(version + ".raw", version=version, zero_t0=False)
for name, how in (("plain", None), ("lz4", ("lz4", 1)), ("zstd", ("zstd", 3))):
    stream().to_file(name + ".aedat4", compression=how)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the package has written, with times that wrap the counters of both RAW formats."""
    if not PEERS.exists():
        pytest.skip(f"there is no {PEERS}: make bench-peers installs it")
    folder = tmp_path_factory.mktemp("theirs")
    subprocess.run([PEERS, "-c", THEIRS], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["evt2.raw", "evt3.raw", "plain.aedat4", "lz4.aedat4", "zstd.aedat4"]
)
def test_a_file_of_another_writer_is_read_to_the_last_event(folder, file):
    found, made = read_events(folder / file), np.load(folder / "made.npy")
    sign = made["on"] if "on" in made.dtype.names else made["p"]
    for ours, theirs in zip(found[:4], (made["t"], made["x"], made["y"], sign), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(ours.dtype))
    assert found.shape == (260, 346, 2)
