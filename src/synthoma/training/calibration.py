"""A model calibrated on cases it was not trained on: a scaling of each class, and operating points by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from synthoma.segmentation.structures import FULL, core_hu, least_level
from synthoma.volume import Volume

Histogram = tuple[Counts, Counts]
_COUNTED = ("found", "false", "taken", "shared")
_WORTHS = np.geomspace(1e-3, 10, 200)  # of one false lesion a scan, in shares of lesions found plus DSC


class CalibrateRecipe(Recipe):
    """How a model is calibrated.

    false_per_scan: for each level of sensitivity the most false lesions a scan, all classes together. flips: sets of
    mirror axes to choose from; the one that finds most at the level `balanced` is kept. thresholds, peaks,
    smallest_mm3: what is tried for each class, in all combinations; a peak of 0 asks for no more than the threshold.
    shift: whether outputs may be shifted too, which moves what one half means. usual: the level at which the model is
    used where nobody asks for another. segment: all else about how cases are segmented.
    """

    false_per_scan: dict[Level, Annotated[float, Field(gt=0)]] = Field(
        {"high": 3.0, "balanced": 1.0, "specific": 0.3}, min_length=1
    )
    flips: tuple[tuple[Axis, ...], ...] = Field(((),), min_length=1)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), min_length=1
    )
    peaks: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95), min_length=1
    )
    smallest_mm3: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.0, 30.0, 60.0, 120.0, 250.0), min_length=1)
    shift: bool = False
    usual: Level = "balanced"
    segment: SegmentRecipe = SegmentRecipe()

    def settings(self, flips: tuple[Axis, ...]) -> SegmentRecipe:
        """How a case is segmented; thresholds and smallest lesions are tried afterwards, on tumors alone."""
        return self.segment.with_changes(flips=flips, sensitivity=None)


def measure_case(case: Case, model: Model, recipe: CalibrateRecipe, device: str = "auto") -> dict[str, Any]:
    """What a case says of the model's outputs, as JSON data: for each set of flips a row for each class it annotates.

    A row holds histograms of levels (`voxels`, and those `inside` the structure), and for a class of tumors the number
    of `lesions`, their voxels (`tumor`) and, by threshold, peak and smallest volume, how many are `found`, how many
    predicted ones are `false`, and how many voxels are `taken` and `shared` with the tumors.
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
            organ = name.removesuffix("_lesion")
            ours = Components.of(_region(truth[name]), organ)
            tried = [
                _count(ours, levels, threshold, truth[name], name, recipe, prediction.hu)
                for threshold in recipe.thresholds
            ]
            counted = np.array(tried).transpose(3, 0, 1, 2).tolist()
            rows[name] |= {"lesions": len(ours.sizes), "tumor": int(truth[name].data.sum())}
            rows[name] |= dict(zip(_COUNTED, counted, strict=True))
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
        usual=recipe.usual,
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
    ours: Components,
    levels: NDArray[np.uint8],
    threshold: float,
    truth: Volume,
    name: str,
    recipe: CalibrateRecipe,
    hu: Volume | None,
) -> list[list[tuple[int, int, int, int]]]:
    """What is `_COUNTED` at a threshold, for each peak and smallest volume; hu: of what may be water."""
    scan, least_hu = truth.geometry, recipe.segment.least_hu.get(name)
    theirs = Components.of(_region(Volume(levels >= least_level(threshold), scan)), name.removesuffix("_lesion"))
    fates = np.array([one.fate for one in match_components(ours, theirs).predicted])
    surest, shared, lit = np.zeros(len(fates), np.uint8), np.zeros(len(fates), np.int64), np.ones(len(fates), np.bool_)
    for box, labels in theirs.labels:
        inside = labels > 0
        lesion = labels[inside] - 1
        np.maximum.at(surest, lesion, levels[box.slices][inside])
        shared += np.bincount(lesion, truth.data[box.slices][inside], len(fates)).astype(np.int64)
        if hu is not None and least_hu is not None:
            for number, core in core_hu(labels, box, levels, scan, hu):
                lit[number - 1] = core >= least_hu
    rows = []
    for peak in recipe.peaks:
        sure = lit & (surest >= least_level(max(peak, threshold)))
        kept = [sure & (theirs.sizes * scan.voxel_mm3 >= least) for least in recipe.smallest_mm3]
        rows.append([
            (int((fates[each] == "matched").sum()), int((fates[each] == "false").sum()),
             int(theirs.sizes[each].sum()), int(shared[each].sum()))
            for each in kept
        ])  # fmt: skip
    return rows


@dataclass(frozen=True, eq=False)
class _Tried:
    """Of a class: lesions, and for each combination the share of them found, false ones a scan, and the mean DSC."""

    lesions: int
    found: NDArray[np.float64]
    false: NDArray[np.float64]
    dsc: NDArray[np.float64]

    @classmethod
    def of(cls, cases: Sequence[Mapping[str, Any]]) -> _Tried:
        counts = {key: np.array([case[key] for case in cases], float) for key in _COUNTED}
        tumor = np.array([case["tumor"] for case in cases], float)[:, None, None, None]
        dsc = (2 * counts["shared"] / np.maximum(counts["taken"] + tumor, 1))[tumor.ravel() > 0]
        lesions = sum(case["lesions"] for case in cases)
        return cls(
            lesions,
            counts["found"].sum(axis=0).ravel() / lesions,
            counts["false"].mean(axis=0).ravel(),
            dsc.mean(axis=0).ravel(),
        )

    def best(self, worth: float) -> int:
        """The combination of the highest value; of equals the later one, which leaves out more."""
        value = self.found + self.dsc - worth * self.false
        return len(value) - 1 - int(np.argmax(value[::-1]))


def _choose_points(rows: Sequence[Mapping[str, Any]], recipe: CalibrateRecipe) -> dict[Level, OperatingPoint]:
    """For each level the threshold, peak and smallest lesion of each class that are best for the false ones allowed.

    The value of a choice is the share of lesions found plus the mean DSC of the cases with tumors, less a price for
    each false lesion, which is the same in all classes: the lowest one under which their sum is within the limit. A
    class without a lesion in these cases keeps the recipe's own settings.
    """
    settings = list(itertools.product(recipe.thresholds, recipe.peaks, recipe.smallest_mm3))
    tried = {}
    for name in dict.fromkeys(name for case in rows for name in case if anatomy.is_lesion(name)):
        cases = [case[name] for case in rows if name in case]
        if any(case["lesions"] for case in cases):
            tried[name] = _Tried.of(cases)
    if not tried:
        raise CaseError("no case has a lesion that is annotated", expected="some to find, to choose thresholds by")
    points: dict[Level, OperatingPoint] = {}
    for level, most in recipe.false_per_scan.items():
        for worth in _WORTHS:
            place = {name: one.best(worth) for name, one in tried.items()}
            total = sum(float(one.false[place[name]]) for name, one in tried.items())
            if total <= most:
                break
        hits = sum(one.found[place[name]] * one.lesions for name, one in tried.items())
        chosen = {name: settings[n] for name, n in place.items()}
        points[level] = OperatingPoint(
            false_per_scan=round(total, 3),
            sensitivity=round(float(hits / sum(one.lesions for one in tried.values())), 4),
            thresholds={name: threshold for name, (threshold, _, _) in chosen.items()},
            peaks={name: peak for name, (threshold, peak, _) in chosen.items() if peak > threshold},
            smallest_mm3={name: smallest for name, (_, _, smallest) in chosen.items()},
            least_hu={name: least for name, least in recipe.segment.least_hu.items() if name in chosen},
        )
    return points


def _calibrated(point: OperatingPoint, scalings: Mapping[str, Scaling]) -> OperatingPoint:
    """The same cut in calibrated probabilities."""

    def moved(cuts: Mapping[str, float]) -> dict[str, float]:
        levels = {name: rescaled(scalings[name])[least_level(cut)] for name, cut in cuts.items()}
        return {name: float(np.clip(level / FULL, 1 / FULL, 1 - 1 / FULL)) for name, level in levels.items()}

    return point.with_changes(thresholds=moved(point.thresholds), peaks=moved(point.peaks))
