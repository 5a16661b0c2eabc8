"""What a scan tells of itself: the contrast phase, the scanner's blur, and its noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synthoma import anatomy
from synthoma.bounded import Bounded
from synthoma.errors import CaseError
from synthoma.synthesis.tumor import Vector
from synthoma.volume import Array, Volume

HU_RANGE = (-1024, 3071)  # what a 12-bit scanner stores
_SAMPLE_MM = (20.0, 20.0, 20.0)
PHASE_ORGANS = ("aorta", "kidney", "kidney_left", "kidney_right", "liver", "spleen")


def contrast_phase(ct: Volume, masks: Mapping[str, Volume | Bounded], case: str = "") -> str:
    """`unenhanced`, `arterial` or `portal`, from the HU of aorta, kidneys, spleen and liver as far as annotated.

    Thresholds: blood and kidney tissue stay under 75 HU without contrast; an aorta over 200 HU, or 90 HU above the
    liver, is arterial. `CaseError` if none of these organs is annotated: give `phase` in the recipe then.
    """
    there = {name: masks[name] for name in PHASE_ORGANS if name in masks}
    hu = {name: _median_hu(ct, mask if isinstance(mask, Bounded) else Bounded.of(mask)) for name, mask in there.items()}
    hu = {name: value for name, value in hu.items() if not np.isnan(value)}
    kidneys = [value for name, value in hu.items() if name.startswith("kidney")]
    blood = hu.get("aorta")
    enhanced = [value for value in (blood, *kidneys, hu.get("spleen")) if value is not None]
    if enhanced:
        if max(enhanced) < 75:
            return "unenhanced"
        if blood is not None and (blood > 200 or blood - hu.get("liver", blood) > 90):
            return "arterial"
        if blood is None and kidneys and "liver" in hu and hu["liver"] < 75 and max(kidneys) > 110:
            return "arterial"
        return "portal"
    if "liver" in hu:
        return "portal" if hu["liver"] > 80 else "unenhanced"
    raise CaseError(
        "the contrast phase cannot be told",
        case=case or None,
        found=f"masks of {', '.join(masks) or 'nothing'}" + f"; {', '.join(there)} without a voxel" * bool(there),
        expected=f"voxels of one of {', '.join(PHASE_ORGANS)}",
        fix=f"set phase in the recipe or the catalog: {', '.join(anatomy.PHASES)}",
    )


def _median_hu(ct: Volume, mask: Bounded) -> float:
    """Of every few voxels; nan if the mask is empty."""
    # the same voxels whatever the box
    steps = [max(1, int(3.0 / spacing)) for spacing in ct.geometry.spacing_mm]
    first = [-(-low // step) * step for low, step in zip(mask.box.lower, steps, strict=True)]
    i, j, k = (slice(low, high, step) for low, high, step in zip(first, mask.box.upper, steps, strict=True))
    own = tuple(slice(low - start, None, step) for low, start, step in zip(first, mask.box.lower, steps, strict=True))
    values = ct.data[i, j, k][mask.data[own]]
    return float(np.median(values)) if values.size else float("nan")


def scanner_blur_mm(ct: Volume) -> float:
    """SD of the scanner's in-plane blur, from the width of the air-skin edge; 0.75 mm where none is in view.

    Lines from left to right and from back to front in a few axial slices, however the voxels are stored; a line meets
    skin at an angle and only widens it, so the narrowest quarter counts.
    """
    widths = []
    ct = ct.reorient("RAS")
    slices = np.linspace(0, ct.data.shape[2] - 1, 10).astype(int)[1:-1]
    for axis in (0, 1):
        # as they lie in memory first, then each line in one piece
        planes = [(ct.data[:, ::16, k] if axis == 0 else ct.data[::16, :, k]).copy(order="K") for k in slices]
        lines = np.asfortranarray(np.concatenate([plane if axis == 0 else plane.T for plane in planes], axis=1))
        widths += [_edge_widths(flat) * ct.geometry.spacing_mm[axis] for flat in (lines, lines[::-1])]
    found = np.concatenate(widths)
    if found.size < 20:
        return 0.75
    return float(np.clip(np.quantile(found, 0.25) / 2.563, 0.4, 2.0))


def _edge_widths(lines: Array) -> Array:
    """10-90 % widths, in samples, of the first step from air to tissue along each column of (n, lines)."""
    solid = lines > -500
    first = np.argmax(solid, axis=0)
    use = np.flatnonzero(solid.any(axis=0) & (first >= 4) & (first < len(lines) - 6))
    at = first[use] + np.arange(-4, 6)[:, None]
    profile = lines[at, use].astype(np.float64)
    air, tissue = profile[:2].mean(axis=0), profile[7:].mean(axis=0)
    share = (profile - air) / np.maximum(tissue - air, 1)
    good = (air < -900) & (tissue > -200) & (np.diff(share[3:7], axis=0) > -0.05).all(axis=0)
    share = share[:, good]
    if share.shape[1] == 0:
        return np.zeros(0)
    return _crossing(share, 0.9) - _crossing(share, 0.1)


def _crossing(share: Array, level: float) -> Array:
    """Where each column first reaches the level, by linear interpolation."""
    after = np.maximum(np.argmax(share >= level, axis=0), 1)
    columns = np.arange(share.shape[1])
    low, high = share[after - 1, columns], share[after, columns]
    return np.asarray(after - 1 + (level - low) / np.maximum(high - low, 1e-6))


@dataclass(frozen=True, eq=False)
class Noise:
    """A scan's noise as found in a block of even tissue. sample: HU, float64, of zero mean."""

    sample: Array

    @classmethod
    def at(cls, ct: Volume, center_mm: Vector) -> Noise:
        """Learned from a 20 mm block around a place."""
        return cls(noise_sample(ct, center_mm))

    @cached_property
    def spectrum(self) -> Array:
        """Amplitudes of its waves."""
        return np.abs(np.fft.rfftn(self.sample))


def noise_sample(ct: Volume, center_mm: Vector) -> Array:
    """The noise of a 20 mm block around a place of even tissue, float64, its slow part taken away."""
    geometry = ct.geometry
    size = [max(4, min(32, round(mm / s))) for mm, s in zip(_SAMPLE_MM, geometry.spacing_mm, strict=True)]
    center = np.round(geometry.to_ijk(center_mm)).astype(int)
    lower = [int(np.clip(c - n // 2, 0, max(0, m - n))) for c, n, m in zip(center, size, ct.data.shape, strict=True)]
    i, j, k = (slice(low, low + n) for low, n in zip(lower, size, strict=True))
    block = ct.data[i, j, k].astype(np.float64, order="C")  # sums in one order
    for axis in range(3):
        # a plane through the block: organs brighten slowly from one side to the other
        at = np.arange(block.shape[axis]) - (block.shape[axis] - 1) / 2
        shape = [-1 if a == axis else 1 for a in range(3)]
        if (at**2).sum() > 0:
            slope = (block * at.reshape(shape)).sum() / ((at**2).sum() * block.size / block.shape[axis])
            block = block - slope * at.reshape(shape)
    return np.asarray(block - block.mean())
