"""Blocks of tissue as patients: no anatomy to draw, every share known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthoma.phantom.anatomy.abdomen import Abdomen
from synthoma.phantom.anatomy.patient import draw_patient
from synthoma.phantom.anatomy.tissues import TISSUE_ID, weights_of
from synthoma.phantom.disease.sites import TumorBed
from synthoma.volume import Geometry


def block(tissue: str = "liver", spacing_mm: float = 2.0, size_mm: float = 100.0, thick: int = 1) -> Abdomen:
    """A cube of one tissue around a point in the middle of the patient's liver; `thick` fine voxels to a slice."""
    patient = draw_patient(1)
    cells = int(size_mm / spacing_mm)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm * thick, 1.0])
    middle = patient.to_world(np.array([[60.0, 0.0, 130.0]]))[0]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array([cells, cells, cells // thick]) - 1) / 2)
    fine = (cells, cells, cells // thick * thick)
    main = np.full(fine, TISSUE_ID[tissue], np.uint8)
    geometry = Geometry((cells, cells, cells // thick), affine)
    return Abdomen(patient, geometry, (1, 1, thick), main, main.copy(), np.full(fine, 255, np.uint8))


def with_half(abdomen: Abdomen, tissue: str) -> Abdomen:
    """The block with another tissue in its upper half along x."""
    main = abdomen.main.copy()
    main[main.shape[0] // 2 :] = TISSUE_ID[tissue]
    return replace(abdomen, main=main, under=main.copy())


def middle_mm(abdomen: Abdomen) -> tuple[float, float, float]:
    x, y, z = abdomen.fine.to_mm((np.asarray(abdomen.fine.shape) - 1) / 2).tolist()
    return x, y, z


def site_of(abdomen: Abdomen, phase: str = "portal") -> TumorBed:
    return TumorBed(abdomen, np.asarray(weights_of(phase)))
