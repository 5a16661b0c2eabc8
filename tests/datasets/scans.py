"""Phantom scans that look enough like a body for validation and fingerprints, in under 0.1 s each."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from synthoma.cases import Case
from synthoma.volume import Geometry, Volume

ABDOMEN = Geometry.of((72, 56, 40), (5.0, 5.0, 7.0), "LPS")
# Centers and half-axes in mm, RAS+, from the middle of the body; HU.
ORGANS = {
    "liver": ((75, 10, 20), (75, 75, 60), 110),
    "spleen": ((-95, -35, 35), (32, 42, 40), 115),
    "kidney_left": ((-60, -50, -30), (27, 25, 50), 160),
    "kidney_right": ((60, -50, -45), (27, 25, 50), 160),
    "pancreas": ((-20, 15, 5), (35, 15, 15), 90),
    "liver_lesion": ((90, 20, 20), (15, 15, 15), 60),
}


def body(geometry: Geometry = ABDOMEN, seed: int = 0, noise_hu: float = 10.0) -> Case:
    """A patient of fat, muscle, spine and organs in air, of one's own build; masks of the organs.

    The organs hold their tumors. Every patient differs in size, in where the organs lie, and in the bowel.
    """
    rng = np.random.default_rng(seed)
    middle = geometry.to_mm((np.asarray(geometry.shape) - 1) / 2)
    mm = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1)) - middle
    width, depth = rng.uniform(135, 165), rng.uniform(95, 120)
    hu = np.full(geometry.shape, -1000.0, np.float32)
    around = (mm[..., 0] / width) ** 2 + (mm[..., 1] / depth) ** 2
    bowel = ndimage.gaussian_filter(rng.normal(size=geometry.shape), 2.5)
    hu[around < 1] = -100
    hu[around < rng.uniform(0.7, 0.85)] = 50
    hu[(around < 0.55) & (bowel > 0.05)] = -110
    hu[(around < 0.4) & (bowel < -0.1)] = -800
    hu[_ellipsoid(mm, (0, -depth * 0.55, 0), (22, 22, 1e6))] = 350
    masks = {}
    for name, (center, half_mm, value) in ORGANS.items():
        mask = _ellipsoid(mm, center + rng.normal(0, 6, 3), np.multiply(half_mm, rng.uniform(0.9, 1.1, 3)))
        hu[mask] = value
        masks[name] = Volume(np.asfortranarray(mask), geometry)
    hu += rng.normal(0, noise_hu, geometry.shape).astype(np.float32)
    ct = np.asfortranarray(np.rint(np.clip(hu, -1024, 3071)).astype(np.int16))
    return Case(f"body_{seed}", Volume(ct, geometry), masks, dataset="phantoms")


def _ellipsoid(mm: np.ndarray, center: object, half_mm: object) -> np.ndarray:
    return np.asarray((((mm - center) / half_mm) ** 2).sum(axis=-1) < 1)
