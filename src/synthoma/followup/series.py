"""One scan in, the same patient at several dates out: drawn once as plain data, then made date by date."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pydantic

from synthoma import anatomy
from synthoma.cases import Case, equivalent_diameter_mm
from synthoma.errors import CaseError
from synthoma.followup.history import Course, draw_courses
from synthoma.followup.recipe import FollowRecipe
from synthoma.followup.rescan import Rescan, draw_rescan, rescan, rescan_mask
from synthoma.seeds import rng_for
from synthoma.synthesis.insertion.scene import scan_digest
from synthoma.synthesis.pipeline import Synthesis, insert_tumors, replay_plans
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Volume

FORMAT = 1


@dataclass(frozen=True)
class Series:
    """A patient over dates, as plain data: from it and the healthy scan every date is made again, bit for bit.

    case: the healthy one's id. scan_digest: of its scan. scans: how each differs from it; the first does not.
    """

    case: str
    scan_digest: str
    days: tuple[float, ...]
    courses: tuple[Course, ...]
    scans: tuple[Rescan, ...]

    def plans_at(self, date: int) -> list[tuple[int, TumorPlan]]:
        """Number and plan of every tumor that is there at a date."""
        plans = [(course.lesion, course.plan_at(date)) for course in self.courses]
        return [(number, plan) for number, plan in plans if plan is not None]

    def case_at(self, date: int) -> str:
        """The id of the case of a date."""
        return f"{self.case}_t{date}"

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "format": FORMAT,
            "case": self.case,
            "scan_digest": self.scan_digest,
            "days": list(self.days),
            "courses": [course.as_dict() for course in self.courses],
            "scans": [scan.as_dict() for scan in self.scans],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Series:
        """The series that `as_dict` wrote; `CaseError` for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CaseError("this is no series of a follow-up", expected=f"format {FORMAT}")
        try:
            found = _reader().validate_python({name: value for name, value in data.items() if name != "format"})
        except pydantic.ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise CaseError("the series of a follow-up is damaged", found=f"{place}: {fault['msg']}") from error
        for course in found.courses:
            TumorPlan.from_dict(course.plan.as_dict())  # what only a plan as a whole shows
        numbers = {course.lesion for course in found.courses}
        counts = {len(found.scans), *(len(course.volumes_mm3) for course in found.courses)}
        counts |= {len(entry) for course in found.courses for entry in (course.contrast_hu, course.details)}
        if counts != {len(found.days)} or len(numbers) != len(found.courses) or not numbers:
            raise CaseError(
                "the series of a follow-up is damaged", found="lists that do not match the dates", case=found.case
            )
        return found


@cache
def _reader() -> pydantic.TypeAdapter[Series]:
    return pydantic.TypeAdapter(Series)


@dataclass(frozen=True, eq=False)
class Date:
    """A patient at one date. case: scan and masks, to be written. instances: uint16, the tumors by their numbers.

    rows: a row a tumor of the series, there or not. synthesis: the tumors in the healthy scan, before it was scanned
    again.
    """

    case: Case
    instances: Volume
    rows: list[dict[str, Any]]
    synthesis: Synthesis


def draw_series(case: Case, recipe: FollowRecipe, seed: int) -> Series:
    """The tumors of the recipe in the case, what becomes of them, and the later scans.

    Raises what `insert_tumors` raises (an unknown phase, no organ), and `CaseError` if no tumor found room.
    """
    made = insert_tumors(case, recipe.synthesis, seed)
    if not made.inserted:
        raise CaseError("no tumor to follow found room", case=case.id, found="; ".join(made.notes) or None)
    rng = rng_for(seed, case.id, "follow")
    courses = draw_courses([tumor.plan for tumor in made.inserted], recipe, rng)
    grid = case.read_geometry()
    scans = [Rescan(), *(draw_rescan(grid, recipe.scan, rng) for _ in recipe.days[1:])]
    return Series(case.id, made.scan_digest, recipe.days, tuple(courses), tuple(scans))


def make_date(healthy: Case, series: Series, date: int, allow_modules: Collection[str] = ()) -> Date:
    """A date of a series, from the healthy case it was drawn for; the same voxels always.

    Raises `CaseError` if the scan is another one.
    """
    known = dataclasses.replace(healthy, image=healthy.read_image())
    if scan_digest(known.read_image().reorient("RAS")) != series.scan_digest:
        raise CaseError("the scan is not the one that the series was drawn for", case=healthy.id)
    numbered, how = series.plans_at(date), series.scans[date]
    synthesis = replay_plans(known, [plan for _, plan in numbered], allow_modules=allow_modules)
    noise = Noise.at(known.read_image(), series.courses[0].plan.noise_from_mm)
    ct = synthesis.ct if date == 0 else rescan(synthesis.ct, how, noise)
    numbers = np.zeros(len(numbered) + 1, np.uint16)
    numbers[1:] = [number for number, _ in numbered]
    instances = synthesis.instances()
    instances = rescan_mask(Volume(numbers[instances.data], instances.geometry), how, ct.geometry)
    masks: dict[str, Any] = {}
    organs = dict.fromkeys(course.plan.organ for course in series.courses)
    lesions = {anatomy.organ(organ).lesion: organ for organ in organs}
    for name in dict.fromkeys((*healthy.masks, *lesions)):
        mask = synthesis.moved(known.read_mask(name)) if name in healthy.masks else None
        if name in lesions:
            tumors = synthesis.tumors(lesions[name])
            mask = tumors if mask is None else Volume(mask.data | tumors.data, mask.geometry)
        assert mask is not None
        masks[name] = rescan_mask(mask, how, ct.geometry)
    attributes = {name: value for name, value in healthy.attributes.items() if name != "healthy"}
    attributes |= {"day": series.days[date]}
    case = Case(series.case_at(date), ct, masks, healthy.patient, healthy.dataset, attributes)
    return Date(case, instances, _rows(series, date, synthesis, instances, case), synthesis)


def _rows(series: Series, date: int, synthesis: Synthesis, instances: Volume, case: Case) -> list[dict[str, Any]]:
    counts = np.bincount(instances.data.ravel(), minlength=max(c.lesion for c in series.courses) + 1)
    made = dict(zip((number for number, _ in series.plans_at(date)), synthesis.inserted, strict=True))
    rows = []
    for course in series.courses:
        volume = float(counts[course.lesion]) * instances.geometry.voxel_mm3
        planned = course.volumes_mm3[date]
        tumor = made.get(course.lesion)
        before = course.volumes_mm3[date - 1] if date else planned
        event = "away" if not planned and not before else "gone" if not planned else "" if before else "new"
        rows.append(
            {
                "patient": case.patient,
                "case": case.id,
                "day": series.days[date],
                "lesion": course.lesion,
                "organ": course.plan.organ,
                "fate": course.fate,
                "event": event,
                "planned_ml": planned / 1000,
                "volume_ml": volume / 1000,
                "equivalent_diameter_mm": equivalent_diameter_mm(volume),
                # of the planned volume, before the scan's motion: less than 1 where there was no more room
                "volume_ratio": None if tumor is None else tumor.verdict.scores["volume_ratio"],
                "doubling_days": course.doubling_days,
            }
        )
    return rows
