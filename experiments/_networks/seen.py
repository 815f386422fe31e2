"""What is kept of one run: statistics as numbers, distributions as quantiles, some spikes."""

from typing import Any

import numpy as np

from neurojax.analysis import spikes
from neurojax.analysis.spikes import Trains

_QUANTILES = np.linspace(0, 1, 101)


def population(seen: Trains, *, skip: float) -> dict[str, Any]:
    """Rate (Hz), CV and correlation in 5 ms of the spikes after `skip` ms, and distributions."""
    late = seen.after(skip)
    rates, cvs = spikes.rates(late), spikes.cv(late)
    return {
        "rate": float(rates.mean()), "cv": mean(cvs), "correlation": spikes.correlation(late, 5.0),
        "rates": quantiles(rates), "cvs": quantiles(cvs),
    }  # fmt: skip


def quantiles(x: Any) -> list[float]:
    """101 of a distribution, from the least to the largest; NaN left out."""
    x = np.asarray(x, float)
    x = x[~np.isnan(x)]
    return np.quantile(x, _QUANTILES).round(6).tolist() if x.size else [0.0] * 101


def mean(x: Any) -> float:
    """Of what is a number; NaN where nothing is."""
    x = np.asarray(x, float)
    return float(np.nanmean(x)) if np.isfinite(x).any() else float("nan")


def raster(seen: Trains, groups: list[int], *, last: float, shown: int = 250) -> dict[str, Any]:
    """Spikes in the `last` ms of `shown` neurons, drawn evenly from `groups` that follow another.

    Neurons are numbered anew; groups keep their order, and their share.
    """
    every = max(seen.n // shown, 1)
    part = seen.of(slice(None, None, every))
    start = max(seen.duration - last, 0.0)
    kept = part.times > start
    ends = -(-np.cumsum(groups) // every)
    return {
        "times": part.times[kept].round(3).tolist(), "neurons": part.neurons[kept].tolist(),
        "groups": np.diff(ends, prepend=0).tolist(), "n": part.n, "start": start,
        "end": seen.duration,
    }  # fmt: skip
