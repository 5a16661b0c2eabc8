"""A small made-up study on disk: true cases and the predictions of a model, on an anisotropic and an oblique grid."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from masks import FLAT, balls, turned

from synthoma import files, runs
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import open_dataset
from synthoma.datasets.writing import write_case
from synthoma.engine import mapping
from synthoma.evaluation.outputs import finish_evaluation
from synthoma.evaluation.pairing import Pairs, pair_cases, score_pair
from synthoma.evaluation.scoring import EvaluateRecipe
from synthoma.volume import Volume

RECIPE = EvaluateRecipe(resamples=200, groups=("hospital",))


def truth(folder: Path, cases: int = 6) -> Path:
    """Cases c0, c1, ...; every third healthy; the first two of one patient; hospitals A and B."""
    for n in range(cases):
        geometry = (FLAT, turned())[n % 2]
        rng = np.random.default_rng(n)
        lesion = balls(geometry, ((0.3, 0.4, 0.5), 6 + n), ((0.75, 0.6, 0.5), 9)) if n % 3 else balls(geometry)
        masks = {"liver": balls(geometry, ((0.5, 0.5, 0.5), 30)), "liver_lesion": lesion}
        scan = Volume(rng.integers(-100, 200, geometry.shape).astype(np.int16), geometry)
        case = Case(f"c{n}", scan, masks, patient=f"p{max(n, 1)}", attributes={"hospital": "AB"[n % 2]})
        write_case(case, folder / case.id)
    return folder


def predictions(folder: Path, truth: Path, model: int = 0) -> Path:
    """`CASE/segmentations/*.nii.gz` without scans: model 0 finds less, model 1 more; organs are right."""
    for n, case in enumerate(open_dataset(truth)):
        lesion = case.read_mask("liver_lesion")
        rng = np.random.default_rng([n, model])
        found = np.roll(lesion.data, 2 - model, axis=0) * np.float32(0.8)
        if model == 0:
            found[lesion.data.shape[0] // 2 :] *= rng.choice([0, 1])
        false = (
            balls(lesion.geometry, ((0.5, 0.15, 0.5), 5)).data * np.float32(0.6) * (rng.random() < 0.5 - 0.3 * model)
        )
        soft = Volume(np.maximum(found, false).astype(np.float32), lesion.geometry)
        files.write_volume(soft, folder / case.id / "segmentations" / "liver_lesion.nii.gz")
        files.write_volume(case.read_mask("liver"), folder / case.id / "segmentations" / "liver.nii.gz")
    return folder


def evaluate(truth: Path, predicted: Path, out: Path, recipe: EvaluateRecipe = RECIPE, workers: int = 0) -> Pairs:
    """What the command does."""
    pairs = pair_cases(open_dataset(truth), predicted, recipe)
    inputs = {"truth": str(truth), "predictions": str(predicted)}
    with runs.open_run(out, "evaluate", recipe, inputs=inputs) as run:
        score = partial(score_pair, structures=pairs.structures, recipe=recipe)
        records = mapping.map_cases(score, pairs.pairs, run=run, workers=workers)
        run.note(**finish_evaluation(records, pairs, out, recipe))
    return pairs
