"""Commands about scans: what is there, is it sound, another layout, in-silico patients, pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from synthoma.cli.app import (
    AllowFailures,
    AllowModules,
    Cluster,
    Masks,
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
from synthoma.cli.preview import DryRun, attempt_case, preview

if TYPE_CHECKING:
    from synthoma.cases import Case
    from synthoma.datasets.conversion import Conversion
    from synthoma.datasets.layouts.opening import Dataset


@app.command()
def info(
    data: Annotated[Path | None, typer.Argument(help="A data set to look into.", metavar="[DIR]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Version, extras present, organs, layouts, generators; or what a folder holds, by names alone."""
    from synthoma import __version__, anatomy
    from synthoma.datasets.layouts.opening import LAYOUTS
    from synthoma.extras import present_extras
    from synthoma.synthesis.generators.loading import GENERATORS, generators_in_the_box

    if data is not None:
        from synthoma.reading import open_dataset

        facts: dict[str, Any] = open_dataset(data).describe()
        _say_facts(facts, as_json)
        return
    facts = {
        "version": __version__,
        "python": sys.version.split()[0],
        "extras": present_extras(),
        "organs": list(anatomy.ORGANS),
        "layouts": list(LAYOUTS),
        "generators": [*GENERATORS, *generators_in_the_box()],
    }
    _say_facts(facts, as_json)


def _say_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            shown = {True: "yes", False: "no"}
            value = ", ".join(f"{name} ({shown.get(one, one)})" for name, one in value.items())
        typer.echo(f"{key:11} {', '.join(map(str, value)) if isinstance(value, list) else value}")


@app.command()
def validate(
    data: Annotated[Path, typer.Argument(help="Data set, in any known layout.", metavar="DIR")],
    masks: Masks = None,
    out: Annotated[Path | None, typer.Option("--out", help="Report folder [validation-NAME]; resumes.")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Thresholds (TOML).")] = None,
    changes: Overrides = [],  # noqa: B006 (typer reads the default, nobody writes it)
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_modules: AllowModules = [],  # noqa: B006
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
    dataset = open_dataset(data, allow_modules=allow_modules, masks=masks)
    folder = out or Path(f"validation-{dataset.name}")
    with runs.open_run(folder, "validate", settings, inputs=input_facts(dataset)) as run:
        records = mapping.map_cases(
            partial(check_case, recipe=settings, base=folder.absolute(), root=dataset.root), dataset.cases, run=run,
            workers=workers, cluster=cluster, timeout_s=timeout, title="validate", reads=Case.reads,
        )  # fmt: skip
        with show_progress("compare scans" * (len(records) > 1), len(records)) as compared:

            def advance(cases: int) -> None:
                for _ in range(cases):
                    compared(False)

            report = summarise(records, settings, dataset.faults, advance, dataset.root)
        disk.write_json(folder / "report.json", report.as_dict())
        write_catalog(report.rows, folder / "catalog.parquet")
    table(report.table(), ("case", "severity", "code", "structure", "found", "expected"))
    for code, fix in {row["code"]: row["fix"] for row in report.table()}.items():
        typer.echo(f"{code}: {fix}")
    counted = report.as_dict()
    typer.echo(
        f"{report.cases} cases, {counted['faults']} faults, {counted['warnings']} warnings: {folder}/report.json"
    )
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def convert(
    data: Annotated[list[Path], typer.Argument(help="Data sets, in any known layout.", metavar="DIR...")],
    to: Annotated[
        Literal["nnunet", "msd", "abdomenatlas", "dicom", "dicom-seg"], typer.Option("--to", help="Layout to write.")
    ],
    out: Out,
    series: Annotated[
        Path | None, typer.Option("--data", help="dicom-seg: the DICOM series that the masks of DIR were drawn on.")
    ] = None,
    masks: Masks = None,
    mend: Annotated[
        Literal["show", "do"] | None,
        typer.Option("--mend", help="Masks whose header was lost: show what would be done to them, or do it."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Structures and names (TOML).")] = None,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Write data sets in another layout, several as one; the input is never written to."""
    from functools import partial

    from synthoma import runs
    from synthoma.cases import Case
    from synthoma.datasets.conversion import (
        ConvertRecipe,
        convert_case,
        finish_conversion,
        plan_conversion,
        require_annotated,
    )
    from synthoma.datasets.layouts.joining import join_datasets, renamed
    from synthoma.engine import mapping
    from synthoma.recipe import read_recipe

    settings = read_recipe(ConvertRecipe, recipe, changes)
    parts = _parts(data, to, series, masks, allow_modules)
    dataset = join_datasets(parts)
    for new, old in renamed(dataset).items():
        typer.echo(f"{old} is called {new}: the name is taken, or no file should have it", err=True)
    if mend is not None:
        dataset = _mended(dataset, mend)
    conversion = plan_conversion(dataset, to, out, settings, [*data, *(part.root for part in parts)])
    require_annotated(dataset, conversion, allow_failures)
    if dry_run:
        tries = {case.id: partial(attempt_case, partial(_converted, conversion), case) for case in dataset}
        preview(tries, out, workers=workers, elsewhere=cluster is not None)
    more = {f"data_{place}": str(folder) for place, folder in enumerate(data[0 if series else 1 :], start=2)}
    with runs.open_run(out, "convert", settings, inputs=input_facts(dataset, to=to, **more)) as run:
        records = mapping.map_cases(
            partial(convert_case, conversion=conversion), dataset.cases, run=run, workers=workers, cluster=cluster,
            timeout_s=timeout, title="convert", reads=Case.reads,
        )  # fmt: skip
        done = [record.result for record in records if record.status == "done"]
        described = finish_conversion(conversion, done)
        run.note(faults=[str(fault) for fault in dataset.faults], renamed=renamed(dataset))
    if described is None and conversion.is_map:
        typer.echo("no dataset.json is written, since no case with masks was: there is nothing to train on", err=True)
    finish(records, out, dataset.faults, allow_failures)


def _parts(
    data: list[Path], to: str, series: Path | None, masks: Path | None, allow_modules: list[str]
) -> list[Dataset]:
    """The data sets to convert; for `dicom-seg` the masks of one folder, on the series of another."""
    from synthoma.datasets.layouts.joining import masks_on_series
    from synthoma.errors import LayoutError
    from synthoma.reading import open_dataset

    if (to == "dicom-seg") != (series is not None):
        raise LayoutError(
            "--to dicom-seg and --data go together: a SEG refers to the series that its masks were drawn on",
            fix="synthoma convert MASKS --to dicom-seg --data DICOM_SERIES --out OUT",
        )
    if series is None:
        return [open_dataset(folder, allow_modules=allow_modules, masks=masks) for folder in data]
    if len(data) != 1 or masks is not None:
        raise LayoutError("--to dicom-seg takes one folder of masks", found=f"{len(data)} and --masks {masks}")
    return [masks_on_series(data[0], open_dataset(series))]


def _converted(conversion: Conversion, case: Case, folder: Path) -> None:
    """A case converted into another folder than planned."""
    from dataclasses import replace

    from synthoma.datasets.conversion import convert_case

    convert_case(case, replace(conversion, out=folder))


def _mended(dataset: Dataset, how: str) -> Dataset:
    """The data set with masks mended; `show` only says what would be done, and ends."""
    from dataclasses import replace

    from synthoma.datasets.mending import find_mendings, mend

    found = [(case.id, one) for case in dataset for one in find_mendings(case)]
    rows = [{"case": name, "structure": one.structure, "what": one.told} for name, one in found]
    table(rows, ("case", "structure", "what"))
    if how == "show":
        typer.echo(f"{len(rows)} masks of {len(dataset)} cases do not lie on their scan; nothing was written")
        raise typer.Exit(0)
    return replace(dataset, cases=tuple(mend(case) for case in dataset))


@app.command()
def split(
    data: Annotated[Path, typer.Argument(help="Data set, or the catalog.parquet of validate.", metavar="DATA")],
    out: Annotated[Path | None, typer.Option("--out", help="splits.json to write; never another one over it.")] = None,
    check: Annotated[Path | None, typer.Option("--check", help="Splits to check instead of drawing some.")] = None,
    nnunet: Annotated[Path | None, typer.Option("--nnunet", help="splits_final.json to write for nnU-Net.")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="Shares and folds (TOML).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other sides.")] = 0,
    changes: Overrides = [],  # noqa: B006
) -> None:
    """Draw, show and check splits by patient; exit 1 if any patient or scan is on two sides."""
    from synthoma.datasets.splits import (
        SplitRecipe,
        check_leaks,
        draw_splits,
        read_any_splits,
        write_nnunet_splits,
        write_splits,
    )
    from synthoma.reading import read_members
    from synthoma.recipe import read_recipe

    members, twins = read_members(data)
    if check is not None:
        splits = read_any_splits(check, {row["id"]: row["patient"] for row in members})
    else:
        splits = draw_splits(members, read_recipe(SplitRecipe, recipe, changes), seed, twins)
    table(splits.table(), ("part", "cases", "patients", "examples"))
    leaks = check_leaks(splits, twins)
    for leak in leaks:
        where = "" if leak.fold is None else f" in fold {leak.fold}"
        typer.echo(f"{leak.first} ({leak.sides[0]}) and {leak.second} ({leak.sides[1]}){where}: {leak.why}", err=True)
    if out is not None:
        write_splits(splits, out)
    if nnunet is not None:
        write_nnunet_splits(splits, nnunet)
    typer.echo(f"{len(splits.patients)} cases of {len(set(splits.patients.values()))} patients, {len(leaks)} leaks")
    raise typer.Exit(1 if leaks else 0)


@app.command()
def cohort(
    recipe: RecipeName,
    out: Out,
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    dry_run: DryRun = False,
) -> None:
    """Draw in-silico patients and write them as a data set."""
    from functools import partial

    from synthoma import runs
    from synthoma.engine import mapping
    from synthoma.phantom.cohort import CohortRecipe, finish_cohort, write_cohort_case
    from synthoma.recipe import find_recipe, read_recipe

    settings = read_recipe(CohortRecipe, find_recipe(recipe, "cohort"), changes)
    if dry_run:

        def draw(index: int, folder: Path) -> None:
            write_cohort_case(index, settings, folder)

        tries = {settings.case_id(n): partial(attempt_case, draw, n) for n in range(settings.cases)}
        preview(tries, out, workers=workers, elsewhere=cluster is not None)
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
        str,
        typer.Argument(
            help="A case, CASE#N for its tumor N (of a follow run: over time), or a synthesize run.", metavar="TARGET"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="PNG to write.")],
    window: Annotated[
        str | None,
        typer.Option(help="WIDTH,LEVEL in HU, or soft_tissue, liver, mediastinum, lung, bone; else what shows best."),
    ] = None,
    tumors: Annotated[int, typer.Option(min=1, max=400, help="Most tumors in the picture of a synthesize run.")] = 24,
    allow_modules: AllowModules = [],  # noqa: B006
) -> None:
    """A picture: a case in three planes; a tumor before, after and labelled, or over time; the tumors of a run."""
    from synthoma import pictures
    from synthoma.followup.picture import is_follow, show_series
    from synthoma.reading import find_gallery, is_synthesis, read_case, read_lesion
    from synthoma.slices import SOFT_TISSUE, Window

    chosen = Window.named(window) if window else None
    case, separator, number = target.rpartition("#")
    numbered = bool(separator) and number.isdigit()
    whole = Path(case if numbered else target)
    if is_follow(whole.parent, whole.name):
        show_series(whole.parent, whole.name, out, int(number) if numbered else None, chosen)
    elif numbered:
        lesion = read_lesion(Path(case), int(number), allow_modules=allow_modules)
        pictures.show_lesion(lesion.before, lesion.after, lesion.mask, out, lesion.caption, chosen)
    elif is_synthesis(Path(target)):
        gallery = find_gallery(Path(target), tumors, allow_modules=allow_modules)
        caption = f"{len(gallery.items)} of {gallery.tumors} tumors in {gallery.cases} cases, by organ and size"
        pictures.show_gallery(gallery.items, out, caption, chosen)
    else:
        pictures.show_case(read_case(Path(target), allow_modules=allow_modules), out, chosen or SOFT_TISSUE)
    typer.echo(str(out))
