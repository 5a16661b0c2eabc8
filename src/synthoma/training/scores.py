"""The scores of a validation, as `evaluate` counts them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from synthoma.anatomy import is_lesion
from synthoma.cases import Case
from synthoma.evaluation.scoring import EvaluateRecipe, score_case
from synthoma.volume import Volume

_QUICK = EvaluateRecipe(distances=False, tolerances_mm=(2.0,))


def score_validation(case: str, truth: Mapping[str, Volume], predicted: Mapping[str, Volume]) -> dict[str, float]:
    """DSC of tumors, all organs together, the share of them found and the number of false ones; DSC of every class.

    As `evaluate` counts them; nan for what is undefined.
    """
    scores = score_case(Case(case, Path(), truth), Case(case, Path(), predicted), _QUICK)
    tumors = [row for row in scores.rows if is_lesion(row["structure"])]
    dsc = [row["dsc"] for row in tumors if row["dsc"] is not None]
    there = sum(row["lesions"] for row in tumors)
    return {
        "lesion_dsc": sum(dsc) / len(dsc) if dsc else math.nan,
        "lesion_sensitivity": sum(row["found"] for row in tumors) / there if there else math.nan,
        "false_per_scan": float(sum(row["false"] for row in tumors)),
        **{f"{row['structure']}_dsc": math.nan if row["dsc"] is None else row["dsc"] for row in scores.rows},
    }
