"""Judgement: is a tumor what was planned, where it may be, and visible? And does a critic take it for one?"""

from __future__ import annotations

import numpy as np

from synthoma.cases import equivalent_diameter_mm
from synthoma.synthesis.recipe import JudgeRecipe
from synthoma.synthesis.scan import HU_RANGE
from synthoma.synthesis.tumor import Critic, Tumor, Verdict
from synthoma.volume import Array, Volume


def judge(after: Array, tumor: Tumor, ct: Volume, recipe: JudgeRecipe, critic: Critic | None = None) -> Verdict:
    """The verdict on a tumor that has been blended into its box.

    after: HU (box) with the tumor. ct: the scan around it, or all of it, with earlier tumors. Scores:
      volume_ml, equivalent_diameter_mm  of the label
      volume_ratio            label volume / planned volume: what neighbors, bone and gas left of it
      contrast_hu             mean inside the label's core - base_hu
      contrast_to_noise       |contrast_hu| / SD of the noise inside
      edge_mm                 10-90 % width of the border, scanner and voxel included
      edge_ratio              the same / the scanner's own
      saturated               share of the label at the limits of the HU range
    and those of the tumor's own `measure` (`lumen_left`, `on_wall` of wall tumors).
    Tissue statistics are nan for a label of under two voxels.
    """
    plan, mask, geometry = tumor.plan, tumor.mask, ct.geometry
    voxels = int(mask.sum())
    volume_mm3 = voxels * geometry.voxel_mm3
    core = after[tumor.alpha > 0.95] if (tumor.alpha > 0.95).sum() > 1 else after[mask]
    known = core.size > 1
    contrast = float(core.mean(dtype=np.float64)) - plan.base_hu if known else float("nan")
    noise = float(core.std(dtype=np.float64)) if known else float("nan")
    inside = after[mask]
    in_plane = float(np.sort(geometry.spacing_mm)[:2].mean())
    scanner = float(np.hypot(plan.blur_mm, in_plane / 12**0.5))
    scores = {
        "volume_ml": volume_mm3 / 1000,
        "equivalent_diameter_mm": equivalent_diameter_mm(volume_mm3),
        "volume_ratio": volume_mm3 / plan.volume_mm3,
        "contrast_hu": contrast,
        "contrast_to_noise": abs(contrast) / max(noise, 1e-6),
        "edge_mm": 2.563 * float(np.hypot(scanner, plan.edge_mm)),
        "edge_ratio": float(np.hypot(scanner, plan.edge_mm)) / scanner,
        "saturated": float(((inside <= HU_RANGE[0]) | (inside >= HU_RANGE[1])).sum()) / max(voxels, 1),
        **tumor.measure(tumor.box, tumor.alpha),
    }
    reason = _reason(scores, voxels, tumor.follows_organ, recipe)
    return Verdict(not reason, reason, {key: round(value, 4) for key, value in scores.items()})


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
    if scores["contrast_to_noise"] < recipe.contrast_to_noise:
        return f"contrast-to-noise is {scores['contrast_to_noise']:.2f}"
    if scores["edge_ratio"] > recipe.edge_ratio:
        return f"the border is {scores['edge_ratio']:.1f} x as wide as the scanner's"
    if scores["saturated"] > recipe.saturated:
        return f"{100 * scores['saturated']:.0f} % of the voxels leave the HU range"
    return ""
