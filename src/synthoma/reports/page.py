"""The pieces of a self-contained HTML page: style, tables, plots; no request leaves it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from synthoma.reports.pictures import Picture
from synthoma.reports.plots import Plot

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1e23; --faint: #5d636c; --line: #e0e3e8; --rule: #9aa1ab;
  --tint: #eef3f9; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --ink: #e3e5e9; --faint: #a2a8b1; --line: #30343b;
  --rule: #6b727d; --tint: #1e2733; }
  /* plots are drawn for paper: turned to light on dark, hues kept */
  .plots svg { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 78em;
  margin: 2em auto; padding: 0 1.2em; overflow-wrap: anywhere; }
h1 { font-size: 1.6em; margin-bottom: 0.1em; } h2 { font-size: 1.25em; margin-top: 2em; } h3 { font-size: 1em; }
.wide { overflow-x: auto; margin: 0.6em 0 1.2em; }
table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.18em 1em 0.18em 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
th { font-weight: 600; border-bottom-color: var(--rule); } .n { text-align: right; white-space: nowrap; }
.muted { color: var(--faint); } .strong { font-weight: 600; }
.verdict { background: var(--tint); border-left: 4px solid #0072b2; padding: 0.5em 0.9em; margin: 0.8em 0; }
.verdict p { margin: 0.25em 0; }
td:first-child { min-width: 11em; } td:last-child { min-width: 5em; } .facts td:last-child { overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 1.2em; } figure { margin: 0; max-width: min(29em, 100%); }
svg { max-width: 100%; } .plots svg { height: auto; } .worst figure { width: 18.5em; } .worst img { width: 100%; }
figcaption { font-size: 0.83em; color: var(--faint); }
@media (max-width: 40em) { body { margin: 1em auto; padding: 0 0.8em; } td:first-child { min-width: 8em; }
  th, td { padding-right: 0.7em; } .worst figure { width: 100%; } }
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


def picture_figures(pictures: Sequence[Picture]) -> str:
    """Pictures beside each other with their captions."""
    figures = [
        "<figure>"
        + (f'<img alt="axial slice of {escape(one.case)}" src="data:image/png;base64,{one.png}">' if one.png else "")
        + f"<figcaption><b>{escape(one.case)}</b>: {escape(one.caption)}</figcaption></figure>"
        for one in pictures
    ]
    return f'<div class="plots worst">{"".join(figures)}</div>'


def fact_table(facts: Mapping[str, Any]) -> str:
    """A row a fact: its name, and its value in words; nested tables and lists on one line."""
    rows = [[escape(name), escape(_said(value))] for name, value in facts.items()]
    return f'<div class="facts">{table(["", ""], rows)}</div>'


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
    return f'<div class="wide"><table><thead>{line("th", head)}</thead><tbody>{body}</tbody></table></div>'


def verdict(sentences: Sequence[str]) -> str:
    """What a page found, in plain sentences, for its top; nothing for none."""
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f'<div class="verdict">{told}</div>' if told else ""


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page, with its style inside it."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
