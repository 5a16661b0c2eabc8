"""Banks: tumors of a manifest rendered once on the training grid, and pasted from then on at the price of a crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.synthesis.insertion import crops
from synthoma.synthesis.insertion.crops import Change, DrawnTumor
from synthoma.volume import PADDING_HU, Array, Box, Geometry


@dataclass(frozen=True, eq=False)
class HeldScan:
    """A scan in memory that is read box by box, as a cached one is. hu: int16. labels: of `anatomy.STRUCTURES`."""

    case: str
    geometry: Geometry
    hu: Array
    labels: NDArray[np.uint8]

    def read_hu(self, box: Box) -> Array:
        """HU, -1024 outside; a copy."""
        return _part(self.hu, box, PADDING_HU)

    def read_labels(self, box: Box) -> NDArray[np.uint8]:
        """Labels, 0 outside; a copy."""
        return _part(self.labels, box, 0)


def render_changes(scan: HeldScan, drawn: Sequence[DrawnTumor]) -> list[Change]:
    """What each tumor changes when all are put in, in their order."""
    for tumor in drawn:
        crops.render(scan, tumor.changed, drawn)
    return [tumor.made for tumor in drawn if tumor.made is not None]


def pack_changes(changes: Sequence[Change]) -> tuple[list[Any], Array, NDArray[np.uint8]]:
    """Boxes as JSON data; HU and labels of all changes, one after the other, in Fortran order."""
    boxes = [[list(change.box.lower), list(change.box.upper)] for change in changes]
    hu = [change.hu.ravel(order="F") for change in changes]
    labels = [change.labels.ravel(order="F") for change in changes]
    return boxes, np.concatenate([np.empty(0, np.int16), *hu]), np.concatenate([np.empty(0, np.uint8), *labels])


def unpack_change(box: Any, start: int, hu: Array, labels: NDArray[np.uint8]) -> Change:
    """The change whose voxels begin at `start` of what `pack_changes` joined."""
    place = Box(tuple(box[0]), tuple(box[1]))
    voxels = slice(start, start + int(np.prod(place.shape)))
    shape = place.shape
    return Change(place, hu[voxels].reshape(shape, order="F"), labels[voxels].reshape(shape, order="F"))


def _part(data: Array, box: Box, outside: int) -> Array:
    whole = np.full(box.shape, outside, data.dtype, order="F")
    inside = box.clip(data.shape)
    if 0 not in inside.shape:
        whole[inside.seen_from(box).slices] = data[inside.slices]
    return whole
