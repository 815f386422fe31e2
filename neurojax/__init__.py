"""Functional simulation of spiking networks and neuromorphic hardware in JAX."""

from neurojax import augment, checkpoint, data, encoding, plotting, surrogate, traces
from neurojax.connectivity import fan_in, locally_dense, merged, watts_strogatz
from neurojax.feedback import Broadcast, broadcast
from neurojax.layouts import Band, Dense, FanIn, FanOut, by_sender
from neurojax.learning import wta_broadcast
from neurojax.modulation import Modulators, modulators
from neurojax.network import Layer, Network, Projection, fold, simulate
from neurojax.neurons import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity import Homeostasis, ThreeFactor, always, boxcar, post_spike, triangle
from neurojax.stdp import STDP
from neurojax.structured import Recurrence, structured
from neurojax.synapses import Alpha, Delay, Exponential
from neurojax.teaching import HardWTA, SoftWTA, class_scores, k_winners
from neurojax.weights import Ideal, Weights, ideal, normal

__all__ = [
    "ALIF", "Alpha", "Band", "Broadcast", "Delay", "Dense", "Exponential", "FanIn", "FanOut",
    "HardWTA", "Homeostasis", "Ideal", "LIF", "Layer", "LeakyIntegrator", "Modulators",
    "Network", "Projection", "Recurrence", "STDP", "SoftWTA", "ThreeFactor", "Weights",
    "always", "augment", "boxcar", "broadcast", "by_sender", "checkpoint", "class_scores",
    "data", "encoding", "fan_in", "fold", "ideal", "k_winners", "locally_dense", "merged",
    "modulators", "normal", "plotting", "post_spike", "simulate", "structured", "surrogate",
    "traces", "triangle", "watts_strogatz", "wta_broadcast",
]  # fmt: skip
