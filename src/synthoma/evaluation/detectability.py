"""Could a lesion be seen at all? Its contrast beside what the same shape measures elsewhere in its organ.

The detectability index d' of an observer who knows shape and place and averages over both (the non-prewhitening matched
filter of ICRU report 54): the mean HU in the lesion less that of the tissue around it, in units of the spread of this
difference when the same two shapes are laid elsewhere in the organ. So noise, its grain, slices, vessels and all else
that hides a lesion count as they are in this scan. To find it somewhere in an organ, among thousands of places where
noise may look like it, takes a d' of some 4 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import edt
import numpy as np

from synthoma.cases import Case
from synthoma.errors import CaseError, SynthomaError
from synthoma.evaluation.lesion import Components
from synthoma.evaluation.regions import Region
from synthoma.seeds import rng_for
from synthoma.volume import Array, Box, Volume, triple

AROUND_MM = (2.0, 7.0)  # from the lesion's surface: where the tissue around it is measured, off its blurred border
PLACES, LEAST_PLACES = 200, 40  # elsewhere in the organ; with fewer nothing is told
_TRIES = 2000
_INSIDE, _AROUND = 0.95, 0.5  # least share of the shapes that lies in healthy tissue, elsewhere
_LEAST_VOXELS = 10
_FRAME = "RAS"
_SIGMA = 1.4826  # SD of a normal distribution over its median absolute deviation


@dataclass(frozen=True, eq=False)
class Looked:
    """A case whose scan is read once, when it is first asked for."""

    case: Case

    @cached_property
    def _scan(self) -> Volume:
        own = [getattr(source, "path", source) for source in self.case.masks.values()]
        if self.case.image in own:
            raise CaseError("there is a label map and no scan", case=self.case.id)
        return self.case.read_image()

    def told(self, structure: str, lesions: Region, centers_mm: Sequence[Sequence[float]]) -> tuple[list[float], str]:
        """d' of the lesions with these centers; or nothing, and a note that says why.

        Whichever way the files order their axes, it is measured along RAS, so that the places elsewhere are the same.
        """
        if not lesions.blocks:
            return [], ""
        try:
            self._scan.reorient(lesions.geometry.axes).geometry.require_same(lesions.geometry)
            organ = self.case.read_organ(structure.removesuffix("_lesion"))
            self._scan.require_same_grid(organ, "organ's mask")
        except SynthomaError as error:
            return [], f"{structure}: detectability not told: {error.what}"
        found = Components.counted(lesions.reoriented(_FRAME))
        scan, whole = (volume.reorient(_FRAME).data for volume in (self._scan, organ))
        values = detectabilities(scan, whole, found, self.case.id)
        # lesions of one size may have another order along other axes
        return [values[int(np.argmin(np.linalg.norm(found.centers_mm - at, axis=1)))] for at in centers_mm], ""


class _Shape(NamedTuple):
    """A lesion and the shell around it (bool, one box)."""

    box: Box
    lesion: Array
    around: Array


def detectabilities(hu: Array, organ: Array, lesions: Components, case: str = "") -> list[float]:
    """d' of every lesion, largest first; nan where too little of the organ is left to compare with.

    hu (I, J, K): the scan. organ (I, J, K), bool: it holds its lesions. lesions: on the same grid. The places elsewhere
    are drawn at random, the same for the same case.
    """
    healthy = organ.copy()
    for box, labels in lesions.labels:
        healthy[box.slices] &= labels == 0
    ground = np.flatnonzero(healthy)
    shapes = _shapes(lesions)
    return [
        _detectability(hu, healthy, ground, shapes[number], rng_for(0, "detectability", case, *center.tolist()))
        for number, center in enumerate(np.rint(lesions.centers_mm).astype(int), start=1)
    ]


def _shapes(lesions: Components) -> dict[int, _Shape]:
    """Index of a lesion -> its shape."""
    found = {}
    margin = [math.ceil(AROUND_MM[1] / spacing) for spacing in lesions.geometry.spacing_mm]
    for box, labels in lesions.labels:
        for number in np.unique(labels[labels > 0]).tolist():
            own = labels == number
            inner = Box.around(own)
            assert inner is not None
            lesion = np.pad(own[inner.slices], [(by, by) for by in margin])
            distance = edt.edt(~lesion, anisotropy=lesions.geometry.spacing_mm)
            around = (distance > AROUND_MM[0]) & (distance <= AROUND_MM[1])
            found[number] = _Shape(inner.shift(box.lower).grow(margin), lesion, around)
    return found


def _detectability(hu: Array, healthy: Array, ground: Array, shape: _Shape, rng: np.random.Generator) -> float:
    here = _contrast(hu, healthy, shape, shape.box)
    if not math.isfinite(here):
        return math.nan
    elsewhere: list[float] = []
    half = np.array(shape.box.shape) // 2
    centers = ground[rng.integers(0, max(1, len(ground)), _TRIES * bool(len(ground)))]
    for lower in np.stack(np.unravel_index(centers, healthy.shape), axis=1) - half:
        found = _contrast(hu, healthy, shape, Box(triple(lower), triple(lower + shape.box.shape)), elsewhere=True)
        if math.isfinite(found):
            elsewhere.append(found)
        if len(elsewhere) == PLACES:
            break
    if len(elsewhere) < LEAST_PLACES:
        return math.nan
    middle = float(np.median(elsewhere))
    spread = _SIGMA * float(np.median(np.abs(np.array(elsewhere) - middle)))
    return abs(here - middle) / spread if spread > 0 else math.inf


def _contrast(hu: Array, healthy: Array, shape: _Shape, box: Box, elsewhere: bool = False) -> float:
    """Mean HU in the lesion's shape laid into a box less that of healthy tissue around it; nan where it has no room."""
    inside = box.clip(hu.shape)
    part = inside.seen_from(box).slices
    lesion, around = shape.lesion[part], shape.around[part]
    free = healthy[inside.slices]
    if elsewhere and np.count_nonzero(free & lesion) < _INSIDE * np.count_nonzero(shape.lesion):
        return math.nan
    around = around & free
    voxels = np.count_nonzero(around)
    if voxels < _LEAST_VOXELS or (elsewhere and voxels < _AROUND * np.count_nonzero(shape.around)):
        return math.nan
    values = hu[inside.slices]
    return float(values[lesion].mean(dtype=float) - values[around].mean(dtype=float))
