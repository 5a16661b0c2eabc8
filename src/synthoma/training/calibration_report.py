"""What a calibration found, as JSON and as one page: operating points, reliability curves, what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from synthoma import disk
from synthoma.learning.calibration import Calibration, Scaling, reliability
from synthoma.reports.page import fact_table, number, page, plot_figures, table
from synthoma.reports.plots import COLORS, MARKS, MUTED, Plot, draw_legend, new_axes, to_svg
from synthoma.training.calibration import CalibrateRecipe, Histogram, pooled

JSON, PAGE = "calibration.json", "calibration.html"
_POINT = ("sensitivity", "false a scan", "found", "class", "threshold", "peak", "smallest, mm3")


def write_report(
    out: Path, calibration: Calibration, measured: Sequence[Mapping[str, Any]], recipe: CalibrateRecipe
) -> None:
    """`calibration.json` and `calibration.html` in the folder `out`. measured: what each case said (`measure_case`)."""
    disk.write_json(out / JSON, calibration.as_dict())
    chosen = recipe.flips.index(calibration.flips)
    histograms = pooled([case["sets"][chosen] for case in measured])
    plots = [draw_reliability(name, histograms[name], calibration.scaling(name)) for name in calibration.temperatures]
    points = [
        [escape(level), number(point.false_per_scan), number(point.sensitivity), escape(name), number(threshold),
         number(point.peaks.get(name)), number(point.smallest_mm3[name])]
        for level, point in calibration.points.items()
        for name, threshold in point.thresholds.items()
    ]  # fmt: skip
    scalings = [
        [
            escape(name),
            *(number(value) for value in (*calibration.scaling(name), *calibration.errors.get(name, (None, None)))),
        ]
        for name in calibration.temperatures
    ]
    facts = {"data": calibration.data, "mirror images": calibration.flips or "none"}
    parts = [
        fact_table(facts),
        "<h2>Operating points</h2>",
        table(_POINT, points, (1, 2, 4, 5, 6)),
        "<h2>Probabilities</h2>",
        table(["class", "temperature", "shift", "calibration error before", "after"], scalings, (1, 2, 3, 4)),
        plot_figures([plot for plot in plots if plot.rows]),
    ]
    disk.write_text(out / PAGE, page("Calibration", parts))


def draw_reliability(name: str, histogram: Histogram, scaling: Scaling) -> Plot:
    """How often a voxel is in a structure, by the probability it was given: before and after."""
    axes, rows = new_axes("probability", "share of voxels that are in it"), []
    for place, (label, change) in enumerate((("as the network gave it", Scaling()), ("calibrated", scaling))):
        curve = reliability(*histogram, change)
        axes.plot([at for at, _, _ in curve], [share for _, share, _ in curve], color=COLORS[place],
                  marker=MARKS[place], markersize=4, linewidth=1.2)  # fmt: skip
        rows += [{"output": label, "probability": at, "share": share, "voxels": n} for at, share, n in curve]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    draw_legend(axes, ["as the network gave it", "calibrated"], COLORS, MARKS)
    caption = f"{name}: on the dashed line probabilities mean what they say. Voxels under 5 % are left out."
    return Plot(f"reliability_{name}", caption, to_svg(axes), tuple(rows))
