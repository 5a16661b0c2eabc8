"""What a study costs beside its training, how long a fit takes, and how often its intervals hold the truth.

    python benchmarks/bench_scaling.py

A made-up study of 24 points whose training does nothing is run from end to end: all of its CPU time is overhead. It is
compared with the training that 3 % of which it may be. Coverage is that of studies with a known law; 95 % is meant.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from clock import seconds
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset, open_dataset
from synthoma.datasets.splits import Fold, Splits, write_splits
from synthoma.datasets.writing import write_case
from synthoma.evaluation.scoring import score_case
from synthoma.runs import Run
from synthoma.scaling.fit import fit_study
from synthoma.scaling.outputs import finish_study
from synthoma.scaling.point import Plan, Segmenter
from synthoma.scaling.recipe import PointTask, StudyRecipe
from synthoma.scaling.results import FitRecipe
from synthoma.scaling.study import run_study
from synthoma.scaling.table import Point
from synthoma.seeds import rng_for
from synthoma.statistics.intervals import Ratio
from synthoma.volume import Geometry, Volume

SHAPE, STUDIES = (96, 96, 48), 60


def patient(name: str, sick: bool) -> Case:
    """A ball of a liver in noise, with a smaller ball of a tumor."""
    rng, grid = rng_for(0, name), Geometry.of(SHAPE, (3.0, 3.0, 4.0))
    at = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) * np.array(grid.spacing_mm)
    middle = np.array(SHAPE) * grid.spacing_mm / 2
    liver = ((at - middle) ** 2).sum(-1) < 80**2
    tumor = (((at - middle - rng.uniform(-30, 30, 3)) ** 2).sum(-1) < 15**2) & sick
    hu = np.where(tumor, 50, np.where(liver, 100, -100)) + rng.normal(0, 12, SHAPE)
    masks = {"liver": Volume(liver, grid), "liver_lesion": Volume(tumor, grid)}
    return Case(name, Volume(np.rint(hu).astype(np.int16), grid), masks)


def cohort(folder: Path, annotated: int = 16, healthy: int = 8, tested: int = 12) -> Dataset:
    """Patients on disk, with splits; two of three tested ones have tumors."""
    ids: list[list[str]] = []
    for side, count, sick in (("sick", annotated, 3), ("well", healthy, 0), ("test", tested, 2), ("ood", tested, 2)):
        ids.append([f"{side}{n}" for n in range(count)])
        for n, name in enumerate(ids[-1]):
            write_case(patient(name, n % 3 < sick), folder / name)
    fold = Fold(tuple(ids[0] + ids[1]), ())
    everyone = {name: name for side in ids for name in side}
    write_splits(Splits((fold,), tuple(ids[2]), everyone, 0, {}, tuple(ids[3])), folder / "splits.json")
    return open_dataset(folder)


def no_training(cases: Sequence[Case], task: PointTask, plan: Plan, run: Run, device: str) -> Segmenter:
    """Nothing is trained, and what is dark enough is a tumor."""
    return lambda case: {"liver_lesion": dark(case.read_image(), task)}


def dark(ct: Volume, task: PointTask) -> Volume:
    """What a point calls a tumor."""
    limit = 60 + task.cases + 5 * (task.arm.share > 0) + task.seed
    return Volume((ct.data > 20) & (ct.data < limit), ct.geometry)


def overhead(folder: Path) -> tuple[float, float, float, int]:
    """CPU seconds of a study without training: all of it, testing alone, fit and report; and how many points."""
    data = cohort(folder / "cohort")
    recipe = StudyRecipe(counts=(2, 4, 8, 16), seeds=3)
    run_study(StudyRecipe(counts=(1,), seeds=1), data, folder / "warm", trainer=no_training)  # what is loaded once
    start = time.process_time()
    points = len(run_study(recipe, data, folder / "run", trainer=no_training))
    total = time.process_time() - start
    asked = recipe.evaluate.with_changes(structures=(recipe.lesion,))

    def test_all() -> None:
        for task in recipe.points():
            for case in (case for case in data if case.id.startswith(("test", "ood"))):
                ct = case.read_image()
                score_case(case, Case(case.id, ct, {"liver_lesion": dark(ct, task)}), asked)

    return total, seconds(test_all, 1), seconds(lambda: finish_study(folder / "run"), 2), points


def made_up(study: int) -> list[Point]:
    """Points of 5 sizes, 3 seeds, 20 patients; synthetic tumors are worth three times as many real cases."""
    rng = np.random.default_rng(study)
    habit = rng.normal(0, 0.12, 20)
    return [
        Point(arm, n, s, Ratio(law(n * times) + habit + rng.normal(0, 0.06, 20) + rng.normal(0, 0.03), np.ones(20)))
        for n in (4, 8, 16, 32, 64)
        for s in range(3)
        for arm, times in (("real only", 1), ("mixed", 3))
    ]


def law(cases: float) -> float:
    """The score that so many real cases give."""
    return float(0.75 - 0.9 * cases**-0.6)


def coverage() -> dict[str, float]:
    """Figure -> how often its interval holds the truth."""
    hits: dict[str, list[bool]] = {}
    for study in range(STUDIES):
        fit = fit_study(made_up(study), "real only", FitRecipe(resamples=500), seed=study)
        level, arm = fit.level("mixed", 8), fit.arm("real only")
        assert level is not None
        for name, found, truth in (
            ("gain at 8 cases", level.gain, law(24) - law(8)),
            ("real cases that equals", level.equivalent, 24.0),
            ("plateau a", arm.parameters["a"], 0.75),
            ("exponent c", arm.parameters["c"], 0.6),
        ):
            hits.setdefault(name, []).append(found is not None and found.low <= truth <= found.high)
    return {name: float(np.mean(found)) for name, found in hits.items()}


def main() -> None:
    """Print each figure beside its goal."""
    table = Table("figure", "value", "goal")
    with tempfile.TemporaryDirectory() as place:
        total, tested, finish, points = overhead(Path(place))
    own = total - tested
    table.add_row(f"study of {points} points without training, CPU s", f"{total:.1f}", "")
    table.add_row("  of that, reading and scoring 24 test cases at each point", f"{tested:.1f}", "")
    table.add_row("  fit, plots, report", f"{finish:.1f}", "")
    table.add_row("  all that is neither training nor testing, per point, s", f"{own / points:.2f}", "")
    table.add_row("training per point of which that is 3 %, s", f"{own / points / 0.03:.0f}", "< demo's")
    table.add_row(
        "one fit with 2,000 resamples, CPU s", f"{seconds(lambda: fit_study(made_up(0), 'real only')):.2f}", ""
    )
    for name, value in coverage().items():
        table.add_row(f"coverage, {name} ({STUDIES} studies)", f"{100 * value:.0f} %", "90-98 %")
    Console().print(table)


if __name__ == "__main__":
    main()
