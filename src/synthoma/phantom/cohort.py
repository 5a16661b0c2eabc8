"""The in-silico cohort: abdominal CT of drawn patients, healthy or with natural tumors, with every organ's mask.

`draw_case` gives a healthy patient as volumes, `draw_visitor` one of a hospital, `cohort_case` the `Case` that the
rest of the package works with.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from synthoma.anatomy import ORGANS, STRUCTURES
from synthoma.cases import Case
from synthoma.datasets.catalog import describe_case, write_catalog
from synthoma.datasets.layouts.opening import read_case
from synthoma.datasets.splits import SplitRecipe, draw_splits, write_splits
from synthoma.datasets.writing import write_case
from synthoma.engine.records import CaseRecord
from synthoma.errors import CaseError
from synthoma.phantom.anatomy.abdomen import Abdomen, draw_abdomen
from synthoma.phantom.anatomy.ageing import aged
from synthoma.phantom.anatomy.patient import Patient, draw_patient
from synthoma.phantom.hospitals import Hospital, Visit, draw_visit
from synthoma.phantom.illness import draw_disease
from synthoma.phantom.scanner import REGIONS, Scanner, field_of_view, scan
from synthoma.recipe import Recipe
from synthoma.seeds import seed_for
from synthoma.volume import Volume

log = logging.getLogger(__name__)


class CohortRecipe(Recipe):
    """A cohort of in-silico patients: healthy ones seen by one scanner, or those of several hospitals.

    slice_mm: distance and thickness of slices; 0 makes them as thick as `spacing_mm`, the in-plane spacing.
    hospitals: rows that change what the cohort says; the cases are divided among them by their shares. structures:
    those written, all if None. region: scanned, the whole abdomen if None. splits: drawn once all cases are written;
    cases of unseen hospitals are out of distribution.
    name: what the cases' ids begin with. cases: how many. seed: another seed, other patients. sex: of the patients,
    without hospitals. phase: of the contrast medium, without hospitals. spacing_mm: of voxels in plane. noise_hu: SD
    of the noise in soft tissue.
    """

    name: str = Field("insilico", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    cases: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    sex: Literal["any", "female", "male"] = "any"
    phase: Literal["unenhanced", "arterial", "portal"] = "portal"
    spacing_mm: float = Field(2.0, ge=0.4, le=10)
    slice_mm: float = Field(0.0, ge=0, le=10)
    noise_hu: float = Field(15.0, ge=0, le=100)
    hospitals: tuple[Hospital, ...] | None = None
    structures: tuple[str, ...] | None = None
    region: str | None = None
    splits: SplitRecipe | None = None

    @field_validator("hospitals")
    @classmethod
    def _distinct(cls, value: tuple[Hospital, ...] | None) -> tuple[Hospital, ...] | None:
        names = [hospital.name for hospital in value or ()]
        if len(set(names)) < len(names):
            raise ValueError("two hospitals of one name")
        return value

    @field_validator("structures")
    @classmethod
    def _drawn(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = sorted(set(value or ()) - set(STRUCTURES))
        if unknown:
            raise ValueError(f"no structure {', '.join(unknown)}; known: {', '.join(STRUCTURES)}")
        return value

    @field_validator("region")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value not in (None, *REGIONS):
            raise ValueError(f"expected one of {', '.join(REGIONS)}")
        return value

    def case_id(self, index: int) -> str:
        """The id of case number `index`."""
        return f"{self.name}_{index:04d}"

    def scanner(self) -> Scanner:
        """The scanner of this cohort."""
        thick = self.slice_mm or self.spacing_mm
        return Scanner(
            spacing_mm=(self.spacing_mm, self.spacing_mm, thick),
            slice_mm=thick,
            noise_hu=self.noise_hu,
            phase=self.phase,
            region=self.region or "abdomen",
        )

    def place_of(self, index: int) -> tuple[Hospital, bool] | None:
        """The hospital of case number `index` and whether she has tumors; None in a cohort without hospitals.

        Hospitals have their cases one after the other. The shares, and that of patients with tumors, are met as
        closely as whole cases allow.
        """
        if not self.hospitals:
            return None
        total = sum(hospital.share for hospital in self.hospitals)
        first, before = 0, 0.0
        for hospital in self.hospitals:
            before += hospital.share
            last = round(self.cases * before / total)
            if index < last:
                # sick patients are spread evenly over a hospital's cases
                turn = index - first
                return hospital, int((turn + 1) * hospital.tumors + 0.5) > int(turn * hospital.tumors + 0.5)
            first = last
        raise ValueError(f"case {index} of a cohort of {self.cases}")


@dataclass(frozen=True, eq=False)
class InSilico:
    """One drawn patient as a scanner sees her: `ct` (int16 HU), what she is made of, and how she was seen."""

    ct: Volume
    abdomen: Abdomen
    phase: str
    visit: Visit | None = None

    @property
    def patient(self) -> Patient:
        """Who was drawn."""
        return self.abdomen.patient

    @property
    def labels(self) -> Volume:
        """uint8 map of `anatomy.STRUCTURES`; where two overlap, the finer one shows."""
        return self.abdomen.labels()

    def mask(self, structure: str) -> Volume:
        """One structure as annotators draw it (bool): a liver with veins and tumors, a bowel with its contents.

        Masks may overlap. A structure the patient lacks or the field of view misses is empty; `CaseError`
        for a name that no in-silico patient has.
        """
        known = STRUCTURES if self.visit else ANNOTATED
        if structure not in known:
            raise CaseError(f"no structure {structure!r} in silico", expected=f"one of {', '.join(known)}")
        return self.abdomen.mask(structure)


# Every structure but tumors, of the healthy; organs are all annotated, the other sex's as empty.
ANNOTATED = tuple(structure for structure in STRUCTURES if not structure.endswith("_lesion"))


def draw_case(seed: int, recipe: CohortRecipe | None = None) -> InSilico:
    """One healthy abdomen: the patient, her anatomy and the scanner's noise all follow from `seed`."""
    recipe = recipe or CohortRecipe()
    patient, scanner = draw_patient(seed, recipe.sex), recipe.scanner()
    abdomen = draw_abdomen(patient, field_of_view(patient, scanner))
    return InSilico(scan(abdomen, scanner, seed), abdomen, recipe.phase)


def draw_visitor(seed: int, recipe: CohortRecipe, hospital: Hospital, sick: bool) -> InSilico:
    """One patient of a hospital, with her tumors and what only looks like one."""
    visit = draw_visit(hospital, seed, recipe.scanner(), recipe.sex, sick)
    patient = visit.on(aged(draw_patient(seed, visit.sex, visit.habitus), visit.age))
    abdomen = draw_abdomen(patient, field_of_view(patient, visit.scanner))
    abdomen = replace(abdomen, findings=draw_disease(abdomen, visit))
    return InSilico(scan(abdomen, visit.scanner, seed), abdomen, visit.scanner.phase, visit)


def cohort_case(recipe: CohortRecipe, index: int) -> Case:
    """Case number `index` of the cohort, in memory; masks are made when asked for.

    The same recipe and index give the same bytes, whatever else has been drawn.
    """
    if not 0 <= index < recipe.cases:
        raise ValueError(f"case {index} of a cohort of {recipe.cases}")
    seed, place = seed_for(recipe.seed, "case", index), recipe.place_of(index)
    drawn = draw_visitor(seed, recipe, *place) if place else draw_case(seed, recipe)
    name = recipe.case_id(index)
    masks = [structure for structure in (STRUCTURES if place else ANNOTATED) if structure in _written(recipe)]
    if place:
        masks = [structure for structure in masks if place[0].annotates(structure)]
    return Case(
        id=name,
        image=drawn.ct,
        masks={structure: partial(drawn.mask, structure) for structure in masks},
        patient=name,
        dataset=recipe.name,
        attributes=_attributes(drawn, place[0] if place else None),
    )


def _written(recipe: CohortRecipe) -> tuple[str, ...]:
    return tuple(STRUCTURES) if recipe.structures is None else recipe.structures


def _attributes(drawn: InSilico, hospital: Hospital | None) -> dict[str, Any]:
    """What a hospital's record would say, and what only who drew the patient knows."""
    known: dict[str, Any] = {"sex": drawn.patient.sex, "phase": drawn.phase, "healthy": True, "in_silico": True}
    visit = drawn.visit
    if visit is None or hospital is None:
        return known
    tumors = [finding for finding in drawn.abdomen.findings if finding.tumor]
    sizes = [finding.facts["diameter_mm"] for finding in tumors]
    looked_at = all(hospital.annotates(organ.lesion) for organ in ORGANS.values())
    return (
        known
        | _condition(visit)
        | {
            "healthy": not tumors and looked_at,
            "hospital": visit.hospital,
            "age": visit.age,
            "kind": visit.kind if tumors else None,
            "tumors": len(tumors),
            "largest_mm": max(sizes, default=0.0),
            "findings": [finding.facts | {"tumor": finding.tumor} for finding in drawn.abdomen.findings],
            "scanner": {
                "noise_hu": round(visit.scanner.noise_hu, 2),
                "blur_mm": round(visit.scanner.blur_mm, 3),
                "offset_hu": round(visit.scanner.offset_hu, 2),
                "contrast": [round(weight, 3) for weight in visit.scanner.weights],
            },
        }
    )


def _condition(visit: Visit) -> dict[str, Any]:
    """What of a visit is unusual."""
    found = {
        "arms": visit.arms,
        "bowel_contrast": bool(visit.bowel_hu),
        "ascites": bool(visit.ascites_mm),
        "resected": list(visit.absent),
    }
    return {name: value for name, value in found.items() if value}


def write_cohort_case(index: int, recipe: CohortRecipe, out: Path) -> dict[str, Any]:
    """Draws case number `index` and writes it under `out`; what was written and its catalog row, as plain data."""
    folder = out / recipe.case_id(index)
    written = write_case(cohort_case(recipe, index), folder, provenance={"recipe": recipe.digest()})
    return written | {"row": describe_case(read_case(folder), out)}


def finish_cohort(records: Sequence[CaseRecord], recipe: CohortRecipe, out: Path) -> dict[str, int]:
    """The catalog of the cases that were written and, if the recipe asks for them, their splits; how many there are.

    Writes `out/catalog.parquet` and `out/splits.json`; no splits while a case has failed, nor of cases that cannot be
    divided, which is a warning: they took long to draw, and are good without.
    """
    rows = [record.result["row"] for record in records if record.status == "done"]
    write_catalog(rows, out / "catalog.parquet")
    sick = sum(bool(row["attributes"].get("tumors")) for row in rows)
    made = {"healthy": len(rows) - sick, "with_tumors": sick}
    if recipe.splits is None or len(rows) < recipe.cases:
        return made
    unseen = tuple(f"hospital={hospital.name}" for hospital in recipe.hospitals or () if hospital.unseen)
    rule = recipe.splits.with_changes(outside=(*recipe.splits.outside, *unseen))
    try:
        splits = draw_splits(rows, rule, recipe.seed)
    except CaseError as error:
        log.warning("no splits.json: %s", error)
        return made
    write_splits(splits, out / "splits.json")
    fold = splits.folds[0]
    return made | {"train": len(fold.train), "val": len(fold.val), "test": len(splits.test), "ood": len(splits.ood)}
