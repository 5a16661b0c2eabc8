"""Hospitals as rows of a cohort's recipe, and what becomes of one patient there: drawn first, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from synthoma.anatomy import ORGANS, PHASES, STRUCTURES
from synthoma.phantom.anatomy.abdomen import REMOVABLE
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.disease.distractors import DISTRACTORS
from synthoma.phantom.disease.kinds import KINDS
from synthoma.phantom.scanner import Scanner
from synthoma.recipe import Recipe
from synthoma.seeds import rng_for

Array = NDArray[Any]
Range = tuple[float, float]
Phase = Literal["unenhanced", "arterial", "portal"]
Share = Annotated[float, Field(ge=0, le=1)]

_THINNEST_MM = 40.0  # of a scan from end to end
_TRIES = 40  # draws of a size, before it is cut to the hospital's range
# mean number in a patient
USUAL = {
    "liver_cyst": 0.5, "kidney_cyst": 0.6, "pancreas_cyst": 0.05, "haemangioma": 0.15, "focal_fat": 0.25,
    "granuloma": 0.15, "liver_scar": 0.12, "perfusion": 0.15, "kidney_scar": 0.1, "clips": 0.12, "stent": 0.04,
    "gallstone": 0.2, "screws": 0.0, "fibroid": 0.2, "lymph_node": 0.3,
}  # fmt: skip


class Hospital(Recipe):
    """One hospital: its scanner, its patients and their findings. Pairs are ranges; each patient draws from them.

    What is None is the cohort's own. share: of the cohort's cases. unseen: all its cases are out of distribution.
    kinds: of tumors, with weights; a patient has one kind. distractors: mean numbers that replace the usual ones.
    name: what it is called in a case's attributes. spacing_mm, slice_mm: of voxels in plane, and of slices. blur_mm:
    of the scanner in plane (SD). noise_hu: SD in soft tissue. grain: how coarse the noise is, 1 as usual. phases: of
    the contrast medium, with weights. timing: how late a scan is within its phase, 0 as usual. dose: of contrast
    medium, 1 as usual. offset_hu: error of the scanner's calibration. table: what the patient lies on. view_mm: width
    of the field of view. lowest_mm, highest_mm: where scans end toward feet and head, in mm above the fourth lumbar
    vertebra of an average adult. annotated: the only structures that have masks here, by their own names or their
    organ's; a patient without tumors is known to be healthy only if the tumors of all organs are among them. arms,
    bowel_contrast, ascites: shares of patients with arms beside the body, contrast medium in the bowel, free fluid.
    resected: shares of patients without an organ. women: share of them. age: in years. habitus: of the patients, 0
    average, 1 and more stout. tumors: share of patients with any. lesions: how many such a patient has. diameter_mm: of
    their tumors.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    share: float = Field(1.0, gt=0)
    unseen: bool = False
    spacing_mm: Range | None = None
    slice_mm: Range | None = None
    blur_mm: Range = (0.7, 0.9)
    noise_hu: Range | None = None
    grain: Range = (0.9, 1.1)
    phases: dict[Phase, float] | None = None
    timing: Range = (-0.1, 0.1)
    dose: Range = (0.9, 1.1)
    offset_hu: Range = (0.0, 0.0)
    table: Literal["curved", "flat", "none"] = "curved"
    view_mm: Range | None = None
    women: float = Field(0.5, ge=0, le=1)
    age: Range = (30, 85)
    habitus: float = Field(0.0, ge=-2, le=2)
    tumors: float = Field(0.5, ge=0, le=1)
    kinds: dict[str, float] = Field({"metastasis": 1.0})
    lesions: tuple[int, int] = (1, 6)
    diameter_mm: Range = (5, 80)
    distractors: dict[str, float] = Field({})
    # left out, these are None, so that older recipes keep their digests
    lowest_mm: Range | None = None
    highest_mm: Range | None = None
    annotated: tuple[str, ...] | None = None
    arms: Share | None = None
    bowel_contrast: Share | None = None
    ascites: Share | None = None
    resected: dict[str, Share] | None = None

    @field_validator("annotated")
    @classmethod
    def _annotatable(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = sorted(set(value or ()) - set(STRUCTURES) - set(ORGANS))
        if unknown:
            raise ValueError(f"no structure {', '.join(unknown)}; known: {', '.join({**ORGANS, **STRUCTURES})}")
        return value

    @field_validator("resected")
    @classmethod
    def _removable(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        unknown = sorted(set(value or ()) - set(REMOVABLE))
        if unknown:
            raise ValueError(f"cannot be taken out: {', '.join(unknown)}; can be: {', '.join(REMOVABLE)}")
        return value

    def annotates(self, structure: str) -> bool:
        """Whether a structure has a mask here."""
        if self.annotated is None:
            return True
        whole = [name for name in self.annotated if name in ORGANS and structure in ORGANS[name].parts]
        return structure in self.annotated or bool(whole)

    @field_validator("*")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError("expected the lower value first")
        return value

    @field_validator("kinds", "distractors")
    @classmethod
    def _known(cls, value: dict[str, float], info: Any) -> dict[str, float]:
        known = KINDS if info.field_name == "kinds" else DISTRACTORS
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown)}; known: {', '.join(known)}")
        if any(weight < 0 for weight in value.values()) or (info.field_name == "kinds" and not sum(value.values())):
            raise ValueError("expected weights of 0 or more, one of them above 0")
        return value


@dataclass(frozen=True)
class Visit:
    """One patient's visit, drawn: how she was scanned, who she is, and what she has."""

    hospital: str
    scanner: Scanner
    sex: Literal["female", "male"]
    age: int
    habitus: float
    kind: str | None
    lesions: int
    diameters_mm: tuple[float, ...]
    distractors: dict[str, float]
    arms: bool = False
    bowel_hu: float = 0.0
    ascites_mm: float = 0.0
    absent: tuple[str, ...] = ()

    def on(self, patient: Patient) -> Patient:
        """The patient as she comes to this visit."""
        opaque = dict.fromkeys(_FILLED, self.bowel_hu) if self.bowel_hu else {}
        return replace(
            patient, arms=self.arms, ascites_mm=self.ascites_mm, absent=self.absent,
            shift_hu={**patient.shift_hu, **opaque},
        )  # fmt: skip


_FILLED = ("stomach_contents", "duodenum_contents", "intestine_contents")


def draw_visit(hospital: Hospital, seed: int, scanner: Scanner, sex: str, sick: bool) -> Visit:
    """What a patient of this hospital meets. scanner: the cohort's own; sex: any, or the only one admitted.

    sick: whether she has tumors; their number and sizes follow their kind, within the hospital's limits.
    """
    rng = rng_for(seed, "visit")
    drawn = "female" if rng.random() < hospital.women else "male"
    age = int(np.clip(rng.triangular(hospital.age[0], 0.35 * hospital.age[0] + 0.65 * hospital.age[1] + 1e-6,
                                     hospital.age[1] + 2e-6), 18, 100))  # fmt: skip
    machine = _machine(hospital, scanner, rng)
    kind = _pick(hospital.kinds, rng)
    row = KINDS[kind]
    low, high = (int(np.clip(n, *hospital.lesions)) for n in row.count)
    count = int(np.clip(low + rng.geometric(0.45) - 1, low, high))
    median = row.diameter_mm[0] * row.diameter_mm[1] ** (0.6 * rng.normal())
    tried = median * row.diameter_mm[1] ** (0.8 * rng.normal(size=(_TRIES, count)))
    fits = (tried >= hospital.diameter_mm[0]) & (tried <= hospital.diameter_mm[1])
    fits[-1] = True
    sizes = np.clip(tried[fits.argmax(axis=0), np.arange(count)], *hospital.diameter_mm)
    female_only = row.organ == "uterus"
    if sick and female_only:
        drawn = "female"
    return Visit(
        **_condition(hospital, seed, row.organ if sick else ""),
        hospital=hospital.name,
        scanner=_reaching(hospital, machine, seed),
        sex=drawn if sex == "any" else sex,  # type: ignore[arg-type]
        age=age,
        habitus=hospital.habitus,
        kind=kind if sick else None,
        lesions=count if sick else 0,
        diameters_mm=tuple(float(size) for size in np.sort(sizes)[::-1]) if sick else (),
        distractors={**USUAL, **hospital.distractors},
    )


def _condition(hospital: Hospital, seed: int, organ: str) -> dict[str, Any]:
    """Arms, contrast in the bowel, ascites, and what was taken out: not the organ with tumors, if one has any."""
    rng = rng_for(seed, "condition")
    has = {name: rng.random() < (getattr(hospital, name) or 0) for name in ("arms", "bowel_contrast", "ascites")}
    opaque, thick = float(rng.uniform(110, 330)), float(rng.uniform(6, 24))
    lost = {name: rng.random() < (hospital.resected or {}).get(name, 0) for name in REMOVABLE}
    if lost["kidney_left"]:
        lost["kidney_right"] = False
    return {
        "arms": has["arms"],
        "bowel_hu": opaque * has["bowel_contrast"],
        "ascites_mm": thick * has["ascites"],
        "absent": tuple(name for name, gone in lost.items() if gone and not (organ and name.startswith(organ))),
    }


def _reaching(hospital: Hospital, machine: Scanner, seed: int) -> Scanner:
    """The scanner with the ends of this visit's scan."""
    rng = rng_for(seed, "reach")
    ends = []
    for limits, usual in zip((hospital.lowest_mm, hospital.highest_mm), machine.reach_mm, strict=True):
        at = rng.random()
        ends.append(usual if limits is None else limits[0] + (limits[1] - limits[0]) * at)
    low, high = ends
    return replace(machine, reach_mm=(low, max(high, low + _THINNEST_MM)))


def _machine(hospital: Hospital, scanner: Scanner, rng: np.random.Generator) -> Scanner:
    """The scanner as set for this visit."""

    def between(value: Range | None, default: float) -> float:
        drawn = rng.uniform()
        return default if value is None else float(value[0] + (value[1] - value[0]) * drawn)

    in_plane = round(between(hospital.spacing_mm, scanner.spacing_mm[0]), 3)
    thick = round(between(hospital.slice_mm, scanner.slice_mm), 2)
    phase = _pick(dict(hospital.phases) if hospital.phases else {scanner.phase: 1.0}, rng)
    timing, dose = between(hospital.timing, 0), between(hospital.dose, 1)
    return replace(
        scanner,
        spacing_mm=(in_plane, in_plane, thick),
        slice_mm=thick,
        blur_mm=between(hospital.blur_mm, scanner.blur_mm),
        noise_hu=between(hospital.noise_hu, scanner.noise_hu),
        grain=between(hospital.grain, 1.0),
        phase=phase,
        contrast=contrast(phase, timing, dose),
        offset_hu=between(hospital.offset_hu, scanner.offset_hu),
        table=hospital.table,
        view_mm=None if hospital.view_mm is None else between(hospital.view_mm, 0),
    )


def contrast(phase: str, timing: float, dose: float) -> tuple[float, float, float]:
    """Weights of the unenhanced, arterial and portal HU for a scan `timing` too late (or, negative, too early) on the
    way to the neighboring phase, with so much of the usual iodine. They add up to 1."""
    weights = np.zeros(3)
    place = PHASES.index(phase)
    if place == 0:
        weights[0] = 1
    else:
        other = place + (1 if timing > 0 else -1)
        # past the portal phase enhancement fades
        other = 0 if other > 2 else other
        weights[place], weights[other] = 1 - abs(timing), abs(timing)
    weights *= dose
    weights[0] += 1 - weights.sum()
    return float(weights[0]), float(weights[1]), float(weights[2])


def _pick(weights: Any, rng: np.random.Generator) -> str:
    names = sorted(weights)
    share = np.array([weights[name] for name in names], float)
    return str(names[int(np.searchsorted(np.cumsum(share) / share.sum(), rng.random(), side="right"))])
