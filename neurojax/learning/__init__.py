"""Whole learning systems, one a module, all of them Learners (`neurojax.learning.learner`).

What a rule of plasticity is lies in `plasticity`; here such rules, a network and what teaches it
become something that learns from a batch, on numbers or on devices; `fitting` is the loop.
"""

from neurojax.learning import wta_broadcast as wta_broadcast
from neurojax.learning.backprop import Backprop
from neurojax.learning.boltzmann import Boltzmann, Monotone, Restricted
from neurojax.learning.counter_current import CounterCurrent
from neurojax.learning.decolle import Decolle
from neurojax.learning.difference_target import DifferenceTarget
from neurojax.learning.direct_feedback import DFA
from neurojax.learning.direct_target import DRTP
from neurojax.learning.eprop import EProp
from neurojax.learning.equilibrium import Equilibrium
from neurojax.learning.feedback_alignment import FeedbackAlignment
from neurojax.learning.fitting import Fitted, NotFinite
from neurojax.learning.forward_forward import ForwardForward
from neurojax.learning.node_perturbation import NodePerturbation
from neurojax.learning.noprop import (
    MLPBlock,
    NoiseSchedule,
    NoProp,
    SpikingBlock,
    cosine_noise,
)
from neurojax.learning.pepita import PEPITA
from neurojax.learning.perceptron import Perceptron
from neurojax.learning.predictive_coding import PredictiveCoding
from neurojax.learning.relax import relax
from neurojax.learning.ska import SKA
from neurojax.learning.softhebb import SoftHebb
from neurojax.learning.wta_learner import WTABroadcast
from neurojax.learning.zeroth_order import Coordinates, Directions, Neurons, ZerothOrder, zo_grasp

__all__ = [
    "Backprop",
    "Boltzmann",
    "Coordinates",
    "CounterCurrent",
    "DFA",
    "DRTP",
    "Decolle",
    "DifferenceTarget",
    "Directions",
    "EProp",
    "Equilibrium",
    "FeedbackAlignment",
    "Fitted",
    "ForwardForward",
    "MLPBlock",
    "Monotone",
    "Neurons",
    "NoProp",
    "NodePerturbation",
    "NoiseSchedule",
    "NotFinite",
    "PEPITA",
    "Perceptron",
    "PredictiveCoding",
    "Restricted",
    "SKA",
    "SoftHebb",
    "SpikingBlock",
    "WTABroadcast",
    "ZerothOrder",
    "cosine_noise",
    "relax",
    "zo_grasp",
]


def __dir__() -> list[str]:
    return __all__
