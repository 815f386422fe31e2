"""Figures of what structure is worth: a row each, by accuracy, and against its synapses.

    python -m experiments._structure_figure experiments/results/structure-screens docs

draws each FOLDER/NAME.json, a list of rows as `structure.json` has them, as TO/NAME.png.
"""

import json
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neurojax._files import write_whole

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito (2008)


def drawn(rows: Sequence[dict[str, Any]]) -> Figure:
    """Validation accuracy of each row, its seeds as dots; and of rows over their synapses.

    A row has `row`, `val` (%, one a seed), `synapses` and, if there are kinds of it, `kind`.
    """
    kinds = list(dict.fromkeys(row.get("kind", "") for row in rows))
    colour = dict(zip(kinds, _COLOURS * len(kinds), strict=False))
    rows = sorted(rows, key=lambda row: np.mean(row["val"]))
    figure = Figure(figsize=(9.0, 0.9 + 0.19 * max(len(rows), 12)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for i, row in enumerate(rows):
        own = colour[row.get("kind", "")]
        left.plot(row["val"], [i] * len(row["val"]), "o", ms=4, color=own)
        right.plot(row["synapses"], np.mean(row["val"]), "o", ms=5, color=own)
    left.set_yticks(range(len(rows)), [row["row"] for row in rows], fontsize=7)
    left.grid(axis="y", lw=0.3)
    left.set_xlabel("Validation accuracy (%)")
    right.set_xlabel("Synapses")
    right.set_xscale("log")
    counts = [row["synapses"] for row in rows]
    ticks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
             if min(counts) <= 1.1e3 * n and 0.9e3 * n <= max(counts)]  # fmt: skip
    right.set_xticks([1e3 * n for n in ticks], [f"{n}k" for n in ticks])
    right.minorticks_off()
    right.set_ylabel("Validation accuracy (%)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    if len(kinds) > 1:
        named = [right.plot([], [], "o", color=colour[k], label=k)[0] for k in kinds]
        right.legend(handles=named, frameon=False, fontsize=8, loc="lower right")
    return figure


def png(figure: Figure) -> bytes:
    """As an image file."""
    image = BytesIO()
    figure.savefig(image, format="png", dpi=130, metadata={"Software": None})
    return image.getvalue()


if __name__ == "__main__":
    source, to = map(Path, sys.argv[1:])
    for file in sorted(source.glob("*.json")):
        write_whole(to / f"{file.stem}.png", png(drawn(json.loads(file.read_text()))))
