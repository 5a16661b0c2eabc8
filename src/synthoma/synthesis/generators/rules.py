"""Hand-made rules: a shape with the statistics of real lesions, tissue in HU, and the scan's own grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma import anatomy
from synthoma.errors import CaseError
from synthoma.synthesis import shape, texture, wall
from synthoma.synthesis.shape import Floats
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Array, Box, Volume

_GAS_HU, _BONE_HU = -250.0, 220.0


class Rules:
    """The `rules` generator."""

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        """The tumor of `plan` on the grid of `ct`.

        organ: bool; its mask, whole or cropped, as far as the tumor reaches. A mass that may bulge replaces fat
        around the organ, but not bone, gas or lung. Raises `CaseError` if nothing of the tumor lies in the scan.
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
        alpha = body.alpha[part]
        if plan.form == "mass":
            alpha = alpha * _room(ct, organ.to(ct.geometry.crop(box)).data, plan, box)
        return Tumor(plan, box, np.ascontiguousarray(alpha), np.ascontiguousarray(hu[part]))


def _room(ct: Volume, organ: NDArray[np.bool_], plan: TumorPlan, box: Box) -> Floats | np.float32:
    """How much of each voxel a mass may fill: all of the organ; around it, soft tissue and fat."""
    if organ.all():
        return np.float32(1)
    if anatomy.SITES[plan.organ].bulges:
        # over 3 voxels, so that noise makes no holes; float32 sums of whole HU are exact
        local = ndimage.uniform_filter(ct.data[box.slices].astype(np.float32), 3)
        allowed: Array = organ | ((local > _GAS_HU) & (local < max(_BONE_HU, plan.base_hu + 60)))
    else:
        allowed = organ
    if allowed.all():
        return np.float32(1)
    return np.asarray(ndimage.uniform_filter(allowed.astype(np.float32), 3), np.float32) * allowed
