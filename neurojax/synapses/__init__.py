"""Synapses: what happens to a spike between its sender and the membrane that it reaches.

What an arrival does (receptors) and when it comes (delays) belong here. State is one a neuron,
never one a synapse: weights are elsewhere (`wiring`, `weights`).
"""

from neurojax.synapses.delays import Delay, DelayState
from neurojax.synapses.receptors import (
    Alpha,
    AlphaState,
    Conductance,
    DoubleExponential,
    DoubleExponentialState,
    Exponential,
    ExponentialState,
    MagnesiumBlock,
)

__all__ = [
    "Alpha", "AlphaState", "Conductance", "Delay", "DelayState", "DoubleExponential",
    "DoubleExponentialState", "Exponential", "ExponentialState", "MagnesiumBlock",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
