"""SpikingJelly: layers in multi-step mode, as it is or under `torch.compile`.

Each layer takes all steps before the next one. Compiling unrolls their loops: minutes before
the first call, half the time in each.
"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from benchmarks import workloads as w
from benchmarks.systems._torch import cases

PACKAGES = ("spikingjelly", "torch")


def dense(n_in: int, n: int, gain: float) -> layer.Linear:
    """The shared weights, without bias."""
    made = layer.Linear(n_in, n, bias=False, step_mode="m")
    made.weight.data = torch.from_numpy(w.weights(n_in, n, gain))
    return made


def lif(step_mode: str = "m") -> neuron.LIFNode:
    """Reset by subtraction, which is its `v_reset=None`."""
    return neuron.LIFNode(
        1 / (1 - w.BETA), decay_input=False, v_threshold=w.V_TH, v_reset=None,
        surrogate_function=surrogate.SoftSign(w.SLOPE), step_mode=step_mode,
    )  # fmt: skip


class Hear(nn.Module):
    """Adds to a current what the last step's spikes cause."""

    def __init__(self, n: int):
        super().__init__()
        self.loop = dense(n, n, w.W_REC)

    def forward(self, y, x):
        """Current of a step, from spikes `y` of the last one and what comes in, `x`."""
        return x + self.loop(y)


def recurrent(n: int) -> layer.ElementWiseRecurrentContainer:
    """Not its `LinearRecurrentContainer`, whose product has the input in it, of twice the size."""
    return layer.ElementWiseRecurrentContainer(lif("s"), Hear(n), step_mode="m")


def feedforward() -> nn.Sequential:
    """784-512-10."""
    first, second = dense(w.N_IN, w.N_HIDDEN, w.W_IN), dense(w.N_HIDDEN, w.N_OUT, w.W_OUT)
    return nn.Sequential(first, lif(), second, lif())


def looped() -> nn.Sequential:
    """784 -> 1024 with recurrence; only its product stays in the loop."""
    return nn.Sequential(dense(w.N_IN, w.N_RECURRENT, w.W_IN), recurrent(w.N_RECURRENT))


def from_rest(net: nn.Module, x, run):
    """Spikes, after its state has been put back."""
    functional.reset_net(net)
    return run(x)


# Its `SoftSign` is the fast sigmoid, SLOPE / 2 times as high.
CASES = cases(feedforward, looped, "", "surrogate 12.5 times as high", from_rest)
