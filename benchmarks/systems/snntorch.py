"""snnTorch: its neurons in the usual loop, layer by layer, as it is or under `torch.compile`.

Layer by layer, as a product then sees all steps at once; its neurons for whole sequences have
no reset. Compiling unrolls the loop: minutes before the first call, half the time in each.
"""

import snntorch as snn
import torch
from snntorch.surrogate import fast_sigmoid
from torch import nn

from benchmarks import workloads as w
from benchmarks.systems._torch import cases

PACKAGES = ("snntorch", "torch")
NOTES = "resets one step late, and reset does not leak"


def dense(n_in: int, n: int, gain: float) -> nn.Linear:
    """The shared weights, without bias."""
    layer = nn.Linear(n_in, n, bias=False)
    layer.weight.data = torch.from_numpy(w.weights(n_in, n, gain))
    return layer


class OverTime(nn.Module):
    """All steps of one layer of neurons."""

    def __init__(self):
        super().__init__()
        self.cells = snn.Leaky(w.BETA, w.V_TH, fast_sigmoid(w.SLOPE))

    def forward(self, current):
        """Spikes [T, B, n] of currents [T, B, n]."""
        v, spikes = torch.zeros_like(current[0]), []
        for now in current:
            z, v = self.cells(now, v)
            spikes.append(z)
        return torch.stack(spikes)


class Recurrent(nn.Module):
    """All steps of neurons that hear each other's last step."""

    def __init__(self, n: int):
        super().__init__()
        spike = fast_sigmoid(w.SLOPE)
        self.cells = snn.RLeaky(w.BETA, linear_features=n, threshold=w.V_TH, spike_grad=spike)
        self.cells.recurrent = dense(n, n, w.W_REC)  # its own has a bias

    def forward(self, current):
        """Spikes [T, B, n] of currents [T, B, n]."""
        z = v = torch.zeros_like(current[0])
        spikes = []
        for now in current:
            z, v = self.cells(now, z, v)
            spikes.append(z)
        return torch.stack(spikes)


def feedforward() -> nn.Sequential:
    """784-512-10."""
    first, second = dense(w.N_IN, w.N_HIDDEN, w.W_IN), dense(w.N_HIDDEN, w.N_OUT, w.W_OUT)
    return nn.Sequential(first, OverTime(), second, OverTime())


def looped() -> nn.Sequential:
    """784 -> 1024 with recurrence; only its product stays in the loop."""
    return nn.Sequential(dense(w.N_IN, w.N_RECURRENT, w.W_IN), Recurrent(w.N_RECURRENT))


# No gradient through the reset is its habit.
CASES = cases(feedforward, looped, NOTES, "reset without gradient")
