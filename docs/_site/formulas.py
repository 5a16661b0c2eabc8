"""Formulas as pictures that need no script and no font of the reader's: TeX in, SVG out, by matplotlib."""

from __future__ import annotations

import html
import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SIZE_PT = 13


def formula(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """HTML of a ```math block, which code hosts show as well. The TeX is its text for screen readers."""
    return f'<div class="{css_class}">{_picture(" ".join(source.split()))}</div>'


def _picture(tex: str) -> str:
    """One formula as SVG in the color of the text around it."""
    figure = Figure()
    FigureCanvasSVG(figure)
    figure.text(0, 0, f"${tex}$", fontsize=SIZE_PT)
    out = io.StringIO()
    with mpl.rc_context({"mathtext.fontset": "stix", "svg.hashsalt": "synthoma", "svg.fonttype": "path"}):
        figure.savefig(
            out, format="svg", bbox_inches="tight", pad_inches=0.03, transparent=True, metadata={"Date": None}
        )
    svg = re.sub(r"^.*?(?=<svg)", "", out.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(tex, quote=True)}" fill="currentColor" ', 1)
    return re.sub(r"\n\s*", " ", svg)
