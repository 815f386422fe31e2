"""Figure of the price of long-range wiring."""

from typing import Any

from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito (2008)


def knee(table: list[dict[str, Any]]) -> Figure:
    """Accuracy, path length and clustering, hops and energy against the rewired part."""
    rows = sorted(table, key=lambda row: row["p_rewire"])
    p = [row["p_rewire"] for row in rows]
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    axes = figure.subplots(1, 3)
    _line(axes[0], p, rows, "test_accuracy", 100, _BLUE, "test")
    axes[0].set_ylabel("Accuracy (%)")
    for name, colour, label in (
        ("path_length", _BLUE, "path length"), ("clustering", _GREEN, "clustering"),
    ):  # fmt: skip
        _line(axes[1], p, rows, name, 1 / rows[0][name], colour, label)
    axes[1].set_ylabel("Relative to the first")
    for name, colour, label in (
        ("hops_per_spike", _ORANGE, "hops of a spike"),
        ("hottest_link", _BLUE, "hottest link"),
        ("energy_routing", _GREEN, "energy of links"),
    ):  # fmt: skip
        _line(axes[2], p, rows, name, 1 / rows[0][name], colour, label)
    axes[2].set_ylabel("Relative to the first")
    least = min((x for x in p if x > 0), default=1.0)
    for ax in axes:
        ax.set_xscale("symlog", linthresh=least, linscale=0.5)
        ax.set_xlim(-0.1 * least, 1.2 * max(p[-1], least))
        ax.set_xticks(p, [f"{x:g}" for x in p])
        ax.minorticks_off()
        ax.set_xlabel("Rewired part p")
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[1:]:
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
    return figure


def _line(ax, p, rows, name, scale, colour, label) -> None:
    values = [scale * row[name] for row in rows]
    spread = [scale * (row[f"{name}_sd"] or 0) for row in rows]
    ax.errorbar(p, values, spread, color=colour, marker="o", markersize=4, capsize=2, label=label)
