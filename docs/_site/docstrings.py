"""Docstrings as the site shows them: what they say after `name:` becomes a list, one name a line."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"(?:^|(?<=[.);:] ))((?:[a-z][a-z_0-9]*)(?:, [a-z][a-z_0-9]*)*): ")


class Docstrings(griffe.Extension):
    """Lists the parameters of functions and the fields of classes that a docstring explains."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        _list_entries(func, {parameter.name for parameter in func.parameters})

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:  # not before they are known
        _list_entries(cls, {name for name, member in cls.members.items() if member.is_attribute})


def _list_entries(item: griffe.Object, names: set[str]) -> None:
    """Rewrite a docstring: its first paragraph, then a list of what it says about these names, then the rest of it."""
    if item.docstring is None:
        return
    first, _, rest = item.docstring.value.partition("\n\n")
    blocks = [_block(block, names) for block in rest.split("\n\n") if block.strip()]
    item.docstring.value = "\n\n".join([first, *blocks])


def _block(text: str, names: set[str]) -> str:
    """One paragraph; with entries, the sentences before the first one and a list of them."""
    flat = " ".join(text.split())
    entries = [entry for entry in _ENTRY.finditer(flat) if set(entry[1].split(", ")) <= names]
    if not entries:
        return flat
    ends = [entry.start() for entry in entries[1:]] + [len(flat)]
    said = [flat[entry.end() : end].strip().rstrip(";") for entry, end in zip(entries, ends, strict=True)]
    lines = [f"- **{entry[1]}**: {text}" for entry, text in zip(entries, said, strict=True)]
    return "\n\n".join(part for part in (flat[: entries[0].start()].strip(), "\n".join(lines)) if part)
