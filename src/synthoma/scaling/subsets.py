"""Who is trained on and who is tested on: nested subsets of annotated patients, and tests that nobody learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthoma.cases import Case, find_lesions
from synthoma.datasets.catalog import read_catalog
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import Fold, Splits, draw_splits, read_splits
from synthoma.errors import CaseError, RecipeError
from synthoma.scaling.recipe import StudyRecipe
from synthoma.seeds import seed_for
from synthoma.training.data import CATALOG, refuse_leaks

SPLITS = "splits.json"


@dataclass(frozen=True)
class Sides:
    """The cases of a study by id. annotated: with tumors, to be drawn from; healthy: without; tests: by name."""

    annotated: tuple[str, ...]
    healthy: tuple[str, ...]
    tests: Mapping[str, tuple[str, ...]]
    patients: Mapping[str, str]
    splits: str

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return vars(self) | {"tests": {name: list(ids) for name, ids in self.tests.items()}}

    def subset(self, count: int, seed: int) -> tuple[str, ...]:
        """The first `count` annotated cases of this seed's order: those of a smaller count are among them.

        Patients are ordered by lot, and a patient's cases follow each other. The order depends on the seed and on
        names alone.
        """
        order = sorted(
            self.annotated, key=lambda case: (seed_for(seed, "subset", self.patients[case]), self.patients[case], case)
        )
        return tuple(order[:count])

    def hosts(self, most: int | None) -> tuple[str, ...]:
        """The cases without tumors that take part, the same in every point."""
        order = sorted(self.healthy, key=lambda case: (seed_for(0, "healthy", self.patients[case]), case))
        return tuple(sorted(order[:most]))


def find_sides(dataset: Dataset, recipe: StudyRecipe, splits: Path | None = None) -> Sides:
    """The sides of a study.

    splits: a file of `datasets.splits`; else the data set's own `splits.json`; else drawn as the recipe says. Nothing
    is validated on, so training draws from all cases that are not tested on. Raises `CaseError` if there are fewer
    annotated cases than the grid asks for, nothing to test on, or a patient (or one scan, by the data set's catalog)
    on both sides.
    """
    path = splits or (dataset.root / SPLITS if (dataset.root / SPLITS).is_file() else None)
    drawn = read_splits(path) if path else draw_splits(dataset.cases, recipe.splits, recipe.seed)
    tests = _tests(dataset, recipe, drawn)
    tested = {case for ids in tests.values() for case in ids} | set(drawn.test) | set(drawn.ood)
    known = {case for fold in drawn.folds for case in (*fold.train, *fold.val)} - tested
    pool = [case for case in dataset.cases if case.id in known]
    patients = {case.id: case.patient for case in dataset.cases}
    refuse_leaks(Splits((Fold(tuple(case.id for case in pool), ()),), tuple(sorted(tested))), dataset)
    sick = with_tumors(dataset, [case for case in dataset.cases if case.id in known | tested], recipe.lesion)
    for name, ids in tests.items():
        if not sick & set(ids):
            raise CaseError(f"no case of {name} has an annotated {recipe.lesion}", fix="name other tests")
    annotated = tuple(sorted(case.id for case in pool if case.id in sick))
    if len(annotated) < recipe.counts[-1]:
        raise CaseError(
            f"too few annotated cases: {len(annotated)} of {len(pool)} to train on have a {recipe.lesion}",
            found=len(annotated),
            expected=f"{recipe.counts[-1]}, the largest of counts",
            fix="lower counts, or test on fewer",
        )
    healthy = tuple(sorted(case.id for case in pool if case.id not in sick))
    return Sides(annotated, healthy, tests, patients, drawn.digest())


def with_tumors(dataset: Dataset, cases: Sequence[Case], lesion: str) -> set[str]:
    """The ids of cases that have the tumor: by the data set's catalog if there is one, else by their masks."""
    path = dataset.root / CATALOG
    if path.is_file():
        rows = {row["id"]: row for row in read_catalog(path).rows()}
        if all(case.id in rows for case in cases):
            return {
                case.id for case in cases if rows[case.id]["structures"].get(lesion, {}).get("status", "") == "present"
            }
    return {case.id for case in cases if lesion in case.masks and case.read_mask(lesion).data.any()}


def choose_examples(cases: Iterable[Case], lesion: str, most: int) -> list[tuple[Case, tuple[float, float, float]]]:
    """Cases to show, with the center (mm) of their largest tumor: from small to large, spread evenly."""
    found = []
    for case in cases:
        lesions = find_lesions(case.read_mask(lesion), "", case.id)
        if lesions:
            found.append((lesions[0].equivalent_diameter_mm, case.id, case, lesions[0].center_mm))
    found.sort(key=lambda entry: entry[:2])
    places = sorted({int((place + 0.5) * len(found) / most) for place in range(most)}) if found else []
    return [found[place][2:] for place in places]


def _tests(dataset: Dataset, recipe: StudyRecipe, splits: Splits) -> dict[str, tuple[str, ...]]:
    sides = {"test": splits.test, "ood": splits.ood}
    there = {name: tuple(case for case in ids if case in dataset) for name, ids in sides.items()}
    there = {name: ids for name, ids in there.items() if ids}
    asked = tuple(recipe.tests) or tuple(there)
    for name in asked:
        if name not in sides:
            raise RecipeError(f"no side {name!r} to test on", expected=" or ".join(sides))
        if name not in there:
            raise CaseError(f"the splits have no case in {name}", fix="draw splits with one, or name other tests")
    if not asked:
        raise CaseError("the splits hold nothing back to test on", fix="draw them with a share for test")
    return {name: there[name] for name in asked}
