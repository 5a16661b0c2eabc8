"""Realism reports on what is known: how long features take, how large the page is, and whether the verdict is right."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from bench_priors import ellipsoid
from synthoma.cases import Case
from synthoma.realism.distances import compare_features
from synthoma.realism.features import BY_NAME, Side, measure_side
from synthoma.realism.outputs import REPORT, finish_realism
from synthoma.realism.recipe import RealismRecipe
from synthoma.synthesis.pipeline import Synthesis, insert_tumors, replay_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Volume

PATIENTS, DRAWS = 20, 10
RECIPE = SynthesisRecipe(lesions=(3, 3), diameter_mm=(12, 30), contrast_hu=(-60, -40), mass_effect_share=0)
Rows = list[dict[str, Any]]


def patient(number: int) -> Case:
    """A ball of liver in fat, with noise of its own."""
    ct, masks = ellipsoid("liver", (62, 62, 62), 2.0)
    noise = np.random.default_rng(number).normal(0, 12, ct.data.shape)
    scan = Volume(np.asfortranarray(np.rint(ct.data + noise).astype(np.int16)), ct.geometry)
    return Case(f"p{number}", scan, masks, patient=f"p{number}", attributes={"phase": "portal"})


def as_made(case: Case, made: Synthesis) -> Case:
    """The case with its tumors."""
    lesions = made.tumors("liver")
    liver = Volume(case.read_mask("liver").data & ~lesions.data, lesions.geometry)
    return dataclasses.replace(case, image=made.ct, masks={"liver": liver, "liver_lesion": lesions})


def ellipsoids(case: Case, plans: list[TumorPlan]) -> Case:
    """The same tumors as ellipsoids with a border of 2 mm."""
    plain = [
        dataclasses.replace(plan, edge_mm=2.0, details={**plan.details, "roughness": 0.0, "skew": 0.0})
        for plan in plans
    ]
    return as_made(case, replay_plans(case, plain))


def without_noise(case: Case, plans: list[TumorPlan]) -> Case:
    """The same tumors with the noise inside them smoothed away."""
    made = as_made(case, replay_plans(case, plans))
    hu, lesions = made.read_image(), made.read_mask("liver_lesion")
    smooth = ndimage.gaussian_filter(hu.data.astype(float), 1.0)
    data = np.where(lesions.data, np.rint(smooth), hu.data).astype(np.int16)
    return dataclasses.replace(made, image=Volume(np.asfortranarray(data), hu.geometry))


def rows_of(numbers: range, change: Callable[[Case, list[TumorPlan]], Case] | None = None) -> tuple[Rows, float]:
    """The lesions of some patients, and the CPU seconds that their features took."""
    rows: Rows = []
    took = 0.0
    for number in numbers:
        case = patient(number)
        made = insert_tumors(case, RECIPE, seed=7)
        whole = change(case, [tumor.plan for tumor in made.inserted]) if change else as_made(case, made)
        start = time.process_time()
        rows += measure_side(Side("real", whole))["lesions"]
        took += time.process_time() - start
    return rows, took


def main() -> None:
    """Four figures, and what they are measured against."""
    real, took = rows_of(range(PATIENTS))
    print(f"features of 200 lesions: {200 * took / len(real):.1f} s CPU (at most 60; of {len(real)} measured)")
    shown = 0
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(PATIENTS)
        first = {f"p{number}" for number in order[: PATIENTS // 2]}
        halves = [[row for row in real if (row["patient"] in first) == side] for side in (True, False)]
        shown += any(found.differs for found in compare_features(halves[0], halves[1], draw, 200))
    print(f"real against real: {shown} of {DRAWS} draws show a difference (at most 1)")
    for name, change, about in (("ellipsoids", ellipsoids, "shape"), ("noise removed", without_noise, "noise")):
        other, _ = rows_of(range(PATIENTS, 2 * PATIENTS), change)
        with tempfile.TemporaryDirectory() as folder:
            made = finish_realism(real, other, Path(folder), RealismRecipe(resamples=300), 0, {})
            size = (Path(folder) / REPORT).stat().st_size / 1e6
        named = sorted({BY_NAME[feature].about for feature in made["differs"]})
        auc = made["auc"]
        print(
            f"{name}: AUC {auc['value']:.2f} ({auc['low']:.2f}-{auc['high']:.2f}; above 0.9), names"
            f" {', '.join(named) or 'nothing'} ({about} wanted); page {size:.2f} MB (at most 3)"
        )


if __name__ == "__main__":
    main()
