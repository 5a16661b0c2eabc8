"""The arithmetic of masks in plain numpy, the part of `reference` that is about them: what lies near, pieces, holes."""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthoma.components import connected_components
from synthoma.volume import Box, Triple

Bools = NDArray[np.bool_]


def packed(mask: Bools) -> Bools:
    """A mask as the functions below take it at least cost: as it is here, 64 voxels in a word in the compiled ones.

    They take masks of bool as well, and give the kind they are given. Either kind knows `&`, `|`, `~` and `any`.
    """
    return mask


def unpacked(mask: Bools) -> Bools:
    """The mask as bool again."""
    return mask


def near(mask: Bools, spacing_mm: Sequence[float], radius_mm: float) -> Bools:
    """The voxels whose center lies within a radius of the center of a voxel of the mask."""
    if not mask.any():
        return np.zeros(mask.shape, bool, order="F")
    distance = edt.edt(np.ascontiguousarray(~mask), anisotropy=tuple(spacing_mm), black_border=False)
    return np.asfortranarray(distance <= radius_mm)


def largest_piece(label: Bools) -> Bools | None:
    """The largest piece connected by faces; None if there is only one, or none."""
    pieces = connected_components(label.T, connectivity=6)
    if pieces.max() <= 1:
        return None
    largest = np.asarray(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))
    return np.asarray(largest.T)


def without_holes(label: Bools) -> Bools:
    """The label with what it encloses."""
    return np.asarray(ndimage.binary_fill_holes(label))


def without_holes_in_slices(label: Bools, slices: Bools) -> Bools:
    """The label with what it encloses within each of these slices along K (bool, K)."""
    filled = label.copy(order="K")
    for k in np.flatnonzero(slices).tolist():
        filled[:, :, k] |= ndimage.binary_fill_holes(label[:, :, k])
    return filled


def widened(mask: Bools, steps: Triple) -> Bools:
    """The mask with all voxels up to so many away along one axis, then along the next."""
    for axis, most in enumerate(steps):
        source, result = mask.swapaxes(axis, 0), mask.copy(order="K")
        target = result.swapaxes(axis, 0)
        for step in range(1, min(most, len(source) - 1) + 1):
            target[step:] |= source[:-step]
            target[:-step] |= source[step:]
        mask = result
    return mask


def room_of(organ: Bools, fat: Bools, steps: Triple, spacing_mm: Sequence[float], radius_mm: float) -> Bools:
    """The organ, widened, what is fat, and what is left in strips that hold no ball of this radius.

    What the box cuts goes on outside.
    """
    free = widened(organ, steps) | fat
    return np.asarray(free | ~near(~near(free, spacing_mm, radius_mm), spacing_mm, radius_mm))


def enclosed(label: Bools, spacing_mm: Sequence[float], radius_mm: float) -> Bools:
    """The voxels in gaps of a label that are narrower than a ball of this radius, in its holes, and in it."""
    result = np.zeros(label.shape, bool, order="F")
    own = Box.around(label)
    if own is None:
        return result
    label = label[own.slices]
    margin = [int(radius_mm / step) + 2 for step in spacing_mm]
    padded = np.pad(label, [(n, n) for n in margin])
    inner = tuple(slice(n, -n) for n in margin)
    grown = near(padded, spacing_mm, radius_mm)
    closed = ~near(~grown, spacing_mm, radius_mm)[inner]
    # a hole in an axial slice is one, even if it is a tunnel
    filled = without_holes_in_slices(closed | label, np.asarray(label.any(axis=(0, 1))))
    result[own.slices] = without_holes(filled)
    return result
