"""The command `synthoma`: thin; where from and where to on the line, what to do in a recipe."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from synthoma.errors import SynthomaError
from synthoma.processes import ONE_THREAD

if TYPE_CHECKING:
    from synthoma.datasets.layouts import Dataset
    from synthoma.engine import CaseRecord

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Out = Annotated[
    Path, typer.Option("--out", resolve_path=True, help="Folder to write; running the same command again resumes.")
]
Data = Annotated[Path, typer.Option("--data", help="Data set, in any known layout.")]
Overrides = Annotated[list[str], typer.Option("--set", help="Override one key of the recipe: key.sub=value.")]
Maps = Annotated[
    list[str],
    typer.Option("--map", help="Label map to add: instances, abdomenatlas, freetumor, organs, tumors; repeatable."),
]
Workers = Annotated[int, typer.Option("--workers", help="Processes on this machine; 0 works in this one.")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="Dask scheduler (tcp://...), or a cluster recipe.")]
RecipePath = Annotated[Path, typer.Argument(help="Recipe (TOML).", metavar="RECIPE")]


@app.callback()
def synthoma(verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens.")] = False) -> None:
    """Turns CT scans with organ masks into training data for tumor segmentation."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Version, extras present, organs, layouts, generators."""
    from synthoma import __version__, anatomy
    from synthoma.datasets.layouts import LAYOUTS
    from synthoma.extras import present_extras
    from synthoma.synthesis.pipeline import GENERATORS

    facts = {
        "version": __version__,
        "python": sys.version.split()[0],
        "extras": present_extras(),
        "organs": list(anatomy.ORGANS),
        "layouts": list(LAYOUTS),
        "generators": list(GENERATORS),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} ({'yes' if there else 'no'})" for name, there in value.items())
        typer.echo(f"{key:11} {', '.join(value) if isinstance(value, list) else value}")


@app.command()
def validate(
    data: Annotated[Path, typer.Argument(help="Data set, in any known layout.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("--out", help="Report folder [validation-NAME]; resumes.")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Thresholds (TOML).")] = None,
    changes: Overrides = [],  # noqa: B006 (typer reads the default, nobody writes it)
    workers: Workers = 0,
    cluster: Cluster = None,
) -> None:
    """Check geometry, HU, labels and duplicates of every case; exit 1 if any is at fault."""
    from functools import partial

    from synthoma import disk, engine, runs
    from synthoma.datasets.catalog import write_catalog
    from synthoma.datasets.validation import ValidateRecipe, check_case, summarise
    from synthoma.recipes import read_recipe
    from synthoma.synthesis.reading import open_dataset

    settings = read_recipe(ValidateRecipe, recipe, changes)
    dataset = open_dataset(data)
    folder = out or Path(f"validation-{dataset.name}")
    with runs.open_run(folder, "validate", settings, inputs=_inputs(dataset)) as run:
        records = engine.map_cases(
            partial(check_case, recipe=settings), dataset.cases, run=run, workers=workers, cluster=cluster,
            title="validate",
        )  # fmt: skip
        report = summarise(records, settings, dataset.faults)
        disk.write_json(folder / "report.json", report.as_dict())
        write_catalog(report.rows, folder / "catalog.parquet")
    _table(report.table(), ("case", "severity", "code", "found", "expected"))
    for code, fix in {row["code"]: row["fix"] for row in report.table()}.items():
        typer.echo(f"{code}: {fix}")
    counted = report.as_dict()
    typer.echo(
        f"{report.cases} cases, {counted['faults']} faults, {counted['warnings']} warnings: {folder}/report.json"
    )
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="Data set, in any known layout.", metavar="DIR")],
    to: Annotated[Literal["nnunet", "msd", "abdomenatlas"], typer.Option("--to", help="Layout to write.")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Structures and names (TOML).")] = None,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
) -> None:
    """Write a data set in another layout; the input is never written to."""
    from functools import partial

    from synthoma import engine, runs
    from synthoma.datasets.conversion import ConvertRecipe, convert_case, finish_conversion, plan_conversion
    from synthoma.recipes import read_recipe
    from synthoma.synthesis.reading import open_dataset

    settings = read_recipe(ConvertRecipe, recipe, changes)
    dataset = open_dataset(data)
    conversion = plan_conversion(dataset, to, out, settings)
    with runs.open_run(out, "convert", settings, inputs=_inputs(dataset, to=to)) as run:
        records = engine.map_cases(
            partial(convert_case, conversion=conversion), dataset.cases, run=run, workers=workers, cluster=cluster,
            title="convert",
        )  # fmt: skip
        finish_conversion(conversion, [record.result for record in records if record.status == "done"])
        run.note(faults=[str(fault) for fault in dataset.faults])
    _finish(records, out, [str(fault) for fault in dataset.faults])


@app.command()
def cohort(
    recipe: RecipePath, out: Out, changes: Overrides = [], workers: Workers = 0, cluster: Cluster = None  # noqa: B006
) -> None:  # fmt: skip
    """Draw in-silico patients and write them as a data set."""
    from functools import partial

    from synthoma import engine, runs
    from synthoma.datasets.catalog import write_catalog
    from synthoma.datasets.cohort import CohortRecipe, write_cohort_case
    from synthoma.recipes import read_recipe

    settings = read_recipe(CohortRecipe, recipe, changes)
    with runs.open_run(out, "cohort", settings, seed=settings.seed) as run:
        records = engine.map_cases(
            partial(write_cohort_case, recipe=settings, out=out), range(settings.cases), run=run, workers=workers,
            cluster=cluster, title="cohort", key=settings.case_id,
        )  # fmt: skip
        write_catalog([record.result["row"] for record in records if record.status == "done"], out / "catalog.parquet")
    _finish(records, out)


@app.command()
def synthesize(
    recipe: RecipePath,
    data: Data,
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other tumors.")] = 0,
    write: Annotated[
        Literal["full", "overlay", "plans"],
        typer.Option("--write", help="NIfTI, changed voxels, or the manifest alone."),
    ] = "full",
    maps: Maps = [],  # noqa: B006
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
) -> None:
    """Put tumors into the cases of a data set; the manifest can replay every one of them."""
    from functools import partial

    from synthoma import engine, runs
    from synthoma.recipes import read_recipe
    from synthoma.synthesis.outputs import finish_synthesis, synthesize_case
    from synthoma.synthesis.plan import SynthesisRecipe
    from synthoma.synthesis.reading import open_dataset

    settings = read_recipe(SynthesisRecipe, recipe, changes)
    dataset = open_dataset(data)
    with runs.open_run(out, "synthesize", settings, seed, _inputs(dataset, write=write, maps=" ".join(maps))) as run:
        records = engine.map_cases(
            partial(synthesize_case, recipe=settings, seed=seed, out=out, write=write, maps=maps), dataset.cases,
            run=run, workers=workers, cluster=cluster, title="synthesize",
        )  # fmt: skip
        made = finish_synthesis(records, out, dataset.root, write)
        run.note(**made)
    _tell(records, made)
    _finish(records, out, [str(fault) for fault in dataset.faults])


@app.command()
def replay(
    manifest: Annotated[Path, typer.Argument(help="manifest.parquet of a synthesize run.", metavar="MANIFEST")],
    data: Data,
    out: Out,
    write: Annotated[Literal["full", "overlay"], typer.Option("--write", help="NIfTI, or changed voxels.")] = "full",
    maps: Maps = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
) -> None:
    """Write the same tumors again, bit for bit; a tumor that comes out otherwise is a failed case."""
    from functools import partial

    from synthoma import disk, engine, runs
    from synthoma.recipes import Recipe
    from synthoma.synthesis.manifest import read_manifest
    from synthoma.synthesis.outputs import finish_synthesis, replay_case
    from synthoma.synthesis.reading import open_dataset

    table = read_manifest(manifest)
    dataset = open_dataset(data)
    inputs = _inputs(dataset, manifest=disk.digest(manifest), write=write, maps=" ".join(maps))
    with runs.open_run(out, "replay", Recipe(), inputs=inputs) as run:
        records = engine.map_cases(
            partial(replay_case, manifest=table, out=out, write=write, maps=maps), table.cases_in(dataset), run=run,
            workers=workers, cluster=cluster, title="replay",
        )  # fmt: skip
        run.note(**finish_synthesis(records, out, dataset.root, write))
    _finish(records, out)


@app.command()
def evaluate(
    truth: Annotated[Path, typer.Argument(help="Data set with the true masks, in any known layout.", metavar="TRUTH")],
    predictions: Annotated[Path, typer.Argument(help="Data set, masks or label maps.", metavar="PRED")],
    out: Out,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Metrics and policies (TOML).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
) -> None:
    """Score predictions: voxel, surface, lesion and patient, with intervals; tables and one HTML page."""
    from functools import partial

    from synthoma import engine, runs
    from synthoma.evaluation.outputs import KIND, finish_evaluation
    from synthoma.evaluation.pairing import pair_cases, score_pair
    from synthoma.evaluation.scoring import EvaluateRecipe
    from synthoma.recipes import read_recipe
    from synthoma.synthesis.reading import open_dataset

    settings = read_recipe(EvaluateRecipe, recipe, changes)
    dataset = open_dataset(truth)
    pairs = pair_cases(dataset, predictions, settings)
    with runs.open_run(out, KIND, settings, seed, _inputs(dataset, predictions=str(predictions.resolve()))) as run:
        records = engine.map_cases(
            partial(score_pair, structures=pairs.structures, recipe=settings), pairs.pairs, run=run, workers=workers,
            cluster=cluster, title="evaluate",
        )  # fmt: skip
        run.note(**finish_evaluation(records, pairs, out, settings, seed))
    _finish(records, out, [str(fault) for fault in pairs.faults])


@app.command()
def compare(
    first: Annotated[
        Path, typer.Argument(help="evaluate run, or a folder of them: one a training seed.", metavar="RUN_A")
    ],
    second: Annotated[Path, typer.Argument(help="The other model's.", metavar="RUN_B")],
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap and the permutations.")] = 0,
) -> None:
    """Two models on the same cases: which is better, on what, by how much, how sure."""
    from synthoma import runs
    from synthoma.evaluation.outputs import finish_comparison, read_models

    models = read_models(first, second)
    inputs = {"first": str(first.resolve()), "second": str(second.resolve())}
    with runs.open_run(out, "compare", models.recipe, seed, inputs):
        finish_comparison(models, out, seed)
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def show(
    target: Annotated[
        str, typer.Argument(help="A case, CASE#N for its tumor N, or a synthesize run for a gallery.", metavar="TARGET")
    ],
    out: Annotated[Path, typer.Option("--out", help="PNG to write.")],
) -> None:
    """A picture: a case in three planes; a tumor before, after and labelled; or one tumor of each organ of a run."""
    from synthoma import pictures
    from synthoma.synthesis.reading import find_gallery, is_synthesis, read_case, read_lesion

    case, separator, number = target.rpartition("#")
    if separator and number.isdigit():
        lesion = read_lesion(Path(case), int(number))
        pictures.show_lesion(lesion.before, lesion.after, lesion.mask, out, caption=lesion.caption)
    elif is_synthesis(Path(target)):
        pictures.show_gallery(find_gallery(Path(target)), out)
    else:
        pictures.show_case(read_case(Path(target)), out)
    typer.echo(str(out))


def main() -> None:
    """Run the command; a fault of the input is one sentence on stderr and exit code 2, an interruption 130."""
    # one thread per process: cases run side by side, and sums come out the same with any number of workers
    for variable, value in ONE_THREAD.items():
        os.environ.setdefault(variable, value)
    # a scheduler's SIGTERM ends a run as Ctrl-C does: noted as interrupted, to be resumed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SynthomaError as error:
        typer.echo(f"synthoma: {error}", err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo("synthoma: interrupted; run the same command again to resume", err=True)
        raise


def _inputs(dataset: Dataset, **others: str) -> dict[str, str]:
    """What a run reads: where it lies, and a digest that differs when a scan has been changed."""
    digest = hashlib.blake2b(digest_size=8)
    for case in dataset.cases:
        digest.update(case.id.encode())
        if isinstance(case.image, Path):
            state = case.image.stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
    return {"data": str(dataset.root), "scans": digest.hexdigest(), **others}


def _finish(records: list[CaseRecord], out: Path, faults: list[str] | None = None) -> None:
    """What became of the cases, and the exit code: 1 if any failed."""
    failed = [record for record in records if record.status == "failed"]
    for line in [f"{record.case}: {record.error}" for record in failed] + (faults or []):
        typer.echo(line, err=True)
    typer.echo(f"{len(records) - len(failed)} cases done, {len(failed) + len(faults or [])} failed: {out}")
    raise typer.Exit(1 if failed or faults else 0)


def _tell(records: list[CaseRecord], made: dict[str, Any], most: int = 10) -> None:
    """How many tumors of each organ, and what was asked for and left out."""
    tumors = ", ".join(f"{organ} {count}" for organ, count in made["tumors"].items()) or "none"
    typer.echo(f"tumors: {tumors}; {made['rejected']} plans rejected")
    notes = [f"{record.case}: {note}" for record in records for note in record.result.get("notes", ())]
    for note in notes[:most]:
        typer.echo(note, err=True)
    if len(notes) > most:
        typer.echo(f"and {len(notes) - most} more notes in records.jsonl", err=True)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    console.print(table)
