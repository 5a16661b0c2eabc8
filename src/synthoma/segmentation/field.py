"""What a model sees of a scan: its voxels on the model's grid, and which of them are air around the patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.learning.gridding import BODY_HU, training_grid
from synthoma.volume import PADDING_HU, Volume

LEAST_AIR_MM2 = 1000.0  # of air that comes in from a slice's border: less may be gas in a bowel that the border cuts


def on_model_grid(ct: Volume, spacing_mm: Sequence[float]) -> Volume:
    """The scan as the model saw those of its training: RAS+, its spacing, int16."""
    if 0 in ct.data.shape:
        raise CaseError("the scan has no voxels", found=str(ct.geometry))
    if ct.data.dtype == np.float32 and not all(np.isfinite(plane).all() for plane in ct.data.T):
        raise CaseError("the scan holds NaN or infinite HU", fix=f"replace them by {PADDING_HU}")
    turned = ct.reorient("RAS")
    grid = training_grid(ct.geometry, spacing_mm)
    hu = turned if grid.matches(turned.geometry, 1e-3) else turned.to(grid)
    if hu.data.dtype == np.float32:
        hu = Volume(np.clip(np.rint(hu.data), -32768, 32767).astype(np.int16), hu.geometry)
    return hu


def air_around(hu: Volume) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Slices with air around the patient: their number, and where (I, J) it is. hu: on a model's grid.

    It comes in from the border of an axial slice. A training has no patch there, so that a network may call it
    anything; gas in bowel and lung is not meant, and is left.
    """
    import cv2

    least = LEAST_AIR_MM2 / (hu.geometry.spacing_mm[0] * hu.geometry.spacing_mm[1])
    for number in range(hu.data.shape[2]):
        air = np.ascontiguousarray(hu.data[:, :, number].T <= BODY_HU, np.uint8)
        _, labels, boxes, _ = cv2.connectedComponentsWithStats(air, connectivity=4)
        left, top, width, height, voxels = boxes.T
        at_border = (left == 0) | (top == 0) | (left + width == air.shape[1]) | (top + height == air.shape[0])
        around = at_border & (voxels >= least)
        around[0] = False  # what is no air
        if around.any():
            yield number, around[labels].T
