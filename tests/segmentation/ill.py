"""Small scans in memory: a body, a liver of 100 HU in it, and, if wanted, a darker tumor."""

from __future__ import annotations

import numpy as np

from synthoma.cases import Case
from synthoma.seeds import rng_for
from synthoma.volume import Geometry, Volume

SPACING_MM = 4.0


def scan(name: str, tumor_mm: float = 0.0, annotated: bool = True, seed: int = 0, size: int = 40) -> Case:
    """A case; tumor_mm: diameter of its tumor, 0 for none. annotated: whether it has a mask of tumors."""
    grid = Geometry.of((size,) * 3, SPACING_MM)
    rng = rng_for(seed, name)
    at = grid.to_mm(np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1))
    middle = size * SPACING_MM / 2
    away = np.linalg.norm((at - middle) / [1.0, 0.8, 1.0], axis=-1)
    liver, body = away < 0.31 * size * SPACING_MM, away < 0.46 * size * SPACING_MM
    place = middle + rng.uniform(-15, 15, 3)
    tumor = np.linalg.norm(at - place, axis=-1) < tumor_mm / 2
    hu = np.where(tumor, 30.0, np.where(liver, 100.0, np.where(body, -60.0, -1000.0)))
    hu = (hu + rng.normal(0, 8, hu.shape)).astype(np.int16)
    masks = {"liver": Volume(liver & ~tumor, grid)}
    if annotated:
        masks["liver_lesion"] = Volume(tumor, grid)
    return Case(name, Volume(np.asfortranarray(hu), grid), masks, attributes={"phase": "portal"})
