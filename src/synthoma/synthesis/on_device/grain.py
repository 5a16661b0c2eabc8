"""The scan's noise inside a tumor, and blending, on a device: as `insertion.blending` and `kernels.reference` do it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from synthoma.synthesis.insertion.blending import Blocks, blocks_around, noise_tile, tolerance_hu
from synthoma.synthesis.on_device.shapes import upload
from synthoma.synthesis.scan import HU_RANGE, Noise
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Box, Geometry


def blend(hu: Tensor, box: Box, alpha: Tensor, tissue: Tensor, inside: Tensor) -> None:
    """Put tissue with its noise (`inside`) into a box of the scan, in place; hu: int16 (K, J, I)."""
    part = hu[box.slices[::-1]]
    before = part.float()
    low, high = before.min().clamp_max(HU_RANGE[0]), before.max().clamp_min(HU_RANGE[1])
    new = (inside + tissue - before) * alpha + before
    part.copy_(torch.round(torch.clamp(new, low, high)))


def noise_inside(hu: Tensor, box: Box, alpha: Tensor, plan: TumorPlan, geometry: Geometry, noise: Noise) -> Tensor:
    """The scan's noise on a tumor's box, float32 (K, J, I); hu: int16 (K, J, I) on this grid."""
    blocks = blocks_around(box, plan, geometry)
    low, trust = _means_of_plain(_means(hu[blocks.outer.slices[::-1]], blocks), plan, blocks)
    own = hu[box.slices[::-1]].float() - _interpolated(low, blocks)
    around = _around(_touched(alpha, box, blocks, trust))
    trusted = torch.where(around, trust, 1.0).amin() == 1
    # a block without trust lies on the border to fat, gas or a vessel: no voxel of it may borrow trust from the next
    trust = torch.where(_around(trust == 0), 0.0, trust)
    weight = torch.where(trusted, 1.0, _interpolated(trust, blocks))
    tile = upload(noise_tile(noise, plan).T, hu.device)
    k, j, i = (torch.arange(n, device=hu.device) % m for n, m in zip(own.shape, tile.shape, strict=True))
    learned = tile[k[:, None, None], j[:, None], i]
    return weight * own + torch.sqrt(1 - weight * weight) * learned


def _means(hu: Tensor, blocks: Blocks) -> Tensor:
    """The mean HU of each block, float64."""
    block = blocks.block[::-1]
    whole = _repeated(hu.double(), [(0, -n % b) for n, b in zip(hu.shape, block, strict=True)])
    k, j, i = (n // b for n, b in zip(whole.shape, block, strict=True))
    sums = whole.reshape(k, block[0], j, block[1], i, block[2]).sum(dim=(1, 3, 5))
    for axis in (2 - axis for axis in blocks.mixed):
        padded = _repeated(sums, [(int(a == axis), int(a == axis)) for a in range(3)])
        count = sums.shape[axis]
        sums = 6 * sums + padded.narrow(axis, 0, count) + padded.narrow(axis, 2, count)
    return sums / blocks.weight


def _means_of_plain(mean: Tensor, plan: TumorPlan, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """As `reference.means_of_plain`."""
    tolerance = float(tolerance_hu(plan))
    plain = (mean - float(np.float32(plan.base_hu))).abs() < 2 * tolerance
    share, low = plain.double(), torch.where(plain, mean, 0.0)
    for axis, size in zip((2, 1, 0), blocks.window, strict=True):
        share, low = _running_mean(share, axis, size), _running_mean(low, axis, size)
    low = low / share.clamp_min(1e-6)
    trust = (2 - (mean - low).abs() / tolerance).clamp(0, 1)
    return low.float(), torch.where(plain & (share >= 0.25), trust, 0.0).float()


def _repeated(values: Tensor, margins: list[tuple[int, int]]) -> Tensor:
    """Padded with the outermost values; margins: by axis."""
    flat = [n for margin in reversed(margins) for n in margin]
    return functional.pad(values[None, None], flat, mode="replicate")[0, 0] if any(flat) else values


def _running_mean(values: Tensor, axis: int, size: int) -> Tensor:
    if size == 1:
        return values
    padded = _repeated(values, [(size // 2,) * 2 if a == axis else (0, 0) for a in range(3)])
    return padded.unfold(axis, size, 1).mean(dim=-1)


def _interpolated(values: Tensor, blocks: Blocks) -> Tensor:
    """As `reference.interpolated`: along K first."""
    for axis, (low, share) in enumerate(reversed(blocks.at)):
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = upload(share, values.device).reshape([-1 if a == axis else 1 for a in range(3)])
        start = values.index_select(axis, upload(low, values.device))
        values = start + (values.index_select(axis, upload(high, values.device)) - start) * weight
    return values


def _touched(alpha: Tensor, box: Box, blocks: Blocks, trust: Tensor) -> Tensor:
    """The blocks that the tumor touches."""
    i, j, k = blocks.block
    thin = (alpha[::k, ::j, ::i] > 0).int()
    index = [
        upload(np.clip((np.arange(m) * n + low - first) // n, 0, count - 1), alpha.device)
        for m, n, low, first, count in zip(
            thin.shape[::-1], blocks.block, box.lower, blocks.outer.lower, trust.shape[::-1], strict=True
        )
    ]
    touched = torch.zeros(trust.shape, dtype=torch.int32, device=alpha.device)
    touched.index_put_((index[2][:, None, None], index[1][:, None], index[0]), thin, accumulate=True)
    return touched > 0


def _around(blocks: Tensor) -> Tensor:
    """The blocks and their neighbors."""
    return functional.max_pool3d(blocks.float()[None, None], 3, stride=1, padding=1)[0, 0] > 0
