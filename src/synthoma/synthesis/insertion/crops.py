"""Tumors in a box of a scan: the voxels that the whole scan would have there, made from crops around the tumors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.synthesis.bodies import shape
from synthoma.synthesis.insertion import blending, mass_effect
from synthoma.synthesis.insertion.blending import Noise
from synthoma.synthesis.insertion.scene import Scene, organ_of_labels
from synthoma.synthesis.pipeline import Inserted, insert, reach_mm
from synthoma.synthesis.plan import JudgeRecipe, bounding_radius_mm
from synthoma.synthesis.tumor import TumorPlan, Vector
from synthoma.volume import Array, Box, Geometry, Volume

_BULGE = 64  # added to the label of a tumor's voxels outside its organ, until all tumors are in
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
class Change:
    """What a tumor made of a scan: HU (int16) and labels (uint8) of a box; none if it was left out.

    The labels of its voxels outside its organ have `_BULGE` added.
    """

    box: Box
    hu: Array
    labels: NDArray[np.uint8]


@dataclass(eq=False)
class DrawnTumor:
    """A tumor to put into a scan. index: of the tumor within case and organ. noise: at the plan's reference site.

    scan: the scan's grid. made: what it changed, once it has been rendered.
    """

    plan: TumorPlan
    index: int
    noise: Noise
    scan: Geometry
    made: Change | None = None

    @property
    def organ(self) -> str:
        """The organ it grows in."""
        return self.plan.organ

    @property
    def center_mm(self) -> Vector:
        """RAS+; of a wall tumor, on the organ's surface."""
        return self.plan.center_mm

    @property
    def equivalent_diameter_mm(self) -> float:
        """Of the ball of the planned volume."""
        return self.plan.equivalent_diameter_mm

    @property
    def reach_mm(self) -> float:
        """How far it reaches from its center, all but the rarest bump included; its push may reach further."""
        return bounding_radius_mm(self.plan)

    @cached_property
    def outer(self) -> Box:
        """A box that holds `changed`, at little cost."""
        return self.scan.box_around(self.center_mm, _outer_reach_mm(self.plan, self.scan)).grow(1)

    @cached_property
    def changed(self) -> Box:
        """The voxels that it may change."""
        if self.plan.form == "mass" and self.plan.generator == "rules":
            box = shape.mass_box(self.plan, self.scan)
        else:
            box = self.scan.box_around(self.center_mm, reach_mm(self.plan) + _WALL_MM)
        if self.plan.displacement_mm:
            box = box.hull(mass_effect.displacement_box(self.plan, self.scan))
        return box.clip(self.scan.shape)

    @cached_property
    def read(self) -> Box:
        """The voxels that it depends on."""
        # one voxel more than the organ's box: rounding may go another way on a crop
        organ = self.scan.box_around(self.center_mm, reach_mm(self.plan)).grow(1)
        return self.changed.grow(blending.reach(self.scan)).hull(organ).clip(self.scan.shape)


def render(
    voxels: Voxels, box: Box, drawn: Sequence[DrawnTumor], judge: JudgeRecipe | None = None
) -> tuple[Array, NDArray[np.uint8]]:
    """HU (int16) and labels (uint8) of a box of the scan after these tumors have been put in, in this order.

    The same voxels as with `pipeline.insert` in the whole scan, wherever the box lies. A tumor that `judge` rejects,
    or that finds no place in the scan, is left out, in every box alike; without `judge` none is rejected. Organs
    follow the pushes; a tumor's voxels have the label of its organ's lesion. Every tumor is made once.
    """
    hu, labels = voxels.read_hu(box), voxels.read_labels(box)
    done: list[Change] = []
    for tumor in _needed(drawn, box):
        if tumor.made is None:
            tumor.made = _make(tumor, *_as_it_is(voxels, tumor.read, (box, hu, labels), done), judge)
        done.append(tumor.made)
        _paste(tumor.made, box, hu, labels)
    if done:
        labels &= _BULGE - 1
    return hu, labels


def _needed(drawn: Sequence[DrawnTumor], box: Box) -> list[DrawnTumor]:
    """The tumors that meet a box, and those before them that they depend on, in order."""
    needed: list[DrawnTumor] = []
    wanted = [box]
    for tumor in reversed(drawn):
        if any(tumor.outer.meets(other) for other in wanted) and any(tumor.changed.meets(other) for other in wanted):
            needed.append(tumor)
            if tumor.made is None:
                wanted.append(tumor.read)
    return needed[::-1]


def _as_it_is(
    voxels: Voxels, crop: Box, known: tuple[Box, Array, NDArray[np.uint8]], done: Sequence[Change]
) -> tuple[Array, NDArray[np.uint8]]:
    """HU and labels of a crop with the tumors so far; taken from what is known where it lies inside."""
    box, hu, labels = known
    if crop.hull(box) == box:
        part = _seen_from(box, crop).slices
        return np.array(hu[part], order="F"), np.array(labels[part], order="F")
    # the first axis fastest, as synthesis wants it
    hu, labels = np.asfortranarray(voxels.read_hu(crop)), np.asfortranarray(voxels.read_labels(crop))
    for change in done:
        _paste(change, crop, hu, labels)
    return hu, labels


def _paste(change: Change, box: Box, hu: Array, labels: NDArray[np.uint8]) -> None:
    """A tumor's voxels into those of a box, as far as they lie in it."""
    here = _seen_from(box, change.box).clip(box.shape)
    there = _seen_from(change.box, here.shift(box.lower)).slices
    hu[here.slices], labels[here.slices] = change.hu[there], change.labels[there]


def _seen_from(frame: Box, box: Box) -> Box:
    """A box of the scan in voxels of another one."""
    return box.shift([-low for low in frame.lower])


def _make(tumor: DrawnTumor, hu: Array, labels: NDArray[np.uint8], judge: JudgeRecipe | None) -> Change:
    """Put a tumor into the voxels that it depends on."""
    crop, organ = tumor.read, tumor.organ
    masks = {organ: organ_of_labels(labels, organ)}
    labels &= _BULGE - 1
    scene = Scene.of_labels(Volume(hu, tumor.scan.crop(crop)), labels, masks)
    try:
        made = insert(scene, tumor.plan, judge or JudgeRecipe(), tumor.index, 0, force=judge is None, noise=tumor.noise)
    except CaseError:
        made = None  # no wall there, or outside the scan
    if not isinstance(made, Inserted):
        return Change(Box(crop.lower, crop.lower), hu[:0, :0, :0], labels[:0, :0, :0])
    after = scene.labels(made.box)
    after[made.mask & ~scene.masks[organ][made.box.slices]] |= _BULGE
    return Change(made.changed.shift(crop.lower), made.after, scene.labels(made.changed).copy(order="K"))


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
    return float(max(body, plan.displacement_reach * max(plan.axes_mm) if plan.displacement_mm else 0.0))
