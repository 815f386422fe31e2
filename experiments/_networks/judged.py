"""Whether what was found agrees with its reference: a band for the mean over seeds, always."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import neurojax as nj

# Standard errors by which two means of a few seeds may differ.
_SIGMAS = 4.0


@dataclass(frozen=True)
class Row:
    """One statistic: ours from each seed, the reference, and the band that our mean must be in."""

    statistic: str
    unit: str
    values: tuple[float, ...]
    reference: float
    low: float
    high: float
    source: str

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.values))

    @property
    def sd(self) -> float | None:
        """Over seeds; None of one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def agrees(self) -> bool:
        """Whether the mean is in the band; what is no number is not."""
        return self.low <= self.mean <= self.high

    def told(self) -> dict[str, Any]:
        """As metrics.json has it: what is no number is null."""
        found = asdict(self) | {"mean": self.mean, "sd": self.sd, "agrees": self.agrees}
        found["values"] = [x if math.isfinite(x) else None for x in self.values]
        return {k: None if x != x else x for k, x in found.items()}


def within(statistic: str, unit: str, values: Any, low: float, high: float, source: str) -> Row:
    """A band that the reference states."""
    return Row(statistic, unit, tuple(values), (low + high) / 2, low, high, source)


def near(
    statistic: str, unit: str, values: Any, reference: float, part: float, source: str
) -> Row:  # fmt: skip
    """A number that the reference states, to a `part` of it."""
    by = part * abs(reference)
    return Row(statistic, unit, tuple(values), reference, reference - by, reference + by, source)


def alike(statistic: str, unit: str, values: Any, others: Any, source: str) -> Row:
    """As many seeds of another simulator: means as alike as their spread over seeds lets them be.

    They may differ by four standard errors of the difference, and 2% for steps of the grid.
    """
    values, others = np.asarray(values), np.asarray(others)
    spread = [x.var(ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (values, others)]
    reference = float(others.mean())
    by = float(_SIGMAS * np.sqrt(sum(spread)) + 0.02 * abs(reference))
    return Row(
        statistic, unit, tuple(values.tolist()), reference, reference - by, reference + by, source
    )


def one_run(
    statistic: str, unit: str, values: Any, reference: float, sd: float, source: str
) -> Row:
    """One run of another simulator, which may be as far off as runs are that spread by `sd`.

    Four standard errors of the difference to our mean, and 2% for steps of the grid.
    """
    by = _SIGMAS * sd * math.sqrt(1 + 1 / len(values)) + 0.02 * abs(reference)
    return Row(statistic, unit, tuple(values), reference, reference - by, reference + by, source)


def distance(statistic: str, samples: Any, others: Any, source: str) -> Row:
    """Distributions over neurons: no farther from the others than seeds of one simulator are.

    Ours is the mean distance of Kolmogorov and Smirnov of each seed to all of the other's, the
    reference that mean of its own seeds, the limit the largest between two seeds of one hand.
    """
    ours = [float(np.mean([nj.spikes.ks(a, b) for b in others])) for a in samples]
    own = _among(others)
    limit = max([*own, *_among(samples)])
    return Row(statistic, "", tuple(ours), float(np.mean(own)), 0.0, limit, source)


def _among(samples: Any) -> list[float]:
    return [nj.spikes.ks(a, b) for i, a in enumerate(samples) for b in samples[:i]]


def recorded(name: str) -> tuple[list[dict[str, Any]], str]:
    """What another hand made of a network from each seed, and whose it was."""
    made = json.loads(Path(__file__).with_name("references.json").read_text())[name]
    return made["seeds"], f"{made['by']}, {len(made['seeds'])} seeds"
