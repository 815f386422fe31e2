"""Data: named sets of pictures and of events, and what makes them inputs.

Readers, encoders and augmentation belong here; what is read is checked before it is handed on.
"""

from neurojax.data.rasters import Rasters
from neurojax.data.sets import Dataset, Split, check, load

__all__ = ["Dataset", "Rasters", "Split", "check", "load"]


def __dir__() -> list[str]:
    return __all__
