"""The cases that went worst, as pictures: where to look first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthoma.cases import Case
from synthoma.errors import SynthomaError
from synthoma.evaluation.fractions import gather_fractions
from synthoma.evaluation.grids import on_grid
from synthoma.evaluation.masks import read_masks
from synthoma.evaluation.pairing import Pair
from synthoma.evaluation.planes import Planes
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe
from synthoma.reports.pictures import PREDICTED_COLOR, TRUTH_COLOR, Picture, slice_png
from synthoma.slices import Outline
from synthoma.tables import Row
from synthoma.volume import Array, Box, Geometry, Volume, triple

HALF_MM = 60.0
WORST = 10


def worst_pictures(
    scores: Sequence[CaseScores], pairs: Sequence[Pair], structure: str, recipe: EvaluateRecipe, count: int = WORST
) -> list[Picture]:
    """The scans with the lowest DSC, worst first: at their largest missed or false lesion, or an organ's middle.

    Scans without a DSC, and those without a fault, are not shown.
    """
    rows = [row for each in scores for row in each.rows if row["structure"] == structure]
    rows = [row for row in rows if row["dsc"] is not None and row["dsc"] < 1]
    rows.sort(key=lambda row: (row["dsc"], -max(row["truth_ml"], row["predicted_ml"]), row["case"]))
    by_id = {pair.id: pair for pair in pairs}
    lesions = [entry for each in scores for entry in each.lesions if entry["structure"] == structure]
    return [_picture(row, by_id[row["case"]], lesions, recipe) for row in rows[:count]]


def _picture(row: Row, pair: Pair, lesions: Sequence[Row], recipe: EvaluateRecipe) -> Picture:
    caption = f"DSC {row['dsc']:.2f}, {row['truth_ml']:.1f} ml true, {row['predicted_ml']:.1f} ml predicted"
    if row.get("lesions") is not None:
        caption += f"; {row['found']} of {row['lesions']} lesions found, {row['false']} false"
    half_mm = None if row.get("lesions") is None else HALF_MM
    own = [entry for entry in lesions if entry["case"] == row["case"]]
    return pair_picture(pair, row["structure"], caption, recipe, _center_mm(own), half_mm)


def pair_picture(
    pair: Pair, structure: str, caption: str, recipe: EvaluateRecipe, center_mm: Array | None, half_mm: float | None
) -> Picture:
    """A scan with the true and the predicted outline of a structure; a case that cannot be read is its caption alone.

    center_mm: what the slice goes through; None for the middle of the mask. half_mm: as in `slice_png`.
    """
    try:
        grid = pair.truth.read_geometry()
        sides = {"truth": (pair.truth, TRUTH_COLOR), "predicted": (pair.predicted, PREDICTED_COLOR)}
        outlines = [
            Outline(name, mask, color, 1.2)
            for name, (case, color) in sides.items()
            if case is not None and (mask := _mask(case, structure, grid, recipe)) is not None
        ]
        if center_mm is None:
            mask = outlines[0].mask
            center_mm = mask.geometry.to_mm((np.asarray(mask.data.shape) - 1) / 2)
        image = pair.truth.read_image(_slice_at(grid, center_mm))
    except SynthomaError as error:  # a report without a picture is still a report
        return Picture(pair.id, f"{caption}; no picture: {error}", "")
    return Picture(pair.id, caption, slice_png(image, outlines, center_mm, half_mm))


def _mask(case: Case, structure: str, grid: Geometry, recipe: EvaluateRecipe) -> Volume | None:
    """The mask on the box of its voxels; None if it is empty or not there."""
    if structure not in case.masks:
        return None
    (_, found) = next(read_masks(case, [structure]))
    placed, _ = on_grid(found, grid, structure, resample=True, trust_headers=recipe.headers == "own")
    if isinstance(placed, Planes):
        placed = gather_fractions(placed, recipe.threshold).region
    if not placed.blocks:
        return None
    box = placed.boxes.hull()
    return Volume(placed.read(box), placed.geometry.crop(box))


def _slice_at(grid: Geometry, center_mm: Array) -> Box:
    """The axial slice nearest to a position, as a box of the scan."""
    axis = next(axis for axis, letter in enumerate(grid.axes) if letter in "SI")
    index = int(np.clip(np.rint(grid.to_ijk(center_mm)[axis]), 0, grid.shape[axis] - 1))
    lower, upper = [0, 0, 0], list(grid.shape)
    lower[axis], upper[axis] = index, index + 1
    return Box(triple(lower), triple(upper))


def _center_mm(own: Sequence[Row]) -> Array | None:
    """The largest lesion of a case that went wrong, else the largest at all; None without any."""
    wrong = [entry for entry in own if entry["fate"] in ("missed", "merged", "false")] or own
    return np.asarray(max(wrong, key=lambda entry: entry["volume_ml"])["center_mm"]) if wrong else None
