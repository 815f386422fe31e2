"""What is timed: sizes and data of every workload, alike for all systems. Needs NumPy alone.

W1  784-512-10 LIF forward, 100 steps, batch 32: output spikes
W2  W1 as a training step by surrogate gradient: cross-entropy of spike counts, plain SGD
W3  784 -> 1024 LIF with dense recurrence, 100 steps, batch 32: all spikes
W4  20,000 LIF with 2 million synapses at 15 Hz, steps of 0.1 ms: a biological second
W5  perceptron on linear 64-level devices, MNIST: seconds to 92% on validation
W7  three-factor change of 784 -> 512 with dense recurrence, 25 steps, batch 64
W8  an epoch of MNIST with the main network, 2 x 512 with local recurrence, batch 64
W9  how time and memory grow with neurons, synapses, steps, seeds and devices
W10  W4 with all synapses plastic by pair STDP
W11-cuba  4,000 neurons, Brette et al. (2007), synapses as currents: a biological second, one core
W11-coba  4,000 neurons, Brette et al. (2007), synapses as conductances: likewise
W12  4,000 neurons with channels, Brette et al. (2007), synapses as conductances: likewise
W13  W4 with a delay of its own for each synapse, .1 to 5 ms
W14  28x28-32C3-P2-64C3-P2-10 LIF forward, 10 steps, batch 32, one core: output spikes
W14-learn  W14 as a training step by surrogate gradient, as W2
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BETA, V_TH, RATE = 0.9, 1.0, 0.1  # of the membrane in a step; threshold; of input spikes
T, BATCH, N_IN, N_HIDDEN, N_OUT = 100, 32, 784, 512, 10  # W1 and W2
N_RECURRENT = 1024  # W3
SPARSE = 20_000, 1.0, 0  # W4: neurons, biological seconds, seed
BALANCED = {"W11-cuba": "cuba", "W11-coba": "coba", "W12": "cobahh"}
ONE_CORE = (*BALANCED, "W14", "W14-learn")  # in processor time, as others may use the machine
T_LOCAL, BATCH_LOCAL = 25, 64  # W7, N_HIDDEN neurons
T_CONV, MAPS, SIDE = 10, (32, 64), 28  # W14: steps, maps of both layers, width of a picture
BATCHES, STRETCH = 859, 43  # W8: batches of an epoch, and of those that are timed in one go


@dataclass(frozen=True)
class Case:
    """One workload in one system, ready to run."""

    run: Callable[[], Any]
    """One repetition, waited for; answers with seconds where it knows better than the clock."""
    facts: Callable[[], dict[str, Any]] = dict
    """What proves that the work was done, such as firing rates; not timed."""
    notes: str = ""
    """Where its semantics differ."""
    calls: int = field(default=3)
    """How many calls of `run` make a repeat."""


def in_processor_time(run: Callable[[], Any]) -> Callable[[], float]:
    """`run`, which answers with the seconds that this process had a processor for it."""

    def timed() -> float:
        begin = time.process_time()
        run()
        return time.process_time() - begin

    return timed


def mnist() -> Path:
    """Folder of the MNIST files, $NEUROJAX_DATA; `LookupError` where it is not set."""
    if "NEUROJAX_DATA" not in os.environ:
        raise LookupError("needs MNIST: set NEUROJAX_DATA to the folder of its IDX files")
    return Path(os.environ["NEUROJAX_DATA"])


def spikes(n_steps: int = T, batch: int = BATCH, n: int = N_IN, seed: int = 0) -> np.ndarray:
    """Input spikes [n_steps, batch, n], float32, each with probability RATE."""
    return (np.random.default_rng(seed).random((n_steps, batch, n)) < RATE).astype(np.float32)


def classes(batch: int = BATCH, seed: int = 0) -> np.ndarray:
    """A class of each sample, int32."""
    return np.random.default_rng(seed + 1).integers(0, N_OUT, batch).astype(np.int32)


def weights(n_in: int, n: int, gain: float, seed: int = 0) -> np.ndarray:
    """Gaussian weights [n, n_in], float32, of standard deviation gain / sqrt(n_in)."""
    scale = gain / np.sqrt(n_in)
    return (np.random.default_rng([seed, n_in, n]).standard_normal((n, n_in)) * scale).astype(
        np.float32
    )


def kernels(shape: tuple[int, ...], gain: float) -> np.ndarray:
    """The same of a shape [features, channels, height, width]."""
    return weights(int(np.prod(shape[1:])), shape[0], gain).reshape(shape)


W_CONV = 3.0, 6.0, 6.0  # gains of both convolutions, and of the readout
W_IN, W_OUT, W_REC = 1.5, 1.5, 0.5  # gains of input, output and recurrent weights
SLOPE, LR = 25.0, 0.1  # of the surrogate fast sigmoid where a peer has it; of plain SGD
