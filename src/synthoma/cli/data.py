"""Commands about scans: what is there, is it sound, another layout, in-silico patients, pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from synthoma.cli.app import (
    AllowFailures,
    Cluster,
    Out,
    Overrides,
    RecipeName,
    Timeout,
    Workers,
    app,
    finish,
    input_facts,
    table,
)


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Version, extras present, organs, layouts, generators."""
    from synthoma import __version__, anatomy
    from synthoma.datasets.layouts.opening import LAYOUTS
    from synthoma.extras import present_extras
    from synthoma.synthesis.generators.loading import GENERATORS

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
    timeout: Timeout = None,
) -> None:
    """Check geometry, HU, labels and duplicates of every case; exit 1 if any is at fault."""
    from functools import partial

    from synthoma import disk, runs
    from synthoma.cases import Case
    from synthoma.datasets.catalog import write_catalog
    from synthoma.datasets.findings import summarise
    from synthoma.datasets.validation import ValidateRecipe, check_case
    from synthoma.engine import mapping
    from synthoma.engine.progress import show_progress
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe

    settings = read_recipe(ValidateRecipe, recipe, changes)
    dataset = open_dataset(data)
    folder = out or Path(f"validation-{dataset.name}")
    with runs.open_run(folder, "validate", settings, inputs=input_facts(dataset)) as run:
        records = mapping.map_cases(
            partial(check_case, recipe=settings), dataset.cases, run=run, workers=workers, cluster=cluster,
            timeout_s=timeout, title="validate", reads=Case.reads,
        )  # fmt: skip
        with show_progress("compare scans", len(records)) as compared:

            def advance(cases: int) -> None:
                for _ in range(cases):
                    compared(False)

            report = summarise(records, settings, dataset.faults, advance)
        disk.write_json(folder / "report.json", report.as_dict())
        write_catalog(report.rows, folder / "catalog.parquet")
    table(report.table(), ("case", "severity", "code", "found", "expected"))
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
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """Write a data set in another layout; the input is never written to."""
    from functools import partial

    from synthoma import runs
    from synthoma.cases import Case
    from synthoma.datasets.conversion import ConvertRecipe, convert_case, finish_conversion, plan_conversion
    from synthoma.engine import mapping
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe

    settings = read_recipe(ConvertRecipe, recipe, changes)
    dataset = open_dataset(data)
    conversion = plan_conversion(dataset, to, out, settings)
    with runs.open_run(out, "convert", settings, inputs=input_facts(dataset, to=to)) as run:
        records = mapping.map_cases(
            partial(convert_case, conversion=conversion), dataset.cases, run=run, workers=workers, cluster=cluster,
            timeout_s=timeout, title="convert", reads=Case.reads,
        )  # fmt: skip
        finish_conversion(conversion, [record.result for record in records if record.status == "done"])
        run.note(faults=[str(fault) for fault in dataset.faults])
    finish(records, out, dataset.faults, allow_failures)


@app.command()
def cohort(
    recipe: RecipeName,
    out: Out,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """Draw in-silico patients and write them as a data set."""
    from functools import partial

    from synthoma import runs
    from synthoma.engine import mapping
    from synthoma.phantom.cohort import CohortRecipe, finish_cohort, write_cohort_case
    from synthoma.recipe import find_recipe, read_recipe

    settings = read_recipe(CohortRecipe, find_recipe(recipe, "cohort"), changes)
    with runs.open_run(out, "cohort", settings, seed=settings.seed) as run:
        records = mapping.map_cases(
            partial(write_cohort_case, recipe=settings, out=out), range(settings.cases), run=run, workers=workers,
            cluster=cluster, timeout_s=timeout, title="cohort", key=settings.case_id,
        )  # fmt: skip
        run.note(**finish_cohort(records, settings, out))
    finish(records, out, allow_failures=allow_failures)


@app.command()
def show(
    target: Annotated[
        str, typer.Argument(help="A case, CASE#N for its tumor N, or a synthesize run for a gallery.", metavar="TARGET")
    ],
    out: Annotated[Path, typer.Option("--out", help="PNG to write.")],
    window: Annotated[
        str | None,
        typer.Option(help="WIDTH,LEVEL in HU, or soft_tissue, liver, mediastinum, lung, bone; else what shows best."),
    ] = None,
    tumors: Annotated[int, typer.Option(min=1, max=400, help="Most tumors in the picture of a synthesize run.")] = 24,
) -> None:
    """A picture: a case in three planes; a tumor before, after and labelled; or the tumors of a synthesize run."""
    from synthoma import pictures
    from synthoma.reading import find_gallery, is_synthesis, read_case, read_lesion
    from synthoma.slices import SOFT_TISSUE, Window

    chosen = Window.named(window) if window else None
    case, separator, number = target.rpartition("#")
    if separator and number.isdigit():
        lesion = read_lesion(Path(case), int(number))
        pictures.show_lesion(lesion.before, lesion.after, lesion.mask, out, lesion.caption, chosen)
    elif is_synthesis(Path(target)):
        gallery = find_gallery(Path(target), tumors)
        caption = f"{len(gallery.items)} of {gallery.tumors} tumors in {gallery.cases} cases, by organ and size"
        pictures.show_gallery(gallery.items, out, caption, chosen)
    else:
        pictures.show_case(read_case(Path(target)), out, chosen or SOFT_TISSUE)
    typer.echo(str(out))
