"""Which cases a training reads, and which of them it is validated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import SplitRecipe, draw_splits, read_splits
from synthoma.errors import CaseError, RecipeError
from synthoma.reading import open_dataset

if TYPE_CHECKING:
    from synthoma.segmentation.recipe import TrainRecipe


def open_all(folders: Sequence[Path | str]) -> Dataset:
    """The cases of several data sets as one; `CaseError` if two share an id."""
    found = [open_dataset(folder) for folder in folders]
    cases = [case for dataset in found for case in dataset.cases]
    names = [case.id for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CaseError("cases of two data sets share an id", found=", ".join(twice[:5]), fix="rename one's")
    faults = tuple(fault for dataset in found for fault in dataset.faults)
    roots = " ".join(str(dataset.root) for dataset in found)
    return Dataset(Path(roots), found[0].layout, " ".join(d.name for d in found), tuple(cases), faults)


def sides(
    cases: Sequence[Case], recipe: TrainRecipe, splits: Path | None, fold: int, seed: int
) -> tuple[list[Case], list[Case]]:
    """Who trains and who validates: as the splits say, or drawn by patient."""
    by_id = {case.id: case for case in cases}
    if splits is None:
        if not recipe.validation:
            return list(cases), []
        patients = {case.patient for case in cases}
        if len(patients) < 2:
            raise CaseError(
                "one patient only, so none to validate on",
                found=f"{len(cases)} cases",
                fix="--set validation=0 trains without validation",
            )
        drawn = draw_splits(cases, SplitRecipe(folds=1, val=recipe.validation), seed)
        chosen = drawn.folds[0]
    else:
        folds = read_splits(splits).folds
        if not 0 <= fold < len(folds):
            raise RecipeError(f"no fold {fold} in {splits}", expected=f"0 to {len(folds) - 1}")
        chosen = folds[fold]
    return [by_id[name] for name in chosen.train if name in by_id], [
        by_id[name] for name in chosen.val if name in by_id
    ]
