"""Interchange: networks from other tools, and to them, by the NIR standard.

What a file means is asked, never guessed; what would be lost is refused. The models here are the
nodes of NIR that are nobody else's, and neurons of others that need one of these.
"""

from neurojax.interchange._exporting import to_nir
from neurojax.interchange._importing import Imported, check_nir, from_nir
from neurojax.interchange.models import (
    Integrator,
    Passive,
    PotentialState,
    Relay,
    SteppedExponential,
    SteppedState,
    Threshold,
)
from neurojax.interchange.snntorch import from_snntorch_synaptic

__all__ = [
    "Imported", "Integrator", "Passive", "PotentialState", "Relay", "SteppedExponential",
    "SteppedState", "Threshold", "check_nir", "from_nir", "from_snntorch_synaptic", "to_nir",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
