"""Functional simulation of spiking networks and neuromorphic hardware in JAX."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from neurojax import checkpoint, data, interchange, learning, recording, sharding
from neurojax._memory import nbytes
from neurojax._repr import short_types
from neurojax._version import __version__ as __version__
from neurojax.analysis import spikes
from neurojax.convolutional import convolutional
from neurojax.data import augment, decoding, encoding
from neurojax.interchange import check_nir, from_nir, to_nir
from neurojax.layers import Layer, Projection, Record
from neurojax.learning import wta_broadcast
from neurojax.learning.fitting import evaluate, fit
from neurojax.learning.learner import Learner
from neurojax.levels import Levels, levels
from neurojax.network import Network, State, fold
from neurojax.neurons import (
    ALIF,
    EIF,
    IF,
    LIF,
    QIF,
    AdEx,
    EscapeLIF,
    HodgkinHuxley,
    Izhikevich,
    LeakyIntegrator,
    Logistic,
    NoiseCurrent,
    Poisson,
    PoissonInput,
    Rate,
    ResonateAndFire,
    SpikeTimes,
    StepCurrent,
    TraubMiles,
    WangBuzsaki,
    surrogate,
)
from neurojax.plasticity import (
    STDP,
    Broadcast,
    BudgetGate,
    ChangeGate,
    DopamineSTDP,
    GatePopulation,
    HardWTA,
    Homeostasis,
    InhibitorySTDP,
    Modulators,
    Post,
    ShuffledGate,
    SoftWTA,
    SurpriseGate,
    SynapticScaling,
    ThreeFactor,
    TripletSTDP,
    WeightDependence,
    always,
    boxcar,
    broadcast,
    class_scores,
    gate_population,
    k_winners,
    modulators,
    normalizing,
    post_spike,
    rewire,
    rewired,
    traces,
    triangle,
    triplet_hippocampus,
    triplet_visual_cortex,
)
from neurojax.ranges import unconstrained
from neurojax.simulation import simulate
from neurojax.split_bf16 import SplitBF16, split_bf16
from neurojax.structured import Recurrence, structured
from neurojax.synapses import (
    Alpha,
    Conductance,
    Delay,
    Delays,
    DoubleExponential,
    Exponential,
    GapJunctions,
    MagnesiumBlock,
    NMDAGate,
    Quantal,
    TsodyksMarkram,
    steps,
)
from neurojax.topographic import Sheet, topographic
from neurojax.weights import Ideal, Weights, ideal, normal, taught
from neurojax.wiring import (
    Band,
    Conv1D,
    Conv2D,
    Dense,
    FanIn,
    FanOut,
    Local1D,
    Local2D,
    Procedural,
    Visit,
    as_fan_out,
    bernoulli,
    blocks,
    by_sender,
    distance_dependent,
    exponential_profile,
    fan_in,
    fan_out,
    fixed_total,
    gaussian_profile,
    locally_dense,
    long_range,
    merged,
    one_to_one,
    procedural,
    watts_strogatz,
    watts_strogatz_grid,
)

if TYPE_CHECKING:
    from neurojax.analysis import plotting
    from neurojax.wiring import metrics

_SLOW = {"metrics": "wiring", "plotting": "analysis"}  # SciPy and matplotlib are slow to import

__all__ = [
    "ALIF", "AdEx", "Alpha", "Band", "Broadcast", "BudgetGate", "ChangeGate", "Conductance",
    "Conv1D", "Conv2D", "Delay", "Delays", "Dense", "DopamineSTDP", "DoubleExponential", "EIF",
    "EscapeLIF", "Exponential", "FanIn", "FanOut", "GapJunctions", "GatePopulation", "HardWTA",
    "HodgkinHuxley", "Homeostasis", "IF", "Ideal", "InhibitorySTDP", "Izhikevich", "LIF", "Layer",
    "LeakyIntegrator", "Learner", "Levels", "Local1D", "Local2D", "Logistic", "MagnesiumBlock",
    "Modulators", "NMDAGate", "Network", "NoiseCurrent", "Poisson", "PoissonInput", "Post",
    "Procedural", "Projection", "QIF", "Quantal", "Rate", "Record", "Recurrence", "ResonateAndFire",
    "STDP", "Sheet", "ShuffledGate", "SoftWTA", "SpikeTimes", "SplitBF16", "State", "StepCurrent",
    "SurpriseGate", "SynapticScaling", "ThreeFactor", "TraubMiles", "TripletSTDP", "TsodyksMarkram",
    "Visit", "WangBuzsaki", "WeightDependence", "Weights", "always", "as_fan_out", "augment",
    "bernoulli", "blocks", "boxcar", "broadcast", "by_sender", "check_nir", "checkpoint",
    "class_scores", "convolutional", "data", "decoding", "distance_dependent", "encoding",
    "evaluate", "exponential_profile", "fan_in", "fan_out", "fit", "fixed_total", "fold",
    "from_nir", "gate_population", "gaussian_profile", "ideal", "interchange", "k_winners",
    "learning", "levels", "locally_dense", "long_range", "merged", "metrics", "modulators",
    "nbytes", "normal", "normalizing", "one_to_one", "plotting", "post_spike", "procedural",
    "recording", "rewire", "rewired", "sharding", "simulate", "spikes", "split_bf16", "steps",
    "structured", "surrogate", "taught", "to_nir", "topographic", "traces", "triangle",
    "triplet_hippocampus", "triplet_visual_cortex", "unconstrained", "watts_strogatz",
    "watts_strogatz_grid", "wta_broadcast",
]  # fmt: skip

short_types({name: globals()[name] for name in __all__ if name not in _SLOW})


def __getattr__(name: str) -> ModuleType:
    if room := _SLOW.get(name):
        return importlib.import_module(f"{__name__}.{room}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
