"""Figures of networks: who fired when, and distributions beside those of the reference."""

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#222222", "#B5B5B5"
GROUPS = (BLUE, ORANGE, GREEN, BLACK)


def population(found: list[dict[str, Any]], others: list[dict[str, Any]], title: str) -> Figure:
    """The last spikes of the first seed; rates and CVs of all seeds, and of the reference."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplot_mosaic([["raster", "rates"], ["raster", "cvs"]], width_ratios=(2, 1))
    raster(axes["raster"], found[0]["raster"], title)
    for name, label in (("rates", "Rate (Hz)"), ("cvs", "CV of intervals")):
        for rows, colour, who in ((others, GREY, "reference"), (found, BLUE, "neurojax")):
            for i, row in enumerate(rows):
                cumulative(axes[name], row[name], colour, who if i == 0 else None)
        axes[name].set_xlabel(label)
        axes[name].set_ylabel("Part of neurons")
    axes["rates"].legend(frameon=False)
    return figure


def raster(
    ax: Axes, shown: dict[str, Any], title: str = "", colours: tuple[str, ...] = GROUPS
) -> None:
    """Spikes of some neurons as dots, groups in colours that take turns."""
    times, neurons = np.asarray(shown["times"]), np.asarray(shown["neurons"])
    groups = shown.get("groups", [shown["n"]])
    first = 0
    for size, colour in zip(groups, itertools.cycle(colours), strict=False):
        own = (neurons >= first) & (neurons < first + size)
        ax.plot(times[own], neurons[own], ".", markersize=1.2, color=colour)
        first += size
    ax.set_xlim(shown["start"], shown["end"])
    ax.set_ylim(-1, shown["n"])
    ax.set_xlabel("Time (ms)")
    ax.set_ylabel("Neuron (inhibitory in orange)" if len(groups) == 2 else "Neuron")
    ax.set_title(title, fontsize="medium")
    tidy(ax)


def cumulative(ax: Axes, quantiles: Any, colour: str, label: str | None) -> None:
    """Distribution function of evenly spaced quantiles."""
    q = np.asarray(quantiles, float)
    width = 3.0 if colour == GREY else 1.0  # the reference is seen behind what is held against it
    ax.plot(q, np.linspace(0, 1, q.size), color=colour, linewidth=width, label=label)
    tidy(ax)


def tidy(ax: Axes) -> None:
    """Without the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)
