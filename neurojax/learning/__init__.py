"""Whole learning systems, one module each."""

from neurojax.learning import wta_broadcast

__all__ = ["wta_broadcast"]


def __dir__() -> list[str]:
    return __all__
