"""What a tumor may fill: its organ, a margin for what its annotator left out, and fat; never other structures.

An organ's mask ends a little before or behind the organ. Between a mask that is drawn tight and the fat lies a strip
that is neither: without care it stays as a dark slit inside a tumor that bulges out. So thin strips are free, and what
the tumor encloses is filled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.location import FAT_HU
from synthoma.synthesis.tumor import Tumor
from synthoma.volume import Array, Box, Geometry, Volume, triple

Bools = NDArray[np.bool_]
_MASK_MARGIN_MM = 2.5  # one voxel at least
_STRIP_MM = 3.0  # other tissue is left alone where it is thicker than this; thinner strips are partial volume
_SLIT_MM = 4.0  # gaps in a label narrower than this are slits
_GAS_HU, _BONE_HU = -300.0, 350.0


@dataclass(frozen=True, eq=False)
class Room:
    """The voxels of a box that a tumor may fill. Masks are bool (box), or packed as `reference.packed` has it.

    forbidden: those that stay even where they lie in a slit of the tumor: other structures, gas and bone. occupied:
    other structures and finished tumors, which stay everywhere.
    """

    free: Any
    forbidden: Any
    occupied: Any


def place(tumor: Tumor, ct: Volume, organ: Volume, occupied: Bools, hu: Array | None = None) -> Tumor:
    """The tumor where a scan has room for it: `confine` in the room that `find_room` finds in its box.

    A tumor that lies inside its organ has all the room it wants, so that is not looked for. hu: the scan's voxels in
    the box, if they have been read already.
    """
    own = _on_box(organ, ct.geometry, tumor.box)
    # only what is tumor but not the organ's own stays: > is "and not"
    if not (np.asarray(tumor.alpha > 0) > (own > occupied)).any():
        return _one_piece(tumor)
    return confine(tumor, _room_around(own, ct, occupied, tumor.box, hu), ct.geometry.spacing_mm)


def find_room(ct: Volume, organ: Volume, occupied: Bools, box: Box) -> Room:
    """The room of a tumor of an organ in a box: no muscle, bowel, bone, gas or lung, annotated or not.

    organ: bool; its mask, whole or cropped. occupied: bool (box), other structures and finished tumors.
    """
    return _room_around(_on_box(organ, ct.geometry, box), ct, occupied, box)


def _room_around(organ: Bools, ct: Volume, occupied: Bools, box: Box, hu: Array | None = None) -> Room:
    """As `find_room`; organ: its mask on the box. hu: the voxels of the box, unless they are still to be read."""
    spacing_mm = ct.geometry.spacing_mm
    margin = triple(max(1, round(_MASK_MARGIN_MM / spacing)) for spacing in spacing_mm)
    fat, hard = kernels().between(ct.data[box.slices] if hu is None else hu, FAT_HU, (_GAS_HU, _BONE_HU))
    own, taken, hard = map(kernels().packed, (organ, occupied, hard))
    free = kernels().room_of(own, fat, margin, spacing_mm, _STRIP_MM / 2)
    return Room(free & ~taken, taken | hard, taken)


def confine(tumor: Tumor, room: Room, spacing_mm: tuple[float, float, float]) -> Tumor:
    """The tumor where it has room: one piece without slits or cavities, its cut softened by one voxel.

    Outside its room alpha is 0; of several pieces the largest stays. What lies in gaps of the label, and is tumor by
    the plan, is filled unless it is forbidden.
    """
    use = kernels()
    free, forbidden, occupied = map(use.packed, (room.free, room.forbidden, room.occupied))
    if not (use.packed(np.asarray(tumor.alpha > 0)) & ~free).any():
        return _one_piece(tumor)
    planned = use.packed(tumor.mask)
    label = planned & free
    largest = use.largest_piece(label)
    label = label if largest is None else largest
    gaps = _enclosed(label, spacing_mm)
    filled = gaps & ~forbidden
    if (gaps & forbidden & ~occupied).any():  # holes, which gas and bone do not keep open, are gaps as well
        filled = filled | (use.without_holes(label) & ~occupied)
    alpha = use.softened(tumor.alpha, use.unpacked(free | (filled & planned)))
    label = use.packed(np.asarray(alpha >= 0.5))
    largest = use.largest_piece(label)
    if largest is not None:
        alpha, label = _near(alpha, largest), largest
    cavities = use.without_holes(label) & ~label
    if cavities.any():
        alpha = np.where(use.unpacked(cavities & planned & ~occupied), tumor.alpha, alpha)
    return replace(tumor, alpha=np.asarray(alpha, np.float32))


def _one_piece(tumor: Tumor) -> Tumor:
    """The largest piece of a tumor that may fill all of its voxels."""
    largest = kernels().largest_piece(kernels().packed(tumor.mask))
    return tumor if largest is None else replace(tumor, alpha=_near(tumor.alpha, largest))


def slit_share(planned: Bools, label: Bools, spacing_mm: tuple[float, float, float]) -> float:
    """Volume of the slits and cavities in a label over its own: what it encloses and should be tumor by the plan.

    0 for an empty label.
    """
    missing = planned > label  # and not in it
    if not missing.any() or not label.any():
        return 0.0
    slits = _enclosed(kernels().packed(label), spacing_mm) & kernels().packed(missing)
    # counted: numpy's sums over a mask take several times as long
    return int(np.count_nonzero(kernels().unpacked(slits))) / int(np.count_nonzero(label))


def enclosed(label: Bools, spacing_mm: tuple[float, float, float]) -> Bools:
    """The voxels in gaps of a label that are narrower than `_SLIT_MM` or a voxel, in its holes, and in it."""
    return np.asarray(_enclosed(label, spacing_mm))


def _enclosed(label: Any, spacing_mm: tuple[float, float, float]) -> Any:
    """The same, packed if the label is."""
    radius = _SLIT_MM / 2
    steps = [spacing * radius / max(radius, 1.01 * spacing) for spacing in spacing_mm]
    return kernels().enclosed(label, steps, radius)


def _near(alpha: NDArray[np.float32], piece: Any) -> NDArray[np.float32]:
    """alpha in a piece of its label, packed, and in the border around it, 0 elsewhere."""
    use = kernels()
    kept = use.unpacked(use.widened(piece, (2, 2, 2)) & (piece | use.packed(np.asarray(alpha < 0.5))))
    return np.asarray(alpha * kept)  # numpy's `where` takes some times as long


def _on_box(organ: Volume, geometry: Geometry, box: Box) -> Bools:
    """A mask, whole or cropped, on a box of the scan's grid; False where it does not reach."""
    corner = np.round(geometry.to_ijk(organ.geometry.to_mm((0, 0, 0)))).astype(int)
    result = np.zeros(box.shape, bool, order="F")
    if shared := box.overlap(Box.whole(organ.data.shape).shift(corner.tolist())):
        here, there = shared
        result[here] = organ.data[there]
    return result
