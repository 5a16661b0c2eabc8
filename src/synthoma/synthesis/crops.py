"""Tumors in a box of a scan: the voxels that the whole scan would have there, made from crops around the tumors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.synthesis import blending, mass_effect, shape
from synthoma.synthesis.blending import Noise
from synthoma.synthesis.pipeline import Inserted, insert, reach_mm
from synthoma.synthesis.plan import JudgeRecipe, bounding_radius_mm
from synthoma.synthesis.scene import Scene
from synthoma.synthesis.tumor import TumorPlan, Vector
from synthoma.volume import Array, Box, Geometry, Volume

_RAREST = 6.5  # SDs of its field that no surface reaches: one in ten million tumors
_WALL_MM = 8.0  # how far a wall tumor, its blur included, may come out of where its organ is looked at


class Voxels(Protocol):
    """A scan that is read box by box. Boxes may reach outside: HU -1024, label 0. What is read is the reader's own."""

    @property
    def case(self) -> str:
        """The case's id."""
        ...

    @property
    def geometry(self) -> Geometry:
        """Of the whole scan."""
        ...

    def read_hu(self, box: Box) -> Array:
        """HU, int16 (box)."""
        ...

    def read_labels(self, box: Box) -> NDArray[np.uint8]:
        """Ids of `anatomy.STRUCTURES` (box)."""
        ...


@dataclass(frozen=True, eq=False)
class Drawn:
    """A tumor to put in. index: of the tumor within case and organ. noise: the scan's, at the plan's reference site."""

    plan: TumorPlan
    index: int
    noise: Noise

    @property
    def organ(self) -> str:
        """The organ it grows in."""
        return self.plan.organ

    @property
    def center_mm(self) -> Vector:
        """RAS+; of a wall tumor, on the organ's surface."""
        return self.plan.center_mm

    @property
    def diameter_mm(self) -> float:
        """Of the ball of the planned volume."""
        return self.plan.diameter_mm

    @property
    def reach_mm(self) -> float:
        """How far it reaches from its center, all but the rarest bump included."""
        return bounding_radius_mm(self.plan)


def render(
    voxels: Voxels, box: Box, drawn: Sequence[Drawn], judge: JudgeRecipe | None = None
) -> tuple[Array, NDArray[np.uint8]]:
    """HU (int16) and labels (uint8) of a box of the scan after these tumors have been put in, in this order.

    The same voxels as with `pipeline.insert` in the whole scan, wherever the box lies. A tumor that `judge` rejects,
    or that finds no place in the scan, is left out, in every box alike; without `judge` none is rejected. Organs
    follow the pushes; a tumor's voxels have the label of its organ's lesion.
    """
    hu, labels = voxels.read_hu(box), voxels.read_labels(box)
    for group in _groups(_needed(drawn, voxels.geometry, box)):
        crop = reduce(Box.hull, (extent.read for extent in group)).clip(voxels.geometry.shape)
        part_hu, part_labels = _read(voxels, crop, box, hu, labels)
        scene = Scene.of_labels(
            voxels.case,
            Volume(part_hu, voxels.geometry.crop(crop)),
            part_labels,
            dict.fromkeys(extent.drawn.organ for extent in group),
        )
        for changed in _insert(scene, [extent.drawn for extent in group], judge):
            here = _seen_from(box, changed.shift(crop.lower)).clip(box.shape)
            there = _seen_from(crop, here.shift(box.lower))
            hu[here.slices] = scene.hu[there.slices]
            labels[here.slices] = scene.labels(there)
    return hu, labels


def _read(voxels: Voxels, crop: Box, box: Box, hu: Array, labels: NDArray[np.uint8]) -> tuple[Array, NDArray[np.uint8]]:
    """A crop of the scan, from the box already read if it lies in it; the first axis fastest, as synthesis wants it."""
    if crop.hull(box) == box:
        part = _seen_from(box, crop).slices
        return np.array(hu[part], order="F"), np.array(labels[part], order="F")
    return np.asfortranarray(voxels.read_hu(crop)), np.asfortranarray(voxels.read_labels(crop))


def _seen_from(frame: Box, box: Box) -> Box:
    """A box of the scan in voxels of another one."""
    return box.shift([-low for low in frame.lower])


def _insert(scene: Scene, group: Sequence[Drawn], judge: JudgeRecipe | None) -> list[Box]:
    """Put tumors in; the boxes that changed."""
    changed = []
    for drawn in group:
        try:
            done = insert(
                scene, drawn.plan, judge or JudgeRecipe(), drawn.index, 0, force=judge is None, noise=drawn.noise
            )
        except CaseError:
            continue  # no wall there, or outside the scan
        if isinstance(done, Inserted):
            changed.append(done.changed)
    return changed


@dataclass(frozen=True, eq=False)
class _Extent:
    """What putting in a tumor may change, and what it looks at to do so, in voxels of the scan."""

    drawn: Drawn
    changed: Box
    read: Box

    @classmethod
    def of(cls, drawn: Drawn, geometry: Geometry) -> _Extent:
        plan, around = drawn.plan, geometry.box_around(drawn.center_mm, reach_mm(drawn.plan))
        if plan.form == "mass" and plan.generator == "rules":
            changed = shape.mass_box(plan, geometry)
        else:
            changed = geometry.box_around(plan.center_mm, reach_mm(plan) + _WALL_MM)
        if plan.push_mm:
            changed = changed.hull(mass_effect.push_box(plan, geometry))
        # one voxel more than the organ's box: rounding may go another way on a crop
        read = changed.grow(blending.reach(geometry)).hull(around.grow(1))
        return cls(drawn, changed.clip(geometry.shape), read)


def _needed(drawn: Sequence[Drawn], geometry: Geometry, box: Box) -> list[_Extent]:
    """The tumors that meet a box, and those before them that they build on, in order."""
    needed: list[_Extent] = []
    wanted = [box]
    for tumor, at_most in zip(reversed(drawn), reversed(_outer_boxes(drawn, geometry)), strict=True):
        if any(at_most.meets(other) for other in wanted):
            extent = _Extent.of(tumor, geometry)
            if any(extent.changed.meets(other) for other in wanted):
                needed.append(extent)
                wanted.append(extent.read)
    return needed[::-1]


def _groups(extents: Sequence[_Extent]) -> list[list[_Extent]]:
    """Tumors that have to do with each other, in order."""
    groups: list[list[_Extent]] = []
    for extent in extents:
        linked = [group for group in groups if any(earlier.changed.meets(extent.read) for earlier in group)]
        groups = [group for group in groups if group not in linked]
        # tumors of one group keep their order: what each builds on comes before it
        merged = [earlier for earlier in extents if any(earlier in group for group in linked)]
        groups.append([*merged, extent])
    return groups


def _outer_boxes(drawn: Sequence[Drawn], geometry: Geometry) -> list[Box]:
    """Boxes that hold whatever each tumor may change, at little cost."""
    if not drawn:
        return []
    reach = np.array([_outer_reach_mm(tumor.plan, geometry) for tumor in drawn])
    half = reach[:, None] * np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1)
    centers = geometry.to_ijk([tumor.center_mm for tumor in drawn])
    lower, upper = np.floor(centers - half).astype(int) - 1, np.ceil(centers + half).astype(int) + 2
    return [Box(tuple(low), tuple(high)) for low, high in zip(lower.tolist(), upper.tolist(), strict=True)]


def _outer_reach_mm(plan: TumorPlan, geometry: Geometry) -> float:
    if plan.form != "mass" or plan.generator != "rules":
        return reach_mm(plan) + _WALL_MM
    at = [-_RAREST, _RAREST]
    if plan.skew and abs(0.5 / plan.skew) < _RAREST:
        at.append(0.5 / plan.skew)
    bump = max(plan.roughness * (n - plan.skew * (n * n - 1)) for n in at)
    blur = np.sqrt(plan.edge_mm**2 + plan.blur_mm**2 + max(geometry.spacing_mm) ** 2 / 4)
    ratio = max(plan.axes_mm) / min(plan.axes_mm)
    body = 1.1 * max(plan.axes_mm) * np.exp(bump) + 2.5 * blur * ratio
    return float(max(body, plan.push_reach * max(plan.axes_mm) if plan.push_mm else 0.0))
