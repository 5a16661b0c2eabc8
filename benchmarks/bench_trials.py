"""Virtual trials: how long a trial takes to write, and how often the interval of a threshold holds the true one."""

from __future__ import annotations

import tempfile
import time

import numpy as np

from bench_realism import patient
from synthoma.trials.curves import Counts, fit_curve
from synthoma.trials.planning import plan_host
from synthoma.trials.recipe import TrialRecipe
from synthoma.volume import Array

LEVELS = np.array([6.0, 9.0, 12.0, 16.0, 24.0])
DETECTORS = {"sharp": 0.0, "between": 0.03, "middle": 0.06, "gradual": 0.2}  # scale of the logistic in ln mm
HOSTS, SITES, TRIALS = 20, 2, 150


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


def main() -> None:
    """A table, and what the figures are measured against."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        made = plan_host(patient(0), TrialRecipe(sites=1, most_scans=100), 0, folder, "overlay")
        took = time.process_time() - start
    hosts, cores = 20, 2
    print(
        f"{hosts} hosts x {len(made['lesions'])} cells as overlays: {hosts * took / cores / 60:.1f} minutes of CPU on"
        f" {cores} cores (at most 5; one host, a ball of 124 mm at 2 mm, was measured)"
    )
    for name, spread in DETECTORS.items():
        share, width = coverage(spread)
        print(
            f"{name:8} threshold held in {100 * share:.0f} % of {TRIALS} trials (90-98); ends {width:.2f} times apart"
        )


if __name__ == "__main__":
    main()
