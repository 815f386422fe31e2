"""What the peers in PyTorch share: how their networks run, learn and are timed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks import workloads as w
from benchmarks.workloads import Case

Output = Callable[[nn.Module, torch.Tensor, Callable], torch.Tensor]  # (net, x, run) -> spikes


def called(net: nn.Module, x: torch.Tensor, run: Callable) -> torch.Tensor:
    """Spikes of a network that starts from rest by itself."""
    return run(x)


def rates(net: nn.Sequential, x, ends: tuple[int, ...], output: Output) -> dict[str, Any]:
    """Mean spikes a step behind as many layers as each of `ends`."""
    return {"rates": [output(net[:end], x, net[:end]).mean().item() for end in ends]}


@torch.inference_mode()
def forward(make: Callable[[], nn.Sequential], ends, notes: str, output: Output) -> Case:
    """Spikes of the last layer."""
    net, x = make(), torch.from_numpy(w.spikes())
    fast, found = torch.compile(net), rates(net, x, ends, output)
    return Case(torch.inference_mode()(lambda: output(net, x, fast)), lambda: found, notes)


def taught(make: Callable[[], nn.Sequential], notes: str, output: Output) -> Case:
    """A step of W2; learns on from call to call."""
    net, loss = make(), nn.CrossEntropyLoss()
    x, target = torch.from_numpy(w.spikes()), torch.from_numpy(w.classes()).long()
    fast, descent = torch.compile(net), torch.optim.SGD(net.parameters(), lr=w.LR)
    found = rates(net, x, (2, 4), output)

    def run():
        descent.zero_grad()
        loss(output(net, x, fast).sum(0), target).backward()
        descent.step()

    return Case(run, lambda: found, notes)


def cases(
    feedforward: Callable[[], nn.Sequential], recurrent: Callable[[], nn.Sequential],
    notes: str, on_learning: str, output: Output = called,
) -> dict[str, Callable[[], Case]]:  # fmt: skip
    """W1 and W2 of four layers, W3 of two; the products of whole layers see all steps at once."""
    both = "; ".join(note for note in (notes, on_learning) if note)
    return {
        "W1": partial(forward, feedforward, (2, 4), notes, output),
        "W2": partial(taught, feedforward, both, output),
        "W3": partial(forward, recurrent, (2,), notes, output),
    }
