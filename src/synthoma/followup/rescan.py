"""Another scan of the same patient: other noise of the same texture, another place, other slices and kernel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from synthoma.degradation import Degradation, degrade, thicker_slices
from synthoma.followup.motion import Motion, draw_motion, move_image, move_mask
from synthoma.followup.recipe import RescanRecipe
from synthoma.seeds import rng_for
from synthoma.synthesis.drawing import uniform
from synthoma.synthesis.scan import HU_RANGE, Noise
from synthoma.synthesis.tumor import HU
from synthoma.volume import Array, Floats, Geometry, Volume, triple

_DETAIL_MM = 1.6  # SD of the blur whose rest counts as noise
_EDGE_MM = 2.0  # over which it is told noise from edges
_QUIET = 0.3  # quantile over the body of what is taken away, which is noise and no edge
_TILE = (96, 96, 48)  # voxels of noise drawn; repeated beyond


@dataclass(frozen=True)
class Rescan:
    """How one later scan differs from the first: plain data, nothing left to choose."""

    motion: Motion = field(default_factory=Motion)
    noise_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    fresh_noise: bool = False
    slice_mm: Annotated[float, Field(ge=0, le=50)] = 0.0
    blur_mm: Annotated[float, Field(ge=0, le=50)] = 0.0
    shift_hu: HU = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return dataclasses.asdict(self)


def draw_rescan(geometry: Geometry, recipe: RescanRecipe, rng: np.random.Generator) -> Rescan:
    """A later scan of a patient whose first scan lies on this grid."""

    def drawn(limits: tuple[float, float] | None) -> float:
        return 0.0 if limits is None else round(uniform(limits, rng), 2)

    motion = draw_motion(geometry, recipe, rng)
    seed = int(rng.integers(2**62))
    slice_mm, blur_mm, shift_hu = drawn(recipe.slice_mm), drawn(recipe.blur_mm), drawn(recipe.shift_hu)
    return Rescan(motion, seed, recipe.fresh_noise, slice_mm, blur_mm, shift_hu)


def rescan(ct: Volume, how: Rescan, noise: Noise) -> Volume:
    """The scan as scanned again, in its type. noise: the scan's own, learned in an even place of it.

    Noise is what a blur of 1.6 mm takes away in even tissue; at edges the old noise stays with the edge. The new one
    has its spectrum and, everywhere, its local SD.
    """
    hu: Floats
    if how.fresh_noise:
        clean, strength = _without_noise(ct)
        hu = clean if how.motion.is_none else move_image(Volume(clean, ct.geometry), how.motion)
        spread = Volume(strength, ct.geometry)
        hu = hu + (strength if how.motion.is_none else np.maximum(move_image(spread, how.motion), 0)) * _noise(
            ct, how.noise_seed, noise
        )
    else:
        hu = np.asfortranarray(ct.data, np.float32) if how.motion.is_none else move_image(ct, how.motion)
    worse = degrade(Volume(np.asfortranarray(hu), ct.geometry), Degradation(blur_mm=how.blur_mm, shift_hu=how.shift_hu))
    worse = thicker_slices(worse, how.slice_mm) if how.slice_mm else worse
    data = np.clip(worse.data, *HU_RANGE)
    if ct.data.dtype == np.int16:
        data = np.rint(data).astype(np.int16)
    return Volume(np.asfortranarray(data), worse.geometry)


def rescan_mask(mask: Volume, how: Rescan, grid: Geometry) -> Volume:
    """A mask or labels on the later scan's grid."""
    moved = mask if how.motion.is_none else move_mask(mask, how.motion)
    return moved if grid == moved.geometry else moved.to(grid)


def _without_noise(ct: Volume) -> tuple[Floats, Floats]:
    """The scan less its noise where it is told from edges, and the local SD of what was taken away."""
    hu = np.asfortranarray(ct.data, np.float32)
    spacing = ct.geometry.spacing_mm
    rest = hu - _blurred(hu, _DETAIL_MM, spacing)
    size = np.abs(rest)
    around = _blurred(size, _EDGE_MM, spacing)
    body = around[::4, ::4, ::2][hu[::4, ::4, ::2] > -200]
    typical = np.float32(max(float(np.quantile(body, _QUIET)) if body.size else 0.0, 1e-3))
    # edges leave much more than noise does: up to 1.6 times as much all is taken, from 2.2 times on nothing
    share = np.clip((np.float32(2.2) - around / typical) / np.float32(0.6), 0, 1)
    # |noise| has a mean of 0.8 SD
    strength = share * np.minimum(around, np.float32(1.4) * typical) / np.float32(0.798)
    most = np.float32(3 * 1.4 / 0.798) * typical
    taken = share * np.clip(rest, -most, most)
    return hu - taken, strength


def _noise(ct: Volume, seed: int, noise: Noise) -> Floats:
    """Noise with the spectrum of the scan's own where a blur of 1.6 mm takes it away, for a rest of SD 1."""
    size = triple(min(n, most) for n, most in zip(ct.data.shape, _TILE, strict=True))
    index = [np.abs(np.fft.fftfreq(n)) * m for n, m in zip(size, noise.sample.shape, strict=True)]
    index[2] = np.fft.rfftfreq(size[2]) * noise.sample.shape[2]
    amplitude = _looked_up(noise.spectrum, index)
    waves = np.meshgrid(
        *[np.fft.fftfreq(n, s) for n, s in zip(size[:2], ct.geometry.spacing_mm[:2], strict=True)],
        np.fft.rfftfreq(size[2], ct.geometry.spacing_mm[2]),
        indexing="ij",
    )
    squared = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    kept = np.exp(-2 * np.pi**2 * _DETAIL_MM**2 * squared)
    # the old noise that a blur leaves and the new one are independent: powers add up to that of the scan
    white = np.fft.rfftn(rng_for(seed, "rescan").standard_normal(size))
    tile = np.fft.irfftn(white * amplitude * np.sqrt(1 - kept**2), s=size, axes=(0, 1, 2))
    taken = np.fft.irfftn(white * amplitude * (1 - kept), s=size, axes=(0, 1, 2))
    tile = (tile / max(float(taken.std()), 1e-12)).astype(np.float32)
    turned = [np.arange(n) % m for n, m in zip(ct.data.shape, size, strict=True)]
    return np.asarray(tile.T[np.ix_(*reversed(turned))].T)


def _looked_up(spectrum: Array, index: list[Array]) -> Array:
    """Amplitudes of a small spectrum at frequencies between its own, by linear interpolation."""
    values = spectrum[: spectrum.shape[0] // 2 + 1, : spectrum.shape[1] // 2 + 1]
    for axis, at in enumerate(index):
        low = np.clip(np.floor(at).astype(int), 0, values.shape[axis] - 1)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values


def _blurred(hu: Floats, sigma_mm: float, spacing_mm: tuple[float, float, float]) -> Floats:
    """Gaussian blur; a separable filter of whole slices. The first axis is fastest in memory, and stays so."""
    kernels = [
        cv2.getGaussianKernel(2 * max(1, round(2.5 * sigma_mm / s)) + 1, sigma_mm / s, cv2.CV_32F) for s in spacing_mm
    ]
    one, turned = np.ones((1, 1), np.float32), np.ascontiguousarray(hu.T)
    flat = cv2.sepFilter2D(turned.reshape(len(turned), -1), -1, one, kernels[2], borderType=cv2.BORDER_REPLICATE)
    image = np.asarray(flat.reshape(turned.shape))
    for plane in image:
        plane[...] = cv2.sepFilter2D(plane, -1, kernels[0], kernels[1], borderType=cv2.BORDER_REPLICATE)
    return image.T
