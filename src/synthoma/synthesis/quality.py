"""Judgement without a network: is a tumor what was planned, where it may be, and visible?"""

from __future__ import annotations

import numpy as np

from synthoma.cases import equivalent_diameter_mm
from synthoma.synthesis.bodies import wall
from synthoma.synthesis.insertion.blending import HU_RANGE
from synthoma.synthesis.plan import JudgeRecipe
from synthoma.synthesis.tumor import Tumor, Verdict
from synthoma.volume import Array, Geometry, Volume


def judge(after: Array, tumor: Tumor, geometry: Geometry, organ: Volume, recipe: JudgeRecipe) -> Verdict:
    """The verdict on a tumor that has been blended into its box.

    after: HU (box) with the tumor. geometry: of the scan. organ: its mask around the tumor. Scores:
      volume_ml, diameter_mm  of the label
      volume_ratio            label volume / planned volume: what neighbors, bone and gas left of it
      contrast_hu             mean inside the label's core - base_hu
      contrast_to_noise       |contrast_hu| / SD of the grain inside
      edge_mm                 10-90 % width of the border, scanner and voxel included
      edge_ratio              the same / the scanner's own
      saturated               share of the label at the limits of the HU range
      lumen_left, on_wall     of wall tumors: open share of the narrowest section; share that reaches the wall
    Tissue statistics are nan for a label of under two voxels.
    """
    plan, mask = tumor.plan, tumor.mask
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
    }
    if plan.form == "wall":
        scores["lumen_left"] = wall.lumen_left(plan, geometry, organ, tumor)
        scores["on_wall"] = wall.on_wall(plan, geometry, organ, tumor)
    reason = _reason(scores, voxels, plan.form, recipe)
    return Verdict(not reason, reason, {key: round(value, 4) for key, value in scores.items()})


def _reason(scores: dict[str, float], voxels: int, form: str, recipe: JudgeRecipe) -> str:
    """The first rule broken, with the figure; empty if none is."""
    error = abs(scores["volume_ratio"] - 1)
    if voxels == 0:
        return "no voxel is half filled"
    # a voxel more or less is no error of a tumor of a few voxels
    if error > (recipe.wall_volume_error if form == "wall" else recipe.volume_error) and error * voxels > 2:
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
