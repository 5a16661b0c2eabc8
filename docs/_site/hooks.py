"""What mkdocs asks while it builds the site: pages that are made from the program, and formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from command_pages import command_reference
from formulas import formula
from recipe_pages import recipe_reference

# a page holds this comment where the text that is made belongs
PAGES = {"<!-- commands -->": command_reference, "<!-- recipes -->": recipe_reference}

_ITEM = re.compile(r"(?:-|\d+\.) ")


def on_config(config: Any) -> Any:
    """Blocks of ```math become pictures of their formulas."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "math", "format": formula}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """A page that mkdocs.yml does not place yet is found under `More`."""
    placed = set(_pages_in(config.nav))
    if others := [file.src_uri for file in files.documentation_pages() if file.src_uri not in placed]:
        config.nav.append({"More": others})
    return files


def _pages_in(nav: Any) -> Iterator[str]:
    """The files that a navigation names, at any depth."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages_in(item)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with what is made from the program in its place, and with lists where code hosts show them too."""
    for mark, make in PAGES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return "\n".join(_lists_apart(markdown.split("\n")))


def _lists_apart(lines: list[str]) -> Iterator[str]:
    """A list that begins right below a line of text gets an empty line above it, without which it is read as text."""
    fenced, first = False, ""  # first: line of those that no empty line parts
    for line in lines:
        fenced ^= line.lstrip().startswith("```")
        if not fenced and _ITEM.match(line) and first and not _ITEM.match(first):
            yield ""
            first = line
        yield line
        first = (first or line) if line.strip() else ""
