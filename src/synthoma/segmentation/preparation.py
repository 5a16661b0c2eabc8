"""What a training learns from: prepared cases, and whether they can teach what is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.cache import build_cache
from synthoma.learning.entry import Entry
from synthoma.learning.loop import Team
from synthoma.learning.models import Model
from synthoma.learning.patches import Augment
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.segmentation.validation import Score

EVERY_CASE = "*"


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a training reads.

    cases: learned from. cache: folder where prepared cases are kept, for any number of runs. validation: cases that
    are scored while it trains. augment: puts synthetic tumors into patches. score: figures of a validation case; its
    `lesion_dsc`, or what else comes first, is the score of the model. start: what training starts from instead of
    random weights; its network and classes must be the recipe's.
    """

    cases: Sequence[Case]
    cache: Path
    validation: Sequence[Case] = ()
    augment: Augment | None = None
    score: Score | None = None
    start: Model | None = None


def prepare(recipe: TrainRecipe, data: TrainingData, workers: int, team: Team) -> tuple[list[Entry], list[Entry]]:
    """The cases to learn from and those to validate on, as patches are cut from them.

    Raises `CaseError` or `RecipeError` if they cannot teach what the recipe asks for.
    """
    entries = _cached(data.cases, recipe, data.cache, data.augment, workers, team)
    held = _cached(data.validation, recipe, data.cache, None, workers, team)
    _require_something_to_learn(recipe, entries, data.augment)
    return entries, held


def _cached(
    cases: Sequence[Case], recipe: TrainRecipe, cache: Path, augment: Augment | None, workers: int, team: Team
) -> list[Entry]:
    """The cases as patches are cut from them; the first process makes what is missing, the others find it."""
    known = [_with_health(case, recipe.healthy) for case in cases]

    def build() -> list[Entry]:
        return build_cache(known, cache, recipe.patches.spacing_mm, augment, workers=workers) if known else []

    if team.is_rank_0:
        entries = build()
        team.wait()
        return entries
    team.wait()
    return build()


def _with_health(case: Case, healthy: Iterable[str]) -> Case:
    if {case.id, case.dataset, EVERY_CASE}.isdisjoint(healthy):
        return case
    return replace(case, attributes={**case.attributes, "healthy": True})


def _require_something_to_learn(recipe: TrainRecipe, entries: Sequence[Entry], augment: Augment | None) -> None:
    if not entries:
        raise CaseError("no case to train on", fix="look at the splits and at --data")
    for name in recipe.classes:
        if not any(entry.annotates(name) for entry in entries):
            organ = not anatomy.is_lesion(name)
            raise RecipeError(
                f"no case of {len(entries)} says where the {name} is",
                found=f"masks of {', '.join(sorted({each for entry in entries for each in entry.annotated}))}",
                fix="leave the organ out of organs"
                if organ
                else "name data sets without tumors in healthy, or leave the organ out",
            )
    if augment is None and not any(entry.lesions for entry in entries):
        raise CaseError(
            "no tumor to learn from",
            found=f"{len(entries)} cases without one, and no synthesis",
            fix="give the recipe a [synthesis] table, or cases with tumors",
        )


def described(entries: Sequence[Entry], held: Sequence[Entry]) -> dict[str, Any]:
    """The data in a model's record."""
    return {
        "training": [entry.case for entry in entries],
        "validation": [entry.case for entry in held],
        "patients": len({entry.patient for entry in entries}),
        "real_tumors": sum(len(entry.lesions) for entry in entries),
    }
