"""Validation while training: whole cases segmented and scored, and the best score so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from synthoma import anatomy
from synthoma.errors import CaseError
from synthoma.learning.entry import Entry
from synthoma.learning.gridding import IGNORED
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
        classes = [name for name in recipe.classes if entry.annotates(name)]
        ct = Volume(entry.read_hu(Box.whole(entry.geometry.shape)), entry.geometry)
        truth = _truth(entry, classes)
        found = segment(model, ct, recipe.segment, team.device, partial(_organ, entry)).masks
        mine[entry.case] = score(entry.case, truth, {name: found[name] for name in classes})
    scores = {case: figures for part in team.gather(mine) for case, figures in part.items()}
    names = dict.fromkeys(name for case in sorted(scores) for name in scores[case])
    columns = {name: [scores[case].get(name, math.nan) for case in sorted(scores)] for name in names}
    return {
        name: float(np.nanmean(values)) if not np.isnan(values).all() else math.nan for name, values in columns.items()
    }


def _truth(entry: Entry, classes: Sequence[str]) -> dict[str, Volume]:
    """The masks of the classes, and of what nobody annotated if there is any."""
    labels = entry.read_labels(Box.whole(entry.geometry.shape))
    masks = dict(zip(classes, class_masks(labels, classes).astype(bool), strict=True))
    if (ignored := labels == IGNORED).any():
        masks[anatomy.IGNORE] = ignored
    return {name: Volume(mask, entry.geometry) for name, mask in masks.items()}


def _organ(entry: Entry, name: str) -> Volume:
    """The organ that is given with a case, where tumors are looked for."""
    if not entry.annotates(name):
        raise CaseError(f"no mask of the {name}, which tumors are looked for in", case=entry.case)
    return _truth(entry, [name])[name]


def compared(best: Mapping[str, Any], figures: Mapping[str, float], step: int) -> dict[str, Any]:
    """The best score so far and its step, for how many validations there was none better, and the latest figures."""
    score = figures.get("lesion_dsc", next(iter(figures.values())))
    better = not math.isnan(score) and (best["score"] is None or score > best["score"])
    plain = {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    return {
        "score": score if better else best["score"],
        "step": step if better else best["step"],
        "waited": 0 if better or best["score"] is None else best["waited"] + 1,
        "ended": best["ended"],
        "latest": plain,
    }
