"""Plasticity: what changes weights, and what tells it to.

Traces, rules of pairs of spikes and of three factors, homeostasis; teachers, feedback and
modulators belong here. A rule proposes changes; whoever holds the weights makes them.
"""

from neurojax.plasticity import traces
from neurojax.plasticity.feedback import Broadcast, broadcast
from neurojax.plasticity.modulation import Modulators, ModulatorState, modulators
from neurojax.plasticity.stdp import STDP, STDPState
from neurojax.plasticity.teaching import HardWTA, SoftWTA, class_scores, k_winners
from neurojax.plasticity.three_factor import (
    Eligibility,
    Homeostasis,
    HomeostasisState,
    Post,
    Rule,
    ThreeFactor,
    Window,
    always,
    boxcar,
    post_spike,
    triangle,
)

__all__ = [
    "Broadcast", "Eligibility", "HardWTA", "Homeostasis", "HomeostasisState", "ModulatorState",
    "Modulators", "Post", "Rule", "STDP", "STDPState", "SoftWTA", "ThreeFactor", "Window", "always",
    "boxcar", "broadcast", "class_scores", "k_winners", "modulators", "post_spike", "traces",
    "triangle",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
