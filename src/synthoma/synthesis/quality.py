"""Judgement: is a tumor what was planned, where it may be, and visible? And does a critic take it for one?"""

from __future__ import annotations

import numpy as np

from synthoma.cases import equivalent_diameter_mm
from synthoma.synthesis.kernels.choice import kernels
from synthoma.synthesis.recipe import JudgeRecipe
from synthoma.synthesis.scan import HU_RANGE
from synthoma.synthesis.tumor import Critic, Tumor, Verdict
from synthoma.volume import Array, Geometry, Volume

_CRITIC_MARGIN_MM = 30.0  # of the surroundings that a critic sees which does not say `margin_mm`


def judge(
    after: Array, tumor: Tumor, ct: Volume, recipe: JudgeRecipe, critic: Critic | None = None, slits: float = 0.0
) -> Verdict:
    """The verdict on a tumor that has been blended into its box.

    after: HU (box) with the tumor. ct: the scan around it, or all of it, with earlier tumors. critic: asked last, about
    tumors that nothing else rejects; sees the CT around the lesion. slits: see `room.slit_share`. Scores:
      volume_ml, equivalent_diameter_mm  of the label
      volume_ratio            label volume / planned volume: what neighbors, bone and gas left of it
      contrast_hu             mean inside the label's core - base_hu
      contrast_to_noise       |contrast_hu| / SD of the noise inside
      edge_mm                 10-90 % width of the rendered border, scanner and voxel included
      edge_ratio              the same / that of a sharp border on this scan
      saturated               share of the label at the limits of the HU range
      slits                   volume of slits and cavities over the label's own
      critic                  what the critic says of it, if there is one
    and those of the tumor's own `measure` (`lumen_left`, `on_wall` of wall tumors).
    Tissue statistics are nan for a label of under two voxels.
    """
    plan, geometry = tumor.plan, ct.geometry
    voxels, partly, saturated, mean, noise = kernels().inside(after, tumor.alpha, HU_RANGE)
    volume_mm3 = voxels * geometry.voxel_mm3
    contrast = mean - plan.base_hu
    edge_mm = border_width_mm(tumor.alpha, geometry, partly)
    sharp_mm = 2.563 * float(np.sqrt(plan.blur_mm**2 + np.square(geometry.spacing_mm).mean() / 12))
    scores = {
        "volume_ml": volume_mm3 / 1000,
        "equivalent_diameter_mm": equivalent_diameter_mm(volume_mm3),
        "volume_ratio": volume_mm3 / plan.volume_mm3,
        "contrast_hu": contrast,
        "contrast_to_noise": abs(contrast) / max(noise, 1e-6),
        "edge_mm": edge_mm,
        "edge_ratio": edge_mm / sharp_mm,
        "saturated": saturated / max(voxels, 1),
        "slits": slits,
        **tumor.measure(tumor.box, tumor.alpha),
    }
    reason = _reason(scores, voxels, tumor.follows_organ, recipe)
    if critic is not None and not reason:
        scores["critic"] = _ask(critic, after, tumor, ct)
        low, high = recipe.critic
        if not low <= scores["critic"] <= high:
            reason = f"the critic's score is {scores['critic']:.2f}"
    return Verdict(not reason, reason, {key: round(value, 4) for key, value in scores.items()})


def border_width_mm(alpha: Array, geometry: Geometry, partly: int | None = None) -> float:
    """Mean 10-90 % width of the border of a rendered tumor; 0 for one without a voxel.

    The volume of the voxels that are partly tumor over the area of the surface (the integral of alpha's slope).
    partly: how many voxels these are, if they have been counted.
    """
    area = kernels().border_area_mm2(alpha, geometry.spacing_mm)
    if partly is None:
        partly = int(np.count_nonzero((alpha > 0.1) & (alpha < 0.9)))
    return partly / area if area > 0 else 0.0


def _ask(critic: Critic, after: Array, tumor: Tumor, ct: Volume) -> float:
    """The critic's score of the lesion in its surroundings."""
    geometry = ct.geometry
    margin_mm = getattr(critic, "margin_mm", _CRITIC_MARGIN_MM)
    margin = [int(np.ceil(margin_mm / spacing)) for spacing in geometry.spacing_mm]
    box = tumor.box.grow(margin).clip(geometry.shape)
    hu, mask = ct.data[box.slices].copy(order="F"), np.zeros(box.shape, bool, order="F")
    inside = tumor.box.seen_from(box).slices
    hu[inside], mask[inside] = after, tumor.mask
    crop = geometry.crop(box)
    return float(critic(Volume(hu, crop), Volume(mask, crop)))


def _reason(scores: dict[str, float], voxels: int, follows_organ: bool, recipe: JudgeRecipe) -> str:
    """The first rule broken, with the figure; empty if none is."""
    error = abs(scores["volume_ratio"] - 1)
    if voxels == 0:
        return "no voxel is half filled"
    # a voxel more or less is no error of a tumor of a few voxels
    if error > (recipe.wall_volume_error if follows_organ else recipe.volume_error) and error * voxels > 2:
        return f"volume is {scores['volume_ratio']:.2f} of the plan"
    if scores.get("on_wall", 1.0) < recipe.on_wall:
        return f"only {100 * scores['on_wall']:.0f} % hang on the wall"
    if scores["slits"] > recipe.slits:
        return f"slits and cavities are {100 * scores['slits']:.0f} % of the label"
    if scores["contrast_to_noise"] < recipe.contrast_to_noise:
        return f"contrast-to-noise is {scores['contrast_to_noise']:.2f}"
    if scores["edge_ratio"] > recipe.edge_ratio:
        return f"the border is {scores['edge_ratio']:.1f} x as wide as the scanner's"
    if scores["saturated"] > recipe.saturated:
        return f"{100 * scores['saturated']:.0f} % of the voxels leave the HU range"
    return ""
