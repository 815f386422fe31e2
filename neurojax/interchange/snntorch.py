"""snnTorch's neuron with a synaptic current: a membrane, and a synapse before it."""

from collections.abc import Callable
from typing import Any

from neurojax._check import step_size
from neurojax.interchange.models import SteppedExponential
from neurojax.neurons._foreign import numbers, time_constant
from neurojax.neurons.leaky import LIF
from neurojax.neurons.surrogate import above

__all__ = ["from_snntorch_synaptic"]


def __dir__() -> list[str]:
    return __all__


def from_snntorch_synaptic(
    alpha: Any, beta: Any, threshold: Any = 1.0, reset: str = "subtract", *, dt: Any = 1.0,
    spike: Callable = above,
) -> tuple[LIF, SteppedExponential]:  # fmt: skip
    """Neuron and synapse that are snnTorch's `Synaptic`, exactly, in steps of `dt` ms.

        i_t = alpha i_{t-1} + x_t
        u_t = beta u_{t-1} + i_t - z_{t-1} threshold,    z_t = [u_t > threshold]

    so with `reset` "subtract"; "zero" makes u_t = 0 in the whole step after a spike, i_t not
    heard, where its `Leaky` hears its current: here a refractory time of `dt`. All are one number
    or one a neuron. Currents in nA, potentials in mV. Pass a surrogate as `spike` to train on.
    Raises `ValueError` for an alpha or a beta outside [0, 1), a threshold that is not positive and
    another reset, "none" included.
    Source: Eshraghian et al. (2023), Training spiking neural networks, and snnTorch's `Synaptic`.

    >>> neuron, synapse = nj.interchange.from_snntorch_synaptic(alpha=0.8, beta=0.9)
    >>> layer = nj.Layer(10, neuron, synapse)
    >>> f"{float(synapse.tau_syn):.2f} ms"  # -1 / log(.8)
    '4.48 ms'
    """
    neuron = LIF.from_snntorch(beta, threshold, reset, dt=dt, spike=spike)
    alpha = numbers("alpha", alpha, "in [0, 1)", 0.0, 1.0)
    tau_syn = time_constant(alpha, float(step_size(dt)))
    if reset == "zero":
        fields = {n: getattr(neuron, n) for n in ("tau_mem", "r_mem", "v_th")}
        neuron = LIF(**fields, t_ref=dt, spike=spike)
    return neuron, SteppedExponential(tau_syn, "synapse", held=True)
