"""How the patient lies at another date: a rigid shift and turn, and breathing; exact at every point, without folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy import ndimage

from synthoma.followup.recipe import RescanRecipe
from synthoma.synthesis.drawing import uniform
from synthoma.synthesis.tumor import Coordinate
from synthoma.volume import PADDING_HU, Array, Box, Floats, Geometry, Volume, triple

_SLAB = 2_000_000  # voxels moved at once
Length = Annotated[float, Field(ge=-200, le=200, allow_inf_nan=False)]
Angle = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
FIELD_MM = 4.0  # of the grid that a field is written on; it is so smooth that interpolation errs by under 0.05 mm


@dataclass(frozen=True)
class Motion:
    """Where each point of a later scan lies in the first: plain data.

    x = R (y - c - (0, 0, s(y)) - t) + c, with R the turn by `turn_deg` around x, y and z, t the shift in mm, c the
    center, and s the breathing: nothing at `back_mm` (the A coordinate of the spine), `breathing_mm` towards the head
    at `front_mm`, a smooth step between. Every term keeps volumes: lesions measure what they measured.
    """

    shift_mm: tuple[Length, Length, Length] = (0.0, 0.0, 0.0)
    turn_deg: tuple[Angle, Angle, Angle] = (0.0, 0.0, 0.0)
    center_mm: tuple[Coordinate, Coordinate, Coordinate] = (0.0, 0.0, 0.0)
    breathing_mm: Length = 0.0
    back_mm: Coordinate = 0.0
    front_mm: Coordinate = 1.0

    @property
    def is_none(self) -> bool:
        """Whether nothing moves."""
        return not (any(self.shift_mm) or any(self.turn_deg) or self.breathing_mm)

    def source(self, points_mm: Array) -> Array:
        """RAS+ positions (..., 3) in the first scan of RAS+ positions in the later one."""
        moved = np.array(points_mm, float)
        share = np.clip((moved[..., 1] - self.back_mm) / (self.front_mm - self.back_mm), 0, 1)
        moved[..., 2] -= self.breathing_mm * share * share * (3 - 2 * share)
        return np.asarray((moved - np.add(self.center_mm, self.shift_mm)) @ self._turn.T + self.center_mm)

    def target(self, points_mm: Array) -> Array:
        """The way back: positions in the later scan of positions in the first."""
        moved = (np.asarray(points_mm, float) - self.center_mm) @ self._turn + self.center_mm + self.shift_mm
        share = np.clip((moved[..., 1] - self.back_mm) / (self.front_mm - self.back_mm), 0, 1)
        moved[..., 2] += self.breathing_mm * share * share * (3 - 2 * share)
        return np.asarray(moved)

    @property
    def _turn(self) -> Array:
        x, y, z = np.radians(self.turn_deg)
        about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
        return np.asarray(about_z @ about_y @ about_x)


def draw_motion(geometry: Geometry, recipe: RescanRecipe, rng: np.random.Generator) -> Motion:
    """A motion of a patient whose first scan lies on this grid."""
    corners = geometry.to_mm(np.array(np.meshgrid(*[[0, n - 1] for n in geometry.shape])).reshape(3, -1).T)
    x, y, z = (round(float(mm), 2) for mm in corners.mean(axis=0))
    shift = (round(float(mm), 2) for mm in rng.uniform(-recipe.shift_mm, recipe.shift_mm, 3))
    turn = (round(float(deg), 2) for deg in rng.uniform(-recipe.turn_deg, recipe.turn_deg, 3))
    breathing = round(float(uniform(recipe.breathing_mm, rng)), 2)
    back, front = float(corners[:, 1].min().round(1)), float(corners[:, 1].max().round(1))
    return Motion(tuple(shift), tuple(turn), (x, y, z), breathing, back, front)  # type: ignore[arg-type]


def move_image(volume: Volume, motion: Motion) -> Floats:
    """The scan as it looks after the motion, float32 on the same grid; what comes into view from outside is air."""
    return _moved(volume.data.astype(np.float32), volume.geometry, motion, Box.whole(volume.data.shape), 1, PADDING_HU)


def move_mask(mask: Volume, motion: Motion) -> Volume:
    """A mask or labels after the motion, each voxel from the nearest one."""
    data = np.zeros(mask.data.shape, mask.data.dtype, order="F")
    box = Box.around(mask.data)
    if box is not None:
        reach = _reach(mask.geometry, motion, box)
        plain = mask.data.astype(np.uint8) if mask.data.dtype == bool else mask.data
        data[reach.slices] = _moved(plain, mask.geometry, motion, reach, 0, 0)
    return Volume(data, mask.geometry)


def _reach(geometry: Geometry, motion: Motion, box: Box) -> Box:
    """The voxels that a box can move to."""
    axes = [np.linspace(low, high, 9) for low, high in zip(box.lower, box.upper, strict=True)]
    points = geometry.to_mm(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3))
    at = geometry.to_ijk(motion.target(points))
    lower, upper = triple(np.floor(at.min(axis=0)) - 2), triple(np.ceil(at.max(axis=0)) + 3)
    return Box(lower, upper).clip(geometry.shape)


def _moved(data: Array, geometry: Geometry, motion: Motion, box: Box, order: int, outside: float) -> Array:
    """A box of an array after the motion, slab by slab."""
    result = np.empty(box.shape, data.dtype, order="F")
    thick = max(1, _SLAB // max(1, box.shape[0] * box.shape[1]))
    for start in range(0, box.shape[2], thick):
        part = Box((0, 0, start), (box.shape[0], box.shape[1], min(start + thick, box.shape[2])))
        grid = geometry.crop(part.shift(box.lower))
        at = geometry.to_ijk(motion.source(grid.points_mm()))
        result[part.slices] = ndimage.map_coordinates(
            data, np.moveaxis(at, -1, 0), order=order, mode="constant", cval=outside
        )
    return result


def field(geometry: Geometry, motion: Motion) -> tuple[Volume, Volume, Volume]:
    """x - y in mm along R, A and S for each point y of the later scan, float32, on a grid of `FIELD_MM`.

    The grid covers the scan's field of view; nodes lie on its corners.
    """
    shape = triple(np.ceil((np.array(geometry.shape) - 1) * geometry.spacing_mm / FIELD_MM) + 1)
    affine = geometry.affine.copy()
    affine[:3, :3] *= (np.array(geometry.shape) - 1) / np.maximum(np.array(shape) - 1, 1)
    grid = Geometry(shape, affine)
    points = grid.points_mm()
    away = (motion.source(points) - points).astype(np.float32)
    right, front, up = (Volume(np.asfortranarray(away[..., axis]), grid) for axis in range(3))
    return right, front, up
