"""Phantoms for synthesis: grids of three kinds, CT-like noise, organs that are balls and ellipsoids in fat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from synthoma.cases import Case
from synthoma.synthesis.bodies.body import Surface, bounding_radius_mm
from synthoma.synthesis.bodies.forms import FORMS
from synthoma.synthesis.generators.details import Tissue
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Geometry, Volume

FAT, LIVER, KIDNEY = -95, 105, 180


def grid(
    spacing_mm: Sequence[float], extent_mm: float | Sequence[float], turn: Sequence[float] = (0, 0, 0)
) -> Geometry:
    """A grid centered on 0 mm; turn: degrees around x, y and z."""
    size = np.broadcast_to(np.asarray(extent_mm, float), (3,))
    i, j, k = (int(np.ceil(mm / s)) for mm, s in zip(size, spacing_mm, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * np.asarray(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    return Geometry((i, j, k), affine)


def fine(extent_mm: float | Sequence[float]) -> Geometry:
    """1 mm."""
    return grid((1.0, 1.0, 1.0), extent_mm)


def clinical(extent_mm: float | Sequence[float]) -> Geometry:
    """0.7 x 0.7 x 5 mm."""
    return grid((0.7, 0.7, 5.0), extent_mm)


def slanted(extent_mm: float | Sequence[float]) -> Geometry:
    """1.1 x 0.8 x 2.5 mm, turned around all axes."""
    return grid((1.1, 0.8, 2.5), extent_mm, (25, -15, 40))


GRIDS = {"1 mm": fine, "0.7x0.7x5 mm": clinical, "oblique": slanted}


def plan_of(diameter_mm: float = 20.0, ratios: Sequence[float] = (1.0, 1.0, 1.0), **changes: Any) -> TumorPlan:
    """A plain rule-based liver mass at 0 mm: no surface, texture, rim, core or mass effect unless told.

    changes: fields of the plan, or of the details of a rule-based one.
    """
    axes = np.asarray(ratios, float) * diameter_mm / 2 / np.prod(ratios) ** (1 / 3)
    details: dict[str, Any] = {"form": "mass", "roughness": 0.0, "spectrum": 2.6, "skew": 0.1, "texture_hu": 0.0}
    names = {entry.name for kind in (Surface, Tissue) for entry in dataclasses.fields(kind)}
    details |= {name: changes.pop(name) for name in list(changes) if name in names}
    own_axes = changes.get("axes_mm", tuple(axes.tolist()))
    settings: dict[str, Any] = {
        "organ": "liver",
        "center_mm": (0.0, 0.0, 0.0),
        "axes_mm": own_axes,
        "orientation": (0.5, 0.1, -0.7, 0.5),
        "volume_mm3": FORMS[details["form"]].volume_mm3(own_axes),
        "radius_mm": bounding_radius_mm(own_axes, details["roughness"]),
        "base_hu": float(LIVER),
        "contrast_hu": -40.0,
        "edge_mm": 0.5,
        "blur_mm": 0.7,
        "noise_hu": 15.0,
        "noise_from_mm": (0.0, 0.0, 0.0),
        "seed": 1,
        "details": details,
    }
    return TumorPlan(**(settings | changes))


def noise(geometry: Geometry, sd: float = 15.0, seed: int = 0) -> Array:
    """Noise as filtered back projection leaves it: little power at low frequency, correlated over a millimeter."""
    white = np.random.default_rng(seed).standard_normal(geometry.shape)
    f = np.meshgrid(
        *[np.fft.fftfreq(n, s) for n, s in zip(geometry.shape, geometry.spacing_mm, strict=True)], indexing="ij"
    )
    in_plane = np.hypot(f[0], f[1])
    gain = np.sqrt(in_plane) * np.exp(-((in_plane / 0.45) ** 2)) * np.exp(-((f[2] / 0.5) ** 2))
    shaped = np.fft.ifftn(np.fft.fftn(white) * gain).real
    return np.asarray(shaped * sd / shaped.std())


def rho(geometry: Geometry, half_axes_mm: Sequence[float], center_mm: Sequence[float] = (0, 0, 0)) -> Array:
    """Of each voxel, its radius in an upright ellipsoid: under 1 inside."""
    points = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1)) - np.asarray(center_mm)
    return np.asarray(np.sqrt(((points / np.asarray(half_axes_mm, float)) ** 2).sum(axis=-1)))


def ellipsoid_case(
    geometry: Geometry,
    half_axes_mm: Sequence[float],
    organ: str = "liver",
    hu: float = LIVER,
    around: float = FAT,
    noise_hu: float = 12.0,
    seed: int = 0,
    image: type = np.int16,
    **masks: Volume,
) -> Case:
    """A case whose organ is an ellipsoid around 0 mm; masks: further structures."""
    inside = rho(geometry, half_axes_mm) < 1
    voxels = np.where(inside, hu, around) + (noise(geometry, noise_hu, seed) if noise_hu else 0)
    ct = Volume(np.asfortranarray((np.rint(voxels) if image is np.int16 else voxels).astype(image)), geometry)
    parts = {organ: Volume(np.asfortranarray(inside), geometry)}
    return Case("phantom", ct, {**parts, **masks}, attributes={"phase": "portal"})
