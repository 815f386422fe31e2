"""Ours with weights as sums of two bfloat16 numbers, right to 2^-16."""

from functools import partial

import neurojax as nj
from benchmarks.systems import neurojax
from benchmarks.systems.neurojax import PACKAGES

__all__ = ["CASES", "PACKAGES"]
CASES = {
    name: partial(getattr(neurojax, name.lower()), nj.split_bf16(2)) for name in ("W1", "W3")
}  # fmt: skip
