"""The recipes that come along, as `synthoma recipes NAME` shows them."""

from __future__ import annotations

from collections.abc import Iterator

from synthoma.cli.recipes import FOLDERS, explained
from synthoma.recipe import RECIPES, recipe_names
from synthoma.recipe_text import headline


def recipe_reference() -> str:
    """Markdown: for each command its recipes, each as it is, and, to be opened, with every key and what it means."""
    return "\n".join(line for folder in FOLDERS for line in _section(folder))


def _section(folder: str) -> Iterator[str]:
    command = FOLDERS[folder][0]
    yield from (f"## Of `{command}`" if command.startswith("-") else f"## Of `synthoma {command}`", "")
    for name in recipe_names(folder):
        toml = (RECIPES / folder / f"{name}.toml").read_text(encoding="utf-8")
        yield from (f"### {name}", "", headline(toml), "", *_code(_without_head(toml)), '??? note "Every key"', "")
        yield from (f"    {line}".rstrip() for line in _code(explained(folder, name)))


def _code(toml: str) -> Iterator[str]:
    yield from ("```toml", *toml.strip().splitlines(), "```", "")


def _without_head(toml: str) -> str:
    """A recipe without the comment above its first key, which is the headline."""
    lines = toml.splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    return "\n".join(lines[first:])
