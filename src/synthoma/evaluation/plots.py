"""Plots of an evaluation as SVG, and the table behind each: one series a model, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthoma.evaluation.figures import Scored, detectability_bins, lesion_bins, size_bins
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.evaluation.summary import OPERATING_POINTS, Summary
from synthoma.reports.plots import MODEL_COLORS, MODEL_MARKS, MUTED, Plot, draw_legend, new_axes, to_svg
from synthoma.tables import Row, plain


@dataclass(frozen=True, eq=False)
class Series:
    """One model's scans and lesions of one structure, and the summary they belong to."""

    scored: Scored
    summary: Summary


def draw_plots(series: Mapping[str, Series], structure: str, recipe: EvaluateRecipe) -> list[Plot]:
    """Every plot that this structure has data for. series: model -> its scores, one or two."""
    plots = [bland_altman(series, structure)]
    if all(one.scored.has_lesions for one in series.values()):
        plots = [
            sensitivity_by_size(series, structure, recipe),
            *([sensitivity_by_detectability(series, structure, recipe)] if recipe.detectability else []),
            froc(series, structure),
            roc(series, structure),
            dsc_by_diameter(series, structure),
            *plots,
        ]
    return [plot for plot in plots if plot.rows]


def sensitivity_by_size(series: Mapping[str, Series], structure: str, recipe: EvaluateRecipe) -> Plot:
    """Lesion sensitivity in each bin of diameters, with intervals."""
    names = [name for name, _, _ in size_bins(recipe.sizes_mm)][2:]
    caption = "Lesion sensitivity by diameter, with intervals by patient; numbers are lesions."
    told = "sensitivity_by_size", caption, "diameter of the true lesion"
    return _by_bin(series, structure, recipe, names, told)


def sensitivity_by_detectability(series: Mapping[str, Series], structure: str, recipe: EvaluateRecipe) -> Plot:
    """Lesion sensitivity in each bin of d', with intervals; empty where it was not measured."""
    names = [name for name, _, _ in detectability_bins(recipe.detectability)]
    caption = (
        "Lesion sensitivity by detectability: d' of an observer who knows its shape and place. With intervals "
        "by patient; numbers are lesions."
    )
    told = "sensitivity_by_detectability", caption, "detectability d' of the true lesion"
    return _by_bin(series, structure, recipe, names, told)


def _by_bin(
    series: Mapping[str, Series], structure: str, recipe: EvaluateRecipe, names: Sequence[str],
    told: tuple[str, str, str],
) -> Plot:  # fmt: skip
    """Lesion sensitivity in some bins. told: the plot's name and caption, and what the bins are of."""
    plot, caption, label = told
    axes = new_axes(label, "lesion sensitivity")
    rows: list[Row] = []
    for place, (model, one) in enumerate(series.items()):
        shift = 0.16 * (place - (len(series) - 1) / 2)
        found = {
            figure.size: figure.interval
            for figure in one.summary.figures
            if (figure.structure, figure.metric, figure.group) == (structure, "lesion_sensitivity", "")
        }
        truth = [row for row in one.scored.lesions if row["side"] == "truth"]
        counts = {name: len(some) for name, some in lesion_bins(truth, recipe)}
        for x, name in enumerate(names):
            interval, count = found[name], counts[name]
            rows.append(_row(model=model, size=name, lesions=count, sensitivity=interval.value,
                             low=interval.low, high=interval.high))  # fmt: skip
            if np.isfinite(interval.value):
                axes.plot([x + shift] * 2, [interval.low, interval.high], color=MODEL_COLORS[place], linewidth=1.5)
                axes.plot(x + shift, interval.value, MODEL_MARKS[place], color=MODEL_COLORS[place])
                at = (x + shift, interval.value)
                beside, side = (
                    ((-5, "right"), (5, "left"))[place] if len(series) > 1 else (5, "left")
                )  # away from the other
                axes.annotate(str(count), at, (beside, 4), textcoords="offset points", fontsize=7, color=MUTED, ha=side)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(-0.04, 1.06), xticks=range(len(names)), xticklabels=names)
    draw_legend(axes, list(series))
    return Plot(plot, caption, to_svg(axes), tuple(rows))


def froc(series: Mapping[str, Series], structure: str) -> Plot:
    """Lesion sensitivity against false lesions per scan."""
    axes = new_axes("false lesions per scan", "lesion sensitivity")
    rows: list[Row] = []
    for place, (model, one) in enumerate(series.items()):
        points = one.summary.froc.get(structure, [])
        rows += [_row(model=model, threshold=t, false_per_scan=rate, sensitivity=s) for t, rate, s in points]
        axes.plot([max(rate, 0.05) for _, rate, _ in points], [s for _, _, s in points], color=MODEL_COLORS[place],
                  marker=MODEL_MARKS[place], markersize=4, linewidth=1.2)  # fmt: skip
    axes.set(xscale="log", xlim=(0.04, 20), ylim=(-0.04, 1.06), xticks=[0.05, *OPERATING_POINTS, 16])
    axes.set_xticklabels(["<=.05", *(f"{rate:g}".lstrip("0") for rate in OPERATING_POINTS), "16"], fontsize=7)
    axes.minorticks_off()
    draw_legend(axes, list(series))
    caption = "FROC: each point is a threshold on the predicted probability; masks have one point."
    return Plot("froc", caption, to_svg(axes), tuple(rows))


def roc(series: Mapping[str, Series], structure: str) -> Plot:
    """Patient sensitivity against the rate of false alarms; empty if all patients are alike."""
    axes = new_axes("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    rows: list[Row] = []
    for place, (model, one) in enumerate(series.items()):
        patients = one.scored.by_patient
        if patients.positive.all() or not patients.positive.any():
            continue
        false, true, thresholds = patients.roc()
        rows += [_row(model=model, score=c, false_positive_rate=a, sensitivity=b)
                 for a, b, c in zip(false.tolist(), true.tolist(), thresholds.tolist(), strict=True)]  # fmt: skip
        axes.plot(false, true, color=MODEL_COLORS[place], linewidth=1.4)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    draw_legend(axes, list(series))
    caption = "Patient-level ROC over the strongest lesion's score (probability; of masks, volume in ml)."
    return Plot("roc", caption, to_svg(axes), tuple(rows))


def dsc_by_diameter(series: Mapping[str, Series], structure: str) -> Plot:
    """DSC of each true lesion with the prediction matched to it, against its diameter."""
    axes = new_axes("diameter of the true lesion, mm", "DSC of the lesion")
    rows: list[Row] = []
    for place, (model, one) in enumerate(series.items()):
        truth = [row for row in one.scored.lesions if row["side"] == "truth"]
        rows += [
            _row(model=model, case=row["case"], diameter_mm=row["equivalent_diameter_mm"], dsc=row["dsc"])
            for row in truth
        ]
        axes.plot([row["equivalent_diameter_mm"] for row in truth], [row["dsc"] for row in truth], MODEL_MARKS[place],
                  color=MODEL_COLORS[place], markersize=4, alpha=0.6, linestyle="none", markeredgewidth=0)  # fmt: skip
    axes.set(ylim=(-0.04, 1.04))
    draw_legend(axes, list(series))
    caption = "DSC of each true lesion with its match against its diameter; missed lesions lie at 0."
    return Plot("dsc_by_diameter", caption, to_svg(axes), tuple(rows))


def bland_altman(series: Mapping[str, Series], structure: str) -> Plot:
    """Predicted less true volume against their mean, with the mean and the limits of agreement."""
    axes = new_axes("mean of true and predicted volume, ml", "predicted less true, ml")
    axes.axhline(0, color="#bbbbbb", linewidth=0.8)
    axes.update_datalim([(0, -0.1), (0, 0.1)], updatex=False)  # perfect volumes are not a plot of rounding
    rows: list[Row] = []
    for place, (model, one) in enumerate(series.items()):
        pairs = [(row["case"], row["truth_ml"], row["predicted_ml"]) for row in one.scored.rows]
        pairs = [pair for pair in pairs if pair[1] or pair[2]]
        rows += [_row(model=model, case=case, truth_ml=a, predicted_ml=b) for case, a, b in pairs]
        gaps = np.array([b - a for _, a, b in pairs])
        axes.plot([(a + b) / 2 for _, a, b in pairs], gaps, MODEL_MARKS[place], color=MODEL_COLORS[place], markersize=4,
                  alpha=0.6, linestyle="none", markeredgewidth=0)  # fmt: skip
        if len(gaps) > 1:
            spread = 1.96 * gaps.std(ddof=1)
            for height, style in ((gaps.mean(), "-"), (gaps.mean() - spread, "--"), (gaps.mean() + spread, "--")):
                axes.axhline(height, color=MODEL_COLORS[place], linewidth=0.9, linestyle=style)
    draw_legend(axes, list(series))
    caption = "Bland-Altman plot of volumes: the mean difference, and 1.96 standard deviations around it."
    return Plot("bland_altman", caption, to_svg(axes), tuple(rows))


def _row(**values: Any) -> Row:
    return {name: plain(value) for name, value in values.items()}
