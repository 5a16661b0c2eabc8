"""Small cases in memory with organs and tumors that are balls, their cache, and synthesis that paints balls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grids import centers_mm
from synthesis.phantoms import grid
from synthoma import anatomy
from synthoma.cases import Case
from synthoma.learning.cache import build_cache
from synthoma.learning.entry import Entry
from synthoma.seeds import rng_for
from synthoma.volume import Array, Box, Geometry, Volume

EXTENT_MM = 100.0
UPRIGHT = grid((2.0, 2.0, 2.0), EXTENT_MM)
FLAT = grid((1.6, 1.8, 4.0), EXTENT_MM).reoriented("LPS")
TILTED = grid((1.7, 1.4, 2.5), EXTENT_MM, (25, -15, 40))
GRIDS = {"upright": UPRIGHT, "anisotropic": FLAT, "oblique": TILTED}
LIVER = ((-10.0, 0.0, 0.0), 34.0)
SPLEEN = ((38.0, 10.0, 0.0), 8.0)

Ball = tuple[tuple[float, float, float], float]  # center and radius in mm


def ball(geometry: Geometry, center_mm: Sequence[float], radius_mm: float) -> Array:
    """Voxels within so many mm of a point."""
    return np.asarray(np.linalg.norm(centers_mm(geometry) - np.asarray(center_mm), axis=-1) <= radius_mm)


def patient(
    name: str = "anna",
    geometry: Geometry = UPRIGHT,
    tumors: Sequence[Ball] | None = (),
    healthy: bool = False,
    kind: type = np.int16,
) -> Case:
    """Liver and spleen in fat, with tumors in the liver; None leaves them unannotated."""
    structures = {"liver": ball(geometry, *LIVER), "spleen": ball(geometry, *SPLEEN)}
    noise = np.random.default_rng(sum(name.encode())).normal(0, 10, geometry.shape)
    hu = noise + np.where(ball(geometry, (0, 0, 0), 49), -90.0, -1000.0)
    hu[structures["liver"]] += 200
    hu[structures["spleen"]] += 210
    if tumors is not None:
        lesion = np.zeros(geometry.shape, bool)
        for place in tumors:
            lesion |= ball(geometry, *place)
        hu[lesion] -= 60
        structures["liver_lesion"] = lesion
    scan = Volume(np.asfortranarray(hu.round().astype(kind)), geometry)
    masks = {structure: Volume(np.asfortranarray(mask), geometry) for structure, mask in structures.items()}
    return Case(name, scan, masks, attributes={"healthy": True} if healthy else {})


def cached(folder: Path, *cases: Case, **how: Any) -> list[Entry]:
    """The entries of some cases, at 2 mm unless told."""
    return build_cache(cases, folder, how.pop("spacing_mm", 2.0), **how)


@dataclass(frozen=True)
class BallTumor:
    """A synthetic tumor of the augment below."""

    organ: str
    center_mm: tuple[float, float, float]
    equivalent_diameter_mm: float

    @property
    def reach_mm(self) -> float:
        return self.equivalent_diameter_mm / 2


@dataclass(frozen=True)
class Balls:
    """Online synthesis as the loader sees it: balls of 500 HU in the liver, or nothing by chance."""

    probability: float = 1.0
    equivalent_diameter_mm: float = 12.0
    fails_for: str = ""
    name: str = "balls"

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """The liver's mean HU."""
        liver = masks["liver"].data
        return {"mean": ct.data[liver].mean(keepdims=True), "grid": np.array(liver.shape)}

    def draw(self, entry: Entry, epoch: int) -> Sequence[BallTumor]:
        """One ball."""
        rng = rng_for(0, entry.case, epoch)
        if rng.random() >= self.probability:
            return ()
        offset = rng.uniform(-12, 12, 3)
        x, y, z = (np.asarray(LIVER[0]) + offset).tolist()
        return (BallTumor("liver", (x, y, z), self.equivalent_diameter_mm),)

    def render(self, entry: Entry, box: Box, drawn: Sequence[BallTumor]) -> tuple[Array, Array]:
        """The box with the balls."""
        if entry.case == self.fails_for:
            raise ZeroDivisionError("a fault of the generator")
        assert entry.tables(self.name)["mean"].shape == (1,)
        hu, labels = entry.read_hu(box), entry.read_labels(box)
        for tumor in drawn:
            inside = ball(entry.geometry.crop(box), tumor.center_mm, tumor.equivalent_diameter_mm / 2)
            hu[inside] = 500
            labels[inside] = anatomy.STRUCTURES["liver_lesion"]
        return hu, labels
