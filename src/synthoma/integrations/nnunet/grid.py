"""Where the voxels of a case that nnU-Net has preprocessed lie, in mm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthoma.errors import CaseError
from synthoma.volume import Array, Geometry

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world is LPS+


def preprocessed_grid(
    properties: Mapping[str, Any], transpose_forward: Sequence[int], shape: Sequence[int], case: str = ""
) -> Geometry:
    """The grid of a preprocessed array of this shape; its axes are those of the array.

    nnU-Net reads a scan as (k, j, i), puts these axes in the order `transpose_forward`, crops, and resamples so that
    the outer faces of the first and last voxels stay where they are. So the spacing is that of the case, which differs
    from the plan's by up to half a voxel over the whole scan.

    properties: as nnU-Net keeps them beside the array. Raises `CaseError` if its reader tells no position in mm.
    """
    scan = _scan_affine(properties, case)
    lower = np.array([low for low, _ in properties["bbox_used_for_cropping"]], float)
    steps = np.array(properties["shape_after_cropping_and_before_resampling"], float) / np.asarray(shape)
    first = lower + (steps - 1) / 2
    own = [2 - axis for axis in transpose_forward]  # of i, j, k
    affine = np.eye(4)
    affine[:3, :3] = scan[:3, own] * steps
    affine[:3, 3] = scan[:3, own] @ first + scan[:3, 3]
    i, j, k = shape
    return Geometry((i, j, k), affine)


def _scan_affine(properties: Mapping[str, Any], case: str) -> Array:
    """Voxel index (i, j, k) of the scan, as the reader turned it, to RAS+ mm."""
    if "sitk_stuff" in properties:
        told = properties["sitk_stuff"]
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(told["direction"], (3, 3)) * np.asarray(told["spacing"])
        affine[:3, 3] = told["origin"]
        return _TO_RAS @ affine
    if "nibabel_stuff" in properties:
        told = properties["nibabel_stuff"]
        return np.asarray(told.get("reoriented_affine", told["original_affine"]), float)
    raise CaseError(
        "nnU-Net has not kept where the scan lies in mm",
        case=case or None,
        found=f"properties {', '.join(map(str, properties))}",
        expected="a scan read by SimpleITKIO, NibabelIO or NibabelIOWithReorient",
        fix="store the scans as .nii.gz, .nrrd or .mha and preprocess them again",
    )
