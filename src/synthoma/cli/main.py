"""The command with everything it can do."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

import typer

from synthoma.cli import (
    data,
    generators,
    integrations,
    judging,
    learning,
    realism,
    recipes,
    review,
    studies,
    time,
    trials,
    tumors,
)
from synthoma.cli.app import GLOBAL, Interrupted, app
from synthoma.engine.processes import ONE_THREAD
from synthoma.errors import FailedCasesError, SynthomaError

# importing one gives the command what it holds
ROOMS = (recipes, data, tumors, generators, learning, judging, studies, realism, trials, review, time, integrations)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: a fault of the input is one sentence on stderr and exit code 2.

    arguments: those of the process unless given. Raises `KeyboardInterrupt` on Ctrl-C and on SIGTERM.
    """
    # one thread per process: cases run side by side, and sums come out the same with any number of workers
    for variable, value in ONE_THREAD.items():
        os.environ.setdefault(variable, value)
    # a scheduler's SIGTERM ends a run as Ctrl-C does: noted as interrupted, to be resumed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no text
    words = list(sys.argv[1:] if arguments is None else arguments)
    flags = [word for word in words if word in GLOBAL]
    try:
        app([*flags, *(word for word in words if word not in GLOBAL)], prog_name="synthoma")
    except SynthomaError as error:
        typer.echo(f"synthoma: {error}", err=True)
        sys.exit(1 if isinstance(error, FailedCasesError) else 2)
    except OSError as error:
        sys.exit(_say(error))
    except Interrupted as interruption:
        raise KeyboardInterrupt from interruption
    except SystemExit as end:
        try:
            sys.stdout.flush()
        except OSError as error:
            sys.exit(_say(error) or end.code)
        raise


def _say(error: OSError) -> int:
    """The exit code for what the system refused, told in a sentence; lost output is not tried again."""
    lost = error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO) and error.filename is None
    if lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
    if error.errno == errno.EPIPE:  # `synthoma info | head` reads what it wants
        return 1
    what = "cannot write to standard output" if lost else f"cannot use {error.filename or 'a file'}"
    typer.echo(f"synthoma: {what}; found {error.strerror or error}", err=True)
    return 2
