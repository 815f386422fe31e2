"""Synapses: what happens to a spike between its sender and the membrane that it reaches.

What a spike sets free (release), when it comes (delays) and what an arrival does (receptors)
belong here. State is one a neuron, never one a synapse: weights are elsewhere (`wiring`,
`weights`).
"""

from neurojax.synapses.delays import Delay, Delays, DelayState, steps
from neurojax.synapses.gap import GapJunctions
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
from neurojax.synapses.release import (
    NMDAGate,
    NMDAGateState,
    Quantal,
    QuantalState,
    TsodyksMarkram,
    TsodyksMarkramState,
)

__all__ = [
    "Alpha", "AlphaState", "Conductance", "Delay", "DelayState", "Delays", "DoubleExponential",
    "DoubleExponentialState", "Exponential", "ExponentialState", "GapJunctions",
    "MagnesiumBlock", "NMDAGate", "NMDAGateState", "Quantal", "QuantalState", "TsodyksMarkram",
    "TsodyksMarkramState", "steps",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
