"""From probabilities on a network's grid to organs and tumors on the scan's: masks, scores, lesions.

Probabilities are kept as levels, uint8 in 255ths: half of them, level 128, is where a threshold of 0.5 cuts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synthoma import resampling
from synthoma.cases import Lesion, label_lesions
from synthoma.components import connected_components
from synthoma.volume import Array, Box, Geometry, Volume

FULL, HALF = 255, 128
_SLAB_BYTES = 2**24
_CORE_VOXELS = 5000  # enough for a median


@dataclass(frozen=True)
class Cut:
    """Which voxels are tumor, and which of their parts are lesions.

    threshold: the probability from which a voxel is taken. peak: the one that the surest voxel of a lesion has to
    reach; 0 asks for no more than the threshold. smallest_mm3: the volume of the smallest lesion. least_hu: the HU of
    the darkest lesion; what is darker is water, as in a cyst.
    """

    threshold: float = 0.5
    peak: float = 0.0
    smallest_mm3: float = 0.0
    least_hu: float | None = None


@dataclass(frozen=True)
class ScoredLesion:
    """A predicted lesion and how sure it is: the highest score of its voxels, 0.5 to 1, as evaluation ranks them."""

    lesion: Lesion
    score: float


@dataclass(frozen=True)
class Cyst:
    """What would be a predicted lesion if it were not as dark as water. hu: the median of its surer half."""

    lesion: Lesion
    hu: float


@dataclass(frozen=True, eq=False)
class Tumors:
    """The tumors of one organ on the scan's grid.

    scores: uint8 levels, at least `HALF` exactly in the mask; below it, candidates that were not taken. lesions:
    of the mask, largest first. cysts: left out of it by the cut's least HU, largest first.
    """

    mask: Volume
    scores: Volume
    lesions: tuple[ScoredLesion, ...]
    cysts: tuple[Cyst, ...] = ()


def restore(levels: Array, grid: Geometry, scan: Geometry) -> Array:
    """Levels (uint8) on `grid` interpolated to the scan's voxels, in Fortran order and slab by slab.

    Voxels beyond the outermost ones of `grid` get what these have: a grid of whole voxels ends a little before the
    scan or after it.
    """
    result = np.zeros(scan.shape, np.uint8, order="F")
    step = max(1, _SLAB_BYTES // max(1, scan.shape[0] * scan.shape[1] * 4))
    for k in range(0, scan.shape[2], step):
        slab = scan.crop(Box((0, 0, k), (scan.shape[0], scan.shape[1], min(k + step, scan.shape[2]))))
        part, source = _around(levels, grid, slab)
        if part.any():
            change = np.linalg.inv(source.affine) @ slab.affine
            result[:, :, k : k + step] = np.rint(resampling.linear(part, change, slab.shape, 0.0))
    return result


def find_organ(levels: Array, threshold: float, part_share: float) -> Array:
    """Where an organ is, without parts smaller than `part_share` of its largest one."""
    mask = np.asarray(levels >= least_level(threshold))
    box = Box.around(mask)
    if box is None or part_share <= 0:
        return mask
    labels, voxels = _components(mask[box.slices])
    kept = voxels >= part_share * voxels[1:].max()
    kept[0] = False
    mask[box.slices] = kept[labels]
    return mask


def near(organ_mask: Array, geometry: Geometry, margin_mm: float) -> tuple[Array, Box]:
    """Voxels within `margin_mm` of an organ or enclosed by it, in a box outside which there are none."""
    import edt

    whole = Box.around(organ_mask)
    if whole is None:
        return np.zeros((0, 0, 0), bool), Box((0, 0, 0), (0, 0, 0))
    margin = [int(np.ceil(margin_mm / spacing)) for spacing in geometry.spacing_mm]
    box = whole.grow(margin).clip(organ_mask.shape)
    labels, _ = _components(np.pad(~organ_mask[box.slices], 1, constant_values=True), connectivity=6)
    filled = labels[1:-1, 1:-1, 1:-1] != labels[0, 0, 0]
    if margin_mm <= 0:
        return filled, box
    distance = edt.edt(~filled, anisotropy=geometry.spacing_mm)
    return np.asarray(distance <= margin_mm + 1e-5), box


def find_tumors(
    levels: Array,
    geometry: Geometry,
    organ_name: str,
    cut: Cut,
    candidates: float,
    case: str = "",
    hu: Volume | None = None,
) -> Tumors:
    """Tumors where `levels` reach the threshold, and fainter candidates from the probability `candidates` on.

    Scores in lesions are probabilities bent so that the threshold lies at one half. Parts that are too small or not
    sure enough are no lesions: outside of lesions it is the peak that lies there, so that what is surer ranks higher;
    candidates that are too small go altogether. That a surer voxel keeps the fainter ones around it is the hysteresis
    of Canny (1986), doi 10.1109/TPAMI.1986.4767851. hu: the scan, on any grid, for a cut that has a least HU; parts
    that are darker are cysts and no lesions.
    """
    least = int(np.ceil(cut.smallest_mm3 / geometry.voxel_mm3 - 1e-9))
    peak = max(cut.peak, cut.threshold)
    scores = bend(peak, candidates)[levels]
    _drop(scores, scores >= 1, 0, least)
    taken = np.asarray(levels >= least_level(cut.threshold))
    _drop(taken, taken, False, least, levels >= least_level(peak) if peak > cut.threshold else None)
    cysts: tuple[Cyst, ...] = ()
    if cut.least_hu is not None and hu is not None:
        dark = _take_water(taken, levels, geometry, hu, cut.least_hu)
        left, numbers, place = label_lesions(dark, organ_name, case)
        told = dict(core_hu(numbers, place, levels, geometry, hu))
        cysts = tuple(Cyst(lesion, told[lesion.index]) for lesion in left)
    np.minimum(scores, HALF - 1, out=scores)
    scores[taken] = bend(cut.threshold, candidates)[levels[taken]]
    mask = Volume(taken, geometry)
    lesions, labels, box = label_lesions(mask, organ_name, case)
    scored = []
    for lesion in lesions:
        inside = labels[lesion.box.seen_from(box).slices] == lesion.index
        scored.append(ScoredLesion(lesion, float(scores[lesion.box.slices][inside].max()) / FULL))
    return Tumors(mask, Volume(scores, geometry), tuple(scored), cysts)


def core_hu(labels: Array, box: Box, levels: Array, geometry: Geometry, hu: Volume) -> Iterator[tuple[int, float]]:
    """Each component's label and the median HU of its surer half, which its border has no part in.

    labels: on a box of the grid, nothing for none of them; levels: on the whole grid. hu: the scan on any grid, whose
    nearest voxels are taken.
    """
    voxels = np.argwhere(labels)
    numbers = labels[tuple(voxels.T)]
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    for part in parts if len(voxels) else ():
        own = voxels[part] + np.asarray(box.lower)
        sure = levels[tuple(own.T)]
        core = own[sure >= np.median(sure)]
        core = core[:: max(1, len(core) // _CORE_VOXELS)]
        at = np.rint(hu.geometry.to_ijk(geometry.to_mm(core))).astype(int)
        inside = np.clip(at, 0, np.asarray(hu.data.shape) - 1)
        yield int(numbers[part[0]]), float(np.median(hu.data[tuple(inside.T)]))


def bend(threshold: float, candidates: float) -> Array:
    """The score (256,) of every level: below `candidates` 0, at the threshold `HALF`, linear on either side of it."""
    cut = least_level(threshold)
    table = np.interp(np.arange(256), [0, cut - 1, cut, FULL], [0, HALF - 1, HALF, FULL])
    table[: min(cut, least_level(candidates))] = 0
    return np.asarray(np.rint(table).astype(np.uint8))


def least_level(probability: float) -> int:
    """The lowest level that is at least this probability; 1 for 0."""
    return max(1, int(np.ceil(probability * FULL - 1e-6)))


def _around(levels: Array, grid: Geometry, slab: Geometry) -> tuple[Array, Geometry]:
    """The levels around a slab, as float32, and where they lie: a voxel further than the grid, if it reaches there."""
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in slab.shape])).reshape(3, -1).T
    at = grid.to_ijk(slab.to_mm(corners))
    size = np.asarray(levels.shape)
    lower = np.clip(np.floor(at.min(axis=0)).astype(int) - 1, -1, size - 1)
    upper = np.clip(np.ceil(at.max(axis=0)).astype(int) + 2, lower + 2, size + 1)
    box = Box(tuple(lower.tolist()), tuple(upper.tolist()))
    inside = box.clip(levels.shape)
    beyond = [
        (i - low, high - j) for low, i, j, high in zip(box.lower, inside.lower, inside.upper, box.upper, strict=True)
    ]
    part = levels[inside.slices].astype(np.float32, order="F")
    return np.pad(part, beyond, mode="edge"), grid.crop(box)


def _drop(values: Array, mask: Array, to: int, least_voxels: int, sure: Array | None = None) -> None:
    """Puts components of `mask` with fewer voxels, or without one that is `sure`, to `to` in `values`, in place."""
    box = Box.around(mask) if least_voxels > 1 or sure is not None else None
    if box is None:
        return
    labels, voxels = _components(mask[box.slices])
    dropped = voxels < least_voxels
    if sure is not None:
        surest = np.zeros(len(voxels), bool)
        surest[labels[sure[box.slices]]] = True
        dropped |= ~surest
    dropped[0] = False
    if dropped.any():
        values[box.slices][dropped[labels]] = to


def _take_water(mask: Array, levels: Array, geometry: Geometry, hu: Volume, least_hu: float) -> Volume:
    """Takes components whose core is darker than `least_hu` out of a mask, in place; a mask of these."""
    taken = np.zeros_like(mask)
    box = Box.around(mask)
    if box is not None:
        labels, _ = _components(mask[box.slices])
        dark = [number for number, core in core_hu(labels, box, levels, geometry, hu) if core < least_hu]
        taken[box.slices] = np.isin(labels, dark)
        mask &= ~taken
    return Volume(taken, geometry)


def _components(mask: Array, connectivity: Literal[6, 18, 26] = 26) -> tuple[Array, Array]:
    """Labels of the connected components, and how many voxels each label has, 0 included."""
    import cc3d

    labels = np.ascontiguousarray(connected_components(mask, connectivity))
    return labels, cc3d.statistics(labels)["voxel_counts"].astype(np.int64)
