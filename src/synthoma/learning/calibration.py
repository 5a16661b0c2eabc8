"""What makes a network's outputs mean something: a temperature and a shift for each class, and named operating points.

Probabilities are levels, uint8 in 255ths, and counted in histograms of 256 of them: how often each level was said of a
voxel, and how often the voxel was in the structure. Logits become logit / temperature + shift (Platt 1999; the
temperature and the error are those of Guo et al. 2017, arXiv:1706.04599). The shift, if asked for, is for networks that
learned from patches: these show far more tumors than scans do, so that such a network expects too many.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from synthoma.recipe import Recipe

LEVELS = 256
_LEAST = 13  # 5 %: the lowest level that counts; below it lies nearly all of a scan, and would decide everything
_BINS = 15  # of the reliability curve and of its error
_COLDEST, _HOTTEST = 0.2, 5.0
_FARTHEST = 6.0  # of a shift
Level = Literal["high", "balanced", "specific"]
Axis = Literal["R", "A", "S"]
Probability = Annotated[float, Field(gt=0, lt=1)]
Counts = NDArray[np.int64]


class Scaling(NamedTuple):
    """What is done to the logits of a class: they are divided by the temperature, then the shift is added."""

    temperature: float = 1.0
    shift: float = 0.0


class OperatingPoint(Recipe):
    """Where to cut, and what to expect of it.

    false_per_scan, sensitivity: false lesions a scan, and the share of lesions found, all classes together, on the
    cases it was chosen on. thresholds, peaks (calibrated probabilities), smallest_mm3: by class of tumors; a class
    without a peak asks for no more than its threshold. least_hu: by class, below which a lesion is water.
    """

    false_per_scan: Annotated[float, Field(ge=0)]
    sensitivity: Annotated[float, Field(ge=0, le=1)]
    thresholds: dict[str, Probability]
    smallest_mm3: dict[str, Annotated[float, Field(ge=0)]]
    peaks: dict[str, Probability] = Field({})
    least_hu: dict[str, float] = Field({})


class Calibration(Recipe):
    """What a model learned of itself on cases that it was not trained on.

    data, cases: which, and how many. flips: mirror images that are looked at too, as they were then. temperatures: by
    class, what logits are divided by. shifts: by class, what is added to them then; 0 where nothing is told. errors: by
    class, the expected calibration error before and after. points: by level of sensitivity. usual: the level that is
    taken where nobody asks for another.
    """

    data: str
    cases: Annotated[int, Field(ge=1)]
    flips: tuple[Axis, ...] = ()
    temperatures: dict[str, Annotated[float, Field(ge=_COLDEST, le=_HOTTEST)]]
    shifts: dict[str, Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]] = Field({})
    errors: dict[str, tuple[float, float]]
    points: dict[Level, OperatingPoint]
    usual: Level = "balanced"

    def scaling(self, name: str) -> Scaling:
        """Of a class; that of one which was not calibrated changes nothing."""
        return Scaling(self.temperatures.get(name, 1.0), self.shifts.get(name, 0.0))


def probabilities(scaling: Scaling = Scaling()) -> NDArray[np.float64]:
    """What each level means (256,) after a scaling. The ends stand for what is rounded to them."""
    ends = np.clip(np.arange(LEVELS), 0.5, LEVELS - 1.5) / (LEVELS - 1)
    return np.asarray(expit(logit(ends) / scaling.temperature + scaling.shift))


def rescaled(scaling: Scaling) -> NDArray[np.uint8]:
    """The level (256,) that each level becomes; 0, where nothing was said, stays 0."""
    table = np.rint(probabilities(scaling) * (LEVELS - 1)).astype(np.uint8)
    table[0] = 0
    return table


def fit_scaling(voxels: Counts, inside: Counts, shift: bool = False) -> Scaling:
    """The scaling under which levels are likeliest: voxels (256,) of each level, and those of them `inside`.

    shift: whether there may be one; without it one half stays one half. Voxels under 5 % do not count. No scaling if
    there are no others, or if all of them are of one kind.
    """
    inner, outer = inside[_LEAST:].astype(float), (voxels - inside)[_LEAST:].astype(float)
    if not inner.any() or not outer.any():
        return Scaling()
    logits, count = logit(probabilities()[_LEAST:]), float(inner.sum() + outer.sum())

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = at[0] * logits + at[1]  # in these two the loss is convex
        value = -float(inner @ log_expit(scaled) + outer @ log_expit(-scaled)) / count
        excess = ((inner + outer) * expit(scaled) - inner) / count
        return value, np.array([excess @ logits, excess.sum()])

    farthest = _FARTHEST if shift else 0.0
    bounds = [(1 / _HOTTEST, 1 / _COLDEST), (-farthest, farthest)]
    slope, moved = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return Scaling(round(float(1 / slope), 3), round(float(moved), 3))


def reliability(voxels: Counts, inside: Counts, scaling: Scaling = Scaling()) -> list[tuple[float, float, int]]:
    """Mean probability, share inside, and number of voxels in each bin of probabilities; empty bins are left out.

    Voxels under 5 %, before the scaling, do not count.
    """
    said = probabilities(scaling)[_LEAST:]
    bins = np.minimum((said * _BINS).astype(int), _BINS - 1)
    rows = []
    for number in range(_BINS):
        there = bins == number
        count = int(voxels[_LEAST:][there].sum())
        if count:
            mean = float((voxels[_LEAST:][there] * said[there]).sum() / count)
            rows.append((mean, float(inside[_LEAST:][there].sum() / count), count))
    return rows


def calibration_error(voxels: Counts, inside: Counts, scaling: Scaling = Scaling()) -> float:
    """The expected calibration error: how far probabilities lie from shares, on average over voxels; nan for none."""
    rows = reliability(voxels, inside, scaling)
    total = sum(count for _, _, count in rows)
    return sum(abs(mean - share) * count for mean, share, count in rows) / total if total else float("nan")
