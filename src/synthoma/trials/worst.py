"""The lesions that a model missed though they should be easy, as pictures: where to look first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from synthoma import anatomy
from synthoma.evaluation.pairing import Pair
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.evaluation.worst import pair_picture
from synthoma.reports.pictures import Picture
from synthoma.tables import Row
from synthoma.trials.design import Design
from synthoma.trials.findings import said_cell
from synthoma.trials.scores import Scores

WORST = 6
_HALF_MM = 50.0


def missed_pictures(
    design: Design, scores: Scores, pairs: Sequence[Pair], recipe: EvaluateRecipe, count: int = WORST
) -> list[Picture]:
    """The missed lesions of the largest diameter times contrast, one a place of a host; fewer if fewer were missed."""
    missed = [row for row in scores.lesions if not row["found"]]
    missed.sort(key=lambda row: (-_plainness(row), str(row["case"]), int(row["site"])))
    first: dict[tuple[str, int], Row] = {}
    for row in missed:
        first.setdefault((str(row["host"]), int(row["site"])), row)
    by_id: Mapping[str, Pair] = {pair.id: pair for pair in pairs}
    lesion = anatomy.organ(design.recipe.organ).lesion
    pictures = []
    for row in list(first.values())[:count]:
        attributes = said_cell({name: float(row[name]) for name in design.recipe.base_cell})
        center_mm = np.asarray(row["center_mm"], float)
        pictures.append(pair_picture(by_id[row["case"]], lesion, attributes, recipe, center_mm, _HALF_MM))
    return pictures


def _plainness(row: Row) -> float:
    return float(row["diameter_mm"]) * abs(float(row["contrast_hu"]))
