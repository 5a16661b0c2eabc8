"""What an evaluation or a comparison found, in plain sentences for the top of its page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from synthoma import anatomy
from synthoma.evaluation.comparison import Comparison, Difference
from synthoma.evaluation.figures import metric
from synthoma.evaluation.summary import Summary
from synthoma.reports.page import number
from synthoma.statistics.intervals import Interval

IN_SILICO = "All patients are in silico: scans and tumors were drawn, none is of a person."


def tumors_first(structures: Iterable[str]) -> list[str]:
    """Each structure once, those with lesions before organs."""
    return sorted(dict.fromkeys(structures), key=lambda name: not anatomy.is_lesion(name))


def interval_words(interval: Interval) -> str:
    """`0.512 to 0.730`, or why there is no interval."""
    if not math.isfinite(interval.low):
        return interval.note
    return f"{number(interval.low)} to {number(interval.high)}"


def evaluation_sentences(summary: Summary, in_silico: bool = False) -> list[str]:
    """A sentence per structure, tumors first: lesions found, false ones, overlap."""
    sentences = [IN_SILICO] if in_silico else []
    for structure in tumors_first(figure.structure for figure in summary.figures):
        own = {one.metric: one.interval for one in summary.figures
               if one.structure == structure and not one.group and not one.size}  # fmt: skip
        parts = []
        found = own.get("lesion_sensitivity")
        if found is not None and math.isfinite(found.value):
            fates = summary.counts["lesions"].get(structure, {})
            true = {fate: count for fate, count in fates.items() if fate.startswith("truth ")}
            parts.append(
                f"{true.get('truth found', 0)} of {sum(true.values())} lesions found"
                f" ({100 * found.value:.0f} %; {_range(found, 100, ' %')})"
            )
        if "false_per_scan" in own:
            parts.append(f"{number(own['false_per_scan'].value)} false lesions per scan")
        if math.isfinite(own["dsc"].value):
            parts.append(f"mean DSC {number(own['dsc'].value)} ({_range(own['dsc'])})")
        sentences.append(f"{structure}: {', '.join(parts) or 'nothing to score'}.")
        sentences += _seen(summary, structure)
    failed = len(summary.counts.get("failed", ())) + len(summary.counts.get("faults", ()))
    if failed:
        sentences.append(f"{failed} {'case' if failed == 1 else 'cases'} could not be scored and count nowhere.")
    return sentences


def _seen(summary: Summary, structure: str) -> list[str]:
    """What was found of the lesions that can be seen best, where detectability was measured."""
    told = [one for one in summary.figures if one.structure == structure and one.metric == "lesion_sensitivity"]
    clear = [one for one in told if not one.group and one.size.startswith("d' >=")]
    return [
        f"Of the lesions that can be seen best ({one.size}) {100 * one.interval.value:.0f} % were found"
        f" ({_range(one.interval, 100, ' %')})."
        for one in clear
        if math.isfinite(one.interval.value)
    ]


def comparison_sentences(comparison: Comparison, primary: Sequence[str], in_silico: bool = False) -> list[str]:
    """A sentence per structure on the primary metrics: which model is better, by how much, or that nothing is shown."""
    sentences = [IN_SILICO] if in_silico else []
    for structure in tumors_first(one.structure for one in comparison.differences):
        main = [one for one in comparison.differences if one.structure == structure and one.whole]
        main = [one for one in main if one.metric in primary]
        if main:
            sentences.append(f"{structure}: {_told(main, comparison.names)}.")
    if comparison.absent:
        sentences.append(f"Primary metrics that were not computed: {', '.join(comparison.absent)}.")
    return sentences


def _told(main: Sequence[Difference], names: tuple[str, str]) -> str:
    parts = []
    for name in names:
        better = [one for one in main if one.verdict == f"{name} better"]
        if better:
            gaps = ", ".join(f"{metric(one.metric).label} ({one.gap.value:+.3g}; {_range(one.gap)})" for one in better)
            parts.append(f"{name} is better in {gaps}")
    rest = [metric(one.metric).label for one in main if not one.verdict.endswith(" better")]
    if rest:
        parts.append(f"no difference is shown in {', '.join(rest)}")
    return "; ".join(parts)


def _range(interval: Interval, factor: float = 1.0, unit: str = "") -> str:
    if not math.isfinite(interval.low):
        return f"no interval: {interval.note}"
    if factor != 1.0:
        return f"interval {factor * interval.low:.0f} to {factor * interval.high:.0f}{unit}"
    return f"interval {number(interval.low)} to {number(interval.high)}{unit}"
