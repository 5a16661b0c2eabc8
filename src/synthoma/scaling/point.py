"""One point of a study: trained on a subset, scored on every test set in memory; resumed at its last checkpoint."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthoma import files
from synthoma.cases import Case
from synthoma.disk import host_key
from synthoma.errors import RunError
from synthoma.evaluation.scoring import CaseScores, score_case
from synthoma.extras import need
from synthoma.recipe import Recipe, make_recipe
from synthoma.runs import Run, open_run
from synthoma.scaling.recipe import Arm, PointTask, StudyRecipe
from synthoma.scaling.subsets import Sides
from synthoma.seeds import seed_for
from synthoma.synthesis.online.table import complete_table
from synthoma.volume import Box, Volume

POINTS, CACHE, EXAMPLES = "points", "cache", "examples"
FREE_S = 1.0  # between looks for a free GPU

Segmenter = Callable[[Case], Mapping[str, Volume]]  # a case -> masks on its scan's grid


@dataclass(frozen=True, eq=False)
class Plan:
    """What all points of a study share. data: the folder of its cases; cases: by id, those that take part.

    examples: boxes to keep predictions of. trainer: training cases, task, plan, the point's run and a device -> what
    segments a case. allow_failures: how many cases a point may do without.
    """

    folder: Path
    data: Path
    recipe: StudyRecipe
    cases: Mapping[str, Case]
    sides: Sides
    examples: Mapping[str, Box]
    device: str
    loaders: int
    trainer: Trainer
    allow_failures: int = 0

    def seed_of(self, task: PointTask) -> int:
        """Of subset, weights, patches and tumors: that of its number, whatever the arm and the count."""
        return seed_for(self.recipe.seed, "training", task.seed)

    def training(self, task: PointTask) -> tuple[str, ...]:
        """The cases of a point: its annotated ones, and the healthy ones, which every point has."""
        chosen = self.sides.subset(task.cases, self.seed_of(task)) + self.sides.hosts(self.recipe.healthy)
        return tuple(sorted(chosen))


Trainer = Callable[[Sequence[Case], PointTask, Plan, Run, str], Segmenter]


class PointRecipe(Recipe):
    """What one point is. cases: real annotated ones; training: all it learns from, by id; train: its train recipe."""

    cases: int
    share: float
    generator: str
    filter: str
    training: tuple[str, ...]
    train: dict[str, Any]


def run_point(task: PointTask, plan: Plan) -> dict[str, Any]:
    """The scores of one point, as JSON data, from its own run folder; a model already trained is not trained again."""
    table = arm_training(plan.recipe.train, task.arm)
    recipe = PointRecipe(cases=task.cases, training=plan.training(task), train=table, **vars(task.arm))
    folder = plan.folder / POINTS / task.id
    with open_run(folder, "point", recipe, plan.seed_of(task), {"splits": plan.sides.splits}) as run:
        begun = time.perf_counter()
        with free_device(plan.device, plan.folder) as device:
            waited = time.perf_counter() - begun
            segment = plan.trainer([plan.cases[name] for name in recipe.training], task, plan, run, device)
            trained = time.perf_counter() - begun - waited
            tests = {name: _score_all(ids, segment, plan, folder) for name, ids in plan.sides.tests.items()}
        total = time.perf_counter() - begun
        run.note(seconds={"waiting": waited, "training": trained, "testing": total - waited - trained})
    return {
        "arm": plan.recipe.label(task.arm),
        "cases": task.cases,
        "seed": task.seed,
        "tumors": run.record.summary.get("tumors", {}),
        "tests": {name: [scores.as_dict() for scores in found] for name, found in tests.items()},
    }


def _score_all(ids: Sequence[str], segment: Segmenter, plan: Plan, folder: Path) -> list[CaseScores]:
    asked = plan.recipe.evaluate.with_changes(structures=(plan.recipe.lesion,))
    found = []
    for name in ids:
        case = plan.cases[name]
        with case.named():
            mask = segment(case)[plan.recipe.lesion]
            scores = score_case(case, Case(case.id, mask, {plan.recipe.lesion: mask}), asked)
            # a study has no groups, and what a case's file says of it is no score
            found.append(replace(scores, attributes={}))
            if name in plan.examples:
                files.write_volume(mask.crop(plan.examples[name]), folder / EXAMPLES / f"{name}.nii.gz")
    return found


def complete_training(table: Mapping[str, Any], arms: Sequence[Arm]) -> dict[str, Any]:
    """A train recipe's table with all its defaults, checked with every arm; a study does not validate as it trains."""
    need("torch", extra="train")
    from synthoma.segmentation.recipe import TrainRecipe

    asked = {"validate_every": 0, "pictures_every": 0, "tensorboard": False, **table}
    whole = make_recipe(TrainRecipe, asked, "train").as_dict()
    for arm in arms:
        make_recipe(TrainRecipe, arm_training(whole, arm), "train")
    return whole


def arm_training(table: Mapping[str, Any], arm: Arm) -> dict[str, Any]:
    """A train recipe's table for one arm: with its share of patches from hosts and its generator, or no synthesis."""
    plain = {name: value for name, value in table.items() if name != "synthesis"}
    if arm.share == 0:
        return plain
    asked = {**(table.get("synthesis") or {}), "generator": arm.generator}
    synthesis = complete_table(asked, table.get("organs", ["liver"]), "train.synthesis")
    patches = {**table.get("patches", {}), "synthetic_share": arm.share}
    return {**plain, "patches": patches, "synthesis": synthesis}


@contextmanager
def free_device(device: str, folder: Path) -> Iterator[str]:
    """The device to work on: of several GPUs one that no other point of this study uses, waited for if need be.

    The locks are of this host: points of one study may run on several that share its folder.
    """
    count = 0
    if device in ("auto", "cuda"):
        count = int(need("torch", extra="train").cuda.device_count())
    if count < 2:
        yield device
        return
    while True:
        for index in range(count):
            with (folder / f".gpu-{host_key()}-{index}").open("w") as lock:  # each host has a GPU 0
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise RunError(
                        f"{folder} cannot be locked, so points cannot share the GPUs", found=error.strerror,
                        fix="name one with --device cuda:0, or write to a file system with locks",
                    ) from error  # fmt: skip
                yield f"cuda:{index}"
                return
        time.sleep(FREE_S)
