"""The network of a point, and what must be there before it learns: generators and critics of its own cases, and banks.

What arms have in common is made once, by the first point that asks for it; others wait. It learns from the cases of the
point alone, and each has a run folder of its own, so what was interrupted goes on.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthoma import disk
from synthoma.cases import Case
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine.mapping import map_cases
from synthoma.errors import CaseError
from synthoma.extras import need
from synthoma.recipe import make_recipe
from synthoma.runs import RECORD, Run, open_run, read_run
from synthoma.scaling.point import CACHE, Plan, Segmenter, arm_training
from synthoma.scaling.recipe import Arm, PointTask, StudyRecipe
from synthoma.scaling.subsets import Sides
from synthoma.seeds import seed_for
from synthoma.synthesis.generators.loading import FILE, GENERATORS, generator_file, open_generator
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.copies import copies_of
from synthoma.synthesis.store.outputs import finish_synthesis, synthesize_case
from synthoma.training.segmentation import training_data

if TYPE_CHECKING:
    from synthoma.learning.models import Model
    from synthoma.training.critics import LesionCritics

LEARNED, CRITICS, BANKS = "generators", "critics", "banks"
MODEL = "model.safetensors"
FOLDS = 2  # of the hosts: each critic judges in those that it has not seen


def train_network(cases: Sequence[Case], task: PointTask, plan: Plan, run: Run, device: str) -> Segmenter:
    """The network of the study's train recipe, with the synthetic tumors of the point's arm."""
    need("torch", extra="train")
    from synthoma.learning.loop import choose_device
    from synthoma.segmentation.infer import segment
    from synthoma.segmentation.recipe import TrainRecipe

    table, chosen = arm_training(plan.recipe.train, task.arm), choose_device(device)
    if task.arm.share:
        table["synthesis"], facts = arm_tumors(task, plan, str(chosen))
        run.note(tumors=facts)
    model = _learn(table, cases, plan, run, device, plan.seed_of(task), (task.arm.generator,))
    asked = make_recipe(TrainRecipe, table, "train").segment
    return lambda case: segment(model, case.read_image(), asked, chosen, case.read_organ).masks


def arm_tumors(task: PointTask, plan: Plan, device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The table of synthesis of a point's training, and what is to be told of its tumors.

    The table names a bank, or, without `copies`, what draws new tumors in every epoch. Told are the digest of a
    generator's file, and how many tumors of a bank were made, rejected, and judged and kept by the critic.
    """
    table = arm_training(plan.recipe.train, task.arm)["synthesis"]
    name = _generator(task, plan, device)
    path = generator_file(name) if name not in GENERATORS else None
    facts: dict[str, Any] = {"generator": disk.digest(path)} if path else {}
    table = table | {"generator": name}
    if not plan.recipe.copies:
        return table, facts
    bank = plan.folder / BANKS / f"{task.subset}_{task.arm.maker}-{task.arm.filter}"
    with _made_once(bank) as there:
        if not there:
            critics = _critics(task, plan, device) if task.arm.filter == "critic" else None
            _fill(bank, make_recipe(SynthesisRecipe, table, "synthesis"), task, plan, critics, device)
    return {"manifest": str(bank)}, facts | _told(read_run(bank).summary)


def complete_generators(recipe: StudyRecipe) -> dict[str, dict[str, Any]]:
    """The recipes of a study's own generators with all their defaults, checked; they hold no patient back.

    A table is of the kind that its name says unless it names one.
    """
    from synthoma.training.generators import make_generator_recipe

    organs = list(recipe.train["organs"])
    done = {}
    for name, table in recipe.learned.items():
        asked = {"kind": name, "validation": 0.0, "tensorboard": False, **table}
        if asked["kind"] == "adversarial":
            asked["fakes"] = {"organs": organs, "mass_effect_share": 0.0, **asked.get("fakes", {})}
        done[name] = make_generator_recipe(asked, f"learned.{name}").as_dict()
    return done


def require_arms(recipe: StudyRecipe, sides: Sides) -> None:
    """Raises before any point what would fail in each: a generator that is not there or has seen a test case."""
    tested = {name for ids in sides.tests.values() for case in ids for name in (case, sides.patients[case])}
    for name in recipe.generators:
        if name in recipe.learned:
            continue
        open_generator(name, allowed=(name,))
        path = generator_file(name) if name not in GENERATORS else None
        if path is None:
            continue
        from synthoma.learning.tissue import load_generator

        seen = load_generator(path).record.get("data", {})
        if both := sorted(tested.intersection(seen.get("cases", ()))):
            raise CaseError(
                f"the generator {name} learned from cases that are tested on",
                found=", ".join(both[:5]),
                fix="test on others, or let it learn in the study: a table learned.NAME in the recipe",
            )
    if "critic" in recipe.filters:
        hosts = sides.hosts(recipe.healthy)
        if len({sides.patients[case] for case in hosts}) < FOLDS:
            raise CaseError(
                "a critic never judges in scans that it was trained on, so hosts are divided between two of them",
                found=f"{len(hosts)} cases without tumors to train on",
                expected="two patients or more",
                fix="leave critic out of filters, or give more cases without tumors",
            )


def _generator(task: PointTask, plan: Plan, device: str) -> str:
    """The name of an arm's generator, or its file once it has learned from the point's cases."""
    name = task.arm.generator
    if name not in plan.recipe.learned:
        return name
    from synthoma.training.generators import make_generator_recipe, train_generator

    folder = plan.folder / LEARNED / f"{task.subset}_{task.arm.maker}"
    with _made_once(folder) as there:
        if not there:
            recipe = make_generator_recipe(plan.recipe.learned[name], f"learned.{name}")
            cases = tuple(plan.cases[case] for case in plan.training(task))
            dataset = Dataset(plan.data, "study", task.subset, cases)
            train_generator(
                recipe, dataset, folder, seed=plan.seed_of(task), cache=plan.folder / CACHE, device=device,
                workers=plan.loaders,
            )  # fmt: skip
    return str(folder / FILE)


def _critics(task: PointTask, plan: Plan, device: str) -> LesionCritics:
    """Who judges tumors in the hosts: networks of rule-based tumors and the point's real ones, a fold of hosts each."""
    from synthoma.segmentation.recipe import TrainRecipe
    from synthoma.training.critics import LesionCritics

    arm = Arm(plan.recipe.shares[0], "rules")
    table = arm_training(plan.recipe.train, arm)
    table["steps"] = plan.recipe.critic.steps or table["steps"]
    hosts = plan.sides.hosts(plan.recipe.healthy)
    patients = sorted({plan.sides.patients[case] for case in hosts})
    models = []
    for fold in range(FOLDS):
        folder = plan.folder / CRITICS / f"{task.subset}_fold{fold}"
        judged = {case for case in hosts if patients.index(plan.sides.patients[case]) % FOLDS == fold}
        with _made_once(folder) as there:
            if not there:
                seed = seed_for(plan.seed_of(task), "critic", fold)
                cases = [plan.cases[case] for case in plan.training(task) if case not in judged]
                with open_run(folder, "critic", make_recipe(TrainRecipe, table, "train"), seed) as run:
                    _learn(table, cases, plan, run, device, seed)
        models.append(str(folder / MODEL))
    return LesionCritics.of(models, tuple(table["synthesis"]["organs"]), device)


def _fill(
    bank: Path, recipe: SynthesisRecipe, task: PointTask, plan: Plan, critics: LesionCritics | None, device: str
) -> None:
    """The tumors of all hosts and their copies, as plans. Raises `CaseError` if there is none at all."""
    limits = plan.recipe.critic
    if critics is not None:
        recipe = recipe.with_changes(critic={"model": critics.models, "keep": limits.keep, "at_most": limits.at_most})
    seed = seed_for(plan.seed_of(task), "bank")
    hosts = copies_of([plan.cases[case] for case in plan.sides.hosts(plan.recipe.healthy)], plan.recipe.copies)
    with open_run(bank, "synthesize", recipe, seed, {"data": str(plan.data)}) as run:
        make = partial(
            synthesize_case, recipe=recipe, seed=seed, out=bank, write="plans", critics=critics, device=device
        )
        records = map_cases(make, hosts, run=run, reads=Case.reads)
        made = finish_synthesis(records, bank, plan.data, "plans")
        if not sum(made["tumors"].values()):
            failed = next((record.error for record in records if record.error), "")
            raise CaseError(
                "the bank of this arm would hold no tumor",
                found=failed or f"all of {made['rejected']} were rejected",
                fix="lower critic.keep" if critics is not None else "look at train.synthesis",
            )
        run.note(**made)


def _told(made: Mapping[str, Any]) -> dict[str, Any]:
    """A bank in a few numbers."""
    judged = made.get("critic", [])
    told = {"tumors": sum(made["tumors"].values()), "rejected": made["rejected"]}
    if judged:
        told |= {name: sum(row[name] for row in judged) for name in ("judged", "kept")}
    return told


def _learn(
    table: Mapping[str, Any],
    cases: Sequence[Case],
    plan: Plan,
    run: Run,
    device: str,
    seed: int,
    allow_modules: Sequence[str] = (),
) -> Model:
    """The network that a train recipe's table makes of some cases, none of them held back."""
    from synthoma.learning.loop import Team, choose_device
    from synthoma.segmentation.recipe import TrainRecipe
    from synthoma.segmentation.train import train

    recipe = make_recipe(TrainRecipe, table, "train")
    data = training_data(recipe, cases, (), plan.folder / CACHE, seed, allow_modules)
    data = replace(data, allow_failures=plan.allow_failures)
    return train(recipe, data, run, Team(choose_device(device)), seed=seed, workers=plan.loaders)


@contextmanager
def _made_once(folder: Path) -> Iterator[bool]:
    """Whether a run folder is done; if it is not, it is ours alone to make while the block lasts."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks: the second one is told that the folder is in use
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield (folder / RECORD).is_file() and read_run(folder).status == "done"
