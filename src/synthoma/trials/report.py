"""The page of a trial: the verdict, curves, thresholds, pairs of attributes, two models, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from synthoma.reports.page import fact_table, number, page, picture_figures, plot_figures, table, verdict
from synthoma.reports.pictures import Picture
from synthoma.reports.plots import Plot
from synthoma.statistics.intervals import Interval
from synthoma.tables import Row
from synthoma.trials.curves import FEWEST, Curve, from_axis
from synthoma.trials.design import Design
from synthoma.trials.findings import Gap, Result, Robust, Varied, as_it_is, plain_name, said_cell
from synthoma.trials.plots import label
from synthoma.trials.recipe import ATTRIBUTES


def sentences(design: Design, results: Sequence[Result], gaps: Sequence[Gap]) -> list[str]:
    """What the trial found, in plain sentences; the page and the command begin with them."""
    found = []
    for result in results:
        name = f"{result.scores.name}: " if len(results) > 1 else ""
        said = [_half_sentence(design, varied) for varied in result.varied if varied.curve is not None]
        false = f"{_with_interval(result.false, '95 % interval ')} false lesions on an untouched scan"
        false = f"{false} ({_count(as_it_is(design, result.scores.untouched))})"
        told = [*(f"{each}." for each in said), f"{false}.", *_robust_sentence(result.robustness)]
        found.append(f"{name}{' '.join(told)}")
    if gaps:
        found.append(_gap_sentence(results, gaps[0]))
    hosts = len(design.hosts)
    patients = "in-silico patients" if design.in_silico else "patients"
    counts = list(dict.fromkeys(len(result.scores.lesions) for result in results))
    scored = " and ".join(map(str, counts))
    kind = f"The hosts are {hosts} scans of {len(set(design.hosts.values()))} {patients}; the lesions are synthetic"
    found.append(f"{kind} ({scored} of {len(design.lesions)} were scored).")
    if len(set(design.hosts.values())) < FEWEST:
        found.append(f"Of fewer than {FEWEST} patients, intervals are rough and often too narrow.")
    if design.left_out:
        count = len(design.left_out)
        were = (
            "lesion had no room or was rejected and is"
            if count == 1
            else "lesions had no room or were rejected and are"
        )
        found.append(f"{count} planned {were} left out.")
    for result in results:
        if result.scores.missing:
            missing = result.scores.missing
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            found.append(
                f"{len(missing)} of {len(design.cases)} scans have no prediction of {result.scores.name} and are left"
                f" out: {', '.join(missing[:3])}{more}."
            )
    return found


def _half_sentence(design: Design, varied: Varied) -> str:
    """Half of the lesions are found from 11.3 mm on (95 % interval 9.6 to 14.0), at contrast -40 HU."""
    curve = varied.curve
    assert curve is not None
    base = said_base(design, varied.attribute)
    unit = ATTRIBUTES[varied.attribute].unit
    of = "" if varied.attribute == "diameter_mm" else f" of {plain_name(varied.attribute)}"
    low, high = _ends(curve)
    count = f"{varied.at_base} lesions in {curve.half.n} patients"
    if not np.isfinite(curve.half.value):
        everywhere = curve.share(curve.levels).min() > 0.5
        what = "More" if everywhere else "Fewer"
        tried = f"at every {plain_name(varied.attribute)} tried ({low:g} to {high:g} {unit})".replace(" )", ")")
        return f"{what} than half of the lesions are found {tried}{base} ({count})"
    where = f"from {curve.half.value:.3g} {unit}{of} on" if curve.rising else (
        f"up to {curve.half.value:.3g} {unit}{of}"
    )  # fmt: skip
    where = " ".join(where.split())
    interval = said_threshold_interval(curve)
    sure = f"95 % interval {interval}" if interval else "too few patients for an interval"
    return f"Half of the lesions are found {where} ({sure}; {count}){base}{_said_misfit(varied)}"


def _said_misfit(varied: Varied) -> str:
    """Where the shares found do not follow the curve, so that its threshold is not to be believed; empty if they do.

    That is where the curve leaves the interval of a share, of patients enough for one.
    """
    curve, unit = varied.curve, ATTRIBUTES[varied.attribute].unit
    assert curve is not None
    if curve.half.n < FEWEST:
        return ""
    fitted = curve.share(varied.counts.levels)
    worst = [
        (abs(share.value - fit), float(level), share, float(fit))
        for level, share, fit in zip(varied.counts.levels, varied.shares, fitted, strict=True)
        if fit < share.low or fit > share.high
    ]
    if not worst:
        return ""
    _, level, share, fit = max(worst, key=lambda each: each[0])
    at = f"{level:g} {unit}".strip()
    found = f"{100 * share.value:.0f} % were found (95 % interval {100 * share.low:.0f} to {100 * share.high:.0f})"
    return f"; but the shares do not follow the curve: at {at} {found}, and it says {100 * fit:.0f} %"


def _robust_sentence(robustness: Sequence[Robust]) -> list[str]:
    """What costs most of all that is done to the scan, if a loss is shown at all; nothing if nothing is done."""
    defined = [each for each in robustness if np.isfinite(each.lesions.gap.value)]
    if not defined:
        return []
    worst = min(defined, key=lambda each: each.lesions.gap.value)
    gap = worst.lesions
    if not (gap.holm < 0.05 and gap.gap.value < 0):
        most = (
            f"; most are lost with {gap.what} ({100 * gap.gap.value:+.0f} points, {worst.pairs} pairs,"
            f" p = {gap.holm:.3f} after Holm's correction)"
        )
        states = f"{len(defined)} state{'s' * (len(defined) != 1)} of the scan made worse"
        return [f"No loss of lesions is shown in {states}{most if gap.gap.value < 0 else ''}."]
    interval = (
        "" if np.isnan(gap.gap.low) else f", 95 % interval {100 * gap.gap.low:.0f} to {100 * gap.gap.high:.0f} points"
    )
    return [
        f"Of what is done to the scan, {gap.what} costs most: {100 * gap.second:.0f} % of the lesions are found instead"
        f" of {100 * gap.first:.0f} % ({worst.pairs} pairs{interval})."
    ]


def said_base(design: Design, *varied: str) -> str:
    """What the other attributes were, in words: ", at contrast -40 HU"; empty if there are none."""
    others = said_cell(design.recipe.base_cell, varied)
    return f", at {others}" if others else ""


def said_threshold_interval(curve: Curve) -> str:
    """The interval of a threshold; an end beyond all levels is said to be so. Empty without an interval."""
    low, high = _ends(curve)
    if np.isnan(curve.half.low):
        return ""
    first = f"below {low:g}" if np.isneginf(curve.half.low) else f"{curve.half.low:.3g}"
    last = f"above {high:g}" if np.isposinf(curve.half.high) else f"{curve.half.high:.3g}"
    if np.isposinf(curve.half.low):
        first = f"above {high:g}"
    if np.isneginf(curve.half.high):
        last = f"below {low:g}"
    return first if first == last else f"{first} to {last}"


def said_threshold(curve: Curve) -> str:
    """A threshold with its unit, or on which side of all levels it lies."""
    unit = ATTRIBUTES[curve.attribute].unit
    if np.isfinite(curve.half.value):
        text = f"{curve.half.value:.3g} {unit}"
    else:
        text = f"{'more' if curve.share(curve.levels).min() > 0.5 else 'less'} than half at every level"
    return text.strip()


def _ends(curve: Curve) -> tuple[float, float]:
    """The lowest and the highest level, as the threshold is told: contrast without its sign."""
    levels = np.abs(curve.levels) if curve.attribute == "contrast_hu" else from_axis("", curve.levels)
    return float(levels.min()), float(levels.max())


def _gap_sentence(results: Sequence[Result], gap: Gap) -> str:
    first, second = (result.scores.name for result in results)
    if np.isnan(gap.gap.value):
        return f"{first} and {second} have no scored lesion in common."
    points = 100 * gap.gap.value
    shown = gap.holm < 0.05
    interval = "" if np.isnan(gap.gap.low) else f", 95 % interval {100 * gap.gap.low:.0f} to {100 * gap.gap.high:.0f}"
    figures = f"{points:+.0f} points{interval}; p = {gap.holm:.3f} after Holm's correction"
    if not shown:
        return f"No difference between {first} and {second} is shown in the share of lesions found ({figures})."
    better = "more" if points > 0 else "fewer"
    return f"{second} finds {better} lesions than {first} ({figures})."


def trial_page(
    title: str, design: Design, results: Sequence[Result], gaps: Sequence[Gap], told: Sequence[str],
    plots: Sequence[Plot], heats: Sequence[Plot], halves: Sequence[tuple[str, str, str, Sequence[Row]]],
    pictures: Mapping[str, Sequence[Picture]], facts: Mapping[str, Any],
) -> str:  # fmt: skip
    """The whole page. told: of `sentences`; halves: model, attribute, the other attribute and its thresholds.

    pictures: model -> lesions that it missed.
    """
    parts = [verdict(told), "<h2>Found, level by level</h2>"]
    parts.append(
        "<p>The curve is logistic (in the logarithm of the diameter). The open mark is the level at which it is"
        " one half. Intervals of shares are of a bootstrap by patient; that of the level at which half are found is of"
        " Bayes' rule, over curves of any width.</p>"
    )
    parts.append(plot_figures(plots))
    parts += [_level_table(result, len(results) > 1) for result in results]
    if heats:
        parts += ["<h2>Two attributes at a time</h2>", plot_figures(heats)]
        parts += [_half_table(*each, several=len(results) > 1) for each in halves]
    for result in results:
        whose = f" by {escape(result.scores.name)}" if len(results) > 1 else ""
        if result.robustness:
            parts += [f"<h2>The scan made worse{whose}</h2>", _ROBUST, _robust_table(result.robustness)]
        if result.phases:
            parts += [f"<h2>By phase of the hosts{whose}</h2>", _PHASES, _phase_table(result)]
    if gaps:
        parts += [f"<h2>{escape(results[0].scores.name)} against {escape(results[1].scores.name)}</h2>"]
        parts.append(
            "<p>The same lesions, paired by patient: the second model less the first. p is of a permutation test that"
            " swaps the models patient by patient, corrected (Holm) within all lesions and false alarms, and within the"
            " levels.</p>"
        )
        parts.append(_gap_table(results, gaps))
    for name, some in pictures.items():
        if some:
            parts.append(f"<h2>Missed by {escape(name)}</h2>")
            parts.append(
                "<p>The missed lesions with the most diameter times contrast, one a place. Truth blue, prediction"
                " orange. A lesion that a prediction touches is missed too, where the two match less than asked.</p>"
            )
            parts.append(picture_figures(some))
    if design.left_out:
        parts += ["<h2>Left out</h2>", _left_out_table(design)]
    return page(title, [*parts, "<h2>How it was counted</h2>", fact_table(facts)])


_ROBUST = (
    "<p>The same lesions at the same place of the same scan, before and after the scan was made worse; what else is"
    " done to it stays. Differences with 95 % intervals by patient; p is of a permutation test by patient, corrected"
    " (Holm) over the states.</p>"
)
_PHASES = "<p>Other hosts in each phase: a difference may be one of patients.</p>"


def _robust_table(robustness: Sequence[Robust]) -> str:
    rows = []
    for each in robustness:
        found, false = each.lesions, each.false
        rows.append([
            escape(found.what), str(each.pairs), _share(found.first), _share(found.second), _points(found.gap),
            "–" if np.isnan(found.holm) else f"{found.holm:.3f}", number(false.first, 2), number(false.second, 2),
            _with_interval(false.gap), "–" if np.isnan(false.holm) else f"{false.holm:.3f}",
        ])  # fmt: skip
    head = ["state of the scan", "lesions", "found as it is", "found then", "points (95 %)", "p",
            "false lesions a scan", "then", "difference (95 %)", "p"]  # fmt: skip
    return table(head, rows, tuple(range(1, len(head))))


def _phase_table(result: Result) -> str:
    rows = [
        [each.phase, str(each.found.n), str(each.lesions), _percent(each.found), _with_interval(each.false)]
        for each in result.phases
    ]
    head = ["phase", "patients", "lesions", "found (95 %)", "false lesions on an untouched scan (95 %)"]
    return table(head, rows, (1, 2, 3, 4))


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.0f} %"


def _points(gap: Interval) -> str:
    ends = "" if np.isnan(gap.low) else f" ({100 * gap.low:+.0f} to {100 * gap.high:+.0f})"
    return "–" if np.isnan(gap.value) else f"{100 * gap.value:+.0f}{ends}"


def _level_table(result: Result, several: bool) -> str:
    rows = []
    for varied in result.varied:
        for place, level in enumerate(varied.counts.levels):
            rows.append([
                escape(label(varied.attribute)), f"{level:g}", str(int(varied.counts.total[:, place].sum())),
                _percent(varied.shares[place]), _percent(varied.pooled[place]), _with_interval(varied.dsc[place]),
            ])  # fmt: skip
    head = ["attribute", "level", "lesions", "found, others at base (95 %)", "found, all lesions (95 %)",
            "DSC of the found (95 %)"]  # fmt: skip
    return (f"<h3>{escape(result.scores.name)}</h3>" if several else "") + table(head, rows, (1, 2, 3, 4, 5))


def _half_table(name: str, of: str, by: str, rows: Sequence[Row], several: bool) -> str:
    title = f"<h3>{escape(name)}: half found, by {escape(plain_name(by))}</h3>" if several else (
        f"<h3>Half found, by {escape(plain_name(by))}</h3>"
    )  # fmt: skip
    cells = [
        [f"{row[by]:g} {ATTRIBUTES[by].unit}", str(row["lesions"]), said_threshold(row["curve"]),
         said_threshold_interval(row["curve"]) or "–"]
        for row in rows
    ]  # fmt: skip
    return title + table([plain_name(by), "lesions", f"half found, {label(of)}", "95 % interval"], cells, (1, 2, 3))


def _gap_table(results: Sequence[Result], gaps: Sequence[Gap]) -> str:
    names = [escape(result.scores.name) for result in results]
    rows = []
    for gap in gaps:
        interval = "–" if np.isnan(gap.gap.low) else f"{gap.gap.low:+.3g} to {gap.gap.high:+.3g}"
        p = "–" if np.isnan(gap.holm) else f"{gap.holm:.3f}"
        value = "–" if np.isnan(gap.gap.value) else f"{gap.gap.value:+.3g}"
        rows.append([escape(gap.what), number(gap.first), number(gap.second), value, interval, p, escape(gap.gap.note)])
    return table(["", *names, "difference", "95 % interval", "p (Holm)", "note"], rows, (1, 2, 3, 4, 5))


def _left_out_table(design: Design) -> str:
    """How many lesions of each diameter were left out, in how many hosts, and the commonest reason."""
    sizes: dict[float, list[Row]] = {}
    for row in design.left_out:
        sizes.setdefault(float(row["diameter_mm"]), []).append(row)
    rows = []
    for diameter_mm, some in sorted(sizes.items()):
        reason, count = Counter(str(row["reason"]) for row in some).most_common(1)[0]
        hosts = sorted({str(row["host"]) for row in some})
        named = ", ".join(hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")
        rows.append([f"{diameter_mm:g} mm", str(len(some)), escape(named), f"{escape(reason)} ({count})"])
    return table(["diameter", "lesions", "hosts", "commonest reason"], rows, (1,))


def _percent(interval: Interval) -> str:
    if np.isnan(interval.value):
        return "–"
    ends = "" if np.isnan(interval.low) else f" ({100 * interval.low:.0f} to {100 * interval.high:.0f})"
    return f"{100 * interval.value:.0f} %{ends}"


def _with_interval(interval: Interval, words: str = "") -> str:
    if np.isnan(interval.low):
        return number(interval.value, 2)
    return f"{number(interval.value, 2)} ({words}{number(interval.low, 2)} to {number(interval.high, 2)})"


def _count(untouched: Sequence[Row]) -> str:
    return f"{len(untouched)} scan{'s' * (len(untouched) != 1)}"
