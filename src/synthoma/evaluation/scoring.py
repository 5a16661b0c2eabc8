"""One case scored: every structure's overlap, surfaces and lesions, as rows of plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.datasets.labels import TUMOR_WORDS
from synthoma.errors import CaseError, GeometryError
from synthoma.evaluation.lesion import MatchedLesion, Matching, match_lesions
from synthoma.evaluation.masks import Mask, read_masks
from synthoma.evaluation.regions import Region, grown, in_memory_order, region_above, region_of
from synthoma.evaluation.surface import score_surfaces
from synthoma.evaluation.voxel import score_voxels
from synthoma.recipe import Recipe
from synthoma.tables import Row
from synthoma.volume import Volume


class EvaluateRecipe(Recipe):
    """What is scored, and how whatever is not plain is counted.

    structures: all that both sides know unless named. threshold: from which probability a voxel is predicted;
    curve: the further ones of FROC. rule, least_iou: see `lesion.match_lesions`. within_mm: if given, lesions are
    looked at only this near to their organ's true mask. missing: what a case or structure without a prediction
    counts as. resample: predictions on another grid are brought to the truth's. sizes_mm: borders of the diameter
    bins. groups: attributes of cases, or columns of `catalog`, to be told apart. primary: the metrics that a comparison
    was made for, corrected for their own number only.
    """

    structures: tuple[str, ...] = ()
    tolerances_mm: tuple[float, ...] = Field((1.0, 2.0, 3.0), min_length=1)
    distances: bool = True
    rule: Literal["iou", "overlap", "center"] = "iou"
    least_iou: float = Field(0.1, ge=0, lt=1)
    threshold: float = Field(0.5, gt=0, le=1)
    curve: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
    within_mm: float | None = Field(None, ge=0)
    missing: Literal["refuse", "empty", "leave_out"] = "refuse"
    resample: bool = False
    sizes_mm: tuple[float, ...] = (10.0, 20.0, 50.0)
    groups: tuple[str, ...] = ()
    catalog: str = ""
    primary: tuple[str, ...] = ("dsc", "nsd_2mm", "lesion_sensitivity", "false_per_scan")
    resamples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @field_validator("structures")
    @classmethod
    def _spelled(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(anatomy.canonical_name(name) for name in names)

    @field_validator("tolerances_mm", "sizes_mm", "curve")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)) or any(value <= 0 for value in values):
            raise ValueError("expected different values above 0, ascending")
        return values


@dataclass(frozen=True)
class CaseScores:
    """What became of one case. rows: one per structure; lesions: one per true or predicted lesion; notes: sentences.

    Both are JSON data with None for what is undefined; their columns are in docs/evaluation.md.
    """

    case: str
    patient: str
    rows: tuple[Row, ...] = ()
    lesions: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON data that `from_dict` reads."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CaseScores:
        """The scores that `as_dict` wrote."""
        plain = dict(data)
        return cls(**plain | {name: tuple(plain[name]) for name in ("rows", "lesions", "notes")})


def score_case(truth: Case, predicted: Case | None, recipe: EvaluateRecipe | None = None) -> CaseScores:
    """The scores of every structure that is annotated in `truth`; reads masks only, never a scan.

    predicted: a case whose masks may be probability maps (float32, 0 to 1); None is a case without a prediction,
    which counts as the recipe's `missing` says. Structures that only one side has are told in `notes`. Raises
    `CaseError` and `GeometryError` for what cannot be compared.
    """
    recipe = recipe or EvaluateRecipe()
    with truth.named():
        there = {} if predicted is None else predicted.masks
        asked = recipe.structures or tuple(truth.masks if predicted is None else (n for n in truth.masks if n in there))
        names = [name for name in asked if name in truth.masks]
        notes = [f"{name}: not annotated" for name in asked if name not in truth.masks]
        lacking = [name for name in names if name not in there]
        if lacking and recipe.missing == "refuse":
            raise CaseError(
                f"no prediction of {', '.join(lacking)}",
                fix="predict it, or say --set missing=empty (counts as nothing found) or missing=leave_out",
            )
        notes += [f"{name}: no prediction, {_COUNTED[recipe.missing]}" for name in lacking]
        if recipe.missing == "leave_out":
            names = [name for name in names if name not in lacking]
        both = [name for name in names if name in there]
        theirs = read_masks(predicted, both, strict=True) if predicted else iter(())
        pairs = ((name, mask, next(theirs)[1] if name in there else None) for name, mask in read_masks(truth, names))
        rows, lesions = _scored(pairs, truth, recipe)
    facts = {"dataset": truth.dataset, **truth.attributes}
    return CaseScores(truth.id, truth.patient, tuple(rows), tuple(lesions), tuple(notes), facts)


def score_labels(
    truth: Volume,
    predicted: Volume,
    values: Mapping[str, tuple[int, ...] | None],
    recipe: EvaluateRecipe | None = None,
    case: str = "",
) -> CaseScores:
    """The scores of two label maps, or masks, in memory; `predicted` may hold the probabilities of one structure.

    values: structure -> its labels in both maps, None for whatever is not 0. Names that end in `_lesion` are matched
    lesion by lesion as well.
    """
    pairs = ((name, Mask(truth, labels), Mask(predicted, labels)) for name, labels in values.items())
    known = Case(case, truth, {name: truth for name, labels in values.items() if labels is None})
    with known.named():
        rows, lesions = _scored(pairs, known, recipe or EvaluateRecipe())
    return CaseScores(case, case, tuple(rows), tuple(lesions))


def _scored(
    pairs: Iterable[tuple[str, Mask, Mask | None]], truth: Case, recipe: EvaluateRecipe
) -> tuple[list[Row], list[Row]]:
    own = {"case": truth.id, "patient": truth.patient}
    rows, lesions = [], []
    for name, mask, predicted in pairs:
        pair = _Pair.of(name, mask, predicted, recipe)
        if recipe.within_mm is not None and _has_lesions(name):
            pair = pair.near(_organ(truth, name, pair), recipe.within_mm)
        row, found = pair.scores(recipe)
        rows.append(own | row)
        lesions += [own | entry for entry in found]
    return rows, lesions


_COUNTED = {"empty": "counted as nothing found", "leave_out": "left out"}


@dataclass(frozen=True, eq=False)
class _Pair:
    """The true and the predicted mask of one structure, on one grid with axes in one order.

    candidates: of probabilities, what is above the lowest threshold of the curve.
    """

    structure: str
    truth: Region
    predicted: Region
    probability: Volume | None = None
    candidates: Region | None = None
    allowed: Region | None = None

    @classmethod
    def of(cls, structure: str, truth: Mask, predicted: Mask | None, recipe: EvaluateRecipe) -> _Pair:
        if truth.is_probability:
            raise CaseError(f"the truth of {structure} is no mask", found="fractions", expected="whole numbers")
        axes = in_memory_order(truth.volume)
        ours = region_of(truth.volume.reorient(axes), truth.values)
        if predicted is None:
            return cls(structure, ours, Region(ours.geometry, ()))
        volume = _on_grid(predicted.volume, truth.volume, structure, recipe).reorient(axes)
        if predicted.is_probability:
            candidates = region_above(volume, min((recipe.threshold, *recipe.curve)))
            return cls(structure, ours, candidates.above(volume, recipe.threshold), volume, candidates)
        return cls(structure, ours, region_of(volume, predicted.values))

    def near(self, organ: Region, within_mm: float) -> _Pair:
        """The pair within a distance of the organ."""
        allowed = grown(organ, within_mm)
        kept = {name: getattr(self, name) for name in ("truth", "predicted", "candidates")}
        regions = {name: region and region.within(allowed) for name, region in kept.items()}
        return replace(self, **regions, allowed=allowed)

    def scores(self, recipe: EvaluateRecipe) -> tuple[Row, list[Row]]:
        voxels = score_voxels(self.truth, self.predicted)
        surfaces = score_surfaces(self.truth, self.predicted, recipe.tolerances_mm, recipe.distances)
        row: Row = {"structure": self.structure, "outcome": _OUTCOMES[bool(voxels.truth_ml), bool(voxels.predicted_ml)]}
        row |= {"truth_ml": voxels.truth_ml, "predicted_ml": voxels.predicted_ml, "error_ml": voxels.error_ml}
        row |= {"dsc": voxels.dsc, "iou": voxels.iou}
        row |= {nsd_name(tolerance): value for tolerance, value in surfaces.nsd.items()}
        row |= {"hd95_mm": surfaces.hd95_mm, "assd_mm": surfaces.assd_mm}
        lesions: list[Row] = []
        if _has_lesions(self.structure):
            matching = self._match(self.predicted, recipe)
            row |= {fate: matching.count(fate) for fate in _FATES}
            row |= {"lesions": len(matching.truth), "predicted_lesions": len(matching.predicted)}
            row |= {"score": self._strongest(matching), "curve": self._curve(matching, recipe)}
            lesions = [self._lesion_row("truth", entry) for entry in matching.truth]
            lesions += [self._lesion_row("predicted", entry) for entry in matching.predicted]
        return _plain(row), [_plain(entry) for entry in lesions]

    def _match(self, predicted: Region, recipe: EvaluateRecipe) -> Matching:
        organ = self.structure.removesuffix("_lesion")
        return match_lesions(self.truth, predicted, organ, recipe.rule, recipe.least_iou)

    def _curve(self, matching: Matching, recipe: EvaluateRecipe) -> list[list[float]]:
        """Threshold, lesions found and false ones, for every threshold; masks have one."""
        points = {recipe.threshold: matching}
        if self.probability is not None and self.candidates is not None:
            for threshold in recipe.curve:
                region = self.candidates.above(self.probability, threshold)
                points.setdefault(threshold, self._match(region, recipe))
        return [[threshold, found.count("found"), found.count("false")] for threshold, found in sorted(points.items())]

    def _strongest(self, matching: Matching) -> float:
        """The highest probability; of a mask, the volume of its largest lesion in ml."""
        if self.probability is None:
            return max((entry.lesion.volume_ml for entry in matching.predicted), default=0.0)
        if self.allowed is None:
            return float(self.probability.data.max(initial=0))
        parts = (self.probability.data[block.box.slices][block.mask].max() for block in self.allowed.blocks)
        return float(max(parts, default=0.0))

    def _lesion_row(self, side: str, entry: MatchedLesion) -> Row:
        lesion = entry.lesion
        score = lesion.volume_ml
        if self.probability is not None and side == "predicted":
            part = self.probability.data[lesion.box.slices]
            score = float(part[self.predicted.read(lesion.box)].max())
        return {
            "structure": self.structure, "side": side, "index": lesion.index, "fate": entry.fate,
            "partner": entry.partner, "equivalent_diameter_mm": lesion.equivalent_diameter_mm,
            "volume_ml": lesion.volume_ml, "center_mm": list(lesion.center_mm), "iou": entry.iou, "dsc": entry.dsc,
            "score": score if side == "predicted" else None,
        }  # fmt: skip


# truth has it, prediction has it
_OUTCOMES = {
    (True, True): "true positive",
    (True, False): "false negative",
    (False, True): "false positive",
    (False, False): "true negative",
}
_FATES = ("found", "merged", "missed", "split", "false")


def nsd_name(tolerance_mm: float) -> str:
    """The column of an NSD: `nsd_2mm`."""
    return f"nsd_{tolerance_mm:g}mm"


def _has_lesions(structure: str) -> bool:
    return anatomy.is_lesion(structure) or structure in TUMOR_WORDS


def _organ(truth: Case, structure: str, pair: _Pair) -> Region:
    organ = truth.read_organ(structure.removesuffix("_lesion"))
    return region_of(organ.reorient(pair.truth.geometry.axes))


def _on_grid(volume: Volume, truth: Volume, structure: str, recipe: EvaluateRecipe) -> Volume:
    if truth.geometry.matches(volume.geometry):
        return Volume(volume.data, truth.geometry)
    if recipe.resample:
        return volume.to(truth.geometry, fill=0)
    raise GeometryError(
        f"the predicted {structure} lies on another grid",
        found=str(volume.geometry),
        expected=str(truth.geometry),
        fix="write predictions on the scan's grid, or say --set resample=true",
    )


def _plain(row: Row) -> Row:
    """JSON data: None for nan."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else _unboxed(value)
        for key, value in row.items()
    }


def _unboxed(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
