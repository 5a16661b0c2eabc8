"""What a study leaves in its run folder: findings, tables, plots, the report; and what to do next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthoma import disk, files
from synthoma.cases import find_lesions
from synthoma.engine.records import CaseRecord
from synthoma.errors import FileError, RunError, SynthomaError
from synthoma.evaluation.figures import Scored, ratios, size_bins
from synthoma.evaluation.scoring import CaseScores
from synthoma.reports.pictures import PREDICTED_COLOR, SECOND_COLOR, TRUTH_COLOR, Picture, slice_png
from synthoma.runs import Journal, RunRecord, read_run
from synthoma.scaling import answer
from synthoma.scaling.fit import fit_study
from synthoma.scaling.point import EXAMPLES, POINTS
from synthoma.scaling.recipe import REAL, PointTask, StudyRecipe
from synthoma.scaling.report import Study, level_rows, study_page
from synthoma.scaling.table import Point
from synthoma.slices import Outline
from synthoma.statistics.intervals import Ratio
from synthoma.tables import write_table
from synthoma.volume import Volume

KIND = "scale"
DESIGN, FINDINGS, POINT_TABLE, PLAN, REPORT = "design.json", "findings.json", "points.csv", "plan.json", "report.html"

PointScores = tuple[dict[str, Any], dict[tuple[str, str], Ratio]]  # what a point is; its scores by metric and size


def finish_study(folder: Path | str) -> dict[str, Any]:
    """Writes findings, tables, plots and the report of the points that are done; a summary for the run's record."""
    folder = Path(folder)
    record, recipe, records = read_study(folder)
    study = findings(folder, recipe, records)
    plots = study.plots()
    for plot in plots:
        disk.write_text(folder / "plots" / f"{plot.name}.svg", plot.svg)
        write_table(plot.rows, folder / "plots" / f"{plot.name}.csv")
    write_table(level_rows(study), folder / POINT_TABLE)
    told: dict[str, Any] = {"answer": study.answer(), "remarks": study.remarks(), "failed": list(study.failed)}
    told["tumors"] = list(study.tumors)
    fits = {name: fit.as_dict() for name, fit in study.fits.items()}
    disk.write_json(folder / FINDINGS, {**told, "arm": study.arm, "metric": recipe.metric, "fits": fits})
    page = study_page(study, _asked(recipe, study), plots, _examples(folder, recipe), _facts(folder, record, recipe))
    disk.write_text(folder / REPORT, page)
    return {"answer": study.answer(), "seconds": _seconds(folder)}


def plan_study(folder: Path | str) -> dict[str, Any]:
    """What a finished or partial study says to do next, also written to `plan.json`.

    `text` is for reading: the answer, what more annotation would bring, which arm to use, what limits the answer.
    """
    folder = Path(folder)
    _, recipe, records = read_study(folder)
    study = findings(folder, recipe, records)
    fit, arm = study.first, study.arm
    steps = [*_use(study), answer.saturation(fit.arm(fit.real), fit.largest, recipe.fit.worthwhile)]
    steps += [answer.doubling(one, fit.largest) for one in fit.arms if one.arm in (fit.real, arm)]
    steps += [answer.best_arm(fit, number) for number in fit.best if len(fit.arms) > 2]
    steps += [answer.doubt(fit)]
    missing = [name for name in disk.read_json(folder / DESIGN)["points"] if name not in _done(records)]
    if missing:
        steps.append(f"{len(missing)} points are not done: {', '.join(missing[:5])}{' ...' * (len(missing) > 5)}.")
    level = answer.headline(fit, arm)
    told, warned = [step for step in steps if step], list(answer.warnings(fit))
    plan = {
        "answer": study.answer(),
        "steps": told,
        "warnings": warned,
        "points": level_rows(study),
        "cases": level.cases if level else None,
        "missing": missing,
    }
    disk.write_json(folder / PLAN, plan)
    lines = [study.answer(), "", *(f"- {step}" for step in told), *(f"! {line}" for line in warned)]
    return plan | {"text": "\n".join(lines)}


def read_study(folder: Path) -> tuple[RunRecord, StudyRecipe, list[CaseRecord]]:
    """The record, the recipe and the points of a study; `RunError` if the folder holds none, or no point is done."""
    record = read_run(folder)
    if record.kind != KIND:
        raise RunError(f"{folder} holds no scaling study", found=record.kind, fix="run scale first, and give its --out")
    latest = {entry["case"]: CaseRecord(**entry) for entry in Journal(folder / "records.jsonl").read()}
    if not any(point.status == "done" for point in latest.values()):
        failed = next((f"{point.case}: {point.error}" for point in latest.values()), "none was begun")
        raise RunError(f"no point of {folder} is done", found=failed, fix="run the same scale again")
    return record, StudyRecipe.model_validate(record.recipe), list(latest.values())


def findings(folder: Path, recipe: StudyRecipe, records: Sequence[CaseRecord]) -> Study:
    """Everything the points that are done tell."""
    order = {task.id: place for place, task in enumerate(recipe.points())}
    done = sorted((one for one in records if one.status == "done"), key=lambda one: order.get(one.case, len(order)))
    scores = _scores([one.result for one in done], recipe)
    sizes = [name for name, _, _ in size_bins(recipe.evaluate.sizes_mm)][2:]
    fits, points, by_size = {}, {}, {}
    for name, rows in scores.items():
        points[name] = _points(rows, recipe.metric, "")
        fits[name] = fit_study(points[name], REAL, recipe.fit, recipe.seed)
        found = {size: _points(rows, "lesion_sensitivity", size) for size in sizes}
        there = {size: some for size, some in found.items() if any(point.score.bottom.any() for point in some)}
        by_size[name] = {size: fit_study(some, REAL, recipe.fit, recipe.seed) for size, some in there.items()}
    return Study(
        {name: recipe.words_for(name) for name in fits},
        recipe.label(recipe.arms()[1]),
        recipe.metric_label,
        fits,
        points,
        by_size,
        recipe.fit.worthwhile,
        tuple(f"{one.case}: {one.error}" for one in records if one.status == "failed"),
        _is_drawn(folder),
        tuple(
            {name: one.result[name] for name in ("arm", "cases", "seed")} | told
            for one in done
            if "tumors" in (told := one.result.get("tumors", {}))
        ),
    )


def _is_drawn(folder: Path) -> bool:
    """Whether all patients of the study are in silico."""
    path = folder / DESIGN
    return path.is_file() and bool(disk.read_json(path).get("in_silico"))


def _scores(results: Iterable[Mapping[str, Any]], recipe: StudyRecipe) -> dict[str, list[PointScores]]:
    """The figures of every point by patient; the patients are those of the test set, in one order."""
    scores: dict[str, list[PointScores]] = {}
    for result in results:
        point = {name: result[name] for name in ("arm", "cases", "seed")}
        for name, rows in result["tests"].items():
            scored = Scored.of([CaseScores.from_dict(row) for row in rows], recipe.lesion)
            figures = {(metric, size): ratio for metric, size, ratio in ratios(scored, recipe.evaluate)}
            if (recipe.metric, "") not in figures:
                raise FileError(f"the points have no {recipe.metric}", expected="it among evaluate's figures")
            scores.setdefault(name, []).append((point, figures))
    return scores


def _points(
    rows: Sequence[tuple[Mapping[str, Any], Mapping[tuple[str, str], Ratio]]], metric: str, size: str
) -> list[Point]:
    return [Point(score=figures[metric, size], **point) for point, figures in rows]


def _done(records: Iterable[CaseRecord]) -> set[str]:
    return {one.case for one in records if one.status == "done"}


def _use(study: Study) -> list[str]:
    """Whether to train with synthetic tumors, size by size."""
    steps = []
    for level in study.first.levels:
        if level.arm != study.arm or level.gain is None:
            continue
        found = answer.signed(level.gain)
        if not math.isfinite(level.gain.low):
            steps.append(f"With {answer.cases(level.cases)} synthetic tumors changed {study.metric} by {found}.")
        elif level.gain.spans_zero:
            steps.append(
                f"With {answer.cases(level.cases)}, {answer.NOTHING} ({found}): no reason for or against them."
            )
        else:
            word = "Train with synthetic tumors" if level.gain.value > 0 else "Leave synthetic tumors out"
            steps.append(f"{word} at {answer.cases(level.cases)} ({study.metric} {found}).")
    return steps


def _asked(recipe: StudyRecipe, study: Study) -> str:
    counts = ", ".join(map(str, recipe.counts[:-1])) + f" and {recipe.counts[-1]}" * (len(recipe.counts) > 1)
    counts = counts if len(recipe.counts) > 1 else str(recipe.counts[0])
    steps = recipe.train.get("steps")
    often = "once" if recipe.seeds == 1 else f"{recipe.seeds} times"
    length = f", for {steps:,} steps" if steps else ""
    origin = "in-silico" if study.in_silico else "real"
    patients = " and ".join(f"{fit.patients} {study.tests[name]}" for name, fit in study.fits.items())
    return (
        f"Networks were trained on {counts} {origin} scans with annotated tumors, with and without synthetic tumors "
        f"put into healthy tissue during training, {often} each{length}. All saw the same scans; they were "
        f"tested on scans with tumors of {patients}. How much do synthetic tumors improve "
        f"{study.metric}, and how many more annotated scans would have done the same?"
    )


def _examples(folder: Path, recipe: StudyRecipe) -> list[Picture]:
    """The example cases with their truth and the predictions of both arms' first models at the smallest size."""
    path = folder / EXAMPLES / "examples.json"
    count = next((count for count in recipe.counts if count), 0)
    arms = recipe.arms()[:2]
    sides = [
        (arm, color, folder / POINTS / PointTask(arm, count, 0).id / EXAMPLES)
        for arm, color in zip(arms, (PREDICTED_COLOR, SECOND_COLOR), strict=True)
    ]
    pictures = []
    for row in disk.read_json(path) if path.exists() else ():
        case = row["case"]
        try:
            image = files.read_image(folder / EXAMPLES / f"{case}_ct.nii.gz")
            truth = files.read_labels(folder / EXAMPLES / f"{case}_truth.nii.gz")
            masks = [("truth", truth, TRUTH_COLOR)]
            masks += [
                (recipe.label(arm), files.read_labels(place / f"{case}.nii.gz"), color)
                for arm, color, place in sides
                if (place / f"{case}.nii.gz").exists()
            ]
        except SynthomaError as error:  # a report without a picture is still a report
            pictures.append(Picture(case, f"no picture: {error}", ""))
            continue
        outlines = [Outline(name, Volume(mask.data != 0, mask.geometry), color, 1.2) for name, mask, color in masks]
        lesions = find_lesions(outlines[0].mask, "", case)
        size = f"tumor of {lesions[0].equivalent_diameter_mm:.0f} mm in this slab; " if lesions else ""
        caption = f"{recipe.words_for(row['test'])}; {size}trained on {answer.cases(count)}"
        pictures.append(Picture(case, caption, slice_png(image, outlines, row["center_mm"], 55.0)))
    return pictures


def _facts(folder: Path, record: RunRecord, recipe: StudyRecipe) -> dict[str, Any]:
    return {
        "to do it again": f"synthoma scale {folder / 'recipe.toml'} --data {record.inputs['data']} --out RUN",
        "run": record.id,
        "data": dict(record.inputs),
        "versions": dict(record.versions),
        "recipe": recipe.as_dict(),
    }


def _seconds(folder: Path) -> dict[str, float]:
    """What the points' records say of their time, summed."""
    total: dict[str, float] = {}
    for path in sorted((folder / POINTS).glob("*/run.json")):
        for name, value in read_run(path.parent).summary.get("seconds", {}).items():
            total[name] = round(total.get(name, 0.0) + value, 3)
    return total
