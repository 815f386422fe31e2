"""Data: named sets of pictures and of events, and what makes them inputs.

Readers, encoders and augmentation belong here; what is read is checked before it is handed on.
"""

from neurojax.data import streams
from neurojax.data.moving import camera, moving_digits
from neurojax.data.ragged import Rasters
from neurojax.data.recordings import (
    Events,
    bin_events,
    events,
    opened,
    rasters,
    read_events,
    time_surface,
)
from neurojax.data.sets import Dataset, Split, check, load
from neurojax.data.sound import cochlea, log_mel, mel_bands, mel_spikes, resonances
from neurojax.data.spoken import Spoken, read_spoken
from neurojax.data.sums import sums

__all__ = [
    "Dataset", "Events", "Rasters", "Split", "Spoken", "bin_events", "camera", "check", "cochlea",
    "events", "load", "log_mel", "mel_bands", "mel_spikes", "moving_digits", "opened", "rasters",
    "read_events", "read_spoken", "resonances", "streams", "sums", "time_surface",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
