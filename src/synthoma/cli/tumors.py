"""Commands about tumors: put them in, and put the same ones in again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from synthoma.cli.app import (
    AllowFailures,
    AllowModules,
    Cluster,
    Data,
    Maps,
    Out,
    Overrides,
    RecipeName,
    Timeout,
    Workers,
    app,
    finish,
    input_facts,
    say_once,
)

if TYPE_CHECKING:
    from synthoma.engine.records import CaseRecord


@app.command()
def synthesize(
    recipe: RecipeName,
    data: Data,
    out: Out,
    seed: Annotated[int, typer.Option("--seed", help="Another seed, other tumors.")] = 0,
    write: Annotated[
        Literal["full", "overlay", "plans"],
        typer.Option("--write", help="NIfTI, changed voxels, or the manifest alone."),
    ] = "full",
    copies: Annotated[
        int, typer.Option("--copies", help="Synthetic cases from each scan: CASE, CASE_copy02, ...", min=1)
    ] = 1,
    maps: Maps = [],  # noqa: B006
    changes: Overrides = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """Put tumors into the cases of a data set; the manifest can replay every one of them."""
    from functools import partial

    from synthoma import runs
    from synthoma.cases import Case
    from synthoma.engine import mapping
    from synthoma.reading import open_dataset
    from synthoma.recipe import find_recipe, read_recipe
    from synthoma.synthesis.recipe import SynthesisRecipe
    from synthoma.synthesis.store.copies import copies_of
    from synthoma.synthesis.store.outputs import finish_synthesis, synthesize_case

    settings = read_recipe(SynthesisRecipe, find_recipe(recipe, "synthesis"), changes)
    dataset = open_dataset(data)
    cases = copies_of(dataset.cases, copies)
    with runs.open_run(
        out, "synthesize", settings, seed, input_facts(dataset, write=write, maps=" ".join(maps), copies=str(copies))
    ) as run:
        records = mapping.map_cases(
            partial(synthesize_case, recipe=settings, seed=seed, out=out, write=write, maps=maps), cases,
            run=run, workers=workers, cluster=cluster, timeout_s=timeout, title="synthesize", reads=Case.reads,
        )  # fmt: skip
        made = finish_synthesis(records, out, dataset.root, write)
        run.note(**made)
    tell(records, made)
    finish(records, out, dataset.faults, allow_failures)


@app.command()
def replay(
    manifest: Annotated[Path, typer.Argument(help="manifest.parquet of a synthesize run.", metavar="MANIFEST")],
    data: Data,
    out: Out,
    write: Annotated[Literal["full", "overlay"], typer.Option("--write", help="NIfTI, or changed voxels.")] = "full",
    maps: Maps = [],  # noqa: B006
    allow_modules: AllowModules = [],  # noqa: B006
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """Write the same tumors again, bit for bit; a tumor that comes out otherwise is a failed case."""
    from functools import partial

    from synthoma import disk, runs
    from synthoma.cases import Case
    from synthoma.engine import mapping
    from synthoma.reading import open_dataset
    from synthoma.recipe import Recipe
    from synthoma.synthesis.store.manifest import read_manifest
    from synthoma.synthesis.store.outputs import finish_synthesis, replay_case

    table = read_manifest(manifest)
    dataset = open_dataset(data)
    inputs = input_facts(dataset, manifest=disk.digest(manifest), write=write, maps=" ".join(maps))
    with runs.open_run(out, "replay", Recipe(), inputs=inputs) as run:
        records = mapping.map_cases(
            partial(replay_case, manifest=table, out=out, write=write, maps=maps, allow_modules=allow_modules),
            table.cases_in(dataset), run=run, workers=workers, cluster=cluster, timeout_s=timeout, title="replay",
            reads=Case.reads,
        )  # fmt: skip
        run.note(**finish_synthesis(records, out, dataset.root, write))
    finish(records, out, allow_failures=allow_failures)


def tell(records: list[CaseRecord], made: dict[str, Any]) -> None:
    """How many tumors of each organ, and what was asked for and left out."""
    tumors = ", ".join(f"{organ} {count}" for organ, count in made["tumors"].items()) or "none"
    typer.echo(f"tumors: {tumors}; {made['rejected']} plans rejected")
    say_once((record.case, note) for record in records for note in record.result.get("notes", ()))
