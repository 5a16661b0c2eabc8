"""What a tumor may fill: its organ, a margin for what its annotator left out, and fat; never other structures."""

from __future__ import annotations

from dataclasses import replace

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.synthesis.location import FAT_HU
from synthoma.synthesis.tumor import Tumor
from synthoma.volume import Box, Geometry, Volume

_MASK_MARGIN_MM = 2.5


def free_voxels(ct: Volume, organ: Volume, box: Box) -> NDArray[np.bool_]:
    """The voxels of a box that a tumor of an organ may fill: no muscle, bowel, bone, gas or lung, annotated or not.

    organ: bool; its mask, whole or cropped.
    """
    inside = _on_box(organ, ct.geometry, box)
    margin = inside.copy(order="K")
    for axis, spacing in enumerate(ct.geometry.spacing_mm):
        margin = _widened(margin, axis, round(_MASK_MARGIN_MM / spacing))
    # over 3 voxels, so that noise makes no holes; sums of whole HU
    local = np.rint(ct.data[box.slices]).astype(np.int32)
    for axis in range(3):
        local = _sum_of_three(local, axis)
    return np.asarray(margin | ((local > 27 * FAT_HU[0]) & (local < 27 * FAT_HU[1])))


def confine(tumor: Tumor, free: NDArray[np.bool_]) -> Tumor:
    """The tumor where only `free` voxels (bool, box) may change: one piece, its cut softened by one voxel.

    Outside `free` alpha is 0; the largest piece that is left stays.
    """
    if not (tumor.alpha * ~free).any():
        return tumor
    # transposed: these libraries want the last axis fastest
    alpha = tumor.alpha.T * ndimage.uniform_filter(free.T.astype(np.float32), 3) * free.T
    pieces = cc3d.connected_components(np.ascontiguousarray(alpha >= 0.5), connectivity=6)
    if pieces.max() > 1:
        largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        alpha *= ndimage.binary_dilation(largest, np.ones((3, 3, 3)), iterations=2)
    return replace(tumor, alpha=np.asarray(alpha, np.float32).T)


def _on_box(organ: Volume, geometry: Geometry, box: Box) -> NDArray[np.bool_]:
    """A mask, whole or cropped, on a box of the scan's grid; False where it does not reach."""
    corner = np.round(geometry.to_ijk(organ.geometry.to_mm((0, 0, 0)))).astype(int)
    result = np.zeros(box.shape, bool, order="F")
    if shared := box.overlap(Box.whole(organ.data.shape).shift(corner.tolist())):
        here, there = shared
        result[here] = organ.data[there]
    return result


def _widened(mask: NDArray[np.bool_], axis: int, voxels: int) -> NDArray[np.bool_]:
    """The mask dilated along one axis."""
    source, result = np.moveaxis(mask, axis, 0), mask.copy(order="K")
    target = np.moveaxis(result, axis, 0)
    for step in range(1, min(voxels, len(source) - 1) + 1):
        target[step:] |= source[:-step]
        target[:-step] |= source[step:]
    return result


def _sum_of_three(values: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
    """Each value and its two neighbors along an axis; the outermost are repeated."""
    source, result = np.moveaxis(values, axis, 0), values.copy(order="K")
    target = np.moveaxis(result, axis, 0)
    target[1:] += source[:-1]
    target[:-1] += source[1:]
    target[0] += source[0]
    target[-1] += source[-1]
    return result
