"""Wiring: who sends to whom, and the products that a layout makes cheap.

Layouts (dense, rows of senders, bands, event lists), what draws them, and what graph theory
says of them belong here. A layout holds no weights: they are handed to its products.
"""

from neurojax.wiring.convolution import Conv1D, Conv2D, Local1D, Local2D
from neurojax.wiring.generators import (
    bernoulli,
    blocks,
    distance_dependent,
    exponential_profile,
    fan_in,
    fan_out,
    gaussian_profile,
    locally_dense,
    long_range,
    merged,
    one_to_one,
    watts_strogatz,
    watts_strogatz_grid,
)
from neurojax.wiring.layouts import Band, Dense, Edges, FanIn
from neurojax.wiring.procedural import Procedural, procedural
from neurojax.wiring.sparse import Connectivity, FanOut, as_fan_out, by_sender
from neurojax.wiring.totals import fixed_total
from neurojax.wiring.visits import Visit

__all__ = [
    "Band", "Connectivity", "Conv1D", "Conv2D", "Dense", "Edges", "FanIn", "FanOut", "Local1D",
    "Local2D", "Procedural", "Visit", "as_fan_out", "bernoulli", "blocks", "by_sender",
    "distance_dependent", "exponential_profile", "fan_in", "fan_out", "fixed_total",
    "gaussian_profile", "locally_dense", "long_range", "merged", "one_to_one", "procedural",
    "watts_strogatz", "watts_strogatz_grid",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
