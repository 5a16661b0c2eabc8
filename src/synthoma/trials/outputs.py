"""What a trial's report leaves in its run folder: every lesion's fate, figures, plots, the page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from synthoma import disk
from synthoma.errors import CaseError
from synthoma.names import file_name
from synthoma.reports.pictures import Picture
from synthoma.statistics.intervals import Interval
from synthoma.tables import Row, plain, write_table
from synthoma.trials import plots
from synthoma.trials.design import Design
from synthoma.trials.findings import Gap, Result, compare_models, find_result, interaction, thresholds
from synthoma.trials.recipe import ReportRecipe
from synthoma.trials.report import said_base, sentences, trial_page
from synthoma.trials.scores import Scores

KIND = "trial-report"
LESIONS, UNTOUCHED, LEVELS, GAPS = "lesions.csv", "untouched.csv", "levels.csv", "differences.csv"
ROBUST, LEFT_OUT, SUMMARY, REPORT = "robustness.csv", "left_out.csv", "summary.json", "report.html"


def finish_report(
    design: Design,
    scores: Sequence[Scores],
    out: Path,
    recipe: ReportRecipe,
    seed: int,
    facts: Mapping[str, Any],
    pictures: Mapping[str, Sequence[Picture]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Writes tables, plots and page; the verdict and its figures for the run's record.

    scores: of one model, or of two to be compared. pictures: of lesions that each missed. Raises `CaseError` if a
    model has no scored lesion.
    """
    for each in scores:
        if not each.lesions:
            raise CaseError(
                f"no lesion of the trial could be scored for {each.name}", found=f"{len(each.missing)} scans"
            )
    results = [find_result(design, each, recipe.resamples, seed) for each in scores]
    gaps = compare_models(design, results[0], results[1], recipe.resamples, seed) if len(results) == 2 else []
    told = sentences(design, results, gaps)
    shared = [
        varied.attribute for varied in results[0].varied
        if all(varied.attribute in {each.attribute for each in result.varied} for result in results)
    ]  # fmt: skip
    drawn = [plots.draw_curves(name, results, said_base(design, name)) for name in shared]
    drawn += [plots.draw_dsc(name, results, said_base(design, name)) for name in shared]
    heats, halves = [], []
    if design.recipe.design == "grid":
        for across, up in itertools.combinations(shared, 2):
            for result in results:
                pairs = interaction(design, result.scores.lesions, across, up)
                heats.append(plots.draw_heat(across, up, result.scores.name, pairs))
                rows = thresholds(design, result.scores.lesions, across, up, recipe.resamples, seed)
                halves.append((result.scores.name, across, up, rows))
    _write_tables(design, results, gaps, out)
    (out / "plots").mkdir(exist_ok=True)
    for plot in [*drawn, *heats]:
        name = file_name(plot.name)
        disk.write_text(out / "plots" / f"{name}.svg", plot.svg)
        write_table(list(plot.rows), out / "plots" / f"{name}.csv")
    summary = _summary(design, results, gaps, told)
    disk.write_json(out / SUMMARY, summary)
    more = {**facts, "trial": design.recipe.as_dict(), "report": recipe.as_dict(), "seed": seed, "found": _FOUND}
    page = trial_page(f"Trial {out.name}", design, results, gaps, told, drawn, heats, halves, pictures, more)
    disk.write_text(out / REPORT, page)
    return summary


_FOUND = (
    "a lesion is found if a predicted lesion is matched to it one to one (`rule`, `least_iou`), as evaluate does;"
    " every other predicted lesion on a scan without one is false"
)


def _write_tables(design: Design, results: Sequence[Result], gaps: Sequence[Gap], out: Path) -> None:
    lesions, untouched, levels = [], [], []
    for result in results:
        name = result.scores.name
        for row in result.scores.lesions:
            flat = {key: value for key, value in row.items() if key != "center_mm"}
            lesions.append(
                {"model": name, **flat, **dict(zip(("x_mm", "y_mm", "z_mm"), row["center_mm"], strict=True))}
            )
        untouched += [{"model": name, **row} for row in result.scores.untouched]
        for varied in result.varied:
            for place, level in enumerate(varied.counts.levels):
                levels.append({
                    "model": name, "attribute": varied.attribute, "level": float(level),
                    **_flat("found", varied.shares[place]), **_flat("found_all", varied.pooled[place]),
                    **_flat("dsc", varied.dsc[place]),
                })  # fmt: skip
    write_table(lesions, out / LESIONS)
    write_table(levels, out / LEVELS)
    robust = [{"model": result.scores.name, **row} for result in results for row in _robust_rows(result)]
    others = ((untouched, UNTOUCHED), ([_gap_row(gap) for gap in gaps], GAPS), (robust, ROBUST))
    for rows, name in (*others, (design.left_out, LEFT_OUT)):
        if rows:
            write_table(list(rows), out / name)


def _robust_rows(result: Result) -> list[Row]:
    return [
        {"attribute": each.attribute, "level": each.level, "pairs": each.pairs, "quantity": name, **_gap_row(gap)}
        for each in result.robustness
        for name, gap in (("lesions found", each.lesions), ("false lesions a scan", each.false))
    ]


def _gap_row(gap: Gap) -> Row:
    return {"what": gap.what, "first": plain(gap.first), "second": plain(gap.second), **_flat("difference", gap.gap),
            "p": plain(gap.p), "holm": plain(gap.holm)}  # fmt: skip


def _flat(name: str, interval: Interval) -> Row:
    return {name: plain(interval.value), f"{name}_low": plain(interval.low), f"{name}_high": plain(interval.high)}


def _summary(
    design: Design, results: Sequence[Result], gaps: Sequence[Gap], told: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    models = {
        result.scores.name: {
            "found": _flat("value", result.found),
            "false_per_untouched_scan": _flat("value", result.false),
            "half": {
                varied.attribute: _flat("value", varied.curve.half) | {"rising": varied.curve.rising}
                for varied in result.varied
                if varied.curve is not None
            },
            "levels": {
                varied.attribute: [
                    {"level": float(level), **_flat("found", share)}
                    for level, share in zip(varied.counts.levels, varied.shares, strict=True)
                ]
                for varied in result.varied
            },
            "lesions": len(result.scores.lesions),
            "robustness": _robust_rows(result),
            "phases": {
                each.phase: {
                    "lesions": each.lesions,
                    "found": _flat("value", each.found),
                    "false": _flat("value", each.false),
                }
                for each in result.phases
            },
            "missing": list(result.scores.missing),
        }
        for result in results
    }
    return {
        "verdict": " ".join(told), "models": models, "hosts": len(design.hosts), "left_out": len(design.left_out),
        "organ": design.recipe.organ,
        "in_silico": design.in_silico, "differences": [_gap_row(gap) for gap in gaps],
    }  # fmt: skip
