"""The connected parts of a mask, by falling size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from synthoma.volume import Array, Box, Slices, Volume


def connected_components(mask: Array, connectivity: Literal[6, 18, 26] = 26) -> Array:
    """Labels 1, 2, ... of the connected parts of a mask (I, J, K), 0 outside it; uint16, or uint32 for many parts.

    A view of an array that is one voxel larger on every side: without that margin cc3d 4.1 fails on thin arrays
    ("maximum length exception").
    """
    import cc3d

    labels: Array = cc3d.connected_components(np.pad(mask != 0, 1), connectivity=connectivity)
    return labels[1:-1, 1:-1, 1:-1]


class Parts(NamedTuple):
    """The connected parts of a mask, largest first, as arrays: noise has a hundred thousand of them.

    sizes (n,): voxels of each. centers_mm (n, 3): RAS+. boxes: each as slices of `labels`. labels: on `box`, 1, 2, ...
    in some order; order (n,): the label of each part.
    """

    sizes: Array
    centers_mm: Array
    boxes: Sequence[Slices]
    labels: Array
    order: Array
    box: Box

    @property
    def ranked(self) -> Array:
        """On `box`, 1 in the voxels of the largest part, 2 in those of the next; 0 outside."""
        ranks = np.zeros(len(self.order) + 1, self.labels.dtype)
        ranks[self.order] = np.arange(1, len(self.order) + 1)
        return ranks[self.labels]


def parts_of(mask: Volume) -> Parts:
    """The 26-connected parts of a bool mask; none of an empty one."""
    import cc3d

    box = Box.around(mask.data)
    if box is None:
        none = np.zeros(0, np.int64)
        return Parts(none, np.zeros((0, 3)), (), np.zeros((0, 0, 0), np.uint16), none, Box((0, 0, 0), (0, 0, 0)))
    labels = np.ascontiguousarray(connected_components(mask.data[box.slices]))
    table = cc3d.statistics(labels)
    counts = table["voxel_counts"].astype(np.int64)
    order = np.argsort(-counts[1:], kind="stable") + 1
    centers_mm = mask.geometry.to_mm(table["centroids"] + np.asarray(box.lower))[order]
    places = table["bounding_boxes"]
    return Parts(counts[order], centers_mm, [places[label] for label in order.tolist()], labels, order, box)
