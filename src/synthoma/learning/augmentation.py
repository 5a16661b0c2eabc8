"""Augmentation of patches: drawn first as plain data, then applied; one resampling at most, in numpy and OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from synthoma.degradation import Degradation, degrade
from synthoma.recipe import Recipe
from synthoma.volume import PADDING_HU, Array, Box, Geometry, Volume

Range = tuple[float, float]
Flips = tuple[bool, bool, bool]


class AugmentationRecipe(Recipe):
    """What may happen to a patch, and how often; ranges are uniform, a probability of 0 turns a row off.

    flip: probability per axis (left-right, front-back, up-down). rotation_deg: at most, either way, around one axis
    drawn at random; scale: magnification. slice_mm: thickness of slices, as if scanned that thick. blur_mm: SD.
    contrast: factor around the middle of the window. noise_hu: SD of white noise. gamma: of the windowed image.
    scale: range of magnification. rotation_probability, scale_probability, slice_probability, blur_probability,
    contrast_probability, shift_probability, noise_probability, gamma_probability: how often this happens to a patch.
    shift_hu: added to all of a patch.
    """

    flip: tuple[float, float, float] = (0.5, 0.5, 0.5)
    rotation_probability: float = Field(0.3, ge=0, le=1)
    rotation_deg: float = Field(20.0, ge=0, le=180)
    scale_probability: float = Field(0.3, ge=0, le=1)
    scale: Range = (0.8, 1.25)
    slice_probability: float = Field(0.15, ge=0, le=1)
    slice_mm: Range = (2.0, 6.0)
    blur_probability: float = Field(0.15, ge=0, le=1)
    blur_mm: Range = (0.5, 1.5)
    contrast_probability: float = Field(0.2, ge=0, le=1)
    contrast: Range = (0.75, 1.25)
    shift_probability: float = Field(0.2, ge=0, le=1)
    shift_hu: Range = (-20.0, 20.0)
    noise_probability: float = Field(0.2, ge=0, le=1)
    noise_hu: Range = (5.0, 25.0)
    gamma_probability: float = Field(0.2, ge=0, le=1)
    gamma: Range = (0.7, 1.5)


@dataclass(frozen=True)
class Augmentation:
    """What happens to one patch: plain data. The defaults leave it as it is."""

    flips: Flips = (False, False, False)
    axis: int = 2
    rotation_deg: float = 0.0
    scale: float = 1.0
    slice_mm: float = 0.0
    blur_mm: float = 0.0
    contrast: float = 1.0
    shift_hu: float = 0.0
    noise_hu: float = 0.0
    noise_seed: int = 0
    gamma: float = 1.0

    @property
    def resamples(self) -> bool:
        """Whether voxels move to places between voxels."""
        return self.rotation_deg != 0 or self.scale != 1


def draw_augmentation(recipe: AugmentationRecipe, rng: np.random.Generator) -> Augmentation:
    """Every choice for one patch; as many random numbers are used whatever the recipe."""
    chances, places = rng.random(11), rng.random(9)

    def one(index: int, probability: float, span: Range, otherwise: float) -> float:
        drawn = span[0] + (span[1] - span[0]) * float(places[index])
        return drawn if chances[index] < probability else otherwise

    turn = (-recipe.rotation_deg, recipe.rotation_deg)
    i, j, k = (bool(chance < share) for chance, share in zip(chances[8:], recipe.flip, strict=True))
    return Augmentation(
        flips=(i, j, k),
        axis=int(places[8] * 3),
        rotation_deg=one(0, recipe.rotation_probability, turn, 0.0),
        scale=one(1, recipe.scale_probability, recipe.scale, 1.0),
        slice_mm=one(2, recipe.slice_probability, recipe.slice_mm, 0.0),
        blur_mm=one(3, recipe.blur_probability, recipe.blur_mm, 0.0),
        contrast=one(4, recipe.contrast_probability, recipe.contrast, 1.0),
        shift_hu=one(5, recipe.shift_probability, recipe.shift_hu, 0.0),
        noise_hu=one(6, recipe.noise_probability, recipe.noise_hu, 0.0),
        noise_seed=int(rng.integers(2**63)),
        gamma=one(7, recipe.gamma_probability, recipe.gamma, 1.0),
    )


def source_box(drawn: Augmentation, box: Box, spacing_mm: tuple[float, float, float]) -> Box:
    """The voxels that a patch on `box` is made from; it may reach outside the scan."""
    if not drawn.resamples:
        return box
    half = (np.asarray(box.shape) - 1) / 2
    reach = np.abs(turning(drawn, spacing_mm)) @ half
    return box.grow(np.ceil(reach - half - 1e-9).astype(int).tolist())


def resample(
    hu: Array, labels: Array, drawn: Augmentation, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[Array, Array]:
    """HU (linear) and labels (nearest) of a `source_box`, rotated, scaled and flipped to a patch of this shape.

    HU become float32 if they are interpolated; what comes from beyond the source is -1024 HU, label 0.
    """
    if drawn.resamples:
        matrix = turning(drawn, spacing_mm)
        hu = _warp(hu.astype(np.float32), matrix, drawn.axis, shape, float(PADDING_HU), linear=True)
        labels = _warp(labels, matrix, drawn.axis, shape, 0.0, linear=False)
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in drawn.flips)
    return hu[turn], labels[turn]


def to_image(
    hu: Array, drawn: Augmentation, window_hu: Range, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """HU (I, J, K) as the float32 image of a patch in [0, 1]: resolution, contrast and noise, then the window."""
    scan = Volume(row_major(hu, np.float32), Geometry.of(hu.shape, spacing_mm))
    worse = degrade(scan, degradation_of(drawn))
    factor, offset = window_line(drawn, window_hu)
    image: NDArray[np.float32] = worse.data * factor
    image += offset
    np.clip(image, 0, 1, out=image)
    if drawn.gamma != 1:
        np.power(image, np.float32(drawn.gamma), out=image)
    return image


def row_major(values: Array, kind: Any) -> Array:
    """As `np.ascontiguousarray`, in a third of the time where the first axis is the fastest in memory.

    values (I, J, K): int16, uint8 or float32; axes may run backwards.
    """
    import cv2

    forward = tuple(slice(None, None, -1 if step < 0 else 1) for step in values.strides)
    plain = values[forward]
    if not plain.flags.f_contiguous or not plain.size:
        return np.ascontiguousarray(values, kind)
    i, j, k = plain.shape
    turned = cv2.transpose(plain.T.reshape(k, j * i)).reshape(j, i, k)
    return np.ascontiguousarray(turned.transpose(1, 0, 2)[forward], kind)


def degradation_of(drawn: Augmentation) -> Degradation:
    """What makes the patch worse before its contrast changes: the noise has the recipe's SD after that."""
    noise_hu = drawn.noise_hu / drawn.contrast
    return Degradation(drawn.slice_mm, drawn.blur_mm, noise_hu, noise_seed=drawn.noise_seed)


def window_line(drawn: Augmentation, window_hu: Range) -> tuple[np.float32, np.float32]:
    """(contrast (hu - middle) + middle + shift - low) / (high - low) as one factor and one sum."""
    low, high = window_hu
    middle = (low + high) / 2
    factor = drawn.contrast / (high - low)
    return np.float32(factor), np.float32((middle + drawn.shift_hu - low) / (high - low) - factor * middle)


def turning(drawn: Augmentation, spacing_mm: tuple[float, float, float]) -> Array:
    """Offsets from a patch's middle to offsets from the source's, in voxels: (3, 3), a rotation around one axis."""
    angle = np.deg2rad(drawn.rotation_deg)
    a, b = (axis for axis in range(3) if axis != drawn.axis)
    turn = np.eye(3)
    turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    spacing = np.asarray(spacing_mm)
    matrix: Array = turn * spacing / spacing[:, None] / drawn.scale
    return matrix


def _warp(data: Array, matrix: Array, axis: int, shape: tuple[int, int, int], outside: float, linear: bool) -> Array:
    """In the planes across one axis by OpenCV, then between two planes: together one trilinear interpolation."""
    import cv2

    rows, columns = (other for other in range(3) if other != axis)
    middle, source_middle = (np.asarray(shape) - 1) / 2, (np.asarray(data.shape) - 1) / 2
    plane = matrix[np.ix_([columns, rows], [columns, rows])]
    shift = source_middle[[columns, rows]] - plane @ middle[[columns, rows]]
    affine = np.column_stack([plane, shift])
    flags = (cv2.INTER_LINEAR if linear else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
    stack = np.moveaxis(data, axis, 0)
    planes: dict[int, Array] = {}

    def warped(index: int) -> Array:
        if index in planes:
            return planes[index]
        size = (shape[columns], shape[rows])
        if 0 <= index < len(stack):
            image = np.ascontiguousarray(stack[index])
            planes[index] = cv2.warpAffine(image, affine, size, flags=flags, borderValue=outside)
        else:
            planes[index] = np.full(size[::-1], outside, data.dtype)
        return planes[index]

    result = np.empty(shape, data.dtype)
    across = np.moveaxis(result, axis, 0)
    for index, at in enumerate(source_middle[axis] + matrix[axis, axis] * (np.arange(shape[axis]) - middle[axis])):
        low = int(np.floor(at + 1e-9)) if linear else int(np.floor(at + 0.5))
        share = max(0.0, float(at) - low) if linear else 0.0
        across[index] = warped(low)
        if share > 1e-6:
            across[index] += np.float32(share) * (warped(low + 1) - warped(low))
        for gone in [kept for kept in planes if kept < low]:
            del planes[gone]
    return result
