"""Neurons: a family a file, each a frozen pytree of parameters with `init` and `step`.

What turns a current, or draws of its own, into spikes belongs here, with the functions that
decide on a spike. A neuron knows of no synapse and of no network.
"""

from neurojax.neurons import surrogate
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
from neurojax.neurons.sources import Poisson, PoissonState

__all__ = [
    "ALIF", "ALIFState", "AdEx", "AdExState", "EIF", "EIFState", "Izhikevich", "IzhikevichState",
    "LIF", "LIFState", "LeakyIntegrator", "LeakyIntegratorState", "Poisson", "PoissonState", "QIF",
    "QIFState", "surrogate",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
