"""Plots as SVG with the numbers in them: colors, axes and legends of every report; equal numbers give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synthoma.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of models or arms, in order. Told apart in black and white by their marks, and by color-blind readers.
COLORS = (
    "#5b6470", "#c8561b", "#1f5fa8", "#2f8f4e", "#8b3fa0", "#b08900", "#00838f", "#c2185b", "#795548", "#7a9a01",
)  # fmt: skip
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
MODEL_COLORS, MODEL_MARKS = ("#0072b2", "#d55e00"), ("o", "s")  # of one model, or of two compared
MUTED = "#666666"
_INSIDE = 4  # names up to which a legend leaves room for what is drawn


@dataclass(frozen=True)
class Plot:
    """A plot. name: of its files; caption: what it shows and what to know of it; rows: the numbers in it."""

    name: str
    caption: str
    svg: str
    rows: tuple[Row, ...]


def new_axes(across: str, up: str, inches: tuple[float, float] = (4.2, 3.2)) -> Axes:
    """Plain axes of a small figure with their labels."""
    from matplotlib.figure import Figure

    figure = Figure(inches, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", linewidth=0.7)
    axes.set_axisbelow(True)
    return axes


def draw_legend(
    axes: Axes, names: Sequence[str], colors: Sequence[str] = MODEL_COLORS, marks: Sequence[str] = MODEL_MARKS
) -> None:
    """Which color and mark is which model, where there is more than one; many stand below the axes."""
    from matplotlib.lines import Line2D

    if len(names) < 2:
        return
    handles = [
        Line2D([], [], color=colors[place % len(colors)], marker=marks[place % len(marks)], markersize=4.5)
        for place in range(len(names))
    ]
    if len(names) <= _INSIDE:
        legend = axes.legend(handles, list(names), fontsize=7.5, frameon=False, loc="best")
    else:
        figure = axes.get_figure(root=True)
        assert figure is not None, "axes that are drawn on belong to a figure"
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.16 * ((len(names) + 1) // 2))
        legend = figure.legend(handles, list(names), fontsize=7.5, frameon=False, loc="outside lower left", ncols=2)
    for text in legend.get_texts():
        text.set_parse_math(False)


def to_svg(axes: Axes) -> str:
    """The figure as SVG, the same bytes for the same numbers."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "synthoma", "svg.fonttype": "path", "text.usetex": False}):
        canvas = FigureCanvasSVG(axes.get_figure(root=True))
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return text.getvalue()
