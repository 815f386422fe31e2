"""SpikingJelly: layers in multi-step mode, as it is or under `torch.compile`.

Each layer takes all steps before the next one. Compiling unrolls their loops: minutes before
the first call, half the time in each.
"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from benchmarks import workloads as w
from benchmarks.systems._torch import cases, rates
from benchmarks.workloads import Case

PACKAGES = ("spikingjelly", "torch")
ON_LEARNING = "surrogate 12.5 times as high"


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


def convolution(n_in: int, n: int, gain: float) -> layer.Conv2d:
    """Windows of 3 x 3 with the shared weights, without bias."""
    made = layer.Conv2d(n_in, n, 3, padding=1, bias=False, step_mode="m")
    made.weight.data = torch.from_numpy(w.kernels((n, n_in, 3, 3), gain))
    return made


def convolutional() -> nn.Sequential:
    """32C3-P2-64C3-P2-10, pools being means."""
    (first, second), pool = w.MAPS, lambda: layer.AvgPool2d(2, step_mode="m")
    n = second * (w.SIDE // 4) ** 2
    return nn.Sequential(
        convolution(1, first, w.W_CONV[0]), lif(), pool(),
        convolution(first, second, w.W_CONV[1]), lif(), pool(),
        layer.Flatten(step_mode="m"), dense(n, w.N_OUT, w.W_CONV[2]), lif(),
    )  # fmt: skip


def pictures() -> torch.Tensor:
    """Input spikes as maps, [T, batch, 1, height, width]."""
    return torch.from_numpy(w.spikes(w.T_CONV)).reshape(w.T_CONV, w.BATCH, 1, w.SIDE, w.SIDE)


def w14() -> Case:
    """Spikes of the last layer."""
    net, x = convolutional(), pictures()
    found = rates(net, x, (2, 5, 9), from_rest)
    run = torch.inference_mode()(lambda: from_rest(net, x, net))
    return Case(w.in_processor_time(run), lambda: found)


def w14_learn() -> Case:
    """A training step; learns on from call to call."""
    net, loss, x = convolutional(), nn.CrossEntropyLoss(), pictures()
    found = rates(net, x, (2, 5, 9), from_rest)
    target = torch.from_numpy(w.classes()).long()
    tx = torch.optim.SGD(net.parameters(), lr=w.LR)

    def run():
        tx.zero_grad()
        loss(from_rest(net, x, net).sum(0), target).backward()
        tx.step()

    return Case(w.in_processor_time(run), lambda: found, ON_LEARNING)


# Its `SoftSign` is the fast sigmoid, SLOPE / 2 times as high.
CASES = cases(feedforward, looped, "", ON_LEARNING, from_rest)
CASES |= {"W14": w14, "W14-learn": w14_learn}
