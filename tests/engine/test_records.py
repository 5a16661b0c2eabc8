"""Which records of an earlier start hold, and a run in one piece that was begun on other files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from synthoma.engine.records import require_unchanged
from synthoma.errors import RunError
from synthoma.inputs import Reads
from synthoma.recipe import Recipe
from synthoma.runs import open_run


@dataclass(frozen=True)
class Scan:
    id: str
    path: Path

    def reads(self) -> Reads:
        return Reads(self.id, (self.path,))


@pytest.fixture
def scans(tmp_path: Path) -> list[Scan]:
    found = [Scan(name, tmp_path / name) for name in "abc"]
    for scan in found:
        scan.path.write_text("four")
    return found


def train_on(scans: list[Scan], out: Path) -> None:
    with open_run(out, "train", Recipe()) as run:
        require_unchanged(run, scans, Scan.reads)


def test_a_training_goes_on_with_the_cases_it_was_begun_with(scans: list[Scan], tmp_path: Path) -> None:
    train_on(scans, tmp_path / "out")
    scans[0].path.touch()
    train_on(scans, tmp_path / "out")


def test_a_training_refuses_files_that_have_changed_and_other_cases(scans: list[Scan], tmp_path: Path) -> None:
    train_on(scans, tmp_path / "out")
    with pytest.raises(RunError, match=r"other cases.*found c;"):
        train_on(scans[:2], tmp_path / "out")
    scans[1].path.write_text("five")
    for _ in range(2):  # a refusal does not make the new files the known ones
        with pytest.raises(RunError, match="found b;"):
            train_on(scans, tmp_path / "out")
    with pytest.raises(RunError, match="found b, d;"):
        train_on([*scans, Scan("d", scans[0].path)], tmp_path / "out")
