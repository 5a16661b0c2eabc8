"""The tissue of a mass on a device, as `generators.texture` makes it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthoma.synthesis.generators.details import Tissue
from synthoma.synthesis.generators.texture import core_mm, shades_of, speck_shares, wave_lines
from synthoma.synthesis.on_device.shapes import Shape, upload
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Box, Geometry


def tissue(plan: TumorPlan, geometry: Geometry, box: Box, shape: Shape) -> Tensor:
    """HU of the tumor on its box, float32 (K, J, I), without the scan's noise."""
    inside = Tissue.of(plan)
    shades, alpha = shades_of(inside), shape.alpha
    field = torch.zeros_like(alpha)
    if shades.texture_hu:
        field += float(shades.texture_hu) * _waves("texture", inside.texture_mm, plan, geometry, box, alpha)
    if shape.depth_mm is not None and shades.drift_hu:
        left = (1 - shape.depth_mm / float(shades.drift_mm)).clamp(0, 1)
        field += float(shades.drift_hu) * (1 - left * left)
    if shape.depth_mm is not None and shades.rim_hu:
        field += float(shades.rim_hu) * _smooth_step(1 - shape.depth_mm / float(shades.rim_mm))
    if shape.radius is not None and shades.core_hu:
        border = _waves("core", core_mm(plan), plan, geometry, box, alpha)
        inner = float(shades.core_share) - shape.radius + float(np.float32(0.08)) * border
        field += float(shades.core_hu) * _smooth_step(inner / float(np.float32(0.2)) + 0.5)
    full = alpha > 0.95
    counted = torch.where(full.any(), full, alpha >= 0.5)
    mean = torch.where(counted, field, 0.0).sum(dtype=torch.float64) / counted.sum().clamp_min(1)
    field += (plan.base_hu + plan.contrast_hu - mean).float()
    for place, share, hu in speck_shares(plan, geometry, box):
        part = field[place.slices[::-1]]
        part += upload(share.T, field.device) * (float(hu) - part)
    return field


def _waves(name: str, length_mm: float, plan: TumorPlan, geometry: Geometry, box: Box, alpha: Tensor) -> Tensor:
    """As `texture.waves`: only the waves along the three axes are uploaded."""
    lines = wave_lines(plan.seed, name, length_mm, plan, geometry, box)
    k_waves, j_waves, i_waves = (upload(axis, alpha.device) for axis in lines)
    (cos_k, sin_k), (cos_j, sin_j) = (axis.chunk(2, dim=1) for axis in (k_waves, j_waves))
    cos_k, sin_k = cos_k[:, None], sin_k[:, None]
    heights = torch.cat([cos_k * cos_j - sin_k * sin_j, -sin_k * cos_j - cos_k * sin_j], dim=2)
    return torch.where(alpha > 0, (heights @ i_waves).float(), 0.0)


def _smooth_step(share: Tensor) -> Tensor:
    clipped = share.clamp(0, 1)
    return clipped * clipped * (3 - 2 * clipped)
