"""All figures of an evaluation with their intervals, and how often each policy was used."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthoma.evaluation.figures import PROPORTIONS, Scored, group_values, ratios, structures_of
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe
from synthoma.statistics.intervals import Interval, Ratio, bootstrap, divide
from synthoma.tables import Row, plain

# False lesions per scan at which FROC curves are read off.
OPERATING_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Figure:
    """One number. group: `column=value`, empty for all cases; size: a bin of diameters or of
    detectability, empty for all lesions.

    interval: by patients; its `n` counts those who contribute. undefined: scans that have no value of the metric.
    """

    structure: str
    metric: str
    group: str
    size: str
    interval: Interval
    undefined: int = 0

    def as_row(self) -> Row:
        """Flat JSON data, None for nan."""
        row = {name: value for name, value in vars(self).items() if name != "interval"} | asdict(self.interval)
        return {name: plain(value) for name, value in row.items()}


@dataclass(frozen=True)
class Summary:
    """What an evaluation found. froc: structure -> threshold, false lesions per scan and sensitivity of every point;
    counts: cases, patients, outcomes and policies used, in words."""

    figures: tuple[Figure, ...]
    froc: dict[str, list[tuple[float, float, float]]]
    counts: dict[str, Any]

    def __getitem__(self, key: tuple[str, str]) -> Interval:
        """The figure of all cases: `summary["liver_lesion", "dsc"]`."""
        for figure in self.figures:
            if (figure.structure, figure.metric, figure.group, figure.size) == (*key, "", ""):
                return figure.interval
        raise KeyError(key)

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        names = ("threshold", "false_per_scan", "sensitivity")
        points = {
            name: [dict(zip(names, map(plain, point), strict=True)) for point in curve]
            for name, curve in self.froc.items()
        }
        return {
            "counts": self.counts,
            "figures": [figure.as_row() for figure in self.figures],
            "froc": points,
            "froc_at": {
                name: {f"{rate:g}": plain(sensitivity_at(curve, rate)) for rate in OPERATING_POINTS}
                for name, curve in self.froc.items()
            },
        }


def summarise(scores: Iterable[CaseScores], recipe: EvaluateRecipe | None = None, seed: int = 0) -> Summary:
    """Every figure of the cases with its interval, bootstrapped by patient; the same for the same seed.

    A single patient has values and no intervals. No cases give no figures.
    """
    recipe = recipe or EvaluateRecipe()
    scores = list(scores)
    figures: list[Figure] = []
    froc = {}
    for structure in structures_of(scores):
        for group, some in group_values(scores, recipe):
            scored = Scored.of(some, structure)
            if scored.rows:
                figures += _figures(scored, group, recipe, seed)
        whole = Scored.of(scores, structure)
        if whole.has_lesions:
            froc[structure] = froc_points(whole.rows)
    return Summary(tuple(figures), froc, _counts(scores))


def froc_points(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """Threshold, false lesions per scan and lesion sensitivity, from the highest threshold down.

    Thresholds that not every scan has (a mask among probability maps) are left out.
    """
    found: dict[float, list[float]] = {}
    for row in rows:
        for threshold, hits, false in row["curve"]:
            entry = found.setdefault(threshold, [0, 0, 0])
            for place, value in enumerate((hits, false, 1)):
                entry[place] += value
    lesions = sum(row["lesions"] for row in rows)
    return [
        (threshold, false / scans, float(divide(np.array(hits), np.array(lesions))))
        for threshold, (hits, false, scans) in sorted(found.items(), reverse=True)
        if scans == len(rows)
    ]


def sensitivity_at(points: Sequence[tuple[float, float, float]], false_per_scan: float) -> float:
    """The highest sensitivity of a FROC curve with at most so many false lesions per scan; nan if there is none.

    Not interpolated: every value is one that some threshold reaches.
    """
    return max((sensitivity for _, rate, sensitivity in points if rate <= false_per_scan), default=math.nan)


def case_rows(scores: Iterable[CaseScores]) -> list[Row]:
    """Rows of `cases.parquet`: one per case and structure, with the groups; the curve as JSON text."""
    return [
        {**row, "curve": json.dumps(row["curve"]) if "curve" in row else None, **each.attributes}
        for each in scores
        for row in each.rows
    ]


def _figures(scored: Scored, group: str, recipe: EvaluateRecipe, seed: int) -> Iterable[Figure]:
    for name, size, ratio in ratios(scored, recipe):
        there = ratio.bottom > 0
        kept = Ratio(ratio.top[there], ratio.bottom[there])
        interval = bootstrap(
            kept, int(there.sum()), recipe.resamples, seed, recipe.confidence, proportion=name in PROPORTIONS
        )
        yield Figure(scored.structure, name, group, size, interval, scored.undefined(name))
    if scored.has_lesions:
        patients = scored.by_patient
        interval = bootstrap(patients.auc, len(scored.patients), recipe.resamples, seed, recipe.confidence)
        yield Figure(scored.structure, "patient_auc", group, "", interval)


def _counts(scores: Sequence[CaseScores]) -> dict[str, Any]:
    outcomes: dict[str, Counter[str]] = {}
    fates: dict[str, Counter[str]] = {}
    for each in scores:
        for row in each.rows:
            outcomes.setdefault(row["structure"], Counter())[row["outcome"]] += 1
        for row in each.lesions:
            fates.setdefault(row["structure"], Counter())[f"{row['side']} {row['fate']}"] += 1
    return {
        "cases": len(scores),
        "patients": len({each.patient for each in scores}),
        "outcomes": {structure: dict(count) for structure, count in outcomes.items()},
        "lesions": {structure: dict(count) for structure, count in fates.items()},
        "notes": dict(Counter(note for each in scores for note in each.notes)),
    }
