"""The command's frame: options that commands share, what they say at the end, and `main`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from synthoma.errors import listed

if TYPE_CHECKING:
    from synthoma.datasets.layouts.opening import Dataset
    from synthoma.engine.records import CaseRecord
    from synthoma.errors import SynthomaError

GLOBAL = ("--verbose", "--quiet")  # may stand anywhere on the line


class _Commands(TyperGroup):
    """Commands that leave Ctrl-C to whoever called them, whatever this version of typer makes of it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            raise Interrupted from interruption


class Interrupted(BaseException):
    """Ctrl-C, on its way through typer."""


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

Out = Annotated[
    Path, typer.Option("--out", resolve_path=True, help="Folder to write; running the same command again resumes.")
]
Data = Annotated[Path, typer.Option("--data", help="Data set, in any known layout.")]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder of masks for the scans of DIR: CASE/NAME.nii.gz, as TotalSegmentator writes."),
]
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
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, help="Seconds that a case may take; then it is ended and counts as failed."),
]
AllowFailures = Annotated[
    int, typer.Option("--allow-failures", min=0, help="Exit with 0 though so many cases failed or were left out.")
]
RecipeName = Annotated[
    str, typer.Argument(help="Recipe: a TOML file, or the name of one that comes along.", metavar="RECIPE")
]


def _show_version(asked: bool) -> None:
    if asked:
        from synthoma import __version__

        typer.echo(f"synthoma {__version__}")
        raise typer.Exit


@app.callback()
def synthoma(
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no warnings: results and failures.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Turns CT scans with organ masks into training data for tumor segmentation."""
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")


def input_facts(dataset: Dataset, **others: str) -> dict[str, str]:
    """What a run reads; see `reading.input_facts`."""
    from synthoma import reading

    return reading.input_facts(dataset, **others)


def finish(
    records: Sequence[CaseRecord], out: Path, faults: Sequence[SynthomaError] = (), allow_failures: int = 0
) -> None:
    """What became of the cases, and the exit code: 1 if more failed than may.

    faults: what could not even be read as a case. Failures of one kind are one line with the number of their cases.
    """
    failed = [record for record in records if record.status == "failed"]
    told = [(record.case, record.error) for record in failed] + [(fault.case or "", str(fault)) for fault in faults]
    say_once(told)
    typer.echo(f"{len(records) - len(failed)} cases done, {len(told)} failed: {out}")
    if told and failed:
        typer.echo(f"Each failure with its traceback: {out / 'records.jsonl'}", err=True)
    raise typer.Exit(1 if len(told) > allow_failures else 0)


def say_once(told: Iterable[tuple[str, str]]) -> None:
    """Lines on stderr about cases: those that differ in names and numbers only are one, with the number of cases."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for case, text in told:
        plain = text.replace(case, "") if case else text
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "0", plain), []).append((case, text))
    for alike in kinds.values():
        case, text = alike[0]
        if len(alike) == 1:
            typer.echo(text if not case or case in text else f"{case}: {text}", err=True)
        else:
            names = [case for case, _ in alike if case]
            typer.echo(f"{len(alike)} cases ({listed(names)}): {text.replace(f'{case}: ', '', 1)}", err=True)


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Rows as a plain table on the terminal; nothing for none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row.get(column, ""))) for column in columns))  # a name may look like markup
    console.print(table)
