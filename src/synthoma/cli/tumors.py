"""Commands about tumors: put them in, and put the same ones in again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from synthoma.cli.app import (
    AllowFailures,
    AllowModules,
    Cluster,
    Data,
    Maps,
    Masks,
    Out,
    Overrides,
    RecipeName,
    Timeout,
    Workers,
    app,
    finish,
    say_once,
    table,
)
from synthoma.cli.learning import Device
from synthoma.cli.preview import DryRun, attempt_case, one_by_one, preview

if TYPE_CHECKING:
    from synthoma.cases import Case
    from synthoma.commands.outcome import Outcome


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
    masks: Masks = None,
    maps: Maps = [],  # noqa: B006
    changes: Overrides = [],  # noqa: B006
    device: Device = "cpu",
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    allow_modules: AllowModules = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Put tumors into the cases of a data set; the manifest can replay every one of them."""
    from functools import partial

    from synthoma.commands import tumors
    from synthoma.errors import LayoutError
    from synthoma.reading import open_dataset
    from synthoma.recipe import find_recipe, read_recipe
    from synthoma.synthesis.recipe import SynthesisRecipe

    if masks is not None and write != "full":
        raise LayoutError(
            "overlays and plans need the masks beside their scans",
            found=f"--masks with --write {write}",
            fix="write it full, or join them first with synthoma convert --masks",
        )
    settings = read_recipe(SynthesisRecipe, find_recipe(recipe, "synthesis"), changes)
    dataset = open_dataset(data, allow_modules=allow_modules, masks=masks)
    work = partial(tumors.synthesize, settings, seed=seed, write=write, maps=maps, device=device, timeout_s=timeout)
    if dry_run:
        preview(one_by_one(dataset, work), out, copies=copies, workers=workers, elsewhere=cluster is not None)
    done = work(dataset, out, copies=copies, workers=workers, cluster=cluster)
    tell(done)
    finish(done.records, out, done.faults, allow_failures)


@app.command()
def replay(
    manifest: Annotated[Path, typer.Argument(help="manifest.parquet of a synthesize run.", metavar="MANIFEST")],
    data: Data,
    out: Out,
    write: Annotated[Literal["full", "overlay"], typer.Option("--write", help="NIfTI, or changed voxels.")] = "full",
    maps: Maps = [],  # noqa: B006
    allow_modules: AllowModules = [],  # noqa: B006
    generator: Annotated[
        str, typer.Option("--generator", help="Model that the manifest was made with, if it lies elsewhere now.")
    ] = "",
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
    dry_run: DryRun = False,
) -> None:
    """Write the same tumors again, bit for bit; a tumor that comes out otherwise is a failed case."""
    from functools import partial

    from synthoma.commands import tumors
    from synthoma.reading import open_dataset
    from synthoma.synthesis.store.manifest import read_manifest
    from synthoma.synthesis.store.outputs import replay_case

    dataset = open_dataset(data, allow_modules=allow_modules)
    work = partial(tumors.replay, manifest, write=write, maps=maps, allow_modules=allow_modules, generator=generator,
                   timeout_s=timeout)  # fmt: skip
    if dry_run:
        table = read_manifest(manifest)

        def one(case: Case, folder: Path) -> None:
            replay_case(case, table, folder, write, maps, allow_modules, generator)

        tries = {case.id: partial(attempt_case, one, case) for case in table.cases_in(dataset)}
        preview(tries, out, workers=workers, elsewhere=cluster is not None)
    done = work(dataset, out, workers=workers, cluster=cluster)
    finish(done.records, out, done.faults, allow_failures)


def tell(done: Outcome) -> None:
    """How many tumors of each organ, what a critic kept, and what was asked for and left out."""
    from synthoma.synthesis.store.audit import easy_ones

    counts = ", ".join(f"{organ} {count}" for organ, count in done.summary["tumors"].items()) or "none"
    typer.echo(f"tumors: {counts}; {done.summary['rejected']} plans rejected")
    judged = done.summary.get("critic", [])
    table(judged, ("organ", "size", "contrast", "judged", "kept", "share"))
    if warning := easy_ones(judged):
        typer.echo(warning, err=True)
    say_once((record.case, note) for record in done.records for note in record.result.get("notes", ()))
