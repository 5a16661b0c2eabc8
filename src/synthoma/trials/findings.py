"""What a trial shows: shares and thresholds of each model, pairs of attributes, false alarms, two models compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthoma.statistics.intervals import Interval, Ratio, bootstrap
from synthoma.statistics.paired import holm, permutation_p
from synthoma.tables import Row
from synthoma.trials.curves import Counts, Curve, fit_curve, threshold_gap
from synthoma.trials.design import Design
from synthoma.trials.recipe import ATTRIBUTES, part_of
from synthoma.trials.scores import Scores


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
    """One model. found: share of all lesions; false: false lesions on an untouched scan, the mean.

    robustness: what becomes of both where the scan is made worse; phases: of both by the phase of the hosts.
    """

    scores: Scores
    found: Interval
    false: Interval
    varied: Sequence[Varied]
    robustness: Sequence[Robust] = ()
    phases: Sequence[InPhase] = ()


@dataclass(frozen=True)
class Gap:
    """Two models on the same lesions, or two states of the scan: the second less the first.

    p: of a permutation test by patient; holm: corrected for the number of tests.
    """

    what: str
    first: float
    second: float
    gap: Interval
    p: float = np.nan
    holm: float = np.nan


@dataclass(frozen=True)
class Robust:
    """A scan made worse against the same scan as it is. lesions: pairs of the same lesion, share found; false: a scan.

    The rest of the design is equal in both: lesion, place and what else is done to the scan.
    """

    attribute: str
    level: float
    pairs: int
    lesions: Gap
    false: Gap


@dataclass(frozen=True)
class InPhase:
    """The hosts of one phase of the contrast medium; other hosts than those of another phase, so unpaired."""

    phase: str
    lesions: int
    found: Interval
    false: Interval


def find_result(design: Design, scores: Scores, resamples: int, seed: int) -> Result:
    """Everything about one model."""
    varied = [
        _vary(design, scores.lesions, name, resamples, seed) for name, levels in design.recipe.levels.items() if levels
    ]
    return Result(
        scores,
        _share(scores.lesions, resamples, seed),
        _false(as_it_is(design, scores.untouched), resamples, seed),
        [each for each in varied if each is not None],
        find_robustness(design, scores, resamples, seed),
        _by_phase(design, scores, resamples, seed),
    )


def as_it_is(design: Design, rows: Sequence[Row], but: str = "") -> list[Row]:
    """The rows whose scan is at its base, save for one attribute of the scan if named."""
    base = {name: value for name, value in part_of(design.recipe.base_cell, "scan") if name != but}
    return [row for row in rows if all(float(row[name]) == value for name, value in base.items())]


def find_robustness(design: Design, scores: Scores, resamples: int, seed: int) -> list[Robust]:
    """Every level of every attribute of the scan against the scan as it is; p is corrected within each family."""
    found = []
    for name in (name for name in design.recipe.levels if ATTRIBUTES[name].of == "scan"):
        lesions, bare = as_it_is(design, scores.lesions, name), as_it_is(design, scores.untouched, name)
        others = [other for other in design.recipe.base_cell if other != name]
        plain = {_key(row, ("host", "site", *others)): row for row in lesions if row[name] == 0}
        hosts = {row["host"]: row for row in bare if row[name] == 0}
        for level in sorted(level for level in design.recipe.levels[name] if level):
            worse = [row for row in lesions if row[name] == level and _key(row, ("host", "site", *others)) in plain]
            alike = [plain[_key(row, ("host", "site", *others))] for row in worse]
            after = [row for row in bare if row[name] == level and row["host"] in hosts]
            before = [hosts[row["host"]] for row in after]
            said = said_level(name, level)
            false = [_ratio([(row["patient"], row["false"]) for row in rows]) for rows in (before, after)]
            found.append(
                Robust(
                    name, level, len(worse), _share_gap(said, alike, worse, resamples, seed),
                    _gap(said, false[0], false[1], resamples, seed),
                )
            )  # fmt: skip
    lesions_gaps = _corrected([each.lesions for each in found])
    false_gaps = _corrected([each.false for each in found])
    return [
        dataclasses.replace(each, lesions=first, false=second)
        for each, first, second in zip(found, lesions_gaps, false_gaps, strict=True)
    ]


def _key(row: Row, names: Sequence[str]) -> tuple[object, ...]:
    return tuple(row[name] for name in names)


def _by_phase(design: Design, scores: Scores, resamples: int, seed: int) -> list[InPhase]:
    """Nothing where all hosts are of one phase."""
    lesions = as_it_is(design, scores.lesions)
    phases = {row["host"]: str(row["phase"]) for row in lesions}
    found = []
    for phase in sorted(set(phases.values())) if len(set(phases.values())) > 1 else ():
        own = [row for row in lesions if row["phase"] == phase]
        bare = [row for row in as_it_is(design, scores.untouched) if phases.get(row["host"]) == phase]
        found.append(InPhase(phase, len(own), _share(own, resamples, seed), _false(bare, resamples, seed)))
    return found


def _false(untouched: Sequence[Row], resamples: int, seed: int) -> Interval:
    ratio = _ratio([(row["patient"], row["false"]) for row in untouched])
    return bootstrap(ratio, len(ratio.top), resamples, seed)


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
    bare = [as_it_is(design, result.scores.untouched) for result in (first, second)]
    hosts = {row["host"] for row in bare[0]} & {row["host"] for row in bare[1]}
    ours_false, theirs_false = (
        _ratio([(row["patient"], row["false"]) for row in rows if row["host"] in hosts]) for rows in bare
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
            what = f"half found, {plain_name(name)} in {ATTRIBUTES[name].unit or 'its unit'}"
            gaps.append(Gap(what, *values, threshold_gap(curves[0], curves[1])))
    return gaps


def _corrected(gaps: Sequence[Gap]) -> list[Gap]:
    """The same with p corrected for their number."""
    tested = holm([gap.p for gap in gaps])
    return [dataclasses.replace(gap, holm=value) for gap, value in zip(gaps, tested, strict=True)]


def plain_name(attribute: str) -> str:
    """An attribute in words: `vessel_mm` is distance to vessels."""
    return ATTRIBUTES[attribute].words


def said_level(attribute: str, level: float) -> str:
    """An attribute with its value and unit: diameter 12 mm."""
    return f"{plain_name(attribute)} {level:g} {ATTRIBUTES[attribute].unit}".strip()


def said_cell(cell: Mapping[str, float], but: Sequence[str] = ()) -> str:
    """The attributes of a cell in words; a scan that is as it is needs none."""
    told = [
        said_level(name, cell[name])
        for name in cell
        if name not in but and (ATTRIBUTES[name].of != "scan" or cell[name])
    ]
    return ", ".join(told)


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
