"""What a case is made from: its digest follows every byte and fact, its stamp every change, and neither the place."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthoma.cases import Case, Label
from synthoma.datasets.layouts.ircadb import DicomMasks
from synthoma.inputs import Reads
from synthoma.volume import Geometry, Volume

LONG_AGO = 1_600_000_000


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def case_in(folder: Path) -> Case:
    return Case(
        "a", folder / "ct", {"liver": folder / "liver", "kidney": Label(folder / "map", (2,))}, attributes={"sex": "F"}
    )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write(tmp_path / "one", ct="scan", liver="mask", map="labels")
    return case_in(tmp_path / "one")


@pytest.mark.parametrize("changed", ["ct", "liver", "map"])
def test_a_byte_of_any_file_changes_the_digest_and_its_return_restores_it(case: Case, changed: str) -> None:
    assert isinstance(case.image, Path)
    path = case.image.with_name(changed)
    before, text = case.reads().digest(), path.read_text()
    path.write_text(text.upper())
    assert case.reads().digest() != before
    path.write_text(text)
    assert case.reads().digest() == before


def test_what_is_known_of_a_case_is_part_of_its_digest(case: Case) -> None:
    others = [
        replace(case, patient="b"),
        replace(case, attributes={"sex": "M"}),
        replace(case, masks={**case.masks, "kidney": Label(case.masks["kidney"].path, (3,))}),  # type: ignore[union-attr]
        replace(case, masks={"liver": case.masks["kidney"], "kidney": case.masks["liver"]}),
        replace(case, masks={"liver": case.masks["liver"]}),
    ]
    assert len({case.reads().digest(), *(other.reads().digest() for other in others)}) == 1 + len(others)


def test_the_digest_is_the_same_wherever_the_files_lie(case: Case, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert case_in(tmp_path / "two").reads().digest() == case.reads().digest()


def test_a_folder_counts_with_every_file_below_it_and_a_header_with_its_voxels(tmp_path: Path) -> None:
    write(tmp_path, series__1="a", series__more__2="b", **{"scan.mhd": "header", "scan.raw": "voxels"})
    series, scan = Reads(None, (tmp_path / "series",)), Reads(None, (tmp_path / "scan.mhd",))
    before = series.digest(), scan.digest()
    write(tmp_path, series__more__2="c", **{"scan.raw": "other"})
    assert series.digest() != before[0]
    assert scan.digest() != before[1]


def test_masks_made_by_a_function_with_paths_count_with_those_and_memory_with_its_voxels(tmp_path: Path) -> None:
    write(tmp_path, masks__1="a")
    volume = Volume(np.zeros((2, 2, 2), np.int16), Geometry((2, 2, 2), np.eye(4)))
    other = Volume(np.ones((2, 2, 2), np.int16), volume.geometry)
    case = Case("a", volume, {"liver": DicomMasks((tmp_path / "masks",))})
    before = case.reads().digest()
    assert replace(case, image=other).reads().digest() != before
    write(tmp_path, masks__1="b")
    assert case.reads().digest() != before


def test_a_file_that_is_not_there_has_a_digest_of_its_own_and_no_stamp(case: Case) -> None:
    assert isinstance(case.image, Path)
    before = case.reads().digest()
    case.image.unlink()
    assert case.reads().digest() != before
    assert case.reads().stamp() == ""


def test_a_stamp_follows_a_change_that_keeps_size_and_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(case.image, Path)
    for path in case.reads().paths:
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert case.reads().stamp() == "", "changed a moment ago, so it may change again within the same tick"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    before = case.reads().stamp()
    assert before
    assert case.reads().stamp() == before
    case.image.write_text("SCAN")
    os.utime(case.image, (LONG_AGO, LONG_AGO))
    assert case.reads().stamp() not in ("", before)
