"""The plots of a trial: response curves, DSC over levels, and pairs of attributes as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthoma.reports.plots import MODEL_COLORS, MODEL_MARKS, MUTED, Plot, draw_legend, new_axes, to_svg
from synthoma.statistics.intervals import Interval
from synthoma.tables import Row
from synthoma.trials.curves import Curve, from_axis, to_axis
from synthoma.trials.findings import Result, plain_name
from synthoma.trials.recipe import ATTRIBUTES

_LEVELS = 160  # points of a drawn curve


def label(attribute: str) -> str:
    """What an axis is called: diameter (mm)."""
    unit = ATTRIBUTES[attribute].unit
    return f"{plain_name(attribute)}{f' ({unit})' if unit else ''}"


def draw_curves(attribute: str, results: Sequence[Result], base: str) -> Plot:
    """Share found over the levels of one attribute, with the fitted curve, of each model."""
    axes = new_axes(label(attribute), "share of lesions found")
    rows: list[Row] = []
    for number, result in enumerate(results):
        color, mark = MODEL_COLORS[number], MODEL_MARKS[number]
        varied = next(each for each in result.varied if each.attribute == attribute)
        _draw_points(axes, varied.counts.levels, varied.shares, number, attribute)
        if varied.curve is not None:
            at = _between(varied.curve)
            axes.plot(at, varied.curve.share(at), color=color, linewidth=1.4)
            half = _crossings(varied.curve)
            axes.plot(half, [0.5] * len(half), mark, color=color, markersize=9, fillstyle="none")
        tried = varied.counts.total.sum(0)
        rows += [
            {"model": result.scores.name, attribute: float(level), "share": share.value, "low": share.low,
             "high": share.high, "lesions": int(count)}
            for level, share, count in zip(varied.counts.levels, varied.shares, tried, strict=True)
        ]  # fmt: skip
    axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.03, 1.03)
    _mark_levels(axes, attribute, sorted({row[attribute] for row in rows}))
    draw_legend(axes, [result.scores.name for result in results])
    curved = ", and the curve" if ATTRIBUTES[attribute].ordered else ""
    caption = f"Lesions found over {plain_name(attribute)}{base}; points with 95 % intervals by patient{curved}."
    return Plot(f"found_{attribute}", caption, to_svg(axes), tuple(rows))


def draw_dsc(attribute: str, results: Sequence[Result], base: str) -> Plot:
    """Mean DSC of the found lesions over the levels of one attribute."""
    axes = new_axes(label(attribute), "DSC of lesions found")
    rows: list[Row] = []
    for number, result in enumerate(results):
        varied = next(each for each in result.varied if each.attribute == attribute)
        _draw_points(axes, varied.counts.levels, varied.dsc, number, attribute, line=True)
        rows += [
            {"model": result.scores.name, attribute: float(level), "dsc": dsc.value, "low": dsc.low, "high": dsc.high,
             "patients": dsc.n}
            for level, dsc in zip(varied.counts.levels, varied.dsc, strict=True)
        ]  # fmt: skip
    axes.set_ylim(0, 1.03)
    _mark_levels(axes, attribute, sorted({row[attribute] for row in rows}))
    draw_legend(axes, [result.scores.name for result in results])
    return Plot(f"dsc_{attribute}", f"Mean DSC of the lesions that were found{base}.", to_svg(axes), tuple(rows))


def draw_heat(across: str, up: str, name: str, rows: Sequence[Row]) -> Plot:
    """Share found for each pair of levels, a number in each field."""
    wide, high = sorted({row[across] for row in rows}), sorted({row[up] for row in rows})
    shares = np.full((len(high), len(wide)), np.nan)
    for row in rows:
        shares[high.index(row[up]), wide.index(row[across])] = row["share"]
    axes = new_axes(label(across), label(up), (1.6 + 0.5 * len(wide), 1.3 + 0.36 * len(high)))
    axes.grid(visible=False)
    axes.pcolormesh(np.arange(len(wide) + 1), np.arange(len(high) + 1), shares, cmap="cividis", vmin=0, vmax=1)
    for (i, j), share in np.ndenumerate(shares):
        if np.isfinite(share):
            ink = "black" if share > 0.55 else "white"
            axes.text(j + 0.5, i + 0.5, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xticks(np.arange(len(wide)) + 0.5, [f"{level:g}" for level in wide])
    axes.set_yticks(np.arange(len(high)) + 0.5, [f"{level:g}" for level in high])
    caption = f"{name}: percent of lesions found, {plain_name(up)} against {plain_name(across)}."
    return Plot(f"pair_{up}_{across}_{name}", caption, to_svg(axes), tuple({"model": name, **row} for row in rows))


def _draw_points(
    axes: Any, levels: Any, shares: Sequence[Interval], number: int, attribute: str, line: bool = False
) -> None:
    values = np.array([share.value for share in shares])
    lows = np.array([value if np.isnan(share.low) else share.low for value, share in zip(values, shares, strict=True)])
    highs = np.array(
        [value if np.isnan(share.high) else share.high for value, share in zip(values, shares, strict=True)]
    )
    away = (number - 0.5) * 0.012 if number or line else 0.0
    at = levels * (1 + away) if attribute == "diameter_mm" else levels + away * (np.ptp(levels) or 1)
    axes.errorbar(
        at, values, [np.maximum(values - lows, 0), np.maximum(highs - values, 0)], fmt=MODEL_MARKS[number],
        color=MODEL_COLORS[number], markersize=4.5, linewidth=1, capsize=2, linestyle="-" if line else "none",
    )  # fmt: skip


def _between(curve: Curve) -> Any:
    """Levels to draw a curve at, from the lowest to the highest."""
    if curve.attribute == "diameter_mm":
        ends = to_axis(curve.attribute, curve.levels)
        return from_axis(curve.attribute, np.linspace(ends.min(), ends.max(), _LEVELS))
    return np.linspace(curve.levels.min(), curve.levels.max(), _LEVELS)


def _crossings(curve: Curve) -> list[float]:
    """The levels, with their signs, at which the curve is one half."""
    if not np.isfinite(curve.half.value):
        return []
    if curve.attribute != "contrast_hu":
        return [curve.half.value]
    return [sign * curve.half.value for sign in sorted(set(np.sign(curve.levels)) - {0.0})]


def _mark_levels(axes: Any, attribute: str, levels: Sequence[float]) -> None:
    if attribute == "diameter_mm" and len(levels) > 1:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
