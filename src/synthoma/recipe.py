"""Recipes: strict, frozen settings that travel as TOML and are known by their digest."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import pydantic

from synthoma.errors import RecipeError

RecipeType = TypeVar("RecipeType", bound="Recipe")

RECIPES = Path(__file__).with_name("recipes")  # those that come with the program, in a folder for each command


class Recipe(pydantic.BaseModel):
    """What to do. Subclass it beside the code it configures; every field has a default or is required.

    Unknown keys and values out of range are refused with a `RecipeError` when read through `read_recipe`.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """The whole recipe with its defaults, as JSON data without nulls (TOML has none)."""
        return self.model_dump(mode="json", exclude_none=True)

    def digest(self) -> str:
        """16 hexadecimal digits that differ whenever any value differs."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def to_toml(self) -> str:
        """The whole recipe with its defaults, as TOML."""
        import tomli_w

        text: str = tomli_w.dumps(self.as_dict())
        return text

    def with_changes(self, **changes: Any) -> Self:
        """The same recipe with some fields replaced, checked again."""
        return type(self).model_validate({**self.model_dump(), **changes})


def find_recipe(name: Path | str, folder: str) -> Path:
    """The recipe file of this path, or the one of this name that comes with the program, in `RECIPES/FOLDER`.

    Raises `RecipeError` that lists the known names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = recipe_names(folder)
    if str(name) in known:
        return RECIPES / folder / f"{name}.toml"
    raise RecipeError(f"no recipe {name}", expected=f"a TOML file, or one of {', '.join(known)}")


def recipe_names(folder: str) -> tuple[str, ...]:
    """Names of the recipes in `RECIPES/FOLDER` that come with the program, in order."""
    return tuple(sorted(path.stem for path in (RECIPES / folder).glob("*.toml")))


def read_recipe(kind: type[RecipeType], path: Path | str | None = None, overrides: Iterable[str] = ()) -> RecipeType:
    """The recipe in a TOML file, with `key.sub=value` overrides, checked.

    path: None gives the defaults; a byte order mark is no obstacle. overrides: values are TOML (`count=3`,
    `organs=["liver"]`); a bare word is taken as text, and where a list is meant, one value or several with commas
    between them are one (`organs=liver,kidney`, also in brackets). Raises `RecipeError` naming the key, the value and
    the known keys.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise RecipeError(f"no recipe {path}", fix="`synthoma recipes` lists those that come along") from error
        except OSError as error:
            raise RecipeError(f"cannot read {path}", found=error.strerror or str(error)) from error
        except (ValueError, RecursionError) as error:  # of text, of TOML, of numbers with more digits than Python reads
            raise RecipeError(f"{path} is not TOML", found=str(error)) from error
    for override in overrides:
        place, last, value = _apply(settings, override)
        if isinstance(value, str | int | float) and _wants_list(kind, settings, override):
            place[last] = [_value(part) for part in _bare(value).split(",")] if isinstance(value, str) else [value]
    return make_recipe(kind, settings, path)


def make_recipe(kind: type[RecipeType], settings: Mapping[str, Any], source: Path | str | None = None) -> RecipeType:
    """The recipe with these settings, checked; source: what a `RecipeError` says they are from."""
    try:
        return kind.model_validate(settings)
    except pydantic.ValidationError as error:
        raise _explain(kind, source, error) from error


def _wants_list(kind: type[Recipe], settings: Mapping[str, Any], override: str) -> bool:
    """Whether a recipe refuses the value of an override for not being a list."""
    at = tuple(override.partition("=")[0].strip().split("."))
    try:
        kind.model_validate(settings)
    except pydantic.ValidationError as error:
        return any(fault["type"] in ("tuple_type", "list_type") and fault["loc"] == at for fault in error.errors())
    return False


def _bare(text: str) -> str:
    """A list without its brackets: a shell takes the quotes from `organs=["liver"]`, and `[liver]` is no TOML."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _value(text: str) -> Any:
    """TOML's value of a text; the text itself if it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _apply(settings: dict[str, Any], override: str) -> tuple[dict[str, Any], str, Any]:
    """Set one key of the settings; the table it is in, its name there, and its value."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"cannot read the override {override!r}", expected="key.sub=value")
    value = _value(text)
    *parents, last = key.strip().split(".")
    place = settings
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise RecipeError(f"{key} reaches into {parent}, which is a value, not a table")
    place[last] = value
    return place, last, value


def _explain(kind: type[Recipe], path: Path | str | None, error: pydantic.ValidationError) -> RecipeError:
    """One sentence per fault; for an unknown key, the keys that are known at that place."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        *above, last = fault["loc"] or ("",)
        if fault["type"] == "extra_forbidden":
            known = _known_keys(kind, fault["loc"][:-1])
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=3)
            meant = f", perhaps {' or '.join(near)}" if near else ""
            lines.append(f"unknown key {key}{meant}; known here: {', '.join(known)}")
        elif fault["type"] == "missing" and isinstance(last, int):  # a place in a list, told once
            if last == len(fault["input"]):
                wanted = sum(one["type"] == "missing" and one["loc"][:-1] == (*above,) for one in error.errors())
                listed = ".".join(map(str, above))
                lines.append(f"{listed} = {[*fault['input']]}: expected {last + wanted} values")
        elif fault["type"] == "missing":
            lines.append(f"{key} is required")
        else:
            what = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{key} = {fault['input']!r}: {what}" if key else what)
    return RecipeError(f"{path or 'recipe'}: " + " | ".join(lines))


def _known_keys(kind: type[pydantic.BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        field = kind.model_fields.get(str(part))
        if field is None:
            continue
        kind = next(_models(field.annotation), kind)
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The recipes inside an annotation: `Inner`, `Inner | None`, `tuple[Inner, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)
