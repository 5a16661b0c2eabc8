"""What a scanner makes of a patient: field of view, HU by phase, slice, blur, noise, and the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from synthoma.phantom.anatomy import body, noise, tissues
from synthoma.phantom.anatomy.abdomen import Abdomen, slabs
from synthoma.phantom.anatomy.arms import ROOM_MM, arms
from synthoma.phantom.anatomy.canvas import world_points
from synthoma.phantom.anatomy.patient import Patient
from synthoma.phantom.anatomy.shapes import points_of
from synthoma.phantom.findings import lay
from synthoma.phantom.grids import block_mean
from synthoma.seeds import rng_for
from synthoma.volume import Geometry, Volume

Array = NDArray[Any]

# Scale of the noise's power spectrum, f exp(-(f/f0)^2) per mm: 1/e length of 0.7 mm in-plane at a soft kernel
_NOISE_PEAK_PER_MM = 0.36
_SLICE_SHARE = 0.5  # SD of the noise's kernel along z, in slice thicknesses
_FINE_TEXTURE_MM = 4.5


_WHOLE = 1000.0  # mm: as far as the patient reaches
# template boxes: what is scanned instead of the whole abdomen
REGIONS = {
    "upper": ((-_WHOLE, -_WHOLE, -8.0), (_WHOLE, _WHOLE, 226.0)),
    "liver": ((-104.0, -112.0, 22.0), (146.0, 108.0, 216.0)),
    "kidney": ((-122.0, -112.0, 10.0), (122.0, 60.0, 176.0)),
    "pancreas": ((-112.0, -80.0, 24.0), (84.0, 80.0, 160.0)),
    "pelvis": ((-120.0, -110.0, -168.0), (120.0, 90.0, -20.0)),
}


@dataclass(frozen=True)
class Scanner:
    """How a hospital scans: spacing and blur in mm, noise in HU at the liver, phase, and reach along z.

    blur_mm: SD of the in-plane point spread. slice_mm: thickness of the slice profile. reach_mm: template z
    of the lowest and highest slice. grain: how much coarser the noise is than filtered back projection's. contrast:
    weights of the phases' HU, if not exactly those of `phase`. view_mm: in-plane extent of the reconstruction.
    region: of `REGIONS`, all that is scanned.
    """

    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    slice_mm: float = 2.0
    blur_mm: float = 0.8
    noise_hu: float = 15.0
    phase: str = "portal"
    reach_mm: tuple[float, float] = (-168.0, 232.0)
    offset_hu: float = 0.0
    grain: float = 1.0
    contrast: tuple[float, float, float] | None = None
    table: Literal["curved", "flat", "none"] = "curved"
    view_mm: float | None = None
    region: str = "abdomen"

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of the HU in the phases of `anatomy.PHASES`."""
        return self.contrast or tissues.weights_of(self.phase)


def field_of_view(patient: Patient, scanner: Scanner) -> Geometry:
    """An upright RAS grid around the patient and the table's top, from the top of the liver to the pelvis.

    Less than that where the scanner's region or its in-plane extent leave something out.
    """
    low, high = _extent(patient, scanner.reach_mm)
    if patient.arms:
        low, high = low - (ROOM_MM, 0, 0), high + (ROOM_MM, 0, 0)
    spacing = np.asarray(scanner.spacing_mm)
    if scanner.view_mm is not None:
        middle, half = (low + high) / 2, np.array([scanner.view_mm / 2, scanner.view_mm / 2, np.inf])
        low, high = np.maximum(low, middle - half), np.minimum(high, middle + half)
    if scanner.region != "abdomen":
        corners = np.stack(np.meshgrid(*np.transpose(REGIONS[scanner.region])), axis=-1).reshape(-1, 3)
        inner = patient.to_world(corners)
        low, high = np.maximum(low, inner.min(axis=0)), np.minimum(high, inner.max(axis=0))
    shape = np.maximum(1, np.round((high - low) / spacing)).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * spacing
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _extent(patient: Patient, reach_mm: tuple[float, float]) -> tuple[Array, Array]:
    """Lowest and highest world position of the body and the table's top, between two heights of the template."""
    angles = np.linspace(0, 2 * np.pi, 180)
    z = np.linspace(*reach_mm, 24)
    ring = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    radius = np.arange(80, 260, 2.0)
    tried = np.concatenate(
        [
            np.broadcast_to(ring[:, None, None] * radius[None, :, None, None], (180, len(radius), 24, 2)),
            np.broadcast_to(z[None, None, :, None], (180, len(radius), 24, 1)),
        ],
        axis=-1,
    )
    points = points_of(tried.reshape(-1, 3))
    inside = (body.skin(points, patient, body.wall(points)) < 3).reshape(tried.shape[:3])
    # the outermost positions are on the skin, or in the first and the last slice
    outer = inside & ~np.concatenate([inside[:, 1:], np.zeros_like(inside[:, :1])], axis=1)
    outer[:, :, [0, -1]] = inside[:, :, [0, -1]]
    world = patient.to_world(tried[outer])
    return world.min(axis=0) - (10, 32, 0), world.max(axis=0) + (10, 10, 0)


def scan(abdomen: Abdomen, scanner: Scanner, seed: int) -> Volume:
    """int16 HU of a drawn patient: tissue HU and texture, table, blur and correlated noise.

    In-plane are the first two axes. The same seed gives the same noise.
    """
    geometry = abdomen.geometry
    hu = _tissue_hu(abdomen, scanner)
    solid = (hu[::4, ::4, ::2] > -400).astype(np.float32)
    if scanner.table != "none" and scanner.region in ("abdomen", "upper"):
        _lay_table(hu, geometry, scanner.table)
    _blur(hu, geometry, scanner)
    _streak(hu, abdomen)
    if abdomen.patient.arms:
        _streak_between_arms(hu, abdomen, seed)
    sd = _noise_sd(solid, hu.shape, geometry) * np.float32(scanner.noise_hu)
    hu += sd * _grain(rng_for(seed, "scanner noise"), geometry, scanner)
    hu += np.float32(scanner.offset_hu)
    return Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), geometry)


def _tissue_hu(abdomen: Abdomen, scanner: Scanner) -> Array:
    """HU without the scanner's blur and noise; a voxel's value is the mean over its parts."""
    by_id, texture = tissues.hu_by_id(scanner.weights), tissues.texture_by_id()
    by_id += tissues.shift_by_id(abdomen.patient.shift_hu)
    hu = np.empty(abdomen.geometry.shape, np.float32)
    thick = abdomen.parts[2]
    for box in slabs(abdomen.fine, thick):
        main, under = abdomen.main[box.slices], abdomen.under[box.slices]
        share = abdomen.share[box.slices] * np.float32(1 / 255)
        grain = noise.field(abdomen.patient.seed, "texture", _FINE_TEXTURE_MM, abdomen.fine.crop(box))
        values = (by_id[main] + texture[main] * grain) * share + by_id[under] * (1 - share)
        lay(abdomen.findings, values, box)
        hu[:, :, box.lower[2] // thick : box.upper[2] // thick] = block_mean(values, abdomen.parts)
    return hu


def _lay_table(hu: Array, geometry: Geometry, form: str) -> None:
    """A curved or flat carbon shell filled with foam, right behind the lowest point of the back."""
    world = world_points(geometry)
    behind = np.where(hu > -700, world.y, np.float32(np.inf)).min()
    if not np.isfinite(behind):
        return
    top = np.float32(behind - 3)
    bend = np.float32(1 / 1100 if form == "curved" else 0)
    curve = top + world.x**2 * bend - world.y
    inside = np.broadcast_to(curve > 0, hu.shape) & (hu < -950)
    shell = np.broadcast_to(np.clip(2.2 - np.abs(curve - 2), 0, 1), hu.shape)
    by_id = tissues.hu_by_id(tissues.weights_of("portal"))
    foam, carbon = by_id[tissues.TISSUE_ID["table_foam"]], by_id[tissues.TISSUE_ID["table_shell"]]
    table = foam + (carbon - foam) * shell
    hu[inside] = table[inside]


def _blur(hu: Array, geometry: Geometry, scanner: Scanner) -> None:
    """The point spread in-plane and the slice profile along the third axis, in place."""
    overlap = max(scanner.slice_mm**2 - geometry.spacing_mm[2] ** 2, 0)
    sigma = np.sqrt(overlap / 12) / geometry.spacing_mm[2]
    if sigma > 0.1:
        ndimage.gaussian_filter1d(hu, sigma, axis=2, output=hu, mode="nearest")
    for k in range(hu.shape[2]):
        hu[:, :, k] = cv2.GaussianBlur(
            np.ascontiguousarray(hu[:, :, k]),
            (0, 0),
            sigmaX=max(scanner.blur_mm / geometry.spacing_mm[1], 0.05),
            sigmaY=max(scanner.blur_mm / geometry.spacing_mm[0], 0.05),
        )


def _streak(hu: Array, abdomen: Abdomen) -> None:
    """Rays of too much and too little around metal, in the slices that it is in, in place."""
    geometry = abdomen.geometry
    for number, finding in enumerate(abdomen.findings):
        if not finding.streaks_hu:
            continue
        center = geometry.to_ijk(abdomen.fine.to_mm(finding.center()))
        k = int(np.clip(round(center[2]), 0, hu.shape[2] - 1))
        i, j = ((np.arange(n) - c) * s for n, c, s in zip(hu.shape[:2], center, geometry.spacing_mm[:2], strict=False))
        away = np.hypot(i[:, None], j[None]).astype(np.float32)
        turn = rng_for(abdomen.patient.seed, "streaks", number).uniform(0, np.pi)
        rays = np.cos(6 * np.arctan2(j[None], i[:, None]) + turn)
        fade = np.exp(-away / 22) * np.clip(away / 3, 0, 1) * finding.streaks_hu
        reach = int(finding.streaks_mm / geometry.spacing_mm[2])
        for level in range(max(0, k - reach), min(hu.shape[2], k + reach + 1)):
            inside = hu[:, :, level] > -700
            hu[:, :, level] += (np.sign(rays) * np.abs(rays) ** 3 * fade * inside).astype(np.float32)


def _streak_between_arms(hu: Array, abdomen: Abdomen, seed: int) -> None:
    """Streaks from arm to arm, where most of the rays are lost in their bones, in place."""
    geometry = abdomen.geometry
    rng = rng_for(seed, "arm streaks")
    rows = rng.standard_normal(hu.shape[1:]).astype(np.float32)
    rows = ndimage.gaussian_filter1d(rows, 2.2 / geometry.spacing_mm[1], axis=0)
    rows *= np.float32(rng.uniform(7, 15) / rows.std())
    middle = float(np.mean([curve.points[:, 1].mean() for curve in arms(abdomen.patient)]))
    y = world_points(geometry).y.ravel()
    rows *= np.exp(-(((y - middle) / 45) ** 2))[:, None].astype(np.float32)
    hu += rows[None] * (hu > -700)


def _noise_sd(solid: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    """Relative noise: more where more body lies around, 1 at the depth of the liver."""
    around = ndimage.gaussian_filter(solid, [45 / (4 * s) for s in geometry.spacing_mm[:2]] + [2], mode="nearest")
    relative = (0.45 + 0.75 * around).astype(np.float32)
    planes = [relative[:, :, min(k // 2, relative.shape[2] - 1)] for k in range(shape[2])]
    return np.stack([cv2.resize(np.ascontiguousarray(p), (shape[1], shape[0])) for p in planes], axis=2)


def _grain(rng: np.random.Generator, geometry: Geometry, scanner: Scanner) -> Array:
    """Noise of SD 1 with the power of filtered back projection: a ramp in-plane, cut by the kernel."""
    i, j, k = geometry.shape
    di, dj, dk = geometry.spacing_mm
    white = rng.standard_normal((i, j, k), dtype=np.float32)
    one = np.zeros(31)
    one[15] = 1
    sigma = _SLICE_SHARE * scanner.slice_mm / dk
    weights = ndimage.gaussian_filter1d(one, sigma)
    white = ndimage.gaussian_filter1d(white, sigma, axis=2) / np.float32(np.sqrt((weights**2).sum()))
    f = np.hypot(fft.fftfreq(i, di)[:, None], fft.fftfreq(j, dj)[None])
    peak = _NOISE_PEAK_PER_MM * 0.8 / max(scanner.blur_mm, 0.2) / scanner.grain
    gain = np.sqrt((f + 0.02) * np.exp(-((f / peak) ** 2)))
    gain = (gain / np.sqrt((gain**2).mean())).astype(np.float32)
    spectrum = fft.rfft2(white, axes=(0, 1))
    spectrum *= gain[:, : j // 2 + 1, None]
    grain: Array = fft.irfft2(spectrum, s=(i, j), axes=(0, 1)).astype(np.float32, copy=False)
    return grain
