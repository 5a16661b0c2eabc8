"""What training needs from rooms it may not enter: synthetic tumors, and the scores of a validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma.anatomy import is_lesion
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import SplitRecipe, draw_splits, read_splits
from synthoma.errors import CaseError, RecipeError
from synthoma.evaluation.scoring import EvaluateRecipe, score_case
from synthoma.reading import open_dataset
from synthoma.synthesis.online.online import complete_table, from_table
from synthoma.volume import Volume

if TYPE_CHECKING:
    from synthoma.learning.patches import Augment
    from synthoma.segmentation.train import TrainRecipe

_QUICK = EvaluateRecipe(distances=False, tolerances_mm=(2.0,))


def open_all(folders: Sequence[Path]) -> Dataset:
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


def with_synthesis(recipe: TrainRecipe, source: Path | str) -> TrainRecipe:
    """The recipe with its table of synthesis checked and complete."""
    if recipe.synthesis is None:
        return recipe
    return recipe.with_changes(synthesis=complete_table(recipe.synthesis, recipe.organs, f"{source}: synthesis"))


def make_augment(recipe: TrainRecipe, seed: int) -> Augment | None:
    """What puts synthetic tumors into patches: new ones in every epoch, or those of a manifest; None for none."""
    augment: Any = from_table(recipe.synthesis, seed)  # it renders what it drew, which a protocol cannot say
    chosen: Augment | None = augment
    return chosen


def score_validation(case: str, truth: Mapping[str, Volume], predicted: Mapping[str, Volume]) -> dict[str, float]:
    """DSC of tumors, all organs together, the share of them found and the number of false ones; DSC of every class.

    As `evaluate` counts them; nan for what is undefined.
    """
    scores = score_case(Case(case, Path(), truth), Case(case, Path(), predicted), _QUICK)
    tumors = [row for row in scores.rows if is_lesion(row["structure"])]
    dsc = [row["dsc"] for row in tumors if row["dsc"] is not None]
    there = sum(row["lesions"] for row in tumors)
    return {
        "lesion_dsc": sum(dsc) / len(dsc) if dsc else math.nan,
        "lesion_sensitivity": sum(row["found"] for row in tumors) / there if there else math.nan,
        "false_per_scan": float(sum(row["false"] for row in tumors)),
        **{f"{row['structure']}_dsc": math.nan if row["dsc"] is None else row["dsc"] for row in scores.rows},
    }
