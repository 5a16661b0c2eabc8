"""What mkdocs asks while it builds the site: pages that are made from the program, and formulas."""

from __future__ import annotations

from typing import Any

from command_pages import command_reference
from formulas import formula
from recipe_pages import recipe_reference

# a page holds this comment where the text that is made belongs
PAGES = {"<!-- commands -->": command_reference, "<!-- recipes -->": recipe_reference}


def on_config(config: Any) -> Any:
    """Blocks of ```math become pictures of their formulas."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "math", "format": formula}]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with what is made from the program in its place."""
    for mark, make in PAGES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown
