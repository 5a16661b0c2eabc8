"""What a trial shows: shares and thresholds of each model, pairs of attributes, false alarms, two models compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.statistics.intervals import Interval, Ratio, bootstrap
from synthoma.statistics.paired import holm, permutation_p
from synthoma.tables import Row
from synthoma.trials.curves import Counts, Curve, fit_curve, threshold_gap
from synthoma.trials.design import Design
from synthoma.trials.scores import Scores

UNITS = {"diameter_mm": "mm", "contrast_hu": "HU", "edge_mm": "mm", "roughness": "", "texture_hu": "HU",
         "rim_hu": "HU", "core_hu": "HU"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Varied:
    """One model and one attribute. at_base: lesions whose other attributes are at their base, which the curve is of.

    counts, shares: of these; pooled: the shares over all lesions of the design; dsc: the mean DSC of the found ones at
    base; each by level, with intervals by patient. curve: None with one level only.
    """

    attribute: str
    at_base: int
    counts: Counts
    shares: Sequence[Interval]
    pooled: Sequence[Interval]
    dsc: Sequence[Interval]
    curve: Curve | None


@dataclass(frozen=True, eq=False)
class Result:
    """One model. found: share of all lesions; false: false lesions on an untouched scan, the mean."""

    scores: Scores
    found: Interval
    false: Interval
    varied: Sequence[Varied]


@dataclass(frozen=True)
class Gap:
    """Two models on the same lesions: the second less the first.

    p: of a permutation test by patient; holm: corrected for the number of tests.
    """

    what: str
    first: float
    second: float
    gap: Interval
    p: float = np.nan
    holm: float = np.nan


def find_result(design: Design, scores: Scores, resamples: int, seed: int) -> Result:
    """Everything about one model."""
    varied = [
        _vary(design, scores.lesions, name, resamples, seed) for name, levels in design.recipe.levels.items() if levels
    ]
    false = _ratio([(row["patient"], row["false"]) for row in scores.untouched])
    return Result(
        scores,
        _share(scores.lesions, resamples, seed),
        bootstrap(false, len(false.top), resamples, seed),
        [each for each in varied if each is not None],
    )


def _vary(design: Design, lesions: Sequence[Row], attribute: str, resamples: int, seed: int) -> Varied | None:
    base = at_base(design, lesions, attribute)
    if not base:
        return None
    counts = Counts.of(attribute, base)
    levels = [[row for row in base if float(row[attribute]) == level] for level in counts.levels]
    everywhere = [[row for row in lesions if float(row[attribute]) == level] for level in counts.levels]
    dsc = []
    for rows in levels:
        ratio = _ratio([(row["patient"], row["dsc"]) for row in rows if row["found"]])
        dsc.append(bootstrap(ratio, len(ratio.top), resamples, seed))
    return Varied(
        attribute, len(base), counts, counts.shares(resamples, seed),
        [_share(rows, resamples, seed) for rows in everywhere], dsc, fit_curve(counts, resamples, seed),
    )  # fmt: skip


def at_base(design: Design, lesions: Sequence[Row], attribute: str, other: str = "") -> list[Row]:
    """The lesions of which only this attribute, and another one if named, differs from the base."""
    base = {name: value for name, value in design.recipe.base_cell.items() if name not in (attribute, other)}
    return [row for row in lesions if all(float(row[name]) == float(value) for name, value in base.items())]


def interaction(design: Design, lesions: Sequence[Row], across: str, up: str) -> list[Row]:
    """Share found for every pair of levels of two attributes, the others at their base; pairs that hold a lesion."""
    rows = at_base(design, lesions, across, up)
    pairs = sorted({(float(row[up]), float(row[across])) for row in rows})
    found = []
    for high, wide in pairs:
        some = [row for row in rows if float(row[up]) == high and float(row[across]) == wide]
        share = float(np.mean([row["found"] for row in some]))
        found.append({up: high, across: wide, "share": share, "lesions": len(some)})
    return found


def thresholds(design: Design, lesions: Sequence[Row], of: str, by: str, resamples: int, seed: int) -> list[Row]:
    """The level of one attribute at which half are found, for each level of another; `curve` is the fit."""
    rows = at_base(design, lesions, of, by)
    found = []
    for level in sorted({float(row[by]) for row in rows}):
        some = [row for row in rows if float(row[by]) == level]
        curve = fit_curve(Counts.of(of, some), resamples, seed)
        if curve is not None:
            found.append({by: level, "lesions": len(some), "curve": curve})
    return found


def compare_models(design: Design, first: Result, second: Result, resamples: int, seed: int) -> list[Gap]:
    """The differences of two models over the lesions that both were asked about.

    First all lesions and false alarms, then level by level; p is corrected within each of the two families.
    """
    key = ("case", "site")
    ours = {tuple(row[name] for name in key): row for row in first.scores.lesions}
    theirs = {tuple(row[name] for name in key): row for row in second.scores.lesions}
    both = [place for place in ours if place in theirs]
    a, b = [ours[place] for place in both], [theirs[place] for place in both]
    by_level: list[Gap] = []
    for name in design.recipe.levels:
        for level in sorted({float(row[name]) for row in a}):
            here, there = ([row for row in rows if float(row[name]) == level] for rows in (a, b))
            by_level.append(_share_gap(f"lesions found, {said_level(name, level)}", here, there, resamples, seed))
    hosts = {row["host"] for row in first.scores.untouched} & {row["host"] for row in second.scores.untouched}
    ours_false, theirs_false = (
        _ratio([(row["patient"], row["false"]) for row in result.scores.untouched if row["host"] in hosts])
        for result in (first, second)
    )
    whole = [
        _share_gap("lesions found", a, b, resamples, seed),
        _gap("false lesions on an untouched scan", ours_false, theirs_false, resamples, seed),
    ]
    gaps = [*_corrected(whole), *_corrected(by_level)]
    for name in design.recipe.levels:
        curves = [
            fit_curve(Counts.of(name, at_base(design, rows, name)), resamples, seed, model=model)
            for model, rows in enumerate((a, b))
        ]
        if curves[0] is not None and curves[1] is not None:
            values = curves[0].half.value, curves[1].half.value
            what = f"half found, {plain_name(name)} in {UNITS[name] or 'its unit'}"
            gaps.append(Gap(what, *values, threshold_gap(curves[0], curves[1])))
    return gaps


def _corrected(gaps: Sequence[Gap]) -> list[Gap]:
    """The same with p corrected for their number."""
    tested = holm([gap.p for gap in gaps])
    return [dataclasses.replace(gap, holm=value) for gap, value in zip(gaps, tested, strict=True)]


def plain_name(attribute: str) -> str:
    """An attribute in words: `edge_mm` is edge."""
    return attribute.removesuffix("_mm").removesuffix("_hu")


def said_level(attribute: str, level: float) -> str:
    """An attribute with its value and unit: diameter 12 mm."""
    return f"{plain_name(attribute)} {level:g} {UNITS[attribute]}".strip()


def _share_gap(what: str, first: Sequence[Row], second: Sequence[Row], resamples: int, seed: int) -> Gap:
    ours, theirs = (_ratio([(row["patient"], row["found"]) for row in rows]) for rows in (first, second))
    return _gap(what, ours, theirs, resamples, seed)


def _gap(what: str, first: Ratio, second: Ratio, resamples: int, seed: int) -> Gap:
    n = len(first.top)
    ones = np.ones((1, n))
    gap = bootstrap(lambda drawn: second(drawn) - first(drawn), n, resamples, seed)
    values = (float(first(ones)[0]), float(second(ones)[0])) if n else (np.nan, np.nan)
    return Gap(what, *values, gap, permutation_p(first, second, seed=seed))


def _share(lesions: Sequence[Row], resamples: int, seed: int) -> Interval:
    ratio = _ratio([(row["patient"], row["found"]) for row in lesions])
    return bootstrap(ratio, len(ratio.top), resamples, seed, proportion=True)


def _ratio(values: Sequence[tuple[str, float]]) -> Ratio:
    """The mean of values that belong to patients."""
    sums: dict[str, list[float]] = {}
    for patient, value in values:
        entry = sums.setdefault(patient, [0.0, 0.0])
        entry[0] += value
        entry[1] += 1
    table = np.array(list(sums.values()), float).reshape(-1, 2)
    return Ratio(table[:, 0], table[:, 1])
