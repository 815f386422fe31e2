"""Plasticity: what changes weights, and what tells it to.

Traces, rules of pairs of spikes and of three factors, homeostasis; teachers, feedback and
modulators belong here. A rule proposes changes; whoever holds the weights makes them.
"""

from neurojax.plasticity import traces
from neurojax.plasticity.dependence import WeightDependence
from neurojax.plasticity.dopamine import DopamineSTDP, DopamineSTDPState
from neurojax.plasticity.feedback import Broadcast, broadcast
from neurojax.plasticity.gating import (
    BudgetGate,
    ChangeGate,
    Gate,
    GatePopulation,
    ShuffledGate,
    SurpriseGate,
    gate_population,
)
from neurojax.plasticity.inhibitory import InhibitorySTDP
from neurojax.plasticity.modulation import Modulators, ModulatorState, modulators
from neurojax.plasticity.scaling import SynapticScaling, normalizing
from neurojax.plasticity.stdp import STDP, STDPState
from neurojax.plasticity.structural import Rewired, rewire, rewired
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
from neurojax.plasticity.triplet import (
    TripletSTDP,
    TripletSTDPState,
    TripletTraces,
    triplet_hippocampus,
    triplet_visual_cortex,
)

__all__ = [
    "Broadcast", "BudgetGate", "ChangeGate", "DopamineSTDP", "DopamineSTDPState", "Eligibility",
    "Gate", "GatePopulation", "HardWTA", "Homeostasis", "HomeostasisState", "InhibitorySTDP",
    "ModulatorState", "Modulators", "Post", "Rewired", "Rule", "STDP", "STDPState", "ShuffledGate",
    "SoftWTA", "SurpriseGate", "SynapticScaling", "ThreeFactor", "TripletSTDP", "TripletSTDPState",
    "TripletTraces", "WeightDependence", "Window", "always", "boxcar", "broadcast", "class_scores",
    "gate_population", "k_winners", "modulators", "normalizing", "post_spike", "rewire", "rewired",
    "traces", "triangle", "triplet_hippocampus", "triplet_visual_cortex",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
