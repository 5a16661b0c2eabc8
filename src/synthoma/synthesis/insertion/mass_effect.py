"""Mass effect: growing tumors displace their neighbors; one field without folds moves the scan and every mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Floats, Geometry


@dataclass(frozen=True, eq=False)
class Displacement:
    """Where each voxel of a box comes from: `source` (3, box) float32, in voxels of that box.

    Sources never lie outside the box: tissue moves outward, so it came from nearer the center.
    """

    box: Box
    source: Floats

    @cached_property
    def moved(self) -> NDArray[np.intp]:
        """The voxels that do not stay where they are, as positions in the flat box, Fortran order."""
        still = np.ones(self.box.shape[::-1], bool)
        for axis, (from_, n) in enumerate(zip(self.source, self.box.shape, strict=True)):
            here = np.arange(n, dtype=np.float32).reshape([-1 if a == axis else 1 for a in (2, 1, 0)])
            still &= here == from_.T
        return np.flatnonzero(~still)

    @cached_property
    def came_from(self) -> Floats:
        """`source` of the moved voxels (3, n)."""
        return np.stack([axis.T.reshape(-1).take(self.moved) for axis in self.source])

    @cached_property
    def nearest(self) -> tuple[NDArray[np.intp], ...]:
        """Index of the voxel that each moved voxel comes from."""
        return tuple(np.floor(axis + np.float32(0.5)).astype(np.intp) for axis in self.came_from)


def displacement(plan: TumorPlan, geometry: Geometry) -> Displacement | None:
    """The displacement around a mass: `displacement_mm` outward at its border, none from `displacement_reach` radii on.

    Along each ray from the center the displacement is displacement_mm * w(rho), rho the ellipsoid's radius: w = rho
    inside, (reach - rho)^2 / (reach - 1)^2 outside. The map back is monotone along rays, hence fold-free,
    as long as displacement_mm is under 0.9 of the smallest half-axis (`ValueError` beyond). None for 0 mm.
    The box is cut to the scan.
    """
    if plan.displacement_mm == 0:
        return None
    if not 0 < plan.displacement_mm < 0.9 * min(plan.axes_mm):
        raise ValueError(f"displacement_mm is {plan.displacement_mm}; it must be under 0.9 x {min(plan.axes_mm)} mm")
    half_axes = np.asarray(plan.axes_mm)
    to_unit = plan.rotation.T / half_axes[:, None]
    box, center = displacement_box(plan, geometry), geometry.to_ijk(plan.center_mm)

    # arrays are (K, J, I) here, as in memory
    index = [
        np.arange(n, dtype=np.float32).reshape([-1 if a == axis else 1 for a in (2, 1, 0)])
        for axis, n in enumerate(box.shape)
    ]
    away = [i + np.float32(low - middle) for i, low, middle in zip(index, box.lower, center, strict=True)]
    rho = _length(to_unit @ geometry.affine[:3, :3], away)
    # one array after the other is written over: those of a large tumor are tens of megabytes each
    share = plan.displacement_reach - rho
    share /= np.float32(plan.displacement_reach - 1)
    np.square(np.clip(share, 0, 1, out=share), out=share)
    np.copyto(share, rho, where=rho < 1)
    share *= np.float32(plan.displacement_mm)
    distance_mm = _length(geometry.affine[:3, :3], away)
    share /= np.maximum(distance_mm, np.float32(1e-6), out=distance_mm)
    source = np.empty((3, *share.shape), np.float32)
    for from_, i, step, n in zip(source, index, away, box.shape, strict=True):
        np.subtract(i, np.multiply(share, step, out=from_), out=from_)
        np.clip(from_, 0, n - 1, out=from_)
    return Displacement(box, source.transpose(0, 3, 2, 1))


def displacement_box(plan: TumorPlan, geometry: Geometry) -> Box:
    """The voxels that a displacement can reach, cut to the scan."""
    to_mm = plan.rotation * np.asarray(plan.axes_mm)
    half = np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]) @ to_mm, axis=1) * plan.displacement_reach
    center = geometry.to_ijk(plan.center_mm)
    i, j, k = np.floor(center - half).astype(int).tolist()
    m, n, o = (np.ceil(center + half).astype(int) + 1).tolist()
    return Box((i, j, k), (m, n, o)).clip(geometry.shape)


def _length(matrix: Array, steps: list[Floats]) -> Floats:
    """|matrix @ step| for every combination of the three axes' steps."""
    squared: Any = np.float32(0)
    for row in matrix.astype(np.float32):
        # what is multiplied with 0 changes no sum: without it, those of upright axes are small arrays
        part = reduce(add, [share * step for share, step in zip(row, steps, strict=True) if share != 0])
        squared = squared + np.square(part, out=part)
    return np.asarray(np.sqrt(squared, out=squared), np.float32)


def move_image(hu: Array, field: Displacement) -> Array:
    """The field's box of a scan after the displacement, in its type; voxels that do not move keep their value.

    What varies slowly is interpolated; the noise (what a 3-voxel mean takes away) is carried along whole, so
    that displaced tissue is as noisy as the rest.
    """
    return _with_moved(hu, field, kernels().moved_hu(hu, field.came_from))


def move_mask(mask: Array, field: Displacement) -> Array:
    """The field's box of a mask or label map after the displacement, each voxel from where it was."""
    return _with_moved(mask, field, mask[field.nearest])


def _with_moved(old: Array, field: Displacement, values: Array) -> Array:
    new = np.array(old, order="F")
    new.T.reshape(-1)[field.moved] = values
    return new
