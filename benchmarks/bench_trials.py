"""Virtual trials: how long a trial takes to write, and how often the interval of a threshold holds the true one."""

from __future__ import annotations

import dataclasses
import tempfile
import time

import numpy as np

from synthoma.cases import Case
from synthoma.phantom.cohort import CohortRecipe, cohort_case
from synthoma.trials.curves import Counts, fit_curve
from synthoma.trials.planning import plan_host
from synthoma.trials.recipe import TrialRecipe
from synthoma.volume import Array

LEVELS = np.array([6.0, 9.0, 12.0, 16.0, 24.0])
DETECTORS = {"sharp": 0.0, "between": 0.03, "middle": 0.06, "gradual": 0.2}  # scale of the logistic in ln mm
HOSTS, SITES, TRIALS = 20, 2, 150
MEASURED, CORES = 2, 2  # hosts whose trial is written; cores that the figure is told for
COHORT = CohortRecipe(name="host", cases=MEASURED, structures=("liver",), spacing_mm=2.0)  # whole abdomens


def planted(d0: float, spread: float, rng: np.random.Generator) -> Counts:
    """What a detector with this threshold finds of the lesions of a trial."""
    away = np.tile(np.log(LEVELS / d0), (HOSTS, 1))
    share: Array = (away >= 0).astype(float) if spread == 0 else 1 / (1 + np.exp(-away / spread))
    return Counts("diameter_mm", LEVELS, rng.binomial(SITES, share).astype(float), np.full(away.shape, float(SITES)))


def coverage(spread: float) -> tuple[float, float]:
    """Share of trials whose interval holds the threshold, and the median ratio of its ends."""
    held, widths = 0, []
    for seed in range(TRIALS):
        rng = np.random.default_rng(seed)
        d0 = float(np.exp(rng.uniform(np.log(8), np.log(20))))
        curve = fit_curve(planted(d0, spread, rng), 100, seed)
        assert curve is not None
        held += curve.half.low <= d0 <= curve.half.high
        widths.append(curve.half.high / curve.half.low)
    return held / TRIALS, float(np.median(widths))


def host(number: int) -> Case:
    """An in-silico abdomen, drawn before the clock runs."""
    case = cohort_case(COHORT, number)
    return dataclasses.replace(case, image=case.read_image(), masks={"liver": case.read_mask("liver")})


def writing() -> None:
    """What a trial of `HOSTS` hosts costs, from the hosts that were measured."""
    seconds, cells = [], 0
    for number in range(MEASURED):
        case = host(number)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            made = plan_host(case, TrialRecipe(sites=1, most_scans=100), 0, folder, "overlay")
            seconds.append(time.process_time() - start)
        cells = len(made["lesions"])
        geometry = case.read_image().geometry
        extent = " x ".join(f"{n * mm:.0f}" for n, mm in zip(geometry.shape, geometry.spacing_mm, strict=True))
        print(f"{case.id}: {extent} mm, {cells} lesions, {seconds[-1]:.1f} s of CPU")
    minutes = HOSTS * float(np.mean(seconds)) / CORES / 60
    print(
        f"{HOSTS} hosts x {cells} cells as overlays: {minutes:.1f} minutes of CPU on {CORES} cores (at most 5; from"
        f" {MEASURED} in-silico abdomens at 2 mm; reading the scans is not counted)"
    )


def main() -> None:
    """A table, and what the figures are measured against."""
    writing()
    for name, spread in DETECTORS.items():
        share, width = coverage(spread)
        print(
            f"{name:8} threshold held in {100 * share:.0f} % of {TRIALS} trials (90-98); ends {width:.2f} times apart"
        )


if __name__ == "__main__":
    main()
