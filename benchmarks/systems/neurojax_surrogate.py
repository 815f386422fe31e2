"""The same networks taught by surrogate gradient, through flax and optax."""

from functools import partial

from benchmarks.systems import neurojax
from benchmarks.systems.neurojax import PACKAGES
from neurojax.learning.bptt import gradients
from neurojax.neurons.surrogate import fast_sigmoid

__all__ = ["CASES", "PACKAGES"]
by_gradient = partial(gradients, spike=fast_sigmoid(5.0), gain=10.0)
CASES = {name: partial(getattr(neurojax, name.lower()), by_gradient) for name in ("W7", "W8")}
