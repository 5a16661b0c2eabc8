"""A patient's lesions over all dates: figures, links, growth and response, as plain data."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import files
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.inputs import Reads
from synthoma.measurement.lesion import Labeled, Measured, measure_case
from synthoma.measurement.linking import Link, link_lesions
from synthoma.measurement.response import choose_targets, classify, doubling_days, growth_per_day
from synthoma.tables import plain


@dataclass(frozen=True, eq=False)
class Patient:
    """The scans of one patient in the order of their dates. days: of each scan since the first, nan if not known."""

    id: str
    cases: tuple[Case, ...]
    days: tuple[float, ...]

    def reads(self) -> Reads:
        """What all of its cases are made from."""
        first, *others = [case.reads() for case in self.cases]
        for other in others:
            first = first + other
        return first


def patients_of(cases: Sequence[Case]) -> list[Patient]:
    """The patients of a data set, in the order met, their scans by date.

    A scan's date is its attribute `day` (a number) or `date` (2026-11-29), else what its DICOM files say. Scans
    without a date stay in the order of the data set.
    """
    by_patient: dict[str, list[Case]] = {}
    for case in cases:
        by_patient.setdefault(case.patient, []).append(case)
    found = []
    for patient, scans in by_patient.items():
        days = [_day_of(case) for case in scans]
        if len(scans) > 1 and not any(math.isnan(day) for day in days):
            order = sorted(range(len(scans)), key=lambda n: days[n])
            scans, days = [scans[n] for n in order], [days[n] - days[order[0]] for n in order]
        found.append(Patient(patient, tuple(scans), tuple(days)))
    return found


def _day_of(case: Case) -> float:
    """Days since some day; nan for a scan without a date. `CaseError` for a date that is none."""
    day, date = case.attributes.get("day"), case.attributes.get("date")
    if day in (None, "") and date in (None, "") and isinstance(case.image, Path):
        date = files.scan_date(case.image)
    try:
        if day not in (None, ""):
            return float(day)
        if date not in (None, ""):
            return float(datetime.date.fromisoformat(str(date)).toordinal())
    except ValueError as error:
        raise CaseError(
            "the date of the scan cannot be read", case=case.id, found=str(day or date),
            expected="a day as a number, or a date like 2026-11-29",
        ) from error  # fmt: skip
    return math.nan


def measure_patient(patient: Patient) -> dict[str, Any]:
    """Figures of every lesion at every date, links between dates and the response, as JSON data.

    Scans of one date are measured each by itself: only scans with ascending, known dates are linked; a note says so
    where they are not. Raises `CaseError` for a scan without a tumor mask.
    """
    dates = [measure_case(case) for case in patient.cases]
    notes = _notes(patient, dates)
    linked = _ascends(patient.days)
    links = _links(dates) if linked or len(dates) == 1 else []
    result = {
        "patient": patient.id,
        "cases": [case.id for case in patient.cases],
        "days": list(patient.days),
        "lesions": [
            {"case": case.id, "day": day, "lesion": _number(links, date, lesion), **_flat(lesion)}
            for date, (case, day) in enumerate(zip(patient.cases, patient.days, strict=True))
            for labeled in dates[date]
            for lesion in labeled.lesions
        ],
        "links": [dataclasses.asdict(link) for link in links] if linked else [],
        "growth": _growth(links, dates, patient.days) if linked else [],
        "response": _response(links, dates) if linked else [],
        "notes": notes + [note for link in links for note in _events(link, patient)],
    }
    return _as_json(result)  # type: ignore[no-any-return]


def _as_json(value: Any) -> Any:
    """The same with None for numbers that are none."""
    if isinstance(value, dict):
        return {key: _as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return plain(value)


def _ascends(days: Sequence[float]) -> bool:
    return len(days) > 1 and all(later > earlier for earlier, later in zip(days, days[1:], strict=False))


def _notes(patient: Patient, dates: Sequence[Sequence[Labeled]]) -> list[str]:
    notes = [
        f"{case.id}: no mask of the {organ.organ} to relate its lesions to"
        for case, labeled in zip(patient.cases, dates, strict=True)
        for organ in labeled
        if organ.organ_center_mm is None and organ.lesions
    ]
    if len(patient.cases) > 1 and any(math.isnan(day) for day in patient.days):
        notes.append(f"{patient.id}: {len(patient.cases)} scans without dates, so nothing is compared")
    elif len(patient.cases) > 1 and not _ascends(patient.days):
        notes.append(f"{patient.id}: two scans of one date, so nothing is compared")
    return notes


def _links(dates: Sequence[Sequence[Labeled]]) -> list[Link]:
    organs = dict.fromkeys(labeled.organ for date in dates for labeled in date)
    links: list[Link] = []
    for organ in organs:
        series = [next((labeled for labeled in date if labeled.organ == organ), None) for date in dates]
        links += link_lesions(series, 1)
    return links


def _number(links: Sequence[Link], date: int, lesion: Measured) -> int:
    """The number of a lesion over dates; its index where nothing is linked."""
    for link in links:
        if link.organ == lesion.organ and lesion.index in link.at[date]:
            return link.number
    return lesion.index


def _flat(lesion: Measured) -> dict[str, Any]:
    """A lesion as one row."""
    row = dataclasses.asdict(lesion)
    lines = row.pop("diameters")
    lines.pop("slice_index")
    return {**row, **lines}


def _lesions_at(link: Link, dates: Sequence[Sequence[Labeled]], date: int) -> list[Measured]:
    return [
        lesion
        for labeled in dates[date]
        for lesion in labeled.lesions
        if labeled.organ == link.organ and lesion.index in link.at[date]
    ]


def _growth(links: Sequence[Link], dates: Sequence[Sequence[Labeled]], days: Sequence[float]) -> list[dict[str, Any]]:
    """A row a lesion and date: size, and its growth since the date before at which it was there."""
    rows: list[dict[str, Any]] = []
    for link in links:
        before: tuple[float, float] | None = None
        for date, day in enumerate(days):
            lesions = _lesions_at(link, dates, date)
            volume = sum(lesion.volume_ml for lesion in lesions)
            row: dict[str, Any] = {
                "organ": link.organ,
                "lesion": link.number,
                "day": day,
                "event": link.event[date],
                "volume_ml": volume,
                "longest_mm": sum(lesion.diameters.longest_mm for lesion in lesions),
                "growth_per_day": math.nan,
                "doubling_days": math.nan,
            }
            if before is not None:
                row["growth_per_day"] = growth_per_day(before[1], volume, day - before[0])
                row["doubling_days"] = doubling_days(before[1], volume, day - before[0])
            if lesions:
                before = day, volume
            rows.append(row)
    return rows


def _response(links: Sequence[Link], dates: Sequence[Sequence[Labeled]]) -> list[dict[str, Any]]:
    """A row a date: targets, their sum, the category."""
    sizes = np.array(
        [[sum(l.diameters.longest_mm for l in _lesions_at(link, dates, date)) for date in range(len(dates))]
         for link in links]
    ).reshape(len(links), len(dates))  # fmt: skip
    targets = choose_targets([(link.organ, float(size)) for link, size in zip(links, sizes[:, 0], strict=True)])
    sums = [float(sizes[targets, date].sum()) for date in range(len(dates))]
    rows = []
    for date in range(len(dates)):
        others = [n for n in range(len(links)) if n not in targets]
        new = any("new" in link.event[1 : date + 1] for link in links)
        left = any(sizes[n, date] > 0 for n in others)
        found = classify(sums[: date + 1], new and date > 0, left)
        row = dataclasses.asdict(found)
        if date == 0:
            row |= {"category": "" if targets else "NM", "reason": "first date"}
        rows.append({"targets": [f"{links[n].organ} {links[n].number}" for n in targets], **row})
    return rows


def _events(link: Link, patient: Patient) -> list[str]:
    """What happened to a lesion beside growing, in words."""
    told = {"new": "is new", "gone": "is gone", "split": "has split into {}"}
    notes = []
    for date, event in enumerate(link.event):
        words = told.get(event, f"has {event}" if event.startswith("merged") else "")
        if words:
            notes.append(
                f"{patient.cases[date].id}: {link.organ} lesion {link.number} {words.format(len(link.at[date]))}"
            )
    return notes
