"""Which of two models is better, on what, by how much and how sure; each may be several training seeds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from synthoma.errors import CaseError, RecipeError
from synthoma.evaluation.figures import METRICS, Scored, group_values, metric, ratios, structures_of
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe
from synthoma.statistics.intervals import ALIKE, Interval, Ratio, bootstrap
from synthoma.statistics.paired import holm, permutation_p, wilcoxon_p
from synthoma.tables import Row, plain
from synthoma.volume import Array

Model = Sequence[Sequence[CaseScores]]  # the cases of every training seed
NOTHING = "no difference shown"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """One figure of two models over the same patients. gap: the second less the first, with its interval.

    spread: the standard deviation between training seeds, nan with one. permutation_p, wilcoxon_p: two-sided; holm_p:
    the former, corrected for all rows of its family: the recipe's primary metrics over all cases, or all the others.
    """

    structure: str
    metric: str
    group: str
    size: str
    first: float
    second: float
    gap: Interval
    spread: tuple[float, float]
    permutation_p: float
    wilcoxon_p: float
    holm_p: float = np.nan
    verdict: str = NOTHING

    @property
    def whole(self) -> bool:
        """Whether the row is about all cases, all lesions."""
        return not (self.group or self.size)

    def as_row(self) -> Row:
        """Flat JSON data, None for nan."""
        row = {name: value for name, value in vars(self).items() if name not in ("gap", "spread")}
        gap = asdict(self.gap)
        row |= {"difference": gap["value"], "low": gap["low"], "high": gap["high"], "n": gap["n"], "note": gap["note"]}
        row |= {"first_seed_sd": self.spread[0], "second_seed_sd": self.spread[1]}
        return {name: plain(value) for name, value in row.items()}


@dataclass(frozen=True)
class Comparison:
    """Two models side by side. left_out: cases that only some runs have, which count nowhere. absent: primary metrics
    that the runs did not compute. sentences: what was found, in words, where that was asked for."""

    names: tuple[str, str]
    seeds: tuple[int, int]
    cases: int
    patients: int
    left_out: tuple[str, ...]
    differences: tuple[Difference, ...]
    absent: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return vars(self) | {"differences": [difference.as_row() for difference in self.differences]}


def compare(
    first: Model, second: Model, names: tuple[str, str], recipe: EvaluateRecipe | None = None, seed: int = 0
) -> Comparison:
    """Every figure of two models, paired by patient over the cases that all runs scored.

    A scan whose value is undefined in one run counts for that metric in none.
    A difference is said to be one only if its interval leaves out zero and its corrected p is small enough. Raises
    `CaseError` if no case is in all runs, or if they were scored against different truths; `RecipeError` for a primary
    metric that does not exist.
    """
    recipe = recipe or EvaluateRecipe()
    unknown = [name for name in recipe.primary if name not in METRICS and not name.startswith("nsd_")]
    if unknown:
        raise RecipeError(f"primary: no metric {unknown[0]!r}", expected=f"nsd_2mm or the like, {', '.join(METRICS)}")
    models, left_out = _same_cases([*first, *second])
    models = _defined_in_all(models)
    models_of = models[: len(first)], models[len(first) :]
    differences = list(_differences(models_of, recipe, seed))
    for family in (True, False):  # the primary ones, the others
        places = [n for n, one in enumerate(differences) if (one.whole and one.metric in recipe.primary) == family]
        for place, p in zip(places, holm([differences[n].permutation_p for n in places]), strict=True):
            found = replace(differences[place], holm_p=p)
            differences[place] = replace(found, verdict=_verdict(found, names, recipe.confidence))
    patients = {each.patient for each in models[0]}
    computed = {one.metric for one in differences}
    absent = tuple(name for name in recipe.primary if name not in computed)
    if absent:
        log.warning("primary metrics that were not computed: %s", ", ".join(absent))
    sizes = (len(first), len(second)), len(models[0]), len(patients)
    return Comparison(names, *sizes, left_out, tuple(differences), absent)


def _differences(models: tuple[Model, Model], recipe: EvaluateRecipe, seed: int) -> Iterator[Difference]:
    runs = [*models[0], *models[1]]
    seeds = len(models[0])
    shared = set.intersection(*(set(structures_of(run)) for run in runs))
    for structure in (name for name in structures_of(runs[0]) if name in shared):
        for group, some in group_values(runs[0], recipe):
            chosen = {each.case for each in some}
            patients = sorted({row["patient"] for each in some for row in each.rows if row["structure"] == structure})
            if not patients:
                continue
            sides = [Scored.of([each for each in run if each.case in chosen], structure, patients) for run in runs]
            for entries in zip(*(ratios(side, recipe) for side in sides), strict=True):
                name, size, _ = entries[0]
                if metric(name).better:
                    figures = [ratio for _, _, ratio in entries]
                    yield _difference((structure, name, group, size), figures[:seeds], figures[seeds:], recipe, seed)
            if sides[0].has_lesions:
                yield _auc_difference(structure, group, sides[:seeds], sides[seeds:], recipe, seed)


def _difference(
    key: tuple[str, str, str, str], first: list[Ratio], second: list[Ratio], recipe: EvaluateRecipe, seed: int
) -> Difference:
    there = np.any([ratio.bottom > 0 for ratio in (*first, *second)], axis=0)
    first, second = ([Ratio(ratio.top[there], ratio.bottom[there]) for ratio in side] for side in (first, second))
    gap = _gap(
        [ratio.__call__ for ratio in first], [ratio.__call__ for ratio in second], int(there.sum()), recipe, seed
    )
    merged = [_average(side) for side in (first, second)]
    ones = np.ones((1, int(there.sum())))
    values = [[float(ratio(ones)[0]) for ratio in side] for side in (first, second)]
    return Difference(
        *key, _mean(values[0]), _mean(values[1]), gap, (_spread(values[0]), _spread(values[1])),
        permutation_p(merged[0], merged[1], seed=seed), wilcoxon_p(merged[0], merged[1]),
    )  # fmt: skip


def _auc_difference(
    structure: str, group: str, first: list[Scored], second: list[Scored], recipe: EvaluateRecipe, seed: int
) -> Difference:
    """AUC is no sum over a sum: it has an interval, and no permutation or Wilcoxon test."""
    n = len(first[0].patients)
    sides = [[side.by_patient.auc for side in model] for model in (first, second)]
    values = [[float(auc(np.ones((1, n)))[0]) for auc in side] for side in sides]
    gap = _gap(sides[0], sides[1], n, recipe, seed)
    spread = _spread(values[0]), _spread(values[1])
    return Difference(
        structure, "patient_auc", group, "", _mean(values[0]), _mean(values[1]), gap, spread, np.nan, np.nan
    )


def _gap(first: list[Any], second: list[Any], n: int, recipe: EvaluateRecipe, seed: int) -> Interval:
    """The second model less the first; training seeds are drawn anew as patients are."""

    def statistic(patients: Array, *seeds: Array) -> Array:
        ours, theirs = (
            sum(figure(patients) * part[:, place] for place, figure in enumerate(model)) / part.sum(axis=1)
            for model, part in zip((first, second), seeds, strict=True)
        )
        return np.asarray(theirs - ours)

    return bootstrap(statistic, (n, len(first), len(second)), recipe.resamples, seed, recipe.confidence)


def _verdict(difference: Difference, names: tuple[str, str], confidence: float) -> str:
    """Who is better, in words; an AUC has its interval alone."""
    tested = np.isnan(difference.permutation_p) or difference.holm_p < 1 - confidence
    same_for_all = difference.gap.note == ALIKE and difference.gap.value != 0  # no interval, but a test
    if difference.gap.spans_zero and not same_for_all:
        return NOTHING
    if not tested:
        return f"{NOTHING} after correction"
    second_better = (difference.gap.value > 0) == (metric(difference.metric).better == "high")
    return f"{names[int(second_better)]} better"


def _same_cases(runs: Sequence[Sequence[CaseScores]]) -> tuple[list[list[CaseScores]], tuple[str, ...]]:
    tables = [{each.case: each for each in run} for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    if not shared:
        raise CaseError("the runs have no case in common", fix="compare runs over the same truth")
    left_out = tuple(sorted(set().union(*tables) - set(shared)))
    structures = set.intersection(*(set(structures_of(run)) for run in runs))
    for case in shared:
        if len({_truth(table[case], structures) for table in tables}) > 1:
            raise CaseError(
                "the runs scored another truth, patient or structures", case=case, fix="evaluate all in the same way"
            )
    return [[table[case] for case in shared] for table in tables], left_out


def _defined_in_all(runs: list[list[CaseScores]]) -> list[list[CaseScores]]:
    """The same cases with a value undefined in all runs if it is in one: a missed tumor has no HD95 to be better in."""
    undefined = {
        (row["case"], row["structure"], name)
        for run in runs
        for each in run
        for row in each.rows
        for name, value in row.items()
        if value is None
    }

    def blanked(row: Row) -> Row:
        key = row["case"], row["structure"]
        return {name: None if (*key, name) in undefined else value for name, value in row.items()}

    return [[replace(each, rows=tuple(map(blanked, each.rows))) for each in run] for run in runs]


def _truth(scores: CaseScores, structures: set[str]) -> tuple[Any, ...]:
    volumes = {(row["structure"], round(row["truth_ml"], 6)) for row in scores.rows if row["structure"] in structures}
    return scores.patient, tuple(sorted(volumes))


def _average(seeds: Sequence[Ratio]) -> Ratio:
    """One model of several training seeds, patient by patient."""
    return Ratio(np.mean([one.top for one in seeds], axis=0), np.mean([one.bottom for one in seeds], axis=0))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
