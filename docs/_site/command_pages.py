"""The command reference, from the command itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from synthoma.cli.main import app


def command_reference() -> str:
    """Markdown: a section for each command, with its usage, arguments and options."""
    return "\n".join(_sections("synthoma", typer.main.get_command(app)))


def _sections(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    inner = getattr(command, "commands", {})
    yield from (f"## `{name}`", "", command.help or "", "")
    if not inner:
        usage = command.get_usage(context).removeprefix("Usage: ")
        yield from ("```text", " ".join(usage.split()), "```", "")
    rows = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    if rows:
        yield from ("| argument or option | means |", "|---|---|")
        yield from (f"| `{_line(what)}` | {_cell(means)} |" for what, means in rows)
        yield ""
    for own in sorted(inner):
        yield from _sections(f"{name} {own}", inner[own])


def _cell(text: str) -> str:
    """Words in one cell of a table."""
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """Text without breaks; in code a `|` ends no cell, and a sign before it would be shown."""
    return text.replace("\n", " ")
