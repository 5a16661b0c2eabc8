"""Hand-made rules: a shape with the statistics of real lesions, tissue in HU, and the scan's own grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.synthesis.bodies import shape, wall
from synthoma.synthesis.generators.rules import texture
from synthoma.synthesis.insertion import blending
from synthoma.synthesis.location import FAT_HU
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Box, Geometry, Volume

_MASK_MARGIN_MM = 2.5


class Rules:
    """The `rules` generator."""

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan` on the grid of `ct`.

        organ: bool; its mask, whole or cropped, as far as the tumor reaches. Outside the organ the tumor replaces
        fat, but no muscle, bowel, bone, gas or lung, annotated or not. Raises `CaseError` if nothing of the tumor
        lies in the scan.
        """
        inside = plan.rim_hu != 0 or plan.core_hu != 0
        if plan.form == "wall":
            body = wall.wall_body(plan, ct.geometry, organ, inside)
        else:
            body = shape.mass(plan, ct.geometry, inside)
        hu = texture.tissue(plan, ct.geometry, body)
        box = body.box.clip(ct.data.shape)
        if 0 in box.shape:
            raise CaseError(f"a tumor planned at {plan.center_mm} mm lies outside the scan")
        part = tuple(
            slice(low - start, high - start)
            for low, high, start in zip(box.lower, box.upper, body.box.lower, strict=True)
        )
        tumor = Tumor(plan, box, body.alpha[part], hu[part])
        tissue = _on_box(organ, ct.geometry, box)
        if not (tumor.alpha * ~tissue).any():
            return tumor
        return blending.confine(tumor, _room(ct, tissue, box))


def _on_box(organ: Volume, geometry: Geometry, box: Box) -> NDArray[np.bool_]:
    """A mask, whole or cropped, on a box of the scan's grid; False where it does not reach."""
    shift = np.round(geometry.to_ijk(organ.geometry.to_mm((0, 0, 0)))).astype(int)
    low = np.maximum(shift, box.lower)
    high = np.minimum(shift + organ.data.shape, box.upper)
    result = np.zeros(box.shape, bool, order="F")
    if (high > low).all():
        here = tuple(slice(int(a), int(b)) for a, b in zip(low - box.lower, high - box.lower, strict=True))
        there = tuple(slice(int(a), int(b)) for a, b in zip(low - shift, high - shift, strict=True))
        result[here] = organ.data[there]
    return result


def _room(ct: Volume, organ: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    """The voxels a tumor may fill: the organ, a margin for what its annotator left out, and fat."""
    margin = organ.copy(order="K")
    for axis, spacing in enumerate(ct.geometry.spacing_mm):
        margin = _widened(margin, axis, round(_MASK_MARGIN_MM / spacing))
    # over 3 voxels, so that noise makes no holes; sums of whole HU
    local = np.rint(ct.data[box.slices]).astype(np.int32)
    for axis in range(3):
        local = _sum_of_three(local, axis)
    return np.asarray(margin | ((local > 27 * FAT_HU[0]) & (local < 27 * FAT_HU[1])))


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
