"""Virtual lesion trials: the same lesions with one attribute varied; and what a model finds of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from synthoma import reading, runs
from synthoma.cases import Case
from synthoma.commands.outcome import Outcome, as_dataset, as_recipe
from synthoma.datasets.layouts.joining import require_masks
from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine import mapping
from synthoma.engine.clusters import ClusterRecipe
from synthoma.engine.records import CaseRecord
from synthoma.errors import RecipeError
from synthoma.evaluation.pairing import Pair, score_pair
from synthoma.synthesis.store.outputs import finish_synthesis
from synthoma.trials.aim import Aim, aim_recipe, write_aim
from synthoma.trials.design import Design, read_design, require_scans, write_design
from synthoma.trials.outputs import KIND, finish_report
from synthoma.trials.planning import bare_id, plan_host, trial_id
from synthoma.trials.recipe import ReportRecipe, TrialRecipe
from synthoma.trials.scores import join_scores, pair_trial
from synthoma.trials.worst import missed_pictures

WRITES = ("overlay", "plans")


def trial(
    recipe: TrialRecipe | Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    *,
    seed: int = 0,
    write: str = "overlay",
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """The scans of a virtual lesion trial, written to `out` as a synthesis; the same call again resumes.

    recipe: which attributes are varied, or its TOML file, or the name of one that comes along. data: the hosts, best
    healthy. write: `overlay` (the voxels that changed) or `plans` (the manifest alone); both are read like NIfTI, and
    `replay` writes them as such. Raises `RecipeError` for more scans than the recipe allows, before anything is
    written.
    """
    settings, dataset, out = as_recipe(TrialRecipe, recipe, "trial"), as_dataset(data), Path(os.path.abspath(out))
    if write not in WRITES:
        raise RecipeError(
            f"cannot write a trial as {write!r}", expected=f"one of {', '.join(WRITES)}",
            fix="`synthoma replay TRIAL --data DIR --out OUT` writes it as NIfTI",
        )  # fmt: skip
    require_masks(dataset)
    scans = require_scans(settings, len(dataset))
    _require_new_ids(dataset, settings)
    facts = reading.input_facts(dataset, write=write)
    with runs.open_run(out, "trial", settings, seed, facts) as run:
        task = partial(plan_host, recipe=settings, seed=seed, out=out, write=write)
        records = mapping.map_cases(
            task, dataset.cases, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title="trial",
            reads=Case.reads,
        )  # fmt: skip
        finish_synthesis(records, out, dataset.root, write)
        done = [record.result for record in records if record.status != "failed"]
        in_silico = bool(dataset.cases) and all(case.attributes.get("in_silico") for case in dataset)
        design = Design(
            settings,
            [row for result in done for row in result["untouched"]],
            [row for result in done for row in result["lesions"]],
            [row for result in done for row in result["left_out"]],
            in_silico,
        )
        write_design(design, out)
        made = {
            "hosts": len(design.hosts), "scans": len(design.cases), "planned_scans": scans,
            "lesions": len(design.lesions), "left_out": len(design.left_out),
        }  # fmt: skip
        run.note(**made)
    return Outcome(out, records, dataset.faults, made)


def _require_new_ids(dataset: Dataset, recipe: TrialRecipe) -> None:
    """`RecipeError` if a scan of the trial would have the id of another host."""
    taken = [
        identity
        for case in dataset
        for identity in (
            *(trial_id(case.id, number) for number in range(1, len(recipe.cells()) + 1)),
            *(bare_id(case.id, number) for number in range(1, len(recipe.states()))),
        )
        if identity in dataset
    ]
    if taken:
        raise RecipeError(
            f"{len(taken)} scans of the trial would have the id of another host", found=taken[0],
            fix="give the healthy scans alone",
        )  # fmt: skip


def trial_report(
    trial: Path | str,
    predictions: Path | str,
    out: Path | str,
    *,
    second: Path | str | None = None,
    recipe: ReportRecipe | Path | str | None = None,
    data: Path | str | None = None,
    seed: int = 0,
    workers: int = 0,
    cluster: str | ClusterRecipe | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """What a model finds of a trial's lesions, by attribute: curves, thresholds, false alarms; one page in `out`.

    trial: the folder of `trial`. predictions, second: the masks of one model, or of two to be compared, in any form
    that `evaluate` takes. recipe: how they are scored, or its TOML file. data: the hosts, if they lie elsewhere now. A
    scan without a prediction is left out and counted. Raises `CaseError` if no lesion can be scored.
    """
    settings, folder = as_recipe(ReportRecipe, recipe), Path(os.path.abspath(trial))
    out, design = Path(os.path.abspath(out)), read_design(folder)
    truth = reading.open_dataset(folder, data=data)
    models = [Path(os.path.abspath(path)) for path in (predictions, second) if path is not None]
    paired = [pair_trial(design, truth, model, settings) for model in models]
    facts = reading.input_facts(truth, predictions=" ".join(map(str, models)))
    with runs.open_run(out, KIND, settings, seed, facts) as run:
        records: list[CaseRecord] = []
        scores, pictures = [], {}
        for number, (name, (pairs, asked)) in enumerate(zip(_names(models), paired, strict=True)):
            task = partial(score_pair, structures=pairs.structures, recipe=asked)
            done = mapping.map_cases(
                task, pairs.pairs, run=run, workers=workers, cluster=cluster, timeout_s=timeout_s, title=name,
                journal=JOURNALS[number], reads=Pair.reads,
            )  # fmt: skip
            records += done
            scores.append(
                join_scores(name, design, {each.case: each.result for each in done if each.status != "failed"})
            )
            pictures[name] = missed_pictures(design, scores[-1], pairs.pairs, asked)
        told = {"trial": str(folder), "predictions": dict(zip(_names(models), map(str, models), strict=True))}
        made = finish_report(design, scores, out, settings, seed, told, pictures)
        run.note(verdict=made["verdict"])
    faults = list(dict.fromkeys(fault for pairs, _ in paired for fault in pairs.faults))
    return Outcome(out, records, faults, made)


def plan_tumors(report: Path | str, recipe: Path | str | None = None) -> Aim:
    """A synthesis recipe that draws more of the sizes that a report's first model missed; written to `recipe` if given.

    Raises `CaseError` if no diameters were varied, or nothing was missed.
    """
    aim = aim_recipe(Path(report))
    if recipe is not None:
        write_aim(aim, Path(recipe))
    return aim


def is_report(folder: Path | str) -> bool:
    """Whether this is the run folder of a trial's report."""
    return (Path(folder) / "run.json").is_file() and runs.read_run(folder).kind == KIND


JOURNALS = ("records", "records_second")


def _names(models: Sequence[Path]) -> list[str]:
    """What models are called: their folders' names, or the shortest ends of their paths that differ."""
    if len(models) < 2 or models[0].name != models[1].name:
        return [model.name for model in models]
    ends = [f"{model.parent.name}/{model.name}" for model in models]
    return ends if ends[0] != ends[1] else [f"{end} ({number})" for number, end in enumerate(ends, start=1)]
