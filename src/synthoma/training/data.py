"""Which cases a training reads, and which of them it is validated on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma.cases import Case
from synthoma.datasets.catalog import read_catalog
from synthoma.datasets.layouts.opening import Dataset
from synthoma.datasets.splits import Fold, SplitRecipe, Splits, check_leaks, draw_splits, read_splits
from synthoma.errors import CaseError, RecipeError, listed
from synthoma.learning.sampling import NO_HOST
from synthoma.reading import is_synthesis, open_dataset
from synthoma.synthesis.store.manifest import read_manifest

if TYPE_CHECKING:
    from synthoma.segmentation.recipe import TrainRecipe

CATALOG = "catalog.parquet"


def open_all(folders: Sequence[Path | str], allow_modules: Sequence[str] = ()) -> Dataset:
    """The cases of several data sets as one; `CaseError` if two share an id.

    allow_modules: generators of the form `module:Class` that the manifest of one may name.
    """
    found = [open_dataset(folder, allow_modules=allow_modules) for folder in folders]
    cases = [case for dataset in found for case in dataset.cases]
    names = [case.id for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CaseError("cases of two data sets share an id", found=", ".join(twice[:5]), fix="rename one's")
    faults = tuple(fault for dataset in found for fault in dataset.faults)
    roots = " ".join(str(dataset.root) for dataset in found)
    return Dataset(Path(roots), found[0].layout, " ".join(d.name for d in found), tuple(cases), faults)


def sides(
    dataset: Dataset, recipe: TrainRecipe, splits: Path | None, fold: int, seed: int
) -> tuple[list[Case], list[Case], dict[str, str]]:
    """Who trains and who validates, as the splits say or drawn by patient; and which cases failed, with the reason.

    Cases failed that could not be opened, and those that the splits name and the data set has not. Raises
    `RecipeError` for a fold that is not there, and `CaseError` if there is nobody to validate on, or a patient is on
    both sides.
    """
    failed = {fault.case or f"({number})": str(fault) for number, fault in enumerate(dataset.faults, 1)}
    cases = dataset.cases
    if splits is None:
        if not recipe.validation:
            return list(cases), [], failed
        patients = {case.patient for case in cases}
        if len(patients) < 2:
            raise CaseError(
                "one patient only, so none to validate on",
                found=f"{len(cases)} cases",
                fix="--set validation=0 trains without validation",
            )
        chosen = draw_splits(cases, SplitRecipe(folds=1, val=recipe.validation), seed).folds[0]
    else:
        folds = read_splits(splits).folds
        if not 0 <= fold < len(folds):
            raise RecipeError(f"no fold {fold} in {splits}", expected=f"0 to {len(folds) - 1}")
        chosen = folds[fold]
        refuse_leaks(Splits((chosen,)), dataset)
    by_id = {case.id: case for case in cases}
    named = (*chosen.train, *chosen.val)
    failed |= {name: "the splits name it, but no data set has it" for name in named if name not in {*by_id, *failed}}
    training, validation = ([by_id[name] for name in side if name in by_id] for side in (chosen.train, chosen.val))
    return training, validation, failed


def outside_splits(dataset: Dataset, splits: Path) -> list[Case]:
    """The cases of those of several data sets that the splits know nothing of: they are trained on."""
    known = read_splits(splits)
    named = {name for side in (*known.folds, Fold(known.test, known.ood)) for name in (*side.train, *side.val)}
    split = {case.dataset for case in dataset.cases if case.id in named}
    return [case for case in dataset.cases if case.dataset not in split]


def refuse_synthetic_hosts(folders: Sequence[Path], training: Sequence[Case], recipe: TrainRecipe) -> None:
    """`CaseError` if tumors are to be put into cases that a synthesis has put tumors into already, all of them.

    folders: the data sets that the cases come from. It is known from the manifests, before a voxel is read.
    """
    if recipe.synthesis is None or recipe.patches.hosts == "all" or not all(map(is_synthesis, folders)):
        return
    with_tumors = {tumor.case for folder in folders for tumor in read_manifest(folder).tumors()}
    if training and all(case.id in with_tumors for case in training):
        raise CaseError(
            "no case can host synthetic tumors",
            found=f"{len(training)} cases that a synthesis put tumors into",
            expected="one without tumors",
            fix=NO_HOST,
        )


def refuse_leaks(splits: Splits, dataset: Dataset) -> None:
    """`CaseError` if a patient, or by the data set's catalog one scan, is on two sides of the splits.

    Patients are those of the data set, whatever the splits say.
    """
    members = {case for side in (*splits.folds, Fold(splits.test, splits.ood)) for case in (*side.train, *side.val)}
    patients = {case.id: case.patient for case in dataset.cases if case.id in members}
    for side in splits.folds:
        if both := sorted({*side.train} & {*side.val}):
            raise CaseError("cases are trained and validated on", found=listed(both), fix="draw the splits anew")
    leaks = check_leaks(replace(splits, patients=patients), _copies(dataset, members))
    if leaks:
        leak, (one, other) = leaks[0], leaks[0].sides
        raise CaseError(
            f"{leak.why} is on two sides: {leak.first} ({one}) and {leak.second} ({other})",
            found=f"{len(leaks)} such pairs",
            fix="draw splits by patient, with duplicates told",
        )


def _copies(dataset: Dataset, members: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of cases that hold one scan, as it is: `validate` also finds those that were resampled or turned."""
    path = dataset.root / CATALOG
    if not path.is_file():
        return []
    first: dict[Any, str] = {}
    pairs = []
    for name, picture in zip(*read_catalog(path).fingerprints(), strict=True):
        if name in members and first.setdefault(picture, name) != name:
            pairs.append((first[picture], name))
    return pairs
