"""Predictions brought onto the grid of their truth, or refused with how far they are from it."""

from __future__ import annotations

import numpy as np

from synthoma.errors import GeometryError
from synthoma.evaluation.planes import Planes, planes_of
from synthoma.evaluation.regions import Region
from synthoma.volume import Geometry


def on_grid(
    predicted: Region | Planes, grid: Geometry, structure: str, resample: bool = False, trust_headers: bool = True
) -> tuple[Region | Planes, str]:
    """The prediction on the grid of its truth, and a note on what was done to it; empty where nothing was.

    The truth's grid with its axes in another order or pointing the other way is the same grid. trust_headers: False
    takes the truth's grid for a prediction of the same shape. resample: any other grid is resampled. Raises
    `GeometryError` otherwise, with the distance in mm.
    """
    own = predicted.geometry
    if grid.matches(own):
        return _moved(predicted, grid), ""
    turned = own.reoriented(grid.axes)
    if grid.matches(turned):
        if isinstance(predicted, Region):
            return _moved(predicted.reoriented(grid.axes), grid), ""
        return _moved(predicted, grid.reoriented(own.axes)), ""
    if not trust_headers and own.shape == grid.shape:
        return _moved(predicted, grid), f"{structure}: header not believed ({_apart(own, turned, grid)})"
    if resample:
        note = f"{structure}: resampled to the truth's grid ({_apart(own, turned, grid)})"
        if isinstance(predicted, Region):
            return predicted.resampled(grid), note
        return planes_of(predicted.volume().to(grid, fill=0)), note
    if own.shape == grid.shape:
        raise GeometryError(
            f"the predicted {structure} does not lie where the truth does",
            found=f"{_apart(own, turned, grid)}, with as many voxels along each axis",
            expected="at most 0.1 mm apart",
            fix="its header is wrong: say --set headers=truth to take the truth's grid",
        )
    raise GeometryError(
        f"the predicted {structure} lies on another grid",
        found=str(own),
        expected=str(grid),
        fix="write predictions on the scan's grid, or say --set resample=true",
    )


def _moved(predicted: Region | Planes, grid: Geometry) -> Region | Planes:
    """The same voxels on exactly this grid, whose shape they have."""
    if isinstance(predicted, Region):
        return Region(grid, predicted.blocks)
    return Planes(grid, predicted.each, predicted.fractions)


def _apart(own: Geometry, turned: Geometry, grid: Geometry) -> str:
    """How two grids differ, in words."""
    if turned.shape != grid.shape:
        return f"{own} instead of {grid}"
    if np.allclose(own.spacing_mm, 1.0, atol=1e-4) and not np.allclose(grid.spacing_mm, 1.0, atol=1e-4):
        return "a header without position and voxel size"
    return f"{turned.corner_distance_mm(grid):.1f} mm apart"
