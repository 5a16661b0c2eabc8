"""Grids whose axes are a little off 90 degrees: what readers built on ITK open, and the nearest grid that they do.

Headers hold rounded numbers, and some tools write a tilt of a hundredth of a degree. ITK (SimpleITK, 3D Slicer,
nnU-Net) refuses a NIfTI of that kind if it has no qform beside its sform.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synthoma.errors import GeometryError
from synthoma.volume import Geometry

ITK_COSINE = 1e-4  # the largest cosine between two axes that ITK takes for 0, measured with SimpleITK 2.5
_HARMLESS_MM = 0.1  # corners that move by less are rounding of the header


def degrees_off(geometry: Geometry) -> float:
    """How many degrees the worst pair of axes is off 90."""
    return float(np.degrees(np.arcsin(min(1.0, geometry.largest_cosine))))


def writable(geometry: Geometry, path: Path) -> Geometry:
    """The grid to write a volume with, which ITK opens: its own, or the squared one if that is as good as the same.

    Raises `GeometryError` if a corner would move by more than half the shortest side of a voxel.
    """
    if geometry.largest_cosine <= ITK_COSINE / 2:
        return geometry
    moved = geometry.corner_distance_mm(geometry.squared)
    if moved > max(_HARMLESS_MM, min(geometry.spacing_mm) / 2):
        raise GeometryError(
            f"cannot write {path}: its axes are off 90 degrees, which SimpleITK and nnU-Net do not open",
            found=f"{degrees_off(geometry):.2g} degrees, {moved:.2g} mm at the corners",
            expected="at most half a voxel",
            fix="resample it to an upright grid first (in Python: .to(geometry))",
        )
    return geometry.squared
