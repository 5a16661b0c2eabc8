"""What is not healthy tissue: tumors, and what only looks like one, over the tissue of a patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.phantom.grids import Parts, block_mean
from synthoma.volume import Box

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Finding:
    """One finding on a patient's fine grid.

    box: where it is. share: float32, what part of each voxel of the box it fills, 0 to 1. change_hu: float32, its
    HU less those of the tissue whose place it takes. tumor: counts to the mask of tumors of `organ` and to the
    structure `host` (`kidney_left`). streaks_hu: of metal; streaks_mm: how far above and below its middle they are, in
    one slice if 0. facts: plain data for the case's record.
    """

    kind: str
    organ: str
    box: Box
    share: Array
    change_hu: Array
    tumor: bool = False
    host: str = ""
    streaks_hu: float = 0.0
    streaks_mm: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def trimmed(self, least: float = 0.01) -> Finding | None:
        """The same in the smallest box that holds every share from `least` on; None if there is none."""
        inner = Box.around(self.share >= least)
        if inner is None:
            return None
        lower, upper = (np.add(end, self.box.lower).tolist() for end in (inner.lower, inner.upper))
        return replace(
            self,
            box=Box(tuple(lower), tuple(upper)),
            share=self.share[inner.slices].copy(),
            change_hu=self.change_hu[inner.slices].copy(),
        )

    def center(self) -> Array:
        """The voxel of the fine grid around which it lies, not rounded."""
        places = np.argwhere(self.share > 0)
        middle: Array = np.average(places, axis=0, weights=self.share[tuple(places.T)]) + self.box.lower
        return middle


def lay(findings: Iterable[Finding], hu: Array, box: Box) -> None:
    """Puts findings into the HU of a box of the fine grid, in place."""
    for finding in findings:
        lower = np.maximum(finding.box.lower, box.lower)
        upper = np.minimum(finding.box.upper, box.upper)
        if (upper > lower).all():
            here = tuple(slice(a, b) for a, b in zip(lower - box.lower, upper - box.lower, strict=True))
            start = np.asarray(finding.box.lower)
            there = tuple(slice(a, b) for a, b in zip(lower - start, upper - start, strict=True))
            hu[here] += finding.share[there] * finding.change_hu[there]


def half_filled(findings: Iterable[Finding], shape: tuple[int, int, int], parts: Parts) -> Array:
    """bool on the scan's grid (`shape` counts fine voxels, `parts` to each of the scan's along an axis): the voxels
    of which the findings fill at least half."""
    total = np.zeros(shape, np.float32)
    for finding in findings:
        here = total[finding.box.slices]
        np.maximum(here, finding.share, out=here)
    mask: Array = block_mean(total, parts) >= 0.5
    return mask
