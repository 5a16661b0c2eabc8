"""How far the places of an organ lie from its vessels."""

from __future__ import annotations

import edt
import numpy as np
from scipy import ndimage

from synthoma.synthesis.insertion.scene import Scene
from synthoma.synthesis.location import VESSELS, OrganModel
from synthoma.volume import Array, Box, Floats

_AROUND_MM = 20.0  # of the organ, where vessels are looked for
_BRIGHT_HU, _BRIGHT_MM = 25.0, 5.0  # a vessel that nobody annotated: so much brighter than its organ, over this length


def vessel_distances_mm(scene: Scene, organ: OrganModel) -> Floats:
    """Distance of each of the organ's cells to the surface of the nearest vessel, 0 inside one; inf if there is none.

    Annotated vessels; where none is annotated, what is bright inside the organ.
    """
    spacing = scene.geometry.spacing_mm
    index = np.rint(scene.geometry.to_ijk(organ.grid.to_mm(organ.cells.astype(float)))).astype(int)
    margin = [int(np.ceil(_AROUND_MM / step)) for step in spacing]
    lower, upper = index.min(axis=0), index.max(axis=0) + 1
    box = Box((int(lower[0]), int(lower[1]), int(lower[2])), (int(upper[0]), int(upper[1]), int(upper[2])))
    box = box.grow(margin).clip(scene.geometry.shape)
    annotated = [scene.masks[name].on(box) for name in VESSELS if name in scene.masks]
    vessels: Array = np.logical_or.reduce(annotated) if annotated else _bright(scene, organ, box)
    if not vessels.any():
        return np.full(len(index), np.inf, np.float32)
    away = edt.edt(np.ascontiguousarray(~vessels), anisotropy=spacing)
    inside = np.clip(index - box.lower, 0, np.asarray(box.shape) - 1)
    # from voxel to voxel: the surface lies half of one nearer
    return np.asarray(np.maximum(away[tuple(inside.T)] - min(spacing) / 2, 0), np.float32)


def _bright(scene: Scene, organ: OrganModel, box: Box) -> Array:
    size = [max(1, round(_BRIGHT_MM / step)) for step in scene.geometry.spacing_mm]
    smooth = ndimage.uniform_filter(scene.hu[box.slices].astype(np.float32), size)
    return np.asarray((smooth > organ.base_hu + _BRIGHT_HU) & organ.crop(box).data)
