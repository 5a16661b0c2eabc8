"""The figures of a set of scored cases: for each structure and metric, a sum over a sum by patient, or an AUC."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from synthoma.evaluation.patient import Patients, gather
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe, nsd_name
from synthoma.statistics.intervals import Ratio
from synthoma.tables import Row
from synthoma.volume import Array


class Metric(NamedTuple):
    """How a figure is called in a table; better: `high`, `low`, or empty for neither."""

    label: str
    better: str


METRICS = {
    "dsc": Metric("DSC", "high"),
    "dsc_present": Metric("DSC, scans with the structure", "high"),
    "iou": Metric("IoU", "high"),
    "hd95_mm": Metric("HD95, mm", "low"),
    "assd_mm": Metric("ASSD, mm", "low"),
    "error_ml": Metric("volume error, ml", ""),
    "absolute_error_ml": Metric("absolute volume error, ml", "low"),
    "lesion_sensitivity": Metric("lesion sensitivity", "high"),
    "lesion_dsc": Metric("lesion DSC, missed as 0", "high"),
    "lesion_precision": Metric("lesion precision", "high"),
    "false_per_scan": Metric("false lesions per scan", "low"),
    "patient_sensitivity": Metric("patient sensitivity, any voxel", "high"),
    "patient_sensitivity_localized": Metric("patient sensitivity, a lesion found", "high"),
    "patient_specificity": Metric("patient specificity", "high"),
    "patient_auc": Metric("patient AUC", "high"),
}
# Shares of yes and no: lesions or patients that were found, or right.
PROPORTIONS = (
    "lesion_sensitivity", "lesion_precision", "patient_sensitivity", "patient_sensitivity_localized",
    "patient_specificity",
)  # fmt: skip
BY_SIZE = ("lesion_sensitivity", "lesion_dsc")
EARLY_MM = 20.0


def metric(name: str) -> Metric:
    """What is known of a metric; `nsd_2mm` and the like are as many as there are tolerances."""
    if name.startswith("nsd_"):
        return Metric(f"NSD {name[4:].replace('mm', ' mm')}", "high")
    return METRICS[name]


@dataclass(frozen=True, eq=False)
class Scored:
    """The rows of one structure, one per scan, and its lesions. patients: all of them, in the order of every array."""

    structure: str
    rows: tuple[Row, ...]
    lesions: tuple[Row, ...]
    patients: tuple[str, ...]

    @classmethod
    def of(cls, scores: Iterable[CaseScores], structure: str, patients: Sequence[str] | None = None) -> Scored:
        """patients: those that count, in this order; unless given, all with the structure, by name."""
        kept = None if patients is None else set(patients)
        chosen = [each for each in scores if kept is None or each.patient in kept]
        rows = tuple(row for each in chosen for row in each.rows if row["structure"] == structure)
        lesions = tuple(row for each in chosen for row in each.lesions if row["structure"] == structure)
        names = sorted({row["patient"] for row in rows}) if patients is None else patients
        return cls(structure, rows, lesions, tuple(names))

    @property
    def has_lesions(self) -> bool:
        """Whether lesions were matched."""
        return any("lesions" in row for row in self.rows)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.patients)}

    def sums(self, rows: Sequence[Row], values: Sequence[Any]) -> Array:
        """Sums by patient (n,) of one value a row."""
        numbers = [self._number[row["patient"]] for row in rows]
        return np.bincount(numbers, np.asarray(values, float), len(self.patients)) if rows else self.zeros

    @property
    def zeros(self) -> Array:
        """Nothing of anybody."""
        return np.zeros(len(self.patients))

    def mean(self, rows: Sequence[Row], values: Sequence[float | None]) -> Ratio:
        """The mean over rows, None left out."""
        defined = [value is not None for value in values]
        return Ratio(self.sums(rows, [value or 0.0 for value in values]), self.sums(rows, defined))

    @cached_property
    def by_patient(self) -> Patients:
        """Who has a tumor, and who is called to have one."""
        numbers = np.array([self._number[row["patient"]] for row in self.rows], int)
        facts = [
            np.array(values)
            for values in (
                [row["truth_ml"] > 0 for row in self.rows],
                [row["predicted_ml"] > 0 for row in self.rows],
                [row["found"] > 0 for row in self.rows],
                [row["score"] for row in self.rows],
            )
        ]
        return gather(numbers, facts[0], facts[1], facts[2], facts[3])

    def undefined(self, name: str) -> int:
        """How many scans have no value of a metric that is a column."""
        return sum(name in row and row[name] is None for row in self.rows)


def ratios(scored: Scored, recipe: EvaluateRecipe) -> Iterator[tuple[str, str, Ratio]]:
    """Metric, bin of lesions (empty for all) and figure, of every metric that is a sum over a sum."""
    rows, lesions = scored.rows, scored.lesions
    for name in ("dsc", *(nsd_name(tolerance) for tolerance in recipe.tolerances_mm), "iou", "hd95_mm", "assd_mm"):
        if recipe.distances or name not in ("hd95_mm", "assd_mm"):
            yield name, "", scored.mean(rows, [row[name] for row in rows])
    present = [row for row in rows if row["truth_ml"] > 0]
    yield "dsc_present", "", scored.mean(present, [row["dsc"] for row in present])
    yield "error_ml", "", scored.mean(rows, [row["error_ml"] for row in rows])
    yield "absolute_error_ml", "", scored.mean(rows, [abs(row["error_ml"]) for row in rows])
    if not scored.has_lesions:
        return
    truth = [row for row in lesions if row["side"] == "truth"]
    for name, some in lesion_bins(truth, recipe):
        yield "lesion_sensitivity", name, scored.mean(some, [float(row["fate"] == "found") for row in some])
        yield "lesion_dsc", name, scored.mean(some, [row["dsc"] for row in some])
    called = [row for row in lesions if row["side"] == "predicted"]
    yield "lesion_precision", "", scored.mean(called, [float(row["fate"] == "matched") for row in called])
    yield "false_per_scan", "", scored.mean(rows, [float(row["false"]) for row in rows])
    yield "patient_sensitivity", "", scored.by_patient.sensitivity
    yield "patient_sensitivity_localized", "", scored.by_patient.localized_sensitivity
    yield "patient_specificity", "", scored.by_patient.specificity


def lesion_bins(truth: Sequence[Row], recipe: EvaluateRecipe) -> Iterator[tuple[str, list[Row]]]:
    """Every bin of diameters and of detectability, all first under an empty name, and the true lesions in it."""
    for name, low, high in size_bins(recipe.sizes_mm):
        yield name, [row for row in truth if low <= row["equivalent_diameter_mm"] < high]
    for name, low, high in detectability_bins(recipe.detectability):
        yield name, [row for row in truth if low <= _seen(row) < high]


def _seen(row: Row) -> float:
    """d' of a lesion; nan, which is in no bin, where it is not told."""
    value = row.get("detectability")
    return math.nan if value is None else float(value)


def detectability_bins(borders: Sequence[float]) -> list[tuple[str, float, float]]:
    """Name, lowest and highest d' of the bins between the borders; none without any."""
    edges = [0.0, *borders, math.inf]
    return [
        (f"d' < {high:g}" if low == 0 else f"d' >= {low:g}" if high == math.inf else f"d' {low:g}-{high:g}", low, high)
        for low, high in zip(edges, edges[1:], strict=False)
        if borders
    ]


def size_bins(borders_mm: Sequence[float]) -> list[tuple[str, float, float]]:
    """Name, lowest and highest diameter: all, early (under 20 mm), and between the borders."""
    edges = [0.0, *borders_mm, np.inf]
    bins = [("", 0.0, np.inf), ("early, < 20 mm", 0.0, EARLY_MM)]
    for low, high in zip(edges, edges[1:], strict=False):
        name = f"< {high:g} mm" if low == 0 else f">= {low:g} mm" if high == np.inf else f"{low:g}-{high:g} mm"
        bins.append((name, low, high))
    return bins


def structures_of(scores: Iterable[CaseScores]) -> list[str]:
    """Every structure that was scored, in the order met."""
    return list(dict.fromkeys(row["structure"] for each in scores for row in each.rows))


def group_values(scores: Sequence[CaseScores], recipe: EvaluateRecipe) -> Iterator[tuple[str, list[CaseScores]]]:
    """`column=value` and its cases, all of them first under an empty name."""
    yield "", list(scores)
    for column in recipe.groups:
        found = [each.attributes.get(column) for each in scores]
        for value in sorted({str(entry) for entry in found}):
            yield f"{column}={value}", [each for each, entry in zip(scores, found, strict=True) if str(entry) == value]
