"""A case on the training grid: its masks, one map of labels, its tumors, and voxels to center patches on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.cases import Case, Lesion, label_lesions
from synthoma.seeds import rng_for
from synthoma.volume import Array, Box, Geometry, Volume, triple

Spacing = float | Sequence[float] | None
# Vessels run through organs: painted over them they would punch holes into their masks.
LEFT_OUT = ("hepatic_vessel", "portal_vein_and_splenic_vein", "celiac_trunk")
ORGAN_POINTS, LESION_POINTS, BODY_POINTS = 2000, 32, 2000
BODY_HU = -200
IGNORED = 255  # in a map of labels: voxels of `anatomy.IGNORE`, which nobody annotated


def training_grid(scan: Geometry, spacing_mm: Spacing) -> Geometry:
    """The scan's field of view with axes as near to RAS+ as its own allow; an oblique scan stays oblique.

    spacing_mm: one number or three; 0 or None keeps the scan's own.
    """
    grid = scan.reoriented("RAS")
    return grid.resampled(spacing_mm) if spacing_mm else grid


class GridMasks(Mapping[str, Volume]):
    """A case's masks on the training grid; kept as crops, and made whole when asked for."""

    def __init__(self, case: Case, scan: Geometry, grid: Geometry) -> None:
        self.grid = grid
        self.crops: dict[str, tuple[Box, Array] | None] = {}
        for name, mask in case.each_mask():
            with case.named():
                scan.require_same(mask.geometry, f"{name} mask")
            self.crops[name] = _on_grid(mask, grid)

    def __getitem__(self, name: str) -> Volume:
        data = np.zeros(self.grid.shape, bool, order="F")
        crop = self.crops[name]
        if crop is not None:
            data[crop[0].slices] = crop[1]
        return Volume(data, self.grid)

    def __iter__(self) -> Iterator[str]:
        return iter(self.crops)

    def __len__(self) -> int:
        return len(self.crops)


def paint(masks: Mapping[str, Volume], grid: Geometry) -> NDArray[np.uint8]:
    """One map of `anatomy.STRUCTURES` ids: organs over the rest, tumors over organs, vessels in organs left out.

    masks: bool, on `grid`.

    A kidney that is annotated as a whole gets the id of its first part. What nobody annotated (`anatomy.IGNORE`) is
    `IGNORED`, over everything else.
    """
    ids = dict(anatomy.STRUCTURES)
    ids |= {organ.name: ids[organ.parts[0]] for organ in anatomy.ORGANS.values() if organ.name not in ids}
    organs = {name for organ in anatomy.ORGANS.values() for name in organ.structures}
    known = [name for name in masks if name in ids and name not in LEFT_OUT]
    known.sort(key=lambda name: (anatomy.is_lesion(name), name in organs, ids[name], name))
    ids[anatomy.IGNORE] = IGNORED
    labels = np.zeros(grid.shape, np.uint8, order="F")
    for name in [*known, *(name for name in masks if name == anatomy.IGNORE)]:
        if isinstance(masks, GridMasks):
            crop = masks.crops[name]
            if crop is not None:
                labels[crop[0].slices][crop[1]] = ids[name]
        else:
            labels[masks[name].data] = ids[name]
    return labels


def find_places(
    case: str, hu: Array, labels: NDArray[np.uint8], grid: Geometry
) -> tuple[list[Lesion], dict[str, Array]]:
    """The real tumors, and by place (as `Entry.points` names them) a sample of voxels (n, 3)."""
    lesions: list[Lesion] = []
    places = {}
    for organ in anatomy.ORGANS.values():
        own = [anatomy.STRUCTURES[part] for part in organ.parts]
        places[organ.name] = _sample(np.isin(labels, own), ORGAN_POINTS, case, organ.name)
        found, ranks, box = label_lesions(Volume(labels == anatomy.STRUCTURES[organ.lesion], grid), organ.name, case)
        for lesion in found:
            lesions.append(lesion)
            inside = lesion.box.seen_from(box)
            place = f"{organ.lesion} {lesion.index}"
            points = _sample(ranks[inside.slices] == lesion.index, LESION_POINTS, case, place)
            places[place] = points + np.asarray(lesion.box.lower, np.int16)
    places["body"] = _sample((hu > BODY_HU) & (labels != IGNORED), BODY_POINTS, case, "body")
    return lesions, places


def _on_grid(mask: Volume, grid: Geometry) -> tuple[Box, Array] | None:
    """A bool mask on a grid of parallel axes, as a box of it and what is in there; None if nothing is."""
    mask = mask.reorient("RAS")
    box = Box.around(mask.data)
    if box is None:
        return None
    crop = mask.crop(box.grow(2).clip(mask.data.shape))
    corners = grid.to_ijk(crop.geometry.to_mm(np.array([[-0.5] * 3, np.asarray(crop.data.shape) - 0.5])))
    lower, upper = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
    target = Box(triple(lower), triple(upper)).clip(grid.shape)
    if mask.geometry.matches(grid, 1e-3):  # the scan's own spacing
        return target, mask.data[target.slices]
    inside = resample_mask(crop, grid.crop(target)).data
    tight = Box.around(inside)
    if tight is None:  # thinner than a voxel of the grid
        return None
    return tight.shift(target.lower), np.asfortranarray(inside[tight.slices])


def resample_mask(mask: Volume, grid: Geometry) -> Volume:
    """A bool mask on a grid of parallel axes: nearest where voxels get smaller, by majority where they get larger.

    Majority between thick slices would shave off the ends of small tumors: a tenth of the diameter of one that
    two slices show.
    """
    own = mask.geometry
    steps, starts = np.ones(3), np.zeros(3)
    change = np.linalg.inv(own.affine) @ grid.affine
    finer = np.diag(change)[:3] <= 1
    steps[finer], starts[finer] = np.diag(change)[:3][finer], change[:3, 3][finer]
    between = own.affine @ np.vstack([np.column_stack([np.diag(steps), starts]), [0, 0, 0, 1]])
    shape = triple(np.where(finer, grid.shape, own.shape))
    return mask.to(Geometry(shape, between)).to(grid, labels="majority")


def _sample(mask: NDArray[np.bool_], most: int, case: str, place: str) -> NDArray[np.int16]:
    """Some voxels (n, 3) of a mask, each at most once, in random order."""
    at = np.flatnonzero(mask.T)
    if at.size > most:
        at = at[rng_for(0, "points", case, place).choice(at.size, most, replace=False)]
    k, j, i = np.unravel_index(at, mask.T.shape)
    return np.stack([i, j, k], axis=-1).astype(np.int16)
