"""What became of each lesion of a trial in the predictions of a model, and of the scans without a lesion."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.evaluation.pairing import Pairs, pair_cases
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.recipe import make_recipe
from synthoma.tables import Row
from synthoma.trials.design import Design
from synthoma.trials.recipe import ReportRecipe
from synthoma.volume import Volume


@dataclass(frozen=True)
class Scores:
    """A model on a trial. lesions: rows of the design with `found` (0 or 1) and `dsc` (0 if missed).

    untouched: rows of the design with the number of `false` lesions, of each scan without a lesion. missing: scans
    that could not be scored.
    """

    name: str
    lesions: Sequence[Row]
    untouched: Sequence[Row]
    missing: Sequence[str]


def pair_trial(design: Design, truth: Dataset, predictions: Path, recipe: ReportRecipe) -> tuple[Pairs, EvaluateRecipe]:
    """The scans of a trial with their predictions, and how they are scored; errors as `pair_cases`.

    truth: the trial, opened. Its untouched hosts get an empty mask of lesions: nothing is there, and that is known.
    """
    lesion = anatomy.organ(design.recipe.organ).lesion
    settings = {
        "structures": (lesion,), "distances": False, "missing": recipe.missing, "rule": recipe.rule,
        "least_iou": recipe.least_iou, "resample": recipe.resample, "curve": (),
        **({"labels": recipe.labels} if recipe.labels else {}),
    }  # fmt: skip
    asked = make_recipe(EvaluateRecipe, settings, "the report's recipe")
    wanted = set(design.cases)
    cases = tuple(_with_lesions(case, lesion, design.recipe.organ) for case in truth if case.id in wanted)
    pairs = pair_cases(dataclasses.replace(truth, cases=cases), predictions, asked)
    return pairs, asked


def _with_lesions(case: Case, lesion: str, organ: str) -> Case:
    if lesion in case.masks:
        return case
    return dataclasses.replace(case, masks={**case.masks, lesion: partial(_empty_mask, case, organ)})


def _empty_mask(case: Case, organ: str) -> Volume:
    geometry = case.read_organ(organ).geometry
    return Volume(np.zeros(geometry.shape, bool), geometry)


def join_scores(name: str, design: Design, scored: Mapping[str, Mapping[str, Any]]) -> Scores:
    """The lesions of the design with what became of them. scored: case -> `CaseScores` as JSON data.

    A lesion is the connected part of the true mask that lies nearest to its center; found as `evaluate` says.
    """
    lesions: list[Row] = []
    missing = [case for case in design.cases if not (scored.get(case) or {}).get("rows")]
    for row in design.lesions:
        result = scored.get(row["case"])
        if not result or not result["rows"]:
            continue
        near = [entry for entry in result["lesions"] if entry["side"] == "truth"]
        near = [entry for entry in near if math.dist(entry["center_mm"], row["center_mm"]) <= row["radius_mm"]]
        # a neighbor can cut a lesion in two; its larger part is the lesion
        part = max(near, key=lambda entry: float(entry["volume_ml"]), default=None)
        found = part is not None and part["fate"] == "found"
        lesions.append({**row, "found": int(found), "dsc": float(part["dsc"]) if part and found else 0.0})
    untouched = [
        {**row, "false": int(scored[row["case"]]["rows"][0]["false"])}
        for row in design.untouched
        if scored.get(row["case"], {}).get("rows")
    ]
    return Scores(name, lesions, untouched, missing)
