"""Pictures of cases in a report: axial slices with outlines, as PNG inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from synthoma.slices import Outline, draw_slice
from synthoma.volume import Array, Volume

# Told apart on gray by all kinds of color vision (Okabe and Ito 2008): sky blue, orange, reddish purple.
TRUTH_COLOR, PREDICTED_COLOR, SECOND_COLOR = "#56b4e9", "#e69f00", "#cc79a7"
SIDE = 3.0  # inches


@dataclass(frozen=True)
class Picture:
    """A case as an axial slice. png: base64; empty if its scan cannot be read, which `caption` then says."""

    case: str
    caption: str
    png: str


def slice_png(image: Volume, outlines: Sequence[Outline], center_mm: Array, half_mm: float | None) -> str:
    """An axial slice with outlines as PNG, in base64. half_mm: half a side of the square shown; None shows all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((SIDE, SIDE), 100, facecolor="#16181c")
    draw_slice(figure.add_axes((0.06, 0.06, 0.88, 0.88)), image, "axial", center_mm, outlines, half_mm=half_mm)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return base64.b64encode(data.getvalue()).decode()
