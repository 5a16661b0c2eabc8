"""Where findings can be: free places in an organ's tissue, and what stands there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.anatomy import tissues
from synthoma.phantom.anatomy.abdomen import Abdomen
from synthoma.volume import Box

Array = NDArray[Any]

_TRIED = 3000
_AROUND = np.array([step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)], float)
_AROUND /= np.linalg.norm(_AROUND, axis=1, keepdims=True)


class TumorBed:
    """A patient's tissue as contrast shows it, and the places that findings have taken.

    contrast: weights (3,) of the phases' HU.
    """

    def __init__(self, abdomen: Abdomen, contrast: Array) -> None:
        self.abdomen, self.contrast = abdomen, np.asarray(contrast, float)
        self.hu_by_id = tissues.hu_by_id(contrast) + tissues.shift_by_id(abdomen.patient.shift_hu)
        self.taken: list[tuple[Array, float]] = []

    def places(
        self,
        rng: np.random.Generator,
        among: Sequence[str],
        lower: Sequence[float],
        upper: Sequence[float],
    ) -> Array:
        """World positions (N, 3) at random in a box of the template where the main tissue is one of these.

        Drawn before the grid is asked, so that another grid of the same patient gives the same places.
        """
        tried = self.abdomen.patient.to_world(rng.uniform(lower, upper, (_TRIED, 3)))
        return tried[np.isin(self.tissue_at(tried), [tissues.TISSUE_ID[name] for name in among])]

    def tissue_at(self, world: Array) -> Array:
        """Main tissue ids (N,) at world positions (N, 3); 255 off the grid."""
        fine = self.abdomen.fine
        index = np.rint(fine.to_ijk(world)).astype(int)
        inside = ((index >= 0) & (index < fine.shape)).all(axis=1)
        found = np.full(len(index), 255, np.uint8)
        found[inside] = self.abdomen.main[tuple(index[inside].T)]
        return found

    def room(self, center_mm: Array, away_mm: float, among: Sequence[str]) -> float:
        """In how many of 26 directions, as a share, one of these tissues lies so far away."""
        around = self.tissue_at(center_mm + away_mm * _AROUND)
        return float(np.isin(around, [tissues.TISSUE_ID[name] for name in among]).mean())

    def free(self, center_mm: Array, radius_mm: float) -> bool:
        """Whether a ball lies clear of all findings so far."""
        return all(np.linalg.norm(center_mm - other) > radius_mm + radius for other, radius in self.taken)

    def take(self, center_mm: Array, radius_mm: float) -> None:
        """Keeps later findings away."""
        self.taken.append((np.asarray(center_mm, float), radius_mm))

    def tissue(self, box: Box, wanted: Array) -> tuple[Array, Array]:
        """Of a box of the fine grid: the share of each voxel that holds `wanted` tissues (by id), and their mean HU."""
        main, under = self.abdomen.main[box.slices], self.abdomen.under[box.slices]
        of_main = self.abdomen.share[box.slices] * np.float32(1 / 255)
        first, second = of_main * wanted[main], (1 - of_main) * wanted[under]
        share = first + second
        hu = (first * self.hu_by_id[main] + second * self.hu_by_id[under]) / np.maximum(share, 1e-6)
        return share.astype(np.float32), hu.astype(np.float32)
