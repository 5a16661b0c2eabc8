"""Which prediction belongs to which true case, whatever folder either lies in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from synthoma import anatomy
from synthoma.cases import Case, Source
from synthoma.datasets.catalog import Catalog, read_catalog
from synthoma.datasets.duplicates import find_duplicates
from synthoma.datasets.labels import PresentLabels, Values, label_sources, with_tumors
from synthoma.datasets.layouts.listing import Listing, case_id, list_folder
from synthoma.datasets.layouts.opening import Dataset, detect, open_dataset
from synthoma.datasets.layouts.predictions import case_of_prediction, is_flat
from synthoma.errors import CaseError, SynthomaError
from synthoma.evaluation.masks import ScoredMask, SingleMask
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe, score_case
from synthoma.evaluation.told import EXAMPLE, masks_as_in, told_values
from synthoma.inputs import Reads

SCORES = "scores"  # beside `segmentations`: maps whose voxels of at least 0.5 are the mask


@dataclass(frozen=True, eq=False)
class Pair:
    """A true case and its prediction; None if there is none."""

    truth: Case
    predicted: Case | None

    @property
    def id(self) -> str:
        """The case's."""
        return self.truth.id

    def reads(self) -> Reads:
        """What the scores are made from: both cases."""
        return self.truth.reads() + (self.predicted.reads() if self.predicted else Reads())


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is to be scored. structures: asked of every case. missing: cases without a prediction, extra: predictions
    without a case, both by id; faults: cases and predictions that cannot be read."""

    pairs: tuple[Pair, ...]
    structures: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    faults: tuple[SynthomaError, ...]


def pair_cases(truth: Dataset, predictions: Path | str, recipe: EvaluateRecipe) -> Pairs:
    """Every case of `truth` with the prediction of the same id.

    predictions: a folder in any layout of `datasets.layouts`, of `CASE/segmentations/STRUCTURE.nii.gz` without scans
    (with `CASE/scores/STRUCTURE.nii.gz`, which are read in place of masks that nobody changed), or of one label map a
    case (`CASE.nii.gz`), whose values the recipe's `labels` tell, else `dataset.json` beside them, else those of the
    truth.
    Raises `CaseError` naming the cases without a prediction if the recipe refuses them, for structures that nobody
    predicted, and for one patient under two names in the recipe's catalog.
    """
    if not any(case.masks for case in truth):
        fix = "the truth is named first, then the predictions"
        fix = f"name the values of its label maps, as {EXAMPLE}" if truth.layout == "images" else fix
        raise CaseError(f"{truth.root} holds no true mask", found=f"{len(truth)} scans alone", fix=fix)
    found, faults = _open_predictions(Path(predictions), truth, recipe.labels)
    cases = list(_with_catalog(truth, recipe))
    ids = {case.id for case in cases}
    missing = [case.id for case in cases if case.id not in found]
    extra = [name for name in found if name not in ids]
    if len(missing) == len(cases):
        raise CaseError(
            f"no prediction in {predictions} has the id of a case",
            found=_first(extra), expected=_first(missing), fix="name predictions as their cases",
        )  # fmt: skip
    if missing and recipe.missing == "refuse":
        raise CaseError(
            f"{len(missing)} of {len(cases)} cases have no prediction",
            found=_first(missing),
            fix="predict them, or say --set missing=empty (counts as nothing found) or missing=leave_out",
        )
    kept = [case for case in cases if case.id in found or recipe.missing == "empty"]
    pairs = tuple(Pair(_with_wholes(case, found.get(case.id)), found.get(case.id)) for case in kept)
    structures = recipe.structures or _common(pairs)
    if not structures:
        raise CaseError("truth and predictions have no structure in common", expected=", ".join(kept[0].masks))
    _refuse_several_values(pairs)
    _refuse_unknown("structure", recipe.structures, (pair.truth.masks for pair in pairs))
    _refuse_unknown("group", recipe.groups, ({"dataset": "", **case.attributes} for case in kept))
    return Pairs(pairs, structures, tuple(missing), tuple(extra), (*truth.faults, *faults))


def score_pair(pair: Pair, structures: tuple[str, ...], recipe: EvaluateRecipe) -> dict[str, Any]:
    """`score_case` of a pair, with the recipe's groups among its attributes, as JSON data."""
    predicted = pair.predicted
    asked = recipe.with_changes(structures=structures)
    scores = score_case(pair.truth, predicted, asked)
    groups = {name: _text(scores.attributes.get(name)) for name in recipe.groups}
    return CaseScores(scores.case, scores.patient, scores.rows, scores.lesions, scores.notes, groups).as_dict()


def _refuse_unknown(what: str, names: Iterable[str], places: Iterable[Mapping[str, Any]]) -> None:
    """A name that no case has is a slip of the pen."""
    seen = list(places)
    for name in names:
        if not any(name in place for place in seen):
            known = ", ".join(sorted({entry for place in seen for entry in place}))
            raise CaseError(f"no case has the {what} {name}", expected=f"one of {known}")


def open_predictions(root: Path, truth: Dataset) -> Dataset:
    """Predictions of a data set's cases in any form that `pair_cases` takes; masks without scans are enough."""
    found, faults = _open_predictions(root, truth, {})
    return Dataset(root, "predictions", root.name, tuple(found.values()), faults)


def _open_predictions(root: Path, truth: Dataset, labels: Values) -> tuple[dict[str, Case], tuple[SynthomaError, ...]]:
    listing = list_folder(root) if root.is_dir() else None
    if listing is not None and is_flat(listing) and _holds_label_maps(root):
        return _each_once(_label_maps(listing, truth, labels)), ()
    if listing is not None and any((root / name / "segmentations").is_dir() for name in listing.folders):
        return _each_once(_mask_folders(listing)), ()
    dataset = open_dataset(root)
    return {case.id: replace(case, masks=_complete(case.masks)) for case in dataset}, dataset.faults


def _each_once(predictions: Iterable[tuple[str, Case]]) -> dict[str, Case]:
    found: dict[str, Case] = {}
    for name, case in predictions:
        if name in found:
            both = f"{found[name].image} and {case.image}"
            raise CaseError("two predictions of one id", case=name, found=both, fix="remove one")
        found[name] = case
    return found


def _holds_label_maps(root: Path) -> bool:
    return root.name in ("labelsTr", "labelsTs") or detect(root) in ("images", "nnunet", "msd", "lits")


def _label_maps(listing: Listing, truth: Dataset, labels: Values) -> Iterator[tuple[str, Case]]:
    """`CASE.nii.gz`, one label map a case, as nnU-Net predicts; or named as LiTS and KiTS ask."""
    named = with_tumors(labels) if labels else told_values(listing, truth.name)
    for file, stem in listing.images().items():
        path, name = listing.path / file, case_of_prediction(stem, truth)
        if named is not None:
            masks: Mapping[str, Source] = label_sources(path, named)
        elif name in truth:
            masks = masks_as_in(truth[name], path)
        else:
            masks = {}
        yield name, Case(name, path, masks)


def _refuse_several_values(pairs: Iterable[Pair]) -> None:
    """Looks at all maps that may stand for one mask: if one holds several values, the others are none either."""
    for pair in pairs:
        masks = () if pair.predicted is None else pair.predicted.masks.values()
        for source in masks:
            if isinstance(source, SingleMask):
                source.read()


def _mask_folders(listing: Listing) -> Iterator[tuple[str, Case]]:
    for name in listing.folders:
        folder = list_folder(listing.path / name).within("segmentations")
        masks: dict[str, Source] = {}
        for file, stem in folder.images().items():
            structure = anatomy.canonical_name(stem)
            if structure in masks:
                both = f"{masks[structure]} and {file}"
                raise CaseError(f"two predictions of {structure}", case=case_id(name), found=both, fix="remove one")
            masks[structure] = folder.path / file
        scores = list_folder(listing.path / name).within(SCORES)
        for file, stem in scores.images().items():
            mask = masks.get(stem)
            if isinstance(mask, Path):
                masks[stem] = ScoredMask(mask, scores.path / file)
        if masks:
            yield case_id(name), Case(case_id(name), folder.path, masks)


def _complete(masks: Mapping[str, Source]) -> Mapping[str, Source]:
    """A predicted label map speaks of all its classes: one without voxels was looked for and not found."""
    return label_sources(masks.path, with_tumors(masks.classes)) if isinstance(masks, PresentLabels) else masks


def _with_wholes(truth: Case, predicted: Case | None) -> Case:
    """The true case, and organs that were predicted as a whole and annotated in parts: both kidneys are `kidney`."""
    asked = () if predicted is None else predicted.masks.keys() & anatomy.ORGANS.keys()
    wholes = {
        name: partial(truth.read_organ, name)
        for name in sorted(asked)
        if name not in truth.masks and all(part in truth.masks for part in anatomy.organ(name).parts)
    }
    return replace(truth, masks={**truth.masks, **wholes}) if wholes else truth


def _common(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Structures that both sides have in some case, in the order met."""
    names: dict[str, None] = {}
    for pair in pairs:
        if pair.predicted is not None:
            shared = (name for name in pair.truth.masks if name in pair.predicted.masks)
            names |= dict.fromkeys(name for name in shared if name != anatomy.IGNORE)
    return tuple(names)


def _with_catalog(truth: Dataset, recipe: EvaluateRecipe) -> Iterator[Case]:
    """The cases with patients and groups as the recipe's catalog has them."""
    if not recipe.catalog:
        yield from truth
        return
    catalog = read_catalog(recipe.catalog)
    rows = {row["id"]: row for row in catalog.rows()}
    _refuse_twins(catalog, {name: row["patient"] for name, row in rows.items()}, {case.id for case in truth})
    flat = {row["id"]: row for row in catalog.table(_columns(catalog, recipe)).to_pylist()}
    for case in truth:
        row = rows.get(case.id)
        if row is None:
            raise CaseError("not in the catalog", case=case.id, found=recipe.catalog, fix="run validate again")
        yield replace(
            case, patient=row["patient"], attributes={**row["attributes"], **case.attributes, **flat[case.id]}
        )


def _columns(catalog: Catalog, recipe: EvaluateRecipe) -> list[str]:
    known = catalog.table(where=None).column_names
    return ["id", *(name for name in recipe.groups if name in known and name != "id")]


def _refuse_twins(catalog: Catalog, patients: Mapping[str, str], asked: set[str]) -> None:
    names, pictures = catalog.fingerprints()
    kept = [(name, picture) for name, picture in zip(names, pictures, strict=True) if name in asked]
    for twin in find_duplicates([name for name, _ in kept], [picture for _, picture in kept]):
        if patients[twin.first] != patients[twin.second]:
            raise CaseError(
                "one scan under two patients",
                case=twin.first,
                found=f"{patients[twin.first]} and {patients[twin.second]} ({twin.second})",
                fix="leave one out, or name one patient in case.json",
            )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _first(names: Iterable[str], limit: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more if listed else "none"
