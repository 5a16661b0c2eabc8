"""One case scored: every structure's overlap, surfaces and lesions, as rows of plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from synthoma import anatomy
from synthoma.anatomy import TUMOR_WORDS
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.evaluation.detectability import Looked
from synthoma.evaluation.fractions import Fractions, gather_fractions
from synthoma.evaluation.grids import on_grid
from synthoma.evaluation.lesion import Components, MatchedLesion, Matching, count_found, match_components
from synthoma.evaluation.masks import ScoredMask, read_masks
from synthoma.evaluation.planes import Planes, gather_regions, planes_of, region_of
from synthoma.evaluation.regions import Region, grown
from synthoma.evaluation.surface import score_surfaces
from synthoma.evaluation.voxel import score_voxels
from synthoma.names import require_plain
from synthoma.recipe import Recipe
from synthoma.tables import Row
from synthoma.volume import Volume


class EvaluateRecipe(Recipe):
    """What is scored, and how whatever is not plain is counted.

    structures: all that both sides know unless named. threshold: from which probability a voxel is predicted;
    curve: the further ones of FROC. rule, least_iou: see `lesion.match_lesions`. within_mm: if given, lesions are
    looked at only this near to their organ's true mask. missing: what a case or structure without a prediction
    counts as. resample: predictions on another grid are brought to the truth's. headers: `truth` takes the truth's grid
    for predictions of its shape whose headers are wrong. labels: structure -> its value or values in label maps that
    are not told otherwise, as `--labels`. sizes_mm: borders of the diameter bins. detectability: borders of the bins of
    d' (`detectability.detectabilities`); unless given the scans are not read. groups: attributes of cases, or columns
    of `catalog`, to be told apart. primary: the metrics that a comparison was made for, corrected for their own number
    only.
    tolerances_mm: of the surface Dice. distances: whether surface distances are measured, which costs most of the
    time. catalog: of `validate`, for patients and groups. resamples: of the bootstrap. confidence: of its intervals.
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
    headers: Literal["own", "truth"] = "own"
    labels: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    sizes_mm: tuple[float, ...] = (10.0, 20.0, 50.0)
    detectability: tuple[float, ...] = ()
    groups: tuple[str, ...] = ()
    catalog: str = ""
    primary: tuple[str, ...] = ("dsc", "nsd_2mm", "lesion_sensitivity", "false_per_scan")
    resamples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @field_validator("structures")
    @classmethod
    def _spelled(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(anatomy.canonical_name(name) for name in names)

    @field_validator("labels", mode="before")
    @classmethod
    def _named(cls, labels: Any) -> Any:
        if isinstance(labels, str):
            parts = [part.partition("=") for part in labels.split(",") if part.strip()]
            labels = {name.strip(): tuple(value.strip() for value in own.split("+")) for name, _, own in parts}
        if not isinstance(labels, Mapping):
            raise ValueError("expected structures and values, as liver=1,liver_lesion=2")
        return {
            anatomy.canonical_name(str(name)): own if isinstance(own, list | tuple) else (own,)
            for name, own in labels.items()
        }

    @field_validator("labels")
    @classmethod
    def _values(cls, labels: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        if not all(own and all(0 < value < 2**16 for value in own) for own in labels.values()):
            raise ValueError("expected values from 1 to 65535 for every structure")
        return labels

    @field_validator("tolerances_mm", "sizes_mm", "curve", "detectability")
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
        """The scores that `as_dict` wrote; `ValueError` for others, `SynthomaError` for a structure that is a path."""
        plain = dict(data)
        lacking = [key for row in plain["rows"] for key in _ALWAYS if key not in row]
        if lacking:
            raise ValueError(f"a row without {lacking[0]}")
        for row in plain["rows"]:
            require_plain(row["structure"], "the name of a structure", row["case"])  # plots are called so
        return cls(**plain | {name: tuple(plain[name]) for name in ("rows", "lesions", "notes")})


# What the row of every structure has.
_ALWAYS = ("case", "patient", "structure", "outcome", "truth_ml", "predicted_ml", "error_ml", "dsc", "iou")


def score_case(truth: Case, predicted: Case | None, recipe: EvaluateRecipe | None = None) -> CaseScores:
    """The scores of every structure that is annotated in `truth`; reads its scan for `detectability` only.

    predicted: a case whose masks may be probability maps (float32, 0 to 1); None is a case without a prediction,
    which counts as the recipe's `missing` says. Structures that only one side has are told in `notes`. Raises
    `CaseError` and `GeometryError` for what cannot be compared.
    """
    recipe = recipe or EvaluateRecipe()
    with truth.named():
        there = {} if predicted is None else predicted.masks
        asked = recipe.structures or tuple(truth.masks if predicted is None else (n for n in truth.masks if n in there))
        names = [name for name in asked if name in truth.masks and name != anatomy.IGNORE]
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
        theirs = _predictions(predicted, both, notes) if predicted else iter(())
        ignored, ours = _truths(truth, names)
        pairs = ((name, region, next(theirs) if name in there else None) for name, region in ours)
        rows, lesions, more = _scored(pairs, truth, ignored, recipe)
    facts = {"dataset": truth.dataset, **truth.attributes}
    return CaseScores(truth.id, truth.patient, tuple(rows), tuple(lesions), (*notes, *more), facts)


def score_labels(
    truth: Volume,
    predicted: Volume,
    values: Mapping[str, tuple[int, ...] | None],
    recipe: EvaluateRecipe | None = None,
    case: str = "unnamed",
) -> CaseScores:
    """The scores of two label maps, or masks, in memory; `predicted` may hold the probabilities of one structure.

    values: structure -> its labels in both maps, None for whatever is not 0. Names that end in `_lesion` are matched
    lesion by lesion as well.
    """
    known = Case(case, truth, {name: truth for name, labels in values.items() if labels is None})
    with known.named():
        ours, theirs = gather_regions(planes_of(truth), values)[0], planes_of(predicted)
        maps: Mapping[str, Region | Planes] = (
            dict.fromkeys(values, theirs) if theirs.fractions else gather_regions(theirs, values)[0]
        )
        pairs = ((name, ours[name], maps[name]) for name in values)
        rows, lesions, notes = _scored(pairs, known, None, recipe or EvaluateRecipe())
    return CaseScores(case, case, tuple(rows), tuple(lesions), tuple(notes))


def _truths(truth: Case, names: list[str]) -> tuple[Region | None, Iterator[tuple[str, Region]]]:
    """The voxels that nobody annotated, if the case has such a mask, and the true masks one by one."""
    has_ignored = anatomy.IGNORE in truth.masks
    masks = read_masks(truth, [anatomy.IGNORE] * has_ignored + names, truth=True)
    regions = ((name, found) for name, found in masks if isinstance(found, Region))  # fractions were refused
    return (next(regions)[1] if has_ignored else None), regions


def _predictions(predicted: Case, names: list[str], notes: list[str]) -> Iterator[Region | Planes]:
    """The predictions one by one; says in `notes` which masks are no longer those of their scores."""
    for name, found in read_masks(predicted, names):
        if isinstance(predicted.masks[name], ScoredMask) and isinstance(found, Region):
            notes.append(f"{name}: the mask was changed after its scores were made; it is scored, and they are not")
        yield found


def _scored(
    pairs: Iterable[tuple[str, Region, Region | Planes | None]],
    truth: Case,
    ignored: Region | None,
    recipe: EvaluateRecipe,
) -> tuple[list[Row], list[Row], list[str]]:
    """Rows, lesions and notes of every pair of masks."""
    own = {"case": truth.id, "patient": truth.patient}
    looked = Looked(truth)
    rows, lesions, notes = [], [], []
    for name, mask, predicted in pairs:
        allowed = None
        if recipe.within_mm is not None and _has_lesions(name):
            allowed = grown(_organ(truth, name), recipe.within_mm).reoriented(mask.geometry.axes)
        pair, note = _Pair.of(name, mask, predicted, allowed, ignored, recipe)
        row, found = pair.scores(recipe)
        rows.append(own | row)
        if recipe.detectability and _has_lesions(name):
            true = [entry for entry in found if entry["side"] == "truth"]
            told, unknown = looked.told(name, pair.truth, [entry["center_mm"] for entry in true])
            for entry, value in zip(true, told, strict=False):  # nothing may be told
                entry["detectability"] = value if math.isfinite(value) else None
            notes += [unknown] * bool(unknown)
        lesions += [own | entry for entry in found]
        notes += [note] * bool(note)
    return rows, lesions, notes


_COUNTED = {"empty": "counted as nothing found", "leave_out": "left out"}


@dataclass(frozen=True, eq=False)
class _Pair:
    """The true and the predicted mask of one structure, on one grid with axes in one order.

    ignored: voxels that nobody annotated, which neither mask holds.
    """

    structure: str
    truth: Region
    predicted: Region
    fractions: Fractions | None = None
    ignored: Region | None = None

    @classmethod
    def of(
        cls, structure: str, truth: Region, predicted: Region | Planes | None, allowed: Region | None,
        ignored: Region | None, recipe: EvaluateRecipe,
    ) -> tuple[_Pair, str]:  # fmt: skip
        """The pair, and a note on what was done to the prediction. allowed: the only voxels that count, if given."""
        grid = truth.geometry
        ignored = ignored and ignored.reoriented(grid.axes)
        for side, name in ((allowed, "organ's mask"), (ignored, "ignored region")):
            if side is not None:
                grid.require_same(side.geometry, name)
        truth = _kept(truth, allowed, ignored)
        if predicted is None:
            return cls(structure, truth, Region(grid, ()), ignored=ignored), ""
        placed, note = on_grid(predicted, grid, structure, recipe.resample, recipe.headers == "own")
        if isinstance(placed, Region):
            return cls(structure, truth, _kept(placed, allowed, ignored), ignored=ignored), note
        fractions = gather_fractions(placed, min((recipe.threshold, *recipe.curve)), allowed, ignored)
        fractions = fractions.on(grid)
        return cls(structure, truth, fractions.above(recipe.threshold), fractions, ignored), note

    def scores(self, recipe: EvaluateRecipe) -> tuple[Row, list[Row]]:
        voxels = score_voxels(self.truth, self.predicted)
        surfaces = score_surfaces(self.truth, self.predicted, recipe.tolerances_mm, recipe.distances, self.ignored)
        row: Row = {"structure": self.structure, "outcome": _OUTCOMES[bool(voxels.truth_ml), bool(voxels.predicted_ml)]}
        row |= {"truth_ml": voxels.truth_ml, "predicted_ml": voxels.predicted_ml, "error_ml": voxels.error_ml}
        row |= {"dsc": voxels.dsc, "iou": voxels.iou}
        row |= {nsd_name(tolerance): value for tolerance, value in surfaces.nsd.items()}
        row |= {"hd95_mm": surfaces.hd95_mm, "assd_mm": surfaces.assd_mm}
        lesions: list[Row] = []
        if _has_lesions(self.structure):
            organ = self.structure.removesuffix("_lesion")
            truth = Components.of(self.truth, organ)
            predicted = Components.of(self.predicted, organ)
            matching = match_components(truth, predicted, recipe.rule, recipe.least_iou)
            row |= {fate: matching.count(fate) for fate in _FATES}
            row |= {"lesions": len(matching.truth), "predicted_lesions": len(matching.predicted)}
            row |= {"score": self._strongest(matching), "curve": self._curve(truth, matching, recipe)}
            lesions = [self._lesion_row("truth", entry) for entry in matching.truth]
            lesions += [self._lesion_row("predicted", entry) for entry in matching.predicted]
        return _plain(row), [_plain(entry) for entry in lesions]

    def _curve(self, truth: Components, matching: Matching, recipe: EvaluateRecipe) -> list[list[float]]:
        """Threshold, lesions found and false ones, for every threshold; masks have one."""
        points = {recipe.threshold: (matching.count("found"), matching.count("false"))}
        if self.fractions is not None:
            for threshold in sorted(set(recipe.curve) - set(points)):
                predicted = Components.counted(self.fractions.above(threshold))
                points[threshold] = count_found(truth, predicted, recipe.rule, recipe.least_iou)
        return [[threshold, *counts] for threshold, counts in sorted(points.items())]

    def _strongest(self, matching: Matching) -> float:
        """The highest probability; of a mask, the volume of its largest lesion in ml."""
        if self.fractions is not None:
            return self.fractions.peak
        return max((entry.lesion.volume_ml for entry in matching.predicted), default=0.0)

    def _lesion_row(self, side: str, entry: MatchedLesion) -> Row:
        lesion = entry.lesion
        score = lesion.volume_ml
        if self.fractions is not None and side == "predicted":
            score = self.fractions.highest(lesion.box, self.predicted.read(lesion.box))
        return {
            "structure": self.structure, "side": side, "index": lesion.index, "fate": entry.fate,
            "partner": entry.partner, "equivalent_diameter_mm": lesion.equivalent_diameter_mm,
            "longest_axial_mm": lesion.longest_axial_mm, "volume_ml": lesion.volume_ml,
            "center_mm": list(lesion.center_mm), "iou": entry.iou, "dsc": entry.dsc,
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


def _organ(truth: Case, structure: str) -> Region:
    return region_of(truth.read_organ(structure.removesuffix("_lesion")))


def _kept(region: Region, allowed: Region | None, ignored: Region | None) -> Region:
    region = region if allowed is None else region.within(allowed)
    return region if ignored is None else region.without(ignored)


def _plain(row: Row) -> Row:
    """JSON data: None for nan."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else _unboxed(value)
        for key, value in row.items()
    }


def _unboxed(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
