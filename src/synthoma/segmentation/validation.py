"""Validation while training: whole cases segmented and scored, and the best score so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from synthoma.learning.entry import Entry
from synthoma.learning.loop import Team
from synthoma.learning.models import Model
from synthoma.learning.patches import class_masks
from synthoma.segmentation.infer import segment
from synthoma.segmentation.recipe import TrainRecipe
from synthoma.volume import Box, Volume

Masks = Mapping[str, Volume]
Score = Callable[[str, Masks, Masks], dict[str, float]]  # case, truth, predicted -> figures by name


def validate(model: Model, entries: Sequence[Entry], recipe: TrainRecipe, score: Score, team: Team) -> dict[str, float]:
    """The mean of every figure over the cases that have it, each case segmented as a whole at training spacing."""
    mine = {}
    for entry in entries[team.rank :: team.size]:
        whole = Box.whole(entry.geometry.shape)
        classes = [name for name in recipe.classes if entry.annotates(name)]
        truth = class_masks(entry.read_labels(whole), classes).astype(bool)
        found = segment(model, Volume(entry.read_hu(whole), entry.geometry), recipe.segment, team.device).masks
        known = {name: Volume(mask, entry.geometry) for name, mask in zip(classes, truth, strict=True)}
        mine[entry.case] = score(entry.case, known, {name: found[name] for name in classes})
    scores = {case: figures for part in team.gather(mine) for case, figures in part.items()}
    names = dict.fromkeys(name for case in sorted(scores) for name in scores[case])
    columns = {name: [scores[case].get(name, math.nan) for case in sorted(scores)] for name in names}
    return {
        name: float(np.nanmean(values)) if not np.isnan(values).all() else math.nan for name, values in columns.items()
    }


def compared(best: Mapping[str, Any], figures: Mapping[str, float]) -> dict[str, Any]:
    """The best score so far and for how many validations there was none better, with the latest figures."""
    score = next((value for name, value in figures.items() if name == "lesion_dsc"), next(iter(figures.values())))
    better = best["score"] is None or score > best["score"]
    plain = {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    return {
        "score": score if better and not math.isnan(score) else best["score"],
        "waited": 0 if better else best["waited"] + 1,
        "ended": best["ended"],
        "latest": plain,
    }
