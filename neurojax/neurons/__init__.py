"""Neurons: a family a file, each a frozen pytree of parameters with `init` and `step`.

What turns a current, or draws of its own, into spikes belongs here, with the functions that
decide on a spike. A neuron knows of no synapse and of no network.
"""

from neurojax.neurons import surrogate
from neurojax.neurons.channels import ChannelState, HodgkinHuxley, TraubMiles, WangBuzsaki
from neurojax.neurons.integrators import IF, EscapeLIF, IFState
from neurojax.neurons.izhikevich import Izhikevich, IzhikevichState
from neurojax.neurons.leaky import (
    ALIF,
    LIF,
    ALIFState,
    LeakyIntegrator,
    LeakyIntegratorState,
    LIFState,
)
from neurojax.neurons.nonlinear import EIF, QIF, AdEx, AdExState, EIFState, QIFState
from neurojax.neurons.rate import Logistic, Rate, RateState
from neurojax.neurons.resonator import ResonateAndFire, ResonateAndFireState
from neurojax.neurons.sources import (
    NoiseCurrent,
    NoiseCurrentState,
    Poisson,
    PoissonInput,
    PoissonState,
    SpikeTimes,
    SpikeTimesState,
    StepCurrent,
    StepCurrentState,
)

__all__ = [
    "ALIF", "ALIFState", "AdEx", "AdExState", "ChannelState", "EIF", "EIFState", "EscapeLIF",
    "HodgkinHuxley", "IF", "IFState", "Izhikevich", "IzhikevichState", "LIF", "LIFState",
    "LeakyIntegrator", "LeakyIntegratorState", "Logistic", "NoiseCurrent", "NoiseCurrentState",
    "Poisson", "PoissonInput", "PoissonState", "QIF", "QIFState", "Rate", "RateState",
    "ResonateAndFire", "ResonateAndFireState", "SpikeTimes", "SpikeTimesState", "StepCurrent",
    "StepCurrentState", "TraubMiles", "WangBuzsaki", "surrogate",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
