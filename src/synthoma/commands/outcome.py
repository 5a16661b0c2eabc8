"""What a command did: a record per case, what could not be read as a case, and the run's own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from synthoma.datasets.layouts.opening import Dataset
from synthoma.engine.records import CaseRecord
from synthoma.errors import SynthomaError
from synthoma.reading import open_dataset
from synthoma.recipe import Recipe, find_recipe, read_recipe

RecipeType = TypeVar("RecipeType", bound=Recipe)


@dataclass(frozen=True)
class Outcome:
    """What became of every case, in the order of the data set.

    out: the run folder. records: one a case; a failed one says why. faults: what could not even be read as a case.
    summary: the figures that the run's record holds.
    """

    out: Path
    records: Sequence[CaseRecord]
    faults: Sequence[SynthomaError] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Case -> what went wrong, in one sentence."""
        return {record.case: record.error for record in self.records if record.status == "failed"}

    def __repr__(self) -> str:
        failed = len(self.failed) + len(self.faults)
        return f"<Outcome {len(self.records) - len(self.failed)} cases done, {failed} failed: {self.out}>"


def as_dataset(data: Dataset | Path | str) -> Dataset:
    """A data set, opened if it is a folder."""
    return data if isinstance(data, Dataset) else open_dataset(data)


def as_recipe(kind: type[RecipeType], recipe: RecipeType | Path | str | None, folder: str = "") -> RecipeType:
    """A recipe, read if it is a TOML file or the name of one that comes along in `folder`; None for the defaults."""
    if isinstance(recipe, kind):
        return recipe
    if recipe is None:
        return read_recipe(kind)
    place = str(recipe)
    return read_recipe(kind, find_recipe(place, folder) if folder else Path(place))
