"""Made-up patients on disk: a body, a liver, in some a dark ball of a tumor; and a network that needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset, open_dataset
from synthoma.datasets.splits import Fold, Splits, write_splits
from synthoma.datasets.writing import write_case
from synthoma.runs import Run
from synthoma.scaling.point import Plan, Segmenter
from synthoma.scaling.recipe import PointTask
from synthoma.seeds import rng_for
from synthoma.volume import Geometry, Volume

SHAPE, SPACING = (36, 30, 20), (4.0, 4.0, 5.0)


def patient(name: str, sick: bool, hospital: str = "a") -> Case:
    """A liver of 100 HU in a body of 30, with a tumor of 50 HU if sick; noise of 12 HU."""
    rng = rng_for(1, name)
    grid = Geometry.of(SHAPE, SPACING)
    at = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij"), -1)
    middle = np.array(SHAPE) * SPACING / 2
    body = (((at - middle) / (68, 56, 200)) ** 2).sum(axis=-1) < 1
    liver = (((at - middle - (8, 0, 0)) / (38, 32, 34)) ** 2).sum(axis=-1) < 1
    center = middle + (8, 0, 0) + rng.uniform(-14, 14, 3)
    tumor = (((at - center) ** 2).sum(axis=-1) < rng.uniform(8, 14) ** 2) & sick
    hu = np.where(tumor, 50, np.where(liver, 100, np.where(body, 30, -1000))) + rng.normal(0, 12, SHAPE)
    return Case(
        name,
        Volume(np.rint(hu).astype(np.int16), grid),
        {"liver": Volume(liver | tumor, grid), "liver_lesion": Volume(tumor, grid)},
        dataset="made up",
        attributes={"healthy": not sick, "hospital": hospital},
    )


def cohort(folder: Path, annotated: int = 6, healthy: int = 3, tested: int = 4, ood: int = 3) -> Dataset:
    """Cases with their splits; every third tested case is healthy."""
    train = [patient(f"sick{n}", True) for n in range(annotated)] + [patient(f"well{n}", False) for n in range(healthy)]
    tests = [patient(f"test{n}", n % 3 < 2) for n in range(tested)]
    others = [patient(f"other{n}", n % 3 < 2, "b") for n in range(ood)]
    for case in (*train, *tests, *others):
        write_case(case, folder / case.id)
    ids = [tuple(case.id for case in side) for side in (train, tests, others)]
    everyone = {name: name for side in ids for name in side}
    write_splits(Splits((Fold(ids[0], ()),), ids[1], everyone, 0, {}, ids[2]), folder / "splits.json")
    return open_dataset(folder)


def pretend(cases: Sequence[Case], task: PointTask, plan: Plan, run: Run, device: str) -> Segmenter:
    """What a network might find that has seen so many cases, three times as many with synthetic tumors."""
    seen = max(task.cases, 1) * (3 if task.arm.share else 1)
    missing = 0.1 + 0.8 * seen**-0.5 + 0.05 * rng_for(plan.seed_of(task), task.arm.name, task.cases).random()

    def segment(case: Case) -> dict[str, Volume]:
        ct = case.read_image()
        rng = rng_for(0, str(ct.data[10, 10, 10]), task.id)
        dark = (ct.data > 15) & (ct.data < 75)
        dark[[0, -1]] = False
        dark &= _inner(ct) & (rng.random(ct.data.shape) > missing)
        return {"liver_lesion": Volume(dark, ct.geometry)}

    return segment


def fail_at_eight(cases: Sequence[Case], task: PointTask, plan: Plan, run: Run, device: str) -> Segmenter:
    """The same, but one training breaks down."""
    if task.id == "n0004_s1_rules-50":
        raise ValueError("the loss is nan")
    return pretend(cases, task, plan, run, device)


def _inner(ct: Volume) -> np.ndarray:
    """The middle of the body, where the liver is."""
    inner = np.zeros(ct.data.shape, bool)
    inner[11:29, 9:21, 4:16] = True
    return inner
