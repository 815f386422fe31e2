"""Ours without the C++ kernel for events: XLA alone."""

from functools import partial

from benchmarks.systems import neurojax
from benchmarks.systems.neurojax import PACKAGES

__all__ = ["CASES", "PACKAGES"]
CASES = {"W4": partial(neurojax.w4, native=False)}
