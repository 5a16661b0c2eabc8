"""Patches finished on a device: tumors, augmentation, window and targets of a batch, from what the workers read.

The steps are those of `patches` and `augmentation`. Rotated and scaled voxels are interpolated with weights that OpenCV
rounds to 1/32, so these differ a little from patches that the CPU made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from synthoma.degradation import axis_matrices, white_noise
from synthoma.learning.augmentation import Augmentation, degradation_of, turning, window_line
from synthoma.learning.gridding import IGNORED
from synthoma.learning.patches import Patches, RawPatch, class_table
from synthoma.volume import PADDING_HU

Batch = dict[str, Any]


class Renders(Protocol):
    """An augment that renders on a device, as patches see it."""

    def render_batch(self, parts: Sequence[Any], device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """int16 HU and uint8 labels of each part that it cut, (I, J, K) on the device."""


def finish(patches: Patches, items: Sequence[tuple[int, RawPatch]], device: torch.device) -> Batch:
    """Patches with their indices as one batch, see `loader.loader`; image, target and ignored are on the device."""
    raws = [raw for _, raw in items]
    shape, window = patches.recipe.size, patches.recipe.window_hu
    tables = torch.from_numpy(np.stack([class_table(name) for name in patches.classes])).to(device)
    images, targets, unknown = [], [], []
    for raw, (hu, labels) in zip(
        raws, cast(Renders, patches.augment).render_batch([raw.part for raw in raws], device), strict=True
    ):
        hu, labels = resample(hu, labels, raw.augmentation, shape, raw.spacing_mm)
        images.append(to_image(hu, raw.augmentation, window, raw.spacing_mm)[None])
        targets.append(tables[:, labels.long()])
        unknown.append((labels == IGNORED)[None])
    target, ignored = torch.stack(targets), torch.stack(unknown)
    # asked once for the whole batch: every question makes the CPU wait for the device
    asked = [target.flatten(2).amax(dim=2).bool().flatten(), ignored.any()[None]]
    *shown, any_ignored = torch.cat(asked).tolist()
    names = [{name for name, there in zip(patches.classes, row, strict=True) if there} for row in _rows(shown, patches)]
    return {
        "image": torch.stack(images),
        "target": target,
        "annotated": torch.from_numpy(np.stack([raw.annotated for raw in raws])),
        "ignored": ignored if any_ignored else None,
        "synthetic": torch.tensor([bool(raw.reaching & there) for raw, there in zip(raws, names, strict=True)]),
        "case": [raw.case for raw in raws],
        "box": [raw.box for raw in raws],
        "index": [index for index, _ in items],
    }


def _rows(flat: list[bool], patches: Patches) -> list[list[bool]]:
    count = len(patches.classes)
    return [flat[start : start + count] for start in range(0, len(flat), count)]


def resample(
    hu: Tensor, labels: Tensor, drawn: Augmentation, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """As `augmentation.resample`; HU become float32."""
    hu = hu.float()
    if drawn.resamples:
        at = _sources(turning(drawn, spacing_mm), hu.shape, shape, hu.device)
        hu, labels = _between(hu - PADDING_HU, at) + PADDING_HU, _nearest(labels, at)
    flipped = [axis for axis, flip in enumerate(drawn.flips) if flip]
    return hu.flip(flipped), labels.flip(flipped)


def _sources(matrix: Any, source: torch.Size, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each voxel of a patch comes from (I, J, K, 3), in voxels of the source, float64."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2 for n in shape]
    from_middle = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    middle = torch.tensor([(n - 1) / 2 for n in source], dtype=torch.float64, device=device)
    return from_middle @ torch.from_numpy(matrix).to(device).T + middle


def _between(values: Tensor, at: Tensor) -> Tensor:
    """Trilinear interpolation; 0 beyond the source."""
    last = torch.tensor([max(n - 1, 1) for n in values.shape], dtype=torch.float64, device=at.device)
    grid = (2 * at / last - 1).flip(-1).float()
    return functional.grid_sample(values[None, None], grid[None], padding_mode="zeros", align_corners=True)[0, 0]


def _nearest(values: Tensor, at: Tensor) -> Tensor:
    """The values of the nearest voxels, of two the later one as on the CPU; 0 beyond the source."""
    index = torch.floor(at + 0.5).long()
    last = torch.tensor(values.shape, device=at.device) - 1
    inside = ((index >= 0) & (index <= last)).all(dim=-1)
    i, j, k = index.clamp_min(0).minimum(last).unbind(dim=-1)
    return torch.where(inside, values[i, j, k], 0)


def to_image(
    hu: Tensor, drawn: Augmentation, window_hu: tuple[float, float], spacing_mm: tuple[float, float, float]
) -> Tensor:
    """As `augmentation.to_image`; hu: float32 (I, J, K)."""
    how = degradation_of(drawn)
    for axis, matrix in enumerate(axis_matrices(how, tuple(hu.shape), spacing_mm)):
        if matrix is not None:
            hu = (hu.transpose(axis, 2) @ torch.from_numpy(matrix).to(hu.device)).transpose(axis, 2)
    if how.noise_hu > 0:
        noise = torch.from_numpy(white_noise(tuple(hu.shape), how.noise_seed)).to(hu.device)
        hu = hu + float(np.float32(how.noise_hu)) * noise
    factor, offset = window_line(drawn, window_hu)
    image = (hu * float(factor) + float(offset)).clamp(0, 1)
    return image if drawn.gamma == 1 else image.pow(float(np.float32(drawn.gamma)))
