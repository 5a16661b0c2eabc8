"""A model calibrated on cases it was not trained on: a scaling of each class, and operating points by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.evaluation.lesion import Components, match_components
from synthoma.evaluation.regions import Region, split
from synthoma.learning.calibration import (
    LEVELS,
    Axis,
    Calibration,
    Counts,
    Level,
    OperatingPoint,
    Scaling,
    calibration_error,
    fit_scaling,
    rescaled,
)
from synthoma.learning.entry import annotates
from synthoma.learning.models import Model
from synthoma.recipe import Recipe
from synthoma.segmentation.infer import SegmentRecipe, predict, tumor_levels
from synthoma.segmentation.structures import FULL, least_level
from synthoma.volume import Geometry, Volume

Histogram = tuple[Counts, Counts]
_WORTHS = np.geomspace(1e-3, 10, 200)  # of one false lesion a scan, in shares of lesions found


class CalibrateRecipe(Recipe):
    """How a model is calibrated.

    false_per_scan: for each level of sensitivity the most false lesions a scan, all classes together. flips: sets of
    mirror axes to choose from; the one that finds most at the level `balanced` is kept. thresholds, smallest_mm3: what
    is tried for each class. shift: whether outputs may be shifted too, which moves what one half means. segment: all
    else about how cases are segmented.
    """

    false_per_scan: dict[Level, Annotated[float, Field(gt=0)]] = Field(
        {"high": 3.0, "balanced": 1.0, "specific": 0.3}, min_length=1
    )
    flips: tuple[tuple[Axis, ...], ...] = Field(((),), min_length=1)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95), min_length=1
    )
    smallest_mm3: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.0, 30.0, 60.0, 120.0, 250.0), min_length=1)
    shift: bool = False
    segment: SegmentRecipe = SegmentRecipe()

    def settings(self, flips: tuple[Axis, ...]) -> SegmentRecipe:
        """How a case is segmented; thresholds and smallest lesions are tried afterwards, on tumors alone."""
        return self.segment.with_changes(flips=flips, sensitivity=None)


def measure_case(case: Case, model: Model, recipe: CalibrateRecipe, device: str = "auto") -> dict[str, Any]:
    """What a case says of the model's outputs, as JSON data: for each set of flips a row for each class it annotates.

    A row holds histograms of levels (`voxels`, and those `inside` the structure), and for a class of tumors the number
    of `lesions` and, by threshold and smallest volume, how many are `found` and how many predicted ones are `false`.
    """
    plain = replace(model, spec=model.spec.with_changes(calibration=None))
    known = [name for name in model.spec.classes if annotates(case.masks, case.attributes, name)]
    if not known:
        raise CaseError("no structure of the model is annotated", case=case.id, expected=", ".join(model.spec.classes))
    ct = case.read_image()
    truth = {name: _truth(case, name, ct) for name in known}
    sets = []
    for flips in recipe.flips:
        prediction = predict(plain, ct, recipe.settings(flips), device)
        rows = {name: _histograms(prediction.restore(name, ct.geometry), truth[name]) for name in known}
        for name in (name for name in known if anatomy.is_lesion(name)):
            levels = tumor_levels(name, prediction, ct.geometry, recipe.settings(flips), case.read_organ)
            ours = Components.of(_region(truth[name]), name.removesuffix("_lesion"))
            counted = [_count(ours, levels, threshold, ct.geometry, name, recipe) for threshold in recipe.thresholds]
            found, false = ([row[n] for row in counted] for n in (0, 1))
            rows[name] |= {"lesions": len(ours.sizes), "found": found, "false": false}
        sets.append(rows)
    return {"sets": sets}


def calibrate(
    measured: Sequence[Mapping[str, Any]], classes: Sequence[str], recipe: CalibrateRecipe, data: str
) -> Calibration:
    """The calibration that follows from what cases said (`measure_case`). data: what they are, in words."""
    points = [_choose_points([case["sets"][n] for case in measured], recipe) for n in range(len(recipe.flips))]
    judged = "balanced" if "balanced" in recipe.false_per_scan else next(iter(recipe.false_per_scan))
    # of sets that find as much, the one with the fewest mirror images
    best = max(range(len(recipe.flips)), key=lambda n: (points[n][judged].sensitivity, -len(recipe.flips[n])))
    histograms = pooled([case["sets"][best] for case in measured])
    scalings = {name: fit_scaling(*histograms[name], recipe.shift) for name in classes if name in histograms}
    errors = {
        name: (round(calibration_error(*histograms[name]), 4), round(calibration_error(*histograms[name], scaling), 4))
        for name, scaling in scalings.items()
        if np.isfinite(calibration_error(*histograms[name]))
    }
    return Calibration(
        data=data,
        cases=len(measured),
        flips=recipe.flips[best],
        temperatures={name: scaling.temperature for name, scaling in scalings.items()},
        shifts={name: scaling.shift for name, scaling in scalings.items()} if recipe.shift else {},
        errors=errors,
        points={level: _calibrated(point, scalings) for level, point in points[best].items()},
    )


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Histogram]:
    """The histograms of all cases together, by class: voxels of each level, and those inside the structure."""
    names = dict.fromkeys(name for case in rows for name in case)
    return {
        name: (
            np.sum([case[name]["voxels"] for case in rows if name in case], axis=0),
            np.sum([case[name]["inside"] for case in rows if name in case], axis=0),
        )
        for name in names
    }


def _truth(case: Case, name: str, ct: Volume) -> Volume:
    if name in case.masks:
        return case.read_mask(name)
    if anatomy.is_lesion(name):  # known to be healthy
        return Volume(np.zeros(ct.geometry.shape, bool, order="F"), ct.geometry)
    return case.read_organ(name)


def _histograms(levels: NDArray[np.uint8], truth: Volume) -> dict[str, Any]:
    inside = np.bincount(levels[truth.data], minlength=LEVELS)
    return {"voxels": np.bincount(levels.ravel(order="K"), minlength=LEVELS).tolist(), "inside": inside.tolist()}


def _region(mask: Volume) -> Region:
    return Region(mask.geometry, tuple(split(mask.data, (0, 0, 0))))


def _count(
    ours: Components, levels: NDArray[np.uint8], threshold: float, scan: Geometry, name: str, recipe: CalibrateRecipe
) -> tuple[list[int], list[int]]:
    """Found and false lesions at a threshold, for each smallest volume."""
    mask = Volume(levels >= least_level(threshold), scan)
    predicted = match_components(ours, Components.of(_region(mask), name.removesuffix("_lesion"))).predicted
    volumes = np.array([one.lesion.voxels for one in predicted]) * scan.voxel_mm3
    fates = np.array([one.fate for one in predicted])
    large = [volumes >= least for least in recipe.smallest_mm3]
    return [int((fates[each] == "matched").sum()) for each in large], [
        int((fates[each] == "false").sum()) for each in large
    ]


def _choose_points(rows: Sequence[Mapping[str, Any]], recipe: CalibrateRecipe) -> dict[Level, OperatingPoint]:
    """For each level the threshold and smallest lesion of each class: most lesions found for the false ones allowed.

    A false lesion has one price in all classes, the lowest one under which their sum is within the limit. A class
    without a lesion in these cases keeps the recipe's own settings.
    """
    tried = list(itertools.product(recipe.thresholds, recipe.smallest_mm3))
    found, false, lesions = {}, {}, {}
    for name in dict.fromkeys(name for case in rows for name in case):
        cases = [case[name] for case in rows if name in case]
        if sum(case.get("lesions", 0) for case in cases):
            lesions[name] = sum(case["lesions"] for case in cases)
            found[name] = np.sum([case["found"] for case in cases], axis=0).ravel() / lesions[name]
            false[name] = np.mean([case["false"] for case in cases], axis=0).ravel()
    if not lesions:
        raise CaseError("no case has a lesion that is annotated", expected="some to find, to choose thresholds by")
    points: dict[Level, OperatingPoint] = {}
    for level, most in recipe.false_per_scan.items():
        for worth in _WORTHS:
            # of equals the later one, which has the higher threshold and leaves out more
            place = {name: len(tried) - 1 - int(np.argmax((found[name] - worth * false[name])[::-1])) for name in found}
            total = sum(float(false[name][n]) for name, n in place.items())
            if total <= most:
                break
        hits = sum(found[name][n] * lesions[name] for name, n in place.items())
        points[level] = OperatingPoint(
            false_per_scan=round(total, 3),
            sensitivity=round(float(hits / sum(lesions.values())), 4),
            thresholds={name: tried[n][0] for name, n in place.items()},
            smallest_mm3={name: tried[n][1] for name, n in place.items()},
        )
    return points


def _calibrated(point: OperatingPoint, scalings: Mapping[str, Scaling]) -> OperatingPoint:
    """The same cut in calibrated probabilities."""
    thresholds = {
        name: float(np.clip(rescaled(scalings[name])[least_level(threshold)] / FULL, 1 / FULL, 1 - 1 / FULL))
        for name, threshold in point.thresholds.items()
    }
    return point.with_changes(thresholds=thresholds)
