"""Models with weights set by hand, whose answer is known for every voxel, and phantoms for them."""

from __future__ import annotations

import numpy as np
import torch

from synthoma.learning.models import Model, ModelSpec
from synthoma.learning.networks import NetworkRecipe
from synthoma.volume import Geometry, Volume

ORGAN_HU, TUMOR_HU = 100, 200
WINDOW_HU = (-200.0, 300.0)


def threshold_model(
    size: tuple[int, int, int] = (32, 32, 32), spacing_mm: float = 3.0, steepness: float = 60.0
) -> Model:
    """Organ above 50 HU, tumor above 150 HU, each voxel by itself: a convolution of one weight a class."""
    net = torch.nn.Conv3d(1, 2, 1)
    low, high = WINDOW_HU
    with torch.no_grad():
        net.weight.fill_(steepness)
        for channel, hu in enumerate((50, 150)):
            net.bias[channel] = -steepness * (hu - low) / (high - low)
    return Model(net, spec(size, spacing_mm))


def smooth_model(size: tuple[int, int, int] = (16, 16, 16)) -> Model:
    """Random weights that see seven voxels around each: what it says depends on where a window ends."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 4, 3, padding=1)]
    layers += [torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 3, padding=1)]
    return Model(torch.nn.Sequential(*layers), spec(size, 1.0))


def spec(size: tuple[int, int, int], spacing_mm: float) -> ModelSpec:
    """Liver and its tumors; the network it names is not the one used."""
    return ModelSpec(
        network=NetworkRecipe(name="unet", depth=2),
        classes=("liver", "liver_lesion"),
        spacing_mm=(spacing_mm,) * 3,
        window_hu=WINDOW_HU,
        patch=size,
    )


def ball(geometry: Geometry, center_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    """Voxels whose center lies within a ball."""
    mm = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))
    return np.asarray(np.linalg.norm(mm - center_mm, axis=-1) <= radius_mm)


def phantom(geometry: Geometry, organ_mm: float, tumor_mm: float) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Water, in its middle a ball of organ, in that one of tumor; the scan, the organ with its tumor, the tumor."""
    center = geometry.to_mm((np.asarray(geometry.shape) - 1) / 2)
    organ, tumor = ball(geometry, center, organ_mm), ball(geometry, center, tumor_mm)
    hu = np.where(tumor, TUMOR_HU, np.where(organ, ORGAN_HU, 0)).astype(np.int16)
    return Volume(np.asfortranarray(hu), geometry), organ, tumor


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Twice what both have, by what each has."""
    return float(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))
