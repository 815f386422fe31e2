"""Norse: its LIF without synaptic current, `Lift`ed over time, as it is or under `torch.compile`.

Compiling, which its tests do too, unrolls the loop: minutes before the first call, half the
time in each.
"""

import torch
from norse.torch import LIFBoxCell, LIFBoxFeedForwardState, LIFBoxParameters, Lift, reset_subtract
from torch import nn

from benchmarks import workloads as w
from benchmarks.systems._torch import cases

PACKAGES = ("norse", "torch")
NOTES = "fires above, not at, the threshold; weights / (1 - BETA)"


def dense(n_in: int, n: int, gain: float) -> nn.Linear:
    """The shared weights, larger by what its neurons make of a current: 1 - BETA."""
    layer = nn.Linear(n_in, n, bias=False)
    layer.weight.data = torch.from_numpy(w.weights(n_in, n, gain)) / (1 - w.BETA)
    return layer


def lif() -> LIFBoxCell:
    """Reset by subtraction; steps of 1 ms."""
    leak, v_th = torch.tensor(1e3 * (1 - w.BETA)), torch.tensor(w.V_TH)
    p = LIFBoxParameters(tau_mem_inv=leak, v_th=v_th, reset_method=reset_subtract)
    return LIFBoxCell(p, dt=1e-3)


def rest(current) -> LIFBoxFeedForwardState:
    """Its own default is a number that has a gradient, which `torch.compile` stumbles over."""
    return LIFBoxFeedForwardState(torch.zeros_like(current[0]))


class OverTime(nn.Module):
    """All steps of one layer of neurons."""

    def __init__(self):
        super().__init__()
        self.cells = Lift(lif())

    def forward(self, current):
        """Spikes [T, B, n] of currents [T, B, n]."""
        return self.cells((current, rest(current)))[0]


class Recurrent(nn.Module):
    """All steps of neurons that hear each other's last step, as its `LIFRecurrent`.

    That one takes the input into the loop, and has a synaptic current and a reset to 0.
    """

    def __init__(self, n: int):
        super().__init__()
        self.cells, self.loop = lif(), dense(n, n, w.W_REC)

    def forward(self, current):
        """Spikes [T, B, n] of currents [T, B, n]."""
        z, state, spikes = torch.zeros_like(current[0]), rest(current), []
        for now in current:
            z, state = self.cells(now + self.loop(z), state)
            spikes.append(z)
        return torch.stack(spikes)


def feedforward() -> nn.Sequential:
    """784-512-10."""
    first, second = dense(w.N_IN, w.N_HIDDEN, w.W_IN), dense(w.N_HIDDEN, w.N_OUT, w.W_OUT)
    return nn.Sequential(first, OverTime(), second, OverTime())


def looped() -> nn.Sequential:
    """784 -> 1024 with recurrence; only its product stays in the loop."""
    return nn.Sequential(dense(w.N_IN, w.N_RECURRENT, w.W_IN), Recurrent(w.N_RECURRENT))


# Its `super` surrogate ignores its slope, and has 1.
CASES = cases(feedforward, looped, NOTES, "surrogate of slope 1")
