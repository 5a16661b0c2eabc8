"""What a patient has: her tumors, her plaques, and what only looks like a tumor, one clear of the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.cases import equivalent_diameter_mm
from synthoma.phantom.anatomy.abdomen import Abdomen
from synthoma.phantom.anatomy.ageing import plaques
from synthoma.phantom.disease.distractors import draw_distractors, draw_duct, draw_plaques
from synthoma.phantom.disease.kinds import HOMES, KINDS, Home
from synthoma.phantom.disease.natural import Seedling, grow
from synthoma.phantom.disease.sites import TumorBed
from synthoma.phantom.findings import Finding, half_filled
from synthoma.phantom.hospitals import Visit

Array = NDArray[Any]

_TRIES = 12
_ALIKE = 0.85  # of a tumor's shade, the part that all tumors of a patient share
_CLEAR = 0.9  # of the sum of radii, how far findings stay apart


def draw_disease(abdomen: Abdomen, visit: Visit) -> tuple[Finding, ...]:
    """All findings of a visit, benign ones first. A tumor too small for the scan to show (no voxel is half filled by
    it) is left out, and tried again larger."""
    site = TumorBed(abdomen, np.asarray(visit.scanner.weights))
    tumors = _draw_tumors(abdomen, visit, site)
    rng = abdomen.patient.rng("distractors")
    benign = draw_distractors(site, visit.distractors, rng)
    benign += draw_plaques(site, plaques(abdomen.patient, visit.age), rng)
    benign += [duct for tumor in tumors if (duct := draw_duct(site, tumor, KINDS[tumor.kind].duct)) is not None]
    return (*benign, *tumors)


def _draw_tumors(abdomen: Abdomen, visit: Visit, site: TumorBed) -> list[Finding]:
    if visit.kind is None:
        return []
    kind = KINDS[visit.kind]
    home = HOMES[kind.organ]
    patient, tumors = abdomen.patient, []
    shared = patient.rng("shade").normal(size=3)
    for number, diameter in enumerate(visit.diameters_mm):
        rng = patient.rng("tumor", number)
        shade = _ALIKE * shared + np.sqrt(1 - _ALIKE**2) * rng.normal(size=3)
        places = site.places(rng, kind.starts or home.tissues, home.lower, home.upper)
        for attempt, center in enumerate(_fit(site, home, places, diameter / 2)[:_TRIES]):
            seed = int(rng.integers(1 << 60))
            size = diameter * (1 + 0.08 * attempt)
            seedling = Seedling(visit.kind, _triple(center), size, _triple(shade), seed)
            tumor = _seen(grow(seedling, abdomen, site), abdomen)
            if tumor is not None:
                site.take(center, size / 2)
                tumors.append(tumor)
                break
    return tumors


def _fit(site: TumorBed, home: Home, places: Array, radius_mm: float) -> list[Array]:
    """Of the places, those clear of other findings and with enough of the organ around."""
    clear = [place for place in places[:200] if site.free(place, _CLEAR * radius_mm)]
    return [place for place in clear if site.room(place, radius_mm / 2, home.tissues) >= home.room]


def _seen(tumor: Finding | None, abdomen: Abdomen) -> Finding | None:
    """The tumor with its size in the scan; None if no voxel is half filled by it."""
    if tumor is None:
        return None
    voxels = int(half_filled([tumor], abdomen.fine.shape, abdomen.parts).sum())
    if not voxels:
        return None
    diameter = round(equivalent_diameter_mm(voxels * abdomen.geometry.voxel_mm3), 1)
    return dataclasses.replace(tumor, facts={**tumor.facts, "diameter_mm": diameter})


def _triple(values: Sequence[float] | Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
