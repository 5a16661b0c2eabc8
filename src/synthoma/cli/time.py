"""Commands about what a lesion measures, and what becomes of it over dates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import AllowFailures, Cluster, Timeout, Workers, app, finish


@app.command()
def measure(
    data: Annotated[Path, typer.Argument(help="Data set with tumor masks, in any known layout.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("--out", help="Run folder [measurement-NAME]; resumes.")] = None,
    workers: Workers = 0,
    cluster: Cluster = None,
    timeout: Timeout = None,
    allow_failures: AllowFailures = 0,
) -> None:
    """Every lesion in figures, and over dates: diameters, volume, HU, place, growth, response (RECIST 1.1)."""
    from synthoma.commands import measuring
    from synthoma.measurement.findings import describe

    done = measuring.measure(data, out, workers=workers, cluster=cluster, timeout_s=timeout)
    if sum(record.status == "done" for record in done.records) == 1:
        for record in done.records:
            for title, sentences in describe(record.result) if record.status == "done" else []:
                typer.echo("\n".join([title, *(f"  {sentence}" for sentence in sentences)]))
    else:
        for record in done.records:
            for note in record.result.get("notes", ()):
                typer.echo(note, err=True)
    typer.echo(
        f"{done.summary['lesions']} lesions of {done.summary['patients']} patients; a page each: {done.out}/pages"
    )
    finish(done.records, done.out, done.faults, allow_failures)
