"""Data: named sets of pictures, and what makes them inputs.

Readers, encoders and augmentation belong here; what is read is checked before it is handed on.
"""

from neurojax.data.sets import Dataset, Split, check, load

__all__ = ["Dataset", "Split", "check", "load"]


def __dir__() -> list[str]:
    return __all__
