"""Figures of training on devices: where which update is better, and what variation costs."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

Points = list[dict[str, Any]]  # of the design: its coordinates and the mean `test_accuracy`

# Okabe and Ito (2008): told apart by the colour-blind as well.
_COLOURS = {
    "bidirectional": "#0072B2",
    "unidirectional": "#D55E00",
    "one-side": "#009E73",
    "mixed-precision": "#CC79A7",
}


def advantage(points: Points) -> Figure:
    """Unidirectional minus bidirectional accuracy, over states and variation, by response."""
    at = _middle_range(points)
    panels = sorted({p["response"] for p in at}, key=_order(at, "response"))
    figure = Figure(figsize=(2.6 * len(panels) + 0.8, 2.6), layout="constrained")
    maps = {name: _difference([p for p in at if p["response"] == name]) for name in panels}
    limit = max(1.0, *(np.nanmax(np.abs(m[2]), initial=0.0) for m in maps.values()))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (name, (levels, variation, gain)) in zip(axes, maps.items(), strict=True):
        ax.imshow(gain, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        for (row, column), value in np.ndenumerate(gain):
            if np.isfinite(value):
                pale = abs(value) < 0.6 * limit
                ax.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=8,
                        color="black" if pale else "white")  # fmt: skip
        ax.set_xticks(range(len(levels)), [f"{n:g}" for n in levels])
        ax.set_yticks(range(len(variation)), [f"{100 * s:g}" for s in variation])
        ax.set_title(name, loc="left", fontsize="medium")
        ax.set_xlabel("Levels")
    axes[0].set_ylabel("Variation (%)")
    figure.colorbar(axes[0].images[0], ax=list(axes), label="Difference (points)")
    return figure


def variation(points: Points, baseline: float) -> Figure:
    """Accuracy against variation from device to device, a line a policy, by response."""
    at = _middle_range(points)
    levels = sorted({p["n_states"] for p in at})
    at = [p for p in at if p["n_states"] == levels[len(levels) // 2]]
    panels = sorted({p["response"] for p in at}, key=_order(at, "response"))
    figure = Figure(figsize=(2.4 * len(panels) + 0.6, 3.0), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, panels, strict=True):
        for policy in sorted({p["policy"] for p in at}, key=_order(at, "policy")):
            line = [p for p in at if (p["response"], p["policy"]) == (name, policy)]
            line.sort(key=lambda p: p["sigma_d2d"])
            ax.errorbar(
                [100 * p["sigma_d2d"] for p in line], [100 * p["test_accuracy"] for p in line],
                [100 * (p["test_accuracy_sd"] or 0) for p in line], color=_COLOURS[policy],
                marker="o", markersize=4, capsize=2, label=policy,
            )  # fmt: skip
        ax.axhline(100 * baseline, color="#222222", linestyle="--", label="numbers")
        ax.set_title(name, loc="left", fontsize="medium")
        ax.set_xlabel("Variation (%)")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Test accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center",
                  ncols=4 if len(panels) > 2 else 2,
                  frameon=False)  # fmt: skip
    return figure


def _middle_range(points: Points) -> Points:
    ranges = sorted({p["dynamic_range"] for p in points})
    return [p for p in points if p["dynamic_range"] == ranges[len(ranges) // 2]]


def _order(points: Points, key: str):
    """Names as they come first among the points."""
    names = [p[key] for p in points]
    return names.index


def _difference(points: Points) -> tuple[list, list, np.ndarray]:
    """Levels, variations, and percent of advantage [variation, level], nan where unknown."""
    levels = sorted({p["n_states"] for p in points})
    variations = sorted({p["sigma_d2d"] for p in points})
    of = {(p["policy"], p["n_states"], p["sigma_d2d"]): 100 * p["test_accuracy"] for p in points}
    known = lambda policy: np.array(  # noqa: E731
        [[of.get((policy, n, sigma), np.nan) for n in levels] for sigma in variations]
    )
    return levels, variations, known("unidirectional") - known("bidirectional")
