"""Physical models: memristive devices, how they are programmed, and crossbar arrays of them.

They respond to pulses in SI units and may use the types of `neurojax`, but know nothing of
learning: a plastic projection reaches a device through the methods of `neurojax.Weights`, so
a network moves from numbers to devices by what makes its weights alone. `topology`, `routing`
and `energy` say what the same network would take on a mesh of cores.
"""

from hardware import energy, presets, routing, topology
from hardware.crossbar import Crossbar, Quantiser, Write, crossbar, transferred
from hardware.devices import (
    Affine,
    Device,
    Response,
    Stepwise,
    Table,
    exp_step,
    exponential,
    linear,
    piecewise,
    power,
    querlioz,
    soft_bounds,
    table,
    varied,
)
from hardware.pcm import PCM
from hardware.programming import (
    Bidirectional,
    Coder,
    MixedPrecision,
    OneSide,
    Policy,
    Single,
    Train,
    Unidirectional,
    WriteVerify,
)
from hardware.topology import Mesh
from neurojax._repr import short_types

__all__ = [
    "Affine", "Bidirectional", "Coder", "Crossbar", "Device", "Mesh", "MixedPrecision", "OneSide",
    "PCM", "Policy", "Quantiser", "Response", "Single", "Stepwise", "Table", "Train",
    "Unidirectional", "Write", "WriteVerify", "crossbar", "energy", "exp_step", "exponential",
    "linear", "piecewise", "power", "presets", "querlioz", "routing", "soft_bounds", "table",
    "topology", "transferred", "varied",
]  # fmt: skip

short_types({name: globals()[name] for name in __all__})


def __dir__() -> list[str]:
    return __all__
