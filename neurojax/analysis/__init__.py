"""Analysis: what a run shows, as figures.

What reads records and writes none belongs here; nothing that simulates imports it.
"""

__all__: list[str] = []


def __dir__() -> list[str]:
    return __all__
