"""One self-contained HTML page: what was found, how sure it is, where it went wrong, and how it was counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from synthoma.evaluation.comparison import Comparison, Difference
from synthoma.evaluation.figures import metric
from synthoma.evaluation.summary import OPERATING_POINTS, Summary, sensitivity_at
from synthoma.evaluation.verdicts import evaluation_sentences, interval_words, tumors_first
from synthoma.reports.page import fact_table, number, page, picture_figures, plot_figures, table, verdict
from synthoma.reports.pictures import Picture
from synthoma.reports.plots import Plot
from synthoma.statistics.intervals import Interval

HOW = (
    "Intervals: BCa bootstrap by patient. Where all patients are alike a bootstrap knows no others: proportions then "
    "have Wilson's interval of as many trials as patients, other figures have none. DSC, IoU and NSD are 0 where one "
    "mask is empty and undefined where both are (a true negative); HD95 and ASSD are undefined where either is. "
    "Undefined values are left out of means and counted. Surfaces are weighted by area, as in surface-distance 0.1. "
    "Lesions are 26-connected components, matched one to one; one that lies mostly in a match of another is merged or "
    "split, and a merged one was not found."
)

COMPARED = (
    "A scan whose value is undefined in one run counts for that metric in none, so means may differ from those of "
    "each model's own report. A difference is named only if its interval leaves out zero and its p, corrected by "
    "Holm, is small enough; else: no difference shown. The primary metrics are corrected for their own number "
    "over all structures, everything else (secondary, sizes, groups) for the number of all of that. p: "
    "permutation test, the models swapped patient by patient; AUC has its interval alone. Training seeds, if "
    "several, are drawn anew with the patients in every resample."
)


def evaluation_page(
    title: str,
    summary: Summary,
    plots: Mapping[str, Sequence[Plot]],
    pictures: Mapping[str, Sequence[Picture]],
    facts: Mapping[str, Any],
    in_silico: bool = False,
) -> str:
    """The page of one run. plots, pictures: by structure; facts: how it was counted, a row each; in_silico: whether
    all patients were drawn."""
    parts = [verdict(evaluation_sentences(summary, in_silico)), f"<p>{escape(_population(summary))}</p>"]
    for structure in tumors_first(figure.structure for figure in summary.figures):
        parts += [f"<h2>{escape(structure)}</h2>", _figure_table(summary, structure), _froc_table(summary, structure)]
        parts += [plot_figures(plots.get(structure, ())), _group_table(summary, structure)]
        parts.append(_pictures(pictures.get(structure, ())))
    parts += ["<h2>How it was counted</h2>", f"<p>{HOW}</p>", fact_table(facts)]
    return page(title, parts)


def comparison_page(
    title: str,
    comparison: Comparison,
    plots: Mapping[str, Sequence[Plot]],
    facts: Mapping[str, Any],
    primary: Sequence[str],
) -> str:
    """The page of two models. plots: by structure, both models in each; primary: the metrics shown first."""
    first, second = comparison.names
    seeds = ", ".join(
        f"{name}: {count} training seeds" for name, count in zip(comparison.names, comparison.seeds, strict=True)
    )
    parts = [
        verdict(comparison.sentences),
        f"<p>{comparison.cases} cases of {comparison.patients} patients that all runs scored"
        f"{f'; {len(comparison.left_out)} cases left out' if comparison.left_out else ''}. "
        f"{escape(seeds) + '. ' if max(comparison.seeds) > 1 else ''}"
        f"Differences are {escape(second)} less {escape(first)}.</p>",
    ]
    for structure in tumors_first(one.structure for one in comparison.differences):
        own = [one for one in comparison.differences if one.structure == structure]
        parts.append(f"<h2>{escape(structure)}</h2>")
        main = [one for one in own if one.whole and one.metric in primary]
        parts += [_difference_table(main, comparison), plot_figures(plots.get(structure, ()))]
        others = [one for one in own if one.whole and one.metric not in primary]
        parts += ["<h3>Secondary figures</h3>", _difference_table(others, comparison)]
        rest = [one for one in own if not one.whole]
        if rest:
            parts += ["<h3>By size and group</h3>", _difference_table(rest, comparison)]
    parts += ["<h2>How it was counted</h2>", f"<p>{COMPARED}</p>", f"<p>{HOW}</p>", fact_table(facts)]
    return page(title, parts)


def _interval(interval: Interval) -> str:
    words = escape(interval_words(interval))
    if not math.isfinite(interval.low):
        return f'<span class="muted">{words}</span>'
    return words + (f' <span class="muted">{escape(interval.note)}</span>' if interval.note else "")


def _figure_table(summary: Summary, structure: str) -> str:
    rows = [
        [
            escape(metric(one.metric).label) + (f", {escape(one.size)}" if one.size else ""),
            number(one.interval.value), _interval(one.interval), str(one.interval.n), str(one.undefined or ""),
        ]
        for one in summary.figures
        if one.structure == structure and not one.group
    ]  # fmt: skip
    return table(["", "value", "interval", "patients", "undefined scans"], rows, numeric=(1, 2, 3, 4))


def _froc_table(summary: Summary, structure: str) -> str:
    curve = summary.froc.get(structure, [])
    if len(curve) < 2:
        return ""
    found = [number(sensitivity_at(curve, rate)) for rate in OPERATING_POINTS]
    head = ["false lesions per scan, at most", *(f"{rate:g}" for rate in OPERATING_POINTS)]
    return table(head, [["lesion sensitivity", *found]], numeric=range(1, len(head)))


def _group_table(summary: Summary, structure: str) -> str:
    """The main figures of each group beside each other."""
    own = [one for one in summary.figures if one.structure == structure and one.group and not one.size]
    if not own:
        return ""
    names = [name for name in dict.fromkeys(one.metric for one in own) if metric(name).better]
    cells = {(one.group, one.metric): one.interval for one in own}
    groups = list(dict.fromkeys(one.group for one in own))
    rows = [
        [escape(metric(name).label)]
        + [f"{number(cells[group, name].value)} ({_interval(cells[group, name])})" for group in groups]
        for name in names
    ]
    return "<h3>By group</h3>" + table(["", *map(escape, groups)], rows)


def _difference_table(differences: Iterable[Difference], comparison: Comparison) -> str:
    rows = []
    for one in differences:
        place = ", ".join(part for part in (one.group, one.size) if part)
        verdict = escape(one.verdict)
        rows.append([
            escape(metric(one.metric).label) + (f"<br><span class=muted>{escape(place)}</span>" if place else ""),
            number(one.first) + _spread(one.spread[0]), number(one.second) + _spread(one.spread[1]),
            number(one.gap.value), _interval(one.gap), str(one.gap.n), _p(one.permutation_p), _p(one.wilcoxon_p),
            _p(one.holm_p), f'<span class="strong">{verdict}</span>' if "better" in verdict else verdict,
        ])  # fmt: skip
    first, second = map(escape, comparison.names)
    head = ["", first, second, "difference", "interval", "patients", "p", "Wilcoxon p", "p, Holm", ""]
    return table(head, rows, numeric=range(1, 9))


def _spread(value: float) -> str:
    return f" ± {number(value)}" if math.isfinite(value) else ""


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _population(summary: Summary) -> str:
    counts = summary.counts
    outcomes = "; ".join(
        f"{structure}: " + ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
        for structure, found in counts["outcomes"].items()
    )
    return f"{counts['cases']} cases of {counts['patients']} patients. Scans by structure: {outcomes}."


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    head = (
        "<h3>The scans with the lowest DSC</h3><p class=muted>Truth blue, prediction orange; at the largest missed or "
        "false lesion, else the largest of all, or through an organ's middle.</p>"
    )
    return head + picture_figures(pictures)
