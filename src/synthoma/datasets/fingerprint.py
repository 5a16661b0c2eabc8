"""Finding the same scan under two names, whatever was done to the file in between.

A fingerprint is a small picture of the patient: the scan, clipped to fat and soft tissue, averaged in `GRID`^3
cells of a box that holds the middle 96 % of the tissue along each axis. The box comes from the tissue and not
from the header, so a lost or wrong affine, another spacing, another storage type, clipped intensities and air
around the body change little. Flips, swapped axes and missing slices are searched for when two fingerprints
are compared. What is compared is fine structure (the picture minus its blurred self), because any two abdomens
look alike when they are blurred.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.volume import Array, Volume

GRID = 16
SIZE = GRID**3  # bytes of a fingerprint
TISSUE_HU = (-150, 250)  # inside every window that public sets are clipped to
SAMPLES = 1_000_000  # voxels looked at, at most
TAIL = 0.02  # tissue outside the box at either end of an axis: arms, table, catheters
THRESHOLD = 0.85  # the same scan scores 0.93 and more, different real patients below 0.5, in-silico ones below 0.8
FINE = 1.0  # blur, in cells, that is taken off
# First and last cell of what may remain of the other scan along one axis: up to a quarter is missing.
WINDOWS = [(low * GRID / 24, GRID - high * GRID / 24) for low in range(7) for high in range(7) if low + high <= 6]
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]
HOPELESS, REFINEMENTS = 0.55, 3  # below this no refinement helps
ROUNDING = 0.1  # a constant picture has a structure of 0.001 on some machines; a voxel one level off has 1
Floats = NDArray[np.float32]


class Views(NamedTuple):
    """One picture (GRID, GRID, GRID), its parts (windows, SIZE) and its orientations (48, SIZE), as structure."""

    picture: Floats
    parts: Floats
    turned: Floats


def fingerprint(ct: Volume) -> bytes:
    """`SIZE` bytes that stay alike when the same scan is flipped, cropped, resampled or stored otherwise.

    ct: in HU. Empty bytes if there is no tissue (an empty or constant image), which match nothing.
    Every n-th voxel is looked at, a million at most.
    """
    data = ct.reorient("RAS").data
    shape, steps = np.asarray(data.shape), np.ones(3, int)
    while np.prod(shape / steps) > SAMPLES:
        steps[np.argmax(shape / steps)] += 1
    first = (shape - 1) % steps // 2  # as much left out in front as behind
    sample = data[tuple(slice(start, None, step) for start, step in zip(first, steps, strict=True))]
    memory = np.argsort(-np.abs(sample.strides))
    low, high = TISSUE_HU
    tissue = np.clip(sample.transpose(memory), low, high).astype(np.float32, order="C")
    tissue = np.nan_to_num(tissue, copy=False, nan=low) - low
    if not tissue.any():
        return b""
    for _ in range(3):  # the last axis each time, the first in memory to begin with; the axes come round
        along = tissue.sum(axis=(0, 1)).astype(float)
        tissue = np.moveaxis(tissue @ cells_between(*_middle(along), len(along)).T, -1, 0)
    picture = tissue.transpose(np.argsort(memory))
    return bytes(np.rint(picture * (255 / (high - low))).astype(np.uint8))


def similarity(one: bytes, other: bytes) -> float:
    """How alike two fingerprints are, at most 1: in any orientation, allowing for missing ends."""
    return compare(views_of(picture_of(one)), views_of(picture_of(other)))


def compare(one: Views, other: Views) -> float:
    """Either scan fitted to the other: the best part in the best orientation first, then all six faces."""
    best, start = 0.0, None
    for moving, fixed in ((one, other), (other, one)):
        scores = moving.parts @ fixed.turned.T
        part, turn = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[part, turn] > best:
            axis, window = divmod(int(part), len(WINDOWS))
            faces = np.array([[0.0, GRID]] * 3)
            faces[axis] = WINDOWS[window]
            best, start = float(scores[part, turn]), (moving.picture, fixed.turned[turn], faces)
    return best if start is None or best < HOPELESS else max(best, _refined(*start))


def _refined(picture: Floats, target: Floats, faces: Array) -> float:
    """The score once the faces (3, 2) of the moving picture's box have moved to their best place (Gauss-Newton)."""
    best, step = 0.0, 0.25
    for _ in range(REFINEMENTS):
        here = _framed(picture, faces)
        best = max(best, float(here @ target))
        slopes = np.empty((SIZE, 7), np.float32)
        slopes[:, 6] = here
        for face in range(6):
            moved = faces.copy()
            moved.flat[face] += step
            slopes[:, face] = (_framed(picture, moved) - here) / step
        *moves, scale = np.linalg.lstsq(slopes.T @ slopes, slopes.T @ target)[0].tolist()
        if scale <= 0:
            break
        faces = faces + np.clip(np.reshape(moves, (3, 2)) / scale, -1, 1)
    return max(best, float(_framed(picture, faces) @ target))


def _framed(picture: Floats, faces: Array) -> Floats:
    """(SIZE,): the structure of the picture in another box, whose faces are given in cells."""
    for axis, (low, high) in enumerate(faces):
        picture = np.moveaxis(np.tensordot(cells_between(low, high, GRID), picture, (1, axis)), 0, axis)
    return unit(structure(picture[None], FINE).ravel())


def picture_of(data: bytes, case: str | None = None) -> Array:
    """(GRID, GRID, GRID): the picture of a fingerprint; `CaseError` for one of another length."""
    if len(data) != SIZE:
        raise CaseError(
            "a fingerprint of another version",
            case=case,
            found=f"{len(data)} bytes",
            expected=f"{SIZE} bytes",
            fix="run validate again",
        )
    return np.frombuffer(data, np.uint8).reshape(GRID, GRID, GRID)


def views_of(picture: Array) -> Views:
    """All parts of a scan that remain when one axis lost its ends, and all orientations of the whole."""
    cube = picture.astype(np.float32)
    windows, blur = np.stack([cells_between(low, high, GRID) for low, high in WINDOWS]), blur_of(FINE)
    parts = []
    for axis in range(3):
        plain = np.moveaxis(cube, axis, 0)
        smooth = blur @ plain @ blur.T  # along the other two axes
        fine = np.tensordot(windows, plain, 1) - np.tensordot(blur @ windows, smooth, 1)
        parts.append(np.moveaxis(fine, 1, axis + 1).reshape(len(windows), -1))
    return Views(cube, unit(np.concatenate(parts)), oriented(structure(cube[None], FINE))[0])


def structure(cubes: Array, blur: float, cells: int = GRID) -> Floats:
    """Pictures (n, GRID, GRID, GRID) minus their blurred selves, averaged to `cells` along each axis."""
    take = cells_between(0, GRID, GRID, cells)
    fine, smooth = cubes.astype(np.float32), cubes.astype(np.float32)
    for _ in range(3):  # one axis each time; the axes come round
        fine = np.moveaxis(fine @ take.T, -1, 1)
        smooth = np.moveaxis(smooth @ (take @ blur_of(blur)).T, -1, 1)
    return fine - smooth


def oriented(cubes: Array) -> Floats:
    """(n, 48, voxels): each picture with its axes in every order, flipped in every way; zero mean, unit length."""
    turned = [
        cubes.transpose(0, *(axis + 1 for axis in order))[:, :: flips[0], :: flips[1], :: flips[2]]
        for order, flips in ORIENTATIONS
    ]
    return unit(np.stack([cube.reshape(len(cubes), -1) for cube in turned], axis=1))


def unit(rows: Array) -> Floats:
    """Rows (..., n) of zero mean and unit length; near 0 for a row without structure."""
    rows = rows - rows.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(length, ROUNDING), np.float32)


def _middle(along: Array) -> tuple[float, float]:
    """Where, in voxels from the first face, all but the tails of the tissue along an axis begins and ends."""
    share = np.concatenate([[0.0], np.cumsum(along)]) / along.sum()
    low, high = np.interp([TAIL, 1 - TAIL], share, np.arange(len(share)))
    return float(low), float(high)


def cells_between(low: float, high: float, size: int, cells: int = GRID) -> Floats:
    """(cells, size) weights that average an axis of `size` voxels in equal cells between two positions.

    Beyond its ends the axis goes on as its last voxel.
    """
    edges = np.linspace(low, max(high, low + 1e-3), cells + 1)
    starts, stops = np.arange(size, dtype=float), np.arange(1, size + 1, dtype=float)
    starts[0], stops[-1] = -np.inf, np.inf
    shared = np.minimum(edges[1:, None], stops) - np.maximum(edges[:-1, None], starts)
    weights = np.clip(shared, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@lru_cache
def blur_of(cells: float) -> Floats:
    """(GRID, GRID) Gaussian of this sigma; at the ends, of what is inside."""
    distance = np.subtract.outer(np.arange(GRID), np.arange(GRID))
    kernel = np.exp(-0.5 * (distance / cells) ** 2)
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True), np.float32)
