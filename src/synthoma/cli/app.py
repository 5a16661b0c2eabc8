"""The command's frame: options that commands share, what they say at the end, and `main`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from synthoma.datasets.layouts.opening import Dataset
    from synthoma.engine.mapping import CaseRecord

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
AllowModules = Annotated[
    list[str],
    typer.Option(
        "--allow-module", metavar="MODULE:CLASS",
        help="Generator outside synthoma that a manifest may name; its code is run. Repeatable.",
    ),
]  # fmt: skip
Workers = Annotated[int, typer.Option("--workers", help="Processes on this machine; 0 works in this one.")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="Dask scheduler (tcp://...), or a cluster recipe.")]
RecipeName = Annotated[
    str, typer.Argument(help="Recipe: a TOML file, or the name of one that comes along.", metavar="RECIPE")
]


@app.callback()
def synthoma(verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens.")] = False) -> None:
    """Turns CT scans with organ masks into training data for tumor segmentation."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


def input_facts(dataset: Dataset, **others: str) -> dict[str, str]:
    """What a run reads; see `reading.input_facts`."""
    from synthoma import reading

    return reading.input_facts(dataset, **others)


def finish(records: list[CaseRecord], out: Path, faults: list[str] | None = None) -> None:
    """What became of the cases, and the exit code: 1 if any failed."""
    failed = [record for record in records if record.status == "failed"]
    for line in [f"{record.case}: {record.error}" for record in failed] + (faults or []):
        typer.echo(line, err=True)
    typer.echo(f"{len(records) - len(failed)} cases done, {len(failed) + len(faults or [])} failed: {out}")
    raise typer.Exit(1 if failed or faults else 0)


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Rows as a plain table on the terminal; nothing for none."""
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
