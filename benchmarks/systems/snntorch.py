"""snnTorch: its neurons in the usual loop, layer by layer, as it is or under `torch.compile`.

Layer by layer, as a product then sees all steps at once; its neurons for whole sequences have
no reset. Compiling unrolls the loop: minutes before the first call, half the time in each.
"""

import snntorch as snn
import torch
from snntorch.surrogate import fast_sigmoid
from torch import nn

from benchmarks import workloads as w
from benchmarks.workloads import Case

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


def rates(net: nn.Sequential, x, *ends: int) -> dict[str, list[float]]:
    """Mean spikes a step behind as many layers as each of `ends`."""
    return {"rates": [net[:end](x).mean().item() for end in ends]}


@torch.inference_mode()
def forward(net: nn.Sequential, *ends: int) -> Case:
    """Spikes of the last layer."""
    x, fast = torch.from_numpy(w.spikes()), torch.compile(net)
    found = rates(net, x, *ends)  # before compiling: state has its shape, so that once is enough
    run = torch.inference_mode()(lambda: fast(x))
    return Case(run, lambda: found, NOTES)


def w1() -> Case:
    """Both products over all steps at once."""
    return forward(feedforward(), 2, 4)


def w2() -> Case:
    """Learns on from call to call; no gradient through the reset, as it is its habit."""
    net, loss = feedforward(), nn.CrossEntropyLoss()
    x, target = torch.from_numpy(w.spikes()), torch.from_numpy(w.classes()).long()
    fast, descent = torch.compile(net), torch.optim.SGD(net.parameters(), lr=w.LR)
    found = rates(net, x, 2, 4)

    def run():
        descent.zero_grad()
        loss(fast(x).sum(0), target).backward()
        descent.step()

    return Case(run, lambda: found, f"{NOTES}; reset without gradient")


def w3() -> Case:
    """Only the recurrent product stays in the loop."""
    net = nn.Sequential(dense(w.N_IN, w.N_RECURRENT, w.W_IN), Recurrent(w.N_RECURRENT))
    return forward(net, 2)


CASES = {"W1": w1, "W2": w2, "W3": w3}
