"""The tissue inside a tumor: heterogeneity, drift from border to middle, enhancing rim, necrotic core, specks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthoma.seeds import rng_for
from synthoma.synthesis.bodies.body import Body
from synthoma.synthesis.generators.details import Calcification, Tissue
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.kernels.reference import Shades, smooth_step
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Box, Floats, Geometry

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
        border = waves(plan.seed, "core", 0.4 * plan.equivalent_diameter_mm, plan, geometry, body.box, body.alpha)
    shades = (
        inside.texture_hu, inside.drift_hu, max(inside.drift_mm, 0.1), inside.rim_hu, inside.rim_mm, inside.core_hu,
        inside.core_share,
    )  # fmt: skip
    field = kernels().shaded(body.alpha, spread, border, body.depth_mm, body.radius, Shades(*map(np.float32, shades)))
    full = body.alpha > 0.95
    # transposed: numpy picks along memory
    values = field.T[full.T if full.any() else body.alpha.T >= 0.5]
    mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
    field += np.float32(plan.base_hu + plan.contrast_hu - mean)
    return _add_specks(field, inside.calcifications, plan, geometry, body.box)


def waves(
    seed: int, name: str, length_mm: float, plan: TumorPlan, geometry: Geometry, box: Box, alpha: Floats | None = None
) -> Floats:
    """A unit-variance random field on a box, correlation exp(-d^2 / 2 L^2) with L = `length_mm`.

    alpha: where it is 0, so is the field.

    A sum of plane waves anchored in mm at the tumor's center, so every grid sees the same field; the waves
    separate over the axes, which makes the sum cheap.
    """
    rng = rng_for(seed, name)
    vectors = rng.standard_normal((_WAVES, 3)) / length_mm
    phases = rng.uniform(0, 2 * np.pi, _WAVES)
    steps = vectors @ geometry.affine[:3, :3]
    phases = phases + vectors @ (geometry.to_mm(box.lower) - np.asarray(plan.center_mm))
    i, j, k = (np.arange(n)[:, None] * steps[:, axis] for axis, n in enumerate(box.shape))
    k_waves, j_waves, i_waves = (np.concatenate([np.cos(at), np.sin(at)], axis=-1) for at in (k + phases, j, i))
    here = np.ones(box.shape, np.float32, order="F") if alpha is None else alpha
    lines = np.ascontiguousarray((i_waves * np.sqrt(2 / _WAVES)).T)
    return np.asarray(kernels().wave_sums(k_waves, j_waves, lines, here))


def _add_specks(
    field: Floats, specks: Sequence[Calcification], plan: TumorPlan, geometry: Geometry, box: Box
) -> Floats:
    for speck in specks:
        center = np.asarray(plan.center_mm) + plan.rotation @ (np.asarray(speck.position) * plan.axes_mm)
        at = geometry.to_ijk(center) - box.lower
        reach = np.ceil(2.5 * (speck.radius_mm + 0.5) / np.asarray(geometry.spacing_mm)).astype(int)
        low = np.clip(np.round(at).astype(int) - reach, 0, box.shape)
        high = np.clip(np.round(at).astype(int) + reach + 1, 0, box.shape)
        if (high <= low).any():
            continue
        place = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in place], indexing="ij"), axis=-1)
        offset = (grid - at) @ geometry.affine[:3, :3].T
        # sums spelled out: a reduction's order differs between machines
        squared = offset[..., 0] ** 2 + offset[..., 1] ** 2 + offset[..., 2] ** 2
        share = smooth_step(1.5 - np.sqrt(squared) / speck.radius_mm)
        field[place] += share * (np.float32(speck.hu) - field[place])
    return field
