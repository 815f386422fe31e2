"""Train the same network by backpropagation through time: what local learning is compared with.

    python -m experiments.surrogate_reference --dataset digits --out runs/reference

Wiring, neurons, homeostasis, pictures, optimiser and evaluation are those of
`experiments.wta_broadcast`. Only what asks for changes of weights is another: here the
gradient of a loss, in which each spike has the derivative of a surrogate.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from experiments import _config, _run, wta_broadcast
from experiments._options import Need
from neurojax.learning import bptt
from neurojax.neurons.surrogate import fast_sigmoid

_OF_THE_RULE = (
    "teacher", "margin", "feedback", "bandwidth", "redraw_feedback", "modulators", "window",
    "window_width", "kappa_e", "trace_decay", "reset_trace",
)  # fmt: skip


@dataclass(frozen=True)
class Learning(_config.Learning):
    """The loss, its gradient, and what makes steps of it."""

    gain: float = 10.0
    """Slope of the softmax over the scores that decide."""
    slope: float = 5.0
    """Derivative of a spike: 1 / (1 + slope |v - v_th|)^2, slope per mV."""
    weight_decay: float = 0.0
    rate_penalty: float = 0.0
    """Weight in the loss of the squared difference of each neuron's rate from target."""

    needs: ClassVar[tuple[Need, ...]] = (
        Need(
            "slope", "freeze_hidden", "--no-freeze-hidden or --readout spiking",
            lambda c: not c.freeze_hidden or c.readout == "spiking",
        ),
    )  # fmt: skip
    within: ClassVar = dict(slope="(0, inf)")


@dataclass(frozen=True)
class Config(Learning, _config.Config):
    """Options of the local system, but for those of its learning rule, which are refused."""

    out: Path = Path("runs/surrogate_reference")

    withheld = _OF_THE_RULE


def run(config: Config) -> dict[str, Any]:
    """The whole experiment; returns what it writes to metrics.json."""
    for name in _OF_THE_RULE:
        value = getattr(config, name)
        if value != getattr(wta_broadcast.Config, name):
            allowed = f"--{_run.dashed(name)} belongs to the local rule and must be left out"
            raise ValueError(f"{allowed}; got {value}")
    spike = fast_sigmoid(config.slope)
    return wta_broadcast.run(config, partial(bptt.learner, spike=spike, gain=config.gain))


if __name__ == "__main__":
    _run.main(Config, run)
