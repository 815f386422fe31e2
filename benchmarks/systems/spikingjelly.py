"""SpikingJelly: layers in multi-step mode, as it is or under `torch.compile`.

Each layer takes all steps before the next one. Compiling unrolls their loops: minutes before
the first call, half the time in each.
"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from benchmarks import workloads as w
from benchmarks.workloads import Case

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


def output(net: nn.Module, x, fast=None):
    """Spikes from rest."""
    functional.reset_net(net)
    return (fast or net)(x)


def rates(net: nn.Sequential, x, *ends: int) -> dict[str, list[float]]:
    """Mean spikes a step behind as many layers as each of `ends`."""
    return {"rates": [output(net[:end], x).mean().item() for end in ends]}


@torch.inference_mode()
def forward(net: nn.Sequential, *ends: int) -> Case:
    """Spikes of the last layer."""
    x, fast = torch.from_numpy(w.spikes()), torch.compile(net)
    found = rates(net, x, *ends)
    return Case(torch.inference_mode()(lambda: output(net, x, fast)), lambda: found)


def w1() -> Case:
    """Both products over all steps at once."""
    return forward(feedforward(), 2, 4)


def w2() -> Case:
    """Learns on from call to call; its `SoftSign` is the fast sigmoid, SLOPE / 2 times as high."""
    net, loss = feedforward(), nn.CrossEntropyLoss()
    x, target = torch.from_numpy(w.spikes()), torch.from_numpy(w.classes()).long()
    fast, descent = torch.compile(net), torch.optim.SGD(net.parameters(), lr=w.LR)
    found = rates(net, x, 2, 4)

    def run():
        descent.zero_grad()
        loss(output(net, x, fast).sum(0), target).backward()
        descent.step()

    return Case(run, lambda: found, notes="surrogate 12.5 times as high")


def w3() -> Case:
    """Only the recurrent product stays in the loop."""
    net = nn.Sequential(dense(w.N_IN, w.N_RECURRENT, w.W_IN), recurrent(w.N_RECURRENT))
    return forward(net, 2)


CASES = {"W1": w1, "W2": w2, "W3": w3}
