"""Masks whose header was lost: what can be done about them, told first, and done only when asked.

A mask that only orders or turns the scan's axes otherwise needs no mending: it is read as it lies. Here are masks with
the scan's numbers of voxels and a header that says nothing of its own (1 mm along every axis), or that differs from the
scan's by its origin only. They are taken to be stored voxel for voxel as the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from synthoma import files
from synthoma.cases import Case, Label
from synthoma.errors import GeometryError
from synthoma.volume import Geometry, Volume

TOLERANCE_MM = 0.1  # between corners, up to which a mask lies where its scan does


@dataclass(frozen=True)
class Rehung:
    """A mask file with the header of its scan. values: of a label map; None takes whatever is not 0."""

    path: Path
    scan: Path
    values: tuple[int, ...] | None = None

    def __call__(self) -> Volume:
        labels, geometry = files.read_labels(self.path), files.read_geometry(self.scan)
        if labels.geometry.shape != geometry.shape:
            raise GeometryError(f"{self.path.name} is another file now", found=str(labels.geometry))
        inside = labels.data != 0 if self.values is None else np.isin(labels.data, self.values)
        return Volume(np.asfortranarray(inside), geometry)


@dataclass(frozen=True)
class Mending:
    """What would be done to a mask, in words, and the mask so mended; None where nothing can be done."""

    structure: str
    told: str
    mended: Rehung | None


def find_mendings(case: Case) -> Iterator[Mending]:
    """The masks of a case that do not lie on its scan; reads headers only.

    Masks that are made when asked for, and those of a DICOM scan, are not looked at.
    """
    if not isinstance(case.image, Path) or not case.image.is_file() or not isinstance(case.masks, dict):
        return
    scan = files.read_geometry(case.image)
    for structure, source in case.masks.items():
        path = source.path if isinstance(source, Label) else source
        if not isinstance(path, Path) or not path.is_file() or files.suffix_of(path) == files.SEGMENTS_SUFFIX:
            continue
        stored = files.read_geometry(path, labels=True)
        if scan.alignment(stored, TOLERANCE_MM) is not None:
            continue
        why = _lost(stored, scan)
        if why:
            values = source.values if isinstance(source, Label) else None
            told = f"{why}: gets the scan's header, voxel for voxel"
            yield Mending(structure, told, Rehung(path, case.image, values))
        else:
            yield Mending(structure, f"lies elsewhere and is left as it is: {stored}, the scan {scan}", None)


def mend(case: Case) -> Case:
    """The case with every mask mended that can be; its attributes say which (`mended`)."""
    found = {one.structure: one.mended for one in find_mendings(case) if one.mended is not None}
    if not found:
        return case
    return replace(case, masks={**case.masks, **found}, attributes={**case.attributes, "mended": sorted(found)})


def _lost(stored: Geometry, scan: Geometry) -> str:
    """Why the header of a mask is taken for lost; empty if it is not."""
    if stored.shape != scan.shape:
        return ""
    if np.allclose(np.abs(stored.affine[:3, :3]), np.eye(3), atol=1e-6):
        return "1 mm along every axis, as of a lost header"
    if np.allclose(stored.affine[:3, :3], scan.affine[:3, :3], atol=1e-4):
        apart = stored.corner_distance_mm(scan)
        return f"its origin is {apart:.2f} mm off"
    return ""
