"""What a training learns from: prepared cases, and whether they can teach what is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError, RecipeError, listed
from synthoma.learning.cache import build_cache, refuse_failures
from synthoma.learning.entry import Entry, annotates
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
    random weights; its network and classes must be the recipe's. failed: cases that could not be opened, and why;
    allow_failures: how many cases may fail, these included, before nothing is trained.
    """

    cases: Sequence[Case]
    cache: Path
    validation: Sequence[Case] = ()
    augment: Augment | None = None
    score: Score | None = None
    start: Model | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    allow_failures: int = 0


@dataclass(frozen=True, eq=False)
class Prepared:
    """Cases as patches are cut from them. left_out: those that failed, by id."""

    entries: list[Entry]
    held: list[Entry]
    left_out: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The data in a model's record."""
        return {
            "training": [entry.case for entry in self.entries],
            "validation": [entry.case for entry in self.held],
            "patients": len({entry.patient for entry in self.entries}),
            "real_tumors": sum(len(entry.lesions) for entry in self.entries),
            "left_out": list(self.left_out),
        }


def check_request(recipe: TrainRecipe, data: TrainingData) -> None:
    """Refuse what cannot be learned before a case is read or a run folder claimed.

    Raises `FailedCasesError` for too many cases that could not be opened, `CaseError` and `RecipeError` for cases that
    by the names of their masks cannot teach the recipe's classes, or a model to start from that is another one.
    """
    refuse_failures(data.failed, len(data.failed) + len(data.cases) + len(data.validation), data.allow_failures)
    cases = [_with_health(case, recipe.healthy) for case in data.cases]
    known = [(case.masks, case.attributes) for case in cases]
    ill = any(anatomy.is_lesion(name) and name in recipe.classes for case in cases for name in case.masks)
    _require_something_to_learn(recipe, known, ill, data.augment)
    if recipe.segment.inside_organ == "given":
        for case in data.validation:
            for name in recipe.organs:
                if not annotates(case.masks, case.attributes, name):
                    raise CaseError(
                        f"no mask of the {name}, which validation looks for tumors in (segment.inside_organ = 'given')",
                        case=case.id,
                        fix="say --set segment.inside_organ=predicted",
                    )
    begun = data.start.spec if data.start else None
    if begun and (begun.network, begun.classes) != (recipe.network, recipe.classes):
        raise RecipeError(
            "the model to start from is another one",
            found=f"{begun.network.as_dict()} for {', '.join(begun.classes)}",
            expected=f"{recipe.network.as_dict()} for {', '.join(recipe.classes)}",
            fix="give the recipe its network and organs, or start from random weights",
        )


def prepare(recipe: TrainRecipe, data: TrainingData, workers: int, team: Team) -> Prepared:
    """The cases to learn from and those to validate on; the first process caches what is missing.

    Raises `CaseError` or `RecipeError` if they cannot teach what the recipe asks for, `FailedCasesError` if more of
    them fail than may, and `CacheError` if the cache cannot be written.
    """
    check_request(recipe, data)
    if not team.is_rank_0:
        team.wait()
    allowed = data.allow_failures - len(data.failed)
    spacing_mm = recipe.patches.spacing_mm

    def cached(cases: Sequence[Case], augment: Augment | None, allowed: int) -> list[Entry]:
        known = [_with_health(case, recipe.healthy) for case in cases]
        return build_cache(known, data.cache, spacing_mm, augment, workers, None, allowed) if known else []

    entries = cached(data.cases, data.augment, allowed)
    held = cached(data.validation, None, allowed - (len(data.cases) - len(entries)))
    if team.is_rank_0:
        team.wait()
    there = {entry.case for entry in (*entries, *held)}
    gone = [case.id for case in (*data.cases, *data.validation) if case.id not in there]
    known = [(entry.annotated, entry.attributes) for entry in entries]
    _require_something_to_learn(recipe, known, any(entry.lesions for entry in entries), data.augment)
    return Prepared(entries, held, (*data.failed, *gone))


def _with_health(case: Case, healthy: Iterable[str]) -> Case:
    if {case.id, case.dataset, EVERY_CASE}.isdisjoint(healthy):
        return case
    return replace(case, attributes={**case.attributes, "healthy": True})


def _require_something_to_learn(
    recipe: TrainRecipe,
    known: Sequence[tuple[Collection[str], Mapping[str, Any]]],
    ill: bool,
    augment: Augment | None,
) -> None:
    """known: masks and attributes of the cases; ill: whether any has a tumor to learn."""
    if not known:
        raise CaseError("no case to train on", fix="look at the splits and at --data")
    for name in recipe.classes:
        if not any(annotates(masks, attributes, name) for masks, attributes in known):
            organ = not anatomy.is_lesion(name)
            raise RecipeError(
                f"no case of {len(known)} says where the {name} is",
                found=f"masks of {listed(sorted({each for masks, _ in known for each in masks}), 8)}",
                fix="leave the organ out of organs"
                if organ
                else "say which data sets have no tumors: --set healthy=FOLDER_NAME, or healthy=* for all",
            )
    if augment is None and not ill:
        raise CaseError(
            "no tumor to learn from",
            found=f"{len(known)} cases without one, and no synthesis",
            fix="give the recipe a [synthesis] table, or cases with tumors",
        )
