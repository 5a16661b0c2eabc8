"""How a lesion looks, as numbers: measured of real lesions, asked of generators.

A look is what is left of a lesion when shape, place and noise are taken away: its contrast, its rim, its core, the
histogram of its tissue, and how much of it is a slope from one side to the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy
from synthoma.volume import Array, Floats

OTHER = "other"  # lesions of no organ that we know
HOMES = (*anatomy.ORGANS, OTHER)
BINS, BIN_HU = 16, 10.0  # of the histogram around the lesion's mean: from -80 to 80 HU, the outer ones open
# SD of the filter that takes a scan's noise away and leaves the tissue: in mm, and at least in voxels
TISSUE_MM, TISSUE_VOXELS = 1.5, 1.0
_RIM, _CORE = 0.25, 0.6  # of the largest depth: where the rim ends, and where the core begins
_OPEN = 0.05  # share of an outer bin from which a lesion is more than tissue
_RARE, _FAR_HU = 0.005, 120.0  # shares of a histogram that are no part of its range; where open bins end
_EVEN_HU = 0.01  # SD of tissue up to which it is even
_LEAST = 0.05  # weight of voxels on the border, which are partly something else
CONDITION = len(HOMES) + len(anatomy.PHASES) + 4 + BINS  # numbers in a condition
_SHELL_HU, _CONTRAST_HU, _SIZE_MM = 20.0, 50.0, 20.0
# how strictly a look that is chosen is like the tumor: SD of ln mm and of HU, weight of another phase and organ
_LIKE_SIZE, _LIKE_HU, _OTHER_PHASE, _OTHER_ORGAN = 0.4, 30.0, 0.3, 1e-3


@dataclass(frozen=True)
class Look:
    """How a lesion's tissue looks.

    organ: of `HOMES`. phase: of `anatomy.PHASES`, or empty if it is not known. diameter_mm: of the ball of its volume.
    contrast_hu: its mean less the organ's typical HU. rim_hu, core_hu: means of its outer quarter (by depth) and of
    its inner part, less its own mean. histogram: shares of its tissue in steps of 10 HU around its mean. trend: the
    share of its tissue's variance that a plane explains, see `trend_of`; 1 where it was not measured, and any may be.
    """

    organ: str
    phase: str
    diameter_mm: float
    contrast_hu: float
    rim_hu: float
    core_hu: float
    histogram: tuple[float, ...]
    trend: float = 1.0

    @property
    def range_hu(self) -> tuple[float, float]:
        """The HU around its mean that the histogram knows, and a bin more; the outer bins are open and end far out."""
        known = [index for index, share in enumerate(self.histogram) if share > _RARE]
        first, last = (known[0], known[-1]) if known else (0, BINS - 1)
        middle = (BINS - 1) / 2
        low = (first - middle - 1) * BIN_HU if first else -_FAR_HU
        high = (last - middle + 1) * BIN_HU if last < BINS - 1 else _FAR_HU
        return low, high

    def numbers(self) -> NDArray[np.float32]:
        """The look as a row of a table; `of_numbers` reads it."""
        organ, phase = HOMES.index(self.organ), _phase_index(self.phase)
        row = [organ, phase, self.diameter_mm, self.contrast_hu, self.rim_hu, self.core_hu, *self.histogram, self.trend]
        return np.asarray(row, np.float32)

    @classmethod
    def of_numbers(cls, row: Sequence[float]) -> Look:
        """The look that `numbers` made a row of; rows of before end with the histogram."""
        organ, phase, *rest = (float(value) for value in row)
        phases = (*anatomy.PHASES, "")
        diameter, contrast, rim, core, *shares = rest
        trend = shares[BINS] if len(shares) > BINS else 1.0
        return cls(HOMES[int(organ)], phases[int(phase)], diameter, contrast, rim, core, tuple(shares[:BINS]), trend)

    def rounded(self) -> Look:
        """With the digits that matter."""
        plain = {name: round(getattr(self, name), 1) for name in ("diameter_mm", "contrast_hu", "rim_hu", "core_hu")}
        shares = tuple(round(share, 3) for share in self.histogram)
        return dataclasses.replace(self, **plain, histogram=shares, trend=round(self.trend, 3))

    def condition(self) -> NDArray[np.float32]:
        """What a network is told, float32 (`CONDITION`,), each number of about unit size."""
        organ = np.eye(len(HOMES), dtype=np.float32)[HOMES.index(self.organ)]
        phase = np.eye(len(anatomy.PHASES) + 1, dtype=np.float32)[_phase_index(self.phase)][:-1]
        size = np.log(max(self.diameter_mm, 1.0) / _SIZE_MM)
        plain = [size, self.contrast_hu / _CONTRAST_HU, self.rim_hu / _SHELL_HU, self.core_hu / _SHELL_HU]
        shares = 4 * np.sqrt(np.asarray(self.histogram, np.float32))
        return np.concatenate([organ, phase, np.asarray(plain, np.float32), shares]).astype(np.float32)


def choose_look(
    looks: Sequence[Look], organ: str, phase: str, diameter_mm: float, contrast_hu: float | None,
    rng: np.random.Generator,
) -> Look:  # fmt: skip
    """One of some looks, by chance; those near in size and contrast, of the same organ and phase, come up most.

    contrast_hu: None for any. Raises `ValueError` if there are none.
    """
    if not looks:
        raise ValueError("no looks to choose from")
    weights = []
    for look in looks:
        apart = np.log(max(look.diameter_mm, 1.0) / max(diameter_mm, 1.0)) / _LIKE_SIZE
        weight = np.exp(-0.5 * apart**2) + 1e-6
        if contrast_hu is not None:
            weight *= np.exp(-0.5 * ((look.contrast_hu - contrast_hu) / _LIKE_HU) ** 2) + 1e-6
        weight *= 1.0 if look.phase == phase else _OTHER_PHASE
        if max(look.histogram[0], look.histogram[-1]) > _OPEN:
            weight *= _OTHER_ORGAN  # its mask holds gas or bone: no tissue to imitate
        weights.append(weight * (1.0 if look.organ == organ else _OTHER_ORGAN))
    shares = np.asarray(weights, np.float64)
    return looks[int(rng.choice(len(shares), p=shares / shares.sum()))]


def measure_look(
    tissue: Array, mask: NDArray[np.bool_], spacing_mm: Sequence[float], base_hu: float, organ: str, phase: str,
    diameter_mm: float,
) -> Look:  # fmt: skip
    """The look of a lesion from its tissue (HU without noise) and its mask, on one grid.

    Raises `ValueError` for an empty mask.
    """
    if not mask.any():
        raise ValueError("an empty mask has no look")
    values, depth = tissue[mask].astype(np.float64), depths(mask, spacing_mm)[mask]
    mean = float(values.mean())
    rim, core = values[depth <= max(_RIM, float(depth.min()))], values[depth >= _CORE]
    return Look(
        organ, phase, diameter_mm, mean - base_hu, float(rim.mean()) - mean, float(core.mean()) - mean,
        histogram(values - mean), trend_of(tissue, mask),
    )  # fmt: skip


def histogram(residuals: Array) -> tuple[float, ...]:
    """Shares (16) of HU around their mean, each divided between the two nearest bins, as a network can follow it."""
    at = np.clip(np.asarray(residuals, np.float64).ravel() / BIN_HU + (BINS - 1) / 2, 0, BINS - 1)
    low = np.minimum(at.astype(np.intp), BINS - 2)
    upper = at - low
    shares = np.bincount(low, 1 - upper, BINS) + np.bincount(low + 1, upper, BINS)
    return tuple((shares / max(at.size, 1)).tolist())


def trend_of(tissue: Array, mask: NDArray[np.bool_]) -> float:
    """The share (0 ... 1) of the variance of a lesion's tissue that a plane of least squares explains.

    Near 1 for one bright and one dark half, near 0 for many small parts, 0 for even tissue. The same on any grid.
    """
    values = tissue[mask].astype(np.float64)
    values = values - values.mean()
    total = float((values**2).sum())
    if total <= _EVEN_HU**2 * len(values):
        return 0.0
    at = np.argwhere(mask).astype(np.float64)
    at -= at.mean(axis=0)
    plane = at @ np.linalg.lstsq(at, values, rcond=None)[0]
    return float((plane**2).sum() / total)


def depths(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Floats:
    """Depth below the surface of a mask over its largest depth: 0 outside, up to 1 inside."""
    import edt

    depth = edt.edt(np.ascontiguousarray(mask), anisotropy=tuple(spacing_mm), black_border=False)
    return np.asarray(depth / max(float(depth.max()), 1e-6), np.float32)


def tissue_of(hu: Array, mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Floats:
    """The lesion's tissue without the scan's noise, HU float32, continued a little beyond its border.

    A mean over 1.5 mm (SD) of the lesion's own voxels, of coarse ones over more, lest their noise be taken for tissue.
    Those on the border, which are partly something else, count little. Noise of CT has its power at high frequencies,
    tissue at low ones. Where no voxel of the lesion is near, its mean.
    """
    import edt
    from scipy import ndimage

    inside = np.ascontiguousarray(mask)
    depth = edt.edt(inside, anisotropy=tuple(spacing_mm), black_border=False)
    weight = np.where(inside, np.clip(depth / (1.5 * max(spacing_mm)), _LEAST, 1), 0).astype(np.float64)
    sigma = [max(TISSUE_MM / spacing, TISSUE_VOXELS) for spacing in spacing_mm]
    near = ndimage.gaussian_filter(weight, sigma, mode="constant", truncate=3)
    total = ndimage.gaussian_filter(weight * hu, sigma, mode="constant", truncate=3)
    mean = float((weight * hu).sum() / max(weight.sum(), 1e-9))
    return np.where(near > 1e-3, total / np.maximum(near, 1e-3), mean).astype(np.float32)


def _phase_index(phase: str) -> int:
    return (*anatomy.PHASES, "").index(phase if phase in anatomy.PHASES else "")
