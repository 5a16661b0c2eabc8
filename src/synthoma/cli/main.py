"""The command with everything it can do."""

from __future__ import annotations

import os
import signal
import sys

import typer

from synthoma.cli import data, generators, judging, learning, review, studies, tumors
from synthoma.cli.app import INTERRUPTED, app
from synthoma.engine.processes import ONE_THREAD
from synthoma.errors import SynthomaError

# importing one gives the command what it holds
ROOMS = (data, tumors, generators, learning, judging, studies, review)


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
