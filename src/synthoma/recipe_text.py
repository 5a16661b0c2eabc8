"""A recipe as a file to edit: every key with what it means, those that are not said with their defaults."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import pydantic

WIDTH = 100
_ENTRY = re.compile(r"(?:^|(?<=[.);] ))((?:[a-z][a-z_0-9]*)(?:, [a-z][a-z_0-9]*)*): ")


def meanings(kind: type[pydantic.BaseModel]) -> dict[str, str]:
    """Key -> what it means: its field's description, else what the docstring says after `key:` or `key, other:`."""
    told: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = " ".join((base.__doc__ or "").split()) if issubclass(base, pydantic.BaseModel) else ""
        entries = list(_ENTRY.finditer(text))
        for entry, following in zip(entries, [*entries[1:], None][: len(entries)], strict=True):
            meaning = text[entry.end() : following.start() if following else len(text)].strip().rstrip(";")
            told |= {name: meaning for name in entry[1].split(", ")}
    fields = kind.model_fields
    described = {name: field.description for name, field in fields.items() if field.description}
    return {name: meaning for name, meaning in {**told, **described}.items() if name in fields}


def headline(toml: str) -> str:
    """The comment that a recipe's file begins with, as one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), toml.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def first_sentence(toml: str) -> str:
    """What a recipe's file says it is."""
    whole = headline(toml)
    match = re.match(r".*?[.](?=\s+[A-Z`-]|$)", whole)
    return match[0] if match else whole


def commented(kind: type[pydantic.BaseModel], settings: Mapping[str, Any], about: str = "") -> str:
    """TOML with the settings, and every other key of the recipe commented out with its default.

    settings: as the recipe's file has them. about: the sentences that the file begins with.
    """
    lines = textwrap.wrap(about, WIDTH, initial_indent="# ", subsequent_indent="# ")
    lines += ["#", "# Every key is here; one that begins with # has the value that it has unless said."]
    return "\n".join([*lines, *_table(kind, settings, "")]).rstrip() + "\n"


def _table(kind: type[pydantic.BaseModel], settings: Mapping[str, Any], place: str) -> Iterator[str]:
    """The lines of one table: keys first, then the tables in it."""
    told = meanings(kind)
    inner: list[tuple[str, type[pydantic.BaseModel], Any]] = []
    for name, field in kind.model_fields.items():
        model = _model(field.annotation)
        value = settings.get(name, field.get_default(call_default_factory=True))
        if model is not None and (name in settings or isinstance(value, pydantic.BaseModel)):
            own = (
                value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, pydantic.BaseModel) else value
            )
            inner.append((name, model, own))
            continue
        yield ""
        choices = _choices(field.annotation)
        meaning = f"{name}: {told.get(name, '')}" + (f" ({', '.join(map(str, choices))})" if choices else "")
        yield from textwrap.wrap(meaning, WIDTH, initial_indent="# ", subsequent_indent="# ")
        if name in settings:
            yield f"{name} = {toml_value(value)}"
        elif field.is_required():
            yield f"# {name} has to be said"
        else:
            yield f"#{name} = {'(nothing)' if value is None else toml_value(value)}"
    for name, value in settings.items():
        if name not in kind.model_fields:  # checked by somebody else, who knows more
            yield f"{name} = {toml_value(value)}"
    for name, model, value in inner:
        path = f"{place}.{name}" if place else name
        for entry in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{path}]]" if isinstance(value, list) else f"[{path}]"
            yield from _table(model, entry, path)


def _model(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The recipe inside an annotation: `Inner`, `Inner | None`, `tuple[Inner, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := _model(inner))), None)


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values that an annotation names, one by one: of `Literal`, also inside others."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(dict.fromkeys(choice for inner in get_args(annotation) for choice in _choices(inner)))


def toml_value(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(str(name))} = {toml_value(own)}" for name, own in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(toml_value(own) for own in value) + "]"
    import tomli_w

    line: str = tomli_w.dumps({"value": value})
    return line.removeprefix("value = ").rstrip("\n")


def toml_key(name: str) -> str:
    """A key, quoted if it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
