"""What `experiments.networks` asks of each network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from experiments._networks.judged import Row

Found = dict[str, Any]  # of one seed: numbers, and lists of numbers


@dataclass(frozen=True)
class Study:
    """A network, how it is run, and what it is held against."""

    once: Callable[[int, Any, Any], Found]  # of a seed, a scale and seconds of biology
    judged: Callable[[list[Found]], list[Row]]
    drawn: Callable[[list[Found]], Figure]
    seconds: float | None = 1.0  # of biology; None: they are not for choice
    scale: float | None = 1.0  # part of the published size; None: likewise
    seeds: int = 5  # 1 where nothing is left to chance
    least_scale: float = 0.02  # below it a neuron cannot hear as many others as it should
    least_seconds: float = 0.3  # shorter ones leave nothing to count
