"""Functional simulation of spiking networks and neuromorphic hardware in JAX."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from neurojax import augment, checkpoint, data, encoding, recording, surrogate, traces
from neurojax._version import __version__ as __version__
from neurojax.connectivity import (
    bernoulli,
    blocks,
    distance_dependent,
    exponential_profile,
    fan_in,
    fan_out,
    gaussian_profile,
    locally_dense,
    merged,
    one_to_one,
    watts_strogatz,
    watts_strogatz_grid,
)
from neurojax.feedback import Broadcast, broadcast
from neurojax.layers import Layer, Projection, Record
from neurojax.layouts import Band, Dense, FanIn
from neurojax.learning import wta_broadcast
from neurojax.modulation import Modulators, modulators
from neurojax.network import Network, State, fold
from neurojax.neurons import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity import Homeostasis, Post, ThreeFactor, always, boxcar, post_spike, triangle
from neurojax.ranges import unconstrained
from neurojax.simulation import simulate
from neurojax.sources import Poisson
from neurojax.sparse import FanOut, by_sender
from neurojax.split_bf16 import SplitBF16, split_bf16
from neurojax.stdp import STDP
from neurojax.structured import Recurrence, structured
from neurojax.synapses import Alpha, Delay, Exponential
from neurojax.teaching import HardWTA, SoftWTA, class_scores, k_winners
from neurojax.weights import Ideal, Weights, ideal, normal

if TYPE_CHECKING:
    from neurojax import metrics, plotting

__all__ = [
    "ALIF", "Alpha", "Band", "Broadcast", "Delay", "Dense", "Exponential", "FanIn", "FanOut",
    "HardWTA", "Homeostasis", "Ideal", "LIF", "Layer", "LeakyIntegrator", "Modulators",
    "Network", "Poisson", "Post", "Projection", "Record", "Recurrence", "STDP", "SoftWTA",
    "SplitBF16", "State", "ThreeFactor", "Weights", "always", "augment", "bernoulli", "blocks",
    "boxcar", "broadcast", "by_sender", "checkpoint", "class_scores", "data",
    "distance_dependent", "encoding", "exponential_profile", "fan_in", "fan_out", "fold",
    "gaussian_profile", "ideal", "k_winners", "locally_dense", "merged", "metrics",
    "modulators", "normal", "one_to_one", "plotting", "post_spike", "recording", "simulate",
    "split_bf16", "structured", "surrogate", "traces", "triangle", "unconstrained",
    "watts_strogatz", "watts_strogatz_grid", "wta_broadcast",
]  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name in ("metrics", "plotting"):  # SciPy and matplotlib are slow to import
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
