"""The in-silico cohort: healthy abdominal CT of drawn patients, with every organ's mask.

`draw_case` gives one as volumes, `cohort_case` as the `Case` that the rest of the package works with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from synthoma.anatomy import STRUCTURES
from synthoma.cases import Case
from synthoma.datasets.catalog import describe_case
from synthoma.datasets.insilico.abdomen import Abdomen, draw_abdomen
from synthoma.datasets.insilico.patient import Patient, draw_patient
from synthoma.datasets.insilico.scanner import Scanner, field_of_view, scan
from synthoma.datasets.layouts import read_case
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError
from synthoma.recipes import Recipe
from synthoma.seeds import seed_for
from synthoma.volume import Volume


class CohortRecipe(Recipe):
    """A cohort of healthy in-silico patients, all seen by one scanner.

    slice_mm: distance and thickness of slices; 0 makes them as thick as `spacing_mm`, the in-plane spacing.
    """

    name: str = Field("insilico", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    cases: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    sex: Literal["any", "female", "male"] = "any"
    phase: Literal["unenhanced", "arterial", "portal"] = "portal"
    spacing_mm: float = Field(2.0, ge=0.4, le=10)
    slice_mm: float = Field(0.0, ge=0, le=10)
    noise_hu: float = Field(15.0, ge=0, le=100)

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
        )


@dataclass(frozen=True, eq=False)
class InSilico:
    """One drawn patient as a scanner sees her: `ct` (int16 HU), and what she is made of."""

    ct: Volume
    abdomen: Abdomen
    phase: str

    @property
    def patient(self) -> Patient:
        """Who was drawn."""
        return self.abdomen.patient

    @property
    def labels(self) -> Volume:
        """uint8 map of `anatomy.STRUCTURES`; where two overlap, the finer one shows."""
        return self.abdomen.labels()

    def mask(self, structure: str) -> Volume:
        """One structure as annotators draw it (bool): a liver with its veins, a bowel with its contents.

        Masks may overlap. A structure the patient lacks or the field of view misses is empty; `CaseError`
        for a name that no in-silico patient has.
        """
        if structure not in ANNOTATED:
            raise CaseError(f"no structure {structure!r} in silico", expected=f"one of {', '.join(ANNOTATED)}")
        return self.abdomen.mask(structure)


# Every structure but tumors; healthy patients' organs are all annotated, the other sex's as empty.
ANNOTATED = tuple(structure for structure in STRUCTURES if not structure.endswith("_lesion"))


def draw_case(seed: int, recipe: CohortRecipe | None = None) -> InSilico:
    """One healthy abdomen: the patient, her anatomy and the scanner's noise all follow from `seed`."""
    recipe = recipe or CohortRecipe()
    patient, scanner = draw_patient(seed, recipe.sex), recipe.scanner()
    abdomen = draw_abdomen(patient, field_of_view(patient, scanner))
    return InSilico(scan(abdomen, scanner, seed), abdomen, recipe.phase)


def cohort_case(recipe: CohortRecipe, index: int) -> Case:
    """Case number `index` of the cohort, in memory; masks are made when asked for.

    The same recipe and index give the same bytes, whatever else has been drawn.
    """
    if not 0 <= index < recipe.cases:
        raise ValueError(f"case {index} of a cohort of {recipe.cases}")
    drawn = draw_case(seed_for(recipe.seed, "case", index), recipe)
    name = recipe.case_id(index)
    return Case(
        id=name,
        image=drawn.ct,
        masks={structure: partial(drawn.mask, structure) for structure in ANNOTATED},
        patient=name,
        dataset=recipe.name,
        attributes={"sex": drawn.patient.sex, "phase": drawn.phase, "healthy": True},
    )


def write_cohort_case(index: int, recipe: CohortRecipe, out: Path) -> dict[str, Any]:
    """Draws case number `index` and writes it under `out`; what was written and its catalog row, as plain data."""
    folder = out / recipe.case_id(index)
    written = write_case(cohort_case(recipe, index), folder, provenance={"recipe": recipe.digest()})
    return written | {"row": describe_case(read_case(folder))}
