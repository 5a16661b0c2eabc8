"""The tissue inside a tumor: heterogeneity, drift from border to middle, enhancing rim, necrotic core, specks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from synthoma.seeds import rng_for
from synthoma.synthesis.bodies.body import Body
from synthoma.synthesis.generators.details import Tissue
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.kernels.reference import Shades, smooth_step
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Floats, Geometry, triple

_WAVES = 16  # plane waves of a field; its values are then as good as normal


def tissue(plan: TumorPlan, geometry: Geometry, body: Body) -> Floats:
    """HU of the tumor on the body's box, without the scan's noise; its mean away from the border is the planned one.

    The mean is set before the specks are added: a calcified lesion is not a denser one.
    """
    inside = Tissue.of(plan)
    nothing = np.zeros((0, 0, 0), np.float32)
    spread = border = nothing
    if inside.texture_hu > 0:
        spread = waves(plan.seed, "texture", inside.texture_mm, plan, geometry, body.box, body.alpha)
    if inside.core_hu != 0:
        border = waves(plan.seed, "core", core_mm(plan), plan, geometry, body.box, body.alpha)
    field = kernels().shaded(body.alpha, spread, border, body.depth_mm, body.radius, shades_of(inside))
    full = body.alpha > 0.95
    # transposed: numpy picks along memory
    values = field.T[full.T if full.any() else body.alpha.T >= 0.5]
    mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
    field += np.float32(plan.base_hu + plan.contrast_hu - mean)
    for place, share, hu in speck_shares(plan, geometry, body.box):
        field[place.slices] += share * (hu - field[place.slices])
    return np.asarray(field)


def core_mm(plan: TumorPlan) -> float:
    """Over which length the border of a necrotic core wavers."""
    return 0.4 * plan.equivalent_diameter_mm


def shades_of(inside: Tissue) -> Shades:
    """The figures of a tissue as the kernels want them."""
    shades = (
        inside.texture_hu, inside.drift_hu, max(inside.drift_mm, 0.1), inside.rim_hu, inside.rim_mm, inside.core_hu,
        inside.core_share,
    )  # fmt: skip
    return Shades(*map(np.float32, shades))


def waves(
    seed: int, name: str, length_mm: float, plan: TumorPlan, geometry: Geometry, box: Box, alpha: Floats | None = None
) -> Floats:
    """A unit-variance random field on a box, correlation exp(-d^2 / 2 L^2) with L = `length_mm`.

    alpha: where it is 0, so is the field.

    A sum of plane waves anchored in mm at the tumor's center, so every grid sees the same field; the waves
    separate over the axes, which makes the sum cheap.
    """
    here = np.ones(box.shape, np.float32, order="F") if alpha is None else alpha
    return np.asarray(kernels().wave_sums(*wave_lines(seed, name, length_mm, plan, geometry, box), here))


def wave_lines(
    seed: int, name: str, length_mm: float, plan: TumorPlan, geometry: Geometry, box: Box
) -> tuple[Array, Array, Array]:
    """The field of `waves` along K, J and I, as `reference.wave_sums` wants it."""
    rng = rng_for(seed, name)
    vectors = rng.standard_normal((_WAVES, 3)) / length_mm
    phases = rng.uniform(0, 2 * np.pi, _WAVES)
    steps = vectors @ geometry.affine[:3, :3]
    phases = phases + vectors @ (geometry.to_mm(box.lower) - np.asarray(plan.center_mm))
    i, j, k = (np.arange(n)[:, None] * steps[:, axis] for axis, n in enumerate(box.shape))
    at = np.concatenate([k + phases, j, i])
    both = np.concatenate([np.cos(at), np.sin(at)], axis=-1)
    k_waves, j_waves, i_waves = both[: len(k)], both[len(k) : -len(i)], both[-len(i) :]
    return k_waves, j_waves, np.ascontiguousarray((i_waves * np.sqrt(2 / _WAVES)).T)


def speck_shares(plan: TumorPlan, geometry: Geometry, box: Box) -> Iterator[tuple[Box, Floats, np.float32]]:
    """Of each calcified speck that a box of a grid shows: where in the box, its share of the voxels there, its HU."""
    for speck in Tissue.of(plan).calcifications:
        center = np.asarray(plan.center_mm) + plan.rotation @ (np.asarray(speck.position) * plan.axes_mm)
        at = geometry.to_ijk(center) - box.lower
        reach = np.ceil(2.5 * (speck.radius_mm + 0.5) / np.asarray(geometry.spacing_mm)).astype(int)
        low = np.clip(np.round(at).astype(int) - reach, 0, box.shape)
        high = np.clip(np.round(at).astype(int) + reach + 1, 0, box.shape)
        if (high <= low).any():
            continue
        place = Box(triple(low), triple(high))
        grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in place.slices], indexing="ij"), axis=-1)
        offset = (grid - at) @ geometry.affine[:3, :3].T
        # sums spelled out: a reduction's order differs between machines
        squared = offset[..., 0] ** 2 + offset[..., 1] ** 2 + offset[..., 2] ** 2
        yield place, smooth_step(1.5 - np.sqrt(squared) / speck.radius_mm), np.float32(speck.hu)
