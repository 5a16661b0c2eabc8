"""False alarms of an earlier model in healthy tissue, as places to center patches on: a JSON file, written and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from synthoma import disk
from synthoma.errors import FileError
from synthoma.recipe import Recipe

_FORMAT = "synthoma negatives 1"
Score = Annotated[float, Field(ge=0, le=1)]


class Negative(Recipe):
    """A place where a model saw a tumor of an organ though there is none.

    case: its id. center_mm: RAS+. score: how sure the model was. volume_ml: of what it saw.
    """

    case: str
    organ: str
    center_mm: tuple[float, float, float]
    score: Score
    volume_ml: Annotated[float, Field(ge=0)]


_PLACES = TypeAdapter(tuple[Negative, ...])


def write_negatives(path: Path | str, places: Sequence[Negative], model: str = "") -> None:
    """The places as one JSON file, whole or not at all. model: whose false alarms they are."""
    disk.write_json(Path(path), {"format": _FORMAT, "model": model, "places": [place.as_dict() for place in places]})


def read_negatives(path: Path | str) -> tuple[Negative, ...]:
    """The places of such a file; `FileError` if it is none, or has no place in it."""
    content = disk.read_json(Path(path))
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise FileError(f"{path} is no file of false alarms", expected="one that `synthoma negatives` wrote")
    try:
        places = _PLACES.validate_python(content.get("places"))
    except ValidationError as error:
        raise FileError(f"{path} is damaged", found=str(error.errors()[0]["msg"])) from error
    if not places:
        raise FileError(f"{path} has no false alarm in it", fix="train without patches.negatives")
    return places
