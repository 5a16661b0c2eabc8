"""The pieces of a self-contained HTML page: style, tables, plots; no request leaves it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from synthoma.reports.plots import Plot

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1e23; max-width: 78em; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.6em; margin-bottom: 0.1em; } h2 { font-size: 1.25em; margin-top: 2em; } h3 { font-size: 1em; }
table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; margin: 0.6em 0 1.2em; }
th, td { text-align: left; padding: 0.18em 1em 0.18em 0; border-bottom: 1px solid #e4e6ea; vertical-align: top; }
th { font-weight: 600; border-bottom-color: #9aa1ab; } .n { text-align: right; white-space: nowrap; }
.muted { color: #666; } .strong { font-weight: 600; }
td:first-child { min-width: 11em; } td:last-child { min-width: 5em; }
.plots { display: flex; flex-wrap: wrap; gap: 1.2em; } figure { margin: 0; max-width: 29em; } svg { max-width: 100%; }
.plots svg { height: auto; } .worst figure { width: 18.5em; } .worst img { width: 100%; }
figcaption { font-size: 0.83em; color: #555; }
"""


def number(value: float | None, digits: int = 3) -> str:
    """A figure as it is read: three digits, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}"


def plot_figures(plots: Sequence[Plot]) -> str:
    """Plots beside each other with their captions; nothing for none."""
    # inline in HTML an SVG is its element alone
    figures = [
        f"<figure>{plot.svg[plot.svg.index('<svg') :]}<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in plots
    ]
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def fact_table(facts: Mapping[str, Any]) -> str:
    """A row a fact: its name, and its value in words; nested tables and lists on one line."""
    return table(["", ""], [[escape(name), escape(_said(value))] for name, value in facts.items()])


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_said(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table of HTML cells. numeric: the columns that are aligned to the right."""
    right = set(numeric)

    def line(kind: str, cells: Sequence[str]) -> str:
        marked = (f"<{kind}{' class=n' if n in right else ''}>{cell}</{kind}>" for n, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page, with its style inside it."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
