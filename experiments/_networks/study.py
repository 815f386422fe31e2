"""What `experiments.networks` asks of each network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh
from matplotlib.figure import Figure

from experiments._networks.judged import Row

Found = dict[str, Any]  # of one seed: numbers, and lists of numbers


@dataclass(frozen=True)
class Study:
    """A network, how it is run, and what it is held against."""

    # of a seed, a scale, seconds of biology, and the mesh that its neurons are divided over
    once: Callable[[int, Any, Any, Mesh | None], Found]
    judged: Callable[[list[Found]], list[Row]]
    drawn: Callable[[list[Found]], Figure]
    seconds: float | None = 1.0  # of biology; None: they are not for choice
    scale: float | None = 1.0  # part of the published size; None: likewise
    seeds: int = 5  # 1 where nothing is left to chance
    least_scale: float = 0.02  # below it a neuron cannot hear as many others as it should
    least_seconds: float = 0.3  # shorter ones leave nothing to count
    divides: bool = True  # False where there is but one neuron
