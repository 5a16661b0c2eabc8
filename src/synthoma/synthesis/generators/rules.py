"""Hand-made rules: a shape with the statistics of real lesions, tissue in HU, and the scan's own grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma import anatomy
from synthoma.errors import CaseError
from synthoma.synthesis import blending, shape, texture, wall
from synthoma.synthesis.location import FAT_HU
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Box, Geometry, Volume

_SEAM_MM = 2.5


class Rules:
    """The `rules` generator."""

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan` on the grid of `ct`.

        organ: bool; its mask, whole or cropped, as far as the tumor reaches. A mass that may bulge replaces fat
        around the organ, but no muscle, bowel, bone, gas or lung, annotated or not.
        Raises `CaseError` if nothing of the tumor lies in the scan.
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
        tumor = Tumor(plan, box, np.ascontiguousarray(body.alpha[part]), np.ascontiguousarray(hu[part]))
        if plan.form == "wall":
            return tumor
        tissue = _on_box(organ, ct.geometry, box)
        if not (tumor.alpha[~tissue] > 0).any():
            return tumor
        return blending.confine(tumor, _room(ct, tissue, plan, box))


def _on_box(organ: Volume, geometry: Geometry, box: Box) -> NDArray[np.bool_]:
    """A mask, whole or cropped, on a box of the scan's grid; False where it does not reach."""
    shift = np.round(geometry.to_ijk(organ.geometry.to_mm((0, 0, 0)))).astype(int)
    low = np.maximum(shift, box.lower)
    high = np.minimum(shift + organ.data.shape, box.upper)
    result = np.zeros(box.shape, bool)
    if (high > low).all():
        here = tuple(slice(int(a), int(b)) for a, b in zip(low - box.lower, high - box.lower, strict=True))
        there = tuple(slice(int(a), int(b)) for a, b in zip(low - shift, high - shift, strict=True))
        result[here] = organ.data[there]
    return result


def _room(ct: Volume, organ: NDArray[np.bool_], plan: TumorPlan, box: Box) -> NDArray[np.bool_]:
    """The voxels a mass may fill: the organ, a seam for what its annotator left out and, if it bulges, fat."""
    if not anatomy.SITES[plan.organ].bulges:
        return organ
    seam = ndimage.uniform_filter(
        organ.astype(np.float32), [2 * round(_SEAM_MM / s) + 1 for s in ct.geometry.spacing_mm]
    )
    # over 3 voxels, so that noise makes no holes; float32 sums of whole HU are exact
    local = ndimage.uniform_filter(ct.data[box.slices].astype(np.float32), 3)
    return np.asarray((seam > 1e-3) | ((local > FAT_HU[0]) & (local < FAT_HU[1])))
