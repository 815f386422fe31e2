"""Whole learning systems, one a module, all of them Learners (`neurojax.learning.learner`).

What a rule of plasticity is lies in `plasticity`; here such rules, a network and what teaches it
become something that learns from a batch, on numbers or on devices.
"""

from neurojax.learning import wta_broadcast
from neurojax.learning.backprop import Backprop
from neurojax.learning.counter_current import CounterCurrent
from neurojax.learning.direct_feedback import DFA
from neurojax.learning.learner import Learner
from neurojax.learning.perceptron import Perceptron

__all__ = ["Backprop", "CounterCurrent", "DFA", "Learner", "Perceptron", "wta_broadcast"]


def __dir__() -> list[str]:
    return __all__
