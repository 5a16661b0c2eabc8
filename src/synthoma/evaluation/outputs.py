"""What an evaluation or a comparison leaves in its run folder, and reading evaluations back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from synthoma import disk
from synthoma.engine.records import CaseRecord
from synthoma.errors import RunError
from synthoma.evaluation.comparison import Comparison, Model, compare
from synthoma.evaluation.figures import Scored, structures_of
from synthoma.evaluation.pairing import Pairs
from synthoma.evaluation.plots import Series, draw_plots
from synthoma.evaluation.report import comparison_page, evaluation_page
from synthoma.evaluation.scoring import CaseScores, EvaluateRecipe
from synthoma.evaluation.summary import case_rows, summarise
from synthoma.evaluation.verdicts import comparison_sentences, evaluation_sentences
from synthoma.evaluation.worst import worst_pictures
from synthoma.recipe import make_recipe
from synthoma.reports.plots import Plot
from synthoma.runs import RECORD, Journal, RunRecord, read_run
from synthoma.tables import write_table

KIND = "evaluate"
IN_SILICO_TITLE = ", in silico"
CASES, LESIONS, SUMMARY, FIGURES, REPORT = (
    "cases.parquet", "lesions.parquet", "summary.json", "figures.csv", "report.html",
)  # fmt: skip
# What two runs may differ in and still be compared.
FREE = ("missing", "resample", "headers", "labels", "catalog", "resamples", "confidence", "structures", "primary")


def finish_evaluation(
    records: Sequence[CaseRecord], pairs: Pairs, out: Path, recipe: EvaluateRecipe, seed: int = 0
) -> dict[str, Any]:
    """Writes tables, summary, plots and the report of scored cases; the summary's counts for the run's record."""
    scores = [CaseScores.from_dict(record.result) for record in records if record.status == "done"]
    summary = summarise(scores, recipe, seed)
    counts = summary.counts | {
        "failed": [f"{record.case}: {record.error}" for record in records if record.status == "failed"],
        "faults": [str(fault) for fault in pairs.faults],
        "without_prediction": list(pairs.missing),
        "predictions_without_case": list(pairs.extra),
    }
    write_table(case_rows(scores), out / CASES)
    write_table([row for each in scores for row in each.lesions], out / LESIONS)
    write_table([figure.as_row() for figure in summary.figures], out / FIGURES)
    disk.write_json(out / SUMMARY, summary.as_dict() | {"counts": counts, "recipe": recipe.as_dict()})
    plots, pictures = {}, {}
    for structure in structures_of(scores):
        series = {"": Series(Scored.of(scores, structure), summary)}
        plots[structure] = draw_plots(series, structure, recipe)
        pictures[structure] = worst_pictures(scores, pairs.pairs, structure, recipe)
    _write_plots(plots, out)
    named = ("failed", "faults", "without_prediction", "predictions_without_case", "lesions", "notes")
    facts = {name.replace("_", " "): counts[name] for name in named} | {"recipe": recipe.as_dict(), "seed": seed}
    in_silico = bool(pairs.pairs) and all(pair.truth.attributes.get("in_silico") for pair in pairs.pairs)
    title = f"Evaluation {out.name}" + IN_SILICO_TITLE * in_silico
    whole = replace(summary, counts=counts)
    disk.write_text(out / REPORT, evaluation_page(title, whole, plots, pictures, facts, in_silico))
    return {"counts": counts, "in_silico": in_silico, "verdict": evaluation_sentences(whole, in_silico)}


class Models(NamedTuple):
    """Two models read back. recipe: how both were scored; names: of their folders; ids: of every run.

    in_silico: whether all patients were drawn.
    """

    first: Model
    second: Model
    names: tuple[str, str]
    recipe: EvaluateRecipe
    ids: tuple[tuple[str, ...], tuple[str, ...]]
    in_silico: bool = False


def read_models(first: Path, second: Path) -> Models:
    """Two evaluate runs, or two folders of such runs, one a training seed.

    Raises `RunError` for anything else, and if the runs did not score in the same way (naming what differs).
    """
    sides = [_runs_in(Path(folder)) for folder in (first, second)]
    records = [record for side in sides for _, record in side]
    whole = [make_recipe(EvaluateRecipe, record.recipe, record.id) for record in records]  # with keys of today
    recipes = [{key: value for key, value in one.as_dict().items() if key not in FREE} for one in whole]
    for record, recipe in zip(records, recipes, strict=True):
        differing = sorted(key for key in {*recipe, *recipes[0]} if recipe.get(key) != recipes[0].get(key))
        if differing:
            raise RunError(
                f"{record.id} was scored otherwise than {records[0].id}",
                found=", ".join(f"{key} = {recipe.get(key)}, {recipes[0].get(key)}" for key in differing),
                fix="evaluate both in the same way",
            )
    models = [[_scores_in(folder) for folder, _ in side] for side in sides]
    names = Path(first).resolve().name, Path(second).resolve().name
    if names[0] == names[1]:
        names = str(first), str(second)
    ids = tuple(tuple(record.id for _, record in side) for side in sides)
    drawn = all(record.summary.get("in_silico") for record in records)
    return Models(models[0], models[1], names, whole[0], (ids[0], ids[1]), drawn)


def finish_comparison(models: Models, out: Path, seed: int = 0) -> Comparison:
    """Compares two models and writes summary, table, plots and report."""
    comparison = compare(models.first, models.second, models.names, models.recipe, seed)
    sentences = comparison_sentences(comparison, models.recipe.primary, models.in_silico)
    comparison = replace(comparison, sentences=tuple(sentences))
    disk.write_json(out / SUMMARY, comparison.as_dict())
    write_table([difference.as_row() for difference in comparison.differences], out / FIGURES)
    plots = {}
    for structure in dict.fromkeys(one.structure for one in comparison.differences):
        # of several seeds the first: a mean of curves is no curve of any model
        series = {
            name: _series(model[0], structure, comparison, models.recipe, seed)
            for name, model in zip(models.names, (models.first, models.second), strict=True)
        }
        plots[structure] = draw_plots(series, structure, models.recipe)
    _write_plots(plots, out)
    facts = {
        "runs": dict(zip(models.names, models.ids, strict=True)), "left out": list(comparison.left_out),
        "recipe": models.recipe.as_dict(), "seed": seed, "plots": "of several training seeds, the first is drawn",
    }  # fmt: skip
    title = f"{models.names[0]} and {models.names[1]}" + IN_SILICO_TITLE * models.in_silico
    page = comparison_page(title, comparison, plots, facts, models.recipe.primary)
    disk.write_text(out / REPORT, page)
    return comparison


def _series(
    scores: Iterable[CaseScores], structure: str, comparison: Comparison, recipe: EvaluateRecipe, seed: int
) -> Series:
    kept = [each for each in scores if each.case not in comparison.left_out]
    plain = recipe.with_changes(groups=())
    return Series(Scored.of(kept, structure), summarise(kept, plain, seed))


def _write_plots(plots: Mapping[str, Sequence[Plot]], out: Path) -> None:
    for structure, drawn in plots.items():
        for plot in drawn:
            path = out / "plots" / f"{structure}_{plot.name}.svg"
            disk.write_text(path, plot.svg)
            write_table(plot.rows, path.with_suffix(".csv"))


def _runs_in(folder: Path) -> list[tuple[Path, RunRecord]]:
    """The evaluate run in a folder, or those in its subfolders."""
    folders = [folder] if (folder / RECORD).is_file() else sorted(path.parent for path in folder.glob(f"*/{RECORD}"))
    found = [(path, record) for path in folders if (record := read_run(path)).kind == KIND]
    if not found:
        raise RunError(f"{folder} holds no evaluation", fix="run evaluate first, and give its --out")
    unfinished = [record.id for _, record in found if record.status != "done"]
    if unfinished:
        raise RunError(f"{folder} is not finished", found=", ".join(unfinished), fix="run the same evaluate again")
    return found


def _scores_in(folder: Path) -> list[CaseScores]:
    path = folder / "records.jsonl"
    try:
        entries = [entry for entry in Journal(path).read() if entry["status"] == "done"]
        return [CaseScores.from_dict(entry["result"]) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path} holds no scores", found=f"{type(error).__name__} {error}", fix="run the same evaluate again"
        ) from error
