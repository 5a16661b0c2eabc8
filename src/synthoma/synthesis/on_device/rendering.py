"""Parts of scans with the tumors of finished plans, rendered together on a device: the batch of a training.

What has voxels is computed there from the formulas of the CPU; random numbers, look-up tables and where a tumor has
room are made on the CPU, and small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthoma import anatomy
from synthoma.errors import CaseError
from synthoma.synthesis.bodies.body import Surface
from synthoma.synthesis.bodies.mass import star
from synthoma.synthesis.generators.details import Tissue
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.insertion import room
from synthoma.synthesis.insertion.crops import BULGE, DrawnTumor, Voxels, make, needed, take_bulges_off
from synthoma.synthesis.insertion.insertion import require_size
from synthoma.synthesis.insertion.scene import organ_of_labels, others_of_labels
from synthoma.synthesis.on_device.grain import blend, noise_inside
from synthoma.synthesis.on_device.shapes import Shape, shape_of, upload
from synthoma.synthesis.on_device.tissue import tissue
from synthoma.synthesis.tumor import Tumor
from synthoma.volume import Array, Box, Geometry, Volume

_NO_TISSUE = np.zeros((0, 0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Part:
    """A box of a scan that is wanted with tumors in it, as a loader's worker hands it over; it pickles.

    outer: the voxels that the tumors depend on, and the box; hu (int16) and labels (uint8) are theirs, without tumors.
    tumors: those that change the box, and those before them that these depend on, in their order.
    """

    box: Box
    outer: Box
    hu: Array
    labels: NDArray[np.uint8]
    tumors: tuple[DrawnTumor, ...] = ()


def cut(voxels: Voxels, box: Box, drawn: Sequence[DrawnTumor]) -> Part:
    """The part of a scan that `render_batch` needs to know to put these tumors into a box of it."""
    tumors = tuple(needed(drawn, box))
    outer = reduce(Box.hull, (tumor.read for tumor in tumors if tumor.made is None), box)
    return Part(box, outer, voxels.read_hu(outer), voxels.read_labels(outer), tumors)


def is_rendered_here(tumor: DrawnTumor) -> bool:
    """Whether a device can render the tumor: a mass by rules without mass effect; others are made on the CPU."""
    plan = tumor.plan
    return type(tumor.generator) is Rules and Surface.of(plan).form == "mass" and not plan.displacement_mm


def render_batch(parts: Sequence[Part], device: torch.device | str) -> list[tuple[Tensor, Tensor]]:
    """HU (int16) and labels (uint8) of each part's box with its tumors, (I, J, K) on the device.

    The voxels of `insertion.crops.render`: a HU may differ by 1 where rounding goes the other way. Tumors that the
    device cannot render are made on the CPU in their turn. Raises what `crops.render` raises.
    """
    device = torch.device(device)
    works = [_Work(part, device) for part in parts]
    for turn in range(max((len(part.tumors) for part in parts), default=0)):
        now = [(work, work.part.tumors[turn]) for work in works if turn < len(work.part.tumors)]
        # all surfaces first: the device fills one while the CPU looks for the room of another
        begun = [(work, _begin(work, tumor)) for work, tumor in now if _is_begun(tumor)]
        for work, tumor in now:
            if not _is_begun(tumor):
                work.put_in(tumor)
        for work, started in begun:
            _finish(work, started)
    return [work.result() for work in works]


def _is_begun(tumor: DrawnTumor) -> bool:
    return tumor.made is None and is_rendered_here(tumor)


class _Work:
    """A part while its tumors are put in. hu: int16 (K, J, I) on the device; labels: (I, J, K) on the CPU."""

    def __init__(self, part: Part, device: torch.device) -> None:
        self.part = part
        self.hu = torch.from_numpy(np.array(part.hu.T, np.int16, order="C")).to(device)
        self.labels = np.array(part.labels, np.uint8, order="F")

    def put_in(self, tumor: DrawnTumor) -> None:
        """A tumor that is made already, or is made here by the CPU."""
        if tumor.made is None:
            crop = tumor.read.seen_from(self.part.outer)
            hu = np.asfortranarray(self.hu[crop.slices[::-1]].cpu().numpy().T)
            make(tumor, hu, np.array(self.labels[crop.slices], order="F"), 0, None, None)
        assert tumor.made is not None, "nothing is rejected here"
        shared = self.part.outer.overlap(tumor.made.box)
        if shared is not None:
            here, there = shared
            self.hu[here[::-1]] = upload(tumor.made.hu[there].T, self.hu.device)
            self.labels[here] = tumor.made.labels[there]

    def result(self) -> tuple[Tensor, Tensor]:
        """The part's box."""
        inner = self.part.box.seen_from(self.part.outer).slices
        for tumor in self.part.tumors:
            if shared := self.part.outer.overlap(tumor.changed):
                take_bulges_off(self.labels[shared[0]])
        labels = upload(self.labels[inner].T, self.hu.device)
        return self.hu[inner[::-1]].permute(2, 1, 0), labels.permute(2, 1, 0)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A tumor whose surface the device fills.

    geometry: of its crop. whole: the tumor's box there; box: as far as it lies in the scan. alpha: on the latter.
    """

    tumor: DrawnTumor
    geometry: Geometry
    whole: Box
    box: Box
    shape: Shape
    alpha: Tensor


def _begin(work: _Work, tumor: DrawnTumor) -> _Begun:
    plan, geometry = tumor.plan, tumor.scan.crop(tumor.read)
    require_size(plan, geometry)
    inside = Tissue.of(plan).needs_inside
    body = star(plan, geometry, inside)
    box = body.box.clip(geometry.shape)
    if 0 in box.shape:
        raise CaseError(f"a tumor planned at {plan.center_mm} mm lies outside the scan")
    shape = shape_of(body, work.hu.device, inside)
    return _Begun(tumor, geometry, body.box, box, shape, shape.alpha[box.seen_from(body.box).slices[::-1]])


def _finish(work: _Work, begun: _Begun) -> None:
    tumor, box = begun.tumor, begun.box
    crop = tumor.read.seen_from(work.part.outer)
    hu = work.hu[crop.slices[::-1]]
    alpha = begun.alpha
    shared = _room(begun, hu, work.labels[crop.slices])
    if shared is not None:
        alpha = upload(shared.T, hu.device)
    inside = noise_inside(hu, box, alpha, tumor.plan, begun.geometry, tumor.noise)
    filled = tissue(tumor.plan, begun.geometry, begun.whole, begun.shape)
    blend(hu, box, alpha, filled[box.seen_from(begun.whole).slices[::-1]], inside)


def _room(begun: _Begun, hu: Tensor, labels: NDArray[np.uint8]) -> Array | None:
    """alpha where the tumor has room, None where that changes nothing; labels (of its crop) get the tumor, in place."""
    plan, box, geometry = begun.tumor.plan, begun.box, begun.geometry
    reach = geometry.box_around(plan.center_mm, begun.tumor.maker.reach(plan))
    own = organ_of_labels(labels[box.slices], plan.organ)
    organ = Volume(organ_of_labels(labels[reach.slices], plan.organ), geometry.crop(reach))
    part = labels[box.slices]
    take_bulges_off(part)
    grid = geometry.crop(box)
    scan = Volume(hu[box.slices[::-1]].cpu().numpy().T, grid)
    planned = Tumor(plan, Box.whole(box.shape), begun.alpha.cpu().numpy().T, _NO_TISSUE)
    placed = room.place(planned, scan, organ, others_of_labels(part, plan.organ))
    lesion = anatomy.STRUCTURES[anatomy.organ(plan.organ).lesion]
    part[placed.mask] = np.where(own, lesion, lesion | BULGE)[placed.mask]
    return None if placed.alpha is planned.alpha else placed.alpha
