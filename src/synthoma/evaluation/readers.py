"""How far the masks of several readers agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthoma.evaluation.planes import region_of
from synthoma.evaluation.voxel import score_voxels
from synthoma.volume import Array, Volume


def reader_dice(masks: Sequence[Volume]) -> Array:
    """DSC between every two readers' masks of one case (n, n), nan where both are empty.

    Raises `GeometryError` unless all lie on one grid.
    """
    for mask in masks[1:]:
        masks[0].require_same_grid(mask, "other reader's mask")
    regions = [region_of(mask).reoriented(masks[0].geometry.axes) for mask in masks]
    return np.array([[score_voxels(a, b).dsc for b in regions] for a in regions])
