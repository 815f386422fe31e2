"""Analysis: what a run shows, as statistics of its spikes and as figures.

What reads records and writes none belongs here; nothing that simulates imports it.
"""

__all__: list[str] = []


def __dir__() -> list[str]:
    return __all__
