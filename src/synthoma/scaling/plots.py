"""Plots of a study as SVG with the numbers in them: scores against real cases, and sensitivity by tumor size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from synthoma.reports.plots import COLORS, MARKS, MUTED, Plot, draw_legend, new_axes, to_svg
from synthoma.scaling.answer import cases as counted
from synthoma.scaling.answer import count, headline
from synthoma.scaling.results import ArmFit, StudyFit
from synthoma.scaling.table import Point
from synthoma.statistics.intervals import Interval
from synthoma.tables import Row, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BANDS = 3  # arms up to which the bands of all can be told apart


def plot_scaling(
    name: str, fit: StudyFit, points: Sequence[Point], arm: str, metric: str, title: str, in_silico: bool = False
) -> Plot:
    """Scores against the number of real cases: means with intervals, single models, and the fitted curves.

    arm: whose smallest size is compared with the real-only curve. title: the test set in words. in_silico: whether
    all patients were drawn, which the axis then says.
    """
    axes = new_axes("annotated in-silico cases" if in_silico else "annotated real cases", metric, (5.2, 3.9))
    axes.set_title(title, fontsize=9.5, loc="left", parse_math=False)
    sizes = sorted({level.cases for level in fit.levels})
    zero = min((size for size in sizes if size), default=2) / 2  # where no real case lies on a logarithmic axis
    rows: list[Row] = []
    arms = [fit.real, *fit.mixed]
    banded = arms if len(arms) <= _BANDS else [fit.real, arm]
    for place, label in enumerate(arms):
        color, mark = COLORS[place % len(COLORS)], MARKS[place % len(MARKS)]
        rows += _draw_curve(axes, fit.arm(label), max(sizes), color, banded=label in banded)
        shift = 1 + 0.03 * (place - (len(arms) - 1) / 2)
        for point in (point for point in points if point.arm == label):
            value = float(point.score(np.ones((1, len(point.score.top))))[0])
            axes.plot((point.cases or zero) * shift, value, ".", color=color, markersize=3, alpha=0.45)
            rows.append(_row("model", label, point.cases, Interval(value), point.seed))
        for level in (level for level in fit.levels if level.arm == label):
            x = (level.cases or zero) * shift
            axes.plot([x, x], [level.score.low, level.score.high], color=color, linewidth=1.3)
            axes.plot(x, level.score.value, mark, color=color, markersize=5.5)
            rows.append(_row("mean", label, level.cases, level.score))
    _draw_equivalent(axes, fit, arm, zero, max(sizes))
    axes.set(xscale="log", xlim=(zero * 0.8 if 0 in sizes else min(sizes) * 0.8, 2.3 * max(sizes)))
    axes.set_xticks([size or zero for size in sizes], [str(size) for size in sizes])
    axes.minorticks_off()
    draw_legend(axes, arms, COLORS, MARKS)
    caption = (
        "Means with intervals over test patients and training seeds; dots are single models; lines are the "
        "fitted curves with their intervals, dashed where they are extrapolated to twice the most cases measured."
    )
    if len(banded) < len(arms):
        caption += f" Bands are those of {' and '.join(repr(label) for label in banded)}."
    return Plot(f"scaling_{name}", caption, to_svg(axes), tuple(rows))


def plot_sizes(name: str, fits: Mapping[str, StudyFit], arm: str, cases: int, title: str) -> Plot:
    """Lesion sensitivity by tumor size at one number of real cases, without synthetic tumors and in one arm.

    fits: size -> findings of lesion sensitivity.
    """
    axes = new_axes("diameter of the true tumor", "tumors found")
    axes.set_title(f"{title}, {counted(cases)}", fontsize=9.5, loc="left", parse_math=False)
    rows: list[Row] = []
    real = next(iter(fits.values())).real if fits else ""
    for place, label in enumerate((real, arm)):
        shift = 0.16 * (place - 0.5)
        for x, (size, fit) in enumerate(fits.items()):
            level = fit.level(label, cases)
            if level is None or not np.isfinite(level.score.value):
                continue
            axes.plot([x + shift] * 2, [level.score.low, level.score.high], color=COLORS[place], linewidth=1.4)
            axes.plot(x + shift, level.score.value, MARKS[place], color=COLORS[place])
            rows.append(_row(size, label, cases, level.score))
    axes.set(xlim=(-0.5, len(fits) - 0.5), ylim=(-0.04, 1.06))
    axes.set_xticks(range(len(fits)), list(fits), fontsize=8)
    draw_legend(axes, [real, arm], COLORS, MARKS)
    caption = "The share of true tumors that are found, with intervals over test patients and training seeds."
    return Plot(f"sizes_{name}", caption, to_svg(axes), tuple(rows))


def _draw_curve(axes: Axes, fit: ArmFit, largest: int, color: str, banded: bool) -> list[Row]:
    """A curve, with its band if it is to have one, solid as far as it was measured."""
    if not fit.curve:
        return []
    x = np.array([n for n, _ in fit.curve])
    value, low, high = (np.array([getattr(y, end) for _, y in fit.curve]) for end in ("value", "low", "high"))
    measured = x <= largest * 1.001
    beyond = ~measured | np.append(~measured[1:], False)
    axes.plot(x[measured], value[measured], color=color, linewidth=1.3)
    axes.plot(x[beyond], value[beyond], color=color, linewidth=1.1, linestyle=(0, (4, 3)))
    if banded and np.isfinite(low).all():
        # a score is between 0 and 1, whatever the fitted curve allows
        axes.fill_between(x, np.clip(low, 0, 1), np.clip(high, 0, 1), color=color, alpha=0.10, linewidth=0)
    return [_row("curve", fit.arm, n, y) for n, y in fit.curve]


def _draw_equivalent(axes: Axes, fit: StudyFit, arm: str, zero: float, largest: int) -> None:
    """From the smallest mixed point across to the real-only curve that reaches the same score."""
    level = headline(fit, arm)
    if level is None or level.equivalent is None or not np.isfinite(level.equivalent.value):
        return
    start, end = level.cases or zero, level.equivalent.value
    if not start * 1.05 < end <= 2 * largest:
        return
    height = level.score.value
    axes.annotate("", (end, height), (start, height), arrowprops={"arrowstyle": "->", "color": MUTED, "lw": 0.9})
    axes.plot([end, end], [axes.get_ylim()[0], height], color=MUTED, linewidth=0.8, linestyle=":")
    text = f"scores as {count(end)} real cases"
    axes.annotate(text, (np.sqrt(start * end), height), (0, 4), textcoords="offset points", fontsize=7.5, color=MUTED,
                  ha="center", bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.5, "linewidth": 0})  # fmt: skip


def _row(kind: str, arm: str, cases: float, score: Interval, seed: int | None = None) -> Row:
    row = {"kind": kind, "arm": arm, "cases": cases, "seed": seed, "score": score.value}
    return {name: plain(value) for name, value in (row | {"low": score.low, "high": score.high}).items()}
