"""Tumors in a box of a scan: the voxels that the whole scan would have there, made from crops around the tumors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.insertion import blending, mass_effect
from synthoma.synthesis.insertion.insertion import Attempt, Inserted, insert, insert_plans
from synthoma.synthesis.insertion.scene import Scene, organ_of_labels
from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.recipe import JudgeRecipe, SynthesisRecipe
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import Critic, Generator, TumorPlan, Vector
from synthoma.volume import Array, Box, Geometry, Volume

_SPARSE = 3  # voxels around some boxes, over theirs, from which on it is quicker to read each by itself
BULGE = 64  # added to the label of a tumor's voxels outside its organ, until all tumors are in


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
class Ahead:
    """A scan of which a box has been read already."""

    scan: Voxels
    box: Box
    hu: Array
    labels: NDArray[np.uint8]

    @property
    def case(self) -> str:
        """The case's id."""
        return self.scan.case

    @property
    def geometry(self) -> Geometry:
        """Of the whole scan."""
        return self.scan.geometry

    def read_hu(self, box: Box) -> Array:
        """HU, int16 (box)."""
        return self._part(self.hu, box) if self.box.hull(box) == self.box else self.scan.read_hu(box)

    def read_labels(self, box: Box) -> NDArray[np.uint8]:
        """Ids of `anatomy.STRUCTURES` (box)."""
        return self._part(self.labels, box) if self.box.hull(box) == self.box else self.scan.read_labels(box)

    def _part(self, read: Array, box: Box) -> Array:
        return np.array(read[box.seen_from(self.box).slices], order="F")


def read_ahead(voxels: Voxels, boxes: Sequence[Box]) -> Voxels:
    """A scan that these boxes will be asked of, read at once where they lie close together."""
    if len(boxes) < 2:
        return voxels
    hull = reduce(Box.hull, boxes)
    if math.prod(hull.shape) > _SPARSE * sum(math.prod(box.shape) for box in boxes):
        return voxels
    return Ahead(voxels, hull, voxels.read_hu(hull), voxels.read_labels(hull))


@dataclass(frozen=True, eq=False)
class Change:
    """What a tumor made of a scan: HU (int16) and labels (uint8) of a box.

    The labels of its voxels outside its organ have `BULGE` added.
    """

    box: Box
    hu: Array
    labels: NDArray[np.uint8]


@dataclass(eq=False)
class DrawnTumor:
    """A tumor to put into a scan, on the grid `scan`.

    generator: None for one that is `made` already. index: of the tumor within case and organ. noise: at the plan's
    reference site. made: what it changed, once it has been rendered.
    """

    plan: TumorPlan
    generator: Generator | None
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
        """How far it reaches from its center, all but rare bumps included; its mass effect may reach further."""
        return self.plan.radius_mm

    @cached_property
    def outer(self) -> Box:
        """A box that holds `changed`, at little cost."""
        if self.made is not None:
            return self.made.box
        box = self.maker.outer_box(self.plan, self.scan)
        return self._with_mass_effect(box)

    @cached_property
    def box(self) -> Box:
        """The voxels that it may fill."""
        return self.maker.box(self.plan, self.scan)

    @cached_property
    def changed(self) -> Box:
        """The voxels that it may change."""
        if self.made is not None:
            return self.made.box
        return self._with_mass_effect(self.box).clip(self.scan.shape)

    @cached_property
    def read(self) -> Box:
        """The voxels that it depends on."""
        # one voxel more than the organ's box: rounding may go another way on a crop
        organ = self.scan.box_around(self.center_mm, self.maker.reach(self.plan)).grow(1)
        around = self.box.grow(blending.reach(self.scan))
        return self.changed.hull(around).hull(organ).clip(self.scan.shape)

    @property
    def maker(self) -> Generator:
        """The generator of a tumor that has not been made."""
        assert self.generator is not None, "a tumor without a generator is made already"
        return self.generator

    def _with_mass_effect(self, box: Box) -> Box:
        if not self.plan.displacement_mm:
            return box
        return box.hull(mass_effect.displacement_box(self.plan, self.scan))


def settle(
    voxels: Voxels,
    organ: OrganModel,
    plans: Sequence[TumorPlan],
    recipe: SynthesisRecipe,
    seed: int,
    generator: Generator,
    noise: Noise,
    before: Sequence[DrawnTumor] = (),
    critic: Critic | None = None,
) -> list[DrawnTumor]:
    """The tumors of an organ that are accepted, rendered; rejected ones are drawn again, as in a whole scan.

    before: tumors that are in the scan already. noise: at the organ model's reference site.
    """
    settled: list[DrawnTumor] = []
    first = [DrawnTumor(plan, generator, index, noise, organ.scan) for index, plan in enumerate(plans)]
    near = read_ahead(voxels, [tumor.read for tumor in first])

    def insert_one(plan: TumorPlan, index: int, number: int) -> Attempt:
        tumor = DrawnTumor(plan, generator, index, noise, organ.scan) if number else first[index]
        attempt = make(tumor, *_read(near, tumor.read, [*before, *settled]), number, recipe.judgement, critic)
        if tumor.made is not None:
            settled.append(tumor)
        return attempt

    for _ in insert_plans(insert_one, organ, plans, recipe, seed):
        pass
    return settled


def render(voxels: Voxels, box: Box, drawn: Sequence[DrawnTumor]) -> tuple[Array, NDArray[np.uint8]]:
    """HU (int16) and labels (uint8) of a box of the scan after these tumors have been put in, in this order.

    The same voxels as with `insertion.insert` in the whole scan, wherever the box lies. Organs follow the mass effect;
    a tumor's voxels have the label of its organ's lesion. Every tumor is made once, and none is rejected.
    """
    hu, labels = voxels.read_hu(box), voxels.read_labels(box)
    done: list[DrawnTumor] = []
    for tumor in needed(drawn, box):
        if tumor.made is None:
            inside = tumor.read.hull(box) == box
            crop = _cut(box, hu, labels, tumor.read) if inside else _read(voxels, tumor.read, done)
            make(tumor, *crop, 0, None, None)
        done.append(tumor)
        paste(tumor, box, hu, labels)
    for tumor in done:
        if shared := box.overlap(tumor.changed):
            take_bulges_off(labels[shared[0]])
    return hu, labels


def take_bulges_off(labels: NDArray[np.uint8]) -> None:
    """Labels as they are outside of this module, in place; what nobody annotated (255) stays as it is."""
    bulges = labels & (256 - BULGE) == BULGE  # numbers from `BULGE` on, up to twice as much
    if bulges.any():
        labels[bulges] -= BULGE


def needed(drawn: Sequence[DrawnTumor], box: Box) -> list[DrawnTumor]:
    """The tumors that meet a box, and those before them that they depend on, in order."""
    found: list[DrawnTumor] = []
    wanted = [box]
    for tumor in reversed(drawn):
        if any(tumor.outer.meets(other) for other in wanted) and any(tumor.changed.meets(other) for other in wanted):
            found.append(tumor)
            if tumor.made is None:
                wanted.append(tumor.read)
    return found[::-1]


def _cut(box: Box, hu: Array, labels: NDArray[np.uint8], crop: Box) -> tuple[Array, NDArray[np.uint8]]:
    """HU and labels of a crop that lies inside a box."""
    part = crop.seen_from(box).slices
    return np.array(hu[part], order="F"), np.array(labels[part], order="F")


def _read(voxels: Voxels, crop: Box, done: Sequence[DrawnTumor]) -> tuple[Array, NDArray[np.uint8]]:
    """HU and labels of a crop with the tumors so far."""
    # the first axis fastest, as synthesis wants it
    hu, labels = np.asfortranarray(voxels.read_hu(crop)), np.asfortranarray(voxels.read_labels(crop))
    for tumor in done:
        paste(tumor, crop, hu, labels)
    return hu, labels


def paste(tumor: DrawnTumor, box: Box, hu: Array, labels: NDArray[np.uint8]) -> None:
    """A tumor's voxels into those of a box, as far as they lie in it."""
    change = tumor.made
    shared = box.overlap(change.box) if change is not None else None
    if change is not None and shared is not None:
        here, there = shared
        hu[here], labels[here] = change.hu[there], change.labels[there]


def make(
    tumor: DrawnTumor,
    hu: Array,
    labels: NDArray[np.uint8],
    number: int,
    judge: JudgeRecipe | None,
    critic: Critic | None,
) -> Attempt:
    """Put a tumor into the voxels that it depends on; if it is accepted, `tumor.made` is what it changed."""
    crop, organ = tumor.read, tumor.organ
    masks = {organ: organ_of_labels(labels, organ)}
    take_bulges_off(labels)
    scene = Scene.of_labels(Volume(hu, tumor.scan.crop(crop)), labels, masks, hu)
    attempt = insert(scene, tumor.plan, tumor.maker, tumor.index, number, judge, critic, tumor.noise)
    if isinstance(attempt, Inserted):
        after = scene.labels(attempt.box)
        after[attempt.mask & ~scene.masks[organ].on(attempt.box)] |= BULGE
        box, changed = attempt.changed.shift(crop.lower), scene.labels(attempt.changed).copy(order="K")
        tumor.plan, tumor.made = attempt.plan, Change(box, attempt.after, changed)
    return attempt
